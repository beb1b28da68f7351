//! The key by which the coordinator issues is on a token: SoftHSM's here, looked at with OpenSC's tool, and what it issues with OpenSSL.

pub mod hsm;
mod keys;

use std::path::Path;
use std::time::{Duration, Instant};

use penstock_agent::identity::IdentityFolder;
use penstock_agent::link::enrol::enrol;
use penstock_agent::link::renew::renew;
use penstock_coordinator::app;
use penstock_coordinator::ca::{Authority, OfflineRoot};
use penstock_coordinator::pkcs11::{KeyUri, TokenKey};
use penstock_proto::refusal::Reason;
use penstock_proto::tls::certificates_to_pem;

use self::hsm::{Hsm, watched_module};
use crate::authority::types;
use crate::dark::gateway::{Running, within};
use crate::dark::token;
use crate::lost::page;
use crate::world::{World, certified, file_key, refused};

fn uri(text: &str) -> KeyUri {
    text.parse().unwrap()
}

fn openssl(arguments: &[&str], folder: &Path) -> String {
    let output = std::process::Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A plant whose coordinator issues by this key, and listens at a port of `host`, which must be the test's own.
pub async fn on_token(key: &str, host: &str) -> World {
    let listen = std::net::TcpListener::bind((host, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    World::start_under_root_with(|config| {
        config.keys = vec![uri(key)];
        config.grpc = vec![listen];
    })
    .await
}

/// A token for a gateway's enrolment.
async fn invited(world: &World) -> Vec<u8> {
    let whose = penstock_proto::v1::create_token_request::Subject::Gateway("gw-2".to_owned());
    world.token(whose, penstock_proto::v1::Role::Unspecified).await
}

/// Enrols until it is not refused any more.
async fn enrols(world: &World, secret: &[u8]) {
    let back = async {
        while world.enrol_key("gw-2", secret, &file_key()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(back).await;
}

/// Why a gateway is not enrolled now.
async fn not_enrolled(world: &World, secret: &[u8]) -> String {
    refused(
        world.enrol_key("gw-2", secret, &file_key()).await,
        Reason::IssuingKeyUnavailable,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_enrol_and_renew_by_a_key_on_a_token_and_openssl_believes_their_chain() {
    let hsm = Hsm::new("issues");
    let world = on_token(&hsm.uri("issuing"), "127.0.96.1").await;
    assert!(
        !world.config.data.join("ca/issuing.key").exists() && !world.config.data.join("ca/next.key").exists()
    );
    let state = tempfile::tempdir().unwrap();
    enrol(state.path(), &token(&world).await).await.unwrap();
    let agent = Running::start(state.path()).await;
    let mut link = agent.views.link.clone();
    within(link.wait_for(|link| link.coordinator.is_some()))
        .await
        .unwrap();
    agent.stop().await;
    let chain = || std::fs::read(state.path().join("identity/chain.pem")).unwrap();
    let before = chain();
    let folder = IdentityFolder::new(state.path());
    let identity = folder
        .load(IdentityFolder::peek_enrolment(state.path()).unwrap())
        .unwrap();
    renew(&folder, std::slice::from_ref(&world.address), &identity)
        .await
        .unwrap();
    assert_ne!(chain(), before);
    let folder = hsm.folder.path();
    std::fs::write(folder.join("chain.pem"), chain()).unwrap();
    std::fs::write(
        folder.join("root.pem"),
        certificates_to_pem(&world.authority.roots()),
    )
    .unwrap();
    openssl(
        &[
            "verify",
            "-x509_strict",
            "-CAfile",
            "root.pem",
            "-untrusted",
            "chain.pem",
            "chain.pem",
        ],
        folder,
    );
    // What it says of itself.
    let words = app::authority_in_words(&world.config).await.unwrap();
    assert!(
        words.contains("issuing key: key 'issuing' on the token 'issues'"),
        "{words}"
    );
    // Nothing of it is in a backup, and with the token that is enough.
    let backup = hsm.folder.path().join("backup");
    app::backup(&world.config, &backup, None).unwrap();
    let mut restored = world.config.clone();
    restored.data = backup;
    assert_eq!(
        app::token_in_words(&restored).unwrap(),
        app::token_in_words(&world.config).unwrap()
    );
    let authority = Authority::load_with(
        &restored.data.join("ca"),
        restored.plant,
        restored.lifetimes,
        &restored.keys,
    );
    authority.unwrap().token().unwrap().look_for().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_token_a_coordinator_runs_starts_and_refuses_to_issue_with_the_reason_until_it_is_back() {
    let hsm = Hsm::new("away");
    let mut world = on_token(&hsm.uri("issuing"), "127.0.96.2").await;
    let state = tempfile::tempdir().unwrap();
    enrol(state.path(), &token(&world).await).await.unwrap();
    let agent = Running::start(state.path()).await;
    let mut link = agent.views.link.clone();
    within(link.wait_for(|link| link.coordinator.is_some()))
        .await
        .unwrap();
    let secret = invited(&world).await;
    let admin = world.certificate("operator/admin");
    hsm.unplug();
    let why = not_enrolled(&world, &secret).await;
    assert!(
        why.contains("token 'away' is not there") && why.contains("plug it in"),
        "{why}"
    );
    // Whoever is in stays in, and people work; also after a restart.
    for _ in 0..2 {
        within(link.wait_for(|link| link.coordinator.is_some()))
            .await
            .unwrap();
        world
            .admin()
            .list_gateways(penstock_proto::v1::ListGatewaysRequest::default())
            .await
            .unwrap();
        world.running.take().unwrap().stop().await;
        world.start_again_as(admin.clone()).await;
    }
    assert!(
        not_enrolled(&world, &secret)
            .await
            .contains("token 'away' is not there")
    );
    hsm.plug_in();
    enrols(&world, &secret).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_hangs_keeps_nobody_waiting_but_who_wants_a_certificate_and_them_not_for_long() {
    let hsm = Hsm::new("hangs");
    let module = watched_module(hsm.folder.path());
    let world = on_token(&hsm.uri_by("issuing", &module), "127.0.96.3").await;
    let secret = invited(&world).await;
    let hangs = hsm.folder.path().join("hangs");
    std::fs::write(&hangs, "").unwrap();
    let begun = Instant::now();
    // More than the runtime has threads.
    let wants = || not_enrolled(&world, &secret);
    let lists = async {
        let mut slowest = Duration::ZERO;
        while begun.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            world
                .admin()
                .list_gateways(penstock_proto::v1::ListGatewaysRequest::default())
                .await
                .unwrap();
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    let (slowest, a, b, c, d) = tokio::join!(lists, wants(), wants(), wants(), wants());
    let why = [a, b, c, d];
    assert!(slowest < Duration::from_secs(2), "others waited for {slowest:?}");
    assert!(
        why.iter().all(|why| why.contains("has not answered for")),
        "{why:?}"
    );
    // Those that came later did not wait at all.
    let again = Instant::now();
    not_enrolled(&world, &secret).await;
    assert!(again.elapsed() < Duration::from_secs(3));
    std::fs::remove_file(&hangs).unwrap();
    enrols(&world, &secret).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_another_key_than_the_certificates_is_refused_at_the_start_with_both_digests() {
    let hsm = Hsm::new("other");
    let mut world = on_token(&hsm.uri("issuing"), "127.0.96.4").await;
    world.running.take().unwrap().stop().await;
    let certified_key = TokenKey::open(&uri(&hsm.uri("issuing"))).unwrap().digest();
    let (other, _) = TokenKey::open_or_make(&uri(&hsm.uri("next"))).unwrap();
    world.config.keys = vec![uri(&hsm.uri("next"))];
    let refused = app::start(&world.config).await.err().unwrap();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    for word in [
        certified_key.to_string(),
        other.digest().to_string(),
        "authority request".to_owned(),
    ] {
        assert!(why.contains(&word), "{word}: {why}");
    }
    // While it is only named for the next certificate, the one before it issues.
    world.config.keys.push(uri(&hsm.uri("issuing")));
    world.start_again().await;
    assert!(
        world
            .enrol_key("gw-2", &invited(&world).await, &file_key())
            .await
            .is_ok()
    );
    world.running.take().unwrap().stop().await;
    let (request, _) = app::issuing_request(&world.config).unwrap();
    let root = OfflineRoot::open(&world.dir.path().join("root"), || unreachable!()).unwrap();
    app::install_issuing(
        &world.config,
        certified(&root, &request, &world.config.name).as_bytes(),
        None,
    )
    .await
    .unwrap();
    world.config.keys.truncate(1);
    world.start_again().await;
    assert!(
        app::token_in_words(&world.config)
            .unwrap()
            .unwrap()
            .contains("key 'next'")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_keep_the_issuing_key_on_a_token_has_it_there_and_no_file_of_one() {
    let hsm = Hsm::new("page");
    let mut world = World::start_under_root_with(|config| config.nats = None).await;
    let folder = world.dir.path().to_owned();
    let address = world.address.to_string();
    world.config.grpc = vec![address.parse().unwrap()];
    let configured = folder.join("coordinator.toml");
    let data = world.config.data.display().to_string();
    // As the page has it, but for the token's name and the PIN's place.
    let pin = folder.join("issuing.pin");
    let runbook = include_str!("../../../deploy/runbook.md");
    let (_, toml) = runbook.split_once("   [authority]\n").unwrap();
    let keys = toml
        .lines()
        .next()
        .unwrap()
        .replace("token=penstock", &format!("token={}", hsm.label))
        .replace("/etc/penstock/issuing.pin", pin.to_str().unwrap());
    std::fs::write(
        &configured,
        format!(
            "plant = \"riverside\"\nname = \"c1\"\ndata = {data:?}\n[listen]\ngrpc = [{address:?}]\nmetrics = \"\"\n[authority]\n{keys}\n"
        ),
    )
    .unwrap();
    world.config.keys = penstock_coordinator::config::ConfigFile::read(&configured)
        .unwrap()
        .check()
        .unwrap()
        .keys;
    std::fs::write(folder.join("pin"), format!("{}\n", hsm::PIN)).unwrap();
    std::fs::rename(folder.join("root"), folder.join("my-plant-root")).unwrap();
    let state = tempfile::tempdir().unwrap();
    enrol(state.path(), &token(&world).await).await.unwrap();
    let label = format!("--token-label {} --login --pin {}", hsm.label, hsm::PIN);
    let names = [
        ("-o penstock-coordinator -g penstock-coordinator ", ""),
        ("/etc/penstock/issuing.pin", pin.to_str().unwrap()),
        ("/etc/penstock/coordinator.toml", configured.to_str().unwrap()),
        ("/var/lib/penstock-coordinator", data.as_str()),
        ("--token-label penstock --login", label.as_str()),
    ];
    let file = world.config.data.join("ca/issuing.key");
    let mut said = Vec::new();
    for command in page("Keep the issuing key on a token") {
        match command.as_str() {
            "# systemctl stop penstock-coordinator" => {
                assert!(file.exists(), "until then, the key in the file issues");
                world.running.take().unwrap().stop().await;
            }
            "# systemctl start penstock-coordinator" => world.start_with_token().await,
            command => said.push(types(command, &folder, &names).await),
        }
    }
    for words in [
        "authority.keys: the key 'issuing-1' on the token 'page'",
        "which was made there and cannot leave it",
        "never extractable",
        "issuing key: key 'issuing-1' on the token 'page'",
    ] {
        assert!(said.iter().any(|said| said.contains(words)), "{words}: {said:?}");
    }
    assert!(!file.exists() && !world.config.data.join("ca/next.key").exists());
    // Whoever was enrolled by the key before is let in, and gets the next certificate by the new one.
    let agent = Running::start(state.path()).await;
    let mut link = agent.views.link.clone();
    within(link.wait_for(|link| link.coordinator.is_some()))
        .await
        .unwrap();
    agent.stop().await;
    enrols(&world, &invited(&world).await).await;
}
