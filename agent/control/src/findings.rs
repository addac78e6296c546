//! What `bulkhead doctor` finds: the doctor examines this PC in `bulkhead-agent doctor`, and the command line shows what it found.

use std::borrow::Cow;
use std::fmt;

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

/// What the doctor mends by itself where it is asked to: it undoes nothing that somebody decided, and disturbs no domain that runs. As JSON an
/// object with `do`, and `name` where there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "do", content = "name", rename_all = "kebab-case")]
pub enum Repair {
    /// Loads this module of the kernel's.
    LoadModule(String),
    /// Makes the package's groups and accounts.
    CreateAccounts,
    /// Makes this group.
    CreateGroup(String),
}

impl Repair {
    /// Returns what an agent that runs needs before it has what this makes.
    #[must_use]
    pub fn after(&self) -> &'static str {
        match self {
            // systemd lets a unit at the devices that are there when it starts it.
            Self::LoadModule(_) => {
                "an agent that runs has it from its next start on: `systemctl restart bulkhead-agent`, under which guests run on"
            }
            Self::CreateAccounts => {
                "put into the groups who is to have their roles: `usermod -aG GROUP NAME`"
            }
            Self::CreateGroup(_) => {
                "put the user into it that its VMM runs as; an agent that runs has the group from its next start on: `systemctl restart bulkhead-agent`, under which guests run on"
            }
        }
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadModule(name) => write!(f, "load the module {name}"),
            Self::CreateAccounts => write!(f, "make the package's groups and accounts"),
            Self::CreateGroup(name) => write!(f, "make the group {name}"),
        }
    }
}

/// A repair that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairOutcome {
    /// The repair that was tried.
    pub what: Repair,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What the doctor prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// What it finds, after the repairs.
    pub findings: Vec<Finding>,
    /// What it mended, or tried to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<RepairOutcome>,
}

/// One thing that was looked at, and what was found.
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
    /// What it means to those who work at the PC, unless all is well; of a warning, at worst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ward: Option<Cow<'static, str>>,
    /// What to do, unless all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What `--fix` does about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
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
            ward: None,
            remedy: None,
            repair: None,
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

    /// Says what the doctor mends by itself, if anything.
    #[must_use]
    pub fn mended_by(mut self, repair: impl Into<Option<Repair>>) -> Self {
        self.repair = repair.into();
        self
    }

    /// Says of which domain, device or file among several this is.
    #[must_use]
    pub fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }
}
