//! The simulated ward PC and the end-to-end tests that run on it.
