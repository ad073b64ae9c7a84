//! A log in memory takes payloads that look like its own records, then loses bytes or files: what is recovered is what was
//! published under its sequence, and what is not is told.
//!
//! Payloads hold records of every kind but one: those of the right key, which nobody knows who publishes.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use libfuzzer_sys::fuzz_target;
use ringmq::store::format::{self, Decoded, Format, Head, Record};
use ringmq::store::log::{Found, Log, Step};
use ringmq::store::recovery::{Cut, Recovery};
use ringmq::store::states::{Mark, State};
use ringmq::store::{SpoolSettings, SyncPolicy};

const BOOT: [u8; 16] = [1; 16];
const LIVES_MAX: usize = 4;

type Files = BTreeMap<u64, Vec<u8>>;
/// What had each sequence: a later life gives one again that was lost at the end, and damage may undo itself.
type Pushed = BTreeMap<u64, Vec<Vec<u8>>>;

fuzz_target!(|input: &[u8]| {
    let whole = input;
    let mut input = Input(input);
    let mut files = Files::new();
    let mut pushed = Pushed::new();
    // What was once marked or lost may wait again where damage took that away, and not wait where it undid itself.
    let mut settled = BTreeSet::new();
    let old_count = if input.byte() % 4 == 1 { 1 + input.byte() as u64 % 3 } else { 0 };
    leave_version_1(old_count, &mut files, &mut pushed, &mut input);
    for life in 0..LIVES_MAX {
        let key = key_of(whole, life);
        let (found, _, _) = recover(&files);
        let is_settled = |sequence: &&u64| found.states.state(**sequence) != Some(State::Waiting);
        settled.extend(pushed.keys().filter(is_settled));
        let segment_size = 100 + 8 * input.byte() as u64;
        let settings = SpoolSettings {
            segment_size,
            bytes_max: 64 * segment_size,
            messages_max: 1000,
            batch_size_max: 16 + 2 * input.byte(),
            memory_max: 0,
            sync: SyncPolicy::Never,
        };
        let mut log = Log::new(settings, BOOT, key, found);
        for _ in 0..input.byte() % 64 {
            act(&mut log, &mut files, &mut pushed, &mut input, key);
        }
        commit(&mut log, &mut files);
        settled.extend(pushed.keys().filter(|&&one| log.state(one) != Some(State::Waiting)));
        damage(&mut files, &pushed, &settled, &mut input, life > 0, old_count);
        if input.0.is_empty() {
            return;
        }
    }
});

/// A comparison that the fuzzer sees through would tell it a key, so each input has others; and none follows from that of
/// another life, or a payload could know it.
fn key_of(input: &[u8], life: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (input, life).hash(&mut hasher);
    hasher.finish()
}

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

fn act(log: &mut Log, files: &mut Files, pushed: &mut Pushed, input: &mut Input<'_>, key: u64) {
    match input.byte() % 8 {
        0..=3 => {
            let message = payload(log.next_sequence(), input, key);
            if let Ok(sequence) = log.push(1, |out| out.extend_from_slice(&message)) {
                pushed.entry(sequence).or_default().push(message);
            }
        }
        4 => {
            let sequence = log.floor() + (input.byte() % 8) as u64;
            let mark = if input.byte() % 3 == 0 { Mark::Received } else { Mark::Done };
            log.mark(sequence, mark);
        }
        5 => {
            let from = log.floor() + (input.byte() % 4) as u64;
            let size = 8 * input.byte();
            // Now and then the one behind the first is in flight.
            let in_flight = [from + 1];
            log.make_room(from, &in_flight[..size / 8 % 2], size);
        }
        _ => commit(log, files),
    }
}

/// Records of a key that is nearly the right one, of version 1, cut off, one in another, or bytes as they are.
fn payload(next_sequence: u64, input: &mut Input<'_>, key: u64) -> Vec<u8> {
    let shape = input.byte();
    let sequence = (next_sequence + (shape >> 4) as u64).wrapping_sub(4);
    let size = input.byte() % 64;
    let bytes = input.take(size);
    // A bit of each half, as each check has one.
    let other_key = key ^ 0x1_0000_0001 << (shape % 32);
    let mut image = input.take(shape % 3).to_vec();
    match shape % 4 {
        0 => image.extend_from_slice(bytes),
        1 | 2 => {
            let start = format::open_message(&mut image, sequence, 1);
            if shape % 4 == 2 {
                let inner = format::open_message(&mut image, sequence.wrapping_add(1), 1);
                format::close_message(&mut image, inner, other_key.rotate_left(7));
            }
            image.extend_from_slice(bytes);
            format::close_message(&mut image, start, other_key);
        }
        _ => add_version_1(&mut image, sequence, bytes),
    }
    image
}

/// Segments of a program that wrote version 1.
fn leave_version_1(count: u64, files: &mut Files, pushed: &mut Pushed, input: &mut Input<'_>) {
    let mut sequence = 1;
    for segment in 1..=count {
        let (floor, spans, format) = (1, Vec::new(), Format::V1);
        let head = Head { segment, first_sequence: sequence, floor, boot: BOOT, format, spans };
        let mut bytes = head.encode();
        for _ in 0..input.byte() % 8 {
            let message = payload(sequence, input, 0);
            add_version_1(&mut bytes, sequence, &message);
            pushed.entry(sequence).or_default().push(message);
            sequence += 1;
        }
        files.insert(segment, bytes);
    }
}

fn add_version_1(out: &mut Vec<u8>, sequence: u64, bytes: &[u8]) {
    let mut covered = (16 + bytes.len() as u32).to_le_bytes().to_vec();
    covered.push(1);
    covered.extend_from_slice(&sequence.to_le_bytes());
    covered.extend_from_slice(&[0; 8]);
    covered.extend_from_slice(bytes);
    out.extend_from_slice(&crc32(&covered).to_le_bytes());
    out.extend_from_slice(&covered);
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
            Step::Sync { .. } => {}
            Step::Truncate { segment, size } => {
                files.get_mut(segment).expect("it was created").truncate(*size as usize);
            }
            Step::Delete { segment } => drop(files.remove(segment)),
        }
        log.step_done(&step);
    }
}

/// Some bytes of a file go wrong, or its end, or all of it.
fn damage(
    files: &mut Files,
    pushed: &Pushed,
    settled: &BTreeSet<u64>,
    input: &mut Input<'_>,
    is_damaged: bool,
    old_count: u64,
) {
    let (whole, before, cuts) = recover(files);
    check(&whole, &before, pushed);
    assert!(is_damaged || cuts.is_empty(), "nothing is damaged yet: {cuts:?}");
    let waiting = waiting(&whole, &before);
    let tells = |(&segment, bytes): (&u64, &Vec<u8>)| {
        segment > old_count && matches!(Head::decode(bytes), Decoded::Whole { .. })
    };
    for round in 0..1 + input.byte() % 3 {
        let Some(&segment) = files.keys().nth(input.byte() % files.len().max(1)) else { return };
        let file = files.get_mut(&segment).expect("it is there");
        let at = input.number() % file.len().max(1);
        let end = (at + 1 + input.byte()).min(file.len());
        match input.byte() % 6 {
            0..=2 if at < end => file[at] ^= 1 << (input.byte() % 8),
            3 => file[at..end].fill(0),
            // That a file, or its end, is missing is known from the head of the file behind it, if that is whole and
            // not of version 1.
            4 | 5 if round == 0 && files.range(segment + 1..).next().is_some_and(tells) => {
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
    let lost = waiting.difference(&left).filter(|&one| !settled.contains(one)).count() as u64;
    let told: u64 = cuts.iter().map(|cut| cut.messages_lost).sum();
    assert!(lost <= told, "{lost} lost: {cuts:?}");
}

fn waiting(found: &Found, messages: &BTreeMap<u64, Vec<u8>>) -> BTreeSet<u64> {
    let is_waiting = |sequence: &&u64| found.states.state(**sequence) == Some(State::Waiting);
    messages.keys().filter(is_waiting).copied().collect()
}

/// Nobody gets what was not published.
fn check(found: &Found, messages: &BTreeMap<u64, Vec<u8>>, pushed: &Pushed) {
    for sequence in waiting(found, messages) {
        let known = pushed.get(&sequence).is_some_and(|all| all.contains(&messages[&sequence]));
        assert!(known, "{sequence} was not published so: {:?}", messages[&sequence]);
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
