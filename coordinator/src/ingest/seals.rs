//! What the seals in a gateway's blocks show, judged as the blocks are stored (`penstock_proto::audit::chain`), and the coordinator's own word
//! for what it stored.
//!
//! The state of a gateway's seals is a record that changes with its trail, in one transaction. A block is taken whatever its seals show: it is
//! evidence. What does not fit is an alarm in the coordinator's trail, and a fault of the gateway until its identity key vouches for what
//! comes after. A gateway whose blocks hold no seals (its agent is older) has no record, and no fault.

use std::sync::{Arc, Mutex, PoisonError};

use penstock_policy::ids::{CoordinatorId, PlantId};
use penstock_proto::audit::chain::{Place, SealChain, SealFinding, SealTrust, seals};
use penstock_proto::audit::note::Note as SignedNote;
use penstock_proto::audit::seal::{signer_name, word};
use penstock_proto::event::COORDINATOR_PREFIX;
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::v1::{AuditBlock, AuditBlockBody, SealEvent, TrailEvent};
use rustls::pki_types::CertificateDer;

use crate::journal::Journal;
use crate::store::{Append, Followed, Note};

/// What precedes a source's name in the key of the record of its seals.
const PREFIX: &str = "seals/";

/// Judges gateways' seals, and vouches for what is stored.
pub struct SealJudge {
    plant: PlantId,
    roots: Vec<CertificateDer<'static>>,
    /// The name under which the coordinator's key signs.
    name: String,
    credentials: Arc<ServerCredentials>,
}

impl std::fmt::Debug for SealJudge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealJudge")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A block with seals among those of one delivery.
#[derive(Debug, Clone)]
pub(super) struct SealedBlock {
    /// Its number in the delivery.
    pub(super) index: usize,
    pub(super) block: AuditBlock,
    pub(super) body: AuditBlockBody,
}

impl SealedBlock {
    /// `None`: there are no seals in it.
    pub(super) fn of(index: usize, block: &AuditBlock, body: &AuditBlockBody) -> Option<Self> {
        seals(body).next().map(|_| Self {
            index,
            block: block.clone(),
            body: body.clone(),
        })
    }
}

/// What came of the seals in some blocks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SealReport {
    /// What does not fit, in words, until the gateway's identity key vouches for what comes after it.
    pub fault: Option<String>,
    /// The text of the newest seal that was stored and counts.
    newest: Option<String>,
}

impl SealJudge {
    /// Of a plant, with the coordinator's own key.
    pub fn new(
        plant: PlantId,
        roots: Vec<CertificateDer<'static>>,
        coordinator: &CoordinatorId,
        credentials: Arc<ServerCredentials>,
    ) -> Self {
        let name = signer_name(plant.as_str(), &format!("{COORDINATOR_PREFIX}{coordinator}"));
        Self {
            plant,
            roots,
            name,
            credentials,
        }
    }

    /// Has the record of the source's seals follow what `note` is about; what comes of it is there once that is stored.
    pub(super) fn follow(
        self: &Arc<Self>,
        source: &str,
        blocks: Vec<SealedBlock>,
        journal: &Journal,
        note: Note<[Append]>,
    ) -> (Note<[Append]>, Arc<Mutex<SealReport>>) {
        let report = Arc::<Mutex<SealReport>>::default();
        let (judge, journal, told) = (self.clone(), journal.clone(), report.clone());
        let gateway = source.to_owned();
        let note = note.followed_by(format!("{PREFIX}{source}"), move |outcomes, held| {
            let (mut chain, is_lost) = chain_of(held);
            let mut found = Vec::new();
            let mut newest = None;
            let is_stored =
                |one: &&SealedBlock| matches!(outcomes.get(one.index), Some(Append::Stored { .. }));
            for one in blocks.iter().filter(is_stored) {
                if is_lost && found.is_empty() {
                    found.push(chain.forgotten(&one.block));
                }
                found.extend(chain.take(&judge.trust(&gateway), &one.block, &one.body));
                newest = counted_text(&chain, one).or(newest);
            }
            *told.lock().unwrap_or_else(PoisonError::into_inner) = SealReport {
                fault: chain.fault().map(str::to_owned),
                newest,
            };
            let alarms = found.iter().map(|found| alarm(&gateway, found));
            Followed {
                // What is written here has no value that JSON lacks.
                value: serde_json::to_vec(&chain).ok(),
                bodies: journal.bodies_of(alarms),
            }
        });
        (note, report)
    }

    /// The coordinator's word for the newest seal that was stored, if one was and its key signs.
    pub(super) fn witness(&self, report: &SealReport) -> Option<SealEvent> {
        let text = report.newest.as_ref()?;
        let credentials = self.credentials.held();
        match word(text, &self.name, credentials.key(), credentials.chain()) {
            Ok(word) => Some(word),
            Err(error) => {
                tracing::warn!(%error, "the coordinator's key does not vouch for what was stored of a trail");
                None
            }
        }
    }

    fn trust<'a>(&'a self, source: &'a str) -> SealTrust<'a> {
        SealTrust {
            plant: &self.plant,
            source: source.into(),
            roots: &self.roots,
        }
    }
}

/// What a record says, and whether there is one that cannot be read: the seals begin again then, and an alarm says so.
fn chain_of(held: Option<&[u8]>) -> (SealChain, bool) {
    match held.map(serde_json::from_slice) {
        Some(Ok(chain)) => (chain, false),
        Some(Err(_)) => (SealChain::default(), true),
        None => (SealChain::default(), false),
    }
}

/// The text of the seal in a block, if it is the newest that counts.
fn counted_text(chain: &SealChain, one: &SealedBlock) -> Option<String> {
    let at = Place {
        epoch: one.block.epoch,
        sequence: one.block.sequence,
    };
    let own = seals(&one.body).find(|seal| seal.certificates.is_empty());
    let own = own.filter(|_| chain.sealed() == Some(at))?;
    Some(SignedNote::parse(&own.note).ok()?.text)
}

fn alarm(source: &str, found: &SealFinding) -> TrailEvent {
    let at = found.at();
    TrailEvent {
        step: if found.is_alarm() { "seals" } else { "sealed" }.to_owned(),
        source: source.to_owned(),
        epoch: at.epoch,
        sequence: at.sequence,
        blocks: 0,
        message: found.to_string(),
    }
}

#[cfg(test)]
mod tests;
