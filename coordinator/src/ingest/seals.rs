//! What the seals in a gateway's blocks show, judged as the blocks are stored (`penstock_proto::audit::chain`), and the coordinator's own word
//! for what it stored.
//!
//! The state of a gateway's seals is a record that changes with its trail, in one transaction; signatures are verified before it. A block is taken whatever
//! its seals show: it is evidence. What does not fit is an alarm in the coordinator's trail, and a fault of the gateway until its identity key vouches for
//! what comes after, or, where that key proves nothing, until a person acknowledged it; so is what its own agent reports of a disk that was set back, or of
//! a coordinator's trails that were rewritten, which may end there by itself. A gateway whose blocks hold no seals (its agent is older) has no
//! record, and no fault.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_policy::ids::{CoordinatorId, GatewayId, PlantId};
use penstock_policy::text;
use penstock_proto::audit::chain::{
    CheckedSeals, Place, SealChain, SealFault, SealFinding, SealTrust, UnsealedRun, seals,
};
use penstock_proto::audit::seal::{signer_name, word};
use penstock_proto::event::{AgentStep, COORDINATOR_PREFIX};
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditBlock, AuditBlockBody, SealEvent, TrailEvent};
use rustls::pki_types::CertificateDer;

use crate::journal::Journal;
use crate::store::{Append, Followed, Note, Store, StoreError};

/// What precedes a source's name in the key of the record of its seals.
const PREFIX: &str = "seals/";
/// Different reports of one block that are looked at; its trail has them all.
const REPORTS_MAX: usize = 8;
/// Of each, bytes.
const REPORT_BYTES_MAX: usize = 512;

/// Judges gateways' seals, and vouches for what is stored.
pub struct SealJudge {
    plant: PlantId,
    roots: Vec<CertificateDer<'static>>,
    /// The name under which the coordinator's key signs.
    name: String,
    credentials: Arc<ServerCredentials>,
    /// What stands behind the newest seal of each source, since this coordinator started.
    runs: Mutex<HashMap<String, UnsealedRun>>,
}

impl std::fmt::Debug for SealJudge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealJudge")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What is looked at of a block's seals before it is stored.
#[derive(Debug, Clone)]
pub(super) struct SealedBlock {
    pub(super) at: Place,
    /// Of its newest event, by the source's clock.
    pub(super) last_ms: u64,
    /// Its seals, each looked at by itself; `None`: it has none.
    pub(super) seals: Option<CheckedSeals>,
    /// What its agent reports there that only a person ends.
    reported: Vec<String>,
}

impl SealedBlock {
    /// Whether the record of the source's seals follows it.
    pub(super) fn is_followed(&self) -> bool {
        self.seals.is_some() || !self.reported.is_empty()
    }
}

/// What a gateway's agent reports of trails that only a person ends, each once.
fn reported(body: &AuditBlockBody) -> Vec<String> {
    let mut all = Vec::new();
    for event in &body.events {
        let Some(Kind::Agent(agent)) = &event.kind else {
            continue;
        };
        let step = AgentStep::of_word(&agent.step);
        if !matches!(step, Some(AgentStep::SpoolSetBack | AgentStep::TrailsRewritten)) {
            continue;
        }
        let words = format!(
            "{}: {}",
            agent.step,
            text::bounded(&agent.message, REPORT_BYTES_MAX)
        );
        let words = text::shortened(&words, REPORT_BYTES_MAX).into_owned();
        if !all.contains(&words) {
            all.push(words);
        }
        if all.len() >= REPORTS_MAX {
            break;
        }
    }
    all
}

/// What came of the seals in some blocks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SealReport {
    /// What does not fit, while it counts.
    pub fault: Option<SealFault>,
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
            runs: Mutex::default(),
        }
    }

    /// Looks at a block's seals by themselves.
    pub(super) fn look(&self, source: &str, block: &AuditBlock, body: &AuditBlockBody) -> SealedBlock {
        let has_seals = seals(body).next().is_some();
        SealedBlock {
            at: Place {
                epoch: block.epoch,
                sequence: block.sequence,
            },
            last_ms: body.events.iter().map(|event| event.time_ms).max().unwrap_or(0),
            seals: has_seals.then(|| CheckedSeals::of(&self.trust(source), block, body)),
            reported: reported(body),
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
        self.step(source, journal, note, move |chain, is_lost, outcomes| {
            let mut found = Vec::new();
            let mut newest = None;
            let stored = blocks.iter().zip(outcomes);
            let stored = stored.filter(|(_, outcome)| matches!(outcome, Append::Stored { .. }));
            for block in stored.map(|(block, _)| block).filter(|block| block.is_followed()) {
                if is_lost && found.is_empty() {
                    found.push(chain.forgotten(block.at));
                }
                for words in &block.reported {
                    found.push(chain.reported(block.at, words.clone()));
                }
                let Some(checked) = &block.seals else { continue };
                found.extend(chain.follow(checked));
                let text = checked.newest().filter(|_| chain.sealed() == Some(checked.at()));
                newest = text.map(ToString::to_string).or(newest);
            }
            (found, newest)
        })
    }

    /// Counts what was stored without seals; up to where, and how many, once they are too many.
    pub(super) fn count(
        &self,
        source: &str,
        blocks: &[SealedBlock],
        outcomes: &[Append],
    ) -> Option<(Place, u64)> {
        let mut runs = locked(&self.runs);
        let run = match runs.get_mut(source) {
            Some(run) => run,
            None => runs.entry(source.to_owned()).or_default(),
        };
        let mut long = None;
        for (block, outcome) in blocks.iter().zip(outcomes) {
            let has_seal = block.seals.as_ref().is_some_and(|seals| seals.newest().is_some());
            match outcome {
                Append::Stored { .. } if has_seal => {
                    run.sealed();
                    long = None;
                }
                Append::Stored { .. } => {
                    long = run.take(block.last_ms).map(|blocks| (block.at, blocks)).or(long);
                }
                Append::Held { .. } | Append::Refused(_) => {}
            }
        }
        long
    }

    /// What was counted last could not be written: it is found again with the next block.
    pub(super) fn not_reported(&self, source: &str) {
        if let Some(run) = locked(&self.runs).get_mut(source) {
            run.not_reported();
        }
    }

    /// Has the record say that a trail that was sealed goes on without seals.
    pub(super) fn unsealed(
        self: &Arc<Self>,
        source: &str,
        (at, blocks): (Place, u64),
        journal: &Journal,
    ) -> (Note<[Append]>, Arc<Mutex<SealReport>>) {
        let note = journal.alarms_with(|_: &[Append]| Vec::new());
        self.step(source, journal, note, move |chain, _, _| {
            (chain.unsealed(at, blocks).into_iter().collect(), None)
        })
    }

    /// Has the record change by what `found` finds.
    fn step(
        self: &Arc<Self>,
        source: &str,
        journal: &Journal,
        note: Note<[Append]>,
        find: impl Fn(&mut SealChain, bool, &[Append]) -> (Vec<SealFinding>, Option<String>) + Send + 'static,
    ) -> (Note<[Append]>, Arc<Mutex<SealReport>>) {
        let report = Arc::<Mutex<SealReport>>::default();
        let (journal, told) = (journal.clone(), report.clone());
        let gateway = source.to_owned();
        let note = note.followed_by(format!("{PREFIX}{source}"), move |outcomes, held| {
            let (mut chain, is_lost) = chain_of(held);
            let before = chain.clone();
            let (found, newest) = find(&mut chain, is_lost, outcomes);
            *locked(&told) = SealReport {
                fault: chain.fault().cloned(),
                newest,
            };
            let alarms = found.iter().map(|found| alarm(&gateway, found));
            Followed {
                // What is written here has no value that JSON lacks.
                value: (chain != before)
                    .then(|| serde_json::to_vec(&chain).ok())
                    .flatten(),
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

/// What does not fit in trails, by their gateways, as it was when the coordinator stopped.
pub(crate) async fn faults(store: &Store) -> Result<Vec<(GatewayId, SealFault)>, StoreError> {
    let records = store.list(PREFIX).await?.into_iter();
    let faults = records.filter_map(|(key, record)| {
        let gateway = GatewayId::new(key.strip_prefix(PREFIX)?).ok()?;
        Some((gateway, chain_of(Some(&record.value)).0.fault()?.clone()))
    });
    Ok(faults.collect())
}

/// The record of a gateway's seals once a person has acknowledged its fault.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    /// Its key.
    pub(crate) key: String,
    /// The one that it replaces.
    pub(crate) revision: u64,
    /// What it says.
    pub(crate) chain: SealChain,
    /// The fault that it no longer has.
    pub(crate) fault: SealFault,
}

/// Acknowledges the fault of a gateway that needs a person, if it is one that was shown; `None`: there is none.
pub(crate) async fn acknowledged(
    store: &Store,
    gateway: &GatewayId,
    is_shown: impl Fn(&SealFault) -> bool,
) -> Result<Option<Acknowledged>, StoreError> {
    let key = format!("{PREFIX}{gateway}");
    let Some(record) = store.get(&key).await? else {
        return Ok(None);
    };
    let (mut chain, _) = chain_of(Some(&record.value));
    let Some(fault) = chain.fault().cloned() else {
        return Ok(None);
    };
    Ok((is_shown(&fault) && chain.acknowledge()).then_some(Acknowledged {
        key,
        revision: record.revision,
        chain,
        fault,
    }))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
