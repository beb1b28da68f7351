//! One gateway with its agent, between a client that sends all the time and a server.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use penstock_agent::link::enrol::enrol;
use penstock_lab::{Lab, Namespace};
use penstock_policy::model::ApproverSet;
use penstock_proto::token::{Secret, Token};
use penstock_proto::v1;

use super::coordinator::{Coordinator, confirmed};
use super::{ADDRESS, PATIENCE, document};

/// How often the client sends to each port: how finely the moment is known.
const SEND_EVERY: Duration = Duration::from_millis(1);
/// The ports of the releases, in turn.
const PORTS: [u16; 2] = [1000, 1001];

pub(super) struct Site {
    number: u32,
    gateway: Namespace,
    arrivals: Arc<Arrivals>,
    epoch: Instant,
    agent: Option<Child>,
    /// Not on a memory file system: storing is part of what is measured.
    folder: tempfile::TempDir,
}

/// When packets came through to each port: the first since a release was made, and the last.
#[derive(Default)]
struct Arrivals {
    first_us: [AtomicU64; 2],
    last_us: [AtomicU64; 2],
    over: AtomicBool,
}

/// The port of a release, by its place.
fn place(release: u64) -> usize {
    usize::from(release % 2 == 1)
}

impl Site {
    /// As the document has it; the coordinator is reached over a link of its own.
    pub(super) fn build(lab: &Lab, headquarters: &Namespace, (part, number): (&str, u32)) -> Self {
        let [client, gateway, server] =
            ["client", "gw", "plc"].map(|name| lab.namespace(&format!("{name}-{part}-{number}")).unwrap());
        gateway.forward().unwrap();
        let (centre, station) = (format!("10.0.1.{number}"), format!("10.1.{number}.1"));
        let plc = format!("10.1.{number}.7");
        for (host, port, own, there, length) in [
            (&client, "eth1", centre.as_str(), "10.0.255.21", 16),
            (&server, "eth2", &station, &plc, 24),
        ] {
            lab.link((host, "eth0"), (&gateway, port)).unwrap();
            host.address("eth0", &format!("{there}/{length}")).unwrap();
            gateway.address(port, &format!("{own}/{length}")).unwrap();
            host.route("default", own).unwrap();
        }
        let link = format!("gw{number}");
        lab.link((headquarters, &link), (&gateway, "eth0")).unwrap();
        headquarters
            .address(&link, &format!("198.51.100.{}/30", 4 * number + 1))
            .unwrap();
        gateway
            .address("eth0", &format!("198.51.100.{}/30", 4 * number + 2))
            .unwrap();
        gateway
            .route(
                &format!("{ADDRESS}/32"),
                &format!("198.51.100.{}", 4 * number + 1),
            )
            .unwrap();
        let (epoch, arrivals) = (Instant::now(), Arc::<Arrivals>::default());
        let sender = client
            .enter(|| UdpSocket::bind("10.0.255.21:40000").unwrap())
            .unwrap();
        let sent = Arc::clone(&arrivals);
        let to = plc.clone();
        std::thread::spawn(move || send(&sender, &to, &sent));
        for (place, port) in PORTS.into_iter().enumerate() {
            let receiver = server
                .enter(|| UdpSocket::bind((plc.as_str(), port)).unwrap())
                .unwrap();
            let arrivals = Arc::clone(&arrivals);
            std::thread::spawn(move || receive(&receiver, place, epoch, &arrivals));
        }
        Self {
            number,
            gateway,
            arrivals,
            epoch,
            agent: None,
            folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
        }
    }

    /// Enrols the gateway with a token, and starts its agent.
    pub(super) async fn enrol(&mut self, coordinator: &Coordinator, approvers: &ApproverSet) {
        let name = document::gateway(self.number);
        let mut admin = coordinator
            .control(coordinator.certificate("operator/admin"))
            .await;
        let request = v1::CreateTokenRequest {
            role: v1::Role::Unspecified.into(),
            valid_seconds: 600,
            subject: Some(v1::create_token_request::Subject::Gateway(name.clone())),
            approvers_digest: approvers.digest().0.to_vec().into(),
            approvers: approvers.to_bytes().into(),
            ..v1::CreateTokenRequest::default()
        };
        let bob = coordinator.certificate("operator/bob");
        let mut bob = coordinator.control(bob).await;
        let secret = confirmed(&mut admin, Some(&mut bob), request).await;
        let token = Token {
            plant: document::PLANT.parse().unwrap(),
            subject: format!("gateway/{name}").parse().unwrap(),
            coordinators: vec![coordinator.address.clone()],
            secret: Secret::try_from(&secret[..]).unwrap(),
            root_digest: coordinator.authority.root_digest(),
            approvers: Some(approvers.clone()),
            expires_ms: u64::MAX,
        };
        enrol(self.folder.path(), &token).await.unwrap();
        let config = self.folder.path().join("agent.toml");
        let text = format!("[agent]\nstate_folder = {:?}\n", self.folder.path());
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let agent = self
            .gateway
            .command(program().to_str().unwrap())
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(agent);
    }

    /// Packets to the port of this release were refused so far.
    pub(super) fn forget(&self, release: u64) {
        self.arrivals.first_us[place(release)].store(0, Ordering::Relaxed);
    }

    /// Waits for the first packet to the port of this release.
    pub(super) async fn until_open(&self, release: u64) {
        let began = Instant::now();
        while self.arrivals.first_us[place(release)].load(Ordering::Relaxed) == 0 {
            assert!(
                began.elapsed() < PATIENCE,
                "release {release} is not in force: {}",
                std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// When this release was in force: packets come to its port, and no longer to that of the one before.
    pub(super) fn in_force(&self, release: u64) -> Instant {
        let at = |us: &AtomicU64| self.epoch + Duration::from_micros(us.load(Ordering::Relaxed));
        let place = place(release);
        let opened = at(&self.arrivals.first_us[place]);
        opened.max(at(&self.arrivals.last_us[1 - place]))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.arrivals.over.store(true, Ordering::Relaxed);
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

/// The agent's program as it was built with this bench.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().unwrap().with_file_name("penstock-agent");
    assert!(
        program.exists(),
        "{} is not built: cargo bench --no-run -p penstock-agent",
        program.display()
    );
    program
}

fn send(client: &UdpSocket, server: &str, arrivals: &Arrivals) {
    while !arrivals.over.load(Ordering::Relaxed) {
        for port in PORTS {
            // The first ones fail until the neighbours have found each other.
            let _ = client.send_to(b"x", (server, port));
        }
        std::thread::sleep(SEND_EVERY);
    }
}

fn receive(server: &UdpSocket, place: usize, epoch: Instant, arrivals: &Arrivals) {
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 8];
    while !arrivals.over.load(Ordering::Relaxed) {
        if server.recv(&mut buffer).is_ok() {
            let now = u64::try_from(epoch.elapsed().as_micros()).unwrap();
            arrivals.last_us[place].store(now, Ordering::Relaxed);
            let _ = arrivals.first_us[place].compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}
