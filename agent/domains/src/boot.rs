//! What a domain's guest starts from: the files that the machine file names, or those of its image, which are verified at each start.

use std::path::PathBuf;
use std::time::Duration;

use base::layout::Layout;
use config::machine::{Boot, VmHardware};
use images::manifest::{ImageName, Manifest};
use images::record::ImageEvent;
use images::store::{self, Image, ImageStart, Store};
use printable::explain;
use serde::{Deserialize, Serialize};

/// The files of one start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    pub kernel: PathBuf,
    /// The initial RAM disk, if the guest boots with one.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line of this start.
    pub cmdline: String,
    /// Disks of the image, which the guest only reads, before those of the machine file.
    pub disks: Vec<PathBuf>,
    /// The image that the files are of, if they are of one.
    pub image: Option<ImageSerial>,
}

/// A guest image by its name and serial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The image that was to come into force with this start and cannot.
    pub refused: Option<RefusedImage>,
}

/// An image that was to come into force with a start and cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedImage {
    pub image: ImageSerial,
    /// Why it cannot, in words for IT.
    pub why: String,
    /// What there is to record, if the image's record could not take that.
    pub unwritten: Option<ImageEvent>,
}

impl BootFiles {
    /// Finds the files of a start that is under way. Those of an image are verified, and one that is to come into force does. May take seconds: only in a background
    /// job.
    ///
    /// # Errors
    /// There is no such image, it is not what was signed, or needs more than the domain has; in words that say what to do.
    pub fn verified(
        domain: &str,
        hardware: &VmHardware,
        layout: &Layout,
    ) -> Result<(Self, Option<StartedImage>), String> {
        let Boot::Image(name) = &hardware.boot else {
            return Ok((Self::expected(domain, hardware, layout)?, None));
        };
        // Nothing comes into force that this domain cannot run.
        let fits =
            |manifest: &Manifest| hardware.fits(manifest).map_err(|misfit| misfit.to_string());
        let started = Store::at(&layout.images).start(name, domain, fits);
        let ImageStart { image, is_new, health, refused } =
            started.map_err(|error| explain(&error))?;
        let health = health.map(|seconds| Duration::from_secs(seconds.into()));
        let files = Self::of(&image);
        let of = |serial| ImageSerial { image: name.clone(), serial };
        let refused = refused.map(|it| {
            let store::RefusedImage { serial, why, unwritten } = it;
            RefusedImage { image: of(serial), why: explain(&*why), unwritten }
        });
        let image = of(image.manifest.serial);
        Ok((files, Some(StartedImage { image, is_new, health, refused })))
    }

    /// Finds the files that a start would have now. Nothing is verified or changed.
    ///
    /// # Errors
    /// There is no such image; in words that say what to do.
    pub fn expected(domain: &str, hardware: &VmHardware, layout: &Layout) -> Result<Self, String> {
        match &hardware.boot {
            Boot::Files { kernel, initrd, cmdline } => Ok(Self {
                kernel: kernel.clone(),
                initrd: initrd.clone(),
                cmdline: cmdline.clone(),
                disks: Vec::new(),
                image: None,
            }),
            Boot::Image(name) => {
                let next = Store::at(&layout.images).next(name, domain);
                next.map(|image| Self::of(&image)).map_err(|error| explain(&error))
            }
        }
    }

    /// Finds the files of an installed image. Nothing is verified.
    ///
    /// # Errors
    /// It is not there.
    pub fn installed(image: &ImageSerial, layout: &Layout) -> Result<Self, String> {
        let found = Store::at(&layout.images).image(&image.image, image.serial);
        found.map(|image| Self::of(&image)).map_err(|error| explain(&error))
    }

    fn of(image: &Image) -> Self {
        Self {
            kernel: image.kernel(),
            initrd: image.initrd(),
            cmdline: image.manifest.cmdline.clone(),
            disks: image.disks().collect(),
            image: Some(ImageSerial {
                image: image.manifest.name.clone(),
                serial: image.manifest.serial,
            }),
        }
    }
}

#[cfg(test)]
pub(crate) use self::tests::{hardware, install_with};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use config::machine::{Context, Disk, Kind, Machine};
    use images::bundle::Bundle;
    use images::bzimage_for_tests;
    use images::manifest::{Needs, Part};
    use images::pack::{Contents, pack};
    use policy::signature::{SecretKey, TrustStore};

    use super::*;

    /// Installs and activates an image with this kernel.
    fn install(dir: &Path, serial: u64, kernel: &str, memory: Option<&str>) {
        install_with(dir, serial, kernel, memory, None);
    }

    /// The same, of one whose guest says that it is up.
    pub(crate) fn install_with(
        dir: &Path,
        serial: u64,
        kernel: &str,
        memory: Option<&str>,
        health: Option<u16>,
    ) {
        let key = SecretKey::from_random(&[7; 32].into());
        let trust = format!(
            "format = 2\nserial = 1\n[threshold]\npolicy = 1\nimage = 1\n[[officer]]\nname = \"kim\"\nkey = \"{}\"\nmay_sign = [\"policy\", \"image\"]\n",
            key.public()
        );
        let trust = TrustStore::parse("trust.toml", &trust).unwrap();
        let file = |name: &str, content: &[u8]| {
            fs::write(dir.join(name), content).unwrap();
            dir.join(name)
        };
        let contents = Contents {
            name: "desk".parse().unwrap(),
            serial,
            floor: 1,
            cmdline: format!("serial={serial}"),
            verity: None,
            health,
            needs: Needs { bulkhead: None, memory: memory.map(|size| size.parse().unwrap()) },
            files: vec![
                (Part::Kernel, file("k", &bzimage_for_tests(kernel))),
                (Part::Disk(1), file("d", b"disk")),
            ],
        };
        let bundle = dir.join(format!("{serial}.bundle"));
        pack(&contents, Some(&key), &bundle, |_| ()).unwrap();
        let approved = Bundle::open(&bundle).unwrap().approve(&trust).unwrap();
        let store = Store::at(&dir.join("images"));
        store.install(&approved, |_| (), |_| Ok(())).unwrap();
        store.activate(&contents.name, Some(serial)).unwrap();
    }

    pub(crate) fn hardware(dir: &Path) -> (VmHardware, Layout) {
        let images = dir.join("images");
        let text = "format = 1\n[domain.clinical]\nimage = \"desk\"\nmemory = \"1G\"\n";
        let context = Context { images: &images, domain_policies: None };
        let machine = Machine::parse("machine.toml", text, context).unwrap();
        let Kind::Vm(vm) = &machine.domain("clinical").unwrap().kind else { panic!() };
        let layout = Layout { images, state: dir.join("state"), runtime: dir.join("run") };
        ((**vm).clone(), layout)
    }

    /// Asserts that the image to come stays so, and the one in force is started.
    fn is_refused(hardware: &VmHardware, layout: &Layout, boot: &BootFiles, says: &str) {
        for _ in 0..2 {
            let (files, started) = BootFiles::verified("clinical", hardware, layout).unwrap();
            let StartedImage { image, is_new, refused, .. } = started.unwrap();
            assert_eq!((&files, image.serial, is_new), (boot, 1, false));
            let RefusedImage { image, why, unwritten } = refused.unwrap();
            assert_eq!(unwritten, None, "it waits in the image's record");
            assert!(image.serial == 2 && why.contains(says), "{why}");
        }
    }

    #[test]
    fn an_activated_image_comes_into_force_with_the_next_start_and_is_verified_at_each() {
        let dir = tempfile::tempdir().unwrap();
        let (hardware, layout) = hardware(dir.path());
        let refused = BootFiles::verified("clinical", &hardware, &layout).unwrap_err();
        assert!(refused.contains("there is no image desk"), "{refused}");
        install(dir.path(), 1, "first", None);
        let (boot, started) = BootFiles::verified("clinical", &hardware, &layout).unwrap();
        let started = started.unwrap();
        assert_eq!((started.image.serial, started.is_new, started.health), (1, true, None));
        assert_eq!((boot.cmdline.as_str(), boot.disks.len()), ("serial=1", 1));
        assert!(fs::read(&boot.kernel).unwrap().ends_with(b"first"));
        let (again, started) = BootFiles::verified("clinical", &hardware, &layout).unwrap();
        assert!(again == boot && !started.unwrap().is_new);
        install(dir.path(), 2, "second", None);
        fs::write(dir.path().join("images/desk/2/kernel"), "SECOND").unwrap();
        // What is damaged does not come into force, and the one in force goes on.
        is_refused(&hardware, &layout, &boot, "is not what was signed");
        Store::at(&layout.images).roll_back(&"desk".parse().unwrap(), Some(1)).unwrap();
        let (files, started) = BootFiles::verified("clinical", &hardware, &layout).unwrap();
        assert!(files == boot && started.unwrap().refused.is_none());
        fs::write(dir.path().join("images/desk/1/kernel"), "FIRST").unwrap();
        let why = BootFiles::verified("clinical", &hardware, &layout).unwrap_err();
        assert!(why.contains("desk/1/kernel is not what was signed"), "{why}");
    }

    #[test]
    fn an_image_that_needs_more_memory_than_its_domain_has_does_not_come_into_force() {
        let dir = tempfile::tempdir().unwrap();
        let (hardware, layout) = hardware(dir.path());
        install(dir.path(), 1, "first", None);
        let (boot, _) = BootFiles::verified("clinical", &hardware, &layout).unwrap();
        install(dir.path(), 2, "second", Some("2G"));
        is_refused(&hardware, &layout, &boot, "write `memory = \"2048M\"`");
        // Nor does one with more disks than a guest has.
        install(dir.path(), 3, "third", None);
        let mut crowded = hardware.clone();
        crowded.disks = vec![Disk { path: "/x".into(), readonly: false }; 16];
        let why = BootFiles::verified("clinical", &crowded, &layout).unwrap_err();
        assert!(why.contains("has 1 disks, machine.toml gives this domain 16"), "{why}");
        let (_, started) = BootFiles::verified("clinical", &hardware, &layout).unwrap();
        assert_eq!(started.unwrap().image.serial, 3);
    }
}
