//! MQTT inside TLS that ends in the gateway, and begins anew towards the broker: the agent beside an HAProxy with the same
//! certificate, which does the same and does not look at what it carries.
//!
//! Clients show a certificate, the broker asks for none. TLS 1.3, no session is resumed, all ends' keys are ECDSA P-256.
//! Clients exchange keys by X25519, as HAProxy's library knows no hybrid one; the agent still offers one to the broker. The
//! plant's authority signs with P-384, which OpenSSL 3.0 verifies slowly: a large part of what HAProxy takes for a handshake.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock_lab::Daemon;
use penstock_policy::plan::{Capability, Plan};
use penstock_policy::terms::Tls;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, IpAddr, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use super::connections::{self, Figures};
use super::gateway::{self, Enrolled, Inspecting};
use super::pki::{Files, Pki};
use super::{GATEWAY, Plant, SERVER, haproxy, median, mqtt, process, ratio};

const PORT: u16 = 8883;
const HANDSHAKE_ROUNDS: usize = 9;
/// Connections of one round, not counted those that warm it up.
const HANDSHAKES: usize = 480;
const PUBLICATION_ROUNDS: usize = 5;
const MEMORY_ROUNDS: usize = 3;
/// Connections that are held at once.
const HELD: usize = 1_000;
/// Until a start is over in every respect.
const SETTLE: Duration = Duration::from_secs(2);
/// MQTT 3.1.1, a clean session, no keepalive, no name: the broker chooses one.
const CONNECT: [u8; 14] = *b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00";
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// Whose TLS ends where.
struct World<'a> {
    plant: &'a Plant,
    plan: Plan,
    enrolled: Enrolled,
    broker: Files,
    client: Files,
    /// The same certificate as a client in this process shows it.
    config: Arc<ClientConfig>,
}

/// What ends TLS in the gateway.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Proxied,
    Inspected,
}

pub(super) const WAYS: [Way; 2] = [Way::Proxied, Way::Inspected];
pub(super) const NAMES: [&str; 2] = ["HAProxy", "inspected"];

/// A way that is open.
pub(super) enum Running {
    Proxied(Daemon),
    Inspected(Inspecting),
}

impl Running {
    pub(super) fn id(&self) -> u32 {
        match self {
            Self::Proxied(proxy) => proxy.id(),
            Self::Inspected(agent) => agent.id(),
        }
    }
}

/// A client's connection.
type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Prints handshakes, publications and memory.
pub(super) fn all(plant: &Plant) {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(plant, folder.path());
    world.handshakes();
    world.publications();
    world.memory();
}

impl<'a> World<'a> {
    fn new(plant: &'a Plant, folder: &Path) -> Self {
        let pki = Pki::new(folder);
        // Clients take the gateway for the broker, and HAProxy for itself.
        let identity = pki.gateway(&[SERVER, GATEWAY]);
        let mut plan = gateway::plan(PORT, Some(mqtt::rules(1)));
        plan.rules[0].tls = Some(Tls::default().into());
        plan.requires.insert(Capability("inspect:mqtt-tls".to_owned()));
        let client = pki.device("hmi", &[]);
        Self {
            plant,
            plan,
            enrolled: Enrolled {
                enrolment: identity.enrolment.clone(),
                files: folder.join("gateway/identity"),
            },
            broker: pki.device("plc", &[SERVER]),
            config: config(&client),
            client,
        }
    }

    fn broker(&self) -> Daemon {
        let Files { certificate, key, .. } = &self.broker;
        // Else each acceptance waits for the acknowledgement of what its TLS sent before, some 40 ms.
        let more = format!("set_tcp_nodelay true\nuser root\ncertfile {certificate}\nkeyfile {key}\n");
        mqtt::broker(self.plant, PORT, &more)
    }

    fn open(&self, way: Way) -> Running {
        gateway::clear(self.plant);
        match way {
            Way::Proxied => Running::Proxied(self.proxy()),
            Way::Inspected => {
                Running::Inspected(Inspecting::start_enrolled(self.plant, &self.plan, &self.enrolled))
            }
        }
    }

    fn proxy(&self) -> Daemon {
        let files = &self.enrolled.files;
        let parts = ["chain.pem", "key.pem"].map(|part| std::fs::read_to_string(files.join(part)).unwrap());
        let own = files.with_file_name("haproxy.pem");
        std::fs::write(&own, parts.concat()).unwrap();
        let authority = format!("ca-file {} verify required", self.client.authority);
        let bind = format!(
            "ssl crt {} {authority} ssl-min-ver TLSv1.3 no-tls-tickets",
            own.display()
        );
        let server = format!("ssl {authority} ssl-min-ver TLSv1.3 no-ssl-reuse");
        let settings = haproxy::Settings {
            bind: &bind,
            server: &server,
            ..haproxy::Settings::default()
        };
        haproxy::start(self.plant, PORT, settings)
    }

    /// A connection whose MQTT session the broker has accepted, so that both handshakes are over.
    fn dial(&self, way: Way) -> Stream {
        let (host, port) = address(way);
        let tcp = TcpStream::connect((host, port)).unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::IpAddress(IpAddr::try_from(host).unwrap());
        let tls = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        let mut stream = StreamOwned::new(tls, tcp);
        stream.write_all(&CONNECT).unwrap();
        let mut answer = [0; CONNACK.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, CONNACK);
        assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
        stream
    }

    fn handshakes(&self) {
        let _broker = self.broker();
        let mut figures = NAMES.map(Figures::new);
        for _ in 0..HANDSHAKE_ROUNDS {
            for way in WAYS {
                let running = self.open(way);
                let dial = || drop(self.dial(way));
                connections::rate(self.plant, HANDSHAKES / 10, dial);
                figures[way as usize]
                    .measure(running.id(), || connections::rate(self.plant, HANDSHAKES, dial));
            }
        }
        println!(
            "new connections of MQTT inside TLS up to the broker's acceptance, two full handshakes each, {HANDSHAKES} a round, \
             median of {HANDSHAKE_ROUNDS} interleaved rounds:"
        );
        connections::print(&figures, HANDSHAKES);
    }

    fn publications(&self) {
        let messages = mqtt::messages();
        let mut figures = NAMES.map(Figures::new);
        for _ in 0..PUBLICATION_ROUNDS {
            for way in WAYS {
                let _broker = self.broker();
                let running = self.open(way);
                let (host, port) = address(way);
                let port = port.to_string();
                let to = [&["-h", host, "-p", &port][..], &self.client.arguments()].concat();
                figures[way as usize].measure(running.id(), || mqtt::rate(self.plant, &messages, &to));
            }
        }
        println!(
            "publications at QoS 1 through one such connection, mosquitto_pub, {} a round, median of {PUBLICATION_ROUNDS} \
             interleaved rounds:",
            mqtt::MESSAGES
        );
        connections::print(&figures, mqtt::MESSAGES);
    }

    fn memory(&self) {
        let _broker = self.broker();
        // Idle, and with the connections.
        let mut figures = [const { [const { Vec::new() }; 2] }; 2];
        for _ in 0..MEMORY_ROUNDS {
            for way in WAYS {
                let running = self.open(way);
                std::thread::sleep(SETTLE);
                let idle = process::resident_mb(running.id());
                let hold = || (0..HELD).map(|_| self.dial(way)).collect::<Vec<_>>();
                let held = self.plant.client.enter(hold).unwrap();
                std::thread::sleep(SETTLE);
                let with_connections = process::resident_mb(running.id());
                drop(held);
                let [idle_list, held_list] = &mut figures[way as usize];
                idle_list.push(idle);
                held_list.push(with_connections);
            }
        }
        println!(
            "resident memory with {HELD} such connections, median of {MEMORY_ROUNDS} interleaved rounds:"
        );
        let growth = figures.clone().map(|[idle, held]| median(held) - median(idle));
        for ((name, figures), growth) in NAMES.iter().zip(&figures).zip(growth) {
            let [idle, held] = figures.clone().map(median);
            println!(
                "  {name:10} idle {idle:.1} MB, with them {held:.1} MB: {:.1} KB for each",
                growth * 1024.0 / HELD as f64
            );
        }
        println!(
            "  inspected to HAProxy: all {:.2}, for each {:.2}",
            ratio(&figures[1][1], &figures[0][1]),
            growth[1] / growth[0]
        );
    }
}

fn address(way: Way) -> (&'static str, u16) {
    match way {
        Way::Proxied => (GATEWAY, haproxy::PORT),
        Way::Inspected => (SERVER, PORT),
    }
}

pub(super) fn config(own: &Files) -> Arc<ClientConfig> {
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let certificates = |path: &str| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(path)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&own.authority));
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            certificates(&own.certificate),
            PrivateKeyDer::from_pem_file(&own.key).unwrap(),
        )
        .unwrap();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}
