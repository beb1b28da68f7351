//! What a request does, in the field's words: small, owned, fit for an event.

use std::fmt;

use penstock_policy::protocol::modbus_tcp::functions::MODBUS_FUNCTIONS;
use serde::{Deserialize, Serialize};

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

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}\u{2013}{}", self.first, self.last)
        }
    }
}

/// One request, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Operation {
    /// Unit identifier.
    pub unit: u8,
    /// Function code, 1–127.
    pub code: u8,
    /// Sub-function (diagnostics) or MEI type (encapsulated interface).
    pub sub_function: Option<u16>,
    /// Data addresses it reads.
    pub read: Option<Span>,
    /// Data addresses it writes.
    pub write: Option<Span>,
    /// The least span of file numbers it touches.
    pub files: Option<Span>,
    /// The least and the greatest value it writes (a masked write: that it can result in).
    pub values: Option<Span>,
}

impl Operation {
    /// The function's standard name, if it has one.
    pub fn function_name(&self) -> Option<&'static str> {
        function_name(self.code, self.sub_function)
    }

    /// The function's name as a plant document writes it.
    pub fn function(&self) -> String {
        self.function_name()
            .map_or_else(|| format!("function-{}", self.code), str::to_owned)
    }
}

/// The standard name of a function code with that sub-function.
pub fn function_name(code: u8, sub_function: Option<u16>) -> Option<&'static str> {
    MODBUS_FUNCTIONS
        .iter()
        .find(|function| {
            function.code == code
                && (function.sub_function.is_none() || function.sub_function == sub_function)
        })
        .map(|function| function.name)
}

/// The standard name of a diagnostics sub-function (V1.1b3, section 6.8.1).
pub fn diagnostic_name(sub_function: u16) -> Option<&'static str> {
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
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.function_name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "function-{}", self.code)?,
        }
        match (self.code, self.sub_function) {
            (8, Some(sub)) => match diagnostic_name(sub) {
                Some(name) => write!(f, " {sub} ({name})")?,
                None => write!(f, " {sub}")?,
            },
            (43, Some(mei)) if self.function_name().is_none() => write!(f, " type {mei}")?,
            _ => {}
        }
        match (self.read, self.write) {
            (Some(read), Some(write)) => write!(f, " (read {read}, write {write})")?,
            (Some(span), None) | (None, Some(span)) => write!(f, " {span}")?,
            (None, None) => {}
        }
        if let Some(files) = self.files {
            write!(f, " of file {files}")?;
        }
        write!(f, " of unit {}", self.unit)
    }
}
