//! Who signs: Penstock with a secret that it read, or `ssh-keygen` with a key that no program holds.
//!
//! `ssh-keygen` is run for a key in hardware, and for the public half of a key that an agent has. It asks for touch, PIN and passphrase
//! at the terminal itself; what it returns is believed only as far as it verifies.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use penstock_policy::ids::ApproverId;
use penstock_policy::model::PublicKey;
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{ARMOR_BYTES_MAX, Signable, Signature, SshSignature};

use crate::failure::Failure;
use crate::files::quoted;

/// What makes a person's signatures.
#[derive(Debug)]
pub enum Signer {
    /// A secret key that was read.
    Here {
        /// The key.
        key: ApproverKey,
        /// Whether its file is OpenSSH's, and so its public half.
        is_openssh: bool,
    },
    /// `ssh-keygen`, with hardware or an agent.
    Tool {
        /// What it is given (`-f`): the stub of a key in hardware, or a public half.
        file: PathBuf,
        /// The key.
        public: PublicKey,
    },
}

impl Signer {
    /// The public half, in the form in which its file has it.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::Here { key, is_openssh } => {
                let plain = key.public();
                let ssh = is_openssh.then(|| PublicKey::from_ssh(&plain.to_ssh()).ok());
                ssh.flatten().unwrap_or(plain)
            }
            Self::Tool { public, .. } => *public,
        }
    }

    /// Signs, as `name`, what the caller has read and shown. `expected` is the key that the document has for that person, where it is
    /// known: a signature that would not count for it is not given away.
    ///
    /// # Errors
    /// `ssh-keygen` made none, or one that does not count.
    pub fn sign(
        &self,
        name: ApproverId,
        payload: &Signable<'_>,
        expected: Option<&PublicKey>,
    ) -> Result<Signature, Failure> {
        let signature = match self {
            Self::Here { key, .. } => key.sign_payload(name, payload),
            Self::Tool { file, .. } => {
                let made = by_tool(file, payload)?;
                brought(name, &made, payload)?
            }
        };
        let own = self.public();
        match signature.check(payload, expected.unwrap_or(&own)) {
            Ok(()) => Ok(signature),
            Err(misfit) => {
                let why = format!("the signature of {} {misfit}", signature.approver);
                Err(Failure::local("unfit-signature", "this signature would not count").because(why))
            }
        }
    }
}

/// A signature that `ssh-keygen` made, as `name`'s.
///
/// # Errors
/// It was made for something else.
pub(crate) fn brought(
    name: ApproverId,
    made: &SshSignature,
    payload: &Signable<'_>,
) -> Result<Signature, Failure> {
    let namespace = payload.namespace();
    if made.namespace != namespace {
        let message = format!(
            "the signature was made for `{}`, and `{namespace}` is expected",
            made.namespace
        );
        return Err(Failure::altered("unfit-signature", message).help(format!(
            "sign with: ssh-keygen -Y sign -n {namespace} -f KEY FILE"
        )));
    }
    Signature::new(name, made.algorithm.as_str(), &made.bytes)
        .map_err(|error| Failure::altered("unfit-signature", error.to_string()))
}

/// Has `ssh-keygen` sign.
fn by_tool(file: &Path, payload: &Signable<'_>) -> Result<SshSignature, Failure> {
    let failed = |why: &str| {
        Failure::local(
            "no-signature",
            format!("`ssh-keygen` made no signature with {}", file.display()),
        )
        .because(why.to_owned())
        .help(format!(
            "try it alone: echo test | ssh-keygen -Y sign -n test -f {}",
            quoted(file)
        ))
    };
    // What it says, and asks for, is for the person at the terminal.
    let mut tool = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", &payload.namespace(), "-f"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                failed("there is no `ssh-keygen` here: install OpenSSH's client, 8.2 or later")
            }
            _ => failed(&error.to_string()),
        })?;
    // It reads everything before it writes.
    let given = tool
        .stdin
        .take()
        .map(|mut input| input.write_all(payload.payload()));
    let mut text = String::new();
    let read = tool
        .stdout
        .take()
        .map(|output| output.take(ARMOR_BYTES_MAX as u64 + 1).read_to_string(&mut text));
    let ended = tool.wait().map_err(|error| failed(&error.to_string()))?;
    if !ended.success() {
        return Err(failed(&format!("it ended with {ended}")));
    }
    if !matches!((given, read), (Some(Ok(())), Some(Ok(_)))) {
        return Err(failed(
            "it did not read what it was to sign, or its answer cannot be read",
        ));
    }
    SshSignature::from_armor(&text).map_err(|error| failed(&error.to_string()))
}
