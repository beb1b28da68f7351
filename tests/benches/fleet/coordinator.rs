//! The real program on a folder of its own, and the people who use it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_coordinator::app;
use penstock_coordinator::ca::Authority;
use penstock_coordinator::clock;
use penstock_coordinator::config::{Config, ConfigFile};
use penstock_coordinator::operators::Role;
use penstock_policy::ids::{CoordinatorId, OperatorId, PlantId};
use penstock_proto::channel::{self, Address};
use penstock_proto::keys::{FileKey, Key, KeyKind, certificate_request};
use penstock_proto::peer::{Certified, Epoch};
use penstock_proto::tls::Credentials;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1;
use penstock_proto::v1::control_client::ControlClient;
use penstock_proto::v1::enrolment_client::EnrolmentClient;
use tonic::transport::Channel;

use super::PATIENCE;
use super::document::PLANT;

pub(super) type Control = ControlClient<Channel>;

pub(super) struct Coordinator {
    pub(super) authority: Arc<Authority>,
    pub(super) address: Address,
    pub(super) config: Config,
    file: PathBuf,
    program: Option<Child>,
    /// The key by which each counts, and in which life.
    keys: Mutex<BTreeMap<String, (Key, Epoch)>>,
    _folder: tempfile::TempDir,
}

pub(super) struct People {
    pub(super) anna: Control,
    pub(super) bob: Control,
    pub(super) carol: Control,
}

impl Coordinator {
    /// At a port of this address that is free, with this `rollouts.after_approval`. An address that no outgoing connection of
    /// the machine has: nobody takes a port of it between two runs of the program.
    pub(super) fn new(address: &str, after_approval: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coordinator.toml");
        let free = std::net::TcpListener::bind((address, 0)).unwrap();
        let listen = free.local_addr().unwrap();
        let mut typed = ConfigFile::with_defaults(
            PlantId::new(PLANT).unwrap(),
            CoordinatorId::new("c1").unwrap(),
            folder.path().join("data"),
        );
        typed.listen.grpc = vec![listen];
        let config = typed.check().unwrap();
        app::init(&config).unwrap();
        std::fs::write(
            &file,
            format!(
                "plant = \"{PLANT}\"\nname = \"c1\"\ndata = {:?}\n[listen]\ngrpc = [\"{listen}\"]\nmetrics = \"\"\n[rollouts]\nafter_approval = \"{after_approval}\"\n[log]\nlevel = \"error\"\n",
                config.data.display().to_string()
            ),
        )
        .unwrap();
        let authority =
            Authority::load(&config.data.join("ca"), config.plant.clone(), config.lifetimes).unwrap();
        Self {
            authority: Arc::new(authority),
            address: listen.to_string().parse().unwrap(),
            config,
            file,
            program: None,
            keys: Mutex::default(),
            _folder: folder,
        }
    }

    /// Adds to its configuration.
    pub(super) fn configure(&self, more: &str) {
        let text = std::fs::read_to_string(&self.file).unwrap();
        std::fs::write(&self.file, format!("{text}{more}")).unwrap();
    }

    pub(super) async fn start(&mut self) {
        let own = std::env::current_exe().unwrap();
        let program = own.parent().unwrap().with_file_name("penstock-coordinator");
        assert!(
            program.exists(),
            "{} is not built: cargo bench --no-run -p penstock-coordinator",
            program.display()
        );
        // If this bench is ended, so is the program.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(["serve", "--config"])
            .arg(&self.file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.program = Some(child);
        let answers = async {
            while self.channel(None).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answers)
            .await
            .expect("the coordinator starts");
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill().unwrap();
            program.wait().unwrap();
        }
    }

    pub(super) fn profile(&self, credentials: Option<Credentials>) -> ClientProfile {
        ClientProfile {
            plant: self.config.plant.clone(),
            trust: Trust::Roots(self.authority.roots()),
            credentials,
        }
    }

    async fn channel(&self, credentials: Option<Credentials>) -> Result<Channel, channel::ConnectError> {
        let tls = self.profile(credentials).config().unwrap();
        channel::connect(vec![self.address.clone()], tls).await
    }

    pub(super) async fn control(&self, credentials: Credentials) -> Control {
        ControlClient::new(self.channel(Some(credentials)).await.unwrap())
            .max_decoding_message_size(channel::OPERATOR_RESPONSE_BYTES_MAX)
            .max_encoding_message_size(channel::OPERATOR_REQUEST_BYTES_MAX)
    }

    /// Whoever proposes and approves, enrolled by an admin's tokens.
    pub(super) async fn people(&mut self) -> People {
        self.kill();
        let admin = OperatorId::new("admin").unwrap();
        let (token, _) = app::operator_token(&self.config, &admin, Role::Admin, 3600)
            .await
            .unwrap();
        self.start().await;
        self.enrol("admin", &token.secret.0).await;
        let mut admin = self.control(self.certificate("operator/admin")).await;
        let mut people = Vec::new();
        for (name, role) in [
            ("anna", v1::Role::Engineer),
            ("bob", v1::Role::Approver),
            ("carol", v1::Role::Approver),
        ] {
            let request = v1::CreateTokenRequest {
                role: role.into(),
                valid_seconds: 600,
                subject: Some(v1::create_token_request::Subject::Operator(name.to_owned())),
                ..v1::CreateTokenRequest::default()
            };
            let secret = confirmed(&mut admin, people.last_mut(), request).await;
            self.enrol(name, &secret).await;
            people.push(self.control(self.certificate(&format!("operator/{name}"))).await);
        }
        let [anna, bob, carol] = <[Control; 3]>::try_from(people).unwrap();
        People { anna, bob, carol }
    }

    async fn enrol(&self, name: &str, secret: &[u8]) {
        let key: Key = FileKey::generate(KeyKind::EcdsaP256).unwrap().into();
        let request = v1::EnrolRequest {
            name: name.to_owned(),
            secret: secret.to_vec().into(),
            certificate_request: certificate_request(&key, None).unwrap().into(),
            ..v1::EnrolRequest::default()
        };
        let mut client = EnrolmentClient::new(self.channel(None).await.unwrap());
        let answer = client.enrol(request).await.unwrap().into_inner();
        let leaf = answer.certificate_chain[0].to_vec().into();
        let certified = Certified::from_certificate(&leaf).unwrap();
        self.keys
            .lock()
            .unwrap()
            .insert(certified.identity.subject.to_string(), (key, certified.epoch));
    }

    /// A certificate for the key that the subject enrolled with, if it did, and else for one that stays the same.
    pub(super) fn certificate(&self, subject: &str) -> Credentials {
        let mut keys = self.keys.lock().unwrap();
        let made = || {
            (
                FileKey::generate(KeyKind::EcdsaP256).unwrap().into(),
                Epoch::default(),
            )
        };
        let (key, epoch) = keys.entry(subject.to_owned()).or_insert_with(made).clone();
        drop(keys);
        let subject = subject.parse().unwrap();
        self.authority
            .issue_own((&subject, epoch), &ServerNames::default(), key, clock::now_ms())
            .unwrap()
    }

    fn of_process<T>(&self, file: &str, name: &str, read: impl Fn(&str) -> T) -> T {
        let id = self.program.as_ref().unwrap().id();
        let text = std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        read(line.split_whitespace().nth(1).unwrap())
    }

    /// Resident memory now.
    pub(super) fn resident_mb(&self) -> f64 {
        self.of_process("status", "VmRSS:", |kb| kb.parse::<f64>().unwrap() / 1024.0)
    }

    /// Resident memory at most so far.
    pub(super) fn peak_mb(&self) -> f64 {
        self.of_process("status", "VmHWM:", |kb| kb.parse::<f64>().unwrap() / 1024.0)
    }

    /// What it caused to be written to disk so far.
    pub(super) fn written_bytes(&self) -> u64 {
        self.of_process("io", "write_bytes:", |bytes| bytes.parse().unwrap())
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The secret of a token, which a second person confirms where one has to.
pub(super) async fn confirmed(
    admin: &mut Control,
    second: Option<&mut Control>,
    request: v1::CreateTokenRequest,
) -> Vec<u8> {
    let mut answer = admin.create_token(request.clone()).await.unwrap().into_inner();
    if let Some(waits) = answer.waits.take() {
        let confirm = v1::DecideRequestRequest {
            id: waits.id,
            decision: Some(v1::decide_request_request::Decision::Confirm(true)),
        };
        second.unwrap().decide_request(confirm).await.unwrap();
        answer = admin.create_token(request).await.unwrap().into_inner();
    }
    answer.secret.to_vec()
}
