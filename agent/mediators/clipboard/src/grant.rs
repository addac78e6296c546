//! What a permit for the clipboard allows: that this content is offered to this guest, and sent when its programs ask for it.

use std::sync::Arc;

use audit::events::ClipboardPaste;
use monitor::{Grant, Owed, Permit};
use policy::language::MediaType;
use zeroize::Zeroizing;

use clipboard_content as content;

/// Content on its way or kept for a while; wiped when the last who holds it lets go.
pub type Secret = Arc<Zeroizing<Vec<u8>>>;

/// A domain, by its place in the list given to [`ClipboardMediator::new`](crate::mediator::ClipboardMediator::new).
pub type DomainIndex = usize;

/// The effect of a paste: this content is offered to this guest. It is the very content that the audit entry has the hash of, and whoever
/// has a permit for it can offer no other.
#[derive(Debug)]
pub struct Paste {
    /// The number of the crossing.
    pub(crate) id: u64,
    pub(crate) from: DomainIndex,
    pub(crate) to: DomainIndex,
    /// What the policy was asked about: type and bytes.
    pub(crate) judged: (MediaType, u64),
    /// The type that is offered.
    pub(crate) media_type: MediaType,
    pub(crate) content: Secret,
}

impl Paste {
    /// Returns the domain that it is offered to.
    #[must_use]
    pub const fn to(&self) -> DomainIndex {
        self.to
    }
}

// It writes into the guest's clipboard, which is what a verdict on a paste allows.
impl Grant for Paste {
    type Event = ClipboardPaste;
    type Owed = Owed;
}

/// Content that a permit lets into one guest. Its permit was given up for it, and there is no other way to one: what is sent to a guest of
/// another domain's content is this or does not compile.
#[derive(Debug)]
pub struct PermittedContent {
    from: DomainIndex,
    to: DomainIndex,
    judged: (MediaType, u64),
    media_type: MediaType,
    bytes: Secret,
}

impl PermittedContent {
    /// Gives a permit up for what it permits; `crlf` has the lines of a text end as Windows has them.
    pub(crate) fn by(permit: Permit<Paste>, crlf: bool) -> Self {
        let Paste { from, to, judged, media_type, content, .. } = permit.into_grant();
        let text = media_type == MediaType::TextPlain;
        let bytes = if text && crlf { Arc::new(content::with_crlf(&content)) } else { content };
        Self { from, to, judged, media_type, bytes }
    }

    /// Returns the domain that it came from.
    pub(crate) const fn from(&self) -> DomainIndex {
        self.from
    }

    /// Returns the domain that it may be sent to.
    pub(crate) const fn to(&self) -> DomainIndex {
        self.to
    }

    /// Returns what the policy was asked about: type and bytes.
    pub(crate) const fn judged(&self) -> (MediaType, u64) {
        self.judged
    }

    /// Returns the type that is offered.
    pub(crate) const fn media_type(&self) -> MediaType {
        self.media_type
    }

    /// Returns the content as it is sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
