//! Where alarms are kept: each step is stored with its event in one transaction, counts after that, and is shown then. A step that the store
//! does not take is due again a second later; what gateways enforce does not wait for it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_policy::ids::{GatewayId, ZoneId};
use penstock_proto::audit::chain::SealFault;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tonic::Code;

use super::conditions::{Evidence, GatewayShown, conditions, unproved_subject};
use super::load::Load;
use super::machine::{AlarmRecord, Author, Command, CommandError, Condition, Delays, Machine, Step};
use super::sightings::{COUNTS_MS, Sightings};
use super::view::{self, PublishedAlarms};
use super::{AlarmKey, Cause};
use crate::clock;
use crate::health_watch::PublishedHealth;
use crate::ingest::seals::{self, Acknowledged};
use crate::journal::Journal;
use crate::query::{self, Filter, Until};
use crate::releases::{CurrentRelease, Releases};
use crate::rollout::run::Rollouts;
use crate::sessions::Fleet;
use crate::store::{Change, Expect, Store, StoreError};

/// Where alarms are in the store.
const PREFIX: &str = "alarm/";
/// How often conditions are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How many times as long as a look took is rested before the next.
const REST: u32 = 4;
/// Blocks that are read for what happened within the last hour, when the coordinator starts.
const BLOCKS_MAX: usize = 16_384;
/// Records that may wait to be looked at.
const RECORDS_MAX: usize = 64;
/// How often an acknowledgement is tried again because a trail grew meanwhile.
const SEALS_ATTEMPTS: usize = 5;
/// How long it is waited before trails are followed again that could not be read.
const FOLLOW_AGAIN: Duration = Duration::from_secs(10);

/// How alarms behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmSettings {
    /// Before a condition is raised, and before it is over.
    pub delays: Delays,
    /// For how long a zone may be dark of which nothing is said.
    pub dark: Duration,
    /// For how long others may be.
    pub dark_zones: BTreeMap<ZoneId, Duration>,
}

/// The alarms of a plant.
#[derive(Clone)]
pub(crate) struct Alarms {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    journal: Journal,
    settings: AlarmSettings,
    desk: Mutex<Desk>,
    published: watch::Sender<Arc<PublishedAlarms>>,
}

struct Desk {
    machine: Machine,
    revisions: BTreeMap<AlarmKey, u64>,
    conditions: BTreeMap<AlarmKey, Condition>,
    sightings: Sightings,
    load: Load,
    /// Gateways whose seals' fault a person acknowledged, until the fleet knows.
    acknowledged: BTreeMap<GatewayId, SealFault>,
}

/// From where conditions come.
pub(crate) struct Sources {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) health: watch::Receiver<Arc<PublishedHealth>>,
    pub(crate) in_force: watch::Receiver<Option<Arc<CurrentRelease>>>,
    pub(crate) rollouts: Rollouts,
    pub(crate) releases: Releases,
    pub(crate) stale_after_ms: u64,
}

fn key_of(key: &AlarmKey) -> String {
    format!("{PREFIX}{key}")
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let reason = match error {
            CommandError::Normal(_) | CommandError::NoPlace(_) => Reason::NotFound,
            CommandError::State { .. } => Reason::WrongStanding,
            CommandError::Safety(_) => Reason::NobodyConfirms,
            CommandError::TooLong | CommandError::NoReason => Reason::BadRequest,
        };
        Self::new(reason, error.to_string())
    }
}

impl Alarms {
    /// With what the store has. A record that this software cannot read is left alone, and its alarm begins again.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn open(
        store: Store,
        journal: Journal,
        settings: AlarmSettings,
    ) -> Result<Self, StoreError> {
        let (mut records, mut revisions) = (BTreeMap::new(), BTreeMap::new());
        for (key, record) in store.list(PREFIX).await? {
            let words = key.strip_prefix(PREFIX).and_then(|key| key.split_once('/'));
            let Some(alarm) = words.and_then(|(place, cause)| AlarmKey::of_words(place, cause)) else {
                continue;
            };
            revisions.insert(alarm.clone(), record.revision);
            match store.decode::<AlarmRecord>(&key, &record.value) {
                Ok(read) => {
                    records.insert(alarm, read);
                }
                Err(error) => {
                    tracing::error!(error = %crate::chain(&error), "an alarm cannot be read; it begins again");
                }
            }
        }
        let machine = Machine::new(settings.delays, records);
        let mut load = Load::default();
        let now_ms = clock::now_ms();
        let shown = view::plant(&machine, load.counts(now_ms), now_ms);
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                journal,
                settings,
                desk: Mutex::new(Desk {
                    machine,
                    revisions,
                    conditions: BTreeMap::new(),
                    sightings: Sightings::default(),
                    load,
                    acknowledged: BTreeMap::new(),
                }),
                published: watch::Sender::new(Arc::new(PublishedAlarms::new(shown))),
            }),
        })
    }

    /// The alarms, as they change.
    pub(crate) fn published(&self) -> watch::Receiver<Arc<PublishedAlarms>> {
        self.shared.published.subscribe()
    }

    /// Does what somebody wants about an alarm.
    ///
    /// # Errors
    /// The alarm is not in a state for it, it is of a safety zone, or the store does not take it. Nothing changed.
    pub(crate) async fn change(
        &self,
        key: &AlarmKey,
        (command, by, reason): (Command, &Author, &str),
    ) -> Result<v1::Alarm, Refusal> {
        let mut desk = self.shared.desk.lock().await;
        let now_ms = clock::now_ms();
        // Before the first look nothing is known of any condition, which is not that it is over.
        let unknown = desk.conditions.is_empty().then_some(&Condition::Unknown);
        let condition = desk.conditions.get(key).or(unknown);
        let step = desk
            .machine
            .command(key, condition, (command, by, reason), now_ms)?;
        // By topic nothing proves who it was: that says that somebody saw the alarm, and ends no fault of seals.
        let is_of_trails = key.cause == Cause::Trail && command == Command::Acknowledge && !by.by_topic;
        let mut attempts = 0..SEALS_ATTEMPTS;
        loop {
            let proved = match is_of_trails {
                true => self.seals_acknowledged(&desk, key).await?,
                false => BTreeMap::new(),
            };
            match self.take(&mut desk, &step, &proved, now_ms).await {
                // The trail grew meanwhile, and with it what is known of its seals.
                Err(StoreError::Conflict { key, .. })
                    if proved.values().any(|one| one.key == key) && attempts.next().is_some() => {}
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    let faults = proved.into_iter().map(|(gateway, one)| (gateway, one.fault));
                    desk.acknowledged.extend(faults);
                    break;
                }
            }
        }
        self.show(&mut desk, now_ms);
        Ok(view::after(&step))
    }

    /// What is known of the seals of gateways whose fault is among what the alarm showed, once it is acknowledged.
    async fn seals_acknowledged(
        &self,
        desk: &Desk,
        key: &AlarmKey,
    ) -> Result<BTreeMap<GatewayId, Acknowledged>, StoreError> {
        let Some(record) = desk.machine.records().get(key) else {
            return Ok(BTreeMap::new());
        };
        let stands = match desk.conditions.get(key) {
            Some(Condition::Stands(sign)) => sign.gateways.iter(),
            _ => record.gateways.iter(),
        };
        let mut all = BTreeMap::new();
        for gateway in stands {
            let is_shown = |fault: &SealFault| record.subjects.contains(&unproved_subject(gateway, fault));
            if let Some(one) = seals::acknowledged(&self.shared.store, gateway, is_shown).await? {
                all.insert(gateway.clone(), one);
            }
        }
        Ok(all)
    }

    /// Stores a step, and lets it count.
    async fn take(
        &self,
        desk: &mut Desk,
        step: &Step,
        proved: &BTreeMap<GatewayId, Acknowledged>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let (key, shared) = (key_of(&step.key), &self.shared);
        let change = Change::noted(shared.journal.alarm_event(view::event(step)));
        let held = desk.revisions.get(&step.key).copied();
        let change = match (&step.after, held) {
            (Some(record), held) => {
                let expect = held.map_or(Expect::Absent, Expect::Revision);
                change.json(&key, expect, record)?
            }
            (None, Some(revision)) => change.removed(&key, revision),
            (None, None) => change,
        };
        let change = proved.values().try_fold(change, |change, one| {
            change.json(&one.key, Expect::Revision(one.revision), &one.chain)
        })?;
        let written = match shared.store.apply(change).await {
            Ok(written) => written,
            Err(error) => {
                // The store may have it all the same: what it holds is what the next attempt expects.
                if let Ok(found) = shared.store.get(&key).await {
                    match found {
                        Some(record) => desk.revisions.insert(step.key.clone(), record.revision),
                        None => desk.revisions.remove(&step.key),
                    };
                }
                return Err(error);
            }
        };
        match (&step.after, written.iter().find(|change| change.key == key)) {
            (Some(_), Some(change)) => desk.revisions.insert(step.key.clone(), change.revision),
            _ => desk.revisions.remove(&step.key),
        };
        desk.machine.apply(step);
        desk.load.count(step, now_ms);
        let (cause, word) = (step.key.cause.as_str(), step.word);
        metrics::counter!("penstock_alarm_steps_total", "cause" => cause, "step" => word).increment(1);
        Ok(())
    }

    fn show(&self, desk: &mut Desk, now_ms: u64) {
        let now = view::plant(&desk.machine, desk.load.counts(now_ms), now_ms);
        self.shared.published.send_if_modified(|held| {
            let before = held.alarms();
            let is_other =
                before.alarms != now.alarms || before.common != now.common || before.load != now.load;
            if is_other {
                *held = Arc::new(PublishedAlarms::new(now));
            }
            is_other
        });
    }

    /// Looks at conditions each second, and at trails as they grow, for as long as the coordinator runs.
    pub(crate) async fn follow(&self, sources: Sources) {
        // Before the first release there is no place that could have an alarm.
        if sources.in_force.clone().wait_for(Option::is_some).await.is_err() {
            return;
        }
        let (out, mut records) = mpsc::channel(RECORDS_MAX);
        let trails = follow_trails(&self.shared.store, &sources.releases, out);
        let looks = async {
            let mut tick = tokio::time::interval(LOOK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = tick.tick() => {
                        let began = Instant::now();
                        self.look(&sources).await;
                        tokio::time::sleep(began.elapsed() * REST).await;
                    }
                    Some(record) = records.recv() => self.see(&sources, &record).await,
                }
            }
        };
        tokio::select! {
            () = trails => {}
            () = looks => {}
        }
    }

    async fn see(&self, sources: &Sources, record: &Result<v1::AuditRecord, tonic::Status>) {
        let Some(release) = sources.in_force.borrow().clone() else {
            return;
        };
        let mut desk = self.shared.desk.lock().await;
        match record {
            Ok(record) => desk.sightings.take(record, &release.detail.zones),
            Err(status) if status.code() == Code::Ok => desk.sightings.is_whole = true,
            Err(status) => {
                tracing::warn!(%status, "a part of the trails is not looked at for alarms");
            }
        }
    }

    async fn look(&self, sources: &Sources) {
        let Some(release) = sources.in_force.borrow().clone() else {
            return;
        };
        let halted = sources.rollouts.halted().await;
        let health = sources.health.borrow().clone();
        let now_ms = clock::now_ms();
        let mut gateways: BTreeMap<GatewayId, GatewayShown> = BTreeMap::new();
        sources.fleet.inspect(|gateway, facts| {
            gateways.insert(
                gateway.clone(),
                GatewayShown::of(gateway, facts, now_ms, sources.stale_after_ms),
            );
        });
        let mut guard = self.shared.desk.lock().await;
        let desk = &mut *guard;
        for (gateway, fault) in std::mem::take(&mut desk.acknowledged) {
            sources.fleet.acknowledged(&gateway, &fault);
        }
        let settings = &self.shared.settings;
        desk.sightings.forget(&release.detail.zones, now_ms);
        let dark = |zone: &ZoneId| settings.dark_zones.get(zone).copied().unwrap_or(settings.dark);
        let found = conditions(&Evidence {
            zones: &release.detail.zones,
            health: health.health(),
            gateways: &gateways,
            halted: &halted,
            sightings: &desk.sightings,
            dark: &dark,
            now_ms,
        });
        desk.conditions = found;
        let steps = desk.machine.due(now_ms, &desk.conditions);
        for step in steps {
            if let Err(error) = self.take(desk, &step, &BTreeMap::new(), now_ms).await {
                tracing::error!(alarm = %step.key, error = %crate::chain(&error), "a step of an alarm cannot be stored; it is tried again");
                break;
            }
        }
        self.show(desk, now_ms);
    }
}

/// Sends what trails say of refused operations, losses and gaps: first of the last hour, then as it comes. It ends with its reader.
async fn follow_trails(
    store: &Store,
    releases: &Releases,
    out: mpsc::Sender<Result<v1::AuditRecord, tonic::Status>>,
) {
    let filter = Filter::of_kinds(&["operation", "loss", "trail"]);
    let since_ms = clock::now_ms().saturating_sub(COUNTS_MS);
    let (mut after, reaches) = loop {
        match query::place_since(store, since_ms, BLOCKS_MAX).await {
            Ok(found) => break found,
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "what the trails say of the last hour cannot be read for alarms; it is tried again");
            }
        }
        tokio::time::sleep(FOLLOW_AGAIN).await;
        if out.is_closed() {
            return;
        }
    };
    let mut until = Until::CaughtUp;
    while !out.is_closed() {
        let followed = query::tail_from(store, releases, &filter, (&mut after, until), &out);
        match followed.await {
            Ok(ControlFlow::Continue(())) if until == Until::CaughtUp => {
                until = Until::Closed;
                tokio::spawn(say_whole(out.clone(), reaches));
            }
            Ok(_) => tokio::time::sleep(LOOK).await,
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "the trails cannot be followed for alarms; it is tried again");
                tokio::time::sleep(FOLLOW_AGAIN).await;
            }
        }
    }
}

/// From here on, what was not seen did not happen: at once where all of the last hour was read, else when it is over.
async fn say_whole(out: mpsc::Sender<Result<v1::AuditRecord, tonic::Status>>, reaches: bool) {
    if !reaches {
        tokio::time::sleep(Duration::from_millis(COUNTS_MS)).await;
    }
    let _ = out.send(Err(tonic::Status::ok("the last hour is read"))).await;
}
