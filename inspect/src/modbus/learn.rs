//! What is proposed for requests that were seen, and whether rules permit it already.

use penstock_policy::protocol::LimitSet;
use penstock_policy::protocol::modbus_tcp::functions::{modbus_function, modbus_function_number};
use penstock_policy::terms::NumberRange;

use super::operation::{ADDRESSES, READ_ADDRESSES, UNITS};
use super::request::{Files, Request, Values};
use super::{ModbusRules, Span};
use crate::learn::{EntryKey, EntrySeen, Lesson};
use crate::operation::{Operation, SUB_FUNCTIONS, VALUES};
use crate::protocols::Confirmation;

/// A line for each function of each unit; places that are written with their values apart, but for files.
pub(super) fn lesson(operation: &Operation<'_>) -> Lesson {
    let mut key = EntryKey::of(operation, operation.name, &[UNITS]);
    if operation.numbers(VALUES).is_some() && !has_files(operation.name) {
        key.written = operation.numbers(ADDRESSES);
    }
    let joined = [ADDRESSES, READ_ADDRESSES, SUB_FUNCTIONS, VALUES];
    let sets = joined.into_iter().filter_map(|name| {
        let numbers = operation.numbers(name)?;
        Some((name, LimitSet::Numbers(vec![numbers])))
    });
    Lesson::Entry(key, sets.collect())
}

/// Everything is answered but what makes a device listen only (V1.1b3, 6.8.1).
pub(super) fn confirmed_by(operation: &Operation<'_>) -> Confirmation {
    const FORCE_LISTEN_ONLY: u32 = 4;
    match operation.numbers(SUB_FUNCTIONS) {
        Some(sub) if sub.first == FORCE_LISTEN_ONLY => Confirmation::NoRefusal,
        _ => Confirmation::Answer,
    }
}

/// Whether what a function touches are files, whose values are not kept by their places.
fn has_files(name: &str) -> bool {
    modbus_function(name).is_some_and(|function| function.files)
}

/// Whether all that was seen of a function is permitted, each range whole and with every value.
pub(super) fn permits(rules: &ModbusRules, key: &EntryKey, seen: &EntrySeen) -> bool {
    let all = ranges(seen, ADDRESSES)
        .zip(ranges(seen, READ_ADDRESSES))
        .zip(ranges(seen, VALUES))
        .zip(ranges(seen, SUB_FUNCTIONS));
    let (Some((((write, read), values), sub_functions)), Some(unit)) = (all, unit(key)) else {
        return false;
    };
    let function = modbus_function(&key.operation);
    let code = function.map(|function| function.code);
    let Some(code) = code.or_else(|| modbus_function_number(&key.operation)) else {
        return false;
    };
    let allows = |request: &Request<'_>| rules.judge(request).allows();
    let registers: Vec<u8> = values
        .iter()
        .flat_map(|values| values.first..=values.last)
        .flat_map(u16::to_be_bytes)
        .collect();
    if has_files(&key.operation) {
        // Rules know files by their number alone, so one request with all of them stands for each.
        let files = write.iter().flat_map(|files| files.first..=files.last);
        let records = sub_requests(files, &registers);
        return allows(&Request {
            unit,
            code,
            sub_function: None,
            read: None,
            write: None,
            values: Values::None,
            files: Files::of(&records, !registers.is_empty()),
        });
    }
    let (reads, writes) = function.map_or((true, true), |function| (function.reads, function.writes));
    let sub_functions: Vec<Option<u16>> = match function.and_then(|function| function.sub_function) {
        Some(fixed) => vec![Some(fixed)],
        None if sub_functions.is_empty() => vec![None],
        None => sub_functions
            .iter()
            .flat_map(|subs| subs.first..=subs.last)
            .map(Some)
            .collect(),
    };
    sub_functions.iter().all(|sub_function| {
        each(&write).all(|write| {
            each(&read).all(|read| {
                // A function that does one thing has its addresses in one limit, whichever it does.
                let (read, write) = match (reads, writes) {
                    (true, false) => (write, None),
                    _ => (read, write),
                };
                allows(&Request {
                    unit,
                    code,
                    sub_function: *sub_function,
                    read,
                    write,
                    values: Values::Registers(&registers),
                    files: Files::NONE,
                })
            })
        })
    })
}

fn unit(key: &EntryKey) -> Option<u8> {
    u8::try_from(key.number(UNITS)?).ok()
}

/// What was seen of a limit; `None`: no request has such numbers.
fn ranges(seen: &EntrySeen, limit: &str) -> Option<Vec<Span>> {
    let span = |range: &NumberRange| {
        let (first, last) = (u16::try_from(range.first).ok()?, u16::try_from(range.last).ok()?);
        Some(Span { first, last })
    };
    seen.ranges(limit).iter().map(span).collect()
}

/// Each of them, or once that there is none.
fn each(spans: &[Span]) -> impl Iterator<Item = Option<Span>> {
    let none = spans.is_empty().then_some(None);
    spans.iter().copied().map(Some).chain(none)
}

/// Sub-requests that touch each of these files, and where there are `registers` write one to each and all to the first.
fn sub_requests(files: impl Iterator<Item = u16>, registers: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |file: u16, data: &[u8]| {
        records.push(6);
        records.extend(file.to_be_bytes());
        records.extend([0, 0]);
        records.extend(u16::try_from(data.len() / 2).unwrap_or(u16::MAX).to_be_bytes());
        records.extend(data);
    };
    let mut first = None;
    for file in files {
        first.get_or_insert(file);
        add(file, registers.get(..2).unwrap_or_default());
    }
    // A record says how many registers it has in 16 bits.
    if let Some(file) = first {
        for data in registers.chunks(usize::from(u16::MAX) * 2) {
            add(file, data);
        }
    }
    records
}
