//! What is wanted of a domain, for an agent that follows one that died or was replaced: a desktop that somebody stopped stays off, and one
//! that is being restarted comes back.
//!
//! It is written before anything of it is done, beside the domain's sockets, and goes with an agent that ends with its guests: the next one
//! begins anew.

use std::io;

use serde::{Deserialize, Serialize};

use super::record::boot_id;
use base::durable;
use base::layout::Layout;

/// What is wanted of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// The domain is to run.
    Run,
    /// The domain is to run, with another VMM than the one that is there.
    Restart,
    /// The domain is to be off.
    Off,
}

#[derive(Serialize, Deserialize)]
struct DesiredStateRecord {
    /// The ID of the boot that it is of: with the next boot everything begins anew.
    boot: String,
    wanted: DesiredState,
}

impl DesiredState {
    /// Reads what an earlier agent wrote down; `None` if there is nothing that can be read.
    #[must_use]
    pub fn read(layout: &Layout, domain: &str) -> Option<Self> {
        let path = layout.wanted(domain);
        let written: Option<DesiredStateRecord> = durable::read(&path).unwrap_or_else(|error| {
            tracing::warn!(domain, "cannot read {}: {error}", path.display());
            None
        });
        written.filter(|written| written.boot == boot_id()).map(|written| written.wanted)
    }

    /// Writes it down.
    ///
    /// # Errors
    /// What was there before is there still.
    pub fn write(self, layout: &Layout, domain: &str) -> io::Result<()> {
        durable::write(
            &layout.wanted(domain),
            &DesiredStateRecord { boot: boot_id(), wanted: self },
        )
    }

    /// Forgets it: the next agent begins anew.
    pub fn forget(layout: &Layout, domain: &str) {
        if let Err(error) = durable::remove(&layout.wanted(domain)) {
            tracing::warn!(domain, "what was wanted of it is not forgotten: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_outlives_the_agent_and_not_the_boot() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let layout = Layout { images: at("images"), state: at("state"), runtime: at("run") };
        layout.create_runtime(&["clinical"]).unwrap();
        assert_eq!(DesiredState::read(&layout, "clinical"), None);
        for wanted in [DesiredState::Run, DesiredState::Restart, DesiredState::Off] {
            wanted.write(&layout, "clinical").unwrap();
            assert_eq!(DesiredState::read(&layout, "clinical"), Some(wanted));
        }
        let path = layout.wanted("clinical");
        for other in [r#"{"boot":"another","wanted":"off"}"#, "{", r#"{"wanted":"off"}"#] {
            std::fs::write(&path, other).unwrap();
            assert_eq!(DesiredState::read(&layout, "clinical"), None);
        }
        DesiredState::forget(&layout, "clinical");
        assert!(!path.exists());
    }
}
