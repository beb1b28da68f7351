//! Conduits inside tunnels, from the text to the two gateways' plans.

use std::net::IpAddr;

use super::{BASE, codes, load_text};
use crate::compile::compile_all;
use crate::diagnostics::{Code, Severity};
use crate::ids::GatewayId;
use crate::plan::{Capability, Plan, PlanInterface};
use crate::verdict::{Carried, Connection, Decision, Reason, decide};

/// The office is the network between two gateways that is not trusted; the safety zone lies beyond it, behind the second one.
pub(super) fn tunnelled() -> String {
    let second = "  gw-2:\n    site: works\n    mode: routed\n    interfaces:\n      \
                  eth1: { zone: office, behind: ops, address: 10.1.0.2/24 }\n      eth2: { zone: safety, address: 10.3.0.1/24 }\n    \
                  management: { interface: eth0, peers: 192.0.2.10 }\n    tunnel: { interface: eth1, address: 10.1.0.2, port: 4500 }\nzones:\n";
    let text = BASE
        .replace("      eth3: { zone: safety, address: 10.3.0.1/24 }\n", "")
        .replace(
            "zone: office, address: 10.1.0.1/24 }",
            "zone: office, behind: safety, address: 10.1.0.1/24 }",
        )
        .replace(
            "peers: 192.0.2.10 }\nzones:\n",
            "peers: 192.0.2.10 }\n    tunnel: { interface: eth1 }\nzones:\n",
        );
    text.replace("zones:\n", second).replace(
        "    on_agent_loss: block\n",
        "    on_agent_loss: block\n    tunnel: yes\n",
    )
}

fn plans(text: &str) -> [Plan; 2] {
    let loaded = load_text(text);
    let plant = loaded.plant.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    let mut plans = compile_all(&plant).unwrap();
    ["gw-1", "gw-2"].map(|name| {
        let plan = plans.remove(&name.parse::<GatewayId>().unwrap()).unwrap();
        assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
        plan
    })
}

fn side<'a>(plan: &'a Plan, name: &str) -> &'a PlanInterface {
    plan.interfaces.iter().find(|side| side.name == name).unwrap()
}

#[test]
fn what_lies_beyond_a_tunnel_is_a_side_of_its_own_and_no_longer_behind_the_interface_to_the_network_between()
{
    let [one, two] = plans(&tunnelled());
    let plc: IpAddr = "10.3.0.7".parse().unwrap();
    let hmi: IpAddr = "10.2.0.20".parse().unwrap();
    assert!(side(&one, "pst-gw-2").holds(plc) && !side(&one, "eth1").holds(plc));
    assert!(side(&two, "pst-gw-1").holds(hmi) && !side(&two, "eth1").holds(hmi));
    for (plan, peer, connect) in [(&one, "gw-2", Some("10.1.0.2:4500")), (&two, "gw-1", None)] {
        assert!(plan.requires.contains(&Capability::of(Capability::TUNNEL)));
        let tunnels = plan.tunnels.as_ref().unwrap();
        let [tunnel] = tunnels.peers.as_slice() else {
            panic!("{tunnels:?}");
        };
        assert_eq!((tunnel.peer.as_str(), tunnels.interface.as_str()), (peer, "eth1"));
        assert_eq!(tunnel.connect, connect.map(|at| at.parse().unwrap()));
    }
}

#[test]
fn the_gateways_themselves_may_report_errors_through_the_tunnel() {
    let [one, _] = plans(&tunnelled());
    let through = side(&one, "pst-gw-2");
    for own in ["10.1.0.2", "10.3.0.1"] {
        assert!(through.may_report(own.parse().unwrap()), "{own}");
    }
    assert!(!through.may_report("10.2.0.1".parse().unwrap()), "its own");
}

/// The verdict on the HMI's poll of the controller at a gateway, by these interfaces.
fn poll(plan: &Plan, ingress: &str, egress: &str) -> (Decision, bool) {
    let verdict = decide(
        plan,
        &Connection {
            ingress: ingress.to_owned(),
            egress: egress.to_owned(),
            source: "10.2.0.20".parse().unwrap(),
            destination: "10.3.0.7".parse().unwrap(),
            transport: Carried::Tcp(502),
        },
    );
    (
        verdict.decision,
        matches!(verdict.reason, Reason::Misplaced { .. }),
    )
}

#[test]
fn a_tunnelled_flow_passes_both_gateways_through_the_tunnel_and_neither_in_the_clear() {
    let [one, two] = plans(&tunnelled());
    assert_eq!(poll(&one, "eth2", "pst-gw-2"), (Decision::Allow, false));
    assert_eq!(poll(&two, "pst-gw-1", "eth2"), (Decision::Allow, false));
    assert_eq!(poll(&one, "eth2", "eth1"), (Decision::Deny, true));
    assert_eq!(poll(&two, "eth1", "eth2"), (Decision::Deny, true));
}

#[test]
fn of_two_gateways_that_can_be_reached_the_one_of_the_later_name_is_connected_to() {
    let both = tunnelled().replace(
        "tunnel: { interface: eth1 }",
        "tunnel: { interface: eth1, address: 10.1.0.1 }",
    );
    let [one, two] = plans(&both);
    let connects = |plan: &Plan| plan.tunnels.as_ref().unwrap().peers[0].connect;
    assert!(connects(&one).is_some() && connects(&two).is_none());
    let only_first = both.replace(
        "tunnel: { interface: eth1, address: 10.1.0.2, port: 4500 }",
        "tunnel: { interface: eth1 }",
    );
    let [one, two] = plans(&only_first);
    assert_eq!(
        (connects(&one), connects(&two)),
        (None, Some("10.1.0.1:4433".parse().unwrap()))
    );
}

/// The errors of a document.
fn errors(text: &str) -> Vec<Code> {
    let found = codes(&load_text(text));
    found
        .into_iter()
        .filter(|code| code.severity() == Severity::Error)
        .collect()
}

#[test]
fn a_conduit_that_no_tunnel_can_carry_is_refused_and_never_left_in_the_clear() {
    let good = tunnelled();
    assert_eq!(errors(&good), []);
    for (from, to, code) in [
        ("    tunnel: { interface: eth1 }\n", "", Code::NotTunnelled),
        (", address: 10.1.0.2, port", ", port", Code::NotTunnelled),
        (
            "tunnel: { interface: eth1 }",
            "tunnel: { interface: eth2 }",
            Code::NotTunnelled,
        ),
        (
            "tunnel: { interface: eth1 }",
            "tunnel: { interface: eth7 }",
            Code::NotTunnelled,
        ),
        (
            "address: 10.1.0.2, port",
            "address: 10.3.0.9, port",
            Code::TunnelEndUnfit,
        ),
        (
            "    tunnel: { interface: eth1 }\n",
            "    tunnel: { interface: eth1 }\n    safe_to_change: { modbus: plc, coil: 1, is: on }\n",
            Code::TunnelEndUnfit,
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let found = errors(&good.replacen(from, to, 1));
        assert!(found.contains(&code), "{from} -> {to}: {found:?}");
    }
}

#[test]
fn another_conduit_to_a_zone_beyond_a_tunnel_has_to_run_inside_it_too() {
    let second = "  look:\n    from: ops\n    to: safety\n    sl_target: 3\n    accountable: safety\n    flows:\n      \
                  page: { source: hmi, destination: plc, service: https }\nremote_access:\n";
    let past = tunnelled().replace("remote_access:\n", second);
    assert_eq!(errors(&past), [Code::PastTheTunnel]);
    let inside = past.replace(
        "    to: safety\n    sl_target: 3\n    accountable: safety\n    flows",
        "    to: safety\n    tunnel: yes\n    sl_target: 3\n    accountable: safety\n    flows",
    );
    assert_eq!(errors(&inside), []);
}

#[test]
fn gateways_are_joined_by_a_tunnel_that_begins_ends_or_moves_and_not_by_one_that_stays_or_that_one_of_them_has_already()
 {
    use crate::rollout::joined;
    type Plans = std::collections::BTreeMap<GatewayId, Plan>;
    let all = |text: &str| -> Plans {
        let loaded = load_text(text);
        compile_all(&loaded.plant.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))).unwrap()
    };
    let tunnel = all(&tunnelled());
    let clear = all(&tunnelled().replace("    tunnel: yes\n", ""));
    let moved = all(&tunnelled().replace("port: 4500", "port: 4501"));
    let ids = ["gw-1", "gw-2"].map(|name| name.parse::<GatewayId>().unwrap());
    let both = std::collections::BTreeSet::from([(ids[0].clone(), ids[1].clone())]);
    for (held, released) in [(&clear, &tunnel), (&tunnel, &clear), (&tunnel, &moved)] {
        assert_eq!(joined(held, released), both);
    }
    assert!(joined(&tunnel, &tunnel).is_empty());
    assert_eq!(joined(&Plans::new(), &tunnel), both, "nothing is in force yet");
    let mut half = clear.clone();
    half.insert(ids[0].clone(), tunnel[&ids[0]].clone());
    assert!(
        joined(&half, &tunnel).is_empty(),
        "the other one is awaited, and cannot come too early"
    );
    let mut away = tunnel.clone();
    away.remove(&ids[1]);
    assert!(joined(&clear, &away).is_empty());
}

#[test]
fn a_diff_says_between_which_gateways_a_conduit_goes_into_a_tunnel_and_that_it_leaves_one_for_the_clear() {
    let [tunnel, clear] = [tunnelled(), tunnelled().replace("    tunnel: yes\n", "")]
        .map(|text| load_text(&text).plant.unwrap());
    let said = |old, new| crate::diff::diff(Some(old), new).unwrap().to_string();
    let into = said(&clear, &tunnel);
    assert!(
        into.contains("goes into a tunnel between gw-1 and gw-2"),
        "{into}"
    );
    let out = said(&tunnel, &clear);
    assert!(
        out.contains("leaves the tunnel between gw-1 and gw-2, and runs in the clear"),
        "{out}"
    );
}
