//! Faults of readiness probes that their types do not show.

use groundplan_protocol::ready::{Ready, TcpTarget};

use crate::diagnostic::{Diagnostic, Location};

/// Whether `text` is a template, so that its value is known only once it is rendered.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// The faults of a probe. `place` returns where a key of it stands, and for the empty name the probe itself; `host` is whether a port
/// alone has a host to belong to.
pub fn faults(ready: &Ready, host: bool, place: &dyn Fn(&str) -> Location) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    if ready.is_empty() {
        faults.push(Diagnostic::new(place(""), "the probe probes nothing").hint("give `tcp`, `http` or `command`"));
    }
    if let Some(target) = &ready.tcp
        && let Some((message, hint)) = tcp_fault(target, host)
    {
        faults.push(Diagnostic::new(place("tcp"), message).hint(hint));
    }
    if let Some(url) = ready.http.as_deref().filter(|url| !is_template(url))
        && !url.strip_prefix("http://").is_some_and(|rest| !rest.starts_with('/') && is_plain(rest))
    {
        faults.push(
            Diagnostic::new(place("http"), format!("`{}` is not an http:// URL", crate::hint::excerpt(url)))
                .hint("write it in full, such as \"http://127.0.0.1:5000/v3/\"; https is not probed"),
        );
    }
    faults
}

/// What is wrong with a TCP target, and what to do.
fn tcp_fault(target: &TcpTarget, host: bool) -> Option<(String, &'static str)> {
    const NO_HOST: &str = "a port alone, and no address that it belongs to";
    let port = |digits: &str| digits.parse::<u16>().is_ok_and(|port| port > 0);
    let lone = match target {
        TcpTarget::Port(0) => return Some(("there is no port 0".to_owned(), "give a port from 1 to 65535")),
        TcpTarget::Port(_) => true,
        TcpTarget::Address(text) if is_template(text) => false,
        TcpTarget::Address(text) if port(text) => true,
        TcpTarget::Address(text) => {
            let whole = text.rsplit_once(':').is_some_and(|(host, digits)| is_plain(host) && port(digits));
            if !whole {
                let message = format!("`{}` is not a TCP address", crate::hint::excerpt(text));
                return Some((message, "write \"host:port\", or a port alone"));
            }
            false
        }
    };
    (lone && !host).then(|| (NO_HOST.to_owned(), "add `address = \"…\"` beside `ready`, or write \"host:port\""))
}

/// Whether `text` may be the name or address of a host.
pub fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}
