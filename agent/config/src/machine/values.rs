//! The values of the machine file that have a syntax of their own. Each parser answers with the
//! message and the remedy when it fails.

use std::time::Duration;

use vmm_control::MemorySize;
use vmm_control::limits::{PORT_NAME_MAX, is_port_name};

/// What is wrong with a value, and what to write instead.
pub(crate) type Wrong = (String, String);

pub(crate) fn memory(text: &str) -> Result<MemorySize, Wrong> {
    text.parse().map_err(wrong)
}

pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    notation::duration(text).map_err(wrong)
}

fn wrong(mistake: notation::Mistake) -> Wrong {
    (mistake.message, mistake.help)
}

/// Names of sockets in a domain's folder that are no port's.
const TAKEN: [&str; 2] = ["vmm", "seat"];
/// And what those of USB devices begin with.
const TAKEN_USB: &str = "usb-";

pub(crate) fn port_name(text: &str) -> Result<String, Wrong> {
    // A leading dot could leave the folder.
    let taken = TAKEN.contains(&text) || text.starts_with(TAKEN_USB) || text.starts_with('.');
    if is_port_name(text) && !taken {
        return Ok(text.to_owned());
    }
    Err((
        format!("`{text}` cannot name a port"),
        format!(
            "use letters, digits, dots, dashes and underscores, at most {PORT_NAME_MAX}; `vmm`, `seat` and what begins with `usb-` are taken"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_does_not_take_the_name_of_another_socket_of_its_domain() {
        for taken in ["vmm", "seat", "usb-1", "usb-", ".vmm", "", "a/b"] {
            assert!(port_name(taken).is_err(), "{taken}");
        }
        for free in ["usb", "seats", "org.bulkhead.health", "com.redhat.spice.0"] {
            assert_eq!(port_name(free).as_deref(), Ok(free));
        }
    }
}
