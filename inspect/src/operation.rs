//! One operation that was asked, of any protocol: its name and its facts.
//!
//! It is the dual of what a plan permits: a permitted operation is a name and sets, one that was asked is a name and what has to lie
//! in them. So a fact has the name of the limit that speaks of it (`units`, `topics`); what is written is called `values` in every
//! protocol. Verdicts are made of the request itself, with all that it holds; an operation is what is said of it afterwards:
//! in events, to people, and for learning. How it reads in words its protocol's folder knows.
//!
//! One is made for every request that passes, and handed on by reference: nothing here allocates but [`Operation::into_owned`], and
//! no more facts have room than an operation has.

use std::borrow::Cow;
use std::fmt;

use penstock_policy::protocol::Protocol;
use penstock_policy::terms::NumberRange;

use crate::protocols;

/// The fact that says which values are written: the least and the greatest.
pub const VALUES: &str = "values";

/// The fact that says which of a function's kinds it is: a code, which has nothing in common with those next to it.
pub const SUB_FUNCTIONS: &str = "sub_functions";

/// As many facts as one operation can have.
pub const FACTS_MAX: usize = 5;

/// What one side asks of the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation<'a> {
    /// The protocol.
    pub protocol: Protocol,
    /// Its name: that by which a document permits it, where one can.
    pub name: &'static str,
    facts: [Option<NamedFact<'a>>; FACTS_MAX],
}

/// A fact, by the name of the limit that speaks of it.
pub type NamedFact<'a> = (&'static str, Fact<'a>);

/// Something that holds of an operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact<'a> {
    /// It is about these numbers, from the least to the greatest.
    Numbers(NumberRange),
    /// It is about this text.
    Text(Cow<'a, str>),
    /// It is so, or is not.
    Flag(bool),
}

impl<'a> Operation<'a> {
    /// An operation with those of `facts` that it has.
    pub fn new<const N: usize>(
        protocol: Protocol,
        name: &'static str,
        facts: [Option<NamedFact<'a>>; N],
    ) -> Self {
        const { assert!(N <= FACTS_MAX, "more facts than an operation can have") };
        let mut own = [const { None }; FACTS_MAX];
        own.iter_mut().zip(facts).for_each(|(own, fact)| *own = fact);
        Self {
            protocol,
            name,
            facts: own,
        }
    }

    /// Its facts, in the order in which its protocol names them.
    pub fn facts(&self) -> impl Iterator<Item = &NamedFact<'a>> {
        self.facts.iter().flatten()
    }

    /// The fact of that name.
    pub fn fact(&self, name: &str) -> Option<&Fact<'a>> {
        let mut facts = self.facts();
        facts.find(|(known, _)| *known == name).map(|(_, fact)| fact)
    }

    /// The numbers of that name.
    pub fn numbers(&self, name: &str) -> Option<NumberRange> {
        match self.fact(name) {
            Some(Fact::Numbers(numbers)) => Some(*numbers),
            _ => None,
        }
    }

    /// The text of that name.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.fact(name) {
            Some(Fact::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether what that name says is so.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.fact(name), Some(Fact::Flag(true)))
    }

    /// What the narrowest entry of a document that permits it permits beyond it.
    pub fn wider_entry(&self) -> Option<&'static str> {
        protocols::of(self.protocol)?.wider_than(self)
    }

    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Operation<'static> {
        Operation {
            protocol: self.protocol,
            name: self.name,
            facts: self
                .facts
                .map(|fact| fact.map(|(name, fact)| (name, fact.into_owned()))),
        }
    }
}

impl Fact<'_> {
    fn into_owned(self) -> Fact<'static> {
        match self {
            Self::Numbers(numbers) => Fact::Numbers(numbers),
            Self::Text(text) => Fact::Text(Cow::Owned(text.into_owned())),
            Self::Flag(is_so) => Fact::Flag(is_so),
        }
    }
}

/// As events say it: "write-single-register 40 of unit 1", "publish works/filters/3/pressure at QoS 1, retained".
impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match protocols::of(self.protocol) {
            Some(inspector) => inspector.show(self, f),
            None => f.write_str(self.name),
        }
    }
}
