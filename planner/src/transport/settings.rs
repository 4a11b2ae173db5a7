//! The settings of a planner's connection.

use std::time::Duration;

use groundplan_protocol::{
    ids::SiteName,
    topic::{Topic, planner_filters},
};
use rumqttc::{LastWill, MqttOptions, QoS, Transport};

use super::access::{TransportError, prove};
use crate::config::{BrokerLogin, BrokerTls, ServeConfig};

/// After this long without a packet the client pings the broker.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many messages may be in flight, unconfirmed.
const IN_FLIGHT: u16 = 400;

/// Where to connect to, as whom, and what to leave behind.
pub struct Settings {
    /// Without certificates and password, which each connection reads from their files.
    options: MqttOptions,
    /// Whether the address is `mqtts://`.
    wants_tls: bool,
    tls: Option<BrokerTls>,
    login: Option<BrokerLogin>,
    /// What it subscribes to.
    pub(super) filters: Vec<String>,
}

impl Settings {
    /// Settings of this planner for its site.
    ///
    /// # Errors
    /// Files for TLS or the password are missing.
    pub fn new(config: &ServeConfig, site: &SiteName, client: String, will: Vec<u8>) -> Result<Self, TransportError> {
        let mut options = match &config.embedded {
            // For a unix socket, the client takes its path for the host.
            Some(embedded) => MqttOptions::new(client, embedded.socket.to_string_lossy(), config.broker.port),
            None => MqttOptions::new(client, config.broker.host.clone(), config.broker.port),
        };
        options
            .set_clean_session(false)
            .set_keep_alive(KEEP_ALIVE)
            .set_max_packet_size(groundplan_protocol::MAX_PACKET, groundplan_protocol::MAX_PACKET)
            .set_inflight(IN_FLIGHT)
            .set_manual_acks(true)
            .set_last_will(LastWill::new(Topic::Planner.name(site), will, QoS::AtLeastOnce, true));
        let settings = match &config.embedded {
            Some(_) => {
                options.set_transport(Transport::unix());
                Self { options, wants_tls: false, tls: None, login: None, filters: planner_filters(site) }
            }
            None => Self {
                options,
                wants_tls: config.broker.tls,
                tls: config.tls.clone(),
                login: config.login.clone(),
                filters: planner_filters(site),
            },
        };
        settings.options()?;
        Ok(settings)
    }

    /// The options of the next connection.
    pub(super) fn options(&self) -> Result<MqttOptions, TransportError> {
        let mut options = self.options.clone();
        prove(&mut options, self.wants_tls, self.tls.as_ref(), self.login.as_ref())?;
        Ok(options)
    }
}
