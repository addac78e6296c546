//! The two files, the images they name, memory, and the VMM.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use clock::Moment;

use super::host::{HardwareNeeds, NO_VM};
use super::{Finding, InputFiles, SystemPaths, trust};
use config::files::{self, FileFault, FilesError};
use config::machine::{Boot, Context, KeepsNothing, Kind, Machine, VmHardware};
use domains::capture::clean;
use images::manifest::ImageName;
use images::store::Store;
use inforce::configuration::Configuration;
use inforce::policy_store::PolicyStore;
use policy::signature::TrustStore;
use printable::explain;

/// What the host keeps for itself: kernel, agent, VMMs.
const HOST_RESERVE_MIB: u64 = 512;
/// How long the VMM may take to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const VERSION_POLL: Duration = Duration::from_millis(10);
/// What starts the agent.
const UNIT: &str = "bulkhead-agent.service";
/// Where the package puts its documents and examples.
const DOCUMENTS: &str = "/usr/share/doc/bulkhead";

/// Reads the files that the agent is configured by; returns the machine file if it can be used, also without a policy that can.
pub(super) fn input_files(inputs: &InputFiles) -> (Option<Machine>, Vec<Finding>) {
    let (machine, mut findings) = both(inputs);
    if !findings.iter().any(|finding| finding.check.starts_with("policy")) {
        // The machine file is at fault, and the policy was read before it.
        let store = PolicyStore::for_looking(&inputs.policy, &inputs.machine, &inputs.state);
        findings.extend(store.load().ok().map(|in_force| {
            let serial = in_force.policy.serial();
            Finding::ok("policy", format!("{}: serial {serial}", inputs.policy.display()))
        }));
    }
    if machine.is_some() || findings.iter().any(|finding| finding.check == "machine-file") {
        return (machine, findings);
    }
    let place = inputs.machine.display().to_string();
    let context = Context { images: &inputs.images, domain_policies: None };
    let read = match files::read_machine_text(&inputs.machine) {
        Ok(text) => Machine::parse(&place, &text, context).map_err(FilesError::Machine),
        Err(error) => Err(error),
    };
    match read {
        Ok(machine) => {
            findings.push(Finding::warn(
                "machine-file",
                format!("{place} is well formed; whether it fits the policy was not looked at"),
                "see to the policy first",
            ));
            (Some(machine), findings)
        }
        Err(error) => {
            findings.push(refused(inputs, &error));
            (None, findings)
        }
    }
}

/// Returns the finding of a file that cannot be used, and what to do about it: a file that is not there is not to be corrected.
fn refused(inputs: &InputFiles, error: &FilesError) -> Finding {
    let (policy, machine) = (inputs.policy.display(), inputs.machine.display());
    match error {
        FilesError::Policy(problems) => {
            Finding::fail("policy", problems.to_string(), format!("correct {policy}"))
        }
        FilesError::Refused(refusal) => Finding::fail(
            "policy-signature",
            explain(refusal),
            format!(
                "see \"Signing\" in the policy handbook (`zless {DOCUMENTS}/security-office/policy-handbook.md.gz`)"
            ),
        ),
        FilesError::Machine(problems) => {
            Finding::fail("machine-file", problems.to_string(), format!("correct {machine}"))
        }
        FilesError::Read { what: "policy", fault: FileFault::Missing, .. } => Finding::fail(
            "policy",
            format!(
                "there is no policy: {policy} does not exist, and that is where it is looked for"
            ),
            format!(
                "`bulkhead policy new` writes one to begin with: have the security office complete and sign it, and put it there; if yours lies elsewhere, name it with --policy, here and in {UNIT}",
            ),
        ),
        FilesError::Read { fault: FileFault::Missing, .. } => Finding::fail(
            "machine-file",
            format!(
                "there is no machine file: {machine} does not exist, and that is where it is looked for"
            ),
            format!(
                "run `bulkhead setup`, which writes it and can take it back; by hand: copy {DOCUMENTS}/examples/machine.toml there, and replace each of its sections [domain.NAME] by the domain.toml that stands beside that image; if yours lies elsewhere, name it with --machine, here and in {UNIT}",
            ),
        ),
        FilesError::Read { what, .. } => {
            let check = if *what == "policy" { "policy" } else { "machine-file" };
            Finding::fail(check, explain(error), "see that it is a file, and that root can read it")
        }
    }
}

fn both(inputs: &InputFiles) -> (Option<Machine>, Vec<Finding>) {
    let store = PolicyStore::for_looking(&inputs.policy, &inputs.machine, &inputs.state);
    match Configuration::read(&inputs.machine, &store, &inputs.images) {
        Ok(configuration) => {
            let domains = configuration.machine.domains.len();
            let mut findings = vec![
                Finding::ok(
                    "policy",
                    format!(
                        "{}: serial {}",
                        inputs.policy.display(),
                        configuration.policy_report.serial
                    ),
                ),
                Finding::ok(
                    "machine-file",
                    format!("{}: {domains} domains", inputs.machine.display()),
                ),
            ];
            findings.push(if configuration.policy_report.signed {
                Finding::ok("policy-signature", format!("signed by {}", configuration.policy_report.signers.join(", ")))
            } else {
                Finding::warn(
                    "policy-signature",
                    "the policy is unsigned: nothing proves who wrote it",
                    "have it signed (`bulkhead policy keygen`, `bulkhead policy sign`), then make trust.toml beside the machine file (`bulkhead trust add trust.toml KEY.pub --may-sign policy,trust`, `bulkhead trust threshold`)",
                )
            });
            findings.extend(
                configuration
                    .unenforced()
                    .into_iter()
                    .map(|found| Finding::warn("policy-enforcement", found.what, found.remedy)),
            );
            findings.extend(kept(&configuration));
            findings.extend(guarded(&inputs.machine, "machine-file"));
            findings.extend(guarded(&inputs.policy, "policy"));
            findings.extend(trust_store(&store, inputs));
            (Some(configuration.machine), findings)
        }
        Err(error) => {
            let mut findings = vec![refused(inputs, &error)];
            findings.extend(trust_store(&store, inputs));
            (None, findings)
        }
    }
}

/// Finds out whether what is saved in a domain is kept where the policy says so.
fn kept(configuration: &Configuration) -> Vec<Finding> {
    let check = "kept";
    let found = configuration.machine.keeping_nothing(&configuration.domain_policies);
    if found.is_empty() {
        return vec![Finding::ok(
            check,
            "each domain that is to keep what is saved in it has a disk for it",
        )];
    }
    let warned = |it: KeepsNothing| Finding::warn(check, it.what(), it.remedy()).of(it.domain);
    found.into_iter().map(warned).collect()
}

fn trust_store(store: &PolicyStore, inputs: &InputFiles) -> Vec<Finding> {
    let mut findings = trust::examine(store, &inputs.machine);
    findings.extend(guarded(&inputs.machine.with_file_name("trust.toml"), "trust-store"));
    findings
}

/// Returns a finding if a file's group or others can write it: whoever can write these files decides what every domain is given.
fn guarded(path: &Path, check: &'static str) -> Option<Finding> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path).ok()?;
    let loose = meta.mode() & 0o022 != 0;
    loose.then(|| {
        Finding::warn(
            check,
            format!("{} can be written by others than its owner", path.display()),
            format!("run `chmod go-w {}`", path.display()),
        )
    })
}

pub(super) fn memory(system: &SystemPaths, machine: &Machine) -> Vec<Finding> {
    let check = "memory";
    let meminfo = system.proc_text("meminfo").unwrap_or_default();
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    let Some(total) = kib("MemTotal:") else {
        return vec![Finding::warn(check, "unknown: /proc/meminfo cannot be read", "mount /proc")];
    };
    let total_mib = total / 1024;
    let guests_mib: u64 = machine
        .domains
        .iter()
        .map(|domain| match &domain.kind {
            Kind::Vm(vm) => vm.memory.bytes() >> 20,
            Kind::External => 0,
        })
        .sum();
    let finding = if guests_mib + HOST_RESERVE_MIB <= total_mib {
        Finding::ok(check, format!("{guests_mib} MiB for guests of {total_mib} MiB"))
    } else {
        Finding::fail(
            check,
            format!(
                "the domains want {guests_mib} MiB and the host {HOST_RESERVE_MIB} MiB, but this PC has {total_mib} MiB"
            ),
            "give the domains less `memory` in machine.toml, or the PC more",
        )
    };
    let huge = kib("HugePages_Total:").unwrap_or(0);
    let page_mib = kib("Hugepagesize:").unwrap_or(2048) / 1024;
    let free_mib = total_mib.saturating_sub(huge * page_mib);
    if huge == 0 || guests_mib + HOST_RESERVE_MIB <= free_mib {
        return vec![finding];
    }
    let reserved = Finding::fail(
        "huge-pages",
        format!(
            "{} MiB are reserved as huge pages, which guests do not use yet, and leave {free_mib} MiB",
            huge * page_mib
        ),
        "set vm.nr_hugepages = 0 in /etc/sysctl.d and restart",
    );
    vec![finding, reserved]
}

pub(super) fn images(machine: &Machine, store: &Store) -> Vec<Finding> {
    let mut findings = Vec::new();
    for domain in &machine.domains {
        let Kind::Vm(vm) = &domain.kind else { continue };
        let mut look = |what: &str, path: &Path, write: bool| {
            findings.push(image(what, path, write).of(domain.name.clone()));
        };
        let name = match &vm.boot {
            Boot::Files { kernel, initrd, .. } => {
                look("kernel", kernel, false);
                if let Some(initrd) = initrd {
                    look("initrd", initrd, false);
                }
                None
            }
            Boot::Image(name) => Some(name),
        };
        for disk in &vm.disks {
            look("disk", &disk.path, !disk.readonly);
        }
        if let Some(name) = name {
            let found = installed(store, name, &domain.name, vm);
            findings.extend(found.into_iter().map(|found| found.of(domain.name.clone())));
        }
    }
    findings
}

/// Finds out whether a domain could start from its image: that it is there, of the right sizes, within what the domain has, and not below
/// its floor. What is in it each start verifies, and `bulkhead images verify`.
fn installed(store: &Store, name: &ImageName, domain: &str, vm: &VmHardware) -> Vec<Finding> {
    let check = "image";
    let found = store.next(name, domain).map_err(|error| explain(&error)).and_then(|image| {
        vm.fits(&image.manifest).map_err(|misfit| misfit.to_string())?;
        image.check_sizes().map_err(|error| explain(&error))?;
        let record = store.record(name).map_err(|error| explain(&error))?;
        Ok((image, record.unwrap_or_default()))
    });
    let (image, record) = match found {
        Ok(found) => found,
        Err(why) => {
            return vec![Finding::fail(
                check,
                why,
                format!(
                    "install and activate an image that fits (`bulkhead images list` shows what is there), or correct `image = \"{name}\"` in machine.toml"
                ),
            )];
        }
    };
    let (serial, floor) = (image.manifest.serial, record.floor());
    let when = if record.in_force_in(domain) == Some(serial) {
        "in force"
    } else {
        "comes into force at the next start"
    };
    let mut findings =
        vec![Finding::ok(check, format!("image {name}: serial {serial} {when}, floor {floor}"))];
    if serial < floor {
        findings.push(Finding::warn(
            check,
            format!("image {name}: serial {serial} is in force, and below the floor {floor}, under which officers let none come into force any more"),
            format!("`bulkhead images activate {name}`, and start its domains anew"),
        ));
    }
    findings
}

/// Finds out whether officers who may sign images now stand behind those that the domains start from. A start does not ask for that.
pub(super) fn signatures(
    machine: &Machine,
    store: &Store,
    trust: Option<&TrustStore>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for domain in &machine.domains {
        let Kind::Vm(vm) = &domain.kind else { continue };
        let Boot::Image(name) = &vm.boot else { continue };
        // What is missing is a finding of its own.
        let Ok(image) = store.next(name, &domain.name) else { continue };
        let approved = match trust {
            Some(trust) => Store::signers(&image, trust).map(drop).map_err(|error| explain(&error)),
            None => Err(format!(
                "image {name} {}: no trust store says who may sign images, so that nobody answers for it",
                image.manifest.serial
            )),
        };
        findings.extend(approved.err().map(|why| {
            Finding::warn(
                "image",
                why,
                "ask the security office: have the bundle signed by those who may now and install it again, or take a newer one",
            )
            .of(domain.name.clone())
        }));
    }
    findings
}

fn image(what: &str, path: &Path, write: bool) -> Finding {
    let check = "image";
    let at = path.display();
    let remedy = "put the file there, or correct machine.toml (relative names are below the images directory, --images)";
    let open = || {
        let mut file = fs::OpenOptions::new().read(true).write(write).open(path)?;
        file.read(&mut [0]).map(|count| (count, file))
    };
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            return Finding::fail(check, format!("the {what} {at} is a directory"), remedy);
        }
        // Opened, a named pipe would keep the doctor waiting.
        Ok(meta) if !meta.is_file() && !meta.file_type().is_block_device() => {
            let problem = format!("the {what} {at} is neither a file nor a block device");
            return Finding::fail(check, problem, remedy);
        }
        Ok(_) => {}
        Err(error) => return Finding::fail(check, format!("the {what} {at}: {error}"), remedy),
    }
    match open() {
        Ok((0, _)) => Finding::fail(check, format!("the {what} {at} is empty"), remedy),
        Ok((_, file)) => Finding::ok(check, format!("{what} {at}{}", size(&file))),
        Err(error) => Finding::fail(
            check,
            format!(
                "the {what} {at} cannot be {}: {error}",
                if write { "written" } else { "read" }
            ),
            "correct its rights, or run this command as root",
        ),
    }
}

fn size(file: &File) -> String {
    match file.metadata() {
        Ok(meta) if meta.is_file() => format!(", {} MiB", meta.len().div_ceil(1 << 20)),
        _ => String::new(),
    }
}

pub(super) fn vmm(inputs: &InputFiles, needs: HardwareNeeds) -> Finding {
    let check = "vmm";
    if !needs.virtual_machines {
        return Finding::ok(check, format!("not needed: {NO_VM}"));
    }
    let remedy =
        "install bulkhead-vmm of the same version beside bulkhead-agent, or name it with --vmm";
    match files::find_vmm(inputs.vmm.as_deref()) {
        Err(error) => Finding::fail(check, error.to_string(), remedy),
        Ok(path) => match version(&path) {
            Ok(said) => Finding::ok(check, format!("{}: {said}", path.display())),
            Err(why) => Finding::fail(check, format!("{} {why}", path.display()), remedy),
        },
    }
}

/// Returns what `--version` prints. A program that is no VMM may print anything, or nothing, for ever.
fn version(vmm: &Path) -> Result<String, String> {
    let mut child = Command::new(vmm)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let until = Moment::now() + VERSION_DEADLINE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Moment::now() < until => thread::sleep(VERSION_POLL),
            _ => {
                // It is ours and did not end; nothing more can be done if it cannot be killed.
                let _ = child.kill();
                let _ = child.wait();
                return Err("does not say its version in time".to_owned());
            }
        }
    };
    let mut said = [0; 128];
    let count = child.stdout.take().and_then(|mut out| out.read(&mut said).ok()).unwrap_or(0);
    let said = clean(said.get(..count).unwrap_or_default());
    match (status.success(), said.starts_with("bulkhead-vmm")) {
        (true, true) => Ok(said),
        _ => Err(format!("is no bulkhead-vmm: --version says `{said}`")),
    }
}
