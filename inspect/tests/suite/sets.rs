//! The judges of protocols against the plain one, which knows only names, facts and sets, where both can be asked.

use penstock_inspect::Operation;
use penstock_inspect::judge::Rules;
use penstock_inspect::judge::sets::SetRules;
use penstock_inspect::modbus::judge::ModbusRules;
use penstock_inspect::modbus::request::Request;
use penstock_inspect::mqtt;
use penstock_inspect::mqtt::judge::MqttRules;
use penstock_policy::protocol::Operations;
use proptest::prelude::*;

use crate::narrower::{messages, modbus, mqtt as permitted, requests};

proptest! {
    #[test]
    fn a_modbus_request_of_one_place_and_value_is_permitted_exactly_if_its_facts_lie_in_the_sets_of_one_rule(
        list in prop::collection::vec(modbus(), 1..5)
    ) {
        let list = Operations::from(list);
        let (rules, plain) = (Rules::compile(&list).unwrap(), SetRules::compile(&[&list]).unwrap());
        let fast = rules.of::<ModbusRules>().unwrap();
        for (unit, pdu) in requests() {
            let request = Request::decode(unit, &pdu).unwrap();
            // What a mask leaves behind depends on the device, and is no range.
            if request.code != 22 {
                let (fast, plain) = (fast.judge(&request), plain.judge(&request.operation()));
                prop_assert_eq!(fast.allows(), plain.allows(), "{:?}: {:?}, plainly {:?}", request, fast, plain);
            }
        }
    }

    #[test]
    fn a_publication_or_subscription_is_permitted_exactly_if_its_facts_lie_in_the_sets_of_one_rule(
        list in prop::collection::vec(permitted(), 1..5)
    ) {
        let list = Operations::from(list);
        let (rules, plain) = (Rules::compile(&list).unwrap(), SetRules::compile(&[&list]).unwrap());
        let fast = rules.of::<MqttRules>().unwrap();
        for asked in messages() {
            if matches!(asked, mqtt::Operation::Publish { .. } | mqtt::Operation::Subscribe { .. }) {
                let (fast, plain) = (fast.judge(&asked), plain.judge(&Operation::from(asked.clone())));
                prop_assert_eq!(fast.allows(), plain.allows(), "{:?}: {:?}, plainly {:?}", asked, fast, plain);
            }
        }
    }
}
