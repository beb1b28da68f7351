//! EST: devices get their certificates and renew them by themselves (RFC 7030, RFC 8951; DESIGN §6; IEC 62443-3-3 SR 1.2, SR 1.5,
//! SR 1.9).
//!
//! ```text
//! device ─ TLS 1.3 ─ proto/est (HTTP, bounds) ─▶ EstDesk ─┬─ cacerts, csrattrs: for anybody
//!                                                     ├─ simpleenroll: a token ─▶ enrolment
//!                                                     └─ simplereenroll: the device's certificate ─▶ devices
//! ```
//!
//! A device proves who it is by the single-use token that an admin made for its asset (HTTP Basic: the asset, and the secret as text), or by
//! the certificate that it has; that it holds the key it asks for, by the request's own signature. Nothing that the request wishes to be
//! called counts. RFC 7030 would bind a request to its connection by `tls-unique`, which TLS 1.3 does not have; a `challengePassword` is
//! not read. What stands in its place: the token goes only to a server that the device verified, works once, for one
//! asset, and can be bound to the digest of the one key that it serves.
//!
//! A gateway carries what devices ask that reach no coordinator. What it says is judged again, and believed for devices of the zones at this
//! gateway alone: a stolen one enrols no device of elsewhere. It sees a token that passes through it, so tokens for such devices are best bound
//! to a key; and it cannot take over a device's identity by a renewal, which goes on there with the key that signed the request.
//!
//! What comes in is answered here, and knows no HTTP but its statuses; `penstock_proto::est` reads and writes that.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use penstock_policy::ids::{Digest, GatewayId};
use penstock_proto::est::{Answer, Asked, Desk, Login, Operation};
use penstock_proto::peer::{Certified, Epoch, Subject};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::data_path::{PlantTrust, judge_device};
use penstock_proto::tls::times::instant;
use penstock_proto::v1;

use crate::allowance::{Allowance, Share};
use crate::ca::{Authority, IssuedCertificate, ProvenKey, bad_request};
use crate::clock;
use crate::devices;
use crate::devices::declared::DeclaredDevices;
use crate::enrolment::{self, Applicants, Application, Attempts, Given};
use crate::journal::Journal;
use crate::releases::Releases;
use crate::store::Store;
use crate::subjects::Subjects;

/// Certificates that one device may get: some at once while it is set up, and one an hour for ever.
const CERTIFICATES: Share = Share {
    at_once: 24,
    per_day: 24,
};

/// Addresses of one gateway at which devices enrol.
const OWN_MAX: usize = 8;
/// Certificates of a device's chain that are looked at.
const CHAIN_MAX: usize = 4;

/// Answers devices.
pub(crate) struct EstDesk {
    store: Store,
    subjects: Subjects,
    authority: Arc<Authority>,
    declared: DeclaredDevices,
    journal: Journal,
    attempts: Attempts,
    /// How often a repeated enrolment is written down.
    repeats: Allowance,
    renewals: Allowance,
}

impl EstDesk {
    /// Which of these addresses, where devices enrol through a gateway, the release in force declares as its own; none of them while it cannot
    /// be read.
    pub(crate) async fn own_addresses(&self, gateway: &GatewayId, addresses: &[String]) -> Vec<IpAddr> {
        if addresses.is_empty() {
            return Vec::new();
        }
        let declared = match self.declared.now().await {
            Ok(declared) => declared,
            Err(refusal) => {
                tracing::warn!(%gateway, %refusal, "a certificate is issued without the addresses at which devices enrol");
                return Vec::new();
            }
        };
        let read = addresses.iter().filter_map(|text| text.parse().ok());
        read.filter(|address| declared.is_own(gateway, *address))
            .take(OWN_MAX)
            .collect()
    }

    /// What a gateway carries: judged as if the device was here.
    pub(crate) async fn carried(
        &self,
        gateway: &GatewayId,
        request: v1::CarryEstRequest,
        at: IpAddr,
    ) -> Answer {
        let operation = Operation::named(&request.operation).filter(|operation| operation.brings_request());
        let Some(operation) = operation else {
            return Answer::words(404, "this is not carried: a gateway answers it itself");
        };
        let der = |der: bytes::Bytes| rustls::pki_types::CertificateDer::from(der.to_vec());
        let chain: Vec<_> = request
            .certificate_chain
            .into_iter()
            .take(CHAIN_MAX)
            .map(der)
            .collect();
        let (roots, withdrawn) = (self.authority.roots(), self.authority.withdrawn_issuers());
        let trust = PlantTrust {
            plant: self.authority.plant(),
            roots: &roots,
            withdrawn: &withdrawn,
        };
        let certified = match chain.is_empty() {
            true => None,
            false => match judge_device(trust, &chain) {
                Ok(certified) => Some(certified),
                Err(error) => {
                    let words = format!(
                        "the certificate that the device showed does not count: {}",
                        crate::chain(&error)
                    );
                    return Answer::words(403, words);
                }
            },
        };
        let is_logged_in = !request.user.is_empty() || !request.password.is_empty();
        let asked = Asked {
            operation,
            body: request.body.to_vec(),
            login: is_logged_in.then_some(Login {
                user: request.user,
                password: request.password,
            }),
            chain,
            certified,
            address: request.address.parse().unwrap_or(at),
        };
        self.answer_through(&asked, Some(gateway)).await
    }

    /// For the devices of these releases.
    pub(crate) fn new(
        store: Store,
        (subjects, authority): (Subjects, Arc<Authority>),
        releases: Releases,
        journal: Journal,
        attempts: Attempts,
    ) -> Self {
        Self {
            store,
            subjects,
            authority,
            declared: DeclaredDevices::new(releases),
            journal,
            attempts,
            repeats: Allowance::new(CERTIFICATES),
            renewals: Allowance::new(CERTIFICATES),
        }
    }

    /// What comes of it, where a gateway carries it.
    pub(crate) async fn answer_through(&self, asked: &Asked, through: Option<&GatewayId>) -> Answer {
        let outcome = match asked.operation {
            Operation::CaCerts => Ok(Answer::authorities(&self.authority.authorities())),
            Operation::CsrAttrs => Ok(Answer::attributes()),
            Operation::SimpleEnroll => self.enrol(asked, through).await,
            Operation::SimpleReenroll => self.renew(asked, through).await,
        };
        outcome.unwrap_or_else(|refusal| {
            metrics::counter!("penstock_denied_total", "reason" => refusal.reason.as_str()).increment(1);
            Answer::refused(&refusal)
        })
    }

    async fn enrol(&self, asked: &Asked, through: Option<&GatewayId>) -> Result<Answer, Refusal> {
        let Some(login) = &asked.login else {
            return Ok(Answer::unauthorized(
                "simpleenroll needs a token: log in by HTTP Basic, with the asset's name and the secret that \
                 `penstock devices token` wrote",
            ));
        };
        let outcome = self.by_token(asked, login, through).await;
        if let Err(refusal) = &outcome
            && refusal.reason != Reason::TooManyAttempts
        {
            // What is over the limit is counted, not written: an attacker must not fill the trail.
            let name = format!("device/{}", login.user);
            let written = self
                .journal
                .stranger_refused(&name, asked.address, &refusal.message);
            written.await?;
        }
        let issued = outcome?;
        metrics::counter!("penstock_enrolments_total", "kind" => "device").increment(1);
        certificate(&issued)
    }

    async fn by_token(
        &self,
        asked: &Asked,
        login: &Login,
        through: Option<&GatewayId>,
    ) -> Result<IssuedCertificate, Refusal> {
        let request = request_of(&asked.body)?;
        let now_ms = clock::now_ms();
        let application = Application {
            name: &login.user,
            // What is not base64 is no secret of any token.
            secret: &URL_SAFE_NO_PAD.decode(&login.password).unwrap_or_default(),
            certificate_request: &request,
            approvers_digest: &[],
            address: asked.address,
        };
        let event = |given: Given<'_>| {
            let Given {
                subject, epoch, key, ..
            } = given;
            let is_due = !given.repeated || self.repeats.take(&subject.to_string(), 1, now_ms).is_ok();
            let again = if given.repeated {
                "; the same key again"
            } else {
                ""
            };
            let words = format!("{}{again}", in_words(through, epoch, key));
            is_due.then(|| {
                self.journal
                    .identity_event("enrolled", subject, Some(asked.address), &words)
            })
        };
        let applied = (Applicants::Devices(&self.declared, through), application);
        let issues = (&self.subjects, &*self.authority);
        enrolment::enrol(&self.store, issues, &self.attempts, applied, now_ms, event)
            .await
            .map(|enrolled| enrolled.issued)
    }

    async fn renew(&self, asked: &Asked, through: Option<&GatewayId>) -> Result<Answer, Refusal> {
        let Some(certified) = &asked.certified else {
            let words = "simplereenroll needs the certificate that the device has, shown as its TLS client certificate; \
                         without one, enrol with a token: simpleenroll";
            return Err(Refusal::new(Reason::NoCertificate, words));
        };
        let outcome = self.by_certificate(asked, certified, through).await;
        if let Err(refusal) = &outcome {
            let subject = &certified.identity.subject;
            let written = self
                .journal
                .peer_refused(subject, asked.address, &refusal.message);
            written.await?;
        }
        certificate(&outcome?)
    }

    async fn by_certificate(
        &self,
        asked: &Asked,
        certified: &Certified,
        through: Option<&GatewayId>,
    ) -> Result<IssuedCertificate, Refusal> {
        let subject = &certified.identity.subject;
        let Subject::Device(asset) = subject else {
            let words = format!("this is for devices, and you are {subject}");
            return Err(Refusal::new(Reason::WrongKindOfPeer, words));
        };
        let now_ms = clock::now_ms();
        if certified.valid_ms.1 <= now_ms {
            let words = format!(
                "the certificate of {subject} ended at {}; enrol it with a token: simpleenroll",
                instant(certified.valid_ms.1)
            );
            return Err(Refusal::new(Reason::CertificateEnded, words));
        }
        let proven = ProvenKey::of_request(&request_of(&asked.body)?).map_err(bad_request)?;
        // First of all: a key that no longer counts takes none of the renewals of the one that does.
        if !self.subjects.is_current(subject, proven.digest()) {
            self.subjects.judge(certified)?;
        }
        if let Some(gateway) = through
            && proven.digest() != certified.key
        {
            let words = format!(
                "{subject} asked for a certificate for another key through gateway/{gateway}, and only the same key is renewed there; \
                 for another one, enrol it with a token: simpleenroll"
            );
            return Err(Refusal::new(Reason::WrongStanding, words));
        }
        let declared = self.declared.now().await?;
        let names = declared.served(asset, through).map_err(undeclared)?;
        if let Err(after) = self.renewals.take(&subject.to_string(), 1, now_ms) {
            let words = format!(
                "{subject} renewed its certificate {} times in a short time; it can be renewed again in {} min",
                CERTIFICATES.at_once,
                after.as_secs() / 60 + 1
            );
            return Err(Refusal::new(Reason::TooManyAttempts, words).retry_after(after));
        }
        let event = |epoch| {
            let words = in_words(through, epoch, proven.digest());
            self.journal
                .identity_event("renewed", subject, Some(asked.address), &words)
        };
        devices::renew(
            (&self.subjects, &self.authority),
            (certified, asked.address),
            &names,
            &proven,
            now_ms,
            event,
        )
        .await
    }
}

impl Desk for EstDesk {
    async fn answer(&self, asked: Asked) -> Answer {
        self.answer_through(&asked, None).await
    }
}

/// Which certificate was issued, for the trail.
fn in_words(through: Option<&GatewayId>, epoch: Epoch, key: Digest) -> String {
    let through = through
        .map(|gateway| format!(" through gateway/{gateway}"))
        .unwrap_or_default();
    format!("by EST{through}, life {epoch}, key {key}")
}

/// An asset that is no longer declared: waiting does not help its device.
fn undeclared(refusal: Refusal) -> Refusal {
    match refusal.reason {
        Reason::NotFound => Refusal::new(Reason::WrongStanding, refusal.message),
        _ => refusal,
    }
}

/// The answer to a request: its certificate; whom to trust is asked for apart.
fn certificate(issued: &IssuedCertificate) -> Result<Answer, Refusal> {
    let leaf = issued.chain.first();
    let leaf = leaf.ok_or_else(|| Refusal::new(Reason::Internal, "no certificate was made"))?;
    Ok(Answer::certificate(leaf))
}

/// A certificate request, from base64 with or without ends of lines (RFC 8951, 3.1).
fn request_of(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let text: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let bad = |words: &str| Refusal::new(Reason::BadCertificateRequest, words);
    if text.is_empty() {
        return Err(bad(
            "the request has no body: a PKCS#10 certificate request in base64 is needed",
        ));
    }
    if text.starts_with(b"-----BEGIN") {
        return Err(bad(
            "the body is PEM: send the base64 between its first and its last line, without them",
        ));
    }
    STANDARD.decode(text).map_err(|_| {
        bad(
            "the body is not base64: a PKCS#10 certificate request in DER, encoded as base64, is needed \
             (`openssl req -outform DER | openssl base64`)",
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_is_read_whatever_ends_its_lines_and_what_is_no_base64_is_refused_with_what_to_send() {
        assert_eq!(request_of(b"AQID\r\nBAUG\n").unwrap(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(request_of(b" AQIDBAUG").unwrap(), [1, 2, 3, 4, 5, 6]);
        for (body, words) in [
            (&b""[..], "has no body"),
            (b"-----BEGIN CERTIFICATE REQUEST-----\nAQID\n", "is PEM"),
            (b"\x30\x82\x01\x00", "is not base64"),
            (b"AQI", "is not base64"),
        ] {
            let refusal = request_of(body).unwrap_err();
            assert!(refusal.message.contains(words), "{refusal}");
        }
    }
}
