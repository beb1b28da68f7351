//! Compiled Modbus rules against the obvious reading of the list, one address and one value at a time.

use penstock_inspect::judge::{Objection, Rules, RulesError, Verdict};
use penstock_inspect::modbus::Span;
use penstock_inspect::modbus::judge::ModbusRules;
use penstock_inspect::modbus::objection;
use penstock_inspect::modbus::request::{Request, Values};
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::terms::NumberRange;
use proptest::prelude::*;

use crate::recorder::{function, modbus, range};

fn within(ranges: &Option<Vec<NumberRange>>, number: u32) -> bool {
    ranges.as_ref().is_none_or(|ranges| {
        ranges
            .iter()
            .any(|range| range.first <= number && number <= range.last)
    })
}

fn span_within(ranges: &Option<Vec<NumberRange>>, span: Option<Span>) -> bool {
    span.is_none_or(|span| (span.first..=span.last).all(|address| within(ranges, u32::from(address))))
}

/// The oracle: what the list says, read aloud.
fn permits(rule: &ModbusOperation, request: &Request<'_>) -> bool {
    let name = penstock_inspect::modbus::operation::function_name(request.code, request.sub_function);
    let read_only = matches!(request.code, 1..=4 | 7 | 11 | 12 | 17 | 20 | 24);
    let writing = matches!(request.code, 5 | 6 | 15 | 16 | 22 | 23);
    let named = match rule.function.as_str() {
        "read-only" => read_only,
        "read-write" => read_only || writing,
        function => name == function,
    };
    let reads = if rule.read_addresses.is_some() && request.code != 6 {
        &rule.read_addresses
    } else {
        &rule.addresses
    };
    let values = match request.values {
        Values::Mask { and, or } => {
            (0..=u16::MAX).all(|current| within(&rule.values, u32::from((current & and) | (or & !and))))
        }
        values => values.all(|value| within(&rule.values, u32::from(value))),
    };
    named
        && within(&rule.units, u32::from(request.unit))
        && span_within(reads, request.read)
        && span_within(&rule.addresses, request.write)
        && values
}

fn ranges(greatest: u32) -> impl Strategy<Value = Option<Vec<NumberRange>>> {
    let one = (0..=greatest, 0..=greatest / 2)
        .prop_map(move |(first, more)| range(first, (first + more).min(greatest)));
    prop::option::of(prop::collection::vec(one, 1..3))
}

fn rule() -> impl Strategy<Value = ModbusOperation> {
    let names = prop::sample::select(vec![
        "read-holding-registers",
        "write-single-register",
        "write-multiple-registers",
        "mask-write-register",
        "read-write-multiple-registers",
        "read-only",
        "read-write",
    ]);
    (names, ranges(3), ranges(24), ranges(24), ranges(8)).prop_map(
        |(name, units, addresses, read_addresses, values)| ModbusOperation {
            function: name.to_owned(),
            units,
            addresses,
            read_addresses,
            values,
            sub_functions: None,
        },
    )
}

fn request() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (
        0_u8..4,
        0_u8..5,
        0_u8..24,
        1_u8..6,
        0_u8..24,
        1_u8..4,
        prop::collection::vec(0_u8..9, 3),
    )
        .prop_map(|(unit, kind, first, count, write, written, values)| {
            let data = |count: u8| {
                values[..usize::from(count)]
                    .iter()
                    .flat_map(|value| [0, *value])
                    .collect::<Vec<_>>()
            };
            let mut pdu = match kind {
                0 => vec![3, 0, first, 0, count],
                1 => vec![6, 0, first, 0, values[0]],
                2 => vec![16, 0, first, 0, written, written * 2],
                // A mask that can leave little behind, so that some are permitted.
                3 => vec![22, 0, first, 0, values[0] & 3, 0, values[1]],
                _ => vec![23, 0, first, 0, count, 0, write, 0, written, written * 2],
            };
            if kind == 2 || kind == 4 {
                pdu.extend(data(written));
            }
            (unit, pdu)
        })
}

proptest! {
    #[test]
    fn the_compiled_rules_permit_exactly_what_one_rule_of_the_list_permits_whole(
        list in prop::collection::vec(rule(), 1..8), requests in prop::collection::vec(request(), 1..12)
    ) {
        let rules = ModbusRules::compile(&list).unwrap();
        for (unit, pdu) in &requests {
            let request = Request::decode(*unit, pdu).unwrap();
            let permitted = list.iter().any(|rule| permits(rule, &request));
            match rules.judge(&request) {
                Verdict::Allow(named) => prop_assert!(permits(&list[named], &request), "{:?} by {:?}", request, list[named]),
                Verdict::Refuse(_) => prop_assert!(!permitted, "{:?} refused by {:?}", request, list),
                Verdict::Upkeep => prop_assert!(false, "Modbus has no upkeep"),
            }
        }
    }
}

proptest! {
    /// What a client may do by its role: the flow and the role permit it, each by one of its entries.
    #[test]
    fn rules_within_a_role_permit_exactly_what_flow_and_role_both_permit(
        list in prop::collection::vec(rule(), 1..6), role in prop::collection::vec(rule(), 1..6),
        beside in prop::collection::vec(rule(), 1..3), requests in prop::collection::vec(request(), 1..12)
    ) {
        let permitting = |list: &[ModbusOperation], request: &Request<'_>| list.iter().any(|rule| permits(rule, request));
        let alone = ModbusRules::compile_within(&[(list.clone(), Some(role.clone()))]).unwrap();
        let shared = ModbusRules::compile_within(&[(list.clone(), Some(role.clone())), (beside.clone(), None)]).unwrap();
        let all: Vec<_> = list.iter().chain(&beside).collect();
        for (unit, pdu) in &requests {
            let request = Request::decode(*unit, pdu).unwrap();
            let both = permitting(&list, &request) && permitting(&role, &request);
            prop_assert_eq!(alone.judge(&request).allows(), both, "{:?} by {:?} as {:?}", request, list, role);
            let verdict = shared.judge(&request);
            prop_assert_eq!(verdict.allows(), both || permitting(&beside, &request));
            if let Verdict::Allow(named) = verdict {
                prop_assert!(permits(all[named], &request));
                prop_assert!(named >= list.len() || permitting(&role, &request));
            }
        }
    }
}

/// A mask with AND 2 and OR 0 leaves 0 or 2 behind, never 1: values 0 and 2 permit it. It was refused for the 1 between.
#[test]
fn a_mask_is_judged_by_the_values_it_can_leave_and_not_by_those_between_them() {
    let mut masked = function("mask-write-register");
    masked.values = Some(vec![range(0, 0), range(2, 2), range(0x8000, 0x8003)]);
    let rules = ModbusRules::compile(&[masked]).unwrap();
    for (and, or, permitted) in [
        (2, 0, true),
        (2, 2, true),
        (0, 2, true),
        (3, 0, false),
        (1, 0, false),
        (0x8002, 0, true),
        (0x8003, 0, false),
        (3, 0x8000, true),
        (7, 0x8000, false),
        (0xffff, 0, false),
    ] {
        let (and, or): (u16, u16) = (and, or);
        let pdu = [&[22, 0, 7][..], &and.to_be_bytes(), &or.to_be_bytes()].concat();
        let request = Request::decode(1, &pdu).unwrap();
        assert_eq!(
            rules.judge(&request).allows(),
            permitted,
            "AND {and:#06x}, OR {or:#06x}"
        );
    }
}

#[test]
fn a_refusal_names_the_rule_that_came_closest_and_what_stands_against_it() {
    let mut holding = function("read-holding-registers");
    holding.units = Some(vec![range(1, 1)]);
    holding.addresses = Some(vec![range(0, 199)]);
    let mut setpoint = function("write-single-register");
    setpoint.units = Some(vec![range(1, 1)]);
    setpoint.addresses = Some(vec![range(40, 41)]);
    setpoint.values = Some(vec![range(0, 1500)]);
    let rules = Rules::compile(&modbus(vec![holding, setpoint])).unwrap();
    let compiled = rules.of::<ModbusRules>().unwrap();
    for (unit, pdu, why, words) in [
        (
            1,
            &[3, 0, 190, 0, 20][..],
            objection::ADDRESS,
            "the addresses are not within those permitted; closest is operation 1 (read-holding-registers, units 1, addresses 0-199)",
        ),
        (
            2,
            &[3, 0, 0, 0, 1],
            objection::UNIT,
            "the unit is not permitted; closest is operation 1 (read-holding-registers, units 1, addresses 0-199)",
        ),
        (
            1,
            &[6, 0, 40, 0xff, 0xff],
            objection::VALUE,
            "the value is not within those permitted; closest is operation 2 (write-single-register, units 1, addresses 40-41, values 0-1500)",
        ),
        (
            1,
            &[5, 0, 40, 0xff, 0],
            Objection::Function,
            "no rule permits the function",
        ),
    ] {
        let request = Request::decode(unit, pdu).unwrap();
        let verdict = compiled.judge(&request);
        assert!(
            matches!(verdict, Verdict::Refuse(refusal) if refusal.why == why),
            "{verdict:?}"
        );
        let operation = request.operation();
        assert_eq!(rules.explain(&operation, verdict), words);
    }
    let request = Request::decode(1, &[6, 0, 40, 5, 0xdc]).unwrap();
    assert_eq!(compiled.judge(&request), Verdict::Allow(1));
}

#[test]
fn a_list_that_is_not_understood_is_refused_whole() {
    let mut backwards = function("read-coils");
    backwards.addresses = Some(vec![range(5, 4)]);
    let mut beyond = function("read-coils");
    beyond.units = Some(vec![range(0, 256)]);
    let mut empty = function("read-coils");
    empty.units = Some(vec![]);
    assert_eq!(Rules::compile(&modbus(vec![])).unwrap_err(), RulesError::Empty);
    for bad in [
        backwards,
        beyond,
        empty,
        function("read-everything"),
        function("function-3"),
    ] {
        assert!(Rules::compile(&modbus(vec![function("read-coils"), bad])).is_err());
    }
    assert!(Rules::compile(&modbus(vec![])).is_err());
}
