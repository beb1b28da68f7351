//! An external witness of the trails, as the C2SP protocol describes it, over plain HTTP on this machine; and one that lies.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use penstock_coordinator::witnesses::WitnessSettings;
use penstock_policy::merkle::growing::TreeState;
use penstock_policy::release::signing::ApproverKey;
use penstock_proto::audit::cosignature::{WitnessKey, cosigned_text};
use penstock_proto::audit::note::Note;
use penstock_proto::audit::tree_head::TreeHead;
use penstock_proto::https::Address;
use penstock_proto::keys::{FileKey, Key, KeyKind};
use penstock_proto::v1;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::audit::Trail;
use crate::evidence::with_blocks;
use crate::person::Person;
use crate::world::{PATIENCE, World};

/// What a witness remembers, and how it behaves.
#[derive(Default)]
struct Memory {
    latest: Option<TreeState>,
    /// Signs with another key than its own.
    lies: bool,
    conflicts: u32,
    cosigned: u32,
}

struct Witness {
    key: Key,
    name: &'static str,
    public: WitnessKey,
    address: String,
    memory: Arc<Mutex<Memory>>,
}

impl Witness {
    async fn start(memory: Memory) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key = Key::from(FileKey::generate(KeyKind::Ed25519).unwrap());
        let public = penstock_proto::audit::note::NoteSignature::ed25519_public(&key).unwrap();
        let name = "witness.example/w1";
        let witness = Arc::new(Self {
            key,
            name,
            public: WitnessKey::new(name, public),
            address: format!("http://{}/w/", listener.local_addr().unwrap()),
            memory: Arc::new(Mutex::new(memory)),
        });
        let serving = witness.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                let body = loop {
                    let read = stream.read(&mut buffer).await.unwrap();
                    request.extend_from_slice(&buffer[..read]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        continue;
                    };
                    assert!(head.starts_with("POST /w/add-checkpoint HTTP/1.1"), "{head}");
                    let length = head.to_ascii_lowercase();
                    let length = length.split("content-length: ").nth(1).unwrap();
                    let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
                    if body.len() >= length {
                        break body.to_owned();
                    }
                };
                let (status, answer) = serving.answer(&body);
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        witness
    }

    fn settings(&self) -> WitnessSettings {
        WitnessSettings {
            address: Address::parse(&format!("{}add-checkpoint", self.address)).unwrap(),
            key: self.public.clone(),
            roots: None,
            every: Duration::from_millis(50),
        }
    }

    /// The protocol, word for word.
    fn answer(&self, body: &str) -> (u16, String) {
        let (head, checkpoint) = body.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let old: u64 = lines
            .next()
            .unwrap()
            .strip_prefix("old ")
            .unwrap()
            .parse()
            .unwrap();
        let proof: Vec<[u8; 32]> = lines
            .map(|line| BASE64_STANDARD.decode(line).unwrap().try_into().unwrap())
            .collect();
        let note = Note::parse(checkpoint.as_bytes()).unwrap();
        let tree = TreeHead::parse(&note.text).unwrap().tree;
        let mut memory = self.memory.lock().unwrap();
        let latest = memory.latest.unwrap_or_else(TreeState::empty);
        if old > tree.size {
            return (400, String::new());
        }
        if old != latest.size {
            memory.conflicts += 1;
            return (409, format!("{}\n", latest.size));
        }
        if old > 0 && !tree.continues(&latest, &proof) {
            return (422, String::new());
        }
        memory.latest = Some(tree);
        memory.cosigned += 1;
        let time = 1_790_000_000_u64;
        let other = ApproverKey::from_seed(&[9; 32]);
        let text = cosigned_text(time, &note.text);
        let signature = match memory.lies {
            true => {
                let name = penstock_policy::ids::ApproverId::new("w").unwrap();
                let payload = penstock_policy::release::Signable::new("x", text.as_bytes());
                other.sign_payload(name, &payload).bytes().to_vec()
            }
            false => self.key.sign(text.as_bytes()).unwrap(),
        };
        let number = self.public.to_string();
        let number = number.split('+').nth(1).unwrap();
        let bytes = [
            hex::decode(number).unwrap(),
            time.to_be_bytes().to_vec(),
            signature,
        ]
        .concat();
        let line = format!("\u{2014} {} {}\n", self.name, BASE64_STANDARD.encode(bytes));
        (200, format!("\u{2014} somebody.else/w2 AAAAAAAAAAAA\n{line}"))
    }
}

/// Waits until `is` holds.
async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn verified(world: &World, person: &Person, name: &str, witness: &Witness) -> Value {
    let file = world.dir.path().join(name).to_string_lossy().into_owned();
    person.done(&["audit", "evidence", &file]).await;
    let key = witness.public.to_string();
    let output = person.run(&["audit", "verify", &file, "--witness", &key]).await;
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_outside_the_plant_cosigns_what_grows_and_a_file_of_evidence_says_so() {
    let witness = Witness::start(Memory::default()).await;
    let settings = witness.settings();
    let mut world = World::start_with(|config| config.witnesses = vec![settings]).await;
    let mut trail = Trail::new(3);
    with_blocks(&world, &mut trail, 3).await;
    let reached = |least: u64| {
        let memory = witness.memory.clone();
        move || {
            memory
                .lock()
                .unwrap()
                .latest
                .is_some_and(|latest| latest.size >= least)
        }
    };
    let is_there = reached(3);
    until("the first blocks are cosigned", async || is_there()).await;
    with_blocks(&world, &mut trail, 9).await;
    let is_there = reached(12);
    until("later ones are", async || is_there()).await;
    // By the line that its operator is given.
    let line = std::fs::read_to_string(world.config.data.join("trails.pub")).unwrap();
    assert!(line.starts_with("riverside/coordinator/c1+"), "{line}");

    let erin = Person::new(&world, "erin", "assessor", v1::Role::Viewer).await;
    let proved = verified(&world, &erin, "cosigned.evidence", &witness).await;
    assert_eq!(proved["sound"], true, "{proved}");
    let by = &proved["cosigned_by"][0];
    assert_eq!(by["witness"], "witness.example/w1");
    assert!(by["blocks"].as_u64().unwrap() >= 12, "{by}");
    // Of another witness there is nothing in it, and the reader asked for that.
    let other = Witness::start(Memory::default()).await;
    let proved = verified(&world, &erin, "other.evidence", &other).await;
    assert_eq!(proved["sound"], false);
    let wrong = proved["contradictions"][0].as_str().unwrap();
    assert!(wrong.contains("no head in the file is cosigned by"), "{wrong}");

    // A coordinator that lost what it was given asks from the beginning, and goes on from where the witness says.
    world.running.take().unwrap().stop().await;
    std::fs::remove_dir_all(world.config.data.join("cosigned")).unwrap();
    let (before, conflicts) = {
        let memory = witness.memory.lock().unwrap();
        (memory.cosigned, memory.conflicts)
    };
    world.start_again().await;
    erin.find(&world);
    let goes_on = || {
        let memory = witness.memory.lock().unwrap();
        memory.conflicts > conflicts && memory.cosigned > before
    };
    until("it goes on from what the witness knows", async || goes_on()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_that_lies_or_is_away_or_knows_other_trails_delays_nothing_and_health_says_so() {
    let lies = Memory {
        lies: true,
        ..Memory::default()
    };
    let ahead = Memory {
        latest: Some(TreeState {
            size: 1 << 40,
            root: [7; 32],
        }),
        ..Memory::default()
    };
    for (memory, words) in [
        (lies, "no cosignature by the key of"),
        (ahead, "restored from an older backup"),
    ] {
        let witness = Witness::start(memory).await;
        let mut settings = vec![witness.settings()];
        // Nobody listens there.
        let away = Witness::start(Memory::default()).await;
        settings.push(WitnessSettings {
            address: Address::parse("http://127.0.0.1:9/add-checkpoint").unwrap(),
            key: WitnessKey::new("away.example/w", [1; 32]),
            ..away.settings()
        });
        let world = World::start_with(|config| config.witnesses = settings).await;
        with_blocks(&world, &mut Trail::new(3), 3).await;
        let says = async || {
            let mut watch = world
                .admin()
                .watch_health(v1::WatchHealthRequest::default())
                .await
                .unwrap()
                .into_inner();
            let health = watch.message().await.unwrap().unwrap();
            let faults = format!("{health:?}");
            faults.contains("witness-waits") && faults.contains(words) && faults.contains("away.example/w")
        };
        until(words, says).await;
        let erin = Person::new(&world, "erin", "assessor", v1::Role::Viewer).await;
        let proved = verified(&world, &erin, "none.evidence", &witness).await;
        assert_eq!(
            (proved["sound"].as_bool(), proved["cosigned"].as_u64()),
            (Some(false), Some(0))
        );
    }
}
