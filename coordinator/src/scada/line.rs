//! A connection to the broker, made again for as long as the coordinator runs: MQTT 5 by rumqttc, whose work runs as a task of its own, so that
//! whatever a broker makes of it ends with that connection.
//!
//! Bounded: packets that come, their number, publications that the broker has not acknowledged, and what waits in between. A broker that sends
//! more is left, and tried again later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_proto::backoff::Backoff;
use penstock_proto::tls::data_path::authorities_client;
use penstock_proto::tls::{Credentials, certificates_from_pem};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, LastWill, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::inbox::Acknowledgement;
use super::settings::ScadaSettings;
use super::{Outgoing, PlantState, Script};
use crate::alarms::desk::Alarms;
use crate::alarms::machine::{Author, Command};
use crate::allowance::{Allowance, Share};
use crate::clock;
use crate::files;
use crate::health_watch::PublishedHealth;

/// How a line waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinePace {
    /// The first and the longest wait for another attempt.
    pub(crate) again: (Duration, Duration),
    /// How long connecting may take, seconds.
    pub(crate) connect_seconds: u64,
}

impl Default for LinePace {
    fn default() -> Self {
        Self {
            again: (Duration::from_millis(500), Duration::from_secs(30)),
            connect_seconds: 10,
        }
    }
}

/// How often the broker hears from a coordinator that has nothing to say.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Publications that the broker has not acknowledged.
const WINDOW: u16 = 32;
/// Events of the connection that wait.
const EVENTS_MAX: usize = 64;
/// Largest packet that is taken, bytes.
const PACKET_BYTES_MAX: u32 = 16 * 1024;
/// Packets that one connection may bring within [`COUNTED`], beside acknowledgements of what went out.
const MESSAGES_MAX: u32 = 600;
const COUNTED: Duration = Duration::from_secs(60);
/// What acknowledgements by topic may cost.
const ACKNOWLEDGED: Share = Share {
    at_once: 64,
    per_day: 86_400,
};
/// How long a coordinator that stops waits until the broker has its last word.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often it is looked whether what was held back can go out.
const LOOK: Duration = Duration::from_secs(1);
/// How long a broker may leave publications without an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// When all is published again, after a broker refused a part of it.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// What connections need.
pub(crate) struct Line {
    pub(crate) client: String,
    pub(crate) settings: ScadaSettings,
    pub(crate) pace: LinePace,
    pub(crate) alarms: Alarms,
    pub(crate) health: watch::Receiver<Arc<PublishedHealth>>,
    pub(crate) stopping: CancellationToken,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("the configuration of the broker cannot be used: {0}")]
    Settings(String),
    #[error("the connection to the broker failed")]
    Connection(#[from] Box<ConnectionError>),
    #[error("the broker did what MQTT does not have, and the connection was given up")]
    Broken,
    #[error("the broker sends more than {MESSAGES_MAX} packets within {} s, or names topics by numbers that it was not given", COUNTED.as_secs())]
    TooMuch,
    #[error("the broker acknowledged none of what it was sent for {} s", ANSWER.as_secs())]
    Unanswered,
    #[error("the coordinator is stopping")]
    Stopping,
}

/// Publishes what `script` says, on one connection after another, until the coordinator stops.
pub(crate) async fn follow(line: &Line, mut script: Box<dyn Script>) {
    let mut pause = Backoff::between(line.pace.again.0, line.pace.again.1);
    let allowance = Allowance::new(ACKNOWLEDGED);
    let name = script.name();
    let mut is_said = false;
    loop {
        let began = Instant::now();
        let mut stood = false;
        let error = match line.connect(script.as_mut(), &allowance, &mut stood).await {
            Ok(()) | Err(LineError::Stopping) => return,
            Err(error) => error,
        };
        metrics::gauge!("penstock_scada_connected", "as" => name).set(0.0);
        // A broker that is away for days is one line, not one for each attempt.
        if stood || !is_said {
            tracing::warn!(error = %crate::chain(&error), %name, "the plant's MQTT broker has no news from here; it is tried again");
        }
        is_said = true;
        let lived = if stood { began.elapsed() } else { Duration::ZERO };
        let wait = pause.ended(lived, getrandom::u64().unwrap_or(0));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = line.stopping.cancelled() => return,
        }
    }
}

/// The connection's own work, which ends with this.
struct Work(tokio::task::JoinHandle<()>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a connection brought since when.
struct Count {
    since: Instant,
    messages: u32,
}

impl Line {
    fn state(&self, health: &watch::Receiver<Arc<PublishedHealth>>) -> PlantState {
        PlantState {
            health: health.borrow().clone(),
            alarms: self.alarms.published().borrow().clone(),
        }
    }

    fn options(&self, script: &mut dyn Script) -> Result<MqttOptions, LineError> {
        let bad = |error: String| LineError::Settings(error);
        let settings = &self.settings;
        let mut options = MqttOptions::new(
            format!("{}-{}", self.client, script.name()),
            settings.host.as_str(),
            settings.port,
        );
        if let Some(file) = &settings.roots {
            let read = |file| files::read(file).map_err(|error| bad(crate::chain(&error)));
            let wrong = |error: penstock_proto::tls::TlsError| bad(crate::chain(&error));
            let roots = certificates_from_pem(&read(file)?, &file.display().to_string()).map_err(wrong)?;
            let own = match &settings.certificate {
                None => None,
                Some((chain, key)) => Some(Credentials::from_files(chain, key).map_err(wrong)?),
            };
            let config = authorities_client(&roots, own.as_ref()).map_err(wrong)?;
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        if let Some((user, file)) = &settings.login {
            let password = files::read(file).map_err(|error| bad(crate::chain(&error)))?;
            let password =
                String::from_utf8(password).map_err(|_| bad("the password is not text".to_owned()))?;
            options.set_credentials(user.as_str(), password.trim_end_matches(['\r', '\n']));
        }
        let will = script.will();
        let will = LastWill::new(
            will.topic,
            will.payload.to_vec(),
            QoS::AtLeastOnce,
            will.is_retained,
            None,
        );
        options
            .set_last_will(will)
            .set_clean_start(true)
            .set_keep_alive(KEEP_ALIVE)
            .set_connection_timeout(self.pace.connect_seconds)
            .set_outgoing_inflight_upper_limit(WINDOW)
            .set_connect_properties(ConnectProperties {
                session_expiry_interval: Some(0),
                receive_maximum: Some(WINDOW),
                max_packet_size: Some(PACKET_BYTES_MAX),
                ..ConnectProperties::new()
            });
        Ok(options)
    }

    /// One connection, from CONNECT to its end.
    async fn connect(
        &self,
        script: &mut dyn Script,
        allowance: &Allowance,
        stood: &mut bool,
    ) -> Result<(), LineError> {
        let (client, mut events) = AsyncClient::new(self.options(script)?, usize::from(WINDOW) * 2);
        let (out, mut came) = mpsc::channel(EVENTS_MAX);
        let _work = Work(tokio::spawn(async move {
            loop {
                let event = events.poll().await;
                let is_end = event.is_err();
                if out.send(event).await.is_err() || is_end {
                    return;
                }
            }
        }));
        let mut alarms = self.alarms.published();
        let mut health = self.health.clone();
        let mut unacknowledged = 0_u16;
        let mut answered = Instant::now();
        let mut refused: Option<Instant> = None;
        let mut is_deaf = false;
        let mut count = Count {
            since: Instant::now(),
            messages: 0,
        };
        let mut look = tokio::time::interval(LOOK);
        loop {
            if *stood {
                if unacknowledged == 0 {
                    answered = Instant::now();
                }
                send(&client, script, &mut unacknowledged);
            }
            tokio::select! {
                event = came.recv() => match count.within(event.ok_or(LineError::Broken)?.map_err(Box::new)?)? {
                    Event::Incoming(Packet::ConnAck(_)) => {
                        *stood = true;
                        metrics::gauge!("penstock_scada_connected", "as" => script.name()).set(1.0);
                        tracing::info!(name = script.name(), "the plant's MQTT broker is connected");
                        for topic in script.subscriptions() {
                            let _ = client.try_subscribe(topic, QoS::AtLeastOnce);
                        }
                        script.connected();
                        script.show(&self.state(&health), clock::now_ms());
                    }
                    Event::Incoming(Packet::PubAck(ack)) => {
                        unacknowledged = unacknowledged.saturating_sub(1);
                        answered = Instant::now();
                        if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
                            metrics::counter!("penstock_scada_refused_total").increment(1);
                            // Of many that it refuses, one line in a minute.
                            if refused.is_none() {
                                tracing::warn!(reason = ?ack.reason, "the plant's MQTT broker refused a message: may this client publish there? It is published again in a minute");
                            }
                            refused.get_or_insert_with(Instant::now);
                        }
                    }
                    Event::Incoming(Packet::SubAck(ack)) => {
                        let is_refused = |code: &SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
                        // Of many, one line: each connection subscribes once.
                        let reason = ack.return_codes.iter().find(|code| is_refused(code));
                        if let Some(reason) = reason.filter(|_| !std::mem::replace(&mut is_deaf, true)) {
                            metrics::counter!("penstock_scada_refused_total").increment(1);
                            tracing::warn!(?reason, name = script.name(), "the plant's MQTT broker refused a subscription: acknowledgements and commands by topic do not come; may this client read there?");
                        }
                    }
                    Event::Incoming(Packet::Publish(publish)) => {
                        let numbered = publish.properties.as_ref().is_some_and(|properties| properties.topic_alias.is_some());
                        if numbered {
                            return Err(LineError::TooMuch);
                        }
                        let now_ms = clock::now_ms();
                        // What is kept at the broker was said at another time.
                        let taken = match std::str::from_utf8(&publish.topic) {
                            Ok(topic) if !publish.retain => script.take(topic, &publish.payload, now_ms),
                            _ => None,
                        };
                        if let Some(taken) = taken {
                            self.acknowledge(&taken, allowance, now_ms).await;
                        }
                    }
                    _ => {}
                },
                changed = alarms.changed() => {
                    changed.map_err(|_| LineError::Stopping)?;
                    script.show(&self.state(&health), clock::now_ms());
                }
                changed = health.changed() => {
                    changed.map_err(|_| LineError::Stopping)?;
                    script.show(&self.state(&health), clock::now_ms());
                }
                _ = look.tick() => {
                    if unacknowledged > 0 && answered.elapsed() >= ANSWER {
                        return Err(LineError::Unanswered);
                    }
                    if refused.take_if(|since| since.elapsed() >= REFUSED_AGAIN).is_some() {
                        script.connected();
                        script.show(&self.state(&health), clock::now_ms());
                    }
                }
                () = self.stopping.cancelled() => {
                    if *stood {
                        farewell(&client, script, &mut came, unacknowledged).await;
                    }
                    return Err(LineError::Stopping);
                }
            }
        }
    }

    /// Somebody saw an alarm, and said so by topic.
    async fn acknowledge(&self, taken: &Acknowledgement, allowance: &Allowance, now_ms: u64) {
        if allowance.take("topic", 1, now_ms).is_err() {
            metrics::counter!("penstock_scada_acknowledgements_dropped_total").increment(1);
            return;
        }
        let by = Author {
            name: taken.user.clone(),
            by_topic: true,
        };
        let done = self
            .alarms
            .change(&taken.key, (Command::Acknowledge, &by, &taken.reason))
            .await;
        if let Err(refusal) = done {
            tracing::info!(alarm = %taken.key, user = %taken.user, %refusal, "an acknowledgement by topic changes nothing");
        }
    }
}

impl Count {
    /// The event, unless it is a packet too many. How many acknowledgements come is up to what went out.
    fn within(&mut self, event: Event) -> Result<Event, LineError> {
        if matches!(event, Event::Outgoing(_) | Event::Incoming(Packet::PubAck(_))) {
            return Ok(event);
        }
        if self.since.elapsed() >= COUNTED {
            *self = Self {
                since: Instant::now(),
                messages: 0,
            };
        }
        self.messages = self.messages.saturating_add(1);
        (self.messages <= MESSAGES_MAX)
            .then_some(event)
            .ok_or(LineError::TooMuch)
    }
}

/// Hands over what can go out now.
fn send(client: &AsyncClient, script: &mut dyn Script, unacknowledged: &mut u16) {
    while *unacknowledged < WINDOW {
        let Some(next) = script.next(clock::now_ms()) else {
            return;
        };
        let is_acknowledged = next.is_retained;
        if !publish(client, next) {
            return;
        }
        script.sent();
        *unacknowledged += u16::from(is_acknowledged);
    }
}

/// Whether there was room for it.
fn publish(client: &AsyncClient, outgoing: Outgoing) -> bool {
    let qos = match outgoing.is_retained {
        true => QoS::AtLeastOnce,
        false => QoS::AtMostOnce,
    };
    client
        .try_publish(
            outgoing.topic,
            qos,
            outgoing.is_retained,
            outgoing.payload.to_vec(),
        )
        .is_ok()
}

/// Says that the coordinator goes, and waits a moment until the broker has it.
async fn farewell(
    client: &AsyncClient,
    script: &mut dyn Script,
    came: &mut mpsc::Receiver<Result<Event, ConnectionError>>,
    unacknowledged: u16,
) {
    let last = script.farewell(clock::now_ms());
    let is_acknowledged = last.is_retained;
    if !publish(client, last) {
        return;
    }
    if !is_acknowledged {
        let _ = client.try_disconnect();
    }
    let heard = async {
        let mut left = unacknowledged + u16::from(is_acknowledged);
        while let Some(Ok(event)) = came.recv().await {
            if matches!(event, Event::Incoming(Packet::PubAck(_))) {
                left = left.saturating_sub(1);
                if left == 0 && client.try_disconnect().is_err() {
                    return;
                }
            }
        }
    };
    // Whoever does not hear it hears the will.
    let _ = tokio::time::timeout(FAREWELL, heard).await;
}

#[cfg(test)]
mod tests;
