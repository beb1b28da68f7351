//! Who may do what: the one place (IEC 62443-3-3 SR 2.1).
//!
//! A caller is who their verified certificate says, and nothing else. An operator's role comes from the coordinator's
//! record. The table of actions (`action`) is whole: a service cannot be called without naming its action.

mod action;

use std::net::IpAddr;
use std::sync::Arc;

use penstock_policy::ids::{Digest, OperatorId};
use penstock_proto::peer::{Certified, PeerIdentity, Subject};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::server::PeerInfo;
use penstock_proto::tls::times::instant;
use tonic::{Extensions, Request, Status};

pub use self::action::Action;
use super::sign_ins::SignIns;
use crate::allowance::{Allowance, Share};
use crate::clock;
use crate::journal::{Deed, Journal};
use crate::operators::{self, Role};
use crate::requests::Person;
use crate::sessions::GatewayPeer;
use crate::store::{OwnEvent, Store};
use crate::subjects::Subjects;

/// An operator who may do what they ask for.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub operator: OperatorId,
    /// Their role.
    pub role: Role,
    /// What for.
    pub action: Action,
    /// The key that they proved.
    pub key: Digest,
}

impl Caller {
    /// Who asks or decides.
    pub(crate) fn person(&self) -> Person<'_> {
        Person {
            operator: &self.operator,
            key: self.key,
        }
    }
}

/// Somebody who may renew a certificate.
#[derive(Debug)]
pub(crate) struct Renewer {
    /// What their certificate says.
    pub(crate) certified: Certified,
    /// From where they ask.
    pub(crate) address: IpAddr,
    /// It has ended.
    pub(crate) is_late: bool,
    /// What issued it was withdrawn.
    pub(crate) issuer_withdrawn: bool,
}

/// Judges callers.
#[derive(Debug, Clone)]
pub struct Gate {
    store: Store,
    subjects: Subjects,
    journal: Journal,
    recorded: Arc<Allowance>,
    sign_ins: Arc<SignIns>,
}

/// What one operator may have written down: tokens for a large fleet at once, and one action a second for ever.
const RECORDED: Share = Share {
    at_once: 20_000,
    per_day: 86_400,
};

/// Whose connection a request came by, also if they showed no certificate.
pub(super) fn peer(extensions: &Extensions) -> Result<&PeerInfo, Refusal> {
    extensions
        .get()
        .ok_or_else(|| Refusal::new(Reason::Internal, "the connection's peer is not known"))
}

/// The verified identity of a request's peer, whose certificate has not ended.
fn identity(extensions: &Extensions) -> Result<(&PeerIdentity, &PeerInfo), Refusal> {
    let (identity, info) = shown(extensions)?;
    if info.has_ended() {
        metrics::counter!("penstock_denied_total", "reason" => "certificate-ended").increment(1);
        return Err(ended(info));
    }
    Ok((identity, info))
}

/// What whoever's certificate has ended is refused with.
pub(super) fn ended(info: &PeerInfo) -> Refusal {
    let certified = info.certified.as_ref();
    let until = certified.map_or(0, |certified| certified.valid_ms.1);
    let who = certified.map(|certified| &certified.identity.subject);
    let next = match who {
        Some(Subject::Gateway(_)) => {
            "its agent renews it now by itself, and nothing else is possible with it"
        }
        _ => "sign in again with a token: `penstock login`",
    };
    let who = who.map(ToString::to_string).unwrap_or_default();
    let words = match info.issuer_withdrawn {
        true => format!("the certificate of {who} was issued by a key that was withdrawn; {next}"),
        false => format!("the certificate of {who} ended at {}; {next}", instant(until)),
    };
    Refusal::new(Reason::CertificateEnded, words)
}

/// The verified identity of a request's peer, also if its certificate has ended since, or had when it came.
fn shown(extensions: &Extensions) -> Result<(&PeerIdentity, &PeerInfo), Refusal> {
    let info = peer(extensions)?;
    let identity = info.identity().ok_or_else(|| {
        metrics::counter!("penstock_denied_total", "reason" => "no-certificate").increment(1);
        Refusal::new(
            Reason::NoCertificate,
            "this needs a client certificate of this plant; enrol first",
        )
    })?;
    Ok((identity, info))
}

fn wrong_kind(identity: &PeerIdentity, wanted: &str) -> Refusal {
    metrics::counter!("penstock_denied_total", "reason" => "wrong-kind").increment(1);
    Refusal::new(
        Reason::WrongKindOfPeer,
        format!("this is for {wanted}, and you are {}", identity.subject),
    )
}

impl Gate {
    /// With the records of this store, and who counts by these; refusals go to this journal.
    pub fn new(store: Store, subjects: Subjects, journal: Journal) -> Self {
        Self {
            store,
            subjects,
            journal,
            recorded: Arc::new(Allowance::new(RECORDED)),
            sign_ins: Arc::new(SignIns::new()),
        }
    }

    /// An operator whose role includes `action`.
    pub(crate) async fn operator(&self, extensions: &Extensions, action: Action) -> Result<Caller, Refusal> {
        let (identity, info) = match identity(extensions) {
            Ok(known) => known,
            Err(refusal) => {
                self.unknown(extensions, action, &refusal).await?;
                return Err(refusal);
            }
        };
        let Subject::Operator(operator) = &identity.subject else {
            let refusal = wrong_kind(identity, "operators");
            // No operator did this, so that it is no operator's event.
            let words = format!("{}: {}", action.as_str(), refusal.message);
            self.journal
                .peer_refused(&identity.subject, info.address.ip(), &words)
                .await?;
            return Err(refusal);
        };
        let (certified, address) = certified(extensions)?;
        self.subjects.admit(certified, address).await?;
        let Some(role) = operators::role_of(&self.store, operator).await? else {
            let refusal = Refusal::new(
                Reason::UnknownOperator,
                format!("operator {operator} is not known here; ask an admin for a token"),
            );
            self.refused(operator.as_str(), "", action, &refusal).await?;
            return Err(refusal);
        };
        self.signs_in(operator, role, certified, address).await;
        let needed = action.needs();
        if !action.is_for(role) {
            let refusal = Refusal::new(
                Reason::WrongRole,
                format!(
                    "{} needs the role {needed}{}; {operator} is {role}",
                    action.as_str(),
                    action
                        .also()
                        .map(|also| format!(" or {also}"))
                        .unwrap_or_default()
                ),
            )
            .condition("role", format!("{needed} is needed"));
            self.refused(operator.as_str(), role.as_str(), action, &refusal)
                .await?;
            return Err(refusal);
        }
        if action.is_recorded()
            && let Err(after) = self.recorded.take(operator.as_str(), 1, clock::now_ms())
        {
            let refusal = Refusal::new(
                Reason::TooManyActions,
                format!(
                    "{operator} did more than {} recorded actions in a short time; one more is possible each second",
                    RECORDED.at_once
                ),
            )
            .retry_after(after);
            self.refused(operator.as_str(), role.as_str(), action, &refusal)
                .await?;
            return Err(refusal);
        }
        Ok(Caller {
            operator: operator.clone(),
            role,
            action,
            key: certified.key,
        })
    }

    /// Writes down that somebody called without a certificate, or with one that has ended.
    async fn unknown(
        &self,
        extensions: &Extensions,
        action: Action,
        refusal: &Refusal,
    ) -> Result<(), Refusal> {
        let Some(info) = extensions.get::<PeerInfo>() else {
            return Ok(());
        };
        let (address, words) = (
            info.address.ip(),
            format!("{}: {}", action.as_str(), refusal.message),
        );
        match info.identity() {
            Some(identity) => {
                self.journal
                    .peer_refused(&identity.subject, address, &words)
                    .await?
            }
            None => self.journal.stranger_refused("", address, &words).await?,
        }
        Ok(())
    }

    /// Writes a sign-in down, if this call is one. Nobody is kept from looking because the store takes nothing: what cannot be written then
    /// is tried again with the next call.
    async fn signs_in(&self, operator: &OperatorId, role: Role, certified: &Certified, address: IpAddr) {
        let Some(omitted) = self.sign_ins.call(operator.as_str(), address, clock::now_ms()) else {
            return;
        };
        let (from_ms, until_ms) = certified.valid_ms;
        let mut words = format!(
            "as {role}, life {}, key {}, certificate from {} until {}",
            certified.epoch,
            certified.key,
            instant(from_ms),
            instant(until_ms)
        );
        if omitted > 0 {
            words = format!("{words} (and {omitted} more sign-ins before this one, not written)");
        }
        let written = self
            .journal
            .signed_in(&certified.identity.subject, address, words);
        if let Err(error) = written.await {
            tracing::warn!(%operator, error = %crate::chain(&error), "cannot write down who signs in; it is tried again");
            self.sign_ins.unwritten(operator.as_str(), address);
        }
    }

    async fn refused(&self, who: &str, role: &str, action: Action, refusal: &Refusal) -> Result<(), Refusal> {
        metrics::counter!("penstock_denied_total", "reason" => refusal.reason.as_str()).increment(1);
        let deed = self.journal.deed(who, role, action.as_str());
        deed.refused("", &refusal.message).await?;
        Ok(())
    }

    /// What a caller does, for the trail: its event is written with its effect.
    pub(crate) fn deed<'a>(&'a self, caller: &'a Caller) -> Deed<'a> {
        let Caller {
            operator,
            role,
            action,
            ..
        } = caller;
        self.journal
            .deed(operator.as_str(), role.as_str(), action.as_str())
    }

    /// The same for what follows from it.
    pub(crate) fn deed_of<'a>(&'a self, caller: &'a Caller, action: Action) -> Deed<'a> {
        self.journal
            .deed(caller.operator.as_str(), caller.role.as_str(), action.as_str())
    }

    /// What the trail says of a certificate that is issued to whoever asks from this address.
    pub(crate) fn identity_event(&self, step: &str, subject: &Subject, address: IpAddr) -> OwnEvent {
        self.journal.identity_event(step, subject, Some(address), "")
    }

    /// Hands the result of a caller's action on. A refusal is written down first; what was done is there already, with its
    /// effect.
    pub(crate) async fn judged<T>(
        &self,
        caller: &Caller,
        target: &str,
        result: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if let Err(refusal) = &result {
            metrics::counter!("penstock_denied_total", "reason" => refusal.reason.as_str()).increment(1);
            self.deed(caller).refused(target, &refusal.message).await?;
        }
        result
    }
}

/// A gateway. Its certificate is enough: a coordinator that was restored from an older backup does not lock out
/// gateways that enrolled since.
pub(crate) fn gateway(extensions: &Extensions) -> Result<GatewayPeer, Refusal> {
    let (identity, info) = identity(extensions)?;
    let Subject::Gateway(gateway) = &identity.subject else {
        return Err(wrong_kind(identity, "gateways"));
    };
    let (certified, address) = certificate_of(info)?;
    Ok(GatewayPeer {
        gateway: gateway.clone(),
        key: certified.key,
        address,
        certificate_expires_ms: certified.valid_ms.1,
        ends: info.ends,
    })
}

/// Whoever has a certificate of this plant that counts, for what is open to all of them.
pub(crate) fn known(subjects: &Subjects, request: Request<()>) -> Result<Request<()>, Status> {
    let (certified, _) = certified(request.extensions())?;
    subjects.judge(certified)?;
    Ok(request)
}

/// What a caller's certificate says, and from where they call.
pub(crate) fn certified(extensions: &Extensions) -> Result<(&Certified, IpAddr), Refusal> {
    let (_, info) = identity(extensions)?;
    certificate_of(info)
}

fn certificate_of(info: &PeerInfo) -> Result<(&Certified, IpAddr), Refusal> {
    let certified = info.certified.as_ref();
    let certified =
        certified.ok_or_else(|| Refusal::new(Reason::Internal, "the connection's peer is not known"))?;
    Ok((certified, info.address.ip()))
}

/// A gateway that may renew its certificate, and from where it asks: also when that has ended, for its key alone. An operator's login is
/// renewed by a call of its own, for its own key.
pub(crate) fn renewable(extensions: &Extensions) -> Result<Renewer, Refusal> {
    let (shown, info) = shown(extensions)?;
    let Subject::Gateway(_) = &shown.subject else {
        return Err(wrong_kind(shown, "gateways"));
    };
    let is_late = info.has_ended();
    let (certified, address) = certificate_of(info)?;
    Ok(Renewer {
        certified: certified.clone(),
        address,
        is_late,
        issuer_withdrawn: info.issuer_withdrawn,
    })
}
