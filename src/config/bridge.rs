//! One bridge to another broker, as an operator describes it: a `[[bridge]]` table.

mod keys;
mod print;
mod read;

use std::fmt;
use std::path::PathBuf;

use super::url;

pub use print::print_example;
pub use read::read;

/// Bits of a word stand for bridges.
pub const BRIDGE_COUNT_MAX: usize = 64;
/// Rules of one direction.
pub const RULE_COUNT_MAX: usize = 4096;

/// Everything that is known of a bridge before it connects. Sizes are in bytes, times as named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSettings {
    /// Unique; one level of a topic, and of a path.
    pub name: String,
    /// Tried in turn, the first one first.
    pub addresses: Vec<RemoteAddress>,
    pub protocol: BridgeProtocol,
    /// Empty: `own_client_id`.
    pub client_id: String,
    /// What was made for this bridge and holds where `client_id` is empty; no key. Empty: `ringmq-NAME`.
    pub own_client_id: String,
    pub user_name: Option<String>,
    pub password: Option<Secret>,
    /// The remote forgets the session at each connect: QoS 2 is then not exactly once over a lost link.
    pub clean_start: bool,
    /// How long the remote keeps the session; 5.0 only.
    pub session_expiry_s: u32,
    /// 0: none.
    pub keep_alive_s: u16,
    /// QoS 1 and 2 messages that the remote may have unacknowledged towards us; 5.0 only.
    pub receive_max: u16,
    /// QoS 1 and 2 messages that we have unacknowledged towards the remote, whatever it allows.
    pub inflight_max: u16,
    /// Largest packet in either direction; the remote may allow less.
    pub packet_size_max: usize,
    /// Topic aliases that the remote may define; 5.0 only.
    pub topic_alias_max: u16,
    /// Topic aliases that we define, whatever the remote allows; 5.0 only.
    pub topic_alias_out_max: u16,
    /// Time from the first try of an address to its CONNACK.
    pub connect_timeout_ms: u64,
    /// Pause before the first try to reconnect; it doubles from there.
    pub reconnect_min_ms: u64,
    pub reconnect_max_ms: u64,
    /// A message that the remote refuses for now is sent again for so long, then set aside; 0: for ever.
    pub refused_max_s: u64,
    /// So often the remote may close in a row over one message; then it is set aside. 0: for ever.
    pub poison_closes_max: u32,
    /// Of the file of messages that were set aside.
    pub aside_bytes_max: u64,
    /// Connections side by side; a topic always takes the same one.
    pub connections: u16,
    /// Messages that come back over a bridge are recognised and not sent on.
    pub echo_detection: bool,
    /// User properties of CONNECT; 5.0 only.
    pub connect_properties: Vec<(String, String)>,
    /// User properties behind those of each forwarded message; 5.0 only.
    pub message_properties: Vec<(String, String)>,
    /// The first rule that means a topic holds.
    pub forward: Vec<RuleSettings>,
    /// The first rule that means a topic holds.
    pub subscribe: Vec<RuleSettings>,
    /// Messages of one connection that wait in memory.
    pub memory_messages_max: usize,
    pub memory_bytes_max: usize,
    /// Empty: `bridges/NAME` below `Settings::data_dir`.
    pub spool_dir: PathBuf,
    /// Of one connection's log, as are the next two.
    pub spool_bytes_max: u64,
    pub spool_messages_max: u64,
    pub spool_segment_size: u64,
    pub spool_sync: SpoolSync,
    /// With `SpoolSync::Interval`.
    pub spool_sync_ms: u64,
    pub when_full: WhenFull,
    /// Where its table stands, for messages.
    pub file: String,
    pub line: usize,
}

/// A host name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteAddress {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeProtocol {
    V311,
    V5,
}

/// When the log is on the disk, not merely with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolSync {
    /// Before a batch's messages are acknowledged.
    EachBatch,
    /// Every `spool_sync_ms`.
    Interval,
    /// When the kernel sees fit.
    Never,
}

/// What happens to a message that the log has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest waiting message makes room.
    DropOldest,
    /// The arriving message is dropped.
    DropNewest,
    /// Whoever publishes to the bridge is not read until there is room.
    Hold,
}

/// What a bridge takes, and what it makes of it: a forward or a subscribe rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSettings {
    pub filter: String,
    pub topic: TopicRule,
    pub qos: QosRule,
    pub retain: RetainRule,
    /// Filters of topics that the rule leaves to those behind it.
    pub except: Vec<String>,
    /// Messages above QoS 0 go through the log; forward rules only.
    pub store: bool,
    /// Where it stands, for messages.
    pub line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicRule {
    Keep,
    /// In front of the topic.
    Prefix(String),
    /// `$1` to `$9` and `${10}` are what the wildcards stand for, `$#` the last of them, `$0` the topic, `$$` a dollar.
    Template(String),
}

/// QoS as 0, 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosRule {
    Keep,
    Max(u8),
    Set(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainRule {
    Keep,
    Set,
    Clear,
}

/// Text that does not show in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl BridgeSettings {
    /// A bridge that has nothing but its name: no address, no rule.
    pub fn new(name: &str) -> BridgeSettings {
        BridgeSettings {
            name: name.to_owned(),
            addresses: Vec::new(),
            protocol: BridgeProtocol::V5,
            client_id: String::new(),
            own_client_id: String::new(),
            user_name: None,
            password: None,
            clean_start: false,
            session_expiry_s: 7 * 24 * 3600,
            keep_alive_s: 60,
            receive_max: 1024,
            inflight_max: 1024,
            packet_size_max: 1 << 20,
            topic_alias_max: 64,
            topic_alias_out_max: 32,
            connect_timeout_ms: 10_000,
            reconnect_min_ms: 1_000,
            reconnect_max_ms: 60_000,
            refused_max_s: 3600,
            poison_closes_max: 5,
            aside_bytes_max: 16 << 20,
            connections: 1,
            echo_detection: true,
            connect_properties: Vec::new(),
            message_properties: Vec::new(),
            forward: Vec::new(),
            subscribe: Vec::new(),
            memory_messages_max: 10_000,
            memory_bytes_max: 16 << 20,
            spool_dir: PathBuf::new(),
            spool_bytes_max: 1 << 30,
            spool_messages_max: 10_000_000,
            spool_segment_size: 16 << 20,
            spool_sync: SpoolSync::EachBatch,
            spool_sync_ms: 100,
            when_full: WhenFull::DropOldest,
            file: String::new(),
            line: 0,
        }
    }

    /// The client id of the connection `index`, counted from 0.
    pub fn client_id_of(&self, index: u16) -> String {
        let (base, separator) = match (self.client_id.as_str(), self.own_client_id.as_str()) {
            ("", "") => (format!("ringmq-{}", self.name), '-'),
            // A letter: servers must take letters and digits, nothing else. [MQTT-3.1.3-5]
            ("", own) => (own.to_owned(), 'x'),
            (given, _) => (given.to_owned(), '-'),
        };
        if index == 0 { base } else { format!("{base}{separator}{index}") }
    }

    /// Whether some rule's messages go through a log.
    pub fn stores(&self) -> bool {
        self.forward.iter().any(|rule| rule.store)
    }
}

impl RuleSettings {
    /// Takes what `filter` means, as it is.
    pub fn new(filter: &str) -> RuleSettings {
        RuleSettings {
            filter: filter.to_owned(),
            topic: TopicRule::Keep,
            qos: QosRule::Keep,
            retain: RetainRule::Keep,
            except: Vec::new(),
            store: true,
            line: 0,
        }
    }
}

impl RemoteAddress {
    /// Reads `host:port`, `[::1]:port` or `host` alone, which means port 1883; `mqtt://` may stand in front.
    pub fn parse(text: &str) -> Option<RemoteAddress> {
        const PORT: u16 = 1883;
        let text = url::split(text).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
                (host, port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Some(PORT), |port| port.parse().ok().filter(|port| *port > 0))?;
        let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(is_host) {
            return None;
        }
        Some(RemoteAddress { host: host.to_owned(), port })
    }
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("broker.example:1884", "broker.example", 1884),
            ("broker_1", "broker_1", 1883),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("[::1]:1884", "::1", 1884),
            ("[fe80::1]", "fe80::1", 1883),
            ("mqtt://broker.example:1884", "broker.example", 1884),
        ] {
            let address = RemoteAddress::parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(RemoteAddress::parse(&address.to_string()), Some(address));
        }
        for text in [
            "",
            ":1883",
            "a:",
            "a:0",
            "a:65536",
            "a b",
            "::1",
            "[::1",
            "[x]:1",
            "mqtts://a:1",
            "mqtt://",
            "a/b",
        ] {
            assert_eq!(RemoteAddress::parse(text), None, "{text}");
        }
    }

    #[test]
    fn each_connection_has_a_client_id_of_its_own() {
        let mut settings = BridgeSettings::new("north");
        assert_eq!(settings.client_id_of(0), "ringmq-north");
        settings.own_client_id = "north4f".to_owned();
        assert_eq!(settings.client_id_of(0), "north4f");
        assert_eq!(settings.client_id_of(2), "north4fx2");
        settings.client_id = "site-7".to_owned();
        assert_eq!(settings.client_id_of(0), "site-7");
        assert_eq!(settings.client_id_of(2), "site-7-2");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let settings =
            BridgeSettings { password: Some(Secret("hush".into())), ..BridgeSettings::new("x") };
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
