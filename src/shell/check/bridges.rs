//! Bridges: whether the shards have room for what the remotes may send, and whether each leads to a place of its own.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use super::{Finding, Level};
use crate::config::bridge::RemoteAddress;
use crate::config::{BridgeSettings, Settings};
use crate::limits::{Size, Sizes, TEXT_SIZE_CEILING};

const SUBJECT: &str = "bridges";

/// What is wrong with each, and with two of them together.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let Settings { bridges, sizes, listen, .. } = settings;
    let mut findings: Vec<_> = bridges.iter().filter_map(|one| judge(one, sizes)).collect();
    findings.extend(bridges.iter().filter_map(|bridge| judge_addresses(bridge, listen)));
    findings.extend(find_rivals(bridges));
    findings
}

/// A bridge that leads to this broker itself.
fn judge_addresses(bridge: &BridgeSettings, listen: &[SocketAddr]) -> Option<Finding> {
    let reaches = |address: &&RemoteAddress| {
        let ip = ip_of(address);
        // Here as well, but maybe not tomorrow: an address may move between machines.
        let is_here = ip.is_some_and(|ip| ip.is_loopback() || is_of_this_machine(ip));
        is_here && ip.is_some_and(|ip| is_listened_on(ip, address.port, listen))
    };
    let own: Vec<_> = bridge.addresses.iter().filter(reaches).collect();
    let is_certain = own.len() == bridge.addresses.len()
        && own.iter().all(|address| ip_of(address).is_some_and(|ip| ip.is_loopback()));
    let what = format!(
        "{}bridge {}: {} is this broker: what the bridge sends comes back",
        place(bridge),
        bridge.name,
        own.first()?
    );
    let level = if is_certain { Level::Fail } else { Level::Warn };
    let remedy = "name the other broker in addresses".to_owned();
    Some(Finding { subject: SUBJECT, level, what, remedy })
}

/// Two connections with one client id at one broker: each ends the other's, again and again.
fn find_rivals(bridges: &[BridgeSettings]) -> Vec<Finding> {
    let mut taken: HashMap<(String, u16, String), (&BridgeSettings, bool)> = HashMap::new();
    let mut findings = Vec::new();
    for bridge in bridges {
        let mut rival = None;
        for (index, address) in bridge.addresses.iter().enumerate() {
            let host = ip_of(address).map_or(address.host.to_lowercase(), |ip| ip.to_string());
            for connection in 0..bridge.connections {
                let key = (host.clone(), address.port, bridge.client_id_of(connection));
                let (other, is_first) = *taken.entry(key).or_insert((bridge, index == 0));
                if other.name != bridge.name && rival.is_none() {
                    rival = Some((other, address, connection, is_first && index == 0));
                }
            }
        }
        let Some((other, address, connection, is_certain)) = rival else { continue };
        let what = format!(
            "{}bridges {} and {} connect to {address} with one client id, {}: the remote ends the connection of each \
             when the other comes",
            place(bridge),
            other.name,
            bridge.name,
            bridge.client_id_of(connection)
        );
        let level = if is_certain { Level::Fail } else { Level::Warn };
        let remedy = "give each a client_id of its own".to_owned();
        findings.push(Finding { subject: SUBJECT, level, what, remedy });
    }
    findings
}

/// The address that a host means without a question to anybody.
fn ip_of(address: &RemoteAddress) -> Option<IpAddr> {
    let host = address.host.trim_end_matches('.');
    let is_own_name =
        || fs::read_to_string("/proc/sys/kernel/hostname").is_ok_and(|name| name.trim() == host);
    match host.parse() {
        Ok(ip) => Some(ip),
        Err(_) if host.eq_ignore_ascii_case("localhost") => Some(Ipv4Addr::LOCALHOST.into()),
        Err(_) if is_own_name() => Some(Ipv4Addr::LOCALHOST.into()),
        Err(_) => None,
    }
}

/// An address that can be listened on is one of this machine's.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_unspecified() || TcpListener::bind((ip, 0)).is_ok()
}

fn is_listened_on(ip: IpAddr, port: u16, listen: &[SocketAddr]) -> bool {
    let is_reached = |own: &SocketAddr| {
        let is_all = own.ip().is_unspecified() && own.is_ipv4() == ip.is_ipv4();
        // To connect to 0.0.0.0 is to connect to loopback.
        own.port() == port && (own.ip() == ip || is_all || ip.is_unspecified())
    };
    listen.iter().any(is_reached)
}

/// Where the bridge's table stands, in front of a sentence about it.
fn place(bridge: &BridgeSettings) -> String {
    match bridge.file.as_str() {
        "" => String::new(),
        file => format!("{file}, line {}: ", bridge.line),
    }
}

fn judge(bridge: &BridgeSettings, sizes: &Sizes) -> Option<Finding> {
    let (asked, room) = (bridge.packet_size_max, sizes.bridge_packet_size_max());
    if asked <= room {
        return None;
    }
    let what = format!(
        "{}bridge {}: packet_size_max ({}) is more than arena_size ({}) has room for: the bridge announces {} to its \
         remote and refuses what is larger",
        place(bridge),
        bridge.name,
        Size(asked as u64),
        Size(sizes.arena_size as u64),
        Size(room as u64)
    );
    let needed = Size((asked + TEXT_SIZE_CEILING).next_multiple_of(1 << 10) as u64);
    let remedy = format!(
        "raise arena_size to {needed}, or lower the bridge's packet_size_max to {}",
        Size(room as u64)
    );
    Some(Finding::warn(SUBJECT, what, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(name: &str, client_id: &str, connections: u16, addresses: &str) -> BridgeSettings {
        BridgeSettings {
            client_id: client_id.to_owned(),
            connections,
            addresses: addresses.split(' ').map(|one| RemoteAddress::parse(one).unwrap()).collect(),
            ..BridgeSettings::new(name)
        }
    }

    #[test]
    fn a_bridge_to_its_own_broker_is_found() {
        let listen =
            ["127.0.0.1:1883", "[::]:1884", "0.0.0.0:1885"].map(|one| one.parse().unwrap());
        for (addresses, level) in [
            ("127.0.0.1:1883", Some(Level::Fail)),
            ("localhost:1883", Some(Level::Fail)),
            ("LocalHost.:1885", Some(Level::Fail)),
            ("[::1]:1884", Some(Level::Fail)),
            ("127.0.0.2:1885 localhost:1883", Some(Level::Fail)),
            // One list for all sites.
            ("10.255.255.1:1883 127.0.0.1:1883", Some(Level::Warn)),
            ("0.0.0.0:1883", Some(Level::Warn)),
            ("127.0.0.2:1883", None),
            ("127.0.0.1:1884", None),
            ("127.0.0.1:1886", None),
            ("192.0.2.1:1885", None),
            ("broker.example:1883", None),
        ] {
            let found = judge_addresses(&bridge("north", "", 1, addresses), &listen);
            assert_eq!(
                found.as_ref().map(|finding| finding.level),
                level,
                "{addresses}: {found:?}"
            );
        }
    }

    #[test]
    fn two_bridges_with_one_client_id_at_one_remote_are_found() {
        let first = ("one", 2, "a.example:1883 b.example:1883");
        for (second, level) in [
            (("one", 1, "A.example:1883"), Some(Level::Fail)),
            (("one-1", 1, "a.example:1883"), Some(Level::Fail)),
            (("one", 1, "b.example:1883"), Some(Level::Warn)),
            (("one", 1, "a.example:1884"), None),
            (("two", 1, "a.example:1883"), None),
            (("", 1, "a.example:1883"), None),
        ] {
            let bridges = [("north", first), ("south", second)]
                .map(|(name, (id, count, addresses))| bridge(name, id, count, addresses));
            let found = find_rivals(&bridges);
            let levels: Vec<_> = found.iter().map(|finding| finding.level).collect();
            assert_eq!(levels, Vec::from_iter(level), "{found:?}");
            assert!(found.iter().all(|finding| finding.what.contains("north and south")));
        }
        assert!(find_rivals(&[bridge("north", "one", 2, "a:1 a:1 a:2")]).is_empty());
    }

    #[test]
    fn a_bridge_that_may_bring_more_than_the_arena_takes_is_a_warning() {
        let sizes = Sizes::DEFAULT;
        let room = sizes.bridge_packet_size_max();
        let bridge = |packet_size_max| BridgeSettings {
            packet_size_max,
            file: "here.toml".to_owned(),
            line: 7,
            ..BridgeSettings::new("north")
        };
        assert_eq!(judge(&bridge(room), &sizes), None);
        let finding = judge(&bridge(room + 1), &sizes).expect("a warning");
        assert_eq!(finding.level, Level::Warn);
        for words in ["here.toml, line 7", "bridge north", "packet_size_max", "arena_size (16MiB)"]
        {
            assert!(finding.what.contains(words), "{finding:?}");
        }
        let wider = Sizes { arena_size: 17 << 20, ..sizes };
        assert!(finding.remedy.contains("raise arena_size to 16385KiB"), "{finding:?}");
        assert_eq!(judge(&bridge(room + 1), &wider), None);
    }
}
