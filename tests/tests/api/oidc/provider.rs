//! The provider's program, and a person who goes through its pages with `curl` as a browser.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::person::{Person, program};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Provider {
    pub issuer: String,
    pub certificate: PathBuf,
    folder: tempfile::TempDir,
    child: Mutex<Option<Child>>,
}

fn certified(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let here = std::net::IpAddr::from([127, 0, 0, 1]);
    params.subject_alt_names = vec![rcgen::SanType::IpAddress(here)];
    let certificate = params.self_signed(&key).unwrap();
    let (key_file, file) = (
        folder.join(format!("{name}.key")),
        folder.join(format!("{name}.crt")),
    );
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::write(&file, certificate.pem()).unwrap();
    (key_file, file)
}

impl Provider {
    /// One that signs by this algorithm, at a port of its own.
    pub async fn start(algorithm: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (_, certificate) = certified(folder.path(), "web");
        let (child, issuer) = launched(folder.path(), "0", algorithm, None);
        Self {
            issuer,
            certificate,
            folder,
            child: Mutex::new(Some(child)),
        }
    }

    /// One whose device codes carry the nonce, as not all do.
    pub async fn that_binds_device_codes() -> Self {
        let mut one = Self::start("ES256").await;
        one.stop();
        let (child, issuer) = launched(one.folder.path(), "0", "ES256", Some("binds"));
        one.issuer = issuer;
        *one.child.lock().unwrap() = Some(child);
        one
    }

    /// The same with another key, at the same port.
    pub async fn restart(&self, algorithm: &str) {
        self.stop();
        let port = self.issuer.rsplit(':').next().unwrap();
        let (child, issuer) = launched(self.folder.path(), port, algorithm, None);
        assert_eq!(issuer, self.issuer);
        *self.child.lock().unwrap() = Some(child);
    }

    pub fn stop(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The certificate of somebody else at the same address.
    pub fn other_certificate(&self) -> PathBuf {
        certified(self.folder.path(), "other").1
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}

/// As soon as it serves. Node sometimes waits for itself before it runs a line of the program: one that says nothing is started again.
fn launched(folder: &Path, port: &str, algorithm: &str, binds: Option<&str>) -> (Child, String) {
    use std::io::BufRead as _;
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers-node");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/oidc/provider.mjs");
    for _ in 0..5 {
        let mut child = Command::new("node")
            .args([script, packages, port])
            .args([folder.join("web.key"), folder.join("web.crt")])
            .arg(algorithm)
            .args(binds)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node: run scripts/setup");
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let (said, line) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            // It says nothing more, and nobody may wait for it any more.
            let _ = said.send(line);
        });
        if let Ok(line) = line.recv_timeout(std::time::Duration::from_secs(20)) {
            assert!(
                line.starts_with("https://"),
                "target/peers-node: run scripts/setup"
            );
            return (child, line.trim().to_owned());
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    panic!("node says nothing, five times");
}

/// What came of a command.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub json: Value,
    pub said: String,
}

impl Outcome {
    /// The code of the failure.
    pub fn failure(&self) -> String {
        assert_ne!(self.code, 0, "{self:?}");
        let after_the_invitation = self.said.find("{\n").map(|at| &self.said[at..]);
        let failure: Value = serde_json::from_str(after_the_invitation.unwrap_or(&self.said)).unwrap();
        let code = failure["code"].as_str().or(failure["error"]["code"].as_str());
        code.unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

pub struct Browser<'a> {
    provider: &'a Provider,
    /// Whether the person shows a second factor.
    pub factor: bool,
    jar: tempfile::NamedTempFile,
}

impl<'a> Browser<'a> {
    /// One that has not been there before.
    pub fn new(provider: &'a Provider) -> Self {
        Self {
            provider,
            factor: true,
            jar: tempfile::NamedTempFile::new().unwrap(),
        }
    }

    /// A page, after all that leads there; with the address at which it is.
    async fn page(&self, url: &str, form: &[(&str, &str)]) -> (String, String) {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--location",
            "--max-time",
            "20",
            "--write-out",
            "\n%{url_effective}",
        ]);
        curl.arg("--cacert").arg(&self.provider.certificate);
        curl.arg("--cookie")
            .arg(self.jar.path())
            .arg("--cookie-jar")
            .arg(self.jar.path());
        for (name, value) in form {
            curl.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        curl.arg(url);
        let output = tokio::task::spawn_blocking(move || curl.output().unwrap())
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, at) = text.rsplit_once('\n').unwrap();
        (body.to_owned(), at.to_owned())
    }

    /// Logs in from this address on, through all pages that come; the address at which that ends.
    async fn goes(&self, url: &str, person: &str) -> (String, String) {
        let (mut body, mut at) = self.page(url, &[]).await;
        for _ in 0..4 {
            let attribute = |body: &str, name: &str| {
                let (_, after) = body.split_once(&format!("{name}=\""))?;
                Some(after.split('"').next().unwrap_or_default().to_owned())
            };
            let Some(action) = attribute(&body, "action") else {
                break;
            };
            let action = match action.starts_with('/') {
                true => format!("{}{action}", self.provider.issuer),
                false => action,
            };
            let hidden: Vec<(String, String)> = body
                .split("<input ")
                .filter(|input| input.contains("type=\"hidden\""))
                .filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value")?)))
                .collect();
            let mut form: Vec<(&str, &str)> = hidden
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            if body.contains("name=\"person\"") {
                form.push(("person", person));
                form.push(("factor", if self.factor { "123456" } else { "" }));
            }
            // The page at which a code is confirmed.
            if action.ends_with("/device") && !hidden.iter().any(|(name, _)| name == "confirm") {
                form.push(("confirm", "yes"));
            }
            (body, at) = self.page(&action, &form).await;
        }
        (body, at)
    }

    /// An ID token without `penstock`: by the provider's pages alone.
    pub async fn token(&self, person: &str, factor: bool, client: &str, nonce: &str) -> String {
        assert_eq!(factor, self.factor);
        let verifier = "a verifier that everybody knows, for a test, 0123456789";
        let verifier = verifier.replace([' ', ','], "-");
        let challenge = {
            use base64::Engine as _;
            let digest = penstock_policy::ids::Digest::of(verifier.as_bytes());
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest.0)
        };
        // Nobody listens there: what counts is where the browser is sent.
        let redirect = "http://127.0.0.1:9/callback";
        let query = penstock_proto::https::encoded(&[
            ("client_id", client),
            ("response_type", "code"),
            ("scope", "openid profile"),
            ("redirect_uri", redirect),
            ("state", "s"),
            ("nonce", nonce),
            ("max_age", "300"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let (body, at) = self
            .goes(&format!("{}/auth?{query}", self.provider.issuer), person)
            .await;
        let (_, answer) = at.split_once('?').unwrap_or_else(|| panic!("{at}: {body}"));
        let pairs = penstock_proto::https::decoded(answer);
        let code = pairs
            .iter()
            .find(|(name, _)| name == "code")
            .map(|(_, code)| code.clone());
        let code = code.unwrap_or_else(|| panic!("{at}: {body}"));
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", code.as_str()),
            ("redirect_uri", redirect),
            ("code_verifier", verifier.as_str()),
        ];
        let (answer, _) = self.page(&format!("{}/token", self.provider.issuer), &form).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["id_token"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    }

    /// Somebody types this command, and logs in at the address that it shows.
    pub async fn signs_in(&self, who: &Person, arguments: &[String], person: &str) -> Outcome {
        let said = who.home.join("said");
        let mut command = Command::new(program());
        command
            .env("XDG_CONFIG_HOME", &who.home)
            .args(["--output", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&said).unwrap());
        let child = command.spawn().unwrap();
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let began = Instant::now();
        let url = loop {
            let text = std::fs::read_to_string(&said).unwrap();
            let invited = text
                .lines()
                .find_map(|line| serde_json::from_str::<Value>(line).ok());
            let url = invited.and_then(|invited| {
                let url = invited.get("open").or(invited.get("open on any machine"))?;
                url.as_str().map(str::to_owned)
            });
            if url.is_some() {
                break url;
            }
            if ended.is_finished() {
                break None;
            }
            assert!(began.elapsed() < PATIENCE, "{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        if let Some(url) = url {
            self.goes(&url, person).await;
        }
        let output = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
        let said = std::fs::read_to_string(said).unwrap();
        Outcome {
            code: output.status.code().unwrap(),
            json: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            said,
        }
    }
}
