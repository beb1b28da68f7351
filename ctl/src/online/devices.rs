//! `devices`: certificates for devices and brokers that hold a key of their own.
//!
//! The coordinator decides what the certificate says; here it is held against what was asked for before it is written.
//! A key that is made here goes into one file and nowhere else.

mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_policy::ids::{AssetId, RoleName};
use penstock_proto::keys::{FileKey, Key, KeyError, KeyKind, certificate_request};
use penstock_proto::peer::{PeerIdentity, Subject};
use penstock_proto::role::role_of;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::tls::{certificates_to_pem, validity_ms};
use penstock_proto::v1::{IssueDeviceRequest, IssueDeviceResponse};
use rcgen::PublicKeyData as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use schemars::JsonSchema;
use serde::Serialize;

pub use self::token::DeviceTokenMade;
use super::{Online, identities, malformed, refused, requests};
use crate::args::Devices;
use crate::contexts::Contexts;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// Longest certificate request that is read, bytes: as DER the coordinator takes half of it.
const REQUEST_BYTES_MAX: u64 = 16 * 1024;

/// A certificate that was issued.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeviceIssued {
    /// What it says: `spiffe://<plant>/device/<asset>`.
    pub identity: String,
    /// The addresses and DNS names by which clients may check it, where the device serves.
    pub names: Vec<String>,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: u64,
    /// The role that it gives the device (Modbus/TCP Security); absent: none.
    pub role: Option<String>,
    /// The file that holds it.
    pub certificate: String,
    /// The file that holds the key, if it was made here.
    pub key: Option<String>,
}

impl Report for DeviceIssued {
    const SCHEMA: &'static str = "penstock.devices-issue/1";
    fn page(&self, page: &mut Page) {
        page.line(format!(
            "{} certificate of {} written to {}",
            page.paint(Tone::Good, "✓"),
            page.paint(Tone::Strong, &self.identity),
            page.paint(Tone::Name, &self.certificate)
        ));
        if self.names.is_empty() {
            page.line("  it names no address: clients that check one will not take the device for a server");
        } else {
            page.line(format!("  good for a server at {}", self.names.join(", ")));
        }
        if let Some(role) = &self.role {
            page.line(format!(
                "  it gives the role {}: certificates of another one count until you end that: penstock devices revoke ASSET --earlier",
                page.paint(Tone::Name, role)
            ));
        }
        page.line(format!(
            "  it holds until {}; before that, issue it again",
            words::when(self.expires_ms, words::now_ms())
        ));
        if let Some(key) = &self.key {
            page.line(format!(
                "  the key is in {}: carry it to the device by a way you trust, then delete it here",
                page.paint(Tone::Name, key)
            ));
        }
        page.line("  gateways accept the key that it had before until you end that: penstock devices revoke ASSET --earlier");
        page.line(format!(
            "  {} give it the plant's authority too: penstock devices authority > ca.pem",
            page.paint(Tone::Dim, "next,")
        ));
    }
}

/// `penstock devices …`.
pub(crate) async fn devices(out: &Output, context: Option<&str>, args: &Devices) -> Result<Exit, Failure> {
    match args {
        Devices::Issue {
            asset,
            request,
            new_key,
            role,
            no_role,
            out: certificate,
            wait,
        } => {
            let asset = asset_of(asset)?;
            let asked = match (request, new_key) {
                (Some(request), _) => KeyRequest::read(request)?,
                (None, Some(key)) => KeyRequest::make(key)?,
                (None, None) => return Err(Failure::usage("name --request FILE or --new-key FILE")),
            };
            let role = asked_role(role.as_ref(), *no_role);
            return issue(out, context, (asset, role), asked, certificate, *wait).await;
        }
        Devices::Token {
            asset,
            key,
            role,
            no_role,
            out: file,
            hours,
            wait,
        } => {
            let asked = (asset_of(asset)?, *key, asked_role(role.as_ref(), *no_role));
            return token::token(out, context, asked, (*hours, *wait), file).await;
        }
        Devices::List => {
            let mut online = Online::connect(context).await?;
            online.settle_zone().await;
            identities::devices(out, &mut online).await?;
        }
        Devices::Revoke {
            asset,
            earlier,
            because,
        } => {
            let mut online = Online::connect(context).await?;
            return identities::revoke_device(out, &mut online, asset, *earlier, because).await;
        }
        Devices::Authority => {
            let contexts = Contexts::open()?;
            let roots = contexts.roots(&contexts.find(context)?.name)?;
            out.text(&certificates_to_pem(&roots))?;
        }
    }
    Ok(Exit::Done)
}

/// The role that is asked for, as it is sent: absent is as it is, empty is none.
fn asked_role(role: Option<&RoleName>, no_role: bool) -> Option<String> {
    role.map(ToString::to_string)
        .or_else(|| no_role.then(String::new))
}

fn asset_of(name: &str) -> Result<AssetId, Failure> {
    AssetId::new(name)
        .map_err(|error| Failure::usage(format!("this cannot be the name of an asset: {error}")))
}

/// What a certificate is asked for.
struct KeyRequest {
    /// PKCS#10, DER.
    request: Vec<u8>,
    /// The public key in it (subjectPublicKeyInfo).
    public_key: Vec<u8>,
    /// A key that was made here, PEM, and where it shall be kept.
    made: Option<(PathBuf, Arc<FileKey>)>,
}

impl KeyRequest {
    /// A device's own request.
    fn read(path: &Path) -> Result<Self, Failure> {
        let unusable = || {
            Failure::local(
                "request-unusable",
                format!("{} holds no certificate request (PKCS#10, PEM or DER)", path.display()),
            )
            .help("make one on the device, for instance: openssl req -new -key device.key -subj /CN=device -out device.csr")
        };
        let bytes = files::read(path, REQUEST_BYTES_MAX)?;
        let request = match std::str::from_utf8(&bytes) {
            // Some programs write the older of its two labels.
            Ok(pem) => {
                let pem = pem.replace("NEW CERTIFICATE REQUEST", "CERTIFICATE REQUEST");
                CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?
            }
            Err(_) => CertificateSigningRequestDer::from(bytes),
        };
        let public_key = penstock_proto::peer::requested_key(&request).ok_or_else(unusable)?;
        Ok(Self {
            request: request.to_vec(),
            public_key,
            made: None,
        })
    }

    /// A key of our own making.
    fn make(path: &Path) -> Result<Self, Failure> {
        let failed = |error: KeyError| {
            Failure::local("key-unmade", "no key could be made for the device").caused_by(&error)
        };
        // Before anything is issued that cannot be kept.
        files::free(path)?;
        // One that waits for a second person is the same when it is asked again.
        let made = match FileKey::find(&waiting(path)).map_err(failed)? {
            Some(kept) => kept,
            None => FileKey::generate(KeyKind::EcdsaP256).map_err(failed)?,
        };
        let made = Arc::new(made);
        let key = Key::from(made.clone());
        Ok(Self {
            request: certificate_request(&key, None).map_err(failed)?,
            public_key: key.subject_public_key_info(),
            made: Some((path.to_owned(), made)),
        })
    }
}

/// Where a key lies that was made here while a second person has to confirm its certificate.
fn waiting(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".waiting");
    name.into()
}

fn unwritable(error: &KeyError) -> Failure {
    Failure::local("file-unwritable", "the device's key cannot be stored").caused_by(error)
}

async fn issue(
    out: &Output,
    context: Option<&str>,
    (asset, role): (AssetId, Option<String>),
    asked: KeyRequest,
    certificate: &Path,
    wait: bool,
) -> Result<Exit, Failure> {
    // Before anything is issued that cannot be kept.
    files::free(certificate)?;
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let request = IssueDeviceRequest {
        asset: asset.to_string(),
        certificate_request: asked.request.clone().into(),
        device_role: role.clone(),
    };
    let answer = loop {
        let answer = online.client.issue_device(request.clone()).await;
        let mut answer = answer.map_err(|status| refused(&status))?.into_inner();
        let Some(waits) = answer.waits.take() else {
            break answer;
        };
        if let Some((path, key)) = &asked.made {
            key.replace(&waiting(path)).map_err(|error| unwritable(&error))?;
        }
        if !requests::second_person(out, &mut online, waits, wait).await? {
            return Ok(Exit::Findings);
        }
    };
    let wanted = PeerIdentity {
        plant: online.login.context.plant.clone(),
        subject: Subject::Device(asset),
    };
    let roots = Contexts::open()?.roots(&online.login.name)?;
    let (chain, leaf) = checked(&answer, &wanted, &asked.public_key, &roots)?;
    let unreadable = |error: penstock_proto::peer::PeerError| malformed(&error.to_string());
    let names = ServerNames::of_certificate(&leaf).map_err(unreadable)?;
    let (_, expires_ms) = validity_ms(&leaf).map_err(unreadable)?;
    let given = role_of(&leaf).map_err(|error| malformed(&error.to_string()))?;
    let given = given.map(|role| role.to_string());
    if role.is_some_and(|asked| given.as_deref().unwrap_or_default() != asked) {
        return Err(malformed(
            "the certificate gives another role than the one that was asked for: the coordinator may be older than this `penstock`",
        ));
    }
    // The key first: a key without its certificate can be thrown away, the other way round it looks whole.
    if let Some((path, key)) = &asked.made {
        key.create(path).map_err(|error| unwritable(&error))?;
        // Nobody asks for it again.
        let _ = std::fs::remove_file(waiting(path));
    }
    files::create(certificate, certificates_to_pem(&chain).as_bytes(), Mode::Shared)?;
    out.show(&DeviceIssued {
        identity: wanted.to_string(),
        names: names
            .addresses()
            .map(|address| address.to_string())
            .chain(names.dns().map(str::to_owned))
            .collect(),
        expires_ms,
        role: given,
        certificate: certificate.display().to_string(),
        key: asked.made.map(|(path, _)| path.display().to_string()),
    })?;
    Ok(Exit::Done)
}

/// Holds the answer against what was asked for: this device, this key, the plant's own root. Gives the chain without the
/// root, which devices get as their authority, and its leaf.
fn checked(
    answer: &IssueDeviceResponse,
    wanted: &PeerIdentity,
    public_key: &[u8],
    roots: &[CertificateDer<'static>],
) -> Result<(Vec<CertificateDer<'static>>, CertificateDer<'static>), Failure> {
    let mut chain: Vec<CertificateDer<'static>> = answer
        .certificate_chain
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    if !chain.last().is_some_and(|last| roots.contains(last)) {
        return Err(Failure::altered(
            "wrong-root",
            "the certificate was not issued by the authority that your login knows",
        ));
    }
    chain.retain(|certificate| !roots.contains(certificate));
    let leaf = chain
        .first()
        .cloned()
        .ok_or_else(|| malformed("it holds no certificate"))?;
    let named = PeerIdentity::from_certificate(&leaf).map_err(|error| malformed(&error.to_string()))?;
    if named != *wanted {
        return Err(malformed(&format!("the certificate names {named}, not {wanted}")));
    }
    if penstock_proto::peer::certified_key(&leaf).as_deref() != Some(public_key) {
        return Err(malformed("the certificate is for another key"));
    }
    Ok((chain, leaf))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn answer(authority: &Authority, uri: &str, key: &KeyPair) -> IssueDeviceResponse {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let leaf = params.signed_by(key, authority).unwrap();
        IssueDeviceResponse {
            certificate_chain: vec![leaf.der().to_vec().into(), authority.der().to_vec().into()],
            trust_bundle: vec![authority.der().to_vec().into()],
            waits: None,
        }
    }

    #[test]
    fn a_certificate_for_another_device_key_or_plant_is_not_written_down() {
        let (ours, other) = (authority(), authority());
        let roots = [ours.der().clone()];
        let key = KeyPair::generate().unwrap();
        let wanted: PeerIdentity = "spiffe://water/device/plc".parse().unwrap();
        let uri = wanted.to_string();
        let judge = |answer: &IssueDeviceResponse| {
            checked(answer, &wanted, &key.subject_public_key_info(), &roots)
                .map(|(chain, _)| chain.len())
                .map_err(|failure| failure.message.to_string())
        };
        assert_eq!(judge(&answer(&ours, &uri, &key)), Ok(1));
        for (answer, expected) in [
            (
                answer(&ours, "spiffe://water/device/hmi", &key),
                "names spiffe://water/device/hmi",
            ),
            (
                answer(&ours, "spiffe://steel/device/plc", &key),
                "names spiffe://steel/device/plc",
            ),
            (
                answer(&ours, &uri, &KeyPair::generate().unwrap()),
                "for another key",
            ),
            (answer(&other, &uri, &key), "not issued by the authority"),
            (IssueDeviceResponse::default(), "not issued by the authority"),
        ] {
            let told = judge(&answer).unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
    }
}
