//! A new certificate long before the old one ends: looked at each minute, asked for at two thirds of its life; or at
//! once, if the policy in force ends TLS for servers that the certificate does not name ([`super::missing_names`]).
//!
//! Level-triggered: whatever failed is tried again at the next look. An expired certificate stops the link, never
//! the policy in force. At each look the certificate that is good by the clock becomes the one in use, so that a clock that
//! was wrong for a while leaves nothing behind; and where a new one did not help, since the clocks here and at the coordinator
//! differ, the next one is asked for an hour later.

use std::sync::Arc;
use std::time::Duration;

use penstock_proto::backoff::jitter;
use penstock_proto::channel::Address;
use penstock_proto::keys::certificate_request;
use penstock_proto::peer::{PeerIdentity, Subject};
use penstock_proto::tls::times::instant;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::{Fault, RenewRequest, Severity};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connect::{self, LinkError};
use super::missing_names::MissingNames;
use crate::audit::{Audit, record};
use crate::clock;
use crate::identity::{Identity, IdentityError, IdentityFolder};
use crate::jitter::random;
use crate::reconcile::PolicyView;

/// How often the certificate is looked at, at least.
const LOOK: Duration = Duration::from_secs(60);
/// How long after one that is due again at once the next one is asked for.
const UNHELPFUL: Duration = Duration::from_secs(3600);
/// How often the clock is looked at: which certificate is good may have changed with it.
const CLOCK_LOOK: Duration = Duration::from_secs(5);

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

/// What came of a renewal.
fn stored_in_words(before: &Identity, after: &Identity) -> String {
    let in_use = after.validity_ms().unwrap_or_default();
    if before.validity_ms().unwrap_or_default() != in_use {
        let (from, until) = in_use;
        return format!(
            "a new certificate is in use, valid from {} until {}",
            instant(from),
            instant(until)
        );
    }
    "a new certificate is stored; by this machine's clock the previous one is valid, and it stays in use"
        .to_owned()
}

/// Whether to ask for another one. Where the one issued last ends later, and its time has not come by the clock here, that is waited
/// for as long as the one in use has a tenth of its life: asking again would bring the same.
fn wants_another(in_use: (u64, u64), newest_until_ms: u64, now_ms: u64, spread: u64) -> bool {
    let (from, until) = in_use;
    let late = until.saturating_sub(now_ms) < until.saturating_sub(from) / 10;
    is_due(in_use, now_ms, spread) && (late || newest_until_ms <= until)
}

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Our own part.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No coordinator could be reached.
    #[error(transparent)]
    Connect(#[from] LinkError),
    /// Refused.
    #[error("the coordinator refused: {}", penstock_proto::refusal::explain(.0).message)]
    Refused(Box<tonic::Status>),
    /// An internal error in a blocking part.
    #[error("internal error in the renewal")]
    Agent,
}

/// What renewing needs of the others.
pub struct Renewal {
    /// Where the identity is kept.
    pub folder: IdentityFolder,
    /// Coordinators instead of those in the enrolment; empty: those.
    pub coordinators: Vec<Address>,
    /// The trail.
    pub audit: Audit,
    /// Where new identities go out.
    pub identity: watch::Sender<Option<Arc<Identity>>>,
    /// The policy in force, for the names that it needs.
    pub policy: watch::Receiver<PolicyView>,
    /// Where a certificate that lacks names is said.
    pub fault: watch::Sender<Option<Fault>>,
}

impl Renewal {
    /// Renews until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let spread = random() % 1000;
        let mut lack = MissingNames::default();
        let mut last_problem = String::new();
        let mut policy_lives = true;
        let mut again_at: Option<Instant> = None;
        let mut look = Instant::now() + LOOK + jitter(LOOK / 4, random());
        loop {
            let clock_look = Instant::now() + CLOCK_LOOK;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(lack.due().map_or(look, |due| due.min(look)).min(clock_look)) => {}
                changed = self.policy.changed(), if policy_lives => policy_lives = changed.is_ok(),
            }
            let Some(current) = self.identity.borrow().clone() else {
                continue;
            };
            let current = self.choose(current);
            self.see(&mut lack, &current);
            let looks = look <= Instant::now();
            if looks {
                look = Instant::now() + LOOK + jitter(LOOK / 4, random());
            }
            let aged = looks
                && again_at.is_none_or(|at| at <= Instant::now())
                && current.validity_ms().is_ok_and(|validity| {
                    wants_another(validity, current.newest_until_ms(), clock::now_ms(), spread)
                });
            let lacking = lack.due().is_some_and(|due| due <= Instant::now());
            if !aged && !lacking {
                continue;
            }
            match renew(&self.folder, &self.coordinators, &current).await {
                Ok(renewed) => {
                    self.audit.record(
                        Severity::Info,
                        record::agent("renewed", &stored_in_words(&current, &renewed)),
                    );
                    again_at = renewed
                        .validity_ms()
                        .is_ok_and(|validity| is_due(validity, clock::now_ms(), spread))
                        .then(|| Instant::now() + UNHELPFUL);
                    self.see(&mut lack, &renewed);
                    self.identity.send_replace(Some(Arc::new(renewed)));
                    last_problem.clear();
                    self.asked(
                        &mut lack,
                        "the coordinator's newest release does not give it them",
                    );
                }
                Err(error) => {
                    let problem = error.to_string();
                    self.asked(&mut lack, &problem);
                    if problem != last_problem {
                        tracing::warn!(%problem, "the certificate was not renewed; it is tried again");
                        last_problem = problem;
                    }
                }
            }
        }
    }

    /// Takes the certificate into use that is good by the clock, if it is another one.
    fn choose(&self, current: Arc<Identity>) -> Arc<Identity> {
        let Some(chosen) = current.chosen_at(clock::now_ms()).map(Arc::new) else {
            return current;
        };
        let span = |identity: &Identity| {
            let (from, until) = identity.validity_ms().unwrap_or_default();
            format!("{} to {}", instant(from), instant(until))
        };
        let told = format!(
            "by this machine's clock, which shows {}, the certificate valid from {} is in use instead of the one from {}",
            instant(clock::now_ms()),
            span(&chosen),
            span(&current)
        );
        tracing::warn!("{told}");
        self.audit
            .record(Severity::Notice, record::agent("certificate-chosen", &told));
        self.identity.send_replace(Some(chosen.clone()));
        chosen
    }

    /// Holds the names in a certificate against those that the policy in force needs.
    fn see(&mut self, lack: &mut MissingNames, identity: &Identity) {
        let held = identity.server_names().unwrap_or_default();
        let needed = self.policy.borrow_and_update().tls_ends.clone();
        lack.see(needed.missing_from(&held), Instant::now(), random());
        self.tell(lack);
    }

    fn asked(&self, lack: &mut MissingNames, why: &str) {
        lack.asked(why, Instant::now(), random());
        self.tell(lack);
    }

    /// Says a fault when it begins, and when it changes.
    fn tell(&self, lack: &MissingNames) {
        let fault = lack.fault();
        let changed = self.fault.send_if_modified(|told| {
            let changed = *told != fault;
            told.clone_from(&fault);
            changed
        });
        if let Some(fault) = fault.filter(|_| changed) {
            tracing::warn!("{}", fault.message);
            self.audit
                .record(Severity::Warning, record::agent(&fault.code, &fault.message));
        }
    }
}

/// Asks for a certificate for the same key and stores it.
///
/// # Errors
/// No coordinator can be reached, it refuses, its answer is not for our name and key, or the certificate cannot be
/// stored. The current one stays in use.
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
            let request = certificate_request(&key, Some(&own))?;
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
    let connected = connect::connect(addresses, current).await?;
    let answer = GatewayLinkClient::new(connected.channel)
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
            // A later one that is held already is waited for, but not to the last.
            let wants = |at| wants_another(validity, from + life * 2, at, spread);
            prop_assert!(!wants(from + life / 4 * 3) && wants(from + life / 100 * 95) && wants(u64::MAX));
            prop_assert!(wants_another(validity, from + life, from + life / 4 * 3, spread));
        }
    }
}
