//! `rollout record`: what the coordinator says of a change, put together with the statements that were signed, into one file.
//!
//! The release's plans are compiled again here, so that the record holds each gateway's approved digest by this machine's own work; all
//! else is the coordinator's word, and the record says so when it is verified.

use std::path::Path;

use penstock_policy::ids::{ApproverId, Digest, GatewayId};
use penstock_policy::record::{
    Authorisation, ChangeRecord, GatewayRecord, HeldPolicy, Implementation, RECORD_FORMAT, RecordedEvent,
    RecordedStatement, SignedRecord, TrailEntry, Verification, ZoneRecord,
};
use penstock_policy::release::{self, Draft};
use penstock_policy::rollout::RolloutPlan;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{
    AuditClock, AuditRecord, Gateway, ListGatewaysRequest, RevisionDigest, SearchAuditRequest, SignedRelease,
    WatchHealthRequest, WhoAmIRequest,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::view::{EventLine, RolloutView};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode, quoted};
use crate::keys::{self, passphrase};
use crate::loading::LoadedPlant;
use crate::offline::changes::Changes;
use crate::online::health;
use crate::online::releases::fetched::{FetchedRelease, no_such, plant_of, signatures_of};
use crate::online::standing::StandingLine;
use crate::online::{Online, malformed, refused, trail};
use crate::output::{Output, Page, Report, Style, Tone};
use crate::words;

/// Records of gateways' trails that a record holds.
const TRAIL_MAX: u32 = 20_000;
/// Rollouts that are looked through for the baseline.
const LOOKED_THROUGH: u32 = 50;
/// How the words about what changes are laid out.
const PREVIEW: Style = Style {
    color: false,
    width: 100,
    wrap: false,
};

/// What `rollout record` was asked.
pub(super) struct RecordRequest<'a> {
    pub(super) revision: u64,
    pub(super) out: Option<&'a Path>,
    pub(super) key: Option<&'a Path>,
    pub(super) passphrase_file: Option<&'a Path>,
}

/// A record that was written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RecordWritten {
    /// The release.
    pub revision: u64,
    /// How far its rollout was.
    pub stage: String,
    /// The file.
    pub file: String,
    /// Digest of the record.
    pub record_digest: String,
    /// Who signed it; absent: nobody.
    pub signed_as: Option<String>,
}

impl Report for RecordWritten {
    const SCHEMA: &'static str = "penstock.rollout-record/1";
    fn page(&self, page: &mut Page) {
        let done = page.paint(Tone::Good, "✓");
        let file = page.paint(Tone::Name, &self.file);
        let by = match &self.signed_as {
            Some(name) => format!("signed by {}", page.paint(Tone::Strong, name)),
            None => page.paint(
                Tone::Warn,
                "NOT SIGNED: name your key with --key, so that nobody can alter it",
            ),
        };
        page.line(format!(
            "{done} record of r{} written to {file}, {by}",
            self.revision
        ));
        if !matches!(
            self.stage.as_str(),
            "completed" | "completed-with-exceptions" | "rolled-back" | "cancelled" | "superseded"
        ) {
            let warn = page.paint(
                Tone::Warn,
                &format!("▲ the rollout is not over: it is {}", self.stage),
            );
            page.line(warn);
        }
        page.line(format!(
            "  verify it with: penstock rollout verify {} --approvers DOCUMENT-BEFORE --documents DOCUMENT",
            quoted(Path::new(&self.file))
        ));
    }
}

/// `penstock rollout record`.
pub(super) async fn record(
    out: &Output,
    context: Option<&str>,
    asked: &RecordRequest<'_>,
) -> Result<Exit, Failure> {
    if let Some(file) = asked.out {
        files::free(file)?;
    }
    // Before the network: a wrong passphrase is said at once.
    let key = asked
        .key
        .map(|file| keys::read(file, || passphrase::existing(out, file, asked.passphrase_file)))
        .transpose()?;
    let mut online = Online::connect(context).await?;
    let record = gather(out, &mut online, asked.revision).await?;
    let mut signed = SignedRecord::new(&record).map_err(|error| {
        Failure::local(
            "not-recorded",
            "the record cannot be written so that it can be verified",
        )
        .caused_by(&error)
    })?;
    let name = online.login.context.operator.as_str();
    if let Some(key) = &key {
        let name = ApproverId::new(name).map_err(|error| Failure::usage(error.to_string()))?;
        let signature = key.sign(name, &signed.signable(), None)?;
        signed.signatures.push(signature);
    }
    let text = signed.to_json();
    let Some(file) = asked.out else {
        out.text(&format!("{text}\n"))?;
        return Ok(Exit::Done);
    };
    files::create(file, text.as_bytes(), Mode::Shared)?;
    out.show(&RecordWritten {
        revision: asked.revision,
        stage: record.implementation.stage,
        file: file.display().to_string(),
        record_digest: Digest::of(&signed.record).to_string(),
        signed_as: key.map(|_| name.to_owned()),
    })?;
    Ok(Exit::Done)
}

/// Puts the record of a rollout together.
pub(super) async fn gather(
    out: &Output,
    online: &mut Online,
    revision: u64,
) -> Result<ChangeRecord, Failure> {
    let sent = online.rollout_as_sent(Some(revision), true).await?;
    let plan: RolloutPlan = serde_json::from_slice(&sent.plan)
        .map_err(|error| malformed("the plan of the rollout cannot be read").caused_by(&error))?;
    let view = RolloutView::of(sent)?;
    let fetched = online
        .fetch_named(revision, None, None)
        .await?
        .ok_or_else(|| no_such(revision))?;
    let digest = Digest::of(&fetched.signed.statement);
    online.known()?.check_number(fetched.statement.revision, digest)?;
    if view.statement_digest != digest.to_string() {
        return Err(malformed(&format!(
            "the rollout of r{revision} is of {}, the release is {digest}",
            view.statement_digest
        )));
    }
    let loaded = plant_of(&fetched, out)?;
    let (baseline, between) = online.before(&fetched).await?;
    let preview = online.preview(out, baseline.as_ref(), &loaded).await;
    let (trail, trail_is_cut) = online.policy_trail(&view).await?;
    let verification = online.verification(&view, &fetched, &loaded).await?;
    let answer = online.client.who_am_i(WhoAmIRequest {}).await;
    let coordinator = answer
        .map_err(|status| refused(&status))?
        .into_inner()
        .coordinator;
    let is_complete = view.stage.starts_with("completed");
    Ok(ChangeRecord {
        format: RECORD_FORMAT.to_owned(),
        plant: online.login.context.plant.clone(),
        made_by: online.login.context.operator.clone(),
        made_ms: words::now_ms(),
        coordinator,
        baseline: baseline.as_ref().map(recorded).transpose()?,
        between: between.iter().map(recorded).collect::<Result<_, _>>()?,
        authorisation: Authorisation {
            release: recorded(&fetched.signed)?,
            approved_ms: fetched.release.approved_ms,
            preview,
        },
        implementation: Implementation {
            plan,
            started_by: view.started_by,
            reason: view.reason,
            ticket: view.ticket,
            started_ms: view.started_ms,
            ended_ms: view.ended_ms,
            stage: view.stage,
            events: view.events.into_iter().map(event).collect(),
            trail,
            trail_is_cut,
        },
        verification,
        new_baseline: is_complete.then_some(digest),
    })
}

fn recorded(signed: &SignedRelease) -> Result<RecordedStatement, Failure> {
    Ok(RecordedStatement::new(&signed.statement, &signatures_of(signed)?))
}

fn event(event: EventLine) -> RecordedEvent {
    RecordedEvent {
        time_ms: event.time_ms,
        by: event.by,
        what: event.what,
        message: event.message,
        reason: event.reason,
        ticket: event.ticket,
    }
}

/// What a gateway said of the release, with where it stands.
fn entry(record: AuditRecord, revision: u64) -> Option<TrailEntry> {
    let event = record.event?;
    let Some(Kind::Policy(policy)) = event.kind else {
        return None;
    };
    let is_gateway = !record.source.contains('/');
    (is_gateway && policy.revision == revision).then_some(TrailEntry {
        source: record.source,
        epoch: record.epoch,
        sequence: record.sequence,
        index: record.index,
        time_ms: event.time_ms,
        received_ms: record.received_ms,
        step: policy.step,
        revision: policy.revision,
        message: policy.message,
    })
}

/// A policy that a gateway holds.
fn held(mark: Option<&RevisionDigest>) -> Option<HeldPolicy> {
    let mark = mark?;
    let digest = |bytes: &[u8]| penstock_proto::convert::digest("plan_digest", bytes).ok();
    Some(HeldPolicy {
        revision: mark.revision,
        plan_digest: digest(&mark.plan_digest)?,
        statement_digest: digest(&mark.statement_digest),
    })
}

impl Online {
    /// What held before a release, and the statements between: the newest release before it that a rollout put in force somewhere, else
    /// the one on top of which it was made.
    async fn before(
        &mut self,
        fetched: &FetchedRelease,
    ) -> Result<(Option<SignedRelease>, Vec<SignedRelease>), Failure> {
        let revision = fetched.statement.revision.0;
        let rollouts = self.rollouts(LOOKED_THROUGH).await?.rollouts;
        let mut carried = rollouts
            .iter()
            .filter(|rollout| rollout.revision < revision && rollout.confirmed() > 0);
        let carried = carried.next().map(|rollout| rollout.statement_digest.clone());
        let chain = &fetched.chain;
        let is_it = |link: &SignedRelease| Some(Digest::of(&link.statement).to_string()) == carried;
        let at = chain.iter().rposition(is_it).or(chain.len().checked_sub(1));
        Ok(match at {
            None => (None, Vec::new()),
            Some(at) => (
                chain.get(at).cloned(),
                chain.get(at + 1..).unwrap_or_default().to_vec(),
            ),
        })
    }

    /// What the release changes against the baseline, in the words that approvers are shown; or why they cannot be had.
    async fn preview(
        &mut self,
        out: &Output,
        baseline: Option<&SignedRelease>,
        loaded: &LoadedPlant,
    ) -> String {
        let changes = async {
            let before = match baseline {
                None => None,
                Some(baseline) => {
                    let statement = crate::offline::signing::read_statement(&baseline.statement)?;
                    let digest = Digest::of(&baseline.statement);
                    let number = statement.revision.0;
                    let before = self.fetch_named(number, Some(digest), Some(digest)).await?;
                    let before = before.ok_or_else(|| no_such(number))?;
                    Some(plant_of(&before, out)?.plant)
                }
            };
            Changes::between(before.as_ref(), &loaded.plant)
        };
        match changes.await {
            Ok(changes) => {
                let mut page = Page::new(PREVIEW);
                changes.page(&mut page);
                page.finish()
            }
            Err(failure) => format!("not compared with the baseline: {}", failure.message),
        }
    }

    /// What gateways said of their policy while the rollout went on, the oldest first, and whether there was more.
    async fn policy_trail(&mut self, view: &RolloutView) -> Result<(Vec<TrailEntry>, bool), Failure> {
        let request = SearchAuditRequest {
            from_ms: view.started_ms,
            until_ms: words::now_ms(),
            kinds: vec!["policy".to_owned()],
            limit: TRAIL_MAX,
            clock: AuditClock::Received.into(),
            ..SearchAuditRequest::default()
        };
        let (records, is_cut) = trail::newest(self, request).await?;
        let entries = records
            .into_iter()
            .filter_map(|record| entry(record, view.revision));
        Ok((entries.collect(), is_cut))
    }

    /// What each gateway holds, and how well the zones are.
    async fn verification(
        &mut self,
        view: &RolloutView,
        fetched: &FetchedRelease,
        loaded: &LoadedPlant,
    ) -> Result<Verification, Failure> {
        let built = release::build(&loaded.plant, Draft::of(&fetched.statement)).map_err(|error| {
            Failure::altered("not-compiled", "the release's documents cannot be compiled here")
                .caused_by(&error)
        })?;
        let answer = self.client.list_gateways(ListGatewaysRequest {}).await;
        let told = answer.map_err(|status| refused(&status))?.into_inner().gateways;
        let gateways = built.plans.iter().map(|(name, plan)| {
            let own = told.iter().find(|gateway| gateway.name == name.as_str());
            gateway(name, Digest::of(plan), own, view)
        });
        let gateways: Vec<GatewayRecord> = gateways.collect();
        let answer = self
            .client
            .watch_health(WatchHealthRequest {
                once: true,
                beats: false,
            })
            .await;
        let mut stream = answer.map_err(|status| refused(&status))?.into_inner();
        let first = stream.message().await.map_err(|status| refused(&status))?;
        let health = first.ok_or_else(|| malformed("it is empty"))?;
        let zones = health.zones.into_iter().map(|zone| ZoneRecord {
            state: health::state_word(zone.state).to_owned(),
            zone: zone.zone,
            reasons: zone.reasons,
        });
        Ok(Verification {
            time_ms: health.time_ms,
            gateways,
            zones: zones.collect(),
        })
    }
}

fn gateway(
    name: &GatewayId,
    plan_digest: Digest,
    told: Option<&Gateway>,
    view: &RolloutView,
) -> GatewayRecord {
    let own = view.gateways.iter().find(|gateway| gateway.name == name.as_str());
    let policy = told.and_then(|gateway| gateway.policy.as_ref());
    let standing = policy
        .and_then(|policy| policy.standing.as_ref())
        .and_then(StandingLine::of);
    GatewayRecord {
        name: name.clone(),
        plan_digest,
        wave: own.map_or(0, |gateway| gateway.wave),
        state: own.map_or_else(|| "unknown".to_owned(), |gateway| gateway.state.clone()),
        connected: told.is_some_and(|gateway| gateway.connected),
        staged: held(policy.and_then(|policy| policy.staged.as_ref())),
        effective: held(policy.and_then(|policy| policy.effective.as_ref())),
        standing: standing.map_or_else(String::new, |standing| standing.words(view.time_ms).1),
    }
}
