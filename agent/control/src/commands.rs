//! The commands of the agent's control socket, `<runtime>/control.sock`: one row each, from which come the requests, who may make them,
//! what of them is in the audit log, the command line's help and `docs/it/control-commands.md`.
//!
//! To add one: a row here, and the method it names in the daemon's `impl Serve`. With `says` it is a command of `bulkhead` as well.
//!
//! ```text
//!     /// What it does: the help, and the handbook.
//!     method: "name" => Variant { /// What the value is.
//!                                 key: Type, } {
//!         may: "what a refused caller may not do" [the roles that may; root may always],
//!         audit: what of it is recorded, and its word there (or another if a key's value says so),
//!         changes: whether it changes what is, or lets something through,
//!         often: Counted, // or Refused: what becomes of it when one user asks too often, if that is not said by `changes`
//!         until_settled: domain, // if what it began ends when that domain is settled
//!         line: "how a person asks for it, after `bulkhead`",
//!         says: "what a person is told when it is done",
//!     }
//! ```

use super::table::{self, AuditRule};

commands! {
    /// Show every domain, its NIC, and the host's own network; exits with 1 if nothing can be recorded or a domain is down that should run
    status: "status" => Status {} {
        may: "see the status" [User, It, Officer],
        audit: Nothing "status",
        changes: false,
        line: "status",
    }

    /// Print the text of the policy in force on this PC
    policy: "policy" => Policy {} {
        may: "see the policy in force" [It, Officer],
        audit: Nothing "policy",
        changes: false,
        line: "policy show",
    }

    /// Run a domain, and wait until it runs
    start: "start" => Start {
        /// The domain's name, as in the machine file
        domain: String,
    } {
        may: "start a domain" [It],
        audit: Begun "start",
        changes: true,
        until_settled: domain,
        line: "start DOMAIN",
    }

    /// Shut a domain down, and wait until it is off and its NIC is back with the host
    stop: "stop" => Stop {
        /// The domain's name, as in the machine file
        domain: String,
        /// Switch it off without asking its guest
        #[serde(default)]
        now: bool,
    } {
        may: "stop a domain" [It, Officer],
        audit: Begun "stop" or "stop-now" if *now,
        changes: true,
        until_settled: domain,
        often: Counted,
        line: "stop DOMAIN [--now]",
    }

    /// Shut a domain down and run it again
    restart: "restart" => Restart {
        /// The domain's name, as in the machine file
        domain: String,
    } {
        may: "restart a domain" [It],
        audit: Begun "restart",
        changes: true,
        until_settled: domain,
        line: "restart DOMAIN",
    }

    /// Shut a domain down, throw away all that it wrote since its start, and run it again; only of one with `persistence = "discard"`
    renew: "renew" => Renew {
        /// The domain's name, as in the machine file
        domain: String,
    } {
        may: "renew a domain" [It],
        audit: Begun "renew",
        changes: true,
        until_settled: domain,
        line: "renew DOMAIN",
    }

    /// Reset a hung guest at once, as the button on a PC does
    reset: "reset" => Reset {
        /// The domain's name, as in the machine file
        domain: String,
    } {
        may: "reset a domain" [It],
        audit: Done "reset",
        changes: true,
        line: "reset DOMAIN",
    }

    /// Bring a domain to the front, as its hotkey does
    switch: "switch" => Switch {
        /// The domain's name, as in the machine file
        domain: String,
    } {
        may: "switch to a domain" [User, It],
        audit: Done "switch",
        changes: false,
        often: Refused,
        line: "switch DOMAIN",
        says: "{domain} is in front",
    }

    /// Lock the screen, as the lock hotkey does
    lock: "lock" => Lock {} {
        may: "lock the screen" [User, It, Officer],
        audit: Done "lock",
        changes: false,
        line: "lock",
        says: "locked",
    }

    /// Unlock the screen, as the lock hotkey does on a locked screen
    unlock: "unlock" => Unlock {} {
        may: "unlock the screen" [It],
        audit: Done "unlock",
        changes: true,
        line: "unlock",
        says: "unlocked",
    }

    /// Take what a domain has in its clipboard, as the copy hotkey does with it in front; only on a PC without a seat
    copy: "copy" => Copy {
        /// The domain it is in
        domain: String,
    } {
        may: "copy and paste between domains" [User, It],
        audit: Begun "copy",
        changes: false,
        line: "clipboard copy --from DOMAIN",
    }

    /// Offer what was taken to a domain, if the policy says so, as the paste hotkey does with it in front; prints the verdict; only on a PC without a seat
    paste: "paste" => Paste {
        /// The domain to paste into
        domain: String,
    } {
        may: "copy and paste between domains" [User, It],
        audit: Begun "paste",
        changes: true,
        line: "clipboard paste --to DOMAIN [--yes]",
    }

    /// Tell how far a copy or paste of the command line is
    clipboard_outcome: "clipboard-outcome" => ClipboardOutcome {
        /// Its number, from the answer to `copy` or `paste`
        ticket: u64,
    } {
        may: "copy and paste between domains" [User, It],
        audit: Nothing "clipboard-outcome",
        changes: false,
        line: "",
    }

    /// Answer the question that a copy or paste of the command line led to
    clipboard_answer: "clipboard-answer" => ClipboardAnswer {
        /// Its number, from the answer to `copy` or `paste`
        ticket: u64,
        /// The answer
        yes: bool,
    } {
        may: "copy and paste between domains" [User, It],
        audit: Begun "clipboard-no" or "clipboard-yes" if *yes,
        changes: *yes,
        line: "",
    }

    /// Show every USB device, who has it, and why
    usb_list: "usb-list" => UsbList {} {
        may: "see USB devices" [User, It, Officer],
        audit: Nothing "usb-list",
        changes: false,
        line: "usb list",
    }

    /// Attach a device to a domain, if a rule of the policy for that domain admits it
    usb_attach: "usb-attach" => UsbAttach {
        /// Where it is plugged in, as `bulkhead usb list` shows it
        bus_id: String,
        /// The domain's name, as in the machine file
        domain: String,
    } {
        may: "attach USB devices" [User, It],
        audit: Begun "usb-attach",
        changes: true,
        line: "usb attach BUSID DOMAIN",
    }

    /// Take a device away from its domain; it stays off until it is attached or plugged in again
    usb_detach: "usb-detach" => UsbDetach {
        /// Where it is plugged in
        bus_id: String,
    } {
        may: "attach USB devices" [User, It],
        audit: Begun "usb-detach",
        changes: true,
        often: Counted,
        line: "usb detach BUSID",
    }

    /// For a limited time, and on the record, let rules count that are kept for emergencies
    break_glass: "break-glass" => BreakGlass {
        /// Why, in words; it goes on the record
        #[serde(default)]
        reason: Option<String>,
        /// For how many seconds; as long as the policy allows if left out
        #[serde(default)]
        seconds: Option<u64>,
    } {
        may: "open break-glass" [User, It],
        audit: Done "break-glass",
        changes: true,
        line: "break-glass --reason TEXT [--for TIME]",
    }

    /// Close break-glass before its time is over
    end_break_glass: "end-break-glass" => EndBreakGlass {} {
        may: "close break-glass" [User, It, Officer],
        audit: Done "break-glass-end",
        changes: true,
        often: Counted,
        line: "break-glass --end",
    }

    /// Put a policy in force on this PC, without restarting a guest; refused, the one in force stays
    apply_policy: "apply-policy" => ApplyPolicy {
        /// The whole text of the policy file, as it was signed
        policy: String,
        /// The text of the file with its signatures
        #[serde(default)]
        signatures: Option<String>,
    } {
        may: "put a policy in force" [Officer],
        audit: Itself "apply-policy",
        changes: true,
        line: "policy apply FILE",
    }
}

impl Request {
    /// Returns whether it is only begun when it is answered.
    #[must_use]
    pub fn takes_time(&self) -> bool {
        self.command().recorded == AuditRule::Begun
    }

    /// Reads a line of the control socket: one JSON object with the keys of its command, each once, and no others.
    ///
    /// # Errors
    /// It is none.
    pub fn read(line: &[u8]) -> Result<Self, RequestError> {
        // Serde would also take a list of the values, in the order of their keys.
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err(RequestError::NotAnObject);
        }
        Ok(serde_json::from_slice(line)?)
    }
}

/// What is wrong with a line that is no request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("a request is a JSON object, such as {{\"command\":\"status\"}}")]
    NotAnObject,
    #[error(transparent)]
    Unreadable(#[from] serde_json::Error),
}

/// Returns what a command of this name does, for help.
#[must_use]
pub fn about(name: &str) -> &'static str {
    find(name).map(|command| command.about).unwrap_or_default()
}

/// Returns the command of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static table::Command> {
    COMMANDS.iter().copied().find(|command| command.name == name)
}
