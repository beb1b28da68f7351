//! Takes trust bundles while the agent runs: from the coordinator, or from a file that somebody brings. What is taken is on the disk before it
//! counts, and counts from the next handshake on; what is refused is a fault, and changes nothing (DESIGN §6; IEC 62443-3-3 SR 1.8).

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use penstock_policy::ids::Digest;
use penstock_policy::release::Anchor;
use penstock_policy::text::sentence;
use penstock_proto::bundle::{SignedBundle, Trusted};
use penstock_proto::event::AgentStep;
use penstock_proto::v1::{Fault, TrustBundles, TrustHeld};
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::audit::{Audit, record};
use crate::identity::{Identity, IdentityFolder, TrustNotTaken};

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// There is no root to judge it by.
    #[error("this gateway is not enrolled, so it cannot tell whose trust bundle it is")]
    NotEnrolled,
    /// For what it is, or since it cannot be kept.
    #[error(transparent)]
    Trust(#[from] TrustNotTaken),
    /// An internal error in a blocking part.
    #[error("internal error while the trust bundle was taken")]
    Agent,
}

/// Takes bundles.
#[derive(Debug)]
pub struct TrustKeeper {
    folder: IdentityFolder,
    identity: watch::Sender<Option<Arc<Identity>>>,
    audit: Audit,
    said: Mutex<Said>,
    faults: watch::Sender<Vec<Fault>>,
    /// One is taken at a time.
    taking: AsyncMutex<()>,
}

/// What a person should know, in words.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Said {
    /// Why the last bundles that a coordinator sent were refused.
    refused: Option<String>,
    /// The bundle that the approvers of a release name and this gateway does not hold, and why. A coordinator that keeps it back cannot end this with another
    /// one.
    lacks: Option<(Anchor, String)>,
}

/// Whether what is trusted goes as far as what approvers name.
fn reaches(held: &Trusted, anchor: Anchor) -> bool {
    match held.number.cmp(&anchor.number) {
        Ordering::Greater => true,
        Ordering::Equal => held.digest == anchor.digest,
        Ordering::Less => false,
    }
}

/// What is trusted, in words.
pub fn in_words(trusted: &Trusted) -> String {
    let roots: Vec<String> = trusted
        .roots
        .iter()
        .map(|(root, phase)| format!("{} {phase}", Digest::of(root)))
        .collect();
    let withdrawn = match trusted.withdrawn.len() {
        0 => String::new(),
        count => format!("; {count} issuing certificates are withdrawn"),
    };
    match trusted.number {
        0 => format!(
            "no trust bundle was taken; roots by enrolment: {}",
            roots.join(", ")
        ),
        number => format!("trust bundle {number}: {}{withdrawn}", roots.join(", ")),
    }
}

impl TrustKeeper {
    /// For the gateway whose identity this is.
    pub fn new(
        folder: IdentityFolder,
        identity: watch::Sender<Option<Arc<Identity>>>,
        audit: Audit,
    ) -> Arc<Self> {
        Arc::new(Self {
            folder,
            identity,
            audit,
            said: Mutex::default(),
            faults: watch::channel(Vec::new()).0,
            taking: AsyncMutex::default(),
        })
    }

    /// What a person should know.
    pub fn faults(&self) -> watch::Receiver<Vec<Fault>> {
        self.faults.subscribe()
    }

    /// Which bundle is held, and below which root this gateway's own certificate is.
    pub fn held(&self) -> Option<TrustHeld> {
        let identity = self.identity.borrow().clone()?;
        let own = identity.credentials().chain().last();
        Some(TrustHeld {
            root: own
                .map(|root| Digest::of(root).0.to_vec())
                .unwrap_or_default()
                .into(),
            ..TrustHeld::from(identity.trusted())
        })
    }

    /// Takes what a coordinator sent. What is refused is a fault until something good comes, and changes nothing.
    pub async fn bring(&self, bundles: TrustBundles) {
        let refused = self.take(bundles.into(), "by the coordinator").await.err();
        let refused = refused.map(|why| {
            format!(
                "the trust bundle that the coordinator sent is not used: {}. The roots trusted before still count",
                sentence(&why)
            )
        });
        self.say(|said| said.refused = refused);
    }

    /// Shows from now on what a person should know, without what is over by what is trusted now.
    fn say(&self, change: impl FnOnce(&mut Said)) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = said.clone();
        change(&mut now);
        if let Some(identity) = self.identity.borrow().as_ref() {
            now.lacks
                .take_if(|(anchor, _)| reaches(identity.trusted(), *anchor));
        }
        if *said == now {
            return;
        }
        let words = |said: &Said| {
            let lacks = said.lacks.as_ref().map(|(_, words)| words);
            said.refused
                .iter()
                .chain(lacks)
                .map(|words| Fault::new(AgentStep::TrustRefused.word(), record::bounded(words)))
                .collect::<Vec<_>>()
        };
        let (before, faults) = (words(&said), words(&now));
        for fault in faults.iter().filter(|fault| !before.contains(fault)) {
            tracing::warn!(code = fault.code, "{}", fault.message);
            self.audit.note(record::agent(&fault.code, &fault.message));
        }
        *said = now;
        self.faults.send_replace(faults);
    }

    /// The bundles that this gateway holds and a coordinator of this number does not: the newest, by which a root that both trust leads on.
    pub async fn show(&self) -> Option<TrustBundles> {
        let folder = self.folder.clone();
        let newest = tokio::task::spawn_blocking(move || folder.newest_signed())
            .await
            .ok()??;
        Some([newest].as_slice().into())
    }

    /// Takes the bundles up to the one that a release names, which enough of its approvers signed; a root that is trusted here has to have signed
    /// each, too.
    pub async fn learn(&self, anchor: Anchor, brought: TrustBundles, how: &str) {
        let Some(identity) = self.identity.borrow().clone() else {
            return;
        };
        let held = identity.trusted();
        if reaches(held, anchor) {
            self.held_as_named(anchor);
            return;
        }
        let mut bundles: Vec<SignedBundle> = brought.into();
        let named = bundles
            .iter()
            .position(|bundle| Digest::of(&bundle.payload) == anchor.digest);
        bundles.truncate(named.map_or(0, |at| at.saturating_add(1)));
        let (number, held) = (anchor.number, held.number);
        let why = match bundles.is_empty() {
            true if number == held => Some(
                "it is another one than the one held here, and one number names one bundle only".to_owned(),
            ),
            true => Some(
                "it did not come with the release; a coordinator that keeps it back is one to look into"
                    .to_owned(),
            ),
            false => self.take(bundles, how).await.err().map(|why| sentence(&why)),
        };
        let Some(why) = why else {
            self.held_as_named(anchor);
            return;
        };
        let words = format!(
            "{how} came a release whose approvers name trust bundle {number}, and this gateway holds {held}: {why}. The roots trusted before still count"
        );
        self.say(|said| {
            if said
                .lacks
                .as_ref()
                .is_none_or(|(lacked, _)| lacked.number <= number)
            {
                said.lacks = Some((anchor, words));
            }
        });
    }

    /// What approvers named is held: that ends what they named with no higher number before.
    fn held_as_named(&self, anchor: Anchor) {
        self.say(|said| {
            said.lacks.take_if(|(lacked, _)| lacked.number <= anchor.number);
        });
    }

    /// Takes what is new in these bundles, `how` they came; what is trusted then, in words.
    ///
    /// # Errors
    /// Nothing was taken.
    pub async fn take(&self, bundles: Vec<SignedBundle>, how: &str) -> Result<String, NotTaken> {
        let _one = self.taking.lock().await;
        let current = self.identity.borrow().clone().ok_or(NotTaken::NotEnrolled)?;
        let (folder, enrolment) = (self.folder.clone(), current.enrolment.clone());
        let taken = tokio::task::spawn_blocking(move || {
            let taken = folder.take_trust(&enrolment.plant, &bundles)?;
            taken
                .map(|trusted| Ok((trusted, folder.load(enrolment)?)))
                .transpose()
                .map_err(|error: crate::identity::IdentityError| TrustNotTaken::from(error))
        });
        let Some((trusted, identity)) = taken.await.map_err(|_| NotTaken::Agent)?? else {
            self.say(|_| ());
            return Ok("the trust bundle says nothing new".to_owned());
        };
        let words = in_words(&trusted);
        self.identity.send_replace(Some(Arc::new(identity)));
        self.say(|_| ());
        tracing::warn!("{how}: {words}");
        self.audit
            .note(record::agent(AgentStep::TrustTaken, &format!("{how}: {words}")));
        Ok(words)
    }
}

#[cfg(test)]
mod tests;
