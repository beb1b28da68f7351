//! A device's role (Modbus/TCP Security) by EST, as OpenSSL reads it in the certificate.

use super::{Est, P256, done};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_by_a_token_in_the_role_that_was_said_for_it_and_a_renewal_keeps_it() {
    let est = Est::released().await;
    let secret = est.token_in_role("hmi", None, Some("operator")).await;
    est.request("hmi", P256).await;
    est.enrolled("hmi", &format!("hmi:{secret}")).await;
    // As OpenSSL reads it: a UTF8String of eight characters.
    let shown = async |pem: &str| {
        let said = done(
            est.folder.path(),
            "openssl",
            &["x509", "-in", pem, "-noout", "-text"],
        )
        .await;
        let (_, after) = said.split_once("1.3.6.1.4.1.50316.802.1:").unwrap();
        after.lines().nth(1).unwrap().trim().to_owned()
    };
    assert_eq!(shown("hmi.pem").await, "..operator");
    // Renewed for the same key, and then for another one.
    est.request_of_key("hmi").await;
    for (from, to) in [("hmi", "hmi"), ("hmi", "next")] {
        if to == "next" {
            est.request("next", P256).await;
        }
        let (cert, key) = (format!("{from}.pem"), format!("{from}.key"));
        let answered = est
            .post("simplereenroll", to, &["--cert", &cert, "--key", &key])
            .await;
        assert_eq!(answered.status, 200, "{answered:?}");
        est.keep("renewed", &answered).await;
        assert_eq!(shown("renewed.pem").await, "..operator", "{to}");
    }
}
