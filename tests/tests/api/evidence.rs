//! Evidence of the trails: it is believed without the coordinator, or it is not, and who saw them once notices when they are rewritten.

use std::io::Read as _;
use std::path::Path;

use penstock_proto::audit::evidence::{EvidenceReader, EvidenceReport, MAGIC, Pieces, write_piece};
use penstock_proto::v1;
use penstock_proto::v1::evidence_piece::Piece;
use penstock_proto::v1::gateway_message::Message as Up;

use crate::audit::{Trail, acknowledged};
use crate::person::Person;
use crate::world::World;

/// A coordinator that holds so many blocks of a gateway.
pub async fn with_blocks(world: &World, trail: &mut Trail, count: u64) {
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    let blocks: Vec<_> = (0..count).map(|n| trail.block(&format!("attack {n}"))).collect();
    let last = blocks.last().unwrap().sequence + 1;
    for block in blocks {
        session.send(Up::Audit(block)).await;
    }
    acknowledged(&mut session, last).await;
}

async fn evidence(world: &World, asked: v1::GetEvidenceRequest) -> Vec<v1::EvidencePiece> {
    let mut stream = world.admin().get_evidence(asked).await.unwrap().into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        pieces.push(piece);
    }
    pieces
}

/// What pieces prove; `None`: they are not believed at all.
fn proved(world: &World, pieces: &[v1::EvidencePiece]) -> Option<EvidenceReport> {
    let roots = world.authority.roots();
    let mut pieces = pieces.iter().cloned();
    let mut reader = EvidenceReader::begin(pieces.next()?, &world.config.plant, &roots).ok()?;
    for piece in pieces {
        reader.take(piece).ok()?;
    }
    reader.report().ok()
}

#[tokio::test]
async fn what_a_coordinator_gives_is_proved_by_its_root_alone_and_nothing_that_was_changed_in_it_is() {
    let world = World::start().await;
    with_blocks(&world, &mut Trail::new(3), 12).await;
    let of_gateway = v1::GetEvidenceRequest {
        source: "gw-a".to_owned(),
        ..v1::GetEvidenceRequest::default()
    };
    let all = evidence(&world, v1::GetEvidenceRequest::default()).await;
    let report = proved(&world, &all).unwrap();
    assert!(report.is_sound() && report.head.is_in_time());
    let sources: Vec<_> = report.trails.keys().map(String::as_str).collect();
    assert_eq!(sources, ["coordinator/c1", "gw-a"]);
    assert_eq!(report.head.head.tree.size, report.blocks);
    let pieces = evidence(&world, of_gateway).await;
    let report = proved(&world, &pieces).unwrap();
    assert!(report.is_sound());
    assert_eq!((report.blocks, report.trails["gw-a"].events), (12, 12));

    let is_believed =
        |pieces: &[v1::EvidencePiece]| proved(&world, pieces).is_some_and(|report| report.is_sound());
    // Taken out, put into another order, there twice.
    for number in 2..12 {
        let mut cut = pieces.clone();
        cut.remove(number);
        assert!(!is_believed(&cut), "without {number}");
        let mut other = pieces.clone();
        other.swap(number, number + 1);
        assert!(!is_believed(&other), "{number} behind the next");
        let mut twice = pieces.clone();
        twice.insert(number, pieces[number].clone());
        assert!(!is_believed(&twice), "{number} twice");
    }
    // Without its place in the tree a block counts only if the next one, which has one, follows it.
    let untied = |count: usize| {
        let mut pieces = pieces.clone();
        for piece in &mut pieces[1..=count] {
            if let Some(Piece::Block(block)) = &mut piece.piece {
                (block.index, block.path) = (None, Vec::new());
            }
        }
        pieces
    };
    assert!(is_believed(&untied(4)), "tied by the chain to the fifth");
    assert_eq!(proved(&world, &untied(4)).unwrap().before_tree, 4);
    assert_eq!(proved(&world, &untied(12)).unwrap().unproved, 12);
    assert!(!is_believed(&untied(12)), "anybody's");
    let mut forged = untied(4);
    forged.remove(4);
    assert!(proved(&world, &forged).is_none(), "its end counts one more");
    if let Some(Piece::End(end)) = &mut forged.last_mut().unwrap().piece {
        end.blocks -= 1;
    }
    assert_eq!(proved(&world, &forged).unwrap().unproved, 3);
    // Each byte of each field.
    let mut file = Vec::new();
    for piece in &pieces {
        write_piece(&mut file, piece).unwrap();
    }
    let read = |bytes: &[u8]| {
        let mut all = Vec::new();
        let mut file = Pieces::of(MAGIC.chain(bytes)).ok()?;
        while let Some(piece) = file.read().ok()? {
            all.push(piece);
        }
        Some(all)
    };
    assert_eq!(read(&file).as_ref(), Some(&pieces));
    let received = |pieces: &[v1::EvidencePiece]| -> Vec<v1::EvidencePiece> {
        // When it came is the coordinator's word alone.
        let mut pieces = pieces.to_vec();
        for piece in &mut pieces {
            if let Some(Piece::Block(block)) = &mut piece.piece {
                block.received_ms = 0;
            }
        }
        pieces
    };
    for at in (0..file.len()).step_by(7) {
        let mut changed = file.clone();
        changed[at] ^= 1 << (at % 8);
        if let Some(changed) = read(&changed) {
            let is_same = received(&changed) == received(&pieces);
            assert!(is_same || !is_believed(&changed), "byte {at}");
        }
    }
    // By the root of another plant, nothing.
    let other = World::start().await;
    assert!(proved(&other, &pieces).is_none());
}

#[tokio::test]
async fn an_assessor_verifies_a_file_with_the_root_alone_and_a_login_notices_trails_that_were_rewritten() {
    let mut world = World::start_alone().await;
    let mut trail = Trail::new(3);
    with_blocks(&world, &mut trail, 3).await;
    let anna = Person::new(&world, "anna", "anna", v1::Role::Admin).await;
    let backup = world.dir.path().join("backup");
    penstock_coordinator::app::backup(&world.config, &backup, None).unwrap();
    with_blocks(&world, &mut trail, 3).await;
    let file = world.dir.path().join("trails.evidence");
    let named = file.to_str().unwrap();
    let taken = anna.done(&["audit", "evidence", named]).await;
    assert_eq!(taken["sound"], true, "{taken}");
    assert_eq!(anna.fails(&["audit", "evidence", named]).await, "file-exists");

    // Somebody else, somewhere else.
    let assessor = Person {
        home: world.dir.path().join("assessor"),
    };
    let roots = world.dir.path().join("root.pem");
    let pem = penstock_proto::tls::certificates_to_pem(&world.authority.roots());
    std::fs::write(&roots, pem).unwrap();
    let by_root = [
        "--roots",
        roots.to_str().unwrap(),
        "--plant",
        world.config.plant.as_str(),
    ];
    let verify = |file: &Path| -> Vec<String> {
        let mut words = vec![
            "audit".to_owned(),
            "verify".to_owned(),
            file.to_str().unwrap().to_owned(),
        ];
        words.extend(by_root.iter().map(|word| (*word).to_owned()));
        words
    };
    let words = verify(&file);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(assessor.done(&words).await["sound"], true);
    let read = assessor.reads(&words).await;
    assert!(
        read.contains("each block in this file is one of them") && read.contains("6 blocks with 6 events"),
        "{read}"
    );
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    let altered = world.dir.path().join("altered.evidence");
    std::fs::write(&altered, bytes).unwrap();
    let words = verify(&altered);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(assessor.fails(&words).await, "evidence-altered");

    // The database of before: what was seen since then is not in it.
    world.running.take().unwrap().stop().await;
    let store = world.config.data.join("penstock.db");
    for lost in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{lost}", store.display()));
    }
    std::fs::copy(backup.join("penstock.db"), &store).unwrap();
    world.start_again().await;
    anna.find(&world);
    let again = world.dir.path().join("again.evidence");
    let again = again.to_str().unwrap();
    assert_eq!(anna.fails(&["audit", "evidence", again]).await, "trail-rewritten");
    assert!(!Path::new(again).exists());
    // Also where it is as long again.
    with_blocks(&world, &mut Trail::new(9), 20).await;
    assert_eq!(anna.fails(&["audit", "evidence", again]).await, "trail-rewritten");
}

#[tokio::test]
async fn one_event_is_proved_by_a_small_file_and_the_coordinators_own_trail_is_sealed() {
    let world = World::start().await;
    with_blocks(&world, &mut Trail::new(3), 12).await;
    let anna = Person::new(&world, "anna", "anna", v1::Role::Admin).await;
    let named = |name: &str| world.dir.path().join(name).to_str().unwrap().to_owned();
    let file = named("event.proof");
    let shown = anna.done(&["audit", "prove", "gw-a/3/7/0", "-o", &file]).await;
    assert_eq!(shown["position"], "gw-a/3/7/0", "{shown}");
    let again = anna.fails(&["audit", "prove", "gw-a/3/7/0", "-o", &file]).await;
    assert_eq!(again, "file-exists");
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.len() <= 4096, "{}", bytes.len());
    let verified = anna.done(&["audit", "verify", &file]).await;
    assert_eq!(verified["summary"], shown["summary"]);
    let read = anna.reads(&["audit", "verify", &file]).await;
    assert!(read.contains("attack 7") && read.contains("not proved"), "{read}");
    let nowhere = named("nowhere.proof");
    for missing in ["gw-a/3/7/9", "gw-a/3/99/0", "gw-z/1/0/0"] {
        anna.fails(&["audit", "prove", missing, "-o", &nowhere]).await;
        assert!(!Path::new(&nowhere).exists());
    }
    let altered = named("altered.proof");
    for at in (0..bytes.len()).step_by(97) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&altered, changed).unwrap();
        assert_eq!(
            anna.fails(&["audit", "verify", &altered]).await,
            "evidence-altered",
            "{at}"
        );
    }
    // What anna herself did is sealed soon, and the coordinator's own key vouches for it.
    let own = || async {
        let asked = v1::GetEvidenceRequest {
            source: "coordinator/c1".to_owned(),
            ..v1::GetEvidenceRequest::default()
        };
        proved(&world, &evidence(&world, asked).await).unwrap()
    };
    let sealed = async {
        loop {
            let report = own().await;
            assert!(report.is_sound(), "{}", report.trails["coordinator/c1"]);
            if report.trails["coordinator/c1"].vouched.is_some() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), sealed)
        .await
        .unwrap();
}
