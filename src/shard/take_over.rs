//! CONNECTs that wait to take their client over, in the order in which they came. The last one keeps the client in the
//! end, and each one before has it for a while.

use super::{About, ConnectionId, Shard};
use crate::hash::KeyedHash;
use crate::session::{Park, SessionKey};
use crate::time::Instant;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// The connections that wait, by client id. The first one of a client waits until the old connection is read to its
/// end, the others wait for the first.
#[derive(Debug)]
pub(super) struct TakeOvers {
    waiting: HashMap<Rc<str>, VecDeque<ConnectionId>, ahash::RandomState>,
}

impl TakeOvers {
    pub(super) fn new(hash: &KeyedHash) -> TakeOvers {
        TakeOvers { waiting: HashMap::with_hasher(hash.state()) }
    }

    /// The connection that goes on next for a client.
    fn first(&self, client_id: &str) -> Option<ConnectionId> {
        self.waiting.get(client_id)?.front().copied()
    }

    fn push(&mut self, client_id: &Rc<str>, id: ConnectionId) {
        self.waiting.entry(Rc::clone(client_id)).or_default().push_back(id);
    }

    /// Removes the first connection, which has got its answer or is gone.
    fn pop(&mut self, client_id: &str) {
        let Some(waiting) = self.waiting.get_mut(client_id) else { return };
        waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(client_id);
        }
    }
}

impl Shard {
    /// Whether a CONNECT must wait: for earlier CONNECTs of its client, or until the client's connection is read to its
    /// end. It is read again then.
    #[inline]
    pub(super) fn waits_for_take_over(
        &mut self,
        id: ConnectionId,
        client_id: &str,
        existing: Option<SessionKey>,
    ) -> bool {
        let old = existing.and_then(|key| self.clients.session(key)?.connection());
        if old.is_none() && self.connections.take_overs.waiting.is_empty() {
            return false;
        }
        self.list_take_over(id, client_id, old)
    }

    #[inline(never)]
    fn list_take_over(
        &mut self,
        id: ConnectionId,
        client_id: &str,
        old: Option<ConnectionId>,
    ) -> bool {
        let first = self.connections.take_overs.first(client_id);
        let is_first = first.is_none_or(|first| first == id);
        let old = old.filter(|_| is_first);
        let to_read =
            old.filter(|old| self.clients.connection(*old).is_some_and(|c| !c.is_read_out));
        if is_first && to_read.is_none() {
            return false;
        }
        let client_id: Rc<str> = client_id.into();
        if first != Some(id) {
            self.forget_gone(&client_id);
            self.connections.take_overs.push(&client_id, id);
        }
        self.clients.live_connection(id).park = Some(Park::TakeOver);
        if let Some(old) = to_read {
            self.read_before_take_over(old, id, client_id);
        }
        true
    }

    /// Forgets connections that are gone, at the latest when as many more wait. So a few clients cannot hold memory
    /// with them.
    fn forget_gone(&mut self, client_id: &str) {
        // Nobody may wait yet.
        let Some(waiting) = self.connections.take_overs.waiting.get_mut(client_id) else { return };
        if waiting.len() == waiting.capacity() {
            let first = waiting.front().copied();
            let clients = &mut self.clients;
            waiting.retain(|id| Some(*id) == first || clients.connection(*id).is_some());
        }
    }

    /// Lets the connections that wait for a client go on, one after the other: its connection was read to its end, or
    /// is gone.
    pub(super) fn let_take_over(
        &mut self,
        now: Instant,
        old: ConnectionId,
        (successor, client_id): (ConnectionId, &str),
        has_more: bool,
    ) {
        if let Some(connection) = self.clients.connection(old) {
            connection.is_read_out = true;
        }
        let mut next = Some(successor);
        while let Some(id) = next {
            self.unpark(now, id, Park::TakeOver);
            if self.clients.connection(id).is_some_and(|c| c.park == Some(Park::TakeOver)) {
                // The client has another connection by now.
                break;
            }
            self.connections.take_overs.pop(client_id);
            if self.clients.connection(id).is_some_and(|connection| connection.has_ended) {
                self.handle_close(now, id);
            }
            self.end_if_over(now, id);
            if id == successor {
                match self.clients.connection(old) {
                    Some(connection) if connection.is_open() => {
                        self.resume_after_refusal(now, old);
                    }
                    _ if has_more => {
                        self.counters.takeovers_cut += 1;
                        let what =
                            "on its old connection was more than is used when it connects again";
                        self.notice_client(now, About::Cut, successor, what, "takeover_bytes_max");
                    }
                    _ => {}
                }
            }
            next = self.connections.take_overs.first(client_id);
        }
    }

    /// Lets the old connection live on as before: the new one was refused, or is gone.
    fn resume_after_refusal(&mut self, now: Instant, old: ConnectionId) {
        let connection = self.clients.live_connection(old);
        connection.is_read_out = false;
        connection.is_peer_gone = connection.has_ended;
        if connection.park.is_none() && connection.open().is_some_and(|open| open.pending.is_some())
        {
            // The SUBACK of the old connection still waits for other shards.
            connection.park = Some(Park::Subscribe);
        }
        self.read_input(now, old);
        self.update_read_mode(old);
    }
}
