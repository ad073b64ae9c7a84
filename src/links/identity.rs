//! The client id of a bridge that was given none: made once, unique to this place, and kept beside the bridge's logs.
//!
//! Two sites that run the same configuration must not have the same client id: the remote would take each connection over for
//! the other site, and both would share one session. The id lasts as long as the folder, because packet identifiers and
//! PUBRECs in the logs belong to the session of that id.
//!
//! A log's folder without such a file is older than that: the id is then what it was before.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use tracing::{info, warn};

use super::BridgesError;
use crate::config::bridge::BridgeSettings;

/// In the bridge's folder.
const FILE_NAME: &str = "client_id";

/// What every server has to take [MQTT-3.1.3-5], less what `client_id_of` puts behind it for further connections.
const SIZE_MAX: usize = 23 - "x63".len();
/// Some 59 bits of chance.
const RANDOM_SIZE: usize = 10;
const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What an operator may have written into the file, at most.
const KEPT_SIZE_MAX: u64 = 1024;

/// Gives a bridge without a `client_id` one of its own. `folder` is where its logs are, or would be; `stores`: it has some.
/// Called before the logs are opened: afterwards each bridge has one.
pub(super) fn settle(
    settings: &mut BridgeSettings,
    folder: &Path,
    stores: bool,
) -> Result<(), BridgesError> {
    if !settings.client_id.is_empty() {
        return Ok(());
    }
    let path = folder.join(FILE_NAME);
    let name = settings.name.clone();
    let wrong =
        |what: String| BridgesError::ClientId { bridge: name.clone(), file: path.clone(), what };
    match read(&path) {
        Ok(Some(kept)) => {
            settings.own_client_id = kept;
            return Ok(());
        }
        Ok(None) => {}
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(wrong(error.to_string()));
        }
        // A folder that cannot be read cannot be written either.
        Err(error) if stores => return Err(wrong(error.to_string())),
        Err(_) => {}
    }
    if has_lived(folder) {
        warn!(
            "bridge {}: its log was begun with the client id '{}', which every site with this configuration has; it stays, \
             because the remote's session belongs to it. If there is another site, give each a client_id of its own",
            settings.name,
            settings.client_id_of(0)
        );
        return Ok(());
    }
    let made = make(&settings.name);
    let kept = keep(folder, &path, &made);
    settings.own_client_id = made;
    match kept {
        Ok(()) => info!(
            "bridge {}: its client id is '{}', kept in {}",
            settings.name,
            settings.own_client_id,
            path.display()
        ),
        Err(error) if stores => return Err(wrong(error.to_string())),
        Err(error) => {
            settings.clean_start = true;
            settings.session_expiry_s = 0;
            warn!(
                "bridge {}: no client id can be kept in {}: {error}; this one, '{}', holds until the broker ends, with a \
                 clean session. For a session that lasts, set data_dir to a folder that can be written, or client_id",
                settings.name,
                path.display(),
                settings.own_client_id
            );
        }
    }
    Ok(())
}

/// Letters and digits of the bridge's name, for those who look at the remote, and chance behind them.
fn make(name: &str) -> String {
    let plain = name.chars().filter(char::is_ascii_alphanumeric);
    let mut id: String = plain.take(SIZE_MAX - RANDOM_SIZE).collect();
    // Seeded by the system: machines of one image that start together must differ.
    let mut random = fastrand::Rng::with_seed(system_seed());
    id.extend((0..RANDOM_SIZE).map(|_| LETTERS[random.usize(..LETTERS.len())] as char));
    id
}

/// By the system's chance.
pub(crate) fn system_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut seed = [0; 8];
    match File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed)) {
        Ok(()) => u64::from_ne_bytes(seed),
        // The keys of the standard library's maps come from the system, too.
        Err(_) => RandomState::new().build_hasher().finish(),
    }
}

/// `None`: there is no such file.
fn read(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?.take(KEPT_SIZE_MAX + 1).read_to_string(&mut text)?,
    };
    let id = text.trim_end_matches(['\n', '\r']);
    let is_fit = !id.is_empty() && text.len() as u64 <= KEPT_SIZE_MAX;
    if !is_fit || id.chars().any(char::is_control) {
        let what = "it holds no client id; write the one that the bridge had into it, or remove the file for another one";
        return Err(io::Error::new(ErrorKind::InvalidData, what));
    }
    Ok(Some(id.to_owned()))
}

/// Whole or not at all, and on the disk: the log that follows belongs to it.
fn keep(folder: &Path, path: &Path, id: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(folder)?.sync_all()
}

/// Whether some connection of the bridge had a log before bridges had ids of their own: a folder with a number. It may hold no
/// segment, as the first is made with the first message: the remote may have a session all the same, and messages in it.
///
/// A bridge that never stored anything left nothing by which it could be known.
fn has_lived(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u16>().is_ok()))
        .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::folder::Folder;
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    fn settled(name: &str, folder: &Path, stores: bool) -> Result<BridgeSettings, BridgesError> {
        let mut settings = BridgeSettings::new(name);
        settle(&mut settings, folder, stores).map(|()| settings)
    }

    #[test]
    fn each_place_has_an_id_of_its_own_that_lasts() {
        let folder = Folder::new("identity");
        let mut ids = BTreeSet::new();
        for (place, name) in
            ["north", "north", "a-very_long-name-of-a-bridge", "-_-"].into_iter().enumerate()
        {
            let place = folder.path.join(place.to_string());
            for stores in [true, false, true] {
                let settings = settled(name, &place, stores).unwrap();
                assert!(!settings.clean_start);
                for index in [0, 63] {
                    let id = settings.client_id_of(index);
                    assert!(
                        id.len() <= 23 && id.bytes().all(|b| b.is_ascii_alphanumeric()),
                        "{id}"
                    );
                    ids.insert(id);
                }
            }
            let mode = fs::metadata(place.join(FILE_NAME)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(ids.len(), 8, "{ids:?}");
        assert_eq!(ids.iter().filter(|id| id.starts_with("north")).count(), 4, "{ids:?}");
    }

    #[test]
    fn an_old_log_keeps_the_old_id_and_a_given_id_is_nobody_elses_matter() {
        let folder = Folder::new("identity-old");
        fs::create_dir_all(folder.path.join("0")).unwrap();
        // Whatever was stored: it has had a session.
        for file in ["0/lock", "0/00000000000000000001.log"] {
            fs::write(folder.path.join(file), "").unwrap();
            let settings = settled("north", &folder.path, true).unwrap();
            assert_eq!(settings.client_id_of(0), "ringmq-north");
            assert_eq!(settings.client_id_of(1), "ringmq-north-1");
        }
        let folder = Folder::new("identity-given");
        let mut settings = BridgeSettings::new("north");
        settings.client_id = "site-7".to_owned();
        settle(&mut settings, &folder.path, true).unwrap();
        assert_eq!(settings.client_id_of(0), "site-7");
        assert!(!folder.path.exists());
    }

    #[test]
    fn where_nothing_can_be_kept_the_session_is_clean_or_the_start_refused() {
        let folder = Folder::new("identity-file");
        fs::create_dir_all(&folder.path).unwrap();
        // A file where the folder should be stops root, too.
        let place = folder.path.join("file");
        fs::write(&place, "").unwrap();
        let (one, other) =
            (settled("north", &place, false).unwrap(), settled("north", &place, false).unwrap());
        assert!(one.clean_start && one.session_expiry_s == 0);
        assert_ne!(one.client_id_of(0), other.client_id_of(0));
        let refused = settled("north", &place, true).unwrap_err().to_string();
        assert!(refused.contains("bridge north") && refused.contains("client_id"), "{refused}");
    }

    #[test]
    fn a_file_that_holds_no_id_is_not_guessed_at() {
        let folder = Folder::new("identity-damaged");
        fs::create_dir_all(&folder.path).unwrap();
        for wrong in ["", "\n", "a\0b\n", &"x".repeat(2000)] {
            fs::write(folder.path.join(FILE_NAME), wrong).unwrap();
            for stores in [true, false] {
                let refused = settled("north", &folder.path, stores).unwrap_err().to_string();
                assert!(refused.contains("remove the file"), "{refused}");
            }
        }
        fs::write(folder.path.join(FILE_NAME), "site 7\n").unwrap();
        assert_eq!(settled("north", &folder.path, true).unwrap().client_id_of(0), "site 7");
    }
}
