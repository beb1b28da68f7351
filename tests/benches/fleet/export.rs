//! How long after a block is durable at the coordinator its events stand in the file of an export: of a trail that grows now and then, and of one that
//! grows as fast as it is taken. The file counts when it is synced; it is looked at each fifth of a millisecond.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use penstock_proto::audit::{GENESIS, block_digest};
use penstock_proto::channel;
use penstock_proto::v1;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::gateway_message::Message as Up;
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::PATIENCE;
use super::coordinator::Coordinator;
use super::gateways::{identities, message};
use super::upload::{EVENTS, event};

/// Blocks of one event each, one after the other.
const SINGLE: u64 = 200;
/// Blocks that are uploaded at once, behind these.
const MANY: u64 = 2_000;
const WINDOW: u64 = 4;
const LOOK: Duration = Duration::from_micros(200);

/// What the file has so far.
struct Lines {
    file: File,
    lines: u64,
}

impl Lines {
    async fn of(path: &Path) -> Self {
        loop {
            if let Ok(file) = File::open(path) {
                return Self { file, lines: 0 };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn look(&mut self) -> u64 {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).unwrap();
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.lines
    }

    /// When there are so many.
    async fn reach(&mut self, lines: u64) -> Instant {
        let began = Instant::now();
        while self.look() < lines {
            assert!(began.elapsed() < PATIENCE, "{} of {lines} lines came", self.lines);
            tokio::time::sleep(LOOK).await;
        }
        Instant::now()
    }
}

/// The end of a trail.
struct Uploading {
    next: u64,
    digest: [u8; 32],
    up: mpsc::Sender<v1::GatewayMessage>,
    down: tonic::Streaming<v1::CoordinatorMessage>,
}

impl Uploading {
    async fn start(coordinator: &Coordinator) -> Self {
        let tls = identities(coordinator, 1).remove(0);
        let channel = channel::connect(vec![coordinator.address.clone()], tls)
            .await
            .unwrap();
        let (up, messages) = mpsc::channel(8);
        up.send(message(Up::Hello(v1::Hello::default()))).await.unwrap();
        let mut client = GatewayLinkClient::new(channel);
        let down = client.session(ReceiverStream::new(messages)).await.unwrap();
        Self {
            next: 0,
            digest: GENESIS,
            up,
            down: down.into_inner(),
        }
    }

    async fn send(&mut self, body: &Bytes) {
        let block = v1::AuditBlock {
            epoch: 1,
            sequence: self.next,
            previous_digest: self.digest.to_vec().into(),
            body: body.clone(),
        };
        self.digest = block_digest(&self.digest, 1, self.next, body);
        self.next += 1;
        self.up.send(message(Up::Audit(block))).await.unwrap();
    }

    /// Waits until all before this one is durable.
    async fn acknowledged(&mut self, sequence: u64) {
        loop {
            let said = self.down.message().await.unwrap().expect("the session stands");
            if let Some(Down::AuditAck(ack)) = said.message
                && ack.next_sequence >= sequence
            {
                return;
            }
        }
    }
}

fn body(events: u64) -> Bytes {
    let events = (0..events).map(event).collect();
    v1::AuditBlockBody { events }.encode_to_vec().into()
}

pub(super) async fn measure() {
    let mut coordinator = Coordinator::new("127.0.84.2", "at-once");
    let path = coordinator.config.data.join("lines.jsonl");
    let to = format!("file:{}", path.display());
    coordinator.configure(&format!(
        "[[export]]\nname = \"lines\"\nformat = \"jsonl\"\nto = {to:?}\nkinds = [\"verdict\"]\n"
    ));
    coordinator.start().await;
    let mut uploading = Uploading::start(&coordinator).await;
    let one = body(1);
    uploading.send(&one).await;
    uploading.acknowledged(1).await;
    let mut lines = Lines::of(&path).await;
    lines.reach(1).await;
    let mut lags = Vec::new();
    for number in 1..=SINGLE {
        // At no beat of the export's own.
        tokio::time::sleep(Duration::from_millis(20 + number * 37 % 50)).await;
        uploading.send(&one).await;
        uploading.acknowledged(number + 1).await;
        let durable = Instant::now();
        lags.push(lines.reach(number + 1).await - durable);
    }
    lags.sort();
    let at = |part: usize| lags[(lags.len() * part / 100).min(lags.len() - 1)].as_secs_f64() * 1000.0;
    println!(
        "an export to a file: a line stands there {:.1} ms (median), {:.1} ms (p99), {:.1} ms (at most) after its block is acknowledged",
        at(50),
        at(99),
        at(100)
    );
    let (many, began, first) = (body(EVENTS), Instant::now(), uploading.next);
    for number in 0..MANY {
        uploading.send(&many).await;
        if number >= WINDOW {
            uploading.acknowledged(first + number + 1 - WINDOW).await;
        }
    }
    uploading.acknowledged(first + MANY).await;
    let durable = Instant::now();
    let written = lines.reach(SINGLE + 1 + MANY * EVENTS).await;
    println!(
        "  {} events at once: durable after {:.2} s, in the file {:.2} s later ({:.0} lines/s)",
        MANY * EVENTS,
        (durable - began).as_secs_f64(),
        (written - durable).as_secs_f64(),
        (MANY * EVENTS) as f64 / (written - began).as_secs_f64()
    );
    coordinator.kill();
}
