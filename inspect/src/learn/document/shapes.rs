//! What is written to one place, as a person would say it: a constant, on or off, some values, a band.

use penstock_policy::protocol::LimitSet;
use penstock_policy::terms::NumberRange;

use super::EntrySeen;
use crate::operation::VALUES;

/// Separate ranges that are listed as they are; of more, the band that holds them is.
const LISTED_MAX: usize = 4;
/// So many values in a row look like something that counts.
const COUNTING_MIN: u32 = 8;

/// The values that were written to a place, and how many registers it has: of several that are written together the values are not
/// told apart, as a rule limits them together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    values: Vec<NumberRange>,
    /// More than that was seen to lie between: nobody wrote all of the band.
    has_gaps: bool,
    registers: u32,
}

impl Shape {
    /// What was written; `None`: nothing that a rule limits by values.
    pub(super) fn of(written: Option<NumberRange>, seen: &EntrySeen) -> Option<Self> {
        match seen.sets.get(VALUES)? {
            LimitSet::Numbers(ranges) if !ranges.is_empty() => Some(Self {
                values: match ranges.len() {
                    0..=LISTED_MAX => ranges.clone(),
                    _ => vec![ranges.iter().copied().reduce(NumberRange::hull)?],
                },
                has_gaps: ranges.len() > LISTED_MAX,
                registers: written.map_or(1, |place| {
                    place.last.saturating_sub(place.first).saturating_add(1)
                }),
            }),
            _ => None,
        }
    }

    /// As a limit.
    pub(super) fn list(&self) -> String {
        list(&self.values.iter().map(NumberRange::to_string).collect::<Vec<_>>())
    }

    /// For people; `None`: the values say it themselves.
    pub(super) fn in_words(&self) -> Option<String> {
        let words = match self.values.as_slice() {
            [_] if self.has_gaps => "a band around what was seen: values between were not".to_owned(),
            [one] if one.first == one.last => "always this value".to_owned(),
            [NumberRange { first: 0, last: 1 }] => "on and off".to_owned(),
            [one] if one.last - one.first >= COUNTING_MIN => {
                "a band: what counts or drifts will leave it".to_owned()
            }
            [_] => "a band".to_owned(),
            _ => return self.together(),
        };
        Some(match self.together() {
            Some(together) => format!("{words}, {together}"),
            None => words,
        })
    }

    fn together(&self) -> Option<String> {
        let several = self.registers > 1;
        several.then(|| {
            format!(
                "{} places written together, which a rule limits together",
                self.registers
            )
        })
    }
}

/// A list in YAML.
pub(super) fn list(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}
