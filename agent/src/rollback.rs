//! Whether this gateway's disk was set back to an earlier state of itself, by a counter in its TPM that only goes up (IEC 62443-3-3 SR 3.4).
//!
//! ```text
//! a step: `rollback.json` is durable with the counter's next number ─▶ the TPM's counter goes up
//! a look: record behind the counter ─▶ the disk was set back      record even, or one ahead (killed in between) ─▶ it is the newest
//! ```
//!
//! A step is made when a policy is in force for good, when a longer list of withdrawn keys came, and once an hour as the trail grows: what
//! was before such a step cannot come back unnoticed. A disk that was set back is an alarm in the trail and in health, and no more: what is enforced goes on, since an older
//! policy is one that the approvers signed, and stopping the process is worse. A coordinator that is reached sends what is missing. Nothing is counted until
//! a person takes the disk for good as it is (`penstock-agent accept-disk`).
//!
//! A TPM's memory wears: makers promise 100,000 writes. Steps are at least [`STEP_MIN`] apart, also across restarts; those of a start [`START_MIN`], those of the trail [`TRAIL_EVERY`]. One an hour
//! for ten years is 87,600.
//!
//! What is not seen: a disk that is set back to a moment after the last step; there the coordinator notices by the trail that it holds. And who is
//! root on the live gateway can have the counter go up, which is an alarm, or do away with it, which is said.

pub mod judge;

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use penstock_proto::event::AgentStep;
use penstock_proto::v1::Fault;
use penstock_proto::withdrawn::WithdrawnView;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::judge::{Acceptance, Judgement, Marks, StepRecord, judge};
use crate::audit::{Audit, Position, record};
use crate::clock;
use crate::durable::{self, FileError};
use crate::identity::IdentityFolder;
use crate::reconcile::PolicyView;
use crate::tpm::{KeyPlace, Tpm, TpmError};

const FILE: &str = "rollback.json";
const BYTES_MAX: u64 = 16 * 1024;
/// The least time between two steps.
pub const STEP_MIN: Duration = Duration::from_secs(60);
/// How often a step is made because the trail grew.
pub const TRAIL_EVERY: Duration = Duration::from_secs(3600);
/// The least time between a step and the one of the next start: an agent that is restarted again and again wears nothing out.
pub const START_MIN: Duration = Duration::from_secs(600);
/// How long until a TPM that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long the trail may take to open before the disk is judged without it.
const TRAIL_PATIENCE: Duration = Duration::from_secs(60);

/// Why a disk is not guarded, or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// The counter.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The record.
    #[error(transparent)]
    File(#[from] FileError),
    /// The record is damaged.
    #[error("the record of the TPM's counter, {}, is damaged", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

fn read(state_folder: &Path) -> Result<Option<StepRecord>, RollbackError> {
    let path = state_folder.join(FILE);
    let Some(bytes) = durable::read(&path, BYTES_MAX)? else {
        return Ok(None);
    };
    let noted = serde_json::from_slice(&bytes);
    noted
        .map(Some)
        .map_err(|source| RollbackError::Damaged { path, source })
}

fn write(state_folder: &Path, noted: &StepRecord) -> Result<(), RollbackError> {
    // Numbers and a text: nothing that JSON cannot say.
    let bytes = serde_json::to_vec(noted).unwrap_or_default();
    let path = state_folder.join(FILE);
    durable::replace(&path, &bytes, 0o600)?;
    // Root accepts a disk whose agent is another user, and reads it next.
    if let Ok(folder) = std::fs::metadata(state_folder) {
        let _ = chown(&path, Some(folder.uid()), Some(folder.gid()));
    }
    Ok(())
}

/// Takes the disk for the newest of itself from now on; makes the counter, where the TPM has none. What it shows.
///
/// # Errors
/// The TPM does not do it, or the record cannot be written.
pub fn accept(state_folder: &Path, tpm: &Tpm, reason: &str) -> Result<u64, RollbackError> {
    let counter = match tpm.counter()? {
        Some(counter) => counter,
        None => tpm.begin_counter()?,
    };
    let accepted = Acceptance {
        at_ms: clock::now_ms(),
        reason: reason.to_owned(),
    };
    let noted = StepRecord {
        counter,
        marks: Marks::default(),
        accepted: Some(accepted),
    };
    write(state_folder, &noted)?;
    Ok(counter)
}

/// Begins to guard the disk of a gateway that was just enrolled, unless it is guarded.
///
/// # Errors
/// As [`accept`]; or the record that is there cannot be read.
pub fn begin(state_folder: &Path, tpm: &Tpm) -> Result<(), RollbackError> {
    match read(state_folder)? {
        Some(_) => Ok(()),
        None => accept(state_folder, tpm, "enrolled").map(|_| ()),
    }
}

/// What is known of the disk.
#[derive(Debug, Clone, PartialEq)]
enum DiskState {
    /// It was not judged yet.
    Nothing,
    /// It is the newest, as this record says.
    Newest(StepRecord),
    /// It is not, or nothing tells; it is judged again when the record is another one.
    Wrong(AgentStep, String),
}

/// Makes the steps, and reports what is found.
pub struct RollbackGuard {
    /// Where the record is.
    pub state_folder: PathBuf,
    /// Where the key is, and its TPM.
    pub folder: IdentityFolder,
    /// What is in force.
    pub policy: watch::Receiver<PolicyView>,
    /// Whose keys no longer count.
    pub withdrawn: WithdrawnView,
    /// The trail.
    pub audit: Audit,
    /// What a person should know.
    pub faults: watch::Sender<Vec<Fault>>,
}

impl RollbackGuard {
    /// Until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let began = tokio::time::Instant::now();
        let (mut known, mut seen, mut again) = (DiskState::Nothing, None, began);
        let mut is_first = true;
        loop {
            let now = self.marks();
            let written = written_at(&self.state_folder);
            let is_known = now.trail.is_some() || began.elapsed() >= TRAIL_PATIENCE;
            let is_due = match &known {
                DiskState::Nothing => true,
                DiskState::Wrong(..) => written != seen,
                DiskState::Newest(noted) => is_due(noted, &now, age(written), is_first),
            };
            if is_known && is_due && tokio::time::Instant::now() >= again {
                let is_step = matches!(known, DiskState::Newest(_));
                match self.look(now, is_step).await {
                    Ok(found) => {
                        is_first &= !is_step;
                        self.report(&known, &found);
                        known = found;
                        seen = written_at(&self.state_folder);
                    }
                    // A TPM that does not sign is reported where it is asked to; this is asked again.
                    Err(error) => {
                        tracing::warn!(%error, "it is not known now whether this disk was set back");
                        again = tokio::time::Instant::now() + AGAIN;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// How far this gateway has come.
    fn marks(&self) -> Marks {
        let trusted = self
            .policy
            .borrow()
            .state
            .trusted
            .as_ref()
            .map(|trusted| trusted.revision);
        let Position { epoch, sequence } = self.audit.state().borrow().next;
        Marks {
            revision: trusted.unwrap_or_default(),
            withdrawn: self.withdrawn.now().held().number,
            // Before the spool is open, it stands at nothing at all.
            trail: ((epoch, sequence) != (0, 0)).then_some((epoch, sequence)),
        }
    }

    /// Judges the disk, and makes a step if it is the newest and one is asked for.
    async fn look(&self, now: Marks, is_step: bool) -> Result<DiskState, RollbackError> {
        let (state_folder, folder) = (self.state_folder.clone(), self.folder.clone());
        let looked = tokio::task::spawn_blocking(move || look(&state_folder, &folder, &now, is_step));
        // The thread ends otherwise only with the program.
        looked.await.unwrap_or(Ok(DiskState::Nothing))
    }

    fn report(&self, before: &DiskState, found: &DiskState) {
        if before == found {
            return;
        }
        match found {
            DiskState::Wrong(step, words) => {
                tracing::error!("{words}");
                self.audit.note(record::agent(*step, words));
                self.faults
                    .send_replace(vec![Fault::new(step.word(), words.clone())]);
            }
            DiskState::Newest(noted) => {
                self.faults.send_replace(Vec::new());
                if let Some(accepted) = &noted.accepted {
                    self.audit
                        .note(record::agent(AgentStep::DiskAccepted, &accepted.reason));
                }
            }
            DiskState::Nothing => {}
        }
    }
}

/// Whether a step is to be made.
fn is_due(noted: &StepRecord, now: &Marks, age: Duration, is_first: bool) -> bool {
    let has_changed = now.revision > noted.marks.revision || now.withdrawn > noted.marks.withdrawn;
    let since = match (noted.accepted.is_some(), has_changed, is_first) {
        (true, ..) => Duration::ZERO,
        (_, true, _) => STEP_MIN,
        (_, _, true) => START_MIN,
        _ if now.trail > noted.marks.trail => TRAIL_EVERY,
        _ => return false,
    };
    age >= since
}

fn look(
    state_folder: &Path,
    folder: &IdentityFolder,
    now: &Marks,
    is_step: bool,
) -> Result<DiskState, RollbackError> {
    let noted = match read(state_folder) {
        Err(error @ RollbackError::Damaged { .. }) => {
            return Ok(DiskState::Wrong(AgentStep::DiskUnguarded, error.to_string()));
        }
        noted => noted?,
    };
    if noted.is_none() && folder.key_place().ok().flatten() != Some(KeyPlace::Tpm) {
        return Ok(DiskState::Nothing);
    }
    let tpm = folder.tpm();
    let counter = tpm.counter()?;
    let remedy =
        "What is enforced goes on. To accept the disk as it is: penstock-agent accept-disk --reason TEXT";
    Ok(match (judge(noted.as_ref(), counter, now), noted, counter) {
        (Judgement::Newest, Some(noted), Some(counter)) if is_step => {
            let next = noted.next(counter, *now);
            write(state_folder, &next)?;
            tpm.count_up()?;
            DiskState::Newest(next)
        }
        (Judgement::Newest, Some(noted), _) => DiskState::Newest(noted),
        (Judgement::SetBack(why), ..) => DiskState::Wrong(
            AgentStep::DiskSetBack,
            format!("this gateway's disk was set back, or a part of it is lost: {why}. {remedy}"),
        ),
        (Judgement::Unguarded(why), ..) => DiskState::Wrong(
            AgentStep::DiskUnguarded,
            format!("nothing tells whether this gateway's disk was set back: {why}. {remedy}"),
        ),
        // Only a record that is there is the newest.
        (Judgement::Newest, None, _) => DiskState::Nothing,
    })
}

/// When the record was written.
fn written_at(state_folder: &Path) -> Option<SystemTime> {
    std::fs::metadata(state_folder.join(FILE)).ok()?.modified().ok()
}

/// How long ago that was; by a clock that was set back since, long ago.
fn age(written: Option<SystemTime>) -> Duration {
    written
        .and_then(|written| written.elapsed().ok())
        .unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_made_for_what_must_not_be_undone_and_wear_the_tpm_no_faster_than_it_can_bear() {
        let marks = Marks {
            revision: 3,
            withdrawn: 1,
            trail: Some((1, 7)),
        };
        let noted = StepRecord {
            counter: 4,
            marks,
            accepted: None,
        };
        let grown = Marks {
            trail: Some((1, 8)),
            ..marks
        };
        let released = Marks { revision: 4, ..grown };
        let just_under = |span: Duration| span - Duration::from_millis(1);
        assert!(!is_due(&noted, &marks, Duration::MAX, false));
        for (now, is_first, span) in [
            (grown, false, TRAIL_EVERY),
            (released, false, STEP_MIN),
            (grown, true, START_MIN),
        ] {
            assert!(is_due(&noted, &now, span, is_first));
            assert!(!is_due(&noted, &now, just_under(span), is_first));
        }
        let per_year = |every: Duration| Duration::from_secs(365 * 86_400).as_secs() / every.as_secs();
        assert!(per_year(TRAIL_EVERY) * 10 < 100_000, "ten years, by the trail");
    }
}
