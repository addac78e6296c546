//! What the policy answers.

use std::fmt;

use super::Decision;
use crate::detect::{Content, Detector};
use crate::diagnostic::Spanned;
use crate::language::{
    ClipboardAction, ClipboardRule, Domain, Head, MediaType, UsbAction, UsbClass, UsbRule,
};

/// The answer to a request. It borrows from the policy and copies nothing.
///
/// An answer other than no is not yet a permission: [`obligations`](Self::obligations) says what is owed first.
#[must_use = "a verdict that nobody heeds lets things cross"]
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'p> {
    decision: Decision,
    rule: Option<&'p Head>,
    reason: Reason<'p>,
    to: Option<&'p Domain>,
    /// What is still to be looked for, and in what; empty once it was.
    inspect: &'p [Spanned<Detector>],
    media_type: MediaType,
    confirm_no_keyboard: bool,
}

/// What the mediator owes.
#[derive(Clone, Copy, Debug)]
pub enum Obligation<'p> {
    /// Before it crosses: give the content to [`Policy::decide_paste`](crate::Policy::decide_paste) and go by what that answers.
    Inspect(&'p [Spanned<Detector>]),
    /// Before it crosses: read the report descriptors of its HID functions, and ask again with what they say.
    ConfirmNoKeyboard,
    /// Before it crosses: ask the clinician, and take silence for no.
    Ask,
    /// While it is attached: refuse what would write to the medium.
    ReadOnly,
    /// In every case, and before it crosses: write verdict, rule and reason to the audit.
    Audit,
}

impl Obligation<'_> {
    /// Returns one word for it, in outputs for machines.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Inspect(_) => "inspect",
            Self::ConfirmNoKeyboard => "confirm-no-keyboard",
            Self::Ask => "ask",
            Self::ReadOnly => "read-only",
            Self::Audit => "audit",
        }
    }
}

/// The reason of a verdict. Its `Display` says it in words that a clinician understands.
#[derive(Clone, Copy, Debug)]
pub enum Reason<'p> {
    /// A clipboard rule says so.
    ClipboardRule {
        /// The rule that decided.
        rule: &'p ClipboardRule,
        /// The domain whose clipboard it is.
        from: &'p Domain,
        /// The domain that it would be pasted in.
        to: &'p Domain,
        /// The type of the content.
        media_type: MediaType,
    },
    /// A USB rule says so.
    UsbRule {
        /// The rule that decided.
        rule: &'p UsbRule,
        /// The domain that gets the device, or is denied it.
        to: Option<&'p Domain>,
        /// The USB class of the function that it decided for.
        class: UsbClass,
    },
    /// No clipboard rule matches.
    NoClipboardRule {
        /// The domain whose clipboard it is.
        from: &'p Domain,
        /// The domain that it would be pasted in.
        to: &'p Domain,
        /// The type of the content.
        media_type: MediaType,
        /// Whether a rule would match less of it.
        too_large: bool,
    },
    /// No USB rule matches one of the device's functions.
    NoUsbRule {
        /// The USB class of the function that no rule matches.
        class: UsbClass,
        /// The domain somebody attached it to.
        to: Option<&'p Domain>,
    },
    /// The request names a domain that the policy does not.
    UnknownDomain,
    /// Source and destination are one domain: nothing would cross.
    SameDomain(&'p Domain),
    /// The device has no function that could be judged.
    NoFunction,
    /// It is a hub, or contains one.
    Hub,
    /// It is a keyboard or a mouse.
    KeyboardOrMouse,
    /// It has one in it, and something besides: see [`Policy::decide_rest`](crate::Policy::decide_rest).
    KeyboardBesides,
    /// It is storage in a device that has a keyboard or mouse in it.
    StorageBesideKeyboard,
    /// Its functions would go to two domains.
    TwoDomains(&'p Domain, &'p Domain),
    /// A detector found what it looks for.
    Found(&'p Detector),
    /// Detectors must look inside and cannot.
    Unreadable(MediaType),
    /// Text that is not UTF-8.
    NotText,
    /// It is an input device that does not show what it is.
    PerhapsKeyboard,
}

impl<'p> Verdict<'p> {
    pub(super) const fn denied(reason: Reason<'p>) -> Self {
        Self {
            decision: Decision::Deny,
            rule: None,
            reason,
            to: None,
            inspect: &[],
            media_type: MediaType::TextPlain,
            confirm_no_keyboard: false,
        }
    }

    pub(super) const fn by_rule(decision: Decision, rule: &'p Head, reason: Reason<'p>) -> Self {
        Self { decision, rule: Some(rule), ..Self::denied(reason) }
    }

    pub(super) const fn into_domain(self, to: &'p Domain) -> Self {
        Self { to: Some(to), ..self }
    }

    pub(super) fn inspecting(
        self,
        inspect: &'p [Spanned<Detector>],
        media_type: MediaType,
    ) -> Self {
        match self.decision {
            Decision::Deny => self,
            _ => Self { inspect, media_type, ..self },
        }
    }

    pub(super) const fn confirming_no_keyboard(self, confirm_no_keyboard: bool) -> Self {
        Self { confirm_no_keyboard, ..self }
    }

    /// Returns the verdict on a device two of whose functions were admitted so.
    pub(super) fn together_with(self, other: Self) -> Self {
        let confirm_no_keyboard = self.confirm_no_keyboard || other.confirm_no_keyboard;
        match (self.to, other.to) {
            (Some(one), Some(two)) if !std::ptr::eq(one, two) => {
                Self::denied(Reason::TwoDomains(one, two))
            }
            _ if other.decision < self.decision => Self { confirm_no_keyboard, ..other },
            _ => Self { confirm_no_keyboard, ..self },
        }
    }

    /// Returns what the rule says.
    #[must_use]
    pub const fn decision(&self) -> Decision {
        self.decision
    }

    /// Returns whether it may cross as things stand: the decision is not no, and nothing is left to be looked into. It may still
    /// owe a question or a write blocker.
    #[must_use]
    pub const fn permits(&self) -> bool {
        !matches!(self.decision, Decision::Deny)
            && self.inspect.is_empty()
            && !self.confirm_no_keyboard
    }

    /// Returns the rule that decided, with its line; `None` where none matched.
    #[must_use]
    pub const fn rule(&self) -> Option<&'p Head> {
        self.rule
    }

    /// Returns why it was decided so.
    #[must_use]
    pub const fn reason(&self) -> Reason<'p> {
        self.reason
    }

    /// Returns the domain it goes to, where the rule says so.
    #[must_use]
    pub const fn to(&self) -> Option<&'p Domain> {
        self.to
    }

    /// Returns what the mediator owes, in the order in which it owes it.
    pub fn obligations(&self) -> impl Iterator<Item = Obligation<'p>> + use<'p> {
        let inspect = (!self.inspect.is_empty()).then_some(Obligation::Inspect(self.inspect));
        let confirm = self.confirm_no_keyboard.then_some(Obligation::ConfirmNoKeyboard);
        let during = match self.decision {
            Decision::Ask => Some(Obligation::Ask),
            Decision::ReadOnly => Some(Obligation::ReadOnly),
            Decision::Deny | Decision::Allow => None,
        };
        inspect.into_iter().chain(confirm).chain(during).chain([Obligation::Audit])
    }

    /// Returns the verdict once the detectors have looked into the content: no at the first hit, and no where they cannot look.
    pub(super) fn inspected(self, content: &[u8]) -> Self {
        if self.inspect.is_empty() {
            return self;
        }
        let Some(content) = Content::of(self.media_type, content) else {
            return self.refused(Reason::Unreadable(self.media_type));
        };
        match self.inspect.iter().find(|detector| detector.finds(&content)) {
            Some(detector) => self.refused(Reason::Found(detector)),
            None => Self { inspect: &[], ..self },
        }
    }

    /// Returns the verdict where nothing more can be found out: what might still be a keyboard, or hold what must not cross, does not.
    pub fn settled(self) -> Self {
        if self.confirm_no_keyboard {
            self.refused(Reason::PerhapsKeyboard)
        } else if !self.inspect.is_empty() {
            self.refused(Reason::Unreadable(self.media_type))
        } else {
            self
        }
    }

    /// Refuses for this reason; what was no before stays as it is.
    pub(super) fn refused(self, reason: Reason<'p>) -> Self {
        match self.decision {
            Decision::Deny => self,
            _ => Self {
                decision: Decision::Deny,
                reason,
                inspect: &[],
                confirm_no_keyboard: false,
                ..self
            },
        }
    }

    /// Returns what is still to be looked for.
    pub(super) const fn inspect(&self) -> &'p [Spanned<Detector>] {
        self.inspect
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClipboardRule { rule, from, to, media_type } => {
                let verb = match *rule.action {
                    ClipboardAction::Allow => "allows",
                    ClipboardAction::Ask => "asks before it allows",
                    ClipboardAction::Deny => "denies",
                };
                write!(f, "rule `{}` {verb} {media_type}", rule.head.id.value)?;
                if let Some(max) = rule.max_bytes {
                    write!(f, " of up to {}", printable::counted(max.value, "byte", "bytes"))?;
                }
                write!(f, " from {} to {}", *from.label, *to.label)
            }
            Self::UsbRule { rule, to, class } => {
                let (id, to) = (&rule.head.id.value, label(*to));
                match *rule.action {
                    UsbAction::Allow => {
                        write!(f, "rule `{id}` gives {class} devices like this to {to}")
                    }
                    UsbAction::ReadOnly => {
                        write!(
                            f,
                            "rule `{id}` gives {class} devices like this to {to}, without writing"
                        )
                    }
                    UsbAction::Deny => {
                        write!(f, "rule `{id}` denies {class} devices like this to {to}")
                    }
                }
            }
            Self::NoClipboardRule { from, to, media_type, too_large } => {
                let size = if *too_large { " of this size" } else { "" };
                write!(
                    f,
                    "no rule allows {media_type}{size} from {} to {}",
                    *from.label, *to.label
                )
            }
            Self::NoUsbRule { class, to } => {
                write!(f, "no rule gives {class} devices like this to {}", label(*to))
            }
            Self::UnknownDomain => f.write_str("the policy does not know this domain"),
            Self::SameDomain(domain) => {
                write!(
                    f,
                    "nothing crosses: {} is where it comes from and where it goes",
                    *domain.label
                )
            }
            Self::NoFunction => f.write_str("the device does not say what it is"),
            Self::Hub => f.write_str("hubs never enter a domain: plug the device in directly"),
            Self::KeyboardOrMouse => f.write_str(
                "keyboards and mice never enter a domain, nor do touch screens and pens: the PC itself listens to them",
            ),
            Self::KeyboardBesides => f.write_str(
                "keyboards and mice never enter a domain, nor does a device with one in it as a whole",
            ),
            Self::StorageBesideKeyboard => {
                f.write_str("storage with a keyboard or mouse in it never enters a domain")
            }
            Self::PerhapsKeyboard => f.write_str("it does not say whether it is a keyboard"),
            Self::NotText => f.write_str("it is not readable text"),
            Self::TwoDomains(one, two) => {
                write!(
                    f,
                    "one part of the device belongs to {}, another to {}",
                    *one.label, *two.label
                )
            }
            Self::Found(detector) => {
                write!(f, "it contains what looks like {}", detector.describe())
            }
            Self::Unreadable(media_type) => {
                write!(
                    f,
                    "the rule wants it looked into, and nothing can look into this {media_type}"
                )
            }
        }
    }
}

/// Returns a domain as the banner calls it.
fn label(domain: Option<&Domain>) -> &str {
    domain.map_or("any domain", |domain| &domain.label)
}
