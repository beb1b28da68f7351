//! The data plane: keeps the kernel's rules equal to the plan, and reports what they decided.
//!
//! ```text
//! plan ── shape: lower ──────▶ elements ─┐                         ┌─▶ kernel (nft -f -, one transaction)
//!             └─ structure ──────────────┴─ nft: render ── table ──┼─▶ kernel (batch: a few elements, over netlink)
//!                                                                  └─◀ readback (digests, generation, counters)
//! kernel ── NFLOG ──▶ logged: nflog ─▶ events ─▶ explain ─▶ Observation::Verdict, Lost ─┐
//!        └─ NEWGEN ─▶ watch: drift ─▶ table (compare, repair) ─▶ Observation::Drift ────┴▶ outbox ─▶ the trail
//! ```
//!
//! What is further up knows what is further down, never the reverse: `watch` (loops), `table`, then `logged`, `ground`
//! and `standing`, then `nft`, then `shape`.
//!
//! `ground` is the machine that the rules stand on: base rules at boot, kernel parameters, routes, and what it lacks.
//!
//! Invariants: the kernel holds one whole plan or another, never a mixture; a plan that cannot be loaded leaves what
//! was there; nothing outside the tables `inet penstock` and `bridge penstock` is touched, but for the two kernel
//! parameters that show bridged packets to the rules, the routes of inspected packets, while a release is in its shadow the
//! table `inet penstock_shadow`, which only counts, and `inet penstock_witness`, which is a comment; the rules stay in the kernel
//! when the agent ends, and an agent that comes back with the same plan leaves them as they are.
//!
//! Operations inside protocols are judged by the [`inspector`], to which the kernel hands the connections that need it.
//!
//! Not here: which plan is the right one (`reconcile`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{ConduitId, Revision};
use penstock_policy::plan::{Capability, PLAN_FORMAT, Plan};
use penstock_policy::protocol::Protocol;
use penstock_policy::terms::{GatewayMode, OnDrift};
use tokio::sync::watch as facts;
use tokio::task::AbortHandle;

pub mod counters;
mod error;
mod faults;
mod grant_ends;
pub mod ground;
mod inspected;
pub mod logged;
pub mod nft;
mod shadow;
pub mod shape;
pub mod standing;
mod table;
pub mod watch;
mod witness;

pub use counters::Counters;
pub use error::EnforceError;
use grant_ends::GrantEnds;
pub use ground::base::{Base, BaseError};
pub use ground::routing::RoutingError;
use ground::{beyond, forwarding, needs, routing, sysctl};
pub use nft::run::NftError;
pub use shape::lower::LowerError;
pub use shape::structure::{Finding, OwnClients, OwnServices, StructureError};
use table::{Table, standby};
use watch::looks::Watching;
pub use watch::passage::Pace;
use watch::{drift, looks, passage, routes, verdicts};

use crate::inspector::{self, Inspector};
use crate::intercept::InspectorPorts;
use crate::kernel::FlowRhythm;
use crate::observed::outbox::{Outbox, Sink};
use crate::observed::sides::Refusals;
use crate::observed::{DriftStep, REPORT_AFTER};
use crate::service_manager::StoredDescriptor;

/// What the data plane needs to know of the machine.
#[derive(Debug, Clone)]
pub struct EnforceSettings {
    /// The `nft` program, by name or path.
    pub nft: PathBuf,
    /// The kernel's log group (NFLOG) for verdicts; no other program may use it.
    pub log_group: u16,
    /// Where the names of the guarded interfaces are left for the base rules of the next boot.
    pub base_path: Option<PathBuf>,
    /// Where is kept how many verdicts the kernel has logged; without it, what it logs while no agent runs is not counted.
    pub account_path: Option<PathBuf>,
    /// Where is noted what an agent left in the kernel; without it, nobody knows whether the rules stood while no agent ran.
    pub note_path: Option<PathBuf>,
    /// How often the kernel is compared with the plan although no change was seen.
    pub verify_interval: Duration,
    /// How often the kernel's counters are asked for what its log left out, and for whether anything passes.
    pub count: Duration,
    /// When a must-flow is judged by its rhythm.
    pub pace: Pace,
    /// How long after its first packet or its first use a verdict or an operation is reported first.
    pub report_after: Duration,
    /// How often is looked at what no event tells: whether packets can cross, and whether must-flows go on.
    pub look: Duration,
    /// A gateway that nothing passes for so long counts as a standby, and its rules as new.
    pub lull: Duration,
    /// Bounds of the data plane's own inspector; without them it has none.
    pub inspect: Option<inspector::SeatLimits>,
    /// Where another inspector listens, if it has none of its own.
    pub inspector: Option<InspectorPorts>,
    /// Services of the gateway itself over TCP, and who may reach them.
    pub own: OwnServices,
}

impl Default for EnforceSettings {
    fn default() -> Self {
        Self {
            nft: PathBuf::from("nft"),
            log_group: 86,
            base_path: None,
            account_path: None,
            note_path: None,
            pace: Pace::default(),
            report_after: REPORT_AFTER,
            look: passage::LOOK,
            lull: standby::LULL,
            verify_interval: Duration::from_secs(300),
            count: Duration::from_secs(10),
            inspect: None,
            inspector: None,
            own: OwnServices::new(),
        }
    }
}

/// What loading a plan came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyReport {
    /// What had to be done for it.
    pub change: ApplyMethod,
    /// Elements of the plan in the kernel's maps.
    pub elements: usize,
    /// What a person should know about the plan in force.
    pub findings: Vec<Finding>,
    /// How long the kernel's part took.
    pub took: Duration,
}

/// How the kernel was brought to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyMethod {
    /// It held the plan already, from before this agent's start.
    Adopted,
    /// Nothing of the plan that concerns the kernel is new.
    Unchanged,
    /// The differing elements were sent.
    Differences,
    /// The rules were written again around the maps, whose differing elements were sent.
    Restructured,
    /// The tables were replaced, in one transaction.
    Whole,
}

/// Whether the kernel equals the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriftState {
    /// No plan was applied yet.
    NoPlan,
    /// It does.
    None,
    /// It did not and was repaired just now.
    Repaired(String),
    /// It does not, in this way.
    Present(String),
}

/// The running data plane. Dropping it ends the watching; the rules stay in the kernel.
#[derive(Debug)]
pub struct Enforcer {
    table: Arc<Table>,
    inspector: Option<Arc<Inspector>>,
    /// When the inspector has to end what grants opened.
    ending: Arc<GrantEnds>,
    /// Why there is none although there should be.
    inspector_fault: Option<String>,
    watching: Arc<Watching>,
    tasks: Vec<AbortHandle>,
}

impl Enforcer {
    /// Begins to watch the kernel. Nothing is changed in it before the first [`Enforcer::apply`].
    ///
    /// What is observed goes to `sink`; where that is slow, verdicts are lost and counted. Must be called
    /// within a tokio runtime whose threads are in the network namespace that is to be guarded.
    ///
    /// # Errors
    /// A netlink socket cannot be opened: without CAP_NET_ADMIN nothing can be enforced. An inspector that cannot
    /// start is not an error but a fault.
    pub fn start(settings: EnforceSettings, sink: impl Sink) -> Result<Self, EnforceError> {
        Self::start_with(settings, Vec::new(), sink)
    }

    /// As [`Enforcer::start`], and takes up what an agent before left with the service manager.
    ///
    /// # Errors
    /// As [`Enforcer::start`].
    pub fn start_with(
        settings: EnforceSettings,
        kept: Vec<StoredDescriptor>,
        sink: impl Sink,
    ) -> Result<Self, EnforceError> {
        let watch = drift::subscribe().map_err(EnforceError::Socket)?;
        let routes = routing::subscribe().map_err(EnforceError::Socket)?;
        let outbox = Arc::new(Outbox::new(sink));
        let mut settings = settings;
        let (mut inspector, mut inspector_fault) = (None, None);
        if let Some(limits) = settings.inspect {
            match Inspector::start(
                inspector::Redirect::Intercepted,
                limits,
                settings.report_after,
                Arc::clone(&outbox),
                kept,
            ) {
                Ok(started) => {
                    settings.inspector = Some(started.ports());
                    inspector = Some(Arc::new(started));
                }
                // The kernel's part goes on; plans with operations are refused for want of the capability.
                Err(error) => {
                    let fault = format!("operations inside protocols cannot be inspected: {error}");
                    tracing::error!("{fault}");
                    inspector_fault = Some(fault);
                }
            }
        }
        let inherits = inspector.as_deref().is_some_and(Inspector::inherits);
        let table = Arc::new(Table::new(settings, inherits, outbox));
        let shared = inspector.as_deref().map(Inspector::shared);
        let watching = Arc::new(Watching::new(Arc::clone(&table), shared));
        let ending = Arc::new(GrantEnds::default());
        let mut tasks = vec![
            tokio::spawn(drift::watch(Arc::clone(&table), watch)).abort_handle(),
            tokio::spawn(drift::verify_now_and_then(Arc::clone(&table))).abort_handle(),
            tokio::spawn(routes::watch(Arc::clone(&table), routes)).abort_handle(),
            tokio::spawn(verdicts::run(Arc::clone(&table))).abort_handle(),
            tokio::spawn(table::watch_br_netfilter(Arc::clone(&table))).abort_handle(),
            tokio::spawn(table::keep_note(Arc::clone(&table))).abort_handle(),
            tokio::spawn(looks::watch(Arc::clone(&watching))).abort_handle(),
        ];
        if let Some(inspector) = &inspector {
            let watch = grant_ends::watch(Arc::clone(&ending), Arc::downgrade(inspector));
            tasks.push(tokio::spawn(watch).abort_handle());
        }
        Ok(Self {
            table,
            inspector,
            ending,
            inspector_fault,
            watching,
            tasks,
        })
    }

    /// What this machine's kernel can enforce.
    pub fn capabilities(&self) -> BTreeSet<Capability> {
        let mut capabilities = BTreeSet::from(
            [
                Capability::KERNEL,
                Capability::BRIDGE_MQTT,
                Capability::REMOTE_ACCESS,
                Capability::CHANGE_CONTROL,
                Capability::OVERRIDES,
                Capability::ASSURANCE,
            ]
            .map(Capability::of),
        );
        if beyond::can_make_devices() {
            capabilities.insert(Capability::of(Capability::TUNNEL));
        }
        if sysctl::can_filter_bridged() {
            capabilities.insert(Capability::of(Capability::KERNEL_BRIDGE));
            capabilities.insert(Capability::of(Capability::FRAMES));
        }
        if self.inspector.is_some() {
            capabilities.extend(Protocol::all().map(Capability::inspect));
            let inside_tls = Protocol::all().filter(|protocol| protocol.reads_inside_tls());
            capabilities.extend(inside_tls.map(Capability::inspect_inside_tls));
            capabilities.insert(Capability::of(Capability::TLS_BEFORE_PLAIN));
            capabilities.insert(Capability::of(Capability::ROLES));
        }
        capabilities
    }

    /// Whether the kernel would take `plan`; changes nothing. An [`Enforcer::apply`] of the same plan goes on from here.
    ///
    /// # Errors
    /// The plan does not fit the kernel's tables or this machine's interfaces, names operations that cannot be
    /// inspected here, or the kernel (or `nft`) rejects it.
    pub async fn check(&self, plan: Arc<Plan>) -> Result<(), EnforceError> {
        let judged = Arc::clone(&plan);
        make_policy(judged, Revision(0)).await?;
        let checked = self.table.check(Arc::clone(&plan)).await;
        checked.map_err(|error| error.concerning(&plan))
    }

    /// Puts `plan` into the kernel: by differences where only flows changed, else whole; one transaction each.
    ///
    /// # Errors
    /// The plan is not in force, and what was in the kernel before still is, unless [`Enforcer::is_in_doubt`].
    pub async fn apply(&self, plan: Arc<Plan>, revision: Revision) -> Result<ApplyReport, EnforceError> {
        let mut lacking = Vec::new();
        if self.table.settings.inspector.is_some() && routing::is_needed(&plan) {
            routing::set().await?;
            lacking = needs::findings(Arc::clone(&plan)).await?;
        }
        let concerned = Arc::clone(&plan);
        let mut applied = match &self.inspector {
            None => self.table.apply(plan, revision).await,
            Some(inspector) => {
                let policy = make_policy(Arc::clone(&plan), revision).await?;
                let hold = inspector.hold(Arc::clone(&policy)).await;
                let applied = self.table.apply(plan, revision).await;
                if applied.is_ok()
                    && let Err(error) = self.ending.put(inspector, policy).await
                {
                    self.table.doubt().await;
                    return Err(error);
                }
                drop(hold);
                applied
            }
        }
        .map_err(|error| error.concerning(&concerned))?;
        match forwarding::bound(concerned).await {
            Ok(findings) => lacking.extend(findings),
            Err(error) => {
                self.table.doubt().await;
                return Err(error);
            }
        }
        applied.findings.append(&mut lacking);
        applied.findings.extend(needs::tracking());
        self.watching.look().await;
        Ok(applied)
    }

    /// What stands before the first plan, which `plan` is to be: for [`Enforcer::withdraw`], perhaps of another agent.
    ///
    /// # Errors
    /// The kernel cannot be asked, or what the base rules guard cannot be read.
    pub async fn ground(&self, plan: Arc<Plan>) -> Result<String, EnforceError> {
        let ground = self.table.ground(plan).await?;
        // Names and numbers cannot fail to be JSON.
        Ok(serde_json::to_string(&ground).unwrap_or_default())
    }

    /// Brings back what stood before the first plan: rules, the base rules of the next boot, routes and parameters. Connections that
    /// were inspected end, and come again by themselves.
    ///
    /// # Errors
    /// The kernel, or a file, was not brought to it whole; another call goes on with it. Where [`Enforcer::is_in_doubt`], it is not
    /// known whether the rules are gone.
    pub async fn withdraw(&self, ground: &str) -> Result<(), EnforceError> {
        let ground = serde_json::from_str(ground).map_err(EnforceError::Ground)?;
        self.table.withdraw(&ground).await?;
        if let (Some(inspector), Some(nothing)) = (&self.inspector, nothing_permitted()) {
            let policy = make_policy(Arc::new(nothing), Revision(0)).await?;
            self.ending.put(inspector, policy).await?;
        }
        self.watching.look().await;
        Ok(())
    }

    /// Whether the kernel holds perhaps something else than the plan that was applied last, or a part of it: an [`Enforcer::apply`] did not
    /// come to its end. The next one replaces whatever is there.
    pub async fn is_in_doubt(&self) -> bool {
        self.table.is_in_doubt().await
    }

    /// What [`Self::hold_open`] will be asked for the plan that is applied next: tables that are exchanged have it before they judge.
    pub fn foretell(&self, left: BTreeMap<ConduitId, Duration>) {
        self.table.foretell(GrantEnds::of(left));
    }

    /// Lets the conduits of the plan that hang on grants pass for so long, and no other of them: the kernel ends it by itself, and the
    /// inspector what it carries.
    ///
    /// # Errors
    /// What held before still holds, and ends when it was to.
    pub async fn hold_open(&self, left: BTreeMap<ConduitId, Duration>) -> Result<(), EnforceError> {
        let ends = GrantEnds::of(left);
        if let Some(inspector) = &self.inspector {
            self.ending.hold(inspector, ends.clone()).await?;
        }
        self.table.hold(ends).await
    }

    /// Compares the kernel with the plan in force, and repairs it if the plan says so.
    ///
    /// # Errors
    /// The kernel cannot be asked, or rejected the repair; the difference then stays, and the next look finds it
    /// again.
    pub async fn verify(&self) -> Result<DriftState, EnforceError> {
        routes::mend(&self.table).await;
        self.table.verify(None).await
    }

    /// What became of the last change of the rules by somebody else.
    pub fn drift(&self) -> facts::Receiver<Option<DriftStep>> {
        self.table.drift.subscribe()
    }

    /// Whether the inspector's threads work, if there is one.
    pub fn carries(&self) -> bool {
        self.inspector.as_deref().is_none_or(Inspector::works)
    }

    /// Compares the kernel with the plan in force, as [`Enforcer::verify`] does, and notes for the next agent what this one
    /// leaves.
    ///
    /// # Errors
    /// The kernel could not be asked, or not be repaired.
    pub async fn leave(&self) -> Result<DriftState, EnforceError> {
        let verified = self.verify().await;
        self.end_shadow().await;
        self.table.note(true).await;
        verified
    }

    /// Totals of what the kernel decided.
    ///
    /// # Errors
    /// The kernel cannot be asked for its counters.
    pub async fn counters(&self) -> Result<Counters, EnforceError> {
        let mut counters = self.table.counters().await?;
        counters.inspected_connections = self.inspected_connections();
        let refused = self.inspector.as_deref().map_or([0; 2], Inspector::refused);
        [counters.denied_operations, counters.would_deny_operations] = refused;
        Ok(counters)
    }

    /// What was refused on each side since this agent began, by the side's interface.
    pub fn refusals(&self) -> BTreeMap<String, Refusals> {
        self.table.verdicts.refusals()
    }

    /// How the must-flows go that are followed, as of the last look ([`EnforceSettings::look`]).
    pub fn must_flows(&self) -> Vec<FlowRhythm> {
        self.watching.must_flows()
    }

    /// How many connections are inspected now.
    pub fn inspected_connections(&self) -> u64 {
        self.inspector
            .as_ref()
            .map_or(0, |inspector| inspector.connections() as u64)
    }
}

/// A plan that permits nothing: under it, what is inspected ends.
fn nothing_permitted() -> Option<Plan> {
    Some(Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "none".parse().ok()?,
        gateway: "none".parse().ok()?,
        mode: GatewayMode::Routed,
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        requires: BTreeSet::new(),
        on_drift: OnDrift::Report,
        interfaces: Vec::new(),
        management: None,
        rules: Vec::new(),
        bridges: Vec::new(),
        grants: BTreeMap::new(),
        open: BTreeSet::new(),
        excepted: BTreeMap::new(),
    })
}

async fn make_policy(
    plan: Arc<Plan>,
    revision: Revision,
) -> Result<Arc<inspector::InspectionPolicy>, EnforceError> {
    Ok(
        tokio::task::spawn_blocking(move || Inspector::prepare(plan, revision))
            .await
            .map_err(EnforceError::Interrupted)??,
    )
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        self.table.verdicts.keep_account();
        for task in &self.tasks {
            task.abort();
        }
    }
}
