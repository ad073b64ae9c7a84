//! What threads have in common: the lanes between shards, the sides, and the bells that wake sleepers, the gate, orders of a shutdown.
//!
//! Each ordered pair of shards has three bounded lanes with one producer and one consumer. Nothing else passes between
//! shards, and nothing here waits: a full lane is the sender's to look for first, an empty one says so.
//!
//! Lanes are bounded in items, and those of publishes and of members in bytes, too. A turn fills publishes, members,
//! then control, and takes control of all shards first: an ack or a question is never ahead of the messages before it.

mod asleep;
pub(crate) mod bridge_lanes;
pub(crate) mod gate;
#[cfg(test)]
#[allow(clippy::duplicate_mod)] // the point of it: the same source on other atomics
mod model;
pub(crate) mod shutdown;
pub(crate) mod side;
mod summons;

mod atomics {
    pub(super) use atomic_waker::AtomicWaker;
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
}

use std::sync::atomic::{AtomicUsize, Ordering};

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::mesh::gate::Entry;
use crate::net::EventFd;
use crate::plugin::Answer;
use crate::shard::{Lane, Mail, ShardId};
use crate::turn;
use asleep::Asleep;
pub(crate) use bridge_lanes::{BridgeEnd, BridgePort};
use side::ShardEnd;

/// Items of one lane: many where shards are few.
const LANE_ITEMS_MIN: usize = 32;
const LANE_ITEMS_MAX: usize = 256;
const LANE_ITEMS_PER_SHARD: usize = 1024;

/// A connection on its way to the shard of its session. Its descriptor has no operation in flight.
pub(crate) type Adoption = turn::Adoption<Admitted>;

/// A connection that the gate has let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub socket: OwnedFd,
    pub entry: Entry,
}

/// What the control lane carries.
#[derive(Debug)]
pub(crate) enum ControlItem<M> {
    Mail(M),
    Adopt(Box<Adoption>),
}

/// What a lane counts of its items.
pub(crate) trait Weighed {
    /// Bytes it holds, about.
    fn size(&self) -> usize;
}

impl Weighed for Answer {
    fn size(&self) -> usize {
        size_of::<Answer>()
    }
}

impl Weighed for Infallible {
    fn size(&self) -> usize {
        match *self {}
    }
}

impl Weighed for Mail {
    fn size(&self) -> usize {
        Mail::size(self)
    }
}

/// One shard's end of the mesh.
pub(crate) struct Port<M> {
    outward: Vec<Option<Outward<M>>>,
    inward: Vec<Option<Inward<M>>>,
    doors: Arc<[Door]>,
    own: ShardId,
    /// Lanes with the bridges, if there are any.
    bridges: Option<BridgePort>,
    /// Answers of plugins, if there are plugins, and how many of them `next_answer` still gives; `None`: a round begins.
    answers: Option<ShardEnd<Infallible, Answer>>,
    answers_left: Option<usize>,
    /// Whose lane `next` looks at, and how many of its items it still gives; `None`: to be asked.
    from: usize,
    left: Option<usize>,
}

struct Outward<M> {
    control: Producer<ControlItem<M>>,
    publish: Producer<M>,
    member: Producer<M>,
    /// Bytes in the publish and member lanes, and above how many there is no room.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    /// Something was written since the bells were last rung.
    written: bool,
}

struct Inward<M> {
    control: Consumer<ControlItem<M>>,
    publish: Consumer<M>,
    member: Consumer<M>,
    bytes: Arc<AtomicUsize>,
}

/// Where a shard is woken. Padded: its senders' looks must not disturb another's.
#[repr(align(128))]
pub(crate) struct Door {
    asleep: Asleep,
    bell: Arc<EventFd>,
}

impl Door {
    /// Wakes the shard whatever it does: for those who have no lane to it.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }
}

/// The ports of `shard_count` shards, in order. A pair's publish and member lanes have room while they hold less than
/// `bytes_max` bytes.
pub(crate) fn connect<M: Send + Weighed>(
    shard_count: u16,
    bytes_max: usize,
) -> io::Result<Vec<Port<M>>> {
    let count = shard_count as usize;
    let doors: io::Result<Vec<Door>> = (0..count)
        .map(|_| Ok(Door { asleep: Asleep::new(), bell: Arc::new(EventFd::new()?) }))
        .collect();
    let doors: Arc<[Door]> = doors?.into();
    let items = (LANE_ITEMS_PER_SHARD / count).clamp(LANE_ITEMS_MIN, LANE_ITEMS_MAX);
    let mut ports: Vec<Port<M>> = (0..shard_count)
        .map(|own| Port {
            outward: (0..count).map(|_| None).collect(),
            inward: (0..count).map(|_| None).collect(),
            doors: doors.clone(),
            own,
            bridges: None,
            answers: None,
            answers_left: None,
            from: 0,
            left: None,
        })
        .collect();
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            let (control, control_in) = RingBuffer::new(items);
            let (publish, publish_in) = RingBuffer::new(items);
            let (member, member_in) = RingBuffer::new(items);
            let bytes = Arc::new(AtomicUsize::new(0));
            ports[from].outward[to] = Some(Outward {
                control,
                publish,
                member,
                bytes: bytes.clone(),
                bytes_max,
                written: false,
            });
            ports[to].inward[from] =
                Some(Inward { control: control_in, publish: publish_in, member: member_in, bytes });
        }
    }
    Ok(ports)
}

impl<M: Send + Weighed> Port<M> {
    pub(crate) fn own(&self) -> ShardId {
        self.own
    }

    pub(crate) fn set_bridges(&mut self, bridges: BridgePort) {
        self.bridges = Some(bridges);
    }

    pub(crate) fn bridges(&mut self) -> Option<&mut BridgePort> {
        self.bridges.as_mut()
    }

    pub(crate) fn set_answers(&mut self, answers: ShardEnd<Infallible, Answer>) {
        self.answers = Some(answers);
    }

    /// The next answer of a plugin. `None` ends a round, which gives the answers that were there when it began.
    pub(crate) fn next_answer(&mut self) -> Option<Answer> {
        let answers = self.answers.as_mut()?;
        let left = self.answers_left.take().unwrap_or_else(|| answers.count());
        if left > 0 {
            self.answers_left = Some(left - 1);
        }
        (left > 0).then(|| answers.take().expect("so many are there"))
    }

    pub(crate) fn bell(&self) -> Arc<EventFd> {
        self.doors[self.own as usize].bell.clone()
    }

    /// The doors of all shards, for those who are none.
    pub(crate) fn doors(&self) -> Arc<[Door]> {
        self.doors.clone()
    }

    pub(crate) fn has_room(&self, to: ShardId, lane: Lane) -> bool {
        let outward = self.outward[to as usize].as_ref().expect("a shard sends itself no mail");
        let is_light = || outward.bytes.load(Ordering::Relaxed) < outward.bytes_max;
        match lane {
            Lane::Control => !outward.control.is_full(),
            Lane::Publish => !outward.publish.is_full() && is_light(),
            Lane::Member => !outward.member.is_full() && is_light(),
        }
    }

    /// The lane has room.
    pub(crate) fn send(&mut self, to: ShardId, lane: Lane, mail: M) {
        let outward = self.outward_mut(to);
        if lane != Lane::Control {
            outward.bytes.fetch_add(mail.size(), Ordering::Relaxed);
        }
        let sent = match lane {
            Lane::Control => outward.control.push(ControlItem::Mail(mail)).is_ok(),
            Lane::Publish => outward.publish.push(mail).is_ok(),
            Lane::Member => outward.member.push(mail).is_ok(),
        };
        assert!(sent, "the sender has looked for room");
    }

    /// Gives the connection back when the control lane is full.
    pub(crate) fn hand_over(
        &mut self,
        to: ShardId,
        adoption: Box<Adoption>,
    ) -> Result<(), Box<Adoption>> {
        match self.outward_mut(to).control.push(ControlItem::Adopt(adoption)) {
            Ok(()) => Ok(()),
            Err(rtrb::PushError::Full(ControlItem::Adopt(adoption))) => Err(adoption),
            Err(rtrb::PushError::Full(ControlItem::Mail(_))) => unreachable!("that was not pushed"),
        }
    }

    /// One bell for each shard that got something since the last call and sleeps.
    pub(crate) fn ring_bells(&mut self) {
        for (to, outward) in self.outward.iter_mut().enumerate() {
            let Some(outward) = outward else { continue };
            if std::mem::take(&mut outward.written) && self.doors[to].asleep.must_ring() {
                self.doors[to].bell.ring();
            }
        }
    }

    /// The next item of these lanes of all other shards; of each lane, what it held when its turn came. `None` ends the round.
    ///
    /// A turn asks for all control mail first, so that the tails of the other lanes are read after everything that a control
    /// item tells of was written.
    pub(crate) fn next(&mut self, lane: Lane) -> Option<(ShardId, ControlItem<M>)> {
        while let Some(inward) = self.inward.get_mut(self.from) {
            if let Some(inward) = inward {
                let left = self.left.take().unwrap_or_else(|| inward.count(lane));
                if left > 0 {
                    self.left = Some(left - 1);
                    return Some((self.from as ShardId, inward.take(lane)));
                }
            }
            self.from += 1;
        }
        self.from = 0;
        None
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.bridges.as_ref().is_some_and(BridgePort::has_mail)
            || self.answers.as_ref().is_some_and(|answers| answers.count() > 0)
            || self.inward.iter().flatten().any(|inward| {
                !inward.control.is_empty()
                    || !inward.publish.is_empty()
                    || !inward.member.is_empty()
            })
    }

    /// From here to `wake_up`, whoever sends rings. `false`: there is mail, do not sleep.
    pub(crate) fn fall_asleep(&self) -> bool {
        if self.inward.len() < 2 && self.bridges.is_none() && self.answers.is_none() {
            return true;
        }
        let asleep = &self.doors[self.own as usize].asleep;
        asleep.announce();
        let quiet = !self.has_mail();
        if !quiet {
            asleep.retract();
        }
        quiet
    }

    pub(crate) fn wake_up(&self) {
        self.doors[self.own as usize].asleep.retract();
    }

    fn outward_mut(&mut self, to: ShardId) -> &mut Outward<M> {
        let outward = self.outward[to as usize].as_mut().expect("a shard sends itself no mail");
        outward.written = true;
        outward
    }
}

impl<M: Weighed> Inward<M> {
    /// Items that a lane holds.
    fn count(&self, lane: Lane) -> usize {
        match lane {
            Lane::Control => self.control.slots(),
            Lane::Publish => self.publish.slots(),
            Lane::Member => self.member.slots(),
        }
    }

    /// The first item of a lane that holds one.
    fn take(&mut self, lane: Lane) -> ControlItem<M> {
        let mail = match lane {
            Lane::Control => return self.control.pop().expect("it was counted"),
            Lane::Publish => self.publish.pop(),
            Lane::Member => self.member.pop(),
        };
        let mail = mail.expect("it was counted");
        self.bytes.fetch_sub(mail.size(), Ordering::Relaxed);
        ControlItem::Mail(mail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::ListenerId;
    use std::thread;
    use std::time::Duration;

    use crate::net::Network;
    use crate::net::epoll::Epoll;
    use crate::time::Instant;

    /// More than a test's lanes hold, four bytes an item.
    const BYTES_MAX: usize = 4 * LANE_ITEMS_MAX + 1;

    /// All that the lanes hold, in the order of a turn.
    fn receive(port: &mut Port<u32>) -> Vec<(ShardId, ControlItem<u32>)> {
        let mut received = Vec::new();
        for lane in [Lane::Control, Lane::Publish, Lane::Member] {
            received.extend(std::iter::from_fn(|| port.next(lane)));
        }
        received
    }

    fn mail(received: Vec<(ShardId, ControlItem<u32>)>) -> Vec<(ShardId, u32)> {
        let mail = received.into_iter().map(|(from, item)| match item {
            ControlItem::Mail(mail) => (from, mail),
            ControlItem::Adopt(_) => unreachable!(),
        });
        mail.collect()
    }

    impl Weighed for u32 {
        fn size(&self) -> usize {
            4
        }
    }

    #[test]
    fn a_lane_that_is_heavy_enough_has_no_room() {
        let mut ports = connect::<u32>(2, 8).unwrap();
        for mail in 0..2 {
            assert!(ports[0].has_room(1, Lane::Publish));
            ports[0].send(1, Lane::Publish, mail);
        }
        assert!(!ports[0].has_room(1, Lane::Publish) && !ports[0].has_room(1, Lane::Member));
        assert!(ports[0].has_room(1, Lane::Control), "acks and answers pass");
        receive(&mut ports[1]);
        assert!(ports[0].has_room(1, Lane::Publish));
    }

    #[test]
    fn control_comes_before_what_was_published_and_each_lane_keeps_its_order() {
        let mut ports = connect::<u32>(3, BYTES_MAX).unwrap();
        ports[0].send(2, Lane::Member, 6);
        ports[0].send(2, Lane::Publish, 3);
        ports[0].send(2, Lane::Publish, 4);
        ports[0].send(2, Lane::Control, 1);
        ports[1].send(2, Lane::Publish, 5);
        ports[1].send(2, Lane::Control, 2);
        assert!(ports[2].has_mail());
        let received = mail(receive(&mut ports[2]));
        assert_eq!(received, [(0, 1), (1, 2), (0, 3), (0, 4), (1, 5), (0, 6)]);
        assert!(!ports[2].has_mail());
        assert!(receive(&mut ports[2]).is_empty());
    }

    #[test]
    fn a_full_lane_gives_the_connection_back() {
        let mut ports = connect::<u32>(2, BYTES_MAX).unwrap();
        for mail in 0..LANE_ITEMS_MAX as u32 {
            assert!(ports[0].has_room(1, Lane::Control));
            ports[0].send(1, Lane::Control, mail);
        }
        assert!(!ports[0].has_room(1, Lane::Control));
        assert!(ports[0].has_room(1, Lane::Publish), "one full lane leaves the others alone");
        let adoption = || {
            let socket = std::fs::File::open("/dev/null").unwrap().into();
            let entry = Entry { origin: None, is_over: false };
            let socket = Admitted { socket, entry };
            Box::new(Adoption {
                socket,
                listener: ListenerId(3),
                bytes: b"rest".to_vec(),
                deadline: Instant(7),
                transport: None,
            })
        };
        let back = ports[0].hand_over(1, adoption()).unwrap_err();
        assert_eq!((back.bytes.as_slice(), back.deadline), (b"rest".as_slice(), Instant(7)));
        assert_eq!(receive(&mut ports[1]).len(), LANE_ITEMS_MAX);
        ports[0].hand_over(1, back).unwrap();
        let adopted = receive(&mut ports[1]).pop();
        assert!(matches!(adopted, Some((0, ControlItem::Adopt(adoption)))
                if adoption.bytes == b"rest" && adoption.listener == ListenerId(3)));
    }

    #[test]
    fn a_shard_with_mail_does_not_fall_asleep() {
        let mut ports = connect::<u32>(2, BYTES_MAX).unwrap();
        ports[0].send(1, Lane::Member, 1);
        assert!(!ports[1].fall_asleep());
        receive(&mut ports[1]);
        assert!(ports[1].fall_asleep());
        ports[1].wake_up();
    }

    #[test]
    fn two_shards_that_sleep_whenever_they_can_lose_no_mail() {
        const ROUNDS: u32 = 3_000;
        let ports = connect::<u32>(2, BYTES_MAX).unwrap();
        let threads: Vec<_> = ports
            .into_iter()
            .map(|mut port| {
                thread::spawn(move || {
                    let mut net = Epoll::new(64).unwrap();
                    net.watch(port.bell());
                    let other = 1 - port.own();
                    let mut seen = 0;
                    if port.own() == 0 {
                        port.send(other, Lane::Publish, 1);
                    }
                    while seen < ROUNDS {
                        port.ring_bells();
                        if port.fall_asleep() {
                            let began = std::time::Instant::now();
                            net.wait(Instant::ZERO, Duration::from_secs(10));
                            port.wake_up();
                            assert!(began.elapsed() < Duration::from_secs(9), "mail {seen} lost");
                        }
                        while net.next_event(Instant::ZERO).is_some() {}
                        if let Some((_, number)) = mail(receive(&mut port)).pop() {
                            seen = number;
                            port.send(other, Lane::Publish, number + 1);
                        }
                    }
                    port.ring_bells();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
