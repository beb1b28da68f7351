//! What one line of a proposal can say: an operation, where it is asked, and the sets that hold all that was seen of it there.

use std::collections::HashSet;

use penstock_policy::protocol::LimitSet;
use penstock_policy::terms::NumberRange;

use super::LimitSets;
use crate::operation::{Fact, Operation, SUB_FUNCTIONS, VALUES};
use crate::ranges::{self, few, merge, merge_equal};
use crate::replay::Occurrences;

/// So many values of a request are asked for at the cost of another request.
const VALUES_AT_ONCE: u64 = 64;

/// Which operations are kept together. Its order is that of the lines of a proposal.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryKey {
    /// Limits by a number that each has lines of its own: a unit.
    pub numbers: Vec<(&'static str, u32)>,
    /// The operation, by the name that permits it.
    pub operation: String,
    /// Limits by a text that each has a line of its own: a topic.
    pub texts: Vec<(&'static str, String)>,
    /// Where it writes, if its values are known: a rule limits both together, so they are kept together.
    pub written: Option<NumberRange>,
}

/// What was seen of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntrySeen {
    /// How often.
    pub seen: Occurrences,
    /// By limit, the least set that holds what was asked: ranges sorted and separate, of values at most 16, of more those that are
    /// closest become one.
    pub sets: LimitSets,
}

/// Why an operation is not taken for needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// Its server refused it.
    Refused,
    /// Its server answered others, and not this one.
    Unanswered,
    /// It does not have the form that its protocol gives it.
    Malformed,
}

/// What became of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was carried out.
    Worked,
    /// The recording does not show whether it was.
    Unconfirmed,
    /// It was not.
    Failed(Failure),
}

/// What is learned from one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lesson {
    /// It needs a line.
    Entry(EntryKey, LimitSets),
    /// It shows that this was asked for before, at least.
    Inferred(EntryKey, LimitSets),
    /// A client opened a session.
    Name {
        /// Under this name; empty if it gave none.
        name: String,
        /// As this user, if it named one.
        user: Option<String>,
    },
    /// It needs no rule, or follows from another operation.
    Nothing,
}

impl EntryKey {
    /// Those of `operation` that are permitted by the name `permitted_as`: by texts apart, and by the numbers of the limits `apart`.
    pub(crate) fn of(operation: &Operation<'_>, permitted_as: &str, apart: &[&str]) -> Self {
        let mut key = Self {
            operation: permitted_as.to_owned(),
            ..Self::default()
        };
        for (name, fact) in operation.facts() {
            match fact {
                Fact::Text(text) => key.texts.push((name, text.clone().into_owned())),
                Fact::Numbers(numbers) if apart.contains(name) => key.numbers.push((name, numbers.first)),
                Fact::Numbers(_) | Fact::Flag(_) => {}
            }
        }
        key
    }

    /// The number of that limit.
    pub fn number(&self, name: &str) -> Option<u32> {
        let mut numbers = self.numbers.iter();
        numbers
            .find(|(known, _)| *known == name)
            .map(|(_, number)| *number)
    }

    /// The text of that limit.
    pub fn text(&self, name: &str) -> Option<&str> {
        let mut texts = self.texts.iter();
        texts
            .find(|(known, _)| *known == name)
            .map(|(_, text)| text.as_str())
    }

    /// The same without the place: what one line says.
    pub(super) fn anywhere(&self) -> Self {
        Self {
            written: None,
            ..self.clone()
        }
    }

    /// The same in no more room than it takes.
    pub(super) fn compact(mut self) -> Self {
        self.numbers.shrink_to_fit();
        self.texts.shrink_to_fit();
        self
    }

    pub(super) fn texts_bytes(&self) -> usize {
        self.texts.iter().map(|(_, text)| text.len()).sum()
    }
}

impl EntrySeen {
    /// The ranges of that limit.
    pub fn ranges(&self, name: &str) -> &[NumberRange] {
        match self.sets.get(name) {
            Some(LimitSet::Numbers(ranges)) => ranges,
            Some(LimitSet::Range(range)) => std::slice::from_ref(range),
            _ => &[],
        }
    }

    /// Whether what that limit says was so.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.sets.get(name), Some(LimitSet::Flag(true)))
    }

    /// How many distinct things it is: values are few by themselves.
    pub(super) fn things(&self) -> usize {
        let sets = self.sets.iter().filter(|(name, _)| *name != VALUES);
        let distinct = sets.map(|(_, set)| match set {
            LimitSet::Numbers(ranges) => ranges.len(),
            LimitSet::Patterns(listed) | LimitSet::Texts(listed) => listed.len(),
            LimitSet::Range(_) | LimitSet::Flag(_) => 0,
        });
        1 + distinct.sum::<usize>()
    }

    /// The same in no more room than it takes.
    pub(super) fn compact(mut self) -> Self {
        self.sets.compact();
        self
    }

    /// Bytes of the texts in its sets.
    pub(super) fn texts_bytes(&self) -> usize {
        let texts = self.sets.iter().filter_map(|(_, set)| match set {
            LimitSet::Patterns(listed) | LimitSet::Texts(listed) => Some(listed),
            LimitSet::Numbers(_) | LimitSet::Range(_) | LimitSet::Flag(_) => None,
        });
        texts.flatten().map(String::len).sum()
    }

    /// The same, its ranges sorted and joined whoever made them.
    pub(super) fn in_order(&self) -> Self {
        let empty = Self {
            seen: self.seen,
            sets: LimitSets::default(),
        };
        Self {
            seen: self.seen,
            ..empty.and(self)
        }
    }

    /// How many requests it takes to ask whether all of it is permitted: each range of one limit with each of the others, with
    /// each sub-function, and with each value.
    pub(super) fn requests(&self) -> u64 {
        let width = |range: &NumberRange| u64::from(range.last.saturating_sub(range.first)) + 1;
        self.sets.iter().fold(1_u64, |requests, (name, set)| {
            let more = match set {
                LimitSet::Numbers(ranges) if name == VALUES => {
                    1 + ranges.iter().map(width).sum::<u64>() / VALUES_AT_ONCE
                }
                // Rules are asked for each code, and ranges of codes may overlap.
                LimitSet::Numbers(ranges) if name == SUB_FUNCTIONS => ranges.iter().map(width).sum(),
                LimitSet::Numbers(ranges) => ranges.len() as u64,
                LimitSet::Patterns(listed) | LimitSet::Texts(listed) => listed.len() as u64,
                LimitSet::Range(_) | LimitSet::Flag(_) => 1,
            };
            requests.saturating_mul(more.max(1))
        })
    }

    /// Whether `more` brings nothing but its counts.
    pub(super) fn holds(&self, more: &Self) -> bool {
        let known = |name: &str, set: &LimitSet| match (self.sets.get(name), set) {
            (Some(known), set) => holds(known, set),
            (None, LimitSet::Numbers(ranges)) => ranges.is_empty(),
            (None, _) => false,
        };
        more.sets.iter().all(|(name, set)| known(name, set))
    }

    /// Both together.
    pub(super) fn and(&self, more: &Self) -> Self {
        let mut both = self.clone();
        both.join(more);
        both
    }

    /// Takes `more` in.
    pub(super) fn join(&mut self, more: &Self) {
        self.seen = self.seen.and(more.seen);
        for (name, set) in more.sets.iter() {
            if let Some(known) = self.sets.of(name, || nothing_of(set)) {
                join(name, known, set);
            }
        }
    }
}

/// A set of the same kind to which `set` can be joined.
fn nothing_of(set: &LimitSet) -> LimitSet {
    match set {
        LimitSet::Numbers(_) => LimitSet::Numbers(Vec::new()),
        LimitSet::Patterns(_) => LimitSet::Patterns(Vec::new()),
        LimitSet::Texts(_) => LimitSet::Texts(Vec::new()),
        LimitSet::Range(_) | LimitSet::Flag(_) => set.clone(),
    }
}

fn join(name: &str, known: &mut LimitSet, more: &LimitSet) {
    match (known, more) {
        (LimitSet::Numbers(known), LimitSet::Numbers(more)) if name == SUB_FUNCTIONS => {
            merge_equal(known, more);
        }
        (LimitSet::Numbers(known), LimitSet::Numbers(more)) => {
            merge(known, more);
            if name == VALUES {
                few(known);
            }
        }
        (LimitSet::Range(known), LimitSet::Range(more)) => *known = known.hull(*more),
        (LimitSet::Flag(known), LimitSet::Flag(more)) => *known |= more,
        (LimitSet::Patterns(known), LimitSet::Patterns(more))
        | (LimitSet::Texts(known), LimitSet::Texts(more)) => {
            let new: Vec<String> = {
                let mut there: HashSet<&str> = known.iter().map(String::as_str).collect();
                more.iter().filter(|text| there.insert(text)).cloned().collect()
            };
            known.extend(new);
        }
        // A limit has one kind.
        _ => {}
    }
}

fn holds(known: &LimitSet, more: &LimitSet) -> bool {
    let within = |one: &NumberRange, other: &NumberRange| other.first <= one.first && one.last <= other.last;
    match (known, more) {
        (LimitSet::Numbers(known), LimitSet::Numbers(more)) => {
            more.iter().all(|range| ranges::holds(known, *range))
        }
        (LimitSet::Range(known), LimitSet::Range(more)) => within(more, known),
        (LimitSet::Flag(known), LimitSet::Flag(more)) => *known || !more,
        (LimitSet::Patterns(known), LimitSet::Patterns(more))
        | (LimitSet::Texts(known), LimitSet::Texts(more)) => {
            let there: HashSet<&str> = known.iter().map(String::as_str).collect();
            more.iter().all(|text| there.contains(text.as_str()))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::learn::talk::{Standing, TalkLimits};
    use crate::learn::{Ends, Learned, PortCarrier};
    use crate::modbus::Request;
    use crate::mqtt;
    use crate::protocols;

    /// What one entry takes beside its texts, bytes.
    fn memory(key: &EntryKey, seen: &EntrySeen) -> usize {
        let ranges = |set: &LimitSet| match set {
            LimitSet::Numbers(ranges) => ranges.capacity() * size_of::<NumberRange>(),
            _ => 0,
        };
        let sets = seen.sets.iter();
        let of_set = |(_, set): (&str, &LimitSet)| size_of::<(&str, LimitSet)>() + ranges(set);
        size_of::<EntryKey>()
            + size_of::<EntrySeen>()
            + key.operation.capacity()
            + key.numbers.capacity() * size_of::<(&str, u32)>()
            + key.texts.capacity() * size_of::<(&str, String)>()
            + sets.map(of_set).sum::<usize>()
    }

    #[test]
    fn what_is_learned_takes_no_more_memory_than_a_gateway_allows_for_each_thing() {
        let publish = mqtt::Operation::Publish {
            topic: "works/a".into(),
            qos: 0,
            retain: true,
        };
        let write = Request::decode(1, &[6, 0, 40, 0, 9]).unwrap().operation();
        let ends = Ends {
            client: [10, 1, 0, 5].into(),
            server: "10.2.0.9:502".parse().unwrap(),
            carrier: PortCarrier::Tcp,
        };
        for operation in [publish.into(), write] {
            let mut learned = Learned::within(TalkLimits::default());
            for _ in 0..2 {
                let lesson = protocols::of(operation.protocol).unwrap().learn(&operation);
                learned.lesson(
                    ends,
                    Some(operation.protocol),
                    Duration::ZERO,
                    (lesson, Standing::Worked),
                );
            }
            let kept = learned.talks.values().flat_map(|talk| &talk.operations);
            let each = kept.map(|(key, seen)| memory(key, seen) / seen.things());
            let each: Vec<usize> = each.collect();
            assert!(
                matches!(each.as_slice(), [bytes] if *bytes <= 300),
                "{operation}: {each:?}"
            );
        }
    }
}
