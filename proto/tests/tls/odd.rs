//! Certificates that are odd in every way that one can list, shown by clients that others wrote: OpenSSL's and Python's.
//!
//! Each is refused, with a reason that names what is wrong; each client learns of it by an alert, and not by silence. What a
//! refusal may cost is `strangers/computed.rs`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use penstock_proto::peer::PeerIdentity;
use penstock_proto::tls::data_path::explain;
use penstock_proto::tls::server::{ServerCredentials, server_config};
use penstock_proto::tls::{certificates_from_pem, certificates_to_pem};
use rcgen::{
    CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use super::{Authority, COORDINATOR, GATEWAY, PATIENCE, plant};

/// What a client shows: files in PEM.
struct Shown {
    chain: PathBuf,
    key: PathBuf,
}

/// Where the files are, and who signs.
struct Workshop {
    folder: tempfile::TempDir,
    ca: Authority,
}

/// What an ordinary gateway has.
fn ordinary(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    for uri in uris {
        params
            .subject_alt_names
            .push(SanType::URI((*uri).try_into().unwrap()));
    }
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Authority::new();
        std::fs::write(folder.path().join("ca.pem"), certificates_to_pem(&[ca.root()])).unwrap();
        std::fs::write(folder.path().join("ca.key"), ca.0.key().serialize_pem()).unwrap();
        Self { folder, ca }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// These certificates, leaf first, with the leaf's key.
    fn shows(&self, name: &str, chain: &[CertificateDer<'static>], key: &KeyPair) -> Shown {
        let files = Shown {
            chain: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        };
        std::fs::write(&files.chain, certificates_to_pem(chain)).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// Signed by the plant's authority.
    fn signed(&self, name: &str, params: &CertificateParams) -> Shown {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.ca.0).unwrap();
        self.shows(name, &[leaf.der().clone()], &key)
    }

    /// Signed by the plant's authority with OpenSSL, for what the library that we use does not make.
    async fn by_openssl(&self, name: &str, key: &[&str], extensions: Option<&str>) -> Shown {
        let files = Shown {
            chain: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        };
        let request = self.path(&format!("{name}.csr"));
        openssl(&[&["genpkey", "-out", path(&files.key)], key].concat()).await;
        openssl(&[
            "req",
            "-new",
            "-key",
            path(&files.key),
            "-subj",
            "/CN=odd",
            "-out",
            path(&request),
        ])
        .await;
        let (ca, ca_key) = (self.path("ca.pem"), self.path("ca.key"));
        let mut sign = vec![
            "x509",
            "-req",
            "-in",
            path(&request),
            "-CA",
            path(&ca),
            "-CAkey",
            path(&ca_key),
            "-days",
            "30",
        ];
        let written = self.path(&format!("{name}.ext"));
        if let Some(extensions) = extensions {
            std::fs::write(&written, extensions).unwrap();
            sign.extend(["-extfile", path(&written)]);
        }
        sign.extend(["-set_serial", "77", "-out", path(&files.chain)]);
        openssl(&sign).await;
        files
    }
}

fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

async fn openssl(arguments: &[&str]) {
    let made = Command::new("openssl").args(arguments).output().await.unwrap();
    assert!(
        made.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&made.stderr)
    );
}

/// What a client does: connects, and waits for whatever comes.
const PYTHON: &str = r#"
import socket, ssl, sys
host, port, chain, key, ca = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(ca)
context.check_hostname = False
context.set_alpn_protocols(["h2"])
context.load_cert_chain(chain, key)
with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw) as tls:
    print("read", len(tls.recv(100)))
"#;

#[derive(Debug, Clone, Copy)]
enum Client {
    OpenSsl,
    Python,
}

/// What the server found, and what the client printed.
async fn meet(
    workshop: &Workshop,
    acceptor: &TlsAcceptor,
    client: Client,
    shown: &Shown,
) -> (Result<String, String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let ca = workshop.path("ca.pem");
    let mut command = match client {
        Client::OpenSsl => {
            let mut command = Command::new("openssl");
            command.args([
                "s_client",
                "-connect",
                &format!("127.0.0.1:{port}"),
                "-alpn",
                "h2",
                "-CAfile",
                path(&ca),
            ]);
            // Certificates that OpenSSL itself finds weak are shown all the same: `SECLEVEL=0`.
            command.args([
                "-cert",
                path(&shown.chain),
                "-key",
                path(&shown.key),
                "-cipher",
                "DEFAULT:@SECLEVEL=0",
                "-quiet",
            ]);
            // With the leaf in it, it would be shown twice.
            let others = certificates_from_pem(&std::fs::read(&shown.chain).unwrap(), "a chain")
                .unwrap()
                .split_off(1);
            if !others.is_empty() {
                let file = shown.chain.with_extension("others");
                std::fs::write(&file, certificates_to_pem(&others)).unwrap();
                command.args(["-cert_chain", path(&file)]);
            }
            command
        }
        Client::Python => {
            let mut command = Command::new("python3");
            command.args([
                "-c",
                PYTHON,
                "127.0.0.1",
                &port,
                path(&shown.chain),
                path(&shown.key),
                path(&ca),
            ]);
            command
        }
    };
    // An open standard input: a client that reads its end closes.
    let started = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let found = match acceptor.accept(stream).await {
        Ok(stream) => {
            let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let identity = leaf.map(|leaf| PeerIdentity::from_certificate(leaf).unwrap().to_string());
            Ok(identity.unwrap_or_else(|| "nobody".to_owned()))
        }
        Err(error) => Err(explain(&error)),
    };
    let output = tokio::time::timeout(PATIENCE, started.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (found, String::from_utf8_lossy(&printed).into_owned())
}

/// Each odd certificate, with what the reason has to name.
async fn odd(workshop: &Workshop) -> Vec<(&'static str, Shown, &'static str)> {
    let simple = |name: &str, change: &dyn Fn(&mut CertificateParams)| {
        let mut params = ordinary(&[GATEWAY]);
        change(&mut params);
        workshop.signed(name, &params)
    };
    let own_key = KeyPair::generate().unwrap();
    let self_signed = ordinary(&[GATEWAY]).self_signed(&own_key).unwrap();
    let namesake = Authority::new();
    let foreign_key = KeyPair::generate().unwrap();
    let foreign = ordinary(&[GATEWAY]).signed_by(&foreign_key, &namesake.0).unwrap();
    // A gateway that plays authority: its own certificate is genuine.
    let mut genuine = ordinary(&["spiffe://water/gateway/thief"]);
    genuine.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let playing = CertifiedIssuer::signed_by(genuine, KeyPair::generate().unwrap(), &workshop.ca.0).unwrap();
    let played_key = KeyPair::generate().unwrap();
    let played = ordinary(&[GATEWAY]).signed_by(&played_key, &playing).unwrap();
    let long_key = KeyPair::generate().unwrap();
    let long = ordinary(&[GATEWAY]).signed_by(&long_key, &workshop.ca.0).unwrap();
    let long_chain: Vec<_> = std::iter::once(long.der().clone())
        .chain(std::iter::repeat_n(workshop.ca.root(), 6))
        .collect();
    vec![
        (
            "its time is over",
            simple("past", &|params| {
                params.not_after = rcgen::date_time_ymd(2021, 1, 1)
            }),
            "has expired (valid until 2021-",
        ),
        (
            "its time has not come",
            simple("future", &|params| {
                params.not_before = rcgen::date_time_ymd(2098, 1, 1)
            }),
            "is not valid yet (from 2098-",
        ),
        (
            "another plant",
            workshop.signed("steel", &ordinary(&["spiffe://steel/gateway/gw-1"])),
            "the peer is spiffe://steel/gateway/gw-1, not of plant water",
        ),
        (
            "no identity",
            workshop.signed("nobody", &ordinary(&[])),
            "names 0 URIs",
        ),
        (
            "two identities",
            workshop.signed("two", &ordinary(&[GATEWAY, "spiffe://water/operator/eve"])),
            "names 2 URIs",
        ),
        (
            "an identity of an unknown kind",
            workshop.signed("kind", &ordinary(&["spiffe://water/janitor/x"])),
            "`janitor/x` is not an identity",
        ),
        (
            "another spelling of an identity",
            workshop.signed("spelling", &ordinary(&["spiffe://water/gateway/GW-1"])),
            "`gateway/GW-1` is not an identity",
        ),
        (
            "a DNS name in place of an identity",
            simple("dns", &|params| {
                params.subject_alt_names = vec![SanType::DnsName("gw-1.water".try_into().unwrap())];
            }),
            "names 0 URIs",
        ),
        (
            "a life that is no number",
            simple("life", &|params| {
                params
                    .distinguished_name
                    .push(DnType::CustomDnType(vec![2, 5, 4, 5]), "one");
            }),
            "`one`",
        ),
        (
            "an authority's",
            simple("authority", &|params| {
                params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)
            }),
            "is an authority's",
        ),
        (
            "for servers alone",
            simple("server", &|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            "is not for this use (",
        ),
        (
            "for signing code alone",
            simple("code", &|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            }),
            "is not for this use (",
        ),
        (
            "a critical extension that nobody knows",
            simple("critical", &|params| {
                let mut unknown =
                    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
                unknown.set_criticality(true);
                params.custom_extensions = vec![unknown];
            }),
            "has a critical extension that is not known here",
        ),
        (
            "signed by itself",
            workshop.shows("self", &[self_signed.der().clone()], &own_key),
            "none of the authorities that are trusted here",
        ),
        (
            "of another authority by the same name",
            workshop.shows(
                "namesake",
                &[foreign.der().clone(), namesake.root()],
                &foreign_key,
            ),
            "does not bear its signature",
        ),
        (
            "of a gateway that plays authority",
            workshop.shows(
                "played",
                &[played.der().clone(), playing.der().clone()],
                &played_key,
            ),
            "its holder must not issue certificates",
        ),
        (
            "a chain of seven",
            workshop.shows("long", &long_chain, &long_key),
            "shows 7 certificates",
        ),
        (
            "X.509 version 1",
            workshop
                .by_openssl(
                    "v1",
                    &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
                    None,
                )
                .await,
            "is not of X.509 version 3",
        ),
    ]
}

/// With keys of kinds that no signature is accepted of, which the handshake says before anything is shown.
async fn unusable(workshop: &Workshop) -> [Shown; 2] {
    let san = format!("subjectAltName=URI:{GATEWAY}\nextendedKeyUsage=clientAuth\n");
    let rsa = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let p521 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"];
    [
        workshop.by_openssl("rsa", &rsa, Some(&san)).await,
        workshop.by_openssl("p521", &p521, Some(&san)).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_odd_certificate_is_refused_by_name_to_clients_that_others_wrote() {
    let workshop = Workshop::new();
    let ours = ServerCredentials::new(&workshop.ca.issue(COORDINATOR)).unwrap();
    let acceptor = TlsAcceptor::from(server_config(&plant(), ours, &[workshop.ca.root()]).unwrap());
    let good = workshop.signed("good", &ordinary(&[GATEWAY]));
    for client in [Client::OpenSsl, Client::Python] {
        let (found, printed) = meet(&workshop, &acceptor, client, &good).await;
        assert_eq!(found, Ok(GATEWAY.to_owned()), "{client:?}: {printed}");
    }
    let mut wrong = Vec::new();
    for (what, shown, named) in odd(&workshop).await {
        for client in [Client::OpenSsl, Client::Python] {
            let (found, printed) = meet(&workshop, &acceptor, client, &shown).await;
            match found {
                Err(reason) if reason.contains(named) && printed.to_lowercase().contains("alert") => {}
                found => wrong.push(format!("{what}, {client:?}: {found:?}; it printed: {printed}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A client that could not sign for it does not show it, and is nobody.
    for shown in unusable(&workshop).await {
        for client in [Client::OpenSsl, Client::Python] {
            let (found, printed) = meet(&workshop, &acceptor, client, &shown).await;
            assert_eq!(found, Ok("nobody".to_owned()), "{client:?}: {printed}");
        }
    }
}
