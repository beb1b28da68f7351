//! Copies that follow a stream of real NATS servers: one for what every engine keeps to, three for what becomes of it when servers are
//! killed, stopped and started again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::*;
use crate::store::conformance::{Bench, chain, run};
use crate::store::sqlite::replica::tests::{NO_RESERVE, add_one, failing, held};
use crate::store::{Append, FaultCause, Store};

/// A server process, which ends with this one.
struct Server {
    folder: PathBuf,
    port: u16,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let bound = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    bound.map(|listener| listener.local_addr().unwrap().port())
}

fn launch(folder: &Path) -> Child {
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/bin/nats-server");
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", server, "-c"])
        .arg(folder.join("server.conf"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("target/peers/bin/nats-server: run scripts/setup")
}

impl Server {
    fn start(folder: &Path, port: u16, config: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("server.conf"), config).unwrap();
        Self {
            process: launch(folder),
            folder: folder.to_owned(),
            port,
        }
        .listening()
    }

    fn listening(self) -> Self {
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(
                Instant::now() < until,
                "{}",
                std::fs::read_to_string(self.folder.join("log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self
    }

    fn again(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = launch(&self.folder);
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.process.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

fn settings(ports: &[u16], stream: &str, replicas: usize) -> NatsSettings {
    NatsSettings {
        servers: ports
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect(),
        roots: None,
        own: None,
        user: None,
        stream: stream.to_owned(),
        replicas,
    }
}

/// The one server of this process, and its folder.
fn server() -> u16 {
    static SERVER: OnceLock<(tempfile::TempDir, Server)> = OnceLock::new();
    let (_, server) = SERVER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let [port] = free_ports();
        let store = folder.path().join("store");
        let config = format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?} }}");
        let server = Server::start(folder.path(), port, &config);
        (folder, server)
    });
    server.port
}

/// A copy, and the stream that it follows.
pub(in crate::store) struct OnServer {
    pub(super) folder: tempfile::TempDir,
    stream: String,
    /// On which what the log itself does runs; `None`: it has ended.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for OnServer {
    fn drop(&mut self) {
        // Some properties end within a runtime of their own.
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Default for OnServer {
    fn default() -> Self {
        static STREAMS: AtomicUsize = AtomicUsize::new(0);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Self {
            folder: tempfile::tempdir().unwrap(),
            stream: format!("s{}", STREAMS.fetch_add(1, Ordering::Relaxed)),
            runtime: Some(runtime.unwrap()),
        }
    }
}

impl OnServer {
    fn path(&self) -> PathBuf {
        self.folder.path().join("c1.db")
    }

    pub(super) fn settings(&self) -> NatsSettings {
        settings(&[server()], &self.stream, 1)
    }

    /// Also from within a runtime of the property's.
    pub(super) fn on_runtime<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        let runtime = self.runtime.as_ref().unwrap();
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(future)).join().unwrap())
    }
}

impl Bench for OnServer {
    fn open(&self) -> Store {
        let path = self.path();
        let opened = Store::open_replicated(&path, NO_RESERVE, "c1", self.settings());
        self.on_runtime(opened).unwrap()
    }

    fn failing(&self, cause: FaultCause) -> Store {
        failing(&self.path(), cause, |after| {
            self.on_runtime(self.settings().open(after)).unwrap()
        })
    }
}

/// The configuration that the runbook names.
const DEPLOYED: &str = include_str!("../../../../deploy/nats.conf");

/// Three servers that replicate, configured as `deploy/nats.conf` says but for places and ports.
struct Cluster {
    folder: tempfile::TempDir,
    servers: Vec<Server>,
}

/// A root, and certificates below it for servers and for a coordinator.
fn certificates(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    write("root.pem", params.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(params, key);
    for name in ["server", "client"] {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        write(
            &format!("{name}.pem"),
            params.signed_by(&key, &issuer).unwrap().pem(),
        );
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let [a, b, c, one, two, three] = free_ports();
        let shared = [(1, a), (2, b), (3, c)]
            .iter()
            .fold(DEPLOYED.to_owned(), |config, (number, route)| {
                config.replace(
                    &format!("nats-{number}.example:6222"),
                    &format!("127.0.0.1:{route}"),
                )
            });
        let shared = shared.replace("/etc/nats", folder.path().to_str().unwrap());
        let servers = [(a, one), (b, two), (c, three)].map(|(route, port)| {
            let own = folder.path().join(port.to_string());
            let config = shared
                .replace("server_name: nats-1", &format!("server_name: s{port}"))
                .replace("0.0.0.0:4222", &format!("127.0.0.1:{port}"))
                .replace("0.0.0.0:6222", &format!("127.0.0.1:{route}"))
                .replace("/var/lib/nats", own.join("store").to_str().unwrap());
            Server::start(&own, port, &config)
        });
        Self {
            folder,
            servers: servers.into(),
        }
    }

    fn settings(&self) -> NatsSettings {
        let file = |name: &str| self.folder.path().join(name);
        let servers = self
            .servers
            .iter()
            .map(|server| format!("tls://127.0.0.1:{}", server.port));
        NatsSettings {
            servers: servers.collect(),
            roots: Some(file("root.pem")),
            own: Some((file("client.pem"), file("client.key"))),
            user: None,
            stream: "plant".to_owned(),
            replicas: 3,
        }
    }

    /// As soon as most of the servers know each other.
    async fn open(&self, path: &Path, name: &str) -> Store {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match Store::open_replicated(path, NO_RESERVE, name, self.settings()).await {
                Ok(store) => return store,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Whoever asks again until the store answers, as gateways and people do.
async fn deliver(store: &Store, blocks: &[crate::store::NewBlock]) {
    while store.append("gw", blocks.to_vec()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn servers_that_are_killed_and_stopped_lose_nothing_that_was_acknowledged_and_the_copies_stay_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("{name}.db"));
    let mut cluster = Cluster::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let counted = Arc::new(AtomicU64::new(0));
    let wait_for = |more: u64| {
        let goal = counted.load(Ordering::Relaxed) + more;
        let until = Instant::now() + Duration::from_secs(60);
        while counted.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < until, "nothing is acknowledged any more");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let stop = CancellationToken::new();
    let writers: Vec<_> = ["c1", "c2"]
        .map(|name| {
            let store = runtime.block_on(cluster.open(&path(name), name));
            let (counted, stop) = (counted.clone(), stop.clone());
            runtime.spawn(async move {
                let bodies: Vec<Vec<u8>> = (0..=255).map(|n| vec![n; 2000]).collect();
                let mut counts = Vec::new();
                let mut blocks = chain(1, &bodies).into_iter();
                while !stop.is_cancelled() {
                    if let Some(count) = add_one(&store).await {
                        counted.fetch_add(1, Ordering::Relaxed);
                        counts.push(count);
                    }
                    if let Some(new) = blocks.next() {
                        deliver(&store, &[new]).await;
                    }
                }
                counts
            })
        })
        .into();
    wait_for(20);
    for victim in 0..3 {
        cluster.servers[victim].again();
        wait_for(10);
    }
    // Held in mid-air, as a machine does whose disk hangs, and let go.
    cluster.servers[0].signal("-STOP");
    let stopped = format!("s{}", cluster.servers[0].port);
    let named = async {
        let pulses = cluster.settings().pulses().await.unwrap();
        loop {
            let reached = pulses.reach().await;
            if reached.is_ok_and(|servers| (servers.count, servers.away) == (3, vec![stopped.clone()])) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let named = async { tokio::time::timeout(Duration::from_secs(60), named).await };
    runtime.block_on(named).expect("the server that is away is named");
    wait_for(10);
    cluster.servers[0].signal("-CONT");
    wait_for(5);
    stop.cancel();
    // Nobody gets in without a certificate, or believes a server that has another root.
    let unknown = NatsSettings {
        own: None,
        ..cluster.settings()
    };
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let misled = NatsSettings {
        roots: Some(other.path().join("root.pem")),
        ..cluster.settings()
    };
    for settings in [unknown, misled] {
        let refused = runtime.block_on(Store::open_replicated(&path("x"), NO_RESERVE, "x", settings));
        assert!(
            matches!(refused, Err(StoreError::Unreachable { .. })),
            "{refused:?}"
        );
    }
    let mut counts: Vec<u64> = Vec::new();
    for writer in writers {
        counts.extend(runtime.block_on(writer).unwrap());
    }
    for name in ["c1", "c2", "fresh"] {
        let store = runtime.block_on(cluster.open(&path(name), name));
        let held = runtime.block_on(store.get("count")).unwrap().unwrap().value;
        let held: u64 = String::from_utf8(held).unwrap().parse().unwrap();
        assert!(counts.iter().all(|count| *count <= held));
        let head = runtime.block_on(store.head("gw")).unwrap().unwrap();
        let same = runtime.block_on(store.append("gw", chain(1, &[vec![0; 2000]])));
        assert_eq!(same.unwrap(), [Append::Held { head }]);
    }
    let acknowledged = counts.len();
    counts.sort_unstable();
    counts.dedup();
    assert_eq!(counts.len(), acknowledged, "a count was given twice");
    let fresh = held(&path("fresh"));
    assert_eq!(held(&path("c1")), fresh);
    assert_eq!(held(&path("c2")), fresh);
}

#[test]
fn a_stream_that_would_throw_messages_away_is_refused_and_servers_that_are_not_there_are_said() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let client = async_nats::connect(format!("nats://127.0.0.1:{}", server()))
            .await
            .unwrap();
        let config = StreamConfig {
            name: "old".to_owned(),
            subjects: vec![subject("old")],
            max_age: Duration::from_secs(3600),
            ..StreamConfig::default()
        };
        jetstream::new(client).create_stream(config).await.unwrap();
        let refused = Store::open_replicated(&path, NO_RESERVE, "c1", settings(&[server()], "old", 1)).await;
        assert!(refused.unwrap_err().to_string().contains("throw messages away"));
        let [nobody] = free_ports();
        let absent = Store::open_replicated(&path, NO_RESERVE, "c1", settings(&[nobody], "s", 1)).await;
        assert!(
            matches!(absent, Err(StoreError::Unreachable { .. })),
            "{absent:?}"
        );
    });
}
