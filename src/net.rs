//! The sockets of one shard, behind one trait: through io_uring, or through readiness where io_uring is refused.
//!
//! `Network` has two implementations, a ring (`uring`) and `epoll`, and one suite of tests that both pass. `system::io`
//! chooses once for the process.

mod acceptor;
pub mod epoll;
mod error;
mod event_fd;
mod lingering;
pub mod listener;
pub mod socket;
pub mod stalls;
mod table;
#[cfg(test)]
mod tests;
mod token;
pub mod uring;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::shard::{ListenerId, Output, ReadMode};
use crate::time::Instant;

pub use error::NetworkError;
pub use event_fd::EventFd;
pub use lingering::Lingering;
pub use token::SocketKey;

/// Listeners, connections and a doorbell that one thread waits for. Nothing blocks but `wait`.
pub trait Network {
    /// Accepts on a listening socket from the next wait on.
    fn listen(&mut self, listener: OwnedFd);

    /// Ends all accepting.
    fn stop_accepting(&mut self);

    /// Whoever rings `bell` ends the wait. To be called once.
    fn watch(&mut self, bell: Arc<EventFd>);

    /// Takes over a connected socket. It is not read before `read` says so.
    fn adopt(&mut self, socket: OwnedFd, owner: u64) -> SocketKey;

    /// How `socket` is read from now on. Between two waits a socket brings a bounded number of bytes; in `Once`, it brings
    /// them in one event, and nothing is in flight until the next wait.
    fn read(&mut self, key: SocketKey, mode: ReadMode);

    /// Sends all of `output`. `Some`: that was all of it, which happens only if it `may_leave_now`. `None`: `Event::Sent`
    /// brings it back, or the socket is gone. One at a time for each socket.
    fn send(&mut self, key: SocketKey, output: Output, may_leave_now: bool) -> Option<Output>;

    /// Bytes that the peer's kernel has confirmed since the connection began; 0: that cannot be known.
    fn confirmed(&mut self, key: SocketKey) -> u64;

    /// Tells the peer that nothing more follows. `false`: something is on its way, or the socket is gone.
    fn end_sending(&mut self, key: SocketKey) -> bool;

    /// Whether the peer's kernel has yet to confirm something that was sent.
    fn is_unconfirmed(&mut self, key: SocketKey) -> bool;

    /// Nothing of `socket` is reported any more; its descriptor is closed as soon as the kernel holds nothing on it. `false`:
    /// it was closed before.
    fn close(&mut self, key: SocketKey) -> bool;

    /// Gives a socket away. `None`, and no change, when something is in flight on it.
    fn release(&mut self, key: SocketKey) -> Option<OwnedFd>;

    /// Whether `read_rest` goes on where the events ended. If not, it does after the next wait.
    fn can_read_rest(&self) -> bool {
        true
    }

    /// Some of what a socket holds already, in `buffer`; 0: nothing is left. All events were taken before.
    fn read_rest(&mut self, key: SocketKey, buffer: &mut [u8]) -> usize;

    /// What a socket that is open is to the kernel.
    fn descriptor(&mut self, key: SocketKey) -> Option<BorrowedFd<'_>>;

    /// Sockets, closed ones on which the kernel holds something included.
    fn socket_count(&self) -> usize;

    /// Receives of many that ended by themselves and were begun again.
    fn receive_rearms(&self) -> u64 {
        0
    }

    /// Connections that the kernel gave up: their peers did not answer, or took nothing, for too long.
    fn timed_out(&self) -> u64;

    /// When `poll` or `wait` has something to do that no event announces.
    fn deadline(&self) -> Option<Instant>;

    /// Something has happened, or something is to be done by `poll`.
    fn has_work(&mut self) -> bool;

    /// Takes what has happened.
    fn poll(&mut self, now: Instant);

    /// As `poll`, after sleeping until something happens, at most for `timeout`.
    fn wait(&mut self, now: Instant, timeout: Duration);

    /// The next thing that happened. To be called until `None` before the next `poll` or `wait`.
    fn next_event(&mut self, now: Instant) -> Option<Event<'_>>;
}

/// What the world did. Bytes are lent until the next call, and whoever borrows them may change them: no other event has
/// them, and nothing is received there meanwhile.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection on one of the listeners.
    Accepted {
        socket: OwnedFd,
        /// In the order in which `listen` was called.
        listener: ListenerId,
    },
    /// A listener pauses: descriptors or memory have run out.
    AcceptFailed {
        error: io::Error,
    },
    Received {
        owner: u64,
        bytes: &'a mut [u8],
    },
    /// All of it was sent.
    Sent {
        owner: u64,
        output: Output,
    },
    /// The peer closed (no error) or the connection broke. Nothing but `close` makes sense now.
    Ended {
        owner: u64,
        /// Nothing of what the peer had sent is left in the socket.
        is_read_out: bool,
        error: Option<io::Error>,
    },
}
