//! Certificates for devices that hold a key of their own: PLCs, clients, brokers (DESIGN §6; IEC 62443-3-3 SR 1.2).
//!
//! A person with the role *admin* carries a certificate request from the device and its certificate back; there is
//! no token, and no device connects here. Its name must be an asset of the current release, and its addresses and DNS
//! names come from the same approved document. Renewing is issuing again.

use penstock_policy::ids::AssetId;
use penstock_policy::model::{FlowEnd, Plant};
use penstock_proto::peer::Subject;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::{NAMES_MAX, NamesError, ServerNames};

use crate::ca::{Authority, IssuedCertificate, ProvenKey};
use crate::enrolment::{bad_request, internal};
use crate::journal::Deed;
use crate::releases::Releases;
use crate::requests::{self, Asked, NamedRequest, Permit, Person, Requests, Wanted};
use crate::store::{Change, StoreError};
use crate::subjects::{Decision, Subjects};

/// What comes of asking for a certificate.
#[derive(Debug)]
pub(crate) enum DeviceAnswer {
    /// Here it is.
    Issued(IssuedCertificate),
    /// A second person has to confirm it first.
    Waits(Box<NamedRequest>),
}

/// Issues a certificate for `asset` to the key in the request, once it may be. With another key than it had, a new life of the device begins; gateways
/// accept the one before until it is withdrawn, since the new certificate is carried there by hand.
pub(crate) async fn issue(
    releases: &Releases,
    (subjects, authority): (&Subjects, &Authority),
    asset: &str,
    certificate_request: &[u8],
    now_ms: u64,
    deed: Deed<'_>,
    requests: (&Requests, Person<'_>),
) -> Result<DeviceAnswer, Refusal> {
    let asset = AssetId::new(asset).map_err(|error| {
        Refusal::new(Reason::BadRequest, format!("asset: {error}")).field("asset", error.to_string())
    })?;
    let proven = ProvenKey::of_request(certificate_request).map_err(bad_request)?;
    let (revision, plant) = releases.plant().await?;
    let names = names(&plant, &asset)
        .map_err(|error| Refusal::new(Reason::DocumentErrors, error.to_string()))?
        .ok_or_else(|| {
            Refusal::new(
                Reason::NotFound,
                format!(
                    "there is no asset {asset} in {revision}, the current release; a device has to be declared and \
                     approved before it gets a certificate"
                ),
            )
            .field("asset", format!("{asset} is not in {revision}"))
        })?;
    if names.len() > NAMES_MAX {
        return Err(Refusal::new(
            Reason::DocumentErrors,
            format!(
                "{asset} has {} addresses and names, and a certificate carries at most {NAMES_MAX}",
                names.len()
            ),
        ));
    }
    let subject = Subject::Device(asset.clone());
    let key = proven.digest();
    // Whose key counts already gets nothing new by another certificate.
    let permit = if subjects.is_current(&subject, key) {
        Permit::free()
    } else {
        let (requests, person) = requests;
        let wanted = Wanted::DeviceCertificate { asset, key };
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
        let life = subjects.with_key(&subject, key, decision, false)?;
        let issued = authority
            .issue((&subject, life.epoch), &names, &proven, now_ms)
            .map_err(internal)?;
        // Written before the certificate goes out.
        let words = match permit.words() {
            "" => format!("life {}", life.epoch),
            words => format!("life {}; {words}", life.epoch),
        };
        let event = deed.event(&format!("{subject} [{names}] with key {key}"), &words);
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

/// What an asset serves by: its addresses, and the DNS names that flows to it expect in a certificate of the plant's
/// authority. `None`: there is no such asset.
fn names(plant: &Plant, asset: &AssetId) -> Result<Option<ServerNames>, NamesError> {
    let Some(found) = plant.assets.get(asset) else {
        return Ok(None);
    };
    let mut names = ServerNames::default();
    names.extend(found.addresses.iter().copied());
    let flows = plant.conduits.values().flat_map(|conduit| conduit.flows.values());
    for flow in flows {
        let is_among = |ends: &[FlowEnd]| {
            ends.iter()
                .any(|end| matches!(end, FlowEnd::Asset(named, _) if named == asset))
        };
        // A bridge connects to its source, too.
        let source = flow.bridge_source.as_ref().and_then(|source| source.tls.as_ref());
        for (ends, tls) in [(&flow.destinations, flow.tls.as_ref()), (&flow.sources, source)] {
            if let Some(tls) = tls
                && is_among(ends)
                && tls.server_authorities.is_none()
            {
                tls.server_name.iter().try_for_each(|name| names.add(name))?;
            }
        }
    }
    Ok(Some(names))
}
