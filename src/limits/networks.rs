//! Addresses and networks that an operator names: `10.1.0.0/16`, `::1`.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A set of addresses; those of IPv4 that come as IPv6 are taken for what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(Cow<'static, [IpNet]>);

impl Networks {
    /// This machine alone.
    pub const LOOPBACK: Networks = Networks(Cow::Borrowed(&[
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    ]));

    /// An address, or a network as `address/bits`; bits behind the network's are no matter.
    pub fn parse_one(text: &str) -> Option<IpNet> {
        match text.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address.to_canonical())),
            Err(_) => text.parse::<IpNet>().ok().and_then(canonical),
        }
    }

    pub fn of(list: Vec<IpNet>) -> Networks {
        Networks(list.into())
    }

    pub fn list(&self) -> &[IpNet] {
        &self.0
    }

    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// A network of IPv4 that is written as one of IPv6 is what it is; one that reaches beyond those has no meaning.
fn canonical(network: IpNet) -> Option<IpNet> {
    let network = network.trunc();
    match network {
        IpNet::V6(six)
            if Ipv6Net::new_assert(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96).contains(&six) =>
        {
            let IpAddr::V4(address) = network.addr().to_canonical() else { return None };
            Ipv4Net::new(address, six.prefix_len() - 96).ok().map(IpNet::V4)
        }
        _ => Some(network),
    }
}

/// A network that is one address is written as one.
pub struct Shown<'a>(pub &'a IpNet);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => write!(f, "{}", self.0.addr()),
            false => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv4_is_one_however_it_is_written() {
        for text in ["::ffff:10.0.0.1", "::ffff:10.0.0.0/104"] {
            let networks = Networks::of(vec![Networks::parse_one(text).unwrap()]);
            assert!(networks.has("10.0.0.1".parse().unwrap()), "{text}");
            assert!(!networks.has("11.0.0.1".parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_set_has_the_addresses_of_its_networks() {
        let list = ["10.1.2.3/16", "192.0.2.7", "2001:db8::/32"];
        let networks =
            Networks::of(list.iter().map(|text| Networks::parse_one(text).unwrap()).collect());
        let shown: Vec<_> = networks.list().iter().map(|one| Shown(one).to_string()).collect();
        assert_eq!(shown, ["10.1.0.0/16", "192.0.2.7", "2001:db8::/32"]);
        for (address, expected) in [
            ("10.1.255.1", true),
            ("::ffff:10.1.0.1", true),
            ("10.2.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:1::1", true),
            ("::1", false),
        ] {
            assert_eq!(networks.has(address.parse().unwrap()), expected, "{address}");
        }
        for address in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert!(Networks::LOOPBACK.has(address.parse().unwrap()), "{address}");
        }
        assert!(!Networks::LOOPBACK.has("10.0.0.1".parse().unwrap()));
        for text in ["", "10.0.0.1/33", "::/129", "localhost", "10.0.0.1:1883", "10.1/16"] {
            assert_eq!(Networks::parse_one(text), None, "{text}");
        }
    }
}
