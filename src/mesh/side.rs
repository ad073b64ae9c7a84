//! `Side`: the lanes between the shards and an executor or a thread beside them.
//!
//! ```text
//!            Sender<To> ------ lane, bounded in items and bytes -----> Receiver<To>
//!  ShardEnd                                                                         SideEnd, one for each shard
//!            Receiver<From> <----- lane, bounded in the same way ----- Sender<From>
//!      ^                                                                               |
//!      +---- door: rings for a shard that sleeps       summons: wakes the side's task -+
//! ```
//! Nothing here waits: a sender looks for room first. A shard wakes the side once a turn (`wake`); the side rings for a
//! shard at each item. A side's task awaits `Side::poll_arrival`, which a thread may do under `block_on`.
//!
//! An end outlives the other end. What is sent to an end that is gone is dropped, so that a full lane to nobody holds
//! nobody up. A shard learns of the end of its side by `ShardEnd::hear_end`; its
//! door rings for the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use rtrb::{Consumer, Producer, RingBuffer};

use super::summons::Summons;
use super::{Door, Weighed};
use crate::shard::ShardId;

/// What one lane holds at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub items: usize,
    /// A lane has room while it holds less than these bytes.
    pub bytes_max: usize,
}

/// A shard's end: items `To` the side leave, items `From` the side arrive.
pub(crate) struct ShardEnd<To, From> {
    to: Sender<To>,
    from: Receiver<From>,
    summons: Arc<Summons>,
    /// Something was sent since the side was last woken.
    written: bool,
    /// The shard has heard that its side has ended.
    knows_end: bool,
}

/// The side's end of one shard's lanes.
pub(crate) struct SideEnd<To, From> {
    from: Receiver<To>,
    to: Sender<From>,
    // Behind the lanes: the fields are dropped in their order, and the bell tells of the end of the lanes.
    bell: Bell,
}

/// The side's ends of the lanes of all shards, in the order of the shards.
pub(crate) struct Side<To, From> {
    pub ends: Vec<SideEnd<To, From>>,
    summons: Arc<Summons>,
}

/// Lanes for each of the shards whose doors these are.
pub(crate) fn connect<To: Weighed, From: Weighed>(
    doors: &Arc<[Door]>,
    bounds: Bounds,
) -> (Vec<ShardEnd<To, From>>, Side<To, From>) {
    let summons = Arc::new(Summons::new());
    let shards = 0..doors.len() as ShardId;
    let (shard_ends, ends) = shards.map(|shard| join(doors, shard, &summons, bounds)).unzip();
    (shard_ends, Side { ends, summons })
}

/// Lanes for one shard with a side that sends and awaits nothing.
pub(crate) fn pair<To: Weighed, From: Weighed>(
    doors: &Arc<[Door]>,
    shard: ShardId,
    bounds: Bounds,
) -> (ShardEnd<To, From>, SideEnd<To, From>) {
    join(doors, shard, &Arc::new(Summons::new()), bounds)
}

fn join<To: Weighed, From: Weighed>(
    doors: &Arc<[Door]>,
    shard: ShardId,
    summons: &Arc<Summons>,
    bounds: Bounds,
) -> (ShardEnd<To, From>, SideEnd<To, From>) {
    let (to, to_out) = lane(bounds);
    let (from_in, from) = lane(bounds);
    let bell = Bell { doors: doors.clone(), shard };
    let summons = summons.clone();
    let shard_end = ShardEnd { to, from, summons, written: false, knows_end: false };
    (shard_end, SideEnd { from: to_out, to: from_in, bell })
}

impl<To: Weighed, From: Weighed> ShardEnd<To, From> {
    /// Always so when the side has ended.
    pub(crate) fn has_room(&self) -> bool {
        self.to.has_room()
    }

    /// The lane has room.
    pub(crate) fn send(&mut self, item: To) {
        self.to.send(item);
        self.written = true;
    }

    /// Wakes the side if something was sent since the last call.
    pub(crate) fn wake(&mut self) {
        if std::mem::take(&mut self.written) {
            self.summons.call();
        }
    }

    /// Items that have arrived.
    pub(crate) fn count(&self) -> usize {
        self.from.lane.slots()
    }

    /// The first of the items that have arrived.
    pub(crate) fn take(&mut self) -> Option<From> {
        self.from.take()
    }

    /// The side has ended, and the shard has not heard of it. A shard that sleeps is woken for it.
    pub(crate) fn has_ended(&self) -> bool {
        !self.knows_end && self.to.lane.is_abandoned()
    }

    /// Whether the shard hears now, and only now, that the side has ended: what is sent from then on is dropped.
    pub(crate) fn hear_end(&mut self) -> bool {
        let has_ended = self.has_ended();
        self.knows_end |= has_ended;
        has_ended
    }
}

impl<To: Weighed, From: Weighed> SideEnd<To, From> {
    pub(crate) fn shard(&self) -> ShardId {
        self.bell.shard
    }

    /// Always so when the shard has ended.
    pub(crate) fn has_room(&self) -> bool {
        self.to.has_room()
    }

    /// The lane has room.
    pub(crate) fn send(&mut self, item: From) {
        self.to.send(item);
        self.bell.ring();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.from.lane.is_empty()
    }

    /// Takes the items that have arrived by now. `true`: there were some.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(To)) -> bool {
        let count = self.from.lane.slots();
        for _ in 0..count {
            take(self.from.take().expect("so many have arrived"));
        }
        count > 0
    }
}

impl<To: Weighed, From: Weighed> Side<To, From> {
    /// Ready when a lane holds something. Else the task is woken when one does; the side has one task that awaits this.
    pub(crate) fn poll_arrival(&self, context: &mut Context<'_>) -> Poll<()> {
        self.summons.poll(context, || self.has_mail())
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.ends.iter().any(|end| !end.is_empty())
    }
}

/// The sender's end of a lane.
struct Sender<T> {
    lane: Producer<T>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

struct Receiver<T> {
    lane: Consumer<T>,
    bytes: Arc<AtomicUsize>,
}

fn lane<T: Weighed>(bounds: Bounds) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = RingBuffer::new(bounds.items);
    let bytes: Arc<AtomicUsize> = Arc::default();
    (
        Sender { lane: sender, bytes: bytes.clone(), bytes_max: bounds.bytes_max },
        Receiver { lane: receiver, bytes },
    )
}

impl<T: Weighed> Sender<T> {
    fn has_room(&self) -> bool {
        let is_light = || self.bytes.load(Ordering::Relaxed) < self.bytes_max;
        !self.lane.is_full() && is_light() || self.lane.is_abandoned()
    }

    fn send(&mut self, item: T) {
        self.bytes.fetch_add(item.size(), Ordering::Relaxed);
        if self.lane.push(item).is_err() {
            assert!(self.lane.is_abandoned(), "the sender has looked for room");
        }
    }
}

impl<T: Weighed> Receiver<T> {
    fn take(&mut self) -> Option<T> {
        let item = self.lane.pop().ok()?;
        self.bytes.fetch_sub(item.size(), Ordering::Relaxed);
        Some(item)
    }
}

/// Rings at a shard's door, and once more when it is dropped.
struct Bell {
    doors: Arc<[Door]>,
    shard: ShardId,
}

impl Bell {
    fn ring(&self) {
        let door = &self.doors[usize::from(self.shard)];
        if door.asleep.must_ring() {
            door.bell.ring();
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{self, Port};
    use crate::net::Network;
    use crate::net::epoll::Epoll;
    use crate::time::Instant;
    use futures_lite::future::{block_on, poll_fn};
    use std::thread;
    use std::time::Duration;

    /// A lost wake-up is one that does not come within this.
    const LOST_AFTER: Duration = Duration::from_secs(10);
    /// Items weigh four bytes.
    const WIDE: Bounds = Bounds { items: 8, bytes_max: 1 << 10 };

    fn side(bounds: Bounds) -> (Port<u32>, ShardEnd<u32, u32>, Side<u32, u32>) {
        let mut ports = mesh::connect::<u32>(1, 1 << 10).unwrap();
        let (mut shard_ends, side) = connect(&ports[0].doors(), bounds);
        (ports.remove(0), shard_ends.remove(0), side)
    }

    #[test]
    fn a_lane_has_room_for_so_many_items_and_bytes_and_keeps_their_order() {
        for (items, bytes_max, expected) in [(3, 1 << 10, 3), (8, 9, 3), (8, 8, 2)] {
            let (_port, mut shard_end, mut side) = side(Bounds { items, bytes_max });
            let end = &mut side.ends[0];
            // Twice: what was received has made room.
            for _ in 0..2 {
                let mut sent = 0;
                while shard_end.has_room() && end.has_room() {
                    shard_end.send(sent);
                    end.send(sent);
                    sent += 1;
                }
                assert_eq!(sent, expected, "{items} items, {bytes_max} bytes");
                assert!(!shard_end.has_room() && !end.has_room());
                let mut received = Vec::new();
                assert!(end.receive(|item| received.push(item)));
                assert_eq!(received, (0..sent).collect::<Vec<_>>());
                let received: Vec<_> = std::iter::from_fn(|| shard_end.take()).collect();
                assert_eq!(received, (0..sent).collect::<Vec<_>>());
                assert!(end.is_empty() && shard_end.count() == 0);
            }
        }
    }

    /// A shard that sleeps until its door rings.
    fn sleep_until(port: &Port<u32>, net: &mut Epoll, is_there: impl Fn() -> bool) {
        while !is_there() {
            // As `Port::fall_asleep`, which does not know of this side.
            let asleep = &port.doors[0].asleep;
            asleep.announce();
            if !is_there() {
                let began = std::time::Instant::now();
                net.wait(Instant::ZERO, LOST_AFTER);
                assert!(began.elapsed() < LOST_AFTER, "a wake-up of the shard is lost");
            }
            asleep.retract();
        }
    }

    /// A thread beside the shard, which sleeps until it is woken.
    fn answer(mut side: Side<u32, u32>, rounds: u32) {
        let mut seen = 0;
        while seen < rounds {
            block_on(poll_fn(|context| side.poll_arrival(context)));
            let end = &mut side.ends[0];
            let mut received = Vec::new();
            assert!(end.receive(|item| received.push(item)), "it was woken for nothing");
            for item in received {
                assert_eq!(item, seen);
                assert!(end.has_room());
                end.send(item);
                seen += 1;
            }
        }
    }

    #[test]
    fn a_shard_and_a_thread_that_sleep_whenever_they_can_lose_no_item() {
        const ROUNDS: u32 = 5_000;
        let (port, mut shard_end, side) = side(WIDE);
        let beside = thread::spawn(move || answer(side, ROUNDS));
        let mut net = Epoll::new(64).unwrap();
        net.watch(port.bell());
        let mut next = 0;
        for round in 0..ROUNDS {
            assert!(shard_end.has_room());
            shard_end.send(round);
            // Now and then two at once; each lane has room for all that are on their way.
            if round % 3 != 0 || round - next >= 4 {
                shard_end.wake();
                sleep_until(&port, &mut net, || shard_end.count() > 0);
            }
            while let Some(item) = shard_end.take() {
                assert_eq!(item, next);
                next += 1;
            }
        }
        shard_end.wake();
        while next < ROUNDS {
            sleep_until(&port, &mut net, || shard_end.count() > 0);
            next += std::iter::from_fn(|| shard_end.take()).count() as u32;
        }
        beside.join().unwrap();
    }

    #[test]
    fn the_end_of_a_side_wakes_its_shard_and_holds_nobody_up() {
        for _ in 0..200 {
            let (port, mut shard_end, side) = side(Bounds { items: 1, bytes_max: 4 });
            let mut net = Epoll::new(64).unwrap();
            net.watch(port.bell());
            shard_end.send(1);
            assert!(!shard_end.has_room() && !shard_end.has_ended());
            let beside = thread::spawn(move || {
                let mut side = side;
                side.ends[0].send(7);
            });
            sleep_until(&port, &mut net, || shard_end.has_ended());
            assert_eq!(shard_end.take(), Some(7), "what it had sent arrives");
            assert!(shard_end.hear_end() && !shard_end.hear_end(), "it is heard once");
            assert!(!shard_end.has_ended(), "a shard may sleep again");
            for item in 0..3 {
                assert!(shard_end.has_room());
                shard_end.send(item);
                shard_end.wake();
            }
            beside.join().unwrap();
        }
    }

    #[test]
    fn the_end_of_a_shard_holds_its_side_up_no_more() {
        let (_port, shard_end, mut side) = side(Bounds { items: 1, bytes_max: 4 });
        let end = &mut side.ends[0];
        end.send(1);
        assert!(!end.has_room());
        drop(shard_end);
        assert!(end.has_room());
        end.send(2);
    }
}
