//! From a token to an identity: the pinned root, the key born here, the certificate for it.
//!
//! Order matters for a broken connection: the key is on the disk before the token is shown to anybody, so that
//! trying again with the same token and key gets the same answer instead of "used". A new key for a gateway that has one takes its
//! place only with its certificate (`identity/new_key.rs`).

use std::fmt;
use std::path::Path;

use penstock_policy::ids::Digest;
use penstock_policy::text::sentence;
use penstock_proto::channel;
use penstock_proto::keys::certificate_request;
use penstock_proto::peer::{PeerIdentity, Subject};
use penstock_proto::refusal::{Reason, explain};
use penstock_proto::tls::TlsError;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::token::Token;
use penstock_proto::v1::EnrolRequest;
use penstock_proto::v1::enrolment_client::EnrolmentClient;
use rcgen::PublicKeyData as _;
use tonic::Status;

use crate::identity::{Enrolment, IdentityError, IdentityFolder};
use crate::rollback;
use crate::store::{Store, StoreError};
use crate::tpm::KeyPlace;
use crate::withdrawn::StoredList;

/// Why this machine was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token is for a person or another kind of peer.
    #[error("this token enrols {0}, not a gateway: ask for a token of this gateway")]
    WrongSubject(Subject),
    /// The token lacks what a gateway must not learn from the coordinator.
    #[error(
        "this token carries no approvers: make it with `penstock gateways token`, with the plant document at hand"
    )]
    NoApprovers,
    /// Already somebody else here.
    #[error(
        "this machine is already enrolled as gateway {gateway} of plant {plant}: to make it another one, stop the agent and remove its state folder"
    )]
    AlreadyEnrolled {
        /// Its name.
        gateway: String,
        /// Its plant.
        plant: String,
    },
    /// Our own key, files or the answer.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// No coordinator could be reached, or it is not ours.
    #[error(transparent)]
    Connect(#[from] channel::ConnectError),
    /// The token's time is over.
    #[error("the token has expired: ask for a new one")]
    Expired,
    /// The token was used, with another key.
    #[error("the token was already used: ask for a new one, and find out who used it")]
    Used,
    /// The coordinator does not know the token for this name.
    #[error(
        "the coordinator does not know this token for {0}: it belongs to another gateway, or was withdrawn"
    )]
    Unknown(String),
    /// The token was made for the key of another machine.
    #[error("{0}; `penstock-agent key` shows the key of this machine")]
    OtherKey(String),
    /// A key that was withdrawn never enrols again.
    #[error(
        "this machine's key was withdrawn, and never counts again ({0}): run the same command with --new-key, which makes another one"
    )]
    Withdrawn(String),
    /// Refused for another reason.
    #[error("the coordinator refused: {}", explain(.0).message)]
    Refused(#[source] Box<Status>),
    /// The result could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Status> for EnrolError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// What came of an enrolment.
#[derive(Debug)]
pub struct Enrolled {
    /// What this machine is now.
    pub enrolment: Enrolment,
    /// What a person should know of roots that the coordinator named beside the token's.
    pub strange_roots: Option<String>,
    /// Why nothing tells yet whether the disk of a gateway with its key in a TPM is set back one day.
    pub unguarded: Option<String>,
}

impl fmt::Display for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.enrolment.fmt(f)?;
        if let Some(words) = &self.strange_roots {
            writeln!(f, "Note: {words}")?;
        }
        if let Some(words) = &self.unguarded {
            writeln!(
                f,
                "Note: it is enrolled, and no counter guards its disk yet ({words}). Once that is mended: penstock-agent accept-disk --reason TEXT"
            )?;
        }
        Ok(())
    }
}

/// With which key a machine enrols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChoice {
    /// The one that it has, or the first one.
    Held,
    /// A new one in its place.
    New,
}

/// Enrols this machine with `token`; key, certificate and record are stored in `state_folder` when it returns.
///
/// # Errors
/// The token is for somebody else, without approvers, used, expired or unknown; the machine is enrolled as another
/// gateway; no coordinator with the token's root can be reached; or key, certificate or record cannot be stored. The
/// same token can be tried again unless it was refused.
pub async fn enrol(state_folder: &Path, token: &Token) -> Result<Enrolled, EnrolError> {
    enrol_with(state_folder, token, KeyChoice::Held).await
}

/// The same with the key of this choice. A new one takes the old one's place only when its certificate is on the disk.
///
/// # Errors
/// As [`enrol`].
pub async fn enrol_with(
    state_folder: &Path,
    token: &Token,
    choice: KeyChoice,
) -> Result<Enrolled, EnrolError> {
    enrol_into(&IdentityFolder::new(state_folder), state_folder, token, choice).await
}

/// The same with the identity's `folder`, which says where a key is made.
///
/// # Errors
/// As [`enrol`]; and the TPM makes no key, or does not sign.
pub async fn enrol_into(
    folder: &IdentityFolder,
    state_folder: &Path,
    token: &Token,
    choice: KeyChoice,
) -> Result<Enrolled, EnrolError> {
    let Subject::Gateway(gateway) = &token.subject else {
        return Err(EnrolError::WrongSubject(token.subject.clone()));
    };
    let approvers = token.approvers.clone().ok_or(EnrolError::NoApprovers)?;
    let mut store = Store::open(state_folder);
    if let Ok(before) = IdentityFolder::enrolment(&mut store)
        && (before.gateway != *gateway || before.plant != token.plant)
    {
        return Err(EnrolError::AlreadyEnrolled {
            gateway: before.gateway.to_string(),
            plant: before.plant.to_string(),
        });
    }
    // One that was broken off with its certificate on the disk is this one: its key is new.
    let is_next = !folder.resume_new_key()? && choice == KeyChoice::New;
    let key = if is_next {
        folder.next_key()?
    } else {
        folder.key()?
    };
    let identity = PeerIdentity {
        plant: token.plant.clone(),
        subject: token.subject.clone(),
    };
    let request = certificate_request(&key, Some(&identity)).map_err(IdentityError::from)?;
    let profile = ClientProfile {
        plant: token.plant.clone(),
        trust: Trust::Pin(token.root_digest),
        credentials: None,
    };
    let known = StoredList::read(&mut store).view();
    let connection = channel::connect(token.coordinators.clone(), profile.config_knowing(&known)?).await?;
    let answer = EnrolmentClient::new(connection)
        .enrol(EnrolRequest {
            name: gateway.to_string(),
            secret: token.secret.0.to_vec().into(),
            certificate_request: request.into(),
            approvers_digest: approvers.digest().0.to_vec().into(),
        })
        .await
        .map_err(|status| refused(status, gateway.as_str(), choice))?
        .into_inner();
    let enrolment = Enrolment {
        plant: token.plant.clone(),
        gateway: gateway.clone(),
        coordinators: token.coordinators.clone(),
        root_digest: token.root_digest,
        approvers,
    };
    let issued = IdentityFolder::check(&enrolment, &key, &folder.held_roots()?, &answer)?;
    if is_next {
        folder.store_new_key(&issued)?;
    } else {
        folder.store_issued(&issued)?;
    }
    IdentityFolder::store_enrolment(&mut store, &enrolment)?;
    let unguarded = match folder.key_place()? {
        Some(KeyPlace::Tpm) => rollback::begin(state_folder, folder.tpm()).err(),
        Some(KeyPlace::File) | None => None,
    };
    Ok(Enrolled {
        enrolment,
        strange_roots: issued.strange_roots(),
        unguarded: unguarded.map(|error| sentence(&error)),
    })
}

/// The digest of the key with which this machine enrols by this choice; born now, if there is none. So a token can be made for it.
///
/// # Errors
/// The key cannot be read, made or stored.
pub fn key_digest(state_folder: &Path, choice: KeyChoice) -> Result<Digest, IdentityError> {
    key_digest_in(&IdentityFolder::new(state_folder), choice)
}

/// The same with the identity's `folder`, which says where a key is made.
///
/// # Errors
/// As [`key_digest`]; and the TPM makes no key.
pub fn key_digest_in(folder: &IdentityFolder, choice: KeyChoice) -> Result<Digest, IdentityError> {
    let is_next = !folder.resume_new_key()? && choice == KeyChoice::New;
    let key = if is_next {
        folder.next_key()?
    } else {
        folder.key()?
    };
    Ok(Digest::of(&key.subject_public_key_info()))
}

fn refused(status: Status, gateway: &str, choice: KeyChoice) -> EnrolError {
    let explained = explain(&status);
    if explained.is(Reason::TokenExpired) {
        EnrolError::Expired
    } else if explained.is(Reason::TokenUsed) {
        EnrolError::Used
    } else if explained.is(Reason::TokenUnknown) {
        EnrolError::Unknown(gateway.to_owned())
    } else if explained.is(Reason::TokenForOtherKey) {
        EnrolError::OtherKey(explained.message)
    } else if explained.is(Reason::KeyWithdrawn) && choice == KeyChoice::Held {
        EnrolError::Withdrawn(explained.message)
    } else {
        status.into()
    }
}
