//! Commands that talk to a coordinator: one connection, made from the login, and refusals in a person's words.

pub mod accounts;
pub mod adopt;
pub mod alarms;
pub mod audit;
pub mod batch;
pub mod devices;
mod draft;
mod event_proof;
mod evidence;
mod export;
#[cfg(test)]
mod fixture;
pub mod fleet;
pub mod health;
pub mod identities;
pub mod learn;
pub mod login;
pub mod oidc;
pub mod releases;
mod renew;
pub mod requests;
pub mod rollout;
mod screen;
pub mod standing;
mod trail;
mod trails;
pub mod why;

use penstock_policy::ids::Digest;
use penstock_proto::bundle::{SignedBundle, Trusted};
use penstock_proto::channel::{self, ConnectError, OPERATOR_REQUEST_BYTES_MAX, OPERATOR_RESPONSE_BYTES_MAX};
use penstock_proto::refusal::{self, Reason};
use penstock_proto::tls::Credentials;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::v1::control_client::ControlClient;
use penstock_proto::v1::{AuditRecord, SearchAuditRequest, TrustHeld, WhoAmIRequest};
use penstock_proto::withdrawn::WithdrawnView;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::contexts::{Contexts, NamedContext};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::times;
use crate::words;

/// A connection as a logged-in operator.
#[derive(Debug)]
pub struct Online {
    /// The login.
    pub login: NamedContext,
    /// The operators' API.
    pub client: ControlClient<Channel>,
    /// Where this person's logins are kept, and what they know of releases.
    contexts: Contexts,
}

impl Online {
    /// Connects with the login that `name` asks for, and renews its certificate where it is time.
    pub(crate) async fn connect(name: Option<&str>) -> Result<Self, Failure> {
        let (mut online, shown) = Self::connect_with(name).await?;
        renew::in_time(&mut online, &shown).await;
        Ok(online)
    }

    /// Connects; with what it did.
    async fn connect_with(name: Option<&str>) -> Result<(Self, Credentials), Failure> {
        let contexts = Contexts::open()?;
        let login = contexts.find(name)?;
        let trusted = contexts.trusted(&login.name)?;
        let roots = trusted.certificates();
        let withdrawn = WithdrawnView::default().without_issuers(&trusted.withdrawn);
        let mut refused: Option<ConnectError> = None;
        let all = contexts.credentials(&login, words::now_ms())?;
        for credentials in &all {
            let profile = ClientProfile {
                plant: login.context.plant.clone(),
                trust: Trust::Roots(roots.clone()),
                credentials: Some(credentials.clone()),
            };
            let tls = profile.config_knowing(&withdrawn).map_err(|error| {
                Failure::local(
                    "context-damaged",
                    format!("the login `{}` cannot be used", login.name),
                )
                .caused_by(&error)
                .help("log in again")
            })?;
            match channel::connect(login.context.coordinators.clone(), tls).await {
                Ok(channel) => {
                    let mut online = Self::over(contexts, login, channel);
                    online.learn_trust(&trusted).await?;
                    return Ok((online, credentials.clone()));
                }
                Err(error) if error.own_refused => {
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(unreachable(&refused.unwrap_or(error).to_string())),
            }
        }
        let why = refused.unwrap_or_else(ConnectError::nowhere).to_string();
        Err(renew::ended(&login.name, &all, &why).unwrap_or_else(|| unreachable(&why)))
    }

    fn over(contexts: Contexts, login: NamedContext, channel: Channel) -> Self {
        let client = ControlClient::new(channel)
            .max_encoding_message_size(OPERATOR_REQUEST_BYTES_MAX)
            .max_decoding_message_size(OPERATOR_RESPONSE_BYTES_MAX);
        Self {
            login,
            client,
            contexts,
        }
    }

    /// Takes the trust bundles that came since the one that this login holds. A coordinator of before there were any has none.
    async fn learn_trust(&mut self, held: &Trusted) -> Result<(), Failure> {
        let Ok(answer) = self.client.get_trust(TrustHeld::from(held)).await else {
            return Ok(());
        };
        let bundles: Vec<SignedBundle> = answer.into_inner().into();
        match bundles.is_empty() {
            true => Ok(()),
            false => Ok(self.contexts.take_trust(&self.login, &bundles).map(|_| ())?),
        }
    }

    /// Shows times in the zone of the plant's sites from here on, if nobody asked for another and they have one in common.
    pub async fn settle_zone(&mut self) {
        if times::is_settled() {
            return;
        }
        // Without an answer times are in UTC, with their offset; what else is wrong the command itself will say.
        if let Ok(answer) = self.client.who_am_i(WhoAmIRequest {}).await {
            let zones = answer.into_inner().time_zones;
            times::settle_by_sites(zones.iter().map(String::as_str));
        }
    }

    /// What the trail has, as far as the request's limit: the coordinator keeps to it, whoever is in its place need not.
    pub(crate) async fn search(&mut self, request: SearchAuditRequest) -> Result<Vec<AuditRecord>, Failure> {
        let limit = request.limit as usize;
        let answer = self.client.search_audit(request).await;
        let mut stream = answer.map_err(|status| refused(&status))?.into_inner();
        let mut records = Vec::new();
        while records.len() < limit {
            match stream.message().await.map_err(|status| refused(&status))? {
                Some(record) => records.push(record),
                None => break,
            }
        }
        Ok(records)
    }
}

/// No coordinator answered.
pub(crate) fn unreachable(why: &str) -> Failure {
    Failure::new(Exit::Unreachable, "unreachable", why)
        .help("offline commands (check, explain, diff, reach, graph, release sign) still work; gateways go on enforcing")
}

/// What the coordinator refused, or why it could not be asked.
pub(crate) fn refused(status: &Status) -> Failure {
    let explained = refusal::explain(status);
    let broken = matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
    );
    if explained.reason.is_none() && broken {
        return unreachable(&explained.message);
    }
    // A status that was made on this side has a cause: the connection broke in the middle of an answer.
    if explained.reason.is_none() && std::error::Error::source(status).is_some() {
        return unreachable("the connection to the coordinator broke").because(explained.message);
    }
    let code = explained
        .reason
        .clone()
        .unwrap_or_else(|| format!("{:?}", status.code()));
    let mut failure = Failure::new(Exit::Refused, &code, explained.message.clone());
    for (subject, what) in &explained.details {
        failure = failure.because(if subject.is_empty() {
            what.clone()
        } else {
            format!("{subject}: {what}")
        });
    }
    let advice = [
        (
            Reason::WrongRole,
            "see your role with `penstock whoami`; an administrator can add a login with another one",
        ),
        (
            Reason::UnknownOperator,
            "your login is no longer known: ask an administrator for a new token",
        ),
        (
            Reason::RevisionTaken,
            "somebody proposed in the meantime: look at `penstock release list`, then propose again",
        ),
        (
            Reason::ParentMismatch,
            "another release became current in the meantime: propose again on top of it",
        ),
        (
            Reason::IdentityWithdrawn,
            "ask an administrator for a new token, then log in again: penstock login --token FILE",
        ),
        (
            Reason::IdentitySuspended,
            "ask an administrator to resume your login",
        ),
        (Reason::TokenExpired, "ask an administrator for a new token"),
        (
            Reason::TokenUsed,
            "a token enrols once: ask an administrator for a new one, and tell them if it was not you",
        ),
        (Reason::TokenUnknown, "ask an administrator for a new token"),
        (Reason::SelfApproval, "another approver has to sign"),
        (Reason::SignInNeeded, "penstock login --oidc"),
        (
            Reason::KeyWithdrawn,
            "sign in with a new key (penstock login --oidc --new-key), or ask an administrator for a token",
        ),
        (
            Reason::SamePerson,
            "another admin or approver confirms it, with a login of their own: penstock requests confirm",
        ),
        (Reason::DocumentErrors, "run `penstock check` on the document"),
    ];
    for (reason, words) in advice {
        if explained.is(reason) {
            failure = failure.help(words);
        }
    }
    if let Some(after) = explained.retry_after {
        failure = failure.help(format!("try again in {} s", after.as_secs().max(1)));
    }
    failure
}

/// A field of an answer that is not what the contract says.
pub(crate) fn malformed(what: &str) -> Failure {
    Failure::altered(
        "malformed-answer",
        format!("the coordinator's answer makes no sense: {what}"),
    )
    .help("is the coordinator of the same version? nothing was changed")
}

/// A digest from the wire.
pub(crate) fn digest(what: &'static str, bytes: &[u8]) -> Result<Digest, Failure> {
    penstock_proto::convert::digest(what, bytes).map_err(|error| malformed(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_proto::refusal::Refusal;

    #[test]
    fn a_refusal_keeps_its_code_its_reasons_and_says_what_to_do() {
        let status: Status = Refusal::new(Reason::ParentMismatch, "release r4 was made on top of r2")
            .condition("parent", "r3 is current")
            .into();
        let failure = refused(&status);
        assert_eq!((failure.exit, &*failure.code), (Exit::Refused, "PARENT_MISMATCH"));
        assert_eq!(failure.because, ["parent: r3 is current"]);
        assert!(failure.help.iter().any(|help| help.contains("propose again")));
    }

    #[test]
    fn a_lost_connection_is_told_apart_from_a_refusal() {
        assert_eq!(refused(&Status::unavailable("gone")).exit, Exit::Unreachable);
        assert_eq!(refused(&Status::permission_denied("no")).exit, Exit::Refused);
        let cut = Status::from_error(Box::new(std::io::Error::other(
            "error reading a body from connection",
        )));
        assert_eq!(refused(&cut).exit, Exit::Unreachable);
        let busy: Status = Refusal::new(Reason::StoreBusy, "the store is busy").into();
        assert_eq!(refused(&busy).exit, Exit::Refused);
    }
}
