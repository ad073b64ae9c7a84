//! What a session is sent in one go.

use super::Connection;
use crate::limits::Limits;

/// A message or a run of messages, sent in one go.
pub(super) trait Parcel {
    /// Whether the output has room for the whole parcel, and each message fits into a packet of the client's size.
    fn fits(&self, connection: &Connection, limits: &Limits) -> bool;

    /// Whether a connection, if nothing is in front of the parcel, takes all of it at once and gets nothing of its own
    /// with it.
    #[inline(always)]
    fn is_taken(&self, connection: &Connection, limits: &Limits) -> bool {
        connection.aliases_out.is_none() && self.fits(connection, limits)
    }
}
