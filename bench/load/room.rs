//! Whether a scenario's clients have room: open files, ports, connection tracking and the broker's own limits are looked at before
//! anything is started.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::broker::Found;
use crate::figures::grouped;
use crate::options::{Options, Subject};
use crate::scenario::{Kind, Scenario};
use crate::{client, limits, machine};

/// Sockets of the clients of a scenario, at a time.
pub(crate) fn sockets(scenario: &Scenario) -> usize {
    match scenario.kind {
        Kind::Traffic | Kind::Replay => scenario.publishers + scenario.subscribers,
        // Those that stall come besides.
        Kind::StalledSubscriber => scenario.publishers + scenario.subscribers + 2,
        Kind::ConnectStorm | Kind::Idle | Kind::ConnectRate => scenario.connections,
        Kind::ReconnectStorm | Kind::RetainedStorm => scenario.subscribers + 1,
    }
}

/// Refuses scenarios for which there is no room, and says what may be too little.
pub(crate) fn check(
    options: &Options,
    scenarios: &[Scenario],
    found: Option<&Found>,
) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    let kernel = Kernel::read(Path::new("/proc"), options.pid);
    for scenario in scenarios {
        let needed = sockets(scenario);
        let refused = |reason| format!("scenario {}: {reason}", scenario.name);
        machine::raise_open_files(needed).map_err(refused)?;
        kernel.check_broker_files(options.pid, needed).map_err(refused)?;
        let address =
            found.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |found| found.target.address.ip());
        kernel.check_ports(address, needed).map_err(refused)?;
        if found.is_none() && options.subject == Subject::Broker {
            check_own_limits(options, scenario).map_err(refused)?;
        }
        warnings.extend(kernel.tracking_warning(needed).map(refused));
    }
    Ok(warnings)
}

/// What the bench's own broker is configured to take.
fn check_own_limits(options: &Options, scenario: &Scenario) -> Result<(), String> {
    let limits = limits::settings(options, scenario)?.limits;
    let lasting = if scenario.kind == Kind::ReconnectStorm { scenario.subscribers } else { 0 };
    let retained = if scenario.kind == Kind::RetainedStorm { scenario.topics } else { 0 };
    let bytes = retained * (scenario.topic(0, 0).len() + scenario.payload);
    for (needed, most, key, what) in [
        (sockets(scenario), limits.connections_max, "connections-max", "connections"),
        (lasting, limits.sessions_max, "sessions-max", "sessions"),
        (retained, limits.retained_messages_max, "retained-messages-max", "retained messages"),
        (bytes, limits.retained_bytes_max, "retained-bytes-max", "bytes of retained messages"),
    ] {
        if needed > most {
            return Err(format!(
                "it needs {} {what}, and the broker takes {} ({}): --set {key}={needed}, or fewer of them",
                grouped(needed as f64),
                grouped(most as f64),
                key.replace('-', "_"),
            ));
        }
    }
    Ok(())
}

/// What the kernel gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kernel {
    /// Ports for connections from one address to another; `None`: not known.
    ports: Option<usize>,
    /// Places for tracked connections, and how many are taken; `None`: it tracks none.
    tracked: Option<(usize, usize)>,
    /// Files that the broker's process may open; `None`: not known.
    broker_files: Option<usize>,
}

impl Kernel {
    /// `proc`: the file system of that name. `broker`: a process.
    fn read(proc: &Path, broker: Option<u32>) -> Kernel {
        let number = |name: &str| {
            let text = fs::read_to_string(proc.join("sys/net/netfilter").join(name)).ok()?;
            text.trim().parse::<usize>().ok()
        };
        let limits =
            broker.and_then(|pid| fs::read_to_string(proc.join(format!("{pid}/limits"))).ok());
        let files = limits.as_deref().and_then(|limits| {
            let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
            line.split_whitespace().next()?.parse().ok()
        });
        Kernel {
            ports: client::port_count(proc),
            tracked: number("nf_conntrack_max").zip(number("nf_conntrack_count")),
            broker_files: files,
        }
    }

    fn check_broker_files(&self, pid: Option<u32>, needed: usize) -> Result<(), String> {
        let Some((pid, most)) = pid.zip(self.broker_files) else { return Ok(()) };
        // A broker opens some files besides.
        if needed + 16 <= most {
            return Ok(());
        }
        Err(format!(
            "it needs {} connections, and the broker's process {pid} may open {} files: start it with a higher limit \
             (ulimit -n {}; systemd: LimitNOFILE=), or use fewer clients",
            grouped(needed as f64),
            grouped(most as f64),
            needed + 256,
        ))
    }

    /// On 127.0.0.1 clients come from many addresses of 127.0.0.0/8; towards others the kernel picks one.
    fn check_ports(&self, broker: IpAddr, needed: usize) -> Result<(), String> {
        let Some(ports) = self.ports.filter(|_| broker != IpAddr::V4(Ipv4Addr::LOCALHOST)) else {
            return Ok(());
        };
        if needed <= ports {
            return Ok(());
        }
        Err(format!(
            "it needs {} connections to {broker}, and there are {} ports for them (net.ipv4.ip_local_port_range): widen it \
             with `sysctl -w net.ipv4.ip_local_port_range='1024 65535'`, use fewer clients, or start the bench on several hosts",
            grouped(needed as f64),
            grouped(ports as f64),
        ))
    }

    /// Where connections are tracked each takes a place, also on the loopback device.
    fn tracking_warning(&self, needed: usize) -> Option<String> {
        let (most, taken) = self.tracked?;
        let free = most.saturating_sub(taken);
        (needed > free).then(|| {
            format!(
                "it needs {} connections, and the kernel can track {} more (nf_conntrack_max is {most}): it may drop what \
                 is beyond; raise it with `sysctl -w net.netfilter.nf_conntrack_max={}`",
                grouped(needed as f64),
                grouped(free as f64),
                taken + 2 * needed,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn folder(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("room-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("in the folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        folder
    }

    #[test]
    fn what_the_kernel_gives_is_read() {
        let files = [
            ("sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("sys/net/netfilter/nf_conntrack_max", "65536\n"),
            ("sys/net/netfilter/nf_conntrack_count", "60000\n"),
            (
                "7/limits",
                "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n",
            ),
        ];
        let folder = folder("full", &files);
        let kernel = Kernel::read(&folder, Some(7));
        fs::remove_dir_all(&folder).expect("it is there");
        let (ports, tracked) = (Some(28_232), Some((65_536, 60_000)));
        assert_eq!(kernel, Kernel { ports, tracked, broker_files: Some(1024) });
        assert_eq!(Kernel::read(&folder, Some(7)), Kernel::default());
    }

    #[test]
    fn what_lacks_is_named_with_what_to_do() {
        let (ports, tracked) = (Some(28_232), Some((65_536, 60_000)));
        let kernel = Kernel { ports, tracked, broker_files: Some(1024) };
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let there = "10.0.0.1".parse().expect("an address");
        assert_eq!(kernel.check_ports(here, 100_000), Ok(()));
        assert_eq!(kernel.check_ports(there, 28_232), Ok(()));
        let said = kernel.check_ports(there, 28_233).expect_err("one too many");
        assert!(said.contains("ip_local_port_range") && said.contains("several hosts"), "{said}");
        assert_eq!(kernel.tracking_warning(5_536), None);
        let said = kernel.tracking_warning(5_537).expect("one too many");
        assert!(said.contains("nf_conntrack_max=71074"), "{said}");
        assert_eq!(kernel.check_broker_files(Some(7), 1008), Ok(()));
        let said = kernel.check_broker_files(Some(7), 1009).expect_err("one too many");
        assert!(said.contains("process 7") && said.contains("ulimit -n 1265"), "{said}");
        // What is not known is no reason.
        assert_eq!(Kernel::default().check_ports(there, 1_000_000), Ok(()));
        assert_eq!(Kernel::default().check_broker_files(Some(7), 1_000_000), Ok(()));
        assert_eq!(Kernel::default().tracking_warning(1_000_000), None);
    }

    #[test]
    fn more_than_the_benchs_own_broker_takes_is_refused_before_it_is_started() {
        let check = |scenario: &str, arguments: &[&str]| {
            let arguments = ["ringmq-bench"].iter().chain(arguments);
            let scenario: Scenario = toml::from_str(scenario).expect("a scenario");
            check_own_limits(&Options::parse_from(arguments), &scenario)
        };
        let rate = "kind = \"connect-rate\"\nconnections = 5000\nrate = 1.0";
        assert_eq!(check(rate, &[]), Ok(()));
        let said = check(rate, &["--set", "connections-max=4999"]).expect_err("one too many");
        assert!(said.contains("--set connections-max=5000"), "{said}");
        let retained = "kind = \"retained-storm\"\ntopics = 1000000\npayload = 1000";
        let said = check(retained, &[]).expect_err("a gigabyte");
        assert!(said.contains("retained_bytes_max"), "{said}");
        let sessions = "kind = \"reconnect-storm\"\nsubscribers = 100";
        let said = check(sessions, &["--set", "sessions-max=10"]).expect_err("too few");
        assert!(said.contains("--set sessions-max=100"), "{said}");
    }
}
