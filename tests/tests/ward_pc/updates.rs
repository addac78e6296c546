//! Updates of the program by signed bundles, on a ward PC that was installed from the package: under running desktops, with the service that the package brings.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::installed::{becomes, run, shell};
use tests::{Failure, Outcome, WardPc, ensure};

/// Two officers, of whom both must sign a program; the policy that is in force is signed by them too, as a PC with a trust store asks.
pub(super) const OFFICE: &str = r#"set -e; mkdir -p /home/office; cd /home/office
for officer in kim lee; do
    bulkhead policy keygen $officer --name $officer --no-passphrase
    bulkhead trust add trust.toml $officer.pub --may-sign policy,image,program
done
bulkhead trust threshold trust.toml policy=2 program=2
for officer in kim lee; do bulkhead policy sign /etc/bulkhead/policy.toml --key $officer; done
bulkhead policy verify /etc/bulkhead/policy.toml --trust trust.toml
cp trust.toml /etc/bulkhead/trust.toml
systemctl restart bulkhead-agent"#;

/// `package N`: packs what is in /tmp/newer as the package's version with `+N`; `bundle N FLOOR`: a bundle of that with the serial N, signed by both officers.
const TOOLS: &str = r#"set -e; cd /home/office
package() {
    sed -i "s/^\(Version: [^+]*\).*/\1+$1/" /tmp/newer/DEBIAN/control
    dpkg-deb -Znone --root-owner-group -b /tmp/newer /home/office/$1.deb > /dev/null
}
bundle() {
    bulkhead program pack $1.bundle --package $1.deb --serial $1 --floor $2 --key kim
    bulkhead program sign $1.bundle --key lee
}
"#;

/// The package whose agent ends at once; dpkg's digests are right, so that it is installed whole.
const BAD: &str = r#"
printf '#!/bin/sh\necho "it does not start" >&2\nexit 1\n' > /tmp/newer/usr/bin/bulkhead-agent
sum=$(md5sum < /tmp/newer/usr/bin/bulkhead-agent | cut -d' ' -f1)
sed -i "s|^[0-9a-f]*\(  usr/bin/bulkhead-agent\)$|$sum\1|" /tmp/newer/DEBIAN/md5sums
"#;

/// The package whose agent takes up the clinical guest and not the Internet guest, and cannot start that anew: it does not find the guest's record, and reads a
/// machine file that names no kernel there is. What it reads instead lies in the folder that systemd gives its service alone.
const LOSES_A_DESKTOP: &str = r#"
dpkg-deb --fsys-tarfile 2.deb | tar -xOf - ./usr/bin/bulkhead-agent > /tmp/newer/usr/bin/bulkhead-agent-whole
chmod 755 /tmp/newer/usr/bin/bulkhead-agent-whole
cat > /tmp/newer/usr/bin/bulkhead-agent <<'END'
#!/bin/sh
set -e
mkdir -p /tmp/etc
sed '/^\[domain.internet\]/,/^\[/ s|^kernel = .*|kernel = "internet/there-is-none"|' /etc/bulkhead/machine.toml > /tmp/etc/machine.toml
cp /etc/bulkhead/trust.toml /tmp/etc/
rm -f /run/bulkhead/internet/vmm.json
exec /usr/bin/bulkhead-agent-whole --machine /tmp/etc/machine.toml "$@"
END
sum=$(md5sum < /tmp/newer/usr/bin/bulkhead-agent | cut -d' ' -f1)
sed -i "s|^[0-9a-f]*\(  usr/bin/bulkhead-agent\)$|$sum\1|" /tmp/newer/DEBIAN/md5sums
"#;
/// Longest until a version that loses a desktop has gone back: what worked before has two minutes to work again, and dpkg works twice.
const LOST: Duration = Duration::from_secs(600);

/// Longest until the agent has taken a note into the audit log.
const NOTED: Duration = Duration::from_secs(30);

/// Runs a shell line with [`TOOLS`] that has to succeed.
pub(super) fn office(pc: &WardPc, line: &str) -> Outcome<String> {
    run(pc, &format!("{TOOLS}{line}"))
}

/// What `bulkhead program status` says.
pub(super) fn status(pc: &WardPc) -> Outcome<Value> {
    let said = run(pc, "bulkhead program status --json")?;
    serde_json::from_str(&said).map_err(|_| Failure(format!("program status: {said}")))
}

/// The suffix of the version that is installed.
pub(super) fn installed(pc: &WardPc) -> Outcome<String> {
    let version = run(pc, "dpkg-query -W -f '${db:Status-Status} ${Version}' bulkhead")?;
    ensure!(version.starts_with("installed "), "the package is not whole: {version}");
    Ok(version.rsplit('+').next().unwrap_or_default().to_owned())
}

/// Checks that a bundle is refused in words, and changes nothing.
fn is_refused(pc: &WardPc, line: &str, says: &str) -> Outcome {
    let before = installed(pc)?;
    let said = shell(pc, &format!("cd /home/office; {line} 2>&1"))?;
    ensure!(said.status == Some(1), "`{line}` is not refused: {said:?}");
    ensure!(said.stdout.contains(says), "`{line}` does not say \"{says}\": {said:?}");
    let (after, pending) = (installed(pc)?, &status(pc)?["pending"]);
    ensure!(
        before == after && pending.is_null(),
        "`{line}` changed {before} to {after}, {pending}"
    );
    Ok(())
}

/// A newer version comes into force, a bad one goes back by itself, and what may not come does not; `guests` looks whether the guests run on.
pub(super) fn come_by_bundle(pc: &WardPc, guests: &dyn Fn(&str) -> Outcome) -> Outcome {
    run(pc, OFFICE)?;
    // The one that runs: apt brought it, as `guests_run_on` left it.
    ensure!(installed(pc)? == "1", "another version than the test's is installed");
    office(pc, "cp /tmp/newer.deb 1.deb; bundle 1 1; package 2; bundle 2 1")?;
    is_refused(pc, "bulkhead program install 2.bundle", "to go back to")?;
    run(pc, "bulkhead program install /home/office/1.bundle")?;
    guests("the bundle of what runs is kept")?;

    let began = Instant::now();
    let said = run(pc, "bulkhead program install /home/office/2.bundle 2>&1")?;
    ensure!(said.contains("is in force") && installed(pc)? == "2", "{said}");
    guests("a newer version is installed")?;
    pc.progress(&format!("an update by bundle is in force after {:?}", began.elapsed()));

    office(pc, &format!("{BAD}package 3; bundle 3 1"))?;
    let began = Instant::now();
    let said = shell(pc, "bulkhead program install /home/office/3.bundle 2>&1")?;
    ensure!(said.status == Some(1), "an agent that ends is in force: {said:?}");
    ensure!(said.stdout.contains("the one before is in force again"), "{said:?}");
    ensure!(installed(pc)? == "2", "the version before is not back");
    guests("a bad version went back")?;
    pc.progress(&format!("a bad one went back by itself after {:?}", began.elapsed()));

    run(
        pc,
        "cd /home/office; cp 2.bundle damaged.bundle; printf X | dd of=damaged.bundle bs=1 seek=9000000 conv=notrunc status=none",
    )?;
    is_refused(pc, "bulkhead program install damaged.bundle", "is not the one that was signed")?;
    run(
        pc,
        "cd /home/office; bulkhead program pack one.bundle --package 2.deb --serial 9 --key kim",
    )?;
    is_refused(pc, "bulkhead program install one.bundle", "only kim did")?;
    run(
        pc,
        "cd /home/office; bulkhead policy keygen stranger --name stranger --no-passphrase; \
        bulkhead program pack strangers.bundle --package 2.deb --serial 9 --key stranger; bulkhead program sign strangers.bundle --key lee",
    )?;
    is_refused(pc, "bulkhead program install strangers.bundle", "only lee did")?;
    is_refused(pc, "bulkhead program install 2.bundle", "is older than")?;
    is_refused(pc, "bulkhead images install 2.bundle", "and not a guest image")?;

    let said = run(pc, "bulkhead program rollback 2>&1")?;
    ensure!(installed(pc)? == "1", "the version before did not come back: {said}");
    guests("the version before was brought back")?;
    let audit = run(pc, "bulkhead audit verify && bulkhead audit show --json")?;
    for (kind, serial) in [
        ("program-installed", 2),
        ("program-in-force", 2),
        ("program-returned", 3),
        ("program-in-force", 1),
    ] {
        let found = audit.lines().any(|line| {
            let entry: Value = serde_json::from_str(line).unwrap_or_default();
            entry["kind"] == kind && entry["detail"]["serial"] == serial
        });
        ensure!(found, "no {kind} of serial {serial} is in the audit log:\n{audit}");
    }
    Ok(())
}

/// A version whose agent is ready, answers and drives the screen, but has one desktop less than there was, goes back by itself.
pub(super) fn one_that_loses_a_desktop_goes_back(pc: &WardPc) -> Outcome {
    office(pc, &format!("{LOSES_A_DESKTOP}package 4; bundle 4 1"))?;
    let began = Instant::now();
    run(
        pc,
        "cd /home/office; rm -f 4.ended; (bulkhead program install 4.bundle > 4.said 2>&1; echo $? > 4.ended) > /dev/null 2>&1 &",
    )?;
    becomes(pc, "it has gone back", "[ -s /home/office/4.ended ]", LOST)?;
    let said = run(pc, "cat /home/office/4.said /home/office/4.ended")?;
    ensure!(said.trim_end().ends_with("\n1"), "it is in force: {said}");
    for words in [
        "its agent is ready, and what worked before does not",
        "the domain internet does not run",
        "the one before is in force again",
    ] {
        ensure!(said.contains(words), "\"{words}\" is not said: {said}");
    }
    ensure!(!said.contains("the domain clinical"), "it lost the other as well: {said}");
    ensure!(installed(pc)? == "1", "the version before is not back: {said}");
    run(pc, "! ls /usr/bin/bulkhead-agent-whole 2>/dev/null")?;
    let status = status(pc)?;
    ensure!(
        status["pending"].is_null() && status["last"]["outcome"] == "returned",
        "what became of it: {status}"
    );
    let returned = "bulkhead audit show --kind program-returned --json";
    let noted = format!("{returned} | grep -q '\"serial\": *4[,}}]'");
    becomes(pc, "its return is in the audit log", &noted, NOTED)?;
    let audit = run(pc, &format!("bulkhead audit verify >&2 && {returned}"))?;
    let entry = audit
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|entry| entry["detail"]["serial"] == 4);
    let entry = entry.ok_or_else(|| Failure(format!("its return is not in the log: {audit}")))?;
    let why = entry["detail"]["why"].as_str().unwrap_or_default();
    ensure!(
        entry["detail"]["back"] == 1 && why.contains("the domain internet does not run"),
        "the log says: {entry}"
    );
    pc.progress(&format!(
        "one that lost a desktop went back by itself after {:?}",
        began.elapsed()
    ));
    Ok(())
}
