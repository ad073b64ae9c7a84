//! Builds the plugins beside this file as their authors would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The shared library of `tests/plugins/NAME.c`, built anew.
pub(crate) fn c(name: &str) -> PathBuf {
    let source = folder().join(format!("{name}.c"));
    c_source(&source, &[])
}

/// The shared library of a C file, built with more options than the usual ones.
pub(crate) fn c_source(source: &Path, options: &[&str]) -> PathBuf {
    let library = fresh(source.file_stem().unwrap().to_str().unwrap()).with_extension("so");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-shared", "-fPIC", "-O2", "-pthread"]);
    compiler.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]).arg(header_folder());
    compiler.args(options).arg("-o").arg(&library).arg(source);
    run(&mut compiler);
    library
}

/// The shared library of the Rust project in `tests/plugins/rust`.
pub(crate) fn rust() -> PathBuf {
    // One cargo at a time: several would wait for each other with a message each.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let target = scratch().join("rust");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--target-dir"]).arg(&target);
    cargo.arg("--manifest-path").arg(folder().join("rust/Cargo.toml"));
    // What this build was made with, sanitizers say, is not for another project.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    run(&mut cargo);
    target.join("debug/libringmq_plugin_example.so")
}

/// Runs a command to its end; a failure is a panic with what it said.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}");
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A path of this process that nothing has used.
pub(crate) fn fresh(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    scratch().join(format!("{name}-{}-{count}", std::process::id()))
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins")
}

pub(crate) fn header_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plugins/abi")
}

fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
