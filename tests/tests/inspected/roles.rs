//! What a client may do by the role in its certificate (Modbus/TCP Security): pymodbus and umodbus, with certificates of the plant's
//! authority and with ones that OpenSSL made, through a gateway that ends their TLS.

use std::collections::BTreeMap;

use penstock_agent::inspector::SeatLimits;
use penstock_agent::observed::OperationSeen;
use penstock_lab as lab;
use penstock_policy::plan::{Capability, Observing, Plan};
use penstock_policy::protocol::{Operations, RoleOperations, Roles};
use penstock_policy::terms::Tls;
use penstock_policy::verdict::Decision;
use penstock_tests::at_once;

use super::pki::{Files, Pki};
use super::world::{Agent, MODES, SERVER, World, function, peer, polling, python};

/// Where clients connect inside TLS.
const PORT: u16 = 802;

/// `hmi` may read and write by Modbus; an operator only reads.
fn plan(world: &World, default: Option<&str>) -> Plan {
    let mut plan = world.plan(&[(PORT, polling())]);
    let reads = Operations::from(vec![function("read-holding-registers", None)]);
    let roles = Roles {
        by_role: BTreeMap::from([
            ("engineer".parse().unwrap(), RoleOperations::All),
            ("operator".parse().unwrap(), RoleOperations::Only(reads)),
        ]),
        default: default.map(|role| role.parse().unwrap()),
    };
    let rule = &mut plan.rules[0];
    rule.roles = Some(roles.into());
    rule.tls = Some(
        Tls {
            plain_port: Some(502),
            ..Tls::default()
        }
        .into(),
    );
    for needed in [Capability::TLS_BEFORE_PLAIN, Capability::ROLES] {
        plan.requires.insert(Capability::of(needed));
    }
    plan
}

fn observing(mut plan: Plan) -> Plan {
    for side in &mut plan.interfaces {
        side.observing = Observing::Everything;
    }
    plan
}

/// What one of the clients in the office prints.
fn client(world: &World, stack: &str, own: &Files, asked: &[&str]) -> String {
    let (script, port) = (peer("tls_client.py"), PORT.to_string());
    let Files {
        authority,
        certificate,
        key,
    } = own;
    let fixed = [script.as_str(), stack, SERVER, &port, authority, certificate, key];
    world.say(python(), &[&fixed[..], asked].concat())
}

fn about(text: &str, decision: Decision, role: &str) -> impl Fn(&OperationSeen) -> bool {
    move |seen: &OperationSeen| {
        seen.text.starts_with(text) && seen.decision == Some(decision) && seen.role.as_deref() == Some(role)
    }
}

#[test]
fn each_client_may_do_what_the_role_in_its_certificate_may_and_is_told_in_its_own_protocol() {
    lab::sandbox::test(
        "roles::each_client_may_do_what_the_role_in_its_certificate_may_and_is_told_in_its_own_protocol",
        |lab| {
            let folder = lab.directory();
            let worlds = MODES.map(|mode| World::new(lab, mode));
            at_once(&worlds, |world| {
                let mode = world.mode;
                let pki = Pki::new(&folder.join(format!("pki-roles-{mode:?}")));
                let _plc = world.plc(SERVER);
                let issued = |role: &str| pki.device_in_role("hmi", role);
                let [engineer, guest] = ["engineer", "guest"].map(issued);
                let operator = pki.device_by_openssl("hmi", "operator", &["UTF8String:operator"]);
                let nobody = pki.device("hmi", &[]);
                world.at_gateway(async || {
                    let mut agent = Agent::start(SeatLimits::default());
                    agent.enforcer.identify(Some(pki.gateway(&[SERVER])));
                    agent.apply(plan(world, None), 1).await;
                    for (stack, own, asked, expected) in [
                        ("umodbus", &engineer, &["write", "45", "9"][..], "9"),
                        ("pymodbus", &engineer, &["write", "7", "9"], "exception 2"),
                        ("pymodbus", &operator, &["read", "45"], "9"),
                        ("umodbus", &operator, &["write", "45", "8"], "exception 1"),
                        ("pymodbus", &guest, &["read", "7"], "exception 1"),
                        ("umodbus", &nobody, &["read", "7"], "exception 1"),
                    ] {
                        assert_eq!(
                            client(world, stack, own, asked),
                            expected,
                            "{mode:?} {stack} {asked:?}"
                        );
                    }
                    let write = about("write-single-register 45", Decision::Deny, "operator");
                    let seen = agent.until(write).await;
                    assert_eq!(
                        seen.last().unwrap().client_name,
                        "device/hmi by certificate",
                        "{mode:?}"
                    );
                    // The next release holds from then on, and only observing keeps nobody from anything.
                    agent.apply(plan(world, Some("operator")), 2).await;
                    assert_eq!(
                        client(world, "umodbus", &nobody, &["read", "7"]),
                        "1007",
                        "{mode:?}"
                    );
                    assert_eq!(
                        client(world, "umodbus", &nobody, &["write", "45", "8"]),
                        "exception 1",
                        "{mode:?}"
                    );
                    agent.apply(observing(plan(world, None)), 3).await;
                    assert_eq!(
                        client(world, "umodbus", &operator, &["write", "45", "7"]),
                        "7",
                        "{mode:?}"
                    );
                    agent
                        .until(about("write-single-register 45", Decision::WouldDeny, "operator"))
                        .await;
                });
            });
        },
    )
    .unwrap();
}

#[test]
fn a_certificate_whose_role_cannot_be_read_as_one_gets_an_alert_and_the_trail_its_reason() {
    lab::sandbox::test(
        "roles::a_certificate_whose_role_cannot_be_read_as_one_gets_an_alert_and_the_trail_its_reason",
        |lab| {
            let world = World::new(lab, MODES[0]);
            let pki = Pki::new(&lab.directory().join("pki-odd-roles"));
            let _plc = world.plc(SERVER);
            let long = format!("UTF8String:{}", "a".repeat(300));
            let odd: Vec<(Files, &str)> = [
                ("printable", &["PRINTABLESTRING:operator"][..], "not a UTF8String"),
                ("list", &["SEQUENCE:roles"], "not a UTF8String"),
                ("empty", &["UTF8String:"], "a name cannot be empty"),
                (
                    "long",
                    &[long.as_str()],
                    "at most 63 characters, this one has 300",
                ),
                ("capital", &["UTF8String:Operator"], "`Operator` is not a name"),
                // OpenSSL writes no extension twice; two names one after the other it does.
                ("two", &["DER:0c:01:61:0c:01:62"], "more than one role"),
            ]
            .into_iter()
            .map(|(name, values, because)| (pki.device_by_openssl("hmi", name, values), because))
            .collect();
            world.at_gateway(async || {
                let mut agent = Agent::start(SeatLimits::default());
                agent.enforcer.identify(Some(pki.gateway(&[SERVER])));
                agent.apply(plan(&world, Some("engineer")), 1).await;
                for (own, because) in &odd {
                    let said = client(&world, "umodbus", own, &["read", "7"]);
                    assert!(
                        said.starts_with("failed") && said.contains("ALERT"),
                        "{because}: {said}"
                    );
                    let seen = agent.until(|seen| seen.text.contains(because)).await;
                    let refused = seen.last().unwrap();
                    assert_eq!(refused.decision, Some(Decision::Deny), "{refused:?}");
                    assert!(
                        refused.text.contains("the flow asks for the client's role"),
                        "{refused:?}"
                    );
                }
                // Nobody is kept out where the zones only observe, or where no role counts.
                let (odd, _) = &odd[0];
                agent.apply(observing(plan(&world, None)), 2).await;
                assert_eq!(client(&world, "umodbus", odd, &["read", "7"]), "1007");
                agent
                    .until(|seen| seen.text.contains("counts as one without a role"))
                    .await;
                agent
                    .until(about("read-holding-registers", Decision::WouldDeny, ""))
                    .await;
                let mut without = plan(&world, None);
                without.rules[0].roles = None;
                agent.apply(without, 3).await;
                assert_eq!(client(&world, "umodbus", odd, &["write", "45", "5"]), "5");
            });
        },
    )
    .unwrap();
}
