//! The role that a device's certificate gives it: who decides it, who confirms it, and what ends with it.

use penstock_proto::refusal::Reason;
use penstock_proto::role::{ROLE_OID, encoded, role_of};
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::CertificateDer;

use super::{issue_in_role, released};
use crate::world::{Control, refused};

#[tokio::test]
async fn a_role_is_what_an_admin_gave_the_device_and_a_second_person_confirmed_whatever_its_request_wishes() {
    let world = released().await;
    let key = KeyPair::generate().unwrap();
    let wished = "engineer".parse().unwrap();
    let mut wishes = CertificateParams::default();
    wishes
        .custom_extensions
        .push(CustomExtension::from_oid_content(ROLE_OID, encoded(&wished)));
    let wishes = wishes.serialize_request(&key).unwrap();
    let mut admin = world.admin();
    let role = async |admin: &mut Control, role: Option<&str>| {
        let leaf = issue_in_role(&world, admin, ("hmi", role), wishes.der())
            .await
            .unwrap();
        role_of(&leaf).unwrap().map(|role| role.to_string())
    };
    assert_eq!(role(&mut admin, None).await, None);

    // The same key in another role is another person's business too, and what waits names it.
    let asked = v1::IssueDeviceRequest {
        asset: "hmi".to_owned(),
        certificate_request: wishes.der().to_vec().into(),
        device_role: Some("operator".to_owned()),
    };
    let waits = admin
        .issue_device(asked)
        .await
        .unwrap()
        .into_inner()
        .waits
        .unwrap();
    assert_eq!(
        (waits.subject.as_str(), waits.device_role.as_str()),
        ("device/hmi", "operator")
    );
    assert_eq!(
        role(&mut admin, Some("operator")).await.as_deref(),
        Some("operator")
    );
    let of_hmi = async |admin: &mut Control| {
        let listed = admin.list_devices(v1::ListDevicesRequest {}).await.unwrap();
        let mut devices = listed.into_inner().devices.into_iter();
        devices.find(|device| device.subject == "device/hmi").unwrap()
    };
    let before = of_hmi(&mut admin).await;
    assert_eq!(before.device_role, "operator");

    // Issued again it stays, and nobody is asked; without it the device is in another life, so that the one before can be ended.
    let again = v1::IssueDeviceRequest {
        asset: "hmi".to_owned(),
        certificate_request: wishes.der().to_vec().into(),
        device_role: None,
    };
    let again = admin.issue_device(again).await.unwrap().into_inner();
    let leaf = CertificateDer::from(again.certificate_chain[0].to_vec());
    assert_eq!(role_of(&leaf).unwrap(), Some("operator".parse().unwrap()));
    assert_eq!(role(&mut admin, Some("")).await, None);
    let after = of_hmi(&mut admin).await;
    assert_eq!((after.device_role.as_str(), &after.key), ("", &before.key));
    assert!(after.epoch > before.epoch, "{before:?} {after:?}");

    let told = refused(
        issue_in_role(&world, &mut admin, ("hmi", Some("Chief Operator")), wishes.der()).await,
        Reason::BadRequest,
    );
    assert!(
        told.contains("device_role: `Chief Operator` is not a name"),
        "{told}"
    );
    let trail = world.trail("coordinator/c1").await;
    let written = trail.iter().any(|record| {
        matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Operator(event))
            if event.action == "issue-device" && event.target.ends_with(" in the role operator")
                && event.target.starts_with("device/hmi [10.20.1.21] with key sha256:"))
    });
    assert!(written, "{trail:?}");
}
