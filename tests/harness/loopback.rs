//! Loopback addresses that no other test on this machine uses, in this run or in another.
//!
//! In: nothing. Out: a net of 127.0.0.0/8 that belongs to the handle while it exists. Whatever listens there may use fixed ports, and may be
//! stopped and started again on the same one: no other program is given a port on these addresses.
//! The kernel keeps the claim, a listening socket in the net, and so ends it with the process, however that ends.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
    net::{Ipv4Addr, TcpListener},
};

/// Port of the claims, below those that the kernel hands out by itself (ip(7), ip_local_port_range).
const CLAIMS: u16 = 17399;
/// Last number of the address that holds the claim.
const CLAIM: u8 = 254;
/// Nets to choose from: 127.1.0 to 127.255.255. The net 127.0.0 is everybody's.
const NETS: u32 = 255 * 256;

/// A claimed net of 253 addresses.
#[derive(Debug)]
pub struct Loopback {
    net: [u8; 2],
    _claim: TcpListener,
}

impl Loopback {
    /// Claims a net that is free.
    ///
    /// # Panics
    /// If all are taken.
    pub fn claim() -> Self {
        // Begins anywhere, so that runs side by side seldom meet; which one it is does not matter.
        let first = RandomState::new().build_hasher().finish() as u32 % NETS;
        let nets = (0..NETS).map(|n| 256 + (first + n) % NETS).map(|net| [(net >> 8) as u8, net as u8]);
        let mut claims = nets.filter_map(|net| Self::of(net).ok());
        claims.next().expect("one of 65280 nets of loopback addresses is free")
    }

    /// Claims the addresses of the sample site, 127.0.0, once no other test has them.
    ///
    /// # Errors
    /// Another test has them.
    pub fn sample() -> io::Result<Self> {
        Self::of([0, 0])
    }

    fn of(net: [u8; 2]) -> io::Result<Self> {
        let claim = TcpListener::bind((Ipv4Addr::new(127, net[0], net[1], CLAIM), CLAIMS))?;
        Ok(Self { net, _claim: claim })
    }

    /// What all its addresses begin with, such as `127.4.7`.
    pub fn prefix(&self) -> String {
        format!("127.{}.{}", self.net[0], self.net[1])
    }

    /// An address by its last number, of 1 to 253.
    pub fn address(&self, last: u8) -> Ipv4Addr {
        assert!((1..CLAIM).contains(&last), "{last} is no address of a net");
        Ipv4Addr::new(127, self.net[0], self.net[1], last)
    }
}

#[test]
fn a_claimed_net_is_given_to_one_only() {
    let one = Loopback::claim();
    assert_eq!(Loopback::of(one.net).map(|_| ()).map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
    let other = Loopback::claim();
    assert_ne!(one.address(1), other.address(1));
    let net = one.net;
    drop(one);
    assert!(Loopback::of(net).is_ok());
}
