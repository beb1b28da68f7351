//! The program as others run it, the folders that it runs in, and what it said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The examples that ship with Penstock.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")
}

/// What the program said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs the program without a terminal, with an empty home of its own.
pub fn penstock(folder: &Path, arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("XDG_CONFIG_HOME", folder.join("home"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the program with this on its standard input.
pub fn said_with(folder: &Path, arguments: &[&str], input: &str) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("XDG_CONFIG_HOME", folder.join("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the program and holds it to an exit code.
pub fn ends(folder: &Path, code: i32, arguments: &[&str]) -> Said {
    let said = penstock(folder, arguments);
    assert_eq!(said.code, code, "{arguments:?}\n{}\n{}", said.out, said.err);
    said
}

pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in: {text}"))
}

/// A folder with the water works under `plant/` and new keys of its approvers.
pub fn works() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut text = std::fs::read_to_string(examples().join("waterworks/plant.yaml")).unwrap();
    for approver in ["j.meyer", "a.silva", "m.okoye"] {
        let key = json(
            &ends(
                folder.path(),
                0,
                &["key", "new", &format!("{approver}.key"), "--output", "json"],
            )
            .out,
        );
        let start = text.find(&format!("{approver}: {{ key: \"")).unwrap();
        let first = start + text[start..].find("ed25519:").unwrap();
        let last = first + text[first..].find('"').unwrap();
        text.replace_range(first..last, key["public"].as_str().unwrap());
    }
    std::fs::create_dir(folder.path().join("plant")).unwrap();
    std::fs::write(folder.path().join("plant/plant.yaml"), text).unwrap();
    folder
}

/// The documents once more, with a change in their text.
pub fn altered(folder: &Path, name: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(folder.join("plant/plant.yaml")).unwrap();
    assert!(text.contains(from));
    std::fs::create_dir(folder.join(name)).unwrap();
    std::fs::write(folder.join(name).join("plant.yaml"), text.replace(from, to)).unwrap();
}

/// The statement of a first release of `plant/`, as an author's `release propose` makes it.
pub fn statement(folder: &Path, author: &str) -> Vec<u8> {
    use penstock::documents::Documents;
    use penstock_policy::ids::Revision;
    use penstock_policy::release::{Draft, build};
    let documents = Documents::read(&folder.join("plant")).unwrap();
    let plant = penstock::loading::examine(&documents).unwrap().plant;
    let draft = Draft {
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
        revision: Revision(1),
        parent: None,
        replaces: Vec::new(),
        document_digest: documents.digest(),
        author: author.parse().unwrap(),
        ticket: Some("CHG-1".into()),
        reason: "the first".into(),
        created_ms: 1_700_000_000_000,
    };
    let bytes = build(&plant.unwrap(), draft).unwrap().statement.to_bytes();
    std::fs::write(folder.join("r1.statement"), &bytes).unwrap();
    bytes
}

pub fn sign(folder: &Path, code: i32, from: &str, approver: &str, out: &str) -> Said {
    let key = format!("{approver}.key");
    let arguments = [
        "release",
        "sign",
        from,
        "--key",
        &key,
        "--as",
        approver,
        "--documents",
        "plant",
        "-o",
        out,
        "--yes",
    ];
    ends(folder, code, &arguments)
}
