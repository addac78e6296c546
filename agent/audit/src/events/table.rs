//! How the catalogue's rows become types: [`catalogue!`].

/// The role of a field by its mark.
macro_rules! role {
    (who) => {
        Role::Who
    };
    (outcome) => {
        Role::Outcome
    };
}

/// Makes an event one that a grant can have, by its mark.
macro_rules! mark {
    (permits, $name:ident) => {
        impl super::grant::sealed::GrantEvent for $name {}
        impl super::GrantEvent for $name {}
    };
}

/// Makes the types of the events, `AuditEvent` over all of them, and what is documented of them. A field that is an `Option` is left out
/// of the entry where there is nothing to say. `by` says on whose doing the entry is written, if not the
/// agent's own; `@who` marks the fields that name them, `@outcome` those that say what came of it. `permits` marks an entry that
/// an effect waits for: a grant can have it, and no other.
macro_rules! catalogue {
    ($(
        #[doc = $meaning:literal]
        $name:ident = $kind:literal $(by $actor:ident)? $(, $mark:ident)? {$(
            #[doc = $about:literal]
            $(@$role:ident)? $field:ident: $type:ty,
        )*}
    )*) => {
        $(
            #[doc = $meaning]
            #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name {$(
                #[doc = $about]
                pub $field: $type,
            )*}

            impl $name {
                /// What the log calls it.
                pub const KIND: &'static str = $kind;
            }

            $(mark!($mark, $name);)?

            impl From<$name> for AuditEvent {
                fn from(event: $name) -> Self {
                    Self::$name(event)
                }
            }
        )*

        /// Something to be recorded.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum AuditEvent {$(
            #[doc = $meaning]
            $name($name),
        )*}

        impl AuditEvent {
            /// Every kind of entry, in the order of the alphabet.
            pub const KINDS: &'static [Kind] = &[$(Kind {
                name: $kind,
                type_name: stringify!($name),
                meaning: $meaning,
                actor: [$(Actor::$actor,)? Actor::Agent][0],
                fields: &[$(Field {
                    name: stringify!($field),
                    meaning: $about,
                    role: [$(role!($role),)? Role::Plain][0],
                    form: <$type as Form>::WORDS,
                    always: <$type as Form>::ALWAYS,
                    #[cfg(test)]
                    example: <$type as Form>::example,
                }),*],
            }),*];

            /// Returns the name of its kind in the log.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {$(
                    Self::$name(_) => $name::KIND,
                )*}
            }

            pub(super) fn fields(&self) -> serde_json::Result<Value> {
                match self {$(
                    Self::$name(event) => serde_json::to_value(event),
                )*}
            }

            pub(super) fn from_fields(kind: &str, fields: Map<String, Value>) -> Option<Self> {
                let fields = Value::Object(fields);
                match kind {
                    $($name::KIND => serde_json::from_value(fields).ok().map(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

pub(super) use {catalogue, mark, role};
