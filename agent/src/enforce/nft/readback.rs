//! Reads back what the kernel holds, straight from netlink, as digests.
//!
//! A table's *structure* (chains, rules, sets, and the elements of all sets but the flows' maps) is digested as the
//! kernel describes it, without handles, counters and what ends by itself. The flows' maps are digested by element, in any order, so that
//! the digest can also be computed from the elements that were meant. A table of 100,000 elements is read in a tenth
//! of a second with a buffer of 64 KiB.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use penstock_policy::ids::Digest;
use sha2::Digest as _;

use super::batch::ElementBatch;
use super::maps::{MAPS, maps_of};
use super::names::{FAMILY_NAMES, GRANTED, STARTING_S, TABLE, TABLE_BESIDE};
use super::netlink::{
    ACK, DONE, DUMP, ERROR, INTERRUPTED, NETFILTER, NetlinkMessage, NetlinkSocket, attributes, be32,
    messages, request, text,
};
use super::wire::{
    CHAIN_NAME, CHAIN_USERDATA, COUNTER_BYTES, COUNTER_PACKETS, ELEMENT_DATA, ELEMENT_FLAGS, ELEMENT_KEY,
    ELEMENT_KEY_END, ELEMENT_TIMEOUT, ELEMENTS_LIST, ELEMENTS_SET, FAMILIES, GENERATION_ID, GET_CHAIN,
    GET_ELEMENTS, GET_GENERATION, GET_OBJECT, GET_RULE, GET_SET, GET_TABLE, OBJECT_DATA, OBJECT_NAME,
    SET_DYNAMIC, SET_FLAGS, SET_NAME, TABLE_ATTRIBUTE, inner, keys, terminated,
};
use crate::enforce::counters::{NamedCounters, logged};
use crate::enforce::shape::block::{Address, Block};
use crate::enforce::shape::lower::{Disposition, Elements};
use crate::intercept::ALIVE_S;

mod judging;
mod packets;
pub(in crate::enforce) mod shadow;
mod witness;

/// Room for the largest datagram of a dump.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a dump is begun again because somebody changed the rules meanwhile.
const ATTEMPTS: usize = 8;

/// An order-independent digest of a map's elements: the sum of the elements' digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ElementsDigest {
    words: [u64; 4],
    count: u64,
}

impl ElementsDigest {
    fn add(&mut self, element: &[u8]) {
        let digest = sha2::Sha256::digest(element);
        for (word, bytes) in self.words.iter_mut().zip(digest.chunks_exact(8)) {
            let bytes = bytes.first_chunk().copied().unwrap_or_default();
            *word = word.wrapping_add(u64::from_ne_bytes(bytes));
        }
        self.count += 1;
    }

    /// The elements that a message lists.
    fn add_all(&mut self, message: &NetlinkMessage<'_>) {
        let ends_by_itself = [STARTING_S, ALIVE_S].map(|s| (u64::from(s) * 1000).to_be_bytes());
        let lists = attributes(message.payload).filter(|(kind, _)| *kind == ELEMENTS_LIST);
        for (_, element) in lists.flat_map(|(_, list)| attributes(list)) {
            let (mut key, mut end, mut data): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
            let (mut flags, mut timeout): (&[u8], &[u8]) = (&[], &[]);
            for (kind, value) in attributes(element) {
                match kind {
                    ELEMENT_KEY => key = inner(value),
                    ELEMENT_KEY_END => end = inner(value),
                    ELEMENT_DATA => data = inner(value),
                    ELEMENT_FLAGS => flags = value,
                    ELEMENT_TIMEOUT => timeout = value,
                    _ => {}
                }
            }
            if ends_by_itself.iter().any(|known| timeout == known) {
                // Of `starting` or `alive`: it goes without anybody changing the rules.
            } else if flags.is_empty() {
                self.add(&flat(key, end, data));
            } else {
                self.add(&[flat(key, end, data).as_slice(), flags].concat());
            }
        }
    }
}

/// What the kernel holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRuleset {
    /// Which of our tables there are, by family.
    pub tables: Vec<u8>,
    /// Digest of everything but the flows' maps.
    pub structure: Digest,
    /// The flows' maps by name.
    pub maps: BTreeMap<String, ElementsDigest>,
    /// What the seal says: the comment of the chain `seal`.
    pub seal: Option<String>,
    /// Digest of the handles of tables, chains and rules, which the kernel gives once: what was taken away and put back has others.
    pub handles: Digest,
}

impl KernelRuleset {
    /// Digest of all that our tables hold.
    pub fn content(&self) -> Digest {
        content(&self.tables, self.structure, &self.maps)
    }

    /// Whether these are the base rules of a boot, as they were loaded.
    pub fn is_base(&self) -> bool {
        self.seal.as_deref() == Some(base_seal(self.structure).as_str())
    }

    /// The names of the families in which there are tables of ours.
    pub fn family_names(&self) -> Vec<&'static str> {
        let named = FAMILIES.into_iter().zip(FAMILY_NAMES);
        let ours = named.filter_map(|(family, name)| self.tables.contains(&family).then_some(name));
        ours.collect()
    }
}

/// The text that marks base rules as loaded whole: their digest, as the kernel describes them.
pub(in crate::enforce) fn base_seal(described: Digest) -> String {
    format!("penstock-base {}", hex::encode(described.0))
}

/// Digest of tables, of everything but the flows' maps, and of these.
pub fn content(tables: &[u8], structure: Digest, maps: &BTreeMap<String, ElementsDigest>) -> Digest {
    let mut hash = sha2::Sha256::new();
    hash.update(tables.len().to_ne_bytes());
    hash.update(tables);
    hash.update(structure.0);
    // A map that is empty is as good as one that no table has.
    for (name, sum) in maps.iter().filter(|(_, sum)| sum.count > 0) {
        hash.update(name.len().to_ne_bytes());
        hash.update(name);
        hash.update(sum.words.map(u64::to_ne_bytes).as_flattened());
        hash.update(sum.count.to_ne_bytes());
    }
    Digest(hash.finalize().into())
}

/// What the flows' maps hold if they hold exactly `elements`.
pub fn meant(elements: &Elements) -> BTreeMap<String, ElementsDigest> {
    let mut maps: BTreeMap<String, ElementsDigest> = BTreeMap::new();
    for map in MAPS {
        for family in ['4', '6'] {
            maps.insert(format!("{}{family}", map.name), ElementsDigest::default());
        }
    }
    sum_family(&mut maps, &elements.v4);
    sum_family(&mut maps, &elements.v6);
    maps
}

fn sum_family<A: Address>(
    maps: &mut BTreeMap<String, ElementsDigest>,
    blocks: &BTreeMap<Block<A>, Disposition>,
) {
    for (block, placed) in blocks {
        let (key, end) = keys(block);
        for map in maps_of(block, placed.course) {
            maps.entry(format!("{}{}", map.name, A::FAMILY))
                .or_default()
                .add(&flat(&key, &end, &map.data(*placed)));
        }
    }
}

/// Three byte strings as one that is different for any different three.
fn flat(key: &[u8], end: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + end.len() + data.len() + 12);
    for part in [key, end, data] {
        bytes.extend(part.len().to_ne_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// A socket to ask the kernel with. Blocking, but the kernel answers at once.
#[derive(Debug)]
pub struct RulesetReader(NetlinkSocket);

impl RulesetReader {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel gives no netlink socket for its packet filter.
    pub fn open() -> io::Result<Self> {
        let socket = NetlinkSocket::open(NETFILTER, 0, 1 << 20)?;
        socket.limit_wait(PATIENCE)?;
        Ok(Self(socket))
    }

    /// Number of the rules' current generation: it changes with every transaction of anybody.
    ///
    /// # Errors
    /// The kernel does not answer in time, refuses, or reports no generation.
    pub fn generation(&self) -> io::Result<u32> {
        let mut id = None;
        self.ask(GET_GENERATION, 0, 0, &[], |message| {
            let found = attributes(message.payload).find(|(kind, _)| *kind == GENERATION_ID);
            id = found.and_then(|(_, value)| be32(value));
        })?;
        id.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the kernel reported no generation of its rules",
            )
        })
    }

    /// Reads our tables.
    ///
    /// # Errors
    /// The kernel does not answer in time or refuses, or somebody changed the rules during each of several attempts.
    pub fn held(&self) -> io::Result<KernelRuleset> {
        self.steadily(Self::held_once)
    }

    /// What `read` reads, once nobody changes the rules meanwhile.
    fn steadily<T>(&self, read: impl Fn(&Self) -> io::Result<T>) -> io::Result<T> {
        for _ in 0..ATTEMPTS {
            match read(self) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the rules kept changing while they were read",
        ))
    }

    fn held_once(&self) -> io::Result<KernelRuleset> {
        let mut held = KernelRuleset {
            tables: Vec::new(),
            structure: Digest([0; 32]),
            maps: BTreeMap::new(),
            seal: None,
            handles: Digest([0; 32]),
        };
        let (mut hash, mut handles) = (sha2::Sha256::new(), sha2::Sha256::new());
        let mut sets: Vec<(u8, String)> = Vec::new();
        for family in FAMILIES {
            self.dump(GET_TABLE, family, &[], |message| {
                if is_ours(&message) {
                    held.tables.push(family);
                    hash_handle(&mut handles, GET_TABLE, &message);
                }
            })?;
            for kind in [GET_CHAIN, GET_RULE, GET_SET, GET_OBJECT] {
                self.dump(kind, family, &[], |message| {
                    if !is_ours(&message) {
                        return;
                    }
                    if kind == GET_CHAIN && name(&message, CHAIN_NAME).as_deref() == Some("seal") {
                        held.seal = comment(&message);
                        return;
                    }
                    if kind == GET_SET && !is_dynamic(&message) {
                        sets.extend(name(&message, SET_NAME).map(|set| (family, set)));
                    }
                    hash_handle(&mut handles, kind, &message);
                    hash.update([family]);
                    hash.update(kind.to_ne_bytes());
                    for (attribute, value) in attributes(message.payload) {
                        if !is_fleeting(kind, attribute) {
                            hash.update(attribute.to_ne_bytes());
                            hash.update(value.len().to_ne_bytes());
                            hash.update(value);
                        }
                    }
                })?;
            }
        }
        for (family, set) in sets {
            // Nobody but the agent renews it, and what is in it opens nothing that the flows' maps do not hold.
            if family == 1 && set == GRANTED {
                continue;
            }
            let sum = self.elements(family, &set)?;
            let of_flows = family == 1 && MAPS.iter().any(|m| set.trim_end_matches(['4', '6']) == m.name);
            if of_flows {
                held.maps.insert(set, sum);
            } else {
                hash.update([family]);
                hash.update(set.as_bytes());
                hash.update(sum.words.map(u64::to_ne_bytes).as_flattened());
                hash.update(sum.count.to_ne_bytes());
            }
        }
        held.structure = Digest(hash.finalize().into());
        held.handles = Digest(handles.finalize().into());
        Ok(held)
    }

    fn elements(&self, family: u8, set: &str) -> io::Result<ElementsDigest> {
        let mut sum = ElementsDigest::default();
        let (table, set) = (terminated(TABLE), terminated(set));
        let names: [(u16, &[u8]); 2] = [(TABLE_ATTRIBUTE, &table), (ELEMENTS_SET, &set)];
        self.dump(GET_ELEMENTS, family, &names, |message| sum.add_all(&message))?;
        Ok(sum)
    }

    /// Sends a batch, which the kernel takes whole or not at all.
    pub(in crate::enforce) fn change(&self, batch: &ElementBatch) -> io::Result<()> {
        self.0.send(&batch.to_bytes())?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            // What was wrong is told before what went well: the first answer is that of the whole batch.
            for message in messages(self.0.receive(&mut buffer)?) {
                match (message.kind, message.error_number()) {
                    (ERROR, 0) => return Ok(()),
                    (ERROR, number) => return Err(io::Error::from_raw_os_error(number)),
                    _ => {}
                }
            }
        }
    }

    /// Packets and bytes of our named counters, by family and name.
    ///
    /// # Errors
    /// The kernel does not answer in time, or refuses.
    pub fn counters(&self) -> io::Result<NamedCounters> {
        self.counters_of(TABLE)
    }

    /// Log messages that the kernel has sent since the tables were made: ours, and those that judge while they take others' place.
    ///
    /// # Errors
    /// The kernel does not answer in time, or refuses.
    pub fn logged(&self) -> io::Result<u64> {
        Ok(logged(&self.counters_of(TABLE)?) + logged(&self.counters_of(TABLE_BESIDE)?))
    }

    fn counters_of(&self, table: &str) -> io::Result<NamedCounters> {
        let mut counters = BTreeMap::new();
        for family in FAMILIES {
            self.dump(GET_OBJECT, family, &[], |message| {
                let is_meant = name(&message, TABLE_ATTRIBUTE).as_deref() == Some(table);
                let Some(name) = is_meant.then(|| name(&message, OBJECT_NAME)).flatten() else {
                    return;
                };
                let (mut packets, mut bytes) = (0, 0);
                let data = attributes(message.payload).filter(|(kind, _)| *kind == OBJECT_DATA);
                for (kind, value) in data.flat_map(|(_, data)| attributes(data)) {
                    let number = value.first_chunk().map_or(0, |b| u64::from_be_bytes(*b));
                    match kind {
                        COUNTER_BYTES => bytes = number,
                        COUNTER_PACKETS => packets = number,
                        _ => {}
                    }
                }
                counters.insert((family, name), (packets, bytes));
            })?;
        }
        Ok(counters)
    }

    fn dump(
        &self,
        kind: u16,
        family: u8,
        filter: &[(u16, &[u8])],
        each: impl FnMut(NetlinkMessage<'_>),
    ) -> io::Result<()> {
        self.ask(kind, DUMP, family, filter, each)
    }

    fn ask(
        &self,
        kind: u16,
        flags: u16,
        family: u8,
        filter: &[(u16, &[u8])],
        mut each: impl FnMut(NetlinkMessage<'_>),
    ) -> io::Result<()> {
        self.0.send(&request(kind, flags | ACK, family, 0, filter))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut interrupted = false;
        loop {
            for message in messages(self.0.receive(&mut buffer)?) {
                interrupted |= message.flags & INTERRUPTED != 0;
                match message.kind {
                    DONE if interrupted => return Err(io::ErrorKind::Interrupted.into()),
                    DONE => return Ok(()),
                    ERROR if message.error_number() == 0 => return Ok(()),
                    ERROR => return Err(io::Error::from_raw_os_error(message.error_number())),
                    _ => each(message),
                }
            }
        }
    }
}

/// Whether a message speaks of our table.
pub(in crate::enforce) fn is_ours(message: &NetlinkMessage<'_>) -> bool {
    FAMILIES.contains(&message.family) && name(message, TABLE_ATTRIBUTE).as_deref() == Some(TABLE)
}

fn name(message: &NetlinkMessage<'_>, attribute: u16) -> Option<String> {
    attributes(message.payload)
        .find(|(kind, _)| *kind == attribute)
        .map(|(_, value)| text(value))
}

/// Whether packets themselves put elements into a set.
fn is_dynamic(message: &NetlinkMessage<'_>) -> bool {
    let flags = attributes(message.payload).find(|(kind, _)| *kind == SET_FLAGS);
    flags
        .and_then(|(_, value)| be32(value))
        .is_some_and(|flags| flags & SET_DYNAMIC != 0)
}

/// The comment among a chain's user data: entries of type, length and text.
fn comment(message: &NetlinkMessage<'_>) -> Option<String> {
    let (_, data) = attributes(message.payload).find(|(kind, _)| *kind == CHAIN_USERDATA)?;
    let [0, length, rest @ ..] = data else { return None };
    Some(text(rest.get(..usize::from(*length))?))
}

/// Adds the handle that the kernel gave to a table, chain or rule.
fn hash_handle(hash: &mut sha2::Sha256, kind: u16, message: &NetlinkMessage<'_>) {
    let attribute = match kind {
        GET_TABLE => 4,
        GET_CHAIN => 2,
        GET_RULE => 3,
        _ => return,
    };
    if let Some((_, value)) = attributes(message.payload).find(|(kind, _)| *kind == attribute) {
        hash.update(kind.to_ne_bytes());
        hash.update(value);
    }
}

/// Attributes that change without anybody changing the rules: handles, uses, counts.
fn is_fleeting(kind: u16, attribute: u16) -> bool {
    match kind {
        // NFTA_CHAIN_HANDLE, NFTA_CHAIN_USE, NFTA_CHAIN_COUNTERS.
        GET_CHAIN => matches!(attribute, 2 | 6 | 8),
        // NFTA_RULE_HANDLE, NFTA_RULE_POSITION.
        GET_RULE => matches!(attribute, 3 | 6),
        // NFTA_SET_HANDLE, NFTA_SET_COUNT.
        GET_SET => matches!(attribute, 16 | 20),
        // NFTA_OBJ_DATA (the count), NFTA_OBJ_USE, NFTA_OBJ_HANDLE.
        GET_OBJECT => matches!(attribute, 4..=6),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::super::netlink::attribute;
    use super::*;
    use crate::enforce::nft::wire::SUBSYSTEM;
    use crate::enforce::shape::lower::lower;
    use crate::enforce::watch::drift::Hearing;

    /// Bytes that are netlink for a while: messages of our table with attributes of which some lie about their length.
    fn almost_netlink() -> impl Strategy<Value = Vec<u8>> {
        let value = proptest::collection::vec(any::<u8>(), 0..24);
        let attributes = proptest::collection::vec((0u16..24, value), 0..6);
        let nested = (0u16..24, attributes).prop_map(|(kind, inner)| {
            let inner: Vec<u8> = inner
                .iter()
                .flat_map(|(kind, value)| attribute(*kind, value))
                .collect();
            (kind, inner)
        });
        let kind = prop_oneof![Just(0u16), Just(9), Just(15), 0u16..32].prop_map(|kind| SUBSYSTEM | kind);
        let message = (kind, proptest::collection::vec(nested, 0..5)).prop_map(|(kind, nested)| {
            let table = terminated(TABLE);
            let mut all: Vec<(u16, &[u8])> = vec![(TABLE_ATTRIBUTE, &table)];
            all.extend(nested.iter().map(|(kind, value)| (*kind, value.as_slice())));
            request(kind, 0, FAMILIES[0], 0, &all)
        });
        let spoilt = (
            proptest::collection::vec(message, 0..5),
            proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..5),
        )
            .prop_map(|(messages, spoils)| {
                let mut bytes = messages.concat();
                for (place, byte) in spoils {
                    if !bytes.is_empty() {
                        let place = place.index(bytes.len());
                        *bytes.get_mut(place).unwrap() = byte;
                    }
                }
                bytes
            });
        prop_oneof![spoilt, proptest::collection::vec(any::<u8>(), 0..200)]
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_from_the_kernel_reading_them_ends_and_gives_no_more_than_they_hold(
            bytes in almost_netlink(),
        ) {
            let mut given = 0;
            let mut sum = ElementsDigest::default();
            for message in messages(&bytes) {
                given += 1;
                let _ = (is_ours(&message), is_dynamic(&message), message.error_number());
                prop_assert!(comment(&message).is_none_or(|words| words.len() <= 3 * bytes.len()));
                prop_assert!(name(&message, OBJECT_NAME).is_none_or(|name| name.len() <= 3 * bytes.len()));
                sum.add_all(&message);
                let mut hash = sha2::Sha256::new();
                for kind in [GET_TABLE, GET_CHAIN, GET_RULE] {
                    hash_handle(&mut hash, kind, &message);
                }
                prop_assert!(attributes(message.payload).count() <= message.payload.len() / 4);
            }
            prop_assert!(given <= bytes.len() / 16 && sum.count <= bytes.len() as u64 / 4);
            let noticed = Hearing::default().datagram(&bytes);
            prop_assert!(noticed.is_none_or(|(_, process)| process.len() <= 3 * bytes.len() + 16));
        }

        #[test]
        fn what_a_batch_writes_is_read_back_as_what_was_meant(plan in penstock_policy::arbitrary::plans()) {
            let elements = lower(&plan).unwrap();
            let Some(batch) = ElementBatch::between(&Elements::default(), &elements) else {
                // Too many for one: `nft` loads them.
                return Ok(());
            };
            let mut read = meant(&Elements::default());
            let bytes = batch.to_bytes();
            for message in messages(&bytes).filter(is_ours) {
                let set = name(&message, ELEMENTS_SET).unwrap();
                read.get_mut(&set).unwrap().add_all(&message);
            }
            prop_assert_eq!(read, meant(&elements));
        }
    }
}
