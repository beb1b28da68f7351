//! The toy, read: `GET 7`, `SET 7 21`, `LOAD name`, a line each.

mod machine;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use penstock_policy::protocol::toy::TOY;
use penstock_policy::protocol::{LimitSet, Operations, Protocol};
use penstock_policy::terms::NumberRange;
use serde_json::value::RawValue;

use self::machine::{Held, LINE_MAX, Toy};
use crate::connection::ConnectionLimits;
use crate::connection::frozen::{self, ThawError};
use crate::connection::machine::{Machine, Terms};
use crate::judge::sets::SetRules;
use crate::judge::{Judge, Rules, RulesError, Verdict};
use crate::learn::{EntryKey, EntrySeen, Lesson};
use crate::operation::{Fact, Operation, VALUES};
use crate::protocols::Inspector;
use crate::query::{Asked, Query, QueryError, Words};

/// How the toy is read.
#[derive(Debug)]
pub(crate) struct Lines;

pub(crate) const INSPECTOR: &dyn Inspector = &Lines;

/// What a line asks; `None`: it is no request.
fn read(line: &[u8]) -> Option<Operation<'static>> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let words: Vec<&str> = line.split(' ').collect();
    let number = |word: &str, name: &'static str, last: u32| {
        let number: u32 = word.parse().ok().filter(|number| *number <= last)?;
        let canonical = number.to_string() == word;
        let range = NumberRange {
            first: number,
            last: number,
        };
        canonical.then_some((name, Fact::Numbers(range)))
    };
    match words.as_slice() {
        ["GET", point] => Some(Operation::new(TOY, "get", [Some(number(point, "points", 999)?)])),
        ["SET", point, value] => Some(Operation::new(
            TOY,
            "set",
            [
                Some(number(point, "points", 999)?),
                Some(number(value, "values", 100)?),
            ],
        )),
        ["LOAD", name] => {
            let name = ("programs", Fact::Text(Cow::Owned((*name).to_owned())));
            Some(Operation::new(TOY, "load", [Some(name)]))
        }
        _ => None,
    }
}

impl Inspector for Lines {
    fn protocol(&self) -> Protocol {
        TOY
    }

    fn show(&self, operation: &Operation<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(operation.name)?;
        for (name, fact) in operation.facts() {
            let to = if *name == VALUES { " to" } else { "" };
            match fact {
                Fact::Numbers(numbers) => write!(f, "{to} {numbers}")?,
                Fact::Text(text) => write!(f, " {}", text.escape_debug())?,
                Fact::Flag(_) => {}
            }
        }
        Ok(())
    }

    fn read(&self, name: &str, words: &mut Words<'_>) -> Option<Result<Query, QueryError>> {
        let verb = match name {
            "get" => "GET",
            "set" => "SET",
            "load" => "LOAD",
            _ => return None,
        };
        let words: Vec<&str> = [verb]
            .into_iter()
            .chain(words.filter(|word| *word != "value"))
            .collect();
        let line = format!("{}\n", words.join(" "));
        let asked = read(line.as_bytes()).map(|operation| Query::new(operation.clone(), Asks(operation)));
        Some(
            asked.ok_or_else(|| {
                QueryError::new(format!("`{}` is no request", line.trim_end()), self.example())
            }),
        )
    }

    fn example(&self) -> &'static str {
        "for example: --operation \"set 5 value 21\""
    }

    fn learn(&self, operation: &Operation<'_>) -> Lesson {
        let sets = operation.facts().filter_map(|(name, fact)| match fact {
            Fact::Numbers(numbers) => Some((*name, LimitSet::Numbers(vec![*numbers]))),
            Fact::Text(_) | Fact::Flag(_) => None,
        });
        let sets = sets.collect();
        Lesson::Entry(EntryKey::of(operation, operation.name, &[]), sets)
    }

    fn permits(&self, rules: &Rules, key: &EntryKey, seen: &EntrySeen) -> bool {
        let rules = rules.of::<SetRules>();
        rules.is_some_and(|rules| rules.permits(TOY, key, seen))
    }

    fn compile(&self, lists: &[&Operations]) -> Result<Box<dyn Judge>, RulesError> {
        Ok(Box::new(SetRules::compile(lists)?))
    }

    fn nothing(&self) -> Box<dyn Judge> {
        Box::new(SetRules::default())
    }

    fn machine(&self, terms: Terms) -> Box<dyn Machine> {
        let held = Held::default();
        Box::new(Toy { terms, held })
    }

    fn frozen_as(&self) -> &'static str {
        "toy"
    }

    fn thaw(&self, terms: Terms, frozen: &RawValue, _now: Duration) -> Result<Box<dyn Machine>, ThawError> {
        let held = frozen::read(frozen)?;
        Ok(Box::new(Toy { terms, held }))
    }

    fn unsent(&self, frozen: &RawValue) -> Result<[Vec<u8>; 2], ThawError> {
        Ok(frozen::read::<Held>(frozen)?.into_both())
    }

    fn frozen_bytes_max(&self, _limits: &ConnectionLimits) -> usize {
        16 * LINE_MAX
    }
}

/// A request as it is asked about.
#[derive(Debug)]
struct Asks(Operation<'static>);

impl Asked for Asks {
    fn judge(&self, rules: &Rules) -> Option<Verdict> {
        Some(rules.of::<SetRules>()?.judge(&self.0))
    }
}
