//! A grant has no account of its own making.
use monitor::Account;

struct Nothing;

impl Account for Nothing {}

fn main() {}
