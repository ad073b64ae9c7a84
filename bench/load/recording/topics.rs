//! Topics whose levels are hashed with a random key: the same text has the same hash, and without the key nobody can
//! try which text that was.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::hash::Hasher as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use ringmq::topic;
use siphasher::sip::SipHasher24;

use super::format::TEXT_SIZE_MAX;

const KEY_SIZE: usize = 16;

/// Hashes topics level by level.
pub(super) struct TopicHasher {
    key: [u8; KEY_SIZE],
}

impl fmt::Debug for TopicHasher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TopicHasher")
    }
}

impl TopicHasher {
    /// With a key that nobody learns.
    pub(super) fn random() -> Result<TopicHasher, String> {
        let mut key = [0; KEY_SIZE];
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut key));
        read.map_err(|error| format!("/dev/urandom: {error}"))?;
        Ok(TopicHasher { key })
    }

    /// With the key in a file; where there is none, a random one is written there.
    pub(super) fn kept(path: &Path) -> Result<TopicHasher, String> {
        let failed = |error: std::io::Error| format!("--key-file {}: {error}", path.display());
        let hasher = TopicHasher::random()?;
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match created {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => TopicHasher::read(path),
            created => {
                let digits: String = hasher.key.iter().map(|byte| format!("{byte:02x}")).collect();
                let written = created.and_then(|mut file| writeln!(file, "{digits}"));
                written.map_err(failed)?;
                Ok(hasher)
            }
        }
    }

    fn read(path: &Path) -> Result<TopicHasher, String> {
        let wrong = |what: &str| format!("--key-file {}: {what}", path.display());
        let mode = fs::metadata(path).map_err(|error| wrong(&error.to_string()))?.mode();
        if mode & 0o077 != 0 {
            return Err(wrong(
                "others may read it: chmod 600 it, or name a file that is not there yet",
            ));
        }
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(100).read_to_string(&mut text));
        read.map_err(|error| wrong(&error.to_string()))?;
        let digits = text.trim().as_bytes();
        let number = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(number).collect();
        let key = bytes.filter(|_| digits.iter().all(u8::is_ascii_hexdigit));
        let key = key.and_then(|bytes| bytes.try_into().ok());
        let key = key.ok_or_else(|| wrong("it holds no key of 32 hexadecimal digits"))?;
        Ok(TopicHasher { key })
    }

    /// The topic in hashes. A level has 16 digits, an empty one none; what begins with `$` still does, and what the
    /// broker says below `$SYS` stays as it is. `None`: so many levels that it would be no topic any more.
    pub(super) fn hash(&self, topic: &str) -> Option<String> {
        if topic::is_system(topic) {
            return Some(topic.to_string());
        }
        let level = |level: &str| {
            let mut hasher = SipHasher24::new_with_key(&self.key);
            hasher.write(level.as_bytes());
            if level.is_empty() { String::new() } else { format!("{:016x}", hasher.finish()) }
        };
        let (mark, rest) = match topic.strip_prefix('$') {
            Some(rest) => ("$", rest),
            None => ("", topic),
        };
        let levels: Vec<String> = rest.split('/').map(level).collect();
        let hashed = format!("{mark}{}", levels.join("/"));
        (hashed.len() <= TEXT_SIZE_MAX).then_some(hashed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_level_has_the_same_hash_and_another_key_another() {
        let [one, other] = [(); 2].map(|()| TopicHasher::random().expect("Linux has it"));
        let hash = |topic| one.hash(topic).expect("short");
        let levels = |topic: &str| topic.split('/').map(str::to_string).collect::<Vec<_>>();
        let (first, second) = (levels(&hash("plant/7/temp")), levels(&hash("plant/8/temp")));
        assert_eq!((&first[0], &first[2]), (&second[0], &second[2]));
        assert_ne!(first[1], second[1]);
        assert!(first.iter().all(|level| level.len() == 16));
        assert_ne!(other.hash("plant/7/temp"), one.hash("plant/7/temp"));
        assert_eq!(hash("/a//").matches('/').count(), 3);
        assert!(hash("/a//").starts_with('/') && hash("/a//").ends_with("//"));
        assert_eq!(hash("$SYS/broker/uptime"), "$SYS/broker/uptime");
        assert!(hash("$aws/things").starts_with('$') && !hash("$aws/things").contains("aws"));
        assert_eq!(one.hash(&"a/".repeat(30_000)), None);
        assert_eq!(format!("{one:?}"), "TopicHasher");
    }

    #[test]
    fn a_key_that_is_kept_is_kept_from_others_and_used_again() {
        let folder = std::env::temp_dir().join(format!("ringmq-bench-key-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("key");
        let first = TopicHasher::kept(&path).expect("written");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
        assert_eq!(TopicHasher::kept(&path).expect("read").key, first.key);
        for text in ["", "12", "+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1", &"0".repeat(34)] {
            fs::write(&path, text).expect("writable");
            let said = TopicHasher::kept(&path).expect_err(text);
            assert!(said.contains("32 hexadecimal digits"), "{said}");
        }
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(&path, open).expect("mine");
        assert!(TopicHasher::kept(&path).expect_err("open").contains("chmod 600"));
        fs::remove_dir_all(&folder).expect("mine");
    }
}
