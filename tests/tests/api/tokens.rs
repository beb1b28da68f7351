//! Enrolment over the wire.

use penstock_proto::refusal::Reason;
use penstock_proto::token::{Secret, Token};
use penstock_proto::v1;
use penstock_proto::v1::create_token_request::Subject;
use rcgen::KeyPair;

use crate::world::{World, file_key, refused};

#[tokio::test]
async fn a_token_serves_one_key_of_one_name_also_after_a_restart() {
    let mut world = World::start().await;
    let secret = world
        .token(Subject::Gateway("gw-a".into()), v1::Role::Unspecified)
        .await;
    refused(world.enrol("gw-b", &secret).await, Reason::TokenUnknown);
    refused(world.enrol("gw-a", &secret[..31]).await, Reason::TokenUnknown);
    let key = file_key();
    world.enrol_key("gw-a", &secret, &key).await.unwrap();
    world.restart().await;
    // The reply may have been lost: the same key gets it again, another one does not.
    let credentials = world.enrol_key("gw-a", &secret, &key).await.unwrap();
    assert_eq!(
        credentials.identity().unwrap().to_string(),
        "spiffe://riverside/gateway/gw-a"
    );
    refused(world.enrol("gw-a", &secret).await, Reason::TokenUsed);
    let known = world
        .admin()
        .list_gateways(v1::ListGatewaysRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(
        known
            .gateways
            .iter()
            .any(|g| g.name == "gw-a" && g.enrolled && !g.connected)
    );
}

#[tokio::test]
async fn a_token_that_is_made_for_the_key_of_one_machine_enrols_no_other() {
    use penstock_agent::link::enrol::{EnrolError, KeyChoice, enrol, enrol_with, key_digest};
    let world = World::start().await;
    let (machine, thief) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for choice in [KeyChoice::Held, KeyChoice::New] {
        let key = key_digest(machine.path(), choice).unwrap();
        assert_eq!(key_digest(machine.path(), choice).unwrap(), key, "born once");
        let request = v1::CreateTokenRequest {
            subject: Some(Subject::Gateway("gw-1".into())),
            valid_seconds: 600,
            key_digest: key.0.to_vec().into(),
            ..v1::CreateTokenRequest::default()
        };
        let made = world.admin().create_token(request).await;
        let secret = made.unwrap().into_inner().secret.to_vec();
        let token = Token {
            secret: Secret(secret.try_into().unwrap()),
            ..crate::dark::token_with(&world, [0; 32])
        };
        let refused = enrol(thief.path(), &token).await.unwrap_err();
        assert!(matches!(&refused, EnrolError::OtherKey(_)), "{refused:?}");
        let words = refused.to_string();
        let thiefs = key_digest(thief.path(), KeyChoice::Held).unwrap().to_string();
        assert!(
            words.contains(&thiefs)
                && !words.contains(&key.to_string())
                && words.contains("`penstock-agent key`"),
            "{words}"
        );
        enrol_with(machine.path(), &token, choice).await.unwrap();
        assert_eq!(key_digest(machine.path(), KeyChoice::Held).unwrap(), key);
    }
    let said = world.trail("coordinator/c1").await;
    let said: Vec<_> = said.iter().map(|record| format!("{:?}", record.event)).collect();
    assert!(
        said.iter().any(|said| said.contains("for the key sha256:")),
        "{said:?}"
    );
    assert!(
        said.iter()
            .any(|said| said.contains("bound to another key than sha256:")),
        "{said:?}"
    );
}

#[tokio::test]
async fn requests_for_tokens_that_make_no_sense_name_the_field() {
    let world = World::start().await;
    for (subject, role, valid_seconds) in [
        (None, v1::Role::Unspecified, 600),
        (Some(Subject::Gateway("GW".into())), v1::Role::Unspecified, 600),
        (Some(Subject::Gateway("gw".into())), v1::Role::Admin, 600),
        (Some(Subject::Operator("bob".into())), v1::Role::Unspecified, 600),
        (Some(Subject::Operator("bob".into())), v1::Role::Viewer, 1),
        (Some(Subject::Operator("bob".into())), v1::Role::Viewer, u32::MAX),
    ] {
        let request = v1::CreateTokenRequest {
            role: role.into(),
            valid_seconds,
            subject,
            ..v1::CreateTokenRequest::default()
        };
        let status = world.admin().create_token(request).await.unwrap_err();
        let explained = penstock_proto::refusal::explain(&status);
        assert!(
            explained.is(Reason::BadRequest) && !explained.details.is_empty(),
            "{status:?}"
        );
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_and_locks_no_right_token_out() {
    let world = World::start().await;
    let secret = world
        .token(Subject::Gateway("gw-a".into()), v1::Role::Unspecified)
        .await;
    for _ in 0..10 {
        refused(world.enrol("gw-a", &[0; 32]).await, Reason::TokenUnknown);
    }
    refused(world.enrol("gw-a", &[0; 32]).await, Reason::TooManyAttempts);
    world.enrol("gw-a", &secret).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_for_its_own_name_only() {
    use penstock_proto::tls::{Credentials, validity_ms};
    use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
    let world = World::start().await;
    let old = world.certificate("gateway/gw-a");
    let channel = world.channel(world.roots(), Some(old)).await.unwrap();
    let key = world.key("gateway/gw-a");
    let mut wishes = rcgen::CertificateParams::default();
    wishes.subject_alt_names = vec![rcgen::SanType::URI(
        "spiffe://riverside/operator/admin".try_into().unwrap(),
    )];
    let request = wishes.serialize_request(&key).unwrap();
    let renewed = GatewayLinkClient::new(channel)
        .renew(v1::RenewRequest {
            certificate_request: request.der().to_vec().into(),
            ..v1::RenewRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    let chain: Vec<_> = renewed
        .certificate_chain
        .iter()
        .map(|der| der.to_vec().into())
        .collect();
    assert!(validity_ms(&chain[0]).unwrap().1 > crate::world::now_ms());
    let identity = Credentials::new(chain, key).unwrap().identity().unwrap();
    assert_eq!(identity.to_string(), "spiffe://riverside/gateway/gw-a");
}

#[tokio::test]
async fn a_gateway_is_listed_from_when_its_token_was_made() {
    let world = World::start().await;
    let listed = async || {
        let answer = world
            .admin()
            .list_gateways(v1::ListGatewaysRequest {})
            .await
            .unwrap();
        answer.into_inner().gateways
    };
    assert!(listed().await.is_empty());
    let secret = world
        .token(Subject::Gateway("gw-a".into()), v1::Role::Unspecified)
        .await;
    let gateways = listed().await;
    assert_eq!(gateways.len(), 1);
    assert!(gateways[0].name == "gw-a" && !gateways[0].enrolled);
    assert!(gateways[0].token_expires_ms > crate::world::now_ms());
    world.enrol("gw-a", &secret).await.unwrap();
    let gateways = listed().await;
    assert_eq!(gateways.len(), 1);
    assert!(
        gateways[0].enrolled && gateways[0].token_expires_ms == 0,
        "the token is used"
    );
}

#[tokio::test]
async fn an_operator_is_listed_with_their_role_from_when_their_token_was_made() {
    let world = World::start().await;
    let secret = world
        .token(Subject::Operator("k.ito".into()), v1::Role::Engineer)
        .await;
    let listed = async || {
        let answer = world
            .admin()
            .list_operators(v1::ListOperatorsRequest {})
            .await
            .unwrap();
        let all = answer.into_inner().operators;
        assert_eq!(
            all.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(),
            ["admin", "k.ito"]
        );
        all[1].clone()
    };
    let waits = listed().await;
    assert!(!waits.enrolled && waits.role() == v1::Role::Engineer && waits.token_expires_ms > 0);
    world.enrol("k.ito", &secret).await.unwrap();
    let enrolled = listed().await;
    assert!(enrolled.enrolled && enrolled.role() == v1::Role::Engineer && enrolled.token_expires_ms == 0);
}

/// What OpenSSL's client says about the coordinator's certificate when it looks for a name in it.
fn verified_by_openssl(world: &World, option: &str, name: &str) -> String {
    let address = world.address.to_string();
    let root = world.config.data.join("ca/root.pem");
    let output = std::process::Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &address,
            "-alpn",
            "h2",
            "-tls1_3",
            "-verify_return_error",
            option,
            name,
        ])
        .args(["-CAfile", root.to_str().unwrap()])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_others_wrote_verifies_the_coordinator_by_name_and_by_address_and_by_no_other() {
    let mut world = World::start().await;
    for (option, name) in [
        ("-verify_hostname", "coordinator.example"),
        ("-verify_ip", "127.0.0.1"),
    ] {
        let said = verified_by_openssl(&world, option, name);
        assert!(said.contains("Verify return code: 0 (ok)"), "{name}: {said}");
    }
    let said = verified_by_openssl(&world, "-verify_hostname", "elsewhere.example");
    assert!(!said.contains("Verify return code: 0 (ok)"), "{said}");
    // A name that the configuration has from now on stands in the certificate at the next start.
    world.config.names.add("elsewhere.example").unwrap();
    world.restart().await;
    let said = verified_by_openssl(&world, "-verify_hostname", "elsewhere.example");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}

/// A token that signs, as a TPM or a smart card does: what it holds cannot be read, copied or stored by anybody who has it.
#[derive(Debug)]
struct Sealed {
    pair: KeyPair,
    signed: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl penstock_proto::keys::KeyHolder for Sealed {
    fn kind(&self) -> penstock_proto::keys::KeyKind {
        penstock_proto::keys::KeyKind::Ed25519
    }

    fn public_key(&self) -> &[u8] {
        self.pair.public_key_raw()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, penstock_proto::keys::KeyError> {
        self.signed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(rcgen::SigningKey::sign(&self.pair, message)?)
    }
}

#[tokio::test]
async fn a_key_that_never_leaves_its_holder_enrols_a_gateway_and_holds_its_mutual_tls() {
    use std::sync::atomic::Ordering::SeqCst;
    let world = World::start().await;
    let secret = world
        .token(Subject::Gateway("gw-a".into()), v1::Role::Unspecified)
        .await;
    let signed = std::sync::Arc::default();
    let key = penstock_proto::keys::Key::new(Sealed {
        pair: KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
        signed: std::sync::Arc::clone(&signed),
    });
    let credentials = world.enrol_key("gw-a", &secret, &key).await.unwrap();
    assert_eq!(signed.load(SeqCst), 1, "the request");
    let channel = world.channel(world.roots(), Some(credentials)).await.unwrap();
    let request = penstock_proto::keys::certificate_request(&key, None).unwrap();
    let renewed = v1::gateway_link_client::GatewayLinkClient::new(channel)
        .renew(v1::RenewRequest {
            certificate_request: request.into(),
            ..v1::RenewRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        signed.load(SeqCst),
        3,
        "the session's handshake, and the second request"
    );
    let leaf = renewed.certificate_chain[0].to_vec().into();
    assert_eq!(
        penstock_proto::peer::certified_key(&leaf),
        Some(rcgen::PublicKeyData::subject_public_key_info(&key))
    );
}
