//! The broker's entry: parse, load the configuration, run.

fn main() {}
