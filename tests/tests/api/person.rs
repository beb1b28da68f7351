//! A person with the real `penstock`, on a machine of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use penstock_policy::ids::Digest;
use penstock_proto::keys::FileKey;
use penstock_proto::peer::Certified;
use penstock_proto::token::{Secret, Token};
use penstock_proto::v1;
use serde_json::Value;

use crate::world::{Built, World, key};

/// A person at a terminal of their own.
pub struct Person {
    pub home: PathBuf,
}

pub fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("penstock");
    assert!(
        program.is_file(),
        "{}: cargo build --workspace --bins",
        program.display()
    );
    program
}

impl Person {
    /// Somebody who logs in on a machine that knows nothing of the plant yet.
    pub async fn new(world: &World, name: &'static str, machine: &str, role: v1::Role) -> Self {
        let subject = v1::create_token_request::Subject::Operator(name.to_owned());
        let secret = world.token(subject, role).await;
        let token = Token {
            plant: world.config.plant.clone(),
            subject: format!("operator/{name}").parse().unwrap(),
            coordinators: vec![world.address.clone()],
            secret: Secret::try_from(secret.as_slice()).unwrap(),
            root_digest: world.authority.root_digest(),
            approvers: None,
            expires_ms: crate::world::now_ms() + 600_000,
        };
        let home = world.dir.path().join(machine);
        std::fs::create_dir_all(&home).unwrap();
        let file = home.join("token");
        std::fs::write(&file, token.to_string()).unwrap();
        let person = Self { home };
        person.done(&["login", "--token", file.to_str().unwrap()]).await;
        person.is_known_to(world, name);
        let key_file = person.home.join("approver.key");
        std::fs::write(&key_file, key_pem(name)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&key_file, mode).unwrap();
        person
    }

    /// The world can do what this person would, as a second person.
    fn is_known_to(&self, world: &World, name: &str) {
        let own = format!("penstock/contexts/{}.{name}", world.config.plant);
        let file = |end: &str| self.home.join(format!("{own}.{end}"));
        let key = FileKey::open_private(&file("key")).unwrap();
        let chain = std::fs::read(file("crt")).unwrap();
        let chain = penstock_proto::tls::certificates_from_pem(&chain, "crt").unwrap();
        let epoch = Certified::from_certificate(&chain[0]).unwrap().epoch;
        world.acts_as(&format!("operator/{name}"), key.into(), epoch);
    }

    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.run_for("json", arguments).await
    }

    /// What a person reads.
    pub async fn reads(&self, arguments: &[&str]) -> String {
        let output = self.run_for("text", arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a person reads beside the answer.
    pub async fn says(&self, arguments: &[&str]) -> String {
        let output = self.run_for("text", arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    async fn run_for(&self, reader: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        command
            .env("XDG_CONFIG_HOME", &self.home)
            .args(["--output", reader])
            .args(arguments)
            .stdin(Stdio::null());
        // The coordinator runs in this process.
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    pub async fn done(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments).await;
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}{complained}");
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    /// The code of the failure.
    pub async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success(),
            "{arguments:?} did not fail: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        let failure: Value = serde_json::from_str(&complained).unwrap_or_else(|_| panic!("{complained}"));
        let code = failure["code"].as_str().or(failure["error"]["code"].as_str());
        code.unwrap_or_else(|| panic!("{complained}")).to_owned()
    }

    pub fn approve<'a>(&self, key: &'a str, digits: &'a str, revision: &'a str) -> Vec<&'a str> {
        vec![
            "release", "approve", revision, "--digest", digits, "--key", key, "--yes",
        ]
    }

    pub async fn approves(&self, release: &Built) -> Value {
        let (key, digest, number) = self.words(release);
        self.done(&self.approve(&key, &digest, &number)).await
    }

    pub async fn fails_to_approve(&self, release: &Built) -> String {
        let (key, digest, number) = self.words(release);
        self.fails(&self.approve(&key, &digest, &number)).await
    }

    pub fn words(&self, release: &Built) -> (String, String, String) {
        (
            self.home.join("approver.key").to_string_lossy().into_owned(),
            digits(release.digest()),
            release.release.statement.revision.0.to_string(),
        )
    }

    /// The coordinator was restarted, at another port.
    pub fn find(&self, world: &World) {
        let folder = self.home.join("penstock/contexts");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = text.lines().map(|line| match line.split_once(" = ") {
                    Some(("coordinators", _)) => format!("coordinators = [\"{}\"]\n", world.address),
                    _ => format!("{line}\n"),
                });
                std::fs::write(&path, lines.collect::<String>()).unwrap();
            }
        }
    }
}

pub fn digits(digest: Digest) -> String {
    digest.to_string().trim_start_matches("sha256:")[..12].to_owned()
}

/// The key of a person of this world, as `penstock key new` writes one (RFC 8410).
pub fn key_pem(person: &str) -> String {
    use base64::Engine as _;
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    der.extend_from_slice(&key(person).seed());
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}
