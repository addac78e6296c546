//! The fields of a question.

use serde_json::Value;

/// Returns a field of a request, as text.
pub(crate) fn text<'a>(request: &'a Value, key: &str) -> Result<&'a str, String> {
    request[key].as_str().ok_or_else(|| format!("`{key}` is missing"))
}

/// Returns a field of a request, as a number.
pub(crate) fn number(request: &Value, key: &str) -> Result<u64, String> {
    request[key].as_u64().ok_or_else(|| format!("`{key}` is missing"))
}
