//! The files that a report is written to: whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::kept::Document;
use super::{csv, hgrm, html};

/// Where to write what, besides the table.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Files {
    /// Write a report as one HTML file, with charts, that asks for nothing from outside
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the figures as CSV, a row for each run
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write latencies as HdrHistogram's percentile text, in milliseconds, for its plotters: a file for each run, in a folder or,
    /// where the name has an ending, beside each other
    #[arg(long, value_name = "FILE|DIR")]
    pub hgrm: Option<PathBuf>,
}

impl Files {
    pub(crate) fn is_empty(&self) -> bool {
        self.html.is_none() && self.csv.is_none() && self.hgrm.is_none()
    }

    /// What cannot be written, as far as that can be told before anything is measured: a sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let files = [("--html", &self.html), ("--csv", &self.csv), ("--hgrm", &self.hgrm)];
        let check = |(name, file): (&str, &Option<PathBuf>)| {
            let file = file.as_ref()?;
            let folder = match file.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let is_folder = file.is_dir() && name != "--hgrm";
            let reason = if is_folder { "it is a folder" } else { "its folder is not there" };
            let is_wrong = is_folder || !folder.is_dir();
            is_wrong.then(|| format!("{name} {}: cannot be written: {reason}", file.display()))
        };
        files.into_iter().filter_map(check).collect()
    }

    /// Writes all that was asked for, and says of what was written where. `Err`: a sentence for each file that was not.
    pub(crate) fn write(&self, documents: &[Document]) -> Result<Vec<PathBuf>, String> {
        let mut written = Vec::new();
        let mut failures = Vec::new();
        let mut note = |path: &Path, result: Result<(), String>| match result {
            Ok(()) => written.push(path.to_path_buf()),
            Err(failure) => failures.push(failure),
        };
        if let Some(path) = &self.csv {
            note(path, write(path, &csv::text(documents)));
        }
        if let Some(path) = &self.hgrm {
            note(path, write_distributions(path, documents));
        }
        if let Some(path) = &self.html {
            note(path, write(path, html::page(documents).as_bytes()));
        }
        if failures.is_empty() { Ok(written) } else { Err(failures.join("; ")) }
    }
}

fn write_distributions(path: &Path, documents: &[Document]) -> Result<(), String> {
    let found = hgrm::distributions(documents)?;
    if is_folder(path) {
        let made = if path.is_dir() { Ok(()) } else { fs::create_dir(path) };
        made.map_err(|error| format!("{} cannot be made: {error}", path.display()))?;
        return found.iter().try_for_each(|one| {
            write(&path.join(format!("{}.hgrm", one.name)), one.text.as_bytes())
        });
    }
    match &found[..] {
        [only] => write(path, only.text.as_bytes()),
        [] => Err(format!(
            "--hgrm {}: no latency was recorded: a scenario at a rate does",
            path.display()
        )),
        many => {
            // A file for each: a name with the run in front of the ending.
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            many.iter().try_for_each(|one| {
                write(
                    &path.with_file_name(format!("{stem}-{}.hgrm", one.name)),
                    one.text.as_bytes(),
                )
            })
        }
    }
}

/// A folder, or what is to be one: a name without an ending.
fn is_folder(path: &Path) -> bool {
    path.is_dir() || !path.exists() && path.extension().is_none()
}

/// Writes a file beside its place and then moves it there: whoever reads it sees the old one or the whole new one. What is no
/// file, as a pipe, is written to.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let failed = |error: io::Error| format!("{} cannot be written: {error}", path.display());
    // A link stays one: what it leads to is replaced.
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    match fs::metadata(&place) {
        Ok(found) if !found.is_file() => {
            let written = OpenOptions::new().write(true).open(&place);
            return written.and_then(|mut file| file.write_all(bytes)).map_err(failed);
        }
        _ => {}
    }
    let name = place.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
    let part = place.with_file_name(name);
    let written = fill(&part, bytes).and_then(|()| fs::rename(&part, &place));
    written.map_err(|error| {
        let _ = fs::remove_file(&part);
        failed(error)
    })
}

fn fill(part: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).open(part)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("ringmq-bench-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn a_file_is_written_whole_and_a_link_stays_one() {
        let folder = folder("whole");
        let (file, link) = (folder.join("file"), folder.join("link"));
        write(&file, b"old, and longer").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        write(&link, b"new").expect("written");
        assert_eq!(fs::read(&file).expect("it is there"), b"new");
        assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 2);
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn what_cannot_be_written_is_named_and_leaves_nothing() {
        let folder = folder("named");
        for path in [folder.join("none/file"), PathBuf::from("/dev/full"), folder.clone()] {
            let said = write(&path, b"text").expect_err("it cannot be written");
            assert!(said.starts_with(&format!("{} cannot be written: ", path.display())), "{said}");
        }
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
