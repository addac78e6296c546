//! What a domain's guest starts from: the files that the machine file names, or those of its image, which are verified at each start.

use std::path::PathBuf;
use std::time::Duration;

use base::layout::Layout;
use config::machine::{Boot, VmHardware};
use images::manifest::ImageName;
use images::store::{Image, Started, Store};
use printable::explain;

/// The files of one start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: String,
    /// Disks of the image, which the guest only reads, before those of the machine file.
    pub disks: Vec<PathBuf>,
}

/// An image of one serial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSerial {
    pub image: ImageName,
    pub serial: u64,
}

/// What there is to say of an image besides its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedImage {
    pub image: ImageSerial,
    /// Whether it came into force with this start.
    pub is_new: bool,
    /// In how long its guest has to come up, if that is waited for.
    pub health: Option<Duration>,
}

impl BootFiles {
    /// Finds the files of a start that is under way. Those of an image are verified, and one that is to come into force does. May take seconds; for a
    /// worker thread.
    ///
    /// # Errors
    /// There is no such image, it is not what was signed, or needs more than the domain has; in words that say what to do.
    pub fn verified(
        hardware: &VmHardware,
        layout: &Layout,
    ) -> Result<(Self, Option<StartedImage>), String> {
        let Boot::Image(name) = &hardware.boot else {
            return Ok((Self::expected(hardware, layout)?, None));
        };
        let store = Store::at(&layout.images);
        // Nothing comes into force that this domain cannot run.
        fits(&store.next(name).map_err(|error| explain(&error))?, hardware)?;
        let Started { image, is_new, health } =
            store.start(name).map_err(|error| explain(&error))?;
        let health = health.map(|seconds| Duration::from_secs(seconds.into()));
        let files = Self::of(&image);
        let image = ImageSerial { image: name.clone(), serial: image.manifest.serial };
        Ok((files, Some(StartedImage { image, is_new, health })))
    }

    /// Finds the files that a start would have now. Nothing is verified or changed.
    ///
    /// # Errors
    /// There is no such image; in words that say what to do.
    pub fn expected(hardware: &VmHardware, layout: &Layout) -> Result<Self, String> {
        match &hardware.boot {
            Boot::Files { kernel, initrd, cmdline } => Ok(Self {
                kernel: kernel.clone(),
                initrd: initrd.clone(),
                cmdline: cmdline.clone(),
                disks: Vec::new(),
            }),
            Boot::Image(name) => {
                let next = Store::at(&layout.images).next(name);
                next.map(|image| Self::of(&image)).map_err(|error| explain(&error))
            }
        }
    }

    fn of(image: &Image) -> Self {
        Self {
            kernel: image.kernel(),
            initrd: image.initrd(),
            cmdline: image.manifest.cmdline.clone(),
            disks: image.disks().collect(),
        }
    }
}

/// Checks that a domain has what an image needs.
///
/// # Errors
/// It has not.
pub fn fits(image: &Image, hardware: &VmHardware) -> Result<(), String> {
    let manifest = &image.manifest;
    match manifest.needs.memory {
        Some(needed) if needed.bytes() > hardware.memory.bytes() => Err(format!(
            "image {} {} needs a memory of {needed}, and machine.toml gives this domain {}: write `memory = \"{needed}\"`",
            manifest.name, manifest.serial, hardware.memory
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use config::machine::{Context, Kind, Machine};
    use images::bundle::Bundle;
    use images::manifest::{Needs, Part};
    use images::pack::{Contents, pack};
    use policy::signature::{SecretKey, TrustStore};

    use super::*;

    /// Installs and activates an image with this kernel.
    fn install(dir: &Path, serial: u64, kernel: &str, memory: Option<&str>) {
        let key = SecretKey::from_random(&[7; 32].into());
        let trust = format!(
            "format = 2\nserial = 1\n[threshold]\npolicy = 1\nimage = 1\n[[officer]]\nname = \"kim\"\nkey = \"{}\"\nmay_sign = [\"policy\", \"image\"]\n",
            key.public()
        );
        let trust = TrustStore::parse("trust.toml", &trust).unwrap();
        let file = |name: &str, content: &str| {
            fs::write(dir.join(name), content).unwrap();
            dir.join(name)
        };
        let contents = Contents {
            name: "desk".parse().unwrap(),
            serial,
            floor: 1,
            cmdline: format!("serial={serial}"),
            verity: None,
            health: None,
            needs: Needs { bulkhead: None, memory: memory.map(|size| size.parse().unwrap()) },
            files: vec![(Part::Kernel, file("k", kernel)), (Part::Disk(1), file("d", "disk"))],
        };
        let bundle = dir.join("bundle");
        pack(&contents, Some(&key), &bundle, |_| ()).unwrap();
        let approved = Bundle::open(&bundle).unwrap().approve(&trust).unwrap();
        let store = Store::at(&dir.join("images"));
        store.install(&approved, |_| ()).unwrap();
        store.activate(&contents.name, Some(serial)).unwrap();
    }

    fn hardware(dir: &Path) -> (VmHardware, Layout) {
        let images = dir.join("images");
        let text = "format = 1\n[domain.clinical]\nimage = \"desk\"\nmemory = \"1G\"\n";
        let context = Context { images: &images, domain_policies: None };
        let machine = Machine::parse("machine.toml", text, context).unwrap();
        let Kind::Vm(vm) = &machine.domain("clinical").unwrap().kind else { panic!() };
        let layout = Layout { images, state: dir.join("state"), runtime: dir.join("run") };
        ((**vm).clone(), layout)
    }

    #[test]
    fn an_activated_image_comes_into_force_with_the_next_start_and_is_verified_at_each() {
        let dir = tempfile::tempdir().unwrap();
        let (hardware, layout) = hardware(dir.path());
        let refused = BootFiles::verified(&hardware, &layout).unwrap_err();
        assert!(refused.contains("there is no image desk"), "{refused}");
        install(dir.path(), 1, "first", None);
        let (boot, started) = BootFiles::verified(&hardware, &layout).unwrap();
        let started = started.unwrap();
        assert_eq!((started.image.serial, started.is_new, started.health), (1, true, None));
        assert_eq!((boot.cmdline.as_str(), boot.disks.len()), ("serial=1", 1));
        assert_eq!(fs::read_to_string(&boot.kernel).unwrap(), "first");
        let (again, started) = BootFiles::verified(&hardware, &layout).unwrap();
        assert!(again == boot && !started.unwrap().is_new);
        install(dir.path(), 2, "second", None);
        fs::write(dir.path().join("images/desk/2/kernel"), "SECOND").unwrap();
        let refused = BootFiles::verified(&hardware, &layout).unwrap_err();
        assert!(refused.contains("is not what was signed"), "{refused}");
        // What is damaged does not come into force.
        Store::at(&layout.images).roll_back(&"desk".parse().unwrap()).unwrap();
        assert_eq!(BootFiles::verified(&hardware, &layout).unwrap().0, boot);
    }

    #[test]
    fn an_image_that_needs_more_memory_than_its_domain_has_does_not_come_into_force() {
        let dir = tempfile::tempdir().unwrap();
        let (hardware, layout) = hardware(dir.path());
        install(dir.path(), 1, "first", None);
        let (boot, _) = BootFiles::verified(&hardware, &layout).unwrap();
        install(dir.path(), 2, "second", Some("2G"));
        let refused = BootFiles::verified(&hardware, &layout).unwrap_err();
        assert!(refused.contains("write `memory = \"2048M\"`"), "{refused}");
        Store::at(&layout.images).roll_back(&"desk".parse().unwrap()).unwrap();
        assert_eq!(BootFiles::verified(&hardware, &layout).unwrap().0, boot);
    }
}
