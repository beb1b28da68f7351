//! A device that reaches no coordinator enrols through the gateway at its zone: the real programs, the real rules.

use std::net::TcpListener;
use std::process::Stdio;

use penstock_lab::{Namespace, wait_until};

use super::world::{PATIENCE, World, test};

/// Where devices enrol through the gateway.
const EST: &str = "10.20.4.1:9443";
/// Another port of the gateway, at which something listens.
const OTHER: &str = "10.20.4.1:9444";

impl World {
    /// A shell's line in this place, in the folder of the test: whether it succeeded, and what it printed.
    pub fn types(&self, place: &Namespace, line: &str) -> (bool, String) {
        let line = format!("cd {} && {line}", self.path(""));
        let mut command = place.command("sh");
        let output = command.args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    pub fn done_at(&self, place: &Namespace, line: &str) -> String {
        let (succeeded, said) = self.types(place, line);
        assert!(succeeded, "{line}: {said}");
        said
    }

    /// The status of HTTP that a device gets there, and what else; 0: none.
    fn asks(&self, place: &Namespace, operation: &str, more: &str) -> (u32, String) {
        let line = format!(
            "curl --silent --show-error --max-time 40 --cacert ca.pem --output answer --write-out '%{{http_code}}' {more} https://{EST}/.well-known/est/{operation}"
        );
        let (_, said) = self.types(place, &line);
        let status = said.get(..3).and_then(|status| status.parse().ok()).unwrap_or(0);
        let answer = std::fs::read(self.path("answer")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("answer"));
        (status, format!("{said} {}", String::from_utf8_lossy(&answer)))
    }
}

/// A request for a certificate with the key of this name.
fn sends(request: &str) -> String {
    format!("--header 'Content-Type: application/pkcs10' --data-binary @{request}.b64")
}

#[test]
fn a_device_enrols_and_renews_through_the_gateway_at_its_zone_and_reaches_nothing_else_there() {
    test(
        "est::a_device_enrols_and_renews_through_the_gateway_at_its_zone_and_reaches_nothing_else_there",
        |lab| {
            let state = lab.directory().join("state");
            let (world, mut coordinator) = World::new(lab, &state);
            let config = std::fs::read_to_string(world.path("agent.toml")).unwrap();
            std::fs::write(
                world.path("agent.toml"),
                format!("{config}[est]\nlisten = [\"{EST}\"]\n"),
            )
            .unwrap();
            let _agent = world.start_agent();
            let first = world.release(false);
            world.wait_for_effective(first);
            let listener = world.gateway.enter(|| TcpListener::bind(OTHER).unwrap()).unwrap();
            std::thread::spawn(move || listener.incoming().for_each(drop));

            std::fs::copy(world.path("coordinator/ca/root.pem"), world.path("ca.pem")).unwrap();
            let file = world.path("plc.password");
            world.penstock_confirmed(&["devices", "token", "plc", "--out", &file], None);
            let make = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout NAME.key -subj /CN=x -outform DER -out NAME.der && openssl base64 -in NAME.der -out NAME.b64";
            for name in ["one", "two"] {
                world.done_at(&world.plc, &make.replace("NAME", name));
            }

            // As soon as the gateway's certificate names its own address, which the release declares.
            wait_until("the gateway is known by its address", PATIENCE, || {
                world.asks(&world.plc, "cacerts", "").0 == 200
            })
            .unwrap_or_else(|error| panic!("{error}: {:?}", world.asks(&world.plc, "cacerts", "")));
            let login = "--user \"plc:$(cat plc.password)\"";
            let asked = world.asks(&world.plc, "simpleenroll", &sends("one"));
            assert_eq!(asked.0, 401, "{asked:?}");
            let keep = "--output one.p7";
            let enrol = format!("{} {login} {keep}", sends("one"));
            let asked = world.asks(&world.plc, "simpleenroll", &enrol.replace(keep, ""));
            assert_eq!(asked.0, 200, "{asked:?}");
            // The same key gets it again.
            world.done_at(
                &world.plc,
                &format!(
                    "curl --fail --silent --cacert ca.pem {enrol} https://{EST}/.well-known/est/simpleenroll"
                ),
            );
            world.done_at(
                &world.plc,
                "openssl base64 -d -A -in one.p7 | openssl pkcs7 -inform DER -print_certs -out one.pem",
            );
            let said = world.done_at(
                &world.plc,
                "openssl verify -CAfile ca.pem one.pem && openssl x509 -in one.pem -noout -text",
            );
            assert!(said.contains("URI:spiffe://spine/device/plc"), "{said}");

            // By its certificate: with the same key, and with no other.
            let own = "--cert one.pem --key one.key";
            let asked = world.asks(&world.plc, "simplereenroll", &format!("{} {own}", sends("one")));
            assert_eq!(asked.0, 200, "{asked:?}");
            let asked = world.asks(&world.plc, "simplereenroll", &format!("{} {own}", sends("two")));
            assert_eq!(asked.0, 403, "{asked:?}");
            assert!(
                asked.1.contains("only the same key is renewed there"),
                "{asked:?}"
            );
            let records = world.penstock("admin", &["audit", "search", "device/plc", "--kind", "identity"]);
            assert!(
                records
                    .to_string()
                    .contains("by EST through gateway/gw-1, life 1, key sha256:"),
                "{records}"
            );

            // The gateway's other ports, and the other side, are as closed as before.
            let (reached, said) = world.types(
                &world.plc,
                &format!("curl --silent --max-time 2 telnet://{OTHER} </dev/null"),
            );
            assert!(!reached, "{said}");
            world.assert_enforced("beside a gateway through which devices enrol");

            // Without a coordinator: what the gateway knows, and when to ask again.
            coordinator.kill();
            let asked = world.asks(
                &world.plc,
                "simplereenroll",
                &format!("{} {own} --dump-header head", sends("one")),
            );
            assert_eq!(asked.0, 503, "{asked:?}");
            let head = std::fs::read_to_string(world.path("head"))
                .unwrap()
                .to_lowercase();
            assert!(head.contains("retry-after: 60"), "{head}");
            assert_eq!(world.asks(&world.plc, "cacerts", "").0, 200);
        },
    );
}
