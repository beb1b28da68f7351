//! What gateways call: their session, and the renewal of their certificate.

use std::sync::Arc;

use penstock_policy::ids::GatewayId;
use penstock_proto::est::Body;
use penstock_proto::peer::Subject;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::tls::times::instant;
use penstock_proto::v1;
use penstock_proto::v1::gateway_link_server::GatewayLink;
use tonic::{Request, Response, Status, Streaming};

use super::answers::{Answers, Frames, Nothing, framed};
use super::enrol::to_wire;
use super::gate;
use crate::allowance::{Allowance, Share};
use crate::ca::Authority;
use crate::clock;
use crate::enrolment;
use crate::est::EstDesk;
use crate::journal::Journal;
use crate::sessions::Sessions;
use crate::store::Store;
use crate::subjects::Subjects;
use crate::tickets::Tickets;

/// The service.
pub struct LinkService {
    /// Opens sessions.
    pub sessions: Arc<Sessions>,
    /// Sessions under way.
    pub places: Answers<GatewayId>,
    /// Whose keys count.
    pub subjects: Subjects,
    /// Issues.
    pub authority: Arc<Authority>,
    /// Remembers.
    pub store: Store,
    /// Where renewals are written down.
    pub journal: Journal,
    /// Whether the key of a gateway has two users.
    pub tickets: Tickets,
    /// How often each may renew.
    pub renewals: Allowance,
    /// Answers devices.
    pub(crate) est: Arc<EstDesk>,
    /// How many of their requests each gateway may carry.
    pub carried: Allowance,
}

/// Requests of devices that one gateway may carry: all of a large zone at once, and one each ten seconds for ever.
pub const CARRIED: Share = Share {
    at_once: 1_000,
    per_day: 8_640,
};

/// Certificates that one peer may get: one after each change of the servers whose TLS it ends, and one an hour for ever.
pub const RENEWALS: Share = Share {
    at_once: 24,
    per_day: 24,
};

#[tonic::async_trait]
impl GatewayLink for LinkService {
    // What goes out are frames.
    type SessionStream = Nothing<v1::CoordinatorMessage>;

    async fn session(
        &self,
        request: Request<Streaming<v1::GatewayMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = gate::gateway(request.extensions())?;
        let (certified, address) = gate::certified(request.extensions())?;
        self.subjects.admit(certified, address).await?;
        let answer = self.places.begin(&peer.gateway, request.extensions())?;
        let frames = self.sessions.open(peer, request.into_inner());
        Ok(framed(Frames::new(frames), answer))
    }

    async fn carry_est(
        &self,
        request: Request<v1::CarryEstRequest>,
    ) -> Result<Response<v1::CarryEstResponse>, Status> {
        use v1::carry_est_response::Body as Wire;
        let peer = gate::gateway(request.extensions())?;
        let (certified, address) = gate::certified(request.extensions())?;
        self.subjects.admit(certified, address).await?;
        if let Err(after) = self.carried.take(peer.gateway.as_str(), 1, clock::now_ms()) {
            let words = "more devices' requests came through this gateway than are taken in a short time";
            return Err(Refusal::new(Reason::TooManyAttempts, words)
                .retry_after(after)
                .into());
        }
        let answer = self
            .est
            .carried(&peer.gateway, request.into_inner(), address)
            .await;
        let seconds = answer.retry_after.map_or(0, |after| after.as_secs().max(1));
        Ok(Response::new(v1::CarryEstResponse {
            status: answer.status.into(),
            retry_after_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
            body: Some(match answer.body {
                Body::Words(words) => Wire::Words(words),
                Body::Certificate(der) | Body::Authorities(der) | Body::Attributes(der) => {
                    Wire::Certificate(der.into())
                }
            }),
        }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let gate::Renewer {
            certified,
            address,
            is_late,
            issuer_withdrawn,
        } = gate::renewable(request.extensions())?;
        let subject = certified.identity.subject.clone();
        let message = request.into_inner();
        // First of all: a key that no longer counts takes none of the renewals of the one that does.
        if let Err(refusal) = self.subjects.judge(&certified) {
            self.journal
                .peer_refused(&subject, address, &refusal.message)
                .await?;
            return Err(refusal.into());
        }
        if let Err(refusal) = self.tickets.may_renew(&certified).await {
            if refusal.reason == Reason::TwoUsers {
                self.journal
                    .peer_refused(&subject, address, &refusal.message)
                    .await?;
            }
            return Err(refusal.into());
        }
        if let Err(after) = self.renewals.take(&subject.to_string(), 1, clock::now_ms()) {
            let words = format!(
                "{subject} renewed its certificate {} times in a short time; it can be renewed again in {} min",
                RENEWALS.at_once,
                after.as_secs() / 60 + 1
            );
            // Counted where it is refused again and again.
            self.journal.peer_refused(&subject, address, &words).await?;
            return Err(Refusal::new(Reason::TooManyAttempts, words)
                .retry_after(after)
                .into());
        }
        let mut words = vec![format!("key {}", certified.key)];
        // Whoever had the withdrawn key could certify any key for any name: only the recorded one gets another certificate.
        if issuer_withdrawn && !self.subjects.is_current(&subject, certified.key) {
            let words = format!(
                "{subject} showed a certificate that a withdrawn key issued, for a key that is not recorded here: enrol it again"
            );
            self.journal.peer_refused(&subject, address, &words).await?;
            return Err(Refusal::new(Reason::CertificateEnded, words).into());
        }
        if is_late {
            words.push(match issuer_withdrawn {
                true => "the one before was issued by a key that was withdrawn".to_owned(),
                false => format!("the one before ended at {}", instant(certified.valid_ms.1)),
            });
        }
        // What a gateway serves by is what the approved release says; nothing that it asks for.
        let mut names = match (&subject, self.sessions.releases.now()) {
            (Subject::Gateway(gateway), Some(current)) => current.tls_ends(gateway),
            _ => ServerNames::default(),
        };
        if let Subject::Gateway(gateway) = &subject {
            names.extend(self.est.own_addresses(gateway, &message.est_addresses).await);
        }
        if !names.is_empty() {
            words.insert(0, names.to_string());
        }
        let renewed = enrolment::renew(
            &self.store,
            (&self.subjects, &self.authority),
            &certified,
            (&names, None),
            &message.certificate_request,
            clock::now_ms(),
            self.journal
                .identity_event("renewed", &subject, Some(address), &words.join("; ")),
        )
        .await;
        if let Err(refusal) = &renewed
            && refusal.reason == Reason::OtherKey
        {
            self.journal
                .peer_refused(&subject, address, &refusal.message)
                .await?;
        }
        let issued = renewed?;
        Ok(Response::new(to_wire(issued, &self.authority)))
    }
}
