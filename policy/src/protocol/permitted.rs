//! What a flow may do inside its protocol: a list of permitted operations, each with the sets that limit it.
//!
//! It stands in the document's model and in the plan alike; `penstock-inspect` judges by it. No list is empty, and a limit that
//! is absent was left open in so many words. In a plan it is written as its protocol's [`Spelling`] says, and read as strictly as
//! everything else there.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use super::Protocol;
use super::vocabulary::{Effect, Kind, Limit, Spelling, Takes, Vocabulary};
use crate::terms::NumberRange;

/// What a flow may do inside its protocol.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Operations {
    /// The protocol.
    pub protocol: Protocol,
    /// What is permitted; never empty in a plan that is obeyed.
    pub permitted: Vec<Permitted>,
}

/// An operation that is permitted, whole, within its limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Permitted {
    /// The operation's or the group's name ([`Vocabulary::shape`]).
    pub operation: String,
    /// By the limit's name; an absent one does not limit.
    pub limits: BTreeMap<&'static str, LimitSet>,
}

/// What a limit lets pass.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LimitSet {
    /// Numbers of any of these ranges.
    Numbers(Vec<NumberRange>),
    /// Numbers of this range.
    Range(NumberRange),
    /// What one of these patterns matches.
    Patterns(Vec<String>),
    /// One of these names.
    Texts(Vec<String>),
    /// Whether it is so at all.
    Flag(bool),
}

impl Permitted {
    /// The set of that limit; `None`: not limited.
    pub fn limit(&self, name: &str) -> Option<&LimitSet> {
        self.limits.get(name)
    }

    /// It as a phrase: `read-coils (unit 1, addresses 0-15)`.
    pub fn phrase(&self, vocabulary: &Vocabulary) -> String {
        let mut phrase = self.operation.clone();
        let mut bracketed = Vec::new();
        for limit in vocabulary.limits {
            let Some(set) = self.limits.get(limit.name) else {
                continue;
            };
            let said = format!("{}{}", limit.phrase.before, words(limit, set));
            if limit.phrase.bracketed {
                bracketed.push(said);
            } else {
                phrase.push(' ');
                phrase.push_str(&said);
            }
        }
        if !bracketed.is_empty() {
            phrase.push_str(&format!(" ({})", bracketed.join(", ")));
        }
        phrase
    }
}

/// A set as people read it: `0-15, 40`.
fn words(limit: &Limit, set: &LimitSet) -> String {
    match set {
        LimitSet::Numbers(ranges) => {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            ranges.join(limit.phrase.between)
        }
        LimitSet::Range(range) => range.to_string(),
        LimitSet::Patterns(listed) | LimitSet::Texts(listed) => listed.join(limit.phrase.between),
        LimitSet::Flag(is_so) => match limit.kind {
            Kind::Flag { yes, no } => if *is_so { yes } else { no }.to_owned(),
            _ => is_so.to_string(),
        },
    }
}

impl Operations {
    /// These of a protocol.
    pub fn of<P: Into<Permitted>>(protocol: Protocol, permitted: impl IntoIterator<Item = P>) -> Self {
        let permitted = permitted.into_iter().map(Into::into).collect();
        Self { protocol, permitted }
    }

    /// Each operation as a phrase (`read-coils (unit 1, addresses 0-15)`).
    pub fn phrases(&self) -> Vec<String> {
        let phrase = |permitted: &Permitted| permitted.phrase(&self.protocol);
        self.permitted.iter().map(phrase).collect()
    }

    /// The most that each of them can do; `None`: nobody knows.
    pub fn effects(&self) -> impl Iterator<Item = Option<Effect>> {
        let shape = |permitted: &Permitted| self.protocol.shape(&permitted.operation);
        self.permitted
            .iter()
            .map(move |permitted| shape(permitted)?.effect)
    }

    /// Those of that name.
    pub fn named<'a>(&'a self, operation: &'a str) -> impl Iterator<Item = &'a Permitted> {
        self.permitted
            .iter()
            .filter(move |permitted| permitted.operation == operation)
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.protocol.word, self.phrases().join("; "))
    }
}

impl Serialize for Operations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Entries<'a>(&'a Operations);

        impl Serialize for Entries<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut entries = serializer.serialize_seq(Some(self.0.permitted.len()))?;
                for permitted in &self.0.permitted {
                    entries.serialize_element(&Entry(&self.0.protocol, permitted))?;
                }
                entries.end()
            }
        }

        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.protocol.word, &Entries(self))?;
        map.end()
    }
}

/// A permitted operation as it stands in a plan.
pub(super) struct Entry<'a>(pub(super) &'a Vocabulary, pub(super) &'a Permitted);

/// Limits as they stand there, with `null` for what is not limited.
struct Limits<'a, I>(I, &'a Permitted);

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(vocabulary, permitted) = self;
        let mut map = serializer.serialize_map(None)?;
        match vocabulary.spelling {
            Spelling::Field(field) => {
                map.serialize_entry(field, &permitted.operation)?;
                for limit in vocabulary.limits {
                    map.serialize_entry(limit.name, &permitted.limits.get(limit.name))?;
                }
            }
            Spelling::Key => {
                let takes = vocabulary.shape(&permitted.operation).map(|shape| shape.limits);
                let limits = takes.into_iter().flatten().map(|takes| takes.limit.name);
                map.serialize_entry(&permitted.operation, &Limits(limits, permitted))?;
            }
        }
        map.end()
    }
}

impl<I: Iterator<Item = &'static str> + Clone> Serialize for Limits<'_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone().map(|name| (name, self.1.limits.get(name))))
    }
}

impl Serialize for LimitSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Numbers(ranges) => ranges.serialize(serializer),
            Self::Range(range) => range.serialize(serializer),
            Self::Patterns(listed) | Self::Texts(listed) => listed.serialize(serializer),
            Self::Flag(is_so) => is_so.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Operations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByProtocol;

        impl<'de> Visitor<'de> for ByProtocol {
            type Value = Operations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a protocol with its permitted operations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Operations, A::Error> {
                let Some(protocol) = map.next_key::<Protocol>()? else {
                    return Err(de::Error::custom("no protocol is named"));
                };
                let permitted = map.next_value_seed(EntriesSeed(protocol.vocabulary()))?;
                only_one::<A>(&mut map)?;
                Ok(Operations { protocol, permitted })
            }
        }

        deserializer.deserialize_map(ByProtocol)
    }
}

/// That nothing follows the one key of a mapping.
fn only_one<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    match map.next_key::<String>()? {
        None => Ok(()),
        Some(key) => Err(de::Error::custom(format_args!("`{key}` is one key too many"))),
    }
}

struct EntriesSeed(&'static Vocabulary);

impl<'de> DeserializeSeed<'de> for EntriesSeed {
    type Value = Vec<Permitted>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Permitted>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EntriesSeed {
    type Value = Vec<Permitted>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} operations", self.0.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Permitted>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element_seed(EntrySeed(self.0))? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// Reads a permitted operation of that protocol.
pub(super) struct EntrySeed(pub(super) &'static Vocabulary);

impl<'de> DeserializeSeed<'de> for EntrySeed {
    type Value = Permitted;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Permitted, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed {
    type Value = Permitted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an operation of {} with its limits", self.0.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Permitted, A::Error> {
        match self.0.spelling {
            Spelling::Field(field) => self.with_name_among_limits(field, map),
            Spelling::Key => {
                let Some(operation) = map.next_key::<String>()? else {
                    return Err(de::Error::custom("no operation is named"));
                };
                let Some(shape) = self.0.shape(&operation) else {
                    let unknown = format_args!("{} has no operation `{operation}`", self.0.name);
                    return Err(de::Error::custom(unknown));
                };
                let limits = map.next_value_seed(LimitsSeed(shape.limits))?;
                only_one::<A>(&mut map)?;
                Ok(Permitted { operation, limits })
            }
        }
    }
}

impl EntrySeed {
    fn with_name_among_limits<'de, A: MapAccess<'de>>(
        self,
        field: &'static str,
        mut map: A,
    ) -> Result<Permitted, A::Error> {
        let (mut operation, mut read) = (None, LimitsRead::default());
        while let Some(key) = map.next_key::<String>()? {
            if key == field {
                if operation.replace(map.next_value::<String>()?).is_some() {
                    return Err(de::Error::duplicate_field(field));
                }
            } else {
                let limit = self.0.limits.iter().copied().find(|limit| limit.name == key);
                read.one(&key, limit, &mut map)?;
            }
        }
        let operation = operation.ok_or_else(|| de::Error::missing_field(field))?;
        let limits = read.limits;
        Ok(Permitted { operation, limits })
    }
}

struct LimitsSeed(&'static [Takes]);

impl<'de> DeserializeSeed<'de> for LimitsSeed {
    type Value = BTreeMap<&'static str, LimitSet>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LimitsSeed {
    type Value = BTreeMap<&'static str, LimitSet>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an operation's limits")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut read = LimitsRead::default();
        let known = || self.0.iter().map(|takes| takes.limit);
        while let Some(key) = map.next_key::<String>()? {
            read.one(&key, known().find(|limit| limit.name == key), &mut map)?;
        }
        let missing =
            known().find(|limit| limit.kind.is_always_said() && !read.limits.contains_key(limit.name));
        match missing {
            Some(limit) => Err(de::Error::missing_field(limit.name)),
            None => Ok(read.limits),
        }
    }
}

/// The limits that were read so far.
#[derive(Default)]
struct LimitsRead {
    limits: BTreeMap<&'static str, LimitSet>,
    /// Those that stood there as not limited.
    open: Vec<&'static str>,
}

impl LimitsRead {
    fn one<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        limit: Option<&'static Limit>,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let Some(limit) = limit else {
            return Err(de::Error::custom(format_args!("unknown limit `{key}`")));
        };
        if self.limits.contains_key(limit.name) || self.open.contains(&limit.name) {
            return Err(de::Error::duplicate_field(limit.name));
        }
        let set = match limit.kind {
            Kind::Numbers { .. } => map.next_value::<Option<_>>()?.map(LimitSet::Numbers),
            Kind::Texts => map.next_value::<Option<_>>()?.map(LimitSet::Texts),
            Kind::Range { .. } => Some(LimitSet::Range(map.next_value()?)),
            Kind::Patterns(_) => Some(LimitSet::Patterns(map.next_value()?)),
            Kind::Flag { .. } => Some(LimitSet::Flag(map.next_value()?)),
        };
        match set {
            Some(set) => {
                self.limits.insert(limit.name, set);
            }
            None => self.open.push(limit.name),
        }
        Ok(())
    }
}
