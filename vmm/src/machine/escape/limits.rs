//! Every number of a system call, every argument next to one that is allowed: exactly what a role's list
//! says passes.

use std::collections::BTreeSet;

use libc::{c_long, c_ulong};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{FORBIDDEN, Role, Verdict, attempt};
use sandboxing::{Call, Only};

/// Above every number there is: 469 is the last of Linux 6.18.
const NUMBERS: c_long = 520;
/// The bit that makes a number one of the x32 interface's.
const X32: c_long = 0x4000_0000;
/// `uretprobe` and `uprobe`, by which the kernel's own probes come back: it lets them pass by every filter
/// (6.12), and refuses whoever did not come from a probe.
const PROBES: [c_long; 2] = [335, 336];
/// Of no use to any call: no descriptor, no process, no address, no flag.
const NOTHING: u64 = u64::MAX;

/// What a filter allows.
#[derive(Clone)]
pub(super) struct Allowlist {
    pub(super) calls: Vec<Call>,
    pub(super) ioctls: Vec<c_ulong>,
}

impl Allowlist {
    pub(super) fn of(role: Role) -> Self {
        Self {
            calls: role.calls().collect(),
            ioctls: role.ioctls().map(|(request, _)| request).collect(),
        }
    }

    /// Returns these, and this call whatever it is asked.
    pub(super) fn with(mut self, number: c_long) -> Self {
        self.calls.push(Call { number, only: Only::Any, name: "planted", why: "planted" });
        self
    }

    /// Returns these, and this request of ioctl.
    pub(super) fn asking(mut self, request: c_ulong) -> Self {
        self.ioctls.push(request);
        self
    }

    pub(super) fn load(&self) {
        sandboxing::load(self.calls.iter().copied(), self.ioctls.iter().copied()).unwrap();
    }

    fn limits(&self, number: c_long) -> impl Iterator<Item = Only> {
        self.calls.iter().filter(move |call| call.number == number).map(|call| call.only)
    }
}

/// Makes a system call, with its arguments.
pub(super) fn call(number: c_long, arguments: [u64; 6]) -> Result<u64, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the process exists for this call; what it does to its memory nobody sees.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(Errno::last()) } else { Ok(result as u64) }
}

/// One call to make under a filter.
struct Probe {
    number: c_long,
    arguments: [u64; 6],
    allowed: bool,
    /// It is answered with `ENOSYS`, and does nothing.
    absent: bool,
}

/// Finds what passes a filter of these lists and should not, or the other way round, by what the role says.
pub(super) fn findings(role: Role, lists: &Allowlist) -> Vec<String> {
    let mut found = Vec::new();
    let declared = Allowlist::of(role);
    for number in (0..NUMBERS).chain([X32 + libc::SYS_read, X32 + libc::SYS_execve]) {
        for probe in probes(&declared, number) {
            found.extend(check(role, lists, &probe));
        }
    }
    found.extend(old_interface(role, lists));
    found
}

/// Finds the same for what one call, or one ioctl, can be asked.
pub(super) fn findings_at(
    role: Role,
    lists: &Allowlist,
    what: &Widened,
) -> impl Iterator<Item = String> {
    probes(&Allowlist::of(role), what.number)
        .into_iter()
        .filter(|probe| what.request.is_none_or(|request| probe.arguments[1] == request))
        .filter_map(move |probe| check(role, lists, &probe))
}

fn check(role: Role, lists: &Allowlist, probe: &Probe) -> Option<String> {
    let verdict = attempt(
        || lists.load(),
        || {
            let own = u64::from(std::process::id());
            call(probe.number, probe.arguments.map(|it| if it == OWN { own } else { it })).map(drop)
        },
    );
    let refused = [Verdict::Died(Signal::SIGILL), Verdict::Refused(Errno::ENXIO)];
    let probe_of_kernel = PROBES.contains(&probe.number) && refused.contains(&verdict);
    let answered = !probe.absent || verdict == Verdict::Refused(Errno::ENOSYS);
    let passed = verdict != FORBIDDEN && !probe_of_kernel && answered;
    (passed != probe.allowed).then(|| {
        format!(
            "{role:?}: system call {} with {:x?} should {}: {verdict}",
            probe.number,
            probe.arguments,
            if probe.allowed { "pass" } else { "be the end" },
        )
    })
}

/// Returns what to try of a call: what is allowed, and everything that differs from that in one bit.
fn probes(lists: &Allowlist, number: c_long) -> Vec<Probe> {
    if number == libc::SYS_ioctl {
        return ioctls(lists);
    }
    let limits: Vec<_> = lists.limits(number).collect();
    let absent = limits.iter().any(|only| matches!(only, Only::Absent));
    if limits.is_empty() || absent || limits.iter().any(|only| matches!(only, Only::Any)) {
        let allowed = !limits.is_empty();
        return vec![Probe { number, arguments: [NOTHING; 6], allowed, absent }];
    }
    let mut tried = BTreeSet::new();
    for only in &limits {
        let mut base = [NOTHING; 6];
        let mut near = |index: u8, values: &[u64], bits: u32, base: [u64; 6]| {
            for value in values {
                for changed in (0..bits).map(|bit| value ^ 1 << bit).chain([*value]) {
                    let mut arguments = base;
                    arguments[usize::from(index)] = changed;
                    tried.insert(arguments);
                }
            }
        };
        match *only {
            Only::Any | Only::Absent => {}
            Only::Exactly(index, value) => near(index, &[value], 64, base),
            Only::OneOf(index, values) => near(index, values, 32, base),
            Only::Without(bits) => {
                for (index, _) in bits {
                    base[usize::from(*index)] = 0;
                }
                for (index, _) in bits {
                    near(*index, &[0], 32, base);
                }
            }
            Only::Bits(bits) => {
                for (index, _, value) in bits {
                    base[usize::from(*index)] = *value;
                }
                for (index, _, value) in bits {
                    near(*index, &[*value], 32, base);
                }
            }
            Only::OwnThreads(signals) => {
                // Nobody's thread, and this process's place is filled in by who runs it.
                for process in [OWN, 1, NOTHING] {
                    near(2, signals, 32, [process, NOTHING, 0, NOTHING, NOTHING, NOTHING]);
                }
            }
        }
    }
    tried
        .into_iter()
        .map(|arguments| Probe {
            number,
            allowed: limits.iter().any(|only| allows(*only, &arguments)),
            arguments,
            absent: false,
        })
        .collect()
}

/// Stands for the number of the process that makes the call.
const OWN: u64 = 0xffff_ffff_0000;

/// Returns whether a limit lets these arguments pass, in other words than the filter's.
fn allows(only: Only, arguments: &[u64; 6]) -> bool {
    let at = |index: u8| arguments[usize::from(index)];
    match only {
        Only::Any | Only::Absent => true,
        Only::Exactly(index, value) => at(index) == value,
        Only::OneOf(index, values) => values.iter().any(|value| at(index) as u32 == *value as u32),
        Only::Without(bits) => bits.iter().all(|(index, bits)| at(*index) & bits == 0),
        Only::Bits(bits) => bits.iter().all(|(index, mask, value)| at(*index) & mask == *value),
        Only::OwnThreads(signals) => {
            at(0) == OWN && signals.iter().any(|signal| at(2) as u32 == *signal as u32)
        }
    }
}

fn ioctls(lists: &Allowlist) -> Vec<Probe> {
    let near = |it: c_ulong| (0..32).map(move |bit| it ^ 1 << bit).chain([it]);
    let known = super::attempts::IOCTLS.iter().map(|(_, request)| *request);
    let requests: BTreeSet<c_ulong> =
        lists.ioctls.iter().copied().flat_map(near).chain(known).collect();
    requests
        .into_iter()
        .map(|request| Probe {
            number: libc::SYS_ioctl,
            arguments: [NOTHING, request, NOTHING, NOTHING, NOTHING, NOTHING],
            allowed: lists.ioctls.contains(&request),
            absent: false,
        })
        .collect()
}

/// Returns the number of a call of the old interface. The system calls of 32-bit programs have other numbers: `getpid` is 20 there, and 39 here.
fn old_interface(role: Role, lists: &Allowlist) -> Option<String> {
    let verdict = attempt(|| lists.load(), super::deeds::by_interrupt);
    (verdict == Verdict::Out).then(|| format!("{role:?}: int 0x80 passes"))
}

/// One step that a filter could be wider.
pub(super) struct Widened {
    number: c_long,
    request: Option<c_ulong>,
    name: &'static str,
}

impl std::fmt::Display for Widened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "more of {}", self.name)
    }
}

/// Makes each limited call of a role without its limit, and ioctls with one more.
pub(super) fn widened(role: Role) -> Vec<(Widened, Allowlist)> {
    let lists = Allowlist::of(role);
    let limited = lists.calls.iter().filter(|call| !matches!(call.only, Only::Any));
    let mut all: Vec<_> = limited
        .map(|call| {
            let what = Widened { number: call.number, request: None, name: call.name };
            (what, lists.clone().with(call.number))
        })
        .collect();
    for (name, request) in super::attempts::IOCTLS {
        let what = Widened { number: libc::SYS_ioctl, request: Some(*request), name };
        all.push((what, lists.clone().asking(*request)));
    }
    all
}
