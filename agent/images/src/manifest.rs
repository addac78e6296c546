//! What a bundle says of its image, in words: the text that officers sign.
//!
//! ```toml
//! format = 1
//! purpose = "image"
//! name = "clinical"              # what machine.toml calls it
//! serial = 7                     # grows with every bundle of this name
//! floor = 5                      # no older one comes into force from now on
//! cmdline = "verity.hash=4b1f... verity.offset=452984832 quiet"
//! verity = "4b1f..."             # the root hash in `cmdline`, by which the guest itself checks its first disk
//! health = 180                   # in so many seconds its guest says that its desktop is there; without it nobody waits for that
//!
//! [needs]
//! bulkhead = "0.2.0"             # this version of Bulkhead, or a newer one
//! memory = "2G"                  # so much for a domain, at least
//!
//! [[member]]                     # in the order in which they follow in the bundle
//! part = "kernel"                # one kernel, at most one initrd, and disks in the order in which the guest sees them
//! size = 8237056
//! sha256 = "..."
//! ```

use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;
use std::str::FromStr;

use form::diagnostic::{Diagnostic, Diagnostics, Source};
use form::document::{self, Form, Mistake, Value, quoted};
use policy::signature::Purpose;
use serde::{Deserialize, Serialize};
use vmm_control::MemorySize;
use vmm_control::limits::{DISKS_MAX, check_cmdline};

use crate::container;
use crate::digest::Digest;
use crate::preamble::Preamble;

pub use crate::container::MANIFEST_MAX;

/// The only format of manifests there is.
const FORMAT: u32 = 1;
/// What a manifest begins with.
const BUNDLE: Preamble = Preamble {
    purpose: Purpose::Image,
    what: "a guest image",
    right_one: "take the image's bundle",
    no_use: "this image itself could not come into force",
};
/// The console port on which a guest says that its desktop is there.
pub const HEALTH_PORT: &str = "org.bulkhead.health";
/// How long a guest may be given to come up, in seconds: not so short that none does, nor so long that nobody is there any more.
pub const HEALTH: RangeInclusive<u16> = 10..=3600;
/// Longest name of an image, in bytes: a folder's name that fits into a line of a table.
const NAME_MAX: usize = 32;
/// Files of one image: a kernel, an initrd, and disks.
const MEMBERS_MAX: usize = 2 + DISKS_MAX;
/// Largest kernel, in bytes: fifteen times Debian's.
const KERNEL_MAX: u64 = 256 << 20;
/// Largest initrd, in bytes: it is unpacked into the guest's memory.
const INITRD_MAX: u64 = 2 << 30;
/// Largest disk, in bytes: a hundred times a full desktop's.
const DISK_MAX: u64 = 64 << 30;
/// Most bytes of disks that a PC reads at each start, as no root hash covers them: within ten minutes on a slow hard disk, after which a
/// start is given up.
const HASHED_MAX: u64 = 4 << 30;
/// What the root hash stands behind in the command line: what the guest's initrd looks for.
const ROOT_HASH: &str = "verity.hash=";

/// The name of an image: what `machine.toml` calls it, and its folder in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ImageName {
    type Error = Mistake;

    fn try_from(text: String) -> Result<Self, Mistake> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

impl FromStr for ImageName {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let inner = |byte: u8| letter(byte) || matches!(byte, b'-' | b'_');
        let begins = text.bytes().next().is_some_and(letter);
        if begins && text.len() <= NAME_MAX && text.bytes().all(inner) {
            return Ok(Self(text.to_owned()));
        }
        Err(Mistake::new(
            format!("\"{}\" cannot name an image", text.escape_debug()),
            format!(
                "write 1 to {NAME_MAX} lower-case letters, digits, dashes and underscores, the first one a letter or digit"
            ),
        ))
    }
}

/// A version of Bulkhead: three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

impl Version {
    /// Returns the version of this program.
    #[must_use]
    pub fn own() -> Self {
        // The workspace's version is of three numbers; without one nothing would be new enough.
        env!("CARGO_PKG_VERSION").parse().unwrap_or(Self([0; 3]))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl FromStr for Version {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let numbers = text.split('.').map(|part| {
            let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<u32>().ok().filter(|_| plain)
        });
        let numbers: Option<Vec<u32>> = numbers.collect();
        let three = numbers.and_then(|numbers| <[u32; 3]>::try_from(numbers).ok());
        three.map(Self).ok_or_else(|| {
            Mistake::new(
                format!("\"{}\" is not a version", text.escape_debug()),
                format!("write three numbers, such as {}", Self::own()),
            )
        })
    }
}

/// What a file of an image is to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A bzImage or a PVH ELF file.
    Kernel,
    /// The initial RAM disk.
    Initrd,
    /// A raw disk, which the guest may only read; from 1 on, in the order in which it sees them.
    Disk(u8),
}

impl Part {
    /// Returns the word for it in a manifest.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Disk(_) => "disk",
        }
    }

    /// Returns the largest that it may be, in bytes.
    #[must_use]
    pub const fn largest(self) -> u64 {
        match self {
            Self::Kernel => KERNEL_MAX,
            Self::Initrd => INITRD_MAX,
            Self::Disk(_) => DISK_MAX,
        }
    }
}

/// Its file's name in the store.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel | Self::Initrd => f.write_str(self.word()),
            Self::Disk(number) => write!(f, "disk{number}"),
        }
    }
}

/// A file of an image.
pub type Member = container::Member<Part>;

/// What an image needs of the PC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// This version of Bulkhead, or a newer one.
    pub bulkhead: Option<Version>,
    /// So much memory for a domain, at least.
    pub memory: Option<MemorySize>,
}

/// What a bundle says of its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What `machine.toml` calls the image.
    pub name: ImageName,
    /// Grows with every bundle of this name.
    pub serial: u64,
    /// The lowest serial that may come into force once this bundle was installed; at most its own.
    pub floor: u64,
    /// The kernel command line.
    pub cmdline: String,
    /// The root hash in the command line, by which the guest checks its first disk.
    pub verity: Option<Digest>,
    /// In how many seconds after its start its guest says that it is up; `None` if it never does.
    pub health: Option<u16>,
    /// What it needs of the PC.
    pub needs: Needs,
    /// Its files, in the order of the bundle: one kernel among them.
    pub members: Vec<Member>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, Diagnostics> {
        document::read(&Source::new(source_name, text), read)
    }

    /// Returns its text, which reads back as the same manifest.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = BUNDLE.text(FORMAT, self.name.as_str(), self.serial, self.floor);
        // Strings take everything.
        let _ = writeln!(text, "cmdline = {}", quoted(&self.cmdline));
        if let Some(verity) = self.verity {
            let _ = writeln!(text, "verity = \"{verity}\"");
        }
        if let Some(seconds) = self.health {
            let _ = writeln!(text, "health = {seconds}");
        }
        let Needs { bulkhead, memory } = self.needs;
        if bulkhead.is_some() || memory.is_some() {
            text.push_str("\n[needs]\n");
        }
        if let Some(version) = bulkhead {
            let _ = writeln!(text, "bulkhead = \"{version}\"");
        }
        if let Some(memory) = memory {
            let _ = writeln!(text, "memory = \"{memory}\"");
        }
        for Member { part, size, sha256 } in &self.members {
            let _ = writeln!(
                text,
                "\n[[member]]\npart = \"{}\"\nsize = {size}\nsha256 = \"{sha256}\"",
                part.word()
            );
        }
        text
    }

    /// Returns the bytes of all files together.
    #[must_use]
    pub fn total(&self) -> u64 {
        // Eighteen sizes with caps of their own stay far below the end of the numbers.
        self.members.iter().fold(0, |sum, member| sum.saturating_add(member.size))
    }

    /// Returns how many disks it brings.
    #[must_use]
    pub fn disks(&self) -> usize {
        self.members.iter().filter(|member| matches!(member.part, Part::Disk(_))).count()
    }

    /// Returns whether the guest checks this part itself, block by block: its first disk, if the command line has the root hash of that. No other
    /// part has one.
    #[must_use]
    pub fn is_checked_by_guest(&self, part: Part) -> bool {
        self.verity.is_some() && part == Part::Disk(1)
    }
}

fn read(mut form: Form<'_>) -> Option<Manifest> {
    form.format(FORMAT, "manifest")?;
    BUNDLE.purpose(&mut form)?;
    let name = form.required("name", "\"clinical\"", Value::parsed);
    let (serial, floor) = BUNDLE.serial_and_floor(&mut form);
    let cmdline = form.required("cmdline", "\"quiet\"", |value| {
        let text = value.string()?;
        value.checked(check_cmdline(text).map(|()| text.to_owned()))
    });
    let verity = form.optional("verity", |value| {
        let root: Digest = value.parsed()?;
        match &cmdline {
            Some(cmdline) if !holds(cmdline, root) => value.wrong(
                "the command line does not name this root hash once, as `verity.hash=`, and no other, so that the guest would not check its disk by it",
                "write the root hash of the command line, or leave the line out",
            ),
            _ => Some(root),
        }
    });
    let health = form
        .optional("health", |value| value.integer("the seconds in which the guest is up", HEALTH));
    let needs = form.optional("needs", |value| {
        let mut form = value.form("[needs]")?;
        let bulkhead = form.optional("bulkhead", Value::parsed);
        let memory = form.optional("memory", Value::parsed);
        form.close();
        Some(Needs { bulkhead, memory })
    });
    let members = members(&mut form);
    if let Some(members) = &members {
        disks(&form, verity.is_some(), members);
    }
    form.close();
    Some(Manifest {
        name: name?,
        serial: serial?,
        floor: floor?,
        cmdline: cmdline?,
        verity,
        health,
        needs: needs.unwrap_or_default(),
        members: members?,
    })
}

/// Returns whether the command line gives the guest this root hash and no other, however its words are taken apart.
fn holds(cmdline: &str, root: Digest) -> bool {
    let word = format!("{ROOT_HASH}{root}");
    cmdline.matches(ROOT_HASH).count() == 1
        && cmdline.split_ascii_whitespace().any(|there| there == word)
}

/// Checks that a start does not take too long, and that a root hash is one of something.
fn disks(form: &Form<'_>, verity: bool, members: &[Member]) {
    let is_disk = |member: &&Member| matches!(member.part, Part::Disk(_));
    if verity && !members.iter().any(|member| is_disk(&member)) {
        form.sink().report(Diagnostic::error(
            form.span(),
            "there is a root hash, and no disk that the guest could check by it",
            "add the disk, or leave out `verity`",
        ));
    }
    let hashed = members.iter().filter(is_disk).skip(usize::from(verity));
    let hashed = hashed.fold(0_u64, |sum, member| sum.saturating_add(member.size));
    if hashed > HASHED_MAX {
        form.sink().report(Diagnostic::error(
            form.span(),
            format!(
                "each start would read {} MiB of disks that no root hash covers, and at most {} MiB are read",
                hashed >> 20,
                HASHED_MAX >> 20
            ),
            "give the first disk a dm-verity root hash (`--verity`), or make the others smaller",
        ));
    }
}

const PARTS: [(&str, Part); 3] =
    [("kernel", Part::Kernel), ("initrd", Part::Initrd), ("disk", Part::Disk(0))];

fn members(form: &mut Form<'_>) -> Option<Vec<Member>> {
    let mut disks = 0;
    let read = form.each("member", MEMBERS_MAX, |mut form| {
        let part = form.required("part", "\"kernel\"", |value| {
            Some(value.spanned(value.choice("a part of an image", &PARTS)?))
        });
        let largest = part.map_or(DISK_MAX, |part| part.value.largest());
        let size = form
            .required("size", "8237056", |value| value.integer("the size in bytes", 1..=largest));
        let sha256 = form.required("sha256", "\"...\"", Value::parsed);
        form.close();
        let mut part = part?;
        if let Part::Disk(_) = part.value {
            disks += 1;
            part.value = Part::Disk(disks);
        }
        Some((part, Member { part: part.value, size: size?, sha256: sha256? }))
    })?;
    let sink = form.sink();
    sink.all_different(
        read.iter().map(|(part, _)| (part.value.to_string(), part.span)),
        |part, span, first| {
            let message = format!("an image has one {part}, and this is another");
            Diagnostic::error(span, message, "remove one of the two").and(first, "the other one")
        },
    );
    if usize::from(disks) > DISKS_MAX {
        sink.report(Diagnostic::error(
            form.span(),
            format!("a guest has at most {DISKS_MAX} disks"),
            "remove some",
        ));
    }
    let is_kernel = |(_, member): &(_, Member)| member.part == Part::Kernel;
    if !sink.has_mistakes() && !read.iter().any(is_kernel) {
        sink.report(Diagnostic::error(
            form.span(),
            "the image has no kernel",
            "add a [[member]] with part = \"kernel\"",
        ));
    }
    Some(read.into_iter().map(|(_, member)| member).collect())
}
