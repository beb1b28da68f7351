//! What the reconciler needs of whatever enforces: the seam between deciding and doing.
//!
//! `enforce` is the real one; tests have one that remembers, and one that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{ConduitId, Revision};
use penstock_policy::plan::{Capability, Plan};
use penstock_proto::v1::{Fault, KernelCounters};
use penstock_proto::withdrawn::Withdrawn;
use tokio::sync::watch;

use crate::identity::Identity;
use crate::observed::DriftStep;
use crate::observed::sides::Refusals;
use crate::service_manager::ServiceManager;

/// Why the kernel does not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct KernelError {
    /// Stable code, as in refusals and faults.
    pub code: &'static str,
    /// What happened, why, and what to do.
    pub message: String,
    /// It perhaps holds what it was asked for, or a part of it, all the same. `false`: it is surely as before.
    pub in_doubt: bool,
}

/// Whether the kernel still holds what was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// Exactly.
    AsApplied,
    /// Somebody changed it; what differs, in words.
    Drifted(String),
}

/// What the kernel holds as the agent ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftState {
    /// No policy was in force.
    Nothing,
    /// The policy.
    Policy,
    /// The policy, after it was put back just now; what differed, in words.
    Repaired(String),
    /// Something else; what differs, in words.
    Differing(String),
    /// It could not be asked; why, in words.
    Unknown(String),
}

/// What a plan in its shadow came to: what it would have changed, had it been in force. Counted since it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShadowReport {
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
    /// The same on the boot's clock.
    pub since_boot: Duration,
    /// Packets that passed and were judged.
    pub judged_packets: u64,
    /// Those of them that would not pass.
    pub would_deny_packets: u64,
    /// Operations that would not pass.
    pub would_deny_operations: u64,
    /// Connections that would be ended.
    pub would_cut_connections: u64,
    /// Flows of the policy in force (`conduit/flow`) that would be refused something, must-flows first; bounded.
    pub flows: Vec<String>,
    /// How many more there are.
    pub further_flows: u32,
    /// One of them is a must-flow.
    pub cuts_must_flow: bool,
    /// What cannot be judged beside live traffic, in words; empty: nothing.
    pub not_judged: String,
}

/// How a must-flow of the plan in force goes, or one of a plan before that this one carries too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRhythm {
    /// `conduit/flow`.
    pub name: String,
    /// Its longest usual pause; `None`: it carries nothing now, or was not followed for long enough.
    pub usual: Option<Duration>,
    /// How long ago it was seen; `None`: never.
    pub ago: Option<Duration>,
}

/// Something that enforces plans.
pub trait Kernel: Send + Sync + 'static {
    /// What it can enforce.
    fn capabilities(&self) -> BTreeSet<Capability>;
    /// Whether the kernel would take this plan; changes nothing.
    fn check(&self, plan: Arc<Plan>) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Puts the plan in force, in one transaction. Returns what a person should know about it. After an error that leaves it in doubt,
    /// the next plan is put in force whole, whatever it is.
    fn apply(
        &self,
        plan: Arc<Plan>,
        revision: Revision,
    ) -> impl Future<Output = Result<Vec<String>, KernelError>> + Send;
    /// What stands before the first policy, for [`Self::withdraw`], which perhaps another agent calls: the rules, and what `plan` would
    /// change beside them. A text that only the data plane understands, of at most a few kilobytes.
    fn ground(&self, _plan: Arc<Plan>) -> impl Future<Output = Result<String, KernelError>> + Send {
        std::future::ready(Ok(String::new()))
    }
    /// Takes the policy out again, so that what stands is what stood before the first one: a first policy that is reverted. Where that is
    /// done already, it does nothing.
    fn withdraw(&self, _ground: &str) -> impl Future<Output = Result<(), KernelError>> + Send {
        std::future::ready(Err(KernelError {
            code: "not-withdrawn",
            message: "this data plane cannot go back to no policy".to_owned(),
            in_doubt: false,
        }))
    }
    /// Judges live traffic by this plan too, beside the one in force, and changes nothing that passes; `None`: by no other plan, also
    /// where an agent before asked for one. A change of what is in force leaves the shadow as it is; one that puts the shadow's own plan
    /// in force is followed by `None`.
    fn shadow(
        &self,
        _next: Option<(Arc<Plan>, Revision)>,
    ) -> impl Future<Output = Result<(), KernelError>> + Send {
        std::future::ready(Ok(()))
    }
    /// What the shadow came to so far; `None`: there is none.
    fn shadowed(&self) -> impl Future<Output = Option<ShadowReport>> + Send {
        std::future::ready(None)
    }
    /// What [`Self::hold_open`] will be asked for the plan that is applied next: tables that are exchanged have it before they judge.
    fn foretell(&self, _left: BTreeMap<ConduitId, Duration>) {}
    /// Lets these conduits of the plan, which hang on grants of remote access, pass for so long and no longer, also when no agent
    /// lives to close them.
    fn hold_open(
        &self,
        _left: BTreeMap<ConduitId, Duration>,
    ) -> impl Future<Output = Result<(), KernelError>> + Send {
        std::future::ready(Ok(()))
    }
    /// Keeps the newest sealed head of the trail until the machine stops, in place of the one before; `false`: it does not, for now.
    fn keep_head(&self, _head: String) -> impl Future<Output = Result<bool, KernelError>> + Send {
        std::future::ready(Ok(false))
    }
    /// The one that is kept, by whichever agent of this boot; `None`: there is none, or it cannot be asked.
    fn kept_head(&self) -> impl Future<Output = Option<String>> + Send {
        std::future::ready(None)
    }
    /// Compares the kernel with what was applied, and repairs it if the plan says so.
    fn verify(&self) -> impl Future<Output = Result<Holds, KernelError>> + Send;
    /// Looks at what the kernel holds, for the last time, and leaves a note of it for the next agent.
    fn leave(&self) -> impl Future<Output = LeftState> + Send {
        std::future::ready(LeftState::Policy)
    }
    /// What became of the last change of its rules by somebody else, as it takes such changes back by itself; `None`: there was
    /// none.
    fn drift(&self) -> watch::Receiver<Option<DriftStep>> {
        watch::channel(None).1
    }
    /// What a person should know of the data plane itself.
    fn faults(&self) -> Vec<Fault> {
        Vec::new()
    }
    /// Whether what carries connections works: the service manager restarts an agent in which it does not.
    fn carries(&self) -> bool {
        true
    }
    /// Who this gateway is, now and after each renewal: for the TLS of clients that ends here.
    fn identify(&self, _identity: Option<Arc<Identity>>) {}
    /// Ends connections whose TLS ends here and whose peer's key no longer counts by this list; new ones are judged by their handshakes.
    fn heed(&self, _withdrawn: Arc<Withdrawn>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
    /// Leaves what it carries itself with the service manager, before a stop.
    fn hand_over(&self, _manager: &ServiceManager) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
    /// What was refused on each side since the agent began, by the side's interface.
    fn refusals(&self) -> BTreeMap<String, Refusals> {
        BTreeMap::new()
    }
    /// How must-flows go.
    fn must_flows(&self) -> Vec<FlowRhythm> {
        Vec::new()
    }
    /// Counters of the data plane.
    fn counters(&self) -> impl Future<Output = Result<KernelCounters, KernelError>> + Send;
}
