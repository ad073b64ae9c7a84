//! The directories of bridges' logs: the broker's user may write there, and no other process does.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use super::Finding;
use crate::config::{BridgeSettings, Settings};
use crate::disk;
use crate::links::log_directory;

const SUBJECT: &str = "directories";

/// A finding for each directory that `serve` would write to. Nothing is left there.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    examine(settings, true)
}

/// As `check`, but for those that are in use: a start waits for a broker before it that still ends.
pub(super) fn check_for_start(settings: &Settings) -> Vec<Finding> {
    examine(settings, false)
}

fn examine(settings: &Settings, is_to_be_free: bool) -> Vec<Finding> {
    let storing: Vec<_> = settings.bridges.iter().filter(|bridge| bridge.stores()).collect();
    let mut findings: Vec<_> =
        storing.iter().map(|bridge| judge(bridge, &settings.data_dir, is_to_be_free)).collect();
    findings.extend(find_shared(&storing, &settings.data_dir));
    let is_chosen = settings.data_dir != Settings::default().data_dir;
    if is_chosen && !storing.iter().any(|bridge| bridge.spool_dir.as_os_str().is_empty()) {
        findings.extend(try_to_write(&settings.data_dir).err().map(|refused| {
            let what = format!("data_dir: {refused}; nothing is kept there now");
            Finding::warn(SUBJECT, what, refused.remedy("data_dir"))
        }));
    }
    findings
}

fn judge(bridge: &BridgeSettings, data_dir: &Path, is_to_be_free: bool) -> Finding {
    let (directory, key) = (log_directory(bridge, data_dir), key_of(bridge));
    for line in 0..bridge.connections {
        let directory = directory.join(line.to_string());
        if let Err(refused) = try_to_write(&directory) {
            let what = format!("bridge {}: {key}: {refused}", bridge.name);
            return Finding::fail(SUBJECT, what, refused.remedy(key));
        }
        if is_to_be_free && let Err(taken) = disk::refuse_if_taken(&directory) {
            let sentence = format!("bridge {}: {taken}", bridge.name);
            let (what, remedy) = sentence.rsplit_once(": ").unwrap_or((&sentence, ""));
            return Finding::fail(SUBJECT, what, remedy);
        }
    }
    Finding::ok(
        SUBJECT,
        format!("bridge {} can keep its log in {}", bridge.name, directory.display()),
    )
}

/// The key that says where a bridge has its log.
fn key_of(bridge: &BridgeSettings) -> &'static str {
    if bridge.spool_dir.as_os_str().is_empty() { "data_dir" } else { "spool_dir" }
}

/// Two bridges in one directory, however it is written.
fn find_shared(storing: &[&BridgeSettings], data_dir: &Path) -> Option<Finding> {
    let place = |bridge: &BridgeSettings| {
        let directory = log_directory(bridge, data_dir);
        fs::canonicalize(&directory).unwrap_or(directory)
    };
    let places: Vec<PathBuf> = storing.iter().map(|bridge| place(bridge)).collect();
    let (second, first) = places.iter().enumerate().find_map(|(second, place)| {
        Some((second, places[..second].iter().position(|earlier| earlier == place)?))
    })?;
    let what = format!(
        "bridges {} and {} have their logs in one directory, {}",
        storing[first].name,
        storing[second].name,
        places[second].display()
    );
    Some(Finding::fail(SUBJECT, what, "give each a spool_dir of its own"))
}

/// Why a directory is not for writing.
struct Refused {
    /// It, or the nearest one above it that is there.
    place: PathBuf,
    error: io::Error,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.place.display();
        match self.error.kind() {
            ErrorKind::NotADirectory => write!(out, "{place} is no directory"),
            ErrorKind::PermissionDenied => write!(out, "this user may not write to {place}"),
            ErrorKind::ReadOnlyFilesystem => write!(out, "{place} is mounted read-only"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                write!(out, "there is no space in {place}")
            }
            _ => write!(out, "{place} cannot be written: {}", self.error),
        }
    }
}

impl Refused {
    fn remedy(&self, key: &str) -> String {
        match self.error.kind() {
            ErrorKind::PermissionDenied => format!(
                "give the directory to the broker's user (chown; systemd: StateDirectory=), or choose another {key}"
            ),
            ErrorKind::ReadOnlyFilesystem => {
                format!(
                    "mount it for writing (Docker: -v; systemd: ReadWritePaths=), or choose another {key}"
                )
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                format!("make space, or choose another {key}")
            }
            _ => format!("choose another {key}"),
        }
    }
}

/// Makes a file without a name in the directory, or in the nearest one above it that is there: what is missing between
/// them could then be made.
fn try_to_write(directory: &Path) -> Result<(), Refused> {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    for place in directory.ancestors() {
        let refused = |error| Refused { place: place.to_owned(), error };
        match fs::metadata(place) {
            Ok(found) if found.is_dir() => return make_file(place).map_err(refused),
            Ok(_) => return Err(refused(ErrorKind::NotADirectory.into())),
            // A link that leads nowhere is there, and in the way.
            Err(error) if error.kind() == ErrorKind::NotFound && !place.is_symlink() => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Ok(())
}

fn make_file(directory: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    let unnamed = options.clone().custom_flags(libc::O_TMPFILE).open(directory);
    match unnamed {
        Ok(_) => Ok(()),
        // Not every file system has files without a name.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            let path = directory.join(format!(".ringmq-check-{}", process::id()));
            options.create_new(true).open(&path)?;
            fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::Level;
    use super::*;
    use crate::config::bridge::RuleSettings;

    /// An empty directory of one test.
    fn folder(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ringmq-{test}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn storing(name: &str, spool_dir: &Path) -> BridgeSettings {
        BridgeSettings {
            forward: vec![RuleSettings::new("#")],
            spool_dir: spool_dir.to_owned(),
            connections: 2,
            ..BridgeSettings::new(name)
        }
    }

    fn settings(data_dir: &Path, bridges: Vec<BridgeSettings>) -> Settings {
        Settings { data_dir: data_dir.to_owned(), bridges, ..Settings::default() }
    }

    #[test]
    fn a_directory_in_use_fails_the_check_and_is_left_to_the_start() {
        let folder = folder("directories-taken");
        fs::create_dir_all(folder.join("1")).unwrap();
        let lock = fs::File::create(folder.join("1/lock")).unwrap();
        lock.lock().unwrap();
        let settings = settings(&folder, vec![storing("north", &folder)]);
        let found = check(&settings);
        assert!(found.len() == 1 && found[0].level == Level::Fail, "{found:?}");
        assert!(found[0].what.contains("is in use by"), "{found:?}");
        let found = check_for_start(&settings);
        assert!(found.len() == 1 && found[0].level == Level::Ok, "{found:?}");
        drop(lock);
        assert_eq!(check(&settings)[0].level, Level::Ok);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_directory_is_tried_and_nothing_is_left_there() {
        let folder = folder("directories");
        let file = folder.join("file");
        fs::write(&file, "").unwrap();
        symlink(folder.join("nowhere"), folder.join("link")).unwrap();
        // Neither root nor anybody else may make a file in /proc.
        let forbidden = Path::new("/proc/ringmq");
        for (place, level, what) in [
            (folder.join("a/b"), Level::Ok, "can keep its log in"),
            (file.join("below"), Level::Fail, "file is no directory"),
            (folder.join("link"), Level::Fail, "link cannot be written"),
            (forbidden.to_owned(), Level::Fail, "/proc"),
        ] {
            for (spool_dir, key) in [("", "data_dir"), (place.to_str().unwrap(), "spool_dir")] {
                let data_dir = if spool_dir.is_empty() { &place } else { &folder };
                let bridges = vec![storing("north", Path::new(spool_dir))];
                let found = check(&settings(data_dir, bridges));
                assert!(found.len() == 1 && found[0].level == level, "{found:?}");
                assert!(found[0].what.contains("bridge north"), "{found:?}");
                assert!(found[0].what.contains(what), "{found:?}");
                let named = found[0].remedy.contains(key) && found[0].what.contains(key);
                assert!(level == Level::Ok || named, "{found:?}");
            }
        }
        let left: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_nobody_uses_is_a_warning_at_most() {
        let forbidden = Path::new("/proc/ringmq");
        let found = check(&settings(forbidden, Vec::new()));
        assert!(found.len() == 1 && found[0].level == Level::Warn, "{found:?}");
        assert!(check(&Settings::default()).is_empty());
        let reading = BridgeSettings { forward: Vec::new(), ..storing("north", forbidden) };
        let usual = Settings::default().data_dir;
        assert!(check(&settings(&usual, vec![reading])).is_empty());
    }

    #[test]
    fn two_bridges_with_their_logs_in_one_directory_are_refused() {
        let folder = folder("shared-directories");
        let north = storing("north", &folder.join("bridges/south"));
        let found = check(&settings(&folder, vec![north, storing("south", Path::new(""))]));
        let last = found.last().unwrap();
        assert!(last.level == Level::Fail && last.what.contains("north and south"), "{found:?}");
        fs::remove_dir_all(folder).unwrap();
    }
}
