//! Sets by limit, in no more room than there are sets: thousands of them are kept of what is learned.

use std::collections::BTreeMap;

use penstock_policy::protocol::LimitSet;

/// Sets, each under the name of its limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitSets(Box<[(&'static str, LimitSet)]>);

impl LimitSets {
    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &LimitSet)> {
        self.0.iter().map(|(name, set)| (*name, set))
    }

    /// That of a limit.
    pub fn get(&self, name: &str) -> Option<&LimitSet> {
        let mut sets = self.iter();
        sets.find(|(known, _)| *known == name).map(|(_, set)| set)
    }
}

impl FromIterator<(&'static str, LimitSet)> for LimitSets {
    fn from_iter<T: IntoIterator<Item = (&'static str, LimitSet)>>(sets: T) -> Self {
        BTreeMap::from_iter(sets).into()
    }
}

impl From<BTreeMap<&'static str, LimitSet>> for LimitSets {
    fn from(sets: BTreeMap<&'static str, LimitSet>) -> Self {
        Self(sets.into_iter().collect())
    }
}

impl From<&LimitSets> for BTreeMap<&'static str, LimitSet> {
    fn from(sets: &LimitSets) -> Self {
        sets.iter().map(|(name, set)| (name, set.clone())).collect()
    }
}
