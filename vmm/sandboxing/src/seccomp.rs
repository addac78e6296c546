//! Turns lists of calls into a BPF program and loads it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use libc::{c_long, c_ulong};
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::SandboxError;
use super::system_call::{Call, Only};

/// What a forbidden call does: a SIGSYS that ends the process with a core-less death the
/// supervisor reports. A domain that is restarted is better than one that is owned.
const FORBIDDEN: SeccompAction = SeccompAction::KillProcess;

/// Loads a filter on the calling thread that allows these calls and ioctl requests, and nothing else: anything else is the end of the
/// process (SIGSYS). Of several entries for one call each allows its part. What is [`Only::Absent`] is answered, and does nothing.
///
/// # Errors
/// The kernel does not take it: the thread must read nothing.
pub fn load(
    calls: impl Iterator<Item = Call>,
    ioctls: impl Iterator<Item = c_ulong>,
) -> Result<(), SandboxError> {
    let (absent, calls): (Vec<_>, Vec<_>) =
        calls.partition(|call| matches!(call.only, Only::Absent));
    let mut absent: Vec<_> = absent.into_iter().map(|call| call.number).collect();
    absent.retain(|number| calls.iter().all(|call| call.number != *number));
    // Of two filters the stricter answer counts: the first refuses what the second lets pass.
    if !absent.is_empty() {
        let rules = absent.iter().map(|number| (*number, vec![])).collect();
        let refused = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        apply(SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::x86_64))?;
    }
    apply(filter(calls.into_iter(), absent.into_iter(), ioctls))
}

/// Loads a filter on the calling thread that answers these calls, if the argument is as given (call, argument counted from 0, value of an `int`), as a kernel does
/// that has no such call (`ENOSYS`), for a caller that has another way. [`load`], which comes after it, has to let them pass: of two filters the stricter
/// answer counts.
///
/// # Errors
/// The kernel does not take it: the thread must read nothing.
pub fn refuse(requests: &[(c_long, u8, u64)]) -> Result<(), SandboxError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (number, index, value) in requests {
        let rule =
            one_of(*index, std::iter::once(*value), None).map_err(seccompiler::Error::from)?;
        rules.entry(*number).or_default().extend(rule);
    }
    let refused = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    apply(SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::x86_64))
}

fn apply(filter: Result<SeccompFilter, BackendError>) -> Result<(), SandboxError> {
    let program: seccompiler::BpfProgram =
        filter.and_then(TryInto::try_into).map_err(seccompiler::Error::from)?;
    Ok(apply_filter(&program)?)
}

fn filter(
    calls: impl Iterator<Item = Call>,
    answered: impl Iterator<Item = c_long>,
    ioctls: impl Iterator<Item = c_ulong>,
) -> Result<SeccompFilter, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        answered.map(|number| (number, vec![])).collect();
    for call in calls {
        let allowed = match call.only {
            // Those that are absent are not here.
            Only::Any | Only::Absent => vec![],
            Only::Exactly(index, value) => {
                let whole = SeccompCmpArgLen::Qword;
                let equal = SeccompCondition::new(index, whole, SeccompCmpOp::Eq, value)?;
                vec![SeccompRule::new(vec![equal])?]
            }
            Only::OneOf(index, values) => one_of(index, values.iter().copied(), None)?,
            Only::Without(bits) => {
                let clear =
                    |(index, bits): &(u8, u64)| argument(*index, SeccompCmpOp::MaskedEq(*bits), 0);
                vec![SeccompRule::new(bits.iter().map(clear).collect::<Result<_, _>>()?)?]
            }
            Only::Bits(bits) => {
                let equal = |(index, mask, value): &(u8, u64, u64)| {
                    argument(*index, SeccompCmpOp::MaskedEq(*mask), *value)
                };
                vec![SeccompRule::new(bits.iter().map(equal).collect::<Result<_, _>>()?)?]
            }
            Only::OwnThreads(signals) => {
                let process = argument(0, SeccompCmpOp::Eq, std::process::id().into())?;
                one_of(2, signals.iter().copied(), Some(process))?
            }
        };
        match (rules.entry(call.number), allowed.is_empty()) {
            // No condition at all: whatever else says more allows no more.
            (entry, true) => *entry.or_default() = vec![],
            (Entry::Vacant(entry), false) => {
                entry.insert(allowed);
            }
            (Entry::Occupied(mut entry), false) if !entry.get().is_empty() => {
                entry.get_mut().extend(allowed);
            }
            (Entry::Occupied(_), false) => {}
        }
    }
    // Without any all of them are forbidden.
    let ioctls = one_of(1, ioctls, None)?;
    if !ioctls.is_empty() {
        rules.insert(libc::SYS_ioctl, ioctls);
    }
    SeccompFilter::new(rules, FORBIDDEN, SeccompAction::Allow, TargetArch::x86_64)
}

/// Makes the condition about the lower half of an argument: an `int`, or flags.
fn argument(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value & 0xffff_ffff)
}

fn one_of(
    index: u8,
    values: impl Iterator<Item = u64>,
    and: Option<SeccompCondition>,
) -> Result<Vec<SeccompRule>, BackendError> {
    values
        .map(|value| {
            let equal = argument(index, SeccompCmpOp::Eq, value)?;
            SeccompRule::new([equal].into_iter().chain(and.clone()).collect())
        })
        .collect()
}
