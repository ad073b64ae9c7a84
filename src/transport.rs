//! What stands between the bytes of a socket and the bytes of MQTT on one connection: TLS, WebSocket, or one in the other.
//!
//! ```text
//!  socket --- received bytes, lent mutably ---> open ---> plain bytes ---> Shard, as of any connection
//!  socket <--- one sealed output a turn ------- seal <--- one plain output of the turn, with room in front
//! ```
//! A connection without a transport is plain: the bytes of its socket are MQTT, and nothing of this module is on their way.
//! A transport does no I/O and reads no clock. The transport of a connection that moves to another shard moves along.

use crate::session::{BufferPool, Output};
use std::fmt::Debug;

/// Changes bytes between a socket and MQTT. One value serves one connection for the connection's whole life.
pub trait Transport: Debug + Send {
    /// The room that `seal` can use in front of an output, in bytes: the size of the largest header.
    fn room(&self) -> u32;

    /// Opens the next part of `bytes`, which were received in this order, and changes them in place.
    ///
    /// The caller uses `Opened::plain`, then calls again with the bytes behind `Opened::used`, until none are left or `end` has
    /// something to say. Bytes of a record that is not whole are kept by the transport, at most one record's size.
    fn open<'a>(&'a mut self, bytes: &'a mut [u8]) -> Opened<'a>;

    /// How the peer has ended what it sends; `None`: it has not. Nothing is opened behind an end, also on another shard.
    fn end(&self) -> Option<End>;

    /// Whether the transport has bytes of its own to send: an answer to a question of its peer, or a goodbye.
    fn has_own_bytes(&self) -> bool;

    /// Seals an output together with the transport's own bytes. The output may be empty if the transport has own bytes.
    ///
    /// Buffers come from `pool` and go back there. The result has at least one byte.
    fn seal(&mut self, output: Output, pool: &mut BufferPool) -> Output;

    /// Nothing follows but what waits in the output: the transport says goodbye behind that.
    fn say_goodbye(&mut self);

    /// The memory that the transport holds, in bytes of capacity.
    fn bytes(&self) -> usize;
}

/// What `Transport::open` made of the first received bytes.
#[derive(Debug)]
pub struct Opened<'a> {
    /// How many received bytes that took: at least one.
    pub used: usize,
    /// The bytes of MQTT that were in them; often none.
    pub plain: &'a mut [u8],
}

/// How the peer of a transport has ended what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer has said goodbye.
    Goodbye,
    /// The peer broke the rules of the transport, as the text says for the log. `seal` will tell the peer.
    Broken(&'static str),
}
