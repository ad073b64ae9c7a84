//! One connection, and what is on its way to it.

use ringmq::arena::Stored;
use ringmq::codec::ProtocolVersion;
use ringmq::net::SocketKey;
use ringmq::shard::{Output, Part};

use super::acks::Ids;
use super::route::Route;

/// Empty outputs that are kept for the next ones: the last that came back is the first to be used, for it is in the cache.
const SPARE_COUNT_MAX: usize = 1024;
/// An output that holds more is freed.
const SPARE_SIZE_MAX: usize = 1 << 20;

pub(super) struct Link {
    pub socket: SocketKey,
    pub version: ProtocolVersion,
    /// What it has subscribed to, and the QoS that was granted.
    pub filters: Vec<(String, u8)>,
    /// Where what it publishes goes.
    pub route: Route,
    /// The part of a packet that has arrived.
    pub tail: Vec<u8>,
    pub output: Outgoing,
    /// It stands in the list of those that get a send in this turn.
    pub is_filled: bool,
    /// It is not read: one of its subscribers is behind.
    pub is_paused: bool,
    /// Links that are not read until this one has taken more.
    pub waiting: Vec<usize>,
    /// Of the messages at QoS 1 and 2 that go to it.
    pub ids: Ids,
}

/// Publishers of a link that has as much to take are not read: as the broker has it by default.
const ROOM_SIZE: usize = 512 << 10;

impl Link {
    /// Its publishers are to wait.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        self.output.size() >= ROOM_SIZE || self.ids.are_scarce()
    }

    pub(super) fn new(socket: SocketKey) -> Link {
        Link {
            socket,
            version: ProtocolVersion::V311,
            filters: Vec::new(),
            route: Route::default(),
            tail: Vec::new(),
            output: Outgoing::default(),
            is_filled: false,
            is_paused: false,
            waiting: Vec::new(),
            ids: Ids::default(),
        }
    }
}

/// What is on its way to one link: one output fills while another is in flight.
#[derive(Default)]
pub(super) struct Outgoing {
    filling: Output,
    /// Of the parts that leave by reference.
    part_size: usize,
    /// 0: nothing is in flight.
    in_flight_size: usize,
}

impl Outgoing {
    /// Where bytes are appended.
    #[inline]
    pub(super) fn bytes(&mut self, spare: &mut Spare) -> &mut Vec<u8> {
        if self.filling.bytes.capacity() == 0 {
            // An output that has parts alone keeps them.
            let parts = std::mem::take(&mut self.filling.parts);
            self.filling = spare.take();
            if !parts.is_empty() {
                self.filling.parts = parts;
            }
        }
        &mut self.filling.bytes
    }

    /// Appends the payload of `stored` by reference.
    pub(super) fn refer(&mut self, stored: &Stored, spare: &mut Spare) {
        let at = self.bytes(spare).len();
        self.filling.parts.push(Part { at, stored: stored.clone() });
        self.part_size += stored.message().payload.len();
    }

    /// Bytes that wait and that are in flight.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.filling_size() + self.in_flight_size
    }

    fn filling_size(&self) -> usize {
        self.filling.bytes.len() + self.part_size
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight_size > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filling_size() == 0
    }

    /// The next output to send, unless one is in flight or there is none.
    pub(super) fn take(&mut self) -> Option<Output> {
        if self.is_in_flight() || self.is_empty() {
            return None;
        }
        self.in_flight_size = self.filling_size();
        self.part_size = 0;
        Some(std::mem::take(&mut self.filling))
    }

    /// What was in flight has been sent.
    pub(super) fn sent(&mut self) {
        self.in_flight_size = 0;
    }
}

#[derive(Default)]
pub(super) struct Spare(Vec<Output>);

impl Spare {
    fn take(&mut self) -> Output {
        self.0.pop().unwrap_or_default()
    }

    pub(super) fn give(&mut self, mut output: Output) {
        output.parts.clear();
        output.bytes.clear();
        let is_kept = (1..=SPARE_SIZE_MAX).contains(&output.bytes.capacity());
        if is_kept && self.0.len() < SPARE_COUNT_MAX {
            self.0.push(output);
        }
    }
}
