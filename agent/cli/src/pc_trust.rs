//! The trust store that counts on a PC, for commands that install what officers signed.

use std::path::Path;

use config::trust::TrustFiles;
use policy::signature::{Purpose, TrustStore};
use printable::explain;

use super::complain;

/// Returns the trust store that counts on the PC with this machine file and state directory, and warns if the one in the file is refused and does not
/// count. What is signed for `purpose` is taken signed only.
pub(crate) fn read(machine: &Path, state: &Path, purpose: Purpose) -> Result<TrustStore, String> {
    let trust = TrustFiles::for_looking(machine, state).in_force();
    let trust = trust.map_err(|error| explain(&error))?;
    if let Some(refused) = trust.report.refused {
        complain(&format!(
            "bulkhead: warning: the trust store is refused, and the one before (serial {}) counts: {}\n",
            refused.serial, refused.why
        ));
    }
    trust.store.ok_or_else(|| {
        let what = if purpose == Purpose::Image { "images are" } else { "programs are" };
        format!(
            "there is no trust store {}, and {what} taken signed only: have the security office lay one down in which officers may sign for `{purpose}`",
            machine.with_file_name("trust.toml").display()
        )
    })
}
