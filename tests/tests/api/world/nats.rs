//! A NATS server of the tests' own, on a free port and in a private folder, which ends with them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use penstock_coordinator::store::NatsSettings;

/// A server, and its folder.
struct Server {
    port: u16,
    _folder: tempfile::TempDir,
    /// It ends when this process does.
    _process: Child,
}

/// How long it may take until it listens.
const BEGUN: Duration = Duration::from_secs(20);

fn start() -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = free.local_addr().expect("its number").port();
    drop(free);
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/bin/nats-server");
    let process = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            program,
            "--addr",
            "127.0.0.1",
            "--jetstream",
        ])
        .args(["--port", &port.to_string()])
        .arg("--store_dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("target/peers/bin/nats-server: run scripts/setup");
    let until = Instant::now() + BEGUN;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < until, "the NATS server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Server {
        port,
        _folder: folder,
        _process: process,
    }
}

/// A stream of its own on the one server of this process.
pub fn stream() -> NatsSettings {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static STREAMS: AtomicUsize = AtomicUsize::new(0);
    let server = SERVER.get_or_init(start);
    NatsSettings {
        servers: vec![format!("nats://127.0.0.1:{}", server.port)],
        roots: None,
        own: None,
        user: None,
        stream: format!("plant-{}", STREAMS.fetch_add(1, Ordering::Relaxed)),
        replicas: 1,
    }
}
