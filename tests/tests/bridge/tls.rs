//! Brokers that prove who they are, and want to know who the gateway is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use penstock_agent::identity::{Enrolment, IdentityFolder};
use penstock_agent::store::Store;
use penstock_lab::{Daemon, wait_until};
use penstock_policy::ids::Digest;
use penstock_policy::model::ApproverSet;
use penstock_policy::plan::Plan;
use penstock_policy::terms::Tls;
use penstock_proto::peer::Epoch;
use penstock_proto::withdrawn::Withdrawn;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use super::gateway::WITHDRAWN;
use super::world::{PATIENCE, TO, World, numbered, permit, plan, test};

/// An authority; certificates name their holder by one URI, or by an address.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// PEM of a certificate and its key.
    fn issue(&self, uri: Option<&str>, names: &[&str]) -> (String, String) {
        self.issue_in_life(uri, names, None)
    }

    /// The same, which says to be of this life.
    fn issue_in_life(&self, uri: Option<&str>, names: &[&str], epoch: Option<u32>) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if let Some(uri) = uri {
            params
                .subject_alt_names
                .push(SanType::URI(uri.to_owned().try_into().unwrap()));
        }
        if let Some(epoch) = epoch {
            params.distinguished_name.push(
                rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]),
                rcgen::DnValue::Utf8String(epoch.to_string()),
            );
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// Makes the gateway one of the plant of `authority`.
fn enrol(world: &World, authority: &Authority, holder: &Authority) {
    let folder = world.state.join("identity");
    std::fs::create_dir_all(&folder).unwrap();
    let (chain, key) = holder.issue(Some("spiffe://works/gateway/gw"), &[]);
    for (name, text) in [
        ("chain.pem", chain),
        ("key.pem", key),
        ("roots.pem", authority.0.pem()),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let enrolment = Enrolment {
        plant: "works".parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        coordinators: Vec::new(),
        root_digest: Digest::of(authority.0.der()),
        approvers: ApproverSet {
            emergency_threshold: None,
            threshold: 1,
            people: BTreeMap::new(),
        },
    };
    IdentityFolder::store_enrolment(&mut Store::open(&world.state), &enrolment).unwrap();
}

/// The second broker inside TLS, with this certificate, for holders of `clients`' certificates alone; and open, for the
/// listener of the test.
fn broker(world: &World, (certificate, key): (String, String), clients: &Authority) -> Daemon {
    let file = |name: &str, text: &str| -> PathBuf {
        let path = world.folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let more = format!(
        "per_listener_settings true\nlistener 1883 {TO}\nallow_anonymous true\nlistener 8883 {TO}\n\
         allow_anonymous true\nrequire_certificate true\ncafile {}\ncertfile {}\nkeyfile {}",
        file("clients.pem", &clients.0.pem()).display(),
        file("broker.pem", &certificate).display(),
        file("broker.key", &key).display(),
    );
    world.broker(&world.to, TO, &more)
}

fn inside_tls(tls: Tls) -> Plan {
    let mut plan = plan(vec![permit(&["works/#"], 0, 1, false)]);
    plan.bridges[0].to.tls = Some(tls);
    plan.bridges[0].to.port = 8883;
    plan
}

/// The gateway says why it does not connect, and nothing crosses.
fn assert_refused(world: &World, says: &str) {
    world.wait_for(says, |state| {
        !state.to.connected
            && state
                .to
                .problem
                .as_ref()
                .is_some_and(|problem| problem.contains(says))
    });
}

#[test]
fn a_broker_of_the_plant_is_known_by_its_certificate_and_knows_the_gateway_by_its_own() {
    test(
        "tls::a_broker_of_the_plant_is_known_by_its_certificate_and_knows_the_gateway_by_its_own",
        |world| {
            let (works, other) = (Authority::new("works"), Authority::new("other"));
            enrol(world, &works, &works);
            let _from = world.broker(&world.from, super::world::FROM, "");
            let device = |authority: &Authority, name: &str| {
                authority.issue(Some(&format!("spiffe://works/device/{name}")), &[])
            };
            world.obey(&inside_tls(Tls::default()));
            for (what, certificate, says) in [
                ("another device", device(&works, "from-broker"), "from-broker"),
                (
                    "another authority",
                    device(&other, "to-broker"),
                    "issued by none of the authorities",
                ),
                (
                    "another plant",
                    works.issue(Some("spiffe://elsewhere/device/to-broker"), &[]),
                    "elsewhere",
                ),
                ("an address alone", works.issue(None, &[TO]), "URI"),
            ] {
                let mut to = broker(world, certificate, &works);
                let mut gateway = world.start();
                assert_refused(world, says);
                println!("{what}: {:?}", world.bridge().unwrap().to.problem);
                gateway.terminate(PATIENCE).unwrap();
                to.terminate(PATIENCE).unwrap();
                std::fs::remove_file(world.state.join("bridges/state.json")).unwrap();
            }
            let _to = broker(world, device(&works, "to-broker"), &works);
            let _gateway = world.start();
            world.wait_for("both brokers", |state| state.from.connected && state.to.connected);
            let listener = world.listen();
            world.publish("works/a", 1, &numbered("a", 50));
            listener.wait_for(50);
            assert_eq!(listener.payloads(), numbered("a", 50));
        },
    );
}

#[test]
fn a_broker_whose_key_is_withdrawn_is_left_at_once_and_messages_wait_for_its_next_one() {
    test(
        "tls::a_broker_whose_key_is_withdrawn_is_left_at_once_and_messages_wait_for_its_next_one",
        |world| {
            let works = Authority::new("works");
            enrol(world, &works, &works);
            let _from = world.broker(&world.from, super::world::FROM, "");
            let in_life =
                |epoch| works.issue_in_life(Some("spiffe://works/device/to-broker"), &[], Some(epoch));
            let mut to = broker(world, in_life(1), &works);
            world.obey(&inside_tls(Tls::default()));
            let _gateway = world.start();
            world.wait_for("both brokers", |state| state.from.connected && state.to.connected);
            let listener = world.listen();
            world.publish("works/a", 1, &numbered("a", 10));
            listener.wait_for(10);
            let mut withdrawn = Withdrawn::default();
            withdrawn.withdraw(&"device/from-broker".parse().unwrap(), Epoch(9));
            withdrawn.withdraw(&"device/to-broker".parse().unwrap(), Epoch(2));
            let list = world.state.join("list.new");
            std::fs::write(&list, serde_json::to_vec(&withdrawn).unwrap()).unwrap();
            std::fs::rename(list, world.state.join(WITHDRAWN)).unwrap();
            assert_refused(
                world,
                "the certificate of spiffe://works/device/to-broker was withdrawn",
            );
            // The other one has no TLS: no list says anything of it.
            world.publish("works/a", 1, &numbered("b", 10));
            world.wait_for("the backlog", |state| state.backlog == 10 && state.from.connected);
            assert_eq!(listener.payloads(), numbered("a", 10));
            to.terminate(PATIENCE).unwrap();
            let _to = broker(world, in_life(2), &works);
            world.wait_for("both brokers", |state| state.from.connected && state.to.connected);
            listener.wait_for(20);
        },
    );
}

#[test]
fn a_broker_refuses_a_gateway_of_another_authority_and_messages_wait() {
    test(
        "tls::a_broker_refuses_a_gateway_of_another_authority_and_messages_wait",
        |world| {
            let (works, other) = (Authority::new("works"), Authority::new("other"));
            enrol(world, &works, &other);
            let _from = world.broker(&world.from, super::world::FROM, "");
            let certificate = works.issue(Some("spiffe://works/device/to-broker"), &[]);
            let _to = broker(world, certificate, &works);
            world.obey(&inside_tls(Tls::default()));
            let _gateway = world.start();
            world.wait_for("the first broker", |state| state.from.connected);
            let listener = world.listen();
            world.publish("works/a", 1, &numbered("a", 10));
            world.wait_for("the backlog", |state| state.backlog == 10);
            world.wait_for("the refusal", |state| {
                !state.to.connected && state.to.problem.is_some()
            });
            std::thread::sleep(Duration::from_secs(1));
            assert!(listener.payloads().is_empty());
        },
    );
}

#[test]
fn a_broker_of_other_authorities_is_known_by_its_address_and_the_gateway_by_its_password() {
    test(
        "tls::a_broker_of_other_authorities_is_known_by_its_address_and_the_gateway_by_its_password",
        |world| {
            let (works, vendor) = (Authority::new("works"), Authority::new("vendor"));
            enrol(world, &works, &works);
            let _from = world.broker(&world.from, super::world::FROM, "");
            world.obey(&inside_tls(Tls {
                server_authorities: Some(vendor.0.pem()),
                server_name: None,
                plain_port: None,
            }));
            let mut gateway = world.start();
            let mut to = broker(world, vendor.issue(None, &["10.2.0.3"]), &works);
            assert_refused(world, "not valid for name");
            to.terminate(PATIENCE).unwrap();
            let mut to = broker(world, vendor.issue(None, &[TO]), &works);
            world.wait_for("both brokers", |state| state.from.connected && state.to.connected);
            to.terminate(PATIENCE).unwrap();

            // The same without TLS, with a user name and a password.
            let passwords = world.folder.join("passwords");
            let made = [
                "-b",
                "-c",
                &passwords.to_string_lossy(),
                "penstock",
                "open sesame",
            ];
            world.to.run("mosquitto_passwd", &made).unwrap();
            let _to = world.broker(
                &world.to,
                TO,
                &format!(
                    "per_listener_settings true\nlistener 1883 {TO}\nallow_anonymous false\npassword_file {}",
                    passwords.display()
                ),
            );
            world.obey(&plan(vec![permit(&["works/#"], 0, 1, false)]));
            let password = world.state.join("password");
            std::fs::write(&password, "wrong\n").unwrap();
            gateway.terminate(PATIENCE).unwrap();
            let _gateway = world.start();
            wait_until("the refusal", PATIENCE, || {
                world.bridge().is_some_and(|state| {
                    state.to.problem.is_some_and(|problem| {
                        problem.contains("not authorised") || problem.contains("bad user name")
                    })
                })
            })
            .unwrap();
            // Read anew at each connection.
            std::fs::write(&password, "open sesame\n").unwrap();
            world.wait_for("both brokers", |state| state.from.connected && state.to.connected);
        },
    );
}
