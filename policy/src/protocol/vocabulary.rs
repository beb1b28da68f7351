//! What a protocol is called and can do, as data: the shape of one entry of the list.

use std::ops::Deref;

use super::Protocol;
use crate::terms::{NumberRange, OnRefusal};

/// A protocol: its words, its services, its operations.
#[derive(Debug)]
pub struct Vocabulary {
    /// Its word in documents, plans and events; also the name of the service that carries it.
    pub word: &'static str,
    /// Its name in sentences: `Modbus`.
    pub name: &'static str,
    /// The services that carry it. The first has its word.
    pub services: &'static [Carried],
    /// Everything that an operation of it can be limited by, in the order in which plans and sentences have it.
    pub limits: &'static [&'static Limit],
    /// Its operations.
    pub operations: &'static [Operation],
    /// Names for several operations at once.
    pub groups: &'static [Group],
    /// Operations that have a number and no name, if there are such.
    pub numbered: Option<Numbered>,
    /// What a name permits of which operations on the wire; none for a name that is unknown.
    pub members: fn(&str) -> Vec<Member>,
    /// How a permitted operation stands in a plan.
    pub spelling: Spelling,
    /// Who its clients are, where the protocol opens a session for them.
    pub session: Option<Session>,
    /// How a refusal can be answered.
    pub refusals: Refusals,
    /// Its answers carry what their requests carry, so that they are matched with them (`answers` in the document).
    pub matches_answers: bool,
    /// Its standard gives clients roles by their certificates (`roles` in the document).
    pub has_roles: bool,
    /// One permitted operation, as a help for who has named none.
    pub example: &'static str,
    /// An entry for an operation of which nothing is known yet.
    pub placeholder: Placeholder,
}

/// What an operation can do to the one that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Opens, keeps or ends a session.
    Session,
    /// Asks, and changes nothing.
    Read,
    /// Changes data of the process.
    Write,
    /// Changes how the device works: its counters, its clock, its mode.
    Control,
    /// Changes the device's program or files.
    Program,
}

impl Effect {
    /// Its word in the documentation.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Read => "read",
            Self::Write => "write",
            Self::Control => "control",
            Self::Program => "program",
        }
    }
}

/// An operation as a plant document may name it.
#[derive(Debug)]
pub struct Operation {
    /// Its standard name, in kebab case.
    pub name: &'static str,
    /// What it can do.
    pub effect: Effect,
    /// What it can be limited by, a part of the protocol's, in the same order.
    pub limits: &'static [Takes],
    /// What it does, in a line, for editors and the documentation.
    pub help: &'static str,
}

/// Several operations by one name, each with those limits of the group that it has a use for.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// The most that one of them can do.
    pub effect: Effect,
    /// What the group can be limited by.
    pub limits: &'static [Takes],
    /// What it is for, in a line.
    pub help: &'static str,
}

/// Operations without a name, written `function-65`.
#[derive(Debug)]
pub struct Numbered {
    /// What stands before the number: `function-`.
    pub prefix: &'static str,
    /// Whether a name is one of them.
    pub is: fn(&str) -> bool,
    /// The pattern of JSON Schema that their names match.
    pub pattern: &'static str,
    /// What can be limited of them.
    pub limits: &'static [Takes],
    /// What they are, in a line.
    pub help: &'static str,
}

/// That an operation can be limited by something.
#[derive(Debug)]
pub struct Takes {
    /// By what.
    pub limit: &'static Limit,
    /// What of the operation it bounds.
    pub bounds: &'static Aspect,
    /// What to write, where it has to be said; `None`: it may be left out.
    pub required: Option<&'static str>,
    /// The greatest number that this operation has, where it is less than the limit's, and how that is said.
    pub within: Option<Within>,
}

/// Something that operations have, and limits bound: the addresses that are read, the topic. Two limits may bound the same in
/// different operations, and one limit different things.
#[derive(Debug)]
pub struct Aspect {
    /// What tells it from the protocol's others.
    pub id: &'static str,
    /// The limits that bound it: the first that is said holds.
    pub by: &'static [&'static Limit],
    /// What it is called before its sets: `addresses 0-9 → 0-4`.
    pub name: &'static str,
    /// Before one of it and before several, where a sentence begins with it: `unit `, `units `.
    pub nouns: [&'static str; 2],
    /// What may be done with it: `read`, as in `100-199 may no longer be read`.
    pub done: &'static str,
    /// Before its set, where a sentence ends with it: ` at QoS `.
    pub after: &'static str,
    /// One request holds several of them in a row.
    pub spans: bool,
}

/// What a name permits of one operation on the wire.
#[derive(Debug, Clone)]
pub struct Member {
    /// Which operation: its code.
    pub code: u32,
    /// What of it limits bound.
    pub aspects: Vec<&'static Aspect>,
    /// What is so by the name, whatever the limits say.
    pub fixed: Option<(&'static Aspect, Vec<NumberRange>)>,
}

impl PartialEq for Aspect {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Aspect {}

/// A bound of numbers closer than the limit's own.
#[derive(Debug)]
pub struct Within {
    /// The greatest number.
    pub last: u32,
    /// What is so: `a coil's value is 0 or 1`.
    pub why: &'static str,
    /// What can be written: `0, 1, 0-1 or any`.
    pub expected: &'static str,
}

/// Something that operations can be limited by.
#[derive(Debug)]
pub struct Limit {
    /// Its key in documents and plans.
    pub name: &'static str,
    /// What its sets are made of.
    pub kind: Kind,
    /// What it means and what can be written, in a line.
    pub help: &'static str,
    /// How it stands in a phrase.
    pub phrase: Phrase,
}

/// What a limit's sets are made of, and how they are written.
#[derive(Debug)]
pub enum Kind {
    /// Numbers from 0 on: `40`, `0-199`, `[40, 41, 100-120]`, or `any`. Not said, or `any`: not limited.
    Numbers {
        /// The greatest.
        last: u32,
        /// What is said of a range that is too large, if more than that.
        hint: fn(NumberRange) -> Option<String>,
        /// Whether numbers are probably not what was meant, for an operation of that name.
        doubt: fn(&str, &[NumberRange]) -> Option<Doubt>,
    },
    /// One range of numbers from 0 on. Not said: all of it.
    Range {
        /// The greatest.
        last: u32,
        /// The fault of several: `the quality of service is one range`.
        one: &'static str,
        /// What can be written instead.
        help: &'static str,
    },
    /// Patterns of names, one or a list, or `any`.
    Patterns(&'static Patterns),
    /// Names as they stand, one or a list. Not said: not limited.
    Texts,
    /// Yes or no. Not said: no.
    Flag {
        /// In a phrase, if yes.
        yes: &'static str,
        /// In a phrase, if no.
        no: &'static str,
    },
}

/// Numbers that look like something else.
#[derive(Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What they look like.
    pub message: String,
    /// What is meant if so.
    pub label: String,
    /// What to write.
    pub help: String,
}

/// Patterns of a protocol: its topic filters.
#[derive(Debug)]
pub struct Patterns {
    /// `a topic filter`.
    pub noun: &'static str,
    /// The pattern that covers everything, for which `any` stands.
    pub any: &'static str,
    /// Whether a text is one.
    pub is: fn(&str) -> bool,
    /// How one is written, for who wrote something else.
    pub rule: &'static str,
    /// The same as a pattern of JSON Schema.
    pub schema: &'static str,
    /// Some that are.
    pub examples: &'static [&'static str],
    /// Whether all that the second matches is matched by the first.
    pub covers: fn(&str, &str) -> bool,
}

/// How a limit stands in the phrase for an operation: `read-coils (unit 1, addresses 0-15)`, `connect as client c1 or c2`.
#[derive(Debug)]
pub struct Phrase {
    /// Between brackets after the name, else behind the name itself.
    pub bracketed: bool,
    /// The words before what is listed.
    pub before: &'static str,
    /// What stands between two of the list.
    pub between: &'static str,
}

/// How a permitted operation stands in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// `{ "<operation>": { limits } }`, with the limits that the operation has.
    Key,
    /// `{ "<field>": "<operation>", limits }`, with all limits of the protocol: how plans had Modbus before there were other
    /// protocols.
    Field(&'static str),
}

/// How clients of a protocol with sessions say who they are.
#[derive(Debug)]
pub struct Session {
    /// The operation that opens one. A list without it lets everybody open one.
    pub operation: &'static str,
    /// The limit that says under which names.
    pub names: &'static str,
    /// Everybody: `any client`.
    pub anyone: &'static str,
    /// What may happen if no name is asked for, after `flow … ` (PC0120).
    pub risk: &'static str,
    /// What to write against it.
    pub help: &'static str,
}

/// How refusals of a protocol can be answered.
#[derive(Debug)]
pub struct Refusals {
    /// The words of `on_refusal` that it has.
    pub words: &'static [OnRefusal],
    /// Why it has no others.
    pub otherwise: &'static str,
    /// What to write instead.
    pub help: &'static str,
}

/// An entry of `allow` that stands for one yet to be written.
#[derive(Debug)]
pub struct Placeholder {
    /// The entry.
    pub entry: &'static str,
    /// After `the connection was refused before its first `: what the client would have sent, and what to replace.
    pub replace: &'static str,
}

impl Phrase {
    /// Between brackets: `(unit 1)`.
    pub const fn bracketed(before: &'static str) -> Self {
        Self {
            bracketed: true,
            before,
            between: ", ",
        }
    }

    /// Behind the name: `as client c1 or c2`.
    pub const fn behind(before: &'static str, between: &'static str) -> Self {
        Self {
            bracketed: false,
            before,
            between,
        }
    }
}

impl Takes {
    /// It may be left out.
    pub const fn optional(limit: &'static Limit, bounds: &'static Aspect) -> Self {
        Self {
            limit,
            bounds,
            required: None,
            within: None,
        }
    }

    /// It has to be said, and what to write.
    pub const fn required(limit: &'static Limit, bounds: &'static Aspect, write: &'static str) -> Self {
        Self {
            required: Some(write),
            ..Self::optional(limit, bounds)
        }
    }
}

/// What an operation's name stands for.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// What can be limited.
    pub limits: &'static [Takes],
    /// The most that it can do; of an operation without a name nobody knows.
    pub effect: Option<Effect>,
    /// What it is, in a line.
    pub help: &'static str,
}

impl Shape {
    /// How it takes the limit of that name, if it does.
    pub fn takes(&self, limit: &str) -> Option<&'static Takes> {
        self.limits.iter().find(|takes| takes.limit.name == limit)
    }
}

impl Vocabulary {
    /// What stands under a name: an operation, a group, or an operation by its number.
    pub fn shape(&self, name: &str) -> Option<Shape> {
        let operation = self.operations.iter().find(|known| known.name == name);
        let operation = operation.map(|known| (known.limits, Some(known.effect), known.help));
        let group = || self.groups.iter().find(|known| known.name == name);
        let group = || group().map(|known| (known.limits, Some(known.effect), known.help));
        let numbered = || self.numbered.as_ref().filter(|numbered| (numbered.is)(name));
        let numbered = || numbered().map(|known| (known.limits, None, known.help));
        let (limits, effect, help) = operation.or_else(group).or_else(numbered)?;
        Some(Shape { limits, effect, help })
    }

    /// The names of operations and groups.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        let operations = self.operations.iter().map(|operation| operation.name);
        operations.chain(self.groups.iter().map(|group| group.name))
    }

    /// The limit of that name.
    pub fn limit(&self, name: &str) -> Option<&'static Limit> {
        self.limits.iter().copied().find(|limit| limit.name == name)
    }

    /// Whether a gateway can end its TLS and read inside.
    pub fn reads_inside_tls(&self) -> bool {
        self.services
            .iter()
            .any(|service| service.tls && !service.bridged)
    }
}

impl Kind {
    /// Whether every entry of a plan has such a limit, if its operation does: what is not said in the document has a value then.
    pub const fn is_always_said(&self) -> bool {
        match self {
            Self::Numbers { .. } | Self::Texts => false,
            Self::Range { .. } | Self::Patterns(_) | Self::Flag { .. } => true,
        }
    }
}

/// How a named service is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo, which has no ports.
    IcmpEcho,
}

/// A way to carry something, with a name in the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Its name.
    pub name: &'static str,
    /// TCP, UDP or ICMP echo.
    pub carrier: Carrier,
    /// Its port unless another is written (0 for ICMP echo).
    pub port: u16,
    /// TLS carries it, so that it is read only where the TLS ends at the gateway.
    pub tls: bool,
    /// The gateway is itself the client of both ends, and forwards nothing between them.
    pub bridged: bool,
    /// What it is, for people.
    pub title: &'static str,
}

impl Carried {
    /// In the plain, and forwarded.
    pub const fn plain(name: &'static str, carrier: Carrier, port: u16, title: &'static str) -> Self {
        Self {
            name,
            carrier,
            port,
            tls: false,
            bridged: false,
            title,
        }
    }

    /// The same inside TLS.
    pub const fn inside_tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// The same, spoken by the gateway to both ends.
    pub const fn bridged(self) -> Self {
        Self {
            bridged: true,
            ..self
        }
    }
}

/// A service that the grammar knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedService {
    /// The protocol whose operations can be told apart, if it is one.
    pub protocol: Option<Protocol>,
    /// Its name, and how it is carried.
    pub carried: &'static Carried,
}

impl Deref for NamedService {
    type Target = Carried;

    fn deref(&self) -> &Carried {
        self.carried
    }
}
