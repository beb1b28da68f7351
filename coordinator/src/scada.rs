//! News where the plant looks: health and alarms go to the plant's MQTT broker, from which SCADA systems read, as JSON under a documented
//! tree of topics, and as metrics of a Sparkplug B node where that is wanted ([docs/scada.md](../../docs/scada.md)).
//!
//! ```text
//! health, alarms ─▶ board (what each topic should say) ─▶ outbox (what is new) ─▶ line ─▶ broker
//!                                                   acknowledgements ◀─ inbox ◀──┘
//! ```
//!
//! Nothing queues behind a broker that is away: of each topic the newest state is kept, and all of it is published again on each
//! connection. What comes from the broker is bounded and believed in nothing: an acknowledgement by topic, where the configuration takes any, says that
//! somebody saw an alarm, under a name that nothing proves, and changes nothing else. Whether the broker is there changes nothing that is enforced.

pub(crate) mod board;
pub(crate) mod inbox;
pub(crate) mod line;
pub(crate) mod outbox;
pub mod schema;
pub mod settings;
pub(crate) mod sparkplug;

use std::sync::Arc;

use bytes::Bytes;
use penstock_policy::ids::{CoordinatorId, PlantId};
use penstock_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::line::{Line, LinePace, follow};
use self::outbox::Topics;
use self::settings::ScadaSettings;
use self::sparkplug::Node;
use crate::alarms::desk::Alarms;
use crate::alarms::view::PublishedAlarms;
use crate::health_watch::PublishedHealth;

/// What is to be seen of a plant now.
#[derive(Debug, Clone)]
pub(crate) struct PlantState {
    pub(crate) health: Arc<PublishedHealth>,
    pub(crate) alarms: Arc<PublishedAlarms>,
}

impl PlantState {
    fn health(&self) -> &v1::PlantHealth {
        self.health.health()
    }

    fn alarms(&self) -> &v1::PlantAlarms {
        self.alarms.alarms()
    }
}

/// A message that goes to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    /// Acknowledged by the broker, and kept there for whoever comes later.
    pub(crate) is_retained: bool,
}

/// What a connection publishes and takes: without network and clock.
pub(crate) trait Script: Send {
    /// Which of several connections of a coordinator it is.
    fn name(&self) -> &'static str;
    /// What the broker publishes when the connection is lost.
    fn will(&mut self) -> Outgoing;
    /// The topics that it wants to hear.
    fn subscriptions(&self) -> Vec<String>;
    /// A connection stands: all is to be published again.
    fn connected(&mut self);
    /// What is to be seen now.
    fn show(&mut self, state: &PlantState, now_ms: u64);
    /// What goes out next; the same until it is [`Script::sent`].
    fn next(&mut self, now_ms: u64) -> Option<Outgoing>;
    /// That went out.
    fn sent(&mut self);
    /// Something came, by its topic.
    fn take(&mut self, topic: &str, payload: &[u8], now_ms: u64) -> Option<inbox::Acknowledgement>;
    /// What is said last by a coordinator that stops.
    fn farewell(&mut self, now_ms: u64) -> Outgoing;
}

/// Publishes until the coordinator stops; nothing where no broker is configured.
pub(crate) async fn publish(
    settings: Option<ScadaSettings>,
    (plant, coordinator): (PlantId, CoordinatorId),
    alarms: Alarms,
    health: watch::Receiver<Arc<PublishedHealth>>,
    stopping: CancellationToken,
) {
    let Some(settings) = settings else {
        return;
    };
    let topics = Topics::new(&settings, &plant, &coordinator);
    let node = settings.sparkplug.clone().map(Node::new);
    let line = Line {
        client: format!("penstock-{plant}-coordinator-{coordinator}"),
        settings,
        pace: LinePace::default(),
        alarms,
        health,
        stopping,
    };
    let metrics = async {
        if let Some(node) = node {
            follow(&line, Box::new(node)).await;
        }
    };
    tokio::join!(follow(&line, Box::new(topics)), metrics);
}
