//! The identity key's word for the seals of the trail: asked of it when it is due, and put into the trail when it comes.
//!
//! When it is due, `penstock_proto::audit::vouching` says. A TPM takes its time to sign, or does not sign at all: the trail is sealed meanwhile, and
//! the word is asked for again.

use std::sync::Arc;
use std::time::Duration;

use penstock_proto::audit::seal::{SealText, signer_name, word};
use penstock_proto::audit::vouching::Vouching;
use penstock_proto::v1::audit_event::Kind;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::identity::Identity;

/// How long it is waited for a key that does not sign.
const AGAIN: Duration = Duration::from_secs(60);

/// Asks the identity key.
#[derive(Debug)]
pub struct Voucher {
    /// The trail.
    pub audit: Audit,
    /// Who this gateway is.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
}

impl Voucher {
    /// Until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut state = self.audit.state();
        let mut vouching = Vouching::default();
        let (mut last, mut next) = (Instant::now(), Instant::now());
        loop {
            let identity = self.identity.borrow_and_update().clone();
            if let Some(identity) = &identity {
                self.audit.seal_as(name_of(identity));
            }
            let seal = state.borrow_and_update().seal.clone();
            if let (Some(identity), Some(text)) = (identity, seal)
                && vouching.is_due(&text, identity.credentials().chain(), last.elapsed())
                && Instant::now() >= next
            {
                if self.vouch(&identity, &text).await {
                    last = Instant::now();
                    vouching.vouched(text, identity.credentials().chain());
                } else {
                    next = Instant::now() + AGAIN;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.identity.changed() => if changed.is_err() { return },
                changed = state.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Whether the key signed.
    async fn vouch(&self, identity: &Arc<Identity>, text: &SealText) -> bool {
        let (identity, signed) = (identity.clone(), text.to_string());
        let name = name_of(&identity);
        // Elsewhere than where the trail is written: a TPM takes its time.
        let asked = tokio::task::spawn_blocking(move || {
            let credentials = identity.credentials();
            word(&signed, &name, credentials.key(), credentials.chain())
        });
        match asked.await {
            Ok(Ok(word)) => {
                self.audit.note(Kind::Seal(word));
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the identity key does not vouch for the audit trail now; it is asked again");
                false
            }
            Err(_) => false,
        }
    }
}

fn name_of(identity: &Identity) -> String {
    let enrolment = &identity.enrolment;
    signer_name(enrolment.plant.as_str(), enrolment.gateway.as_str())
}
