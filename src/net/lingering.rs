//! Sockets of closed connections: they are read, and what they bring is thrown away, until their clients close, too.
//!
//! A socket that is closed with bytes unread, or that gets more bytes after it is closed, is reset. Then the client may
//! find its connection broken before it reads why it was closed. So a connection that the broker ends stops sending and
//! lingers: for `linger_ms` or 1 MiB, at most `lingering_max` of them on a shard; each counts as a connection. When the
//! process ends, a socket lingers until its peer has confirmed what was sent. Nothing may follow a DISCONNECT, so the
//! socket of a client that said DISCONNECT is closed at once.

use std::collections::{HashMap, VecDeque};

use super::SocketKey;
use crate::limits::LINGER_BYTES_MAX;
use crate::time::Instant;

/// Places in the order for each socket that lingers: those of sockets that are gone go when there are more.
const PLACES_PER_SOCKET: usize = 4;
const PLACES_MIN: usize = 64;

pub struct Lingering {
    linger_ms: u64,
    max: usize,
    /// The lingering sockets by the network's key.
    sockets: HashMap<u64, Socket>,
    /// The sockets, the oldest first, and the end of each one's time. All sockets linger for the same time.
    order: VecDeque<(u64, Instant)>,
    /// The sockets that have brought too many bytes.
    over: Vec<SocketKey>,
    /// Sockets whose time was cut short for others.
    pub cut_count: u64,
}

struct Socket {
    key: SocketKey,
    /// Bytes that the socket may still bring.
    left: usize,
}

impl Lingering {
    pub fn new((linger_ms, max): (u64, usize)) -> Lingering {
        Lingering {
            linger_ms,
            max,
            sockets: HashMap::default(),
            order: VecDeque::new(),
            over: Vec::new(),
            cut_count: 0,
        }
    }

    /// Whether a socket may linger at all.
    pub fn is_allowed(&self) -> bool {
        self.linger_ms > 0 && self.max > 0
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty() && self.over.is_empty()
    }

    pub fn insert(&mut self, owner: u64, key: SocketKey, now: Instant) {
        if self.sockets.len() >= self.max {
            let oldest = self.cut();
            self.over.extend(oldest);
        }
        if self.order.len() >= PLACES_MIN.max(PLACES_PER_SOCKET * self.sockets.len()) {
            self.order.retain(|(owner, _)| self.sockets.contains_key(owner));
        }
        self.sockets.insert(owner, Socket { key, left: LINGER_BYTES_MAX });
        self.order.push_back((owner, now.plus_ms(self.linger_ms)));
    }

    /// A socket has brought bytes; if it lingers, they are counted.
    pub fn received(&mut self, owner: u64, size: usize) {
        let Some(socket) = self.sockets.get_mut(&owner) else { return };
        socket.left = socket.left.saturating_sub(size);
        if socket.left == 0
            && let Some(key) = self.remove(owner)
        {
            self.over.push(key);
        }
    }

    /// A client has closed, too.
    pub fn remove(&mut self, owner: u64) -> Option<SocketKey> {
        self.sockets.remove(&owner).map(|socket| socket.key)
    }

    /// The next socket to close: the socket has brought too many bytes, or its time has passed.
    pub fn poll(&mut self, now: Instant) -> Option<SocketKey> {
        if let Some(key) = self.over.pop() {
            return Some(key);
        }
        while let Some(&(_, until)) = self.order.front() {
            if until > now {
                return None;
            }
            let gone = self.order.pop_front();
            if let Some(key) = gone.and_then(|(owner, _)| self.remove(owner)) {
                return Some(key);
            }
        }
        None
    }

    /// When `poll` is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.over.is_empty() {
            true if self.sockets.is_empty() => None,
            true => self.order.front().map(|(_, until)| *until),
            false => Some(Instant::ZERO),
        }
    }

    /// All may linger from here on, whatever they bring.
    pub fn lift_max(&mut self) {
        self.max = usize::MAX;
    }

    /// Looks at so many sockets, each at most once; `is_done` says which need not linger any more.
    pub fn look(
        &mut self,
        now: Instant,
        count_max: usize,
        mut is_done: impl FnMut(SocketKey) -> bool,
    ) {
        for _ in 0..self.order.len().min(count_max) {
            let Some((owner, until)) = self.order.pop_front() else { return };
            let Some(socket) = self.sockets.get(&owner) else { continue };
            if until <= now || is_done(socket.key) {
                let done = self.remove(owner);
                self.over.extend(done);
            } else {
                self.order.push_back((owner, until));
            }
        }
    }

    /// Takes the oldest socket, as its place is needed.
    pub fn cut(&mut self) -> Option<SocketKey> {
        let key = self.pop_oldest()?;
        self.cut_count += 1;
        Some(key)
    }

    fn pop_oldest(&mut self) -> Option<SocketKey> {
        while let Some((owner, _)) = self.order.pop_front() {
            if let Some(key) = self.remove(owner) {
                return Some(key);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> SocketKey {
        SocketKey { index, generation: 1 }
    }

    #[test]
    fn a_socket_lingers_until_its_end_its_time_or_too_many_bytes() {
        let mut lingering = Lingering::new((100, 10));
        for owner in 1..=4 {
            lingering.insert(owner, key(owner as u32), Instant(owner));
        }
        assert_eq!(lingering.remove(2), Some(key(2)));
        assert_eq!(lingering.remove(2), None);
        lingering.received(3, LINGER_BYTES_MAX - 1);
        lingering.received(7, LINGER_BYTES_MAX);
        assert_eq!((lingering.poll(Instant(50)), lingering.deadline()), (None, Some(Instant(101))));
        lingering.received(3, 1);
        assert_eq!(lingering.deadline(), Some(Instant::ZERO));
        assert_eq!(lingering.poll(Instant(50)), Some(key(3)));
        assert_eq!(lingering.poll(Instant(102)), Some(key(1)));
        assert_eq!(lingering.poll(Instant(103)), None);
        assert_eq!(lingering.poll(Instant(104)), Some(key(4)));
        assert!(lingering.is_empty() && lingering.deadline().is_none());
        assert_eq!(lingering.cut_count, 0);
    }

    #[test]
    fn the_oldest_makes_room_and_places_of_those_that_are_gone_do_not_pile_up() {
        let mut lingering = Lingering::new((1_000, 3));
        for owner in 0..10_000 {
            lingering.insert(owner, key(owner as u32), Instant(0));
            lingering.remove(owner);
            assert!(lingering.order.len() <= PLACES_MIN + 1);
        }
        for owner in 0..10 {
            lingering.insert(owner, key(owner as u32), Instant(0));
        }
        assert_eq!((lingering.cut_count, lingering.sockets.len()), (7, 3));
        assert_eq!(std::iter::from_fn(|| lingering.poll(Instant(0))).count(), 7);
        lingering.look(Instant(0), 2, |socket| socket == key(8));
        assert_eq!(lingering.poll(Instant(0)), Some(key(8)));
        assert_eq!(lingering.poll(Instant(0)), None);
    }
}
