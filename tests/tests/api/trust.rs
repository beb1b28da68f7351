//! A plant's root takes another one's place while its gateways and people work, and a key that was stolen with the coordinator's machine stops
//! counting: both as the runbook says, to the letter.

use std::path::PathBuf;

use penstock_agent::identity::IdentityFolder;
use penstock_agent::link::enrol::enrol;
use penstock_agent::link::renew::renew;
use penstock_agent::link::session::LinkState;
use penstock_coordinator::app;
use penstock_coordinator::ca::Authority;
use penstock_policy::ids::Digest;
use penstock_proto::bundle::from_json;
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1;

use crate::authority::{passphrase, types};
use crate::dark::gateway::{Running, within};
use crate::dark::token;
use crate::identities::kept_out;
use crate::lost::page;
use crate::person::Person;
use crate::world::{World, file_key, now_ms};

/// The machines of a plant below a root elsewhere: its coordinator, which a configuration file describes, and a gateway with a link.
struct Plant {
    world: World,
    folder: PathBuf,
    configured: PathBuf,
    state: tempfile::TempDir,
    agent: Option<Running>,
    ada: Person,
}

impl Plant {
    async fn new() -> Self {
        let mut world = World::start_under_root_with(|config| config.nats = None).await;
        let folder = world.dir.path().to_owned();
        let address = world.address.to_string();
        world.config.grpc = vec![address.parse().unwrap()];
        let configured = folder.join("coordinator.toml");
        let data = world.config.data.display().to_string();
        std::fs::write(
            &configured,
            format!("plant = \"riverside\"\nname = \"c1\"\ndata = {data:?}\n[listen]\ngrpc = [{address:?}]\nmetrics = \"\"\n"),
        )
        .unwrap();
        std::fs::rename(folder.join("root"), folder.join("my-plant-root")).unwrap();
        passphrase(&folder);
        let state = tempfile::tempdir().unwrap();
        enrol(state.path(), &token(&world).await).await.unwrap();
        let ada = Person::new(&world, "ada", "ada", v1::Role::Admin).await;
        let agent = Running::start(state.path()).await;
        let plant = Self {
            world,
            folder,
            configured,
            state,
            agent: Some(agent),
            ada,
        };
        plant.is_linked().await;
        plant
    }

    async fn is_linked(&self) {
        let mut link = self.agent.as_ref().unwrap().views.link.clone();
        within(link.wait_for(|link: &LinkState| link.coordinator.is_some()))
            .await
            .unwrap();
    }

    /// Waits until the gateway holds this trust bundle, and said so in a session.
    async fn holds(&self, number: u64) {
        let folder = IdentityFolder::new(self.state.path());
        let said = format!("gateway gw-1: trust bundle {number}");
        let held = async {
            while folder.trusted().unwrap().number != number
                || !app::authority_in_words(&self.world.config)
                    .await
                    .unwrap()
                    .contains(&said)
            {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        within(held).await;
    }

    /// Waits until the coordinator knows that the gateway's certificate is below this root.
    async fn is_known_below(&self, root: Digest) {
        let said = format!("its certificate below root {root}");
        let known = async {
            while !app::authority_in_words(&self.world.config)
                .await
                .unwrap()
                .contains(&said)
            {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        within(known).await;
    }

    async fn stop(&mut self) {
        self.world.running.take().unwrap().stop().await;
    }

    async fn start(&mut self) {
        self.world.running = Some(app::start(&self.world.config).await.unwrap());
        self.is_linked().await;
    }

    /// Types a command of the page; or does what it has the service manager do.
    async fn does(&mut self, command: &str) -> String {
        match command {
            "# systemctl stop penstock-coordinator" => self.stop().await,
            "# systemctl start penstock-coordinator" => self.start().await,
            command if command.starts_with("penstock ") => {
                let words: Vec<&str> = command.split(' ').skip(1).collect();
                return self.ada.reads(&words).await;
            }
            command => {
                let data = self.world.config.data.display().to_string();
                let names = [
                    (
                        "/etc/penstock/coordinator.toml",
                        self.configured.to_str().unwrap(),
                    ),
                    ("/var/lib/penstock-coordinator", data.as_str()),
                    (
                        "--plant my-plant",
                        "--plant riverside --passphrase-file passphrase",
                    ),
                    (
                        "trust.json --root my-plant-root",
                        "trust.json --passphrase-file passphrase --root my-plant-root",
                    ),
                    (
                        "trust.json --root my-new-root",
                        "trust.json --passphrase-file passphrase --root my-new-root",
                    ),
                    (
                        "-request.pem --root my",
                        "-request.pem --passphrase-file passphrase --root my",
                    ),
                ];
                return types(command, &self.folder, &names).await;
            }
        }
        String::new()
    }

    /// The gateway's certificate is renewed, as it would be when it is due.
    async fn renews(&mut self) {
        self.agent.take().unwrap().stop().await;
        let folder = IdentityFolder::new(self.state.path());
        let enrolment = IdentityFolder::peek_enrolment(self.state.path()).unwrap();
        let identity = folder.load(enrolment).unwrap();
        renew(&folder, std::slice::from_ref(&self.world.address), &identity)
            .await
            .unwrap();
        self.agent = Some(Running::start(self.state.path()).await);
        self.is_linked().await;
    }

    /// The root below which the gateway's certificate is.
    fn root(&self) -> Digest {
        let folder = IdentityFolder::new(self.state.path());
        let enrolment = IdentityFolder::peek_enrolment(self.state.path()).unwrap();
        let identity = folder.load(enrolment).unwrap();
        Digest::of(identity.credentials().chain().last().unwrap())
    }

    fn applied(&self) -> Vec<u64> {
        self.agent
            .as_ref()
            .unwrap()
            .kernel
            .applied
            .lock()
            .unwrap()
            .clone()
    }

    fn root_in(&self, folder: &str) -> Digest {
        let pem = std::fs::read(self.folder.join(folder).join("root.pem")).unwrap();
        Digest::of(&penstock_proto::tls::certificates_from_pem(&pem, "it").unwrap()[0])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_change_the_plants_root_changes_it_while_gateways_and_people_work() {
    let mut plant = Plant::new().await;
    let commands = page("Change the plant's root");
    let (mut bundles, mut installed) = (0, 0);
    for command in &commands {
        if command.contains("authority bundle") {
            bundles += 1;
        }
        if bundles == 3 && command.contains("authority trust") {
            // The gateway has a certificate below the old root still: dropping that would lose it.
            let refused = plant.refused(command).await;
            assert!(
                refused.contains("there are gateways that have a certificate below a root that is dropped, or never said which: gw-"),
                "{refused}"
            );
            plant.start().await;
            assert_eq!(plant.installed().await, (2, 1));
            plant.renews().await;
            plant.is_known_below(plant.root_in("my-new-root")).await;
            plant.stop().await;
        }
        plant.does(command).await;
        if command.starts_with("# systemctl start") {
            installed += 1;
            let number = [1, 2, 2, 3][installed - 1];
            plant.holds(number).await;
            // A login from before the new root issued ends with the old one.
            if number < 3 {
                plant.ada.reads(&["whoami"]).await;
            }
        }
    }
    assert_eq!((bundles, installed), (3, 4));
    let (old, new) = (plant.root_in("my-plant-root"), plant.root_in("my-new-root"));
    assert_eq!(plant.root(), new);
    let trusted = IdentityFolder::new(plant.state.path()).trusted().unwrap();
    assert_eq!(
        trusted
            .certificates()
            .iter()
            .map(|root| Digest::of(root))
            .collect::<Vec<_>>(),
        [new]
    );
    assert!(plant.applied().is_empty(), "nothing that is enforced was touched");
    assert_ne!(old, new);
    // What the old root certifies now counts nowhere.
    let authority = plant.world.authority.clone();
    let credentials = authority
        .issue_own(
            (&"gateway/gw-9".parse::<Subject>().unwrap(), Epoch(0)),
            &ServerNames::default(),
            file_key(),
            now_ms(),
        )
        .unwrap();
    let trust = penstock_proto::tls::client::Trust::Roots(vec![
        Authority::load(
            &plant.world.config.data.join("ca"),
            plant.world.config.plant.clone(),
            plant.world.config.lifetimes,
        )
        .unwrap()
        .root()
        .clone(),
    ]);
    assert!(plant.world.channel(trust, Some(credentials)).await.is_err());
    plant.agent.take().unwrap().stop().await;
    // A site without a link takes the same file, once and no earlier one.
    let file = plant.folder.join("trust.json");
    let all = from_json(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(all.len(), 3);
    let folder = IdentityFolder::new(plant.state.path());
    assert!(
        folder
            .take_trust(&plant.world.config.plant, &all)
            .unwrap()
            .is_none()
    );
}

impl Plant {
    /// How many bundles and issuing certificates the trail says were installed.
    async fn installed(&self) -> (usize, usize) {
        let search = [
            "audit",
            "search",
            "--source",
            "coordinator/c1",
            "--kind",
            "operator",
        ];
        let found = self.ada.done(&search).await;
        let done = |action: &str| {
            let records = found["records"].as_array().unwrap().iter();
            let events = records.map(|record| &record["event"]);
            events
                .filter(|event| {
                    event["operator"] == "local" && event["allowed"] == true && event["action"] == action
                })
                .count()
        };
        (done("install-trust"), done("install-issuing"))
    }

    /// A command of the page that is refused, and why.
    async fn refused(&self, command: &str) -> String {
        let data = self.world.config.data.display().to_string();
        let command = command
            .trim_start_matches("# ")
            .replace("runuser -u penstock-coordinator -- ", "")
            .replace(
                "/etc/penstock/coordinator.toml",
                self.configured.to_str().unwrap(),
            )
            .replace("/var/lib/penstock-coordinator", &data);
        crate::authority::complains(&command, &self.folder).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_the_coordinators_machine_was_stolen_ends_what_its_key_can_do_and_has_the_gateways_back()
 {
    let mut plant = Plant::new().await;
    let thief = plant.world.authority.clone();
    // The gateway's certificate is one of those that the stolen key issued.
    let before = plant.root();
    plant.stop().await;
    let commands = page("The coordinator's machine was stolen");
    for command in &commands {
        if command.starts_with("# systemctl start") {
            plant.world.running = Some(app::start(&plant.world.config).await.unwrap());
        } else {
            plant.does(command).await;
        }
    }
    plant.holds(1).await;
    plant.is_linked().await;
    assert_eq!(plant.root(), before, "below the same root, by another key");
    // Whatever the thief certifies counts neither at the coordinator nor at the gateway.
    let forged = |subject: &str| {
        thief
            .issue_own(
                (&subject.parse::<Subject>().unwrap(), Epoch(9)),
                &ServerNames::default(),
                file_key(),
                now_ms(),
            )
            .unwrap()
    };
    assert!(plant.world.control(Some(forged("operator/admin"))).await.is_err());
    assert!(kept_out(&plant.world, forged("gateway/gw-1")).await.is_some());
    let asks = |credentials: penstock_proto::tls::Credentials| {
        let world = &plant.world;
        async move {
            let request = penstock_proto::keys::certificate_request(credentials.key(), None).unwrap();
            let channel = world.channel(world.roots(), Some(credentials)).await.unwrap();
            v1::gateway_link_client::GatewayLinkClient::new(channel)
                .renew(v1::RenewRequest {
                    certificate_request: request.into(),
                    ..v1::RenewRequest::default()
                })
                .await
        }
    };
    for name in ["gateway/gw-1", "gateway/gw-unheard-of"] {
        let refused = asks(forged(name)).await.unwrap_err();
        assert!(!refused.message().is_empty(), "{name}");
    }
    let enrolment = IdentityFolder::peek_enrolment(plant.state.path()).unwrap();
    let identity = IdentityFolder::new(plant.state.path()).load(enrolment).unwrap();
    let profile = identity.profiles().next().unwrap();
    let server = penstock_proto::tls::server::ServerCredentials::new(&forged("coordinator/c1")).unwrap();
    let config = penstock_proto::tls::server::server_config(
        &plant.world.config.plant,
        server,
        &plant.world.authority.roots(),
    )
    .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reception = penstock_proto::tls::server::Reception::start(
        config,
        penstock_proto::tls::server::AcceptLimits::default(),
    )
    .unwrap();
    let _incoming = reception.incoming(listener);
    let tls = profile.config_knowing(identity.plant_trust().withdrawn).unwrap();
    let refused = penstock_proto::channel::connect(vec![address.to_string().parse().unwrap()], tls)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("issued by a key that was withdrawn"),
        "{refused}"
    );
    assert!(plant.applied().is_empty(), "nothing that is enforced was touched");
    plant.agent.take().unwrap().stop().await;
}
