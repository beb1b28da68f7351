//! What one permitted operation permits that another does not.
//!
//! An entry is seen as what it permits of each operation on the wire, with every limit as the set that it is. A limit that an
//! operation has no use for does not bind it, exactly as the inspector reads it (`penstock-inspect`, `judge`), so that what is
//! called narrower is refused at no gateway that wants more. An entry with several patterns is seen as one entry for each, since
//! no operation has two. A list that says nothing of who may open a session lets everyone, so that it is seen with such an
//! entry: to take the last one away widens.

use std::collections::BTreeMap;

use super::numbers;
use crate::protocol::vocabulary::{Aspect, Kind, Limit, Member, Patterns, Takes, Vocabulary};
use crate::protocol::{LimitSet, Operations, Permitted};
use crate::terms::NumberRange;

/// All that an aspect may be.
#[derive(Debug, Clone)]
enum Set {
    /// Any of these numbers.
    Numbers(Vec<NumberRange>),
    /// What this pattern matches.
    Pattern(&'static Patterns, String),
    /// One of these names; `None`: any.
    Texts(Option<Vec<String>>),
    /// Whether it may be so.
    Flag(bool),
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Numbers(own), Self::Numbers(other)) => own == other,
            (Self::Pattern(_, own), Self::Pattern(_, other)) => own == other,
            (Self::Texts(own), Self::Texts(other)) => own == other,
            (Self::Flag(own), Self::Flag(other)) => own == other,
            _ => false,
        }
    }
}

impl Set {
    fn covers(&self, inner: &Self) -> bool {
        match (self, inner) {
            (Self::Numbers(outer), Self::Numbers(inner)) => numbers::covers(outer, inner),
            (Self::Pattern(patterns, outer), Self::Pattern(_, inner)) => (patterns.covers)(outer, inner),
            (Self::Texts(None), Self::Texts(_)) => true,
            (Self::Texts(Some(outer)), Self::Texts(Some(inner))) => {
                inner.iter().all(|name| outer.contains(name))
            }
            (Self::Flag(outer), Self::Flag(inner)) => *outer || !inner,
            _ => false,
        }
    }
}

/// What an entry permits, with every limit as the set that it is.
#[derive(Debug, Clone)]
pub(super) struct Permit {
    vocabulary: &'static Vocabulary,
    /// The entry as a phrase.
    pub(super) phrase: String,
    operation: String,
    sets: BTreeMap<&'static str, (&'static Aspect, Set)>,
    members: Vec<Member>,
}

impl PartialEq for Permit {
    fn eq(&self, other: &Self) -> bool {
        self.operation == other.operation && self.sets == other.sets
    }
}

/// Everything that a list permits.
pub(super) fn permits(operations: &Operations) -> Vec<Permit> {
    let vocabulary = operations.protocol.vocabulary();
    let mut permits: Vec<Permit> = operations
        .permitted
        .iter()
        .flat_map(|permitted| Permit::each(vocabulary, permitted))
        .collect();
    if let Some(session) = &vocabulary.session
        && operations.named(session.operation).next().is_none()
    {
        let anyone = Permitted {
            operation: session.operation.to_owned(),
            limits: BTreeMap::new(),
        };
        permits.extend(Permit::each(vocabulary, &anyone));
    }
    permits
}

impl Permit {
    fn each(vocabulary: &'static Vocabulary, permitted: &Permitted) -> Vec<Self> {
        let shape = vocabulary.shape(&permitted.operation);
        let takes = shape.map(|shape| shape.limits).unwrap_or_default();
        let mut permits = vec![Self {
            vocabulary,
            phrase: permitted.phrase(vocabulary),
            operation: permitted.operation.clone(),
            sets: BTreeMap::new(),
            members: (vocabulary.members)(&permitted.operation),
        }];
        for takes in takes {
            let sets = sets(takes, permitted);
            permits = permits
                .into_iter()
                .flat_map(|permit| sets.iter().map(move |set| permit.with(takes.bounds, set.clone())))
                .collect();
        }
        permits
    }

    /// The same with another set for one aspect.
    fn with(&self, aspect: &'static Aspect, set: Set) -> Self {
        let mut other = self.clone();
        other.sets.insert(aspect.id, (aspect, set));
        other
    }

    fn set(&self, aspect: &Aspect) -> Option<&Set> {
        self.sets.get(aspect.id).map(|(_, set)| set)
    }

    fn numbers(&self, aspect: &Aspect) -> &[NumberRange] {
        match self.set(aspect) {
            Some(Set::Numbers(ranges)) => ranges,
            _ => &[],
        }
    }

    /// Whether both are of one operation or group.
    pub(super) fn is_of_same(&self, other: &Self) -> bool {
        self.operation == other.operation
    }

    /// Whether all that `inner` permits is permitted here.
    pub(super) fn covers(&self, inner: &Self) -> bool {
        inner.members.iter().all(|member| {
            let wide = |own: &&Member| own.code == member.code;
            self.members
                .iter()
                .filter(wide)
                .any(|own| self.covers_member(own, inner, member))
        })
    }

    fn covers_member(&self, own: &Member, inner: &Self, member: &Member) -> bool {
        let fixed = |member: &Member, aspect: &Aspect| {
            let fixed = member.fixed.as_ref().filter(|(of, _)| **of == *aspect);
            fixed.map(|(_, ranges)| Set::Numbers(ranges.clone()))
        };
        member.aspects.iter().copied().all(|aspect| {
            let outer = fixed(own, aspect).or_else(|| self.set(aspect).cloned());
            let inner = fixed(member, aspect).or_else(|| inner.set(aspect).cloned());
            match (outer, inner) {
                (Some(outer), Some(inner)) => outer.covers(&inner),
                (None, _) => true,
                (Some(_), None) => false,
            }
        })
    }

    /// The numbers of these aspects that none of `others` permits, all else being as it is here.
    fn beyond(&self, aspects: &[&'static Aspect], others: &[Self]) -> Vec<NumberRange> {
        let Some(first) = aspects.first() else {
            return Vec::new();
        };
        let mut left = self.numbers(first).to_vec();
        for other in others {
            let same = aspects
                .iter()
                .all(|aspect| other.numbers(aspect) == other.numbers(first));
            let as_other = |permit: Self, aspect: &&'static Aspect| {
                permit.with(aspect, Set::Numbers(other.numbers(aspect).to_vec()))
            };
            if same && other.covers(&aspects.iter().fold(self.clone(), as_other)) {
                left = numbers::without(&left, other.numbers(first));
            }
        }
        left
    }

    /// Whether others permit each number of it, but not in one request.
    pub(super) fn is_only_joined(&self, others: &[Self]) -> bool {
        let of = |spans: bool| -> Vec<&'static Aspect> {
            let own = self
                .sets
                .values()
                .filter(|(_, set)| matches!(set, Set::Numbers(_)));
            own.map(|(aspect, _)| *aspect)
                .filter(|aspect| aspect.spans == spans)
                .collect()
        };
        let spans = of(true);
        let aspects = if spans.is_empty() {
            of(false).into_iter().take(1).collect()
        } else {
            spans
        };
        !aspects.is_empty() && self.beyond(&aspects, others).is_empty()
    }

    /// The one thing in which it differs from another entry of the same operation, if that is a set of numbers: one aspect, or two
    /// of one name that have the same set here as there.
    pub(super) fn differs_in(&self, other: &Self) -> Option<Difference> {
        if self.pattern().is_some() {
            return None;
        }
        let all = self.sets.values().map(|(aspect, _)| *aspect);
        let aspects: Vec<&'static Aspect> = all
            .filter(|aspect| self.set(aspect) != other.set(aspect))
            .collect();
        let numbers = |permit: &Self| {
            let first = permit.numbers(aspects.first()?);
            let same = aspects.iter().all(|aspect| permit.numbers(aspect) == first);
            (same && !first.is_empty()).then_some(())
        };
        let name = aspects.first()?.name;
        if aspects.iter().any(|aspect| aspect.name != name) {
            return None;
        }
        numbers(self).and(numbers(other))?;
        Some(Difference { aspects })
    }

    /// What it permits as a sentence that begins with what it names: `line4/# may no longer be published at QoS 0-2`; of what
    /// `others` leave of it, with `beyond line4/a` behind. `None` where a phrase says it.
    pub(super) fn sentence(&self, may: &str, others: &[Self]) -> Option<String> {
        if let Some((aspect, pattern)) = self.pattern() {
            let rest: String = self
                .sets
                .values()
                .map(|(aspect, set)| behind(aspect, set))
                .collect();
            let covered = others.iter().filter(|other| self.covers(other));
            let parts: Vec<&str> = covered
                .filter_map(|other| other.pattern().map(|(_, pattern)| pattern))
                .collect();
            let beyond = match parts.as_slice() {
                [] => String::new(),
                parts => format!(" beyond {}", parts.join(", ")),
            };
            return Some(format!("{pattern} {may} be {}{rest}{beyond}", aspect.done));
        }
        let session = self.vocabulary.session.as_ref()?;
        if session.operation != self.operation {
            return None;
        }
        let takes = self.vocabulary.shape(&self.operation)?.limits;
        let names = takes.iter().filter_map(|takes| match self.set(takes.bounds)? {
            Set::Texts(Some(names)) => {
                let [noun, _] = takes.bounds.nouns;
                Some(format!("{noun}{}", names.join(" or ")))
            }
            _ => None,
        });
        let names: Vec<String> = names.collect();
        let who = match names.as_slice() {
            [] => session.anyone.to_owned(),
            names => names.join(" with "),
        };
        Some(format!("{who} {may} {}", self.operation))
    }

    fn pattern(&self) -> Option<(&'static Aspect, &str)> {
        self.sets.values().find_map(|(aspect, set)| match set {
            Set::Pattern(_, pattern) => Some((*aspect, pattern.as_str())),
            _ => None,
        })
    }

    /// The entry's name.
    pub(super) fn operation(&self) -> &str {
        &self.operation
    }
}

/// What stands at the end of a sentence for a set.
fn behind(aspect: &Aspect, set: &Set) -> String {
    match set {
        Set::Numbers(ranges) => format!("{}{}", aspect.after, numbers::words(ranges)),
        Set::Flag(true) => aspect.after.to_owned(),
        Set::Flag(false) | Set::Pattern(..) | Set::Texts(_) => String::new(),
    }
}

/// What a limit lets pass, one set for each entry that it makes.
fn sets(takes: &Takes, permitted: &Permitted) -> Vec<Set> {
    let mut said = takes.bounds.by.iter().map(|limit| permitted.limit(limit.name));
    match said.find_map(|set| set) {
        Some(LimitSet::Numbers(ranges)) => vec![Set::Numbers(NumberRange::merged(ranges.clone()))],
        Some(LimitSet::Range(range)) => vec![Set::Numbers(vec![*range])],
        Some(LimitSet::Patterns(listed)) => match takes.limit.kind {
            Kind::Patterns(patterns) => listed
                .iter()
                .map(|one| Set::Pattern(patterns, one.clone()))
                .collect(),
            _ => Vec::new(),
        },
        Some(LimitSet::Texts(names)) => vec![Set::Texts(Some(names.clone()))],
        Some(LimitSet::Flag(is_so)) => vec![Set::Flag(*is_so)],
        None => vec![unlimited(takes.limit)],
    }
}

fn unlimited(limit: &Limit) -> Set {
    match limit.kind {
        Kind::Numbers { last, .. } | Kind::Range { last, .. } => Set::Numbers(all(last)),
        Kind::Patterns(patterns) => Set::Pattern(patterns, patterns.any.to_owned()),
        Kind::Texts => Set::Texts(None),
        Kind::Flag { .. } => Set::Flag(true),
    }
}

fn all(last: u32) -> Vec<NumberRange> {
    vec![NumberRange { first: 0, last }]
}

/// The numbers in which two entries of one operation differ.
pub(super) struct Difference {
    aspects: Vec<&'static Aspect>,
}

impl Difference {
    /// What they are called: `addresses`.
    pub(super) fn name(&self) -> &'static str {
        self.aspects.first().map_or("", |aspect| aspect.name)
    }

    /// Those of an entry as people read them; `any` for all that there are.
    pub(super) fn words(&self, permit: &Permit) -> String {
        let Some(aspect) = self.aspects.first() else {
            return String::new();
        };
        let takes = permit.vocabulary.shape(&permit.operation);
        let takes = takes.and_then(|shape| shape.limits.iter().find(|takes| takes.bounds == *aspect));
        let ranges = permit.numbers(aspect);
        match takes.map(|takes| unlimited(takes.limit)) {
            Some(Set::Numbers(every)) if every == ranges => "any".to_owned(),
            _ => numbers::words(ranges),
        }
    }

    /// What of an entry none of `others` permits: `100-199 may no longer be read`. `None` where that is no number.
    pub(super) fn sentence(&self, permit: &Permit, others: &[Permit], may: &str) -> Option<String> {
        let beyond = permit.beyond(&self.aspects, others);
        let [one, several] = self.aspects.first()?.nouns;
        let noun = match beyond.as_slice() {
            [] => return None,
            [only] if only.first == only.last => one,
            _ => several,
        };
        let done: Vec<&str> = self.aspects.iter().map(|aspect| aspect.done).collect();
        Some(format!(
            "{noun}{} {may} be {}",
            numbers::words(&beyond),
            done.join(" or ")
        ))
    }
}
