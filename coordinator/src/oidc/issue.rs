//! The certificate of an operator whom a sign-in proves, and whether its key may take another one's place.

use std::net::IpAddr;

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
        let life = subjects.with_key(&subject, key.digest(), decision, false)?;
        let issued = authority
            .issue_within(
                (&subject, life.epoch),
                &ServerNames::default(),
                key,
                now_ms,
                Some(settings.certificate),
            )
            .map_err(internal)?;
        let words = format!(
            "{}, key {}",
            means(&self.provider()?.settings().issuer, proven),
            key.digest()
        );
        let event = journal.identity_event("authenticated", &subject, Some(address), &words);
        // A key that came by a token holds as long as that said.
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
        let came_by_one = before
            .as_ref()
            .is_some_and(|(record, _)| record.key == key.digest());
        if !is_same_key || came_by_one {
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
