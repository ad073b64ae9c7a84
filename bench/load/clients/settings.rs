//! What the command line asks for, looked at: addresses, ids, topics and times of many clients.

use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{SystemTime, UNIX_EPOCH};

use ringmq::codec::{ProtocolVersion, QoS};
use ringmq::topic;

use super::options::{CommonOptions, ConnOptions, PASSWORD_VARIABLE, PubOptions, SubOptions};
use crate::machine::now_ns;
use crate::message::LONG_HEAD_SIZE;

const MS: u64 = 1_000_000;

const CLOCK_LOOKS: usize = 20;

/// The size of a topic on the wire is a u16.
const SIZE_MAX: usize = u16::MAX as usize;

#[derive(Clone, Debug)]
pub(super) enum Role {
    Conn,
    Pub(Publishing),
    Sub(Subscribing),
}

#[derive(Clone, Debug)]
pub(super) struct Publishing {
    pub topic: String,
    pub qos: QoS,
    pub retain: bool,
    /// What is sent, unless it is made for each message.
    pub payload: Vec<u8>,
    /// The payload is made for each message, so that it can be verified.
    pub is_sealed: bool,
    /// 0: as fast as they are taken.
    pub interval_ns: u64,
    pub inflight_max: usize,
    /// Of all clients; 0: no end.
    pub limit: u64,
    pub waits_for_all: bool,
    pub random_wait_ns: [u64; 2],
}

#[derive(Clone, Debug)]
pub(super) struct Subscribing {
    pub filters: Vec<String>,
    pub qos: QoS,
    pub limit: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub role: Role,
    pub targets: Vec<SocketAddr>,
    pub sources: Vec<IpAddr>,
    pub version: ProtocolVersion,
    pub count: usize,
    pub start_number: u64,
    /// From one connection's begin to the next.
    pub connect_interval_ns: f64,
    pub connect_retries: u32,
    pub reconnects: u32,
    id_prefix: String,
    pub user_name: Option<String>,
    pub password: Option<String>,
    pub keep_alive_s: u16,
    pub clean: bool,
    pub session_expiry_s: u32,
    /// Tells the messages of this run from those of another: 23 bits.
    pub run: u64,
    /// Wall clock less the bench's own, nanoseconds.
    wall_offset_ns: u64,
}

impl Settings {
    pub(super) fn conn(options: &ConnOptions) -> Result<Settings, String> {
        Settings::new(Role::Conn, "conn", &options.common, options.shortids)
    }

    pub(super) fn publishing(options: &PubOptions) -> Result<Settings, String> {
        options.check()?;
        let topic = options.topic.clone().unwrap_or_default();
        let is_sealed = options.message.is_none() && options.size >= LONG_HEAD_SIZE;
        let payload = match &options.message {
            Some(text) => text.clone().into_bytes(),
            None => vec![b'a'; options.size],
        };
        if payload.len() > 64 << 20 {
            return Err("a payload has at most 64 MiB".to_string());
        }
        let role = Role::Pub(Publishing {
            topic,
            qos: qos_of(options.qos),
            retain: options.retain,
            payload,
            is_sealed,
            interval_ns: u64::from(options.interval_of_msg) * MS,
            inflight_max: match options.inflight {
                0 => usize::from(u16::MAX),
                most => usize::from(most),
            },
            limit: options.limit,
            waits_for_all: options.wait_before_publishing,
            random_wait_ns: [options.min_random_wait, options.max_random_wait]
                .map(|ms| u64::from(ms) * MS),
        });
        let settings = Settings::new(role, "pub", &options.common, options.shortids)?;
        if let Role::Pub(Publishing { topic, .. }) = &settings.role {
            let example = settings.expand(topic, settings.start_number + 1, Some(1))?;
            if topic::check_name(&example, SIZE_MAX, SIZE_MAX).is_err() {
                return Err(format!(
                    "--topic {topic}: {example:?} is no topic that one publishes to"
                ));
            }
        }
        Ok(settings)
    }

    pub(super) fn subscribing(options: &SubOptions) -> Result<Settings, String> {
        let role = Role::Sub(Subscribing {
            filters: options.topic.clone(),
            qos: qos_of(options.qos),
            limit: options.limit,
        });
        let settings = Settings::new(role, "sub", &options.common, options.shortids)?;
        for filter in &options.topic {
            if filter.contains("%s") {
                return Err(format!("--topic {filter}: %s is for messages, and a filter has none"));
            }
            let example = settings.expand(filter, settings.start_number + 1, None)?;
            if topic::parse_filter(&example, SIZE_MAX, SIZE_MAX).is_err() {
                return Err(format!("--topic {filter}: {example:?} is no topic filter"));
            }
        }
        Ok(settings)
    }

    fn new(
        role: Role,
        name: &str,
        common: &CommonOptions,
        shortids: bool,
    ) -> Result<Settings, String> {
        common.not_had.check()?;
        let mut targets = Vec::new();
        for host in &common.host {
            let wrong = |error| format!("--host {host}: {error}");
            let found = (host.as_str(), common.port).to_socket_addrs().map_err(wrong)?;
            let found: Vec<SocketAddr> = found.collect();
            // A name with addresses of both kinds is mostly listened to at the older one.
            let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
            targets.push(*chosen.ok_or_else(|| format!("--host {host}: the name has no address"))?);
        }
        let run = random();
        let environment = || std::env::var(PASSWORD_VARIABLE).ok();
        let password = common.password.clone().map(|secret| secret.0).or_else(environment);
        let version = match common.version {
            3 => ProtocolVersion::V31,
            4 => ProtocolVersion::V311,
            _ => ProtocolVersion::V5,
        };
        if password.is_some() && common.username.is_none() && version != ProtocolVersion::V5 {
            return Err("a password needs a --username before MQTT 5".to_string());
        }
        let count = common.count as usize;
        let settings = Settings {
            role,
            targets,
            sources: common.ifaddr.clone(),
            version,
            count,
            start_number: common.startnumber.into(),
            connect_interval_ns: match common.connrate {
                0.0 => f64::from(common.interval) * MS as f64,
                rate => 1e9 / rate,
            },
            connect_retries: common.num_retry_connect,
            reconnects: common.reconnect,
            id_prefix: id_prefix(name, common, version, shortids, run),
            user_name: common.username.clone(),
            password,
            keep_alive_s: common.keepalive,
            clean: common.clean,
            session_expiry_s: common.session_expiry,
            run: run & ((1 << 23) - 1),
            wall_offset_ns: wall_offset_ns(),
        };
        settings.check_ports()?;
        Ok(settings)
    }

    /// On the loopback without `--ifaddr` further addresses are taken as they are needed.
    fn check_ports(&self) -> Result<(), String> {
        let is_loopback = self.targets.iter().all(|target| target.ip().is_loopback());
        if is_loopback && self.sources.is_empty() && self.targets[0].is_ipv4() {
            return Ok(());
        }
        let range =
            fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let mut ends = range.split_whitespace().filter_map(|end| end.parse::<usize>().ok());
        let (Some(first), Some(last)) = (ends.next(), ends.next()) else { return Ok(()) };
        let ports = (last + 1).saturating_sub(first) * self.targets.len();
        let addresses = self.sources.len().max(1);
        if self.count <= ports * addresses {
            return Ok(());
        }
        Err(format!(
            "{} clients need more than the {ports} ports that a source address has: name {} \
             addresses with --ifaddr, or widen /proc/sys/net/ipv4/ip_local_port_range",
            self.count,
            self.count.div_ceil(ports.max(1)),
        ))
    }

    /// Nanoseconds of the wall clock as it was when the run began, and steadily on from there.
    pub(super) fn wall_ns(&self, now_ns: u64) -> u64 {
        self.wall_offset_ns + now_ns
    }

    pub(super) fn client_id(&self, number: u64) -> String {
        format!("{}{number}", self.id_prefix)
    }

    /// A topic of a client. `message`: which of all messages it is for.
    pub(super) fn expand(
        &self,
        topic: &str,
        number: u64,
        message: Option<u64>,
    ) -> Result<String, String> {
        if !topic.contains('%') {
            return Ok(topic.to_string());
        }
        let mut expanded = topic.replace("%i", &number.to_string());
        if let Some(message) = message {
            expanded = expanded.replace("%s", &message.to_string());
        }
        if expanded.contains("%u") {
            let name = self.user_name.as_ref();
            let name = name.ok_or_else(|| format!("--topic {topic}: %u needs a --username"))?;
            expanded = expanded.replace("%u", name);
        }
        Ok(expanded.replace("%c", &self.client_id(number)))
    }
}

fn qos_of(qos: u8) -> QoS {
    QoS::from_bits(qos).expect("the command line lets no other pass")
}

/// Of several looks at both clocks the one between which the least time passed: whoever is put off the processor between
/// them is wrong by that.
fn wall_offset_ns() -> u64 {
    let look = || {
        let before = now_ns();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let after = now_ns();
        (after - before, (wall.as_nanos() as u64).saturating_sub(before + (after - before) / 2))
    };
    let (_, offset_ns) = (0..CLOCK_LOOKS).map(|_| look()).min().unwrap_or_default();
    offset_ns
}

/// Not to be foreseen, and different in each process.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) & u64::from(u32::MAX)
}

fn id_prefix(
    name: &str,
    common: &CommonOptions,
    version: ProtocolVersion,
    shortids: bool,
    random: u64,
) -> String {
    let prefix = common.prefix.as_deref().filter(|prefix| !prefix.is_empty());
    match (shortids, prefix) {
        (true, prefix) => prefix.unwrap_or_default().to_string(),
        (false, Some(prefix)) => format!("{prefix}_bench_{name}_"),
        // An id has 23 characters at most there.
        (false, None) if version == ProtocolVersion::V31 => format!("b{random:08x}_"),
        (false, None) => {
            let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let source = common.ifaddr.first().map(ToString::to_string);
            let host = source.unwrap_or_else(|| host.trim().to_string());
            format!("{host}_bench_{name}_{random}_")
        }
    }
}
