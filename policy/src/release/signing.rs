//! The half that makes signatures: for an approver's own machine, never for a gateway or a coordinator.

use ed25519_dalek::{Signer as _, SigningKey};

use super::signature::{Signable, Signature};
use super::statement::{Statement, StatementError};
use crate::ids::ApproverId;
use crate::model::PublicKey;

/// An approver's secret key. Shows nothing of itself when printed, and is wiped from memory when dropped.
pub struct ApproverKey(SigningKey);

impl std::fmt::Debug for ApproverKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApproverKey({})", String::from(self.public()))
    }
}

impl ApproverKey {
    /// The key made of 32 bytes, which must come from the system's random source.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The bytes it was made of, to be kept secret: whoever takes them wipes them.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// What goes into the plant document.
    pub fn public(&self) -> PublicKey {
        PublicKey::ed25519(self.0.verifying_key().to_bytes())
    }

    /// Signs the exact bytes of a statement, after reading them: nobody signs what is no release.
    ///
    /// # Errors
    /// The bytes are not a statement in its canonical form.
    pub fn sign(&self, approver: ApproverId, statement: &[u8]) -> Result<Signature, StatementError> {
        Statement::from_bytes(statement)?;
        Ok(self.sign_payload(approver, &Signable::release(statement)))
    }

    /// Signs what was read by whoever asks.
    pub fn sign_payload(&self, name: ApproverId, payload: &Signable<'_>) -> Signature {
        Signature::ed25519(name, self.0.sign(&payload.dsse()).to_bytes())
    }
}
