//! What holds for every protocol of the list.

mod documentation;

use std::collections::BTreeSet;

use super::Protocol;
use super::modbus_tcp::MODBUS_TCP;
use super::modbus_tcp::functions::{MODBUS_FUNCTIONS, modbus_group};
use super::vocabulary::Effect;

#[test]
fn a_protocol_has_one_word_in_plans_events_and_as_a_service() {
    for protocol in Protocol::all() {
        assert_eq!(serde_json::to_value(protocol).ok(), Some(protocol.word.into()));
        assert_eq!(Protocol::of(protocol.word), Some(protocol));
        let first = protocol.services.first().map(|service| service.name);
        assert_eq!(first, Some(protocol.word));
    }
}

#[test]
fn no_name_stands_twice_in_a_vocabulary_and_each_limit_is_one_of_its_own_in_its_order() {
    for protocol in Protocol::all() {
        let names: Vec<&str> = protocol.names().collect();
        assert_eq!(
            names.iter().collect::<BTreeSet<_>>().len(),
            names.len(),
            "{names:?}"
        );
        let order = |name: &str| protocol.limits.iter().position(|limit| limit.name == name);
        for name in names {
            let shape = protocol.shape(name).expect("a name has a shape");
            let places: Vec<_> = shape.limits.iter().map(|takes| order(takes.limit.name)).collect();
            assert!(
                places.iter().all(Option::is_some) && places.is_sorted(),
                "{name}: {places:?}"
            );
            assert!(shape.help.ends_with('.'), "{name}: {}", shape.help);
        }
        if let Some(session) = &protocol.session {
            let opens = protocol.shape(session.operation).expect("an operation");
            assert_eq!(opens.effect, Some(Effect::Session));
            assert!(opens.takes(session.names).is_some());
        }
    }
}

#[test]
fn the_functions_of_modbus_take_the_limits_that_their_codes_have_a_use_for() {
    let named: Vec<&str> = MODBUS_FUNCTIONS.iter().map(|function| function.name).collect();
    let listed: Vec<&str> = MODBUS_TCP
        .operations
        .iter()
        .map(|operation| operation.name)
        .collect();
    assert_eq!(listed, named);
    for function in MODBUS_FUNCTIONS {
        let shape = MODBUS_TCP.shape(function.name).expect("a function");
        let takes = |limit| shape.takes(limit).is_some();
        assert!(takes("units"));
        assert_eq!(
            takes("addresses"),
            function.reads || function.writes || function.files,
            "{}",
            function.name
        );
        assert_eq!(
            takes("read_addresses"),
            function.reads && function.writes,
            "{}",
            function.name
        );
        assert_eq!(takes("values"), function.values, "{}", function.name);
        assert_eq!(
            takes("sub_functions"),
            function.sub_functions,
            "{}",
            function.name
        );
        assert_eq!(
            shape
                .takes("addresses")
                .is_some_and(|takes| takes.required.is_some()),
            function.writes,
            "{}",
            function.name
        );
        if function.writes {
            assert!(shape.effect >= Some(Effect::Write), "{}", function.name);
        }
    }
    for group in MODBUS_TCP.groups {
        let members = modbus_group(group.name)
            .expect("a group")
            .iter()
            .copied()
            .flatten();
        let most = members.filter_map(|member| {
            let named = MODBUS_FUNCTIONS
                .iter()
                .filter(|function| function.code == member.code);
            let whole = named.filter(|_| member.sub_functions.is_empty());
            whole
                .filter_map(|function| MODBUS_TCP.shape(function.name)?.effect)
                .max()
        });
        assert!(most.max() <= Some(group.effect), "{}", group.name);
    }
}
