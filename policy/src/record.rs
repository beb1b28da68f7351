//! Change-control records: one file that says what was changed, who allowed it, how it was carried out and what came of it, and that
//! anybody can verify with public keys alone (IEC 62443-2-1 CM 1.4, NERC CIP-010).
//!
//! ```text
//! baseline ─▶ authorisation ─▶ implementation ─▶ verification ─▶ new baseline
//! statement    statement,       plan, events,     gateways' own    digest
//!              signatures       trail             digests, health
//!    └── proved by signatures ──┘    └── the coordinator's word, held by the signature of who made the record ──┘
//! ```
//!
//! Canonical JSON in a DSSE envelope, as releases are, with a type of its own: a signature over a record can never be one over a
//! release. What a record proves and what it only repeats is said claim by claim ([`verify`]).

mod content;
#[cfg(test)]
mod tests;
mod verify;

pub use self::content::{
    Authorisation, ChangeRecord, GatewayRecord, HeldPolicy, Implementation, RECORD_BYTES_MAX, RECORD_FORMAT,
    RECORD_TYPE, RecordError, RecordedEvent, RecordedStatement, SignedRecord, StatementSignature, TrailEntry,
    Verification, ZoneRecord,
};
pub use self::verify::{Believed, Claim, Grade, verify};
