//! The ports of the sample site: the usual ones if they are free on the loopback addresses of its nodes, else ones that the kernel chooses.
//!
//! A port is free at the moment of the check; it is not reserved until the site's processes listen on it.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
};

/// The nodes of the sample site that each service listens on.
const DATABASE: &[Ipv4Addr] = &[Ipv4Addr::new(127, 0, 0, 11)];
const APP: &[Ipv4Addr] = &[Ipv4Addr::new(127, 0, 0, 12), Ipv4Addr::new(127, 0, 0, 13)];
const FRONT: &[Ipv4Addr] = &[Ipv4Addr::new(127, 0, 0, 11)];
/// How often the kernel is asked for a port that is free on several addresses.
const TRIES: usize = 100;

/// The ports of the sample's services, which are vars of its `site.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) database: u16,
    pub(super) app: u16,
    pub(super) front: u16,
}

/// The ports in `docs/examples/quickstart`.
pub(super) const USUAL: Ports = Ports { database: 17432, app: 17480, front: 17400 };

impl Ports {
    /// Ports that are free now.
    ///
    /// # Errors
    /// The loopback addresses cannot be bound at all.
    pub(super) fn free() -> io::Result<Self> {
        Ok(Self {
            database: free_or_any(USUAL.database, DATABASE)?,
            app: free_or_any(USUAL.app, APP)?,
            front: free_or_any(USUAL.front, FRONT)?,
        })
    }

    /// The ports of a `site.toml`; the usual one for each that it does not have.
    pub(super) fn of(site_toml: &str) -> Self {
        let vars = site_toml.parse::<toml::Table>().unwrap_or_default();
        let port = |name: &str| u16::try_from(vars.get("vars")?.get(name)?.as_integer()?).ok();
        Self {
            database: port("db_port").unwrap_or(USUAL.database),
            app: port("app_port").unwrap_or(USUAL.app),
            front: port("front_port").unwrap_or(USUAL.front),
        }
    }

    /// Replaces the usual ports in the text of a file of the sample.
    pub(super) fn fill_in(self, text: &str) -> String {
        [(USUAL.database, self.database), (USUAL.app, self.app), (USUAL.front, self.front)]
            .into_iter()
            .fold(text.to_owned(), |text, (usual, port)| text.replace(&usual.to_string(), &port.to_string()))
    }

    /// Another free port for the database, to suggest as an edit: the next one, if it is free.
    pub(super) fn next_database(self) -> u16 {
        let next = self.database.checked_add(1).unwrap_or(USUAL.database);
        free_or_any(next, DATABASE).unwrap_or(next)
    }
}

/// `port` if it is free on all addresses, else one that is.
fn free_or_any(port: u16, addresses: &[Ipv4Addr]) -> io::Result<u16> {
    match bind(port, addresses) {
        Ok(_) => Ok(port),
        // The kernel knows a free port of one address only; whether the others have it as well is tried.
        Err(_) => (0..TRIES).map(|_| bind(0, addresses)).find_map(Result::ok).ok_or_else(|| {
            let no_port = format!(
                "no port is free on {}",
                addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            );
            io::Error::new(io::ErrorKind::AddrInUse, no_port)
        }),
    }
}

/// Binds the same port on all addresses for a moment, and returns it; 0 means any that the first of them has free.
fn bind(port: u16, addresses: &[Ipv4Addr]) -> io::Result<u16> {
    let mut port = port;
    let mut bound = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind((*address, port))?;
        port = listener.local_addr()?.port();
        bound.push(listener);
    }
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_replaced_by_a_free_one() {
        let taken = TcpListener::bind((APP[1], 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let other = free_or_any(port, APP).unwrap();
        assert_ne!(other, port);
        drop(taken);
        assert_eq!(free_or_any(port, APP).unwrap(), port);
    }

    #[test]
    fn ports_are_written_to_the_site_and_read_back() {
        let text = include_str!("../../../../docs/examples/quickstart/site.toml");
        assert_eq!(Ports::of(text), USUAL, "the example and the constants differ");
        let ports = Ports { database: 40_001, app: 40_002, front: 40_003 };
        let filled = ports.fill_in(text);
        assert_eq!(Ports::of(&filled), ports);
        assert!(!filled.contains("174"), "{filled}");
        assert_eq!(Ports::of("not TOML"), USUAL);
    }
}
