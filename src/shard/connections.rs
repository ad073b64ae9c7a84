//! What a shard keeps of connections beside the connections themselves: lists of those that wait for something, and the buffers of
//! their input.

use super::begun::Begun;
use super::connecting::Connecting;
use super::last_read::LastRead;
use super::link::Links;
use super::new_limits::Announced;
use super::questions::Questions;
use super::take_over::TakeOvers;
use super::{ConnectionId, Handover};
use crate::hash::KeyedHash;
use crate::session::{BufferPool, Clients, Connection};
use std::collections::VecDeque;

/// So many connections that are gone may stand in a list of those that wait.
const GONE_MIN: usize = 64;

pub(super) struct Connections {
    pub connecting: Connecting,
    pub begun: Begun,
    pub take_overs: TakeOvers,
    /// Of connections that are not plain.
    pub links: Links,
    pub questions: Questions,
    pub closes: VecDeque<ConnectionId>,
    pub handovers: VecDeque<Handover>,
    pub read_changes: VecDeque<ConnectionId>,
    pub parked_on_mail: Parked,
    pub parked_on_bridges: Parked,
    /// Connections that end when their sockets were read once more.
    pub last_reads: VecDeque<LastRead>,
    /// The same, in the next turn.
    pub postponed_reads: VecDeque<LastRead>,
    /// Buffers of input, which are small.
    pub input_pool: BufferPool,
    /// What connections that are older than the limits may do beyond these.
    pub announced: Option<Announced>,
    /// How many open connections that holds for.
    pub older_count: usize,
    /// The topic of a PUBLISH with an alias, while it is used.
    pub topic_scratch: Vec<u8>,
}

impl Connections {
    pub(super) fn new(hash: &KeyedHash) -> Connections {
        Connections {
            connecting: Connecting::new(hash),
            begun: Begun::default(),
            take_overs: TakeOvers::new(hash),
            links: Links::default(),
            questions: Questions::default(),
            closes: VecDeque::new(),
            handovers: VecDeque::new(),
            read_changes: VecDeque::new(),
            parked_on_mail: Parked::new(|connection| &mut connection.is_mail_listed),
            parked_on_bridges: Parked::new(|connection| &mut connection.is_bridge_listed),
            last_reads: VecDeque::new(),
            postponed_reads: VecDeque::new(),
            input_pool: BufferPool::default(),
            announced: None,
            older_count: 0,
            topic_scratch: Vec::new(),
        }
    }

    /// The world has nothing to do for a connection, nor have the lists that are worked off in each turn.
    pub(super) fn is_idle(&self) -> bool {
        let waiting = self.closes.len()
            | self.handovers.len()
            | self.read_changes.len()
            | self.last_reads.len();
        waiting == 0
    }
}

/// Connections whose publishes wait, for mail below its mark or for room in a bridge's log. Each stands in the list once.
#[derive(Debug)]
pub(super) struct Parked {
    ids: VecDeque<ConnectionId>,
    /// How many of `ids` name connections that are gone.
    gone_count: usize,
    /// The connection's note that it stands in the list.
    is_listed: fn(&mut Connection) -> &mut bool,
}

impl Parked {
    fn new(is_listed: fn(&mut Connection) -> &mut bool) -> Parked {
        Parked { ids: VecDeque::new(), gone_count: 0, is_listed }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Lists a connection that is not listed.
    pub(super) fn push(&mut self, connection: &mut Connection) {
        if !std::mem::replace((self.is_listed)(connection), true) {
            self.ids.push_back(connection.id);
        }
    }

    /// Takes the first connection off the list. It may be gone, or wait for something else meanwhile.
    pub(super) fn pop(&mut self, clients: &mut Clients) -> Option<ConnectionId> {
        let id = self.ids.pop_front()?;
        match clients.connection(id) {
            Some(connection) => *(self.is_listed)(connection) = false,
            None => self.gone_count = self.gone_count.saturating_sub(1),
        }
        Some(id)
    }

    /// Notes that `gone` was removed from the shard. Where many listed connections are gone, the list is rid of them. Returns the
    /// steps of that.
    pub(super) fn note_gone(&mut self, gone: &mut Connection, clients: &mut Clients) -> u64 {
        if !*(self.is_listed)(gone) {
            return 0;
        }
        self.gone_count += 1;
        if self.gone_count <= GONE_MIN.max(self.ids.len() / 2) {
            return 0;
        }
        let steps = self.ids.len() as u64;
        self.ids.retain(|id| clients.connection(*id).is_some());
        self.ids.shrink_to(2 * self.ids.len());
        self.gone_count = 0;
        steps
    }
}
