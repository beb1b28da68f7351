//! The real program on a folder of its own, and gateways that ask it for certificates.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use penstock_coordinator::app;
use penstock_coordinator::ca::{Authority, IssuingTerms, OfflineRoot};
use penstock_coordinator::clock;
use penstock_coordinator::config::{Config, ConfigFile};
use penstock_coordinator::operators::Role;
use penstock_policy::ids::{CoordinatorId, Digest, OperatorId, PlantId};
use penstock_policy::model::{Approver, ApproverSet};
use penstock_policy::release::signing::ApproverKey;
use penstock_proto::channel::{self, Address};
use penstock_proto::keys::{FileKey, Key, KeyKind, certificate_request};
use penstock_proto::tls::Credentials;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::v1;
use penstock_proto::v1::control_client::ControlClient;
use penstock_proto::v1::enrolment_client::EnrolmentClient;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use tonic::transport::Channel;

/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which key issues.
pub(super) enum Kind {
    Root,
    BelowRoot,
    OnToken(String),
}

pub(super) struct Coordinator {
    config: Config,
    authority: Authority,
    address: Address,
    program: Child,
    admin: Option<ControlClient<Channel>>,
    /// Tokens that are not used yet.
    invited: Vec<(String, Vec<u8>)>,
    gateways: Vec<Credentials>,
    /// Gateways that are connected, and what they ask for.
    links: Vec<(GatewayLinkClient<Channel>, Vec<u8>)>,
    number: usize,
    _folder: tempfile::TempDir,
}

fn key() -> Key {
    FileKey::generate(KeyKind::EcdsaP256).unwrap().into()
}

fn approvers() -> ApproverSet {
    let approver = Approver {
        key: ApproverKey::from_seed(&[7; 32]).public(),
        role: None,
    };
    ApproverSet {
        threshold: 1,
        emergency_threshold: None,
        people: [("bob".parse().unwrap(), approver)].into(),
    }
}

impl Coordinator {
    /// At a port of this address, which no outgoing connection of the machine has.
    pub(super) async fn start(host: &str, kind: &Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = std::net::TcpListener::bind((host, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        let mut typed = ConfigFile::with_defaults(
            PlantId::new("works").unwrap(),
            CoordinatorId::new("c1").unwrap(),
            folder.path().join("data"),
        );
        typed.listen.grpc = vec![listen];
        if let Kind::OnToken(uri) = kind {
            typed.authority.keys = vec![uri.clone()];
        }
        let config = typed.check().unwrap();
        match kind {
            Kind::Root => app::init(&config).unwrap(),
            Kind::BelowRoot | Kind::OnToken(_) => {
                let dir = folder.path().join("root");
                let root = OfflineRoot::create(&dir, config.plant.clone(), None, clock::now_ms()).unwrap();
                let request = app::init_under(&config, &dir.join("root.pem")).unwrap();
                let terms = IssuingTerms {
                    coordinator: config.name.clone(),
                    lifetime: Duration::from_secs(365 * 86_400),
                    constrained: true,
                };
                let pem = root.sign(&request, &terms, clock::now_ms()).unwrap();
                app::install_issuing(&config, pem.as_bytes(), None).await.unwrap();
            }
        }
        let admin = OperatorId::new("admin").unwrap();
        let (token, _) = app::operator_token(&config, &admin, Role::Admin, 3600)
            .await
            .unwrap();
        let ca = config.data.join("ca");
        let authority =
            Authority::load_with(&ca, config.plant.clone(), config.lifetimes, &config.keys).unwrap();
        let file = folder.path().join("coordinator.toml");
        std::fs::write(
            &file,
            format!(
                "plant = \"works\"\nname = \"c1\"\ndata = {:?}\n[listen]\ngrpc = [\"{listen}\"]\nmetrics = \"\"\n[authority]\nkeys = {:?}\n[log]\nlevel = \"error\"\n",
                config.data.display().to_string(),
                typed.authority.keys
            ),
        )
        .unwrap();
        let own = std::env::current_exe().unwrap();
        let program = own.parent().unwrap().with_file_name("penstock-coordinator");
        assert!(
            program.exists(),
            "{} is not built: cargo bench --no-run -p penstock-coordinator",
            program.display()
        );
        // If this bench is ended, so is the program.
        let program = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(["serve", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut made = Self {
            config,
            authority,
            address: listen.to_string().parse().unwrap(),
            program,
            admin: None,
            invited: Vec::new(),
            gateways: Vec::new(),
            links: Vec::new(),
            number: 0,
            _folder: folder,
        };
        let answers = async {
            while made.channel(None).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answers)
            .await
            .expect("the coordinator starts");
        let admin = made.enrol("admin", &token.secret.0).await;
        let channel = made.channel(Some(admin)).await.unwrap();
        made.admin = Some(ControlClient::new(channel));
        made
    }

    async fn channel(&self, credentials: Option<Credentials>) -> Result<Channel, channel::ConnectError> {
        let profile = ClientProfile {
            plant: self.config.plant.clone(),
            trust: Trust::Roots(self.authority.roots()),
            credentials,
        };
        channel::connect(vec![self.address.clone()], profile.config().unwrap()).await
    }

    async fn enrol(&self, name: &str, secret: &[u8]) -> Credentials {
        let key = key();
        let request = v1::EnrolRequest {
            name: name.to_owned(),
            secret: secret.to_vec().into(),
            certificate_request: certificate_request(&key, None).unwrap().into(),
            approvers_digest: approvers().digest().0.to_vec().into(),
        };
        let mut client = EnrolmentClient::new(self.channel(None).await.unwrap());
        let answer = client.enrol(request).await.unwrap().into_inner();
        assert_eq!(Digest::of(&answer.trust_bundle[0]), self.authority.root_digest());
        let chain = answer
            .certificate_chain
            .iter()
            .map(|der| der.to_vec().into())
            .collect();
        Credentials::new(chain, key).unwrap()
    }

    /// Makes so many tokens for gateways.
    pub(super) async fn invites(&mut self, count: usize) {
        self.gateways.clear();
        for _ in 0..count {
            self.number += 1;
            let name = format!("gw-{}", self.number);
            let request = v1::CreateTokenRequest {
                valid_seconds: 600,
                subject: Some(v1::create_token_request::Subject::Gateway(name.clone())),
                approvers_digest: approvers().digest().0.to_vec().into(),
                approvers: approvers().to_bytes().into(),
                ..v1::CreateTokenRequest::default()
            };
            let answer = self
                .admin
                .as_mut()
                .unwrap()
                .create_token(request)
                .await
                .unwrap()
                .into_inner();
            self.invited.push((name, answer.secret.to_vec()));
        }
    }

    /// The processor time that the program spends while something is asked of it.
    pub(super) async fn spends(&mut self, asks: impl AsyncFn(&mut Self)) -> Duration {
        let before = self.processor_time();
        asks(self).await;
        self.processor_time() - before
    }

    fn processor_time(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.program.id())).unwrap();
        let (_, fields) = text.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // utime and stime, in ticks.
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Each gateway that was invited enrols.
    pub(super) async fn enrols(&mut self) {
        for (name, secret) in std::mem::take(&mut self.invited) {
            let enrolled = self.enrol(&name, &secret).await;
            self.gateways.push(enrolled);
        }
    }

    /// Each gateway connects, to renew its certificate.
    pub(super) async fn connects(&mut self) {
        self.links.clear();
        for gateway in &self.gateways {
            let request = certificate_request(gateway.key(), None).unwrap();
            let client = GatewayLinkClient::new(self.channel(Some(gateway.clone())).await.unwrap());
            self.links.push((client, request));
        }
    }

    /// Each gateway that is connected renews its certificate.
    pub(super) async fn renews(&mut self) {
        for (client, request) in &mut self.links {
            let renew = v1::RenewRequest {
                certificate_request: request.clone().into(),
                ..v1::RenewRequest::default()
            };
            client.renew(renew).await.unwrap();
        }
    }

    /// Each gateway connects, and goes.
    pub(super) async fn shakes_hands(&mut self) {
        for gateway in &self.gateways {
            self.channel(Some(gateway.clone())).await.unwrap();
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
