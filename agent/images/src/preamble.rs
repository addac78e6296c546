//! What the manifests of all bundles begin with, whatever they bring.
//!
//! ```toml
//! format = 1
//! purpose = "image"
//! name = "clinical"
//! serial = 7
//! floor = 5
//! ```

use form::document::Form;
use policy::SERIAL_MAX;
use policy::signature::Purpose;

/// How the manifests of one purpose begin, and what is said where one does not.
#[derive(Clone, Copy, Debug)]
pub struct Preamble {
    /// What signatures of them are for.
    pub purpose: Purpose,
    /// What such a bundle is, for messages: `a guest image`.
    pub what: &'static str,
    /// What a person is to do whose file says a purpose that no bundle has.
    pub right_one: &'static str,
    /// What follows from a floor above the serial.
    pub no_use: &'static str,
}

impl Preamble {
    /// Reads the purpose, which is this one. `None` if it is another: nothing more is to be read then.
    #[must_use]
    pub fn purpose(&self, form: &mut Form<'_>) -> Option<()> {
        let mut is_another = false;
        form.required("purpose", &format!("\"{}\"", self.purpose), |value| {
            let purposes = Purpose::ALL.map(|it| (it.word(), it));
            match value.choice("a purpose", &purposes)? {
                purpose if purpose == self.purpose => Some(()),
                other => {
                    is_another = true;
                    let commands = match other {
                        Purpose::Image => Some("images"),
                        Purpose::Program => Some("program"),
                        Purpose::Policy | Purpose::Trust => None,
                    };
                    let help = match commands {
                        Some(it) => format!("use `bulkhead {it} install` (or `check`, or `sign`)"),
                        None => format!("{}: one purpose never counts for another", self.right_one),
                    };
                    value.wrong(
                        format!("this bundle is {}, and not {}", other.signed(), self.what),
                        help,
                    )
                }
            }
        });
        (!is_another).then_some(())
    }

    /// Reads the serial, and the floor, which is not above it.
    pub fn serial_and_floor(&self, form: &mut Form<'_>) -> (Option<u64>, Option<u64>) {
        let serial =
            form.required("serial", "1", |value| value.integer("the serial", 1..=SERIAL_MAX));
        let newest = serial.unwrap_or(SERIAL_MAX);
        let floor =
            form.required("floor", "1", |value| match value.integer("the floor", 1..=SERIAL_MAX) {
                Some(floor) if floor > newest => value.wrong(
                    format!("the floor is above the serial {newest}, so that {}", self.no_use),
                    format!("write at most {newest}"),
                ),
                floor => floor,
            });
        (serial, floor)
    }

    /// Returns the lines that a manifest begins with.
    #[must_use]
    pub fn text(&self, format: u32, name: &str, serial: u64, floor: u64) -> String {
        let Self { purpose, .. } = self;
        format!(
            "format = {format}\npurpose = \"{purpose}\"\nname = \"{name}\"\nserial = {serial}\nfloor = {floor}\n"
        )
    }
}
