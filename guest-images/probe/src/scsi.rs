//! SCSI commands as a hostile kernel would send them: past everything that protects a disk from its own system (`SG_IO`).

use std::fs::File;

use serde_json::{Value, json};

use crate::request::{number, text};
use crate::sys;

/// Sends `cdb` (a list of bytes) to `device` with `out` bytes of 0xee; answers its SCSI status and what sense there is.
pub(crate) fn command(request: &Value) -> Result<Value, String> {
    let device = text(request, "device")?;
    let file = File::open(device).map_err(|error| format!("{device}: {error}"))?;
    let cdb: Vec<u8> = request["cdb"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|byte| u8::try_from(byte.as_u64()?).ok())
        .collect();
    let out = usize::try_from(number(request, "out")?).map_err(|error| error.to_string())?;
    let mut data = vec![0xee; out.min(1 << 20)];
    let (status, sense) =
        sys::scsi_out(&file, &cdb, &mut data).map_err(|error| error.to_string())?;
    let at = |index: usize| sense.get(index).copied().unwrap_or_default();
    // Fixed format (SPC-4 4.5.3): key in byte 2, code and qualifier in 12 and 13.
    Ok(json!({"status": status, "key": at(2) & 0x0f, "asc": at(12), "ascq": at(13)}))
}
