//! The values of the machine file that have a syntax of their own.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use form::document::{Mistake, Value, duration, nearest};
use images::manifest::ImageName;
use vmm_control::MemorySize;
use vmm_control::limits::{PORT_NAME_MAX, check_cmdline, is_port_name};

use super::Serial;

/// Reads one of a few words, each with its meaning; `help` is said where none of them is near.
pub fn word<T: Copy>(value: Value<'_>, what: &str, words: &[(&str, T)], help: &str) -> Option<T> {
    match value.text() {
        Some(text) if nearest(text, words.iter().map(|(word, _)| *word)).is_none() => {
            value.wrong(format!("\"{}\" is not {what}", text.escape_debug()), help)
        }
        _ => value.choice(what, words),
    }
}

/// Reads a guest's memory: `"512M"`, `"4G"`.
#[must_use]
pub fn memory(value: Value<'_>) -> Option<MemorySize> {
    if let Some(text) = value.text() {
        let meant = meant_gigabytes(text).map(|meant| {
            format!("write \"{meant}\", or another whole number and a unit, like 512M")
        });
        return value.checked(text.parse().map_err(|mistake: Mistake| match meant {
            Some(help) => Mistake { help, ..mistake },
            None => mistake,
        }));
    }
    let help = match meant_gigabytes(value.plain()) {
        Some(meant) => format!("write \"{meant}\", or another whole number and a unit, like 512M"),
        None => "write a whole number and a unit, like \"512M\" or \"4G\"".to_owned(),
    };
    value.not_a("a size of memory, in quotes", help)
}

/// Returns the size that a small number without a unit stands for among people: `4` for `4G`.
fn meant_gigabytes(text: &str) -> Option<String> {
    let number = text.parse::<u64>().ok().filter(|number| (1..=64).contains(number))?;
    Some(format!("{number}G"))
}

/// Reads a length of time, as the command line of `bulkhead-vmm` takes it too.
pub(super) fn time(value: Value<'_>, what: &str) -> Option<Duration> {
    let written = value.text().and_then(|text| notation::duration::short(text).ok());
    written.or_else(|| duration::read(value, what, 1..=notation::duration::SHORT_MAX.as_secs()))
}

/// Names of sockets in a domain's folder that are no port's.
const TAKEN: [&str; 2] = ["vmm", "seat"];
/// And what those of USB devices begin with.
const TAKEN_USB: &str = "usb-";

/// Returns the name of a console port.
pub(super) fn port_name(text: &str) -> Result<String, Mistake> {
    // A leading dot could leave the folder.
    let taken = TAKEN.contains(&text) || text.starts_with(TAKEN_USB) || text.starts_with('.');
    if is_port_name(text) && !taken {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        format!("\"{}\" cannot name a port", text.escape_debug()),
        format!(
            "use letters, digits, dots, dashes and underscores, at most {PORT_NAME_MAX}; `vmm`, `seat` and what begins with `usb-` are taken"
        ),
    ))
}

/// Reads the file of a kernel, an initrd or a disk: absolute, or relative to the images directory.
pub(super) fn image(images: &Path, text: &str) -> Result<PathBuf, Mistake> {
    if text.is_empty() {
        return Err(Mistake::new("an empty path names no file", "write the file's name"));
    }
    // It would hide in a log.
    if text.chars().any(char::is_control) {
        return Err(Mistake::new(
            "a path with a control character is not taken",
            "rename the file",
        ));
    }
    let path = images.join(text);
    if is_the_stores(images, &path) {
        return Err(Mistake::new(
            format!(
                "\"{}\" is where installed images are kept, whose files nobody else uses",
                text.escape_debug()
            ),
            "write `image = \"NAME\"` to start from an installed image, or move a file of your own into another folder",
        ));
    }
    Ok(path)
}

/// Returns whether a path leads, as it is written, to what `bulkhead images` keeps below the images' directory:
/// `NAME/SERIAL/...`, `NAME/.arriving/...`, and its records.
fn is_the_stores(images: &Path, path: &Path) -> bool {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    let Ok(below) = plain.strip_prefix(images) else { return false };
    let mut parts = below.components().map(|part| part.as_os_str().to_str().unwrap_or_default());
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    if first.starts_with(".notes") {
        return true;
    }
    let is_name = first.parse::<ImageName>().is_ok();
    is_name
        && second.is_some_and(|it| match it {
            ".arriving" | ".installing" | ".record" | "image.json" | "image.json.new" => true,
            serial => serial.bytes().all(|byte| byte.is_ascii_digit()),
        })
}

/// Reads a kernel's command line.
pub(super) fn cmdline(text: &str) -> Result<String, Mistake> {
    check_cmdline(text)?;
    Ok(text.to_owned())
}

/// Returns where a serial port goes.
pub(super) fn serial(text: &str) -> Result<Serial, Mistake> {
    match text.split_once('=') {
        None if text == "null" => Ok(Serial::Null),
        Some(("file", file)) if !file.is_empty() && !file.chars().any(char::is_control) => {
            Ok(Serial::File(PathBuf::from(file)))
        }
        _ => Err(Mistake::new(
            format!("\"{}\" is nowhere a serial port can go", text.escape_debug()),
            "write serial = \"null\" or serial = \"file=NAME\"",
        )),
    }
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
