//! What of rollouts is in the store: read at the start, and again where somebody else wrote it; written before anything comes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_policy::ids::{GatewayId, Revision};
use penstock_policy::rollout::{Fleet, Member, default_plan};
use penstock_proto::refusal::Refusal;

use super::desk::Desk;
use super::live::{Live, is_end};
use super::stored::{
    BASELINE, Baseline, Because, FREEZE, FreezeRecord, KEPT_MAX, PREFIX, StoredRollout, key_of,
};
use super::{AfterApproval, Shared};
use crate::clock;
use crate::releases::CurrentRelease;
use crate::rollout::{Command, RestoreError, Rollout, Setup};
use crate::store::{Change, Expect, OwnEvent, RecordChange, Silent, Store, StoreError};

/// What is known before any rollout is taken up.
pub(super) async fn open(store: &Store, _after_approval: AfterApproval) -> Result<Desk, StoreError> {
    let freeze = match store.get_json::<FreezeRecord>(FREEZE).await? {
        Some((freeze, at)) => (freeze, Some(at)),
        None => (FreezeRecord::default(), None),
    };
    let baseline = match store.get_json::<Baseline>(BASELINE).await? {
        Some((baseline, at)) => (baseline, Some(at)),
        None => (Baseline::None, None),
    };
    let last = store.list_last(PREFIX, 1).await?;
    let last = last
        .first()
        .and_then(|(key, _)| key.strip_prefix(PREFIX)?.parse::<u64>().ok());
    Ok(Desk::new(freeze, baseline, last.unwrap_or(0) + 1))
}

pub(super) fn expect(at: Option<u64>) -> Expect {
    at.map_or(Expect::Absent, Expect::Revision)
}

/// The revision at which a record of a change was written.
pub(super) fn written_at(written: &[RecordChange], key: &str) -> Option<u64> {
    written
        .iter()
        .find(|written| written.key == key)
        .map(|written| written.revision)
}

/// The gateways of a release whose documents this software does not take: each by its name alone, so that one comes after the other.
fn bare_fleet(release: &CurrentRelease) -> Fleet {
    let members = release.detail.plans.keys().map(|id: &GatewayId| Member {
        id: id.clone(),
        site: String::new(),
        cell: String::new(),
        labels: BTreeMap::new(),
        partner: None,
    });
    // Each name stands there once, and none has a pair.
    Fleet::new(members.collect()).unwrap_or_default()
}

impl Shared {
    /// Takes up the rollouts that are not over, and the baseline.
    pub(super) async fn take_up(&self, desk: &mut Desk) -> Result<(), Refusal> {
        let mode = self.after_approval;
        if mode == AfterApproval::AtOnce {
            self.releases.keep(desk.releases());
            return Ok(());
        }
        let records = self.store.list_json::<StoredRollout>(PREFIX).await?;
        let none_yet = records.is_empty();
        let newest = records.last().map(|(_, stored, _)| stored.number);
        for (_, stored, at) in records {
            let (number, revision) = (stored.number, stored.rollout.revision());
            let is_needed = !is_end(stored.rollout.stage())
                || desk.baseline == Baseline::Rollout(number)
                || stored
                    .rollout
                    .counts()
                    .keys()
                    .any(|mark| mark.may_be_unconfirmed())
                || newest == Some(number);
            if !is_needed {
                continue;
            }
            match self.restore(desk, stored, at).await {
                Ok(live) => desk.add(live, &self.fleet),
                Err(why) => {
                    tracing::error!(number, %why, "a rollout cannot be taken up: no gateway gets anything by it");
                    desk.damaged.insert(number, (revision, why));
                }
            }
        }
        let current = self.releases.now().map(|current| current.revision());
        desk.first_baseline = match (desk.baseline_at, desk.baseline) {
            // From before there were rollouts: what was current is what gateways should have.
            (None, _) => Some(current.filter(|_| none_yet)),
            (_, Baseline::AtOnce(revision)) => Some(Some(revision)),
            // What it carried is known all the same.
            (Some(_), Baseline::Rollout(number)) => {
                let damaged = desk.damaged.get(&number);
                damaged.map(|(revision, _)| Some(*revision))
            }
            (Some(_), Baseline::None) => None,
        };
        desk.step(clock::now_ms(), true);
        // A store that takes nothing keeps nobody from starting: it is tried again with each pass.
        if let Err(refusal) = self.settle_baseline(desk).await {
            tracing::error!(%refusal, "what gateways without a policy get is not settled; it is tried again");
        } else if let Err(refusal) = self.save(desk, None).await {
            tracing::error!(%refusal, "what was taken up of rollouts is not stored; it is tried again");
        }
        desk.prune();
        self.releases.keep(desk.releases());
        Ok(())
    }

    /// Adopts what is the baseline of a store that does not have one, as it was found at the start.
    pub(super) async fn settle_baseline(&self, desk: &mut Desk) -> Result<(), Refusal> {
        match desk.first_baseline {
            Some(Some(revision)) => self.adopt(desk, revision).await?,
            Some(None) => self.set_baseline(desk, Baseline::None).await?,
            None => {}
        }
        desk.first_baseline = None;
        Ok(())
    }

    async fn restore(&self, desk: &Desk, stored: StoredRollout, at: u64) -> Result<Live, String> {
        let revision = stored.rollout.revision();
        let release = self.releases.approved_release(revision).await;
        let release = release.map_err(|refusal| refusal.message)?;
        let fleet = match self.releases.fleet_of(&release.recorded).await {
            Ok(fleet) => fleet,
            Err(_) => bare_fleet(&release),
        };
        let record = stored.rollout.clone();
        let machine = Rollout::restore(record, Arc::new(fleet), desk.freeze.frozen)
            .or_else(|error| match error {
                // It was taken up with names alone before.
                RestoreError::Fleet(_) => {
                    let bare = Arc::new(bare_fleet(&release));
                    Rollout::restore(stored.rollout.clone(), bare, desk.freeze.frozen)
                }
                other => Err(other),
            })
            .map_err(|error| error.to_string())?;
        let mut live = Live::new(machine, release, stored);
        live.stored = Some((live.log.rollout.clone(), at));
        Ok(live)
    }

    /// A release that was carried to all at once, or before there were rollouts, is the baseline from now on.
    async fn adopt(&self, desk: &mut Desk, revision: Revision) -> Result<(), Refusal> {
        let release = self.releases.approved_release(revision).await?;
        let fleet = match self.releases.fleet_of(&release.recorded).await {
            Ok(fleet) => fleet,
            Err(refusal) => {
                tracing::warn!(%refusal, "the gateways of the release in force are known by their names alone");
                bare_fleet(&release)
            }
        };
        let now_ms = clock::now_ms();
        for at in 0..desk.lives.len() {
            let now = desk.now(now_ms);
            let Some(live) = desk
                .lives
                .get_mut(at)
                .filter(|live| live.machine.revision() < revision)
            else {
                continue;
            };
            // One that is on its way back goes on with that.
            if let Ok(actions) = live.machine.steer(now, Command::Supersede { by: revision }) {
                live.take(actions, "", now_ms);
            }
        }
        let plan = default_plan(&fleet, super::begin::seed(release.recorded.digest));
        let setup = Setup {
            revision,
            plan,
            fleet: Arc::new(fleet),
            in_earlier_trial: desk.in_earlier_trial(),
        };
        let machine = Rollout::adopted(setup, desk.now(now_ms));
        let stored = StoredRollout {
            number: desk.next,
            statement: release.recorded.digest,
            started_by: String::new(),
            because: Because::default(),
            started_ms: now_ms,
            ended_ms: Some(now_ms),
            ended_as: None,
            events: Vec::new(),
            omitted: 0,
            rollout: machine.record(),
        };
        let mut live = Live::new(machine, release, stored);
        let words = format!(
            "{revision} is the baseline: it was in force before this coordinator carried releases by rollouts"
        );
        live.say("", "adopted", words, now_ms);
        let number = live.number();
        let before: Vec<Live> = desk.lives.iter().map(Live::try_on).collect();
        desk.add(live, &self.fleet);
        let baseline = Some(Baseline::Rollout(number));
        let change = Change::noted(self.step_event(desk));
        let written = self.write(desk, change, baseline).await;
        match written {
            Ok(()) => desk.next = number + 1,
            Err(_) if desk.is_read_again => {}
            Err(_) => desk.lives = before,
        }
        written
    }

    /// Remembers what whoever has no release gets.
    pub(super) async fn set_baseline(&self, desk: &mut Desk, baseline: Baseline) -> Result<(), Refusal> {
        let change = Change::silent(Silent::Derived);
        let change = change.json(BASELINE, expect(desk.baseline_at), &baseline)?;
        let written = self.store.apply(change).await?;
        desk.baseline = baseline;
        desk.baseline_at = written_at(&written, BASELINE);
        Ok(())
    }

    /// Writes what was decided and is not stored: all of it, or nothing. `baseline`: what is from now on.
    pub(super) async fn save(&self, desk: &mut Desk, baseline: Option<Baseline>) -> Result<(), Refusal> {
        let baseline = self.settle(desk, baseline);
        let unstored = desk.is_unstored();
        let goes_on = desk
            .lives
            .iter()
            .any(|live| live.has_aged() || live.is_numbered_on());
        if !unstored && !goes_on && baseline.is_none() {
            return Ok(());
        }
        let change = if unstored {
            Change::noted(self.step_event(desk))
        } else {
            Change::silent(Silent::Observed)
        };
        self.write(desk, change, baseline).await
    }

    fn step_event(&self, desk: &Desk) -> OwnEvent {
        let told: Vec<&Live> = desk.lives.iter().filter(|live| live.is_unstored()).collect();
        let target = told
            .iter()
            .map(|live| live.target())
            .collect::<Vec<_>>()
            .join(", ");
        let words = told
            .iter()
            .map(|live| live.unsaid.as_str())
            .filter(|words| !words.is_empty())
            .collect::<Vec<_>>()
            .join("; ");
        self.journal.own_event("carry-rollout", &target, &words)
    }

    /// Writes all rollouts that the store does not have as they are, with what else belongs to a change.
    pub(super) async fn write(
        &self,
        desk: &mut Desk,
        mut change: Change,
        baseline: Option<Baseline>,
    ) -> Result<(), Refusal> {
        for live in desk
            .lives
            .iter()
            .filter(|live| live.is_unstored() || live.has_aged() || live.is_numbered_on())
        {
            let at = live.stored.as_ref().map(|(_, at)| *at);
            change = change.json(&key_of(live.number()), expect(at), &live.log)?;
        }
        if let Some(baseline) = baseline {
            change = change.json(BASELINE, expect(desk.baseline_at), &baseline)?;
        }
        let written = match self.store.apply(change).await {
            Ok(written) => written,
            Err(StoreError::Conflict { key, .. }) => {
                tracing::warn!(
                    key,
                    "the store has another rollout than was written here; it is read again"
                );
                self.read_again(desk).await?;
                return Err(StoreError::Conflict { key, found: None }.into());
            }
            Err(other) => return Err(other.into()),
        };
        for live in &mut desk.lives {
            if let Some(at) = written_at(&written, &key_of(live.number())) {
                live.stored = Some((live.log.rollout.clone(), at));
                live.unsaid.clear();
                live.has_news = false;
            }
        }
        if let Some(baseline) = baseline {
            desk.baseline = baseline;
            desk.baseline_at = written_at(&written, BASELINE);
        }
        Ok(())
    }

    /// Writes what somebody wants, as it was tried; if the store does not take it, all is as it was.
    pub(super) async fn write_or_restore(
        &self,
        desk: &mut Desk,
        change: Change,
        before: Vec<Live>,
    ) -> Result<(), Refusal> {
        desk.is_read_again = false;
        let baseline = self.settle(desk, None);
        let written = self.write(desk, change, baseline).await;
        if written.is_err() && !desk.is_read_again {
            desk.lives = before;
            desk.is_doubtful = true;
        }
        written
    }

    /// The rollout that was completed is the baseline, and the one before it ends.
    fn settle(&self, desk: &mut Desk, baseline: Option<Baseline>) -> Option<Baseline> {
        if baseline.is_some() {
            return baseline;
        }
        let newest = desk.newest().filter(|live| live.is_carried())?;
        let (number, revision) = (newest.number(), newest.machine.revision());
        if desk.baseline == Baseline::Rollout(number) {
            return None;
        }
        let now_ms = clock::now_ms();
        let now = desk.now(now_ms);
        for live in desk
            .lives
            .iter_mut()
            .filter(|live| live.is_carried() && live.number() < number)
        {
            live.log
                .ended_as
                .get_or_insert(live.machine.stage().word().to_owned());
            // What is completed can always be superseded by what is newer.
            if let Ok(actions) = live.machine.steer(now, Command::Supersede { by: revision }) {
                live.take(actions, "", now_ms);
            }
        }
        Some(Baseline::Rollout(number))
    }

    /// Somebody else wrote, or it is not known what was: what is here is forgotten, and what is there taken up.
    pub(super) async fn read_again(&self, desk: &mut Desk) -> Result<(), Refusal> {
        let mut read = open(&self.store, self.after_approval).await?;
        read.follows(desk);
        *desk = read;
        Box::pin(self.take_up(desk)).await
    }

    /// Removes what is over and older than what is kept; what fails is done the next time.
    pub(super) async fn forget(&self, desk: &Desk) -> Result<(), StoreError> {
        let records = self.store.list_json::<StoredRollout>(PREFIX).await?;
        let surplus = records.len().saturating_sub(KEPT_MAX);
        let mut removed = Vec::new();
        for (_, stored, at) in records.into_iter().take(surplus) {
            let is_live = desk.lives.iter().any(|live| live.number() == stored.number);
            if !is_live && is_end(stored.rollout.stage()) {
                removed.push((key_of(stored.number), at));
            }
        }
        if removed.is_empty() {
            return Ok(());
        }
        let words = format!("{} rollouts that are over, the oldest", removed.len());
        let mut change = Change::noted(self.journal.own_event("forget-rollouts", "", &words));
        for (key, at) in removed {
            change = change.removed(&key, at);
        }
        self.store.apply(change).await.map(|_| ())
    }
}
