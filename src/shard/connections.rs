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

/// So many connections that are gone may stand in the list of those that wait for mail.
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
    pub parked_on_mail: ParkedOnMail,
    /// Connections that end when their sockets were read once more.
    pub last_reads: VecDeque<LastRead>,
    /// The same, in the next turn.
    pub postponed_reads: VecDeque<LastRead>,
    /// Buffers of input, which are small.
    pub input_pool: BufferPool,
    /// What connections that are older than the limits may do beyond these.
    pub announced: Option<Announced>,
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
            parked_on_mail: ParkedOnMail::default(),
            last_reads: VecDeque::new(),
            postponed_reads: VecDeque::new(),
            input_pool: BufferPool::default(),
            announced: None,
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

/// Connections whose publishes wait until mail is below its mark, each once.
#[derive(Debug, Default)]
pub(super) struct ParkedOnMail {
    ids: VecDeque<ConnectionId>,
    /// Of these, connections that are gone.
    gone_count: usize,
}

impl ParkedOnMail {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Lists a connection, if it is not.
    pub(super) fn push(&mut self, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.is_mail_listed, true) {
            self.ids.push_back(connection.id);
        }
    }

    /// The first one. It may be gone, or wait for something else meanwhile.
    pub(super) fn pop(&mut self, clients: &mut Clients) -> Option<ConnectionId> {
        let id = self.ids.pop_front()?;
        match clients.connection(id) {
            Some(connection) => connection.is_mail_listed = false,
            None => self.gone_count = self.gone_count.saturating_sub(1),
        }
        Some(id)
    }

    /// A connection that is listed is gone: where many are, the list is rid of them. Returns the steps of that.
    pub(super) fn note_gone(&mut self, clients: &mut Clients) -> u64 {
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
