//! A new key for a gateway whose old one no longer counts, or shall not: made beside the old one, and in its place only once its
//! certificate is on the disk. An agent, or this program, that is killed between any two of these steps leaves a usable identity, and
//! the same command with the same token goes on where it was.
//!
//! ```text
//! identity/next/key.pem      the new key, born here; the old one is in use
//! identity/next/chain.pem    its certificate; the old key is in use still
//! identity/key.pem           the new key in one step, with the certificate in `next` until that is
//! identity/chain.pem         its certificate; what belonged to the old key goes, and `next` with it
//! ```

use std::path::PathBuf;

use penstock_proto::keys::Key;
use penstock_proto::peer::certified_key;
use penstock_proto::tls::{certificates_from_pem, certificates_to_pem};
use rcgen::PublicKeyData as _;

use super::certificates::{self, NEXT};
use super::{HeldKey, IdentityError, IdentityFolder, IssuedChain, PEM_BYTES_MAX};
use crate::durable;

impl IdentityFolder {
    fn next(&self, name: &str) -> PathBuf {
        self.path(NEXT).join(name)
    }

    /// The new key; born now, unless an attempt before made one that is not in use yet.
    ///
    /// # Errors
    /// The key cannot be read, made or stored.
    pub fn next_key(&self) -> Result<Key, IdentityError> {
        let path = self.next("key.pem");
        // One of another place than the configuration wants by now is not gone on with: that is what the command is given for.
        if let Some(key) = self.find(&path)?.filter(|key| key.place() == self.place) {
            return Ok(key.into());
        }
        durable::create_folder(&self.path(NEXT))?;
        self.born(&path)
    }

    /// Puts the new key in the old one's place, with the certificate that was issued for it.
    ///
    /// # Errors
    /// A file cannot be written. Whichever key is in its place then has a certificate.
    pub fn store_new_key(&self, issued: &IssuedChain) -> Result<(), IdentityError> {
        self.new_key_step_by_step(issued, &mut |_| {})
    }

    /// The same, and `seam` is called between each two steps.
    pub(super) fn new_key_step_by_step(
        &self,
        issued: &IssuedChain,
        seam: &mut dyn FnMut(&'static str),
    ) -> Result<(), IdentityError> {
        if self.find(&self.next("key.pem"))?.is_none() {
            return Err(IdentityError::Missing(self.next("key.pem")));
        }
        durable::create_folder(&self.path(NEXT))?;
        seam("before its certificate");
        if self.held_roots()? != issued.roots {
            self.forget_trust()?;
        }
        let roots = certificates_to_pem(&issued.roots);
        // A machine that never was a gateway has none; otherwise they are the same.
        durable::replace(&self.path("roots.pem"), roots.as_bytes(), 0o644)?;
        seam("roots");
        let chain = certificates_to_pem(&issued.chain);
        durable::replace(&self.next("chain.pem"), chain.as_bytes(), 0o644)?;
        seam("its certificate");
        self.finish_new_key(seam)
    }

    /// Goes on with a new key whose certificate is on the disk, where that was broken off; whether there was anything to do.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn resume_new_key(&self) -> Result<bool, IdentityError> {
        if durable::read(&self.next("chain.pem"), PEM_BYTES_MAX)?.is_none() {
            return Ok(false);
        }
        self.finish_new_key(&mut |_| {})?;
        Ok(true)
    }

    fn finish_new_key(&self, seam: &mut dyn FnMut(&'static str)) -> Result<(), IdentityError> {
        let Some(pem) = durable::read(&self.next("chain.pem"), PEM_BYTES_MAX)? else {
            return Ok(());
        };
        let chain = certificates_from_pem(&pem, "the certificate of the new key")?;
        let certified = chain.first().and_then(certified_key);
        let fits = |key: HeldKey| certified == Some(Key::from(key).subject_public_key_info());
        if self.find(&self.next("key.pem"))?.is_some_and(fits) {
            durable::rename(&self.next("key.pem"), &self.path("key.pem"))?;
            seam("the key in its place");
        }
        if self.find(&self.path("key.pem"))?.is_some_and(fits) {
            durable::replace(&self.path("chain.pem"), &pem, 0o644)?;
            seam("its certificate in its place");
            certificates::forget(&self.folder)?;
            seam("what belonged to the old key is gone");
        }
        durable::remove(&self.next("chain.pem"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
