//! A plant with a coordinator, operators and gateways, as tests need them.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use penstock_coordinator::app::{self, RunningCoordinator};
use penstock_coordinator::ca::Authority;
use penstock_coordinator::config::{Config, ConfigFile};
use penstock_coordinator::operators::Role;
use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::{ApproverId, CoordinatorId, Digest, GatewayId, OperatorId, PlantId, Revision};
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{DocumentFile, Draft, Release, build, document_digest};
use penstock_proto::channel::{self, Address};
use penstock_proto::keys::{FileKey, Key, KeyKind, certificate_request};
use penstock_proto::refusal::{Reason, explain};
use penstock_proto::tls::Credentials;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1;
use penstock_proto::v1::control_client::ControlClient;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::enrolment_client::EnrolmentClient;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::gateway_message::Message as Up;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

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
}

pub fn now_ms() -> u64 {
    penstock_coordinator::clock::now_ms()
}

/// A new key as programs have it that keep it in a file.
pub fn file_key() -> Key {
    FileKey::generate(KeyKind::EcdsaP256).unwrap().into()
}

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
    file.check().unwrap()
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// The same with another configuration.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        app::init(&config).unwrap();
        let admin = OperatorId::new("admin").unwrap();
        let (token, _) = app::operator_token(&config, &admin, Role::Admin, 3600)
            .await
            .unwrap();
        let authority =
            Authority::load(&config.data.join("ca"), config.plant.clone(), config.lifetimes).unwrap();
        let running = app::start(&config).await.unwrap();
        let mut world = Self {
            address: running.grpc[0].to_string().parse().unwrap(),
            authority: Arc::new(authority),
            running: Some(running),
            config,
            dir,
            admin: None,
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
        let running = app::start(&self.config).await.unwrap();
        self.address = running.grpc[0].to_string().parse().unwrap();
        self.running = Some(running);
        let admin = self.certificate("operator/admin");
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

    /// A certificate straight from the authority, whatever the coordinator's records say.
    pub fn certificate(&self, subject: &str) -> Credentials {
        self.certificate_at(subject, now_ms())
    }

    /// The same, as if issued at another time.
    pub fn certificate_at(&self, subject: &str, issued_ms: u64) -> Credentials {
        self.authority
            .issue_own(
                &subject.parse().unwrap(),
                &ServerNames::default(),
                file_key(),
                issued_ms,
            )
            .unwrap()
    }

    pub async fn token(&self, subject: v1::create_token_request::Subject, role: v1::Role) -> Vec<u8> {
        self.admin()
            .create_token(v1::CreateTokenRequest {
                role: role.into(),
                valid_seconds: 600,
                subject: Some(subject),
            })
            .await
            .unwrap()
            .into_inner()
            .secret
            .to_vec()
    }

    /// Enrols by token, over a connection that trusts only the pinned root.
    pub async fn enrol(&self, name: &str, secret: &[u8]) -> Result<Credentials, Status> {
        self.enrol_key(name, secret, &file_key()).await
    }

    pub async fn enrol_key(&self, name: &str, secret: &[u8], key: &Key) -> Result<Credentials, Status> {
        let pin = Trust::Pin(self.authority.root_digest());
        let channel = self.channel(pin, None).await.unwrap();
        let request = certificate_request(key, None).unwrap();
        let answer = EnrolmentClient::new(channel)
            .enrol(v1::EnrolRequest {
                name: name.to_owned(),
                secret: secret.to_vec().into(),
                certificate_request: request.into(),
            })
            .await?
            .into_inner();
        assert_eq!(Digest::of(&answer.trust_bundle[0]), self.authority.root_digest());
        let chain = answer
            .certificate_chain
            .iter()
            .map(|der| der.to_vec().into())
            .collect();
        Ok(Credentials::new(chain, key.clone()).unwrap())
    }

    /// An operator, enrolled by token.
    pub async fn operator(&self, name: &str, role: v1::Role) -> Control {
        use v1::create_token_request::Subject;
        let secret = self.token(Subject::Operator(name.to_owned()), role).await;
        let credentials = self.enrol(name, &secret).await.unwrap();
        self.control(Some(credentials)).await.unwrap()
    }

    /// A gateway's session after its hello, with what came back first.
    pub async fn session(&self, name: &str, policy: v1::PolicyState) -> Session {
        let credentials = self.certificate(&format!("gateway/{name}"));
        let channel = self.channel(self.roots(), Some(credentials)).await.unwrap();
        self.session_over(channel, policy).await
    }

    /// A session of a gateway that has room for few messages which it did not read yet.
    pub async fn narrow_session(&self, name: &str) -> Session {
        let profile = ClientProfile {
            plant: self.config.plant.clone(),
            trust: self.roots(),
            credentials: Some(self.certificate(&format!("gateway/{name}"))),
        };
        let tls = TlsConnector::from(profile.config().unwrap().config);
        let (host, port) = (self.address.host().to_owned(), self.address.port());
        let connect = tower::service_fn(move |_: tonic::transport::Uri| {
            let (tls, host) = (tls.clone(), host.clone());
            async move {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                let name = "coordinator.penstock".try_into().unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let channel = tonic::transport::Endpoint::from_static("http://coordinator.penstock")
            .initial_stream_window_size(1024)
            .connect_with_connector(connect)
            .await;
        self.session_over(channel.unwrap(), v1::PolicyState::default())
            .await
    }

    async fn session_over(&self, channel: Channel, policy: v1::PolicyState) -> Session {
        let (up, messages) = mpsc::channel(64);
        let hello = v1::Hello {
            software_version: "test".to_owned(),
            capabilities: vec!["kernel".to_owned()],
            boot_id: "1".to_owned(),
            policy: Some(policy),
            spool: None,
        };
        up.send(message(Up::Hello(hello))).await.unwrap();
        let down = GatewayLinkClient::new(channel)
            .max_decoding_message_size(channel::COORDINATOR_MESSAGE_BYTES_MAX)
            .session(ReceiverStream::new(messages))
            .await
            .unwrap()
            .into_inner();
        let mut session = Session { up, down };
        let welcome = match session.next().await.unwrap() {
            Down::Welcome(welcome) => welcome,
            other => panic!("{other:?}"),
        };
        assert_eq!(welcome.coordinator, "c1");
        session
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

pub fn message(message: Up) -> v1::GatewayMessage {
    v1::GatewayMessage {
        message: Some(message),
    }
}

/// A gateway's end of a session.
pub struct Session {
    pub up: mpsc::Sender<v1::GatewayMessage>,
    pub down: Streaming<v1::CoordinatorMessage>,
}

impl Session {
    pub async fn send(&self, up: Up) {
        self.up.send(message(up)).await.unwrap();
    }

    /// The next message, or how the session ended.
    pub async fn next(&mut self) -> Result<Down, Status> {
        let next = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("a message in time")?;
        next.map_or_else(
            || Err(Status::cancelled("the stream ended")),
            |message| Ok(message.message.unwrap()),
        )
    }

    pub async fn offer(&mut self) -> v1::PolicyOffer {
        match self.next().await.unwrap() {
            Down::Offer(offer) => offer,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing is sent to it that it does not ask for: what comes next answers it.
    pub async fn silence(&mut self) {
        let block = v1::AuditBlock {
            epoch: 1,
            sequence: 0,
            previous_digest: vec![0; 32].into(),
            body: v1::AuditBlockBody::default().encode_to_vec().into(),
        };
        self.send(Up::Audit(block)).await;
        let next = self.next().await.unwrap();
        assert!(matches!(next, Down::AuditAck(_)), "{next:?}");
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

// ---- a plant and its releases -------------------------------------------------------------------------------

pub fn key(person: &str) -> ApproverKey {
    ApproverKey::from_seed(&Digest::of(person.as_bytes()).0)
}

/// A small plant with two gateways. `limit` is a number in one of its rules, so that documents differ.
pub fn document(threshold: usize, limit: u32) -> String {
    let person = |name: &str| {
        format!(
            "    {name}: {{ key: \"{}\" }}\n",
            String::from(key(name).public())
        )
    };
    format!(
        "plant: riverside
approvers:
  threshold: {threshold}
  people:
{}{}{}sites:
  works: {{ title: Works, timezone: UTC }}
gateways:
  gw-a:
    site: works
    mode: routed
    interfaces:
      eth1: {{ zone: operations, address: 10.20.1.1/24 }}
      eth2: {{ zone: control, address: 10.20.4.1/24 }}
  gw-b:
    site: works
    mode: routed
    interfaces:
      eth1: {{ zone: operations, address: 10.20.1.2/24 }}
      eth2: {{ zone: safety, address: 10.20.9.1/24 }}
zones:
  operations: {{ title: Operations, kind: operations, networks: [10.20.1.0/24] }}
  control: {{ title: Control, kind: control, networks: [10.20.4.0/24] }}
  safety: {{ title: Safety, kind: safety, networks: [10.20.9.0/24] }}
assets:
  hmi: {{ zone: operations, address: 10.20.1.21 }}
  plc: {{ zone: control, address: 10.20.4.7 }}
conduits:
  watch:
    title: Watch
    from: operations
    to: control
    flows:
      poll:
        source: hmi
        destination: plc
        service: modbus-tcp
        allow:
          - read-holding-registers: {{ units: 1, addresses: 0-{limit} }}
",
        person("bob"),
        person("carol"),
        person("erin"),
    )
}

pub struct Built {
    pub release: Release,
    pub statement: Vec<u8>,
    pub request: v1::ProposeReleaseRequest,
}

impl Built {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.statement)
    }

    pub fn end(&self, reason: &str) -> v1::EndReleaseRequest {
        v1::EndReleaseRequest {
            revision: self.release.statement.revision.0,
            statement_digest: self.digest().0.to_vec().into(),
            reason: reason.to_owned(),
        }
    }

    pub fn approval(&self, person: &str) -> v1::ApproveReleaseRequest {
        let approver = ApproverId::new(person).unwrap();
        let signature = key(person).sign(approver, &self.statement).unwrap();
        v1::ApproveReleaseRequest {
            revision: self.release.statement.revision.0,
            statement_digest: self.digest().0.to_vec().into(),
            signature: Some(v1::Signature {
                approver: person.to_owned(),
                signature: signature.bytes.to_vec().into(),
            }),
            brought: false,
        }
    }
}

pub fn built(text: &str, revision: u64, parent: Option<Digest>, author: &str) -> Built {
    built_replacing(text, revision, parent, Vec::new(), author)
}

/// The same for a release that replaces heads of another history.
pub fn built_replacing(
    text: &str,
    revision: u64,
    parent: Option<Digest>,
    replaces: Vec<Digest>,
    author: &str,
) -> Built {
    let loaded = penstock_policy::load(
        &[SourceFile {
            name: "plant.yaml".to_owned(),
            text: text.to_owned(),
        }],
        jiff::civil::date(2026, 1, 1),
    );
    let plant = loaded
        .plant
        .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics.iter().collect::<Vec<_>>()));
    let draft = Draft {
        revision: Revision(revision),
        parent,
        replaces,
        document_digest: document_digest(&[DocumentFile {
            name: "plant.yaml",
            content: text.as_bytes(),
        }]),
        author: OperatorId::new(author).unwrap(),
        ticket: None,
        reason: "test".to_owned(),
        created_ms: 1,
    };
    let release = build(&plant, draft).unwrap();
    let statement = release.statement.to_bytes();
    let request = v1::ProposeReleaseRequest {
        statement: statement.clone().into(),
        documents: vec![v1::DocumentFile {
            name: "plant.yaml".to_owned(),
            content: text.as_bytes().to_vec().into(),
        }],
    };
    Built {
        release,
        statement,
        request,
    }
}

/// People of all roles.
pub struct People {
    pub engineer: Control,
    pub bob: Control,
    pub carol: Control,
}

pub async fn people(world: &World) -> People {
    People {
        engineer: world.operator("anna", v1::Role::Engineer).await,
        bob: world.operator("bob", v1::Role::Approver).await,
        carol: world.operator("carol", v1::Role::Approver).await,
    }
}

pub async fn release(people: &mut People, release: &Built) {
    people
        .engineer
        .propose_release(release.request.clone())
        .await
        .unwrap();
    people.bob.approve_release(release.approval("bob")).await.unwrap();
    let done = people
        .carol
        .approve_release(release.approval("carol"))
        .await
        .unwrap();
    assert_eq!(done.into_inner().state(), v1::ReleaseState::Current);
}

pub fn mark(release: &Built, gateway: &str) -> v1::RevisionDigest {
    let plan = &release.release.plans[&GatewayId::new(gateway).unwrap()];
    v1::RevisionDigest {
        revision: release.release.statement.revision.0,
        plan_digest: Digest::of(plan).0.to_vec().into(),
        statement_digest: release.digest().0.to_vec().into(),
    }
}
