//! A plant whose root is kept on a machine without a network: gateways, people and devices live below the key that it certified for the
//! coordinator, and the runbook's pages for it are followed to the letter.

use std::path::Path;

use penstock_agent::link::enrol::enrol;
use penstock_coordinator::app;
use penstock_coordinator::config::ConfigFile;
use penstock_proto::tls::certificates_from_pem;
use penstock_proto::v1;

use crate::dark::gateway::{Running, within};
use crate::dark::token;
use crate::identities::{ends, enrolled, kept_out};
use crate::lost::page;
use crate::person::{Person, program};
use crate::world::{World, now_ms};

/// How many certificates a gateway shows.
fn shown(state: &Path) -> usize {
    let pem = std::fs::read(state.join("identity/chain.pem")).unwrap();
    certificates_from_pem(&pem, "the chain").unwrap().len()
}

/// Types a command of the runbook on a machine of this test, where these names stand for other ones; what it says.
pub async fn types(command: &str, folder: &Path, names: &[(&str, &str)]) -> String {
    let mut command = command
        .trim_start_matches("# ")
        .replace("runuser -u penstock-coordinator -- ", "");
    for (name, here) in names {
        command = command.replace(name, here);
    }
    let programs = program().parent().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    let output = tokio::process::Command::new("sh")
        .args(["-c", &command])
        .current_dir(folder)
        .env("XDG_CONFIG_HOME", folder)
        .env("PATH", format!("{}:{path}", programs.display()))
        .output()
        .await
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
    said
}

/// A command that is refused; what it says.
pub async fn complains(command: &str, folder: &Path) -> String {
    let programs = program().parent().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    let output = tokio::process::Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", programs.display()))
        .output()
        .await
        .unwrap();
    assert!(!output.status.success(), "{command}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Nobody sits at a terminal here to type the passphrase.
const UNTYPED: (&str, &str) = (
    "--root my-plant-root",
    "--root my-plant-root --passphrase-file passphrase",
);

pub fn passphrase(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let file = folder.join("passphrase");
    std::fs::write(&file, "correct horse\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_a_root_that_is_elsewhere_gateways_and_people_come_go_and_are_kept_out_as_ever() {
    let world = World::start_under_root().await;
    let state = tempfile::tempdir().unwrap();
    enrol(state.path(), &token(&world).await).await.unwrap();
    assert_eq!(shown(state.path()), 3);
    let agent = Running::start(state.path()).await;
    let mut link = agent.views.link.clone();
    within(link.wait_for(|link| link.coordinator.is_some()))
        .await
        .unwrap();
    // One whose key is withdrawn is cut, and this one learns of it by a list that the issuing key signed.
    let stolen = enrolled(&world, "gw-b").await;
    let mut session = world.session("gw-b", v1::PolicyState::default()).await;
    let ada = Person::new(&world, "ada", "ada", v1::Role::Admin).await;
    ada.done(&[
        "gateways", "revoke", "gw-b", "--reason", "stolen", "--ticket", "INC-7",
    ])
    .await;
    ends(&mut session).await;
    assert!(kept_out(&world, stolen).await.is_some());
    let learnt = async {
        while penstock_agent::withdrawn::peek(state.path())
            .unwrap()
            .is_none_or(|list| list.is_empty())
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    within(learnt).await;
    let list = ada.home.join("list.json");
    ada.done(&["gateways", "withdrawn", "-o", list.to_str().unwrap()])
        .await;
    agent.stop().await;
    // A device shows what follows its certificate, and gets the root alone as its authority. OpenSSL believes that.
    let device = world.certificate("device/plc-7");
    let shown = penstock_proto::tls::certificates_to_pem(&device.chain()[..2]);
    std::fs::write(ada.home.join("plc.pem"), shown).unwrap();
    let root = ada.reads(&["devices", "authority"]).await;
    std::fs::write(ada.home.join("ca.pem"), root).unwrap();
    let verified = std::process::Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-CAfile",
            "ca.pem",
            "-untrusted",
            "plc.pem",
            "plc.pem",
        ])
        .current_dir(&ada.home)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_keep_the_root_on_a_machine_of_its_own_has_a_plant_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    passphrase(folder);
    // A port of this test's own address, which nobody else takes meanwhile.
    let address = {
        let listener = std::net::TcpListener::bind(("127.0.95.1", 0)).unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let data = folder.join("data");
    let configured = data.join("coordinator.toml");
    let names = [
        ("/etc/penstock/coordinator.toml", configured.to_str().unwrap()),
        ("/var/lib/penstock-coordinator", data.to_str().unwrap()),
        ("coordinator.example:7643", address.as_str()),
        UNTYPED,
        (
            "authority new my-plant-root",
            "authority new my-plant-root --passphrase-file passphrase",
        ),
    ];
    let mut running = None;
    for command in page("Keep the root on a machine of its own") {
        // What is carried from one machine to the other, and what the service manager does.
        match command.as_str() {
            command if command.starts_with("# systemctl enable --now penstock-coordinator") => {
                let mut file = ConfigFile::read(&configured).unwrap();
                file.listen.metrics = String::new();
                running = Some(app::start(&file.check().unwrap()).await.unwrap());
            }
            command if command.starts_with("# install ") => {}
            command => {
                let said = types(command, folder, &names).await;
                assert!(
                    !command.contains(" init ") || said.contains("It issues nothing yet"),
                    "{said}"
                );
            }
        }
    }
    let said = types("penstock whoami", folder, &[]).await;
    assert!(said.contains("root.admin") && said.contains("my-plant"), "{said}");
    running.unwrap().stop().await;
    assert!(!data.join("ca/root.key").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_the_coordinators_machine_was_lost_has_its_gateways_back_without_touching_them()
 {
    let mut world = World::start_under_root_with(|config| config.nats = None).await;
    let folder = world.dir.path().to_owned();
    let state = tempfile::tempdir().unwrap();
    enrol(state.path(), &token(&world).await).await.unwrap();
    // Of the machine that is lost, there is a backup.
    let backup = folder.join("backup");
    app::backup(&world.config, &backup, None).unwrap();
    let agent = Running::start(state.path()).await;
    let mut link = agent.views.link.clone();
    within(link.wait_for(|link| link.coordinator.is_some()))
        .await
        .unwrap();
    let applied = || agent.kernel.applied.lock().unwrap().clone();
    let enforced = applied();
    let address = world.address.to_string();
    world.running.take().unwrap().stop().await;
    std::fs::rename(&world.config.data, folder.join("lost")).unwrap();
    within(link.wait_for(|link| link.coordinator.is_none()))
        .await
        .unwrap();

    std::fs::rename(&backup, &world.config.data).unwrap();
    let refused = app::start(&world.config).await.err().unwrap();
    let refused = std::error::Error::source(&refused).unwrap().to_string();
    assert!(refused.contains("authority request"), "{refused}");
    let configured = folder.join("coordinator.toml");
    let data = world.config.data.display().to_string();
    std::fs::write(
        &configured,
        format!("plant = \"riverside\"\nname = \"c1\"\ndata = {data:?}\n[listen]\ngrpc = [{address:?}]\nmetrics = \"\"\n"),
    )
    .unwrap();
    std::fs::rename(folder.join("root"), folder.join("my-plant-root")).unwrap();
    passphrase(&folder);
    let names = [
        ("/etc/penstock/coordinator.toml", configured.to_str().unwrap()),
        ("/var/lib/penstock-coordinator", data.as_str()),
        UNTYPED,
    ];
    for command in page("The coordinator's machine was lost") {
        match command.as_str() {
            "# systemctl start penstock-coordinator" => {
                world.config.grpc = vec![address.parse().unwrap()];
                world.start_again().await;
            }
            command => {
                types(command, &folder, &names).await;
            }
        }
    }
    // The gateway comes back by itself, with what it has, and renews under the new key when it is due.
    within(link.wait_for(|link| link.coordinator.is_some()))
        .await
        .unwrap();
    assert_eq!(applied(), enforced, "what is enforced was not touched");
    agent.stop().await;
    let trail = world.trail("coordinator/c1").await;
    assert!(trail.iter().all(|record| record.received_ms <= now_ms()));
    let ada = Person::new(&world, "ada", "ada", v1::Role::Admin).await;
    ada.reads(&["gateways"]).await;
}
