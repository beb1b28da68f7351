//! A gateway whose agent dies at any seam: before and after each write, each call of the kernel, and each piece of work.
//!
//! What outlives the agent ([`Stays`]) is beside it: the clock, the records, the kernel and what the site says. A death is a step that is
//! never polled again.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::OnceLock;

use super::overrides::{is_overridden, overridable};
use super::said::{SaidSite, Says};
use super::*;
use crate::policy_store::journal::Journal;
use crate::policy_store::overrides::OverridesRecord;

/// Counts seams; the agent dies at one of them.
#[derive(Clone, Default)]
pub(super) struct Life(Arc<Mutex<(u64, Option<u64>)>>);

impl Life {
    /// Whether it is dead, or dies here.
    fn ends_here(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        let (passed, last) = *state;
        if last.is_some_and(|last| passed >= last) {
            return true;
        }
        state.0 += 1;
        false
    }

    fn seam(&self) -> impl Future<Output = ()> + Send + use<> {
        let life = self.clone();
        let mut is_passed = false;
        poll_fn(move |_| {
            is_passed = is_passed || !life.ends_here();
            if is_passed { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// It dies after so many seams more.
    pub(super) fn dies_after(&self, seams: u64) {
        let mut state = self.0.lock().unwrap();
        state.1 = Some(state.0 + seams);
    }

    pub(super) fn spare(&self) {
        self.0.lock().unwrap().1 = None;
    }
}

/// What happened to the kernel, with what the disk had then.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// The revision that it holds; 0: none.
    pub(super) holds: u64,
    /// Its plan is overridden.
    pub(super) overridden: bool,
    /// The overrides on the disk at that moment.
    pub(super) overrides: OverridesRecord,
    /// The journal at that moment, and the mark of what is in force.
    pub(super) journal: Journal,
    pub(super) marked: Option<Digest>,
}

/// How the kernel answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Works,
    /// It refuses to check.
    Refuses,
    /// It refuses to hold what it checked.
    RefusesLate,
    /// It holds what it was asked for, and does not say so.
    TakesUnseen,
    /// It is as before, and does not say so.
    LeavesUnseen,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    journal: Read<Journal>,
    overrides: Read<OverridesRecord>,
    pub(super) holds: Option<u64>,
    pub(super) overridden: bool,
    pub(super) changes: Vec<Change>,
    pub(super) mood: Mood,
    /// Revisions that it did not take, or not surely.
    pub(super) failed: BTreeSet<u64>,
    pub(super) shadow: Option<u64>,
}

/// The kernel as one agent has it.
pub(super) struct SeamKernel {
    table: Arc<Mutex<Table>>,
    records: Arc<Mutex<Memory>>,
    life: Life,
}

impl SeamKernel {
    /// Has the kernel hold `revision`, overridden or not, as its mood is.
    fn change(&self, revision: u64, overridden: bool) -> Result<(), KernelError> {
        let mut table = self.table.lock().unwrap();
        let error = |in_doubt| {
            Err(KernelError {
                in_doubt,
                ..no_memory()
            })
        };
        let answer = match table.mood {
            Mood::Works => Ok(()),
            Mood::Refuses | Mood::RefusesLate => error(false),
            Mood::TakesUnseen | Mood::LeavesUnseen => error(true),
        };
        if answer.is_err() {
            table.failed.insert(revision);
        }
        if matches!(table.mood, Mood::Works | Mood::TakesUnseen) {
            let records = self.records.lock().unwrap();
            let journal = table.journal.of(&records, "trial");
            let overrides = table.overrides.of(&records, "overrides");
            table.holds = (revision > 0).then_some(revision);
            table.overridden = overridden;
            table.changes.push(Change {
                holds: revision,
                overridden,
                overrides,
                journal,
                marked: records
                    .records
                    .get("effective")
                    .map(|bytes| Digest(bytes[..].try_into().unwrap())),
            });
        }
        answer
    }
}

/// What was read of a record last, which is asked for far more often than it changes.
#[derive(Debug, Default)]
pub(super) struct Read<T>(Vec<u8>, T);

impl<T: Clone + Default + serde::de::DeserializeOwned> Read<T> {
    pub(super) fn of(&mut self, records: &Memory, record: &str) -> T {
        let bytes = records.records.get(record);
        if bytes.is_some_and(|bytes| *bytes != self.0) {
            self.0.clone_from(bytes.unwrap());
            self.1 = serde_json::from_slice(&self.0).unwrap();
        }
        self.1.clone()
    }
}

impl Kernel for SeamKernel {
    fn capabilities(&self) -> BTreeSet<Capability> {
        [
            Capability::KERNEL,
            Capability::REMOTE_ACCESS,
            Capability::OVERRIDES,
        ]
        .map(Capability::of)
        .into()
    }

    async fn check(&self, _: Arc<Plan>) -> Result<(), KernelError> {
        self.life.seam().await;
        let refuses = self.table.lock().unwrap().mood == Mood::Refuses;
        if refuses { Err(no_memory()) } else { Ok(()) }
    }

    async fn apply(&self, plan: Arc<Plan>, revision: Revision) -> Result<Vec<String>, KernelError> {
        self.life.seam().await;
        let done = self.change(revision.0, is_overridden(&plan));
        self.life.seam().await;
        done.map(|()| Vec::new())
    }

    async fn ground(&self, _: Arc<Plan>) -> Result<String, KernelError> {
        self.life.seam().await;
        Ok("bare".to_owned())
    }

    async fn withdraw(&self, ground: &str) -> Result<(), KernelError> {
        assert_eq!(ground, "bare");
        self.life.seam().await;
        let done = self.change(0, false);
        self.life.seam().await;
        done
    }

    async fn shadow(&self, next: Option<(Arc<Plan>, Revision)>) -> Result<(), KernelError> {
        self.life.seam().await;
        self.table.lock().unwrap().shadow = next.map(|(_, revision)| revision.0);
        self.life.seam().await;
        Ok(())
    }

    async fn hold_open(&self, _: BTreeMap<ConduitId, Duration>) -> Result<(), KernelError> {
        self.life.seam().await;
        Ok(())
    }

    async fn verify(&self) -> Result<Holds, KernelError> {
        Ok(Holds::AsApplied)
    }

    async fn counters(&self) -> Result<KernelCounters, KernelError> {
        Ok(KernelCounters::default())
    }
}

/// The disk as one agent has it.
#[derive(Clone)]
pub(super) struct SeamDisk {
    records: Arc<Mutex<Memory>>,
    life: Life,
}

struct Session<'a> {
    memory: &'a mut Memory,
    life: &'a Life,
}

impl Records for Session<'_> {
    fn load(&mut self, record: &'static str) -> Option<Vec<u8>> {
        self.memory.load(record)
    }

    fn save(&mut self, record: &'static str, payload: &[u8]) -> Result<(), StoreError> {
        let failed = || StoreError {
            record,
            source: crate::durable::FileError {
                verb: "write",
                path: record.into(),
                source: std::io::Error::other("the agent ends"),
            },
        };
        if self.life.ends_here() {
            return Err(failed());
        }
        self.memory.save(record, payload)?;
        // What is written may be the last thing that it did.
        if self.life.ends_here() {
            Err(failed())
        } else {
            Ok(())
        }
    }

    fn unread(&self, record: &'static str) -> Option<&str> {
        self.memory.unread(record)
    }

    fn unusable(&self, record: &'static str) -> Option<&str> {
        self.memory.unusable(record)
    }

    fn faults(&self) -> Vec<Fault> {
        Vec::new()
    }

    fn mend(&mut self) {}
}

impl Workplace for SeamDisk {
    fn on_records<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Records) -> T + Send + 'static,
    ) -> Handed<T> {
        let Self { records, life } = self.clone();
        Box::pin(async move {
            life.seam().await;
            let done = {
                let memory = &mut *records.lock().unwrap();
                work(&mut Session { memory, life: &life })
            };
            life.seam().await;
            Some(done)
        })
    }

    fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Handed<T> {
        let life = self.life.clone();
        Box::pin(async move {
            life.seam().await;
            Some(work())
        })
    }
}

/// What outlives an agent.
#[derive(Clone)]
pub(super) struct Stays {
    pub(super) time: Arc<Mutex<Time>>,
    pub(super) records: Arc<Mutex<Memory>>,
    pub(super) table: Arc<Mutex<Table>>,
    pub(super) says: Arc<Mutex<Says>>,
    journal: Arc<Mutex<Read<Journal>>>,
    pub(super) stored_overrides: Arc<Mutex<Read<OverridesRecord>>>,
}

impl Stays {
    pub(super) fn new() -> Self {
        let time = Time {
            wall_ms: 500_000 * HOUR_MS,
            synchronised: true,
            boot: Duration::from_secs(100),
        };
        Self {
            time: Arc::new(Mutex::new(time)),
            records: Arc::default(),
            table: Arc::default(),
            says: Arc::default(),
            journal: Arc::default(),
            stored_overrides: Arc::default(),
        }
    }

    pub(super) fn journal(&self) -> Journal {
        let records = self.records.lock().unwrap();
        self.journal.lock().unwrap().of(&records, "trial")
    }

    pub(super) fn now(&self) -> Time {
        *self.time.lock().unwrap()
    }

    pub(super) fn holds(&self) -> Option<u64> {
        self.table.lock().unwrap().holds
    }

    /// The machine loses power.
    pub(super) fn reboot(&self) {
        self.says.lock().unwrap().boot += 1;
        self.time.lock().unwrap().boot = Duration::from_secs(1);
        let mut table = self.table.lock().unwrap();
        (table.holds, table.overridden) = (None, false);
    }
}

type SeamReconciler = Reconciler<SeamKernel, SeamDisk>;

/// A life of an agent.
pub(super) struct Alive {
    reconciler: SeamReconciler,
    pub(super) view: watch::Receiver<PolicyView>,
    pub(super) life: Life,
    recorded: tokio::sync::mpsc::Receiver<AuditEvent>,
}

/// Whether `step` comes to its end, or its agent dies in it.
fn is_done(step: impl Future<Output = ()>) -> bool {
    pin!(step)
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

impl Alive {
    /// An agent that starts; `seams`: how many it survives. Whether it came to the end of its start.
    pub(super) fn start(stays: &Stays, seams: Option<u64>) -> (Self, bool) {
        let life = Life::default();
        let kernel = SeamKernel {
            table: stays.table.clone(),
            records: stays.records.clone(),
            life: life.clone(),
        };
        let disk = SeamDisk {
            records: stays.records.clone(),
            life: life.clone(),
        };
        if let Some(seams) = seams {
            life.dies_after(seams);
        }
        let (audit, recorded) = Audit::without_spool();
        let (reconciler, view) = Reconciler::new(Arc::new(kernel), disk, audit, Some(first_trust()));
        let reconciler = reconciler.with_timepiece(Timepiece::Told(stays.time.clone()));
        let reconciler = reconciler.with_site(Arc::new(SaidSite(stays.says.clone())));
        let mut alive = Self {
            reconciler,
            view,
            life,
            recorded,
        };
        let is_done = is_done(alive.reconciler.start());
        (alive, is_done)
    }

    /// Whether it lives on.
    pub(super) fn step(&mut self, occasion: Occasion) -> bool {
        is_done(self.reconciler.step(occasion))
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.reconciler.due()
    }

    pub(super) fn standing(&self) -> StandingState {
        self.view.borrow().standing.state.clone()
    }

    pub(super) fn believed(&self) -> u64 {
        let view = self.view.borrow();
        view.state.trusted.as_ref().map_or(0, |trusted| trusted.revision)
    }

    /// What it recorded since the last look.
    pub(super) fn recorded(&mut self) -> VecDeque<String> {
        let mut steps = VecDeque::new();
        while let Ok(event) = self.recorded.try_recv() {
            match event.kind {
                Some(Kind::Policy(policy)) => {
                    steps.push_back(format!("{} r{} {}", policy.step, policy.revision, policy.message));
                }
                Some(Kind::Agent(agent)) if agent.step.starts_with("override-") => {
                    steps.push_back(format!("{} {}", agent.step, agent.message));
                }
                _ => {}
            }
        }
        steps
    }
}

/// Releases that follow each other, each with what leads to it; made once.
pub(super) fn releases() -> &'static [(Arc<PolicyOffer>, Digest)] {
    static RELEASES: OnceLock<Vec<(Arc<PolicyOffer>, Digest)>> = OnceLock::new();
    RELEASES.get_or_init(|| {
        let mut releases: Vec<(Arc<PolicyOffer>, Digest)> = Vec::new();
        let mut chain = Vec::new();
        for revision in 1..=4 {
            let parent = releases.last().map(|(_, digest)| *digest);
            // A plan whose one grant is long over, and which people may override.
            let (offered, digest) = offer(&overridable(), revision, parent);
            let signed = offered.release.clone().unwrap();
            let offered = PolicyOffer {
                chain: chain.clone(),
                ..(*offered).clone()
            };
            chain.push(signed);
            releases.push((Arc::new(offered), digest));
        }
        releases
    })
}

/// The revision of a statement; 0: none of these.
pub(super) fn revision_of(statement: Digest) -> u64 {
    let position = releases().iter().position(|(_, digest)| *digest == statement);
    position.map_or(0, |position| position as u64 + 1)
}
