//! Enrolment over gRPC: the one service that a caller without a certificate may use.

use std::sync::Arc;

use penstock_proto::peer::Subject;
use penstock_proto::refusal::Reason;
use penstock_proto::v1;
use penstock_proto::v1::enrolment_server::Enrolment;
use tonic::{Request, Response, Status};

use super::gate::peer;
use crate::allowance::Allowance;
use crate::ca::{Authority, IssuedCertificate};
use crate::clock;
use crate::enrolment::{self, Applicants, Application, Attempts, EnrolmentResult, Given};
use crate::journal::Journal;
use crate::oidc::Oidc;
use crate::sessions::Fleet;
use crate::store::Store;
use crate::subjects::Subjects;

/// The service.
pub struct EnrolmentService {
    /// Where tokens are.
    pub store: Store,
    /// Whose keys count.
    pub subjects: Subjects,
    /// Who issues.
    pub authority: Arc<Authority>,
    /// Wrong attempts so far.
    pub attempts: Attempts,
    /// Where it is written down.
    pub journal: Journal,
    /// Learns of new gateways.
    pub fleet: Arc<Fleet>,
    /// How often a repeated enrolment is written down.
    pub repeats: Allowance,
    /// Who signs in through the identity provider.
    pub oidc: Oidc,
}

/// A certificate for the wire.
pub(super) fn to_wire(issued: IssuedCertificate, authority: &Authority) -> v1::EnrolResponse {
    let der = |certificate: &rustls::pki_types::CertificateDer<'_>| certificate.to_vec().into();
    v1::EnrolResponse {
        certificate_chain: issued.chain.iter().map(der).collect(),
        // Others come by trust bundles.
        trust_bundle: vec![der(authority.root())],
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let address = peer(request.extensions())?.address.ip();
        let message = request.into_inner();
        let now_ms = clock::now_ms();
        let application = Application {
            name: &message.name,
            secret: &message.secret,
            certificate_request: &message.certificate_request,
            approvers_digest: &message.approvers_digest,
            address,
        };
        // The same token and key again and again is answered, and written down as often as a renewal would be.
        let event = |given: Given<'_>| {
            let is_due = !given.repeated || self.repeats.take(&given.subject.to_string(), 1, now_ms).is_ok();
            let words = match given.repeated {
                true => format!("key {}, again", given.key),
                false => format!("key {}", given.key),
            };
            is_due.then(|| {
                self.journal
                    .identity_event("enrolled", given.subject, Some(address), &words)
            })
        };
        let (store, attempts) = (&self.store, &self.attempts);
        let issues = (&self.subjects, &*self.authority);
        let outcome = enrolment::enrol(
            store,
            issues,
            attempts,
            (Applicants::Peers, application),
            now_ms,
            event,
        )
        .await;
        let enrolled = match outcome {
            Ok(enrolled) => enrolled,
            Err(refusal) => {
                metrics::counter!("penstock_denied_total", "reason" => refusal.reason.as_str()).increment(1);
                // What is over the limit is counted, not written: an attacker must not fill the trail.
                if refusal.reason != Reason::TooManyAttempts {
                    self.journal
                        .stranger_refused(&message.name, address, &refusal.message)
                        .await?;
                }
                return Err(refusal.into());
            }
        };
        let EnrolmentResult { subject, issued, .. } = enrolled;
        if let Subject::Gateway(gateway) = &subject {
            self.fleet.enrolled(gateway, now_ms, issued.expires_ms);
        }
        metrics::counter!("penstock_enrolments_total", "kind" => subject.kind()).increment(1);
        Ok(Response::new(to_wire(issued, &self.authority)))
    }

    async fn get_provider(
        &self,
        request: Request<v1::GetProviderRequest>,
    ) -> Result<Response<v1::IdentityProvider>, Status> {
        self.provider(request).await
    }

    async fn sign_in(
        &self,
        request: Request<v1::SignInRequest>,
    ) -> Result<Response<v1::SignInResponse>, Status> {
        self.signed_in(request).await
    }
}
