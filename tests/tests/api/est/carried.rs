//! What a gateway carries for devices is judged again: a stolen gateway enrols nobody of elsewhere, and takes over no device.

use penstock_policy::ids::Digest;
use penstock_proto::keys::{Key, certificate_request};
use penstock_proto::peer::Certified;
use penstock_proto::refusal::Reason;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1;
use penstock_proto::v1::carry_est_response::Body;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use rustls::pki_types::CertificateDer;
use tonic::transport::Channel;

use super::Est;
use crate::world::{file_key, refused};

impl Est {
    async fn gateway(&self, name: &str) -> GatewayLinkClient<Channel> {
        let own = self.world.certificate(&format!("gateway/{name}"));
        let channel = self.world.channel(self.world.roots(), Some(own)).await.unwrap();
        GatewayLinkClient::new(channel)
    }
}

fn asked(operation: &str, key: &Key, (user, password): (&str, &str)) -> v1::CarryEstRequest {
    use base64::Engine as _;
    let request = certificate_request(key, None).unwrap();
    let body = base64::engine::general_purpose::STANDARD.encode(request);
    v1::CarryEstRequest {
        operation: operation.to_owned(),
        body: body.into_bytes().into(),
        user: user.to_owned(),
        password: password.to_owned(),
        certificate_chain: Vec::new(),
        address: "127.0.0.1".to_owned(),
    }
}

/// The status, and the words or nothing.
async fn carried(gateway: &mut GatewayLinkClient<Channel>, request: v1::CarryEstRequest) -> (u32, String) {
    let answer = gateway.carry_est(request).await.unwrap().into_inner();
    match answer.body.unwrap() {
        Body::Words(words) => (answer.status, words),
        Body::Certificate(der) => {
            assert!(!der.is_empty());
            (answer.status, String::new())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_carries_requests_of_devices_at_its_zones_and_of_no_others() {
    let est = Est::released().await;
    let (mut here, mut elsewhere) = (est.gateway("gw-a").await, est.gateway("gw-b").await);
    let secret = est.token("plc", None).await;
    let key = file_key();
    let login = ("plc", secret.as_str());
    let (status, words) = carried(&mut elsewhere, asked("simpleenroll", &key, login)).await;
    assert_eq!(status, 403, "{words}");
    assert!(
        words.contains("plc is in zone control, and gateway/gw-b does not stand there"),
        "{words}"
    );
    // Whoever has no token learns nothing of who stands where.
    for gateway in [&mut here, &mut elsewhere] {
        let (status, words) = carried(gateway, asked("simpleenroll", &key, ("plc", "guess"))).await;
        assert_eq!(status, 401, "{words}");
    }
    assert_eq!(
        carried(&mut here, asked("simpleenroll", &key, login)).await.0,
        200
    );
    for operation in ["cacerts", "csrattrs", "fullcmc", ""] {
        assert_eq!(carried(&mut here, asked(operation, &key, login)).await.0, 404);
    }
    // Neither an operator nor a device is a gateway.
    let own = est.world.certificate("operator/admin");
    let channel = est.world.channel(est.world.roots(), Some(own)).await.unwrap();
    let outcome = GatewayLinkClient::new(channel)
        .carry_est(asked("simpleenroll", &key, login))
        .await;
    refused(outcome, Reason::WrongKindOfPeer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_takes_over_no_device_by_renewing_for_a_key_of_its_own() {
    let est = Est::released().await;
    let mut gateway = est.gateway("gw-a").await;
    let (device, thief) = (file_key(), file_key());
    let secret = est.token("plc", None).await;
    let enrol = asked("simpleenroll", &device, ("plc", &secret));
    assert_eq!(carried(&mut gateway, enrol).await.0, 200);
    let record = || async {
        let answer = est
            .world
            .admin()
            .list_devices(v1::ListDevicesRequest {})
            .await
            .unwrap();
        answer.into_inner().devices[0].clone()
    };
    let enrolled = record().await;
    // The certificate that the device shows in each of its handshakes.
    let subject = "device/plc".parse().unwrap();
    let epoch = penstock_proto::peer::Epoch(enrolled.epoch);
    let shown = est
        .world
        .authority
        .issue_own(
            (&subject, epoch),
            &ServerNames::default(),
            device.clone(),
            crate::world::now_ms(),
        )
        .unwrap();
    let chain: Vec<_> = shown.chain().iter().map(|der| der.to_vec().into()).collect();
    let with = |key: &Key, certificate_chain| v1::CarryEstRequest {
        certificate_chain,
        ..asked("simplereenroll", key, ("", ""))
    };
    let (status, words) = carried(&mut gateway, with(&thief, chain.clone())).await;
    assert_eq!(status, 403, "{words}");
    assert!(words.contains("only the same key is renewed there"), "{words}");
    assert_eq!(record().await, enrolled);
    let (status, words) = carried(&mut gateway, with(&device, chain.clone())).await;
    assert_eq!(status, 200, "{words}");
    // One that somebody else issued, and none.
    let key = rcgen::KeyPair::generate().unwrap();
    let uri = "spiffe://riverside/device/plc".try_into().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
    let forged: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    assert!(Certified::from_certificate(&forged).is_ok());
    let (status, words) = carried(&mut gateway, with(&thief, vec![forged.to_vec().into()])).await;
    assert_eq!(status, 403, "{words}");
    assert!(words.contains("does not count"), "{words}");
    assert_eq!(carried(&mut gateway, with(&device, Vec::new())).await.0, 403);
    let record = record().await;
    assert_eq!(
        Digest(record.key.as_ref().try_into().unwrap()),
        Certified::from_certificate(&shown.chain()[0]).unwrap().key
    );
}
