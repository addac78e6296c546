//! A paste with its content: the one function by which the agent, `explain`, `[[expect]]` and the log's replay decide.

use super::Verdict;
use super::verdict::Reason;
use crate::cleaning::{Cleaned, Purpose, clean};
use crate::detect::Detector;
use crate::diagnostic::Spanned;
use crate::language::MediaType;
use crate::policy::Policy;
use crate::request::ClipboardRequest;

/// A paste, and what is known of its content.
#[derive(Clone, Copy, Debug)]
pub struct Paste<'a> {
    /// The name of the domain it comes from.
    pub from: &'a str,
    /// The name of the domain it goes to.
    pub to: &'a str,
    /// The type of the content, as it was copied.
    pub media_type: MediaType,
    /// The content, as it was copied; `None` where only its size is known.
    pub content: Option<&'a [u8]>,
    /// The size in bytes to go by; `None` goes by what would be pasted.
    pub size: Option<u64>,
}

/// What the policy says of a paste.
#[derive(Clone, Debug)]
pub struct PasteVerdict<'p> {
    /// The verdict, after the detectors have looked into the content if there is any.
    pub verdict: Verdict<'p>,
    /// The detectors that the deciding rule names.
    pub inspect: &'p [Spanned<Detector>],
    /// The bytes that were judged: a text's after it was cleaned, a picture's as it was copied.
    pub bytes: u64,
    /// The text as it would be pasted; `None` for what is no text.
    pub cleaned: Option<Cleaned>,
}

impl Policy {
    /// Returns whether a paste may cross. Text is cleaned first, and judged, measured and looked into as it would be pasted.
    pub fn decide_paste(&self, paste: &Paste<'_>) -> PasteVerdict<'_> {
        let Paste { from, to, media_type, content, size } = *paste;
        let purpose = match media_type {
            MediaType::TextPlain => Some(Purpose::Reading),
            MediaType::FileList => Some(Purpose::Names),
            _ => None,
        };
        let text = purpose.zip(content).map(|(purpose, content)| {
            std::str::from_utf8(content).map(|text| clean(text, purpose))
        });
        let (cleaned, is_text) = match text {
            Some(Ok(cleaned)) => (Some(cleaned), true),
            Some(Err(_)) => (None, false),
            None => (None, true),
        };
        let crosses = cleaned.as_ref().map(|cleaned| cleaned.bytes.as_slice()).or(content);
        let length = crosses.map(|bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let bytes = size.or(length).unwrap_or(u64::MAX);
        let decided = self.decide_clipboard(&ClipboardRequest { from, to, media_type, bytes });
        let inspect = decided.inspect();
        let verdict = match crosses {
            Some(_) if !is_text => decided.refused(Reason::NotText),
            Some(content) => decided.inspected(content),
            None => decided,
        };
        PasteVerdict { verdict, inspect, bytes, cleaned }
    }
}
