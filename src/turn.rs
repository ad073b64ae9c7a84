//! The one turn of a shard: what has happened goes in, and what follows from it comes out, in an order that is fixed here.
//!
//! The turn is generic over the world that it happens in: io_uring, epoll, or memory with faults. Only data crosses: events
//! and mail come in, mail, outputs, read modes and closes go out, and time is a value that holds for the whole turn.

pub mod memory;

use std::net::SocketAddr;

use crate::plugin::Answer;
use crate::routing::bridge_mail::{FromBridges, ToBridges};
use crate::shard::{
    Arrival, Close, ConnectionId, Handover, LANES, Lane, ListenerId, Mail, Output, ReadMode,
    Refusal, Shard, ShardId,
};
use crate::time::Instant;
use crate::transport::Transport;

/// Up to so many outputs a turn leave at once, each in a call of its own.
const SENDS_NOW_MAX: usize = 3;

/// What one shard's turn needs of its surroundings.
///
/// A world speaks of connections by the shard's ids. It never waits: what it has no room for it says, or keeps for later.
pub trait World {
    /// What a connection comes and goes through.
    type Socket;

    /// The next event since the last turn; `None`: that was all. Bytes are lent until the next call; the shard may change them.
    fn next_event(&mut self) -> Option<Event<'_, Self::Socket>>;

    /// The next item that another shard has put into this lane; `None`: that was all, or what is left arrived meanwhile. Once
    /// the control lanes are empty, the other lanes hold at least what their senders had sent before that control mail.
    fn next_mail(&mut self, lane: Lane) -> Option<(ShardId, Mail)>;

    /// The next connection that another shard has handed over with its control mail.
    fn next_adoption(&mut self) -> Option<Adoption<Self::Socket>>;

    /// The next item of the bridges; messages only if `takes_messages`.
    fn next_bridge_mail(&mut self, _takes_messages: bool) -> Option<FromBridges> {
        None
    }

    /// The next answer to a question of the shard's hooks.
    fn next_answer(&mut self) -> Option<Answer> {
        None
    }

    /// Where a connection comes from and, `with_listener`, where it arrived; asked for only if somebody wants to know.
    fn addresses(&self, _socket: &Self::Socket, _with_listener: bool) -> Addresses {
        Addresses::default()
    }

    /// Where a connection comes from that an operator will hear of.
    fn peer(&mut self, _connection: ConnectionId) -> Option<SocketAddr> {
        None
    }

    /// A socket is a connection's from now on, and is read as `mode` says.
    fn adopt(&mut self, connection: ConnectionId, socket: Self::Socket, mode: ReadMode);

    /// There is no room for a connection.
    fn refuse(&mut self, socket: Self::Socket);

    /// A connection was accepted above the maximum of the process: another has to go for it, or it has to go itself.
    fn is_over(&self, _socket: &Self::Socket) -> bool {
        false
    }

    /// Closes the socket of a connection that is closed and lingers; `false`: there is none.
    fn cut_lingering(&mut self) -> bool {
        false
    }

    /// Another shard that has connections without CONNECT.
    fn crowded_shard(&self) -> Option<ShardId> {
        None
    }

    /// Gives up the socket of a connection that is handed over. Nothing is in flight on it: it was read once and not sent to.
    fn release(&mut self, connection: ConnectionId) -> Self::Socket;

    /// Sends a connection to its shard, now or as soon as the lane has room.
    fn hand_over(&mut self, to: ShardId, adoption: Adoption<Self::Socket>);

    /// Whether `read_rest` goes on where the events ended. If not, it does in the next turn.
    fn can_read_rest(&self) -> bool {
        true
    }

    /// Some of what a connection's socket holds already, at most `size_max` bytes; `None`: nothing is left. Bytes are lent until
    /// the next call. All events of the turn were taken before.
    fn read_rest(&mut self, connection: ConnectionId, size_max: usize) -> Option<&mut [u8]>;

    /// How a connection is read from now on.
    fn read(&mut self, connection: ConnectionId, mode: ReadMode);

    fn has_room(&mut self, to: ShardId, lane: Lane) -> bool;

    /// The lane has room.
    fn post(&mut self, to: ShardId, lane: Lane, mail: Mail);

    fn has_bridge_room(&mut self) -> bool {
        true
    }

    /// The lane has room.
    fn post_to_bridges(&mut self, _mail: ToBridges) {}

    /// All mail of the turn was posted: shards that sleep are woken, hand-overs that found no room are tried again.
    fn deliver(&mut self);

    /// Sends all of `output`. `Some`: all of it has left, which the world tries if it `may_leave_now`; `None`: an event will
    /// bring it back, the connection's end apart. A connection has one output out at a time.
    fn send(
        &mut self,
        connection: ConnectionId,
        output: Output,
        may_leave_now: bool,
    ) -> Option<Output>;

    /// The shard has forgotten a connection. `may_linger`: what was sent is to arrive before the socket is closed.
    fn close(&mut self, connection: ConnectionId, may_linger: bool);
}

/// An event of a connection, or of a socket that wants to become one.
#[derive(Debug)]
pub enum Event<'a, S> {
    Accepted {
        socket: S,
        listener: ListenerId,
    },
    AcceptRefused {
        refusal: Refusal,
        peer: Option<SocketAddr>,
    },
    /// No descriptor, or no memory, was left for a connection: accepting pauses.
    AcceptFailed,
    Received {
        connection: ConnectionId,
        bytes: &'a mut [u8],
    },
    /// All of it.
    Sent {
        connection: ConnectionId,
        output: Output,
    },
    /// The peer has closed, or the connection broke.
    Ended {
        connection: ConnectionId,
        /// Nothing of what the peer had sent is left in the socket.
        is_read_out: bool,
    },
}

/// A connection on its way to the shard of its session.
#[derive(Debug)]
pub struct Adoption<S> {
    pub socket: S,
    /// Where it came in.
    pub listener: ListenerId,
    /// All that was read so far, as the transport has opened it.
    pub bytes: Vec<u8>,
    /// When its CONNECT must be whole.
    pub deadline: Instant,
    /// `None`: the connection is plain.
    pub transport: Option<Box<dyn Transport>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    pub peer: Option<SocketAddr>,
    pub listener: Option<SocketAddr>,
}

macro_rules! steps {
    ($($step:ident: $work:ident;)*) => {
        /// A part of a turn, for who runs other shards in between.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step {
            $($step),*
        }

        /// A whole turn, in its order.
        pub const STEPS: &[Step] = &[$(Step::$step),*];

        /// Takes what has happened, and does everything that follows from it.
        pub fn turn<W: World>(shard: &mut Shard, world: &mut W, now: Instant) {
            $($work(shard, world, now);)*
        }

        /// One step of a turn; a turn is all of `STEPS`, at one `now`.
        pub fn advance<W: World>(step: Step, shard: &mut Shard, world: &mut W, now: Instant) {
            match step {
                $(Step::$step => $work(shard, world, now)),*
            }
        }
    };
}

// What the world has received was there before the mail is looked at: no mail closes a connection whose bytes were taken and
// not yet worked on. Control mail comes before the messages that it may speak of, and all mail before the stages, which answer
// the questions that it holds. What leaves goes in the same direction: mail first, for others work on it meanwhile.
steps! {
    Events: take_events;
    ControlMail: take_control_mail;
    PublishMail: take_publish_mail;
    MemberMail: take_member_mail;
    BridgeMail: take_bridge_mail;
    Answers: take_answers;
    Adoptions: take_adoptions;
    Timers: run_timers;
    LastReads: read_last;
    Stages: run_stages;
    HandOvers: hand_over;
    ReadModes: change_read_modes;
    Mail: post_mail;
    Flush: flush;
    Closes: close;
}

fn take_events<W: World>(shard: &mut Shard, world: &mut W, now: Instant) {
    while let Some(event) = world.next_event() {
        match event {
            Event::Received { connection, bytes } => shard.handle_bytes(now, connection, bytes),
            Event::Sent { connection, output } => shard.handle_sent(now, connection, output),
            Event::Accepted { socket, listener } => {
                if let Some(socket) = make_place(shard, world, now, socket, listener) {
                    open(shard, world, now, socket, Arrival { listener, ..Arrival::default() });
                }
            }
            Event::AcceptRefused { refusal, peer } => shard.refuse_accept(now, refusal, peer),
            Event::AcceptFailed => shard.counters().accept_backoffs += 1,
            Event::Ended { connection, is_read_out: true } => {
                shard.handle_close(now, connection);
                world.close(connection, false);
            }
            Event::Ended { connection, is_read_out: false } => shard.handle_break(connection),
        }
    }
}

/// Finds a place for a connection that came in above the maximum: one of this shard's, or of another shard's, where the new one
/// goes. `None`: it is not opened here.
fn make_place<W: World>(
    shard: &mut Shard,
    world: &mut W,
    now: Instant,
    socket: W::Socket,
    listener: ListenerId,
) -> Option<W::Socket> {
    if !world.is_over(&socket) {
        return Some(socket);
    }
    let peer = world.addresses(&socket, false).peer;
    if free_place(shard, world, now, peer) {
        return Some(socket);
    }
    if let Some(to) = world.crowded_shard().filter(|_| !shard.is_shutting_down()) {
        let deadline = shard.connect_deadline(now);
        world.hand_over(
            to,
            Adoption { socket, listener, bytes: Vec::new(), deadline, transport: None },
        );
        return None;
    }
    refuse_full(shard, world, now, socket);
    None
}

fn refuse_full<W: World>(shard: &mut Shard, world: &mut W, now: Instant, socket: W::Socket) {
    let Addresses { peer, .. } = world.addresses(&socket, false);
    shard.refuse_accept(now, Refusal::Full, peer);
    world.refuse(socket);
}

/// Frees the place of a connection that is closed and lingers, or that has not said CONNECT; whether there was one.
fn free_place<W: World>(
    shard: &mut Shard,
    world: &mut W,
    now: Instant,
    peer: Option<SocketAddr>,
) -> bool {
    if world.cut_lingering() {
        return true;
    }
    // What is handed over is about to be a client.
    hand_over(shard, world, now);
    let gone = shard.displace_connecting(now, peer);
    if let Some(gone) = gone {
        world.close(gone, false);
    }
    gone.is_some()
}

fn open<W: World>(
    shard: &mut Shard,
    world: &mut W,
    now: Instant,
    socket: W::Socket,
    arrival: Arrival,
) -> Option<ConnectionId> {
    // The shard gives the place of a connection that it hands over to the next one that it opens.
    hand_over(shard, world, now);
    if shard.is_full()
        && let Some(gone) = shard.displace_connecting(now, world.addresses(&socket, false).peer)
    {
        world.close(gone, false);
    }
    let Addresses { peer, listener: local } = match shard.wants_addresses() {
        true => world.addresses(&socket, shard.wants_listeners()),
        false => Addresses::default(),
    };
    let Some(connection) = shard.handle_open(now, Arrival { peer, ..arrival }) else {
        let peer = peer.or_else(|| world.addresses(&socket, false).peer);
        shard.refuse_accept(now, Refusal::Full, peer);
        world.refuse(socket);
        return None;
    };
    if let Some(local) = local {
        shard.set_listener(connection, local);
    }
    // A connection that may move to another shard has nothing in flight; another need not be asked twice.
    let mode = if shard.may_hand_over() { ReadMode::Once } else { ReadMode::Many };
    world.adopt(connection, socket, mode);
    Some(connection)
}

fn take_control_mail<W: World>(shard: &mut Shard, world: &mut W, now: Instant) {
    take_mail(shard, world, now, Lane::Control);
}

fn take_publish_mail<W: World>(shard: &mut Shard, world: &mut W, now: Instant) {
    take_mail(shard, world, now, Lane::Publish);
}

fn take_member_mail<W: World>(shard: &mut Shard, world: &mut W, now: Instant) {
    take_mail(shard, world, now, Lane::Member);
}

fn take_mail<W: World>(shard: &mut Shard, world: &mut W, now: Instant, lane: Lane) {
    while let Some((from, mail)) = world.next_mail(lane) {
        shard.handle_mail(now, from, mail);
    }
}

fn take_bridge_mail<W: World>(shard: &mut Shard, world: &mut W, now: Instant) {
    // What cannot be taken now stays in its lane.
    let takes_messages = shard.takes_bridge_mail();
    while let Some(mail) = world.next_bridge_mail(takes_messages && !shard.has_inbound_left()) {
        shard.handle_bridge_mail(now, mail);
    }
}

fn take_answers<W: World>(shard: &mut Shard, world: &mut W, now: Instant) {
    while let Some(answer) = world.next_answer() {
        shard.handle_answer(now, answer);
    }
}

fn take_adoptions<W: World>(shard: &mut Shard, world: &mut W, now: Instant) {
    while let Some(adoption) = world.next_adoption() {
        let Adoption { socket, listener, bytes, deadline, transport } = adoption;
        // One without bytes was sent here for a place; it goes nowhere else.
        let peer = world.is_over(&socket).then(|| world.addresses(&socket, false).peer);
        if let Some(peer) = peer
            && !free_place(shard, world, now, peer)
        {
            refuse_full(shard, world, now, socket);
            continue;
        }
        let arrival = Arrival { peer: None, listener, connect_deadline: Some(deadline), transport };
        if let Some(connection) = open(shard, world, now, socket, arrival) {
            shard.handle_opened(now, connection, &bytes);
        }
    }
}

fn run_timers<W: World>(shard: &mut Shard, _: &mut W, now: Instant) {
    if shard.poll_timeout().is_some_and(|due| due <= now) {
        shard.handle_timeout(now);
    }
}

/// Connections that are taken over, or whose time has passed, end when nothing of what they have sent is left. That may take
/// some turns.
fn read_last<W: World>(shard: &mut Shard, world: &mut W, now: Instant) {
    while world.can_read_rest()
        && let Some((connection, size_max)) = shard.poll_last_read()
    {
        if shard.is_place_asked() {
            let peer = world.peer(connection);
            shard.handle_place(now, peer);
            continue;
        }
        shard.begin_last_read(now);
        let mut left = size_max;
        while !shard.is_waiting_for_turn(connection)
            && let Some(bytes) = world.read_rest(connection, left)
        {
            left -= bytes.len();
            shard.handle_bytes(now, connection, bytes);
        }
        if let Some(gone) = shard.handle_last_read(now, left) {
            world.close(gone, false);
        }
    }
}

fn run_stages<W: World>(shard: &mut Shard, _: &mut W, now: Instant) {
    shard.run_stages(now);
}

fn hand_over<W: World>(shard: &mut Shard, world: &mut W, _: Instant) {
    while let Some(handover) = shard.poll_handover() {
        let Handover { connection, shard: to, listener, bytes, deadline, transport } = handover;
        let socket = world.release(connection);
        world.hand_over(to, Adoption { socket, listener, bytes, deadline, transport });
    }
}

fn change_read_modes<W: World>(shard: &mut Shard, world: &mut W, _: Instant) {
    while let Some((connection, mode)) = shard.poll_read_mode() {
        world.read(connection, mode);
    }
}

fn post_mail<W: World>(shard: &mut Shard, world: &mut W, _: Instant) {
    // Lane by lane: acks follow all earlier publishes, whichever shards those went to.
    for lane in LANES {
        for to in shard.mail_receivers() {
            while world.has_room(to, lane)
                && let Some(mail) = shard.poll_mail(to, lane)
            {
                world.post(to, lane, mail);
            }
        }
    }
    while world.has_bridge_room()
        && let Some(mail) = shard.poll_bridge_mail()
    {
        world.post_to_bridges(mail);
    }
    world.deliver();
}

fn flush<W: World>(shard: &mut Shard, world: &mut W, now: Instant) {
    // Where there is little to do, a worker sleeps after each message: what has been sent then should not wake it.
    let mut left_now = match shard.flush_count() {
        count if count <= SENDS_NOW_MAX => SENDS_NOW_MAX,
        _ => 0,
    };
    while let Some((connection, output)) = shard.poll_flush() {
        let may_leave_now = left_now > 0;
        left_now = left_now.saturating_sub(1);
        if let Some(output) = world.send(connection, output, may_leave_now) {
            shard.handle_sent(now, connection, output);
        }
    }
}

fn close<W: World>(shard: &mut Shard, world: &mut W, _: Instant) {
    while let Some(connection) = shard.poll_nameless() {
        let peer = world.peer(connection);
        shard.handle_peer(connection, peer);
    }
    while let Some(Close { connection, has_said_all }) = shard.poll_close() {
        world.close(connection, !has_said_all);
    }
}
