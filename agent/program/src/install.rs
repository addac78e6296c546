//! What the commands do with the store: a bundle is taken into it, to be installed by [`crate::update`], or the one before is to come back.

use images::notes;
use policy::signature::TrustStore;

use crate::manifest::ApprovedBundle;
use crate::notes::{ProgramAction, ProgramNote};
use crate::record::{Admission, AdmissionRefusal, InstalledPackage, KeptPackage, Record};
use crate::store::{Store, StoreError};

/// Who asks for an update, and the risk that they take.
#[derive(Clone, Copy, Debug)]
pub struct InstallRequest {
    /// The number of the user who asks for it.
    pub uid: u32,
    /// Whether the update may come though there is nothing to go back to.
    pub no_way_back: bool,
}

/// A bundle that was taken.
#[derive(Debug)]
pub struct TakenBundle {
    /// What is done with the bundle.
    pub admission: Admission,
    /// The package that the store keeps of it.
    pub kept: KeptPackage,
}

/// Takes a bundle into the store if it may come, and has it wait; one that the PC has already is only kept. It is noted for the audit log before.
///
/// # Errors
/// It may not come, or cannot be written or noted: nothing is changed then.
pub fn take(
    store: &Store,
    bundle: &ApprovedBundle,
    trust: &TrustStore,
    has: &InstalledPackage,
    wish: InstallRequest,
) -> Result<TakenBundle, StoreError> {
    let lock = store.lock()?;
    let mut record = store.record()?;
    let kept = KeptPackage::of(bundle.bundle().head(), bundle.signers());
    let admission = record.admit(&kept, has, wish.no_way_back)?;
    if let Admission::Update { back: Some(back) } = &admission
        && !wish.no_way_back
    {
        // An officer of the one before may have been withdrawn since, or its file be damaged.
        store.package(back, trust)?;
    }
    store.keep(bundle, trust, &lock)?;
    let note = ProgramNote {
        trust: bundle.trust_serial(),
        ..ProgramNote::of(ProgramAction::Installed, Some(&kept), wish.uid)
    };
    noted(store, note)?;
    match &admission {
        Admission::IsThere => record.is_there(kept.clone()),
        Admission::Update { back } => record.wait(kept.clone(), back.clone(), wish.uid),
    }
    store.write(&record)?;
    store.tidy(&record);
    Ok(TakenBundle { admission, kept })
}

/// Prepares the return to the package before; returns which that is. It is noted for the audit log first.
///
/// # Errors
/// There is none, it may not come back, an update is under way, or it cannot be noted: nothing is changed then.
pub fn roll_back(store: &Store, uid: u32) -> Result<KeptPackage, StoreError> {
    change(store, ProgramAction::Rollback, uid, |record| record.wait_for_the_one_before(uid))
}

/// Calls off the update that waits; returns which. It is noted for the audit log before.
///
/// # Errors
/// None waits, it was begun with, or it cannot be noted: nothing is changed then.
pub fn cancel(store: &Store, uid: u32) -> Result<KeptPackage, StoreError> {
    change(store, ProgramAction::Cancelled, uid, Record::call_off)
}

fn change(
    store: &Store,
    what: ProgramAction,
    uid: u32,
    make: impl FnOnce(&mut Record) -> Result<KeptPackage, AdmissionRefusal>,
) -> Result<KeptPackage, StoreError> {
    let _lock = store.lock()?;
    let mut record = store.record()?;
    let kept = make(&mut record)?;
    noted(store, ProgramNote::of(what, Some(&kept), uid))?;
    store.write(&record)?;
    store.tidy(&record);
    Ok(kept)
}

fn noted(store: &Store, note: ProgramNote) -> Result<(), StoreError> {
    let added = notes::add(store.folder(), note);
    added.map_err(|source| StoreError::File { path: store.folder().to_owned(), source })
}
