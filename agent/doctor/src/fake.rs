//! A PC made of files, for tests.

use std::fs;

use handover::fake::FakePc;

use crate::SystemPaths;

/// A PC with empty folders for the doctor to look into.
pub(crate) struct Pc {
    /// Its PCI functions, with the folder that everything is in.
    pub(crate) files: FakePc,
    pub(crate) system: SystemPaths,
}

impl Pc {
    pub(crate) fn new() -> Self {
        let files = FakePc::new();
        let system = paths(&files);
        Self { files, system }
    }

    /// Writes a file below `/sys`.
    pub(crate) fn sys(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.system.sysfs.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Writes a file below `/`.
    pub(crate) fn root(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.system.root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Returns the folders of a PC, which are there.
pub(crate) fn paths(files: &FakePc) -> SystemPaths {
    let dir = files.dir.path();
    let (proc, dev, root) = (dir.join("proc"), dir.join("dev"), dir.join("root"));
    for folder in [proc.join("net"), proc.join("self"), dev.clone(), root.join("etc")] {
        fs::create_dir_all(folder).unwrap();
    }
    SystemPaths { sysfs: files.sysfs(), proc, dev, root }
}
