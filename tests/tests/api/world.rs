//! A coordinator, its operators and its gateways, as tests need them: the coordinator itself and who gets in are here, a gateway's
//! session in `gateway`, servers that replicate a store in `nats`, the real program in `program`, a plant and its releases in `release`.

mod gateway;
mod nats;
mod program;
mod release;
mod simulated;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use penstock_coordinator::app::{self, RunningCoordinator};
use penstock_coordinator::ca::{Authority, IssuingTerms, OfflineRoot};
use penstock_coordinator::config::{Config, ConfigFile};
use penstock_coordinator::operators::Role;
use penstock_coordinator::rollout::run::AfterApproval;
use penstock_coordinator::store::{DiskReserve, NatsSettings, Store};
use penstock_policy::ids::{CoordinatorId, Digest, OperatorId, PlantId};
use penstock_policy::model::{Approver, ApproverSet};
use penstock_proto::channel::{self, Address};
use penstock_proto::keys::{FileKey, Key, KeyKind, certificate_request};
use penstock_proto::peer::{Certified, Epoch};
use penstock_proto::refusal::{Reason, explain};
use penstock_proto::tls::Credentials;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1;
use penstock_proto::v1::control_client::ControlClient;
use penstock_proto::v1::enrolment_client::EnrolmentClient;
use tonic::Status;
use tonic::transport::Channel;

pub use self::gateway::{Session, message};
pub use self::program::Program;
pub use self::release::{
    Built, People, built, built_as, built_replacing, document, key, mark, people, release,
};
pub use self::simulated::{Conduct, Simulated};

/// A claim that does not hold fails by then; no test that passes waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Control = ControlClient<Channel>;

pub struct World {
    pub config: Config,
    pub running: Option<RunningCoordinator>,
    pub address: Address,
    /// The plant's own authority, to issue what the coordinator would not.
    pub authority: Arc<Authority>,
    pub dir: tempfile::TempDir,
    admin: Option<Control>,
    /// The key by which each counts, and in which life.
    keys: Mutex<BTreeMap<String, (Key, Epoch)>>,
}

pub fn now_ms() -> u64 {
    penstock_coordinator::clock::now_ms()
}

/// A new key as programs have it that keep it in a file.
pub fn file_key() -> Key {
    FileKey::generate(KeyKind::EcdsaP256).unwrap().into()
}

/// What the root says of a coordinator's request.
pub fn certified(root: &OfflineRoot, request: &[u8], coordinator: &CoordinatorId) -> String {
    let terms = IssuingTerms {
        coordinator: coordinator.clone(),
        lifetime: Duration::from_secs(5 * 365 * 86_400),
        constrained: true,
    };
    root.sign(request, &terms, now_ms()).unwrap()
}

/// A stream of its own on the one NATS server of this process.
pub fn stream() -> NatsSettings {
    static SERVER: OnceLock<nats::Servers> = OnceLock::new();
    SERVER.get_or_init(|| nats::Servers::start(1, "")).stream()
}

/// Of a store that stands alone; `PENSTOCK_TEST_STORE=nats` has all worlds on replicated ones.
pub fn config(dir: &std::path::Path) -> Config {
    let mut file = ConfigFile::with_defaults(
        PlantId::new("riverside").unwrap(),
        CoordinatorId::new("c1").unwrap(),
        dir.join("data"),
    );
    file.listen.grpc = vec!["127.0.0.1:0".parse().unwrap()];
    file.listen.names = vec!["coordinator.example".to_owned()];
    file.listen.metrics = "127.0.0.1:0".to_owned();
    file.sessions.health_interval_ms = 1500;
    file.sessions.send_timeout_ms = 1000;
    file.rollouts.after_approval = AfterApproval::AtOnce;
    let mut config = file.check().unwrap();
    config.nats = std::env::var_os("PENSTOCK_TEST_STORE")
        .filter(|store| store == "nats")
        .map(|_| stream());
    config
}

/// The store of a coordinator that was stopped.
pub async fn store_of(config: &Config) -> Store {
    let path = config.data.join("penstock.db");
    match config.nats.clone() {
        None => Store::open(&path).unwrap(),
        Some(servers) => {
            let room = DiskReserve::default();
            let opened = Store::open_replicated(&path, room, config.name.as_str(), servers).await;
            opened.unwrap()
        }
    }
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// The same with another configuration.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(change, |config, _| app::init(config).unwrap()).await
    }

    /// For what is only so where the store stands alone: a page of the runbook, or a backup without which something is lost.
    pub async fn start_alone() -> Self {
        Self::start_with(|config| config.nats = None).await
    }

    /// The same with a plant whose root is elsewhere, in `root` beside the data folder: the coordinator issues by a key that it certified.
    pub async fn start_under_root() -> Self {
        Self::start_under_root_with(|_| ()).await
    }

    /// The same with another configuration.
    pub async fn start_under_root_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(change, |config, dir| {
            let root = OfflineRoot::create(&dir.join("root"), config.plant.clone(), None, now_ms()).unwrap();
            let request = app::init_under(config, &dir.join("root/root.pem")).unwrap();
            let pem = certified(&root, &request, &config.name);
            let ca = config.data.join("ca");
            Authority::install(&ca, &config.plant, pem.as_bytes(), &config.keys, now_ms()).unwrap();
        })
        .await
    }

    async fn start_on(
        change: impl FnOnce(&mut Config),
        init: impl FnOnce(&Config, &std::path::Path),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        init(&config, dir.path());
        let admin = OperatorId::new("admin").unwrap();
        let (token, _) = app::operator_token(&config, &admin, Role::Admin, 3600)
            .await
            .unwrap();
        let ca = config.data.join("ca");
        let authority =
            Authority::load_with(&ca, config.plant.clone(), config.lifetimes, &config.keys).unwrap();
        let running = app::start(&config).await.unwrap();
        let mut world = Self {
            address: running.grpc[0].to_string().parse().unwrap(),
            authority: Arc::new(authority),
            running: Some(running),
            config,
            dir,
            admin: None,
            keys: Mutex::default(),
        };
        let credentials = world.enrol("admin", &token.secret.0).await.unwrap();
        world.admin = Some(world.control(Some(credentials)).await.unwrap());
        world
    }

    /// Stops the coordinator and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.running.take().unwrap().stop().await;
        self.start_again().await;
    }

    /// Starts a coordinator that was stopped.
    pub async fn start_again(&mut self) {
        let admin = self.certificate("operator/admin");
        self.start_again_as(admin).await;
    }

    /// The same, by a key on the tokens that are configured by now.
    pub async fn start_with_token(&mut self) {
        let ca = self.config.data.join("ca");
        let (plant, lifetimes) = (self.config.plant.clone(), self.config.lifetimes);
        let authority = Authority::load_with(&ca, plant, lifetimes, &self.config.keys);
        self.authority = Arc::new(authority.unwrap());
        self.start_again().await;
    }

    /// The same where nothing can be issued to the admin now, who has this.
    pub async fn start_again_as(&mut self, admin: Credentials) {
        let running = app::start(&self.config).await.unwrap();
        self.address = running.grpc[0].to_string().parse().unwrap();
        self.running = Some(running);
        self.admin = Some(self.control(Some(admin)).await.unwrap());
    }

    pub fn admin(&self) -> Control {
        self.admin.clone().unwrap()
    }

    pub async fn channel(&self, trust: Trust, credentials: Option<Credentials>) -> Result<Channel, String> {
        let profile = ClientProfile {
            plant: self.config.plant.clone(),
            trust,
            credentials,
        };
        channel::connect(vec![self.address.clone()], profile.config().unwrap())
            .await
            .map_err(|e| e.to_string())
    }

    pub fn roots(&self) -> Trust {
        Trust::Roots(self.authority.roots())
    }

    pub async fn control(&self, credentials: Option<Credentials>) -> Result<Control, String> {
        let channel = self.channel(self.roots(), credentials).await?;
        Ok(ControlClient::new(channel)
            .max_decoding_message_size(channel::OPERATOR_RESPONSE_BYTES_MAX)
            .max_encoding_message_size(64 << 20))
    }

    /// A certificate straight from the authority, whatever the coordinator's records say; for the key that the subject enrolled with, if it
    /// did, and else for one that stays the same.
    pub fn certificate(&self, subject: &str) -> Credentials {
        self.certificate_at(subject, now_ms())
    }

    /// The same, as if issued at another time.
    pub fn certificate_at(&self, subject: &str, issued_ms: u64) -> Credentials {
        let (key, epoch) = self
            .keys
            .lock()
            .unwrap()
            .entry(subject.to_owned())
            .or_insert_with(|| (file_key(), Epoch::default()))
            .clone();
        self.issued(subject, epoch, key, issued_ms)
    }

    /// The key of a subject's certificates.
    pub fn key(&self, subject: &str) -> Key {
        self.certificate(subject);
        self.keys.lock().unwrap()[subject].0.clone()
    }

    /// Asks for another certificate for the same key.
    pub fn renewal(&self, subject: &str) -> v1::RenewRequest {
        v1::RenewRequest {
            certificate_request: certificate_request(&self.key(subject), None).unwrap().into(),
            ..v1::RenewRequest::default()
        }
    }

    /// A certificate for this key in this life of a subject.
    pub fn issued(&self, subject: &str, epoch: Epoch, key: Key, issued_ms: u64) -> Credentials {
        let whose = (&subject.parse().unwrap(), epoch);
        self.authority
            .issue_own(whose, &ServerNames::default(), key, issued_ms)
            .unwrap()
    }

    /// A token's secret. Where a second person has to confirm it, one of those whom this world enrolled does.
    pub async fn token(&self, subject: v1::create_token_request::Subject, role: v1::Role) -> Vec<u8> {
        let asked = v1::CreateTokenRequest {
            role: role.into(),
            valid_seconds: 600,
            subject: Some(subject),
            ..v1::CreateTokenRequest::default()
        };
        self.token_as(asked).await
    }

    /// The same, of what is asked in full.
    pub async fn token_as(&self, asked: v1::CreateTokenRequest) -> Vec<u8> {
        let asked = believing(asked);
        let mut admin = self.admin();
        let mut answer = admin.create_token(asked.clone()).await.unwrap().into_inner();
        if let Some(waits) = answer.waits.take() {
            self.confirm(&waits).await;
            answer = admin.create_token(asked).await.unwrap().into_inner();
        }
        answer.secret.to_vec()
    }

    /// A second person confirms a request.
    pub async fn confirm(&self, waits: &v1::PendingRequest) {
        let second = {
            let keys = self.keys.lock().unwrap();
            let enrolled = |name: &&String| keys.contains_key(&format!("operator/{name}"));
            waits.confirmers.iter().find(enrolled).cloned()
        };
        let second = second.unwrap_or_else(|| panic!("this world has none of {:?}", waits.confirmers));
        let credentials = self.certificate(&format!("operator/{second}"));
        let mut control = self.control(Some(credentials)).await.unwrap();
        let confirmed = control.decide_request(confirmation(&waits.id)).await.unwrap();
        assert_eq!(confirmed.into_inner().state(), v1::RequestState::Confirmed);
    }

    /// From now on this world can act as somebody who enrolled on their own.
    pub fn acts_as(&self, subject: &str, key: Key, epoch: Epoch) {
        self.keys.lock().unwrap().insert(subject.to_owned(), (key, epoch));
    }

    /// Enrols by token, over a connection that trusts only the pinned root.
    pub async fn enrol(&self, name: &str, secret: &[u8]) -> Result<Credentials, Status> {
        self.enrol_key(name, secret, &file_key()).await
    }

    pub async fn enrol_key(&self, name: &str, secret: &[u8], key: &Key) -> Result<Credentials, Status> {
        self.enrol_believing(name, secret, key, approvers().digest())
            .await
    }

    /// The same as a gateway that believes approvers of this digest.
    pub async fn enrol_believing(
        &self,
        name: &str,
        secret: &[u8],
        key: &Key,
        approvers: Digest,
    ) -> Result<Credentials, Status> {
        let pin = Trust::Pin(self.authority.root_digest());
        let channel = self.channel(pin, None).await.unwrap();
        let request = certificate_request(key, None).unwrap();
        let answer = EnrolmentClient::new(channel)
            .enrol(v1::EnrolRequest {
                name: name.to_owned(),
                secret: secret.to_vec().into(),
                certificate_request: request.into(),
                approvers_digest: approvers.0.to_vec().into(),
            })
            .await?
            .into_inner();
        assert_eq!(Digest::of(&answer.trust_bundle[0]), self.authority.root_digest());
        let chain = answer
            .certificate_chain
            .iter()
            .map(|der| der.to_vec().into())
            .collect();
        let credentials = Credentials::new(chain, key.clone()).unwrap();
        let certified = Certified::from_certificate(&credentials.chain()[0]).unwrap();
        self.keys.lock().unwrap().insert(
            certified.identity.subject.to_string(),
            (key.clone(), certified.epoch),
        );
        Ok(credentials)
    }

    /// An operator, enrolled by token.
    pub async fn operator(&self, name: &str, role: v1::Role) -> Control {
        use v1::create_token_request::Subject;
        let secret = self.token(Subject::Operator(name.to_owned()), role).await;
        let credentials = self.enrol(name, &secret).await.unwrap();
        self.control(Some(credentials)).await.unwrap()
    }

    /// What the trail holds, oldest first.
    pub async fn trail(&self, source: &str) -> Vec<v1::AuditRecord> {
        let request = v1::SearchAuditRequest {
            source: source.to_owned(),
            limit: 1000,
            ..v1::SearchAuditRequest::default()
        };
        let mut stream = self.admin().search_audit(request).await.unwrap().into_inner();
        let mut found = Vec::new();
        while let Some(record) = stream.message().await.unwrap() {
            found.push(record);
        }
        found
    }
}

/// The approvers whom gateways of this world believe.
pub fn approvers() -> ApproverSet {
    let person = |name: &str| {
        let approver = Approver {
            key: key(name).public(),
            role: None,
        };
        (name.parse().unwrap(), approver)
    };
    ApproverSet {
        threshold: 2,
        emergency_threshold: None,
        people: ["bob", "carol"].map(person).into(),
    }
}

/// The same token; a gateway's says that it believes these approvers.
pub fn believing(request: v1::CreateTokenRequest) -> v1::CreateTokenRequest {
    match request.subject {
        Some(v1::create_token_request::Subject::Gateway(_)) => v1::CreateTokenRequest {
            approvers_digest: approvers().digest().0.to_vec().into(),
            approvers: approvers().to_bytes().into(),
            ..request
        },
        _ => request,
    }
}

/// What a second person sends.
pub fn confirmation(id: &str) -> v1::DecideRequestRequest {
    v1::DecideRequestRequest {
        id: id.to_owned(),
        decision: Some(v1::decide_request_request::Decision::Confirm(true)),
    }
}

/// The refusal's stable reason is this one.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, reason: Reason) -> String {
    let status = result.expect_err("a refusal");
    let explained = explain(&status);
    assert!(explained.is(reason), "expected {reason:?}, got {status:?}");
    assert_eq!(status.code(), reason.code());
    explained.message
}
