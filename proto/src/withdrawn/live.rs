//! The list as those have it who meet peers: a longer one counts from the next handshake on, without anything being set up again, and
//! whoever carries connections hears of it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use penstock_policy::ids::Digest;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::Withdrawn;
use crate::peer::{Certified, Epoch, PeerError, Subject};

/// One life of a subject, as a certificate names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Whose.
    pub subject: Subject,
    /// Which.
    pub epoch: Epoch,
}

impl Life {
    /// The one that the leaf of a *verified* chain names.
    ///
    /// # Errors
    /// The certificate cannot be read, or does not name exactly one.
    pub fn of_certificate(leaf: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let certified = Certified::from_certificate(leaf)?;
        Ok(Self {
            subject: certified.identity.subject,
            epoch: certified.epoch,
        })
    }

    /// Whether it is over, by this list.
    pub fn is_over(&self, withdrawn: &Withdrawn) -> bool {
        withdrawn.is_over(&self.subject, self.epoch)
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in its life {}", self.subject, self.epoch)
    }
}

/// The list that counts now. By default nothing was withdrawn, and never will be.
#[derive(Debug, Clone)]
pub struct WithdrawnView {
    list: watch::Receiver<Arc<Withdrawn>>,
    /// SHA-256 of issuing certificates (DER) that no longer count, by the trust bundle.
    issuers: Arc<BTreeSet<Digest>>,
}

impl Default for WithdrawnView {
    fn default() -> Self {
        watch::channel(Arc::default()).1.into()
    }
}

impl From<watch::Receiver<Arc<Withdrawn>>> for WithdrawnView {
    fn from(list: watch::Receiver<Arc<Withdrawn>>) -> Self {
        Self {
            list,
            issuers: Arc::default(),
        }
    }
}

impl WithdrawnView {
    /// The same list, and these issuing certificates, below which nobody counts.
    #[must_use]
    pub fn without_issuers(self, issuers: &BTreeSet<Digest>) -> Self {
        Self {
            issuers: Arc::new(issuers.clone()),
            ..self
        }
    }

    /// Whether one of these certificates, which follow a leaf, no longer counts.
    pub fn ends_issuer(&self, issuers: &[CertificateDer<'_>]) -> bool {
        !self.issuers.is_empty()
            && issuers
                .iter()
                .any(|issuer| self.issuers.contains(&Digest::of(issuer)))
    }

    /// The list as it is now.
    pub fn now(&self) -> Arc<Withdrawn> {
        self.list.borrow().clone()
    }

    /// From which life on the subject counts, where this one is over.
    pub fn over_since(&self, subject: &Subject, epoch: Epoch) -> Option<Epoch> {
        self.list.borrow().from(subject).filter(|from| epoch < *from)
    }

    /// Whether this life is over.
    pub fn ends(&self, life: &Life) -> bool {
        life.is_over(&self.list.borrow())
    }

    /// Waits for a longer list than the one that was seen last, and gives it; for ever, if nobody can bring one.
    pub async fn grown(&mut self) -> Arc<Withdrawn> {
        if self.list.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.list.borrow_and_update().clone()
    }
}

/// The life at the other end of a connection that stands.
#[derive(Debug, Clone)]
pub struct WatchedLife {
    /// Whose, and which.
    pub life: Life,
    withdrawn: WithdrawnView,
}

impl WatchedLife {
    /// Watches it from now on; it may be over already.
    pub fn new(life: Life, withdrawn: WithdrawnView) -> Self {
        Self { life, withdrawn }
    }

    /// Whether it is over by now.
    pub fn is_over(&self) -> bool {
        self.withdrawn.ends(&self.life)
    }

    /// Waits until it is over: for ever, as a rule. May be dropped while it waits, and asked again.
    pub async fn over(&mut self) {
        let life = &self.life;
        if self
            .withdrawn
            .list
            .wait_for(|list| life.is_over(list))
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn life(epoch: u32) -> Life {
        Life {
            subject: "device/plc".parse().unwrap(),
            epoch: Epoch(epoch),
        }
    }

    #[tokio::test]
    async fn whoever_watches_a_life_hears_of_its_end_and_the_lives_after_it_and_others_go_on() {
        let (sender, list) = watch::channel(Arc::<Withdrawn>::default());
        let mut view = WithdrawnView::from(list);
        let (old, new) = (life(1), life(2));
        let mut watched = WatchedLife::new(old.clone(), view.clone());
        assert!(!view.ends(&old));
        let mut withdrawn = Withdrawn::default();
        withdrawn.withdraw(&"device/hmi".parse().unwrap(), Epoch(9));
        sender.send_replace(Arc::new(withdrawn.clone()));
        assert_eq!(view.grown().await.len(), 1);
        let early = tokio::time::timeout(std::time::Duration::ZERO, watched.over()).await;
        assert!(early.is_err() && !view.ends(&old));
        withdrawn.withdraw(&old.subject, Epoch(2));
        sender.send_replace(Arc::new(withdrawn));
        watched.over().await;
        assert!(view.ends(&old) && !view.ends(&new));
        assert_eq!(view.over_since(&old.subject, old.epoch), Some(Epoch(2)));
        assert_eq!(view.over_since(&new.subject, new.epoch), None);
        // One that stands already when its end is known is over at once.
        WatchedLife::new(old, view).over().await;
    }
}
