//! NATS servers of the tests' own, on free ports and in private folders, which end with their process.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use penstock_coordinator::store::NatsSettings;

/// Servers that know each other.
pub struct Servers {
    ports: Vec<u16>,
    processes: Vec<Child>,
    _folder: tempfile::TempDir,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// How long they may take until they listen.
const BEGUN: Duration = Duration::from_secs(20);

impl Servers {
    /// So many; each with these lines in its section `jetstream`.
    pub fn start(count: usize, jetstream: &str) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let bound: Vec<TcpListener> = (0..2 * count)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"))
            .collect();
        let ports: Vec<u16> = bound
            .iter()
            .map(|listener| listener.local_addr().expect("its number").port())
            .collect();
        drop(bound);
        let (ports, routes) = ports.split_at(count);
        let all: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let launch = |(port, route): (&u16, &u16)| {
            let store = folder.path().join(port.to_string());
            std::fs::create_dir(&store).expect("a folder");
            let cluster = match count {
                1 => String::new(),
                _ => format!(
                    "cluster {{\n name: c\n listen: \"127.0.0.1:{route}\"\n routes: [{}]\n}}\n",
                    all.join(", ")
                ),
            };
            let config = format!(
                "server_name: s{port}\nlisten: \"127.0.0.1:{port}\"\njetstream {{\n store_dir: {store:?}\n {jetstream}\n}}\n{cluster}"
            );
            let file = store.join("server.conf");
            std::fs::write(&file, config).expect("its configuration");
            let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/bin/nats-server");
            Command::new("setpriv")
                .args(["--pdeathsig", "KILL", program, "-c"])
                .arg(file)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("target/peers/bin/nats-server: run scripts/setup")
        };
        let processes = ports.iter().zip(routes).map(launch).collect();
        let until = Instant::now() + BEGUN;
        for port in ports {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err() {
                assert!(Instant::now() < until, "a NATS server does not listen");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Self {
            ports: ports.to_vec(),
            processes,
            _folder: folder,
        }
    }

    /// A stream of its own.
    pub fn stream(&self) -> NatsSettings {
        static STREAMS: AtomicUsize = AtomicUsize::new(0);
        let servers = self.ports.iter().map(|port| format!("nats://127.0.0.1:{port}"));
        NatsSettings {
            servers: servers.collect(),
            roots: None,
            own: None,
            user: None,
            stream: format!("plant-{}", STREAMS.fetch_add(1, Ordering::Relaxed)),
            replicas: self.ports.len(),
        }
    }
}
