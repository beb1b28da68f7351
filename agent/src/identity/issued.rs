//! What a coordinator issued: held against what was asked for, and stored.
//!
//! Roots are given by people: the first came with the token. An answer adds none, whoever gave it: a coordinator, or who has taken its
//! place, could bring one of its own, and with it certificates for everybody. Those that it brings are named, and the certificate
//! counts only if one of the roots that are held issued it.

use penstock_policy::ids::Digest;
use penstock_proto::keys::Key;
use penstock_proto::peer::{PeerIdentity, Subject, certified_key};
use penstock_proto::tls::{TlsError, certificates_to_pem, issuers};
use penstock_proto::v1::EnrolResponse;
use rcgen::PublicKeyData as _;
use rustls::pki_types::CertificateDer;

use super::{Enrolment, IdentityError, IdentityFolder, PEM_BYTES_MAX, certificates};
use crate::{clock, durable};

/// What a coordinator issued, after it was checked.
#[derive(Debug)]
pub struct IssuedChain {
    /// The certificate, what issued it, and the root.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// All roots that are held.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// Roots that the answer brought and that are not kept.
    strange: Vec<Digest>,
}

impl IssuedChain {
    /// What a person should know of roots that the answer brought, if it brought any.
    pub fn strange_roots(&self) -> Option<String> {
        (!self.strange.is_empty()).then(|| in_words(&self.strange))
    }
}

fn in_words(strange: &[Digest]) -> String {
    if strange.is_empty() {
        return "the coordinator's answer names no other root".to_owned();
    }
    let digests: Vec<String> = strange.iter().map(Digest::to_string).collect();
    format!(
        "the coordinator's answer brought root certificates that this gateway does not hold, and they are not kept: SHA-256 {}. Ask who changes the plant's authority; if nobody does, the coordinator is not to be trusted",
        digests.join(", ")
    )
}

impl IdentityFolder {
    /// Holds a coordinator's answer against what was asked for: our name, our key, issued by one of the roots that are `held` or by the one
    /// that the token names.
    ///
    /// # Errors
    /// The answer has no certificate, one for another name or another key, or one that no such root issued.
    pub fn check(
        enrolment: &Enrolment,
        key: &Key,
        held: &[CertificateDer<'static>],
        answer: &EnrolResponse,
    ) -> Result<IssuedChain, IdentityError> {
        let der = |list: &[prost::bytes::Bytes]| -> Vec<CertificateDer<'static>> {
            list.iter()
                .map(|bytes| CertificateDer::from(bytes.to_vec()))
                .collect()
        };
        let (chain, brought) = (der(&answer.certificate_chain), der(&answer.trust_bundle));
        let leaf = chain
            .first()
            .ok_or_else(|| IdentityError::Issued("no certificate".to_owned()))?;
        let named = PeerIdentity::from_certificate(leaf).map_err(TlsError::from)?;
        let wanted = PeerIdentity {
            plant: enrolment.plant.clone(),
            subject: Subject::Gateway(enrolment.gateway.clone()),
        };
        if named != wanted {
            return Err(IdentityError::Issued(format!(
                "a certificate for {named} instead of {wanted}"
            )));
        }
        if certified_key(leaf) != Some(key.subject_public_key_info()) {
            return Err(IdentityError::Issued("a certificate for another key".to_owned()));
        }
        let mut roots = held.to_vec();
        let is_pinned = |root: &&CertificateDer<'static>| Digest::of(root) == enrolment.root_digest;
        if let Some(pinned) = brought.iter().find(is_pinned)
            && !roots.contains(pinned)
        {
            roots.push(pinned.clone());
        }
        if roots.is_empty() {
            return Err(IdentityError::Issued(
                "roots without the one that the token names".to_owned(),
            ));
        }
        let strange: Vec<Digest> = brought
            .iter()
            .filter(|root| !roots.contains(root))
            .map(|root| Digest::of(root))
            .collect();
        let Some(issuers) = issuers(&enrolment.plant, &chain, &roots) else {
            return Err(IdentityError::Unheld(in_words(&strange)));
        };
        Ok(IssuedChain {
            chain: std::iter::once(leaf.clone()).chain(issuers).collect(),
            strange,
            roots,
        })
    }

    /// Stores what was issued. The certificate before is kept beside it: whether the new one does is not known yet.
    ///
    /// # Errors
    /// A file cannot be written. The previous certificate then stays in use.
    pub fn store_issued(&self, issued: &IssuedChain) -> Result<(), IdentityError> {
        self.issued_step_by_step(issued, &mut |_| {})
    }

    /// The same, and `seam` is called between each two steps.
    pub(super) fn issued_step_by_step(
        &self,
        issued: &IssuedChain,
        seam: &mut dyn FnMut(&'static str),
    ) -> Result<(), IdentityError> {
        durable::create_folder(&self.folder)?;
        seam("before anything is written");
        if let Ok(Some(before)) = durable::read(&self.path("chain.pem"), PEM_BYTES_MAX) {
            certificates::keep(&self.folder, &before, clock::now_ms())?;
        }
        seam("the one before is kept");
        if self.held_roots()? != issued.roots {
            self.forget_trust()?;
        }
        durable::replace(
            &self.path("roots.pem"),
            certificates_to_pem(&issued.roots).as_bytes(),
            0o644,
        )?;
        seam("roots");
        durable::replace(
            &self.path("chain.pem"),
            certificates_to_pem(&issued.chain).as_bytes(),
            0o644,
        )?;
        seam("the new one");
        Ok(())
    }
}
