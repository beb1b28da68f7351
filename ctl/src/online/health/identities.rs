//! How well the ends of a zone's flows are known.

use penstock_policy::assurance;
use penstock_policy::terms::Assurance;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Health, ZoneLine};
use crate::output::{Page, Tone};

/// How many flows have one assurance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AssuranceLine {
    /// `D0` to `D5`.
    pub assurance: String,
    /// How many.
    pub flows: u32,
}

impl Health {
    /// How well the ends of flows are known: of each zone that was asked for, and of every one of which flows are denied for it.
    pub(super) fn identities(&self, page: &mut Page) {
        let said = |zone: &&ZoneLine| (self.in_detail && !zone.assurance.is_empty()) || zone.denied_flows > 0;
        for (place, zone) in self.zones.iter().filter(said).enumerate() {
            if place == 0 {
                page.gap();
            }
            let flows = zone.assurance.iter();
            let flows = flows.filter_map(|of| Some((level(&of.assurance)?, of.flows)));
            let words = assurance::in_words(flows, zone.denied_flows);
            page.paragraph(2, Tone::Dim, &format!("identity of ends, {}: {words}", zone.zone));
        }
    }
}

fn level(word: &str) -> Option<Assurance> {
    Assurance::ALL.into_iter().find(|level| level.to_string() == word)
}
