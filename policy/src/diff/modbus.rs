//! What one Modbus operation permits that another does not.
//!
//! An operation is seen as what it says of each function code: which sub-functions, which addresses to read and to
//! write, which values. A limit that a function has no use for does not bind it, exactly as the inspector reads it
//! (`penstock-inspect`, `modbus::judge`), so that what is called narrower is refused at no gateway that wants more.

use super::numbers;
use crate::protocol::modbus_tcp::ModbusOperation;
use crate::protocol::modbus_tcp::functions::{
    MODBUS_FUNCTIONS, ModbusFunction, modbus_function, modbus_function_number, modbus_group,
};
use crate::terms::NumberRange;

/// Greatest address, value and sub-function.
const NUMBER_MAX: u32 = 65_535;
/// Greatest unit identifier.
const UNIT_MAX: u32 = 255;

/// Something that an operation limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Units,
    Read,
    Write,
    /// Both of the last two, where one list limits both.
    ReadAndWrite,
    Values,
    SubFunctions,
}

/// An operation with every limit as the set of numbers that it holds, and empty where there is nothing to limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    function: String,
    units: Vec<NumberRange>,
    read: Vec<NumberRange>,
    write: Vec<NumberRange>,
    values: Vec<NumberRange>,
    sub_functions: Vec<NumberRange>,
}

/// What an operation says of one function code.
struct Member {
    code: u8,
    reads: bool,
    writes: bool,
    values: bool,
    /// `None`: the function has none.
    sub_functions: Option<Vec<NumberRange>>,
}

impl Member {
    fn of(code: u8, function: Option<&ModbusFunction>, sub_functions: Option<Vec<NumberRange>>) -> Self {
        Self {
            code,
            reads: function.is_some_and(|function| function.reads),
            writes: function.is_some_and(|function| function.writes),
            values: function.is_some_and(|function| function.values),
            sub_functions,
        }
    }
}

fn all(last: u32) -> Vec<NumberRange> {
    vec![NumberRange { first: 0, last }]
}

fn set(limit: Option<&Vec<NumberRange>>, last: u32) -> Vec<NumberRange> {
    limit.map_or_else(|| all(last), |ranges| numbers::merged(ranges))
}

impl View {
    pub(super) fn of(operation: &ModbusOperation) -> Self {
        let mut view = Self {
            function: operation.function.clone(),
            units: set(operation.units.as_ref(), UNIT_MAX),
            // Where no range for reading is given, that for writing holds for both.
            read: set(
                operation.read_addresses.as_ref().or(operation.addresses.as_ref()),
                NUMBER_MAX,
            ),
            write: set(operation.addresses.as_ref(), NUMBER_MAX),
            values: set(operation.values.as_ref(), NUMBER_MAX),
            sub_functions: set(operation.sub_functions.as_ref(), NUMBER_MAX),
        };
        let members = view.members();
        let group = modbus_group(&view.function).is_some();
        let named = modbus_function(&view.function);
        if !members.iter().any(|member| member.reads) {
            view.read.clear();
        }
        if !members.iter().any(|member| member.writes) {
            view.write.clear();
        }
        if !members.iter().any(|member| member.values) {
            view.values.clear();
        }
        if group || named.is_some_and(|function| !function.sub_functions) {
            view.sub_functions.clear();
        }
        view
    }

    pub(super) fn function(&self) -> &str {
        &self.function
    }

    /// The function codes that it names.
    fn members(&self) -> Vec<Member> {
        if let Some(function) = modbus_function(&self.function) {
            let fixed = function.sub_function.map(|number| NumberRange {
                first: number.into(),
                last: number.into(),
            });
            let sub_functions = match fixed {
                Some(fixed) => Some(vec![fixed]),
                None => function.sub_functions.then(|| self.sub_functions.clone()),
            };
            return vec![Member::of(function.code, Some(function), sub_functions)];
        }
        if let Some(code) = modbus_function_number(&self.function) {
            return vec![Member::of(code, None, None)];
        }
        let lists = modbus_group(&self.function).unwrap_or_default();
        let members = lists.iter().copied().flatten().map(|member| {
            let function = MODBUS_FUNCTIONS
                .iter()
                .find(|function| function.code == member.code);
            let listed = member.sub_functions.iter().map(|(first, last)| NumberRange {
                first: (*first).into(),
                last: (*last).into(),
            });
            let sub_functions = match member.sub_functions {
                [] if matches!(member.code, 8 | 43) => Some(all(NUMBER_MAX)),
                [] => None,
                _ => Some(listed.collect()),
            };
            Member::of(member.code, function, sub_functions)
        });
        members.collect()
    }

    /// Whether all that `inner` permits is permitted here.
    pub(super) fn covers(&self, inner: &Self) -> bool {
        if !numbers::covers(&self.units, &inner.units) {
            return false;
        }
        let own = self.members();
        inner.members().iter().all(|member| {
            own.iter().any(|wide| {
                wide.code == member.code
                    && match (&wide.sub_functions, &member.sub_functions) {
                        (Some(wide), Some(narrow)) => numbers::covers(wide, narrow),
                        (None, _) => true,
                        (Some(_), None) => false,
                    }
                    && (!member.reads || numbers::covers(&self.read, &inner.read))
                    && (!member.writes || numbers::covers(&self.write, &inner.write))
                    && (!member.values || numbers::covers(&self.values, &inner.values))
            })
        })
    }

    pub(super) fn limit(&self, limit: Limit) -> &[NumberRange] {
        match limit {
            Limit::Units => &self.units,
            Limit::Read => &self.read,
            Limit::Write | Limit::ReadAndWrite => &self.write,
            Limit::Values => &self.values,
            Limit::SubFunctions => &self.sub_functions,
        }
    }

    /// The same with another set in one limit.
    fn with(&self, limit: Limit, ranges: &[NumberRange]) -> Self {
        let mut other = self.clone();
        match limit {
            Limit::Units => other.units = ranges.to_vec(),
            Limit::Read => other.read = ranges.to_vec(),
            Limit::Write => other.write = ranges.to_vec(),
            Limit::ReadAndWrite => {
                other.read = ranges.to_vec();
                other.write = ranges.to_vec();
            }
            Limit::Values => other.values = ranges.to_vec(),
            Limit::SubFunctions => other.sub_functions = ranges.to_vec(),
        }
        other
    }

    /// The one limit in which it differs from another operation of the same function.
    pub(super) fn differs_in(&self, other: &Self) -> Option<Limit> {
        let both = |view: &Self| !view.read.is_empty() && view.read == view.write;
        let single = [
            Limit::Units,
            Limit::Read,
            Limit::Write,
            Limit::Values,
            Limit::SubFunctions,
        ];
        let differing: Vec<Limit> = single
            .into_iter()
            .filter(|limit| self.limit(*limit) != other.limit(*limit))
            .collect();
        match differing.as_slice() {
            [only] => Some(*only),
            [Limit::Read, Limit::Write] if both(self) && both(other) => Some(Limit::ReadAndWrite),
            _ => None,
        }
    }

    /// The numbers of one limit that none of `others` permits, all else being as it is here.
    pub(super) fn beyond(&self, limit: Limit, others: &[Self]) -> Vec<NumberRange> {
        let mut left = self.limit(limit).to_vec();
        for other in others {
            let same_set = limit != Limit::ReadAndWrite || other.read == other.write;
            if same_set && other.covers(&self.with(limit, other.limit(limit))) {
                left = numbers::without(&left, other.limit(limit));
            }
        }
        left
    }
}

impl Limit {
    /// `addresses`, as the document writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Units => "units",
            Self::Read | Self::Write | Self::ReadAndWrite => "addresses",
            Self::Values => "values",
            Self::SubFunctions => "sub-functions",
        }
    }

    /// `100-199 may no longer be read`.
    pub(super) fn sentence(self, ranges: &[NumberRange], may: &str) -> String {
        let one = matches!(ranges, [only] if only.first == only.last);
        let said = numbers::words(ranges);
        let (noun, verb) = match self {
            Self::Units if one => ("unit ", "be asked"),
            Self::Units => ("units ", "be asked"),
            Self::Read => ("", "be read"),
            Self::Write => ("", "be written"),
            Self::ReadAndWrite => ("", "be read or written"),
            Self::Values if one => ("value ", "be written"),
            Self::Values => ("values ", "be written"),
            Self::SubFunctions if one => ("sub-function ", "be called"),
            Self::SubFunctions => ("sub-functions ", "be called"),
        };
        format!("{noun}{said} {may} {verb}")
    }

    /// `any` for all that there is, else the ranges.
    pub(super) fn words(self, ranges: &[NumberRange]) -> String {
        let last = if self == Self::Units { UNIT_MAX } else { NUMBER_MAX };
        if ranges == all(last) {
            "any".to_owned()
        } else {
            numbers::words(ranges)
        }
    }
}
