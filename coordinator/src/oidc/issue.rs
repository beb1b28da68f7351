//! The certificate of an operator whom a sign-in proves, and whether its key may take another one's place.

use std::net::IpAddr;
use std::time::Duration;

use penstock_policy::ids::{Digest, OperatorId};
use penstock_proto::peer::Subject;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::tls::times::instant;

use super::account::{Link, SignedInRecord, signed_in, signed_in_key};
use super::token::ProvenAccount;
use super::{Oidc, Shared, means};
use crate::ca::{IssuedCertificate, ProvenKey, internal};
use crate::operators::{self, OperatorRecord};
use crate::store::{Change, Expect};
use crate::subjects::{Decision, Standing};

impl Oidc {
    /// Issues it, with its event and what is remembered of it.
    pub(super) async fn issue(
        &self,
        (name, link): (&str, &Link),
        proven: &ProvenAccount,
        key: &ProvenKey,
        address: IpAddr,
        now_ms: u64,
    ) -> Result<IssuedCertificate, Refusal> {
        let Shared {
            store,
            subjects,
            authority,
            journal,
            settings,
            ..
        } = &*self.0;
        let subject = Subject::Operator(link.operator.clone());
        let _giving = subjects.giving_keys().await;
        let before = signed_in(store, &link.operator).await?;
        let known = store
            .get_json::<OperatorRecord>(&format!("{}{}", operators::PREFIX, link.operator))
            .await?
            .map(|(record, _)| record);
        self.may_take_the_place(
            link,
            key.digest(),
            before.as_ref().map(|(record, _)| record),
            known.as_ref(),
            now_ms,
        )?;
        if let Some(other) = subjects.other_operator(&subject, key.digest()) {
            let words = format!(
                "this key is {other}'s, and each name has a key of its own: sign in with a new one (`--new-key`)"
            );
            return Err(Refusal::new(Reason::KeyTaken, words).fact("subject", subject));
        }
        if let Err(after) = self.0.sign_ins.take(link.operator.as_str(), 1, now_ms) {
            let words = format!(
                "{subject} signed in too often in a short time; the certificate that they have goes on"
            );
            return Err(Refusal::new(Reason::TooManyAttempts, words).retry_after(after));
        }
        let decision = Decision {
            at_ms: now_ms,
            by: &link.by,
            reason: "signed in through the identity provider",
        };
        let is_same_key = subjects.is_current(&subject, key.digest());
        let came_by_one = before
            .as_ref()
            .is_some_and(|(record, _)| record.key == key.digest());
        // A key that came by a token holds as long as that said; once that is over, it is a sign-in's as any other.
        let by_token = known
            .as_ref()
            .filter(|known| is_same_key && !came_by_one && holds(known, now_ms));
        let at_most = match by_token.map(|known| known.certificate_expires_ms) {
            // Older software did not say until when.
            Some(0) => None,
            ends_ms => {
                let left_ms = ends_ms.unwrap_or(0).saturating_sub(now_ms);
                Some(settings.certificate.max(Duration::from_millis(left_ms)))
            }
        };
        let life = subjects.with_key(&subject, key.digest(), decision, false)?;
        let issued = authority
            .issue_within(
                (&subject, life.epoch),
                &ServerNames::default(),
                key,
                now_ms,
                at_most,
            )
            .map_err(internal)?;
        let words = format!(
            "{}, key {}",
            means(&self.provider()?.settings().issuer, proven),
            key.digest()
        );
        let event = journal.identity_event("authenticated", &subject, Some(address), &words);
        let stands_ms = known
            .as_ref()
            .filter(|_| is_same_key)
            .map_or(0, |known| known.certificate_expires_ms);
        let record = OperatorRecord {
            role: known.as_ref().map_or(link.role, |known| known.role),
            enrolled_ms: known
                .as_ref()
                .filter(|_| is_same_key)
                .map_or(now_ms, |known| known.enrolled_ms),
            certificate_expires_ms: stands_ms.max(issued.expires_ms),
        };
        let mut change = operators::record(store, Change::noted(event), &link.operator, &record).await?;
        if by_token.is_none() {
            let expect = before.map_or(Expect::Absent, |(_, revision)| Expect::Revision(revision));
            let record = SignedInRecord {
                account: name.to_owned(),
                key: key.digest(),
                at_ms: now_ms,
            };
            change = change.json(&signed_in_key(&link.operator), expect, &record)?;
        }
        subjects.apply(change, life.step).await?;
        metrics::counter!("penstock_enrolments_total", "kind" => "sign-in").increment(1);
        Ok(issued)
    }

    /// Whether a sign-in may bring this key: it takes the place of none that came by a token and holds, and brings nobody back whom an admin
    /// took out.
    fn may_take_the_place(
        &self,
        link: &Link,
        key: Digest,
        signed_in: Option<&SignedInRecord>,
        known: Option<&OperatorRecord>,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let operator = &link.operator;
        let Some(record) = self.0.subjects.record(&Subject::Operator(operator.clone())) else {
            // Who enrolled before there were such records is known by their role.
            return match known {
                Some(known) if holds(known, now_ms) => Err(by_token(operator, known.certificate_expires_ms)),
                _ => Ok(()),
            };
        };
        match record.standing {
            Standing::Revoked | Standing::Retired if link.at_ms <= record.since_ms => Err(Refusal::new(
                Reason::IdentityWithdrawn,
                format!(
                    "operator/{operator} is {} since {}: an admin links the account again (`penstock operators link`), or makes a token",
                    record.standing.as_str(),
                    instant(record.since_ms)
                ),
            )),
            Standing::Active if record.key != Some(key) => {
                let came_by_one =
                    record.key.is_some() && record.key == signed_in.map(|signed_in| signed_in.key);
                match known {
                    Some(known) if !came_by_one && holds(known, now_ms) => {
                        Err(by_token(operator, known.certificate_expires_ms))
                    }
                    _ => Ok(()),
                }
            }
            // Of those who are suspended the record itself says so.
            _ => Ok(()),
        }
    }
}

/// Whether a certificate that came by a token still holds; of older software nothing is known of its end.
fn holds(known: &OperatorRecord, now_ms: u64) -> bool {
    known.certificate_expires_ms == 0 || known.certificate_expires_ms > now_ms
}

fn by_token(operator: &OperatorId, until_ms: u64) -> Refusal {
    let until = match until_ms {
        0 => String::new(),
        until_ms => format!(" until {}", instant(until_ms)),
    };
    Refusal::new(
        Reason::LoginByToken,
        format!(
            "the key of operator/{operator} came by a token and counts{until}: no sign-in takes its place. Sign in with that login on its own machine, \
             or have an admin revoke the key and link the account again"
        ),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use penstock_policy::ids::CoordinatorId;
    use penstock_proto::keys::{FileKey, Key, KeyKind, certificate_request};

    use super::*;
    use crate::ca::{Authority, Lifetimes};
    use crate::enrolment::{self, Applicants, Application, Attempts, AttemptsLimits, Given, TokenWish};
    use crate::journal::Journal;
    use crate::oidc::OidcFile;
    use crate::operators::Role;
    use crate::requests::Permit;
    use crate::store::Store;
    use crate::subjects::Subjects;

    const NOW_MS: u64 = 1_800_000_000_000;
    const HOUR_MS: u64 = 3_600_000;
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    struct World {
        oidc: Oidc,
        silva: OperatorId,
        request: Vec<u8>,
    }

    /// An operator with a key, whom a token and an account make the same.
    async fn world(dir: &std::path::Path) -> World {
        let store = Store::open(&dir.join("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        let lifetimes = Lifetimes::all(Duration::from_secs(30 * 86_400));
        let authority = Authority::create(dir, "water".parse().unwrap(), lifetimes, NOW_MS).unwrap();
        let authority = Arc::new(authority);
        let subjects = Subjects::open(store.clone(), journal.clone(), authority.clone());
        let file = OidcFile {
            issuer: "https://id.example".to_owned(),
            client_id: "penstock".to_owned(),
            roots: "/nowhere.pem".to_owned(),
            ..OidcFile::default()
        };
        let issues = (subjects.await.unwrap(), authority);
        let key = Key::from(FileKey::generate(KeyKind::EcdsaP256).unwrap());
        World {
            oidc: Oidc::new(file.check().unwrap(), store, issues, journal),
            silva: "silva".parse().unwrap(),
            request: certificate_request(&key, None).unwrap(),
        }
    }

    impl World {
        fn key(&self) -> ProvenKey {
            ProvenKey::of_request(&self.request).unwrap()
        }

        /// Until when the certificate holds that a new token gives.
        async fn enrol(&self, now_ms: u64) -> u64 {
            let shared = &self.oidc.0;
            let wish = TokenWish {
                subject: Subject::Operator(self.silva.clone()),
                role: Some(Role::Engineer),
                key: None,
                approvers: None,
                device_role: None,
                valid_seconds: 3600,
            };
            let deed = shared.journal.deed("anna", "admin", "create-token");
            let permit = Permit::free();
            let token = enrolment::create_token(&shared.store, &wish, &permit, deed, now_ms).await;
            let secret = token.unwrap().secret;
            let application = Application {
                name: "silva",
                secret: &secret.0,
                certificate_request: &self.request,
                approvers_digest: &[],
                address: HERE,
            };
            let event = |given: Given<'_>| {
                Some(
                    shared
                        .journal
                        .identity_event("enrolled", given.subject, Some(HERE), ""),
                )
            };
            let (attempts, applied) = (
                Attempts::new(AttemptsLimits::default()),
                (Applicants::Peers, application),
            );
            let issues = (&shared.subjects, &*shared.authority);
            let enrolled = enrolment::enrol(&shared.store, issues, &attempts, applied, now_ms, event).await;
            enrolled.unwrap().issued.expires_ms
        }

        /// The same of a sign-in.
        async fn sign_in(&self, now_ms: u64) -> u64 {
            let link = Link {
                operator: self.silva.clone(),
                role: Role::Engineer,
                by: "anna".to_owned(),
                at_ms: NOW_MS,
            };
            let proven = ProvenAccount {
                subject: "silva".to_owned(),
                shown: String::new(),
                amr: Vec::new(),
                acr: None,
                auth_time_s: now_ms / 1000,
            };
            let issued = self
                .oidc
                .issue(("a", &link), &proven, &self.key(), HERE, now_ms)
                .await;
            issued.unwrap().expires_ms
        }

        /// Whether the key is renewed without the provider, for as long as ever.
        async fn renews(&self, now_ms: u64) -> bool {
            let renewal = self.oidc.renewal(&self.silva, self.key().digest(), now_ms).await;
            matches!(renewal, Ok(None))
        }
    }

    #[tokio::test]
    async fn a_sign_in_shortens_no_login_by_token_and_makes_none_of_one_that_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path()).await;
        let ends_ms = world.enrol(NOW_MS).await;
        let midway_ms = NOW_MS + 20 * 24 * HOUR_MS;
        assert_eq!(world.sign_in(midway_ms).await, ends_ms);
        assert!(world.renews(midway_ms).await);
        // Near its end it gains what any sign-in gives.
        let late_ms = ends_ms - HOUR_MS;
        let ends_ms = world.sign_in(late_ms).await;
        assert!((late_ms + 11 * HOUR_MS..=late_ms + 12 * HOUR_MS).contains(&ends_ms));
        assert!(world.renews(late_ms).await);
        // Once it has ended, the key is a sign-in's as any other, and an account that is not linked is not renewed.
        let ended_ms = ends_ms + 1;
        for now_ms in [ended_ms, ended_ms + HOUR_MS] {
            let ends_ms = world.sign_in(now_ms).await;
            assert!((now_ms + 11 * HOUR_MS..=now_ms + 12 * HOUR_MS).contains(&ends_ms));
            assert!(!world.renews(now_ms).await);
        }
        // A token makes it one by token again.
        let again_ms = ended_ms + 2 * HOUR_MS;
        assert!(world.enrol(again_ms).await > again_ms + 29 * 24 * HOUR_MS);
        assert!(world.renews(again_ms).await);
    }
}
