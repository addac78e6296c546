//! What the audit log says of requests: who asks, and how it ended. Pure: facts go in, events come out.

use audit::AuditEvent;
use audit::events::{Asked, Asking, Outcome, RequestRefused, cut};

use super::commands;
use super::roles::Caller;

/// Returns the account at the other end of the control socket, where the host has one of its user's number.
#[must_use]
pub fn account(caller: &Caller) -> Option<String> {
    caller.account.as_deref().map(cut)
}

/// Something that somebody asks for, on the record: with an entry before it is done, and one when it has ended.
#[derive(Clone, Debug)]
pub struct Request(Asking);

impl Request {
    /// Reads who asks what.
    #[must_use]
    pub fn new(caller: &Caller, request: &commands::Request) -> Self {
        Self(Asking {
            domain: request.domain().map(cut),
            account: account(caller),
            bus_id: request.bus_id().map(cut),
            uid: caller.uid,
            what: request.word().to_owned(),
        })
    }

    /// Returns the event of who asks what, before anything of it is done.
    #[must_use]
    pub fn before(&self) -> AuditEvent {
        self.0.clone().into()
    }

    /// Returns the event of how a request ended, or how far it came while its caller waited. `request` is the number of the entry before
    /// it.
    #[must_use]
    pub fn ended(self, request: Option<u64>, outcome: Outcome, refusal: Option<&str>) -> Asked {
        let Asking { domain, account, bus_id, uid, what } = self.0;
        let (uid, times, why) = (Some(uid), None, refusal.map(cut));
        Asked { domain, account, bus_id, outcome, request, times, uid, what, why }
    }
}

/// Returns the event that somebody asked for what they may not.
#[must_use]
pub fn refused(caller: &Caller, request: &commands::Request, why: &str) -> RequestRefused {
    RequestRefused {
        account: account(caller),
        times: 1,
        uid: Some(caller.uid),
        what: request.word().to_owned(),
        why: Some(cut(why)),
    }
}
