//! The numbers that workers run under, which are to be nobody else's on this PC: who has one could signal a worker, and is held back from nothing that
//! only its user is kept from.
//!
//! One has an account, that of the workers that see no guest. Those of the domains' workers below it have none. Debian gives no number from 60000 to 64999
//! to an account by itself; systemd gives one from 61184 to 65519 that has no account to each service with `DynamicUser=yes`, while that runs, which is not
//! looked at here.

use std::io;
use std::ops::RangeInclusive;

use base::accounts::Accounts;
use worker_link::{USER, USER_FIRST, USER_NAME};

/// What to do about it.
pub const REMEDY: &str = "give them another number (`usermod -u`, `groupmod -g`) and restart the PC; then `systemd-sysusers bulkhead.conf`";

/// All numbers that workers run under.
pub const ALL: RangeInclusive<u32> = USER_FIRST..=USER;

/// Returns who has one of these numbers of the workers', besides the account that the package makes, in words; `None` if they are free, or that account's.
///
/// # Errors
/// The accounts cannot be read.
pub fn taken_by(accounts: &Accounts, numbers: &RangeInclusive<u32>) -> io::Result<Option<String>> {
    let holders = accounts.holders_within(numbers)?.into_iter();
    let ours = ["user", "group"].map(|kind| format!("{kind} {USER_NAME} ({USER})"));
    let list = holders.filter(|holder| !ours.contains(holder)).collect::<Vec<_>>().join(", ");
    let (first, last) = (numbers.start(), numbers.end());
    let which = if first == last {
        format!("number {last}, which workers run under, is also that of")
    } else {
        format!("numbers {first} to {last}, which workers run under, are also those of")
    };
    Ok((!list.is_empty()).then(|| format!("{which} {list}")))
}

/// Returns whether the account is there that keeps the number from others.
///
/// # Errors
/// The accounts cannot be read.
pub fn is_reserved(accounts: &Accounts) -> io::Result<bool> {
    let [users, groups] = accounts.holders(USER)?;
    let ours = |names: &[String]| names.iter().any(|name| name == USER_NAME);
    Ok(ours(&users) && ours(&groups))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_workers_number_is_reserved_by_one_account_and_anybody_elses_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = Accounts::in_directory(dir.path());
        let host = |passwd: &str, group: &str| {
            fs::write(dir.path().join("passwd"), passwd).unwrap();
            fs::write(dir.path().join("group"), group).unwrap();
            (taken_by(&accounts, &ALL).unwrap(), is_reserved(&accounts).unwrap())
        };
        let ours = ("bulkhead-worker:x:63999:63999::/:\n", "bulkhead-worker:x:63999:\n");
        assert_eq!(host(ours.0, ours.1), (None, true));
        assert_eq!(host("", ""), (None, false));
        assert_eq!(host(ours.0, ""), (None, false));
        let (who, _) = host("kim:x:63999:1::/:\n", "ward:x:63999:kim\n");
        let who = who.unwrap();
        assert!(who.ends_with("user kim (63999), group ward (63999)"), "{who}");
        let (who, _) = host("kim:x:63936:1::/:\n", "ward:x:63935:kim\n");
        assert!(who.unwrap().ends_with("user kim (63936)"), "of a domain's workers");
        let own = taken_by(&accounts, &(USER..=USER)).unwrap();
        assert_eq!(own, None, "of that one");
        assert_eq!(host("kim:x:64000:1::/:\n", ""), (None, false), "a VMM's");
        let (who, reserved) = host(&format!("kim:x:63999:1::/:\n{}", ours.0), ours.1);
        assert!(who.is_some_and(|who| who.ends_with("user kim (63999)")) && reserved);
    }
}
