//! `adopt`: what would stop if a zone that observes were enforced, what to declare instead, and for how long nothing undeclared was seen.
//!
//! What would stop comes from the coordinator's trail, so the answer is as good as the watch: since when each gateway of the zone
//! observes, and what it missed, are parts of it. Where any of that is not known the zone is not ready.

mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::ids::{GatewayId, ZoneId};
use penstock_policy::model::Plant;
use penstock_policy::terms::Enforcement;
use penstock_proto::event::RECONNECTS;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{
    AuditClock, AuditRecord, Decision, Gateway, ListGatewaysRequest, SearchAuditRequest, WatchHealthRequest,
};
use tokio::time::{Duration, Instant};

pub use self::report::{Adoption, ZoneWatch};
use super::trail::{self, ReadBudget};
use super::why::{Judging, Plants, Refusals, Refused, Subject, judged};
use super::{Online, malformed, refused};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offline::explain::did_you_mean;
use crate::output::Output;
use crate::{args, ask, times, words};

/// A day, milliseconds.
const DAY_MS: u64 = 24 * 3_600_000;
/// Records of a gateway that are read, and for how long those of all.
const RECORDS_MAX: usize = 200_000;
const READING: Duration = Duration::from_secs(60);
/// Policy events of a gateway that are read.
const STEPS_MAX: u32 = 1_000;
/// Causes of a loss that hides no verdict: what was learned, and messages of bridges.
const HIDES_NO_VERDICT: [&str; 2] = ["tap-", "bridge-"];

/// `penstock adopt`.
pub(crate) async fn adopt(out: &Output, context: Option<&str>, args: &args::Adopt) -> Result<Exit, Failure> {
    let now_ms = words::now_ms();
    let quiet_ms = u64::from(args.quiet_days) * DAY_MS;
    times::stretch(Some(&args.since), None, now_ms)?;
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let (since_ms, _) = times::stretch(Some(&args.since), None, now_ms)?;
    if now_ms.saturating_sub(since_ms) < quiet_ms {
        return Err(Failure::usage(format!(
            "--since {} looks back less far than {} days, in which nothing undeclared may be seen",
            args.since, args.quiet_days
        ))
        .help("look back further (--since 60d), or name fewer days (--quiet-days 7)"));
    }
    let mut plants = Plants::default();
    let Some(current) = plants.of(&mut online, 0, out).await? else {
        return Err(Failure::usage(
            "there is no release that this program can read: no zone observes yet",
        ));
    };
    let zone = observing(current.plant(), &args.zone)?;
    let waiting = ask::waiting(out, "reading the trail");
    let gateways = gateways_of(&mut online, &zone).await?;
    let mut refusals = Refusals::of(subject(current.plant(), &zone, gateways.keys()));
    let until = Instant::now() + READING;
    let (mut unread, mut watch) = (Vec::new(), Vec::new());
    for (name, gateway) in gateways {
        unread.extend(read(&mut online, &mut refusals, &name, (since_ms, now_ms, until)).await?);
        let observing = observed_since(&mut online, &mut plants, (&name, &zone), since_ms, out).await?;
        let missed = missed(&mut online, &name, now_ms.saturating_sub(quiet_ms)).await?;
        watch.push(ZoneWatch::of(name, &gateway, observing, missed));
    }
    drop(waiting);
    let cut = refusals.cut;
    let found = Found::by(refusals, &current, now_ms);
    let asked = Asked {
        zone: &zone,
        since_ms,
        quiet_days: args.quiet_days,
        limit: args.limit as usize,
        now_ms,
    };
    let adoption = asked.answer((&current, found), watch, (cut, unread));
    let is_ready = adoption.ready;
    out.show(&adoption)?;
    Ok(if is_ready { Exit::Done } else { Exit::Findings })
}

/// The zone, if it observes.
fn observing(plant: &Plant, name: &str) -> Result<ZoneId, Failure> {
    let known = ZoneId::new(name)
        .ok()
        .and_then(|id| plant.zones.get_key_value(&id));
    let Some((id, zone)) = known else {
        let failure = Failure::usage(format!("the release in force has no zone `{name}`"));
        return Err(did_you_mean(failure, name, plant.zones.keys()));
    };
    match zone.enforcement {
        Enforcement::Observe => Ok(id.clone()),
        Enforcement::Enforce => Err(Failure::usage(format!(
            "zone {id} is enforced by the release in force: there is nothing to adopt"
        ))
        .help(format!("what it refuses: penstock audit denials --zone {id}"))),
    }
}

/// What is asked for: ends in the zone, and the sides at which it lies. A machine at such a side may have an address that is in no zone, or none.
fn subject<'n>(plant: &Plant, zone: &ZoneId, gateways: impl Iterator<Item = &'n String>) -> Subject {
    let mut sides = BTreeSet::new();
    for name in gateways {
        let gateway = GatewayId::new(name).ok();
        let gateway = gateway.and_then(|id| plant.gateways.get(&id));
        for (interface, side) in gateway.into_iter().flat_map(|gateway| &gateway.interfaces) {
            if side.zone == *zone || side.behind.contains(zone) {
                sides.insert((name.clone(), interface.to_string()));
            }
        }
    }
    Subject::Zone(zone.to_string(), sides)
}

/// The gateways that guard the zone, as the coordinator knows them.
async fn gateways_of(online: &mut Online, zone: &ZoneId) -> Result<BTreeMap<String, Gateway>, Failure> {
    let request = WatchHealthRequest {
        once: true,
        beats: false,
    };
    let answer = online.client.watch_health(request).await;
    let mut health = answer.map_err(|status| refused(&status))?.into_inner();
    let health = health.message().await.map_err(|status| refused(&status))?;
    let health = health.ok_or_else(|| malformed("the coordinator's health is missing"))?;
    let listed = online.client.list_gateways(ListGatewaysRequest {}).await;
    let listed = listed.map_err(|status| refused(&status))?.into_inner().gateways;
    let of_zone = health.zones.into_iter().filter(|of| of.zone == zone.as_str());
    let known = |name: String| {
        let gateway = listed.iter().find(|gateway| gateway.name == name);
        (name, gateway.cloned().unwrap_or_default())
    };
    Ok(of_zone.flat_map(|of| of.gateways).map(known).collect())
}

/// Reads what a gateway would have refused; what could not be read, in words.
async fn read(
    online: &mut Online,
    refusals: &mut Refusals,
    gateway: &str,
    (from_ms, until_ms, until): (u64, u64, Instant),
) -> Result<Vec<String>, Failure> {
    let request = SearchAuditRequest {
        source: gateway.to_owned(),
        from_ms,
        until_ms,
        kinds: ["verdict", "operation"].map(str::to_owned).to_vec(),
        decision: Decision::WouldDeny.into(),
        newest_first: true,
        clock: AuditClock::Either.into(),
        ..SearchAuditRequest::default()
    };
    let budget = ReadBudget {
        page: 10_000,
        records: RECORDS_MAX,
        until: Some(until),
    };
    let mut take = |record: AuditRecord, _| {
        refusals.take(record);
        Ok(())
    };
    let gaps = trail::read(online, &request, budget, &mut take).await?;
    Ok(gaps.in_words())
}

/// Since when a gateway has had releases in force by which the zone observes, as far as its trail here says; not before `since_ms`.
async fn observed_since(
    online: &mut Online,
    plants: &mut Plants,
    (gateway, zone): (&str, &ZoneId),
    since_ms: u64,
    out: &Output,
) -> Result<Option<u64>, Failure> {
    let newest = SearchAuditRequest {
        source: gateway.to_owned(),
        newest_first: true,
        clock: AuditClock::Received.into(),
        ..SearchAuditRequest::default()
    };
    let since = SearchAuditRequest {
        from_ms: since_ms,
        kinds: vec!["policy".to_owned()],
        limit: STEPS_MAX,
        ..newest.clone()
    };
    let mut steps: Vec<(u64, u64)> = online.search(since).await?.iter().filter_map(in_force).collect();
    // Beyond so many nobody knows what was in force before.
    if steps.len() < STEPS_MAX as usize {
        let before = SearchAuditRequest {
            until_ms: since_ms,
            limit: 1,
            ..newest
        };
        let before = online.search(before).await?;
        steps.extend(
            before
                .iter()
                .filter_map(in_force)
                .map(|(_, revision)| (since_ms, revision)),
        );
    }
    let mut observes = BTreeMap::new();
    for (_, revision) in &steps {
        if !observes.contains_key(revision) {
            let release = plants.of(online, *revision, out).await?;
            let zone = release
                .as_ref()
                .and_then(|release| release.plant().zones.get(zone));
            let is_so = zone.is_some_and(|zone| zone.enforcement == Enforcement::Observe);
            observes.insert(*revision, is_so);
        }
    }
    let lasts = steps
        .iter()
        .take_while(|(_, revision)| observes.get(revision) == Some(&true));
    Ok(lasts.last().map(|(at_ms, _)| *at_ms))
}

/// When a record was received, and the release that was in force at its source then, or is since; `None`: there was none.
fn in_force(record: &AuditRecord) -> Option<(u64, u64)> {
    let event = record.event.as_ref()?;
    let revision = match &event.kind {
        Some(Kind::Policy(policy)) if policy.step == "effective" => policy.revision,
        _ => event.revision,
    };
    (revision > 0).then_some((record.received_ms, revision))
}

/// Verdicts that a gateway could not report since then.
async fn missed(online: &mut Online, gateway: &str, since_ms: u64) -> Result<u64, Failure> {
    let request = SearchAuditRequest {
        source: gateway.to_owned(),
        from_ms: since_ms,
        kinds: vec!["loss".to_owned()],
        limit: 1_000,
        newest_first: true,
        clock: AuditClock::Either.into(),
        ..SearchAuditRequest::default()
    };
    let found = online.search(request).await?;
    let losses = found.into_iter().filter_map(|record| match record.event?.kind? {
        Kind::Loss(loss) => Some(loss),
        _ => None,
    });
    let hides = losses.filter(|loss| !HIDES_NO_VERDICT.iter().any(|cause| loss.cause.starts_with(cause)));
    Ok(hides.fold(0, |sum, loss| sum.saturating_add(loss.events)))
}

/// What was found, by what it means for the move.
#[derive(Debug, Default)]
struct Found {
    /// No flow of the current release permits it.
    would_stop: Vec<Refused>,
    /// Connections that stand, and would be reset once.
    reset_once: Vec<Refused>,
    /// The current release permits it.
    declared: usize,
}

impl Found {
    fn by(mut refusals: Refusals, current: &Judging, now_ms: u64) -> Self {
        let mut found = Self::default();
        for group in refusals.worst_first() {
            let is_once = group.reason.ends_with(RECONNECTS);
            let refused = judged(group, None, Some(current), now_ms);
            match refused.permitted_now {
                true => found.declared += 1,
                false if is_once => found.reset_once.push(refused),
                false => found.would_stop.push(refused),
            }
        }
        found
    }
}

/// What somebody asked.
struct Asked<'a> {
    zone: &'a ZoneId,
    since_ms: u64,
    quiet_days: u32,
    /// Things that are listed.
    limit: usize,
    now_ms: u64,
}

impl Asked<'_> {
    fn answer(
        &self,
        (current, found): (&Judging, Found),
        watch: Vec<ZoneWatch>,
        (cut, unread): (bool, Vec<String>),
    ) -> Adoption {
        let Found {
            mut would_stop,
            mut reset_once,
            declared,
        } = found;
        let last_ms = would_stop.iter().map(|refused| refused.last_ms).max();
        let zone = times::zone();
        let quiet_ms = self.now_ms.saturating_sub(u64::from(self.quiet_days) * DAY_MS);
        let lately = would_stop
            .iter()
            .filter(|refused| refused.last_ms > quiet_ms)
            .count();
        let mut not_yet = Vec::new();
        if lately > 0 {
            not_yet.push(format!(
                "{} that would stop {} seen within {} days",
                words::count(lately, "thing"),
                if lately == 1 { "was" } else { "were" },
                self.quiet_days
            ));
        }
        not_yet.extend(watch.iter().flat_map(|watch| watch.doubts(quiet_ms, &zone)));
        if watch.is_empty() {
            not_yet.push("no gateway guards it: nothing watched".to_owned());
        }
        if cut {
            not_yet.push(
                "the trail has more different things than are kept apart: what is listed is not all"
                    .to_owned(),
            );
        }
        not_yet.extend(unread.into_iter().map(|part| format!("{part} could not be read")));
        let further =
            would_stop.len().saturating_sub(self.limit) + reset_once.len().saturating_sub(self.limit);
        would_stop.truncate(self.limit);
        reset_once.truncate(self.limit);
        Adoption {
            zone: self.zone.to_string(),
            since: times::shown(self.since_ms, &zone),
            since_ms: self.since_ms,
            quiet_days: self.quiet_days,
            ready: not_yet.is_empty(),
            not_yet,
            last_undeclared: last_ms.map(|ms| times::shown(ms, &zone)),
            last_undeclared_ms: last_ms,
            would_stop,
            reset_once,
            further,
            declared,
            watch,
            current_revision: current.revision(),
            current_verified: current.is_verified(),
        }
    }
}
