//! A gateway that seals its trail, as its coordinator takes it in: with the plant's real authority and store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_policy::ids::GatewayId;
use penstock_proto::audit::keys::SealKeys;
use penstock_proto::audit::seal::{BlocksSince, SealText};
use penstock_proto::audit::witness::witnessed;
use penstock_proto::audit::{GENESIS, Head, block_digest};
use penstock_proto::keys::{FileKey, Key, KeyKind};
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::tls::Credentials;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AgentEvent, AuditEvent};
use prost::Message as _;

use super::super::{Ingest, IngestReport};
use super::*;
use crate::ca::{Authority, Lifetimes};
use crate::store::Expect;
use crate::store::{BlockFilter, Store};

const NOW_MS: u64 = 1_790_000_000_000;

struct Plant {
    _folder: tempfile::TempDir,
    authority: Authority,
    store: Store,
    ingest: Ingest,
}

impl Plant {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plant: PlantId = "works".parse().unwrap();
        let lifetimes = Lifetimes::all(std::time::Duration::from_secs(86_400));
        let authority = Authority::create(folder.path(), plant.clone(), lifetimes, NOW_MS).unwrap();
        let coordinator = CoordinatorId::new("c1").unwrap();
        let own = certified(&authority, &Subject::Coordinator(coordinator.clone()));
        let store = Store::open(&folder.path().join("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &coordinator);
        let judge = SealJudge::new(
            plant,
            authority.roots(),
            &coordinator,
            ServerCredentials::new(&own).unwrap(),
        );
        Self {
            _folder: folder,
            authority,
            ingest: Ingest::new(store.clone(), journal).with_judge(judge),
            store,
        }
    }

    async fn take(&self, blocks: &[AuditBlock]) -> IngestReport {
        self.ingest.accept("gw-a", blocks.to_vec(), NOW_MS).await.unwrap()
    }
}

fn certified(authority: &Authority, subject: &Subject) -> Credentials {
    let key: Key = FileKey::generate(KeyKind::EcdsaP256).unwrap().into();
    authority
        .issue_own((subject, Epoch::default()), &ServerNames::default(), key, NOW_MS)
        .unwrap()
}

/// What the coordinator's own trail says of trails, in its order.
async fn own_trail_steps(store: &Store) -> Vec<String> {
    let own = BlockFilter {
        source: Some("coordinator/c1".to_owned()),
        ..BlockFilter::default()
    };
    let blocks = store.blocks(own, 100).await.unwrap();
    let bodies = blocks
        .iter()
        .map(|block| AuditBlockBody::decode(block.body.clone()).unwrap());
    let steps = bodies.flat_map(|body| body.events).map(|event| match event.kind {
        Some(Kind::Trail(event)) => event.step,
        other => format!("{other:?}"),
    });
    steps.collect()
}

struct Gateway {
    identity: Credentials,
    keys: SealKeys,
    head: Head,
    since: BlocksSince,
    newest: Option<SealText>,
    blocks: Vec<AuditBlock>,
}

impl Gateway {
    fn new(plant: &Plant) -> Self {
        Self {
            identity: certified(
                &plant.authority,
                &Subject::Gateway(GatewayId::new("gw-a").unwrap()),
            ),
            keys: SealKeys::begin().unwrap(),
            head: Head {
                epoch: 1,
                next_sequence: 0,
                digest: GENESIS,
            },
            since: BlocksSince::new(0),
            newest: None,
            blocks: Vec::new(),
        }
    }

    fn put(&mut self, kind: Kind) {
        let events = vec![AuditEvent {
            kind: Some(kind),
            ..AuditEvent::default()
        }];
        let body = AuditBlockBody { events }.encode_to_vec();
        let Head {
            epoch,
            next_sequence: sequence,
            digest,
        } = self.head;
        self.head = Head {
            epoch,
            next_sequence: sequence + 1,
            digest: block_digest(&digest, epoch, sequence, &body),
        };
        self.blocks.push(AuditBlock {
            epoch,
            sequence,
            previous_digest: digest.to_vec().into(),
            body: body.into(),
        });
    }

    fn event(&mut self) {
        self.put(Kind::Agent(AgentEvent::default()));
    }

    fn seal(&mut self) {
        let (text, seal) = self
            .keys
            .seal("works/gw-a", self.head, self.since.named(), NOW_MS);
        self.keys = self.keys.advanced().unwrap();
        self.newest = Some(text);
        self.put(Kind::Seal(seal));
    }

    fn vouch(&mut self) {
        let text = self.newest.as_ref().unwrap().to_string();
        let word = word(&text, "works/gw-a", self.identity.key(), self.identity.chain()).unwrap();
        self.put(Kind::Seal(word));
    }
}

#[tokio::test]
async fn a_sealed_trail_is_taken_without_alarm_and_answered_with_the_coordinators_word_which_the_gateway_can_verify()
 {
    let plant = Plant::new();
    let mut gateway = Gateway::new(&plant);
    for _ in 0..3 {
        gateway.event();
        gateway.seal();
    }
    gateway.vouch();
    gateway.event();
    // One delivery after the other, and the last one twice.
    let first = plant.take(&gateway.blocks[..3]).await;
    let rest = plant.take(&gateway.blocks[3..]).await;
    let again = plant.take(&gateway.blocks[3..]).await;
    for report in [&first, &rest, &again] {
        assert_eq!(
            (&report.fault, &report.seals.as_ref().unwrap().fault),
            (&None, &None)
        );
    }
    assert_eq!(own_trail_steps(&plant.store).await, ["sealed"]);
    let roots = plant.authority.roots();
    let name: PlantId = "works".parse().unwrap();
    let trust = SealTrust {
        plant: &name,
        source: "gw-a".into(),
        roots: &roots,
    };
    let word = rest.ack.unwrap().witness.unwrap();
    assert_eq!(witnessed(&trust, &word).unwrap(), gateway.newest.unwrap());
    assert_eq!(again.ack.unwrap().witness, None, "nothing was stored");
    let mut other = word.clone();
    other.certificates = vec![gateway.identity.chain()[0].to_vec().into()];
    assert!(witnessed(&trust, &other).is_err(), "a gateway witnesses nothing");
}

/// A person acknowledges what was shown of a gateway's seals.
async fn acknowledge(plant: &Plant, shown: impl Fn(&SealFault) -> bool) -> bool {
    let gateway = GatewayId::new("gw-a").unwrap();
    let Some(one) = acknowledged(&plant.store, &gateway, shown).await.unwrap() else {
        return false;
    };
    let value = serde_json::to_vec(&one.chain).unwrap();
    let revision = Expect::Revision(one.revision);
    plant.store.put_if(&one.key, revision, value).await.unwrap();
    true
}

#[tokio::test]
async fn keys_that_began_again_are_stored_alarmed_and_a_fault_over_restarts_until_a_person_acknowledged_it() {
    let plant = Plant::new();
    let mut gateway = Gateway::new(&plant);
    gateway.event();
    gateway.seal();
    gateway.vouch();
    // Somebody with other keys goes on.
    gateway.keys = SealKeys::begin().unwrap();
    gateway.event();
    gateway.seal();
    let forged = plant.take(&gateway.blocks).await;
    assert_eq!(forged.fault, None, "the trail goes on");
    assert_eq!(
        forged.ack.as_ref().unwrap().next_sequence,
        gateway.blocks.len() as u64
    );
    let fault = forged.seals.unwrap().fault.unwrap();
    assert!(
        fault.needs_person && fault.words.contains("began again"),
        "{fault:?}"
    );
    assert_eq!(own_trail_steps(&plant.store).await, ["sealed", "seals"]);
    let from = gateway.blocks.len();
    gateway.event();
    gateway.seal();
    let still = plant.take(&gateway.blocks[from..]).await;
    assert!(still.seals.unwrap().fault.is_some());
    let from = gateway.blocks.len();
    gateway.vouch();
    let vouched = plant.take(&gateway.blocks[from..]).await;
    assert_eq!(
        vouched.seals.unwrap().fault.as_ref(),
        Some(&fault),
        "the key of the same machine"
    );
    // As a coordinator reads it that starts again.
    let known = faults(&plant.store).await.unwrap();
    assert_eq!(known, [(GatewayId::new("gw-a").unwrap(), fault.clone())]);
    assert!(
        !acknowledge(&plant, |_| false).await,
        "what was not shown is not acknowledged"
    );
    assert!(acknowledge(&plant, |shown| *shown == fault).await);
    assert!(faults(&plant.store).await.unwrap().is_empty());
    let from = gateway.blocks.len();
    gateway.event();
    gateway.seal();
    let over = plant.take(&gateway.blocks[from..]).await;
    assert_eq!(over.seals.unwrap().fault, None);
    assert_eq!(own_trail_steps(&plant.store).await, ["sealed", "seals"]);
}

#[tokio::test]
async fn a_seal_that_is_missing_is_a_fault_until_the_identity_key_vouches_for_what_follows() {
    let plant = Plant::new();
    let mut gateway = Gateway::new(&plant);
    gateway.event();
    gateway.seal();
    gateway.vouch();
    gateway.keys = gateway.keys.advanced().unwrap();
    gateway.event();
    gateway.seal();
    let short = plant.take(&gateway.blocks).await;
    let fault = short.seals.unwrap().fault.unwrap();
    assert!(
        !fault.needs_person && fault.words.contains("missing"),
        "{fault:?}"
    );
    let from = gateway.blocks.len();
    gateway.vouch();
    let over = plant.take(&gateway.blocks[from..]).await;
    assert_eq!(over.seals.unwrap().fault, None);
}

#[tokio::test]
async fn a_sealed_trail_that_goes_on_without_seals_is_an_alarm_once_however_it_is_delivered() {
    let plant = Plant::new();
    let mut gateway = Gateway::new(&plant);
    gateway.event();
    gateway.seal();
    gateway.vouch();
    for _ in 0..2 * penstock_proto::audit::chain::UNSEALED_MAX {
        gateway.event();
    }
    let mut fault = None;
    for blocks in gateway.blocks.chunks(500) {
        let report = plant.take(blocks).await;
        // Some of it twice, as after a connection was lost.
        plant.take(&blocks[..blocks.len() / 5]).await;
        fault = report.seals.and_then(|seals| seals.fault).or(fault);
    }
    let fault = fault.unwrap();
    assert!(fault.words.contains("goes on without seals"), "{fault:?}");
    assert_eq!(own_trail_steps(&plant.store).await, ["sealed", "seals"]);
    let from = gateway.blocks.len();
    gateway.seal();
    gateway.vouch();
    let over = plant.take(&gateway.blocks[from..]).await;
    assert_eq!(over.seals.unwrap().fault, None);
}

#[tokio::test]
async fn what_is_refused_changes_nothing_of_what_is_known_of_the_seals() {
    let plant = Plant::new();
    let mut gateway = Gateway::new(&plant);
    gateway.event();
    gateway.seal();
    plant.take(&gateway.blocks).await;
    let mut fork = Gateway::new(&plant);
    fork.event();
    fork.event();
    fork.seal();
    let refused = plant.take(&fork.blocks[1..]).await;
    assert!(refused.fault.is_some());
    let from = gateway.blocks.len();
    gateway.event();
    gateway.seal();
    let next = plant.take(&gateway.blocks[from..]).await;
    assert_eq!(next.seals.unwrap().fault, None, "it follows the seal before");
}

#[tokio::test]
async fn a_record_of_seals_that_cannot_be_read_any_more_is_an_alarm_and_not_a_beginning() {
    let plant = Plant::new();
    let mut gateway = Gateway::new(&plant);
    gateway.event();
    gateway.seal();
    gateway.vouch();
    plant.take(&gateway.blocks).await;
    let (key, record) = plant.store.list(PREFIX).await.unwrap().remove(0);
    let damaged = Expect::Revision(record.revision);
    plant
        .store
        .put_if(&key, damaged, b"nothing".to_vec())
        .await
        .unwrap();
    let from = gateway.blocks.len();
    gateway.event();
    gateway.seal();
    let report = plant.take(&gateway.blocks[from..]).await;
    let fault = report.seals.unwrap().fault.unwrap();
    assert!(fault.words.contains("cannot be read any more"), "{fault:?}");
    let steps = own_trail_steps(&plant.store).await;
    assert_eq!(steps[..2], ["sealed", "seals"], "{steps:?}");
}

#[tokio::test]
async fn a_gateway_without_seals_has_no_fault_and_no_word() {
    let plant = Plant::new();
    let mut gateway = Gateway::new(&plant);
    gateway.event();
    let report = plant.take(&gateway.blocks).await;
    assert_eq!((report.fault, report.seals), (None, None));
    assert_eq!(report.ack.unwrap().witness, None);
    assert!(own_trail_steps(&plant.store).await.is_empty());
}

#[tokio::test]
async fn what_an_agent_reports_that_only_a_person_ends_counts_over_restarts_and_whatever_the_identity_key_says()
 {
    for step in ["spool-set-back", "trails-rewritten"] {
        let plant = Plant::new();
        let mut gateway = Gateway::new(&plant);
        gateway.put(Kind::Agent(AgentEvent {
            step: step.to_owned(),
            message: "the kernel holds 1/9".to_owned(),
            ..AgentEvent::default()
        }));
        let report = plant.take(&gateway.blocks).await;
        let fault = report.seals.unwrap().fault.unwrap();
        assert_eq!(
            fault.words,
            format!("its agent reports {step}: the kernel holds 1/9")
        );
        assert!(fault.needs_person);
        assert_eq!(own_trail_steps(&plant.store).await, ["seals"]);
        // The trail goes on, sealed and vouched for, and the agent has nothing to report any more.
        gateway.event();
        gateway.seal();
        gateway.vouch();
        let later = plant.take(&gateway.blocks[1..]).await;
        assert_eq!(later.seals.unwrap().fault, Some(fault.clone()));
        let known = faults(&plant.store).await.unwrap();
        assert_eq!(known, [(GatewayId::new("gw-a").unwrap(), fault.clone())]);
        // One that comes before somebody acknowledged is told with the one before it.
        gateway.put(Kind::Agent(AgentEvent {
            step: step.to_owned(),
            message: "the kernel holds 1/20".to_owned(),
            ..AgentEvent::default()
        }));
        let again = plant.take(&gateway.blocks[4..]).await;
        let both = again.seals.unwrap().fault.unwrap();
        assert!(
            both.words.contains("1/20; its agent") && both.words.contains("1/9"),
            "{}",
            both.words
        );
        assert!(
            !acknowledge(&plant, |shown| *shown == fault).await,
            "not what was shown"
        );
        assert!(acknowledge(&plant, |shown| *shown == both).await);
        assert_eq!(faults(&plant.store).await.unwrap(), []);
    }
}

#[test]
fn each_report_of_a_block_that_only_a_person_ends_is_looked_at_once_and_within_bounds() {
    let event = |step: &str, message: String| AuditEvent {
        kind: Some(Kind::Agent(AgentEvent {
            step: step.to_owned(),
            message,
            ..AgentEvent::default()
        })),
        ..AuditEvent::default()
    };
    let of = |events: Vec<AuditEvent>| reported(&AuditBlockBody { events });
    let both = of(vec![
        event("started", "anew".to_owned()),
        event("spool-set-back", "to 1/9".to_owned()),
        event("spool-set-back", "to 1/9".to_owned()),
        event("trails-rewritten", "before 7".to_owned()),
    ]);
    assert_eq!(both, ["spool-set-back: to 1/9", "trails-rewritten: before 7"]);
    let many = (0..100).map(|number| event("spool-set-back", format!("{number} {}", "ü".repeat(9000))));
    let many = of(many.collect());
    assert_eq!(many.len(), REPORTS_MAX);
    assert!(
        many.iter()
            .all(|words| words.len() <= REPORT_BYTES_MAX && words.ends_with('…'))
    );
}
