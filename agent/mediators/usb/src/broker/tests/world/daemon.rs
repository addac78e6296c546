//! The daemon's part: it hears what the broker says, has the monitor decide, and tells the broker what came of that.

use std::sync::Arc;

use audit::events::Record;
use audit::{AuditEvent, Entry};
use monitor::core::Cause;
use monitor::{Denial, Request};

use super::{CLINICAL, Given, INTERNET, Plant, Wanted, World};
use crate::grant::{UsbAdmission, UsbGrant};
use crate::{Command, USB, UsbEvent};

impl World {
    /// The daemon tells the broker something.
    pub(super) fn tell(&mut self, command: Command) {
        self.mailbox.push_back(command);
        if !self.is_slow {
            self.takes_all();
        }
    }

    pub(super) fn tell_rules(&mut self) {
        let (which, open) = self.in_force;
        if self.plant != Plant::KeepsOnRules {
            self.tell(Command::Rules(Arc::clone(&self.policies[which]), open));
        }
    }

    /// What was permitted is on no record any more.
    pub(super) fn record_lost(&mut self) {
        self.given.iter_mut().for_each(|given| given.revoked = true);
        if self.plant != Plant::KeepsOnRecordLost {
            self.tell(Command::RecordLost);
        }
    }

    /// The broker's thread takes a command.
    pub(in super::super) fn takes(&mut self) {
        if let Some(command) = self.mailbox.pop_front() {
            self.bench.broker.command(command);
        }
    }

    pub(in super::super) fn takes_all(&mut self) {
        while !self.mailbox.is_empty() {
            self.takes();
        }
    }

    /// What the daemon does with what the monitor says, in the same turn; whether the broker was told of other rules.
    pub(super) fn carry_out(&mut self) -> bool {
        let mut rules = false;
        for event in self.monitor.events() {
            match event {
                monitor::Event::Revoke(_, Cause::Policy | Cause::BreakGlass) => {
                    rules = true;
                    self.tell_rules();
                }
                monitor::Event::Revoke(_, Cause::Record) => self.record_lost(),
                monitor::Event::Silence(_) | monitor::Event::Hide(_) => {}
            }
        }
        rules
    }

    /// The daemon hears what the broker has said, and keeps what that asks for.
    pub(in super::super) fn hear(&mut self) {
        let is_its = |record: &Record| {
            record.domain.as_deref() == Some("internet") || record.detail["bus_id"] == "1-5"
        };
        for event in self.bench.mediator.events() {
            let (record, wanted) = match event {
                UsbEvent::Note(event) => {
                    let record = event.record();
                    self.monitor.note(&[event]);
                    (record, None)
                }
                UsbEvent::Admit(request) => {
                    let record = AuditEvent::from(request.event.clone()).record();
                    (record, Some(Wanted::Admission(request)))
                }
                UsbEvent::Authorize(request) => {
                    let record = AuditEvent::from(request.event.clone()).record();
                    (record, Some(Wanted::Attachment(request)))
                }
                UsbEvent::Notice(socket, text) => {
                    if socket == "1-5" || text.contains("connected to INTERNET") {
                        self.said.push(text);
                    }
                    continue;
                }
                UsbEvent::Devices(_) => continue,
            };
            if is_its(&record) {
                self.said.push(format!("{record:?}"));
                self.said.extend(wanted.as_ref().map(|wanted| match wanted {
                    Wanted::Admission(it) => format!("{:?} {:?}", it.owed, it.grant),
                    Wanted::Attachment(it) => format!("{:?} {:?}", it.owed, it.grant),
                }));
            }
            if let Some(wanted) = wanted {
                let of = if record.detail["bus_id"] == "1-5" { INTERNET } else { CLINICAL };
                self.wanted[of].push(wanted);
            }
        }
        self.carry_out();
    }

    /// The daemon has the monitor decide on what is asked for of the device of this domain; whether anything may be recorded.
    pub(super) fn answer(&mut self, domain: usize, recorded: bool) {
        self.hear();
        if !recorded {
            self.monitor.withhold(Some("the policy cannot be remembered".to_owned()));
        }
        for wanted in std::mem::take(&mut self.wanted[domain]) {
            let denial = match wanted {
                Wanted::Admission(request) => self.admit(request),
                Wanted::Attachment(request) => self.authorize(request),
            };
            if domain == INTERNET {
                self.said.push(format!("{denial:?}"));
            }
            self.carry_out();
        }
        self.monitor.withhold(None);
    }

    fn admit(&mut self, request: Request<UsbAdmission>) -> Option<Denial> {
        let (number, of) = (request.number, request.grant.grant.domain.clone());
        if self.plant == Plant::PermitsItself {
            self.tell(Command::Admitted(number, monitor::testing::permit(request.grant, 1)));
            return None;
        }
        match self.monitor.authorize(USB, request) {
            Ok(permit) => {
                self.is_on_the_disk(permit.entry(), "usb", &of);
                self.tell(Command::Admitted(number, permit));
                None
            }
            Err(refused) => {
                self.tell(Command::Refused(number, refused.denial));
                Some(refused.denial)
            }
        }
    }

    fn authorize(&mut self, request: Request<UsbGrant>) -> Option<Denial> {
        let (number, domain) = (request.number, request.grant.domain.clone());
        if self.plant == Plant::PermitsItself {
            self.tell(Command::Permitted(number, monitor::testing::permit(request.grant, 1)));
            return None;
        }
        match self.monitor.authorize(USB, request) {
            Ok(permit) => {
                self.is_on_the_disk(permit.entry(), "usb-attached", &domain);
                self.given.push(Given { domain, revoked: false, told: None });
                self.tell(Command::Permitted(number, permit));
                None
            }
            Err(refused) => {
                self.tell(Command::Refused(number, refused.denial));
                Some(refused.denial)
            }
        }
    }

    /// Sees that the entry of a permit is on the disk, and is what was asked for.
    fn is_on_the_disk(&self, number: u64, kind: &str, domain: &str) {
        let mut found = None;
        audit::each(&recorder::directory(self.bench.dir.path()), |_, entry: Entry| {
            if entry.seq == number {
                found = Some((entry.kind, entry.domain));
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(found, Some((kind.to_owned(), Some(domain.to_owned()))));
    }
}
