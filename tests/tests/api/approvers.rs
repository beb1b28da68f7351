//! The runbook's page about approvers with OpenSSH or hardware keys, followed to the letter with the real `ssh-keygen`; a FIDO2 token
//! in software stands for the hardware.

use std::path::{Path, PathBuf};

use penstock_proto::v1;

use crate::lost::page;
use crate::person::{Person, digits, program};
use crate::sessions::verified;
use crate::world::{Built, World, built, document, people};

/// The token, compiled into this folder.
fn token(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ctl/tests/cli/token.c");
    let library = folder.join("token.so");
    let made = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-l:libcrypto.so.3")
        .status()
        .unwrap();
    assert!(made.success());
    library
}

/// Types a command in a shell that has no terminal.
async fn types(home: &Path, token: &Path, command: &str) -> String {
    let path = std::env::var("PATH").unwrap();
    let output = tokio::process::Command::new("setsid")
        .args(["--wait", "sh", "-c", command])
        .current_dir(home)
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home)
        .env("SSH_SK_PROVIDER", token)
        .env(
            "PATH",
            format!("{}:{path}", program().parent().unwrap().display()),
        )
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}{complained}");
    format!("{said}{complained}")
}

/// The document, with this key in place of a person's.
fn with_key(document: &str, person: &str, name: &str, key: &str) -> String {
    let is_theirs = |line: &&str| line.starts_with(&format!("    {person}: {{ key: "));
    let line = document.lines().find(is_theirs).unwrap();
    document.replace(line, &format!("    {name}: {{ key: \"{key}\" }}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_about_hardware_keys_approves_with_one_and_brings_a_signature_of_ssh_keygen()
{
    let world = World::start().await;
    let mut people = people(&world).await;
    let mut commands = page("Approvers with OpenSSH or hardware keys").into_iter();
    let mut next = |beginning: &str| {
        let command = commands.next().expect("the page goes on");
        assert!(command.starts_with(beginning), "{command}");
        command
    };
    let kim = Person::new(&world, "b.kim", "kim", v1::Role::Approver).await;
    let ros = world.dir.path().join("ros");
    for home in [&kim.home, &ros] {
        std::fs::create_dir_all(home.join(".ssh")).unwrap();
    }
    let token = token(world.dir.path());

    let make = next("ssh-keygen -t ed25519-sk ");
    types(&kim.home, &token, &make).await;
    types(&ros, &token, &make.replace("ed25519-sk", "ed25519")).await;
    let show = next("penstock key show ");
    let mut keys = Vec::new();
    for (home, kind) in [(&kim.home, "sk-ssh-ed25519@openssh.com "), (&ros, "ssh-ed25519 ")] {
        let said = types(home, &token, &show).await;
        let line = said.lines().find(|line| line.starts_with(kind));
        keys.push(line.unwrap_or_else(|| panic!("{said}")).to_owned());
    }
    let text = with_key(&document(2, 100), "bob", "b.kim", &keys[0]);
    let text = with_key(&text, "erin", "d.ros", &keys[1]);
    let release: Built = built(&text, 4, None, "anna");
    people
        .engineer
        .propose_release(release.request.clone())
        .await
        .unwrap();

    // As the page has it, with the digest of this release, and no question, since there is nobody to ask.
    let filled = |command: String| match command.contains(" approve ") {
        true => command.replace("3fa9c1d2e5b0", &digits(release.digest())) + " --yes",
        false => command,
    };
    let said = types(&kim.home, &token, &filled(next("penstock release approve 4 "))).await;
    assert!(said.contains("Confirm user presence"), "{said}");
    types(
        &kim.home,
        &token,
        &filled(next("penstock release show 4 --statement ")),
    )
    .await;
    std::fs::copy(kim.home.join("r4.statement"), ros.join("r4.statement")).unwrap();
    types(&ros, &token, &next("ssh-keygen -Y sign ")).await;
    std::fs::copy(ros.join("r4.statement.sig"), kim.home.join("r4.statement.sig")).unwrap();
    types(&kim.home, &token, &filled(next("penstock release approve 4 "))).await;
    assert_eq!(commands.next(), None, "the page says more than is followed here");

    let request = v1::GetReleaseRequest {
        revision: 4,
        ..Default::default()
    };
    let held = people.engineer.get_release(request).await.unwrap().into_inner();
    assert_eq!(held.release.unwrap().approved_by, ["b.kim", "d.ros"]);
    // And a gateway that verifies the offer as every gateway does counts both.
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    let offer = session.offer().await;
    assert_eq!(verified(&offer, "gw-a", &release), 4);
    let mut algorithms: Vec<_> = offer
        .release
        .unwrap()
        .signatures
        .into_iter()
        .map(|one| one.algorithm)
        .collect();
    algorithms.sort();
    assert_eq!(algorithms, ["sk-ssh-ed25519@openssh.com", "ssh-ed25519"]);
}
