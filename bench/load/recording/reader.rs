//! Reads a recording line by line. Whoever wrote it may have been anybody: what is wrong with it is said with its line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::format::{End, Entry, Head, LINE_SIZE_MAX, Message};

/// A recording that is being read; only one line of it is in memory.
#[derive(Debug)]
pub(super) struct Reader<R> {
    input: R,
    path: PathBuf,
    pub head: Head,
    line: Vec<u8>,
    line_number: u64,
    sum: crc32fast::Hasher,
    last_ns: u64,
    messages: u64,
    retained: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Reading,
    Ended(End),
    Cut,
}

impl Reader<BufReader<File>> {
    pub(super) fn open(path: &Path) -> Result<Reader<BufReader<File>>, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(failed)?;
        // It is read twice: once to know it, once to play it.
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(format!("{}: it is no regular file", path.display()));
        }
        Reader::new(BufReader::with_capacity(1 << 18, file), path)
    }
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(input: R, path: &Path) -> Result<Reader<R>, String> {
        let nothing = Head {
            ringmq_recording: 0,
            begin: String::new(),
            mqtt: 3,
            filters: Vec::new(),
            hashed_topics: false,
            payloads: false,
        };
        let mut reader = Reader {
            input,
            path: path.to_path_buf(),
            head: nothing,
            line: Vec::new(),
            line_number: 0,
            sum: crc32fast::Hasher::new(),
            last_ns: 0,
            messages: 0,
            retained: 0,
            state: State::Reading,
        };
        reader.read_line()?;
        reader.head = Head::parse(&reader.line).map_err(|wrong| reader.wrong(&wrong))?;
        reader.sum.update(&reader.line);
        Ok(reader)
    }

    /// The next message: retained ones first. `None`: the recording has ended, or was cut here.
    pub(super) fn next(&mut self) -> Result<Option<Message>, String> {
        if !matches!(self.state, State::Reading) {
            return Ok(None);
        }
        self.read_line()?;
        let entry = match Entry::parse(&self.line) {
            // Only the last line can lack its end, and then nobody knows what more it had.
            Err(_) if !self.line.ends_with(b"\n") => {
                self.state = State::Cut;
                return Ok(None);
            }
            parsed => parsed.map_err(|wrong| self.wrong(&wrong))?,
        };
        match entry {
            Entry::Message(message) => {
                self.sum.update(&self.line);
                self.note(&message)?;
                Ok(Some(message))
            }
            Entry::End(end) => {
                self.finish(end)?;
                Ok(None)
            }
        }
    }

    /// How long was recorded, nanoseconds, as far as it has been read.
    pub(super) fn span_ns(&self) -> u64 {
        match &self.state {
            State::Ended(end) => end.ns,
            State::Reading | State::Cut => self.last_ns,
        }
    }

    /// It has no end: the recorder was killed, or a disk was full.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self.state, State::Cut)
    }

    fn read_line(&mut self) -> Result<(), String> {
        self.line.clear();
        // One that was long does not hold its memory for all others.
        self.line.shrink_to(1 << 20);
        self.line_number += 1;
        let limit = LINE_SIZE_MAX as u64 + 1;
        let read = (&mut self.input).take(limit).read_until(b'\n', &mut self.line);
        read.map_err(|error| format!("{}: {error}", self.path.display()))?;
        if self.line.len() > LINE_SIZE_MAX {
            return Err(self.wrong("it has over 96 MiB"));
        }
        Ok(())
    }

    fn note(&mut self, message: &Message) -> Result<(), String> {
        if message.at_ns < self.last_ns {
            let (now, last) = (message.at_ns, self.last_ns);
            return Err(self.wrong(&format!("time goes back, from {last} to {now} ns")));
        }
        if message.is_retained && self.messages > 0 {
            return Err(self.wrong("a retained message stands behind traffic"));
        }
        self.last_ns = message.at_ns;
        *(if message.is_retained { &mut self.retained } else { &mut self.messages }) += 1;
        Ok(())
    }

    fn finish(&mut self, end: End) -> Result<(), String> {
        let sum = format!("{:08x}", self.sum.clone().finalize());
        if end.crc32 != sum {
            return Err(self.wrong(&format!(
                "the recording was changed or damaged: its checksum is {sum}; without this last \
                 line it is played as it is"
            )));
        }
        if (end.messages, end.retained) != (self.messages, self.retained) || end.ns < self.last_ns {
            return Err(self.wrong(&format!(
                "it says {} messages and {} retained ones in {} ns; there are {}, {} and {}",
                end.messages, end.retained, end.ns, self.messages, self.retained, self.last_ns
            )));
        }
        self.read_line()?;
        if !self.line.is_empty() {
            return Err(self.wrong("something follows the recording's end"));
        }
        self.state = State::Ended(end);
        Ok(())
    }

    fn wrong(&self, what: &str) -> String {
        format!("{}, line {}: {what}", self.path.display(), self.line_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small recording with all that may be in one.
    pub(super) fn sample() -> (Vec<u8>, Vec<Message>) {
        let message = |index: u64| Message {
            at_ns: index * 1000,
            topic: format!("a/{}", index % 2),
            payload_size: 4 * index as usize,
            qos: (index % 3) as u8,
            retain: index == 3,
            is_retained: index == 0,
            user_properties: if index == 2 { vec![(3, 4)] } else { Vec::new() },
            payload: (index == 4).then(|| vec![7; 16]),
            content_type: (index == 4).then(|| "x".to_string()),
        };
        let messages: Vec<Message> = (0..6).map(message).collect();
        let head = Head {
            ringmq_recording: 1,
            begin: "2001-02-03T04:05:06Z".to_string(),
            mqtt: 5,
            filters: vec!["#".to_string()],
            hashed_topics: false,
            payloads: true,
        };
        let mut bytes = Vec::new();
        head.write(&mut bytes);
        messages.iter().for_each(|message| message.clone().write(&mut bytes));
        let crc32 = format!("{:08x}", crc32fast::hash(&bytes));
        let granted = vec![2];
        End { messages: 5, retained: 1, ns: 9999, crc32, granted, ..End::default() }
            .write(&mut bytes);
        (bytes, messages)
    }

    fn read(bytes: &[u8]) -> Result<(Vec<Message>, bool), String> {
        let mut reader = Reader::new(bytes, Path::new("FILE"))?;
        let mut messages = Vec::new();
        while let Some(message) = reader.next()? {
            messages.push(message);
        }
        Ok((messages, reader.is_cut()))
    }

    #[test]
    fn a_whole_recording_is_read_to_its_end() {
        let (bytes, messages) = sample();
        assert_eq!(read(&bytes), Ok((messages, false)));
    }

    #[test]
    fn a_recording_that_was_cut_anywhere_is_read_up_to_there() {
        let (bytes, messages) = sample();
        let first = bytes.iter().position(|byte| *byte == b'\n').expect("lines");
        for size in 0..bytes.len() - 1 {
            match read(&bytes[..size]) {
                // Without its newline the first line is whole.
                Err(said) => assert!(size < first && said.contains("line 1: "), "{size}: {said}"),
                Ok((some, is_cut)) => {
                    assert!(is_cut && size >= first && messages.starts_with(&some), "{size}");
                    let lines = bytes[..size].iter().filter(|byte| **byte == b'\n').count();
                    assert!(some.len() + 1 >= lines, "{size}: {}", some.len());
                }
            }
        }
    }

    #[test]
    fn every_flipped_byte_is_noticed_or_changes_nothing() {
        let (bytes, messages) = sample();
        let mut refused = 0;
        for at in 0..bytes.len() {
            for flip in [0x01, 0x02, 0x08, 0x20, 0x80, 0xff] {
                let mut flipped = bytes.clone();
                flipped[at] ^= flip;
                match read(&flipped) {
                    Err(said) => {
                        assert!(said.starts_with("FILE, line "), "{said}");
                        refused += 1;
                    }
                    Ok((some, _)) => assert!(messages.starts_with(&some), "byte {at} ^ {flip:#x}"),
                }
            }
        }
        assert!(refused > 5 * bytes.len(), "{refused} of {}", 6 * bytes.len());
    }

    #[test]
    fn lines_out_of_place_are_refused() {
        let (bytes, _) = sample();
        let text = String::from_utf8(bytes).expect("JSON");
        let lines: Vec<&str> = text.lines().collect();
        let refused = |order: &[usize], reason: &str| {
            let text: String = order.iter().map(|at| format!("{}\n", lines[*at])).collect();
            let said = read(text.as_bytes()).expect_err(reason);
            assert!(said.contains(reason), "{said}");
        };
        refused(&[0, 3, 2], "line 3: time goes back, from 2000 to 1000 ns");
        refused(&[0, 1, 2, 3, 7], "checksum");
        refused(&[0, 1, 2, 3, 4, 5, 6, 7, 2], "something follows");
        refused(&[1, 2, 3], "not that of a recording");
        refused(&[0, 0], "unknown field");
        let behind =
            text.replace(r#""topic":"a/1","size":4,"#, r#""topic":"a","retained":true,"size":4,"#);
        let behind: Vec<&str> = behind.lines().take(3).collect();
        assert!(read(behind.join("\n").as_bytes()).is_ok());
        let late = format!(
            "{}\n{}\n{}",
            lines[0],
            lines[2],
            lines[3].replace("qos", "retained\":true,\"qos")
        );
        assert!(
            read(late.as_bytes()).expect_err("late").contains("retained message stands behind")
        );
    }

    #[test]
    fn a_billion_messages_that_the_end_claims_are_not_believed() {
        let (bytes, _) = sample();
        let text = String::from_utf8(bytes).expect("JSON");
        let text = text.replace(r#""messages":5"#, r#""messages":1000000000"#);
        assert!(read(text.as_bytes()).expect_err("a claim").contains("says 1000000000 messages"));
    }
}
