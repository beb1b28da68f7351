//! Whom EST refuses, with which status and which words.

use penstock_proto::v1;

use super::{Est, P256, done};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_with_what_is_wrong() {
    let est = Est::released().await;
    let login = format!("plc:{}", est.token("plc", None).await);
    let user = ["--user", &login];
    est.request("good", P256).await;
    est.request("rsa", &["-newkey", "rsa:2048"]).await;
    est.request("p521", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"])
        .await;
    std::fs::write(est.file("pem.b64"), "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n").unwrap();
    std::fs::write(est.file("der.b64"), std::fs::read(est.file("good.der")).unwrap()).unwrap();
    std::fs::write(est.file("empty.b64"), "").unwrap();
    std::fs::write(est.file("other.b64"), "AQIDBA==\n").unwrap();
    // Signed by another key than the one in it.
    let mut forged = std::fs::read(est.file("good.der")).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    std::fs::write(est.file("forged.der"), forged).unwrap();
    let encode = ["base64", "-in", "forged.der", "-out", "forged.b64"];
    done(est.folder.path(), "openssl", &encode).await;
    for (request, words) in [
        (
            "rsa",
            "has an RSA key, which is not accepted; use ECDSA P-256, P-384 or Ed25519",
        ),
        ("p521", "has an EC key on another curve, which is not accepted"),
        ("pem", "the body is PEM"),
        ("der", "the body is not base64"),
        ("empty", "has no body"),
        ("other", "it is not a PKCS#10 request in DER"),
        ("forged", "it is not signed by the key in it"),
    ] {
        let answered = est.post("simpleenroll", request, &user).await;
        assert_eq!(answered.status, 400, "{request}: {answered:?}");
        assert!(
            answered.headers.contains("content-type: text/plain"),
            "{answered:?}"
        );
        assert!(answered.body.contains(words), "{request}: {answered:?}");
    }
    let long = "A".repeat(20_000);
    std::fs::write(est.file("long.b64"), long).unwrap();
    assert_eq!(est.post("simpleenroll", "long", &user).await.status, 413);

    // By other ways than those that there are.
    assert_eq!(est.curl("simpleenroll", &user).await.status, 405);
    assert_eq!(est.post("cacerts", "good", &[]).await.status, 405);
    for nowhere in ["fullcmc", "serverkeygen", "label/simpleenroll", ""] {
        let answered = est.curl(nowhere, &[]).await;
        assert_eq!(answered.status, 404, "{nowhere}");
        assert!(answered.body.contains("simplereenroll"), "{answered:?}");
    }
    let plain = [
        "--data-binary",
        "@good.b64",
        "--header",
        "Content-Type: text/plain",
    ];
    let answered = est.curl("simpleenroll", &[&plain[..], &user].concat()).await;
    assert_eq!(answered.status, 415, "{answered:?}");
    let bearer = ["--header", "Authorization: Bearer abc"];
    let answered = est.post("simpleenroll", "good", &bearer).await;
    assert_eq!(answered.status, 400, "{answered:?}");
    assert!(answered.body.contains("it has to be `Basic`"), "{answered:?}");
    // None of it used the token.
    est.enrolled("good", &login).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_name_secret_or_key_gets_nothing_and_guessing_locks_no_right_token_out() {
    let est = Est::released().await;
    est.request("mine", P256).await;
    est.request("other", P256).await;
    let mine = est.digest_of("mine").await;
    let login = format!("plc:{}", est.token("plc", Some(mine)).await);
    let secret = login.strip_prefix("plc:").unwrap();
    // A gateway's token, and an operator's, are for others.
    let gateway = est
        .world
        .token(
            v1::create_token_request::Subject::Gateway("gw-a".into()),
            v1::Role::Unspecified,
        )
        .await;
    let gateway = String::from(penstock_proto::token::Secret::try_from(&gateway[..]).unwrap());
    for wrong in [
        format!("hmi:{secret}"),
        format!("PLC!:{secret}"),
        format!("device/plc:{secret}"),
        "plc:wrong".to_owned(),
        "plc:".to_owned(),
        format!("gw-a:{gateway}"),
    ] {
        let answered = est.post("simpleenroll", "mine", &["--user", &wrong]).await;
        assert_eq!(answered.status, 401, "{wrong}: {answered:?}");
        assert!(
            answered.body.contains("not known here for this name"),
            "{answered:?}"
        );
    }
    // Whoever has the secret and another key.
    let answered = est.post("simpleenroll", "other", &["--user", &login]).await;
    assert_eq!(answered.status, 403, "{answered:?}");
    assert!(
        answered.body.contains("is bound to another key") && !answered.body.contains(&mine.to_string()),
        "{answered:?}"
    );
    let mut last = 0;
    for _ in 0..10 {
        let answered = est.post("simpleenroll", "other", &["--user", "plc:guess"]).await;
        last = answered.status;
        assert!(
            last == 401 || answered.headers.contains("retry-after: "),
            "{answered:?}"
        );
    }
    assert_eq!(last, 429);
    est.enrolled("mine", &login).await;
    // Used, and not by this key.
    let answered = est.post("simpleenroll", "other", &["--user", &login]).await;
    assert!(matches!(answered.status, 403 | 429), "{answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_certificate_of_a_device_that_counts_renews() {
    let est = Est::released().await;
    est.request("d", P256).await;
    let login = format!("plc:{}", est.token("plc", None).await);
    est.enrolled("d", &login).await;
    let own = ["--cert", "d.pem", "--key", "d.key"];

    // Without one; by a password.
    for arguments in [&[][..], &["--user", &login]] {
        let answered = est.post("simplereenroll", "d", arguments).await;
        assert_eq!(answered.status, 403, "{answered:?}");
        assert!(
            answered
                .body
                .contains("needs the certificate that the device has"),
            "{answered:?}"
        );
    }
    // An operator or a gateway of the plant is no device: there is no handshake.
    for subject in ["operator/admin", "gateway/gw-a"] {
        let credentials = est.world.certificate(subject);
        let chain = penstock_proto::tls::certificates_to_pem(credentials.chain());
        std::fs::write(est.file("else.pem"), chain).unwrap();
        let url = est.url("cacerts");
        let shown = [
            "--silent",
            "--show-error",
            "--cacert",
            "ca.pem",
            "--cert",
            "else.pem",
            "--key",
            "d.key",
            &url,
        ];
        let output = super::run(est.folder.path(), "curl", &shown).await;
        assert!(!output.status.success(), "{subject}");
    }

    // Suspended is not for devices; withdrawn is.
    let change = v1::ChangeStandingRequest {
        subject: "device/plc".to_owned(),
        change: v1::StandingChange::Revoke.into(),
        reason: "its key was copied".to_owned(),
        ticket: String::new(),
    };
    est.world.admin().change_standing(change).await.unwrap();
    est.request("new", P256).await;
    for request in ["d", "new"] {
        let answered = est.post("simplereenroll", request, &own).await;
        assert_eq!(answered.status, 403, "{answered:?}");
    }
    // The token that it enrolled with is of no use either; a new one brings it back, with a new key.
    let answered = est.post("simpleenroll", "d", &["--user", &login]).await;
    assert_eq!(answered.status, 401, "{answered:?}");
    let again = format!("plc:{}", est.token("plc", None).await);
    let answered = est.post("simpleenroll", "d", &["--user", &again]).await;
    assert_eq!(answered.status, 403, "{answered:?}");
    assert!(
        answered
            .body
            .contains("was withdrawn and never gets a certificate again"),
        "{answered:?}"
    );
    est.enrolled("new", &again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_release_in_force_no_longer_names_renews_no_more() {
    use crate::world::{built, document, people, release};
    let est = Est::without_release().await;
    let mut people = people(&est.world).await;
    let assets = "assets:\n  printer: { zone: operations, address: 10.20.1.30 }\n";
    let first = built(&document(2, 99).replace("assets:\n", assets), 1, None, "anna");
    release(&mut people, &first).await;
    est.request("p", P256).await;
    est.enrolled("p", &format!("printer:{}", est.token("printer", None).await))
        .await;
    release(
        &mut people,
        &built(&document(2, 99), 2, Some(first.digest()), "anna"),
    )
    .await;
    let own = ["--cert", "p.pem", "--key", "p.key"];
    let answered = est.post("simplereenroll", "p", &own).await;
    assert_eq!(answered.status, 403, "{answered:?}");
    assert!(
        answered.body.contains("there is no asset printer in r2"),
        "{answered:?}"
    );
}
