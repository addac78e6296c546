//! The separation policy: text in, decisions and explanations out.
#![forbid(unsafe_code)]
