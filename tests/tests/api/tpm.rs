//! A gateway whose key is in a TPM 2.0: swtpm is the TPM, tpm2-tools and openssl are what others wrote to look at it.

mod machine;
mod rollback;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_agent::config::Config;
use penstock_agent::identity::{Identity, IdentityFolder};
use penstock_agent::link::enrol::{EnrolError, KeyChoice, enrol_into};
use penstock_agent::link::session::LinkState;
use penstock_agent::tpm::TpmAddress;
use penstock_proto::keys::certificate_request;
use penstock_proto::v1;

use self::machine::{Machine, run};
use crate::dark::gateway::{FakeKernel, Running, within};
use crate::dark::token;
use crate::lost::Shell;
use crate::person::program;
use crate::world::World;

fn loaded(folder: &IdentityFolder, state: &Path) -> Identity {
    folder
        .load(IdentityFolder::peek_enrolment(state).unwrap())
        .unwrap()
}

async fn says(agent: &Running, words: &str) {
    let mut link = agent.views.link.clone();
    let said = |link: &LinkState| {
        link.problem
            .as_deref()
            .is_some_and(|problem| problem.contains(words))
    };
    let found = tokio::time::timeout(Duration::from_secs(30), link.wait_for(said)).await;
    assert!(found.is_ok(), "{:?}", agent.views.link.borrow().problem);
}

async fn connected(agent: &Running) {
    let mut link = agent.views.link.clone();
    within(link.wait_for(|link| link.coordinator.is_some()))
        .await
        .unwrap();
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-aT").args([from, to]));
}

/// The halves of the key in its file, as tpm2-tools want them: TPM2B_PUBLIC and TPM2B_PRIVATE.
fn halves(state: &Path) -> [Vec<u8>; 2] {
    let listed = run(Command::new("openssl")
        .args(["asn1parse", "-in"])
        .arg(state.join("identity/key.pem")));
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("OBJECT            :2.23.133.10.1.3"), "{listed}");
    let octets: Vec<_> = listed
        .lines()
        .filter_map(|line| line.split_once("[HEX DUMP]:"))
        .map(|(_, hex)| hex::decode(hex).unwrap())
        .collect();
    octets.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_a_tpm_enrols_signs_and_renews_and_is_what_tools_of_others_find_there() {
    let (world, machine, state) = (World::start().await, Machine::new(), tempfile::tempdir().unwrap());
    machine.enrolled(&world, state.path()).await;
    let agent = machine.agent(state.path()).await;
    connected(&agent).await;
    let gateways = world
        .admin()
        .list_gateways(v1::ListGatewaysRequest::default())
        .await;
    let gateways = gateways.unwrap().into_inner().gateways;
    let own = gateways.iter().find(|gateway| gateway.name == "gw-1").unwrap();
    assert_eq!(own.key_held(), v1::KeyHeld::Tpm);
    agent.stop().await;
    // The same key asks for the next certificate, and openssl takes the request for signed.
    let folder = machine.folder(state.path());
    let before = loaded(&folder, state.path());
    penstock_agent::link::renew::renew(&folder, &[], &before)
        .await
        .unwrap();
    let der = state.path().join("request.der");
    std::fs::write(
        &der,
        certificate_request(before.credentials().key(), None).unwrap(),
    )
    .unwrap();
    run(Command::new("openssl")
        .args(["req", "-verify", "-noout", "-inform", "DER", "-in"])
        .arg(&der));
    // Signatures over anything, by its certificate's key.
    let chain = state.path().join("identity/chain.pem");
    let public = run(Command::new("openssl")
        .args(["x509", "-noout", "-pubkey", "-in"])
        .arg(&chain))
    .stdout;
    let [key, message, signature] = ["pub", "message", "signature"].map(|name| state.path().join(name));
    std::fs::write(&key, &public).unwrap();
    for round in 0..8u8 {
        std::fs::write(&message, [round; 100]).unwrap();
        std::fs::write(
            &signature,
            before.credentials().key().sign(&[round; 100]).unwrap(),
        )
        .unwrap();
        let verify = ["dgst", "-sha256", "-verify"];
        run(Command::new("openssl")
            .args(verify)
            .arg(&key)
            .arg("-signature")
            .args([&signature, &message]));
    }
    // What stands on the disk is wrapped by the storage key that others find in that TPM, too.
    assert!(
        machine.tool("tpm2_getcap", &["handles-transient"]).is_empty(),
        "nothing is left in the TPM"
    );
    let [public_half, private_half] = halves(state.path());
    for (name, half) in [("public", &public_half), ("private", &private_half)] {
        std::fs::write(machine.folder.path().join(name), half).unwrap();
    }
    let storage = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    // swtpm has room for three, and nobody who clears up.
    let tool = |program: &str, arguments: &[&str]| {
        let said = machine.tool(program, arguments);
        machine.tool("tpm2_flushcontext", &["-t"]);
        said
    };
    let storage_key = [
        "-Q",
        "-C",
        "o",
        "-G",
        "ecc256:null:aes128cfb",
        "-a",
        storage,
        "-c",
        "storage",
    ];
    tool("tpm2_createprimary", &storage_key);
    let key = [
        "-Q", "-C", "storage", "-u", "public", "-r", "private", "-c", "key",
    ];
    tool("tpm2_load", &key);
    let found = tool("tpm2_readpublic", &["-c", "key", "-f", "pem", "-o", "found.pem"]);
    assert!(
        found.contains("value: fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign\n"),
        "{found}"
    );
    assert_eq!(
        std::fs::read(machine.folder.path().join("found.pem")).unwrap(),
        public
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_state_folder_is_nobody_on_another_machine_and_the_gateway_goes_on_where_it_was() {
    let (world, machine, thiefs) = (World::start().await, Machine::new(), Machine::new());
    let (state, stolen) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    machine.enrolled(&world, state.path()).await;
    copy(state.path(), stolen.path());
    let agent = thiefs.agent(stolen.path()).await;
    says(&agent, "does not know this gateway's key").await;
    agent.stop().await;
    let renewed = thiefs.folder(stolen.path());
    let identity = loaded(&renewed, stolen.path());
    assert!(
        penstock_agent::link::renew::renew(&renewed, &[], &identity)
            .await
            .is_err()
    );
    let agent = machine.agent(state.path()).await;
    connected(&agent).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_tpm_is_gone_starts_all_the_same_says_why_it_has_no_session_and_gets_one_when_it_is_back()
 {
    let (world, mut machine, state) = (World::start().await, Machine::new(), tempfile::tempdir().unwrap());
    machine.enrolled(&world, state.path()).await;
    machine.switch_off();
    let agent = machine.agent(state.path()).await;
    says(&agent, "cannot be reached").await;
    let config = machine.config(state.path());
    let status = async || {
        let config = config.clone();
        let read = tokio::task::spawn_blocking(move || penstock_agent::status::read(&config));
        read.await.unwrap()
    };
    let key = status().await.key.unwrap();
    assert!(key.starts_with("in the TPM at swtpm:"), "{key}");
    let is_gone = |fault: &String| fault.contains("cannot be reached");
    within(async { while !status().await.agent_faults.iter().any(is_gone) {} }).await;
    machine.switch_on();
    connected(&agent).await;
    let trail = async || {
        let trail = world.trail("gw-1").await;
        let steps = trail.into_iter().filter_map(|record| match record.event?.kind? {
            v1::audit_event::Kind::Agent(event) => Some(event.step),
            _ => None,
        });
        let mut steps: Vec<_> = steps.filter(|step| step.starts_with("key-")).collect();
        // One that has just been switched on refuses for another reason than one that is gone, and each is reported.
        steps.dedup();
        steps
    };
    let both = async { while trail().await != ["key-unavailable", "key-available"] {} };
    within(both).await;
    agent.stop().await;
    // Its owner cleared it: the key is lost, and it is said what to do; the same token that brings a new key brings it back.
    machine.tool("tpm2_clear", &["-Q"]);
    let agent = machine.agent(state.path()).await;
    says(&agent, "enrol --new-key").await;
    let new = token(&world).await;
    let refused = enrol_into(&machine.folder(state.path()), state.path(), &new, KeyChoice::Held).await;
    let words = penstock_policy::text::sentence(&refused.unwrap_err());
    assert!(words.contains("does not know this gateway's key"), "{words}");
    enrol_again(&machine, state.path(), &new).await.unwrap();
    connected(&agent).await;
    agent.stop().await;
}

/// Beside an agent that runs, as the program does it.
async fn enrol_again(
    machine: &Machine,
    state: &Path,
    token: &penstock_proto::token::Token,
) -> Result<(), EnrolError> {
    enrol_into(&machine.folder(state), state, token, KeyChoice::New)
        .await
        .map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tpm_that_never_answers_holds_up_neither_the_agents_start_nor_its_end() {
    let (world, machine, state) = (World::start().await, Machine::new(), tempfile::tempdir().unwrap());
    machine.enrolled(&world, state.path()).await;
    let deaf = state.path().join("deaf");
    let _listener = std::os::unix::net::UnixListener::bind(&deaf).unwrap();
    let config = Config {
        tpm: TpmAddress::Socket(deaf),
        ..machine.config(state.path())
    };
    let began = Instant::now();
    let agent = Running::start_as(config, Arc::new(FakeKernel::default())).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    says(&agent, "does not answer").await;
    agent.stop().await;
}

/// What somebody types on the gateway, as root.
fn types(command: &str, state: &Path) -> String {
    let command = command.strip_prefix("# ").unwrap();
    let config = state.join("agent.toml");
    let command = command.replace("/etc/penstock/agent.toml", &config.display().to_string());
    let path = std::env::var("PATH").unwrap();
    let programs = program().parent().unwrap().display().to_string();
    let output = run(Command::new("sh")
        .args(["-c", &command])
        .current_dir(state)
        .env("PATH", format!("{programs}:{path}")));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_about_the_tpm_moves_the_key_of_a_gateway_that_runs_from_its_file_into_it() {
    let (world, machine, state) = (World::start().await, Machine::new(), tempfile::tempdir().unwrap());
    let mut shell = Shell::new(&world, "A gateway's key in a TPM").await;
    let state_folder = state.path().join("state");
    std::fs::create_dir(&state_folder).unwrap();
    let secret = world
        .token(
            v1::create_token_request::Subject::Gateway("gw-works-a".to_owned()),
            v1::Role::Unspecified,
        )
        .await;
    let first = penstock_proto::token::Token {
        subject: "gateway/gw-works-a".parse().unwrap(),
        ..crate::dark::token_with(&world, secret.try_into().unwrap())
    };
    enrol_into(
        &IdentityFolder::new(&state_folder),
        &state_folder,
        &first,
        KeyChoice::Held,
    )
    .await
    .unwrap();
    let install = shell.types_elsewhere("# install -D ");
    let dropin = install
        .split_whitespace()
        .find(|word| word.starts_with("deploy/"))
        .unwrap();
    assert!(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(dropin)
            .exists()
    );
    shell.types_elsewhere("# systemctl daemon-reload");
    let mut file = std::fs::File::create(state.path().join("agent.toml")).unwrap();
    writeln!(
        file,
        "[agent]\nstate_folder = {state_folder:?}\n[identity]\nkey = \"tpm\"\ntpm = {:?}\n[audit]\nfree_bytes_min = 0",
        machine.address().to_string()
    )
    .unwrap();
    let said = types(&shell.types_elsewhere("# penstock-agent config "), state.path());
    assert!(said.contains("is made in the TPM at swtpm:"), "{said}");
    shell.types_elsewhere("# systemctl restart ");
    let config = Config::load(&state.path().join("agent.toml")).unwrap();
    let agent = Running::start_as(config, Arc::new(FakeKernel::default())).await;
    connected(&agent).await;
    let key = state_folder.join("identity/key.pem");
    assert!(
        std::fs::read_to_string(&key)
            .unwrap()
            .contains("BEGIN PRIVATE KEY")
    );
    shell
        .types_and_the_second_confirms("penstock gateways token ")
        .await;
    std::fs::copy(
        shell.home().join("gw-works-a.token"),
        state.path().join("gw-works-a.token"),
    )
    .unwrap();
    let said = types(&shell.types_elsewhere("# penstock-agent enrol "), state.path());
    assert!(said.contains("is gateway gw-works-a of plant"), "{said}");
    assert!(
        std::fs::read_to_string(&key)
            .unwrap()
            .contains("BEGIN TSS2 PRIVATE KEY")
    );
    shell.types_elsewhere("# chown -R ");
    let said = types(&shell.types_elsewhere("# penstock-agent status "), state.path());
    assert!(said.contains("\nkey          in the TPM at swtpm:"), "{said}");
    // The old key is over, and the agent that runs comes back by the new one.
    let in_tpm = async {
        loop {
            let gateways = world
                .admin()
                .list_gateways(v1::ListGatewaysRequest::default())
                .await;
            let gateways = gateways.unwrap().into_inner().gateways;
            let own = gateways
                .iter()
                .find(|gateway| gateway.name == "gw-works-a")
                .unwrap();
            if own.connected && own.key_held() == v1::KeyHeld::Tpm {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(in_tpm).await;
    let said = shell.types("penstock gateways --output json").await;
    assert!(
        said.contains("\"key_held\": \"tpm\"") || said.contains("\"key_held\":\"tpm\""),
        "{said}"
    );
    agent.stop().await;
    shell.ends_here();
}
