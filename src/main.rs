//! The `bitdash` command.
fn main() {}
