//! Where a document defines what findings and reports name, so that they can point there.
//!
//! The plant itself knows no places: two documents that mean the same give the same plant. This goes beside it.

use std::collections::HashMap;
use std::sync::Arc;

use super::grammar::Document;
use super::read::{Key, Table};
use crate::diagnostics::Location;
use crate::diagnostics::source::{Place, Sources};

/// What kind of thing is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Defined {
    /// `CONDUIT/FLOW`, and frames other than IP likewise.
    Flow,
    /// A conduit.
    Conduit,
    /// A zone.
    Zone,
    /// An asset.
    Asset,
    /// A gateway.
    Gateway,
}

/// Where each is defined.
#[derive(Debug, Clone)]
pub struct Definitions {
    places: HashMap<(Defined, String), Place>,
    sources: Arc<Sources>,
}

impl Definitions {
    pub(super) fn none(sources: Arc<Sources>) -> Self {
        Self {
            places: HashMap::new(),
            sources,
        }
    }

    /// Those of a document.
    pub(super) fn of(document: &Document, sources: Arc<Sources>) -> Self {
        let mut all = Self::none(sources);
        all.add(Defined::Conduit, document.conduits.value());
        all.add(Defined::Zone, document.zones.value());
        all.add(Defined::Asset, document.assets.value());
        all.add(Defined::Gateway, document.gateways.value());
        let conduits = document
            .conduits
            .value()
            .into_iter()
            .flat_map(|table| table.readable());
        for (conduit, _, record) in conduits {
            let flows = record.flows.value().into_iter().flat_map(|table| &table.0);
            let frames = record.frames.value().into_iter().flat_map(|table| &table.0);
            let places = flows.map(|(name, named)| (name, named.key_place));
            for (name, place) in places.chain(frames.map(|(name, named)| (name, named.key_place))) {
                all.places
                    .insert((Defined::Flow, format!("{conduit}/{name}")), place);
            }
        }
        all
    }

    fn add<K: Key, T>(&mut self, kind: Defined, table: Option<&Table<K, T>>) {
        let things = table.into_iter().flat_map(|table| &table.0);
        self.places
            .extend(things.map(|(name, named)| ((kind, name.to_string()), named.key_place)));
    }

    /// Where the thing is defined: of what a template made, in the template.
    pub fn location(&self, kind: Defined, name: &str) -> Option<Location> {
        let place = self.places.get(&(kind, name.to_owned()))?;
        self.sources.locate(*place)
    }
}
