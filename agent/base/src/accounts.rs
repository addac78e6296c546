//! Accounts and groups of the host, read from `/etc/passwd` and `/etc/group` themselves, and which numbers accounts may take besides, from
//! `/etc/subuid` and `/etc/subgid`.
//!
//! The C library would look in all that `/etc/nsswitch.conf` names and load a shared library for each: in the statically linked programs that go onto a ward PC
//! this ends in a crash, in any other it runs code of theirs as root. So accounts of a directory service (LDAP, SSSD, systemd's own) do not count: a ward PC
//! has no network to ask one over.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes: some hundred thousand accounts.
const FILE_MAX: u64 = 16 << 20;

/// Members of a group that are listed: more than a ward has people.
const MEMBERS_MAX: usize = 1000;

/// The numbers that workers and VMMs run under, users and groups, which nobody else may have or take. The doctor does not compile where the two crates say otherwise.
pub const RESERVED: RangeInclusive<u32> = 63_936..=64_031;
/// From where on accounts get ranges that leave these alone.
const ELSEWHERE: u32 = 100_000;

/// Ranges that overlap and are listed: more than anybody puts right in one go.
const RANGES_MAX: usize = 32;

/// The host's accounts, read from `passwd` and `group`.
#[derive(Debug, Clone)]
pub struct Accounts {
    passwd: PathBuf,
    group: PathBuf,
    /// `subuid`, and `subgid`.
    ranges: [PathBuf; 2],
}

/// Numbers that an account may take in a user namespace of its own, though they are not its own; subuid(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubordinateRange {
    /// The account, by name or number, as the file has it.
    pub owner: String,
    /// They are numbers of groups, not of users.
    pub of_groups: bool,
    /// The first and the last one.
    pub numbers: RangeInclusive<u32>,
}

impl SubordinateRange {
    /// Returns what is wrong with one that has reserved numbers among its own, and what to do.
    #[must_use]
    pub fn explained(&self) -> (String, String) {
        let Self { owner, of_groups, numbers } = self;
        let (file, delete, add) = match of_groups {
            false => ("/etc/subuid", "--del-subuids", "--add-subuids"),
            true => ("/etc/subgid", "--del-subgids", "--add-subgids"),
        };
        let owner = printable::line(owner);
        let (first, last) = (numbers.start(), numbers.end());
        let elsewhere = ELSEWHERE.saturating_add(last.saturating_sub(*first));
        let (from, to) = (RESERVED.start(), RESERVED.end());
        let why = format!(
            "{owner} may take {first} to {last} by {file}, and so some of {from} to {to}, which VMMs and workers run under"
        );
        let remedy = format!(
            "`usermod {delete} {first}-{last} {owner}`; if {owner} needs numbers, others that nobody has (`usermod {add} {ELSEWHERE}-{elsewhere} {owner}`); then restart the PC"
        );
        (why, remedy)
    }
}

impl Accounts {
    /// Returns the accounts of this host.
    #[must_use]
    pub fn host() -> Self {
        Self::in_directory(Path::new("/etc"))
    }

    /// Returns the accounts in the files of a directory.
    #[must_use]
    pub fn in_directory(etc: &Path) -> Self {
        let ranges = [etc.join("subuid"), etc.join("subgid")];
        Self { passwd: etc.join("passwd"), group: etc.join("group"), ranges }
    }

    /// Returns the number of a group.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn group(&self, name: &str) -> io::Result<Option<u32>> {
        let mut found = None;
        lines(&self.group, |fields| {
            if found.is_none() && fields.first() == Some(&name) {
                found = number(fields, 2);
            }
        })?;
        Ok(found)
    }

    /// Returns whether there is an account of this name.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn has(&self, user: &str) -> io::Result<bool> {
        let mut found = false;
        lines(&self.passwd, |fields| found |= fields.first() == Some(&user))?;
        Ok(found)
    }

    /// Returns the names of all users.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn users(&self) -> io::Result<BTreeSet<String>> {
        let mut users = BTreeSet::new();
        lines(&self.passwd, |fields| users.extend(fields.first().map(|user| (*user).to_owned())))?;
        Ok(users)
    }

    /// Returns who is in a group, by its list or as the group of their account; `None` if there is no such group.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn members(&self, name: &str) -> io::Result<Option<Vec<String>>> {
        let mut found: Option<(u32, Vec<String>)> = None;
        lines(&self.group, |fields| {
            if found.is_none()
                && fields.first() == Some(&name)
                && let Some(gid) = number(fields, 2)
            {
                let listed = fields.get(3).copied().unwrap_or_default().split(',');
                let listed = listed.filter(|user| !user.is_empty()).map(str::to_owned);
                found = Some((gid, listed.take(MEMBERS_MAX).collect()));
            }
        })?;
        let Some((gid, mut members)) = found else { return Ok(None) };
        lines(&self.passwd, |fields| {
            let user = fields.first().copied().unwrap_or_default();
            let new = !user.is_empty() && members.iter().all(|member| member != user);
            if members.len() < MEMBERS_MAX && number(fields, 3) == Some(gid) && new {
                members.push(user.to_owned());
            }
        })?;
        Ok(Some(members))
    }

    /// Returns the name of a user's account: the first one with the number.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn name(&self, uid: u32) -> io::Result<Option<String>> {
        let mut found = None;
        lines(&self.passwd, |fields| {
            if found.is_none() && number(fields, 2) == Some(uid) {
                found = fields.first().map(|name| (*name).to_owned());
            }
        })?;
        Ok(found)
    }

    /// Returns who has this number: the names of users, and of groups.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn holders(&self, id: u32) -> io::Result<[Vec<String>; 2]> {
        let mut holders = [Vec::new(), Vec::new()];
        for (file, names) in [&self.passwd, &self.group].into_iter().zip(&mut holders) {
            lines(file, |fields| {
                if names.len() < MEMBERS_MAX && number(fields, 2) == Some(id) {
                    names.extend(fields.first().map(|name| (*name).to_owned()));
                }
            })?;
        }
        Ok(holders)
    }

    /// Returns who has one of these numbers, each with the number: `user kim (1000)`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn holders_within(&self, numbers: &RangeInclusive<u32>) -> io::Result<Vec<String>> {
        let mut holders = Vec::new();
        for (file, kind) in [(&self.passwd, "user"), (&self.group, "group")] {
            lines(file, |fields| {
                let held = number(fields, 2).filter(|number| numbers.contains(number));
                if let Some(number) = held
                    && holders.len() < MEMBERS_MAX
                {
                    let name = fields.first().copied().unwrap_or_default();
                    holders.push(format!("{kind} {} ({number})", printable::line(name)));
                }
            })?;
        }
        Ok(holders)
    }

    /// Returns the ranges of subordinate numbers that have one of these among them; none where there is no such file.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn ranges_over(&self, numbers: &RangeInclusive<u32>) -> io::Result<Vec<SubordinateRange>> {
        let mut found = Vec::new();
        for (file, of_groups) in self.ranges.iter().zip([false, true]) {
            let read = lines(file, |fields| {
                let (first, count) = (number(fields, 1), number(fields, 2));
                let Some((first, count)) = first.zip(count).filter(|(_, count)| *count > 0) else {
                    return;
                };
                let range = first..=first.saturating_add(count.saturating_sub(1));
                let overlaps = range.start() <= numbers.end() && numbers.start() <= range.end();
                if overlaps && found.len() < RANGES_MAX {
                    let owner = fields.first().copied().unwrap_or_default().to_owned();
                    found.push(SubordinateRange { owner, of_groups, numbers: range });
                }
            });
            match read {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(found)
    }

    /// Returns which of these groups a user is in: by the group of its process, by the group that its account has, or as a listed member.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn member_of<'a>(
        &self,
        uid: u32,
        primary: u32,
        groups: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<Vec<&'a str>> {
        // As getgrouplist does, the first account with the number is the one.
        let mut account: Option<(String, Option<u32>)> = None;
        lines(&self.passwd, |fields| {
            if account.is_none() && number(fields, 2) == Some(uid) {
                let name = fields.first().copied().unwrap_or_default().to_owned();
                account = Some((name, number(fields, 3)));
            }
        })?;
        let wanted: Vec<&str> = groups.into_iter().collect();
        let mut seen: Vec<&str> = Vec::new();
        let mut member = Vec::new();
        lines(&self.group, |fields| {
            let Some(name) = wanted.iter().find(|name| fields.first() == Some(*name)) else {
                return;
            };
            let Some(gid) = number(fields, 2) else { return };
            // A name that stands there twice is the first of the two.
            if seen.contains(name) {
                return;
            }
            seen.push(name);
            let listed = account.as_ref().is_some_and(|(user, own)| {
                let users = fields.get(3).copied().unwrap_or_default();
                *own == Some(gid) || !user.is_empty() && users.split(',').any(|one| one == user)
            });
            if gid == primary || listed {
                member.push(*name);
            }
        })?;
        Ok(member)
    }
}

/// Hands the fields of each line to `take`. What is no text is passed over.
fn lines(path: &Path, mut take: impl FnMut(&[&str])) -> io::Result<()> {
    let file = fileopen::regular(path)?;
    if file.metadata()?.len() > FILE_MAX {
        return Err(io::Error::other(format!("{} is larger than 16 MiB", path.display())));
    }
    let mut reader = BufReader::new(file.take(FILE_MAX));
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if let Ok(text) = std::str::from_utf8(&line) {
            let text = text.trim_end_matches('\n');
            // `+` and `-` begin what the C library takes for a directory service.
            if !text.starts_with(['#', '+', '-']) {
                let fields: Vec<&str> = text.split(':').collect();
                take(&fields);
            }
        }
        line.clear();
    }
    Ok(())
}

fn number(fields: &[&str], at: usize) -> Option<u32> {
    let field = fields.get(at).filter(|field| field.bytes().all(|byte| byte.is_ascii_digit()))?;
    field.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const GROUPS: [&str; 3] = ["bulkhead-user", "bulkhead-it", "bulkhead-officer"];

    fn host(passwd: &str, group: &str) -> (tempfile::TempDir, Accounts) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("passwd"), passwd).unwrap();
        fs::write(dir.path().join("group"), group).unwrap();
        let accounts = Accounts::in_directory(dir.path());
        (dir, accounts)
    }

    #[test]
    fn a_user_is_in_a_group_as_listed_member_by_account_or_by_process_and_in_no_other() {
        let (_dir, accounts) = host(
            "root:x:0:0::/root:/bin/sh\nkim:x:1000:1000:Kim,,,:/home/kim:/bin/sh\nlee:x:1001:991::/:/bin/sh\n",
            "bulkhead-user:x:990:ki,kim2,kim\nbulkhead-it:x:991:\nbulkhead-officer:x:992:lee,\n",
        );
        let of = |uid, gid| accounts.member_of(uid, gid, GROUPS).unwrap();
        assert_eq!(of(1000, 1000), ["bulkhead-user"]);
        assert_eq!(of(1001, 5), ["bulkhead-it", "bulkhead-officer"]);
        assert_eq!(of(1000, 992), ["bulkhead-user", "bulkhead-officer"]);
        assert!(of(1002, 1002).is_empty());
        assert_eq!(accounts.group("bulkhead-it").unwrap(), Some(991));
        assert_eq!(accounts.group("bulkhead").unwrap(), None);
        let members = |group| accounts.members(group).unwrap().map(|members| members.join(" "));
        assert_eq!(members("bulkhead-it").as_deref(), Some("lee"));
        assert_eq!(members("bulkhead-officer").as_deref(), Some("lee"));
        assert_eq!(members("bulkhead-user").as_deref(), Some("ki kim2 kim"));
        assert_eq!(members("bulkhead"), None);
    }

    #[test]
    fn lines_that_mean_a_directory_service_or_make_no_sense_give_nobody_a_group() {
        let (_dir, accounts) = host(
            "+::::::\n:x:1000:1::/:\nkim:x:+1000:1::/:\nlee:x:4294967296:0::/:\n",
            "+bulkhead-it:x:1:kim\n#bulkhead-it:x:1:kim\nbulkhead-it:x:-1:kim,\nbulkhead-it:x:990\nbulkhead-it:x:1:kim\nbulkhead-user\n\n",
        );
        assert!(accounts.member_of(1000, 1000, GROUPS).unwrap().is_empty());
        assert_eq!(accounts.group("bulkhead-it").unwrap(), Some(990));
    }

    #[test]
    fn a_number_has_every_user_and_every_group_that_holds_it() {
        let (_dir, accounts) = host(
            "root:x:0:0::/root:/bin/sh\nkim:x:1000:1000::/:\nmin:x:1000:1::/:\n",
            "kim:x:1001:\nward:x:1000:kim\n",
        );
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(accounts.holders(1000).unwrap(), [names(&["kim", "min"]), names(&["ward"])]);
        assert_eq!(accounts.holders(7).unwrap(), [names(&[]), names(&[])]);
        let within = accounts.holders_within(&(1000..=1001)).unwrap();
        assert_eq!(
            within,
            ["user kim (1000)", "user min (1000)", "group kim (1001)", "group ward (1000)"]
        );
    }

    #[test]
    fn the_ranges_that_have_a_number_among_them_are_found_to_the_number() {
        let (dir, accounts) = host("", "");
        assert_eq!(accounts.ranges_over(&(0..=u32::MAX)).unwrap(), [], "there is no such file");
        fs::write(
            dir.path().join("subuid"),
            "# kim\nlow:100:100\nkim:200:11\nnone:210:0\nodd:210:x\n:210\nlee:4294967290:100\nmin:221:1\n",
        )
        .unwrap();
        fs::write(dir.path().join("subgid"), "1000:0:211\n").unwrap();
        let found = |numbers: RangeInclusive<u32>| -> Vec<(String, bool, RangeInclusive<u32>)> {
            let ranges = accounts.ranges_over(&numbers).unwrap();
            ranges.into_iter().map(|it| (it.owner, it.of_groups, it.numbers)).collect()
        };
        let kim = ("kim".to_owned(), false, 200..=210);
        assert_eq!(found(210..=220), [kim, ("1000".to_owned(), true, 0..=210)]);
        assert_eq!(found(211..=220), []);
        assert_eq!(
            found(u32::MAX..=u32::MAX),
            [("lee".to_owned(), false, 4_294_967_290..=u32::MAX)]
        );
        fs::remove_file(dir.path().join("subgid")).unwrap();
        fs::create_dir(dir.path().join("subgid")).unwrap();
        assert!(accounts.ranges_over(&(0..=1)).is_err());
    }

    #[test]
    fn without_the_files_nobody_is_in_any_group() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = Accounts::in_directory(dir.path());
        assert!(accounts.member_of(1000, 1000, GROUPS).is_err());
        assert!(accounts.group("bulkhead-it").is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_in_the_files_is_read_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let (dir, accounts) = host("", "");
            fs::write(dir.path().join("passwd"), &bytes).unwrap();
            fs::write(dir.path().join("group"), &bytes).unwrap();
            accounts.member_of(0, 0, GROUPS).unwrap();
        }
    }
}
