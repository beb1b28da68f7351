//! Whether this gateway's disk was set back to an earlier state of itself, by a counter in its TPM that only goes up (IEC 62443-3-3 SR 3.4).
//!
//! ```text
//! a step: `rollback.json` is durable with the counter's next number ─▶ the TPM's counter goes up
//! a look: record behind the counter ─▶ the disk was set back      record even, or one ahead (killed in between) ─▶ it is the newest
//! ```
//!
//! A step is made when a policy is in force for good, when a longer list of withdrawn keys came, and once an hour as the trail grows: an image from
//! before such a step, put back as it is, is noticed. A disk that was set back is an alarm in the trail and in health, and no more: what is enforced goes
//! on, since an older policy is one that the approvers signed, and stopping the process is worse. A coordinator that is reached sends what is missing.
//! Nothing is counted until a person takes the disk for good as it is (`penstock-agent accept-disk`).
//!
//! A TPM's memory wears: makers promise 100,000 writes. Steps are at least [`STEP_MIN`] apart, those of the trail [`TRAIL_EVERY`]: one an hour for ten
//! years is 87,600. Within a process that holds by the monotonic clock, whatever the clock on the wall shows; the record's age on the wall holds it across
//! restarts, where a start's step is [`START_MIN`] after the last one. What is left is an agent that is restarted again and again under a clock that each time jumps forward by as much:
//! each such start is one step.
//!
//! What is not seen:
//! - A record that was edited: it is plain JSON, and nothing signs it. Who writes to the disk while the agent is off, and knows of the record, puts the
//!   counter's present number into that of an older image, or `key = "file"` into agent.toml beside an older key. What is noticed is a backup that was
//!   restored, an image that is put back as it is, and a part of the disk that is lost.
//! - A disk that is set back to a moment after the last step; there the coordinator notices by the trail that it holds.
//! - An image of the whole disk from before the key was to be in the TPM: its agent.toml asks for no TPM.
//! - Root on the live gateway, who can have the counter go up, which is an alarm, or do away with it, which is said.
//!
//! The marks are what the agent holds in memory. Where its store does not take what came (a fault of its own), the record is ahead of it, and a restart
//! then finds the disk set back: a part of it is lost indeed.

pub mod judge;

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_policy::text::sentence;
use penstock_proto::event::AgentStep;
use penstock_proto::v1::Fault;
use penstock_proto::withdrawn::WithdrawnView;
use tokio::sync::watch;
use tokio::time::Instant;
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
/// The least time between a step and the one of the next start, by the record's age.
pub const START_MIN: Duration = Duration::from_secs(600);
/// How long until it is looked at again where a TPM did not answer, or there is nothing to count.
const AGAIN: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// After how many failures in a row it is reported that nothing guards the disk.
const FAILURES: u32 = 2;
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
    /// It was not judged yet, or there is nothing to judge it by: its key is in no TPM.
    Nothing,
    /// It is the newest, as this record says.
    Newest(StepRecord),
    /// It is not, which is judged again when the record is another one; or nothing tells.
    Wrong(AgentStep, String),
}

type Looked = Result<(DiskState, Option<u64>), RollbackError>;
type Files = (Option<(u64, i64, i64)>, Option<(u64, u64)>);

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
        let began = Instant::now();
        let (mut known, mut seen, mut again) = (DiskState::Nothing, None, began);
        let (mut failures, mut stepped) = (0, None::<Instant>);
        let mut is_first = true;
        loop {
            let now = self.marks();
            let is_known = now.trail.is_some() || began.elapsed() >= TRAIL_PATIENCE;
            let is_changed = seen != Some(self.files());
            let ages = Ages {
                written: written(&self.state_folder, began.elapsed()),
                stepped: stepped.map_or(Duration::MAX, |stepped| stepped.elapsed()),
            };
            let (is_due, is_awaited) = match &known {
                DiskState::Newest(noted) => (
                    (is_changed && ages.stepped >= STEP_MIN) || is_due(noted, &now, &ages, is_first),
                    false,
                ),
                DiskState::Wrong(AgentStep::DiskSetBack, _) => (is_changed, failures == 0),
                DiskState::Nothing | DiskState::Wrong(..) => (true, is_changed && failures == 0),
            };
            if is_known && is_due && (is_awaited || Instant::now() >= again) {
                seen = Some(self.files());
                let mut found = self.look(now).await;
                if let (DiskState::Newest(_), Ok((DiskState::Newest(noted), Some(counter)))) =
                    (&known, &found)
                {
                    if let Some(accepted) = noted
                        .accepted
                        .as_ref()
                        .filter(|_| known != DiskState::Newest(noted.clone()))
                    {
                        self.audit
                            .note(record::agent(AgentStep::DiskAccepted, &accepted.reason));
                    }
                    stepped = Some(Instant::now());
                    found = self.step(noted.next(*counter, now)).await;
                    is_first &= found.is_err();
                    seen = Some(self.files());
                }
                match found {
                    Ok((found, _)) => {
                        let is_over = std::mem::take(&mut failures) >= FAILURES;
                        self.report(&known, &found, is_over);
                        again = match &found {
                            DiskState::Newest(_) => Instant::now(),
                            DiskState::Nothing | DiskState::Wrong(..) => Instant::now() + AGAIN,
                        };
                        known = found;
                    }
                    Err(error) => {
                        failures += 1;
                        seen = None;
                        again = Instant::now() + AGAIN;
                        self.report_failure(&known, &error, failures);
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Which record and which key there are: other ones are looked at.
    fn files(&self) -> Files {
        let record = std::fs::metadata(self.state_folder.join(FILE)).ok();
        let record = record.map(|found| (found.ino(), found.mtime(), found.mtime_nsec()));
        (record, self.folder.key_file())
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

    /// Judges the disk.
    async fn look(&self, now: Marks) -> Looked {
        let (state_folder, folder) = (self.state_folder.clone(), self.folder.clone());
        let looked = tokio::task::spawn_blocking(move || look(&state_folder, &folder, &now));
        // The thread ends otherwise only with the program.
        looked.await.unwrap_or(Ok((DiskState::Nothing, None)))
    }

    /// Makes the step that this record is of.
    async fn step(&self, next: StepRecord) -> Looked {
        let (state_folder, tpm) = (self.state_folder.clone(), self.folder.tpm().clone());
        let stepped = tokio::task::spawn_blocking(move || {
            write(&state_folder, &next)?;
            tpm.count_up()?;
            Ok((DiskState::Newest(next), None))
        });
        stepped.await.unwrap_or(Ok((DiskState::Nothing, None)))
    }

    /// Reports what is found now. `is_over`: what was reported of failures no longer holds.
    fn report(&self, before: &DiskState, found: &DiskState, is_over: bool) {
        if before != found || is_over {
            self.faults.send_replace(faults_of(found));
        }
        match found {
            _ if before == found => {}
            DiskState::Wrong(step, words) => {
                tracing::error!("{words}");
                self.audit.note(record::agent(*step, words));
            }
            DiskState::Newest(noted) => {
                if let Some(accepted) = &noted.accepted {
                    self.audit
                        .note(record::agent(AgentStep::DiskAccepted, &accepted.reason));
                }
            }
            DiskState::Nothing => {}
        }
    }

    /// Reports that it could not be looked, or counted, so many times in a row: one time may pass.
    fn report_failure(&self, known: &DiskState, error: &RollbackError, failures: u32) {
        let words = format!(
            "it is not known now whether this disk was set back: {}",
            sentence(error)
        );
        tracing::warn!("{words}");
        if failures == FAILURES {
            let words = format!("{words}. What is enforced goes on, and this is tried again");
            self.audit.note(record::agent(AgentStep::DiskUnguarded, &words));
            let mut faults = faults_of(known);
            faults.retain(|fault| fault.code != AgentStep::DiskUnguarded.word());
            faults.push(Fault::new(AgentStep::DiskUnguarded.word(), words));
            self.faults.send_replace(faults);
        }
    }
}

fn faults_of(found: &DiskState) -> Vec<Fault> {
    match found {
        DiskState::Wrong(step, words) => vec![Fault::new(step.word(), words.clone())],
        DiskState::Newest(_) | DiskState::Nothing => Vec::new(),
    }
}

/// How long ago the last step was.
struct Ages {
    /// By the clock on the wall: when the record was written.
    written: Duration,
    /// By the monotonic clock: when this process made one.
    stepped: Duration,
}

/// Whether a step is to be made.
fn is_due(noted: &StepRecord, now: &Marks, ages: &Ages, is_first: bool) -> bool {
    let has_changed = now.revision > noted.marks.revision || now.withdrawn > noted.marks.withdrawn;
    let (since_written, since_stepped) = match (noted.accepted.is_some(), has_changed, is_first) {
        (true, ..) => (Duration::ZERO, STEP_MIN),
        (_, true, _) => (STEP_MIN, STEP_MIN),
        (_, _, true) => (START_MIN, STEP_MIN),
        _ if now.trail > noted.marks.trail => (TRAIL_EVERY, TRAIL_EVERY),
        _ => return false,
    };
    ages.written >= since_written && ages.stepped >= since_stepped
}

/// What the disk is, and what the counter shows where it was asked.
fn look(state_folder: &Path, folder: &IdentityFolder, now: &Marks) -> Looked {
    if !folder.counts_on_tpm() {
        return Ok((DiskState::Nothing, None));
    }
    let remedy =
        "What is enforced goes on. To accept the disk as it is: penstock-agent accept-disk --reason TEXT";
    let unguarded = |why: &str| {
        let words = format!("nothing tells whether this gateway's disk was set back: {why}. {remedy}");
        DiskState::Wrong(AgentStep::DiskUnguarded, words)
    };
    let noted = match read(state_folder) {
        Ok(noted) => noted,
        Err(error) => return Ok((unguarded(&sentence(&error)), None)),
    };
    let key = folder.key_place();
    if noted.is_none() && matches!(key, Ok(None)) {
        return Ok((DiskState::Nothing, None));
    }
    let counter = folder.tpm().counter()?;
    let is_moved = !matches!(key, Ok(Some(KeyPlace::File)));
    let found = match (judge(noted.as_ref(), counter, now), noted) {
        (Judgement::Newest, Some(noted)) => DiskState::Newest(noted),
        (Judgement::SetBack(why), _) => DiskState::Wrong(
            AgentStep::DiskSetBack,
            format!("this gateway's disk was set back, or a part of it is lost: {why}. {remedy}"),
        ),
        // Its key moves into the TPM when it has a token for that, and the counter begins then.
        (Judgement::Unguarded(_), None) if !is_moved => DiskState::Nothing,
        (Judgement::Unguarded(why), _) => unguarded(&why),
        // Only a record that is there is the newest.
        (Judgement::Newest, None) => DiskState::Nothing,
    };
    Ok((found, counter))
}

/// How long ago the record was written. By a clock that was set back since, as long as this process runs; where there is none, long ago.
fn written(state_folder: &Path, running: Duration) -> Duration {
    let written = std::fs::metadata(state_folder.join(FILE)).and_then(|found| found.modified());
    written.map_or(Duration::MAX, |written| written.elapsed().unwrap_or(running))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::SystemTime;

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
        let at = |written, stepped| Ages { written, stepped };
        let long = Duration::MAX;
        assert!(!is_due(&noted, &marks, &at(long, long), false));
        for (now, is_first, written, stepped) in [
            (grown, false, TRAIL_EVERY, TRAIL_EVERY),
            (released, false, STEP_MIN, STEP_MIN),
            (grown, true, START_MIN, STEP_MIN),
        ] {
            assert!(is_due(&noted, &now, &at(written, stepped), is_first));
            assert!(!is_due(&noted, &now, &at(just_under(written), long), is_first));
            // Whatever the clock on the wall shows.
            assert!(!is_due(&noted, &now, &at(long, just_under(stepped)), is_first));
        }
        let per_year = |every: Duration| Duration::from_secs(365 * 86_400).as_secs() / every.as_secs();
        assert!(per_year(TRAIL_EVERY) * 10 < 100_000, "ten years, by the trail");
    }
    #[test]
    fn a_tpm_that_fails_twice_in_a_row_is_a_fault_beside_what_was_found_until_it_is_over() {
        let (audit, _unwritten) = crate::audit::queue();
        let (faults, shown) = watch::channel(Vec::new());
        let guard = RollbackGuard {
            state_folder: PathBuf::new(),
            folder: IdentityFolder::new(Path::new("")),
            policy: watch::channel(PolicyView::default()).1,
            withdrawn: WithdrawnView::default(),
            audit,
            faults,
        };
        let codes = || {
            let shown = shown.borrow();
            shown.iter().map(|fault| fault.code.clone()).collect::<Vec<_>>()
        };
        let absent = Tpm::at("/dev/tpmrm999".parse().unwrap());
        let gone = RollbackError::from(absent.counter().unwrap_err());
        let [set_back, unguarded] = [AgentStep::DiskSetBack, AgentStep::DiskUnguarded];
        let found = DiskState::Wrong(set_back, "it was".to_owned());
        guard.report(&DiskState::Nothing, &found, false);
        guard.report_failure(&found, &gone, 1);
        assert_eq!(codes(), [set_back.word()]);
        guard.report_failure(&found, &gone, 2);
        assert_eq!(codes(), [set_back.word(), unguarded.word()]);
        assert!(shown.borrow()[1].message.contains("cannot be reached"));
        guard.report(&found, &found, true);
        assert_eq!(codes(), [set_back.word()]);
        guard.report(&found, &DiskState::Nothing, false);
        assert!(codes().is_empty());
    }

    #[test]
    fn a_record_of_a_time_to_come_is_as_old_as_this_process_and_none_is_very_old() {
        let folder = tempfile::tempdir().unwrap();
        let running = Duration::from_secs(3);
        assert_eq!(written(folder.path(), running), Duration::MAX);
        let file = std::fs::File::create(folder.path().join(FILE)).unwrap();
        file.set_modified(SystemTime::now() + TRAIL_EVERY).unwrap();
        assert_eq!(written(folder.path(), running), running);
        file.set_modified(SystemTime::now() - TRAIL_EVERY).unwrap();
        assert!(written(folder.path(), running) >= TRAIL_EVERY);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_said_and_a_gateway_with_its_key_in_a_file_asks_no_tpm() {
        let folder = tempfile::tempdir().unwrap();
        let absent = Tpm::at("/dev/tpmrm999".parse().unwrap());
        let [file, tpm] = [KeyPlace::File, KeyPlace::Tpm]
            .map(|place| IdentityFolder::new(folder.path()).with_keys(place, absent.clone()));
        file.key().unwrap();
        let look = |folder: &IdentityFolder, state: &Path| look(state, folder, &Marks::default());
        let state = folder.path();
        assert_eq!(look(&file, state).unwrap(), (DiskState::Nothing, None));
        assert!(
            look(&tpm, state).is_err(),
            "it asks, since there may be a counter"
        );
        let record = state.join(FILE);
        let damages: [&dyn Fn(); 3] = [
            &|| std::fs::write(&record, "no record").unwrap(),
            &|| std::fs::write(&record, vec![b' '; 17 * 1024]).unwrap(),
            &|| {
                std::fs::remove_file(&record).unwrap();
                std::fs::create_dir(&record).unwrap();
            },
        ];
        for damage in damages {
            damage();
            let (found, _) = look(&tpm, state).unwrap();
            assert!(
                matches!(&found, DiskState::Wrong(AgentStep::DiskUnguarded, words) if words.contains(FILE)),
                "{found:?}"
            );
            assert_eq!(look(&file, state).unwrap(), (DiskState::Nothing, None));
        }
    }
}
