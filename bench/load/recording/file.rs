//! The file that is recorded into: created for its owner alone, bounded, and readable up to wherever writing ends.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::format::{End, Head, Message};

/// What waits to be written; lines are written whole, as far as the disk lets them.
const BUFFER_SIZE: usize = 256 << 10;

/// Room for the last line, reasons and grants included.
const END_SIZE_MAX: u64 = 8 << 10;

#[derive(Debug)]
pub(super) struct RecordingFile {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    /// With what waits.
    size: u64,
    size_max: u64,
    sum: crc32fast::Hasher,
    pub messages: u64,
    pub retained: u64,
    /// Messages that cannot stand in a recording.
    pub skipped: u64,
    line: Vec<u8>,
}

impl RecordingFile {
    pub(super) fn create(
        path: &Path,
        is_forced: bool,
        size_max: u64,
        head: &Head,
    ) -> Result<RecordingFile, String> {
        let failed = |error: std::io::Error| format!("-o {}: {error}", path.display());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(_) if !is_forced => {
                let way_out = "--force records over it";
                return Err(format!("-o {}: it is there already: {way_out}", path.display()));
            }
            Ok(found) if found.is_file() => fs::remove_file(path).map_err(failed)?,
            Ok(found) if found.is_dir() || found.is_symlink() => {
                return Err(format!("-o {}: it is no file: name one", path.display()));
            }
            // A device or a pipe: it stays as it is.
            Ok(_) => {
                options.create_new(false);
            }
        }
        let file = options.open(path).map_err(failed)?;
        let mut recording = RecordingFile {
            file,
            path: path.to_path_buf(),
            buffer: Vec::new(),
            size: 0,
            size_max,
            sum: crc32fast::Hasher::new(),
            messages: 0,
            retained: 0,
            skipped: 0,
            line: Vec::new(),
        };
        head.write(&mut recording.line);
        recording.take_line()?;
        Ok(recording)
    }

    /// Writes a message behind the others. False if the file would become too large: it is not written then.
    pub(super) fn append(&mut self, message: Message) -> Result<bool, String> {
        let is_retained = message.is_retained;
        self.line.clear();
        message.write(&mut self.line);
        if self.size + self.line.len() as u64 + END_SIZE_MAX > self.size_max {
            return Ok(false);
        }
        // What cannot be written now waits, and counts.
        *(if is_retained { &mut self.retained } else { &mut self.messages }) += 1;
        self.take_line()?;
        Ok(true)
    }

    fn take_line(&mut self) -> Result<(), String> {
        self.sum.update(&self.line);
        self.size += self.line.len() as u64;
        self.buffer.extend_from_slice(&self.line);
        if self.buffer.len() >= BUFFER_SIZE { self.flush() } else { Ok(()) }
    }

    /// Hands all to the system.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        let written = write_all(&mut self.file, &mut self.buffer);
        written.map_err(|reason| self.failed(&reason))
    }

    fn failed(&self, what: &str) -> String {
        format!("{}: {what}: what it holds by now can be replayed", self.path.display())
    }

    /// Writes the end, with what only the file knows. Returns the file's size.
    pub(super) fn finish(mut self, end: End) -> Result<u64, String> {
        let end = End {
            messages: self.messages,
            retained: self.retained,
            skipped: self.skipped,
            crc32: format!("{:08x}", self.sum.clone().finalize()),
            ..end
        };
        self.line.clear();
        end.write(&mut self.line);
        self.take_line()?;
        self.flush()?;
        Ok(self.size)
    }
}

/// Writes the buffer. After an error it holds what the file has not taken, and nothing of what it has.
fn write_all(file: &mut impl Write, buffer: &mut Vec<u8>) -> Result<(), String> {
    let mut written = 0;
    let mut result = Ok(());
    while written < buffer.len() && result.is_ok() {
        match file.write(&buffer[written..]) {
            Ok(0) => result = Err("nothing more can be written".to_string()),
            Ok(size) => written += size,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => result = Err(error.to_string()),
        }
    }
    buffer.drain(..written);
    result
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::reader::Reader;
    use super::*;

    fn head() -> Head {
        Head {
            ringmq_recording: 1,
            begin: String::new(),
            mqtt: 3,
            filters: Vec::new(),
            hashed_topics: false,
            payloads: false,
        }
    }

    #[test]
    fn a_recording_is_its_owners_alone_bounded_and_nothing_is_overwritten() {
        let folder = std::env::temp_dir().join(format!("ringmq-bench-file-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("r.jsonl");
        let mut file = RecordingFile::create(&path, false, 12 << 10, &head()).expect("new");
        let message = Message { topic: "t".to_string(), ..Message::default() };
        while file.append(message.clone()).expect("there is room") {}
        let count = file.messages;
        let size = file.finish(End::default()).expect("there is room");
        let found = fs::metadata(&path).expect("it is there");
        assert!(size <= 12 << 10 && found.len() == size && count > 50, "{size}, {count}");
        assert_eq!(found.mode() & 0o777, 0o600);
        let mut reader = Reader::open(&path).expect("readable");
        let mut read = 0;
        while reader.next().expect("sound").is_some() {
            read += 1;
        }
        assert!(read == count && !reader.is_cut());

        let again = |is_forced, path: &Path| {
            RecordingFile::create(path, is_forced, 1 << 20, &head()).map(|_| ())
        };
        assert!(again(false, &path).expect_err("it is there").contains("--force"));
        assert_eq!(again(true, &path), Ok(()));
        let link = folder.join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(again(true, &link).expect_err("a link").contains("no file"));
        assert!(again(true, &folder).expect_err("a folder").contains("no file"));
        fs::remove_dir_all(&folder).expect("mine");
    }

    /// Takes three bytes, then fails once.
    #[derive(Default)]
    struct Failing(Vec<u8>, bool);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.len() == 3 && !std::mem::replace(&mut self.1, true) {
                return Err(ErrorKind::StorageFull.into());
            }
            let size = bytes.len().min(3);
            self.0.extend_from_slice(&bytes[..size]);
            Ok(size)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_written_twice_after_an_error() {
        let (mut file, mut buffer) = (Failing::default(), b"12345".to_vec());
        assert!(write_all(&mut file, &mut buffer).is_err());
        assert_eq!(buffer, b"45");
        buffer.extend_from_slice(b"678");
        assert_eq!(write_all(&mut file, &mut buffer), Ok(()));
        assert!(file.0 == b"12345678" && buffer.is_empty(), "{file:?}", file = file.0);
    }

    #[test]
    fn a_full_disk_is_named_with_its_file() {
        let mut file = RecordingFile::create(Path::new("/dev/full"), true, 1 << 20, &head())
            .expect("every Linux has it");
        let said = file.flush().expect_err("it is full");
        assert!(said.starts_with("/dev/full: ") && said.contains("can be replayed"), "{said}");
    }
}
