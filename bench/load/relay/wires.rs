//! The relay without its network: links, and how packets go from one to others.

use ringmq::arena::{Gauge, Stored};
use ringmq::codec::frame_size;
use ringmq::net::SocketKey;
use ringmq::shard::Output;
use slab::Slab;

use super::acks::{self, PUBACK, PUBCOMP, PUBREC, PUBREL};
use super::link::{Link, Spare};
use super::routes;
use crate::engine::wire::body_range;

/// What waits for one client that does not read, above what holds publishers back.
const WAITING_SIZE_MAX: usize = 256 << 20;

/// From this size on, what has several receivers leaves by reference, as from the broker.
const SHARED_SIZE_MIN: usize = 2 << 10;

const PUBLISH: u8 = 3;
const DISCONNECT: u8 = 14;

#[derive(Default)]
pub(super) struct Wires {
    pub links: Slab<Link>,
    /// How often the links or what they subscribe to have changed: a route that is older is looked for anew.
    pub subscriptions: u32,
    /// Links that got bytes in this turn.
    pub filled: Vec<usize>,
    /// Links that are to be read from now on, or no longer.
    pub changed: Vec<usize>,
    pub spare: Spare,
    /// Where the ids stand of the publishes that are passed on.
    places: Vec<usize>,
    gauge: Gauge,
}

impl Wires {
    /// Passes on what has arrived on a link. `false`: the client leaves.
    pub(super) fn receive(&mut self, from: usize, mut bytes: &[u8]) -> Result<bool, String> {
        if !self.links[from].tail.is_empty() {
            let mut tail = std::mem::take(&mut self.links[from].tail);
            let stays = match complete(&mut tail, &mut bytes)? {
                false => {
                    self.links[from].tail = tail;
                    return Ok(true);
                }
                true => self.take(from, &tail)?.is_some(),
            };
            tail.clear();
            self.links[from].tail = tail;
            if !stays {
                return Ok(false);
            }
        }
        let Some(used) = self.take(from, bytes)? else { return Ok(false) };
        if used < bytes.len() {
            self.links[from].tail.extend_from_slice(&bytes[used..]);
        }
        Ok(true)
    }

    /// All of an output has left.
    pub(super) fn sent(&mut self, to: usize, output: Output) {
        let link = &mut self.links[to];
        link.output.sent();
        if !link.output.is_empty() && !std::mem::replace(&mut link.is_filled, true) {
            self.filled.push(to);
        }
        self.resume_publishers(to);
        self.spare.give(output);
    }

    /// Forgets a link. Routes that name it end with it.
    pub(super) fn remove(&mut self, index: usize) -> Option<SocketKey> {
        let link = self.links.try_remove(index)?;
        self.subscriptions += 1;
        self.filled.retain(|filled| *filled != index);
        self.resume(link.waiting);
        Some(link.socket)
    }

    /// Lets the publishers of a link go on that is not behind any more.
    #[inline]
    fn resume_publishers(&mut self, to: usize) {
        let link = &mut self.links[to];
        if !link.waiting.is_empty() && !link.is_behind() {
            let waiting = std::mem::take(&mut link.waiting);
            self.resume(waiting);
        }
    }

    fn resume(&mut self, waiting: Vec<usize>) {
        for index in waiting {
            if let Some(link) = self.links.get_mut(index) {
                link.is_paused = false;
                self.changed.push(index);
            }
        }
    }

    /// Passes whole packets on. Returns how many bytes they were; `None`: the client leaves.
    fn take(&mut self, from: usize, bytes: &[u8]) -> Result<Option<usize>, String> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let used = match rest[0] >> 4 {
                PUBLISH => self.publish(from, rest)?,
                _ if matches!(rest[0], PUBACK | PUBREC | PUBREL | PUBCOMP) => {
                    self.acks(from, rest)?
                }
                kind => match range(rest)? {
                    Some(_) if kind == DISCONNECT => return Ok(None),
                    Some((_, size)) => {
                        let link = &mut self.links[from];
                        let answer = routes::answer(link, &mut self.subscriptions, &rest[..size])?;
                        self.append(from, &answer)?;
                        size
                    }
                    None => 0,
                },
            };
            if used == 0 {
                break;
            }
            at += used;
        }
        Ok(Some(at))
    }

    /// Passes the publishes on that stand first in `bytes` and have the same QoS, all in one piece.
    fn publish(&mut self, from: usize, bytes: &[u8]) -> Result<usize, String> {
        let qos = bytes[0] >> 1 & 3;
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        let size = match qos {
            0 => walk::<false>(bytes, &mut places)?,
            _ => walk::<true>(bytes, &mut places)?,
        };
        if size > 0 {
            self.pass(from, &bytes[..size], &places)?;
            if qos > 0 {
                let first = if qos == 1 { PUBACK } else { PUBREC };
                let out = self.links[from].output.bytes(&mut self.spare);
                acks::acknowledge(out, first, bytes, &places);
                self.note_filled(from)?;
            }
        }
        self.places = places;
        Ok(size)
    }

    /// Appends publishes to the output of everyone they go to. Their ids stand at `places`.
    fn pass(&mut self, from: usize, packets: &[u8], places: &[usize]) -> Result<(), String> {
        if !self.links[from].route.is_of(self.subscriptions, packets[0]) {
            routes::find(&mut self.links, self.subscriptions, from, packets)?;
        }
        let takers = self.links[from].route.takers.clone();
        if takers.len() > 1 && packets.len() >= SHARED_SIZE_MIN {
            if places.is_empty() {
                let shared = self.store(packets);
                for to in takers.iter() {
                    self.links[*to].output.refer(&shared, &mut self.spare);
                }
                return self.end_pass(from, &takers);
            }
            if packets.len() >= SHARED_SIZE_MIN * places.len() {
                self.share(&takers, packets, places)?;
                return self.end_pass(from, &takers);
            }
        }
        for to in takers.iter() {
            let link = &mut self.links[*to];
            let out = link.output.bytes(&mut self.spare);
            let begin = out.len();
            out.extend_from_slice(packets);
            if !places.is_empty() {
                let mut next_id = link.ids.give(places.len())?;
                let own = &mut out[begin..];
                for place in places {
                    own[*place..*place + 2].copy_from_slice(&next_id());
                }
            }
        }
        self.end_pass(from, &takers)
    }

    /// Large publishes with ids: what is in front of the id and the id are copied for each receiver.
    fn share(&mut self, takers: &[usize], packets: &[u8], places: &[usize]) -> Result<(), String> {
        let mut begin = 0;
        for place in places {
            let (_, size) = range(&packets[begin..])?.expect("it is whole");
            let shared = self.store(&packets[place + 2..begin + size]);
            for to in takers {
                let link = &mut self.links[*to];
                let id = link.ids.give(1)?();
                let out = link.output.bytes(&mut self.spare);
                out.extend_from_slice(&packets[begin..*place]);
                out.extend_from_slice(&id);
                link.output.refer(&shared, &mut self.spare);
            }
            begin += size;
        }
        Ok(())
    }

    fn store(&self, bytes: &[u8]) -> Stored {
        Stored::of_packets(bytes, &self.gauge)
    }

    /// The publisher is read no more where one of those that got something is behind.
    fn end_pass(&mut self, from: usize, takers: &[usize]) -> Result<(), String> {
        for to in takers {
            self.note_filled(*to)?;
            if self.links[*to].is_behind()
                && !std::mem::replace(&mut self.links[from].is_paused, true)
            {
                self.links[*to].waiting.push(from);
                self.changed.push(from);
            }
        }
        Ok(())
    }

    fn append(&mut self, to: usize, bytes: &[u8]) -> Result<(), String> {
        self.links[to].output.bytes(&mut self.spare).extend_from_slice(bytes);
        self.note_filled(to)
    }

    fn note_filled(&mut self, to: usize) -> Result<(), String> {
        let link = &mut self.links[to];
        if link.output.size() > WAITING_SIZE_MAX {
            return Err(format!("{WAITING_SIZE_MAX} bytes wait for a client that does not read"));
        }
        if !link.output.is_in_flight() && !std::mem::replace(&mut link.is_filled, true) {
            self.filled.push(to);
        }
        Ok(())
    }

    /// Takes acknowledgements that stand first in `bytes`, all of one kind, and goes on with what they ask for.
    fn acks(&mut self, from: usize, bytes: &[u8]) -> Result<usize, String> {
        let Some((body, size)) = range(bytes)? else { return Ok(0) };
        if size != acks::ACK_SIZE {
            return self.ack_with_reason(from, bytes[0], &bytes[body..size]).map(|()| size);
        }
        let link = &mut self.links[from];
        let used = match bytes[0] {
            // Of a publisher.
            PUBREL => acks::rows(bytes).count() * acks::ACK_SIZE,
            _ => {
                let used = link.ids.take(bytes)?;
                self.resume_publishers(from);
                used
            }
        };
        let answer = match bytes[0] {
            PUBREC => PUBREL,
            PUBREL => PUBCOMP,
            _ => return Ok(used),
        };
        acks::answer(self.links[from].output.bytes(&mut self.spare), answer, &bytes[..used]);
        self.note_filled(from)?;
        Ok(used)
    }

    /// An acknowledgement of 5.0 that says more: that all is well, and perhaps properties.
    fn ack_with_reason(&mut self, from: usize, first: u8, body: &[u8]) -> Result<(), String> {
        let [high, low, reason, ..] = *body else {
            return Err("a client has sent an acknowledgement without an id".to_string());
        };
        if reason >= 0x80 {
            return Err(format!("a client has refused a message: {reason:#04x}"));
        }
        self.acks(from, &[first, 2, high, low]).map(|_| ())
    }
}

/// Moves what a packet lacks from `bytes` to its first part; whether it is whole then.
fn complete(tail: &mut Vec<u8>, bytes: &mut &[u8]) -> Result<bool, String> {
    loop {
        let size = frame_size(tail).map_err(|error| format!("a client sent no packet: {error}"))?;
        let missing = size.map_or(1, |size| size - tail.len());
        if missing == 0 {
            return Ok(true);
        }
        let Some((moved, rest)) = bytes.split_at_checked(missing.min(bytes.len())) else {
            return Ok(false);
        };
        if moved.is_empty() {
            return Ok(false);
        }
        tail.extend_from_slice(moved);
        *bytes = rest;
    }
}

/// Where the first packet of `bytes` has its body, and where it ends; `None` while it is incomplete.
#[inline(always)]
fn range(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    body_range(bytes).map_err(|_| "a client sent a packet whose size is malformed".to_string())
}

/// The size of the publishes at the beginning of `bytes` that have the first one's QoS and flags; where their ids stand.
#[inline]
fn walk<const HAS_ID: bool>(bytes: &[u8], places: &mut Vec<usize>) -> Result<usize, String> {
    let first = bytes[0];
    let mut end = 0;
    while bytes.get(end) == Some(&first)
        && let Some((body, size)) = range(&bytes[end..])?
    {
        if HAS_ID {
            let packet = &bytes[end..end + size];
            let topic_size = packet
                .get(body..body + 2)
                .map(|size| usize::from(u16::from_be_bytes([size[0], size[1]])));
            let place = topic_size.map(|size| body + 2 + size).filter(|place| place + 2 <= size);
            places.push(end + place.ok_or("a client sent a publish that has no packet id")?);
        }
        end += size;
    }
    Ok(end)
}
