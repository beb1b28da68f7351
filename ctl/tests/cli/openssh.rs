//! Approvers whose keys OpenSSH made: in a file, in an agent, and in FIDO2 hardware, which a token in software stands for (`token.c`).
//! All keys and signatures here are made by the real `ssh-keygen`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::said::{Said, ends, json, statement, works};

/// Runs a program in the folder, with the token as the hardware, and these variables.
fn run(folder: &Path, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .env("XDG_CONFIG_HOME", folder.join("home"))
        .env("SSH_SK_PROVIDER", folder.join("token.so"))
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; scripts/setup installs it"));
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn done(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let said = run(folder, program, arguments, &[]);
    assert_eq!(said.code, 0, "{program} {arguments:?}: {}{}", said.out, said.err);
    said.out
}

/// The token, compiled.
fn token(folder: &Path) {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cli/token.c");
    let source = source.to_str().unwrap();
    let library = "-l:libcrypto.so.3";
    done(
        folder,
        "cc",
        &["-shared", "-fPIC", "-O1", "-o", "token.so", source, library],
    );
}

/// Puts a key into the document, in place of the one that this approver has there.
fn name_key(folder: &Path, approver: &str, key: &str) {
    let path = folder.join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let start = text.find(&format!("{approver}: {{ key: \"")).unwrap();
    let first = start + text[start..].find('"').unwrap() + 1;
    let last = first + text[first..].find('"').unwrap();
    std::fs::write(&path, format!("{}{}{}", &text[..first], key, &text[last..])).unwrap();
}

/// Makes a key with `ssh-keygen` and puts its public half, as its `.pub` file has it, into the document.
fn make(folder: &Path, approver: &str, arguments: &[&str]) {
    let file = format!("{approver}.ssh");
    let whole = [&["-q", "-f", &file, "-C", "somebody@office"], arguments].concat();
    done(folder, "ssh-keygen", &whole);
    let public = std::fs::read_to_string(folder.join(format!("{file}.pub"))).unwrap();
    name_key(folder, approver, public.trim());
}

fn sign_arguments<'a>(from: &'a str, key: &'a str, approver: &'a str, out: &'a str) -> Vec<&'a str> {
    let first = ["release", "sign", from, "--key", key, "--as", approver];
    [&first[..], &["--documents", "plant", "-o", out, "--yes"]].concat()
}

fn penstock(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    run(folder, env!("CARGO_BIN_EXE_penstock"), arguments, variables)
}

fn verified(folder: &Path, file: &str) -> String {
    let arguments = [
        "release",
        "verify",
        file,
        "--approvers",
        "plant",
        "--documents",
        "plant",
    ];
    ends(folder, 0, &arguments).out
}

/// A file that only its owner may read, with a passphrase.
fn passphrase(folder: &Path, text: &str) -> &'static str {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("passphrase");
    std::fs::write(&path, format!("{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    "passphrase"
}

#[test]
fn keys_that_ssh_keygen_made_sign_releases_with_and_without_a_passphrase() {
    let folder = works();
    let folder = folder.path();
    make(folder, "j.meyer", &["-t", "ed25519", "-N", ""]);
    make(folder, "a.silva", &["-t", "ed25519", "-N", "correct horse"]);
    let file = passphrase(folder, "correct horse");
    // What is shown is what the `.pub` file says, without its comment.
    for (approver, unlock) in [("j.meyer", &[][..]), ("a.silva", &["--passphrase-file", file])] {
        let key = format!("{approver}.ssh");
        let shown = ends(
            folder,
            0,
            &[&["key", "show", &key, "--output", "json"], unlock].concat(),
        );
        let public = std::fs::read_to_string(folder.join(format!("{key}.pub"))).unwrap();
        let words: Vec<&str> = public.split_whitespace().take(2).collect();
        assert_eq!(json(&shown.out)["public"], words.join(" "));
    }
    statement(folder, "k.ito");
    ends(
        folder,
        0,
        &sign_arguments("r1.statement", "j.meyer.ssh", "j.meyer", "r1.one"),
    );
    let locked = sign_arguments("r1.one", "a.silva.ssh", "a.silva", "r1.two");
    let refused = ends(folder, 6, &locked);
    assert!(refused.err.contains("--passphrase-file"), "{}", refused.err);
    ends(folder, 0, &[&locked[..], &["--passphrase-file", file]].concat());
    assert!(verified(folder, "r1.two").contains("✓ signed by a.silva, j.meyer; 2 needed"));
    passphrase(folder, "battery staple");
    let wrong = sign_arguments("r1.one", "a.silva.ssh", "a.silva", "r1.three");
    let wrong = ends(folder, 6, &[&wrong[..], &["--passphrase-file", file]].concat());
    assert!(wrong.err.contains("does not open a.silva.ssh"), "{}", wrong.err);
    // Its passphrase is OpenSSH's to change.
    let changed = [
        "key",
        "passphrase",
        "a.silva.ssh",
        "--passphrase-file",
        file,
        "--no-passphrase",
    ];
    let said = ends(folder, 6, &changed);
    assert!(
        said.err.contains("ssh-keygen -p -f ") && said.err.contains("a.silva.ssh"),
        "{}",
        said.err
    );
}

#[test]
fn a_key_in_hardware_signs_when_it_is_touched_and_counts_only_then() {
    let folder = works();
    let folder = folder.path();
    token(folder);
    make(folder, "j.meyer", &["-t", "ed25519-sk", "-N", ""]);
    make(
        folder,
        "a.silva",
        &["-t", "ed25519-sk", "-N", "", "-O", "no-touch-required"],
    );
    statement(folder, "k.ito");
    let touched = sign_arguments("r1.statement", "j.meyer.ssh", "j.meyer", "r1.one");
    let said = penstock(folder, &touched, &[]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.err.contains("Confirm user presence"), "{}", said.err);
    let envelope = json(&std::fs::read_to_string(folder.join("r1.one")).unwrap());
    assert_eq!(
        envelope["signatures"][0]["algorithm"],
        "sk-ssh-ed25519@openssh.com"
    );
    // Nobody touches this one, and it says so.
    let untouched = sign_arguments("r1.one", "a.silva.ssh", "a.silva", "r1.two");
    let said = penstock(folder, &untouched, &[]);
    assert_eq!(said.code, 6, "{}{}", said.out, said.err);
    assert!(
        said.err.contains("without a touch of the hardware key"),
        "{}",
        said.err
    );
    assert!(!folder.join("r1.two").exists());
    // A third approver has a key of Penstock's own, as before.
    ends(
        folder,
        0,
        &sign_arguments("r1.one", "m.okoye.key", "m.okoye", "r1.two"),
    );
    assert!(verified(folder, "r1.two").contains("✓ signed by j.meyer, m.okoye; 2 needed"));
    // And the hardware of one is not that of another.
    let said = penstock(
        folder,
        &sign_arguments("r1.one", "j.meyer.ssh", "a.silva", "x"),
        &[],
    );
    assert!(
        said.err.contains("not the key that the plant document has"),
        "{}",
        said.err
    );
}

#[test]
fn a_document_that_demands_a_pin_counts_no_signature_of_hardware_that_asked_for_none() {
    let folder = works();
    let folder = folder.path();
    token(folder);
    make(folder, "j.meyer", &["-t", "ed25519-sk", "-N", ""]);
    let public = std::fs::read_to_string(folder.join("j.meyer.ssh.pub")).unwrap();
    name_key(folder, "j.meyer", &format!("verify-required {}", public.trim()));
    statement(folder, "k.ito");
    let arguments = sign_arguments("r1.statement", "j.meyer.ssh", "j.meyer", "r1.one");
    let said = penstock(folder, &arguments, &[]);
    assert_eq!(said.code, 6, "{}{}", said.out, said.err);
    assert!(
        said.err.contains("without the PIN or fingerprint"),
        "{}",
        said.err
    );
}

#[test]
fn an_ssh_agent_signs_for_the_public_half_that_is_named() {
    let folder = works();
    let folder = folder.path();
    make(folder, "j.meyer", &["-t", "ed25519", "-N", ""]);
    statement(folder, "k.ito");
    // An agent of this test alone, which ends with the shell that it runs.
    let sign = sign_arguments("r1.statement", "j.meyer.ssh.pub", "j.meyer", "r1.one").join(" ");
    let script = format!(
        "ssh-add -q j.meyer.ssh && rm j.meyer.ssh && exec {} {sign}",
        env!("CARGO_BIN_EXE_penstock")
    );
    done(folder, "ssh-agent", &["-a", "agent.sock", "sh", "-c", &script]);
    let envelope = json(&std::fs::read_to_string(folder.join("r1.one")).unwrap());
    assert_eq!(envelope["signatures"][0]["algorithm"], "ssh-ed25519");
    // Without the agent there is nothing that could sign.
    let said = penstock(
        folder,
        &sign_arguments("r1.statement", "j.meyer.ssh.pub", "j.meyer", "x"),
        &[],
    );
    assert!(
        said.err.contains("`ssh-keygen` made no signature"),
        "{}",
        said.err
    );
    // Written in Penstock's own form, a key counts with Penstock's own signatures alone, as software from before knows them.
    let public = std::fs::read_to_string(folder.join("j.meyer.ssh.pub")).unwrap();
    let key = penstock_policy::model::PublicKey::try_from(public.trim().to_owned()).unwrap();
    let plain = penstock_policy::model::PublicKey::ed25519(*key.point());
    name_key(folder, "j.meyer", &plain.to_string());
    let verify = ["release", "verify", "r1.one", "--approvers", "plant"];
    let said = ends(folder, 7, &verify);
    assert!(said.err.contains("`ssh-ed25519`"), "{}", said.err);
}

#[test]
fn a_file_of_openssh_that_is_damaged_or_of_another_kind_is_refused_by_what_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = works();
    let folder = folder.path();
    for (name, arguments, expected) in [
        (
            "rsa",
            &["-t", "rsa", "-b", "2048", "-N", ""][..],
            "`ssh-rsa` is not supported",
        ),
        (
            "cbc",
            &["-t", "ed25519", "-N", "correct horse", "-Z", "aes256-cbc"],
            "`aes256-cbc`",
        ),
    ] {
        done(folder, "ssh-keygen", &[&["-q", "-f", name], arguments].concat());
        let said = ends(folder, 6, &["key", "show", name]);
        assert!(said.err.contains(expected), "{}", said.err);
    }
    done(
        folder,
        "ssh-keygen",
        &["-q", "-t", "ed25519", "-N", "", "-f", "whole"],
    );
    let whole = std::fs::read_to_string(folder.join("whole")).unwrap();
    let honest = json(&ends(folder, 0, &["key", "show", "whole", "--output", "json"]).out);
    let secrets: Vec<&str> = whole.lines().filter(|line| !line.starts_with("-----")).collect();
    for at in (40..whole.len() - 40).step_by(29) {
        let mut bytes = whole.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let path = folder.join("bad");
        std::fs::write(&path, &bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let said = penstock(folder, &["key", "show", "bad", "--output", "json"], &[]);
        // Only in the comment, and in the padding after it, is a byte that says nothing of the key.
        assert!(
            said.code == 6 || json(&said.out)["public"] == honest["public"],
            "byte {at}"
        );
        assert!(
            secrets.iter().all(|secret| !said.err.contains(secret)),
            "byte {at}: {}",
            said.err
        );
    }
}
