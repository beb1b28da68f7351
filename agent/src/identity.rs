//! Who this gateway is: its key, born here and never leaving, its certificate, and whom it was enrolled with.
//!
//! ```text
//! identity/key.pem     ECDSA P-256, mode 0600: PKCS#8, or a key that the TPM wrapped (`tpm`)
//! identity/chain.pem   certificate chain, leaf first; earlier ones in `identity/kept`
//! identity/roots.pem   the plant's roots: none is added by an answer alone (`identity/issued.rs`); then trust bundles (`identity/trusted.rs`)
//! identity/next/       a new key until its certificate is in use (`identity/new_key.rs`)
//! record "enrolment"   plant, gateway, coordinators, root digest, approvers (JSON)
//! ```
//!
//! No decision about traffic reads any of this except the approvers (DESIGN, promises 1 and 8; IEC 62443-3-3 SR 1.5).
//! Where a flow's TLS ends at the gateway, it is what clients and servers meet (`inspector`); that it ended cuts nothing.

mod certificates;
mod held_key;
mod issued;
mod new_key;
mod trusted;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use penstock_policy::ids::{AssetId, Digest, GatewayId, PlantId, Revision};
use penstock_policy::model::ApproverSet;
use penstock_policy::release::Trust;
use penstock_policy::terms::Tls;
use penstock_proto::bundle::Trusted;
use penstock_proto::channel::Address;
use penstock_proto::keys::{Key, KeyError};
use penstock_proto::peer::{PeerIdentity, Subject};
use penstock_proto::tls::client::{ClientProfile, Trust as PeerTrust};
use penstock_proto::tls::data_path::{BrokerError, BrokerProfile, PlantTrust};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::tls::{Credentials, TlsError, certificates_from_pem, validity_ms};
use penstock_proto::withdrawn::WithdrawnView;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

pub(crate) use self::held_key::HeldKey;
pub use self::issued::IssuedChain;
pub use self::trusted::TrustNotTaken;
use crate::clock;
use crate::durable::{self, FileError};
use crate::store::Records;
use crate::tpm::{KeyPlace, Tpm, TpmAddress, TpmError};

const RECORD: &str = "enrolment";
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// What the token and the coordinator made of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The plant.
    pub plant: PlantId,
    /// Our name in it.
    pub gateway: GatewayId,
    /// Where coordinators were said to be.
    pub coordinators: Vec<Address>,
    /// SHA-256 of the plant's root that was pinned.
    pub root_digest: Digest,
    /// Whose signatures to obey first. They came with the token, not from the coordinator.
    pub approvers: ApproverSet,
}

impl fmt::Display for Enrolment {
    /// What a person has to know, and to compare, when a machine was enrolled.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (gateway, plant) = (&self.gateway, &self.plant);
        writeln!(f, "This machine is gateway {gateway} of plant {plant} now.")?;
        writeln!(
            f,
            "It obeys releases that {} of these approvers signed; each key must be the one that its owner sees with `penstock key show FILE`:",
            self.approvers.threshold
        )?;
        let width = self
            .approvers
            .people
            .keys()
            .map(|name| name.as_str().len())
            .max()
            .unwrap_or(0);
        for (name, approver) in &self.approvers.people {
            writeln!(f, "  {:width$}  {}", name.as_str(), String::from(approver.key))?;
        }
        if self.approvers.threshold < 2 {
            writeln!(
                f,
                "One signature is enough: a single key decides what this gateway enforces."
            )?;
        }
        Ok(())
    }
}

impl Enrolment {
    /// What the gateway believes before its first policy.
    pub fn first_trust(&self) -> Trust {
        Trust {
            plant: self.plant.clone(),
            gateway: self.gateway.clone(),
            approvers: self.approvers.clone(),
            floor: Revision(0),
            current: None,
        }
    }
}

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Never enrolled here.
    #[error("this gateway is not enrolled: get a token and run `penstock-agent enrol --token FILE`")]
    NotEnrolled,
    /// Its copy in a file cannot be used; the agent itself has another one.
    #[error("the file that says who this gateway is cannot be used: {0}")]
    Copy(String),
    /// Whether it was is not known.
    #[error(
        "the enrolment record cannot be read ({0}); it may be intact: fix that first, instead of enrolling again"
    )]
    Unread(String),
    /// The record cannot be read.
    #[error("the enrolment record is damaged: enrol this gateway again")]
    Record(#[source] serde_json::Error),
    /// A file is missing.
    #[error("{} is missing: enrol this gateway again", .0.display())]
    Missing(PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate or key is unusable.
    #[error("the key or certificate of this gateway cannot be used")]
    Tls(#[from] TlsError),
    /// The key cannot be made or used.
    #[error("the key of this gateway cannot be made or used")]
    Key(#[source] KeyError),
    /// The TPM does not make a key.
    #[error("no key can be made in the TPM")]
    Tpm(#[from] TpmError),
    /// A root that is not held issued it.
    #[error(
        "the coordinator's answer is not used: no root that this gateway holds issued its certificate; {0}"
    )]
    Unheld(String),
    /// The coordinator certified something else.
    #[error("the coordinator issued {0}: its answer is not used")]
    Issued(String),
}

impl From<KeyError> for IdentityError {
    fn from(error: KeyError) -> Self {
        match error {
            // Our own sentence for it says what to do.
            KeyError::File { verb, path, source } => Self::File(FileError { verb, path, source }),
            error => Self::Key(error),
        }
    }
}

/// Key, certificate and roots, loaded.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What this machine was enrolled as.
    pub enrolment: Enrolment,
    credentials: Credentials,
    /// Earlier and later certificates of the same key, for where that one does not do; in the order in which they are shown.
    others: Vec<Credentials>,
    trusted: Trusted,
    roots: Vec<CertificateDer<'static>>,
    /// Until when the one holds that was issued last.
    newest_until_ms: u64,
    /// Whose keys in the plant no longer count.
    withdrawn: WithdrawnView,
    place: KeyPlace,
}

/// Where the files are.
#[derive(Debug, Clone)]
pub struct IdentityFolder {
    folder: PathBuf,
    withdrawn: WithdrawnView,
    /// Where new keys are made.
    place: KeyPlace,
    tpm: Tpm,
}

impl Identity {
    /// The TLS profiles for sessions: one for each certificate, the one that does by the clock here first.
    pub fn profiles(&self) -> impl Iterator<Item = ClientProfile> {
        std::iter::once(&self.credentials)
            .chain(&self.others)
            .map(|credentials| ClientProfile {
                plant: self.enrolment.plant.clone(),
                trust: PeerTrust::Roots(self.roots.clone()),
                credentials: Some(credentials.clone()),
            })
    }

    /// The same with another certificate first, if that is the one to show at `now_ms`.
    pub fn chosen_at(&self, now_ms: u64) -> Option<Self> {
        let all = std::iter::once(&self.credentials).chain(&self.others);
        let mut ordered = certificates::ordered(all.cloned().collect(), now_ms).into_iter();
        let first = ordered.next()?;
        (first.chain() != self.credentials.chain()).then(|| Self {
            credentials: first,
            others: ordered.collect(),
            ..self.clone()
        })
    }

    /// Until when the certificate holds that was issued last, milliseconds since 1970; 0: it cannot be used. Of those before, one may
    /// end far later, since a clock was wrong.
    pub fn newest_until_ms(&self) -> u64 {
        self.newest_until_ms
    }

    /// The certificate and its key, for TLS that ends here.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Where its key is held.
    pub fn key_place(&self) -> KeyPlace {
        self.place
    }

    /// The plant's roots, DER.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Which trust bundle those are of.
    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// By what its peers in the plant are judged.
    pub fn plant_trust(&self) -> PlantTrust<'_> {
        PlantTrust {
            plant: &self.enrolment.plant,
            roots: &self.roots,
            withdrawn: &self.withdrawn,
        }
    }

    /// The servers that the certificate is good for: where it says so, devices take this gateway for them.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn server_names(&self) -> Result<ServerNames, TlsError> {
        self.credentials.server_names()
    }

    /// The TLS profile towards a broker, as the plan says that it proves who it is.
    pub(crate) fn broker_profile(
        &self,
        tls: &Tls,
        asset: &AssetId,
        address: IpAddr,
    ) -> Result<BrokerProfile, BrokerError> {
        BrokerProfile::of_plan(
            tls,
            self.plant_trust(),
            (asset, address),
            self.credentials.clone(),
        )
    }

    /// When the plant's authority began, whose root was pinned at the enrolment, milliseconds since 1970; `None`: it cannot be read.
    pub fn authority_began_ms(&self) -> Option<u64> {
        let pinned = self
            .roots
            .iter()
            .find(|root| Digest::of(root) == self.enrolment.root_digest)?;
        validity_ms(pinned).ok().map(|(from, _)| from)
    }

    /// From when until when the certificate holds, milliseconds since 1970.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn validity_ms(&self) -> Result<(u64, u64), TlsError> {
        self.credentials.validity_ms()
    }
}

fn named_by(chain: &[CertificateDer<'_>]) -> Option<PeerIdentity> {
    PeerIdentity::from_certificate(chain.first()?).ok()
}

impl IdentityFolder {
    /// Below the agent's state folder.
    pub fn new(state_folder: &Path) -> Self {
        Self {
            folder: state_folder.join("identity"),
            withdrawn: WithdrawnView::default(),
            place: KeyPlace::File,
            tpm: Tpm::at(TpmAddress::default()),
        }
    }

    /// The same, where new keys are made in this place, and keys of this TPM are used by it.
    #[must_use]
    pub fn with_keys(self, place: KeyPlace, tpm: Tpm) -> Self {
        Self { place, tpm, ..self }
    }

    /// The TPM that holds its key, if one does.
    pub fn tpm(&self) -> &Tpm {
        &self.tpm
    }

    /// The same, whose identities judge their peers by this list of withdrawn keys.
    #[must_use]
    pub fn knowing(self, withdrawn: WithdrawnView) -> Self {
        Self { withdrawn, ..self }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The enrolment record alone.
    ///
    /// # Errors
    /// The machine was never enrolled, or the record cannot be read at the moment (it may be intact), or is damaged.
    pub fn enrolment(store: &mut dyn Records) -> Result<Enrolment, IdentityError> {
        let Some(bytes) = store.load(RECORD) else {
            let unread = store
                .unread(RECORD)
                .map(|why| IdentityError::Unread(why.to_owned()));
            return Err(unread.unwrap_or(IdentityError::NotEnrolled));
        };
        serde_json::from_slice(&bytes).map_err(IdentityError::Record)
    }

    /// The enrolment record from its copy in a file, while the agent holds the database.
    ///
    /// # Errors
    /// There is no copy, or the one that is there cannot be used.
    pub fn peek_enrolment(state_folder: &Path) -> Result<Enrolment, IdentityError> {
        let copy = crate::store::read_copy(state_folder, RECORD);
        let (_, bytes) = match (copy.found, copy.fault) {
            (Some(found), _) => found,
            (None, Some(fault)) => return Err(IdentityError::Copy(fault)),
            (None, None) => return Err(IdentityError::NotEnrolled),
        };
        serde_json::from_slice(&bytes).map_err(IdentityError::Record)
    }

    /// Loads everything that a session needs.
    ///
    /// # Errors
    /// No certificate that is ours can be read, or no key, or no root.
    pub fn load(&self, enrolment: Enrolment) -> Result<Identity, IdentityError> {
        self.load_at(enrolment, clock::now_ms())
    }

    /// The same, with the certificate that is to be shown at `now_ms`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_at(&self, enrolment: Enrolment, now_ms: u64) -> Result<Identity, IdentityError> {
        let key = self
            .find(&self.path("key.pem"))?
            .ok_or_else(|| IdentityError::Missing(self.path("key.pem")))?;
        let place = key.place();
        let key = Key::from(key);
        let trusted = self.trusted()?;
        let roots = trusted.certificates();
        if roots.is_empty() {
            return Err(IdentityError::Missing(self.path("roots.pem")));
        }
        let withdrawn = self.withdrawn.clone().without_issuers(&trusted.withdrawn);
        let newest = self
            .read("chain.pem")
            .and_then(|pem| Ok(certificates_from_pem(&pem, "the certificate chain")?))
            .and_then(|chain| Ok(Credentials::new(chain, key.clone())?));
        let fits = |credentials: &Credentials| ServerCredentials::new(credentials).is_ok();
        let newest_until_ms = newest
            .as_ref()
            .ok()
            .filter(|one| fits(one))
            .and_then(|one| one.validity_ms().ok())
            .map_or(0, |(_, until)| until);
        let mut all: Vec<Credentials> = newest
            .as_ref()
            .ok()
            .filter(|one| fits(one))
            .cloned()
            .into_iter()
            .collect();
        for chain in certificates::chains(&self.folder) {
            let ours = named_by(&chain).is_some_and(|named| {
                named.plant == enrolment.plant && named.subject == Subject::Gateway(enrolment.gateway.clone())
            });
            let issued_here = chain.last().is_some_and(|root| roots.contains(root));
            let counts = !withdrawn.ends_issuer(chain.get(1..).unwrap_or_default());
            if ours
                && issued_here
                && counts
                && all.iter().all(|known| known.chain() != chain)
                && let Ok(credentials) = Credentials::new(chain, key.clone())
                && fits(&credentials)
            {
                all.push(credentials);
            }
        }
        let mut ordered = certificates::ordered(all, now_ms).into_iter();
        match (ordered.next(), newest) {
            (Some(credentials), _) => Ok(Identity {
                enrolment,
                credentials,
                others: ordered.collect(),
                trusted,
                roots,
                newest_until_ms,
                withdrawn,
                place,
            }),
            (None, Err(error)) => Err(error),
            (None, Ok(credentials)) => Ok(Identity {
                enrolment,
                credentials,
                others: Vec::new(),
                trusted,
                roots,
                newest_until_ms,
                withdrawn,
                place,
            }),
        }
    }

    /// The plant's roots that are held here; none on a machine that never was a gateway.
    ///
    /// # Errors
    /// Their file cannot be read.
    pub fn held_roots(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        Ok(self.trusted()?.certificates())
    }

    fn enrolled_roots(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let path = self.path("roots.pem");
        match durable::read(&path, PEM_BYTES_MAX)? {
            Some(pem) => Ok(certificates_from_pem(&pem, &path.display().to_string())?),
            None => Ok(Vec::new()),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, IdentityError> {
        let path = self.path(name);
        durable::read(&path, PEM_BYTES_MAX)?.ok_or(IdentityError::Missing(path))
    }

    /// Stores the enrolment record.
    ///
    /// # Errors
    /// The record's file cannot be written, or one is there that cannot be read at the moment and might be newer.
    pub fn store_enrolment(
        store: &mut dyn Records,
        enrolment: &Enrolment,
    ) -> Result<(), crate::store::StoreError> {
        // Names, addresses and keys cannot fail to be JSON.
        store.save(RECORD, &serde_json::to_vec(enrolment).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::Store;

    #[test]
    fn an_enrolment_that_was_recorded_when_the_form_was_made_is_read_and_recorded_the_same_today() {
        let signed = include_str!("../../policy/fixtures/release-format-1.json");
        let envelope = penstock_policy::release::Envelope::from_json(signed).unwrap();
        let statement = penstock_policy::release::Statement::from_bytes(&envelope.statement).unwrap();
        let enrolment = Enrolment {
            plant: statement.plant,
            gateway: GatewayId::new("gw-works").unwrap(),
            coordinators: ["coordinator.example:7643", "10.0.0.5:7643", "[fd00::5]:7643"]
                .map(|written| written.parse().unwrap())
                .to_vec(),
            root_digest: Digest([5; 32]),
            approvers: statement.approvers,
        };
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path());
        IdentityFolder::store_enrolment(&mut store, &enrolment).unwrap();
        let kept = crate::fixture::kept("record-enrolment.hex", &store.load(RECORD).unwrap());
        store.save(RECORD, &kept).unwrap();
        assert_eq!(IdentityFolder::enrolment(&mut store).unwrap(), enrolment);
    }
}
