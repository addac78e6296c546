//! bulkhead-agent, the daemon of a ward PC, and bulkhead, its command line.
#![forbid(unsafe_code)]
