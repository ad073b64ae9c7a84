//! The table of keys, in the order in which they are printed.

use super::*;

/// Every key, in the order in which they are printed: by group.
pub static KEYS: &[Key] = &[
    Key {
        name: "listen",
        group: Group::Network,
        kind: Kind::Addresses,
        effect: Effect::Restart,
        explanation: "Where clients connect. Anyone who reaches it may publish and subscribe. [::] is IPv6 only; port 0: any free one.",
        get: |settings| Value::Addresses(settings.listen.clone()),
        set: |settings, value| {
            let Value::Addresses(list) = value else { panic!("the kind reads addresses") };
            settings.listen = list;
        },
    },
    Key {
        name: "connections_max",
        group: Group::Network,
        kind: count(1, 10_000_000),
        effect: Effect::Restart,
        explanation: "Connections of the whole broker; each needs an open file.",
        get: |settings| Value::Number(settings.connections_max as u64),
        set: |settings, value| {
            settings.connections_max = number(&value);
            settings.limits.connections_max = number(&value);
        },
    },
    setting!(
        Network,
        connections_per_address_max,
        count(0, 10_000_000),
        "Connections at a time from one address (IPv6: one /64). 0: no limit, as behind a load balancer."
    ),
    setting!(
        Network,
        connect_rate_per_address_max,
        count(0, 1_000_000),
        "Connections that one address (IPv6: one /64) may open within a second. 0: no limit."
    ),
    Key {
        name: "bridges_from",
        group: Group::Network,
        kind: Kind::Networks,
        effect: Effect::Reload,
        explanation: "Where brokers are whose bridges are believed where a message has been: by 5.0, loops with others end by content.",
        get: |settings| Value::Networks(settings.limits.bridges_from.clone()),
        set: |settings, value| {
            let Value::Networks(networks) = value else { panic!("the kind reads networks") };
            settings.limits.bridges_from = networks;
        },
    },
    limit_flag!(
        Network,
        shares_by_address,
        "At a limit the address (IPv6: /64) that holds most loses first, not only the client. false: behind several balancers."
    ),
    limit!(
        Network,
        connect_timeout_ms,
        Kind::Time { unit: Milliseconds, min: 100, max: 600_000 },
        "Time from connecting to the end of a client's CONNECT packet, and to the answer of a plugin that answers it later."
    ),
    limit!(
        Network,
        packet_time_max_ms,
        Kind::Time { unit: Milliseconds, min: 1_000, max: 604_800_000 },
        "Time that a packet may take to arrive while its client keeps sending. The default fits 1 MiB at 2 kB/s."
    ),
    limit!(
        Network,
        linger_ms,
        Kind::Time { unit: Milliseconds, min: 0, max: 60_000 },
        "Time that a connection being closed has for its last bytes, and its client to read them and close, too."
    ),
    limit!(
        Network,
        lingering_max,
        count(0, 1_000_000),
        "Closed connections on each shard that are read on until their clients close, too: then those learn why."
    ),
    Key {
        name: "shutdown_max_ms",
        group: Group::Network,
        kind: Kind::Time { unit: Milliseconds, min: 1_000, max: 3_600_000 },
        effect: Effect::Restart,
        explanation: "Time that the broker takes at most to end: clients get what waits for them. Below what ends it by force.",
        get: |settings| Value::Number(settings.shutdown_max_ms),
        set: |settings, value| settings.shutdown_max_ms = number(&value),
    },
    limit!(
        Network,
        shutdown_stall_ms,
        Kind::Time { unit: Milliseconds, min: 0, max: 3_600_000 },
        "Time that a broker that ends waits for a client that acknowledges nothing and takes no bytes."
    ),
    limit!(
        Network,
        takeover_bytes_max,
        size(64 * KIB, GIB),
        "What a client has sent on its old connection and is still used when it connects again."
    ),
    limit!(
        Network,
        keep_alive_max_s,
        Kind::Time { unit: Seconds, min: 0, max: 65_535 },
        "Longest keep alive; a client that asks for more, or for none, is given this one. 0: no limit."
    ),
    Key {
        name: "tcp_rto_max_ms",
        group: Group::Network,
        kind: Kind::Time { unit: Milliseconds, min: 1_000, max: 120_000 },
        effect: Effect::Restart,
        explanation: "Longest time between two retransmissions, so within which a client that reads again is noticed (Linux 6.15).",
        get: |settings| Value::Number(settings.tcp.rto_max_ms.into()),
        set: |settings, value| settings.tcp.rto_max_ms = number(&value),
    },
    Key {
        name: "tcp_user_timeout_ms",
        group: Group::Network,
        kind: Kind::Time { unit: Milliseconds, min: 10_000, max: 604_800_000 },
        effect: Effect::Restart,
        explanation: "Time that a connection may take nothing of what was sent to it (some 15 minutes with a closed window).",
        get: |settings| Value::Number(settings.tcp.user_timeout_ms.into()),
        set: |settings, value| settings.tcp.user_timeout_ms = number(&value),
    },
    Key {
        name: "cores",
        group: Group::Workers,
        kind: Kind::Cores,
        effect: Effect::Restart,
        explanation: "The cores that workers are pinned to. \"all\": every core that the process may use.",
        get: |settings| Value::Cores(settings.cores.clone()),
        set: |settings, value| {
            let Value::Cores(list) = value else { panic!("the kind reads cores") };
            settings.cores = list;
        },
    },
    setting!(
        Workers,
        shards,
        count(0, SHARD_COUNT_MAX as u64),
        "Independent parts of the broker, each with a worker. 0: one for each core; more share the cores."
    ),
    Key {
        name: "io",
        group: Group::Workers,
        kind: Kind::Choice(IoMode::WORDS),
        effect: Effect::Restart,
        explanation: "How the kernel is asked for input and output. auto: io_uring, or epoll with a warning where that is refused.",
        get: |settings| settings.io.word(),
        set: |settings, value| settings.io = IoMode::from_word(&value),
    },
    Key {
        name: "wait",
        group: Group::Workers,
        kind: Kind::Choice(WaitMode::WORDS),
        effect: Effect::Restart,
        explanation: "How an idle worker waits. spin never sleeps: only for cores that belong to the broker alone.",
        get: |settings| settings.wait.word(),
        set: |settings, value| settings.wait = WaitMode::from_word(&value),
    },
    setting!(
        Workers,
        spin_us,
        Kind::Time { unit: Microseconds, min: 0, max: 1_000_000 },
        "With wait = \"adaptive\": how long a worker looks for work before it sleeps."
    ),
    setting!(
        Workers,
        stall_max_ms,
        Kind::Time { unit: Milliseconds, min: 0, max: 86_400_000 },
        "Time after which a worker that does nothing, as in a plugin that never returns, is named in the log. 0: never."
    ),
    Key {
        name: "stall_action",
        group: Group::Workers,
        kind: Kind::Choice(StallAction::WORDS),
        effect: Effect::Restart,
        explanation: "What follows: the process ends with exit code 3, for its supervisor to start it again, or the others go on.",
        get: |settings| settings.stall_action.word(),
        set: |settings, value| settings.stall_action = StallAction::from_word(&value),
    },
    setting!(
        Workers,
        ring_entries,
        // The kernel takes four times as many completions, and at most 65,536.
        Kind::PowerOfTwo { min: 64, max: 16_384 },
        "Submission queue entries of each shard's io_uring."
    ),
    setting!(
        Workers,
        receive_buffers,
        Kind::PowerOfTwo { min: 16, max: 32_768 },
        "Receive buffers of each shard, shared by its connections; before Linux 6.18 each receive takes a whole one."
    ),
    setting!(
        Workers,
        receive_buffer_size,
        size(512, MIB),
        "Size of a receive buffer: the most that is taken from one connection at once."
    ),
    limit!(
        Packets,
        packet_size_max,
        size(256, PACKET_SIZE_CEILING as u64),
        "Largest packet accepted from a client, its fixed header included."
    ),
    limit!(
        Packets,
        qos_max,
        count(0, 2),
        "Highest QoS: 5.0 clients that publish above it are refused (0x9B), others' messages are delivered at it."
    ),
    limit!(
        Packets,
        connect_size_max,
        size(256, PACKET_SIZE_CEILING as u64),
        "Largest CONNECT: a will and a token as password must fit. Never more than packet_size_max."
    ),
    limit!(
        Packets,
        receive_max,
        count(1, 65_535),
        "QoS 1 and 2 messages that a client may have unacknowledged towards the broker."
    ),
    limit!(
        Packets,
        inflight_max,
        count(1, 65_535),
        "QoS 1 and 2 messages that the broker has unacknowledged towards a client, whatever it allows."
    ),
    limit!(
        Packets,
        message_rate_max,
        count(0, 1_000_000_000),
        "Messages that a client may publish within a second; then it is not read for a while. 0: no limit."
    ),
    limit!(
        Packets,
        byte_rate_max,
        size(0, 2 * GIB),
        "Bytes that a client may publish within a second; then it is not read for a while. 0: no limit."
    ),
    limit!(
        Packets,
        topic_alias_max,
        count(0, 1_024),
        "Topic aliases that a client may define (MQTT 5); each may hold a topic of filter_size_max bytes. 0: none."
    ),
    limit!(
        Packets,
        topic_alias_out_max,
        count(0, 65_535),
        "Topic aliases that the broker defines towards a client, whatever it allows (MQTT 5). 0: none."
    ),
    limit!(Packets, filter_size_max, count(1, 65_535), "Bytes of a topic or topic filter."),
    limit!(Packets, filter_levels_max, count(1, 65_535), "Levels of a topic or topic filter."),
    limit_flag!(
        Packets,
        payload_format_checked,
        "Refuse a message that is marked as UTF-8 text and is not (MQTT 5)."
    ),
    limit!(
        Packets,
        turn_steps_max,
        count(1_000, 1_000_000_000),
        "Steps of work, such as a message to a subscriber or a filter looked at, that a turn gives one connection."
    ),
    limit!(
        Sessions,
        sessions_max,
        count(1, 100_000_000),
        "Sessions on each shard, their clients connected or not."
    ),
    limit!(
        Sessions,
        flapping_connects_max,
        count(0, 1_000_000),
        "Connects of a client id from one address within flapping_window_s; then both together are banned. 0: no limit."
    ),
    limit!(
        Sessions,
        flapping_window_s,
        Kind::Time { unit: Seconds, min: 1, max: 86_400 },
        "The time in which flapping_connects_max counts."
    ),
    limit!(
        Sessions,
        flapping_ban_s,
        Kind::Time { unit: Seconds, min: 1, max: 604_800 },
        "How long a client that connects too often is banned from its address (0x8A). Its session stays."
    ),
    limit!(
        Sessions,
        turn_time_max_ms,
        Kind::Time { unit: Milliseconds, min: 0, max: 60_000 },
        "Mean time of a shard's turns above which clients without a session are turned away (0x89). 0: none are."
    ),
    limit!(
        Sessions,
        questions_max,
        count(1, 1_000_000),
        "CONNECTs on each shard that wait for plugins that answer later; one above is refused (0x89)."
    ),
    limit!(
        Sessions,
        session_expiry_max_s,
        Kind::Time { unit: Seconds, min: 0, max: u32::MAX as u64 },
        "Longest time that a session outlives its connection. 4294967295: for ever."
    ),
    limit!(
        Sessions,
        session_expiry_v3_s,
        Kind::Time { unit: Seconds, min: 0, max: u32::MAX as u64 },
        "The same for MQTT 3.1 and 3.1.1 clients that ask for a lasting session: they cannot say how long."
    ),
    limit!(
        Sessions,
        subscriptions_per_client_max,
        count(1, 10_000_000),
        "Subscriptions of a session."
    ),
    limit_flag!(
        Sessions,
        wildcard_available,
        "Subscriptions may have wildcards. If not, they are refused (0xA2; 0x80 before MQTT 5)."
    ),
    limit!(
        Sessions,
        wildcard_depth_min,
        count(0, 65_535),
        "Levels in front of a subscription's first wildcard, at least: 1 refuses # and +/a (0x8F). 0: none are needed."
    ),
    limit_flag!(
        Sessions,
        subscription_ids_available,
        "Subscriptions may have identifiers (MQTT 5). If not, they are refused (0xA1)."
    ),
    limit_flag!(
        Sessions,
        shared_available,
        "Subscriptions may be shared. If not, they are refused (0x9E; 0x80 before MQTT 5)."
    ),
    limit!(
        Sessions,
        overlapping_subscriptions_max,
        count(1, 10_000_000),
        "Subscriptions of a session that one topic may match. Filters whose wildcards stand at the same levels count as one."
    ),
    limit!(
        Queues,
        queue_messages_max,
        count(1, 100_000_000),
        "Messages that wait for a session's client."
    ),
    limit!(
        Queues,
        queue_bytes_max,
        size(KIB, TIB),
        "Bytes of messages that wait for a session's client."
    ),
    Key {
        name: "queue_policy",
        group: Group::Queues,
        kind: Kind::Choice(QueuePolicy::WORDS),
        effect: Effect::Reload,
        explanation: "What a full queue does once it holds no QoS 0 message: refuse the new one, or drop the oldest.",
        get: |settings| settings.limits.queue_policy.word(),
        set: |settings, value| settings.limits.queue_policy = QueuePolicy::from_word(&value),
    },
    limit_flag!(
        Queues,
        queue_qos0_offline,
        "Queue QoS 0 messages, too, while a session's client is away."
    ),
    limit!(
        Queues,
        output_size_max,
        size(4 * KIB, GIB),
        "Output buffered for a connection; then its messages wait in the session's queue."
    ),
    limit!(
        Queues,
        group_messages_max,
        count(1, 100_000_000),
        "Messages that wait in a shared subscription for a member that can take one."
    ),
    limit!(
        Queues,
        group_bytes_max,
        size(KIB, TIB),
        "Bytes of messages that wait in a shared subscription."
    ),
    limit!(
        Queues,
        group_credit_max,
        count(1, 65_535),
        "Messages that a shared subscription hands to a member before that says it can take more."
    ),
    limit!(
        Retained,
        retained_messages_max,
        count(0, 1_000_000_000),
        "Retained messages of clients on each shard. 0: none are kept, and 5.0 clients that send one are refused (0x9A)."
    ),
    limit!(
        Retained,
        retained_bytes_max,
        size(0, 16 * TIB),
        "Bytes of clients' retained messages on each shard. What the broker says below $SYS has room of its own."
    ),
    Key {
        name: "data_dir",
        group: Group::Memory,
        kind: Kind::Text { size_min: 1, size_max: 4_096 },
        effect: Effect::Restart,
        explanation: "Folder for what outlives the process: the logs and client ids of bridges, below bridges/NAME. Made when it is needed.",
        get: |settings| Value::Text(settings.data_dir.display().to_string()),
        set: |settings, value| {
            let Value::Text(text) = value else { panic!("the kind reads texts") };
            settings.data_dir = text.into();
        },
    },
    setting!(
        Memory,
        memory_max,
        size(0, 16 * TIB),
        "Memory of the whole process, sockets included; near it nothing grows, nobody new is let in. 0: 3/4 of what may be used."
    ),
    capacity!(
        Memory,
        arena_size,
        size(64 * KIB, 64 * GIB),
        "Ring of the messages on their way; touched only as far as used."
    ),
    capacity!(
        Memory,
        arena_slots,
        Kind::PowerOfTwo { min: 64, max: 1 << 24 },
        "Messages on their way at once."
    ),
    limit!(
        Memory,
        large_message_size,
        size(KIB, PACKET_SIZE_CEILING as u64),
        "From this size on, a message has an allocation of its own and is sent without a copy."
    ),
    capacity!(
        Memory,
        route_cache_max,
        count(1, 16_777_216),
        "Topics whose subscribers are remembered."
    ),
    capacity!(
        Memory,
        mail_bytes_mark,
        size(4 * KIB, GIB),
        "Bytes that wait for another shard before publishers are made to wait."
    ),
    limit!(
        Memory,
        shard_stored_bytes_max,
        size(64 * KIB, 16 * TIB),
        "All messages that wait or are unacknowledged; one for many counts once. A quarter is for clients that read."
    ),
    limit!(
        Memory,
        shard_output_bytes_max,
        size(64 * KIB, 16 * TIB),
        "All output buffers; above it each connection gets one message at a time."
    ),
    limit!(
        Memory,
        shard_frames_bytes_max,
        size(64 * KIB, 16 * TIB),
        "All packets of which only a part has arrived; above it the connection of the slowest is closed."
    ),
    limit!(
        Memory,
        shard_connects_bytes_max,
        size(4 * KIB, 16 * TIB),
        "All CONNECTs of which only a part has arrived; above it the oldest one's connection is closed."
    ),
    limit!(Memory, shard_wills_bytes_max, size(4 * KIB, 16 * TIB), "All wills."),
    limit!(
        Memory,
        shard_metadata_bytes_max,
        size(64 * KIB, 16 * TIB),
        "Sessions, subscriptions, aliases, packet ids, and what is known of other shards' subscriptions; above it, 0x97."
    ),
    Key {
        name: "log_level",
        group: Group::Reports,
        kind: Kind::Choice(LogLevel::WORDS),
        effect: Effect::Restart,
        explanation: "What is written to stderr; debug has a line for each connection.",
        get: |settings| settings.log_level.word(),
        set: |settings, value| settings.log_level = LogLevel::from_word(&value),
    },
    Key {
        name: "log_format",
        group: Group::Reports,
        kind: Kind::Choice(LogFormat::WORDS),
        effect: Effect::Restart,
        explanation: "human: lines to read; json: one object a line.",
        get: |settings| settings.log_format.word(),
        set: |settings, value| settings.log_format = LogFormat::from_word(&value),
    },
    limit!(
        Reports,
        sys_interval_ms,
        Kind::Time { unit: Milliseconds, min: 0, max: 86_400_000 },
        "How often the $SYS topics are published. 0: never."
    ),
];
