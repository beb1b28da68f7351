//! What a panel reads and what the SCADA's broker holds: the real agent and its rules, before clients and a broker that others wrote
//! (mbpoll of libmodbus, pymodbus, mosquitto).

use std::time::Duration;

use penstock_lab::{Daemon, wait_until};
use serde_json::Value;

use super::world::{NEVER, PATIENCE, World, test};

/// Where the panel reads, by the first of the controller's addresses.
const MAP: &str = "10.20.4.1";
const UNLISTED: &str = "10.20.4.8";
const BROKER: &str = "10.20.4.7";

impl World {
    /// `count` registers from `first` on, as mbpoll prints them.
    fn registers(&self, first: u16, count: u16) -> Vec<u16> {
        let (_, said) = self.types(
            &self.plc,
            &format!("mbpoll -m tcp -a 1 -0 -r {first} -c {count} -t 4 -1 -o 2 {MAP} </dev/null"),
        );
        let value = |line: &str| {
            let (_, value) = line.strip_prefix('[')?.split_once("]:")?;
            // Beyond 32,767 it prints the signed number after the other.
            value.split_whitespace().next()?.parse().ok()
        };
        said.lines().filter_map(value).collect()
    }

    /// The state of the office and of the controllers' zone.
    fn states(&self) -> Option<[u16; 2]> {
        let registers = self.registers(100, 16);
        Some([*registers.first()?, *registers.get(8)?])
    }

    /// What the broker holds there for whoever subscribes now.
    fn held(&self, topic: &str) -> String {
        let line = format!(
            "mosquitto_sub -V 5 -h {BROKER} -t penstock/spine/gateway/gw-1/{topic} -C 1 -W 1 --retained-only"
        );
        self.types(&self.plc, &line).1.trim().to_owned()
    }

    fn health(&self) -> Value {
        serde_json::from_str(&self.held("health")).unwrap_or_default()
    }

    fn wait_for_health(&self, what: &str, is: impl Fn(&Value) -> bool) {
        wait_until(what, PATIENCE, || is(&self.health()))
            .unwrap_or_else(|error| panic!("{error}: {}", self.health()));
    }

    fn wait_for_online(&self, expected: &str) {
        wait_until(&format!("online is {expected}"), PATIENCE, || {
            self.held("online") == expected
        })
        .unwrap();
    }

    /// A broker that keeps nothing on disk, inside TLS for holders of the plant's certificates, and open for whoever looks.
    fn scada_broker(&self) -> Daemon {
        let config = self.path("mosquitto.conf");
        let text = format!(
            "per_listener_settings true\nuser root\nlistener 1883 {BROKER}\nallow_anonymous true\n\
             listener 8883 {BROKER}\nallow_anonymous true\nrequire_certificate true\n\
             cafile {}\ncertfile {}\nkeyfile {}\n",
            self.path("coordinator/ca/root.pem"),
            self.path("broker.pem"),
            self.path("broker.key"),
        );
        std::fs::write(&config, text).unwrap();
        let daemon = self
            .plc
            .spawn("mosquitto", "mosquitto", &["-c", &config])
            .unwrap();
        self.plc
            .wait_for_tcp(&format!("{BROKER}:8883"), PATIENCE)
            .unwrap();
        daemon
    }
}

#[test]
fn panels_and_the_scada_see_each_change_of_a_zone_also_without_a_coordinator_and_nobody_else_reaches_the_map()
{
    test(
        "panel::panels_and_the_scada_see_each_change_of_a_zone_also_without_a_coordinator_and_nobody_else_reaches_the_map",
        |lab| {
            let state = lab.directory().join("state");
            let (world, mut coordinator) = World::new(lab, &state);
            world.plc.address("eth0", &format!("{UNLISTED}/24")).unwrap();
            world.done_at(
                &world.plc,
                &format!(
                    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout vendor.key -out vendor.pem -subj /CN=vendor -days 9 && \
                     openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout broker.key -out broker.csr -subj /CN=broker && \
                     echo subjectAltName=IP:{BROKER} > names && \
                     openssl x509 -req -in broker.csr -CA vendor.pem -CAkey vendor.key -CAcreateserial -days 9 -extfile names -out broker.pem"
                ),
            );
            let config = std::fs::read_to_string(world.path("agent.toml")).unwrap();
            let shown = format!(
                "[panel]\nlisten = \"{MAP}:502\"\nclients = [\"10.20.4.7\"]\nzones = [\"office\", \"control\"]\n\
                 [scada]\nbroker = \"{BROKER}:8883\"\nauthorities = \"{}\"\n",
                world.path("vendor.pem")
            );
            std::fs::write(world.path("agent.toml"), config + &shown).unwrap();
            let mut broker = world.scada_broker();
            let mut agent = world.start_agent();
            let first = world.release(false);
            world.wait_for_effective(first);

            // The whole of it is well; the heartbeat goes on.
            wait_until("both zones enforce", PATIENCE, || world.states() == Some([1, 1]))
                .unwrap_or_else(|error| panic!("{error}: {:?} {}", world.registers(0, 20), world.health()));
            let head = world.registers(0, 18);
            assert_eq!(head[..2], [0x5053, 1], "{head:?}");
            assert_eq!((head[3], head[4], head[6]), (1, 2, u16::try_from(first).unwrap()));
            assert_eq!(head[8], 1, "there is a session");
            wait_until("the heartbeat goes on", PATIENCE, || {
                world.registers(2, 1).first() > Some(&head[2])
            })
            .unwrap();
            let names = "from pymodbus.client import ModbusTcpClient as C; c = C(\"10.20.4.1\"); c.connect(); \
                         r = c.read_input_registers(1000, count=64).registers; \
                         print(b\"\".join(w.to_bytes(2, \"big\") for w in r).replace(b\"\\0\", b\" \").decode().split())";
            let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/bin/python");
            let said = world.done_at(&world.plc, &format!("{python} -c '{names}'"));
            assert_eq!(said.trim(), "['office', 'control']");

            // Nothing is written, nothing beyond the map is read, and nobody else gets there.
            for (line, expected) in [
                (
                    format!("mbpoll -m tcp -a 1 -0 -r 3 -t 4 -1 {MAP} -- 1"),
                    "Illegal function",
                ),
                (
                    format!("mbpoll -m tcp -a 1 -0 -r 4190 -c 11 -t 4 -1 {MAP} </dev/null"),
                    "Illegal data address",
                ),
            ] {
                let (succeeded, said) = world.types(&world.plc, &line);
                assert!(!succeeded && said.contains(expected), "{line}: {said}");
            }
            assert!(
                !world.passes(&format!("{MAP}:502"), false),
                "the office reaches the map"
            );
            let counted = || world.registers(12, 1).first().copied().unwrap_or(0);
            let before = counted();
            let come = format!(
                "from pymodbus.client import ModbusTcpClient as C; \
                 print([C(\"{MAP}\", source_address=(a, 0), timeout=1, retries=0).connect() for a in (\"{BROKER}\", \"{UNLISTED}\")])"
            );
            let said = world.done_at(&world.plc, &format!("{python} -c '{come}' 2>/dev/null"));
            assert_eq!(
                said.trim(),
                "[True, False]",
                "only the panel that is listed gets there"
            );
            wait_until("the refusal is counted", PATIENCE, || counted() > before).unwrap();

            // What is refused between the zones counts for both of them.
            assert!(!world.passes(NEVER, false));
            wait_until("both zones count it", PATIENCE, || {
                let zones = world.registers(100, 16);
                zones.get(3) > Some(&0) && zones.get(11) > Some(&0)
            })
            .unwrap_or_else(|error| panic!("{error}: {:?}", world.registers(100, 16)));

            // The broker holds the same, and knows when the session with the coordinator ends.
            world.wait_for_online("true");
            world.wait_for_health("the session", |health| health["session_since_ms"].is_u64());
            let health = world.health();
            assert_eq!(
                (&health["state"], &health["revision"]),
                (&"enforcing".into(), &first.into()),
                "{health}"
            );
            assert_eq!(health["zones"][0]["zone"], "control", "{health}");
            coordinator.kill();
            world.wait_for_health("no session", |health| health["session_since_ms"].is_null());
            wait_until("no session", PATIENCE, || world.registers(8, 1) == [0]).unwrap();

            // A zone that changes is seen by both; so is the end of that.
            world.desk.ip(&["link", "set", "eth0", "down"]).unwrap();
            wait_until("the office is degraded", PATIENCE, || {
                world.states().is_some_and(|[office, _]| office == 3)
            })
            .unwrap();
            world.wait_for_health("the office is degraded", |health| {
                health["zones"][1]["state"] == "degraded" && health["faults"][0]["code"] == "no-carrier"
            });
            world.desk.ip(&["link", "set", "eth0", "up"]).unwrap();
            world.desk.route("default", "10.1.0.1").unwrap();
            wait_until("the office enforces", PATIENCE, || {
                world.states().is_some_and(|[office, _]| office == 1)
            })
            .unwrap();

            // A broker that lost all has the newest state again; an agent that is killed is offline by its will, and comes back.
            broker.kill();
            let _broker = world.scada_broker();
            world.wait_for_online("true");
            world.wait_for_health("the state again", |health| health["state"] == "enforcing");
            agent.kill();
            world.wait_for_online("false");
            assert_eq!(world.health()["gateway"], "gw-1", "the last state stays");
            let mut agent = world.start_agent();
            world.wait_for_online("true");
            agent.terminate(Duration::from_secs(60)).unwrap();
            world.wait_for_online("false");
            world.assert_enforced("beside a panel and a broker");
        },
    );
}
