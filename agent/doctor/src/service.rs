//! How the agent is installed: its unit, the modules it wants, and who has which role.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::{Finding, SystemPaths, repair, text};
use base::accounts::Accounts;
use base::sockets::{external_group, without_group};
use config::machine::{Kind, Machine};
use control::roles::{IT_GROUP, OFFICER_GROUP, USER_GROUP};
use recorder::AUDITOR_GROUP;

/// The unit as it is shipped, and where it is named.
const UNIT: &str = "bulkhead-agent.service";
const SHIPPED_UNIT: &str = include_str!("../../systemd/bulkhead-agent.service");
/// The modules that are loaded before it.
const SHIPPED_MODULES: &str = include_str!("../../systemd/modules-load.conf");
/// How to have its files as they belong to this version.
const REINSTALL: &str = "install the package again (`apt install --reinstall ./bulkhead_*.deb`)";
/// Where systemd looks for units, the first before the others (systemd.unit(5)).
const UNITS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// Where it looks for modules to load (modules-load.d(5)).
const MODULES: [&str; 5] = [
    "etc/modules-load.d",
    "run/modules-load.d",
    "usr/local/lib/modules-load.d",
    "usr/lib/modules-load.d",
    "lib/modules-load.d",
];
/// Lines that differ and are listed.
const LISTED_MAX: usize = 6;
/// Sources of accounts in nsswitch.conf that add none to the two files which a role or a group could come from.
const LOCAL_SOURCES: [&str; 3] = ["files", "compat", "systemd"];

pub(super) fn unit(system: &SystemPaths) -> Vec<Finding> {
    let check = "unit";
    let places = || UNITS.iter().map(|place| system.root.join(place));
    let Some(path) = places().map(|place| place.join(UNIT)).find(|path| path.exists()) else {
        let remedy = format!("{REINSTALL}, then `systemctl enable {UNIT}` and restart the PC");
        let what = format!("no {UNIT} is installed: the desktops do not start with this PC");
        return vec![Finding::warn(check, what, remedy)];
    };
    let at = path.display().to_string();
    let mut findings = vec![match fs::read_to_string(&path) {
        Err(error) => Finding::warn(
            check,
            format!("not looked at: {at}: {error}"),
            "run this command as root",
        ),
        Ok(text) if text.trim().is_empty() => Finding::fail(
            check,
            format!("{at} is masked: the agent cannot be started"),
            format!("`systemctl unmask {UNIT}`"),
        ),
        Ok(text) => match differences(&text) {
            None => Finding::ok(check, format!("{at} is the one that belongs to this version")),
            Some(lines) => Finding::warn(
                check,
                format!("{at} is another one than belongs to this version: {lines}"),
                format!(
                    "if nobody meant that, remove it if it is below /etc or /run, and {REINSTALL}; what IT changes belongs in /etc/systemd/system/{UNIT}.d/*.conf"
                ),
            ),
        },
    }];
    let mut drop_ins: Vec<PathBuf> = places()
        .filter_map(|place| fs::read_dir(place.join(format!("{UNIT}.d"))).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    drop_ins.sort();
    for drop_in in drop_ins.into_iter().take(LISTED_MAX) {
        let said = text(&drop_in).unwrap_or_default();
        let settings: Vec<&str> = directives(&said).into_iter().take(LISTED_MAX).collect();
        findings.push(Finding::warn(
            check,
            format!("{} changes it: {}", drop_in.display(), settings.join("; ")),
            "see that it takes none of the unit's limits away",
        ));
    }
    let wanted = system.root.join("etc/systemd/system/multi-user.target.wants").join(UNIT);
    if fs::symlink_metadata(&wanted).is_err() {
        findings.push(Finding::warn(
            check,
            "it is not enabled: the desktops do not start with this PC",
            format!("`systemctl enable {UNIT}`"),
        ));
    }
    findings
}

pub(super) fn modules(system: &SystemPaths) -> Finding {
    let check = "modules-load";
    let file = MODULES
        .iter()
        .map(|place| system.root.join(place).join("bulkhead.conf"))
        .find(|path| path.exists());
    let remedy = || format!("{REINSTALL} and restart the PC");
    let Some(file) = file else {
        let what = "no modules-load.d/bulkhead.conf is installed: the unit names devices of modules that may not be loaded when it starts, which refuses them";
        return Finding::warn(check, what, remedy());
    };
    let said = text(&file).unwrap_or_default();
    let has = directives(&said);
    let missing: Vec<&str> =
        directives(SHIPPED_MODULES).into_iter().filter(|module| !has.contains(module)).collect();
    match missing.is_empty() {
        true => Finding::ok(check, format!("{} names every module", file.display())),
        false => Finding::warn(
            check,
            format!("{} does not name {}", file.display(), missing.join(", ")),
            remedy(),
        ),
    }
}

/// Returns the lines that count: neither empty nor a comment.
fn directives(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])).collect()
}

/// Returns which lines the shipped unit has and this one lacks, and the other way round; `None` if they are the same.
fn differences(installed: &str) -> Option<String> {
    let (shipped, installed) = (directives(SHIPPED_UNIT), directives(installed));
    if shipped == installed {
        return None;
    }
    let only = |word: &str, these: &[&str], others: &[&str]| -> Vec<String> {
        let lines = these.iter().filter(|line| !others.contains(line));
        lines.map(|line| format!("{word} `{line}`")).collect()
    };
    let mut lines = only("lacks", &shipped, &installed);
    lines.extend(only("has", &installed, &shipped));
    if lines.is_empty() {
        return Some("the same lines in another order, or twice".to_owned());
    }
    let more = lines.len().saturating_sub(LISTED_MAX);
    lines.truncate(LISTED_MAX);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    Some(lines.join("; "))
}

/// Examines who has which role. `machine` says which external domains there are.
pub(super) fn roles(system: &SystemPaths, machine: Option<&Machine>) -> Vec<Finding> {
    let check = "roles";
    let accounts = Accounts::in_directory(&system.root.join("etc"));
    let mut findings = Vec::new();
    let mut known: Vec<(&str, Vec<String>)> = Vec::new();
    for (group, may) in [
        (USER_GROUP, "switch, paste and attach USB devices from the command line"),
        (IT_GROUP, "start, stop and reset domains"),
        (OFFICER_GROUP, "put a policy in force"),
        (AUDITOR_GROUP, "read and verify the audit log"),
    ] {
        findings.push(match accounts.members(group) {
            Err(error) => Finding::warn(
                check,
                format!("not looked at: {error}"),
                "without /etc/passwd and /etc/group nobody but root has a role: put them right",
            ),
            Ok(None) => Finding::warn(
                check,
                format!("there is no group {group}: nobody but root may {may}"),
                format!(
                    "`groupadd --system {group}; usermod -aG {group} NAME`, for each who is to"
                ),
            )
            .mended_by(repair::accounts(&system.root).or_else(|| Some(repair::group(group)))),
            Ok(Some(members)) if members.is_empty() => Finding::warn(
                check,
                format!("nobody is in the group {group}: nobody but root may {may}"),
                format!("`usermod -aG {group} NAME`, for each who is to"),
            ),
            Ok(Some(members)) => {
                let message = format!("{group}: {}", members.join(", "));
                known.push((group, members));
                Finding::ok(check, message)
            }
        });
    }
    findings.extend(both(&known));
    findings.extend(directory_service(system));
    let external = machine.iter().flat_map(|machine| &machine.domains);
    for domain in external.filter(|domain| domain.kind == Kind::External) {
        let group = external_group(&domain.name);
        let finding = match accounts.group(&group) {
            Ok(Some(_)) => Finding::ok(check, format!("{group} may reach its sockets")),
            Ok(None) => match without_group(&domain.name) {
                Some((why, remedy)) => Finding::warn(check, why, remedy),
                None => Finding::warn(
                    check,
                    format!(
                        "there is no group {group}: root alone reaches the sockets of this domain"
                    ),
                    format!("`groupadd --system {group}`, and add the user its VMM runs as"),
                )
                .mended_by(repair::group(&group)),
            },
            Err(error) => {
                Finding::warn(check, format!("not looked at: {error}"), "put /etc/group right")
            }
        };
        findings.push(finding.of(&domain.name));
    }
    findings
}

/// Returns a finding if somebody has both roles that are not to be one person's: who installs is not to be who permits.
fn both(known: &[(&str, Vec<String>)]) -> Option<Finding> {
    let of = |group: &str| -> BTreeSet<&str> {
        let members = known.iter().filter(|(name, _)| *name == group);
        members.flat_map(|(_, members)| members.iter().map(String::as_str)).collect()
    };
    let (it, officers) = (of(IT_GROUP), of(OFFICER_GROUP));
    let both: Vec<&str> = it.intersection(&officers).copied().collect();
    (!both.is_empty()).then(|| {
        Finding::warn(
            "roles",
            format!("both IT and security office: {}", both.join(", ")),
            format!("who runs the PC should not say what may cross: take one of {IT_GROUP} and {OFFICER_GROUP} from them"),
        )
    })
}

/// Returns a finding if the host looks for accounts elsewhere too, which count for nothing here.
fn directory_service(system: &SystemPaths) -> Option<Finding> {
    let said = text(&system.root.join("etc").join("nsswitch.conf"))?;
    let sources = said
        .lines()
        .filter_map(|line| line.split('#').next()?.split_once(':'))
        .filter(|(database, _)| matches!(database.trim(), "passwd" | "group" | "initgroups"))
        .flat_map(|(_, sources)| sources.split_ascii_whitespace())
        .filter(|source| !source.starts_with('[') && !source.ends_with(']'))
        .filter(|source| !LOCAL_SOURCES.contains(source));
    let sources: BTreeSet<&str> = sources.collect();
    (!sources.is_empty()).then(|| {
        let list = sources.into_iter().collect::<Vec<_>>().join(", ");
        Finding::warn(
            "roles",
            format!("nsswitch.conf also names {list}; accounts and groups from there give nobody a role"),
            "enter who is to have one in /etc/group: a ward PC has no network to ask a directory over",
        )
    })
}

/// Returns the unit and the list of modules as they are shipped.
#[cfg(test)]
pub(super) fn shipped() -> (&'static str, &'static str) {
    (SHIPPED_UNIT, SHIPPED_MODULES)
}

#[cfg(test)]
pub(super) fn unit_path(root: &std::path::Path) -> PathBuf {
    root.join("etc/systemd/system").join(UNIT)
}
