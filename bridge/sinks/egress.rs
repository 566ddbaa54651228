//! Where sinks may send: public addresses, and what the operator allows besides.
//!
//! The rule is applied to the address that is connected to, after the name was resolved, so that a name that turns to
//! a private address between check and use (DNS rebinding) gains nothing. Ranges: the IANA special-purpose registries
//! (RFC 6890 and its successors), with 6to4 and NAT64, through which private IPv4 addresses could be reached.

use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use crate::config::Network;

/// Why a sink may not connect.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("{host} is at {address}, which is no public address; hint: add its network to egress.allow")]
    Blocked { host: String, address: IpAddr },
    #[error("{host} has no address")]
    NoAddress { host: String },
}

const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Network {
    Network::new(IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), prefix)
}

const fn v6(a: u16, b: u16, c: u16, last: u16, prefix: u8) -> Network {
    Network::new(IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last)), prefix)
}

const BLOCKED: [Network; 29] = [
    v4(0, 0, 0, 8),              // this network
    v4(10, 0, 0, 8),             // private
    v4(100, 64, 0, 10),          // carrier-grade NAT, where some clouds keep their metadata
    v4(127, 0, 0, 8),            // loopback
    v4(169, 254, 0, 16),         // link-local: cloud metadata
    v4(172, 16, 0, 12),          // private
    v4(192, 0, 0, 24),           // protocol assignments
    v4(192, 0, 2, 24),           // documentation
    v4(192, 88, 99, 24),         // 6to4 relays
    v4(192, 168, 0, 16),         // private
    v4(198, 18, 0, 15),          // benchmarks
    v4(198, 51, 100, 24),        // documentation
    v4(203, 0, 113, 24),         // documentation
    v4(224, 0, 0, 4),            // multicast
    v4(240, 0, 0, 4),            // reserved, and broadcast
    v6(0, 0, 0, 0, 128),         // unspecified
    v6(0, 0, 0, 1, 128),         // loopback
    v6(0x64, 0xff9b, 0, 0, 96),  // NAT64
    v6(0x64, 0xff9b, 1, 0, 48),  // NAT64, local
    v6(0x100, 0, 0, 0, 64),      // discard
    v6(0x2001, 0, 0, 0, 23),     // protocol assignments, Teredo
    v6(0x2001, 0xdb8, 0, 0, 32), // documentation
    v6(0x2002, 0, 0, 0, 16),     // 6to4
    v6(0x3fff, 0, 0, 0, 20),     // documentation
    v6(0x5f00, 0, 0, 0, 16),     // segment routing
    v6(0xfc00, 0, 0, 0, 7),      // unique local
    v6(0xfe80, 0, 0, 0, 10),     // link-local
    v6(0xfec0, 0, 0, 0, 10),     // site-local, which some stacks still route
    v6(0xff00, 0, 0, 0, 8),      // multicast
];

/// Whether a sink may connect to this address. A mapped IPv4 address is judged as what it stands for.
#[must_use]
pub fn is_allowed(address: IpAddr, allow: &[Network]) -> bool {
    let address = address.to_canonical();
    // The IPv4-compatible form (`::10.0.0.1`) is obsolete; what is left of ::/96 has no public meaning either.
    let compatible = matches!(address, IpAddr::V6(v6) if v6.segments()[..6].iter().all(|part| *part == 0));
    allow.iter().any(|network| network.contains(address))
        || !(compatible || BLOCKED.iter().any(|network| network.contains(address)))
}

/// The rule, as the name resolver of an HTTP client: it gives only addresses that a sink may connect to.
#[derive(Debug, Clone)]
pub struct Guard {
    allow: Arc<[Network]>,
}

impl Guard {
    #[must_use]
    pub fn new(allow: &[Network]) -> Self {
        Self { allow: allow.into() }
    }

    /// For a host that is an address already: those are never resolved, so the resolver does not see them.
    pub fn check_literal(&self, host: &str) -> Result<(), Error> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) if !is_allowed(address, &self.allow) => Err(Error::Blocked { host: host.to_owned(), address }),
            _ => Ok(()),
        }
    }

    fn choose(&self, host: &str, resolved: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Error> {
        let Some(first) = resolved.first().map(SocketAddr::ip) else {
            return Err(Error::NoAddress { host: host.to_owned() });
        };
        let allowed: Vec<_> = resolved.into_iter().filter(|address| is_allowed(address.ip(), &self.allow)).collect();
        if allowed.is_empty() {
            return Err(Error::Blocked { host: host.to_owned(), address: first });
        }
        Ok(allowed)
    }
}

impl Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move {
            let resolved = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(guard.choose(name.as_str(), resolved)?.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_allowed() {
        for (address, expected) in [
            ("8.8.8.8", true),
            ("1.1.1.1", true),
            ("172.15.255.255", true),
            ("172.32.0.0", true),
            ("100.63.255.255", true),
            ("100.128.0.0", true),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("100.64.0.1", false),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.0.0.8", false),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("192.168.1.1", false),
            ("198.19.0.1", false),
            ("203.0.113.9", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700:4700::1111", true),
            ("2001:4860:4860::8888", true),
            ("::", false),
            ("::1", false),
            ("::10.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::a00:1", false),
            ("64:ff9b:1::1", false),
            ("100::1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("2002:a00:1::", false),
            ("3fff::1", false),
            ("5f00::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_allowed(address.parse().unwrap(), &[]), expected, "{address}");
        }
    }

    #[test]
    fn the_operator_may_allow_a_network() {
        let allow = ["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (address, expected) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("fd12::1", true),
            ("fc12::1", false),
        ] {
            assert_eq!(is_allowed(address.parse().unwrap(), &allow), expected, "{address}");
        }
        assert!(is_allowed("10.0.0.1".parse().unwrap(), &["0.0.0.0/0".parse().unwrap()]));
        assert!(is_allowed("::1".parse().unwrap(), &["::/0".parse().unwrap()]));
    }

    #[test]
    fn a_literal_address_is_checked_without_a_resolver() {
        let guard = Guard::new(&[]);
        for host in ["127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "169.254.169.254"] {
            assert!(guard.check_literal(host).is_err(), "{host}");
        }
        for host in ["8.8.8.8", "crm.example.com", "[2606:4700:4700::1111]"] {
            assert_eq!(guard.check_literal(host), Ok(()), "{host}");
        }
    }

    #[test]
    fn of_a_name_only_allowed_addresses_are_kept() {
        let guard = Guard::new(&[]);
        let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let kept = guard.choose("mixed", addresses(&["10.0.0.1:0", "8.8.8.8:0"])).unwrap();
        assert_eq!(kept, addresses(&["8.8.8.8:0"]));
        assert!(matches!(guard.choose("inside", addresses(&["10.0.0.1:0"])), Err(Error::Blocked { .. })));
        assert!(matches!(guard.choose("nowhere", vec![]), Err(Error::NoAddress { .. })));
    }
}
