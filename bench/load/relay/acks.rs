//! The exchanges of QoS 1 and 2: ids for each subscriber, in turn, and acknowledgements, answered at once.

pub(super) const PUBACK: u8 = 0x40;
pub(super) const PUBREC: u8 = 0x50;
pub(super) const PUBREL: u8 = 0x62;
pub(super) const PUBCOMP: u8 = 0x70;

/// An acknowledgement without reason code and properties. 5.0 has it as well.
pub(super) const ACK_SIZE: usize = 4;

/// Packet ids of what goes to one subscriber. They are given in turn, and a client acknowledges in the order in which it received
/// [MQTT-4.6.0-2] [MQTT-4.6.0-3], so those in flight are the last `in_flight` that were given, and counters suffice.
#[derive(Debug, PartialEq)]
pub(super) struct Ids {
    next: u16,
    /// The next that is received (QoS 2), and the next whose exchange ends.
    received: u16,
    ended: u16,
    in_flight: usize,
    /// What the client takes without having acknowledged it.
    pub in_flight_max: usize,
    /// Of all that goes to it above 0; 0: nothing did yet.
    pub qos: u8,
}

impl Default for Ids {
    fn default() -> Ids {
        let in_flight_max = usize::from(u16::MAX);
        Ids { next: 1, received: 1, ended: 1, in_flight: 0, in_flight_max, qos: 0 }
    }
}

/// 0 is no id.
#[inline(always)]
fn after(id: u16) -> u16 {
    if id == u16::MAX { 1 } else { id + 1 }
}

impl Ids {
    /// As many ids as one asks the returned function for, which must be `count` times.
    #[inline]
    pub(super) fn give(&mut self, count: usize) -> Result<impl FnMut() -> [u8; 2], String> {
        self.in_flight += count;
        if self.in_flight > self.in_flight_max {
            return Err(format!(
                "a subscriber would have {} messages unacknowledged, and takes {}: the relay has no queue; make the window smaller",
                self.in_flight, self.in_flight_max
            ));
        }
        Ok(|| {
            let id = self.next;
            self.next = after(id);
            id.to_be_bytes()
        })
    }

    /// A quarter of what the client takes is in flight: what a turn receives is less than the rest, unless it takes very little.
    #[inline]
    pub(super) fn are_scarce(&self) -> bool {
        self.in_flight > self.in_flight_max / 4
    }

    /// Takes acknowledgements of one kind, in a row. Returns how many bytes those were.
    #[inline]
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let first = bytes[0];
        let (mut expected, ends) = match (first, self.qos) {
            (PUBACK, 1) | (PUBCOMP, 2) => (self.ended, true),
            (PUBREC, 2) => (self.received, false),
            _ => return Err(unasked(first)),
        };
        let mut count = 0;
        for ack in rows(bytes) {
            if ack[2..] != expected.to_be_bytes() || count == self.in_flight {
                return Err(format!(
                    "a subscriber has sent acknowledgement {ack:02x?}, and {} of id {expected} was due",
                    if count < self.in_flight { "that" } else { "nothing, not even that" },
                ));
            }
            expected = after(expected);
            count += 1;
        }
        match ends {
            true => (self.ended, self.in_flight) = (expected, self.in_flight - count),
            false => self.received = expected,
        }
        Ok(count * ACK_SIZE)
    }
}

pub(super) fn unasked(first: u8) -> String {
    format!("a client has sent an acknowledgement of type {} for nothing", first >> 4)
}

/// The packets of four bytes at the beginning of `bytes` that are of the same kind as the first.
pub(super) fn rows(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let first = bytes[0];
    bytes.chunks_exact(ACK_SIZE).take_while(move |ack| ack[0] == first && ack[1] == 2)
}

/// Appends `first` with the id of each of the acknowledgements `acks`.
pub(super) fn answer(out: &mut Vec<u8>, first: u8, acks: &[u8]) {
    let at = out.len();
    out.extend_from_slice(acks);
    for ack in out[at..].chunks_exact_mut(ACK_SIZE) {
        ack[0] = first;
    }
}

/// Appends `first` with the ids that stand at `places` of `packets`.
pub(super) fn acknowledge(out: &mut Vec<u8>, first: u8, packets: &[u8], places: &[usize]) {
    let at = out.len();
    out.resize(at + places.len() * ACK_SIZE, 2);
    for (ack, place) in out[at..].chunks_exact_mut(ACK_SIZE).zip(places) {
        ack[0] = first;
        ack[2..].copy_from_slice(&packets[*place..*place + 2]);
    }
}
