//! A message on its way into the arena (`Flow::admit`).

use crate::arena::{Draft, Message};

/// A message by what its sender knows of it.
pub(super) enum Incoming<'a> {
    /// The parts of the message lie apart.
    Whole(&'a Draft<'a>),
    /// As `Whole`, above the bound of held messages: its cost was weighed, or the stages have emptied the arena.
    Above(&'a Draft<'a>),
    /// Another shard had admitted the message: its bytes lie in one piece.
    Piece(&'a Message<'a>),
    /// The message repeats the last one, held or not, in all but its payload. `pieces` are its topic, properties and
    /// payload, one behind the other.
    Repeat { pieces: &'a [&'a [u8]; 2], payload_size: usize },
    /// As `Repeat`, where topic and properties are not at hand and the last message is held. The message may have
    /// `size_max` bytes.
    RepeatOfLast { payload: &'a [u8], size_max: usize },
}
