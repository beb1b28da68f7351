//! Who may override a gateway in front of it, as written: the section `break_glass`.

use serde_json::{Value, json};

use super::node::Node;
use super::read::{OneOrMany, Table, Term, record, scalar};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::ids::{ApproverId, Digest, GatewayId, SiteId};
use crate::model::PublicKey;
use crate::times::Span;

record! {
    /// Who in front of a gateway may override what it enforces, for a while, when the approvers cannot be reached. Without it nobody may.
    BreakGlass "who may override a gateway" {
        /// The longest that an override may last, from `1m` to `7d`; default: `8h`.
        optional longest: Span,
        /// The people of whom any two may do it together, by name.
        optional people: Table<ApproverId, Overrider>,
        /// Digests of one-time codes that lie sealed beside a gateway, by the gateway's name, one or a list
        /// (`penstock override seal`). One code is enough for one override.
        optional sealed: Table<GatewayId, OneOrMany<SealedCode>>,
    }
}

record! {
    /// One of the people who may override a gateway together.
    Overrider "one of the people who may override a gateway" {
        /// The public key: `ed25519:` and 64 hexadecimal digits, or the line of an OpenSSH `.pub` file (`ssh-ed25519 …`,
        /// `sk-ssh-ed25519@openssh.com …`; `verify-required` before the latter demands a PIN or fingerprint).
        required key: PublicKey,
        /// The sites at whose gateways, one or a list; default: everywhere.
        optional sites: OneOrMany<SiteId>,
    }
}

/// The digest of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedCode(pub(crate) Digest);

impl Term for SealedCode {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "the digest of a sealed code", faults)?;
        let digest = Digest::try_from(text.to_owned());
        if digest.is_err() {
            // What was written may be the code itself, which is shown nowhere.
            faults.add(
                Fault::new(Code::NotACodeDigest, node.place, "this is not the digest of a sealed code")
                    .label("expected: `sha256:` and 64 hexadecimal digits")
                    .help(
                        "`penstock override seal` makes a code and prints the line for the document; if the code itself stands \
                         here, make another: this one has been seen",
                    ),
            );
        }
        digest.ok().map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$" })
    }
}
