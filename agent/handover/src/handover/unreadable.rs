//! A record of what is handed over that cannot be read.

use std::fs;
use std::path::Path;

use printable::explain;

use super::{Handover, HandoverError};
use crate::Claims;
use crate::sysfs::HostSysfs;

impl Handover {
    /// Opens it as [`Self::open`] does, and knows what the machine file says. A record that cannot be read is put aside: a clinical desktop matters
    /// more than which driver a NIC had.
    ///
    /// # Errors
    /// The record can neither be read nor be put aside.
    pub fn open_or_put_aside(
        sysfs: &HostSysfs,
        record_path: &Path,
        fallback: &Path,
        claims: &Claims,
    ) -> Result<Self, HandoverError> {
        let open = || {
            Self::open(sysfs.clone(), record_path, fallback)
                .map(|handover| handover.with_claims(claims.clone()))
        };
        let first = open();
        let Err(error) = first else { return first };
        let aside = record_path.with_extension("unreadable");
        tracing::error!("{}; it is put aside as {}", explain(&error), aside.display());
        if fs::rename(record_path, &aside).is_err() {
            return Err(error);
        }
        open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_read_is_put_aside_and_one_that_cannot_be_put_aside_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (record, fallback) = (dir.path().join("handover.json"), dir.path().join("elsewhere"));
        let open = |record: &Path| {
            Handover::open_or_put_aside(&HostSysfs::system(), record, &fallback, &Claims::default())
        };
        fs::write(&record, "half a reco").unwrap();
        assert!(open(&record).unwrap().handed_over().is_empty());
        let aside = dir.path().join("handover.unreadable");
        assert_eq!(fs::read_to_string(&aside).unwrap(), "half a reco");
        assert!(!record.exists());
        // A folder stands where it would go.
        fs::write(&record, "half a reco").unwrap();
        fs::remove_file(&aside).unwrap();
        fs::create_dir(&aside).unwrap();
        assert!(open(&record).is_err() && record.exists());
    }
}
