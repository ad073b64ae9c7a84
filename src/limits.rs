//! Every bound of the core in one place: what an operator may set, and how the bounds relate.

pub mod networks;
pub mod relation;
pub mod size;
pub mod sizes;

pub use networks::Networks;
pub use relation::Contradiction;
pub use size::Size;
pub use sizes::Sizes;

/// The most shards a broker can have: a set of shards is one 128-bit word.
pub const SHARD_COUNT_MAX: usize = 128;

/// The largest packet that MQTT can express: a fixed header of 5 bytes and a remaining length of 268,435,455.
pub const PACKET_SIZE_CEILING: usize = 5 + 268_435_455;

/// The longest text that MQTT can express, a topic for instance.
pub const TEXT_SIZE_CEILING: usize = 65_535;

/// How much of a text that a client, a remote or a plugin wrote is shown in a line of the log.
pub const LOGGED_TEXT_SIZE_MAX: usize = 256;

/// What a client may still send on a connection that was closed, before it has read why.
pub const LINGER_BYTES_MAX: usize = 1 << 20;

/// What a packet of which a part has arrived brings in each period of one and a half keep alives, unless its end comes in it:
/// so much counts as a packet, or slow networks would never get a large one through. [MQTT-3.1.2-22]
pub const PACKET_PROGRESS_MIN: usize = 1_000;

/// Brokers that hand a message on from one to the next by MQTT 5.0: behind so many it is dropped.
pub const HOPS_MAX: usize = 24;

/// What a client may publish while publishers wait for a full store, and its own acknowledgements stand behind that: more
/// than the sockets of both sides hold.
pub const PUBLISHED_AHEAD_MAX: usize = 16 << 20;

/// Where a limit is met, one address that left more than this part of all sessions behind makes room for others.
pub const SESSION_SHARE: usize = 8;

/// Of connections without CONNECT, those of an address that has more than this part of all go first.
pub const CONNECTING_SHARE: usize = 8;

/// A client, or an address, that has so many times what is left free of wills or retained messages gets no more of them.
pub const FREE_SHARE: usize = 8;

/// Steps that no packet, timer or piece of mail takes in one go, but for the delivery of a message to its receivers.
pub const CALL_STEPS_MAX: u64 = 250_000;

/// Filters of a SUBSCRIBE or UNSUBSCRIBE. Each costs a few bytes and some steps, so the size of a packet does not keep it within
/// `CALL_STEPS_MAX`.
pub const PACKET_FILTERS_MAX: usize = 32_768;

/// What happens to a message for a session whose queue is full, once no QoS 0 message is left to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuePolicy {
    /// The arriving message is dropped.
    DropNewest,
    /// The oldest waiting message is dropped.
    DropOldest,
}

/// The bounds of one shard and of its sessions. Sizes are in bytes, times as named.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest packet accepted from a client, fixed header included.
    pub packet_size_max: usize,
    /// Highest QoS that clients may publish with, and are granted: 0, 1 or 2.
    pub qos_max: u8,
    /// Largest CONNECT, fixed header included; see `connect_packet_size_max`.
    pub connect_size_max: usize,
    /// QoS 1 and 2 publishes that a client may have unacknowledged towards us.
    pub receive_max: u16,
    /// QoS 1 and 2 publishes that we have unacknowledged towards a client, whatever it allows.
    pub inflight_max: u16,
    /// PUBLISH packets of a client within a second, and their bytes; 0: no limit. Over them it is not read.
    pub message_rate_max: u32,
    pub byte_rate_max: u32,
    /// Topic aliases that a client may define towards us.
    pub topic_alias_max: u16,
    /// Topic aliases that we define towards a client, whatever it allows.
    pub topic_alias_out_max: u16,
    /// Cap of the session expiry interval, seconds.
    pub session_expiry_max_s: u32,
    /// Session expiry of a 3.1 or 3.1.1 client without clean session, seconds.
    pub session_expiry_v3_s: u32,
    /// Longest keep alive; a client that asks for more, or for none, is told this one. 0: no limit.
    pub keep_alive_max_s: u16,
    /// Messages queued per session.
    pub queue_messages_max: usize,
    /// Bytes queued per session.
    pub queue_bytes_max: usize,
    pub queue_policy: QueuePolicy,
    /// QoS 0 messages are queued for a session whose client is away.
    pub queue_qos0_offline: bool,
    /// Output buffered per connection; at least one largest packet may pass it.
    pub output_size_max: usize,
    pub retained_messages_max: usize,
    pub retained_bytes_max: usize,
    pub subscriptions_per_client_max: usize,
    /// Subscriptions of a session that one topic may match: filters whose wildcards stand at the same levels count as one.
    pub overlapping_subscriptions_max: usize,
    /// Subscriptions may have wildcards.
    pub wildcard_available: bool,
    /// Levels in front of a subscription's first wildcard, at least.
    pub wildcard_depth_min: usize,
    /// Subscriptions may have identifiers.
    pub subscription_ids_available: bool,
    /// Subscriptions may be shared.
    pub shared_available: bool,
    /// Topic filters and topic names: bytes.
    pub filter_size_max: usize,
    /// Topic filters and topic names: levels.
    pub filter_levels_max: usize,
    /// Sessions on this shard, connected or not.
    pub sessions_max: usize,
    /// Connections on this shard.
    pub connections_max: usize,
    /// What is shared is counted by client and by address; if not, by client alone.
    pub shares_by_address: bool,
    /// CONNECTs with one client id from one address within the window after which it is banned for a time; 0: no limit.
    pub flapping_connects_max: u32,
    pub flapping_window_s: u32,
    pub flapping_ban_s: u32,
    /// Time that turns may take before clients without a session are turned away; 0: any.
    pub turn_time_max_ms: u64,
    /// CONNECTs on this shard that wait for the answer of a plugin.
    pub questions_max: usize,
    /// Time from accept to a whole CONNECT, and to the answer of a plugin that answers later.
    pub connect_timeout_ms: u64,
    /// Time from the first byte of any later packet to its last.
    pub packet_time_max_ms: u64,
    /// Time a closing connection has for its last bytes, and then its client to read them.
    pub linger_ms: u64,
    /// Closed connections that are read until their clients close, too.
    pub lingering_max: usize,
    /// Time without any progress after which a broker that ends waits for a client's acknowledgements no longer.
    pub shutdown_stall_ms: u64,
    /// Bytes of an old connection that are read before another takes its client over.
    pub takeover_bytes_max: usize,
    /// Steps of work that a turn gives one connection, or one session that goes on by itself, before others get theirs.
    pub turn_steps_max: u64,
    /// Messages of at least this size get an allocation of their own and leave by reference.
    pub large_message_size: usize,
    /// Per shard in total: messages that wait in session queues or in flight (a shared copy counts once).
    pub shard_stored_bytes_max: usize,
    /// Per shard in total: output buffers; above it a connection with an empty one gets a message at a time.
    pub shard_output_bytes_max: usize,
    /// Per shard in total, as memory: clients' frames of which a part has arrived, and input that waits.
    pub shard_frames_bytes_max: usize,
    /// Per shard in total, as memory: CONNECTs of which a part has arrived.
    pub shard_connects_bytes_max: usize,
    /// Per shard in total: wills.
    pub shard_wills_bytes_max: usize,
    /// Per shard in total, as memory: sessions, subscriptions, aliases, windows of packet ids, what is known of other shards'
    /// subscriptions, and remembered routes.
    pub shard_metadata_bytes_max: usize,
    /// Messages that wait in a shared group for a member with room.
    pub group_messages_max: usize,
    pub group_bytes_max: usize,
    /// Places of a shared group's member: messages the group's owner may send it before it says it has room.
    pub group_credit_max: u16,
    /// `$SYS` interval, milliseconds; 0: no `$SYS`.
    pub sys_interval_ms: u64,
    /// Refuse a PUBLISH that is marked as UTF-8 and is not.
    pub payload_format_checked: bool,
    /// Where clients come from that are believed when they say that they are bridges.
    pub bridges_from: Networks,
}

impl Limits {
    /// What holds unless the operator says otherwise.
    pub const DEFAULT: Limits = Limits {
        packet_size_max: 1 << 20,
        qos_max: 2,
        connect_size_max: 128 << 10,
        receive_max: 1024,
        inflight_max: 1024,
        message_rate_max: 0,
        byte_rate_max: 0,
        topic_alias_max: 64,
        topic_alias_out_max: 32,
        session_expiry_max_s: 7 * 24 * 3600,
        session_expiry_v3_s: 24 * 3600,
        keep_alive_max_s: 0,
        queue_messages_max: 10_000,
        queue_bytes_max: 16 << 20,
        queue_policy: QueuePolicy::DropNewest,
        queue_qos0_offline: false,
        output_size_max: 256 << 10,
        retained_messages_max: 1_000_000,
        retained_bytes_max: 256 << 20,
        subscriptions_per_client_max: 10_000,
        overlapping_subscriptions_max: 256,
        wildcard_available: true,
        wildcard_depth_min: 0,
        subscription_ids_available: true,
        shared_available: true,
        filter_size_max: 4096,
        filter_levels_max: 128,
        sessions_max: 1_000_000,
        // What the usual hard open-file limit of 524,288 has room for.
        connections_max: 100_000,
        shares_by_address: true,
        flapping_connects_max: 0,
        flapping_window_s: 60,
        flapping_ban_s: 300,
        turn_time_max_ms: 0,
        questions_max: 10_000,
        connect_timeout_ms: 10_000,
        // What the largest packet of the defaults takes at 2 kB/s, and some more.
        packet_time_max_ms: 600_000,
        linger_ms: 2_000,
        lingering_max: 1_000,
        shutdown_stall_ms: 5_000,
        takeover_bytes_max: 8 << 20,
        turn_steps_max: 50_000,
        large_message_size: 32 << 10,
        shard_stored_bytes_max: 512 << 20,
        shard_output_bytes_max: 256 << 20,
        shard_frames_bytes_max: 64 << 20,
        shard_connects_bytes_max: 16 << 20,
        shard_wills_bytes_max: 64 << 20,
        shard_metadata_bytes_max: 256 << 20,
        group_messages_max: 10_000,
        group_bytes_max: 16 << 20,
        group_credit_max: 128,
        sys_interval_ms: 10_000,
        payload_format_checked: true,
        bridges_from: Networks::LOOPBACK,
    };
}

impl Limits {
    /// Whether any message of a client can be retained.
    pub const fn retain_available(&self) -> bool {
        self.retained_messages_max > 0 && self.retained_bytes_max > 0
    }

    /// A CONNECT may be no larger than any packet.
    pub const fn connect_packet_size_max(&self) -> usize {
        if self.connect_size_max < self.packet_size_max {
            self.connect_size_max
        } else {
            self.packet_size_max
        }
    }

    /// What the absent may have of the store: all but a quarter, which is for clients that take what they get.
    pub const fn absent_bytes_max(&self) -> usize {
        self.shard_stored_bytes_max - self.shard_stored_bytes_max / 4
    }

    /// How far the absent may pass it until those that hold most have lost enough.
    pub const fn absent_bytes_ceiling(&self) -> usize {
        self.absent_bytes_max() + self.shard_stored_bytes_max / 16
    }

    /// Above it publishers wait, so that the rest is for what is on its way already.
    pub const fn stored_bytes_mark(&self) -> usize {
        self.shard_stored_bytes_max - self.shard_stored_bytes_max / 8
    }

    /// Below it they go on.
    pub const fn stored_bytes_low(&self) -> usize {
        self.absent_bytes_ceiling()
    }

    /// Of metadata, what a shard may hold of other shards' subscriptions.
    pub const fn metadata_interest_max(&self, shard_count: u16) -> usize {
        if shard_count > 1 { self.shard_metadata_bytes_max / 8 * 3 } else { 0 }
    }

    /// Of metadata, what remembered routes may hold.
    pub const fn metadata_routes_max(&self) -> usize {
        self.shard_metadata_bytes_max / 8
    }

    /// Of metadata, what the clients of one of so many shards may cause there.
    pub const fn metadata_own_max(&self, shard_count: u16) -> usize {
        let others = self.metadata_interest_max(shard_count) + self.metadata_routes_max();
        self.shard_metadata_bytes_max - others
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}
