//! A new certificate long before the old one ends: looked at each minute, asked for at two thirds of its life.
//!
//! Level-triggered: whatever failed is tried again at the next look. An expired certificate stops the link, never
//! the policy in force.

use std::sync::Arc;
use std::time::Duration;

use penstock_proto::channel::{self, Address};
use penstock_proto::peer::{PeerIdentity, Subject};
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::{RenewRequest, Severity};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::backoff::jitter;
use super::random;
use crate::audit::{Audit, record};
use crate::clock;
use crate::identity::{Identity, IdentityError, IdentityFolder};

/// How often the certificate is looked at, at least.
const LOOK: Duration = Duration::from_secs(60);

/// Whether a certificate valid in `validity_ms` is due at `now_ms`. `spread` (0–999) differs from gateway to gateway,
/// so that those enrolled together do not renew together.
pub fn is_due(validity_ms: (u64, u64), now_ms: u64, spread: u64) -> bool {
    let (from, until) = validity_ms;
    let life = until.saturating_sub(from);
    // Between 60 and 70 percent of its life.
    let due = from
        .saturating_add(life / 10 * 6)
        .saturating_add(life / 10_000 * (spread % 1000));
    now_ms >= due
}

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Our own part.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] penstock_proto::tls::TlsError),
    /// No coordinator could be reached.
    #[error(transparent)]
    Connect(#[from] channel::ConnectError),
    /// Refused.
    #[error("the coordinator refused: {}", penstock_proto::refusal::explain(.0).message)]
    Refused(Box<tonic::Status>),
    /// A blocking part failed in itself.
    #[error("the renewal failed in itself")]
    Agent,
}

/// Renews until `stop` is cancelled; new identities go out by `identity`.
pub async fn run(
    folder: IdentityFolder,
    coordinators: Vec<Address>,
    audit: Audit,
    identity: watch::Sender<Option<Arc<Identity>>>,
    stop: CancellationToken,
) {
    let spread = random() % 1000;
    let mut last_problem = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK + jitter(LOOK / 4, random())) => {}
        }
        let Some(current) = identity.borrow().clone() else {
            continue;
        };
        let due = current
            .validity_ms()
            .is_ok_and(|validity| is_due(validity, clock::now_ms(), spread));
        if !due {
            continue;
        }
        match renew(&folder, &coordinators, &current).await {
            Ok(renewed) => {
                audit.record(
                    Severity::Info,
                    record::agent("renewed", "a new certificate is in use"),
                );
                identity.send_replace(Some(Arc::new(renewed)));
                last_problem.clear();
            }
            Err(error) => {
                let problem = error.to_string();
                if problem != last_problem {
                    tracing::warn!(%problem, "the certificate was not renewed; it is tried again");
                    last_problem = problem;
                }
            }
        }
    }
}

/// Asks for a certificate for the same key and stores it.
pub async fn renew(
    folder: &IdentityFolder,
    coordinators: &[Address],
    current: &Identity,
) -> Result<Identity, RenewError> {
    let enrolment = current.enrolment.clone();
    let own = PeerIdentity {
        plant: enrolment.plant.clone(),
        subject: Subject::Gateway(enrolment.gateway.clone()),
    };
    let (key, request) = {
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || {
            let key = folder.key()?;
            let request = IdentityFolder::request(&key, &own)?;
            Ok::<_, IdentityError>((key, request))
        })
        .await
        .map_err(|_| RenewError::Agent)??
    };
    let addresses = if coordinators.is_empty() {
        enrolment.coordinators.clone()
    } else {
        coordinators.to_vec()
    };
    let connection = channel::connect(addresses, current.profile().config()?).await?;
    let answer = GatewayLinkClient::new(connection)
        .renew(RenewRequest {
            certificate_request: request.into(),
        })
        .await
        .map_err(|status| RenewError::Refused(Box::new(status)))?
        .into_inner();
    let folder = folder.clone();
    tokio::task::spawn_blocking(move || {
        let issued = IdentityFolder::check(&enrolment, &key, &answer)?;
        folder.store_issued(&issued)?;
        folder.load(enrolment)
    })
    .await
    .map_err(|_| RenewError::Agent)?
    .map_err(RenewError::Identity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_certificate_is_renewed_after_half_and_before_three_quarters_of_its_life(
            from in 0u64..4_000_000_000_000, life in 100_000u64..100_000_000_000, spread: u64,
        ) {
            let validity = (from, from + life);
            prop_assert!(!is_due(validity, from + life / 2, spread));
            prop_assert!(is_due(validity, from + life / 4 * 3, spread));
            prop_assert!(is_due(validity, u64::MAX, spread), "an expired one is due, too");
        }
    }
}
