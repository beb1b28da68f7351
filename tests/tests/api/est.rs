//! Devices that enrol and renew by themselves (EST), as clients that others wrote see it: `curl` and `openssl` here, strongSwan's `pki` in
//! `est/strongswan`, what is refused in `est/refused`, and the runbook's page in `est/followed`.

mod carried;
mod followed;
mod refused;
mod role;
mod strongswan;

use std::path::{Path, PathBuf};
use std::process::Output;

use penstock_coordinator::config::Config;
use penstock_policy::ids::Digest;
use penstock_proto::token::Secret;
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::create_token_request::Subject;

use crate::world::{World, built, document, people, release};

/// A program that others wrote, run in `folder`.
pub(super) async fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    tokio::process::Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{program}: {error}; scripts/setup installs it"))
}

/// The same, which succeeds; what it printed.
pub(super) async fn done(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = run(folder, program, arguments).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// What a server answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// In lower case.
    pub(super) headers: String,
    pub(super) body: String,
}

/// A coordinator at which devices enrol, and a folder in which a device keeps its files.
pub(super) struct Est {
    pub(super) world: World,
    pub(super) folder: tempfile::TempDir,
}

impl Est {
    /// The current release names `hmi` and `plc`.
    pub(super) async fn released() -> Self {
        let est = Self::without_release().await;
        let mut people = people(&est.world).await;
        release(&mut people, &built(&document(2, 99), 1, None, "anna")).await;
        est
    }

    pub(super) async fn without_release() -> Self {
        Self::at(World::start_with(Self::listening).await)
    }

    fn listening(config: &mut Config) {
        config.est = vec!["127.0.0.1:0".parse().unwrap()];
    }

    fn at(world: World) -> Self {
        let est = Self {
            world,
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::copy(est.world.config.data.join("ca/root.pem"), est.file("ca.pem")).unwrap();
        est
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn url(&self, operation: &str) -> String {
        let address = self.world.running.as_ref().unwrap().est[0];
        format!("https://{address}/.well-known/est/{operation}")
    }

    /// `curl` with these arguments, for the operation.
    pub(super) async fn curl(&self, operation: &str, arguments: &[&str]) -> Answered {
        let url = self.url(operation);
        let common = [
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            "60",
            "--cacert",
            "ca.pem",
        ];
        let all = [&common[..], arguments, &[&url]].concat();
        let text = done(self.folder.path(), "curl", &all).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answered {
            status,
            headers: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    /// Sends a request for a certificate, as base64 in `NAME.b64`.
    pub(super) async fn post(&self, operation: &str, request: &str, arguments: &[&str]) -> Answered {
        let body = format!("@{request}.b64");
        let sent = [
            "--header",
            "Content-Type: application/pkcs10",
            "--data-binary",
            &body,
        ];
        self.curl(operation, &[&sent[..], arguments].concat()).await
    }

    /// Makes a key and a request for it with `openssl`: `NAME.key`, `NAME.b64`.
    pub(super) async fn request(&self, name: &str, kind: &[&str]) {
        let (key, der, text) = (
            format!("{name}.key"),
            format!("{name}.der"),
            format!("{name}.b64"),
        );
        let new = [
            "req",
            "-new",
            "-nodes",
            "-subj",
            "/CN=whatever it wishes",
            "-outform",
            "DER",
        ];
        let files = ["-keyout", &key, "-out", &der];
        let folder = self.folder.path();
        done(folder, "openssl", &[&new[..], kind, &files].concat()).await;
        done(folder, "openssl", &["base64", "-in", &der, "-out", &text]).await;
    }

    /// The same with a key that is there already.
    pub(super) async fn request_of_key(&self, name: &str) {
        let key = format!("{name}.key");
        self.request_with(name, &["-key", &key]).await;
    }

    async fn request_with(&self, name: &str, key: &[&str]) {
        let (der, text) = (format!("{name}.der"), format!("{name}.b64"));
        let new = [
            "req",
            "-new",
            "-subj",
            "/CN=again",
            "-outform",
            "DER",
            "-out",
            &der,
        ];
        let folder = self.folder.path();
        done(folder, "openssl", &[&new[..], key].concat()).await;
        done(folder, "openssl", &["base64", "-in", &der, "-out", &text]).await;
    }

    /// The secret of a token for an asset, as text.
    pub(super) async fn token(&self, asset: &str, key: Option<Digest>) -> String {
        self.token_in_role(asset, key, None).await
    }

    /// The same for a role.
    async fn token_in_role(&self, asset: &str, key: Option<Digest>, role: Option<&str>) -> String {
        let request = v1::CreateTokenRequest {
            device_role: role.map(str::to_owned),
            subject: Some(Subject::Device(asset.to_owned())),
            key_digest: key.map(|key| key.0.to_vec().into()).unwrap_or_default(),
            valid_seconds: 600,
            ..v1::CreateTokenRequest::default()
        };
        let secret = self.world.token_as(request).await;
        Secret::try_from(secret.as_slice()).unwrap().into()
    }

    /// Enrols by a token, whose user and password `login` is: the certificate is in `NAME.pem`.
    pub(super) async fn enrolled(&self, name: &str, login: &str) {
        let answered = self.post("simpleenroll", name, &["--user", login]).await;
        assert_eq!(answered.status, 200, "{answered:?}");
        self.keep(name, &answered).await;
    }

    /// Takes a certificate out of an answer with `openssl`: `NAME.pem`, beside it what `openssl` says of it.
    pub(super) async fn keep(&self, name: &str, answered: &Answered) -> String {
        assert!(
            answered.headers.contains("content-transfer-encoding: base64"),
            "{answered:?}"
        );
        std::fs::write(self.file("answer.b64"), &answered.body).unwrap();
        let folder = self.folder.path();
        done(
            folder,
            "openssl",
            &["base64", "-d", "-A", "-in", "answer.b64", "-out", "answer.p7"],
        )
        .await;
        let print = [
            "pkcs7",
            "-inform",
            "DER",
            "-in",
            "answer.p7",
            "-print_certs",
            "-out",
        ];
        let pem = format!("{name}.pem");
        done(folder, "openssl", &[&print[..], &[&pem]].concat()).await;
        done(folder, "openssl", &["x509", "-in", &pem, "-noout", "-text"]).await
    }

    /// The public key in a file, as the trail names it.
    pub(super) async fn digest_of(&self, name: &str) -> Digest {
        let (key, out) = (format!("{name}.key"), format!("{name}.pub"));
        let arguments = ["pkey", "-in", &key, "-pubout", "-outform", "DER", "-out", &out];
        done(self.folder.path(), "openssl", &arguments).await;
        Digest::of(&std::fs::read(self.file(&out)).unwrap())
    }

    /// What the coordinator's trail says of devices: step, subject and words.
    pub(super) async fn trail(&self) -> Vec<(String, String, String)> {
        let records = self.world.trail("coordinator/c1").await;
        let kinds = records
            .into_iter()
            .filter_map(|record| record.event.and_then(|event| event.kind));
        kinds
            .filter_map(|kind| match kind {
                Kind::Identity(event) if event.subject.starts_with("device/") => {
                    assert_eq!(event.address, "127.0.0.1");
                    Some((event.step, event.subject, event.message))
                }
                _ => None,
            })
            .collect()
    }
}

/// What makes `openssl` use a key that is accepted.
pub(super) const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

#[tokio::test(flavor = "multi_thread")]
async fn below_a_root_that_is_elsewhere_a_device_gets_all_that_verifies_its_certificate() {
    let est = Est::at(World::start_under_root_with(Est::listening).await);
    let mut people = people(&est.world).await;
    release(&mut people, &built(&document(2, 99), 1, None, "anna")).await;
    let authorities = est.curl("cacerts", &[]).await;
    est.keep("authorities", &authorities).await;
    let secret = est.token("hmi", None).await;
    est.request("hmi", P256).await;
    est.enrolled("hmi", &format!("hmi:{secret}")).await;
    // The one is trusted by its digest, or was carried there; the other is needed between it and the device's own.
    let verify = [
        "verify",
        "-CAfile",
        "ca.pem",
        "-untrusted",
        "authorities.pem",
        "hmi.pem",
    ];
    done(est.folder.path(), "openssl", &verify).await;
    let alone = run(
        est.folder.path(),
        "openssl",
        &["verify", "-CAfile", "ca.pem", "hmi.pem"],
    )
    .await;
    assert!(!alone.status.success(), "{alone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_learns_whom_to_trust_and_what_to_ask_for_without_proving_anything() {
    let est = Est::without_release().await;
    let answered = est.curl("cacerts", &[]).await;
    assert_eq!(answered.status, 200);
    assert!(
        answered.headers.contains("content-type: application/pkcs7-mime"),
        "{answered:?}"
    );
    est.keep("root", &answered).await;
    // What came is the root, and nothing else.
    let got = std::fs::read(est.file("root.pem")).unwrap();
    let certificates = penstock_proto::tls::certificates_from_pem(&got, "root").unwrap();
    assert_eq!(certificates, est.world.authority.roots());

    let answered = est.curl("csrattrs", &["--http1.1"]).await;
    assert_eq!(answered.status, 200);
    assert!(
        answered.headers.contains("content-type: application/csrattrs"),
        "{answered:?}"
    );
    std::fs::write(est.file("attrs.b64"), &answered.body).unwrap();
    let folder = est.folder.path();
    done(
        folder,
        "openssl",
        &["base64", "-d", "-A", "-in", "attrs.b64", "-out", "attrs.der"],
    )
    .await;
    let said = done(
        folder,
        "openssl",
        &["asn1parse", "-inform", "DER", "-in", "attrs.der"],
    )
    .await;
    for word in ["id-ecPublicKey", "prime256v1", "ecdsa-with-SHA256"] {
        assert!(said.contains(word), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_enrols_a_device_by_a_token_and_renews_it_by_its_certificate_with_the_same_key_and_with_another()
{
    let est = Est::released().await;
    let login = format!("plc:{}", est.token("plc", None).await);
    est.request("first", P256).await;
    // Nobody but who knows the secret is told that there is a token.
    let answered = est.post("simpleenroll", "first", &[]).await;
    assert_eq!(answered.status, 401);
    assert!(
        answered
            .headers
            .contains("www-authenticate: basic realm=\"penstock\""),
        "{answered:?}"
    );

    let answered = est.post("simpleenroll", "first", &["--user", &login]).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    let kind = "content-type: application/pkcs7-mime; smime-type=certs-only";
    assert!(answered.headers.contains(kind), "{answered:?}");
    let said = est.keep("first", &answered).await;
    // What it is called comes from the release, and nothing from the request.
    for words in [
        "URI:spiffe://riverside/device/plc",
        "IP Address:10.20.4.7",
        "CN = device/plc",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("whatever it wishes"), "{said}");
    let verify = ["verify", "-CAfile", "ca.pem", "first.pem"];
    done(est.folder.path(), "openssl", &verify).await;
    // The answer may have been lost: the same key gets it again.
    est.enrolled("first", &login).await;

    // By its certificate, with the same key: the same life.
    let own = ["--cert", "first.pem", "--key", "first.key"];
    est.request_of_key("first").await;
    let answered = est.post("simplereenroll", "first", &own).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    let said = est.keep("renewed", &answered).await;
    assert!(said.contains("serialNumber = 1"), "{said}");

    // With another key: a new life, also when the answer is lost and the certificate before is shown again.
    est.request("second", P256).await;
    for _ in 0..2 {
        let answered = est.post("simplereenroll", "second", &own).await;
        assert_eq!(answered.status, 200, "{answered:?}");
        let said = est.keep("second", &answered).await;
        assert!(said.contains("serialNumber = 2"), "{said}");
    }
    // The certificate of the life before may do nothing else.
    est.request("third", P256).await;
    for request in ["first", "third"] {
        let answered = est.post("simplereenroll", request, &own).await;
        assert_eq!(answered.status, 403, "{answered:?}");
        assert!(answered.body.contains("no longer counts"), "{answered:?}");
    }
    let second = ["--cert", "second.pem", "--key", "second.key"];
    let answered = est.post("simplereenroll", "second", &second).await;
    assert_eq!(answered.status, 200, "{answered:?}");

    // Who, by which key, in which life.
    let (first, second) = (est.digest_of("first").await, est.digest_of("second").await);
    let trail = est.trail().await;
    let has = |step: &str, words: &str| {
        let found = trail
            .iter()
            .any(|(did, whom, said)| did == step && whom == "device/plc" && said.starts_with(words));
        assert!(found, "{step}: {words} is not in {trail:#?}");
    };
    has("enrolled", &format!("by EST, life 1, key {first}"));
    has("renewed", &format!("by EST, life 1, key {first}"));
    has("renewed", &format!("by EST, life 2, key {second}"));
    has("refused", "this key of device/plc no longer counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_not_declared_yet_is_asked_to_come_again_and_its_token_waits() {
    let est = Est::without_release().await;
    let login = format!("printer:{}", est.token("printer", None).await);
    est.request("p", P256).await;
    let told = async |words: &str| {
        let answered = est.post("simpleenroll", "p", &["--user", &login]).await;
        assert_eq!(answered.status, 202, "{answered:?}");
        assert!(answered.headers.contains("retry-after: 60"), "{answered:?}");
        assert!(answered.body.contains(words), "{answered:?}");
    };
    told("no release has been approved yet").await;
    let mut people = people(&est.world).await;
    let first = built(&document(2, 99), 1, None, "anna");
    release(&mut people, &first).await;
    told("there is no asset printer in r1").await;
    let assets = "assets:\n  printer: { zone: operations, address: 10.20.1.30 }\n";
    let text = document(2, 99).replace("assets:\n", assets);
    release(&mut people, &built(&text, 2, Some(first.digest()), "anna")).await;
    est.enrolled("p", &login).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_clients_that_race_one_token_one_wins() {
    let est = Est::released().await;
    let login = format!("plc:{}", est.token("plc", None).await);
    // Ten keys, ten clients each: whoever comes with the key that won gets it again.
    for key in 0..10 {
        est.request(&format!("k{key}"), P256).await;
    }
    // No more at once than may shake hands: the coordinator cuts the connections of those beyond.
    let shaking = tokio::sync::Semaphore::new(48);
    let racing = (0..100).map(|n| {
        let (est, login, shaking) = (&est, &login, &shaking);
        async move {
            let _place = shaking.acquire().await.unwrap();
            let request = format!("k{}", n % 10);
            let answered = est.post("simpleenroll", &request, &["--user", login]).await;
            (n % 10, answered.status)
        }
    });
    let mut tasks = Vec::new();
    for racer in racing {
        tasks.push(Box::pin(racer));
    }
    let answers = join_all(tasks).await;
    let won: std::collections::BTreeSet<_> = answers
        .iter()
        .filter(|(_, status)| *status == 200)
        .map(|(key, _)| *key)
        .collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    let others = answers.iter().filter(|(key, _)| !won.contains(key));
    for (_, status) in others {
        assert!(matches!(status, 403 | 429), "{answers:?}");
    }
    let lives: Vec<_> = est.trail().await;
    let enrolled = lives
        .iter()
        .filter(|(step, _, words)| step == "enrolled" && !words.contains("again"));
    assert_eq!(enrolled.count(), 1, "{lives:#?}");
}

/// All of them, at the same time, in their order.
async fn join_all<T>(mut tasks: Vec<std::pin::Pin<Box<impl Future<Output = T>>>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = tasks.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (task, done) in tasks.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = task.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
