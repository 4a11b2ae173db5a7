//! Just enough of Keystone's API (<https://docs.openstack.org/api-ref/identity/v3/>) over plain HTTP: tokens, requested and validated
//! from outside the hosts, as any client would.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};

/// How long one answer may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Keystone and its administrator.
pub(super) struct Identity {
    address: SocketAddr,
    password: String,
}

/// An answer: status, headers and body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Identity {
    pub(super) fn at(host: Ipv4Addr, password: &str) -> Self {
        Self { address: (host, 5000).into(), password: password.to_owned() }
    }

    /// Has a token issued to the administrator for their project.
    ///
    /// # Panics
    /// If there is any other answer than 201 with a token.
    pub(super) fn issue(&self) -> String {
        let domain = json!({ "id": "default" });
        let user = json!({ "name": "admin", "domain": domain, "password": self.password });
        let request = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": user } },
            "scope": { "project": { "name": "admin", "domain": domain } },
        }});
        let answer = self.ask("POST", "", &request.to_string());
        assert_eq!(answer.status, 201, "{}\n{}", answer.head, answer.body);
        answer.header("x-subject-token").expect("a token in X-Subject-Token")
    }

    /// Keystone's description of a token.
    ///
    /// # Panics
    /// If there is any other answer than 200: the token is not valid.
    pub(super) fn validate(&self, token: &str) -> Value {
        let answer = self.ask("GET", &format!("X-Auth-Token: {token}\r\nX-Subject-Token: {token}\r\n"), "");
        assert_eq!(answer.status, 200, "{}\n{}", answer.head, answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    fn ask(&self, method: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE).expect("a connection to Keystone");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let request = format!(
            "{method} /v3/auth/tokens HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             {headers}\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}

/// What memcached answers to a command (its `protocol.txt`).
pub(super) fn memcached(host: Ipv4Addr, command: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&(host, 11211).into(), PATIENCE).expect("a connection to memcached");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream.write_all(format!("{command}\r\nquit\r\n").as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

impl Answer {
    fn header(&self, name: &str) -> Option<String> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned()))
    }
}
