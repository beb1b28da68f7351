//! A new certificate long before the old one ends: looked at each minute, asked for at two thirds of its life; or at
//! once, if the policy in force ends TLS for servers that the certificate does not name ([`super::missing_names`]).
//!
//! A certificate that has ended stops the sessions, never the policy in force: the coordinator still takes it for a renewal, for a year and
//! more, by the same key, and says so to whoever tries a session with it. So a gateway that was dark for months comes back by itself, as
//! soon as there is a coordinator again, and whatever its own clock shows. At each look the certificate that is good by the clock
//! becomes the one in use, so that a clock that was wrong for a while leaves nothing behind.
//!
//! When to ask is decided by [`machine`]. Here is the shell around it: the files, the request, and what is reported of them.

pub mod machine;

use std::net::IpAddr;
use std::sync::Arc;

use penstock_proto::channel::Address;
use penstock_proto::event::AgentStep;
use penstock_proto::keys::certificate_request;
use penstock_proto::peer::{PeerIdentity, Subject};
use penstock_proto::refusal::explain;
use penstock_proto::tls::times::instant;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::{Fault, RenewRequest};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::machine::{CertificateFacts, Moment, RenewalMachine};
use super::connect::{self, LinkError, Shown};
use crate::audit::{Audit, record};
use crate::identity::{Identity, IdentityError, IdentityFolder};
use crate::jitter::random;
use crate::known_time::KnownTime;
use crate::reconcile::PolicyView;
use crate::withdrawn::WithdrawnKeeper;

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
    #[error("the coordinator refused: {}", explain(.0).message)]
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
    /// What is known of the time.
    pub time: KnownTime,
    /// The coordinator says that the certificate has ended.
    pub ended: Arc<Notify>,
    /// Where a certificate that lacks names is said.
    pub fault: watch::Sender<Option<Fault>>,
    /// Where it is said that this gateway's key no longer counts, or that an answer brought roots.
    pub withdrawn: Arc<WithdrawnKeeper>,
    /// Addresses of this gateway at which devices enrol.
    pub est: Vec<IpAddr>,
}

/// What came of a renewal.
#[derive(Debug)]
pub struct Renewed {
    /// The identity from now on.
    pub identity: Identity,
    /// What a person should know of roots that the answer brought and that are not kept.
    pub strange_roots: Option<String>,
}

impl Renewal {
    /// Renews until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut machine = RenewalMachine::new(self.moment());
        let mut last_problem = String::new();
        let mut policy_lives = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(machine.deadline().into()) => {}
                changed = self.policy.changed(), if policy_lives => policy_lives = changed.is_ok(),
                () = self.ended.notified() => machine.ended(),
            }
            self.time.look().await;
            let current = self.identity.borrow().clone().map(|current| self.choose(current));
            let facts = current.as_deref().map(|identity| self.facts(identity));
            // Not enrolled: there is no certificate to ask for another one with.
            let asks = machine.look(&facts.unwrap_or_default(), self.moment());
            self.show(&machine);
            let Some(current) = current.filter(|_| asks) else {
                continue;
            };
            match renew_for(&self.folder, &self.coordinators, &current, &self.est).await {
                Ok(Renewed {
                    identity: renewed,
                    strange_roots,
                }) => {
                    let stored = stored_in_words(&current, &renewed);
                    self.audit.note(record::agent(AgentStep::Renewed, &stored));
                    self.withdrawn.brought_roots(strange_roots);
                    self.withdrawn.welcomed();
                    machine.renewed(&self.facts(&renewed), self.moment());
                    self.replace(&current, Arc::new(renewed));
                    last_problem.clear();
                }
                Err(error) => {
                    match &error {
                        RenewError::Refused(status) => self.withdrawn.turned_away(&explain(status)),
                        RenewError::Identity(error @ IdentityError::Unheld(_)) => {
                            self.withdrawn.brought_roots(Some(error.to_string()));
                        }
                        _ => {}
                    }
                    let problem = error.to_string();
                    machine.failed(&problem, self.moment());
                    if problem != last_problem {
                        tracing::warn!(%problem, "the certificate was not renewed; it is tried again");
                        last_problem = problem;
                    }
                }
            }
            self.show(&machine);
        }
    }

    /// What the machine needs to know of a certificate, held against the policy in force.
    fn facts(&mut self, identity: &Identity) -> CertificateFacts {
        let held = identity.server_names().unwrap_or_default();
        let mut needed = self.policy.borrow_and_update().tls_ends.clone();
        needed.extend(self.est.iter().copied());
        CertificateFacts {
            validity_ms: identity.validity_ms().ok(),
            newest_until_ms: identity.newest_until_ms(),
            missing: needed.missing_from(&held),
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            now: Instant::now().into_std(),
            time_ms: self.time.now_ms(),
            random: random(),
        }
    }

    /// Takes the certificate into use that is good by the clock, if it is another one.
    fn choose(&self, current: Arc<Identity>) -> Arc<Identity> {
        self.time.believe_authority(&current);
        let Some(chosen) = current.chosen_at(self.time.now_ms()).map(Arc::new) else {
            return current;
        };
        let span = |identity: &Identity| {
            let (from, until) = identity.validity_ms().unwrap_or_default();
            format!("{} to {}", instant(from), instant(until))
        };
        let told = format!(
            "at {}, by what this machine knows of the time, the certificate valid from {} is in use instead of the one from {}",
            instant(self.time.now_ms()),
            span(&chosen),
            span(&current)
        );
        tracing::warn!("{told}");
        self.audit
            .note(record::agent(AgentStep::CertificateChosen, &told));
        self.replace(&current, chosen.clone());
        chosen
    }

    /// Puts another identity in the place of this one; not in the place of one that somebody gave this machine meanwhile.
    fn replace(&self, current: &Arc<Identity>, another: Arc<Identity>) {
        self.identity.send_if_modified(|now| {
            let is_current = now.as_ref().is_some_and(|now| Arc::ptr_eq(now, current));
            if is_current {
                *now = Some(another);
            }
            is_current
        });
    }

    /// Shows a fault when it begins, and when it changes.
    fn show(&self, machine: &RenewalMachine) {
        let fault = machine.fault();
        let changed = self.fault.send_if_modified(|shown| {
            let changed = *shown != fault;
            shown.clone_from(&fault);
            changed
        });
        if let Some(fault) = fault.filter(|_| changed) {
            tracing::warn!("{}", fault.message);
            self.audit.note(record::agent(&fault.code, &fault.message));
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
) -> Result<Renewed, RenewError> {
    renew_for(folder, coordinators, current, &[]).await
}

/// The same for a gateway at whose own addresses `est` devices enrol.
///
/// # Errors
/// As [`renew`].
async fn renew_for(
    folder: &IdentityFolder,
    coordinators: &[Address],
    current: &Identity,
    est: &[IpAddr],
) -> Result<Renewed, RenewError> {
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
    let connected = connect::connect(addresses, current, Shown::default()).await?;
    let answer = GatewayLinkClient::new(connected.channel)
        .renew(RenewRequest {
            certificate_request: request.into(),
            est_addresses: est.iter().map(ToString::to_string).collect(),
        })
        .await
        .map_err(|status| RenewError::Refused(Box::new(status)))?
        .into_inner();
    let (folder, held) = (folder.clone(), current.roots().to_vec());
    tokio::task::spawn_blocking(move || {
        let issued = IdentityFolder::check(&enrolment, &key, &held, &answer)?;
        folder.store_issued(&issued)?;
        Ok(Renewed {
            identity: folder.load(enrolment)?,
            strange_roots: issued.strange_roots(),
        })
    })
    .await
    .map_err(|_| RenewError::Agent)?
    .map_err(RenewError::Identity)
}
