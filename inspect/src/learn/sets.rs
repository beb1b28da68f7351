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

impl LimitSets {
    /// That of a limit, which is `empty` if there was none yet.
    pub(super) fn of(
        &mut self,
        name: &'static str,
        empty: impl FnOnce() -> LimitSet,
    ) -> Option<&mut LimitSet> {
        let at = match self.0.binary_search_by(|(known, _)| (*known).cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                let mut sets = std::mem::take(&mut self.0).into_vec();
                sets.insert(at, (name, empty()));
                self.0 = sets.into();
                at
            }
        };
        self.0.get_mut(at).map(|(_, set)| set)
    }

    /// Gives back the room that nothing takes.
    pub(super) fn compact(&mut self) {
        for (_, set) in &mut self.0 {
            match set {
                LimitSet::Numbers(ranges) => ranges.shrink_to_fit(),
                LimitSet::Patterns(listed) | LimitSet::Texts(listed) => listed.shrink_to_fit(),
                LimitSet::Range(_) | LimitSet::Flag(_) => {}
            }
        }
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
