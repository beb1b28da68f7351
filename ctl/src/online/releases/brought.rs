//! Signatures that were made elsewhere: a signed release of `release sign`, or the file that `ssh-keygen -Y sign` wrote.

use std::path::Path;

use penstock_policy::model::ApproverSet;
use penstock_policy::release::{Envelope, Signable, SshSignature};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::keys::signer;
use crate::offline::signing;

/// What a person brings.
pub(super) enum Brought {
    /// Statement and signatures.
    Release(Envelope),
    /// One signature of OpenSSH, over what only the coordinator has at hand.
    Ssh(Box<SshSignature>),
}

impl Brought {
    /// From a file, unjudged.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let bytes = files::read(file, signing::SIGNED_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        if !text.trim_start().starts_with("-----BEGIN SSH SIGNATURE-----") {
            return signing::read_envelope(file).map(Self::Release);
        }
        let made = SshSignature::from_armor(&text).map_err(|error| {
            Failure::altered(
                "signature-unusable",
                format!("the signature in {} cannot be used", file.display()),
            )
            .caused_by(&error)
        })?;
        Ok(Self::Ssh(Box::new(made)))
    }

    /// As a signed release; whose a signature of OpenSSH is, its key says.
    pub(super) fn envelope(self, statement: &[u8], approvers: &ApproverSet) -> Result<Envelope, Failure> {
        let made = match self {
            Self::Release(envelope) => return Ok(envelope),
            Self::Ssh(made) => made,
        };
        let mut people = approvers.people.iter();
        let Some((name, _)) = people.find(|(_, person)| person.key.is_held_as(&made.key)) else {
            return Err(Failure::new(
                Exit::Refused,
                "NOT_AN_APPROVER",
                format!(
                    "none of the approvers in force has the key of this signature: {}",
                    made.key
                ),
            ));
        };
        let signature = signer::brought(name.clone(), &made, &Signable::release(statement))?;
        Ok(Envelope {
            statement: statement.to_vec(),
            signatures: vec![signature],
        })
    }
}
