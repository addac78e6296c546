//! A bundle of a guest image: the file of [`crate::container`], with an image's [`Manifest`].

use std::fs::File;

use form::diagnostic::Diagnostics;
use policy::signature::ImageManifest;

use crate::container::{self, Described};
use crate::kernel;
use crate::manifest::{Manifest, Member, Part};

pub use crate::container::BundleError;

/// What a bundle says of itself: nobody has vouched for it.
pub type Head = container::Head<Manifest>;
/// A bundle that is open.
pub type Bundle = container::Bundle<Manifest>;
/// A bundle whose manifest enough officers signed.
pub type ApprovedBundle = container::ApprovedBundle<Manifest>;

impl Described for Manifest {
    type Signed = ImageManifest;
    type Part = Part;

    fn parse(source_name: &str, text: &str) -> Result<Self, Diagnostics> {
        Self::parse(source_name, text)
    }

    fn text(&self) -> String {
        self.text()
    }

    fn serial(&self) -> u64 {
        self.serial
    }

    fn members(&self) -> &[Member] {
        &self.members
    }

    fn members_mut(&mut self) -> &mut [Member] {
        &mut self.members
    }

    fn check(part: Part, file: &File, begin: u64, size: u64) -> Result<(), BundleError> {
        if part != Part::Kernel {
            return Ok(());
        }
        let checked = kernel::check(file, begin, size).map_err(BundleError::Read)?;
        checked.map_err(BundleError::NotAKernel)
    }
}
