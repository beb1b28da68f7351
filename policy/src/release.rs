//! Releases: what approvers sign, and what a gateway verifies before it obeys (DESIGN, promise 4 and §7).
//!
//! ```text
//! documents ─ digest ─┐
//! plant ── compile ── plans ── Merkle root ─▶ Statement ── exact bytes ── DSSE ── signatures of approvers
//!                       │                                        │
//!                       └── plan, leaf index, proof ─────────────┴─▶ verify_offer ─▶ VerifiedOffer | OfferRefused
//! ```
//!
//! Invariants: what was signed is never encoded again, only its bytes are kept and sent. A release says which
//! approvers hold *after* it and is itself signed by those who held *before*; so a verifier follows the chain of
//! statements from the one it holds ([`follow`]). Revisions never go backwards, and no number names two releases.
//! The half that makes signatures ([`signing`]) is a file of its own which nothing here uses.
//! A release also names how far the list of withdrawn keys and the trust bundle went ([`Anchor`]), and the coordinator's trails
//! ([`TrailsAnchor`]); what they say is not this crate's. Each
//! signature names its algorithm, and a key's form in the document says which of them count for it ([`Algorithm`]).

mod algorithm;
mod build;
mod chain;
pub(crate) mod envelope;
mod refusal;
mod signature;
pub mod signing;
mod spoken;
mod sshsig;
mod statement;
#[cfg(test)]
mod tests;
mod verify;

pub use self::algorithm::Algorithm;
pub use self::build::{BuildError, Draft, Release, ReleasedPlan, build};
pub use self::chain::{CHAIN_BYTES_MAX, CHAIN_LINKS_MAX, Link, follow};
pub use self::envelope::Envelope;
pub use self::refusal::OfferRefused;
pub use self::signature::{
    EnvelopeError, Misfit, PAYLOAD_TYPE, SIGNATURE_BYTES_MAX, SIGNATURES_MAX, Signable, Signature, encoding,
    pre_authentication_encoding,
};
pub use self::spoken::{WORDS_SPOKEN, days_ago, spoken};
pub use self::sshsig::{ARMOR_BYTES_MAX, SshSignature, SshSignatureError};
pub use self::statement::{
    Anchor, DocumentFile, REPLACES_MAX, STATEMENT_BYTES_MAX, STATEMENT_FORMAT, STATEMENT_FORMAT_ANCHORED,
    STATEMENT_FORMAT_SSH, STATEMENT_FORMAT_TRAILS, STATEMENT_FORMATS, Statement, StatementError,
    TrailsAnchor, document_digest, leaf_bytes,
};
pub use self::verify::{
    Offer, PLAN_BYTES_MAX, Trust, VerifiedOffer, VerifiedRelease, verify_offer, verify_release,
};
