//! Shared subscriptions at work: members join and leave, messages are given out and come back.

use super::interest::Join;
use super::{ConnectionId, Shard, ShardId};
use crate::arena::{Message, Stored};
use crate::codec::{QoS, SubscriptionOptions};
use crate::plugin::MessageView;
use crate::routing::groups::{Group, GroupKey, Member, MemberOptions};
use crate::routing::mail::{Address, Batch, Control};
use crate::routing::router::{Options, Subscriber};
use crate::session::queue::QueueLimits;
use crate::session::{Context, DropReason, Membership, Offer, Returned, Session, SessionKey};
use crate::stages::encode::shared::{backlog_limits, give};
use crate::time::Instant;

/// So many groups get places before their work is counted.
const GIVEN_AT_ONCE: usize = 256;

/// Puts messages that came back in front of a group's others, as far as group and shard may keep them.
fn take_back(group: &mut Group, returned: Vec<Stored>, context: &mut Context<'_>) {
    let count = returned.len();
    context.counters.add_steps(count as u64);
    let limits = backlog_limits(context.limits);
    context.counters.dropped_group_full += group.take_back(returned, limits, context.drops);
    // Messages that were in flight had no queue entry, which they take now.
    for _ in 0..count {
        if context.stored.bytes() <= context.limits.shard_stored_bytes_max {
            return;
        }
        let messages_max = group.backlog.len().saturating_sub(1);
        let (dropped, drops) = (&mut context.counters.dropped_stored_full, &mut *context.drops);
        group.backlog.shed(QueueLimits { messages_max, ..limits }, |victim| {
            *dropped += 1;
            drops.push(None, victim.stored.message().topic, DropReason::StoreFull);
        });
    }
}

impl Shard {
    /// How many messages a member may be given before it tells that it has room.
    fn full_credit(&self) -> u32 {
        self.credit_within(self.limits.queue_messages_max)
    }

    fn full_credit_of(&mut self, key: SessionKey) -> u32 {
        let bounds = self.clients.live_session(key).queue_limits(&self.limits);
        self.credit_within(bounds.messages_max.min(self.limits.queue_messages_max))
    }

    fn credit_within(&self, queue_messages_max: usize) -> u32 {
        let queue_max = queue_messages_max.min(usize::from(u16::MAX)) as u32;
        u32::from(self.limits.group_credit_max).min(queue_max).max(1)
    }

    /// Subscribes a session to a group; returns whether its SUBACK must wait.
    pub(super) fn join(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        text: &str,
        options: SubscriptionOptions,
        subscription_id: u32,
    ) -> bool {
        let owner = self.peers.owner(text.as_bytes());
        let full = self.full_credit_of(key);
        let (session, connection) = self.clients.live_pair(key);
        let (membership, credit) = session.join(connection, (text, owner), options.qos, full);
        let options = MemberOptions {
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            id: subscription_id,
            membership,
        };
        if owner == self.peers.own() {
            let (filter, is_new) = self.add_member(text, (self.peers.own(), key), options, credit);
            let is_waiting = self.announce(&filter, is_new, Some(id));
            self.serve_group(now, text);
            return is_waiting;
        }
        let filter = text.into();
        let join = Control::Join { filter, session: key, connection: id, options, credit };
        self.flow.outbox.control(owner, join);
        true
    }

    /// Adds a member to a group that this shard owns; returns the topic filter, and whether the group is new.
    fn add_member(
        &mut self,
        text: &str,
        member: Member,
        options: MemberOptions,
        credit: u32,
    ) -> (Box<str>, bool) {
        let (index, is_new) = self.groups.find_or_create(text);
        let group = self.groups.get(index).expect("the group was just found or made");
        // A member that subscribes again still has the messages that it was given.
        let is_member = group.members.get(&member).is_some();
        let credit = if is_member { group.members.credit_of(&member) } else { credit };
        let filter: Box<str> = group.filter().into();
        self.groups.change_members(index, |members| members.join(member, options, credit));
        if is_new {
            let entry = Options {
                qos: QoS::ExactlyOnce,
                no_local: false,
                retain_as_published: true,
                id: 0,
            };
            self.flow.router.subscribe(&filter, Subscriber::Group(index), entry);
            self.bound_held();
        }
        (filter, is_new)
    }

    pub(super) fn on_join(
        &mut self,
        now: Instant,
        text: &str,
        member: Member,
        connection: ConnectionId,
        options: MemberOptions,
        credit: u32,
    ) {
        self.count_tables();
        if !self.is_member(text, &member) && !self.has_room_for_member(text, 0) {
            return self.refuse_join(member, connection, text);
        }
        let (filter, is_new) = self.add_member(text, member, options, credit);
        self.announce(&filter, is_new, None);
        let join = Join { shard: member.0, connection };
        if !self.wait_for_announcement(&filter, join) {
            self.confirm_join(now, join);
        }
        self.serve_group(now, text);
    }

    fn is_member(&mut self, text: &str, member: &Member) -> bool {
        let index = self.groups.find(text);
        index.and_then(|i| self.groups.get(i)).is_some_and(|g| g.members.get(member).is_some())
    }

    /// Confirms a join: the group's filter is known everywhere, and the member may tell its client.
    pub(super) fn confirm_join(&mut self, now: Instant, join: Join) {
        if join.shard == self.peers.own() {
            return self.confirm_subscribe(now, join.connection);
        }
        self.flow.outbox.control(join.shard, Control::Joined { connection: join.connection });
    }

    /// Gives waiting messages of a group that is there to members with credit.
    pub(super) fn serve_group(&mut self, now: Instant, text: &str) {
        let index = self.groups.find(text).expect("a group that is served is there");
        self.give_backlog(now, index);
        self.groups.list_backlog(index);
    }

    fn give_backlog(&mut self, now: Instant, index: u32) {
        let group = self.groups.live(index);
        let mut context = self.delivery.context(now, &self.limits, &mut self.counters);
        while group.members.has_credit() {
            let Some(queued) = group.backlog.pop() else { return };
            context.counters.add_steps(1);
            let message = queued.stored.message();
            if message.meta.expires_at.is_some_and(|at| at <= now) {
                context.counters.expired += 1;
                context.drops.push(None, message.topic, DropReason::Expired);
                continue;
            }
            let (clients, outbox) = (&mut self.clients, &mut self.flow.outbox);
            let mut receivers =
                self.hooks.receivers(|| MessageView::of(&message, now), self.peers.own());
            let receiver = receivers.as_mut();
            if !give(group, &message, self.peers.own(), clients, outbox, &mut context, receiver) {
                return group.backlog.push_front(queued);
            }
            context.counters.deliveries_skipped += receivers.map_or(0, |r| r.skipped());
        }
    }

    /// Gives the groups of a client that came back places again.
    pub(super) fn return_to_groups(&mut self, now: Instant, key: SessionKey) {
        let session = self.clients.live_session(key);
        session.take_back_places();
        self.counters.add_steps(session.membership_count() as u64);
        if !self.give_places(now, key) {
            self.clients.credits.push(key);
        }
    }

    /// Gives places to groups' owners as long as a turn allows; returns whether all groups were visited.
    fn give_places(&mut self, now: Instant, key: SessionKey) -> bool {
        let full = self.full_credit_of(key);
        let mut left = self.limits.turn_steps_max;
        while left > 0 {
            // A client whose session is listed may have left.
            let Some((session, Some(connection))) = self.clients.pair(key) else { return true };
            let mut given: Vec<(ShardId, Box<str>, u32)> = Vec::new();
            let has_more =
                session.give_places(connection, full, GIVEN_AT_ONCE, |owner, filter, count| {
                    given.push((owner, filter.into(), count));
                });
            self.counters.add_steps(GIVEN_AT_ONCE.min(session.membership_count()) as u64);
            // Each place may bring a message at once.
            let place_count: u64 = given.iter().map(|(_, _, count)| u64::from(*count)).sum();
            left = left.saturating_sub(GIVEN_AT_ONCE as u64 + place_count);
            for (owner, filter, count) in given {
                self.credit_group(now, key, owner, filter, count);
            }
            if !has_more {
                return true;
            }
        }
        false
    }

    fn credit_group(
        &mut self,
        now: Instant,
        key: SessionKey,
        owner: ShardId,
        filter: Box<str>,
        count: u32,
    ) {
        if owner == self.peers.own() {
            return self.on_credit(now, (self.peers.own(), key), &filter, count);
        }
        self.flow.outbox.control(owner, Control::Credit { filter, session: key, count });
    }

    pub(super) fn on_credit(&mut self, now: Instant, member: Member, text: &str, count: u32) {
        let full = self.full_credit();
        // The member may have been refused, or the group have ended with its last member.
        let Some(index) = self.groups.find(text) else { return };
        let group = self.groups.live(index);
        // Messages that were under way when the client left may be credited twice, so the credit is bounded by the full
        // credit.
        let room = full.saturating_sub(group.members.credit_of(&member));
        group.members.credit(&member, count.min(room));
        self.serve_group(now, text);
    }

    /// Tells the owners of groups how many more messages their members can take.
    pub(super) fn give_back_credits(&mut self, now: Instant) {
        let mut unfinished = Vec::new();
        while let Some(key) = self.clients.credits.pop() {
            let is_due =
                |session: &mut Session| session.is_credit_due() || session.is_giving_places();
            if self.clients.session(key).is_some_and(is_due) && !self.give_places(now, key) {
                unfinished.push(key);
            }
        }
        self.clients.credits.extend(unfinished);
    }

    /// Gives back to its groups the messages that a session did not send: its client is gone, the session stays.
    /// [MQTT-4.8.2-4]
    pub(super) fn leave_groups_for_now(&mut self, now: Instant, key: SessionKey) {
        let session = self.clients.live_session(key);
        let memberships = session.memberships_list();
        if memberships.is_empty() {
            return;
        }
        let mut returned = self.take_unsent(key, |_| true);
        self.counters.add_steps(memberships.len() as u64);
        for (number, owner, filter) in memberships {
            let returned = returned.remove(&number).unwrap_or_default();
            if owner == self.peers.own() {
                self.on_away(now, (self.peers.own(), key), &filter, returned, false);
            } else {
                let (filter, returned) = ((*filter).into(), batch_of(&returned));
                self.flow.outbox.control(owner, Control::Away { filter, session: key, returned });
            }
        }
    }

    /// Ends the subscription. `unsent`, which was taken from the client's queue, goes back to the group.
    pub(super) fn leave_group(
        &mut self,
        now: Instant,
        key: SessionKey,
        text: &str,
        unsent: &mut Returned,
    ) {
        let session = self.clients.live_session(key);
        let Some(membership) = session.leave(text) else { return };
        let returned = unsent.remove(&membership.number).unwrap_or_default();
        self.give_up_membership(now, key, &membership, returned);
    }

    /// Gives back all unsent messages, and unacknowledged QoS 1 messages, of a session that ends. [MQTT-4.8.2-5]
    pub(super) fn leave_all_groups(&mut self, now: Instant, key: SessionKey) {
        let session = self.clients.live_session(key);
        let memberships = session.leave_all();
        if memberships.is_empty() {
            return;
        }
        let mut returned = session.take_unacknowledged();
        self.counters.add_steps((session.inflight().len() + memberships.len()) as u64);
        let mut unsent = self.take_unsent(key, |_| true);
        for membership in memberships {
            let mut messages = returned.remove(&membership.number).unwrap_or_default();
            messages.extend(unsent.remove(&membership.number).unwrap_or_default());
            self.give_up_membership(now, key, &membership, messages);
        }
    }

    fn give_up_membership(
        &mut self,
        now: Instant,
        key: SessionKey,
        membership: &Membership,
        returned: Vec<Stored>,
    ) {
        if membership.owner == self.peers.own() {
            return self.on_away(now, (self.peers.own(), key), &membership.filter, returned, true);
        }
        let returned = batch_of(&returned);
        let leave = Control::Leave { filter: (*membership.filter).into(), session: key, returned };
        self.flow.outbox.control(membership.owner, leave);
    }

    /// Takes the client's waiting messages that came through memberships that it leaves, in one pass through its queue.
    pub(super) fn take_unsent(
        &mut self,
        key: SessionKey,
        is_left: impl Fn(u32) -> bool,
    ) -> Returned {
        let session = self.clients.live_session(key);
        if session.queue().is_empty() {
            return Returned::new();
        }
        self.counters.add_steps(session.queue().len() as u64);
        session.take_unsent(is_left)
    }

    /// Handles a member that is away or has left: its messages come back to the front.
    pub(super) fn on_away(
        &mut self,
        now: Instant,
        member: Member,
        text: &str,
        returned: Vec<Stored>,
        is_gone: bool,
    ) {
        // The member may have been refused.
        let Some(index) = self.groups.find(text) else { return };
        let group = self.groups.live(index);
        take_back(
            group,
            returned,
            &mut self.delivery.context(now, &self.limits, &mut self.counters),
        );
        if is_gone {
            self.groups.change_members(index, |members| members.leave(&member));
        } else {
            group.members.clear_credit(&member);
        }
        let group = self.groups.live(index);
        if group.members.is_empty() {
            let filter: Box<str> = group.filter().into();
            let left_count = group.acknowledged_backlog_count();
            self.counters.dropped_group_full += group.backlog.len() as u64;
            let group = self.groups.remove(index);
            self.memory.discards.push(group.backlog, Some(DropReason::GroupFull));
            self.flow.router.unsubscribe(&filter, Subscriber::Group(index));
            self.withdraw(now, &filter);
            self.count_left_in_group(left_count);
            return;
        }
        self.serve_group(now, text);
    }

    /// Takes messages from a group's owner for sessions here. Messages whose client has left meanwhile go back.
    pub(super) fn on_member_mail(&mut self, now: Instant, from: ShardId, batch: &Batch) {
        let mut stranded: Vec<(GroupKey, Batch)> = Vec::new();
        let mut reader = batch.reader();
        while let Some((address, message)) = reader.next_addressed() {
            if self.give_member(now, &address, &message) {
                continue;
            }
            match stranded.iter_mut().find(|(group, _)| *group == address.group) {
                Some((_, returned)) => returned.push(&message),
                None => {
                    let mut returned = Batch::default();
                    returned.push(&message);
                    stranded.push((address.group, returned));
                }
            }
        }
        for (group, returned) in stranded {
            self.flow.outbox.control(from, Control::Stranded { group, returned });
        }
    }

    /// Gives a message to a member; returns whether its client is there to take it.
    fn give_member(&mut self, now: Instant, address: &Address, message: &Message<'_>) -> bool {
        let number = address.options.membership;
        let is_there = self
            .clients
            .session(address.session)
            .is_some_and(|session| session.connection().is_some() && session.is_member(number));
        if !is_there {
            return false;
        }
        if !self.is_delivered(now, address.session, message) {
            self.clients.use_place(address.session, number);
            return true;
        }
        let envelope = address.options.envelope(message.meta.qos, message.meta.retain);
        let mut context = self.delivery.context(now, &self.limits, &mut self.counters);
        let offer = self.clients.offer(address.session, &mut context, message, envelope);
        if offer != Some(Offer::Queued) {
            self.clients.use_place(address.session, number);
        }
        true
    }

    /// Takes back messages that did not find their member, to the front of their group.
    pub(super) fn on_stranded(&mut self, now: Instant, key: GroupKey, returned: &Batch) {
        let stored = self.stored_of(now, returned);
        let Some(group) = self.groups.get(key.index).filter(|group| group.key == key) else {
            self.counters.dropped_group_full += stored.len() as u64;
            for stored in &stored {
                self.delivery.drops.push(None, stored.message().topic, DropReason::GroupFull);
            }
            return;
        };
        take_back(group, stored, &mut self.delivery.context(now, &self.limits, &mut self.counters));
        let text = group.text.clone();
        self.serve_group(now, &text);
    }

    /// Copies of the messages of a batch, as many as the shard may keep.
    pub(super) fn stored_of(&mut self, now: Instant, batch: &Batch) -> Vec<Stored> {
        let context = self.delivery.context(now, &self.limits, &mut self.counters);
        let mut reader = batch.reader();
        let mut stored = Vec::with_capacity(batch.count);
        while let Some(message) = reader.next() {
            if context.may_store_behind(stored.len(), &message) {
                stored.push(Stored::from_message(&message, context.stored));
            } else {
                context.counters.dropped_stored_full += 1;
                context.drops.push(None, message.topic, DropReason::StoreFull);
            }
        }
        stored
    }
}

fn batch_of(messages: &[Stored]) -> Batch {
    let mut batch = Batch::default();
    for stored in messages {
        batch.push(&stored.message());
    }
    batch
}
