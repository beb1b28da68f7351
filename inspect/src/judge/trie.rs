//! Topic filters as a tree by level: one walk finds whether any of thousands matches a topic, or covers a filter.
//!
//! At each level at most two branches are followed, the literal one and `+`, so the cost depends on the depth of
//! the topic and on how much the filters overlap, not on how many there are.

use std::collections::HashMap;

use super::RuleIndex;

/// What a filter in the tree grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The rule that grants it.
    pub rule: RuleIndex,
    /// The group of lists that the rule is of; it holds for those who may connect by one of them.
    pub group: usize,
    /// Least quality of service.
    pub qos_min: u8,
    /// Greatest quality of service.
    pub qos_max: u8,
    /// Retained messages too.
    pub retain: bool,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    plus: Option<usize>,
    /// Filters that end here.
    ends: Vec<Grant>,
    /// Filters that end here with `/#` (or are `#`).
    hashes: Vec<Grant>,
}

/// A set of filters.
#[derive(Debug)]
pub struct Trie {
    nodes: Vec<Node>,
}

impl Default for Trie {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

/// Takes the first level off; `None` at the end.
fn split(rest: Option<&str>) -> Option<(&str, Option<&str>)> {
    let rest = rest?;
    Some(match rest.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (rest, None),
    })
}

impl Trie {
    /// Adds a valid plain filter.
    pub fn insert(&mut self, filter: &str, grant: Grant) {
        let mut at = 0;
        let mut rest = Some(filter);
        while let Some((level, after)) = split(rest) {
            rest = after;
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                return;
            };
            if level == "#" {
                node.hashes.push(grant);
                return;
            }
            at = match level {
                "+" => *node.plus.get_or_insert(next),
                level => *node.literals.entry(level.into()).or_insert(next),
            };
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.ends.push(grant);
        }
    }

    /// The first grant that `take` takes among the filters that match `topic`.
    pub fn matching<T>(&self, topic: &str, take: &mut impl FnMut(&Grant) -> Option<T>) -> Option<T> {
        let wildcards = !topic.starts_with('$');
        self.walk(0, Some(topic), wildcards, Walk::Topic, take)
    }

    /// The first grant that `take` takes among the filters that cover the plain filter `wanted`.
    pub fn covering<T>(&self, wanted: &str, take: &mut impl FnMut(&Grant) -> Option<T>) -> Option<T> {
        let wildcards = !wanted.starts_with('$');
        if wanted == "#"
            && let Some(plus) = self.nodes.first().and_then(|root| root.plus)
            && let Some(node) = self.nodes.get(plus)
            && let Some(taken) = node.hashes.iter().find_map(&mut *take)
        {
            // Every topic has a first level, so `+/#` says the same as `#`.
            return Some(taken);
        }
        self.walk(0, Some(wanted), wildcards, Walk::Filter, take)
    }

    /// `wildcards`: whether those of this node may be used, which at the root `$` forbids.
    fn walk<T>(
        &self,
        at: usize,
        rest: Option<&str>,
        wildcards: bool,
        walk: Walk,
        take: &mut impl FnMut(&Grant) -> Option<T>,
    ) -> Option<T> {
        let node = self.nodes.get(at)?;
        if wildcards && let Some(taken) = node.hashes.iter().find_map(&mut *take) {
            return Some(taken);
        }
        let Some((level, rest)) = split(rest) else {
            return node.ends.iter().find_map(take);
        };
        if walk == Walk::Filter && level == "#" {
            return None;
        }
        let literal = if walk == Walk::Filter && level == "+" {
            None
        } else {
            node.literals.get(level)
        };
        if let Some(&child) = literal
            && let Some(taken) = self.walk(child, rest, true, walk, take)
        {
            return Some(taken);
        }
        if wildcards && let Some(child) = node.plus {
            return self.walk(child, rest, true, walk, take);
        }
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    Topic,
    Filter,
}
