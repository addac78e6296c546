//! The socket that a USB device is plugged into, as the kernel writes it: `1-4.2`.

use crate::document::Mistake;

/// Returns whether a text names one.
///
/// # Errors
/// It does not, with what is to be written.
pub(crate) fn check_port(text: &str) -> Result<(), Mistake> {
    let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let parts = |(bus, path): (&str, &str)| number(bus) && path.split('.').all(number);
    let is_port = |text: &str| text.split_once('-').is_some_and(parts);
    if is_port(text) {
        return Ok(());
    }
    // The kernel's log names the interface behind it.
    let device = text.split_once(':').map(|(device, _)| device).filter(|device| is_port(device));
    let help = match device {
        Some(device) => {
            format!("write \"{device}\": what is behind the colon is one of its interfaces")
        }
        None => "write bus, hyphen and the path of ports, as `bulkhead usb list` shows them in its first column".to_owned(),
    };
    Err(Mistake::new(format!("\"{}\" is not a USB port", text.escape_debug()), help))
}
