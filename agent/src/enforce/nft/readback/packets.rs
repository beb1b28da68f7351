//! The counters of single elements of the flows' maps.

use std::io;

use super::{RulesetReader, TABLE, attributes};
use crate::enforce::nft::netlink::attribute;
use crate::enforce::nft::wire::{
    COUNTER_PACKETS, DATA_VALUE, ELEMENT_KEY, ELEMENTS_LIST, ELEMENTS_SET, FAMILIES, GET_ELEMENTS,
    LIST_ELEMENT, NESTED, TABLE_ATTRIBUTE, inner, terminated,
};

/// Elements of one request: each is answered by a message of its own, which waits in the socket's buffer.
const BATCH: usize = 64;
// `NFTA_SET_ELEM_EXPR`, `NFTA_EXPR_DATA`.
const ELEMENT_EXPRESSION: u16 = 7;
const EXPRESSION_DATA: u16 = 2;

impl RulesetReader {
    /// The packets that the elements with these first keys have counted, in their order; 0 of one that is not there.
    ///
    /// # Errors
    /// The kernel does not answer, or has no such element: the tables are just being changed.
    pub(in crate::enforce) fn packets(&self, map: &str, keys: &[&[u8]]) -> io::Result<Vec<u64>> {
        let [inet, _] = FAMILIES;
        let (table, set) = (terminated(TABLE), terminated(map));
        let value = |kind: u16, bytes: &[u8]| attribute(kind | NESTED, &attribute(DATA_VALUE, bytes));
        let mut packets = vec![0; keys.len()];
        for (number, batch) in keys.chunks(BATCH).enumerate() {
            let element = |key: &&[u8]| attribute(LIST_ELEMENT | NESTED, &value(ELEMENT_KEY, key));
            let list: Vec<u8> = batch.iter().flat_map(element).collect();
            let wanted = [
                (TABLE_ATTRIBUTE, table.as_slice()),
                (ELEMENTS_SET, &set),
                (ELEMENTS_LIST | NESTED, &list),
            ];
            self.ask(GET_ELEMENTS, 0, inet, &wanted, |message| {
                let lists = attributes(message.payload).filter(|(kind, _)| *kind == ELEMENTS_LIST);
                for (_, element) in lists.flat_map(|(_, list)| attributes(list)) {
                    let mut key: &[u8] = &[];
                    let mut counted = None;
                    for (kind, value) in attributes(element) {
                        match kind {
                            ELEMENT_KEY => key = inner(value),
                            ELEMENT_EXPRESSION => counted = counter(value),
                            _ => {}
                        }
                    }
                    let place = batch.iter().position(|wanted| *wanted == key);
                    let place = place.and_then(|place| packets.get_mut(number * BATCH + place));
                    if let (Some(place), Some(counted)) = (place, counted) {
                        *place = counted;
                    }
                }
            })?;
        }
        Ok(packets)
    }
}

/// The packets that an element has counted, if it counts.
pub(super) fn counter_of(element: &[u8]) -> Option<u64> {
    let mut expressions = attributes(element).filter(|(kind, _)| *kind == ELEMENT_EXPRESSION);
    expressions.find_map(|(_, expression)| counter(expression))
}

/// The packets of an element's counter.
fn counter(expression: &[u8]) -> Option<u64> {
    let (_, data) = attributes(expression).find(|(kind, _)| *kind == EXPRESSION_DATA)?;
    let (_, packets) = attributes(data).find(|(kind, _)| *kind == COUNTER_PACKETS)?;
    packets.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}
