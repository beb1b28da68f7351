//! Mutual TLS that ends in the gateway before a server that speaks none: the agent beside an HAProxy with the same certificate, which does the same.
//!
//! TLS 1.3, no session is resumed, all ends' keys are ECDSA P-256, X25519. The service is one that nobody reads (`allow` says nothing of it), as for HAProxy.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use penstock_lab::Daemon;
use penstock_policy::plan::{Capability, Plan};
use penstock_policy::terms::Tls;
use rustls::pki_types::{IpAddr, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use super::connections::{self, Figures};
use super::gateway::{self, Enrolled, Inspecting};
use super::pki::{Files, Pki};
use super::tls::{NAMES, Running, WAYS, Way, config};
use super::{GATEWAY, Plant, SERVER, haproxy, median, ratio};

/// Where clients connect inside TLS, and where the server listens.
const PORT: u16 = 10_102;
const PLAIN_PORT: u16 = 102;
const ROUNDS: usize = 5;
/// Connections of one round, not counted those that warm it up.
const HANDSHAKES: usize = 400;
/// Of one stream, in mebibytes.
const BULK: usize = 256;
/// Requests of one round, one after the other, and the bytes of each.
const REQUESTS: usize = 4_000;
const REQUEST_BYTES: usize = 100;

/// What the server does with a connection, by its first byte.
const ECHO: u8 = b'e';
const SINK: u8 = b's';

struct World<'a> {
    plant: &'a Plant,
    plan: Plan,
    enrolled: Enrolled,
    client: Files,
    config: Arc<ClientConfig>,
}

/// Prints handshakes, throughput and latency.
pub(super) fn all(plant: &Plant) {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(plant, folder.path());
    serve(plant);
    world.handshakes();
    world.bulk();
    world.latency();
}

/// A server that sends back what it gets, or reads 2^20 bytes after the other and says when.
fn serve(plant: &Plant) {
    let listener = plant
        .server
        .enter(|| TcpListener::bind((SERVER, PLAIN_PORT)).unwrap())
        .unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(|| served(stream.unwrap()));
        }
    });
}

fn served(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut kind = [0];
    stream.read_exact(&mut kind).ok()?;
    let mut buffer = vec![0; 1 << 16];
    let mut left = BULK << 20;
    loop {
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        if kind[0] == ECHO {
            stream.write_all(&buffer[..length]).ok()?;
        } else {
            left -= length;
            if left == 0 {
                return stream.write_all(b".").ok();
            }
        }
    }
}

impl<'a> World<'a> {
    fn new(plant: &'a Plant, folder: &Path) -> Self {
        let pki = Pki::new(folder);
        let identity = pki.gateway(&[SERVER, GATEWAY]);
        let mut plan = gateway::plan(PORT, None);
        plan.rules[0].tls = Some(
            Tls {
                plain_port: Some(PLAIN_PORT),
                ..Tls::default()
            }
            .into(),
        );
        plan.requires.insert(Capability::of(Capability::TLS_BEFORE_PLAIN));
        let client = pki.device("hmi", &[]);
        Self {
            plant,
            plan,
            enrolled: Enrolled {
                enrolment: identity.enrolment.clone(),
                files: folder.join("gateway/identity"),
            },
            config: config(&client),
            client,
        }
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
        let bind = format!(
            "ssl crt {} ca-file {} verify required ssl-min-ver TLSv1.3 no-tls-tickets",
            own.display(),
            self.client.authority
        );
        let settings = haproxy::Settings {
            bind: &bind,
            ..haproxy::Settings::default()
        };
        haproxy::start(self.plant, PLAIN_PORT, settings)
    }

    /// A connection on which the server has answered once, so that it stands on both legs.
    fn dial(&self, way: Way, kind: u8) -> StreamOwned<ClientConnection, TcpStream> {
        let (host, port) = match way {
            Way::Proxied => (GATEWAY, haproxy::PORT),
            Way::Inspected => (SERVER, PORT),
        };
        let tcp = TcpStream::connect((host, port)).unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::IpAddress(IpAddr::try_from(host).unwrap());
        let tls = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        let mut stream = StreamOwned::new(tls, tcp);
        stream.write_all(&[kind]).unwrap();
        if kind == ECHO {
            stream.write_all(b".").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
        }
        stream
    }

    fn handshakes(&self) {
        let mut figures = NAMES.map(Figures::new);
        for _ in 0..ROUNDS {
            for way in WAYS {
                let running = self.open(way);
                let dial = || drop(self.dial(way, ECHO));
                connections::rate(self.plant, HANDSHAKES / 10, dial);
                figures[way as usize]
                    .measure(running.id(), || connections::rate(self.plant, HANDSHAKES, dial));
            }
        }
        println!(
            "new connections of mutual TLS before a server in the plain, up to its first answer, {HANDSHAKES} a round, median of {ROUNDS} \
             interleaved rounds:"
        );
        connections::print(&figures, HANDSHAKES);
    }

    fn bulk(&self) {
        let mut figures = NAMES.map(Figures::new);
        let piece = vec![7; 1 << 16];
        for _ in 0..ROUNDS {
            for way in WAYS {
                let running = self.open(way);
                let send = || {
                    let mut stream = self.dial(way, SINK);
                    let began = Instant::now();
                    for _ in 0..BULK << 4 {
                        stream.write_all(&piece).unwrap();
                    }
                    stream.read_exact(&mut [0]).unwrap();
                    BULK as f64 / began.elapsed().as_secs_f64()
                };
                figures[way as usize].measure(running.id(), || self.plant.client.enter(send).unwrap());
            }
        }
        println!(
            "mebibytes a second through one such connection, {BULK} a round, median of {ROUNDS} interleaved rounds:"
        );
        connections::print(&figures, BULK);
    }

    fn latency(&self) {
        let mut times = [const { [const { Vec::new() }; 2] }; 2];
        for _ in 0..ROUNDS {
            for way in WAYS {
                let _running = self.open(way);
                let ask = || {
                    let mut stream = self.dial(way, ECHO);
                    let mut times: Vec<f64> = (0..REQUESTS)
                        .map(|_| {
                            let began = Instant::now();
                            stream.write_all(&[7; REQUEST_BYTES]).unwrap();
                            stream.read_exact(&mut [0; REQUEST_BYTES]).unwrap();
                            began.elapsed().as_secs_f64() * 1e6
                        })
                        .collect();
                    times.sort_by(f64::total_cmp);
                    [times[REQUESTS / 2], times[REQUESTS * 99 / 100]]
                };
                let [middle, slow] = self.plant.client.enter(ask).unwrap();
                times[way as usize][0].push(middle);
                times[way as usize][1].push(slow);
            }
        }
        println!(
            "a request of {REQUEST_BYTES} bytes and its answer through one such connection, {REQUESTS} a round, median of {ROUNDS} \
             interleaved rounds:"
        );
        for (name, [middle, slow]) in NAMES.iter().zip(&times) {
            println!(
                "  {name:28} p50 {:7.1} us, p99 {:7.1} us",
                median(middle.clone()),
                median(slow.clone())
            );
        }
        let [proxied, ended] = &times;
        println!(
            "  agent to HAProxy, median of the rounds: p50 {:.2}, p99 {:.2}",
            ratio(&ended[0], &proxied[0]),
            ratio(&ended[1], &proxied[1])
        );
    }
}
