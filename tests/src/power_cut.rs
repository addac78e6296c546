//! Power cuts at chosen moments: what the PC's disk would hold, from a log of its writes and flushes.
//!
//! A QEMU that is killed loses no completed write, a disk whose power is cut does: what it had not been told to flush may be on it, or not. So the writes
//! are logged (QEMU's block driver `blklogwrites`, in the format of Linux's `dm-log-writes`), and the disk of any moment is made of a copy from before, all
//! writes up to a flush, and some of those behind it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, ensure};

/// What the log begins with.
const MAGIC: u64 = 0x006a_7366_7773_6872;
/// A sector of the log, and of what it says: the log driver's default.
const SECTOR: u64 = 512;
/// The sizes of a request's head, a whole sector with four numbers of eight bytes in it.
const HEAD: usize = 32;
/// Everything before it is on the disk.
const FLUSH: u64 = 1;
/// It is on the disk itself; as strict as a flush for the sectors that it writes, and for no other.
const FUA: u64 = 2;
/// The sectors are given back; nothing is written.
const DISCARD: u64 = 4;
/// How much of the log there is room for: a hole until it is used.
const ROOM: u64 = 16 << 30;

/// A disk whose writes are logged from a moment on.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The disk as it was then.
    base: PathBuf,
    log: PathBuf,
}

/// A request to the disk.
#[derive(Clone, Copy, Debug)]
struct Request {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where in the log its data is.
    data: u64,
}

impl Recording {
    /// Begins one in a folder, of a disk that nobody writes to.
    ///
    /// # Errors
    /// There is no room for the copy.
    pub fn begin(disk: &Path, dir: &Path) -> Outcome<Self> {
        let this = Self { base: dir.join("disk.before"), log: dir.join("disk.log") };
        copy(disk, &this.base)?;
        File::create(&this.log)?.set_len(ROOM)?;
        Ok(this)
    }

    /// Returns QEMU's arguments for the disk with the node's name `disk`.
    pub(crate) fn drive(&self, disk: &Path) -> String {
        format!(
            "driver=blklogwrites,node-name=disk,file.driver=file,file.filename={},log.driver=file,log.filename={}",
            disk.display(),
            self.log.display()
        )
    }

    /// Returns what was asked of the disk so far, in its order. A request that is being written to the log is not among it.
    fn requests(&self) -> Outcome<Vec<Request>> {
        let log = File::open(&self.log)?;
        let number = |bytes: &[u8], at: usize| {
            let bytes: Option<[u8; 8]> = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        let mut head = [0; HEAD];
        log.read_exact_at(&mut head, 0)?;
        ensure!(number(&head, 0) == MAGIC, "the log of the disk's writes is none");
        let (mut requests, mut at) = (Vec::new(), SECTOR);
        while at + SECTOR <= ROOM {
            log.read_exact_at(&mut head, at)?;
            let [sector, sectors, flags] = [0, 8, 16].map(|place| number(&head, place));
            if sectors == 0 && flags == 0 {
                break;
            }
            let data = at + SECTOR;
            requests.push(Request { sector, sectors, flags, data });
            at = data + if flags & DISCARD == 0 { sectors * SECTOR } else { 0 };
        }
        Ok(requests)
    }

    /// Returns how many requests there were so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn count(&self) -> Outcome<usize> {
        Ok(self.requests()?.len())
    }

    /// Returns so many flushes, spread evenly over the requests of a time.
    ///
    /// # Errors
    /// The log cannot be read, or there were fewer flushes.
    pub fn moments(&self, during: std::ops::Range<usize>, count: usize) -> Outcome<Vec<usize>> {
        let requests = self.requests()?;
        let flushes: Vec<usize> = during
            .filter(|place| requests.get(*place).is_some_and(|r| r.flags & FLUSH != 0))
            .collect();
        ensure!(flushes.len() >= count, "there were {} flushes only", flushes.len());
        let chosen = (0..count).filter_map(|n| flushes.get(n * (flushes.len() - 1) / (count - 1)));
        Ok(chosen.copied().collect())
    }

    /// Writes the disk as a power cut behind a request finds it: with every second of the writes between that flush and the next, chosen by `seed`, and the
    /// others lost.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn cut(&self, behind: usize, seed: u64, disk: &Path) -> Outcome {
        copy(&self.base, disk)?;
        let (log, disk) = (File::open(&self.log)?, OpenOptions::new().write(true).open(disk)?);
        let mut chance = seed | 1;
        for (place, request) in self.requests()?.iter().enumerate() {
            if place > behind {
                if request.flags & FLUSH != 0 {
                    break;
                }
                // xorshift64 (Marsaglia 2003): it repeats for a seed.
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                if chance & 1 == 0 && request.flags & FUA == 0 {
                    continue;
                }
            }
            if request.flags & DISCARD == 0 {
                let mut data = vec![0; usize::try_from(request.sectors * SECTOR)?];
                log.read_exact_at(&mut data, request.data)?;
                disk.write_all_at(&data, request.sector * SECTOR)?;
            }
        }
        disk.sync_all()?;
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Outcome {
    let copied = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .arg(from)
        .arg(to)
        .status()?;
    ensure!(copied.success(), "{} cannot be copied: {copied}", from.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of requests, as `blklogwrites` writes it.
    fn logged(dir: &Path, requests: &[(u64, u64, u64, u8)]) -> Recording {
        let disk = dir.join("disk");
        std::fs::write(&disk, vec![0; 16 * 512]).unwrap();
        let recording = Recording::begin(&disk, dir).unwrap();
        let log = OpenOptions::new().write(true).open(&recording.log).unwrap();
        log.write_all_at(&MAGIC.to_le_bytes(), 0).unwrap();
        let mut at = SECTOR;
        for (sector, sectors, flags, byte) in requests {
            let head = [*sector, *sectors, *flags, 0].map(u64::to_le_bytes).concat();
            log.write_all_at(&head, at).unwrap();
            at += SECTOR;
            if flags & DISCARD == 0 {
                let data = vec![*byte; usize::try_from(sectors * SECTOR).unwrap()];
                log.write_all_at(&data, at).unwrap();
                at += sectors * SECTOR;
            }
        }
        recording
    }

    #[test]
    fn a_cut_keeps_what_was_flushed_and_some_of_what_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |sector, byte| (sector, 1, 0, byte);
        let mut requests = vec![write(0, 1), (0, 0, FLUSH, 0), (4, 2, DISCARD, 0)];
        requests.extend((1..9).map(|sector| write(sector, 2)));
        requests.extend([(9, 1, FUA, 3), (0, 0, FLUSH, 0), write(10, 4)]);
        let recording = logged(dir.path(), &requests);
        assert_eq!(recording.count().unwrap(), requests.len());
        assert_eq!(recording.moments(0..requests.len(), 2).unwrap(), [1, 12]);
        assert!(recording.moments(0..requests.len(), 3).is_err());
        let disk = dir.path().join("cut");
        recording.cut(1, 7, &disk).unwrap();
        let sectors: Vec<u8> =
            std::fs::read(&disk).unwrap().chunks(512).map(|sector| sector[0]).collect();
        assert_eq!((sectors[0], sectors[9], sectors[10]), (1, 3, 0));
        let kept = sectors[1..9].iter().filter(|byte| **byte == 2).count();
        assert!((1..8).contains(&kept), "{sectors:?}");
        recording.cut(12, 7, &disk).unwrap();
        let whole = std::fs::read(&disk).unwrap();
        assert!(whole[512..9 * 512].iter().all(|byte| *byte == 2));
    }
}
