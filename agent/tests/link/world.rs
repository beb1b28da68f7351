//! A small world for the agent: a plant with approvers, a certificate authority, a kernel that remembers, and a
//! coordinator that does what a test tells it to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    dead_code
)]

// By its path, so that `tests/tests/spine` finds it too.
#[path = "world/coordinator.rs"]
pub mod coordinator;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_agent::app::{self, Views};
use penstock_agent::audit;
use penstock_agent::config::{ClockSource, Config};
use penstock_agent::kernel::{Holds, Kernel, KernelError};
use penstock_policy::ids::{ApproverId, ConduitId, Digest, FlowId, GatewayId, PlantId, Revision};
use penstock_policy::merkle::leaf_hash;
use penstock_policy::model::{Approver, ApproverSet};
use penstock_policy::plan::{Capability, Endpoint, PLAN_FORMAT, Plan, Rule};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{Anchor, STATEMENT_FORMAT, STATEMENT_FORMAT_ANCHORED, Statement, leaf_bytes};
use penstock_policy::terms::{
    GatewayMode, NumberRange, OnAgentLoss, OnDrift, OnRefusal, PortRange, Tls, Transport,
};
use penstock_proto::keys::FileKey;
use penstock_proto::v1::{self, KernelCounters, PolicyOffer, SignedRelease};
use penstock_proto::withdrawn::{List, SignedList};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const PLANT: &str = "water";
pub const GATEWAY: &str = "gw-1";

pub fn plant() -> PlantId {
    PlantId::new(PLANT).unwrap()
}

pub fn gateway() -> GatewayId {
    GatewayId::new(GATEWAY).unwrap()
}

/// The certificate authority of the plant.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Signs a list of withdrawn keys.
    pub fn withdraw(&self, list: &List) -> v1::WithdrawnList {
        let pem = self.0.key().serialize_pem();
        let key = FileKey::from_pem(pem.as_bytes(), "the authority").unwrap();
        let signed = SignedList::sign(list, &key.into()).unwrap();
        v1::WithdrawnList::from(&signed)
    }

    pub fn coordinator(&self) -> penstock_proto::tls::Credentials {
        self.server("coordinator/c-1")
    }

    /// For whoever serves on this machine, under this name.
    pub fn server(&self, subject: &str) -> penstock_proto::tls::Credentials {
        self.server_of(subject, None)
    }

    /// The same in this life.
    pub fn server_of(&self, subject: &str, epoch: Option<u32>) -> penstock_proto::tls::Credentials {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let uri = format!("spiffe://{PLANT}/{subject}");
        params
            .subject_alt_names
            .push(SanType::URI(uri.as_str().try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if let Some(epoch) = epoch {
            params.distinguished_name.push(
                rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]),
                rcgen::DnValue::Utf8String(epoch.to_string()),
            );
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        penstock_proto::tls::Credentials::new(
            vec![certificate.der().clone(), self.root()],
            FileKey::of(key).unwrap(),
        )
        .unwrap()
    }

    /// A certificate for the key and name in the request, which is good for these addresses.
    pub fn sign(
        &self,
        request: &[u8],
        addresses: &[IpAddr],
        years: Option<(i32, i32)>,
    ) -> CertificateDer<'static> {
        let mut request = rcgen::CertificateSigningRequestParams::from_der(&request.into()).unwrap();
        request.params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let addresses = addresses.iter().copied().map(SanType::IpAddress);
        request.params.subject_alt_names.extend(addresses);
        if let Some((from, until)) = years {
            request.params.not_before = rcgen::date_time_ymd(from, 1, 1);
            request.params.not_after = rcgen::date_time_ymd(until, 1, 1);
        }
        request.signed_by(&self.0).unwrap().der().clone()
    }
}

pub fn approver_key(seed: u8) -> ApproverKey {
    ApproverKey::from_seed(&[seed; 32])
}

/// Anna and Ben, both needed.
pub fn approvers() -> ApproverSet {
    let person = |seed| Approver {
        key: approver_key(seed).public(),
        role: None,
    };
    ApproverSet {
        emergency_threshold: None,
        threshold: 2,
        people: BTreeMap::from([
            (ApproverId::new("anna").unwrap(), person(1)),
            (ApproverId::new("ben").unwrap(), person(2)),
        ]),
    }
}

pub fn plan() -> Plan {
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: plant(),
        gateway: gateway(),
        mode: GatewayMode::Routed,
        requires: BTreeSet::from([Capability(Capability::KERNEL.to_owned())]),
        on_drift: OnDrift::Repair,
        interfaces: Vec::new(),
        management: None,
        rules: Vec::new(),
        bridges: Vec::new(),
        grants: std::collections::BTreeMap::new(),
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: std::collections::BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        open: std::collections::BTreeSet::new(),
        excepted: std::collections::BTreeMap::new(),
    }
}

/// A plan by which the gateway ends TLS for brokers at these addresses.
pub fn ending_tls(brokers: &[IpAddr]) -> Plan {
    let end = |name: &str, address: IpAddr| Endpoint {
        name: name.into(),
        network: address.into(),
    };
    let needed = ["inspect:mqtt", "inspect:mqtt-tls"];
    let mut plan = plan();
    plan.requires
        .extend(needed.map(|name| Capability(name.to_owned())));
    plan.rules.push(Rule {
        id: FlowId(1),
        conduit: "telemetry".parse().unwrap(),
        flow: "publish".parse().unwrap(),
        sources: vec![end("scada", [10, 0, 1, 2].into())],
        destinations: brokers.iter().map(|address| end("broker", *address)).collect(),
        transport: Transport::Tcp(vec![PortRange::single(8883)]),
        must_flow: false,
        on_agent_loss: OnAgentLoss::Block,
        operations: Some(Arc::new(Operations::from(vec![MqttOperation::Publish {
            topics: vec!["plant/#".to_owned()],
            qos: NumberRange { first: 0, last: 1 },
            retain: false,
        }]))),
        on_refusal: OnRefusal::Answer,
        roles: None,
        answers: penstock_policy::terms::Answers::Strict,
        tls: Some(Tls::default().into()),
    });
    plan
}

/// A release of one plan, signed by `signers`, with the digest of its statement.
pub fn offer(revision: u64, parent: Option<Digest>, signers: &[(&str, u8)]) -> (PolicyOffer, Digest) {
    offer_of(&plan(), revision, parent, signers)
}

/// The same for another plan.
pub fn offer_of(
    plan: &Plan,
    revision: u64,
    parent: Option<Digest>,
    signers: &[(&str, u8)],
) -> (PolicyOffer, Digest) {
    offer_naming(approvers(), plan, revision, parent, signers)
}

/// The same for a release that names these approvers for what follows it.
pub fn offer_naming(
    approvers: ApproverSet,
    plan: &Plan,
    revision: u64,
    parent: Option<Digest>,
    signers: &[(&str, u8)],
) -> (PolicyOffer, Digest) {
    offer_anchoring(None, approvers, plan, revision, parent, signers)
}

/// The same for a release that names a list of withdrawn keys, if this does.
pub fn offer_anchoring(
    withdrawn: Option<Anchor>,
    approvers: ApproverSet,
    plan: &Plan,
    revision: u64,
    parent: Option<Digest>,
    signers: &[(&str, u8)],
) -> (PolicyOffer, Digest) {
    let plan = plan.to_bytes();
    let leaf = leaf_bytes(&gateway(), Revision(revision), Digest::of(&plan));
    let statement = Statement {
        emergency: false,
        withdrawn,
        trust: None,
        trails: None,
        format: match withdrawn {
            Some(_) => STATEMENT_FORMAT_ANCHORED,
            None => STATEMENT_FORMAT,
        }
        .to_owned(),
        plant: plant(),
        revision: Revision(revision),
        parent,
        replaces: Vec::new(),
        document_digest: Digest::of(b"document"),
        plans_root: Digest(leaf_hash(&leaf)),
        gateways: 1,
        approvers,
        author: penstock_policy::ids::OperatorId::new("carla").unwrap(),
        ticket: None,
        reason: "test".to_owned(),
        created_ms: 1,
    };
    let bytes = statement.to_bytes();
    let signatures = signers
        .iter()
        .map(|(name, seed)| v1::Signature {
            approver: (*name).to_owned(),
            signature: approver_key(*seed)
                .sign(ApproverId::new(*name).unwrap(), &bytes)
                .unwrap()
                .bytes()
                .to_vec()
                .into(),
            ..Default::default()
        })
        .collect();
    let digest = Digest::of(&bytes);
    let offer = PolicyOffer {
        release: Some(SignedRelease {
            statement: bytes.into(),
            signatures,
        }),
        plan: plan.into(),
        leaf_index: 0,
        inclusion_proof: Vec::new(),
        chain: Vec::new(),
        order: None,
        ..PolicyOffer::default()
    };
    (offer, digest)
}

pub const BOTH: &[(&str, u8)] = &[("anna", 1), ("ben", 2)];

/// Remembers what it was told to enforce, in order; fails on demand.
#[derive(Debug)]
pub struct FakeKernel {
    pub applied: Mutex<Vec<u64>>,
    /// The conduits that were open in each plan, and how long each was to be.
    pub opened: Mutex<Vec<BTreeSet<ConduitId>>>,
    pub held: Mutex<Vec<BTreeMap<ConduitId, Duration>>>,
    /// Can close what a grant opened.
    pub knows_grants: Mutex<bool>,
    pub fails: Mutex<bool>,
    /// Takes a plan when it is asked, and fails when it has to hold it.
    pub fails_late: Mutex<bool>,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self {
            applied: Mutex::default(),
            opened: Mutex::default(),
            held: Mutex::default(),
            knows_grants: Mutex::new(true),
            fails: Mutex::default(),
            fails_late: Mutex::default(),
        }
    }
}

impl FakeKernel {
    pub fn last(&self) -> Option<u64> {
        self.applied.lock().unwrap().last().copied()
    }

    fn answer(&self) -> Result<(), KernelError> {
        if *self.fails.lock().unwrap() {
            return Err(KernelError {
                code: "kernel-failed",
                message: "nft is missing".to_owned(),
                in_doubt: false,
            });
        }
        Ok(())
    }
}

impl Kernel for FakeKernel {
    fn capabilities(&self) -> BTreeSet<Capability> {
        let names = [
            Capability::KERNEL,
            Capability::CHANGE_CONTROL,
            "inspect:mqtt",
            "inspect:mqtt-tls",
        ];
        let mut capabilities = BTreeSet::from(names.map(|name| Capability(name.to_owned())));
        if *self.knows_grants.lock().unwrap() {
            capabilities.insert(Capability(Capability::REMOTE_ACCESS.to_owned()));
        }
        capabilities
    }

    async fn check(&self, _plan: Arc<Plan>) -> Result<(), KernelError> {
        self.answer()
    }

    async fn apply(&self, plan: Arc<Plan>, revision: Revision) -> Result<Vec<String>, KernelError> {
        self.answer()?;
        if *self.fails_late.lock().unwrap() {
            return Err(KernelError {
                code: "kernel-failed",
                message: "no memory".to_owned(),
                in_doubt: false,
            });
        }
        self.applied.lock().unwrap().push(revision.0);
        self.opened.lock().unwrap().push(plan.open.clone());
        Ok(Vec::new())
    }

    async fn hold_open(&self, left: BTreeMap<ConduitId, Duration>) -> Result<(), KernelError> {
        self.held.lock().unwrap().push(left);
        Ok(())
    }

    async fn verify(&self) -> Result<Holds, KernelError> {
        Ok(Holds::AsApplied)
    }

    async fn counters(&self) -> Result<KernelCounters, KernelError> {
        Ok(KernelCounters::default())
    }
}

/// An agent under way.
pub struct Running {
    pub kernel: Arc<FakeKernel>,
    pub views: Views,
    /// Asks for a look now.
    pub nudge: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn start(state_folder: &Path) -> Self {
        Self::start_with(state_folder, Arc::new(FakeKernel::default())).await
    }

    pub async fn start_with(state_folder: &Path, kernel: Arc<FakeKernel>) -> Self {
        Self::start_by(state_folder, kernel, ClockSource::Kernel).await
    }

    pub async fn start_by(state_folder: &Path, kernel: Arc<FakeKernel>, clock: ClockSource) -> Self {
        let config = Config {
            clock,
            ..Self::config(state_folder)
        };
        Self::start_as(config, kernel).await
    }

    /// What it runs by, where nothing else is said.
    pub fn config(state_folder: &Path) -> Config {
        Config {
            state_folder: state_folder.to_owned(),
            free_bytes_min: 0,
            ..Config::default()
        }
    }

    pub async fn start_as(config: Config, kernel: Arc<FakeKernel>) -> Self {
        let (stop, nudge) = (CancellationToken::new(), Arc::new(Notify::new()));
        let (ready_in, ready) = oneshot::channel();
        let task = tokio::spawn({
            let (kernel, nudge, stop) = (kernel.clone(), nudge.clone(), stop.clone());
            async move {
                app::run(config, kernel, audit::queue(), nudge, stop, |views| {
                    let _ = ready_in.send(views);
                })
                .await
                .unwrap();
            }
        });
        let views = within(ready).await.unwrap();
        Self {
            kernel,
            views,
            nudge,
            stop,
            task,
        }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        within(self.task).await.unwrap();
    }

    /// Waits until the policy's view satisfies `what`.
    pub async fn policy(&self, what: impl FnMut(&penstock_agent::reconcile::PolicyView) -> bool) {
        let mut view = self.views.policy.clone();
        within(view.wait_for(what)).await.unwrap();
    }

    pub async fn effective(&self, revision: u64) {
        self.policy(|view| {
            view.state
                .effective
                .as_ref()
                .is_some_and(|mark| mark.revision == revision)
        })
        .await;
    }

    pub async fn refused(&self, code: &str) {
        self.policy(|view| {
            view.state
                .refused
                .as_ref()
                .is_some_and(|refusal| refusal.code == code)
        })
        .await;
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("it did not happen within a minute")
}
