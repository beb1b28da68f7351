//! The terms of an event, by which the index of the trails knows it, and the terms that a search needs.
//!
//! Both are made here from the same pieces, so that whatever a search finds in an event has the search's terms; the test of
//! the search is the proof. What a name stands for is the release's in force then, which never changes: so names are terms. An event of a
//! release that this coordinator cannot read now may get names later; it has a term of its own, which each
//! search by names looks at, too.

use std::collections::HashSet;

use penstock_proto::event::EventKind;
use penstock_proto::v1::{AuditEvent, Decision};

use super::filter::{Filter, conduits, rightful};
use super::names::Names;
use crate::store::terms::{TEXT_TERMS, Term};
use crate::store::{BlockFilter, Clock};
use crate::summary::decision;

/// Raised with each change of what has which terms.
const RULES: u32 = 2;
/// Days of one search that are looked up one by one.
const DAYS_MAX: u64 = 62;
/// Pieces of texts that are terms of one block. Of events that say something real there are a few hundred; random words have one for each byte, and
/// whoever writes them must not make the index larger than the trail.
const TEXT_TERMS_MAX: usize = 4096;
/// Pieces of a text that are looked up.
const PIECES_MAX: usize = 24;
const DAY_MS: u64 = 86_400_000;

/// The rules by which terms are made: the index of other ones is made again. A kind that is known now was none before.
pub(super) fn form() -> String {
    format!("{RULES}/{}", EventKind::ALL.len())
}

/// What kind of thing a term is.
#[derive(Debug, Clone, Copy)]
enum About {
    Source,
    /// Kind, decision and severity together.
    Class,
    Day,
    Site,
    Zone,
    Conduit,
    Asset,
    Operation,
    Values,
    Operator,
    /// The event's release could not be read.
    Unnamed,
    /// The block could not be read.
    Unreadable,
    /// Not all pieces of the block's texts are terms: there are too many.
    AnyText,
}

/// A term, from what it is about, what was decided (0: whatever), and its name. (FNV-1a; equal numbers cost a look, no more.)
fn term(about: About, decided: i32, name: &[u8]) -> Term {
    let head = [about as u8, u8::try_from(decided).unwrap_or(0)];
    let hash = head
        .iter()
        .chain(name)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let room = u64::from(u32::MAX >> 1) - u64::from(TEXT_TERMS);
    TEXT_TERMS + Term::try_from((hash ^ (hash >> 32)) % room).unwrap_or(0)
}

fn class(kind: Option<EventKind>, decision: i32, severity: i32) -> Term {
    let kind = kind.map_or(u8::MAX, |kind| {
        u8::try_from(kind.description().bit).unwrap_or(u8::MAX)
    });
    let severity = u8::try_from(severity.clamp(0, 4)).unwrap_or(0);
    term(About::Class, decision, &[kind, severity])
}

/// Each three bytes of a text in lower case.
fn pieces(lower: &str) -> impl Iterator<Item = Term> {
    lower.as_bytes().windows(3).map(|piece| match piece {
        [one, two, three] => u32::from_be_bytes([0, *one, *two, *three]),
        _ => 0,
    })
}

/// The first word of an operation, in lower case.
fn verb(operation: &str) -> String {
    operation.split(' ').next().unwrap_or_default().to_lowercase()
}

/// The terms of the events of one block. What was looked at before is not looked at again: events of one block repeat each other.
#[derive(Debug, Default)]
pub(super) struct BlockTerms<'b> {
    all: HashSet<Term>,
    seen: HashSet<(u64, Term, Vec<&'b str>)>,
    texts: HashSet<&'b str>,
    pieces: HashSet<Term>,
    day: Option<u64>,
}

impl<'b> BlockTerms<'b> {
    /// Adds those of an event of `source`, by the names of its release.
    pub(super) fn add(&mut self, source: &str, event: &'b AuditEvent, names: &Names) {
        let day = event.time_ms / DAY_MS;
        if self.day != Some(day) {
            self.day = Some(day);
            self.all.insert(term(About::Day, 0, &day.to_be_bytes()));
        }
        let decided = decision(event);
        let class = class(rightful(source, event), decided, event.severity);
        let Some(described) = event.described() else {
            self.all.insert(class);
            self.named(source, event, names);
            return;
        };
        if described.values().is_some() {
            self.all.insert(term(About::Values, 0, &[]));
        }
        // All that the rest is made of: events that agree in it have the same terms.
        let mut parts = described.texts();
        parts.extend(described.addresses().into_iter().flatten());
        parts.extend(described.operation());
        if !self.seen.insert((event.revision, class, parts)) {
            return;
        }
        self.all.insert(class);
        self.named(source, event, names);
        for text in described.texts() {
            if self.texts.insert(text) {
                self.text(text);
            }
        }
        for text in names.texts(event) {
            self.text(text);
        }
        if let Some(operation) = described.operation() {
            self.all
                .insert(term(About::Operation, 0, verb(operation).as_bytes()));
        }
        if let Some(operator) = described.operator() {
            self.all.insert(term(About::Operator, 0, operator.as_bytes()));
        }
    }

    fn text(&mut self, text: &str) {
        for piece in pieces(&text.to_lowercase()) {
            if self.pieces.len() >= TEXT_TERMS_MAX && !self.pieces.contains(&piece) {
                self.all.insert(term(About::AnyText, 0, &[]));
                return;
            }
            self.pieces.insert(piece);
        }
    }

    /// What the event's names are, with what was decided where somebody looks for that.
    fn named(&mut self, source: &str, event: &AuditEvent, names: &Names) {
        let decided = Some(decision(event)).filter(|decided| *decided >= 2);
        let mut add = |about: About, name: &str| {
            self.all.insert(term(about, 0, name.as_bytes()));
            if let Some(decided) = decided {
                self.all.insert(term(about, decided, name.as_bytes()));
            }
        };
        add(About::Source, source);
        names
            .site(source)
            .into_iter()
            .for_each(|site| add(About::Site, site));
        names
            .zones(event)
            .into_iter()
            .for_each(|zone| add(About::Zone, zone));
        conduits(event, names)
            .into_iter()
            .for_each(|conduit| add(About::Conduit, conduit));
        names
            .assets(event)
            .iter()
            .for_each(|asset| add(About::Asset, asset));
        if event.revision != 0 && !names.are_known() {
            self.all.insert(term(About::Unnamed, 0, &[]));
        }
    }

    /// All of them.
    pub(super) fn into_terms(mut self) -> HashSet<Term> {
        self.all.extend(self.pieces);
        self.all
    }
}

/// What the store passes over for a search.
pub(super) fn blocks(filter: &Filter) -> BlockFilter {
    let decisions = match (filter.decision, filter.refused) {
        (0, true) => (1 << 2) | (1 << 3),
        (0, false) => 0,
        (decision, _) => 1 << decision,
    };
    BlockFilter {
        source: filter.source.clone(),
        from_ms: filter.from_ms,
        until_ms: filter.until_ms,
        clock: filter.clock,
        kinds: filter.kinds,
        decisions,
        severity_min: filter.severity_min,
        newest_first: filter.newest_first,
        terms: of_filter(filter),
    }
}

/// What a block needs to hold what is asked for: one term of each of these.
fn of_filter(filter: &Filter) -> Vec<Vec<Term>> {
    let decided = match (filter.decision, filter.refused) {
        (0, true) => vec![Decision::Deny as i32, Decision::WouldDeny as i32],
        (decided @ 2.., _) => vec![decided],
        _ => vec![0],
    };
    let named = |about: About, names: &[String], unnamed: bool| {
        let mut any: Vec<Term> = names
            .iter()
            .flat_map(|name| {
                decided
                    .iter()
                    .map(|decided| term(about, *decided, name.as_bytes()))
            })
            .collect();
        if unnamed && !any.is_empty() {
            any.push(term(About::Unnamed, 0, &[]));
        }
        any
    };
    let verbs: HashSet<String> = filter
        .operations
        .iter()
        .map(|operation| verb(operation))
        .collect();
    let mut all = vec![
        named(About::Asset, &filter.assets, true),
        named(About::Conduit, &filter.conduits, true),
        named(About::Zone, &filter.zones, true),
        named(About::Source, filter.source.as_slice(), false),
        named(About::Site, &filter.sites, true),
        verbs
            .iter()
            .map(|verb| term(About::Operation, 0, verb.as_bytes()))
            .collect(),
        filter
            .operators
            .iter()
            .map(|name| term(About::Operator, 0, name.as_bytes()))
            .collect(),
        filter
            .values
            .iter()
            .map(|_| term(About::Values, 0, &[]))
            .collect(),
        days(filter),
    ];
    all.extend(texts(&filter.text));
    all.push(classes(filter));
    all.retain(|any| !any.is_empty());
    // What ends a search must not be passed over by it.
    all.iter_mut().for_each(|any| any.push(unreadable()));
    all
}

/// The one term of a block that cannot be read.
pub(super) fn unreadable() -> Term {
    term(About::Unreadable, 0, &[])
}

/// The days that are asked for by the source's clock.
fn days(filter: &Filter) -> Vec<Term> {
    let (first, last) = (filter.from_ms / DAY_MS, filter.until_ms / DAY_MS);
    if filter.clock != Clock::Source || filter.until_ms == 0 || last - first > DAYS_MAX {
        return Vec::new();
    }
    (first..=last)
        .map(|day| term(About::Day, 0, &day.to_be_bytes()))
        .collect()
}

/// Pieces of the text, spread over it. Names of a release that cannot be read are looked at in any case.
fn texts(lower: &str) -> impl Iterator<Item = Vec<Term>> {
    let all: Vec<Term> = pieces(lower).collect();
    let step = all.len().div_ceil(PIECES_MAX).max(1);
    let others = [About::Unnamed, About::AnyText].map(|about| term(about, 0, &[]));
    all.into_iter()
        .step_by(step)
        .map(move |piece| [&[piece], others.as_slice()].concat())
}

/// Kinds, decisions and severities that are asked for; none where any will do.
fn classes(filter: &Filter) -> Vec<Term> {
    if filter.kinds == 0 && filter.decision == 0 && !filter.refused && filter.severity_min == 0 {
        return Vec::new();
    }
    let kinds = EventKind::ALL
        .iter()
        .copied()
        .filter(|kind| filter.kinds == 0 || filter.kinds & kind.bit() != 0);
    let none = Some(None).filter(|_| filter.kinds == 0);
    let decisions: Vec<i32> = match (filter.decision, filter.refused) {
        (0, false) => (0..=3).collect(),
        (0, true) => vec![2, 3],
        (decision, _) => vec![decision],
    };
    let mut all = Vec::new();
    for kind in kinds.map(Some).chain(none) {
        for decision in &decisions {
            let severities = filter.severity_min..=4;
            all.extend(severities.map(|severity| class(kind, *decision, severity)));
        }
    }
    all
}
