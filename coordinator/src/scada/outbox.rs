//! The topics of a plant on one connection: of each the newest message, and which of them the broker does not have yet. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use penstock_policy::ids::{CoordinatorId, PlantId};

use super::board::{acknowledged, board};
use super::inbox::{Acknowledgement, acknowledgement};
use super::settings::ScadaSettings;
use super::{Outgoing, PlantState, Script};

/// Topics of which it is remembered that they are gone.
const GONE_MAX: usize = 4096;

/// What is published under topics.
#[derive(Debug)]
pub(crate) struct Topics {
    /// What all topics begin with: prefix and plant.
    root: String,
    online: String,
    takes_acknowledgements: bool,
    /// Of a topic that is gone: nothing, by which the broker forgets it. That stays, and is said on each connection: who knows whether the last
    /// one heard it.
    newest: BTreeMap<String, Bytes>,
    new: BTreeSet<String>,
    /// What goes out next.
    next: Option<Outgoing>,
}

impl Topics {
    pub(crate) fn new(settings: &ScadaSettings, plant: &PlantId, coordinator: &CoordinatorId) -> Self {
        let root = format!("{}/{plant}", settings.prefix);
        Self {
            online: format!("{root}/coordinator/{coordinator}/online"),
            takes_acknowledgements: settings.acknowledge,
            newest: BTreeMap::new(),
            new: BTreeSet::new(),
            next: None,
            root,
        }
    }

    fn online(&self, is_online: bool) -> Outgoing {
        retained(&self.online, Bytes::from(is_online.to_string()))
    }
}

fn retained(topic: &str, payload: Bytes) -> Outgoing {
    Outgoing {
        topic: topic.to_owned(),
        payload,
        is_retained: true,
    }
}

impl Script for Topics {
    fn name(&self) -> &'static str {
        "topics"
    }

    fn will(&mut self) -> Outgoing {
        self.online(false)
    }

    fn subscriptions(&self) -> Vec<String> {
        let wanted = self
            .takes_acknowledgements
            .then(|| format!("{}/alarm/+/+/ack", self.root));
        wanted.into_iter().collect()
    }

    fn connected(&mut self) {
        self.new = self.newest.keys().cloned().collect();
        self.next = Some(self.online(true));
    }

    fn show(&mut self, state: &PlantState, _: u64) {
        let mut board = board(&self.root, state);
        let gone = self.newest.keys().filter(|topic| !board.contains_key(*topic));
        let gone: Vec<String> = gone.take(GONE_MAX).cloned().collect();
        board.extend(gone.into_iter().map(|topic| (topic, Bytes::new())));
        for (topic, payload) in &board {
            if self.newest.get(topic) != Some(payload) {
                self.new.insert(topic.clone());
            }
        }
        self.newest = board;
    }

    fn next(&mut self, _: u64) -> Option<Outgoing> {
        if self.next.is_none() {
            let topic = self.new.pop_first()?;
            let payload = self.newest.get(&topic).cloned().unwrap_or_default();
            self.next = Some(retained(&topic, payload));
        }
        self.next.clone()
    }

    fn sent(&mut self) {
        self.next = None;
    }

    fn take(&mut self, topic: &str, payload: &[u8], _: u64) -> Option<Acknowledgement> {
        let key = acknowledged(&self.root, topic).filter(|_| self.takes_acknowledgements)?;
        acknowledgement(key, payload)
    }

    fn farewell(&mut self, _: u64) -> Outgoing {
        self.online(false)
    }
}

#[cfg(test)]
mod tests;
