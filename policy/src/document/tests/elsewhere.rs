//! Conduits that another firewall enforces, or nobody yet: recorded and counted, in no plan, and never shown as enforced.

use super::{BASE, codes, load_text};
use crate::check::check;
use crate::compile::compile_all;
use crate::diagnostics::Code;
use crate::ids::ZoneId;
use crate::model::{Enforcer, Plant};
use crate::reach::{Permit, Steps};

/// A partner beyond a firewall of another maker.
fn partnered(enforced_by: &str) -> String {
    let zone =
        "  partner: { kind: external, networks: 10.7.0.0/24, accountable: it, boundary: their firewall }\n";
    let asset = "  mirror: { zone: partner, address: 10.7.0.9 }\n";
    let conduit = format!(
        "  orders:\n    from: office\n    to: partner\n    sl_target: 1\n    accountable: it\n    enforced_by: {enforced_by}\n    flows:\n      \
         web: {{ source: clerk, destination: mirror, service: https }}\n"
    );
    BASE.replacen("zones:\n", &format!("zones:\n{zone}"), 1)
        .replacen("assets:\n", &format!("assets:\n{asset}"), 1)
        .replacen("conduits:\n", &format!("conduits:\n{conduit}"), 1)
}

fn plant(enforced_by: &str) -> Plant {
    let loaded = load_text(&partnered(enforced_by));
    let unguarded = if enforced_by == "none" {
        vec![Code::ZoneUnguarded]
    } else {
        vec![]
    };
    assert_eq!(codes(&loaded), unguarded);
    loaded.plant.unwrap()
}

fn ways(plant: &Plant, from: &str, to: &str) -> Vec<Permit> {
    let id = |name: &str| name.parse::<ZoneId>().unwrap();
    let reach = Steps::of(plant)
        .reach(&id(from), &id(to), std::num::NonZeroUsize::MIN)
        .unwrap();
    reach.acts().cloned().collect()
}

#[test]
fn no_plan_has_it_and_no_plan_changes_because_of_it() {
    let without = load_text(BASE).plant.unwrap();
    for by in ["none", "{ other: The carrier's firewall }"] {
        let plant = plant(by);
        let orders = &plant.conduits[&"orders".parse().unwrap()];
        assert!(orders.via.is_empty() && !orders.enforced_by.is_gateways());
        let plans = compile_all(&plant).unwrap();
        assert_eq!(plans, compile_all(&without).unwrap());
        let before = check(&without, &plans, None);
        let new: Vec<_> = check(&plant, &plans, None)
            .into_iter()
            .filter(|finding| !before.contains(finding))
            .collect();
        assert!(
            new.iter().all(|finding| !finding.words.contains("orders")),
            "{new:?}"
        );
    }
}

#[test]
fn reach_counts_it_as_anything_where_it_leads() {
    let other = plant("{ other: The carrier's firewall }");
    let by = Some("The carrier's firewall".to_owned());
    let conduit = "orders".parse().unwrap();
    assert_eq!(
        ways(&other, "office", "partner"),
        [Permit::Elsewhere { conduit, by }]
    );
    assert_eq!(ways(&other, "partner", "office"), [], "its flows lead one way");
    assert_eq!(
        other.conduits[&"orders".parse().unwrap()].enforced_by,
        Enforcer::Other("The carrier's firewall".to_owned())
    );
    let nobody = plant("none");
    for (from, to) in [("office", "partner"), ("partner", "office")] {
        let said = ways(&nobody, from, to)[0].to_string();
        assert_eq!(said, "anything, as nobody enforces the conduit orders yet");
    }
}

#[test]
fn nothing_in_it_looks_as_though_a_gateway_did_it() {
    let with = |from: &str, to: &str| load_text(&partnered("{ other: F }").replacen(from, to, 1));
    let conduit = "    enforced_by: { other: F }\n";
    for key in [
        "via: gw-1",
        "tunnel: yes",
        "on_agent_loss: block",
        "only_by_grant: yes",
        "minimum_assurance: D1",
    ] {
        let loaded = with(conduit, &format!("{conduit}    {key}\n"));
        assert!(
            codes(&loaded).contains(&Code::NotEnforcedHere),
            "{key}: {:?}",
            codes(&loaded)
        );
        assert!(loaded.plant.is_none(), "{key}");
    }
    let watched = with(
        "destination: mirror, service: https }",
        "destination: mirror, service: https, must_flow: yes }",
    );
    assert_eq!(codes(&watched), [Code::NotEnforcedHere]);
    let limited = with("service: https }\n  reports", "service: https }\n  reports");
    assert!(limited.plant.is_some());
    let limited = with(
        "destination: mirror, service: https }",
        "destination: mirror, service: modbus-tcp, allow: [{ read-coils: { units: 1, addresses: 0 } }] }",
    );
    assert_eq!(codes(&limited), [Code::NotEnforcedHere]);
    // A gateway stands between: it drops what the record says is permitted.
    let between = BASE.replacen(
        "    from: office\n    to: ops\n",
        "    from: office\n    to: ops\n    enforced_by: none\n",
        1,
    );
    assert_eq!(codes(&load_text(&between)), [Code::NotEnforcedHere]);
    let word = with("enforced_by: { other: F }", "enforced_by: nobody");
    assert_eq!(codes(&word), [Code::NotOneOf]);
}

#[test]
fn of_a_connection_over_it_no_gateway_is_said_to_judge() {
    use crate::explain::{Outcome, QueryEnd, Question, explain};
    let ask = |plant: &Plant, destination: &str| {
        let question = Question {
            source: QueryEnd::Asset("clerk".parse().unwrap()),
            destination: destination.parse().unwrap(),
            transport: "tcp/443".parse().unwrap(),
        };
        explain(plant, &compile_all(plant).unwrap(), &question)
            .unwrap()
            .outcome()
    };
    let plant = plant("{ other: F }");
    assert_eq!(ask(&plant, "mirror"), Outcome::NoGateway);
    assert_eq!(ask(&plant, "10.7.0.77"), Outcome::NoGateway);
    assert_eq!(
        ask(&plant, "10.8.0.9"),
        Outcome::Dropped,
        "what nobody declared is refused where it comes by"
    );
}
