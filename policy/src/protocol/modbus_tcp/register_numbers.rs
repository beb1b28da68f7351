//! Modbus register numbers, as manuals write them, where a document has addresses.
//!
//! On the wire, and so in a document, each kind of data has addresses from 0. Manuals number them from 1, with a digit in front that
//! says the kind: 40001 is the holding register with address 0. Five digits reach to 9999, six (400001) to all 65536. A number of
//! six digits is no address; one of five may be either, so it is only doubted.

use super::functions::{modbus_function, modbus_group};
use crate::terms::NumberRange;

/// The digits that can stand in front for what `operation` touches; none where it has no such addresses.
fn digits(operation: &str) -> &'static [u32] {
    match modbus_function(operation).map(|function| function.code) {
        // Coils have 0 in front, which no number shows; who writes 1 took them for inputs.
        Some(1 | 2 | 5 | 15) => &[1],
        Some(4) => &[3],
        Some(3 | 6 | 16 | 22..=24) => &[4],
        None if modbus_group(operation).is_some() => &[1, 3, 4],
        _ => &[],
    }
}

/// The addresses that `range` has if its numbers are register numbers with one of `digits` in front.
fn addresses(range: NumberRange, digits: &[u32], scale: u32, last: u32) -> Option<NumberRange> {
    digits.iter().find_map(|digit| {
        let first = digit * scale + 1;
        (first <= range.first && range.last < first + last).then(|| NumberRange {
            first: range.first - first,
            last: range.last - first,
        })
    })
}

/// The addresses that are probably meant, where the numbers of an operation look like register numbers of five digits.
///
/// Next to the number before the first one (40000) they do not: no register has that, but devices whose data really lies
/// there begin at it (SunSpec).
pub fn probably_meant(operation: &str, ranges: &[NumberRange]) -> Option<(NumberRange, NumberRange)> {
    let digits = digits(operation);
    let holds = |number: u32| {
        ranges
            .iter()
            .any(|range| (range.first..=range.last).contains(&number))
    };
    ranges.iter().find_map(|range| {
        let meant = addresses(*range, digits, 10_000, 9999)?;
        (!holds(range.first - meant.first - 1)).then_some((*range, meant))
    })
}

/// The addresses that a range of register numbers of six digits has.
pub(crate) fn of_six_digits(range: NumberRange) -> Option<NumberRange> {
    addresses(range, &[1, 3, 4], 100_000, 65_536)
}

/// `0-199`, or `40`.
pub fn shown(range: NumberRange) -> String {
    match range {
        NumberRange { first, last } if first == last => first.to_string(),
        NumberRange { first, last } => format!("{first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(operation: &str, first: u32, last: u32) -> Option<String> {
        probably_meant(operation, &[NumberRange { first, last }]).map(|(_, meant)| shown(meant))
    }

    #[test]
    fn a_number_with_the_digit_of_its_kind_in_front_is_an_address_counted_from_one() {
        for (operation, first, last, expected) in [
            ("read-holding-registers", 40_001, 40_200, "0-199"),
            ("write-single-register", 40_041, 40_041, "40"),
            ("write-multiple-registers", 49_999, 49_999, "9998"),
            ("mask-write-register", 40_001, 40_001, "0"),
            ("read-write-multiple-registers", 40_001, 49_999, "0-9998"),
            ("read-input-registers", 30_001, 30_010, "0-9"),
            ("read-discrete-inputs", 10_001, 10_064, "0-63"),
            ("write-single-coil", 10_001, 10_001, "0"),
            ("read-only", 30_001, 30_002, "0-1"),
            ("read-write", 40_001, 40_002, "0-1"),
        ] {
            assert_eq!(
                meant(operation, first, last).as_deref(),
                Some(expected),
                "{operation}"
            );
        }
    }

    #[test]
    fn what_no_register_of_that_kind_has_for_a_number_is_an_address() {
        for (operation, first, last) in [
            ("read-holding-registers", 0, 199),
            ("read-holding-registers", 0, 65_535),
            ("read-holding-registers", 40_000, 40_199),
            ("read-holding-registers", 40_001, 50_000),
            ("read-holding-registers", 50_000, 50_010),
            ("read-holding-registers", 30_001, 30_010),
            ("read-input-registers", 40_001, 40_010),
            ("read-file-record", 40_001, 40_001),
            ("function-65", 40_001, 40_001),
        ] {
            assert_eq!(meant(operation, first, last), None, "{operation} {first}");
        }
        let sunspec = [(40_000, 40_000), (40_072, 40_099)].map(|(first, last)| NumberRange { first, last });
        assert_eq!(probably_meant("read-holding-registers", &sunspec), None);
    }
}
