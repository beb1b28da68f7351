//! The coordinator's own certificate: stored beside the store, looked at every few seconds, and replaced whenever it would not
//! do by the clock.
//!
//! Clocks are wrong at times, so that what is served must do for peers whose clocks are right: it is valid from the beginning of
//! the plant's authority on, not only from now, since a clock that is ahead would else make one that nobody accepts. Its end is
//! where it should be by the clock; one that ends earlier or later than that came of another time, and gives way. The
//! authority is here, so that nothing has to be kept to go back to.
//!
//! Files and trail are no one transaction, so the event comes first: a new certificate is stored only once the trail says so. If
//! the coordinator ends in between, the next start makes another one, and says that, too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{CoordinatorId, Digest};
use penstock_proto::keys::{FileKey, Key, KeyKind};
use penstock_proto::peer::{Subject, certified_key};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::tls::times::instant;
use penstock_proto::tls::{Credentials, certificates_to_pem};

use crate::ca::{Authority, CaError};
use crate::clock;
use crate::config::Config;
use crate::files;
use crate::journal::Journal;
use crate::store::{Change, StoreError};
use crate::subjects::{Decision, Life, Subjects};

/// How often it is looked at: a clock that jumps must not keep gateways out for long.
const LOOK: Duration = Duration::from_secs(5);
/// How much later than expected it may end before it gives way, milliseconds.
const LATER_MS: u64 = 86_400_000;

/// Keeps the coordinator's own certificate.
pub struct OwnCertificate {
    name: CoordinatorId,
    /// What clients may reach it by.
    names: ServerNames,
    chain_file: PathBuf,
    key_file: PathBuf,
    lifetime_ms: u64,
    authority: Arc<Authority>,
    /// Where its lives are numbered.
    subjects: Subjects,
    /// The one that is served.
    held: Option<Credentials>,
    /// The last one that was made, until it is in the trail and stored.
    made: Option<MadeCertificate>,
    /// It is not served yet.
    unserved: bool,
    /// Why the token of the authority did not make the last one.
    unmade: Option<String>,
}

/// A certificate that is not written down.
struct MadeCertificate {
    why: String,
    credentials: Credentials,
    key: Arc<FileKey>,
    /// What is recorded of it.
    life: Life,
}

/// Why a certificate that is valid in `span` does not do at `now_ms`; `None`: it does. One that lasts as long as the authority itself, until
/// `latest_ms`, cannot be bettered.
fn wanting(span: (u64, u64), lifetime_ms: u64, now_ms: u64, latest_ms: u64) -> Option<&'static str> {
    let (from, until) = span;
    let left = until.saturating_sub(now_ms);
    if now_ms < from {
        Some("its time had not come by this clock")
    } else if now_ms >= until {
        Some("it had expired by this clock")
    } else if left <= lifetime_ms / 3 && until < latest_ms {
        Some("less than a third of its time was left")
    } else if left > lifetime_ms.saturating_add(LATER_MS) {
        Some("it was made while this clock was ahead")
    } else {
        None
    }
}

impl OwnCertificate {
    /// Of the coordinator in `config`.
    pub fn new(config: &Config, authority: Arc<Authority>, subjects: Subjects) -> Self {
        Self {
            name: config.name.clone(),
            names: config.names.clone(),
            chain_file: config.data.join("coordinator.pem"),
            key_file: config.data.join("coordinator.key"),
            lifetime_ms: u64::try_from(config.lifetimes.coordinator.as_millis()).unwrap_or(u64::MAX),
            authority,
            subjects,
            held: None,
            made: None,
            unserved: false,
            unmade: None,
        }
    }

    /// The one to serve at `now_ms`: the one held or stored while it does, else a new one.
    ///
    /// # Errors
    /// The authority cannot make one.
    pub fn credentials(&mut self, now_ms: u64) -> Result<Credentials, CaError> {
        let held = self.held.take().or_else(|| self.stored());
        let why = match &held {
            Some(held) => {
                let span = held.validity_ms().unwrap_or((0, 0));
                match wanting(span, self.lifetime_ms, now_ms, self.authority.ends_ms()) {
                    None => {
                        self.held = Some(held.clone());
                        return Ok(held.clone());
                    }
                    Some(why) => why,
                }
            }
            None => "there was none that could be used",
        };
        let subject = Subject::Coordinator(self.name.clone());
        let key = FileKey::generate(KeyKind::EcdsaP256).map_err(CaError::from);
        let made = key.and_then(|key| {
            let key = Arc::new(key);
            let life = self.next_life(&subject, &Key::from(key.clone()), why, now_ms)?;
            let own = (&subject, life.epoch);
            let made = self
                .authority
                .issue_own(own, &self.names, Key::from(key.clone()), now_ms)?;
            Ok((made, key, life))
        });
        let (made, key, life) = match made {
            Ok(made) => made,
            Err(error) => {
                let usable = held.as_ref().filter(|held| {
                    held.validity_ms()
                        .is_ok_and(|(from, until)| (from..until).contains(&now_ms))
                });
                // While the authority's token is away: others accept this one still.
                let usable = usable.cloned();
                self.held = held;
                let (CaError::Token(why), Some(usable)) = (&error, usable) else {
                    return Err(error);
                };
                if self.unmade.as_ref() != Some(why) {
                    tracing::error!(
                        "the coordinator's own certificate is not renewed, and served as long as it is valid: {why}"
                    );
                    self.unmade = Some(why.clone());
                }
                return Ok(usable);
            }
        };
        self.unmade = None;
        let (from, until) = made.validity_ms()?;
        let why = format!(
            "{why}; the new one is valid from {} until {}",
            instant(from),
            instant(until)
        );
        tracing::info!("a new certificate for the coordinator itself: {why}");
        self.held = Some(made.clone());
        self.unserved = true;
        self.made = Some(MadeCertificate {
            why,
            credentials: made.clone(),
            key,
            life,
        });
        Ok(made)
    }

    /// Writes a new one down: first in the trail, then as files for the next start.
    ///
    /// # Errors
    /// The trail does not take it. Then it is served, and not stored.
    pub async fn settle(&mut self, journal: &Journal) -> Result<(), StoreError> {
        let Some(made) = &self.made else {
            return Ok(());
        };
        let subject = Subject::Coordinator(self.name.clone());
        let event = journal.identity_event("renewed", &subject, None, &made.why);
        self.subjects
            .apply(Change::noted(event), made.life.step.clone())
            .await?;
        self.store();
        Ok(())
    }

    /// With a new key begins a new life of the coordinator; of the one before, nobody has the key but its files. It is recorded when it
    /// is written down.
    fn next_life(&self, subject: &Subject, key: &Key, why: &str, at_ms: u64) -> Result<Life, CaError> {
        let digest = Digest::of(&rcgen::PublicKeyData::subject_public_key_info(key));
        let decision = Decision {
            at_ms,
            by: "",
            reason: why,
        };
        let life = self.subjects.with_key(subject, digest, decision, false);
        life.map_err(|refusal| CaError::Request(refusal.message))
    }

    /// Whether no other key of the coordinator is recorded: files that were not replaced, or that came back, belong to a life that is over.
    fn is_recorded(&self, stored: &Credentials) -> bool {
        let recorded = self.subjects.record(&Subject::Coordinator(self.name.clone()));
        let key = stored.chain().first().and_then(certified_key);
        recorded.is_none_or(|record| record.key == key.map(|key| Digest::of(&key)))
    }

    /// The stored one, if it is whole and ours.
    fn stored(&self) -> Option<Credentials> {
        if !self.chain_file.exists() || !self.key_file.exists() {
            return None;
        }
        let stored = match Credentials::from_files(&self.chain_file, &self.key_file) {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "the stored certificate of the coordinator itself cannot be read");
                return None;
            }
        };
        let whose = stored
            .identity()
            .is_ok_and(|identity| identity.subject == Subject::Coordinator(self.name.clone()));
        let issued_here = stored
            .chain()
            .get(1..)
            .is_some_and(|issuers| *issuers == *self.authority.issuers());
        // A power cut between key and certificate leaves two that do not fit.
        let fits = ServerCredentials::new(&stored).is_ok();
        let named = stored.server_names().is_ok_and(|names| names == self.names);
        (whose && issued_here && fits && named && self.is_recorded(&stored)).then_some(stored)
    }

    /// Stores it for the next start; where that fails it is served all the same.
    fn store(&mut self) {
        let Some(made) = self.made.take() else {
            return;
        };
        let chain_pem = certificates_to_pem(made.credentials.chain());
        // The key first: a certificate without its key would be taken for whole at the next start.
        let stored = made
            .key
            .replace(&self.key_file)
            .map_err(CaError::from)
            .and_then(|()| Ok(files::replace_secret(&self.chain_file, chain_pem.as_bytes())?));
        if let Err(error) = stored {
            tracing::error!(
                error = %crate::chain(&error),
                "the new certificate of the coordinator itself cannot be stored; it is used, and the next start makes another one"
            );
        }
    }

    /// Replaces it in time, and when the clock jumped.
    pub async fn keep(mut self, server: Arc<ServerCredentials>, journal: Journal) {
        self.unserved = false;
        let (mut problem, mut unwritten) = (String::new(), String::new());
        loop {
            tokio::time::sleep(LOOK).await;
            let replaced = match self.credentials(clock::now_ms()) {
                Ok(credentials) if std::mem::take(&mut self.unserved) => {
                    server.replace(&credentials).map_err(CaError::from)
                }
                other => other.map(|_| ()),
            };
            let settled = self.settle(&journal).await.map_err(|error| crate::chain(&error));
            let now = settled.err().unwrap_or_default();
            if now != unwritten && !now.is_empty() {
                tracing::error!(error = %now, "the coordinator's new certificate is not in the trail, and therefore not stored; it is tried again");
            }
            unwritten = now;
            match replaced {
                Ok(()) => problem.clear(),
                Err(error) => {
                    let now = crate::chain(&error);
                    if now != problem {
                        tracing::error!(error = %now, "cannot renew the coordinator's own certificate; it is tried again");
                        problem = now;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::config::ConfigFile;
    use crate::store::{BlockFilter, Store};
    use proptest::prelude::*;

    const DAY_MS: u64 = 86_400_000;
    /// When the plant's authority was made.
    const BEGUN_MS: u64 = 1_800_000_000_000;

    async fn own(folder: &std::path::Path) -> OwnCertificate {
        let config =
            ConfigFile::with_defaults("water".parse().unwrap(), "c1".parse().unwrap(), folder.to_owned());
        let config = config.check().unwrap();
        let ca = folder.join("ca");
        let made = if ca.exists() {
            Authority::load(&ca, config.plant.clone(), config.lifetimes)
        } else {
            std::fs::create_dir(&ca).unwrap();
            Authority::create(&ca, config.plant.clone(), config.lifetimes, BEGUN_MS)
        };
        let authority = Arc::new(made.unwrap());
        let store = Store::open(&folder.join("own.db")).unwrap();
        let journal = Journal::new(store.clone(), &config.name);
        let subjects = Subjects::open(store, journal, authority.clone()).await.unwrap();
        OwnCertificate::new(&config, authority, subjects)
    }

    /// What a coordinator that starts serves, once it is written down.
    fn started(mut own: OwnCertificate, now_ms: u64) -> Credentials {
        let served = own.credentials(now_ms).unwrap();
        own.store();
        served
    }

    fn good(credentials: &Credentials, at_ms: u64) -> bool {
        let (from, until) = credentials.validity_ms().unwrap();
        from <= at_ms && at_ms < until
    }

    #[tokio::test]
    async fn a_clock_that_jumps_and_comes_back_never_leaves_a_certificate_that_nobody_accepts() {
        let folder = tempfile::tempdir().unwrap();
        let now = BEGUN_MS + 10 * DAY_MS;
        let mut own = own(folder.path()).await;
        let first = own.credentials(now).unwrap();
        assert!(good(&first, now));
        // Ahead, so that it was due: peers with the right time accept what is served then, too.
        let ahead = own.credentials(now + 70 * DAY_MS).unwrap();
        assert_ne!(ahead.chain(), first.chain());
        assert!(good(&ahead, now) && good(&ahead, now + 70 * DAY_MS));
        for wrong in [0, BEGUN_MS + 20_000 * DAY_MS, now - 300 * DAY_MS] {
            let then = own.credentials(wrong).unwrap();
            assert!(good(&then, wrong), "{wrong}");
            let back = own.credentials(now).unwrap();
            let (_, until) = back.validity_ms().unwrap();
            assert!(good(&back, now), "{wrong}");
            assert!(until <= now + 61 * DAY_MS, "{wrong}: it ends where it should");
            // And it stays.
            assert_eq!(own.credentials(now + 60_000).unwrap().chain(), back.chain());
        }
    }

    #[tokio::test]
    async fn a_power_cut_between_key_and_certificate_and_files_that_are_torn_or_cannot_be_written_are_overcome()
     {
        let folder = tempfile::tempdir().unwrap();
        let now = BEGUN_MS + DAY_MS;
        let first = started(own(folder.path()).await, now);
        assert_eq!(started(own(folder.path()).await, now).chain(), first.chain());
        let (pem, key) = (
            folder.path().join("coordinator.pem"),
            folder.path().join("coordinator.key"),
        );
        let old_key = std::fs::read(&key).unwrap();
        for torn in ["", "-----BEGIN CERTIFICATE-----\nMII"] {
            std::fs::write(&pem, torn).unwrap();
            assert!(good(&started(own(folder.path()).await, now), now));
        }
        std::fs::write(&key, old_key).unwrap();
        let after = started(own(folder.path()).await, now);
        assert!(good(&after, now) && ServerCredentials::new(&after).is_ok());
        // Where the folder is gone it is served from memory, and not made again at each look.
        let mut homeless = own(folder.path()).await;
        homeless.chain_file = folder.path().join("gone/coordinator.pem");
        homeless.key_file = folder.path().join("gone/coordinator.key");
        let made = homeless.credentials(now).unwrap();
        homeless.store();
        assert!(good(&made, now));
        assert_eq!(homeless.credentials(now + 5_000).unwrap().chain(), made.chain());
    }

    #[tokio::test]
    async fn a_new_certificate_is_stored_only_once_the_trail_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let now = BEGUN_MS + DAY_MS;
        let store = Store::open(&folder.path().join("own.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        let events = async || store.blocks(BlockFilter::default(), 100).await.unwrap().len();
        // The coordinator ends before the trail has it: the next start knows nothing of it, and makes another one.
        let lost = own(folder.path()).await.credentials(now).unwrap();
        assert_eq!(events().await, 0);
        let mut next = own(folder.path()).await;
        let made = next.credentials(now).unwrap();
        assert_ne!(made.chain(), lost.chain());
        next.settle(&journal).await.unwrap();
        next.settle(&journal).await.unwrap();
        assert_eq!(events().await, 1);
        let mut kept = own(folder.path()).await;
        assert_eq!(kept.credentials(now).unwrap().chain(), made.chain());
        kept.settle(&journal).await.unwrap();
        assert_eq!(events().await, 1);
    }

    #[tokio::test]
    async fn files_of_a_life_of_the_coordinator_that_is_over_are_not_served_again() {
        let folder = tempfile::tempdir().unwrap();
        let now = BEGUN_MS + DAY_MS;
        let store = Store::open(&folder.path().join("own.db")).unwrap();
        let journal = Journal::new(store, &CoordinatorId::new("c1").unwrap());
        let files = ["coordinator.pem", "coordinator.key"].map(|name| folder.path().join(name));
        let settled = async |now_ms| {
            let mut own = own(folder.path()).await;
            let served = own.credentials(now_ms).unwrap();
            own.settle(&journal).await.unwrap();
            served
        };
        let first = settled(now).await;
        let old = files.clone().map(|file| std::fs::read(file).unwrap());
        assert_eq!(settled(now).await.chain(), first.chain());
        let second = settled(now + 50 * DAY_MS).await;
        assert_ne!(second.chain(), first.chain());
        for (file, bytes) in files.iter().zip(old) {
            std::fs::write(file, bytes).unwrap();
        }
        let third = settled(now).await;
        assert!(third.chain() != first.chain() && good(&third, now));
        let epoch = |credentials: &Credentials| {
            penstock_proto::peer::Certified::from_certificate(&credentials.chain()[0])
                .unwrap()
                .epoch
                .0
        };
        assert_eq!([first, second, third].map(|one| epoch(&one)), [1, 2, 3]);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_valid_and_ends_about_when_it_should(
            now in 0u64..8_000_000_000_000, from in 0u64..8_000_000_000_000, length in 0u64..1_000_000_000_000,
        ) {
            let lifetime = 60 * DAY_MS;
            let span = (from, from + length);
            if wanting(span, lifetime, now, u64::MAX).is_none() {
                prop_assert!(span.0 <= now && now + lifetime / 3 < span.1 && span.1 <= now + lifetime + LATER_MS);
            }
            // One that was made now is kept, whenever its time begins before.
            prop_assert_eq!(wanting((from.min(now), now + lifetime), lifetime, now, u64::MAX), None);
        }
    }
}
