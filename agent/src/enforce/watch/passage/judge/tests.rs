#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_policy::plan::Plan;

use super::*;

/// Two sides and what crosses them: `supply/polling` is a must-flow.
fn scope(bridged: bool) -> Expectations {
    let mut plan = Plan::from_bytes(include_bytes!(
        "../../../../../../policy/fixtures/plan-format-1.json"
    ))
    .unwrap();
    let side = plan.interfaces[0].clone();
    plan.interfaces = [
        ("eth1", "office", "10.1.0.0/24"),
        ("eth2", "control", "10.2.0.0/24"),
    ]
    .map(|(name, zone, network)| {
        let mut side = side.clone();
        (side.name, side.zone) = (name.to_owned(), zone.parse().unwrap());
        (side.networks, side.behind) = (vec![network.parse().unwrap()], Vec::new());
        side
    })
    .to_vec();
    let mut rule = plan.rules[0].clone();
    (rule.conduit, rule.flow) = ("supply".parse().unwrap(), "polling".parse().unwrap());
    rule.must_flow = true;
    for (ends, network) in [
        (&mut rule.sources, "10.1.0.5/32"),
        (&mut rule.destinations, "10.2.0.9/32"),
    ] {
        ends.truncate(1);
        ends[0].network = network.parse().unwrap();
    }
    plan.rules = vec![rule];
    if bridged {
        plan.mode = penstock_policy::terms::GatewayMode::Bridged;
    }
    Expectations::of(&plan)
}

fn link(index: u32, name: &str, master: u32) -> InterfaceFacts {
    InterfaceFacts {
        index,
        name: name.to_owned(),
        up: true,
        carrier: true,
        master,
    }
}

/// A machine on which all is well.
fn well(bridged: bool) -> MachineFacts {
    let master = if bridged { 9 } else { 0 };
    let links =
        [("eth1", 1), ("eth2", 2)].map(|(name, index)| (name.to_owned(), Some(link(index, name, master))));
    MachineFacts {
        links: links.into(),
        bridges: [(9, link(9, "br0", 0))].into(),
        addresses: [("eth2".to_owned(), ["10.2.0.1".parse().unwrap()].into())].into(),
        forwards: [true, true],
        ..MachineFacts::default()
    }
}

fn eth2(facts: &mut MachineFacts) -> &mut InterfaceFacts {
    facts.links.get_mut("eth2").unwrap().as_mut().unwrap()
}

fn judged(scope: &Expectations, facts: &MachineFacts) -> Vec<Condition> {
    judge(scope, facts, &well(scope.bridged).addresses, &[])
}

#[test]
fn each_thing_that_keeps_packets_from_crossing_is_named_with_zones_and_flows_and_nothing_else_is() {
    type Wrong = fn(&mut MachineFacts);
    let routed: [(&str, &str, Wrong); 6] = [
        ("forwarding-off", "net.ipv4.ip_forward is 0", |facts| {
            facts.forwards[0] = false
        }),
        ("forwarding-off", "net.ipv4.conf.eth2.forwarding is 0", |facts| {
            facts.held_back.insert("eth2".to_owned());
        }),
        ("no-carrier", "interface eth2 has no carrier", |facts| {
            eth2(facts).carrier = false;
        }),
        ("link-down", "interface eth2 is switched off", |facts| {
            eth2(facts).up = false;
        }),
        ("interface-missing", "it is called enp3s0 now", |facts| {
            facts.links.insert("eth2".to_owned(), None);
            facts.renamed.insert("eth2".to_owned(), "enp3s0".to_owned());
        }),
        ("address-changed", "no longer has 10.2.0.1", |facts| {
            facts.addresses.clear()
        }),
    ];
    let bridged: [(&str, &str, Wrong); 3] = [
        ("not-bridged", "port eth2 is in no bridge", |facts| {
            eth2(facts).master = 0;
        }),
        ("not-bridged", "bridge br0 is switched off", |facts| {
            facts.bridges.get_mut(&9).unwrap().up = false;
        }),
        ("not-bridged", "port eth2 is in bridge br1", |facts| {
            eth2(facts).master = 10;
            facts.bridges.insert(10, link(10, "br1", 0));
        }),
    ];
    for (mode, cases) in [(false, routed.as_slice()), (true, &bridged)] {
        let scope = scope(mode);
        assert_eq!(judged(&scope, &well(mode)), []);
        for (code, words, wrong) in cases {
            let mut facts = well(mode);
            wrong(&mut facts);
            let found = judged(&scope, &facts);
            let one = found
                .iter()
                .find(|one| one.code == *code && one.message.contains(words));
            let one = one.unwrap_or_else(|| panic!("{code}, {words}: {found:?}"));
            assert!(one.alarm, "a must-flow stands still: {one:?}");
            assert_eq!(one.flows, ["supply/polling"]);
            let zones: Vec<String> = one.zones.iter().map(ToString::to_string).collect();
            assert_eq!(zones, ["control", "office"], "both ends of what crosses");
        }
    }
}

#[test]
fn a_way_that_leads_astray_is_told_unless_its_cause_is() {
    let scope = scope(false);
    let crossing = &scope.crossings[0];
    let lost = [(crossing, NoWay::Refused(Errno::HOSTUNREACH.raw_os_error()))];
    let found = judge(&scope, &well(false), &BTreeMap::new(), &lost);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code, "no-way");
    assert!(
        found[0].message.contains("10.1.0.5") && found[0].message.contains("10.2.0.9"),
        "{found:?}"
    );
    let mut facts = well(false);
    facts.forwards[0] = false;
    let codes: Vec<_> = judge(&scope, &facts, &BTreeMap::new(), &lost)
        .iter()
        .map(|one| one.code)
        .collect();
    assert_eq!(codes, ["forwarding-off"]);
}
