//! Keys, passphrases and tokens: who may read them, what unlocks them, and that none is ever shown.

use std::process::Command;

use crate::said::{ends, json, penstock, sign, statement, works};

#[test]
fn a_key_that_others_may_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = works();
    let key = folder.path().join("j.meyer.key");
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = ends(folder.path(), 6, &["key", "show", "j.meyer.key"]);
    assert!(said.err.contains("chmod 600"), "{}", said.err);
    ends(folder.path(), 6, &["key", "new", "a.silva.key"]);
}

#[test]
fn a_secret_that_is_named_instead_of_a_document_is_never_shown() {
    let folder = works();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("passphrase"), "correct horse\n").unwrap();
    std::fs::set_permissions(
        path("passphrase"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    ends(
        folder.path(),
        0,
        &["key", "new", "locked.key", "--passphrase-file", "passphrase"],
    );
    let key = std::fs::read_to_string(path("j.meyer.key")).unwrap();
    std::fs::write(
        path("gw-1.token"),
        "penstock-token-1.eyJwbGFudCI6InJpdmVyc2lkZSJ9c2VjcmV0c2VjcmV0\n",
    )
    .unwrap();
    std::fs::write(path("raw.txt"), "yGpVnWzQ0kSf3D1cZqT7uJb5eRmXoH2aLw8vN4iE6Ks=\n").unwrap();
    std::fs::create_dir(path("pasted")).unwrap();
    let document = std::fs::read_to_string(path("plant/plant.yaml")).unwrap();
    let indented: String = key.lines().map(|line| format!("\n  {line}")).collect();
    std::fs::write(
        path("pasted/plant.yaml"),
        format!("{document}\nnote: |{indented}\n"),
    )
    .unwrap();
    for name in ["j.meyer.key", "locked.key", "gw-1.token", "raw.txt", "pasted"] {
        let file = if name == "pasted" {
            "pasted/plant.yaml"
        } else {
            name
        };
        let text = std::fs::read_to_string(path(file)).unwrap();
        // All lines that are long enough to be a part of a key, but none of the document around it.
        let secrets = text.lines().map(str::trim).filter(|line| {
            line.len() >= 24 && !line.starts_with("-----") && !line.contains(' ') && !document.contains(line)
        });
        let secrets: Vec<&str> = secrets.collect();
        assert!(!secrets.is_empty(), "{name}");
        for arguments in [
            &["check", name][..],
            &["check", name, "--output", "json"],
            &["graph", name],
            &["reach", name],
            &["diff", name, "plant"],
            &[
                "explain",
                name,
                "--from",
                "hmi-1",
                "--to",
                "plc-7",
                "--service",
                "tcp/502",
            ],
            &["compile", name, "--gateway", "gw-works"],
        ] {
            let said = ends(folder.path(), 3, arguments);
            for secret in &secrets {
                assert!(
                    !said.err.contains(secret) && !said.out.contains(secret),
                    "{arguments:?} shows {secret}"
                );
            }
            assert!(said.err.contains("PS0112"), "{arguments:?}: {}", said.err);
        }
        for arguments in [
            &["login", "--token", name][..],
            &["release", "verify", name, "--approvers", "plant"],
        ] {
            let said = penstock(folder.path(), arguments);
            assert!(
                secrets.iter().all(|secret| !said.err.contains(secret)),
                "{arguments:?}"
            );
        }
    }
}

#[test]
fn a_locked_key_signs_with_a_passphrase_from_a_file_and_not_without() {
    let folder = works();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("passphrase"), "correct horse\n").unwrap();
    std::fs::set_permissions(
        path("passphrase"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let locked = ends(
        folder.path(),
        0,
        &[
            "key",
            "passphrase",
            "a.silva.key",
            "--new-passphrase-file",
            "passphrase",
            "--output",
            "json",
        ],
    );
    assert_eq!(json(&locked.out)["locked"], true);
    statement(folder.path(), "k.ito");
    let refused = sign(folder.path(), 6, "r1.statement", "a.silva", "r1.signed");
    assert!(refused.err.contains("--passphrase-file"), "{}", refused.err);
    let arguments = [
        "release",
        "sign",
        "r1.statement",
        "--key",
        "a.silva.key",
        "--as",
        "a.silva",
        "--documents",
        "plant",
        "-o",
        "r1.signed",
        "--yes",
        "--passphrase-file",
        "passphrase",
    ];
    ends(folder.path(), 0, &arguments);
    // Where nobody can be asked for another passphrase, the lock stays.
    let kept = [
        "key",
        "passphrase",
        "a.silva.key",
        "--passphrase-file",
        "passphrase",
    ];
    let said = ends(folder.path(), 6, &kept);
    assert!(said.err.contains("--no-passphrase"), "{}", said.err);
    let key = std::fs::read_to_string(folder.path().join("a.silva.key")).unwrap();
    assert!(key.contains("ENCRYPTED"), "{key}");
    ends(
        folder.path(),
        0,
        &[
            "key",
            "passphrase",
            "a.silva.key",
            "--passphrase-file",
            "passphrase",
            "--no-passphrase",
        ],
    );
    sign(folder.path(), 0, "r1.statement", "a.silva", "r1b.signed");
}

#[test]
fn a_passphrase_file_in_the_environment_contradicts_a_key_without_a_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["key", "new", "a.key", "--no-passphrase"])
        .current_dir(folder.path())
        .env("PENSTOCK_PASSPHRASE_FILE", "passphrase")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!folder.path().join("a.key").exists());
}
