//! The plain judge: each limit is a set, and an operation is permitted by the first rule of its name whose sets hold all of its facts.
//!
//! It knows no protocol: what a name stands for, and which limits bound what, says the vocabulary. A protocol whose operations are
//! judged by their facts alone needs no other; those with more to them (masks, files, sessions) judge in their folder, faster, and
//! are held to this one where both can be asked.

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::protocol::vocabulary::{Aspect, Kind, Member, Patterns, Vocabulary};
use penstock_policy::protocol::{LimitSet, Operations, Permitted, Protocol};
use penstock_policy::terms::NumberRange;

use super::{Judge, Objection, Refusal, RuleIndex, RulesError, Verdict};
use crate::learn::{EntryKey, EntrySeen};
use crate::operation::{Fact, Operation};

/// Compiled rules of a protocol that needs no judge of its own.
#[derive(Debug, Default)]
pub struct SetRules {
    /// By the code of an operation on the wire.
    by_code: BTreeMap<u32, Vec<Entry>>,
    texts: Vec<String>,
}

/// What one rule says of one operation.
#[derive(Debug)]
struct Entry {
    rule: RuleIndex,
    bounds: Vec<(&'static Aspect, Index)>,
}

/// A set, ready to be asked.
#[derive(Debug)]
enum Index {
    /// Sorted and separate.
    Spans(Vec<NumberRange>),
    Patterns(&'static Patterns, Vec<String>),
    Texts(BTreeSet<String>),
    Flag(bool),
}

impl SetRules {
    /// Compiles the lists of flows that share a connection. Rules are numbered through.
    ///
    /// # Errors
    /// An entry names what the protocol does not have, or a set of it is empty or no set.
    pub fn compile(lists: &[&Operations]) -> Result<Self, RulesError> {
        let mut rules = Self::default();
        for operations in lists {
            let vocabulary = operations.protocol.vocabulary();
            for permitted in &operations.permitted {
                let rule = rules.texts.len();
                let members = (vocabulary.members)(&permitted.operation);
                if members.is_empty() {
                    return Err(RulesError::Unknown(operations.protocol));
                }
                for member in members {
                    let bounds = bounds(rule, permitted, vocabulary, &member)?;
                    let entries = rules.by_code.entry(member.code).or_default();
                    entries.push(Entry { rule, bounds });
                }
                rules.texts.push(permitted.phrase(vocabulary));
            }
        }
        Ok(rules)
    }

    /// Judges an operation.
    pub fn judge(&self, operation: &Operation<'_>) -> Verdict {
        // What is asked is one operation, never a group.
        let asked = (operation.protocol.members)(operation.name).into_iter().next();
        let entries = asked.as_ref().and_then(|asked| self.by_code.get(&asked.code));
        let mut closest: Option<(usize, Refusal)> = None;
        for entry in entries.into_iter().flatten() {
            let Some((rank, aspect)) = entry.against(asked.as_ref(), operation) else {
                return Verdict::Allow(entry.rule);
            };
            // The first of those that come as close.
            if closest.is_none_or(|(closest, _)| rank > closest) {
                let why = Objection::NotWithin(aspect.name);
                let nearest = Some(entry.rule);
                closest = Some((rank, Refusal { why, nearest }));
            }
        }
        let unnamed = Refusal {
            why: Objection::Function,
            nearest: None,
        };
        Verdict::Refuse(closest.map_or(unnamed, |(_, refusal)| refusal))
    }
}

impl SetRules {
    /// Whether one rule permits all that was seen of a line of a proposal: each range whole, each text.
    pub fn permits(&self, protocol: Protocol, key: &EntryKey, seen: &EntrySeen) -> bool {
        let members = (protocol.members)(&key.operation);
        let entries = members.iter().filter_map(|member| self.by_code.get(&member.code));
        let holds = |(aspect, index): &(&Aspect, Index)| {
            aspect.by.iter().all(|limit| {
                let ranges = seen.ranges(limit.name).iter().copied();
                let number = key.number(limit.name);
                let number = number.map(|first| NumberRange { first, last: first });
                let mut ranges = ranges.chain(number).map(Fact::Numbers);
                let text = key.text(limit.name).map(|text| Fact::Text(text.into()));
                let flag = seen.is(limit.name).then_some(Fact::Flag(true));
                ranges.all(|fact| index.holds(&fact))
                    && text.into_iter().chain(flag).all(|fact| index.holds(&fact))
            })
        };
        entries.flatten().any(|entry| entry.bounds.iter().all(holds))
    }
}

impl Judge for SetRules {
    fn texts(&self) -> &[String] {
        &self.texts
    }
}

impl Entry {
    /// The first of its sets that does not hold what the operation has, and how many do before it.
    fn against(&self, asked: Option<&Member>, operation: &Operation<'_>) -> Option<(usize, &'static Aspect)> {
        let is_held = |aspect: &Aspect, index: &Index| {
            let fixed = asked.and_then(|asked| asked.fixed.as_ref());
            if let Some((_, ranges)) = fixed.filter(|(of, _)| *of == aspect) {
                return ranges.iter().all(|range| index.holds(&Fact::Numbers(*range)));
            }
            let fact = aspect.by.iter().find_map(|limit| operation.fact(limit.name));
            fact.is_none_or(|fact| index.holds(fact))
        };
        let mut bounds = self.bounds.iter().enumerate();
        let (rank, (aspect, _)) = bounds.find(|(_, (aspect, index))| !is_held(aspect, index))?;
        Some((rank, aspect))
    }
}

impl Index {
    fn holds(&self, fact: &Fact<'_>) -> bool {
        match (self, fact) {
            (Self::Spans(spans), Fact::Numbers(asked)) => {
                let after = spans.partition_point(|span| span.first <= asked.first);
                let around = after.checked_sub(1).and_then(|at| spans.get(at));
                around.is_some_and(|span| asked.last <= span.last)
            }
            (Self::Patterns(patterns, listed), Fact::Text(asked)) => {
                listed.iter().any(|pattern| (patterns.covers)(pattern, asked))
            }
            (Self::Texts(listed), Fact::Text(asked)) => listed.contains(&**asked),
            (Self::Flag(permitted), Fact::Flag(asked)) => *permitted || !asked,
            // A fact of another kind is not what the limit speaks of.
            _ => false,
        }
    }
}

/// What an entry bounds of one operation; an aspect that no limit bounds is not among it.
fn bounds(
    rule: RuleIndex,
    permitted: &Permitted,
    vocabulary: &'static Vocabulary,
    member: &Member,
) -> Result<Vec<(&'static Aspect, Index)>, RulesError> {
    let mut bounds = Vec::new();
    for aspect in &member.aspects {
        if let Some((of, ranges)) = &member.fixed
            && of == aspect
        {
            bounds.push((*aspect, Index::Spans(NumberRange::merged(ranges.clone()))));
            continue;
        }
        let said = aspect
            .by
            .iter()
            .find_map(|limit| permitted.limits.get_key_value(limit.name));
        if let Some((name, set)) = said {
            bounds.push((*aspect, index(rule, name, set, vocabulary)?));
        }
    }
    Ok(bounds)
}

fn index(
    index: RuleIndex,
    field: &'static str,
    set: &LimitSet,
    vocabulary: &'static Vocabulary,
) -> Result<Index, RulesError> {
    let limit = vocabulary
        .limit(field)
        .ok_or(RulesError::EmptyList { index, field })?;
    let is_range = |range: &NumberRange| match limit.kind {
        Kind::Numbers { last, .. } | Kind::Range { last, .. } => {
            range.first <= range.last && range.last <= last
        }
        _ => false,
    };
    let spans = |ranges: &[NumberRange]| {
        if let Some(NumberRange { first, last }) = ranges.iter().copied().find(|range| !is_range(range)) {
            return Err(RulesError::Range {
                index,
                field,
                first,
                last,
            });
        }
        Ok(Index::Spans(NumberRange::merged(ranges.to_vec())))
    };
    let is_empty = match set {
        LimitSet::Numbers(ranges) => ranges.is_empty(),
        LimitSet::Patterns(listed) | LimitSet::Texts(listed) => listed.is_empty(),
        LimitSet::Range(_) | LimitSet::Flag(_) => false,
    };
    if is_empty {
        return Err(RulesError::EmptyList { index, field });
    }
    match (set, &limit.kind) {
        (LimitSet::Numbers(ranges), _) => spans(ranges),
        (LimitSet::Range(range), _) => spans(&[*range]),
        (LimitSet::Patterns(listed), Kind::Patterns(patterns)) => {
            match listed.iter().find(|pattern| !(patterns.is)(pattern)) {
                Some(filter) => Err(RulesError::Word {
                    index,
                    word: filter.clone(),
                    kind: "a topic filter",
                }),
                None => Ok(Index::Patterns(patterns, listed.clone())),
            }
        }
        (LimitSet::Texts(listed), _) => Ok(Index::Texts(listed.iter().cloned().collect())),
        (LimitSet::Flag(is_so), _) => Ok(Index::Flag(*is_so)),
        (LimitSet::Patterns(_), _) => Err(RulesError::EmptyList { index, field }),
    }
}
