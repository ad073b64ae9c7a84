//! Messages that were set aside: a bounded file in the bridge's folder, which outlives the process.
//!
//! The file is `aside`. Renamed to `aside.again` (by `ringmq aside NAME --send`), a broker takes its messages back into the logs,
//! and removes it. A file with damage that cannot be passed over is kept as `aside.damaged.TIME`. Behind eight bytes of version
//! each record is:
//! ```text
//! size 4 | check of the size 4 | check of the body 4 | taken: sequence 8, connection 2, check 4
//! body: time 8 | connection 2 | sequence 8 | why 1 | reason 1 | message, as the log keeps it
//! ```
//! Numbers are little endian, checks are CRC-32, `size` is the body's, `time` is milliseconds since 1970. Connection and sequence
//! say where the message was in the logs: one whose log did not hear that it is over before the process died is over when the
//! next one begins. `taken` is zero until the message goes back: then it says, before the log has it, where it will be.
//!
//! A message that is given up goes into the file, synced, before the log counts it as done. A start looks for messages
//! of which the log did not hear.

pub(crate) mod back;
pub(crate) mod command;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::unix_ms;
use crate::codec::ReasonCode;
use crate::executor::Semaphore;
use crate::executor::files::{Directory, File};
use crate::printable::counted;

const FILE_NAME: &str = "aside";
const AGAIN_NAME: &str = "aside.again";
const DAMAGED_NAME: &str = "aside.damaged";

const MAGIC: &[u8; 8] = b"RMQaside";
const FRONT_SIZE: usize = 12 + TAKEN_SIZE;
const TAKEN_PLACE: u64 = 12;
const TAKEN_SIZE: usize = 14;
const HEAD_SIZE: usize = 20;
const BODY_SIZE_MAX: u32 = 1 << 29;

/// Of the file of messages that go back, read at once.
const PIECE_SIZE: usize = 256 << 10;

/// Why a message was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The remote refused it for too long.
    Refused(ReasonCode),
    /// The remote closed each connection over which it came.
    Closed,
}

/// Where a message is in the logs of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub connection: u16,
    pub sequence: u64,
}

/// What is noted of a message that the log has, or had, for certain.
pub(crate) const IN_LOG: Place = Place { connection: u16::MAX, sequence: 0 };

/// A record of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// In the file.
    pub offset: u64,
    /// Where it went back to.
    pub taken: Option<Place>,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Where it was.
    pub place: Place,
    pub why: Why,
    /// As the log keeps it.
    pub record: Vec<u8>,
}

/// What became of a message that was to be set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes,
    /// The file has its size.
    Full,
}

/// The file of one bridge; see the module.
pub(crate) struct Aside {
    folder: PathBuf,
    size_max: u64,
    /// A record was not written whole: the file is good up to here.
    soiled_from: Cell<Option<u64>>,
    /// One writer or reader at a time.
    turn: Semaphore,
    /// Offsets of messages that are back, which could not be noted yet.
    pub unnoted: RefCell<BTreeSet<u64>>,
    /// The folder is known to name the file though power fails.
    is_listed: Cell<bool>,
}

impl Aside {
    /// Looks through what an earlier process left. `visit` sees every message; what it returns for one that was `taken` says
    /// whether the log has had it.
    pub(crate) fn open(
        folder: &Path,
        size_max: u64,
        mut visit: impl FnMut(&Entry) -> bool,
    ) -> Aside {
        for name in [FILE_NAME, AGAIN_NAME] {
            let path = folder.join(name);
            if let Err(error) = settle(&path, &mut visit)
                && error.kind() != ErrorKind::NotFound
            {
                warn!("{}: {error}; messages in it may be sent twice", path.display());
            }
        }
        let turn = Semaphore::new(1);
        Aside {
            folder: folder.to_owned(),
            size_max,
            soiled_from: Cell::new(None),
            turn,
            unnoted: RefCell::default(),
            is_listed: Cell::new(false),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(FILE_NAME)
    }

    /// Writes a message behind the others, onto the disk. Not to be given up half-way.
    pub(crate) async fn put(
        &self,
        time_ms: u64,
        place: Place,
        why: Why,
        record: &[u8],
    ) -> io::Result<Kept> {
        let _turn = self.turn.acquire().await.expect("it is never closed");
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let directory = Directory::open(&self.folder).await?;
        let path = self.path();
        let is_new = !path.exists();
        let file = match is_new {
            true => directory.create(&path).await?,
            false => directory.open_for_writing(&path).await?,
        };
        let kept = self.append(&file, &encode(time_ms, place, why, record)).await;
        let closed = file.close().await;
        let kept = kept?;
        closed?;
        if !self.is_listed.get() {
            directory.sync().await?;
            self.is_listed.set(true);
        }
        Ok(kept)
    }

    async fn append(&self, file: &File, record: &[u8]) -> io::Result<Kept> {
        let mut end = file.size().await?;
        if let Some(good_size) = self.soiled_from.get().filter(|good| *good < end) {
            file.truncate(good_size).await?;
            end = good_size;
        }
        self.soiled_from.set(None);
        let bytes = if end == 0 { [MAGIC, record].concat() } else { record.to_vec() };
        if end + bytes.len() as u64 > self.size_max {
            return Ok(Kept::Full);
        }
        self.soiled_from.set(Some(end));
        write_all(file, bytes, end).await?;
        file.fdatasync().await?;
        self.soiled_from.set(None);
        Ok(Kept::Yes)
    }

    /// Whether messages are to go back.
    pub(crate) fn has_again(&self) -> bool {
        self.folder.join(AGAIN_NAME).exists()
    }

    /// Some of the messages that are to go back, from an offset on (0 at first), and where to go on.
    pub(crate) async fn again(&self, from: u64) -> io::Result<(Vec<Entry>, Option<u64>)> {
        // Who writes has opened the file by its other name, maybe.
        let _turn = self.turn.acquire().await.expect("it is never closed");
        let file = File::open(&self.folder.join(AGAIN_NAME)).await?;
        let size = file.size().await?;
        let mut piece_size = PIECE_SIZE;
        let from = from.max(MAGIC.len() as u64);
        let found = loop {
            let bytes = file.read_at(from, piece_size).await?;
            let mut entries = Entries::new(&bytes[..], from);
            let found: Vec<Entry> = entries.by_ref().collect();
            let is_cut = from + (bytes.len() as u64) < size || entries.end == End::Damaged;
            if entries.end == End::Damaged && entries.good_offset == from {
                let what = format!("damaged from byte {from} on; the next start puts it away");
                return Err(io::Error::new(ErrorKind::InvalidData, what));
            }
            if !is_cut || entries.good_offset > from {
                break (found, is_cut.then_some(entries.good_offset));
            }
            piece_size *= 2;
        };
        file.close().await?;
        Ok(found)
    }

    /// Notes where these messages will be, before they are there; or that they are `IN_LOG`.
    pub(crate) async fn note_taken(&self, entries: &[Entry], first: Place) -> io::Result<()> {
        let directory = Directory::open(&self.folder).await?;
        let file = directory.open_for_writing(&self.folder.join(AGAIN_NAME)).await?;
        let mut outcome = Ok(());
        for (entry, sequence) in entries.iter().zip(first.sequence..) {
            let place = if first == IN_LOG { IN_LOG } else { Place { sequence, ..first } };
            let taken = encode_taken(place);
            outcome = write_all(&file, taken.to_vec(), entry.offset + TAKEN_PLACE).await;
            if outcome.is_err() {
                break;
            }
        }
        if outcome.is_ok() {
            outcome = file.fdatasync().await;
        }
        file.close().await?;
        outcome
    }

    /// All are back.
    pub(crate) async fn forget_again(&self) -> io::Result<()> {
        let directory = Directory::open(&self.folder).await?;
        directory.remove(&self.folder.join(AGAIN_NAME)).await?;
        self.unnoted.borrow_mut().clear();
        directory.sync().await
    }
}

async fn write_all(file: &File, bytes: Vec<u8>, offset: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(bytes[written..].to_vec(), offset + written as u64).await? {
            0 => return Err(ErrorKind::WriteZero.into()),
            size => written += size,
        }
    }
    Ok(())
}

/// At a start: cuts off what a process that died has not written whole, puts a damaged file away, and takes back what `taken`
/// says of messages that the log never had.
fn settle(path: &Path, visit: &mut impl FnMut(&Entry) -> bool) -> io::Result<()> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut entries = Entries::begin(io::BufReader::new(&file))?;
    for entry in entries.by_ref() {
        let has_had = visit(&entry);
        if entry.taken.is_some() && entry.taken != Some(IN_LOG) {
            let taken = if has_had { encode_taken(IN_LOG) } else { [0; TAKEN_SIZE] };
            file.write_all_at(&taken, entry.offset + TAKEN_PLACE)?;
        }
    }
    let (end, good_offset, skipped) = (entries.end, entries.good_offset, entries.skipped);
    if skipped > 0 {
        warn!("{}: {} cannot be read", path.display(), counted(skipped, "messages"));
    }
    match end {
        End::Whole => {}
        End::Torn => file.set_len(good_offset)?,
        End::Damaged => {
            let damaged = path.with_file_name(format!("{DAMAGED_NAME}.{}", unix_ms()));
            fs::rename(path, &damaged)?;
            warn!(
                "{}: damaged from byte {good_offset} on; it is kept as {}, and nothing of it is sent: cut to {good_offset} bytes \
                 and under its old name it is read again",
                path.display(),
                damaged.display()
            );
        }
    }
    file.sync_data()
}

fn encode(time_ms: u64, place: Place, why: Why, record: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEAD_SIZE + record.len());
    body.extend_from_slice(&time_ms.to_le_bytes());
    body.extend_from_slice(&place.connection.to_le_bytes());
    body.extend_from_slice(&place.sequence.to_le_bytes());
    body.extend_from_slice(&match why {
        Why::Refused(reason) => [0, reason as u8],
        Why::Closed => [1, 0],
    });
    body.extend_from_slice(record);
    let size = (body.len() as u32).to_le_bytes();
    let mut out = Vec::with_capacity(FRONT_SIZE + body.len());
    out.extend_from_slice(&size);
    out.extend_from_slice(&check_of_size(size).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&[0; TAKEN_SIZE]);
    out.extend_from_slice(&body);
    out
}

fn check_of_size(size: [u8; 4]) -> u32 {
    crc32fast::hash(&[MAGIC, &size[..]].concat())
}

fn encode_taken(place: Place) -> [u8; TAKEN_SIZE] {
    let mut out = [0; TAKEN_SIZE];
    out[..8].copy_from_slice(&place.sequence.to_le_bytes());
    out[8..10].copy_from_slice(&place.connection.to_le_bytes());
    let check = crc32fast::hash(&out[..10]);
    out[10..].copy_from_slice(&check.to_le_bytes());
    out
}

fn decode_taken(bytes: &[u8]) -> Option<Place> {
    let connection = u16::from_le_bytes(bytes[8..10].try_into().expect("two bytes"));
    let sequence = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let place = Place { connection, sequence };
    (encode_taken(place) == bytes).then_some(place)
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// In the middle of a record, or in zeros.
    Torn,
    /// Nothing behind can be told apart.
    Damaged,
}

/// The records of a file. One whose body is damaged is passed over.
pub(crate) struct Entries<R> {
    source: R,
    /// Behind the last whole record.
    pub good_offset: u64,
    pub end: End,
    /// Records that were passed over.
    pub skipped: u64,
}

impl<R: Read> Entries<R> {
    /// From the beginning of a file.
    pub(crate) fn begin(mut source: R) -> io::Result<Entries<R>> {
        let mut magic = Vec::new();
        source.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        let mut entries = Entries::new(source, MAGIC.len() as u64);
        if magic != MAGIC {
            entries.good_offset = 0;
            let is_torn = MAGIC.starts_with(&magic) || magic.iter().all(|byte| *byte == 0);
            entries.end = if is_torn { End::Torn } else { End::Damaged };
        }
        Ok(entries)
    }

    fn new(source: R, offset: u64) -> Entries<R> {
        Entries { source, good_offset: offset, end: End::Whole, skipped: 0 }
    }

    fn read(&mut self, size: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.source.by_ref().take(size as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The next record, or how it ends.
    fn step(&mut self) -> io::Result<Result<Entry, End>> {
        loop {
            let front = self.read(FRONT_SIZE)?;
            if front.is_empty() {
                return Ok(Err(End::Whole));
            }
            let Some(front) = front.first_chunk::<FRONT_SIZE>() else {
                return Ok(Err(End::Torn));
            };
            let word = |at: usize| front[at..at + 4].try_into().expect("four bytes");
            let size = u32::from_le_bytes(word(0));
            let is_size = check_of_size(word(0)) == u32::from_le_bytes(word(4));
            if !is_size || size > BODY_SIZE_MAX || (size as usize) < HEAD_SIZE {
                return Ok(Err(self.end_behind(front)?));
            }
            let mut body = self.read(size as usize)?;
            if body.len() < size as usize {
                return Ok(Err(End::Torn));
            }
            let offset = self.good_offset;
            self.good_offset += (FRONT_SIZE + body.len()) as u64;
            if crc32fast::hash(&body) != u32::from_le_bytes(word(8)) {
                self.skipped += 1;
                continue;
            }
            let record = body.split_off(HEAD_SIZE);
            return Ok(Ok(entry(offset, decode_taken(&front[12..]), &body, record)));
        }
    }

    /// A process that died may leave zeros behind the last record.
    fn end_behind(&mut self, front: &[u8]) -> io::Result<End> {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let mut bytes = front.to_vec();
        while !bytes.is_empty() {
            if !is_zero(&bytes) {
                return Ok(End::Damaged);
            }
            bytes = self.read(PIECE_SIZE)?;
        }
        Ok(End::Torn)
    }
}

fn entry(offset: u64, taken: Option<Place>, head: &[u8], record: Vec<u8>) -> Entry {
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let connection = u16::from_le_bytes(head[8..10].try_into().expect("two bytes"));
    let why = match head[18] {
        0 => Why::Refused(ReasonCode::from_u8(head[19]).unwrap_or(ReasonCode::UnspecifiedError)),
        _ => Why::Closed,
    };
    let place = Place { connection, sequence: number(10) };
    Entry { offset, taken, time_ms: number(0), place, why, record }
}

impl<R: Read> Iterator for Entries<R> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.end != End::Whole {
            return None;
        }
        match self.step() {
            Ok(Ok(entry)) => return Some(entry),
            Ok(Err(end)) => self.end = end,
            // Nothing behind can be read.
            Err(_) => self.end = End::Damaged,
        }
        None
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Refused(reason) => write!(f, "refused, {reason:?}"),
            Why::Closed => f.write_str("the remote closed over it"),
        }
    }
}

/// The two files of a bridge: of what is set aside, and of what goes back.
pub(crate) fn paths(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join(FILE_NAME), folder.join(AGAIN_NAME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::each_io::{for_each_io, run};
    use crate::system::folder::Folder;
    use std::os::unix::fs::PermissionsExt;

    const WHY: Why = Why::Refused(ReasonCode::QuotaExceeded);

    fn place(sequence: u64) -> Place {
        Place { connection: 2, sequence }
    }

    fn records(bytes: &[u8]) -> (Vec<Vec<u8>>, u64, End) {
        let mut entries = Entries::begin(bytes).unwrap();
        let found = entries.by_ref().map(|entry| entry.record).collect();
        (found, entries.skipped, entries.end)
    }

    fn read(path: &Path) -> Vec<Vec<u8>> {
        records(&fs::read(path).unwrap()).0
    }

    #[test]
    fn what_is_set_aside_is_there_for_the_next_process_and_the_file_has_its_bound() {
        for_each_io(|io| {
            let folder = Folder::new("aside");
            let path = folder.path.join("a/b");
            run(io, async move {
                let aside = Aside::open(&path, 1000, |_| false);
                let mut written = Vec::new();
                while written.len() < 100 {
                    let one = vec![written.len() as u8; 100];
                    match aside.put(7, place(written.len() as u64), WHY, &one).await.unwrap() {
                        Kept::Yes => written.push(one),
                        Kept::Full => break,
                    }
                }
                assert!((5..10).contains(&written.len()));
                let metadata = fs::metadata(aside.path()).unwrap();
                assert!(metadata.len() <= 1000);
                assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
                assert_eq!(read(&aside.path()), written);
                // A process that died while it wrote.
                let whole = fs::read(aside.path()).unwrap();
                for torn in [&whole[8..60], &whole[8..20], &[0; 300]] {
                    fs::write(aside.path(), [&whole, torn].concat()).unwrap();
                    let aside = Aside::open(&path, 2000, |_| false);
                    assert_eq!(fs::read(aside.path()).unwrap(), whole);
                    assert_eq!(
                        aside.put(8, place(9), Why::Closed, b"last").await.unwrap(),
                        Kept::Yes
                    );
                    assert_eq!(read(&aside.path()).last().unwrap(), b"last");
                }
                // A file that cannot be written.
                let aside = Aside::open(&path.join("missing"), 1000, |_| false);
                fs::write(path.join("missing"), "in the way").unwrap();
                assert!(aside.put(7, place(1), WHY, b"x").await.is_err());
            });
        });
    }

    #[test]
    fn damage_costs_what_it_hits_and_is_said() {
        let mut whole = MAGIC.to_vec();
        let parts: Vec<Vec<u8>> =
            (0..3).map(|number| encode(1, place(number), WHY, &[number as u8; 30])).collect();
        whole.extend(parts.concat());
        assert_eq!(records(&whole).0.len(), 3);
        let second = MAGIC.len() + parts[0].len();
        for at in 0..parts[1].len() {
            let mut damaged = whole.clone();
            damaged[second + at] ^= 0x10;
            let (found, skipped, end) = records(&damaged);
            match at {
                0..8 => assert_eq!((found.len(), skipped, end), (1, 0, End::Damaged), "{at}"),
                // Its mark counts as none.
                12..26 => assert_eq!((found.len(), skipped, end), (3, 0, End::Whole), "{at}"),
                _ => assert_eq!((found.len(), skipped, end), (2, 1, End::Whole), "{at}"),
            }
        }
        // The file with the damage stays, under another name.
        let folder = Folder::new("aside-damaged");
        fs::create_dir_all(&folder.path).unwrap();
        whole[second] ^= 1;
        fs::write(folder.path.join(FILE_NAME), &whole).unwrap();
        drop(Aside::open(&folder.path, 1000, |_| false));
        let kept: Vec<_> = fs::read_dir(&folder.path).unwrap().map(Result::unwrap).collect();
        assert_eq!(kept.len(), 1);
        assert!(kept[0].file_name().to_str().unwrap().starts_with(DAMAGED_NAME));
        assert_eq!(fs::read(kept[0].path()).unwrap(), whole);
    }

    async fn all_again(aside: &Aside) -> Vec<Entry> {
        let (mut found, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let (entries, more) = aside.again(from).await.unwrap();
            assert!(!entries.is_empty());
            found.extend(entries);
            next = more;
        }
        found
    }

    #[test]
    fn messages_that_go_back_are_read_in_pieces_whatever_their_size() {
        for_each_io(|io| {
            let folder = Folder::new("aside-pieces");
            let path = folder.path.clone();
            run(io, async move {
                let aside = Aside::open(&path, 64 << 20, |_| false);
                let sizes = [10, PIECE_SIZE - 100, 3 * PIECE_SIZE, 0, PIECE_SIZE, 5];
                for (sequence, size) in (0..).zip(sizes) {
                    let record = vec![sequence as u8; size];
                    aside.put(1, place(sequence), WHY, &record).await.unwrap();
                }
                fs::rename(aside.path(), path.join(AGAIN_NAME)).unwrap();
                assert!(aside.has_again());
                let found = all_again(&aside).await;
                assert_eq!(found.iter().map(|entry| entry.record.len()).collect::<Vec<_>>(), sizes);
                // What the log is to have is known to the next process, which asks the log.
                aside
                    .note_taken(&found[1..4], Place { connection: 1, sequence: 70 })
                    .await
                    .unwrap();
                let has_had = |entry: &Entry| entry.taken.is_some_and(|taken| taken.sequence < 72);
                let aside = Aside::open(&path, 64 << 20, has_had);
                let taken: Vec<_> = all_again(&aside).await.iter().map(|one| one.taken).collect();
                assert_eq!(taken, [None, Some(IN_LOG), Some(IN_LOG), None, None, None]);
                let mut rest = Vec::new();
                Aside::open(&path, 64 << 20, |entry| {
                    rest.push(entry.taken);
                    true
                });
                assert_eq!(rest, [None, Some(IN_LOG), Some(IN_LOG), None, None, None]);
                aside.forget_again().await.unwrap();
                assert!(!aside.has_again());
            });
        });
    }
}
