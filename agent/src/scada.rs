//! This gateway's own health at the SCADA's broker: MQTT 5 inside TLS, retained, with a last will.
//!
//! ```text
//! zones (each second) ─▶ document (JSON) ─▶ machine (newest state wins) ─▶ broker: PREFIX/PLANT/gateway/NAME/{online,health}
//! ```
//!
//! Off by default. The gateway connects by itself, as a bridge does, so that the shift sees it also while the coordinator is away; nothing
//! is subscribed to, and nothing that a broker says has an effect. It shows its own certificate, and a broker that loses its key loses the
//! connection. What is published: `docs/panel.md`.
//!
//! Not here: how zones are ([`crate::zones`]); what the coordinator publishes of the whole plant.

mod document;
mod machine;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use penstock_policy::ids::AssetId;
use penstock_policy::terms::Tls;
use penstock_policy::text::sentence;
use penstock_proto::backoff::Backoff;
use penstock_proto::tls::data_path::{BrokerProfile, BrokerTrust};
use penstock_proto::tls::{TlsError, certificates_from_pem};
use penstock_proto::v1::Fault;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::document::Document;
use self::machine::{Action, Fact, ScadaMachine, Topics};
use crate::bridge::connection::{self, ConnectionError, Incoming, Outgoing, Target};
use crate::bridge::packet::{Hello, Welcome, Will};
use crate::bridge::report::Notice;
use crate::bridge::side::line::KEEP_ALIVE_S;
use crate::bridge::side::{Login, Wire, moment, reached};
use crate::durable;
use crate::identity::Identity;
use crate::zones::GatewayHealth;

/// The largest packet that is taken from the broker: acknowledgements, and a word at the end.
const PACKET_BYTES_MAX: u32 = 4096;
/// Nothing is subscribed to.
const RECEIVE_MAXIMUM: u16 = 1;
/// The largest file of authorities, bytes.
const AUTHORITIES_BYTES_MAX: u64 = 1024 * 1024;

/// What this machine's configuration says of the SCADA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScadaSettings {
    /// The broker.
    pub broker: SocketAddr,
    /// How it proves who it is.
    pub trust: ScadaTrust,
    /// How this gateway logs in, beside its certificate.
    pub login: Option<Login>,
    /// What all topics begin with.
    pub prefix: String,
}

/// How the broker proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScadaTrust {
    /// By a certificate of the plant, as this asset.
    Plant(AssetId),
    /// By a certificate of other authorities.
    Authorities {
        /// A file with their certificates (PEM), which is read for each connection.
        file: PathBuf,
        /// For this name; `None`: for its address.
        server_name: Option<String>,
    },
}

/// What it takes to publish.
pub struct ScadaPublisher {
    /// Where, and as whom.
    pub settings: ScadaSettings,
    /// How zones are.
    pub health: watch::Receiver<Option<Arc<GatewayHealth>>>,
    /// Who this gateway is.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// What is wrong.
    pub faults: watch::Sender<Vec<Fault>>,
}

impl ScadaPublisher {
    /// Publishes until `stop` is cancelled. Not before this gateway is enrolled: until then it has no name.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let identity = self.identity.borrow_and_update().clone();
            match identity {
                Some(identity) => {
                    if self.publish_as(&identity, &stop).await {
                        return;
                    }
                }
                None => tokio::select! {
                    () = stop.cancelled() => return,
                    changed = self.identity.changed() => if changed.is_err() { return },
                },
            }
        }
    }

    /// Publishes under the name of `identity`, until the gateway has another (`false`) or stops, or nobody looks any more.
    async fn publish_as(&mut self, identity: &Identity, stop: &CancellationToken) -> bool {
        let name = (
            identity.enrolment.plant.to_string(),
            identity.enrolment.gateway.to_string(),
        );
        let topics = Topics::of(&self.settings.prefix, &name.0, &name.1);
        let mut machine = ScadaMachine::new(topics.clone(), moment().instant, Backoff::default());
        let mut wire = Wire::Closed;
        self.health.mark_changed();
        machine.take(Fact::TimePassed, moment());
        loop {
            while let Some(action) = machine.action() {
                match action {
                    Action::Connect { .. } => {
                        let attempt = open(self.settings.clone(), self.identity.clone(), topics.clone());
                        wire = Wire::Opening(Box::pin(attempt));
                    }
                    Action::Send(bytes) => {
                        let fact = wire.send(&bytes).await;
                        machine.take(fact, moment());
                    }
                    Action::Close(goodbye) => wire.close(goodbye).await,
                    Action::Report(notice) => self.notice(notice),
                    Action::Own(nothing) => match nothing {},
                }
            }
            if machine.is_over() {
                return stop.is_cancelled() || self.health.has_changed().is_err();
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => machine.take(Fact::Stopping { forget: true }, moment()),
                fact = wire.next() => machine.take(fact, moment()),
                changed = self.health.changed() => {
                    if changed.is_err() {
                        machine.take(Fact::QueueClosed, moment());
                    }
                    let document = self.health.borrow_and_update().as_deref().map(Document::of);
                    if let Some(document) = document {
                        machine.take(Fact::Own(document), moment());
                    }
                }
                changed = self.identity.changed() => {
                    let is_another = self.identity.borrow().as_ref().is_none_or(|own| {
                        (own.enrolment.plant.as_str(), own.enrolment.gateway.as_str()) != (&name.0, &name.1)
                    });
                    if changed.is_err() || is_another {
                        machine.take(Fact::Stopping { forget: true }, moment());
                    }
                }
                () = reached(machine.deadline()) => machine.take(Fact::TimePassed, moment()),
            }
        }
    }

    fn notice(&self, notice: Notice) {
        let broker = self.settings.broker;
        let faults = match notice {
            Notice::Up => Vec::new(),
            Notice::Down(why) => vec![Fault::new(
                "scada-not-reached",
                format!("This gateway's health does not reach the broker at {broker}: {why}"),
            )],
            _ => return,
        };
        self.faults.send_if_modified(|shown| {
            let changed = *shown != faults;
            match faults.first() {
                Some(fault) if changed => tracing::warn!("{}", fault.message),
                None if changed => tracing::info!(%broker, "health is published there"),
                _ => {}
            }
            *shown = faults;
            changed
        });
    }
}

/// A connection with the last will.
async fn open(
    settings: ScadaSettings,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    topics: Topics,
) -> Result<(Incoming, Outgoing, Welcome), ConnectionError> {
    let identity = identity.borrow().clone().ok_or(ConnectionError::NoIdentity)?;
    let address = settings.broker.ip();
    let target = Target {
        address,
        port: settings.broker.port(),
        tls: Some(profile(&settings.trust, &identity, address).await?),
    };
    let password = match &settings.login {
        Some(login) => login.password().await.map_err(|problem| {
            let asset = format!("the broker at {}", settings.broker);
            ConnectionError::Password { asset, problem }
        })?,
        None => Vec::new(),
    };
    let enrolment = &identity.enrolment;
    let hello = Hello {
        client_id: &format!("penstock-{}-{}-health", enrolment.plant, enrolment.gateway),
        login: settings
            .login
            .as_ref()
            .map(|login| (login.user.as_str(), password.as_slice())),
        clean_start: true,
        session_expiry_s: 0,
        receive_maximum: RECEIVE_MAXIMUM,
        packet_bytes_max: PACKET_BYTES_MAX,
        keep_alive_s: KEEP_ALIVE_S,
        will: Some(Will {
            topic: &topics.online,
            payload: machine::OFFLINE,
        }),
    };
    connection::open(&target, &hello).await
}

async fn profile(
    trust: &ScadaTrust,
    identity: &Identity,
    address: IpAddr,
) -> Result<BrokerProfile, ConnectionError> {
    let (file, server_name) = match trust {
        ScadaTrust::Plant(asset) => return Ok(identity.broker_profile(&Tls::default(), asset, address)?),
        ScadaTrust::Authorities { file, server_name } => (file.clone(), server_name),
    };
    let what = file.display().to_string();
    let refused = |problem: String| ConnectionError::Authorities {
        file: what.clone(),
        problem,
    };
    let read = tokio::task::spawn_blocking(move || durable::read(&file, AUTHORITIES_BYTES_MAX)).await;
    let pem = match read {
        Ok(Ok(Some(pem))) => pem,
        Ok(Ok(None)) => return Err(refused("it is missing".to_owned())),
        Ok(Err(error)) => return Err(refused(sentence(&error))),
        Err(_) => return Err(refused("it could not be read".to_owned())),
    };
    let roots = certificates_from_pem(&pem, &what).map_err(|error: TlsError| refused(sentence(&error)))?;
    let server_name = match server_name {
        Some(name) => ServerName::try_from(name.clone()).map_err(|error| refused(error.to_string()))?,
        None => ServerName::from(address),
    };
    Ok(BrokerProfile {
        trust: BrokerTrust::Authorities(roots),
        server_name,
        credentials: identity.credentials().clone(),
    })
}
