//! A log in memory takes payloads that look like its own records, then loses bytes or files: what is recovered is what was
//! published under its sequence, and what is not is told.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use libfuzzer_sys::fuzz_target;
use ringmq::store::format::{self, Decoded, Record};
use ringmq::store::log::{Found, Log, Step};
use ringmq::store::recovery::{Cut, Recovery};
use ringmq::store::states::{Mark, State};
use ringmq::store::{SpoolSettings, SyncPolicy};

const BOOT: [u8; 16] = [1; 16];
const LIVES_MAX: usize = 4;

type Files = BTreeMap<u64, Vec<u8>>;

fuzz_target!(|input: &[u8]| {
    // A comparison that the fuzzer sees through would tell it the key: with each input it is another.
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let key = hasher.finish();
    let mut input = Input(input);
    let mut files = Files::new();
    let mut pushed = BTreeMap::new();
    for life in 0..LIVES_MAX as u64 {
        let (found, _, _) = recover(&files);
        let segment_size = 100 + 8 * input.byte() as u64;
        let settings = SpoolSettings {
            segment_size,
            bytes_max: 64 * segment_size,
            messages_max: 1000,
            batch_size_max: 16 + 2 * input.byte(),
            memory_max: 0,
            sync: SyncPolicy::Never,
        };
        let mut log = Log::new(settings, BOOT, key.wrapping_add(life), found);
        for _ in 0..input.byte() % 64 {
            act(&mut log, &mut files, &mut pushed, &mut input, key);
        }
        commit(&mut log, &mut files);
        damage(&mut files, &pushed, &mut input, life > 0);
        if input.0.is_empty() {
            return;
        }
    }
});

/// The bytes that decide everything; zeros when there are no more.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn number(&mut self) -> usize {
        self.byte() << 8 | self.byte()
    }

    fn take(&mut self, size: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(size.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

fn act(
    log: &mut Log,
    files: &mut Files,
    pushed: &mut BTreeMap<u64, Vec<u8>>,
    input: &mut Input<'_>,
    key: u64,
) {
    match input.byte() % 8 {
        0..=3 => {
            let message = payload(log, input, key);
            if let Ok(sequence) = log.push(1, |out| out.extend_from_slice(&message)) {
                pushed.insert(sequence, message);
            }
        }
        4 => {
            let sequence = log.floor() + (input.byte() % 8) as u64;
            let mark = if input.byte() % 3 == 0 { Mark::Received } else { Mark::Done };
            log.mark(sequence, mark);
        }
        5 => drop(log.make_room(log.floor() + (input.byte() % 4) as u64, 8 * input.byte())),
        _ => commit(log, files),
    }
}

/// Records of another key, of version 1, cut off, one in another, or bytes as they are.
fn payload(log: &Log, input: &mut Input<'_>, key: u64) -> Vec<u8> {
    let shape = input.byte();
    let sequence = (log.next_sequence() + (shape >> 4) as u64).wrapping_sub(4);
    let size = input.byte() % 64;
    let bytes = input.take(size);
    let other_key = key ^ (1 << (shape % 64));
    let mut image = input.take(shape % 3).to_vec();
    match shape % 4 {
        0 => image.extend_from_slice(bytes),
        1 | 2 => {
            let start = format::open_message(&mut image, sequence, 1);
            if shape % 4 == 2 {
                let inner = format::open_message(&mut image, sequence + 1, 1);
                format::close_message(&mut image, inner, other_key.rotate_left(7));
            }
            image.extend_from_slice(bytes);
            format::close_message(&mut image, start, other_key);
        }
        _ => {
            let mut covered = (16 + bytes.len() as u32).to_le_bytes().to_vec();
            covered.push(1);
            covered.extend_from_slice(&sequence.to_le_bytes());
            covered.extend_from_slice(&[0; 8]);
            covered.extend_from_slice(bytes);
            image.extend_from_slice(&crc32(&covered).to_le_bytes());
            image.extend_from_slice(&covered);
        }
    }
    image
}

/// As version 1 has it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8)
            .fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ 0xedb8_8320 & (crc & 1).wrapping_neg())
    })
}

fn commit(log: &mut Log, files: &mut Files) {
    let mut may_seal = true;
    while let Some(step) = log.next_step(&mut may_seal) {
        match &step {
            Step::Create { segment, head } => drop(files.insert(*segment, head.clone())),
            Step::Write { segment, offset, states, messages } => {
                let file = files.get_mut(segment).expect("it was created");
                file.truncate(*offset as usize);
                file.extend_from_slice(states);
                file.extend_from_slice(messages);
            }
            Step::Sync { .. } | Step::Truncate { .. } => {}
            Step::Delete { segment } => drop(files.remove(segment)),
        }
        log.step_done(&step);
    }
}

/// Some bytes of a file go wrong, or its end, or all of it.
fn damage(
    files: &mut Files,
    pushed: &BTreeMap<u64, Vec<u8>>,
    input: &mut Input<'_>,
    is_damaged: bool,
) {
    let (whole, before, cuts) = recover(files);
    check(&whole, &before, pushed);
    assert!(is_damaged || cuts.is_empty(), "nothing is damaged yet: {cuts:?}");
    let waiting = waiting(&whole, &before);
    for round in 0..1 + input.byte() % 3 {
        let Some(&segment) = files.keys().nth(input.byte() % files.len().max(1)) else { return };
        let file = files.get_mut(&segment).expect("it is there");
        let at = input.number() % file.len().max(1);
        let end = (at + 1 + input.byte()).min(file.len());
        match input.byte() % 6 {
            0..=2 if at < end => file[at] ^= 1 << (input.byte() % 8),
            3 => file[at..end].fill(0),
            // That a file, or its end, is missing is known from the file behind it.
            4 | 5 if round == 0 && files.keys().next_back() != Some(&segment) => {
                match input.byte() % 2 {
                    0 => files.get_mut(&segment).expect("it is there").truncate(at),
                    _ => drop(files.remove(&segment)),
                }
                break;
            }
            _ => break,
        }
    }
    let (found, messages, cuts) = recover(files);
    check(&found, &messages, pushed);
    let left = self::waiting(&found, &messages);
    let lost = waiting.difference(&left).count() as u64;
    let told: u64 = cuts.iter().map(|cut| cut.messages_lost).sum();
    assert!(lost <= told, "{lost} lost: {cuts:?}");
}

fn waiting(found: &Found, messages: &BTreeMap<u64, Vec<u8>>) -> BTreeSet<u64> {
    let is_waiting = |sequence: &&u64| found.states.state(**sequence) == Some(State::Waiting);
    messages.keys().filter(is_waiting).copied().collect()
}

/// Nobody gets what was not published.
fn check(found: &Found, messages: &BTreeMap<u64, Vec<u8>>, pushed: &BTreeMap<u64, Vec<u8>>) {
    for sequence in waiting(found, messages) {
        assert_eq!(messages[&sequence], pushed[&sequence], "{sequence}");
    }
    for segment in &found.segments {
        for sequence in segment.messages.first_sequence..segment.messages.end() {
            let has_bytes = messages.contains_key(&sequence);
            assert!(has_bytes || found.states.state(sequence) != Some(State::Waiting));
        }
    }
}

fn recover(files: &Files) -> (Found, BTreeMap<u64, Vec<u8>>, Vec<Cut>) {
    let mut recovery = Recovery::default();
    for (&segment, bytes) in files {
        recovery.begin(segment, bytes.len() as u64);
        while recovery.wanted().is_some() {
            let from = recovery.offset() as usize;
            if recovery.feed(&bytes[from..]).is_err() {
                break;
            }
        }
        recovery.end();
    }
    let (found, cuts) = recovery.finish(BOOT);
    let mut messages = BTreeMap::new();
    for segment in &found.segments {
        let bytes = &files[&segment.id][..segment.size as usize];
        let mut offset = (segment.size - segment.filled()) as usize;
        while offset < bytes.len() {
            let Decoded::Whole { value, size } = Record::decode(&bytes[offset..], segment.format)
            else {
                offset += 1;
                continue;
            };
            offset += size;
            if let Record::Message { sequence, bytes, .. } = value
                && segment.messages.size_of(sequence) == Some(size as u32)
            {
                messages.insert(sequence, bytes.to_vec());
            }
        }
    }
    (found, messages, cuts)
}
