//! What `bulkhead doctor` finds: the doctor examines this PC in `bulkhead-agent doctor`, and the command line shows what it found.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// It works, and somebody should look.
    Warn,
    /// It does not work.
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was asked: a stable word for scripts.
    pub check: Cow<'static, str>,
    /// The domain, the device or the file, when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was found, in a sentence for IT.
    pub message: String,
    /// What to do, unless all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// Says that something is as it should be.
    #[must_use]
    pub fn ok(check: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            check: check.into(),
            subject: None,
            message: message.into(),
            remedy: None,
        }
    }

    /// Says that something works and somebody should look, and what to do.
    #[must_use]
    pub fn warn(
        check: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warn, remedy: Some(remedy.into()), ..Self::ok(check, message) }
    }

    /// Says that something does not work, and what to do.
    #[must_use]
    pub fn fail(
        check: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Fail, remedy: Some(remedy.into()), ..Self::ok(check, message) }
    }

    /// Says of which domain, device or file among several this is.
    #[must_use]
    pub fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }
}
