//! Modbus/TCP (MODBUS Application Protocol V1.1b3; Messaging on TCP/IP V1.0b).
//!
//! A function is an operation. What it can be limited by are the unit, data addresses (file numbers for file records), the values
//! that it writes, and sub-functions. The functions' codes, and the members of the groups, stand in [`functions`].

pub mod functions;
pub mod register_numbers;

use std::fmt;

use self::functions::{MODBUS_FUNCTIONS, ModbusFunction};
use super::vocabulary::{
    Aspect, Member,
    Carried, Carrier, Doubt, Effect, Group, Kind, Limit, Numbered, Operation, Phrase, Placeholder, Refusals,
    Spelling, Takes, Vocabulary, Within,
};
use super::{LimitSet, Operations, Permitted, Protocol};
use crate::terms::{NumberRange, OnRefusal};

/// Modbus/TCP.
pub const MODBUS_TCP: Protocol = Protocol(&VOCABULARY);

pub(super) static VOCABULARY: Vocabulary = Vocabulary {
    word: "modbus-tcp",
    name: "Modbus",
    services: &SERVICES,
    limits: &[&UNITS, &ADDRESSES, &READ_ADDRESSES, &VALUES, &SUB_FUNCTIONS],
    operations: &OPERATIONS,
    groups: &GROUPS,
    numbered: Some(Numbered {
        prefix: "function-",
        is: |name| functions::modbus_function_number(name).is_some(),
        pattern: "^function-[0-9]{1,3}$",
        limits: &[UNIT],
        help: "A function by its code, where the standard has no name for it.",
    }),
    members,
    spelling: Spelling::Field("function"),
    session: None,
    refusals: Refusals {
        words: &[
            OnRefusal::Answer,
            OnRefusal::Disconnect,
            OnRefusal::Reset,
            OnRefusal::Drop,
        ],
        otherwise: "a refused Modbus request cannot be acknowledged as though it had been done",
        help: "write `answer`: the master gets the exception that the protocol has for it",
    },
    matches_answers: true,
    has_roles: true,
    example: "`allow: [{ read-holding-registers: { units: 1, addresses: 0-99 } }]`",
    placeholder: Placeholder {
        entry: "read-holding-registers: { units: 1, addresses: 0 }",
        replace: "request: put what it is for in place of that register",
    },
};

static SERVICES: [Carried; 1] =
    [Carried::plain("modbus-tcp", Carrier::Tcp, 502, "Modbus/TCP")];

static UNITS: Limit = Limit {
    name: "units",
    kind: numbers(255, |_| None, |_, _| None),
    help: "Unit identifiers, 0–255, or `any`.",
    phrase: Phrase::bracketed("unit "),
};

static ADDRESSES: Limit = Limit {
    name: "addresses",
    kind: numbers(65_535, too_large, register_numbers),
    help: "Data addresses (file records: file numbers), 0–65535, or `any`. They count from 0, as on the wire: what manuals number \
           40001, 30001 or 10001 has address 0.",
    phrase: Phrase::bracketed("addresses "),
};

static READ_ADDRESSES: Limit = Limit {
    name: "read_addresses",
    kind: numbers(65_535, too_large, register_numbers),
    help: "Data addresses that may be read by what also writes, from 0 as on the wire; default: the same as `addresses`.",
    phrase: Phrase::bracketed("reading addresses "),
};

static VALUES: Limit = Limit {
    name: "values",
    kind: numbers(65_535, |_| None, |_, _| None),
    help: "Values that may be written, 0–65535 (coils: 0 and 1), or `any`.",
    phrase: Phrase::bracketed("values "),
};

static SUB_FUNCTIONS: Limit = Limit {
    name: "sub_functions",
    kind: numbers(65_535, |_| None, |_, _| None),
    help: "Sub-functions, 0–65535, or `any`.",
    phrase: Phrase::bracketed("sub-functions "),
};

const fn numbers(
    last: u32,
    hint: fn(NumberRange) -> Option<String>,
    doubt: fn(&str, &[NumberRange]) -> Option<Doubt>,
) -> Kind {
    Kind::Numbers { last, hint, doubt }
}

/// What is said of an address beyond 65535.
fn too_large(range: NumberRange) -> Option<String> {
    let meant = register_numbers::shown(register_numbers::of_six_digits(range)?);
    Some(format!(
        "addresses count from 0, as on the wire: what manuals number {} is `{meant}`",
        register_numbers::shown(range)
    ))
}

/// What is said of addresses that look like the register numbers of a manual.
fn register_numbers(operation: &str, ranges: &[NumberRange]) -> Option<Doubt> {
    let (range, meant) = register_numbers::probably_meant(operation, ranges)?;
    let (range, meant) = (register_numbers::shown(range), register_numbers::shown(meant));
    Some(Doubt {
        message: format!("`{range}` looks like register numbers of a manual, which are not addresses on the wire"),
        label: format!("if so, the addresses are {meant}"),
        help: format!("addresses count from 0, as on the wire: write `{meant}` for what a manual numbers {range}"),
    })
}

static ASKED: Aspect = aspect("unit", "units", &[&UNITS], ["unit ", "units "], "asked");
static READ: Aspect = Aspect {
    spans: true,
    ..aspect("read", "addresses", &[&READ_ADDRESSES, &ADDRESSES], ["", ""], "read")
};
static WRITTEN: Aspect = Aspect {
    spans: true,
    ..aspect("written", "addresses", &[&ADDRESSES], ["", ""], "written")
};
static VALUE: Aspect = aspect("value", "values", &[&VALUES], ["value ", "values "], "written");
static SUB_FUNCTION: Aspect = aspect(
    "sub-function",
    "sub-functions",
    &[&SUB_FUNCTIONS],
    ["sub-function ", "sub-functions "],
    "called",
);

const fn aspect(
    id: &'static str,
    name: &'static str,
    by: &'static [&'static Limit],
    nouns: [&'static str; 2],
    done: &'static str,
) -> Aspect {
    Aspect {
        id,
        by,
        name,
        nouns,
        done,
        after: "",
        spans: false,
    }
}

const UNIT: Takes = Takes::required(&UNITS, &ASKED, "write `units: 1`, or `units: any`");
const WHERE: Takes = Takes::optional(&ADDRESSES, &READ);
const WHERE_WRITTEN: Takes = Takes::required(
    &ADDRESSES,
    &WRITTEN,
    "a write names its addresses: `addresses: 40-43`, or `addresses: any` if really all are meant",
);
const WHERE_READ: Takes = Takes::optional(&READ_ADDRESSES, &READ);
const WHAT: Takes = Takes::optional(&VALUES, &VALUE);
const WHICH: Takes = Takes::optional(&SUB_FUNCTIONS, &SUB_FUNCTION);
const COIL: Takes = Takes {
    within: Some(Within {
        last: 1,
        why: "a coil's value is 0 or 1",
        expected: "0, 1, 0-1 or any",
    }),
    ..Takes::optional(&VALUES, &VALUE)
};

const fn function(
    name: &'static str,
    effect: Effect,
    limits: &'static [Takes],
    help: &'static str,
) -> Operation {
    Operation {
        name,
        effect,
        limits,
        help,
    }
}

static READS: [Takes; 2] = [UNIT, WHERE];
static WRITES: [Takes; 3] = [UNIT, WHERE_WRITTEN, WHAT];
static SWITCHES: [Takes; 3] = [UNIT, WHERE_WRITTEN, COIL];
static READS_AND_WRITES: [Takes; 4] = [UNIT, WHERE_WRITTEN, WHERE_READ, WHAT];
static ASKS: [Takes; 1] = [UNIT];
static CHOOSES: [Takes; 2] = [UNIT, WHICH];

/// The public functions, in the order of their codes. Each of them stands in [`functions::MODBUS_FUNCTIONS`] too.
#[rustfmt::skip]
static OPERATIONS: [Operation; 20] = [
    function("read-coils", Effect::Read, &READS, "Reads coils (function 1)."),
    function("read-discrete-inputs", Effect::Read, &READS, "Reads discrete inputs (function 2)."),
    function("read-holding-registers", Effect::Read, &READS, "Reads holding registers (function 3)."),
    function("read-input-registers", Effect::Read, &READS, "Reads input registers (function 4)."),
    function("write-single-coil", Effect::Write, &SWITCHES, "Writes one coil (function 5)."),
    function("write-single-register", Effect::Write, &WRITES, "Writes one holding register (function 6)."),
    function("read-exception-status", Effect::Read, &ASKS, "Reads eight exception outputs (function 7)."),
    function("diagnostics", Effect::Control, &CHOOSES, "Tests the communication and resets counters; by a sub-function also restarts it or makes the device listen only (function 8)."),
    function("get-comm-event-counter", Effect::Read, &ASKS, "Reads the counter of communication events (function 11)."),
    function("get-comm-event-log", Effect::Read, &ASKS, "Reads the log of communication events (function 12)."),
    function("write-multiple-coils", Effect::Write, &SWITCHES, "Writes coils in a row (function 15)."),
    function("write-multiple-registers", Effect::Write, &WRITES, "Writes holding registers in a row (function 16)."),
    function("report-server-id", Effect::Read, &ASKS, "Reads what the device is and whether it runs (function 17)."),
    function("read-file-record", Effect::Read, &READS, "Reads records of files; `addresses` are file numbers (function 20)."),
    function("write-file-record", Effect::Program, &WRITES, "Writes records of files; `addresses` are file numbers (function 21)."),
    function("mask-write-register", Effect::Write, &WRITES, "Sets and clears bits of a holding register (function 22)."),
    function("read-write-multiple-registers", Effect::Write, &READS_AND_WRITES, "Writes holding registers, then reads some, in one request (function 23)."),
    function("read-fifo-queue", Effect::Read, &READS, "Reads a queue of registers (function 24)."),
    function("canopen-general-reference", Effect::Program, &ASKS, "Reads and writes CANopen objects (function 43, type 13)."),
    function("read-device-identification", Effect::Read, &ASKS, "Reads maker, product and version (function 43, type 14)."),
];

static GROUPS: [Group; 3] = [
    Group {
        name: "read-only",
        effect: Effect::Read,
        limits: &READS,
        help: "All functions that change nothing: data, files and queues read, counters, identification.",
    },
    Group {
        name: "read-write",
        effect: Effect::Write,
        limits: &READS_AND_WRITES,
        help: "What `read-only` permits, and the functions that write coils and registers.",
    },
    Group {
        name: "programming",
        effect: Effect::Program,
        limits: &READS_AND_WRITES,
        help: "What `read-write` permits, and all by which devices are programmed: files, all diagnostics, CANopen objects, and \
               the codes that makers use.",
    },
];

/// The function codes that a name stands for, and what of each is bounded.
fn members(name: &str) -> Vec<Member> {
    let aspects = |code: u8, function: Option<&ModbusFunction>| {
        let has = |so: fn(&ModbusFunction) -> bool| function.is_some_and(so);
        let all = [
            (&ASKED, true),
            (&READ, has(|function| function.reads)),
            (&WRITTEN, has(|function| function.writes)),
            (&VALUE, has(|function| function.values)),
            (&SUB_FUNCTION, matches!(code, 8 | 43)),
        ];
        all.into_iter()
            .filter_map(|(aspect, has)| has.then_some(aspect))
            .collect()
    };
    let member = |code: u8, function, fixed: Vec<NumberRange>| Member {
        code: code.into(),
        aspects: aspects(code, function),
        fixed: (!fixed.is_empty()).then_some((&SUB_FUNCTION, fixed)),
    };
    let range = |(first, last): (u16, u16)| NumberRange {
        first: first.into(),
        last: last.into(),
    };
    if let Some(function) = functions::modbus_function(name) {
        let fixed = function.sub_function.map(|number| range((number, number)));
        return vec![member(function.code, Some(function), Vec::from_iter(fixed))];
    }
    if let Some(code) = functions::modbus_function_number(name) {
        return vec![member(code, None, Vec::new())];
    }
    let lists = functions::modbus_group(name).unwrap_or_default();
    let members = lists.iter().copied().flatten().map(|listed| {
        let function = MODBUS_FUNCTIONS
            .iter()
            .find(|function| function.code == listed.code);
        let fixed = match listed.sub_functions {
            // A group limits no sub-functions: all of them.
            [] if matches!(listed.code, 8 | 43) => vec![range((0, u16::MAX))],
            listed => listed.iter().copied().map(range).collect(),
        };
        member(listed.code, function, fixed)
    });
    members.collect()
}

/// A permitted Modbus operation with its limits by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModbusOperation {
    /// Function by its standard name in kebab case (`read-holding-registers`), `function-<n>` for a code without a
    /// name, or a group (`read-only`, `read-write`, `programming`): see [`functions`].
    pub function: String,
    /// Unit identifiers; `None` only where the document says `units: any`.
    pub units: Option<Vec<NumberRange>>,
    /// Data addresses; `None` where the function has none or the document says `addresses: any` or leaves reading unlimited.
    pub addresses: Option<Vec<NumberRange>>,
    /// Data addresses that may be read by a function or group that also writes; `None`: the same as `addresses`.
    pub read_addresses: Option<Vec<NumberRange>>,
    /// Values that may be written; `None`: not limited.
    pub values: Option<Vec<NumberRange>>,
    /// Sub-functions (diagnostics, encapsulated interface); `None`: not limited.
    pub sub_functions: Option<Vec<NumberRange>>,
}

impl ModbusOperation {
    /// A permitted operation by this type.
    pub fn of(permitted: &Permitted) -> Self {
        let numbers = |limit: &Limit| match permitted.limit(limit.name) {
            Some(LimitSet::Numbers(ranges)) => Some(ranges.clone()),
            _ => None,
        };
        Self {
            function: permitted.operation.clone(),
            units: numbers(&UNITS),
            addresses: numbers(&ADDRESSES),
            read_addresses: numbers(&READ_ADDRESSES),
            values: numbers(&VALUES),
            sub_functions: numbers(&SUB_FUNCTIONS),
        }
    }

    /// A list by this type; `None`: it is of another protocol.
    pub fn list(operations: &Operations) -> Option<Vec<Self>> {
        let own = operations.protocol == MODBUS_TCP;
        own.then(|| operations.permitted.iter().map(Self::of).collect())
    }
}

impl From<ModbusOperation> for Permitted {
    fn from(operation: ModbusOperation) -> Self {
        let limits = [
            (&UNITS, operation.units),
            (&ADDRESSES, operation.addresses),
            (&READ_ADDRESSES, operation.read_addresses),
            (&VALUES, operation.values),
            (&SUB_FUNCTIONS, operation.sub_functions),
        ];
        Self {
            operation: operation.function,
            limits: limits
                .into_iter()
                .filter_map(|(limit, ranges)| Some((limit.name, LimitSet::Numbers(ranges?))))
                .collect(),
        }
    }
}

impl From<Vec<ModbusOperation>> for Operations {
    fn from(operations: Vec<ModbusOperation>) -> Self {
        Self::of(MODBUS_TCP, operations)
    }
}

impl fmt::Display for ModbusOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Permitted::from(self.clone()).phrase(&VOCABULARY))
    }
}
