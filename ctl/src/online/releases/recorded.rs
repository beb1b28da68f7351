//! Recorded traffic that a release would refuse: what passed in the last days by the coordinator's trail, judged again by the
//! release's plans, and what of it they would refuse, flows that must not stop first.
//!
//! The trail is the coordinator's word: it may leave out, and it may invent. So this is a help for whoever approves and never a
//! condition; and where it cannot be read, or not all of it, that is said and everything else goes on. What was not read, not
//! judged or not listed is counted.

mod judge;
mod page;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use penstock_policy::model::Plant;
use penstock_proto::v1::{AuditClock, Decision, ListGatewaysRequest, SearchAuditRequest};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use self::judge::{Judge, Judged, Refusal, Sum};
use super::super::trail::{self, ReadBudget};
use super::super::{Online, refused};
use crate::ask;
use crate::failure::Failure;
use crate::offline::changes::Changes;
use crate::offline::explain::zone_at;
use crate::output::{Output, Page, Report};
use crate::times::{self, SpanEnd};
use crate::words;

/// How far back is looked where nobody says it.
const SPAN: &str = "7d";
/// Records of each search: what passed, what only observing zones let pass, what was refused, what was learned.
const RECORDS_MAX: usize = 50_000;
/// Records of one answer.
const PAGE: u32 = 10_000;
/// Reading ends by then. A person waits no longer than twice as long, judging included.
const READING_MAX: Duration = Duration::from_secs(20);
/// Refusals that people are shown, and things that are missing; programs get them all.
const SHOWN_MAX: usize = 20;

/// What passed in the last days, as the release would have it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Recorded {
    /// From when on was looked, in the sites' time. By the coordinator's clock, and by the gateway's where only that lies in it.
    pub since: String,
    /// The same, milliseconds since 1970.
    pub since_ms: u64,
    /// Until when, milliseconds since 1970.
    pub until_ms: u64,
    /// Events of traffic that were read: what passed, and what was refused.
    pub events: u64,
    /// When the first of them happened, milliseconds since 1970; 0: there is none.
    pub first_ms: u64,
    /// When the last of them happened, milliseconds since 1970; 0: there is none.
    pub last_ms: u64,
    /// What passed and the release refuses: flows that must not stop first, then what nothing refuses today, then by how often.
    pub refused: Vec<RecordedRefusal>,
    /// Further different things that it refuses, not listed.
    pub further: RecordedSum,
    /// What passed and passes.
    pub passes: RecordedSum,
    /// What passed and is not permitted, but passes as its zones only observe.
    pub observed: RecordedSum,
    /// What was refused, and would pass: newly permitted, permitted since, or only observed.
    pub newly_permitted: RecordedSum,
    /// What passed and could not be judged, by the reason.
    pub unjudged: Vec<RecordedUnjudged>,
    /// What is missing: stretches of the trail that were not read, gateways that said nothing, events that were lost.
    pub missing: Vec<String>,
}

/// Something that passed and the release refuses.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RecordedRefusal {
    /// Who did it.
    pub client: RecordedEnd,
    /// With whom.
    pub server: RecordedEnd,
    /// `tcp/502`, `icmp-echo`.
    pub service: String,
    /// The operation, where the connection itself passes.
    pub operation: Option<String>,
    /// The least and the greatest value that it wrote, where they are known.
    pub values: Option<[u32; 2]>,
    /// It belongs to a flow that must not stop.
    pub must_flow: bool,
    /// What is in force refuses it already.
    pub already: bool,
    /// How often: packets, connections or operations, as the trail counts them.
    pub count: u64,
    /// The last time.
    pub last: String,
    /// The same, milliseconds since 1970.
    pub last_ms: u64,
    /// The gateway that let it pass, and would refuse it.
    pub gateway: String,
    /// Why, with what comes closest to permitting it.
    pub because: String,
}

/// One end, as the documents call it that the release is compared with, else those of the release.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RecordedEnd {
    /// Its address.
    pub address: String,
    /// The asset that has it.
    pub asset: Option<String>,
    /// The zone that it lies in.
    pub zone: Option<String>,
}

/// How much it is.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub struct RecordedSum {
    /// Different things.
    pub things: u64,
    /// Events that say so.
    pub events: u64,
    /// How often: packets, connections or operations.
    pub count: u64,
}

/// What could not be judged.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RecordedUnjudged {
    /// Why.
    pub why: String,
    /// How much.
    pub what: RecordedSum,
}

/// Changes against what is current, with what passed and would be refused.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Changes")]
pub struct ChangesAndRecorded {
    /// The changes.
    #[serde(flatten)]
    pub changes: Changes,
    /// Recorded traffic that the newer document would refuse; only with `--against-current`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

impl Report for ChangesAndRecorded {
    const SCHEMA: &'static str = Changes::SCHEMA;
    fn page(&self, page: &mut Page) {
        self.changes.page(page);
        show(self.recorded.as_ref(), page);
    }
}

/// What a release is held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Against<'p> {
    pub(super) new: &'p Plant,
    /// What is in force, and its revision.
    pub(super) base: Option<(&'p Plant, Option<u64>)>,
}

/// What `--recorded` says, checked before anything else is done; `None`: it is left out.
///
/// # Errors
/// It is no time.
pub(super) fn since(asked: Option<&str>) -> Result<Option<String>, Failure> {
    let asked = asked.unwrap_or(SPAN);
    if asked == "0" {
        return Ok(None);
    }
    times::read(asked, SpanEnd::Since, words::now_ms(), &times::zone()).map_err(Failure::usage)?;
    Ok(Some(asked.to_owned()))
}

/// What of the last days' traffic the release would refuse. It never fails: what cannot be read is said to be missing.
pub(super) async fn recorded(
    online: &mut Online,
    out: &Output,
    since: Option<&str>,
    against: Against<'_>,
) -> Option<Recorded> {
    let since = since?;
    let until = Instant::now() + READING_MAX;
    let last = until + READING_MAX;
    // Without an answer times are in UTC.
    let _ = tokio::time::timeout_at(until, online.settle_zone()).await;
    let now_ms = words::now_ms();
    let since_ms = times::read(since, SpanEnd::Since, now_ms, &times::zone()).unwrap_or(now_ms);
    let waiting = ask::waiting(out, "judging recorded traffic by the release");
    let mut judge = Judge::of(against.new, against.base).until(last.into_std());
    let mut missing = Vec::new();
    for (kinds, decision, what) in [
        (&["verdict", "operation"][..], Decision::Allow, "of what passed"),
        (
            &["verdict", "operation"][..],
            Decision::WouldDeny,
            "of what passed as zones only observe",
        ),
        (
            &["learned", "loss"][..],
            Decision::Unspecified,
            "of what was learned and lost",
        ),
        (
            &["verdict", "operation"][..],
            Decision::Deny,
            "of what was refused",
        ),
    ] {
        let request = SearchAuditRequest {
            from_ms: since_ms,
            until_ms: now_ms,
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            decision: decision.into(),
            limit: PAGE,
            newest_first: true,
            // A gateway whose clock is wrong hides nothing.
            clock: AuditClock::Either.into(),
            ..SearchAuditRequest::default()
        };
        let budget = ReadBudget {
            page: PAGE,
            records: RECORDS_MAX,
            until: Some(until),
        };
        let mut take = |record, ms| {
            judge.take(record, ms);
            Ok(())
        };
        let read = trail::read(online, &request, budget, &mut take);
        match tokio::time::timeout_at(last, read).await {
            Ok(Ok(gaps)) => {
                let gaps = gaps.in_words();
                missing.extend(gaps.into_iter().map(|gap| format!("not read {what}: {gap}")));
            }
            Ok(Err(failure)) => missing.push(format!("not read {what}: {}", failure.message)),
            Err(_) => missing.push(format!("not read {what}: the coordinator does not answer")),
        }
    }
    let judged = judge.finish();
    missing.extend(silent(online, &judged.heard, against, (since_ms, now_ms), last).await);
    drop(waiting);
    Some(report(judged, against, missing, (since_ms, now_ms)))
}

/// Gateways of which nothing was heard in this time, or of late.
async fn silent(
    online: &mut Online,
    heard: &BTreeSet<String>,
    against: Against<'_>,
    (since_ms, now_ms): (u64, u64),
    until: Instant,
) -> Vec<String> {
    let asked = online.client.list_gateways(ListGatewaysRequest {});
    let gateways = match tokio::time::timeout_at(until, asked).await {
        Ok(Ok(answer)) => answer.into_inner().gateways,
        Ok(Err(status)) => {
            let why = refused(&status).message;
            return vec![format!("which gateways are connected is not known: {why}")];
        }
        Err(_) => return vec!["which gateways are connected is not known: no answer came".to_owned()],
    };
    // Of what the release adds nothing can have been heard.
    let known = against.base.map_or(against.new, |(plant, _)| plant);
    let mut said = Vec::new();
    for id in known.gateways.keys() {
        let status = gateways.iter().find(|gateway| gateway.name == id.as_str());
        let dark = match status {
            Some(gateway) if gateway.connected => None,
            Some(gateway) if gateway.last_seen_ms > since_ms => {
                let seen = words::relative(gateway.last_seen_ms, now_ms);
                Some(format!(
                    "{id} is dark since {seen}: what passed there since is not in the trail"
                ))
            }
            _ => Some(format!(
                "{id} was dark all the time: nothing of what passed there is in the trail"
            )),
        };
        match dark {
            Some(dark) => said.push(dark),
            None if !heard.contains(id.as_str()) => {
                said.push(format!("{id} is connected and recorded no traffic in this time"));
            }
            None => {}
        }
    }
    said
}

fn report(
    judged: Judged,
    against: Against<'_>,
    mut missing: Vec<String>,
    (since_ms, until_ms): (u64, u64),
) -> Recorded {
    if judged.lost > 0 {
        missing.push(format!(
            "{} events were lost before they came into the trail",
            judged.lost
        ));
    }
    let mut listed: Vec<Refusal> = judged.refused.into_values().collect();
    listed.sort_by_key(|refusal| (!refusal.must_flow, refusal.already, u64::MAX - refusal.count));
    let unjudged = judged.unjudged.into_iter();
    Recorded {
        since: words::instant(since_ms),
        since_ms,
        until_ms,
        events: judged.events,
        first_ms: judged.first_ms.unwrap_or(0),
        last_ms: judged.last_ms,
        refused: listed.into_iter().map(|refusal| line(refusal, against)).collect(),
        further: judged.further.into(),
        passes: judged.passes.into(),
        observed: judged.observed.into(),
        newly_permitted: judged.newly.into(),
        unjudged: unjudged
            .map(|(why, what)| RecordedUnjudged {
                why,
                what: what.into(),
            })
            .collect(),
        missing,
    }
}

fn line(refusal: Refusal, against: Against<'_>) -> RecordedRefusal {
    RecordedRefusal {
        client: end(refusal.client, against),
        server: end(refusal.server, against),
        service: refusal.service,
        operation: refusal.operation,
        values: refusal.values,
        must_flow: refusal.must_flow,
        already: refusal.already,
        count: refusal.count,
        last: words::instant(refusal.last_ms),
        last_ms: refusal.last_ms,
        gateway: refusal.gateway,
        because: refusal.because,
    }
}

/// By documents that were compiled here, never by the coordinator's names.
fn end(address: IpAddr, against: Against<'_>) -> RecordedEnd {
    let plants = || {
        against
            .base
            .map(|(plant, _)| plant)
            .into_iter()
            .chain([against.new])
    };
    let asset = plants().find_map(|plant| {
        let mut assets = plant.assets.iter();
        assets.find(|(_, asset)| asset.addresses.contains(&address))
    });
    RecordedEnd {
        address: address.to_string(),
        asset: asset.map(|(id, _)| id.to_string()),
        zone: plants()
            .find_map(|plant| zone_at(plant, address))
            .map(ToString::to_string),
    }
}

impl From<Sum> for RecordedSum {
    fn from(sum: Sum) -> Self {
        Self {
            things: sum.things,
            events: sum.events,
            count: sum.count,
        }
    }
}

/// The section, where there is one.
pub(super) fn show(recorded: Option<&Recorded>, page: &mut Page) {
    if let Some(recorded) = recorded {
        page.gap();
        recorded.page(page);
    }
}
