//! Random trails, and everything that somebody might do to one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod endings;
mod forged;
mod forms;

use std::sync::OnceLock;

use penstock_policy::ids::PlantId;
use proptest::prelude::*;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::CertificateDer;

use super::*;
use crate::audit::chain::{SealFinding, UNVOUCHED_MAX};
use crate::audit::keys::SealKeys;
use crate::audit::note::Note;
use crate::audit::seal::{BlocksSince, SealText, word};
use crate::audit::{GENESIS, block_digest};
use crate::keys::{FileKey, Key, KeyKind};
use crate::v1::{AgentEvent, AuditBlockBody, AuditEvent, LossEvent, OperatorEvent, SealEvent};

/// A plant's root and one gateway's key and certificate.
struct Plant {
    name: PlantId,
    roots: Vec<CertificateDer<'static>>,
    key: Key,
    chain: Vec<CertificateDer<'static>>,
}

impl Plant {
    fn new(gateway: &str, kind: KeyKind) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key: Key = FileKey::generate(kind).unwrap().into();
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://works/gateway/{gateway}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &root).unwrap();
        Self {
            name: "works".parse().unwrap(),
            roots: vec![root.der().clone()],
            key,
            chain: vec![leaf.der().clone()],
        }
    }

    fn shared() -> &'static Self {
        static PLANT: OnceLock<Plant> = OnceLock::new();
        PLANT.get_or_init(|| Self::new("gw-a", KeyKind::EcdsaP256))
    }

    fn trust(&self) -> SealTrust<'_> {
        SealTrust {
            plant: &self.name,
            source: "gw-a".into(),
            roots: &self.roots,
        }
    }
}

/// A gateway that writes a trail.
struct Source {
    keys: SealKeys,
    head: Head,
    blocks: Vec<AuditBlock>,
    newest: Option<SealText>,
    since: BlocksSince,
    time_ms: u64,
}

impl Source {
    fn new() -> Self {
        Self {
            keys: SealKeys::begin().unwrap(),
            head: Head {
                epoch: 1,
                next_sequence: 0,
                digest: GENESIS,
            },
            blocks: Vec::new(),
            newest: None,
            since: BlocksSince::new(0),
            time_ms: 1_790_000_000_000,
        }
    }

    fn copy(&self) -> Self {
        Self {
            keys: SealKeys::from_text(&self.keys.to_text()).unwrap(),
            head: self.head,
            blocks: self.blocks.clone(),
            newest: self.newest.clone(),
            since: self.since.clone(),
            time_ms: self.time_ms,
        }
    }

    fn put(&mut self, kinds: Vec<Kind>) {
        self.put_at(1, kinds);
    }

    fn put_at(&mut self, severity: i32, kinds: Vec<Kind>) {
        let is_seal = matches!(kinds.first(), Some(Kind::Seal(_)));
        let events = kinds.into_iter().map(|kind| AuditEvent {
            time_ms: self.time_ms,
            severity,
            kind: Some(kind),
            ..AuditEvent::default()
        });
        let body = AuditBlockBody {
            events: events.collect(),
        };
        let body = body.encode_to_vec();
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
        if !is_seal {
            self.since
                .take(usize::try_from(severity).unwrap(), &self.head.digest);
        }
        self.blocks.push(AuditBlock {
            epoch,
            sequence,
            previous_digest: digest.to_vec().into(),
            body: body.into(),
        });
    }

    fn event(&mut self, text: &str) {
        self.time_ms += 7;
        let message = text.to_owned();
        self.put(vec![Kind::Agent(AgentEvent {
            step: "tick".to_owned(),
            message,
            ..AgentEvent::default()
        })]);
    }

    fn sealed_as(&self, name: &str) -> (SealText, SealEvent) {
        self.keys.seal(name, self.head, self.since.named(), self.time_ms)
    }

    /// Seals, without erasing the key.
    fn seal_again(&mut self) {
        let (text, event) = self.sealed_as("works/gw-a");
        self.newest = Some(text);
        self.since = BlocksSince::new(self.head.next_sequence);
        self.put(vec![Kind::Seal(event)]);
    }

    fn seal(&mut self) {
        self.seal_again();
        self.keys = self.keys.advanced().unwrap();
    }

    fn vouch(&mut self, plant: &Plant) {
        if let Some(newest) = &self.newest {
            let word = word(&newest.to_string(), "works/gw-a", &plant.key, &plant.chain).unwrap();
            self.put(vec![Kind::Seal(word)]);
        }
    }

    /// The oldest blocks of the least severity are shed, and a record says so.
    fn shed(&mut self, count: usize) {
        let mut shed = 0;
        let last = self.blocks.len().saturating_sub(1);
        let mut number = 0;
        self.blocks.retain(|block| {
            number += 1;
            let body = read_body(&block.body).unwrap();
            let is_least = severity_of(&body) == Some(1) && number > 1 && number <= last;
            let goes = is_least && shed < count;
            shed += usize::from(goes);
            !goes
        });
        let loss = LossEvent {
            events: shed as u64,
            blocks: shed as u64,
            cause: "spool-full".to_owned(),
            ..LossEvent::default()
        };
        self.put_at(4, vec![Kind::Loss(loss)]);
    }

    /// Takes back what stands behind the first `blocks` blocks.
    fn cut_to(&mut self, blocks: usize) {
        self.blocks.truncate(blocks);
        let last = &self.blocks[blocks - 1];
        let previous: [u8; 32] = last.previous_digest.as_ref().try_into().unwrap();
        self.head = Head {
            epoch: last.epoch,
            next_sequence: last.sequence + 1,
            digest: block_digest(&previous, last.epoch, last.sequence, &last.body),
        };
        self.since = BlocksSince::new(self.head.next_sequence);
    }

    fn new_epoch(&mut self) {
        self.head = Head {
            epoch: self.head.epoch + 1,
            next_sequence: 0,
            digest: GENESIS,
        };
        self.since = BlocksSince::new(0);
    }
}

fn read(blocks: &[AuditBlock]) -> TrailReport {
    read_by(Plant::shared(), blocks)
}

fn read_by(plant: &Plant, blocks: &[AuditBlock]) -> TrailReport {
    let mut verifier = TrailVerifier::new(plant.trust());
    for block in blocks {
        verifier.take(block, None);
    }
    verifier.report()
}

fn alarms(report: &TrailReport) -> Vec<String> {
    let grave = report.findings.iter().filter(|found| found.is_alarm());
    grave.map(ToString::to_string).collect()
}

/// A trail that ends with a seal for which the identity key vouches.
fn trail(steps: &[(u8, u8)]) -> Source {
    let mut source = Source::new();
    source.event("begin");
    for (step, size) in steps {
        match step {
            0..=3 => source.event(&"x".repeat(usize::from(*size))),
            4 => source.put_at(
                3,
                vec![Kind::Agent(AgentEvent {
                    step: "grave".to_owned(),
                    ..AgentEvent::default()
                })],
            ),
            5..=6 => source.seal(),
            7 => source.vouch(Plant::shared()),
            8 => source.shed(usize::from(size % 4) + 1),
            // Killed before the key was erased.
            _ => {
                source.seal_again();
                source.event("after a crash");
            }
        }
    }
    source.event("before the last seal");
    source.seal();
    source.vouch(Plant::shared());
    source
}

/// Chains the blocks from `from` on anew, as whoever holds a copy can.
fn chain_anew(blocks: &mut [AuditBlock], from: usize) {
    for index in from.max(1)..blocks.len() {
        let (before, block) = (blocks[index - 1].clone(), &blocks[index]);
        if (before.epoch, before.sequence + 1) == (block.epoch, block.sequence) {
            let previous: [u8; 32] = before.previous_digest.as_ref().try_into().unwrap();
            let digest = block_digest(&previous, before.epoch, before.sequence, &before.body);
            blocks[index].previous_digest = digest.to_vec().into();
        }
    }
}

fn altered(block: &mut AuditBlock) {
    let body = AuditBlockBody {
        events: vec![AuditEvent {
            kind: Some(Kind::Agent(AgentEvent {
                step: "tick".to_owned(),
                message: "never happened".to_owned(),
                ..AgentEvent::default()
            })),
            ..AuditEvent::default()
        }],
    };
    block.body = body.encode_to_vec().into();
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8)>> {
    proptest::collection::vec((0..10_u8, any::<u8>()), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 5))]

    #[test]
    fn what_a_gateway_wrote_is_whole_and_proved_up_to_its_last_seal(steps in steps()) {
        let source = trail(&steps);
        let report = read(&source.blocks);
        prop_assert!(report.is_whole(), "{report}");
        let last_seal = source.newest.as_ref().unwrap().head;
        prop_assert_eq!(report.sealed, Some(place_of(&last_seal)));
        prop_assert_eq!(report.vouched, report.sealed);
        prop_assert_eq!(report.unsealed, (0, 0));
    }

    #[test]
    fn a_bit_that_flips_anywhere_is_found(steps in steps(), block: prop::sample::Index, bit: prop::sample::Index) {
        let mut blocks = trail(&steps).blocks;
        let last = blocks.len() - 2;
        let block = &mut blocks[block.index(last)];
        let mut body = block.body.to_vec();
        let bit = bit.index(body.len() * 8);
        body[bit / 8] ^= 1 << (bit % 8);
        block.body = body.into();
        let report = read(&blocks);
        // Where the other blocks between two seals were shed, what is left there is said to be unproved.
        prop_assert!(!report.is_whole() || report.loose > 0, "{report}");
    }

    #[test]
    fn what_is_rewritten_before_a_seal_is_found_also_where_all_that_follows_is_chained_anew(
        steps in steps(), block: prop::sample::Index, what in 0..5_u8,
    ) {
        let source = trail(&steps);
        let mut blocks = source.blocks.clone();
        // The last two are the last seal, and the word for it.
        let at = block.index(blocks.len() - 2);
        match what {
            0 => altered(&mut blocks[at]),
            1 => drop(blocks.remove(at)),
            2 => blocks.insert(at, blocks[at].clone()),
            3 => blocks.swap(at, at + 1),
            _ => {
                let mut inserted = blocks[at].clone();
                altered(&mut inserted);
                blocks.insert(at, inserted);
            }
        }
        // Without: as they are. With: each numbered, and chained, as if nothing had been.
        let as_they_are = read(&blocks);
        let is_cut_at_its_beginning = what == 1 && at == 0;
        prop_assert!(!as_they_are.is_whole() || is_cut_at_its_beginning || as_they_are.loose > 0, "{as_they_are}");
        prop_assert!(!is_cut_at_its_beginning || as_they_are.first > read(&source.blocks).first);
        for (sequence, block) in (0..).zip(&mut blocks) {
            block.sequence = sequence;
        }
        blocks[0].previous_digest = GENESIS.to_vec().into();
        chain_anew(&mut blocks, 0);
        prop_assert!(blocks == source.blocks || !read(&blocks).is_whole());
    }
}

#[test]
fn what_is_behind_the_last_seal_is_said_to_be_unsealed_and_what_was_cut_off_shows_by_the_coordinators_word() {
    let mut source = trail(&[(5, 0), (7, 0)]);
    source.event("not sealed yet");
    let report = read(&source.blocks);
    assert!(report.is_whole());
    assert_eq!(report.unsealed, (1, 1));
    let text = report.to_string();
    assert!(
        text.contains("Not sealed yet: the last 1 blocks with 1 events"),
        "{text}"
    );
    let read_with = |head: Head, blocks: &[AuditBlock]| {
        let mut verifier = TrailVerifier::new(Plant::shared().trust()).with_witness(head);
        for block in blocks {
            verifier.take(block, None);
        }
        verifier.report()
    };
    let witnessed = source.head;
    assert!(read_with(witnessed, &source.blocks).is_whole());
    let cut = &source.blocks[..3];
    assert!(read(cut).is_whole(), "by itself, a cut does not show");
    let report = read_with(witnessed, cut);
    assert!(
        matches!(report.findings.last(), Some(Finding::CutOff { .. })),
        "{report}"
    );
    // A coordinator, or a gateway, that rewrote the last block.
    let mut other = source.blocks.clone();
    altered(other.last_mut().unwrap());
    assert!(!read_with(witnessed, &other).is_whole());
}

#[test]
fn a_trail_whose_beginning_was_given_up_is_whole_and_says_where_it_begins() {
    let source = trail(&[(0, 1), (8, 2), (5, 0), (0, 3), (8, 1), (7, 0)]);
    for first in 1..source.blocks.len() {
        let report = read(&source.blocks[first..]);
        let at = source.blocks[first].sequence;
        assert_eq!(
            (alarms(&report).len(), report.first.unwrap().sequence),
            (0, at),
            "{report}"
        );
    }
}

#[test]
fn a_grave_block_amid_shed_ones_stays_proved_by_the_seal_behind_it() {
    let mut source = Source::new();
    source.event("begin");
    for _ in 0..3 {
        source.event("goes");
        source.put_at(3, vec![Kind::Agent(AgentEvent::default())]);
    }
    source.event("between");
    source.seal();
    source.shed(4);
    source.seal();
    let report = read(&source.blocks);
    assert!(report.is_whole() && report.missing == 4, "{report}");
    assert_eq!(report.loose, 1, "the first block alone: {report}");
    for at in 1..4 {
        let mut blocks = source.blocks.clone();
        blocks[at].body = [&blocks[at].body[..], &[0x10, 0]].concat().into();
        let report = read(&blocks);
        assert!(alarms(&report)[0].contains("severity 3"), "{at}: {report}");
    }
}

#[test]
fn what_is_told_to_be_lost_explains_nothing_that_is_missing_later() {
    let mut source = Source::new();
    source.event("begin");
    let all_of_it = LossEvent {
        blocks: u64::MAX,
        ..LossEvent::default()
    };
    source.put_at(0, vec![Kind::Loss(all_of_it)]);
    for _ in 0..4 {
        source.event("goes");
    }
    source.seal();
    let mut blocks = source.blocks.clone();
    assert!(read(&blocks).is_whole());
    blocks.remove(3);
    let report = read(&blocks);
    assert_eq!((report.unexplained(), report.is_whole()), (1, false), "{report}");
}

#[test]
fn a_block_with_more_seals_than_a_source_makes_is_said_and_costs_no_more_than_a_few() {
    let mut source = Source::new();
    source.event("begin");
    source.seal();
    let seal = source
        .blocks
        .last()
        .map(|block| read_body(&block.body).unwrap().events);
    let many = std::iter::repeat_n(seal.unwrap().remove(0).kind.unwrap(), 100);
    source.put_at(0, many.collect());
    let found = alarms(&read(&source.blocks));
    assert!(found.iter().any(|one| one.contains("has 100 seals")), "{found:?}");
    assert!(found.len() <= 6, "{found:?}");
}

#[test]
fn a_missing_block_is_wrong_until_a_loss_record_accounts_for_it() {
    let mut source = trail(&[(0, 1), (0, 1)]);
    let mut blocks = source.blocks.clone();
    blocks.remove(2);
    let report = read(&blocks);
    assert_eq!(report.unexplained(), 1, "{report}");
    assert!(
        report
            .to_string()
            .contains("WRONG: no loss record accounts for 1 missing blocks")
    );
    source.shed(2);
    let report = read(&source.blocks);
    assert!(report.is_whole() && report.missing == 2, "{report}");
}

#[test]
fn a_clock_that_goes_back_is_said_and_nothing_else() {
    let mut source = trail(&[(5, 0)]);
    source.time_ms -= 60_000;
    source.seal();
    let report = read(&source.blocks);
    assert!(report.is_whole());
    assert!(report.to_string().contains("clock went back by"), "{report}");
}
