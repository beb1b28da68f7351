//! A few elements taken away and added, straight over netlink: one batch, one transaction. Pure.
//!
//! Or the element that makes the rules count as new again.
//!
//! The `nft` program does the same, but starts for some milliseconds, lists all tables and sets first, and at its end
//! waits for the memory of what it deleted. A revocation should not wait for that. Everything else than a few elements
//! (the first load, rules, large changes) is `nft`'s. The encoding of keys is that of `readback`, which is compared with
//! the kernel after every load.

use std::collections::BTreeMap;

use super::maps::{maps_of, only_in};
use super::names::{STARTING, STARTING_S, TABLE};
use super::netlink::{ACK, attribute, request};
use super::wire::{
    DATA_VALUE, DELETE_ELEMENT, ELEMENT_DATA, ELEMENT_KEY, ELEMENT_KEY_END, ELEMENT_TIMEOUT, ELEMENTS_LIST,
    ELEMENTS_SET, FAMILIES, LIST_ELEMENT, NESTED, NEW_ELEMENT, SUBSYSTEM, TABLE_ATTRIBUTE, keys, terminated,
};
use crate::enforce::shape::block::{Address, Block};
use crate::enforce::shape::lower::{Disposition, Elements};

/// The most elements of one batch: 170 bytes each at most, all of them well within a socket's default buffer.
const ELEMENTS_MAX: usize = 500;

// linux/netfilter/nfnetlink.h.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM_NUMBER: u16 = SUBSYSTEM >> 8;
/// `NLM_F_CREATE`.
const CREATE: u16 = 0x400;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;

/// Elements to be taken away, then elements to be added.
#[derive(Debug, Default)]
pub(in crate::enforce) struct ElementBatch {
    changes: Vec<SetChange>,
}

#[derive(Debug)]
struct SetChange {
    kind: u16,
    set: String,
    /// The list of the one element, encoded; without one, all that the set holds.
    list: Option<Vec<u8>>,
}

impl ElementBatch {
    /// What leads from one set of elements to another; `None` if that is too much for a batch.
    pub(in crate::enforce) fn between(old: &Elements, new: &Elements) -> Option<Self> {
        let mut batch = Self::default();
        // Deletions come first, so that what takes a freed place does not overlap it.
        for (kind, these, those) in [(DELETE_ELEMENT, old, new), (NEW_ELEMENT, new, old)] {
            batch.blocks(kind, &these.v4, &those.v4);
            batch.blocks(kind, &these.v6, &those.v6);
        }
        (batch.changes.len() <= ELEMENTS_MAX).then_some(batch)
    }

    /// Lets servers speak first again for [`STARTING_S`]: the set's one element, taken away first, since most kernels leave
    /// the end of an element that is there as it is.
    pub(in crate::enforce) fn start_again() -> Self {
        let set = || STARTING.to_owned();
        let end = (u64::from(STARTING_S) * 1000).to_be_bytes();
        let key = attribute(ELEMENT_KEY | NESTED, &attribute(DATA_VALUE, &[UDP]));
        let element = [key, attribute(ELEMENT_TIMEOUT, &end)].concat();
        let empty = SetChange {
            kind: DELETE_ELEMENT,
            set: set(),
            list: None,
        };
        let begin = SetChange {
            kind: NEW_ELEMENT,
            set: set(),
            list: Some(attribute(LIST_ELEMENT | NESTED, &element)),
        };
        Self {
            changes: vec![empty, begin],
        }
    }

    /// Whether there is no difference.
    pub(in crate::enforce) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn blocks<A: Address>(
        &mut self,
        kind: u16,
        these: &BTreeMap<Block<A>, Disposition>,
        those: &BTreeMap<Block<A>, Disposition>,
    ) {
        for (block, placed) in only_in(these, those) {
            let (first, last) = keys(block);
            for map in maps_of(block, placed.course) {
                let set = format!("{}{}", map.name, A::FAMILY);
                self.put(kind, set, &first, &last, &map.data(*placed));
            }
        }
    }

    fn put(&mut self, kind: u16, set: String, first: &[u8], last: &[u8], data: &[u8]) {
        let value = |kind: u16, bytes: &[u8]| attribute(kind | NESTED, &attribute(DATA_VALUE, bytes));
        let mut element = value(ELEMENT_KEY, first);
        if !last.is_empty() {
            element.extend(value(ELEMENT_KEY_END, last));
        }
        // What is taken away is named by its key.
        if kind == NEW_ELEMENT && !data.is_empty() {
            element.extend(value(ELEMENT_DATA, data));
        }
        let list = Some(attribute(LIST_ELEMENT | NESTED, &element));
        self.changes.push(SetChange { kind, set, list });
    }

    /// The batch as it is sent. The last change asks for an answer, which stands for all.
    pub(in crate::enforce) fn to_bytes(&self) -> Vec<u8> {
        let [inet, _] = FAMILIES;
        let table = terminated(TABLE);
        let mut bytes = request(BATCH_BEGIN, 0, 0, SUBSYSTEM_NUMBER, &[]);
        for (number, change) in self.changes.iter().enumerate() {
            let answer = if number + 1 == self.changes.len() { ACK } else { 0 };
            let create = if change.kind == NEW_ELEMENT { CREATE } else { 0 };
            let set = terminated(&change.set);
            let mut attributes = vec![(TABLE_ATTRIBUTE, table.as_slice()), (ELEMENTS_SET, &set)];
            attributes.extend(
                change
                    .list
                    .iter()
                    .map(|list| (ELEMENTS_LIST | NESTED, list.as_slice())),
            );
            bytes.extend(request(change.kind, create | answer, inet, 0, &attributes));
        }
        bytes.extend(request(BATCH_END, 0, 0, SUBSYSTEM_NUMBER, &[]));
        bytes
    }
}
