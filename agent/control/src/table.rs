//! What a row of the table of commands says, and what is made of all rows.
//!
//! ```text
//!  commands! { rows } ---> Request      what goes over the socket, its words in the audit log
//!                     ---> COMMANDS     who may, what is recorded, help, the handbook's table
//!                     ---> Serve        one method for each, which the daemon has to have
//! ```

use super::roles::Privilege;

/// A row of the table: a command.
#[derive(Debug)]
pub struct Command {
    /// Its name: the key `command` of its request.
    pub name: &'static str,
    /// What the command does, as `--help` says it.
    pub about: &'static str,
    /// The other keys of its request.
    pub fields: &'static [Field],
    /// Who may ask for it.
    pub privilege: Privilege,
    /// What of it is in the audit log.
    pub recorded: AuditRule,
    /// The words by which the command line names it.
    pub words: &'static [&'static str],
    /// Whether it changes what is, or lets something through, and is no look or a step that is taken back as easily: `true`, `false`, or
    /// the key that decides, with a `*` before it.
    pub changes: &'static str,
    /// How a person asks for it, after `bulkhead`; empty if only as a part of another command.
    pub line: &'static str,
    /// What a person is told when it is done, `{key}` being the value of that key. `bulkhead` makes a command of its own of a row that
    /// says so: its name, and the keys, each a word that must be there.
    pub says: Option<&'static str>,
}

/// A key of a request.
#[derive(Debug)]
pub struct Field {
    /// Its name in the request.
    pub name: &'static str,
    /// What its value is.
    pub about: &'static str,
    /// Whether it may be left out.
    pub optional: bool,
}

/// What of a request that its caller may make is in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditRule {
    /// Nothing: it only looks.
    Nothing,
    /// Who asked for it, and that it is done, or why not. If it changes something, who asks for it as well, before it is done.
    Done,
    /// The same, but that it has begun.
    Begun,
    /// Entries of its own, which say more.
    Itself,
}

/// What becomes of a request that one user makes more often than anybody needs. What changes something is refused unless its row says
/// otherwise; what does not is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverLimit {
    /// It is not done: what it does fills the log.
    Refused,
    /// It is done, and its entries are counted: what takes something away is never too much.
    Counted,
}

/// Makes the requests, the table and the server's interface of its rows.
macro_rules! commands {
    ($(
        $(#[doc = $about:literal])*
        $method:ident: $name:literal => $Variant:ident {
            $(
                $(#[doc = $field_about:literal])*
                $(#[serde($serde:meta)])?
                $field:ident: $type:ty,
            )*
        } {
            may: $what:literal [$($role:ident),+],
            audit: $recorded:ident $word:literal $(or $other:literal if $when:expr)?,
            changes: $changes:expr,
            $(until_settled: $settles:ident,)?
            $(often: $often:ident,)?
            line: $line:literal,
            $(says: $says:literal,)?
        }
    )+) => {
        /// What a client asks of the agent.
        // A variant without keys is written with braces: only then does serde refuse keys that it does not know.
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "command", deny_unknown_fields)]
        pub enum Request {
            $(
                $(#[doc = $about])*
                #[serde(rename = $name)]
                $Variant {
                    $(
                        $(#[doc = $field_about])*
                        $(#[serde($serde)])?
                        $field: $type,
                    )*
                },
            )+
        }

        /// The rows, by the server's methods.
        #[allow(non_upper_case_globals, reason = "they are named after methods")]
        mod rows {
            use $crate::roles::{Privilege, Role};
            use $crate::table::{Command, Field, AuditRule};

            $(
                pub(super) static $method: Command = Command {
                    name: $name,
                    about: concat!($($about),*).trim_ascii(),
                    fields: &[$(Field {
                        name: stringify!($field),
                        about: concat!($($field_about),*).trim_ascii(),
                        optional: {
                            let default: &[&str] = &[$(stringify!($serde))?];
                            !default.is_empty()
                        },
                    }),*],
                    privilege: Privilege { what: $what, roles: &[$(Role::$role),+] },
                    recorded: AuditRule::$recorded,
                    words: &[$word $(, $other)?],
                    changes: stringify!($changes),
                    line: $line,
                    says: {
                        let says: &[&str] = &[$($says)?];
                        says.first().copied()
                    },
                };
            )+
        }

        /// Every command, in the order of the handbook.
        pub static COMMANDS: &[&$crate::table::Command] = &[$(&rows::$method),+];

        #[allow(
            unused_variables,
            reason = "of the keys of a request its words and subjects need few"
        )]
        impl Request {
            /// Returns its row in the table.
            #[must_use]
            pub fn command(&self) -> &'static $crate::table::Command {
                match self {
                    $(Self::$Variant { .. } => &rows::$method,)+
                }
            }

            /// Returns one word for it, for the audit log and the agent's own.
            #[must_use]
            pub fn word(&self) -> &'static str {
                match self {
                    $(Self::$Variant { $($field),* } => {
                        $(if $when {
                            return $other;
                        })?
                        $word
                    })+
                }
            }

            /// Returns whether it changes what is, or lets something through, and is no look or a step that is taken back as easily.
            #[must_use]
            pub fn changes(&self) -> bool {
                match self {
                    $(Self::$Variant { $($field),* } => $changes,)+
                }
            }

            /// Returns what becomes of it when one user asks for it more often than anybody needs.
            #[must_use]
            pub fn often(&self) -> $crate::table::OverLimit {
                match self {
                    $(Self::$Variant { $($field),* } => {
                        let changes = match $changes {
                            true => $crate::table::OverLimit::Refused,
                            false => $crate::table::OverLimit::Counted,
                        };
                        let said: &[$crate::table::OverLimit] =
                            &[$($crate::table::OverLimit::$often)?];
                        said.first().copied().unwrap_or(changes)
                    })+
                }
            }

            /// Returns the domain whose state it is to change: what it began has ended when that is settled.
            #[must_use]
            pub fn domain_to_settle(&self) -> Option<&str> {
                match self {
                    $(Self::$Variant { $($field),* } => {
                        let domain: Option<&str> = None;
                        $(let domain = Some($settles.as_str());)?
                        domain
                    })+
                }
            }

            /// Returns the domain it names.
            #[must_use]
            pub fn domain(&self) -> Option<&str> {
                match self {
                    $(Self::$Variant { $($field),* } => text_of!(domain; $(($field $field))*),)+
                }
            }

            /// Returns the USB device it names, by where it is plugged in.
            #[must_use]
            pub fn bus_id(&self) -> Option<&str> {
                match self {
                    $(Self::$Variant { $($field),* } => text_of!(bus_id; $(($field $field))*),)+
                }
            }

            /// Returns one of each command.
            #[cfg(test)]
            pub(crate) fn one_of_each() -> Vec<Self> {
                vec![$(Self::$Variant { $($field: Default::default()),* }),+]
            }

            /// Carries the request out by `server`, for somebody whose role was checked.
            pub fn serve<Asker, Answer>(
                self,
                server: &mut impl Serve<Asker, Answer>,
                asker: Asker,
            ) -> Answer {
                match self {
                    $(Self::$Variant { $($field),* } => server.$method(asker, $($field),*),)+
                }
            }
        }

        /// Who carries requests out, for whoever `Asker` says.
        pub trait Serve<Asker, Answer> {
            $(
                $(#[doc = $about])*
                fn $method(
                    &mut self,
                    asker: Asker,
                    $($field: $type),*
                ) -> Answer;
            )+
        }
    };
}

/// The value of a key, if it is among these pairs of name and value.
macro_rules! text_of {
    (domain; (domain $value:ident) $($rest:tt)*) => { Some($value.as_str()) };
    (bus_id; (bus_id $value:ident) $($rest:tt)*) => { Some($value.as_str()) };
    ($name:ident; ($other:ident $value:ident) $($rest:tt)*) => { text_of!($name; $($rest)*) };
    ($name:ident;) => { None };
}
