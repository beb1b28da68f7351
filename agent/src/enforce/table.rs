//! What is in the kernel, and the ways it changes: load, adopt, differ, compare, repair.
//!
//! All of them hold one lock, so that at most one transaction of ours is under way. The generation number of the
//! rules distinguishes own transactions from foreign ones: what happened up to [`TableState::seen`] is ours or was compared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use penstock_policy::ids::{ConduitId, Digest, Revision};
use penstock_policy::plan::Plan;
use penstock_policy::terms::GatewayMode;
use tokio::sync::watch;

use super::{ApplyMethod, ApplyReport, EnforceError, EnforceSettings};
use crate::enforce::counters::Counters;
use crate::enforce::ground::base::Base;
use crate::enforce::ground::{routing, sysctl};
use crate::enforce::logged::explain::PolicyInForce;
use crate::enforce::logged::reports::VerdictReports;
use crate::enforce::nft::must_flows::MustFlowElements;
use crate::enforce::nft::names::TABLE;
use crate::enforce::nft::readback::{KernelRuleset, RulesetReader, meant};
use crate::enforce::nft::render;
use crate::enforce::nft::run::{Nft, NftError};
use crate::enforce::shape::lower::Elements;
use crate::enforce::shape::structure::{Finding, Structure};
use crate::enforce::standing::{Continuity, OpenSpan};
use crate::enforce::table::loaded::LoadedPolicy;
use crate::enforce::table::ready::{PreparedPlan, Update};
use crate::intercept::InspectorPorts;
use crate::observed::DriftStep;
use crate::observed::outbox::Outbox;

mod br_netfilter;
mod generation;
mod grant_timeouts;
pub(super) mod loaded;
pub(super) mod ready;
mod repair;
mod replace;
pub(super) mod shadow;
pub(super) mod standby;
mod start;
mod withdraw;
mod witness;

use self::generation::generation;
pub(super) use br_netfilter::watch as watch_br_netfilter;
pub(super) use start::keep_note;

/// The kernel's tables as this agent knows them.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) settings: EnforceSettings,
    pub(super) outbox: Arc<Outbox>,
    /// The verdicts that wait to be reported, and the policy in force, which explains them.
    pub(super) verdicts: VerdictReports,
    /// The parameters that were last seen to hide bridged packets from the rules.
    hiding: Mutex<Vec<&'static str>>,
    /// Until when conduits are open that hang on grants.
    ends: Mutex<BTreeMap<ConduitId, Instant>>,
    /// The same for the plan that is applied next.
    foretold: Mutex<Option<BTreeMap<ConduitId, Instant>>>,
    /// What became of the last change by somebody else.
    pub(super) drift: watch::Sender<Option<DriftStep>>,
    /// How the kernel's tables differ from what was loaded and were left so.
    pub(super) differs: Mutex<Option<Finding>>,
    /// When this gateway was last found to have stood open.
    pub(super) open: Mutex<Option<OpenSpan>>,
    nft: Nft,
    /// The inspector goes on with connections of an agent before, perhaps of flows that nothing inspects any more.
    inherits: bool,
    state: tokio::sync::Mutex<TableState>,
}

#[derive(Debug, Default)]
struct TableState {
    loaded: Option<LoadedPolicy>,
    /// The last generation of the kernel's rules that is known to be as loaded.
    seen: u32,
    /// The kernel was found to differ and was left so.
    differs: bool,
    /// What was found then: digests of content and handles.
    left: Option<(Digest, Digest)>,
    /// What became of the rules before the first plan was judged.
    started: bool,
    /// What was found at the start, until it is reported: when a plan is in force.
    found: Option<Continuity>,
    /// What was noted for the next agent is not what the kernel holds.
    unnoted: bool,
    /// What the counters had when the tables were last replaced.
    counted: Counters,
    /// A change of ours did not come to its end: the kernel holds what was loaded, or what was to be, or a part of that.
    in_doubt: bool,
    /// The plan that was checked last, until it is applied.
    ready: Option<PreparedPlan>,
    /// What is judged by beside what is in force.
    shadow: Option<shadow::LoadedShadow>,
}

impl TableState {
    /// The kernel holds what was loaded. Whether somebody else loaded it since: what is noted for the next agent, which
    /// sees by the handles whether the rules stood, is then renewed.
    fn reloaded(&mut self, held: &KernelRuleset) -> bool {
        let Some(loaded) = &mut self.loaded else {
            return false;
        };
        let by_another = loaded.handles != held.handles;
        loaded.handles = held.handles;
        self.unnoted |= by_another;
        by_another
    }
}

impl Table {
    pub(super) fn new(settings: EnforceSettings, inherits: bool, outbox: Arc<Outbox>) -> Self {
        Self {
            inherits,
            nft: Nft::new(settings.nft.clone()),
            verdicts: VerdictReports::new(&settings, Arc::clone(&outbox)),
            settings,
            outbox,
            hiding: Mutex::default(),
            ends: Mutex::default(),
            foretold: Mutex::default(),
            drift: watch::channel(None).0,
            differs: Mutex::default(),
            open: Mutex::default(),
            state: tokio::sync::Mutex::default(),
        }
    }

    /// Whether the kernel would take `plan`. What was made ready for it is kept for the loading that follows.
    pub(super) async fn check(&self, plan: Arc<Plan>) -> Result<(), EnforceError> {
        let mut state = self.state.lock().await;
        let ready = self.prepared(&state, &plan).await?;
        state.ready = None;
        if !self.takes_change(&state, &ready).await? {
            let left = self.left_of(&ready.plan);
            let script = render::whole(
                &ready.structure,
                ready.elements_with(&left),
                self.settings.log_group,
            );
            self.nft.check(&script).await?;
        }
        state.ready = Some(ready);
        Ok(())
    }

    async fn prepared(&self, state: &TableState, plan: &Arc<Plan>) -> Result<PreparedPlan, EnforceError> {
        let inspector = self.inspector_of(state, plan);
        PreparedPlan::of(Arc::clone(plan), inspector, self.settings.own.clone()).await
    }

    /// Where the inspector listens, if the rules are to know of it: for a plan that has something for it, and while its sockets may
    /// be there. A kernel that lacks what inspection needs still takes other plans.
    fn inspector_of(&self, state: &TableState, plan: &Plan) -> Option<InspectorPorts> {
        let known = matches!(&state.loaded, Some(old) if old.structure.inspector.is_some());
        self.settings
            .inspector
            .filter(|_| known || self.inherits || routing::is_needed(plan))
    }

    /// Whether the kernel would take the change from what it holds; `false` if only the whole script can tell.
    async fn takes_change(&self, state: &TableState, ready: &PreparedPlan) -> Result<bool, EnforceError> {
        let Some(way) = self.way(state, ready) else {
            return Ok(false);
        };
        let script = match way {
            // A check costs the kernel a whole RCU grace period (10 to 25 ms). A few disjoint elements of the right kind
            // for maps that are as we loaded them could only be refused for lack of memory, which the loading will say.
            Update::Few(_) => return Ok(generation().await? == state.seen),
            Update::Elements(script) | Update::Rules(script) => script,
        };
        match self.nft.check(&script).await {
            Ok(()) => Ok(true),
            Err(NftError::Refused { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The way from what the kernel holds, if that is known.
    fn way(&self, state: &TableState, ready: &PreparedPlan) -> Option<Update> {
        let known = state
            .loaded
            .as_ref()
            .filter(|_| !state.differs && !state.in_doubt)?;
        let left = self.left_of(&ready.plan);
        let group = self.settings.log_group;
        ready.way_from(&known.structure, &known.elements, (&left, group))
    }

    /// Goes this way, in one transaction; `false` if the kernel refuses it, which is then as before.
    async fn take(&self, way: Update) -> Result<bool, EnforceError> {
        let script = match way {
            Update::Few(batch) => {
                let taken = blocking(move |reader| Ok(reader.change(&batch))).await?;
                return Ok(taken
                    .inspect_err(|error| tracing::warn!(%error, "a change of elements was refused"))
                    .is_ok());
            }
            Update::Elements(script) | Update::Rules(script) => script,
        };
        match self.nft.load(&script).await {
            Err(NftError::Refused { .. }) => Ok(false),
            loaded => loaded.map(|()| true).map_err(EnforceError::from),
        }
    }

    /// The plan in force, and, unless it is the `known` one, where its must-flows are counted, and those of the known one.
    pub(super) async fn in_force(
        &self,
        known: Option<(Arc<Plan>, Arc<MustFlowElements>)>,
    ) -> Option<(Arc<Plan>, Option<MustFlowElements>)> {
        let state = self.state.lock().await;
        let loaded = state.loaded.as_ref()?;
        let (known, before) = known.unzip();
        let is_known = known.is_some_and(|known| Arc::ptr_eq(&known, &loaded.plan));
        let before = before.unwrap_or_default();
        let counted = (!is_known).then(|| MustFlowElements::of(&loaded.plan, &loaded.elements, &before));
        Some((Arc::clone(&loaded.plan), counted))
    }

    pub(super) async fn apply(
        &self,
        plan: Arc<Plan>,
        revision: Revision,
    ) -> Result<ApplyReport, EnforceError> {
        self.verdicts.wait_for_account().await;
        let mut state = self.state.lock().await;
        let before = generation().await.ok();
        let ends = self.take_foretold();
        let applied = self.put(&mut state, plan, revision).await;
        match &applied {
            Ok(_) => state.in_doubt = false,
            Err(error) => {
                self.take_back(ends);
                // The number changes with each transaction, and one that was still under way can come yet.
                let is_as_before = before.is_some() && generation().await.ok() == before;
                state.in_doubt |= !is_as_before || error.is_open_ended();
            }
        }
        applied
    }

    /// The kernel holds perhaps something else than what was loaded.
    pub(super) async fn doubt(&self) {
        self.state.lock().await.in_doubt = true;
    }

    /// Whether it does.
    pub(super) async fn is_in_doubt(&self) -> bool {
        self.state.lock().await.in_doubt
    }

    async fn put(
        &self,
        state: &mut TableState,
        plan: Arc<Plan>,
        revision: Revision,
    ) -> Result<ApplyReport, EnforceError> {
        let checked = state.ready.take().filter(|ready| Arc::ptr_eq(&ready.plan, &plan));
        let ready = match checked {
            Some(ready) => ready,
            None => self.prepared(state, &plan).await?,
        };
        let began = Instant::now();
        if ready.structure.mode == GatewayMode::Bridged {
            self.open_bridge(&ready.structure).await?;
        }
        let way = self.way(state, &ready);
        let PreparedPlan {
            structure,
            elements,
            findings,
            ..
        } = ready;
        let count = elements.v4.len() + elements.v6.len();
        let change = match (&mut state.loaded, way) {
            (Some(loaded), Some(Update::Few(batch))) if batch.is_empty() => {
                loaded.plan = Arc::clone(&plan);
                ApplyMethod::Unchanged
            }
            (Some(loaded), Some(way)) => {
                let before = generation().await?;
                let restructured = matches!(way, Update::Rules(_));
                // What the kernel holds is noted some time after, and a seal follows in a transaction of its own.
                self.note_change();
                let taken = self.take(way).await?;
                if !taken {
                    // The kernel refuses differences if somebody changed the tables meanwhile; then all is replaced.
                    self.replace(state, Arc::clone(&plan), structure, elements)
                        .await?;
                    ApplyMethod::Whole
                } else if restructured {
                    self.settle(state, Arc::clone(&plan), structure, elements).await?;
                    ApplyMethod::Restructured
                } else {
                    loaded.plan = Arc::clone(&plan);
                    loaded.elements = elements;
                    self.after_own(state, before).await?;
                    ApplyMethod::Differences
                }
            }
            (None, _) => {
                let first = !state.started;
                let start = self.start(&structure, &elements, first).await?;
                if first {
                    state.started = true;
                    state.found = start.found;
                }
                let change = if start.adopted {
                    state.loaded = Some(LoadedPolicy {
                        plan: Arc::clone(&plan),
                        structure,
                        elements,
                        described: start.held.structure,
                        handles: start.held.handles,
                    });
                    state.seen = start.generation;
                    self.clear_up().await;
                    ApplyMethod::Adopted
                } else {
                    self.replace(state, Arc::clone(&plan), structure, elements)
                        .await?;
                    ApplyMethod::Whole
                };
                self.tell_start(state.found.take());
                change
            }
            (Some(_), None) => {
                self.replace(state, Arc::clone(&plan), structure, elements)
                    .await?;
                ApplyMethod::Whole
            }
        };
        let took = began.elapsed();
        state.unnoted |= change != ApplyMethod::Unchanged;
        self.verdicts.follow(PolicyInForce::new(plan, revision));
        self.leave_base(state);
        Ok(ApplyReport {
            change,
            elements: count,
            findings,
            took,
        })
    }

    /// Makes sure that a bridged gateway's packets will be shown to the rules.
    async fn open_bridge(&self, structure: &Structure) -> Result<(), EnforceError> {
        if sysctl::can_filter_bridged() {
            sysctl::show_bridged().map_err(EnforceError::BridgeParameter)?;
            return Ok(());
        }
        // Without the module nothing could be judged: then nothing may cross, unless rules of ours (which then
        // drop what they are not shown) are there already.
        let base = Base {
            mode: structure.mode,
            interfaces: structure.guarded.clone(),
            input: Some(structure.input.clone()),
        };
        match base.load(&self.nft).await {
            Ok(_) => Err(EnforceError::NoBridgeFilter),
            Err(super::BaseError::Kernel(error)) => Err(error.into()),
            Err(super::BaseError::File { .. }) => Err(EnforceError::NoBridgeFilter),
        }
    }

    /// After rules were loaded: reads back how the kernel describes them, and seals them.
    async fn settle(
        &self,
        state: &mut TableState,
        plan: Arc<Plan>,
        structure: Structure,
        elements: Elements,
    ) -> Result<(), EnforceError> {
        let (held, generation) = read_held().await?;
        if held.maps != meant(&elements) {
            // Somebody changed the tables between loading and reading: the structure read is not to be trusted either.
            state.loaded = None;
            return Err(EnforceError::ReadBack(std::io::Error::other(
                "the kernel holds other elements than those just loaded: another program is changing the same tables",
            )));
        }
        let described = held.structure;
        let seal = self.seal(&structure, described);
        state.loaded = Some(LoadedPolicy {
            plan,
            structure,
            elements,
            described,
            handles: held.handles,
        });
        state.seen = generation;
        (state.differs, state.in_doubt) = (false, false);
        state.unnoted = true;
        let script = format!("add chain inet {} seal {{ comment \"{seal}\"; }}\n", TABLE);
        self.nft.load(&script).await?;
        self.after_own(state, generation).await?;
        self.renew(state).await
    }

    /// After a transaction of ours: if others came in between, the kernel is compared.
    async fn after_own(&self, state: &mut TableState, before: u32) -> Result<(), EnforceError> {
        let now = generation().await?;
        let alone = now == before.wrapping_add(1) && state.seen == before;
        if !alone {
            let (held, generation) = read_held().await?;
            let differs = state.loaded.as_ref().and_then(|loaded| loaded.differs(&held));
            state.seen = generation;
            match differs {
                Some(message) => {
                    self.drifted(state, &held, message, None).await;
                }
                None => {
                    state.reloaded(&held);
                }
            }
            return Ok(());
        }
        state.seen = now;
        Ok(())
    }

    pub(super) async fn counters(&self) -> Result<Counters, EnforceError> {
        let state = self.state.lock().await;
        self.counters_of(&state).await
    }

    /// Log messages that the kernel has sent since the tables were made.
    pub(super) async fn logged(&self) -> Result<u64, EnforceError> {
        blocking(|reader| reader.logged()).await
    }

    /// Packets that the log has left out since the tables were made.
    pub(super) async fn left_out(&self) -> Result<u64, EnforceError> {
        let named = blocking(|reader| reader.counters()).await?;
        Ok(Counters::default().and(&named).untold_packets)
    }

    async fn counters_of(&self, state: &TableState) -> Result<Counters, EnforceError> {
        Ok(state.counted.and(&blocking(|reader| reader.counters()).await?))
    }

    /// Leaves the names of the guarded interfaces for the next boot.
    fn leave_base(&self, state: &TableState) {
        let (Some(path), Some(_)) = (&self.settings.base_path, &state.loaded) else {
            return;
        };
        let Some(base) = self.base_of(state) else { return };
        if let Err(error) = base.write(path) {
            // A full disk must not undo a plan that is in force.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the base rules of the next boot are not up to date"
            );
        }
    }
}

/// What the kernel holds, and the generation before it was read: whatever comes later is newer.
async fn read_held() -> Result<(KernelRuleset, u32), EnforceError> {
    blocking(|reader| {
        let generation = reader.generation()?;
        Ok((reader.held()?, generation))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&RulesetReader) -> std::io::Result<T> + Send + 'static,
) -> Result<T, EnforceError> {
    tokio::task::spawn_blocking(move || work(&RulesetReader::open()?))
        .await
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(EnforceError::ReadBack)
}
