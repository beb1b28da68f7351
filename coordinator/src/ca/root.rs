//! A root whose key is kept on a machine without a network: it certifies the key by which a coordinator issues, and nothing else. Whoever
//! has the coordinator's machine can issue until that certificate is withdrawn; whoever has this key can do so for ever.

use std::path::Path;
use std::time::Duration;

use penstock_policy::ids::{CoordinatorId, PlantId};
use penstock_proto::bundle::SignedBundle;
use penstock_proto::issuing;
use penstock_proto::keys::{FileKey, Key, KeyError, KeyKind, Passphrase};
use penstock_proto::tls::{TlsError, validity_ms};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use super::request::ProvenKey;
use super::{CaError, certificate, issue};
use crate::files;
use crate::pkcs11::{KeyUri, TokenKey};

/// Says where the root's key is, if that is on a token.
const KEY_URI: &str = "root.uri";

/// How long a root is valid: as long as the plant may stand.
const VALIDITY: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A root, with its key at hand.
pub struct OfflineRoot {
    plant: PlantId,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, Key>,
}

/// What a root certifies of a coordinator.
#[derive(Debug, Clone)]
pub struct IssuingTerms {
    /// Whose key it is.
    pub coordinator: CoordinatorId,
    /// For how long.
    pub lifetime: Duration,
    /// Whether the standard's name constraints are in it, which some programs refuse ([`issuing::params`]).
    pub constrained: bool,
}

/// What a root says of itself; `path`: how many may stand between it and a leaf.
pub(super) fn params(plant: &PlantId, path: u8, now_ms: u64) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = issue::name(&format!("Penstock root of {plant}"));
    numbered(&mut params)?;
    issue::validity(&mut params, issue::backdated(now_ms), now_ms, VALIDITY);
    Ok(params)
}

/// Two authorities of the same plant must not look the same to those who compare names.
fn numbered(params: &mut CertificateParams) -> Result<(), CaError> {
    let serial = issue::serial()?;
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, hex::encode(serial.to_bytes()));
    params.serial_number = Some(serial);
    Ok(())
}

impl OfflineRoot {
    /// Makes a root for `plant` in a new folder, its key locked by the passphrase, if there is one.
    ///
    /// # Errors
    /// The folder is there already; key or certificate cannot be made or written.
    pub fn create(
        dir: &Path,
        plant: PlantId,
        passphrase: Option<&Passphrase>,
        now_ms: u64,
    ) -> Result<Self, CaError> {
        let params = params(&plant, 1, now_ms)?;
        files::new_private_folder(dir)?;
        let key = FileKey::generate(KeyKind::EcdsaP384)?;
        let key_file = dir.join("root.key");
        match passphrase {
            Some(passphrase) => key.create_locked(&key_file, passphrase)?,
            None => key.create(&key_file)?,
        }
        let key = Key::new(key);
        let made = params.self_signed(&key)?;
        files::write_new(&dir.join("root.pem"), made.pem().as_bytes())?;
        Ok(Self {
            plant,
            certificate: made.der().clone(),
            issuer: Issuer::from_ca_cert_der(made.der(), key)?,
        })
    }

    /// Makes a root for `plant` in a new folder, whose key is made on a token and stays there.
    ///
    /// # Errors
    /// The folder is there already, or the key is; the token cannot be used; the certificate cannot be made or written.
    pub fn create_on(dir: &Path, plant: PlantId, uri: &KeyUri, now_ms: u64) -> Result<Self, CaError> {
        files::new_private_folder(dir)?;
        let made = Self::made_on(dir, plant, uri, now_ms);
        if made.is_err() {
            // Of a token that failed it is empty, and would be in the way of the next attempt; one that holds something stays.
            let _ = std::fs::remove_dir(dir);
        }
        made
    }

    fn made_on(dir: &Path, plant: PlantId, uri: &KeyUri, now_ms: u64) -> Result<Self, CaError> {
        let params = params(&plant, 1, now_ms)?;
        let (key, is_new) = TokenKey::open_or_make(uri)?;
        if !is_new {
            return Err(CaError::NotInstalled(format!(
                "there is a {} on the {} already, and a root has a key of its own: name another one",
                uri.key_in_words(),
                uri.token_in_words()
            )));
        }
        let key = Key::from(key);
        let made = params.self_signed(&key)?;
        files::write_new(&dir.join(KEY_URI), format!("{uri}\n").as_bytes())?;
        files::write_new(&dir.join("root.pem"), made.pem().as_bytes())?;
        Ok(Self {
            plant,
            certificate: made.der().clone(),
            issuer: Issuer::from_ca_cert_der(made.der(), key)?,
        })
    }

    /// Opens the root in a folder; `ask` gives the passphrase of a key that is locked.
    ///
    /// # Errors
    /// A file is missing, unreadable or damaged, the passphrase is wrong, or the root is not one that others may issue below.
    pub fn open(dir: &Path, ask: impl FnOnce() -> Result<Passphrase, KeyError>) -> Result<Self, CaError> {
        let file = dir.join("root.pem");
        let certificate = certificate(&file)?;
        let plant = plant_of(&certificate).ok_or_else(|| {
            CaError::NotInstalled(format!(
                "{} is not a root certificate that `penstock-coordinator authority new` made",
                file.display()
            ))
        })?;
        let uri = dir.join(KEY_URI);
        let key = match uri.exists() {
            true => {
                let text = String::from_utf8_lossy(&files::read(&uri)?).into_owned();
                let read = text.trim().parse();
                let read =
                    read.map_err(|error| CaError::NotInstalled(format!("{} {error}", uri.display())))?;
                let key = TokenKey::of_certificate(&certificate, vec![read]).ok_or_else(|| {
                    CaError::NotInstalled(format!("{} has a key of another kind", file.display()))
                })?;
                key.look_for()?;
                Key::from(key)
            }
            false => Key::new(FileKey::open_locked(&dir.join("root.key"), ask)?),
        };
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self {
            plant,
            certificate,
            issuer,
        })
    }

    /// The plant.
    pub fn plant(&self) -> &PlantId {
        &self.plant
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Certifies the key in a request for issuing, and gives the certificate as PEM. It is valid from the root's own beginning on, so that
    /// also those accept it whose clocks are behind.
    ///
    /// # Errors
    /// The request cannot be used, or the key cannot sign.
    pub fn sign(&self, request: &[u8], terms: &IssuingTerms, now_ms: u64) -> Result<String, CaError> {
        let proven = ProvenKey::of_request(request)?;
        let plant = &self.plant;
        let mut params = issuing::params(plant, terms.constrained)?;
        let coordinator = &terms.coordinator;
        params.distinguished_name = issue::name(&format!("Penstock authority of {plant} at {coordinator}"));
        numbered(&mut params)?;
        let (from_ms, until_ms) = validity_ms(&self.certificate).map_err(TlsError::from)?;
        let left = Duration::from_millis(until_ms.saturating_sub(now_ms));
        issue::validity(&mut params, from_ms, now_ms, terms.lifetime.min(left));
        let made = params.signed_by(&proven.key, &self.issuer)?;
        issuing::judge(made.der(), plant, std::slice::from_ref(&self.certificate))
            .map_err(CaError::Issuing)?;
        Ok(made.pem())
    }
}

impl OfflineRoot {
    /// Signs a trust bundle.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn sign_bundle(&self, bundle: &mut SignedBundle) -> Result<(), CaError> {
        Ok(bundle.sign(self.issuer.key())?)
    }
}

/// The plant that a root names.
fn plant_of(root: &CertificateDer<'_>) -> Option<PlantId> {
    let (_, parsed) = x509_parser::parse_x509_certificate(root).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    PlantId::new(name.strip_prefix("Penstock root of ")?).ok()
}
