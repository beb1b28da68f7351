//! What a request does, in the field's words.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use penstock_policy::protocol::modbus_tcp;
use penstock_policy::protocol::modbus_tcp::functions::{MODBUS_FUNCTIONS, modbus_function};
use penstock_policy::terms::NumberRange;
use serde::{Deserialize, Serialize};

use crate::operation::{Fact, NamedFact, Operation, SUB_FUNCTIONS};

pub(super) use modbus_tcp::MODBUS_TCP;

// What a document can limit a request by, and so the names of its facts.

/// Unit identifier.
pub(super) const UNITS: &str = "units";
/// Data addresses that it writes, or that it reads and writes none; of file records the least span of file numbers.
pub(super) const ADDRESSES: &str = "addresses";
/// Data addresses that it reads, where it also writes.
pub(super) const READ_ADDRESSES: &str = "read_addresses";

/// Data addresses (or file numbers) from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// First.
    pub first: u16,
    /// Last, not below `first`.
    pub last: u16,
}

impl Span {
    /// `quantity` addresses from `first` on; `None` for none at all, or if they run past 65535.
    pub fn of(first: u16, quantity: u16) -> Option<Self> {
        let last = first.checked_add(quantity.checked_sub(1)?)?;
        Some(Self { first, last })
    }

    /// The least span that holds both.
    pub fn hull(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }

    /// How many addresses it holds, 1–65536.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl From<Span> for NumberRange {
    fn from(span: Span) -> Self {
        Self {
            first: span.first.into(),
            last: span.last.into(),
        }
    }
}

/// What documents call the functions, by code; of the encapsulated interface only that it is function 43.
static NAMES: LazyLock<Vec<Cow<'static, str>>> = LazyLock::new(|| {
    let named = |code: u8| {
        let known = MODBUS_FUNCTIONS
            .iter()
            .find(|function| function.code == code && function.sub_function.is_none());
        known.map_or_else(
            || format!("function-{code}").into(),
            |function| function.name.into(),
        )
    };
    (0..=u8::MAX).map(named).collect()
});

/// A function's name as a plant document writes it: the standard's, or `function-<n>`.
pub fn function_name(code: u8, sub_function: Option<u16>) -> &'static str {
    let of_sub_function = sub_function.and_then(|_| {
        MODBUS_FUNCTIONS
            .iter()
            .find(|function| function.code == code && function.sub_function == sub_function)
    });
    match of_sub_function {
        Some(function) => function.name,
        None => NAMES.get(usize::from(code)).map_or("function", |name| name),
    }
}

/// What can be said of a PDU that is not a request.
pub(crate) fn opaque(unit: u8, pdu: &[u8]) -> Operation<'static> {
    let code = pdu.first().copied().unwrap_or(0);
    Operation::new(
        MODBUS_TCP,
        function_name(code, None),
        [units(unit)],
    )
}

/// The fact of that unit.
pub(super) fn units(unit: u8) -> Option<NamedFact<'static>> {
    let span = Span {
        first: unit.into(),
        last: unit.into(),
    };
    fact(UNITS, Some(span))
}

/// A fact of these numbers, if they are known.
pub(super) fn fact(name: &'static str, span: Option<Span>) -> Option<NamedFact<'static>> {
    span.map(|span| (name, Fact::Numbers(span.into())))
}

/// The standard name of a diagnostics sub-function (V1.1b3, section 6.8.1).
fn diagnostic_name(sub_function: u32) -> Option<&'static str> {
    Some(match sub_function {
        0 => "return-query-data",
        1 => "restart-communications-option",
        2 => "return-diagnostic-register",
        3 => "change-ascii-input-delimiter",
        4 => "force-listen-only-mode",
        10 => "clear-counters-and-diagnostic-register",
        11 => "return-bus-message-count",
        12 => "return-bus-communication-error-count",
        13 => "return-bus-exception-error-count",
        14 => "return-server-message-count",
        15 => "return-server-no-response-count",
        16 => "return-server-nak-count",
        17 => "return-server-busy-count",
        18 => "return-bus-character-overrun-count",
        20 => "clear-overrun-counter-and-flag",
        _ => return None,
    })
}

/// "write-single-register 40 of unit 1", "read-write-multiple-registers (read 0–9, write 20) of unit 1".
pub(super) fn show(operation: &Operation<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(operation.name)?;
    if let Some(NumberRange { first: sub, .. }) = operation.numbers(SUB_FUNCTIONS) {
        match diagnostic_name(sub) {
            Some(name) => write!(f, " {sub} ({name})")?,
            None => write!(f, " {sub}")?,
        }
    }
    let of_files = modbus_function(operation.name).is_some_and(|function| function.files);
    let addresses = operation.numbers(ADDRESSES).map(Dashed);
    match (addresses, operation.numbers(READ_ADDRESSES).map(Dashed)) {
        (Some(write), Some(read)) => write!(f, " (read {read}, write {write})")?,
        (Some(files), None) if of_files => write!(f, " of file {files}")?,
        (Some(addresses), None) | (None, Some(addresses)) => write!(f, " {addresses}")?,
        (None, None) => {}
    }
    match operation.numbers(UNITS) {
        Some(unit) => write!(f, " of unit {}", Dashed(unit)),
        None => Ok(()),
    }
}

/// Numbers as events have them: `40`, `0–9`.
struct Dashed(NumberRange);

impl fmt::Display for Dashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(NumberRange { first, last }) = self;
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}\u{2013}{last}")
        }
    }
}
