//! What the table of a plan in its shadow has counted.

use std::collections::BTreeMap;
use std::io;

use super::{RulesetReader, attributes, name};
use crate::enforce::nft::names::{MARK_FLOW, TABLE_SHADOW};
use crate::enforce::nft::readback::packets::counter_of;
use crate::enforce::nft::wire::{
    ELEMENT_KEY, ELEMENTS_LIST, ELEMENTS_SET, FAMILIES, GET_ELEMENTS, GET_TABLE, TABLE_ATTRIBUTE, inner,
    terminated,
};

/// Counts by the number of the flow in force; 0: of no flow.
pub(in crate::enforce) type ByFlow = BTreeMap<u32, u64>;

/// What it counted since it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::enforce) struct ShadowCounts {
    /// Packets that passed the rules in force.
    pub(in crate::enforce) judged: u64,
    /// Those that would be refused between zones, ...
    pub(in crate::enforce) would_deny: u64,
    /// ... and on their way to the gateway itself.
    pub(in crate::enforce) would_deny_input: u64,
    /// The former, by flow.
    pub(in crate::enforce) refused: ByFlow,
    /// Packets that would be read, and are not today.
    pub(in crate::enforce) unread: ByFlow,
    /// Standing connections of which packets would be refused.
    pub(in crate::enforce) cut: ByFlow,
    /// Standing connections that would be reset, so that they are opened again and read from their beginning.
    pub(in crate::enforce) reset: ByFlow,
}

impl RulesetReader {
    /// Whether there is a shadow's table.
    ///
    /// # Errors
    /// The kernel does not answer in time, or refuses.
    pub(in crate::enforce) fn has_shadow(&self) -> io::Result<bool> {
        let mut found = false;
        for family in FAMILIES {
            self.dump(GET_TABLE, family, &[], |message| {
                found |= name(&message, TABLE_ATTRIBUTE).as_deref() == Some(TABLE_SHADOW);
            })?;
        }
        Ok(found)
    }

    /// What the shadow counted; `None`: its table is not there.
    ///
    /// # Errors
    /// The kernel does not answer in time, or its rules keep changing.
    pub(in crate::enforce) fn shadow_counts(&self) -> io::Result<Option<ShadowCounts>> {
        self.steadily(Self::shadow_counts_once)
    }

    fn shadow_counts_once(&self) -> io::Result<Option<ShadowCounts>> {
        let counters = self.counters_of(TABLE_SHADOW)?;
        let [inet, _] = FAMILIES;
        let of = |name: &str| {
            counters
                .get(&(inet, name.to_owned()))
                .map(|(packets, _)| *packets)
        };
        let (Some(judged), Some(would_deny), Some(would_deny_input)) =
            (of("judged"), of("would_deny"), of("would_deny_input"))
        else {
            return Ok(None);
        };
        let packets = |counted: Option<u64>| counted.unwrap_or_default();
        let one = |_: Option<u64>| 1;
        Ok(Some(ShadowCounts {
            judged,
            would_deny,
            would_deny_input,
            refused: self.by_flow("refused", packets)?,
            unread: self.by_flow("unread", packets)?,
            cut: self.by_flow("cut", one)?,
            reset: self.by_flow("midway", one)?,
        }))
    }

    /// What the elements of a set come to, by the mark that their keys end with.
    fn by_flow(&self, set: &str, counts: fn(Option<u64>) -> u64) -> io::Result<ByFlow> {
        let [inet, _] = FAMILIES;
        let (table, set) = (terminated(TABLE_SHADOW), terminated(set));
        let names: [(u16, &[u8]); 2] = [(TABLE_ATTRIBUTE, &table), (ELEMENTS_SET, &set)];
        let mut by_flow = ByFlow::new();
        self.dump(GET_ELEMENTS, inet, &names, |message| {
            let lists = attributes(message.payload).filter(|(kind, _)| *kind == ELEMENTS_LIST);
            for (_, element) in lists.flat_map(|(_, list)| attributes(list)) {
                let keys = attributes(element).filter(|(kind, _)| *kind == ELEMENT_KEY);
                for (_, key) in keys {
                    let key = inner(key);
                    let mark = key.last_chunk().map_or(0, |mark| u32::from_ne_bytes(*mark));
                    let total = by_flow.entry(mark & MARK_FLOW).or_default();
                    *total = total.saturating_add(counts(counter_of(element)));
                }
            }
        })?;
        Ok(by_flow)
    }
}
