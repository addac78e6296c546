//! Every kind of entry and what it says. Never content: sizes, types, hashes, names, verdicts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::form::{Form, Outcome, Verdict};
use super::table::{catalogue, mark, role};
use super::{Actor, Field, Kind, Role};

catalogue! {
    /// guests ran while no agent did: nothing crossed, and they had no USB device; the entry before is the last of the agent before
    AgentGap = "agent-gap" {
        /// the domains whose guests run on, which this agent took up
        domains: Vec<String>,
        /// the domains whose VMMs had ended meanwhile, or could not be taken up and are started anew
        ended: Option<Vec<String>>,
        /// for how many seconds it was at most
        seconds: Option<u64>,
    }
    /// the agent ended in order and left guests running for the next one
    AgentLeft = "agent-left" {
        /// the domains whose guests run on
        domains: Vec<String>,
    }
    /// the agent runs, under which policy
    AgentStarted = "agent-started" {
        /// the serial of the policy in force
        policy: u64,
        /// why the policy file was refused, if it was: the last good policy is in force then
        @outcome policy_file_refused: Option<String>,
        /// whether officers signed the policy in force
        signed: bool,
        /// who signed it
        signers: Vec<String>,
        /// the agent's version
        version: String,
    }
    /// the agent ended in order
    AgentStopped = "agent-stopped" {}
    /// somebody asked something over the control socket, and how that ended
    Asked = "asked" by Account {
        /// the domain that was named
        domain: Option<String>,
        /// the account of the user, where the PC has one of that number
        @who account: Option<String>,
        /// the USB device that was named, by where it is plugged in
        bus_id: Option<String>,
        /// how it ended, or that it was begun
        @outcome outcome: Outcome,
        /// the number of the entry `asking` that came before it was done
        @who request: Option<u64>,
        /// that it stands for so many with the same outcome since the entry before; none where it is one
        times: Option<u64>,
        /// the user; none where further users are counted together
        @who uid: Option<u32>,
        /// the request
        what: String,
        /// why it was not done
        @outcome why: Option<String>,
    }
    /// somebody asks over the control socket for something that changes what is, before it is done
    Asking = "asking" by Account {
        /// the domain that is named
        domain: Option<String>,
        /// the account of the user, where the PC has one of that number
        @who account: Option<String>,
        /// the USB device that is named, by where it is plugged in
        bus_id: Option<String>,
        /// the user
        @who uid: u32,
        /// the request
        what: String,
    }
    /// break-glass was open and asked for again, and is open no longer by that
    BreakGlassAskedAgain = "break-glass-asked-again" by Person {
        /// the serial of the policy that provides it
        policy: u64,
        /// who asked
        @who by: String,
        /// the reason that was given or chosen
        reason: String,
        /// for how long it stays open
        seconds: u64,
        /// for how long it was asked for
        seconds_asked: u64,
    }
    /// break-glass closed, and why
    BreakGlassClosed = "break-glass-closed" by Various {
        /// who or what closed it: somebody, its time, another policy, a sleep of the PC, a log that cannot be written
        why: String,
    }
    /// break-glass opened, by whom, why and for how long
    BreakGlassOpened = "break-glass-opened" by Person {
        /// the serial of the policy that provides it
        policy: u64,
        /// who opened it
        @who by: String,
        /// the reason that was given or chosen
        reason: String,
        /// for how long it is open
        seconds: u64,
    }
    /// break-glass was open, and is open longer
    BreakGlassProlonged = "break-glass-prolonged" by Person {
        /// the serial of the policy that provides it
        policy: u64,
        /// who prolonged it
        @who by: String,
        /// the reason that was given or chosen
        reason: String,
        /// for how long it is open from now on
        seconds: u64,
        /// for how long it would have been open anyway
        seconds_before: u64,
    }
    /// the log was found broken when it was opened
    ChainBroken = "chain-broken" {
        /// where, and how
        what: String,
    }
    /// a signature over all that is before it
    Checkpoint = "checkpoint" {
        /// Ed25519, of this PC's audit key
        signature: Option<String>,
    }
    /// a paste, its verdict, and what was found in it
    ClipboardPaste = "clipboard" by Person, permits {
        /// the domain it was to come into
        domain: String,
        /// the policy's verdict; `deny` also for content that is unfit
        @outcome verdict: Verdict,
        /// the rule that decided
        rule: Option<String>,
        /// the serial of the policy
        policy: u64,
        /// what the person at the seat answered, or why there was no answer
        @outcome answer: Option<String>,
        /// whether it was allowed by break-glass only
        break_glass: bool,
        /// the size of what was copied
        bytes: u64,
        /// the domain it was copied in
        from: String,
        /// the detectors that found something
        hits: Option<Vec<String>>,
        /// the detectors that looked
        inspected: Option<Vec<String>>,
        /// what was cleaned out of it
        normalised: Option<String>,
        /// the hash of what was to cross, after cleaning; of a picture that was not decoded, as it was copied
        sha256: String,
        /// the domain it was to come into
        to: String,
        /// its media type
        r#type: String,
        /// why it could not cross under any policy: what is wrong with the content, or that it was not decoded
        @outcome unfit: Option<String>,
    }
    /// something was copied out of a domain
    ClipboardCopied = "clipboard-copied" by Person {
        /// the domain it was copied in
        domain: String,
        /// its size
        bytes: u64,
        /// its hash
        sha256: String,
        /// its media type
        r#type: String,
    }
    /// an allowed paste did not reach its domain
    ClipboardNotDelivered = "clipboard-not-delivered" {
        /// the domain it was to come into
        domain: String,
        /// why it did not
        @outcome why: String,
    }
    /// a guest's clipboard agent broke the protocol
    ClipboardStreamRefused = "clipboard-stream-refused" by Guest {
        /// the domain whose guest did
        domain: String,
        /// what it did last
        @outcome problem: String,
        /// how often since the entry before
        times: u64,
    }
    /// a domain took what was pasted into it
    ClipboardTaken = "clipboard-taken" by Guest {
        /// the domain that did
        domain: String,
    }
    /// an offered paste was taken back
    ClipboardWithdrawn = "clipboard-withdrawn" {
        /// the domain that had the offer
        domain: String,
        /// the serial of the policy in force
        policy: u64,
        /// why it was taken back
        why: String,
    }
    /// the PC's clock was set
    ClockStep = "clock-step" {
        /// what the clock would have said
        expected: String,
        /// by how many seconds it was set forward; back if negative
        seconds: i64,
    }
    /// a domain's state changed
    DomainChanged = "domain" {
        /// the domain
        domain: String,
        /// its state before
        from: String,
        /// the process of its VMM, if there is one
        pid: Option<i32>,
        /// what went wrong, if something did
        @outcome problem: Option<String>,
        /// the number of the entry `asking` of the request that brought it about; `running` or `off` is how that ended
        @who request: Option<u64>,
        /// its state now
        @outcome to: String,
    }
    /// a part of the agent died of a fault
    PartFailed = "failed" {
        /// which part
        what: String,
    }
    /// a guest image is to come into force at the next start of its domains; the entry may follow that, if no agent ran
    ImageActivated = "image-activated" by Account {
        /// when it was done, by the PC's clock then
        at: String,
        /// the image's name
        image: String,
        /// its serial
        serial: u64,
        /// the user who did it
        @who uid: u32,
    }
    /// a guest image came into force with the start of a domain
    ImageInForce = "image-in-force" {
        /// when it did, by the PC's clock then
        at: Option<String>,
        /// the domain
        domain: String,
        /// the image's name
        image: String,
        /// the SHA-256 digest of its manifest, as `images sign` shows it
        manifest: Option<String>,
        /// its serial
        serial: u64,
    }
    /// a guest image was installed, or begun to be: this is written before; it is not in force by that
    ImageInstalled = "image-installed" by Account {
        /// when it was done, by the PC's clock then
        at: String,
        /// the lowest serial that may come into force from then on, if no floor before is higher
        floor: Option<u64>,
        /// the image's name
        image: String,
        /// the SHA-256 digest of its manifest, as `images sign` shows it
        manifest: Option<String>,
        /// `true` if it was there before, damaged or with other signatures
        repaired: Option<bool>,
        /// its serial
        serial: u64,
        /// the officers who signed it
        @who signers: Vec<String>,
        /// the serial of the trust store by which they may, if that has one
        trust: Option<u64>,
        /// the user who did it
        @who uid: u32,
    }
    /// something was refused that was to be done with guest images
    ImageRefused = "image-refused" by Account {
        /// when it was, by the PC's clock then
        at: String,
        /// the image's name, if it is known
        image: Option<String>,
        /// its serial, if it is known
        serial: Option<u64>,
        /// the user who tried
        @who uid: u32,
        /// why
        @outcome why: String,
    }
    /// a guest image was removed
    ImageRemoved = "image-removed" by Account {
        /// when it was done, by the PC's clock then
        at: String,
        /// the image's name
        image: String,
        /// its serial
        serial: u64,
        /// the user who did it
        @who uid: u32,
    }
    /// the guest of a new image did not come up in its time
    ImageReturned = "image-returned" {
        /// when its time was over, by the PC's clock then
        at: Option<String>,
        /// the domain whose guest it was
        domain: String,
        /// the serial that is in force again; none if it stays
        @outcome back: Option<u64>,
        /// the image's name
        image: String,
        /// its serial
        serial: u64,
        /// why it stays, if it does
        @outcome stays: Option<String>,
    }
    /// a guest image is to come into force again, in the place of a newer one
    ImageRolledBack = "image-rolled-back" by Account {
        /// when it was done, by the PC's clock then
        at: String,
        /// the image's name
        image: String,
        /// its serial; none if a first activation was taken back, so that none is in force
        serial: Option<u64>,
        /// the user who did it
        @who uid: u32,
    }
    /// a keyboard, pointer or scanner came
    InputPlugged = "input-plugged" by Device {
        /// the domain it is tied to
        domain: Option<String>,
        /// what it calls itself
        device: String,
    }
    /// a keyboard, pointer or scanner went
    InputUnplugged = "input-unplugged" by Device {
        /// what it calls itself
        device: String,
    }
    /// the log was closed in order
    LogClosed = "log-closed" {}
    /// the log was opened
    LogOpened = "log-opened" {
        /// the format of what follows
        format: u64,
        /// how many entries at the end no checkpoint had signed
        unsigned: Option<u64>,
    }
    /// old entries went to make room
    OldestDropped = "oldest-dropped" {
        /// the first of them
        first: u64,
        /// the last of them
        last: u64,
        /// the hash of the last of them
        last_hash: String,
    }
    /// the PC slept, though it is kept from it: the screen was locked, and the domains with devices of their own are restarted
    PcSlept = "pc-slept" {
        /// the domains that are restarted
        domains: Vec<String>,
        /// how long it slept
        seconds: u64,
    }
    /// another policy came into force
    PolicyApplied = "policy-applied" by Account, permits {
        /// its serial
        policy: u64,
        /// the account of the user who applied it, where the PC has one of that number
        @who account: Option<String>,
        /// the issuer it names
        issuer: String,
        /// the officers who signed it
        @who signers: Vec<String>,
        /// the user who applied it
        @who uid: u32,
    }
    /// a policy was refused
    PolicyRefused = "policy-refused" by Account {
        /// the account of the user who wanted to apply it, where the PC has one of that number
        @who account: Option<String>,
        /// the user who wanted to apply it
        @who uid: u32,
        /// what is wrong with it
        @outcome why: String,
    }
    /// a domain has wanted more of the PC than it got, for two minutes
    PressureBegan = "pressure-began" {
        /// the domain
        domain: String,
        /// how much of the last minute it waited, in percent
        percent: u32,
        /// for what: `processor`, `memory` or `disk`
        resource: String,
    }
    /// a domain that wanted more of the PC than it got has not for two minutes, or its VMM has ended
    PressureEnded = "pressure-ended" {
        /// the domain
        domain: String,
        /// how much of a minute it waited at the worst, in percent
        most_percent: u32,
        /// for what: `processor`, `memory` or `disk`
        resource: String,
        /// how long it was
        seconds: u64,
    }
    /// an update of Bulkhead that waited is called off: this is written before
    ProgramCancelled = "program-cancelled" by Account {
        /// when it was done, by the PC's clock then
        at: String,
        /// the SHA-256 digest of its manifest, as `program sign` shows it
        manifest: Option<String>,
        /// its serial
        serial: u64,
        /// the user who did it
        @who uid: u32,
        /// the version of the package
        version: String,
    }
    /// a version of Bulkhead that a bundle brought is in force
    ProgramInForce = "program-in-force" by Account {
        /// when it was, by the PC's clock then
        at: String,
        /// the SHA-256 digest of its manifest, as `program sign` shows it
        manifest: Option<String>,
        /// `true` if it was there before, and somebody wanted it back
        rollback: Option<bool>,
        /// its serial
        serial: u64,
        /// the user who wanted it
        @who uid: u32,
        /// the version of the package
        version: String,
        /// what there is to say of it
        @outcome why: Option<String>,
    }
    /// a bundle with a version of Bulkhead was taken, to be installed: this is written before
    ProgramInstalled = "program-installed" by Account {
        /// when it was done, by the PC's clock then
        at: String,
        /// the lowest serial that may come from then on, if no floor before is higher
        floor: Option<u64>,
        /// the SHA-256 digest of its manifest, as `program sign` shows it
        manifest: Option<String>,
        /// its serial
        serial: u64,
        /// the officers who signed it
        @who signers: Vec<String>,
        /// the serial of the trust store by which they may, if that has one
        trust: Option<u64>,
        /// the user who did it
        @who uid: u32,
        /// the version of the package
        version: String,
    }
    /// a new version of Bulkhead did not work, and the one before, which is installed again, does not either: the PC needs somebody
    ProgramNeitherWorks = "program-neither-works" {
        /// when it was, by the PC's clock then
        at: String,
        /// the serial of the one before
        @outcome back: Option<u64>,
        /// its serial
        serial: u64,
        /// the version of the package
        version: String,
        /// why neither does
        @outcome why: String,
    }
    /// a newer version of Bulkhead, which was there before, did something with packages that this one has no word for
    ProgramNoted = "program-noted" by Account {
        /// when it was done, by the PC's clock then
        at: String,
        /// the serial that it was about, if there is one
        serial: Option<u64>,
        /// the user who wanted it
        @who uid: u32,
        /// the version of the package, if there is one
        version: Option<String>,
        /// the newer version's word for it
        what: String,
        /// why
        @outcome why: Option<String>,
    }
    /// a version of Bulkhead was refused
    ProgramRefused = "program-refused" by Account {
        /// when it was, by the PC's clock then
        at: String,
        /// its serial, if it is known
        serial: Option<u64>,
        /// the user who tried
        @who uid: u32,
        /// the version of the package, if it is known
        version: Option<String>,
        /// why
        @outcome why: String,
    }
    /// the installation of a version of Bulkhead did not come to its end, for a reason that passes, and is tried again with the next start of its service
    ProgramRetried = "program-retried" {
        /// when it was, by the PC's clock then
        at: String,
        /// its serial
        serial: u64,
        /// how often it was tried
        tries: u64,
        /// the version of the package
        version: String,
        /// why
        @outcome why: String,
    }
    /// a new version of Bulkhead did not work
    ProgramReturned = "program-returned" {
        /// when it was, by the PC's clock then
        at: String,
        /// the serial that is in force again; none if there was nothing to go back to
        @outcome back: Option<u64>,
        /// its serial
        serial: u64,
        /// the version of the package
        version: String,
        /// why, and why nothing came back if nothing did
        @outcome why: String,
    }
    /// somebody wants the version of Bulkhead before back: this is written before
    ProgramRollback = "program-rollback" by Account {
        /// when it was done, by the PC's clock then
        at: String,
        /// the SHA-256 digest of its manifest, as `program sign` shows it
        manifest: Option<String>,
        /// the serial of the one before
        serial: u64,
        /// the user who did it
        @who uid: u32,
        /// its version
        version: String,
    }
    /// somebody asked for what they may not
    RequestRefused = "refused" by Account {
        /// the account of the user, where the PC has one of that number
        @who account: Option<String>,
        /// how often since the entry before
        times: u64,
        /// the user; none where further users are counted together
        @who uid: Option<u32>,
        /// the request, or that further users and requests are counted
        what: String,
        /// what they lack
        @outcome why: Option<String>,
    }
    /// a domain is shut down and begins anew, without anything that it wrote
    RenewalBegan = "renewal-began" by Various {
        /// the domain
        domain: String,
        /// who brought it about: a user, `the seat`, or `the policy`
        @who by: String,
        /// the number of the entry `asking`, if somebody asked for it
        @who request: Option<u64>,
        /// why: `command`, `time` or `idle`
        why: String,
    }
    /// the renewal of a domain has ended
    RenewalEnded = "renewal-ended" {
        /// the domain
        domain: String,
        /// how it ended
        @outcome outcome: Outcome,
        /// what went wrong
        @outcome problem: Option<String>,
        /// the number of the entry `asking`, if somebody asked for it
        @who request: Option<u64>,
        /// how long it took
        seconds: u64,
        /// why it was renewed: `command`, `time` or `idle`
        why: String,
    }
    /// the renewal of a domain was put off, which can be done once
    RenewalPutOff = "renewal-put-off" by Person {
        /// the domain
        domain: String,
        /// who put it off: `the seat`
        @who by: String,
        /// for how many seconds
        seconds: u64,
        /// why it was to be renewed: `time` or `idle`
        why: String,
    }
    /// the PC was started for rescue, without Bulkhead, since an agent last ran
    RescueBoot = "rescue-boot" {
        /// how often
        boots: u64,
        /// when the first time, by the PC's clock then
        first: String,
        /// when the last time
        last: Option<String>,
    }
    /// a VMM broke the link to the screen
    SeatLinkLost = "seat-link-lost" {
        /// its domain
        domain: String,
        /// what it did
        problem: String,
    }
    /// the screen was locked
    SeatLocked = "seat-locked" by Various {
        /// whether because nobody did anything
        idle: bool,
    }
    /// another domain came to the front
    SeatSwitched = "seat-switched" by Person {
        /// the domain in front now
        domain: String,
        /// the domain that was
        from: String,
    }
    /// the screen was unlocked
    SeatUnlocked = "seat-unlocked" by Person {}
    /// the state directory was an older one
    StateWentBack = "state-went-back" {
        /// what shows it
        what: String,
    }
    /// a line that was not written whole was put aside
    TornTailRepaired = "torn-tail-repaired" {
        /// how many bytes of it there were
        bytes: u64,
    }
    /// another trust store counts from now on
    TrustChanged = "trust-changed" {
        /// the officers who may sign from now on
        officers: Vec<String>,
        /// its serial
        serial: u64,
        /// the officers who signed the change; none if it is the first trust store whose changes are signed
        @who signers: Vec<String>,
    }
    /// a trust store was refused; the one before counts
    TrustRefused = "trust-refused" {
        /// the serial of the one that counts
        serial: u64,
        /// what is wrong with it
        @outcome why: String,
    }
    /// a USB device was judged, and the verdict
    UsbJudged = "usb" by Device, permits {
        /// the domain it goes to
        domain: Option<String>,
        /// the policy's verdict
        @outcome verdict: Verdict,
        /// the rule that decided
        rule: Option<String>,
        /// the serial of the policy
        policy: u64,
        /// whether break-glass was open
        break_glass: bool,
        /// where it is plugged in
        bus_id: String,
        /// what it is, as `--device` of `bulkhead policy explain` takes it
        device: String,
        /// what it calls itself
        name: Option<String>,
        /// the number of the entry `asking` of the request to attach it
        @who request: Option<u64>,
        /// the interfaces that the seat keeps: those of a keyboard or mouse in it
        seat_keeps_interfaces: Option<Vec<u8>>,
        /// the domain to which somebody attaches it by hand
        to: Option<String>,
    }
    /// a USB device reached a domain
    UsbAttached = "usb-attached", permits {
        /// the domain
        domain: String,
        /// where it is plugged in
        bus_id: String,
        /// the number of the entry `asking` of the request to attach it, which ends so
        @who request: Option<u64>,
    }
    /// what had passed through a USB device that was cut off
    UsbCounted = "usb-counted" {
        /// the domain it had been in
        domain: String,
        /// where it is plugged in
        bus_id: String,
        /// bytes of data that went to the device
        bytes_to_device: u64,
        /// bytes of data that went to the guest
        bytes_to_guest: u64,
        /// SCSI commands of the guest by operation code
        commands: BTreeMap<String, u64>,
        /// requests of the guest that were refused
        refused: u64,
        /// why it left
        why: String,
    }
    /// a USB device left its domain
    UsbDetached = "usb-detached" {
        /// the domain
        domain: String,
        /// where it is plugged in
        bus_id: String,
        /// bytes of data that went to the device; none if that is not known, 0 if what serves it never began
        bytes_to_device: Option<u64>,
        /// bytes of data that went to the guest, likewise
        bytes_to_guest: Option<u64>,
        /// SCSI commands of the guest by operation code, likewise
        commands: Option<BTreeMap<String, u64>>,
        /// whether it did not answer and was cut off
        device_hangs: Option<bool>,
        /// requests of the guest that were refused, likewise
        refused: Option<u64>,
        /// the number of the entry `asking` of the request to take it away, which ends so
        @who request: Option<u64>,
        /// why it left
        why: String,
    }
    /// a USB device could not be used
    UsbFailed = "usb-failed" {
        /// where it is plugged in
        bus_id: String,
        /// the number of the entry `asking` of the request to attach it, which ends so
        @who request: Option<u64>,
        /// why it could not
        @outcome why: String,
    }
    /// a guest asked a USB device for what it may not
    UsbRefused = "usb-refused" by Guest {
        /// the guest's domain
        domain: String,
        /// where it is plugged in
        bus_id: String,
        /// how often since the entry before
        times: u64,
        /// what it asked
        what: String,
    }
    /// a USB device could not be read
    UsbUnreadable = "usb-unreadable" by Device {
        /// where it is plugged in
        bus_id: String,
        /// the number of the entry `asking` of the request to attach it, which ends so
        @who request: Option<u64>,
        /// why it could not
        @outcome why: String,
    }
}
