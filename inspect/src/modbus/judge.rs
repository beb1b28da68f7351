//! Modbus rules by function code and unit.
//!
//! For each function code the 256 units share a few buckets, by which rules hold for them. A bucket keeps
//! its unconditional spans sorted, with the furthest end so far, so that "does one rule hold all of 40–60?" is one binary
//! search. Rules that also limit values, sub-functions or two parts of a request are then tried one by one.

mod limit;

use std::collections::BTreeMap;

use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::protocol::modbus_tcp::functions::{
    MODBUS_FUNCTIONS, ModbusFunction, modbus_function, modbus_function_number, modbus_group,
};
use penstock_policy::terms::{Answers, NumberRange};

use self::limit::Limit;
use crate::judge::{Judge, Objection, Refusal, RuleIndex, RulesError, Verdict, ranges_text};
use crate::modbus::{Span, objection};
use crate::modbus::request::{Request, Values};

/// Compiled Modbus rules of one flow.
#[derive(Debug)]
pub struct ModbusRules {
    /// By function code, 0–127.
    codes: Vec<Option<Code>>,
    texts: Vec<String>,
    /// Which answers belong to a request.
    pub(crate) answers: Answers,
}

/// The rules for one function code.
#[derive(Debug)]
struct Code {
    entries: Vec<FunctionLimits>,
    /// By unit.
    bucket_of: Vec<u16>,
    buckets: Vec<Bucket>,
}

/// The rules that hold for some units.
#[derive(Debug)]
struct Bucket {
    /// Positions in [`Code::entries`].
    entries: Vec<usize>,
    /// Spans of entries that limit nothing else, by first address.
    spans: Vec<SpanReach>,
}

/// One span, and the furthest end among the spans up to it, with the rule that has it.
#[derive(Debug, Clone, Copy)]
struct SpanReach {
    first: u16,
    furthest: u16,
    rule: RuleIndex,
}

/// What one rule says of one function.
#[derive(Debug)]
struct FunctionLimits {
    rule: RuleIndex,
    units: Limit,
    read: Limit,
    write: Limit,
    values: Limit,
    sub_functions: Limit,
}

impl ModbusRules {
    /// Compiles a flow's list.
    ///
    /// # Errors
    /// The list is empty, or an entry is not understood.
    pub fn compile(list: &[ModbusOperation]) -> Result<Self, RulesError> {
        if list.is_empty() {
            return Err(RulesError::Empty);
        }
        let mut entries = ByCode::default();
        for (index, operation) in list.iter().enumerate() {
            for (code, entry) in expand(index, operation)? {
                entries.add(code, entry);
            }
        }
        Ok(entries.compiled(list.iter().map(text).collect()))
    }

    /// Compiles flows' lists of which some permit only what the list beside them does too. Rules are those of the first, numbered through;
    /// what they and a role have in common may be nothing.
    ///
    /// # Errors
    /// A list is empty, or an entry is not understood.
    pub fn compile_within(
        lists: &[(Vec<ModbusOperation>, Option<Vec<ModbusOperation>>)],
    ) -> Result<Self, RulesError> {
        let (mut entries, mut texts) = (ByCode::default(), Vec::new());
        for (list, role) in lists {
            if list.is_empty() || role.as_ref().is_some_and(Vec::is_empty) {
                return Err(RulesError::Empty);
            }
            let mut of_role = Vec::new();
            for (index, operation) in role.iter().flatten().enumerate() {
                of_role.extend(expand(index, operation)?);
            }
            for operation in list {
                for (code, entry) in expand(texts.len(), operation)? {
                    if role.is_none() {
                        entries.add(code, entry);
                        continue;
                    }
                    for (_, other) in of_role.iter().filter(|(other, _)| *other == code) {
                        if let Some(both) = entry.within(other) {
                            entries.add(code, both);
                        }
                    }
                }
                texts.push(text(operation));
            }
        }
        Ok(entries.compiled(texts))
    }

    /// Permits nothing.
    pub(crate) fn nothing() -> Self {
        Self {
            codes: Vec::new(),
            texts: Vec::new(),
            answers: Answers::Strict,
        }
    }

    /// Judges a request.
    pub fn judge(&self, request: &Request<'_>) -> Verdict {
        let Some(code) = self.codes.get(usize::from(request.code)).and_then(Option::as_ref) else {
            return Verdict::Refuse(Refusal {
                why: Objection::Function,
                nearest: None,
            });
        };
        code.judge(request)
    }
}

/// What rules say, by function code.
struct ByCode(Vec<Vec<FunctionLimits>>);

impl Default for ByCode {
    fn default() -> Self {
        Self((0..128).map(|_| Vec::new()).collect())
    }
}

impl ByCode {
    fn add(&mut self, code: u8, entry: FunctionLimits) {
        if let Some(entries) = self.0.get_mut(usize::from(code)) {
            entries.push(entry);
        }
    }

    fn compiled(self, texts: Vec<String>) -> ModbusRules {
        let code = |entries: Vec<FunctionLimits>| (!entries.is_empty()).then(|| Code::of(entries));
        ModbusRules {
            codes: self.0.into_iter().map(code).collect(),
            texts,
            answers: Answers::Strict,
        }
    }
}

impl Judge for ModbusRules {
    fn texts(&self) -> &[String] {
        &self.texts
    }

    fn set_answers(&mut self, answers: Answers) {
        self.answers = answers;
    }
}

impl Code {
    fn of(entries: Vec<FunctionLimits>) -> Self {
        let mut numbers: BTreeMap<Vec<usize>, u16> = BTreeMap::new();
        let mut bucket_of = Vec::with_capacity(256);
        for unit in 0..=255 {
            let held: Vec<usize> = entries
                .iter()
                .enumerate()
                .filter(|(_, entry)| entry.units.holds_one(unit))
                .map(|(at, _)| at)
                .collect();
            let next = u16::try_from(numbers.len()).unwrap_or(u16::MAX);
            bucket_of.push(*numbers.entry(held).or_insert(next));
        }
        let mut in_order: Vec<(u16, Vec<usize>)> =
            numbers.into_iter().map(|(held, number)| (number, held)).collect();
        in_order.sort_unstable();
        let buckets = in_order
            .into_iter()
            .map(|(_, held)| Bucket::of(&entries, held))
            .collect();
        Self {
            entries,
            bucket_of,
            buckets,
        }
    }

    fn judge(&self, request: &Request<'_>) -> Verdict {
        let bucket = self
            .bucket_of
            .get(usize::from(request.unit))
            .and_then(|number| self.buckets.get(usize::from(*number)));
        let nearest = self.entries.first().map(|entry| entry.rule);
        let Some(bucket) = bucket.filter(|bucket| !bucket.entries.is_empty()) else {
            return Verdict::Refuse(Refusal {
                why: objection::UNIT,
                nearest,
            });
        };
        let one_span = match (request.read, request.write) {
            (Some(span), None) | (None, Some(span)) => Some(span),
            _ => None,
        };
        if let Some(rule) = one_span.and_then(|span| bucket.reach(span)) {
            return Verdict::Allow(rule);
        }
        let mut closest = (0, objection::UNIT, nearest);
        for entry in bucket.entries.iter().filter_map(|at| self.entries.get(*at)) {
            match entry.against(request) {
                None => return Verdict::Allow(entry.rule),
                Some((rank, why)) if rank > closest.0 => closest = (rank, why, Some(entry.rule)),
                Some(_) => {}
            }
        }
        Verdict::Refuse(Refusal {
            why: closest.1,
            nearest: closest.2,
        })
    }
}

impl Bucket {
    fn of(entries: &[FunctionLimits], held: Vec<usize>) -> Self {
        const ALL: Span = Span {
            first: 0,
            last: u16::MAX,
        };
        let mut spans: Vec<(Span, RuleIndex)> = Vec::new();
        for entry in held.iter().filter_map(|at| entries.get(*at)) {
            // One limit for whichever part a request has: those of a group differ, and are tried one by one.
            if entry.values != Limit::Any || entry.sub_functions != Limit::Any || entry.read != entry.write {
                continue;
            }
            match &entry.read {
                Limit::Any => spans.push((ALL, entry.rule)),
                Limit::Within(within) => spans.extend(within.iter().map(|span| (*span, entry.rule))),
            }
        }
        spans.sort_unstable();
        let mut furthest: Option<(u16, RuleIndex)> = None;
        let spans = spans
            .into_iter()
            .map(|(span, rule)| {
                let (last, by) = furthest
                    .filter(|(last, _)| *last >= span.last)
                    .unwrap_or((span.last, rule));
                furthest = Some((last, by));
                SpanReach {
                    first: span.first,
                    furthest: last,
                    rule: by,
                }
            })
            .collect();
        Self { entries: held, spans }
    }

    /// A rule that holds all of `span`, if an unconditional one does.
    fn reach(&self, span: Span) -> Option<RuleIndex> {
        let after = self.spans.partition_point(|reach| reach.first <= span.first);
        let reach = self.spans.get(after.checked_sub(1)?)?;
        (reach.furthest >= span.last).then_some(reach.rule)
    }
}

impl FunctionLimits {
    /// What both permit; `None`: nothing of any unit.
    fn within(&self, other: &Self) -> Option<Self> {
        let units = self.units.within(&other.units);
        let is_empty = matches!(&units, Limit::Within(spans) if spans.is_empty());
        (!is_empty).then(|| Self {
            rule: self.rule,
            units,
            read: self.read.within(&other.read),
            write: self.write.within(&other.write),
            values: self.values.within(&other.values),
            sub_functions: self.sub_functions.within(&other.sub_functions),
        })
    }

    /// What stands against the request, and how close it came; `None` if nothing does.
    fn against(&self, request: &Request<'_>) -> Option<(u8, Objection)> {
        if request
            .sub_function
            .is_some_and(|sub_function| !self.sub_functions.holds_one(sub_function))
        {
            return Some((1, objection::SUB_FUNCTION));
        }
        let read = request.read.is_none_or(|span| self.read.holds(span));
        let write = request.write.is_none_or(|span| self.write.holds(span));
        let files = request.files.iter().all(|record| {
            let limit = if record.data.is_empty() {
                &self.read
            } else {
                &self.write
            };
            limit.holds_one(record.file)
        });
        if !(read && write && files) {
            return Some((2, objection::ADDRESS));
        }
        let values = match request.values {
            // What a mask leaves behind depends on the device, so all that it can leave must be permitted.
            Values::Mask { and, or } => self.values.holds_mask(and, or),
            values => values.all(|value| self.values.holds_one(value)),
        };
        let values = values && request.files.all_values(|value| self.values.holds_one(value));
        (!values).then_some((3, objection::VALUE))
    }
}

/// The functions that a rule names, each with what the rule says of it.
fn expand(index: RuleIndex, operation: &ModbusOperation) -> Result<Vec<(u8, FunctionLimits)>, RulesError> {
    let limit = |field, ranges: &Option<Vec<NumberRange>>, greatest| {
        Limit::of(index, field, ranges.as_deref(), greatest)
    };
    let units = limit("units", &operation.units, 255)?;
    let addresses = limit("addresses", &operation.addresses, u16::MAX)?;
    let read = match &operation.read_addresses {
        None => addresses.clone(),
        ranges => limit("read_addresses", ranges, u16::MAX)?,
    };
    let values = limit("values", &operation.values, u16::MAX)?;
    let sub_functions = limit("sub_functions", &operation.sub_functions, u16::MAX)?;
    // A limit binds only a function that has such a field. `Any` on both sides of a span that a function lacks
    // would make it look unlimited to the table of spans, which is asked only for spans that requests have.
    let entry = |function: Option<&ModbusFunction>, fixed: Option<Limit>| FunctionLimits {
        rule: index,
        units: units.clone(),
        read: if function.is_some_and(|function| function.writes && !function.reads) {
            addresses.clone()
        } else {
            read.clone()
        },
        write: if function.is_some_and(|function| function.reads && !function.writes) {
            read.clone()
        } else {
            addresses.clone()
        },
        values: if function.is_some_and(|function| function.values) {
            values.clone()
        } else {
            Limit::Any
        },
        sub_functions: fixed.unwrap_or_else(|| sub_functions.clone()),
    };
    if let Some(function) = modbus_function(&operation.function) {
        let fixed = function.sub_function.map(|mei_type| {
            Limit::merged(vec![Span {
                first: mei_type,
                last: mei_type,
            }])
        });
        return Ok(vec![(function.code, entry(Some(function), fixed))]);
    }
    if let Some(code) = modbus_function_number(&operation.function) {
        return Ok(vec![(code, entry(None, None))]);
    }
    let Some(lists) = modbus_group(&operation.function) else {
        return Err(RulesError::Word {
            index,
            word: operation.function.clone(),
            kind: "a Modbus function or group",
        });
    };
    let members = lists.iter().copied().flatten().map(|member| {
        let function = MODBUS_FUNCTIONS
            .iter()
            .find(|function| function.code == member.code);
        let fixed = (!member.sub_functions.is_empty()).then(|| {
            Limit::merged(
                member
                    .sub_functions
                    .iter()
                    .map(|(first, last)| Span {
                        first: *first,
                        last: *last,
                    })
                    .collect(),
            )
        });
        (member.code, entry(function, fixed.or(Some(Limit::Any))))
    });
    Ok(members.collect())
}

fn text(operation: &ModbusOperation) -> String {
    let mut text = operation.function.clone();
    for (field, ranges) in [
        ("units", &operation.units),
        ("addresses", &operation.addresses),
        ("read addresses", &operation.read_addresses),
        ("values", &operation.values),
        ("sub-functions", &operation.sub_functions),
    ] {
        if let Some(ranges) = ranges {
            text.push_str(&format!(", {field} {}", ranges_text(ranges)));
        }
    }
    text
}
