#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::arbitrary::plants;
use crate::compile::compile_all;
use crate::terms::{Enforcement, PortRange, Tls, Transport};
use crate::waterworks::{VISIT_MS, bridge, grant_visit, id, waterworks, with_brokers};

fn asked(
    plant: &Plant,
    source: &str,
    destination: &str,
    transport: &str,
) -> Result<Explanation, ExplainError> {
    let question = Question {
        source: id(source),
        destination: id(destination),
        transport: id(transport),
    };
    explain(plant, &compile_all(plant).unwrap(), &question)
}

#[test]
fn an_allowed_connection_is_explained_with_its_flow_and_operations() {
    let said = asked(&waterworks(), "hmi-1", "plc-7", "tcp/502")
        .unwrap()
        .to_string();
    assert_eq!(
        said,
        "hmi-1 to plc-7 by tcp/502 passes.\n  \
         gw-works: 10.20.1.21 to 10.20.4.7: allowed: flow control-room-to-pumps/polling permits it\n    \
         only: read-holding-registers (unit 1, addresses 0-199) (control-room-to-pumps/polling)\n    \
         only: write-single-register (unit 1, addresses 40-41) (control-room-to-pumps/setpoints)\n    \
         the client is known by its address only (D0), the server by its address only (D0)"
    );
}

#[test]
fn an_answer_says_on_which_grant_a_connection_hangs_and_what_would_open_it() {
    let mut plant = waterworks();
    grant_visit(&mut plant, "control-room-to-pumps");
    let at = |now| {
        let plans = compile_all(&plant).unwrap().into_iter();
        let plans = plans.map(|(gateway, plan)| (gateway, plan.at(now))).collect();
        let question = Question {
            source: id("hmi-1"),
            destination: id("plc-7"),
            transport: id("tcp/502"),
        };
        explain(&plant, &plans, &question).unwrap()
    };
    let visit = "visit (Carla, 2026-12-01T08:00:00Z to 2026-12-01T16:00:00Z)";
    let during = at(Some(VISIT_MS));
    assert_eq!(during.outcome(), Outcome::Passes);
    assert!(
        during
            .to_string()
            .ends_with(&format!("only during a grant of remote access: {visit}")),
        "{during}"
    );
    for closed in [Some(VISIT_MS - 1), None] {
        let closed = at(closed);
        assert_eq!(closed.outcome(), Outcome::Dropped);
        let words = format!("permits it only during a grant of remote access: {visit}");
        assert!(closed.to_string().contains(&words), "{closed}");
    }
}

#[test]
fn the_offices_attack_on_the_controller_is_explained_by_the_nearest_flow() {
    let explanation = asked(&waterworks(), "desk-1", "plc-7", "tcp/502").unwrap();
    assert_eq!(explanation.outcome(), Outcome::Dropped);
    assert_eq!(
        explanation.to_string(),
        "desk-1 to plc-7 by tcp/502 is denied.\n  \
         gw-works: 10.1.7.21 to 10.20.4.7: denied: no flow permits it; the nearest is \
         control-room-to-pumps/polling, but source 10.1.7.21 is not hmi-1 (10.20.1.21) or historian (10.20.1.30)"
    );
}

#[test]
fn an_icmp_error_is_explained_by_what_it_is_judged_by() {
    let of_icmp = asked(&waterworks(), "desk-1", "plc-7", "ip/1").unwrap();
    assert_eq!(of_icmp.outcome(), Outcome::Dropped);
    assert!(
        of_icmp
            .to_string()
            .contains("judged by the packet that they quote"),
        "{of_icmp}"
    );
    let of_another = asked(&waterworks(), "desk-1", "plc-7", "ip/47").unwrap();
    assert!(!of_another.to_string().contains("quote"), "{of_another}");
}

#[test]
fn what_passes_only_because_nobody_enforces_is_said_so() {
    let mut plant = waterworks();
    for zone in plant.zones.values_mut() {
        zone.enforcement = Enforcement::Observe;
    }
    let explanation = asked(&plant, "desk-1", "10.20.9.3", "tcp/102").unwrap();
    assert_eq!(explanation.outcome(), Outcome::PassesObserved);
}

#[test]
fn where_no_gateway_stands_between_that_is_the_answer() {
    for (from, to) in [("hmi-1", "historian"), ("203.0.113.7", "203.0.113.9")] {
        let explanation = asked(&waterworks(), from, to, "tcp/443").unwrap();
        assert_eq!(explanation.outcome(), Outcome::NoGateway);
    }
}

#[test]
fn an_address_of_no_zone_is_denied_where_the_kernel_denies_it_and_not_called_unguarded() {
    for (from, to) in [("8.8.8.8", "plc-7"), ("plc-7", "8.8.8.8")] {
        let explanation = asked(&waterworks(), from, to, "tcp/502").unwrap();
        assert_eq!(explanation.outcome(), Outcome::Dropped, "{explanation}");
        let said = explanation.to_string();
        assert!(said.contains("8.8.8.8 is in no zone on the side of"), "{said}");
    }
    let mut plant = waterworks();
    for zone in plant.zones.values_mut() {
        zone.enforcement = Enforcement::Observe;
    }
    let explanation = asked(&plant, "8.8.8.8", "plc-7", "tcp/502").unwrap();
    assert_eq!(explanation.outcome(), Outcome::PassesObserved);
}

#[test]
fn questions_that_cannot_be_put_say_why() {
    let mut plant = waterworks();
    plant.assets.get_mut(&id("sis-1")).unwrap().addresses.clear();
    assert_eq!(
        asked(&plant, "ghost", "plc-7", "tcp/502"),
        Err(ExplainError::UnknownAsset(id("ghost")))
    );
    assert_eq!(
        asked(&plant, "hmi-1", "sis-1", "tcp/502"),
        Err(ExplainError::NoAddress(id("sis-1")))
    );
    assert_eq!(
        asked(&plant, "hmi-1", "fd00::1", "tcp/502"),
        Err(ExplainError::Families)
    );
    assert!("not a name".parse::<QueryEnd>().is_err());
}

#[test]
fn a_bridge_is_told_beside_the_connection_that_it_takes_the_place_of() {
    let plant = with_brokers(bridge);
    let up = asked(&plant, "broker-pumps", "broker-works", "tcp/1883").unwrap();
    assert_eq!(up.outcome(), Outcome::Dropped, "no packet passes");
    assert!(
        up.to_string().ends_with(
            "gw-works: telemetry/upwards is a bridge: the gateway itself carries messages one way, \
             from broker-pumps by tcp/1883 to broker-works by tcp/1883\n    \
             only: publish pumps/+/pressure (qos 0-1, not retained)"
        ),
        "{up}"
    );
    let down = asked(&plant, "broker-works", "broker-pumps", "tcp/1883").unwrap();
    assert!(down.bridges.is_empty());
}

proptest! {
    /// Where an end is held by no gateway, the answer is what the oracle says by every interface it can come by.
    #[test]
    fn a_stranger_is_answered_as_the_oracle_judges_it_by_each_interface(plant in plants(), stranger in any::<[u8; 4]>()) {
        let stranger = IpAddr::from(stranger);
        let plans = compile_all(&plant).unwrap();
        let held = |address| plans.values().flat_map(|plan| &plan.interfaces).any(|side| side.holds(address));
        prop_assume!(!held(stranger));
        let addresses = plant.assets.values().flat_map(|asset| &asset.addresses);
        for address in addresses.filter(|address| address.is_ipv4()).copied() {
            let question = Question {
                source: QueryEnd::Address(stranger),
                destination: QueryEnd::Address(address),
                transport: Carried::Tcp(502),
            };
            let explanation = explain(&plant, &plans, &question).unwrap();
            let judged = plans.values().flat_map(|plan| {
                let near = plan.interfaces.iter().find(|side| side.holds(address));
                let far = plan.interfaces.iter().filter(move |side| near.is_some_and(|near| near.name != side.name));
                far.zip(near.into_iter().cycle()).map(|(far, near)| decide(plan, &Connection {
                    ingress: far.name.clone(),
                    egress: near.name.clone(),
                    source: stranger,
                    destination: address,
                    transport: Carried::Tcp(502),
                }).decision)
            });
            let denied = judged.clone().any(|decision| decision == Decision::Deny);
            prop_assert_eq!(explanation.outcome() == Outcome::Dropped, denied, "{}", explanation);
        }
    }

    /// Each flow of each conduit passes between its ends, at every gateway that the conduit names; a bridge is carried.
    #[test]
    fn what_the_document_declares_is_explained_as_passing(plant in plants()) {
        let mut plans = compile_all(&plant).unwrap();
        for plan in plans.values_mut() {
            *plan = plan.opening(plan.grants.keys().cloned().collect());
        }
        for (id, conduit) in &plant.conduits {
            for (name, flow) in &conduit.flows {
                let transport = match &flow.service.transport {
                    crate::terms::Transport::Tcp(ports) => Carried::Tcp(ports.first().unwrap().first),
                    crate::terms::Transport::Udp(ports) => Carried::Udp(ports.first().unwrap().last),
                    crate::terms::Transport::IcmpEcho => Carried::IcmpEcho,
                };
                let first = |ends: &[crate::model::FlowEnd]| ends.first().unwrap().networks().first().unwrap().addr();
                let (source, destination) = (first(&flow.sources), first(&flow.destinations));
                let question = Question { source: QueryEnd::Address(source), destination: QueryEnd::Address(destination), transport };
                let explanation = explain(&plant, &plans, &question).unwrap();
                for gateway in &conduit.via {
                    if flow.is_bridge() {
                        let carried = explanation.bridges.iter().any(|carries| {
                            (&carries.gateway, &carries.rule.conduit, &carries.rule.flow) == (gateway, id, name)
                        });
                        prop_assert!(carried, "{}: {}", id, explanation);
                        continue;
                    }
                    let passes = explanation.answers.iter().any(|answer| {
                        answer.gateway == *gateway && answer.verdict.decision == Decision::Allow
                    });
                    prop_assert!(passes, "{}: {}", id, explanation);
                }
            }
        }
    }
}

#[test]
fn an_answer_says_that_a_client_s_tls_ends_at_the_gateway_and_the_last_metre_is_in_the_plain() {
    let mut plant = waterworks();
    let flows = &mut plant
        .conduits
        .get_mut(&id("control-room-to-pumps"))
        .unwrap()
        .flows;
    flows.retain(|name, _| name.as_str() == "polling");
    let polling = flows.get_mut(&id("polling")).unwrap();
    polling.service.transport = Transport::Tcp(vec![PortRange::single(802)]);
    polling.tls = Some(Tls {
        plain_port: Some(502),
        ..Tls::default()
    });
    let ends = "only inside TLS, by a device's certificate: it ends at this gateway, and the last metre to the server's port 502 is in \
                the plain\n    the client is known by a certificate of the plant (D4), the server by its address only (D0)";
    let limited = asked(&plant, "hmi-1", "plc-7", "tcp/802").unwrap().to_string();
    assert!(limited.ends_with(ends), "{limited}");
    assert!(limited.contains("only: read-holding-registers"), "{limited}");
    let flows = &mut plant
        .conduits
        .get_mut(&id("control-room-to-pumps"))
        .unwrap()
        .flows;
    flows.get_mut(&id("polling")).unwrap().operations = None;
    let unread = asked(&plant, "hmi-1", "plc-7", "tcp/802").unwrap().to_string();
    assert!(unread.ends_with(ends) && !unread.contains("only: "), "{unread}");
    // The server's own port is opened for nobody.
    let plainly = asked(&plant, "hmi-1", "plc-7", "tcp/502").unwrap();
    assert_eq!(plainly.outcome(), Outcome::Dropped);
}
