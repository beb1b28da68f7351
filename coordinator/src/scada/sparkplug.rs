//! Health and alarms as the metrics of a Sparkplug B edge node (Eclipse Sparkplug 3.0): birth, death, data, and birth again where a host asks for it.
//!
//! A birth names every metric with its value, and its messages are numbered from 0 (`seq`); what changed follows. The death is the connection's will, and is
//! tied to the birth by `bdSeq`, which counts connections. Where a metric is added or goes, there is another birth. There is no command but "rebirth".

mod payload;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use self::payload::{Metric, Payload, Value};
use super::board::{every_alarm, state_word};
use super::inbox::Acknowledgement;
use super::settings::SparkplugNode;
use super::{Outgoing, PlantState, Script};

/// By which a host asks for another birth.
const REBIRTH: &str = "Node Control/Rebirth";
/// Which death belongs to which birth.
const BIRTH_DEATH: &str = "bdSeq";
/// Metrics in one message that is no birth.
const METRICS_MAX: usize = 500;
/// Shortest time between two births that a host asked for.
const REBIRTH_EVERY_MS: u64 = 1000;

/// A Sparkplug B node.
#[derive(Debug)]
pub(crate) struct Node {
    topics: SparkplugNode,
    /// Counts connections; the one that is next.
    birth: u64,
    seq: u8,
    newest: BTreeMap<String, Value>,
    /// What hosts know of it since the last birth.
    known: BTreeMap<String, Value>,
    is_birth_due: bool,
    /// A host asked for a birth, which comes when the one before is old enough.
    is_birth_wanted: bool,
    born_ms: u64,
    next: Option<(Outgoing, BTreeMap<String, Value>)>,
}

impl Node {
    pub(crate) fn new(topics: SparkplugNode) -> Self {
        Self {
            topics,
            birth: 0,
            seq: 0,
            newest: BTreeMap::new(),
            known: BTreeMap::new(),
            is_birth_due: false,
            is_birth_wanted: false,
            born_ms: 0,
            next: None,
        }
    }

    fn topic(&self, kind: &str) -> String {
        format!("spBv1.0/{}/{kind}/{}", self.topics.group, self.topics.node)
    }

    fn message(&self, kind: &str, payload: &Payload) -> Outgoing {
        Outgoing {
            topic: self.topic(kind),
            payload: Bytes::from(payload.encode_to_vec()),
            is_retained: false,
        }
    }

    fn birth_death(&self) -> Metric {
        let number = self.birth.saturating_sub(1) % 256;
        Metric::new(BIRTH_DEATH, &Value::Int64(number), None)
    }

    fn death(&self, now_ms: u64) -> Outgoing {
        let payload = Payload {
            timestamp: Some(now_ms),
            metrics: vec![self.birth_death()],
            seq: None,
        };
        self.message("NDEATH", &payload)
    }

    fn born(&self, now_ms: u64) -> Outgoing {
        let own = [
            self.birth_death(),
            Metric::new(REBIRTH, &Value::Boolean(false), Some(now_ms)),
        ];
        let metrics = self
            .newest
            .iter()
            .map(|(name, value)| Metric::new(name, value, Some(now_ms)));
        let payload = Payload {
            timestamp: Some(now_ms),
            metrics: own.into_iter().chain(metrics).collect(),
            seq: Some(0),
        };
        self.message("NBIRTH", &payload)
    }

    fn data(&self, changed: &BTreeMap<String, Value>, now_ms: u64) -> Outgoing {
        let metrics = changed
            .iter()
            .map(|(name, value)| Metric::new(name, value, Some(now_ms)));
        let payload = Payload {
            timestamp: Some(now_ms),
            metrics: metrics.collect(),
            seq: Some(u64::from(self.seq)),
        };
        self.message("NDATA", &payload)
    }
}

/// All metrics of a plant.
fn metrics(state: &PlantState) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut say = |name: String, value: Value| {
        all.insert(name, value);
    };
    for zone in &state.health().zones {
        let name = &zone.zone;
        say(
            format!("Zones/{name}/State"),
            Value::String(state_word(zone.state()).to_owned()),
        );
        let why = zone.reasons.join("; ");
        say(format!("Zones/{name}/Reason"), Value::String(why));
    }
    for (key, alarm) in every_alarm(state) {
        let place = format!("Alarms/{}/{}", key.place(), key.cause);
        let asks = matches!(alarm.state.as_str(), "unacknowledged" | "returned");
        say(format!("{place}/State"), Value::String(alarm.state));
        say(format!("{place}/Unacknowledged"), Value::Boolean(asks));
        say(format!("{place}/Priority"), Value::String(alarm.priority));
        say(format!("{place}/Message"), Value::String(alarm.message));
    }
    let load = state.alarms().load.unwrap_or_default();
    say(
        "Alarms/Raised In Ten Minutes".to_owned(),
        Value::UInt32(load.ten_minutes),
    );
    say("Alarms/Flood".to_owned(), Value::Boolean(load.flood));
    all
}

impl Script for Node {
    fn name(&self) -> &'static str {
        "sparkplug"
    }

    fn will(&mut self) -> Outgoing {
        self.birth += 1;
        self.death(crate::clock::now_ms())
    }

    fn subscriptions(&self) -> Vec<String> {
        vec![self.topic("NCMD")]
    }

    fn connected(&mut self) {
        self.is_birth_due = true;
        self.next = None;
        self.born_ms = 0;
    }

    fn show(&mut self, state: &PlantState, _: u64) {
        let now = metrics(state);
        let is_same_set = now.len() == self.newest.len() && now.keys().eq(self.newest.keys());
        self.is_birth_due |= !is_same_set;
        self.newest = now;
    }

    fn next(&mut self, now_ms: u64) -> Option<Outgoing> {
        if let Some((next, _)) = &self.next {
            return Some(next.clone());
        }
        // Asked for again and again it is one birth a second.
        let is_old = now_ms.abs_diff(self.born_ms) >= REBIRTH_EVERY_MS;
        let next = if self.is_birth_due || self.is_birth_wanted && is_old {
            (self.is_birth_due, self.is_birth_wanted) = (false, false);
            self.seq = 0;
            self.born_ms = now_ms;
            (self.born(now_ms), self.newest.clone())
        } else {
            let changed = self
                .newest
                .iter()
                .filter(|(name, value)| self.known.get(*name) != Some(value));
            let changed: BTreeMap<String, Value> = changed
                .take(METRICS_MAX)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            if changed.is_empty() {
                return None;
            }
            (self.data(&changed, now_ms), changed)
        };
        self.next = Some(next.clone());
        Some(next.0)
    }

    fn sent(&mut self) {
        if let Some((_, said)) = self.next.take() {
            self.known.extend(said);
            self.seq = self.seq.wrapping_add(1);
        }
    }

    fn take(&mut self, topic: &str, payload: &[u8], _: u64) -> Option<Acknowledgement> {
        let is_command = topic == self.topic("NCMD");
        let wants = |payload: Payload| {
            let mut metrics = payload.metrics.iter();
            metrics.any(|metric| metric.name.as_deref() == Some(REBIRTH) && metric.is_true())
        };
        let is_wanted = is_command && Payload::decode(payload).is_ok_and(wants);
        self.is_birth_wanted |= is_wanted;
        None
    }

    fn farewell(&mut self, now_ms: u64) -> Outgoing {
        self.death(now_ms)
    }
}

#[cfg(test)]
mod tests;
