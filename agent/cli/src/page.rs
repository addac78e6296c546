//! Where the page of a matrix is written: a new file, a page that is there, or what a shell gives for standard output.
//!
//! What lies at the path is taken hold of once and looked at through what is held, so that nothing put in its place meanwhile is
//! written to. A link is not followed: in a folder that others may write to it leads where they want.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base::durable;
use nix::fcntl::OFlag;
use policy_tools::Matrix;

use super::answer::unwritten;

/// Folders of nothing but the kernel's, whose links lead to what the caller has open.
const DESCRIPTORS: [&str; 4] = ["/dev", "/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"];

/// Writes a page. Of files that are there only such a page, or one without content, is replaced: who names the policy's own file keeps the
/// policy.
pub(super) fn write(path: &Path, page: &str) -> Result<(), String> {
    let failed = |error: io::Error| unwritten(path, &error);
    let refused = |why: &str| Err(format!("cannot write {}: {why}", path.display()));
    match durable::create(path, page.as_bytes(), 0o644) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map_err(failed),
    }
    let held = UnopenedFile::at(path).map_err(failed)?;
    let kind = held.0.metadata().map_err(failed)?.file_type();
    if kind.is_symlink() {
        return refused("it is a link to another file, and no link is followed; name another");
    }
    // A terminal or a pipe holds nothing that could be lost.
    if kind.is_char_device() || kind.is_fifo() {
        let mut out = held.open(OpenOptions::new().write(true)).map_err(failed)?;
        return out.write_all(page.as_bytes()).map_err(failed);
    }
    if !kind.is_file() {
        return refused("it is not a file; name another");
    }
    let mut there = held.open(OpenOptions::new().read(true).write(true)).map_err(failed)?;
    let mut start = Vec::new();
    let most = u64::try_from(Matrix::PAGE_START.len()).unwrap_or(0);
    (&there).take(most).read_to_end(&mut start).map_err(failed)?;
    if !start.is_empty() && start != Matrix::PAGE_START.as_bytes() {
        return refused(
            "the file that is there is not a page of `bulkhead policy matrix`, and is left as it is; name another",
        );
    }
    let mut replace = || {
        io::Seek::rewind(&mut there)?;
        there.set_len(0)?;
        there.write_all(page.as_bytes())
    };
    replace().map_err(failed)
}

/// What lies at a path, of which nothing was opened yet.
struct UnopenedFile(File);

impl UnopenedFile {
    fn at(path: &Path) -> io::Result<Self> {
        let given = path.parent().is_some_and(|folder| {
            DESCRIPTORS.iter().any(|descriptors| folder == Path::new(descriptors))
        });
        let follow = if given { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let flags = (OFlag::O_PATH | follow).bits();
        OpenOptions::new().read(true).custom_flags(flags).open(path).map(Self)
    }

    /// Opens the same file, whatever lies at the path by now.
    fn open(&self, options: &OpenOptions) -> io::Result<File> {
        options.open(PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd())))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_is_followed_to_a_page_or_to_an_empty_file_of_somebody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (theirs, link) = (dir.path().join("theirs"), dir.path().join("page.html"));
        for content in ["", Matrix::PAGE_START] {
            fs::write(&theirs, content).unwrap();
            symlink(&theirs, &link).unwrap();
            let refused = write(&link, "a page").unwrap_err();
            assert!(refused.contains("is a link"), "{refused}");
            assert_eq!(fs::read_to_string(&theirs).unwrap(), content);
            fs::remove_file(&link).unwrap();
        }
        symlink(dir.path().join("nothing"), &link).unwrap();
        assert!(write(&link, "a page").is_err() && !dir.path().join("nothing").exists());
    }

    #[test]
    fn what_is_held_is_written_to_and_not_what_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (page, moved) = (dir.path().join("page.html"), dir.path().join("moved"));
        fs::write(&page, "").unwrap();
        let held = UnopenedFile::at(&page).unwrap();
        fs::rename(&page, &moved).unwrap();
        fs::write(&page, "theirs").unwrap();
        let mut open = held.open(OpenOptions::new().write(true)).unwrap();
        open.write_all(b"ours").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "ours");
        assert_eq!(fs::read_to_string(&page).unwrap(), "theirs");
    }
}
