//! The connection: a task of its own that polls the client, and reconnects whenever the connection is lost.
//!
//! In: options. Out: signals, in order, through a bounded channel. A client and its event loop are used for one connection only:
//! what they still hold is dropped, because the outlet keeps what was not confirmed.

use std::{fs, net::IpAddr, time::Duration};

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, Publish, QoS, StateError,
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{TlsError, tls};
use crate::{
    config::{Broker, Login},
    log,
};

/// Requests that the client takes before `try_` calls refuse more.
const REQUESTS: usize = 32;
/// Most signals that wait for the shell; beyond that the connection is not read.
const SIGNALS: usize = 8;
/// Most publishes without a PUBACK.
const IN_FLIGHT: u16 = 16;
/// The first wait before a new attempt; doubled each time, up to `BACK_OFF_MAX`.
const BACK_OFF: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// An event of the connection.
#[derive(Debug)]
pub enum Signal {
    /// It was made.
    Up {
        /// The client to send with, until `Down`.
        client: AsyncClient,
        /// Whether the broker kept this client's session.
        session_present: bool,
    },
    /// It was lost or could not be made, with the reason.
    Down(String),
    /// A message came from the broker.
    Received(Publish),
    /// The broker has answered the oldest subscription that it had not answered.
    Subscribed {
        /// Whether it grants nothing.
        refused: bool,
    },
    /// The oldest publish that was not reported here yet was sent with this packet id.
    Sent(u16),
    /// The broker has confirmed the publish with this packet id.
    Confirmed(u16),
}

/// The handle of the connection's task; the connection ends with it.
#[derive(Debug)]
pub struct Link {
    options: MqttOptions,
    broker: Broker,
    signals: mpsc::Receiver<Signal>,
    task: JoinHandle<()>,
    seed: u64,
}

impl Link {
    /// Starts to connect, and reconnects for ever; `seed` is for the jitter of its waits.
    ///
    /// # Errors
    /// If the files of TLS or of the password cannot be used.
    pub fn start(
        broker: &Broker,
        client_id: String,
        keep_alive: Duration,
        will: (String, Vec<u8>),
        seed: u64,
    ) -> Result<Self, TlsError> {
        let mut options = MqttOptions::new(client_id, broker.address.host.clone(), broker.address.port);
        options
            .set_keep_alive(keep_alive)
            .set_clean_session(false)
            .set_manual_acks(true)
            .set_inflight(IN_FLIGHT)
            .set_max_packet_size(groundplan_protocol::MAX_PACKET, groundplan_protocol::MAX_PACKET)
            .set_last_will(LastWill::new(will.0, will.1, QoS::AtLeastOnce, true));
        // Once now, so that files that cannot be used end the agent with their names.
        prepared(&options, broker)?;
        if broker.login.is_some() && !broker.address.tls && !is_local(&broker.address.host) {
            log::warn("the broker's password crosses the network in clear: use an mqtts:// broker");
        }
        let broker = broker.clone();
        let (task, signals) = spawn(options.clone(), broker.clone(), seed);
        Ok(Self { options, broker, signals, task, seed })
    }

    /// Waits for the next signal, in the order in which things happened; none after the task has ended.
    pub async fn signal(&mut self) -> Option<Signal> {
        self.signals.recv().await
    }

    /// Drops a connection that has stalled, and makes a new one.
    pub fn restart(&mut self) {
        self.task.abort();
        self.seed = scramble(self.seed);
        (self.task, self.signals) = spawn(self.options.clone(), self.broker.clone(), self.seed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn spawn(options: MqttOptions, broker: Broker, seed: u64) -> (JoinHandle<()>, mpsc::Receiver<Signal>) {
    let (to, signals) = mpsc::channel(SIGNALS);
    (tokio::spawn(keep_connected(options, broker, to, seed)), signals)
}

/// The options with what the files of certificates and password hold now.
fn prepared(options: &MqttOptions, broker: &Broker) -> Result<MqttOptions, TlsError> {
    let mut options = options.clone();
    if let Some(tls) = &broker.tls {
        options.set_transport(tls::transport(tls)?);
    }
    if let Some(Login { username, password }) = &broker.login {
        let password =
            password.text(|path| fs::read_to_string(path)).map_err(|source| TlsError::Password { source })?;
        options.set_credentials(username, password);
    }
    Ok(options)
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn keep_connected(options: MqttOptions, broker: Broker, to: mpsc::Sender<Signal>, mut seed: u64) {
    let mut wait = BACK_OFF;
    loop {
        // A client of its own for each connection: the old one would send what it had in flight, which the outlet
        // repeats itself. Its certificates and its password may have been replaced since the last one.
        let made = prepared(&options, &broker).map(|options| AsyncClient::new(options, REQUESTS));
        let reason = match made {
            Err(error) => log::chain(&error),
            Ok(made) => match serve(made, &to, &mut wait).await {
                Some(reason) => reason,
                None => return,
            },
        };
        if to.send(Signal::Down(reason)).await.is_err() {
            return;
        }
        seed = scramble(seed);
        // Between half of it and all of it, so that a fleet does not reconnect at one moment.
        tokio::time::sleep(wait / 2 + wait.mul_f64((seed >> 11) as f64 / (1_u64 << 53) as f64 / 2.0)).await;
        wait = (wait * 2).min(BACK_OFF_MAX);
    }
}

/// Polls one connection until it is lost, and returns the reason; nothing once its receiver is closed. The connection is closed before its
/// loss is reported, so that nothing more is sent on it.
async fn serve(
    (client, mut events): (AsyncClient, EventLoop),
    to: &mpsc::Sender<Signal>,
    wait: &mut Duration,
) -> Option<String> {
    events.network_options.set_tcp_nodelay(true);
    loop {
        let signal = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                // Only a connection that the broker has accepted counts: one that it refuses is tried more and more
                // rarely.
                *wait = BACK_OFF;
                Signal::Up { client: client.clone(), session_present: ack.session_present }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => Signal::Received(publish),
            Ok(Event::Incoming(Packet::PubAck(ack))) => Signal::Confirmed(ack.pkid),
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let refused = ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure);
                if refused {
                    log::warn("the broker refuses a subscription: check this node's access rights there");
                }
                Signal::Subscribed { refused }
            }
            Ok(Event::Outgoing(Outgoing::Publish(pkid))) => Signal::Sent(pkid),
            Ok(_) => continue,
            Err(e) => return Some(describe(&e)),
        };
        if to.send(signal).await.is_err() {
            return None;
        }
    }
}

/// The next number of a pseudo-random sequence (xorshift64).
fn scramble(mut seed: u64) -> u64 {
    seed = seed.max(1);
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^ (seed << 17)
}

fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::MqttState(StateError::Deserialization(
            rumqttc::mqttbytes::Error::PayloadSizeLimitExceeded(n),
        )) => {
            format!("the broker sends a message of {n} bytes, above the limit of {}", groundplan_protocol::MAX_PACKET)
        }
        other => log::chain(other),
    }
}
