//! Reads a plan's rules so that they take little room: a gateway keeps 100,000 of them for as long as it runs.
//!
//! What many rules have in common (the conduit, an asset's name, a list of operations) is kept once, and no list has room to
//! spare. Each rule is brought to that before the next is read, so that what reading needed meanwhile serves again.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::{Endpoint, Rule};
use crate::ids::ConduitId;
use crate::protocol::{Operations, Roles};
use crate::terms::{PortRange, Tls, Transport};

/// Reads the list of rules.
pub(super) fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    rules_of::<Rule, D>(deserializer)
}

/// Reads a list of rules of another form.
pub(super) fn rules_of<'de, R, D>(deserializer: D) -> Result<Vec<Rule>, D::Error>
where
    R: Deserialize<'de> + Into<Rule>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Rules::<R>(PhantomData))
}

struct Rules<R>(PhantomData<R>);

impl<'de, R: Deserialize<'de> + Into<Rule>> Visitor<'de> for Rules<R> {
    type Value = Vec<Rule>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rules")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Rule>, A::Error> {
        let (mut rules, mut seen) = (Vec::new(), Interner::default());
        while let Some(rule) = list.next_element::<R>()? {
            rules.push(seen.share(rule.into()));
        }
        rules.shrink_to_fit();
        Ok(rules)
    }
}

/// What the rules before had.
#[derive(Default)]
struct Interner {
    conduits: HashSet<ConduitId>,
    names: HashSet<Arc<str>>,
    operations: HashSet<Arc<Operations>>,
    roles: HashSet<Arc<Roles>>,
    tls: HashSet<Arc<Tls>>,
}

impl Interner {
    fn share(&mut self, rule: Rule) -> Rule {
        Rule {
            conduit: once(&mut self.conduits, rule.conduit),
            sources: self.ends(&rule.sources),
            destinations: self.ends(&rule.destinations),
            transport: match rule.transport {
                Transport::Tcp(ports) => Transport::Tcp(fitting(&ports)),
                Transport::Udp(ports) => Transport::Udp(fitting(&ports)),
                Transport::IcmpEcho => Transport::IcmpEcho,
            },
            operations: rule
                .operations
                .map(|operations| once(&mut self.operations, operations)),
            roles: rule.roles.map(|roles| once(&mut self.roles, roles)),
            tls: rule.tls.map(|tls| once(&mut self.tls, tls)),
            ..rule
        }
    }

    fn ends(&mut self, ends: &[Endpoint]) -> Vec<Endpoint> {
        let mut shared = Vec::with_capacity(ends.len());
        shared.extend(ends.iter().map(|end| Endpoint {
            name: once(&mut self.names, Arc::clone(&end.name)),
            network: end.network,
        }));
        shared
    }
}

fn once<T: Clone + Eq + Hash>(seen: &mut HashSet<T>, value: T) -> T {
    if let Some(known) = seen.get(&value) {
        return known.clone();
    }
    seen.insert(value.clone());
    value
}

/// A copy without room to spare, at a place of its own: a list made smaller where it stands leaves the rest as a gap.
fn fitting(ports: &[PortRange]) -> Vec<PortRange> {
    ports.to_vec()
}
