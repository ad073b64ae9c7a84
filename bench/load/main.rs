//! The load generator and measurement.

fn main() {}
