//! The number that workers run under, which is to be nobody else's on this PC: who has it could signal a worker, and is held back from nothing that
//! only its user is kept from.

use std::io;

use base::accounts::Accounts;
use worker_link::{USER, USER_NAME};

/// What to do about it.
pub const REMEDY: &str = "give them another number (`usermod -u`, `groupmod -g`) and restart the PC; then `systemd-sysusers bulkhead.conf`";

/// Returns who has the number of the workers' user besides the account that the package makes, in words; `None` if it is free, or that account's.
///
/// # Errors
/// The accounts cannot be read.
pub fn taken_by(accounts: &Accounts) -> io::Result<Option<String>> {
    let [users, groups] = accounts.holders(USER)?;
    let say = |kind: &str, names: Vec<String>| -> Vec<String> {
        let others = names.into_iter().filter(|name| name != USER_NAME);
        others.map(|name| format!("{kind} {name}")).collect()
    };
    let others = [say("user", users), say("group", groups)].concat();
    let list = others.join(", ");
    Ok((!list.is_empty())
        .then(|| format!("number {USER}, which workers run under, is also that of {list}")))
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
            (taken_by(&accounts).unwrap(), is_reserved(&accounts).unwrap())
        };
        let ours = ("bulkhead-worker:x:63999:63999::/:\n", "bulkhead-worker:x:63999:\n");
        assert_eq!(host(ours.0, ours.1), (None, true));
        assert_eq!(host("", ""), (None, false));
        assert_eq!(host(ours.0, ""), (None, false));
        let (who, _) = host("kim:x:63999:1::/:\n", "ward:x:63999:kim\n");
        let who = who.unwrap();
        assert!(who.contains("63999") && who.contains("user kim, group ward"), "{who}");
        let (who, reserved) = host(&format!("kim:x:63999:1::/:\n{}", ours.0), ours.1);
        assert!(who.is_some_and(|who| who.ends_with("user kim")) && reserved);
    }
}
