//! Roles under the name services of a stock Debian, which a statically linked program must not call.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::Uid;

use crate::support::{MACHINE, Ward, program};

#[test]
fn no_shipped_program_has_the_c_librarys_name_services_in_it() {
    // In a dynamically linked program they are never far; there `clippy.toml` forbids the calls.
    let Some(artefacts) = std::env::var_os("BULKHEAD_ARTEFACTS").map(PathBuf::from) else { return };
    let services = b"/etc/nsswitch.conf";
    for name in ["bulkhead", "bulkhead-agent", "bulkhead-vmm"] {
        let bytes = fs::read(artefacts.join(name)).unwrap();
        let found = bytes.windows(services.len()).any(|window| window == services);
        assert!(!found, "{name} calls the C library's name services");
    }
}

// Shows: K-1.3.3.
#[test]
fn any_account_may_ask_under_debians_name_services_and_has_the_roles_of_the_files_alone() {
    if !Uid::effective().is_root() {
        return; // only root can be somebody else
    }
    let ward = Ward::new(MACHINE);
    fs::write(
        ward.at("nsswitch.conf"),
        "passwd: files systemd\ngroup: files systemd\nshadow: files systemd\n",
    )
    .unwrap();
    let add = |name: &str, line: &str| {
        let text = fs::read_to_string(format!("/etc/{name}")).unwrap();
        fs::write(ward.at(name), format!("{text}{line}\n")).unwrap();
    };
    add("passwd", "ward:x:64991:64991::/:/bin/sh");
    add("group", "bulkhead-it:x:64992:ward");
    let mut script = String::new();
    for name in ["nsswitch.conf", "passwd", "group"] {
        script += &format!("mount --bind '{}' /etc/{name}\n", ward.at(name).display());
    }
    let plain = ward.agent_command();
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "sh", "-ec", &format!("{script}exec \"$@\""), "sh"]);
    inside.arg(plain.get_program()).args(plain.get_args());
    let agent = ward.start(inside);
    ward.wait_for_state("clinical", "running");
    // Another user cannot read the build directory; a copy of the command line it can.
    let copy = ward.at("bulkhead");
    fs::copy(program("bulkhead"), &copy).unwrap();
    let status = |uid: u32, gid: u32| {
        let mut command = Command::new(&copy);
        command.env("BULKHEAD_RUNTIME", ward.at("run")).arg("status").uid(uid).gid(gid);
        command.output().unwrap()
    };
    assert!(status(64991, 64991).status.success(), "a listed member");
    assert!(status(64993, 64992).status.success(), "by the group of its process");
    // In no file, so that the C library would ask the next service.
    let refused = status(64994, 64994);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("may not"), "{refused:?}");
    assert_eq!(ward.domain("clinical")["state"], "running");
    assert_eq!(agent.stop().code(), Some(0));
}
