//! Certificates for devices that hold a key of their own: PLCs, clients, brokers (DESIGN §6; IEC 62443-3-3 SR 1.2).
//!
//! Either a person with the role *admin* carries a certificate request from the device and its certificate back ([`issue`]), or the
//! device asks by itself ([`crate::est`]): for its first certificate with a token that an admin made (`enrolment`), for the next ones with the
//! one that it has ([`renew`]). In each case its name must be an asset of the release in force, and its addresses and DNS
//! names come from the same approved document ([`declared`]); its role (Modbus/TCP Security) is what an admin gave it, recorded with its life,
//! and never the request's. Issuing to the same key again goes on with the device's life; another key begins one.

pub(crate) mod declared;

use std::net::IpAddr;

use penstock_policy::ids::{AssetId, RoleName};
use penstock_proto::peer::{Certified, Epoch, Subject};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::ServerNames;

use self::declared::Declared;
use crate::ca::{Authority, IssuedCertificate, ProvenKey, bad_request, internal};
use crate::journal::Deed;
use crate::releases::Releases;
use crate::requests::{self, Asked, NamedRequest, Permit, Person, Requests, Wanted};
use crate::store::{Change, OwnEvent, StoreError};
use crate::subjects::{Decision, Subjects, in_role};

/// What comes of asking for a certificate.
#[derive(Debug)]
pub(crate) enum DeviceAnswer {
    /// Here it is.
    Issued(IssuedCertificate),
    /// A second person has to confirm it first.
    Waits(Box<NamedRequest>),
}

/// Which role a device is to be given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RoleWish {
    /// As it is.
    #[default]
    Kept,
    /// This one, or none.
    Given(Option<RoleName>),
}

impl RoleWish {
    /// What an admin says: absent is as it is, empty is none.
    ///
    /// # Errors
    /// It is no name.
    pub(crate) fn from_wire(role: Option<String>) -> Result<Self, Refusal> {
        let named = |text: String| {
            RoleName::new(text).map_err(|error| {
                let words = error.to_string();
                Refusal::new(Reason::BadRequest, format!("device_role: {words}")).field("device_role", words)
            })
        };
        Ok(match role {
            None => Self::Kept,
            Some(text) if text.is_empty() => Self::Given(None),
            Some(text) => Self::Given(Some(named(text)?)),
        })
    }

    /// The role that comes of it.
    pub(crate) fn of(&self, subjects: &Subjects, subject: &Subject) -> Option<RoleName> {
        match self {
            Self::Kept => subjects.role(subject),
            Self::Given(role) => role.clone(),
        }
    }
}

/// Issues a certificate for `asset` to the key in the request, once it may be. With another key than it had, a new life of the device begins; gateways
/// accept the one before until it is withdrawn, since the new certificate is carried there by hand.
pub(crate) async fn issue(
    releases: &Releases,
    (subjects, authority): (&Subjects, &Authority),
    (asset, role): (&str, &RoleWish),
    certificate_request: &[u8],
    now_ms: u64,
    deed: Deed<'_>,
    requests: (&Requests, Person<'_>),
) -> Result<DeviceAnswer, Refusal> {
    let asset = AssetId::new(asset).map_err(|error| {
        Refusal::new(Reason::BadRequest, format!("asset: {error}")).field("asset", error.to_string())
    })?;
    let proven = ProvenKey::of_request(certificate_request).map_err(bad_request)?;
    let names = Declared::read(releases).await?.names(&asset)?;
    let subject = Subject::Device(asset.clone());
    let key = proven.digest();
    let (had, role) = (subjects.role(&subject), role.of(subjects, &subject));
    // Whose key counts already gets nothing new by another certificate in the same role.
    let permit = if subjects.is_current(&subject, key) && had == role {
        Permit::free()
    } else {
        let (requests, person) = requests;
        let wanted = Wanted::DeviceCertificate {
            asset,
            key,
            device_role: role.clone(),
        };
        match requests.permit(person, wanted, deed, now_ms).await? {
            Asked::Permitted(permit) => permit,
            Asked::Waits(request) => return Ok(DeviceAnswer::Waits(request)),
        }
    };
    loop {
        let decision = Decision {
            at_ms: now_ms,
            by: deed.operator(),
            reason: "issued",
        };
        let life = subjects.with_key_in_role(&subject, (key, role.as_ref()), decision, false)?;
        let issued = authority
            .issue_in_role((&subject, life.epoch), role.as_ref(), &names, &proven, now_ms)
            .map_err(internal)?;
        // Written before the certificate goes out.
        let words = match permit.words() {
            "" => format!("life {}", life.epoch),
            words => format!("life {}; {words}", life.epoch),
        };
        let event = deed.event(
            &format!("{subject} [{names}] with key {key}{}", in_role(role.as_ref())),
            &words,
        );
        match subjects.apply(permit.used(Change::noted(event)), life.step).await {
            Err(StoreError::Conflict { key, .. }) if !key.starts_with(requests::PREFIX) => {}
            // Also where somebody fetched it with the same request, or rejected that.
            written => {
                written?;
                return Ok(DeviceAnswer::Issued(issued));
            }
        }
    }
}

/// Issues a certificate to a device that has one, for its key or for another: `names` are what it serves by now. `event` is what the trail says of
/// it, once it is known in which life.
pub(crate) async fn renew(
    (subjects, authority): (&Subjects, &Authority),
    (certified, address): (&Certified, IpAddr),
    names: &ServerNames,
    proven: &ProvenKey,
    now_ms: u64,
    event: impl Fn(Epoch) -> OwnEvent,
) -> Result<IssuedCertificate, Refusal> {
    let (subject, key) = (&certified.identity.subject, proven.digest());
    let is_current = || subjects.is_current(subject, key);
    // What nothing is recorded of is, before a life follows it.
    if !is_current() {
        subjects.admit(certified, address).await?;
    }
    loop {
        let decision = Decision {
            at_ms: now_ms,
            by: "",
            reason: "renewed by itself",
        };
        let life = subjects.with_key(subject, key, decision, false)?;
        // After the look at the record that the step rests on: a key that is withdrawn from here on is found by the store. The answer to a
        // renewal with another key may have been lost, and whoever asks again has proved that they hold the key that counts since.
        if !is_current() {
            subjects.judge(certified)?;
        }
        let issued = authority
            .issue_in_role((subject, life.epoch), life.role.as_ref(), names, proven, now_ms)
            .map_err(internal)?;
        match subjects.apply(Change::noted(event(life.epoch)), life.step).await {
            Err(StoreError::Conflict { .. }) => {}
            written => {
                written?;
                return Ok(issued);
            }
        }
    }
}

/// Whether the current release names this asset.
pub(crate) async fn known(releases: &Releases, asset: &AssetId) -> Result<(), Refusal> {
    let (revision, plant) = releases.plant().await?;
    if plant.assets.contains_key(asset) {
        return Ok(());
    }
    let words = format!(
        "there is no device {asset}: it got no certificate, and {revision}, the current release, has no such asset"
    );
    Err(Refusal::new(Reason::NotFound, words))
}
