//! strongSwan's `pki --est`: an EST client and a TLS that others wrote.

use super::{Est, P256};

/// What it loads, and that it speaks TLS 1.3, which it does not by itself.
const SETTINGS: &str = "pki {
  load = random openssl x509 pkcs1 pkcs7 pkcs8 pem pubkey sha2 curve25519 nonce gmp hmac kdf curl
}
libtls {
  version_max = 1.3
}
";

impl Est {
    /// What `pki` printed with these arguments.
    async fn pki(&self, arguments: &[&str]) -> String {
        std::fs::write(self.file("strongswan.conf"), SETTINGS).unwrap();
        let own = ["STRONGSWAN_CONF=strongswan.conf", "pki"];
        super::done(self.folder.path(), "env", &[&own[..], arguments].concat()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_learns_the_authority_enrols_by_a_token_and_renews_by_its_certificate() {
    let est = Est::released().await;
    let folder = est.folder.path();
    let server = est.url("").split("/.well-known").next().unwrap().to_owned();
    let login = format!("plc:{}", est.token("plc", None).await);
    est.request("s", P256).await;

    // It writes each certificate into a file of its own.
    let authority = [
        "--estca",
        "--url",
        &server,
        "--cacert",
        "ca.pem",
        "--caout",
        "got.pem",
        "--outform",
        "pem",
    ];
    est.pki(&authority).await;

    let enrol = [
        "--est",
        "--url",
        &server,
        "--cacert",
        "ca.pem",
        "--in",
        "s.der",
        "--outform",
        "pem",
    ];
    let pem = est.pki(&[&enrol[..], &["--userpass", &login]].concat()).await;
    std::fs::write(est.file("s.pem"), pem).unwrap();
    super::done(folder, "openssl", &["verify", "-CAfile", "ca.pem", "s.pem"]).await;

    est.request("t", P256).await;
    let renew = [
        "--est",
        "--url",
        &server,
        "--cacert",
        "ca.pem",
        "--in",
        "t.der",
        "--outform",
        "pem",
    ];
    let by = ["--cert", "s.pem", "--key", "s.key"];
    let pem = est.pki(&[&renew[..], &by].concat()).await;
    std::fs::write(est.file("t.pem"), pem).unwrap();
    let said = super::done(folder, "openssl", &["x509", "-in", "t.pem", "-noout", "-subject"]).await;
    assert!(said.contains("serialNumber = 2"), "{said}");
}
