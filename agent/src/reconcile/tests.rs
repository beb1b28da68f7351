//! The reconciler with time that a test sets, records in memory and a kernel that remembers: nothing here waits.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use penstock_policy::ids::{ApproverId, ConduitId, FlowId, OperatorId, Revision};
use penstock_policy::merkle::leaf_hash;
use penstock_policy::model::{Approver, ApproverSet};
use penstock_policy::plan::{Capability, Endpoint, Grant, PLAN_FORMAT, Rule};
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{STATEMENT_FORMAT, Statement, leaf_bytes};
use penstock_policy::terms::{Answers, GatewayMode, OnAgentLoss, OnDrift, OnRefusal, PortRange, Transport};
use penstock_proto::v1::{AuditEvent, KernelCounters, SignedRelease, audit_event::Kind};

use super::*;
use crate::kernel::ShadowReport;
use crate::store::StoreError;
use crate::timepiece::Time;

mod doubt;
mod grants;
mod killed;
mod lies;
mod machine;
mod naming;
mod orders;
pub(crate) mod overrides;
mod properties;
mod said;
mod sessions;
mod trials;

use trials::Steered;

const HOUR_MS: u64 = 3_600_000;

/// Runs what has nothing to wait for.
fn done<T>(step: impl Future<Output = T>) -> T {
    match pin!(step).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("nothing here waits"),
    }
}

/// Records in memory, which outlive the reconciler, and which cannot be read for a while.
#[derive(Default)]
struct Memory {
    records: BTreeMap<&'static str, Vec<u8>>,
    unreadable: bool,
    /// Of all records only this one.
    unreadable_one: Option<&'static str>,
    /// This record is not written.
    unwritable: Option<&'static str>,
    /// How often each was written.
    written: BTreeMap<&'static str, u32>,
}

impl Memory {
    fn is_unreadable(&self, record: &str) -> bool {
        self.unreadable || self.unreadable_one == Some(record)
    }
}

impl Records for Memory {
    fn load(&mut self, record: &'static str) -> Option<Vec<u8>> {
        let readable = !self.is_unreadable(record);
        readable.then(|| self.records.get(record).cloned()).flatten()
    }

    fn save(&mut self, record: &'static str, payload: &[u8]) -> Result<(), StoreError> {
        if self.unwritable == Some(record) {
            return Err(StoreError {
                record,
                source: crate::durable::FileError {
                    verb: "write",
                    path: record.into(),
                    source: std::io::Error::other("the disk is full"),
                },
            });
        }
        self.records.insert(record, payload.to_vec());
        *self.written.entry(record).or_default() += 1;
        Ok(())
    }

    fn unread(&self, record: &'static str) -> Option<&str> {
        (self.is_unreadable(record) && self.records.contains_key(record)).then_some("the disk reports errors")
    }

    fn unusable(&self, record: &'static str) -> Option<&str> {
        self.unread(record)
    }

    fn faults(&self) -> Vec<Fault> {
        Vec::new()
    }

    fn mend(&mut self) {}
}

impl Workplace for Arc<Mutex<Memory>> {
    fn on_records<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Records) -> T + Send + 'static,
    ) -> Handed<T> {
        let done = work(&mut *self.lock().unwrap());
        Box::pin(std::future::ready(Some(done)))
    }

    fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Handed<T> {
        Box::pin(std::future::ready(Some(work())))
    }
}

/// Remembers what it holds; fails, and takes its time, on demand.
struct FakeKernel {
    time: Arc<Mutex<Time>>,
    fails: Mutex<bool>,
    takes: Mutex<Duration>,
    /// The revisions that it was given, one after the other.
    given: Mutex<Vec<u64>>,
    open: Mutex<BTreeSet<ConduitId>>,
    /// What it holds.
    holds: Mutex<Option<Arc<Plan>>>,
    /// Which revision others saw as in force when it heard of that last.
    shown_at_hold: Mutex<Option<u64>>,
    shown: Mutex<Option<watch::Receiver<PolicyView>>>,
    /// Whose shadow it was asked for, one after the other; 0: none.
    shadows: Mutex<Vec<u64>>,
    /// So many plans that come next are taken, or perhaps not, and nobody knows.
    doubtful: Mutex<u32>,
    /// The check is passed, and the plan is not taken.
    fails_late: Mutex<bool>,
    /// When what was held open last ends, by the clock of the boot.
    ends: Mutex<Vec<Duration>>,
}

fn no_memory() -> KernelError {
    KernelError {
        code: "kernel-failed",
        message: "no memory".to_owned(),
        in_doubt: false,
    }
}

impl FakeKernel {
    fn answer(&self) -> Result<(), KernelError> {
        if *self.fails.lock().unwrap() {
            return Err(no_memory());
        }
        Ok(())
    }
}

impl Kernel for FakeKernel {
    fn capabilities(&self) -> BTreeSet<Capability> {
        let names = [
            Capability::KERNEL,
            Capability::REMOTE_ACCESS,
            Capability::OVERRIDES,
            Capability::CHANGE_CONTROL,
        ];
        names.map(Capability::of).into()
    }

    async fn check(&self, _: Arc<Plan>) -> Result<(), KernelError> {
        self.answer()
    }

    async fn apply(&self, plan: Arc<Plan>, revision: Revision) -> Result<Vec<String>, KernelError> {
        self.answer()?;
        if *self.fails_late.lock().unwrap() {
            return Err(no_memory());
        }
        self.given.lock().unwrap().push(revision.0);
        {
            let mut doubtful = self.doubtful.lock().unwrap();
            if *doubtful > 0 {
                *doubtful -= 1;
                return Err(KernelError {
                    in_doubt: true,
                    ..no_memory()
                });
            }
        }
        pass(&self.time, *self.takes.lock().unwrap());
        self.open.lock().unwrap().clone_from(&plan.open);
        *self.holds.lock().unwrap() = Some(plan);
        Ok(Vec::new())
    }

    async fn ground(&self, _: Arc<Plan>) -> Result<String, KernelError> {
        Ok("bare".to_owned())
    }

    async fn withdraw(&self, ground: &str) -> Result<(), KernelError> {
        self.answer()?;
        assert_eq!(ground, "bare");
        self.given.lock().unwrap().push(0);
        Ok(())
    }

    async fn shadow(&self, next: Option<(Arc<Plan>, Revision)>) -> Result<(), KernelError> {
        self.answer()?;
        let revision = next.map_or(0, |(_, revision)| revision.0);
        self.shadows.lock().unwrap().push(revision);
        Ok(())
    }

    async fn shadowed(&self) -> Option<ShadowReport> {
        Some(ShadowReport {
            would_deny_packets: 7,
            ..ShadowReport::default()
        })
    }

    async fn hold_open(&self, left: BTreeMap<ConduitId, Duration>) -> Result<(), KernelError> {
        let boot = self.time.lock().unwrap().boot;
        if let Some(shown) = &*self.shown.lock().unwrap() {
            let effective = shown.borrow().state.effective.clone();
            *self.shown_at_hold.lock().unwrap() = effective.map(|mark| mark.revision);
        }
        *self.ends.lock().unwrap() = left.values().map(|left| boot + *left).collect();
        Ok(())
    }

    async fn verify(&self) -> Result<Holds, KernelError> {
        Ok(Holds::AsApplied)
    }

    async fn counters(&self) -> Result<KernelCounters, KernelError> {
        Ok(KernelCounters::default())
    }
}

fn pass(time: &Mutex<Time>, span: Duration) {
    let mut time = time.lock().unwrap();
    time.boot += span;
    time.wall_ms += span.as_millis() as u64;
}

/// One gateway: what outlives its agent, and the agent.
struct Gateway {
    time: Arc<Mutex<Time>>,
    records: Arc<Mutex<Memory>>,
    site: Arc<Steered>,
    kernel: Arc<FakeKernel>,
    reconciler: Reconciler<FakeKernel, Arc<Mutex<Memory>>>,
    view: watch::Receiver<PolicyView>,
    recorded: tokio::sync::mpsc::Receiver<AuditEvent>,
    steps: Vec<String>,
}

impl Gateway {
    fn new() -> Self {
        let time = Arc::new(Mutex::new(Time {
            wall_ms: 500_000 * HOUR_MS,
            synchronised: true,
            boot: Duration::from_secs(100),
        }));
        Self::start(time, Arc::default(), Arc::default())
    }

    fn start(time: Arc<Mutex<Time>>, records: Arc<Mutex<Memory>>, site: Arc<Steered>) -> Self {
        let kernel = Arc::new(FakeKernel {
            time: time.clone(),
            fails: Mutex::default(),
            takes: Mutex::default(),
            given: Mutex::default(),
            open: Mutex::default(),
            holds: Mutex::default(),
            ends: Mutex::default(),
            shown: Mutex::default(),
            shown_at_hold: Mutex::default(),
            fails_late: Mutex::default(),
            doubtful: Mutex::default(),
            shadows: Mutex::default(),
        });
        let (audit, recorded) = Audit::without_spool();
        let (reconciler, view) = Reconciler::new(kernel.clone(), records.clone(), audit, Some(first_trust()));
        let reconciler = reconciler.with_timepiece(Timepiece::Told(time.clone()));
        let mut reconciler = reconciler.with_site(site.clone());
        done(reconciler.start());
        Self {
            time,
            records,
            site,
            kernel,
            reconciler,
            view,
            recorded,
            steps: Vec::new(),
        }
    }

    fn restarted(self) -> Self {
        Self::start(self.time, self.records, self.site)
    }

    fn now_ms(&self) -> u64 {
        self.time.lock().unwrap().wall_ms
    }

    fn step(&mut self, occasion: Occasion) {
        done(self.reconciler.step(occasion));
        while let Ok(event) = self.recorded.try_recv() {
            self.steps.extend(match event.kind {
                Some(Kind::Agent(agent)) => Some(agent.step),
                Some(Kind::Policy(policy)) => Some(format!("{} r{}", policy.step, policy.revision)),
                _ => None,
            });
        }
    }

    /// Lets time pass, and looks when it is time to.
    fn pass(&mut self, span: Duration) {
        let until = self.time.lock().unwrap().boot + span;
        loop {
            let left = until.saturating_sub(self.time.lock().unwrap().boot);
            let due = self.reconciler.due();
            pass(&self.time, due.unwrap_or(left).min(left));
            if due.is_none_or(|due| due > left) {
                return;
            }
            self.step(Occasion::Due);
        }
    }

    fn is_open(&self) -> bool {
        !self.kernel.open.lock().unwrap().is_empty()
    }

    fn shows(&self, code: &str) -> bool {
        self.view.borrow().faults.iter().any(|fault| fault.code == code)
    }

    fn recorded(&self, step: &str) -> usize {
        self.steps.iter().filter(|recorded| *recorded == step).count()
    }
}

fn key() -> ApproverKey {
    ApproverKey::from_seed(&[1; 32])
}

fn approvers() -> ApproverSet {
    let anna = Approver {
        key: key().public(),
        role: None,
    };
    ApproverSet {
        emergency_threshold: None,
        threshold: 1,
        people: BTreeMap::from([(ApproverId::new("anna").unwrap(), anna)]),
    }
}

fn first_trust() -> Trust {
    Trust {
        plant: "water".parse().unwrap(),
        gateway: "gw-1".parse().unwrap(),
        approvers: approvers(),
        floor: Revision(0),
        current: None,
    }
}

/// A plan whose one conduit hangs on a grant between these times.
pub(crate) fn granted(from_ms: u64, until_ms: u64) -> Plan {
    let end = |name: &str, address: [u8; 4]| Endpoint {
        name: name.into(),
        network: std::net::IpAddr::from(address).into(),
    };
    let needed = [Capability::KERNEL, Capability::REMOTE_ACCESS];
    let visit = Grant {
        name: "visit".parse().unwrap(),
        person: "Carla".to_owned(),
        from_ms,
        until_ms,
    };
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "water".parse().unwrap(),
        gateway: "gw-1".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: needed.map(|name| Capability(name.to_owned())).into(),
        on_drift: OnDrift::Repair,
        interfaces: Vec::new(),
        management: None,
        rules: vec![Rule {
            id: FlowId(1),
            conduit: "service".parse().unwrap(),
            flow: "vnc".parse().unwrap(),
            sources: vec![end("vendor", [10, 0, 1, 2])],
            destinations: vec![end("panel", [10, 0, 2, 9])],
            transport: Transport::Tcp(vec![PortRange::single(5900)]),
            must_flow: false,
            on_agent_loss: OnAgentLoss::Block,
            operations: None,
            on_refusal: OnRefusal::Answer,
            roles: None,
            answers: Answers::Strict,
            tls: None,
        }],
        bridges: Vec::new(),
        grants: BTreeMap::from([("service".parse().unwrap(), vec![visit])]),
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        open: BTreeSet::new(),
        excepted: BTreeMap::new(),
    }
}

/// The signed release of a plan, and the digest of its statement.
fn offer(plan: &Plan, revision: u64, parent: Option<Digest>) -> (Arc<PolicyOffer>, Digest) {
    offer_by(&key(), plan, revision, parent)
}

/// The same, with Anna's signature by this key.
fn offer_by(
    key: &ApproverKey,
    plan: &Plan,
    revision: u64,
    parent: Option<Digest>,
) -> (Arc<PolicyOffer>, Digest) {
    let plan_bytes = plan.to_bytes();
    let leaf = leaf_bytes(&plan.gateway, Revision(revision), Digest::of(&plan_bytes));
    let bytes = Statement {
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
        format: STATEMENT_FORMAT.to_owned(),
        plant: plan.plant.clone(),
        revision: Revision(revision),
        parent,
        replaces: Vec::new(),
        document_digest: Digest::of(b"document"),
        plans_root: Digest(leaf_hash(&leaf)),
        gateways: 1,
        approvers: approvers(),
        author: OperatorId::new("carla").unwrap(),
        ticket: None,
        reason: "test".to_owned(),
        created_ms: 1,
    }
    .to_bytes();
    let anna = ApproverId::new("anna").unwrap();
    let signature = penstock_proto::v1::Signature {
        approver: anna.to_string(),
        signature: key.sign(anna, &bytes).unwrap().bytes().to_vec().into(),
        ..Default::default()
    };
    let digest = Digest::of(&bytes);
    let offer = PolicyOffer {
        release: Some(SignedRelease {
            statement: bytes.into(),
            signatures: vec![signature],
        }),
        plan: plan_bytes.into(),
        ..PolicyOffer::default()
    };
    (Arc::new(offer), digest)
}

#[test]
fn a_forged_release_with_a_high_number_that_came_while_the_disk_could_not_be_read_displaces_no_true_one() {
    let mut gateway = Gateway::new();
    let now = gateway.now_ms();
    let plan = granted(now - HOUR_MS, now + HOUR_MS);
    let (first, one) = offer(&plan, 1, None);
    gateway.step(Occasion::Offer(first, Order::default()));
    gateway.records.lock().unwrap().unreadable = true;
    let mut gateway = gateway.restarted();
    let (forged, _) = offer_by(&ApproverKey::from_seed(&[9; 32]), &plan, 50, Some(one));
    let (second, _) = offer(&plan, 2, Some(one));
    gateway.step(Occasion::Offer(forged, Order::default()));
    gateway.step(Occasion::Offer(second, Order::default()));
    let refused = gateway.view.borrow().state.refused.clone().unwrap();
    assert_eq!(refused.code, "not-stored");
    gateway.records.lock().unwrap().unreadable = false;
    gateway.step(Occasion::Tick);
    let state = gateway.view.borrow().state.clone();
    assert_eq!((state.effective.unwrap().revision, state.refused), (2, None));
}
