//! A conduit that asks for the plant's certificates (`minimum_assurance: D4`), from the document to the wire: mosquitto's client and broker
//! pass with certificates, and whoever speaks in the plain is refused with the reason.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use penstock_agent::inspector::SeatLimits;
use penstock_agent::observed::Observation;
use penstock_lab as lab;
use penstock_policy::compile::compile_all;
use penstock_policy::diagnostics::SourceFile;
use penstock_policy::plan::Plan;
use penstock_policy::terms::{GatewayMode, Proof};
use penstock_policy::verdict::Decision;
use penstock_tests::at_once;

use super::mqtts::{TOPIC, broker, plain, publish};
use super::pki::Pki;
use super::world::{Agent, CLIENT, MODES, SERVER, World};

/// A connection that does not come about in this time does not come about.
const SILENCE: Duration = Duration::from_millis(800);

/// The plan of a document whose one conduit asks for D4: one of its flows shows certificates at both ends, the other none.
fn plan(mode: GatewayMode) -> Plan {
    let (word, at) = match mode {
        GatewayMode::Routed => ("routed", [", address: 10.1.0.1/24", ", address: 10.2.0.1/24"]),
        GatewayMode::Bridged => ("bridged", ["", ""]),
    };
    let [office, control] = at;
    let text = format!(
        r#"plant: works
approvers:
  threshold: 1
  people:
    anna: {{ key: "ed25519:3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29" }}
sites:
  works: {{ timezone: UTC }}
gateways:
  gw:
    site: works
    mode: {word}
    interfaces:
      office: {{ zone: office{office} }}
      control: {{ zone: control{control} }}
    management: {{ interface: eth0, peers: 192.0.2.10 }}
zones:
  office: {{ kind: operations, sl_target: 1, networks: 10.1.0.0/24, consequence: business, accountable: it, boundary: a building }}
  control: {{ kind: control, sl_target: 2, networks: 10.2.0.0/24, consequence: production, accountable: ops, boundary: a hall }}
assets:
  hmi: {{ zone: office, address: {CLIENT} }}
  plc: {{ zone: control, address: {SERVER} }}
conduits:
  supply:
    from: office
    to: control
    sl_target: 2
    accountable: ops
    on_agent_loss: block
    minimum_assurance: D4
    flows:
      tell: {{ source: hmi, destination: plc, service: mqtts, tls: {{}}, allow: [{{ publish: {{ topics: works/+/pressure }} }}] }}
      read: {{ source: hmi, destination: plc, service: modbus-tcp, allow: any }}
"#
    );
    let file = SourceFile::new("plant.yaml", text);
    let loaded = penstock_policy::load(&[file], "2026-12-01".parse().unwrap());
    let plant = loaded.plant.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    let mut plan = compile_all(&plant)
        .unwrap()
        .remove(&"gw".parse().unwrap())
        .unwrap();
    // Nobody comes in for management here.
    plan.management = None;
    plan
}

#[test]
fn where_a_conduit_asks_for_certificates_who_shows_one_passes_and_who_speaks_in_the_plain_is_refused_with_the_reason()
 {
    lab::sandbox::test(
        "assurance::where_a_conduit_asks_for_certificates_who_shows_one_passes_and_who_speaks_in_the_plain_is_refused_with_the_reason",
        |lab| {
            let folder = lab.directory();
            let all = MODES.map(|mode| {
                let world = World::new(lab, mode);
                let pki = Pki::new(&folder.join(format!("pki-{mode:?}")));
                let broker = broker(lab, &world, &pki.device("plc", &[SERVER]));
                (world, pki, broker)
            });
            at_once(&all, |(world, pki, broker)| {
                let mode = world.mode;
                let own = pki.device("hmi", &[]);
                // Who listens there would take anybody: the gateway does not.
                let plc: SocketAddr = format!("{SERVER}:502").parse().unwrap();
                let _plc = world.control.enter(|| TcpListener::bind(plc).unwrap()).unwrap();
                world.at_gateway(async || {
                    let mut agent = Agent::start(SeatLimits::default());
                    agent.enforcer.identify(Some(pki.gateway(&[SERVER])));
                    agent.apply(plan(mode), 1).await;
                    let before = broker.log().matches("New connection").count();
                    // In the plain, to the flow that has no certificates: the kernel.
                    let knock = || TcpStream::connect_timeout(&plc, SILENCE).map(drop);
                    assert!(world.office.enter(knock).unwrap().is_err(), "{mode:?}");
                    let of_modbus = |seen: &Observation| {
                        matches!(seen, Observation::Verdict(seen) if seen.port == 502)
                    };
                    let denied = agent.until_any(of_modbus).await;
                    assert_eq!(denied.decision, Decision::Deny, "{mode:?}");
                    for words in [
                        "flow supply/read permits it only to ends that prove who they are to D4 at least",
                        "hmi proves it by its address only (D0)",
                    ] {
                        assert!(denied.reason.contains(words), "{mode:?}: {}", denied.reason);
                    }
                    assert_eq!(denied.proofs, [Some(Proof::Address); 2]);
                    // In the plain, to the one that has: the inspector.
                    world.office.enter(plain).unwrap();
                    let seen = agent.until(|seen| seen.text.contains("does not speak TLS")).await;
                    assert_eq!(seen.last().unwrap().decision, Some(Decision::Deny), "{mode:?}");
                    assert_eq!(broker.log().matches("New connection").count(), before, "{mode:?}");
                    // With the plant's certificate.
                    assert_eq!(publish(world, TOPIC, &own.arguments()), "", "{mode:?}");
                    let seen = agent.until(|seen| seen.decision == Some(Decision::Allow)).await;
                    let passed = seen.last().unwrap();
                    assert_eq!(passed.client_name, "device/hmi by certificate", "{mode:?}");
                    assert!(broker.log().contains(&format!("New client connected from {CLIENT}:")), "{}", broker.log());
                });
            });
        },
    )
    .unwrap();
}
