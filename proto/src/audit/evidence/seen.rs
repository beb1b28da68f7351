//! Heads of the coordinator's tree that gateways wrote into their own trails, held against the tree of the file.
//!
//! What a gateway writes is its own word. A head with which the tree does not begin is everybody's matter where the key that signed the file's head
//! signed that one, too: no gateway can have made it up. Otherwise it is a finding about that gateway's trail: the gateway may have made the head up, or the
//! coordinator may have signed it by a key that it had before.
//!
//! Bounds: so many heads of one trail, so that one gateway does not take the others' places; more are counted. A head that others' trails have, too, takes
//! no place: all gateways of an honest plant see the same ones.

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::Revision;
use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::TreeState;
use prost::bytes::Bytes;
use rustls::pki_types::CertificateDer;

use crate::audit::note::Note;
use crate::audit::tree_head::TreeHead;
use crate::audit::verify::NotedHeads;

/// Heads that one trail has first and that are held against the tree: two years of one an hour. More are counted.
const SEEN_OF_ONE_MAX: usize = 20_000;
/// Of all trails.
const SEEN_MAX: usize = 4 * SEEN_OF_ONE_MAX;
/// How often a trail is named behind a head, four bytes each: a thousand trails with two years of them.
const NAMED_MAX: usize = 20_000_000;
/// Heads of one trail that contradict and are named.
const DOUBTS_MAX: usize = 5;

/// How a head stands to the tree of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// No proof came.
    #[default]
    Unproved,
    Holds,
    Contradicts,
}

impl Standing {
    /// Why a head does not count.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Unproved => "nothing in the file proves that its tree begins with them",
            Self::Holds | Self::Contradicts => {
                "the tree of the file does not begin with them: blocks were taken out or altered since, or the head was made up"
            }
        }
    }
}

#[derive(Debug, Default)]
struct SeenHead {
    /// As it stands in trails, with the newest release that was in force there (no clock of a coordinator says whether that was before its trails began
    /// again), and in whose: sorted numbers.
    noted: BTreeMap<(Revision, Bytes), Vec<u32>>,
    standing: Standing,
}

impl SeenHead {
    /// How the trail of a number has it.
    fn noted_by(&self, number: u32) -> Option<(Revision, Bytes)> {
        let mut noted = self.noted.iter();
        noted
            .find(|(_, by)| by.binary_search(&number).is_ok())
            .map(|(noted, _)| noted.clone())
    }

    /// The trail of a number has it otherwise.
    fn forget(&mut self, noted: &(Revision, Bytes), number: u32) {
        let Some(by) = self.noted.get_mut(noted) else {
            return;
        };
        by.retain(|one| *one != number);
        if by.is_empty() {
            self.noted.remove(noted);
        }
    }
}

/// The heads.
#[derive(Debug, Default)]
pub(super) struct SeenHeads {
    heads: BTreeMap<(u64, Hash), SeenHead>,
    /// The number of each trail, and how many heads it had first.
    sources: BTreeMap<String, (u32, usize)>,
    /// How many were first in any trail, and how many names stand behind them.
    all: usize,
    named: usize,
    unjudged: u64,
}

/// What comes of them.
#[derive(Debug, Default)]
pub(super) struct JudgedHeads {
    /// The tree begins with them.
    pub(super) held: u64,
    /// From before the trails began again, as approvers said.
    pub(super) given_up: u64,
    /// Not held against the tree, since there are so many.
    pub(super) unjudged: u64,
    /// What contradicts whoever's word a gateway's is, in sentences.
    pub(super) wrong: Vec<String>,
    /// What contradicts and is one gateway's word alone, by gateway.
    pub(super) doubted: BTreeMap<String, Vec<String>>,
}

impl SeenHeads {
    /// Heads that stand in the trail of `source`.
    pub(super) fn take(&mut self, source: &str, noted: NotedHeads) {
        self.unjudged += noted.further;
        for (revision, note) in noted.heads {
            self.take_one(source, revision, &note);
        }
    }

    fn take_one(&mut self, source: &str, revision: Revision, note: &[u8]) {
        let Some((_, head)) = read(note) else { return };
        let next = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        let (number, first) = self.sources.entry(source.to_owned()).or_insert((next, 0));
        let number = *number;
        let key = (head.tree.size, head.tree.root);
        // One trail has one spelling of a head, the first.
        let held = self.heads.get(&key).and_then(|head| head.noted_by(number));
        let noted = match &held {
            Some((newest, _)) if revision <= *newest => return,
            Some((_, note)) => (revision, note.clone()),
            // A copy: the original may be a part of a whole block.
            None => (revision, Bytes::copy_from_slice(note)),
        };
        let is_first = !self
            .heads
            .get(&key)
            .is_some_and(|head| head.noted.contains_key(&noted));
        if held.is_none() {
            let is_full = is_first && (*first >= SEEN_OF_ONE_MAX || self.all >= SEEN_MAX);
            if is_full || self.named >= NAMED_MAX {
                self.unjudged += 1;
                return;
            }
            self.named += 1;
            *first += usize::from(is_first);
        }
        let head = self.heads.entry(key).or_default();
        let noted_before = head.noted.len();
        if let Some(held) = held {
            head.forget(&held, number);
        }
        let by = head.noted.entry(noted).or_default();
        if let Err(at) = by.binary_search(&number) {
            by.insert(at, number);
        }
        self.all = (self.all + head.noted.len()).saturating_sub(noted_before);
    }

    /// Their sizes.
    pub(super) fn sizes(&self) -> impl Iterator<Item = u64> {
        self.heads.keys().map(|(size, _)| *size)
    }

    /// A proof came for all heads of this size.
    pub(super) fn prove(&mut self, earlier: u64, judged: impl Fn(&TreeState) -> Standing) {
        let same = (earlier, [0; 32])..=(earlier, [0xff; 32]);
        for ((size, root), one) in self.heads.range_mut(same) {
            if one.standing != Standing::Holds {
                let (size, root) = (*size, *root);
                one.standing = judged(&TreeState { size, root });
            }
        }
    }

    /// What comes of all. `again`: the newest release that says that the trails begin again, and when it was made; `coordinator`: the certificate of the key
    /// that signed the head of the file.
    pub(super) fn judge(
        &self,
        again: Option<(Revision, u64)>,
        coordinator: Option<&CertificateDer<'_>>,
    ) -> JudgedHeads {
        let mut judged = JudgedHeads {
            unjudged: self.unjudged,
            ..JudgedHeads::default()
        };
        let names: BTreeMap<u32, &str> = self
            .sources
            .iter()
            .map(|(name, (number, _))| (*number, name.as_str()))
            .collect();
        let named = |number: &u32| names.get(number).copied().unwrap_or_default();
        for ((size, _), one) in &self.heads {
            if one.standing == Standing::Holds {
                judged.held += 1;
                continue;
            }
            let counts = |revision: Revision| again.is_none_or(|(since, _)| revision >= since);
            let by: Vec<_> = one
                .noted
                .iter()
                .filter(|((revision, _), _)| counts(*revision))
                .collect();
            judged.given_up += u64::from(by.is_empty());
            let why = one.standing.in_words();
            // One that the coordinator signed before may be shown again by a gateway that says that it saw it after.
            let since_ms = again.map_or(0, |(_, created_ms)| created_ms);
            let signed = by
                .iter()
                .find(|((_, note), _)| coordinator.is_some_and(|key| is_signed(note, key, since_ms)));
            if let Some((_, sources)) = signed {
                let source = sources.iter().map(named).min().unwrap_or_default();
                judged.wrong.push(format!(
                    "the trail of {source} has a head of the coordinator's trails with {size} blocks, which the same key signed, and {why}"
                ));
                continue;
            }
            let sources: BTreeSet<_> = by.iter().flat_map(|(_, sources)| sources.iter()).collect();
            for source in sources {
                let doubts = judged.doubted.entry(named(source).to_owned()).or_default();
                if doubts.len() < DOUBTS_MAX {
                    doubts.push(format!(
                        "it has a head of the coordinator's trails with {size} blocks, of which this file does not prove that the coordinator signed it, and {why}"
                    ));
                } else if doubts.len() == DOUBTS_MAX {
                    doubts.push("it has further heads that contradict".to_owned());
                }
            }
        }
        judged
    }
}

fn read(note: &[u8]) -> Option<(Note, TreeHead)> {
    let note = Note::parse(note).ok()?;
    let head = TreeHead::parse(&note.text)?;
    Some((note, head))
}

/// Whether the key of this certificate signed the head, behind this time by its clock.
fn is_signed(note: &[u8], coordinator: &CertificateDer<'_>, since_ms: u64) -> bool {
    read(note).is_some_and(|(note, head)| {
        head.time_ms > since_ms && note.verify_certified(&head.origin, coordinator).is_ok()
    })
}
