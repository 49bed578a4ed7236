//! The `bitdash-simnet` command.
fn main() {}
