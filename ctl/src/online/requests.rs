//! `requests`: what one admin alone may not do and a second person confirms, after seeing exactly what it is.
//!
//! Whoever asked gets it by typing the same command again. Nothing that is shown is taken from the coordinator unheld: the approvers of a
//! gateway's token have the digest that the gateway is later held to, and are compared with the document on this machine, if one is named.

mod account;

use std::path::Path;
use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_policy::model::ApproverSet;
use penstock_proto::v1::decide_request_request::Decision;
use penstock_proto::v1::{DecideRequestRequest, ListRequestsRequest, PendingRequest, RequestState};
use schemars::JsonSchema;
use serde::Serialize;

pub use self::account::AccountAsked;
use super::login::role_word;
use super::{Online, digest, malformed, refused};
use crate::args::{Requests, RequestsCommand};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// How often it is looked whether a request was decided.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// An approver whom a gateway would believe.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ApproverLine {
    /// Who.
    pub name: String,
    /// Their public key.
    pub key: String,
}

/// Whose signatures a gateway would believe.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ApproversShown {
    /// SHA-256 of them, as the gateway is held to.
    pub digest: String,
    /// How many have to sign.
    pub threshold: u8,
    /// How many for an emergency; absent: there are none.
    pub emergency_threshold: Option<u8>,
    /// The people.
    pub people: Vec<ApproverLine>,
}

/// A request for what one admin alone may not do.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RequestLine {
    /// Its name.
    pub id: String,
    /// `gateway/<name>` or `operator/<name>`, for whom a token is asked; `device/<name>`, for which a token or a certificate is.
    pub subject: String,
    /// The account of the identity provider that is to be linked with the operator, instead of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountAsked>,
    /// The role that an operator's token gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The role that a device's certificate gives it (Modbus/TCP Security).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_role: Option<String>,
    /// SHA-256 of the key that a device's certificate is for, or that alone may enrol with the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whose signatures a gateway would believe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvers: Option<ApproversShown>,
    /// How long a token may be used once it is made, seconds; 0: it is a certificate.
    pub valid_seconds: u32,
    /// Who asked.
    pub asked_by: String,
    /// When, milliseconds since 1970.
    pub asked_ms: u64,
    /// When it ends, decided or not, milliseconds since 1970.
    pub ends_ms: u64,
    /// `waiting`, `confirmed`, `rejected` or `unknown`.
    pub state: String,
    /// Who decided; empty: nobody did.
    pub decided_by: String,
    /// When, milliseconds since 1970.
    pub decided_ms: u64,
    /// Why it was rejected.
    pub reason: String,
}

impl TryFrom<PendingRequest> for RequestLine {
    type Error = Failure;

    fn try_from(request: PendingRequest) -> Result<Self, Failure> {
        let approvers = approvers(&request)?.map(|set| ApproversShown {
            digest: set.digest().to_string(),
            threshold: set.threshold,
            emergency_threshold: set.emergency_threshold,
            people: set
                .people
                .iter()
                .map(|(name, approver)| ApproverLine {
                    name: name.to_string(),
                    key: String::from(approver.key),
                })
                .collect(),
        });
        let key = match request.key.is_empty() {
            true => None,
            false => Some(digest("key", &request.key)?.to_string()),
        };
        Ok(Self {
            state: match request.state() {
                RequestState::Waiting => "waiting",
                RequestState::Confirmed => "confirmed",
                RequestState::Rejected => "rejected",
                RequestState::Unspecified => "unknown",
            }
            .to_owned(),
            role: (request.role != 0).then(|| role_word(request.role).to_owned()),
            device_role: (!request.device_role.is_empty()).then_some(request.device_role),
            key,
            approvers,
            id: request.id,
            subject: request.subject,
            account: request.account.map(AccountAsked::from),
            valid_seconds: request.valid_seconds,
            asked_by: request.asked_by,
            asked_ms: request.asked_ms,
            ends_ms: request.ends_ms,
            decided_by: request.decided_by,
            decided_ms: request.decided_ms,
            reason: request.reason,
        })
    }
}

/// The approvers in a request, if they are what its digest says.
fn approvers(request: &PendingRequest) -> Result<Option<ApproverSet>, Failure> {
    if request.approvers.is_empty() && request.approvers_digest.is_empty() {
        return Ok(None);
    }
    let said: Digest = digest("approvers_digest", &request.approvers_digest)?;
    let set: ApproverSet =
        serde_json::from_slice(&request.approvers).map_err(|error| malformed(&error.to_string()))?;
    if set.digest() != said {
        return Err(Failure::altered(
            "approvers-altered",
            format!(
                "the approvers that are shown for request {} are not those of its digest",
                request.id
            ),
        ));
    }
    Ok(Some(set))
}

impl RequestLine {
    /// What is asked for, in short.
    fn what(&self) -> String {
        match &self.role {
            Some(role) if self.account.is_some() => {
                format!("account of the identity provider for {} as {role}", self.subject)
            }
            Some(role) => format!("token for {} as {role}", self.subject),
            None if self.valid_seconds == 0 => format!("certificate of {}", self.subject),
            None => format!("token for {}", self.subject),
        }
    }

    fn standing(&self, now_ms: u64) -> (Tone, String) {
        let decided = || {
            format!(
                "{} by {}",
                words::relative(self.decided_ms, now_ms),
                self.decided_by
            )
        };
        match self.state.as_str() {
            "waiting" => (
                Tone::Warn,
                format!("○ waits, ends {}", words::relative(self.ends_ms, now_ms)),
            ),
            "confirmed" => (
                Tone::Good,
                format!(
                    "● confirmed {}; {} has not fetched it yet",
                    decided(),
                    self.asked_by
                ),
            ),
            "rejected" => (Tone::Bad, format!("✗ rejected {}: {}", decided(), self.reason)),
            other => (Tone::Plain, other.to_owned()),
        }
    }

    /// All that is to be known of it.
    fn facts(&self, page: &mut Page) {
        let now_ms = words::now_ms();
        let (tone, standing) = self.standing(now_ms);
        let mut facts = vec![
            ("request", page.paint(Tone::Strong, &self.id)),
            ("for", page.paint(Tone::Strong, &self.what())),
            (
                "asked",
                page.paint(
                    Tone::Plain,
                    &format!("{} by {}", words::relative(self.asked_ms, now_ms), self.asked_by),
                ),
            ),
            ("standing", page.paint(tone, &standing)),
        ];
        if let Some(role) = &self.device_role {
            facts.push(("in the role", page.paint(Tone::Strong, role)));
        }
        if let Some(key) = &self.key {
            facts.push(("for the key", page.paint(Tone::Plain, key)));
        }
        if let Some(account) = &self.account {
            facts.push(("account", page.paint(Tone::Plain, &account.id)));
            let who = format!("`{}` of {}", account.subject, account.issuer);
            facts.push(("subject", page.paint(Tone::Strong, &who)));
            facts.push(("says it is", page.paint(Tone::Dim, &account.shown)));
        }
        if self.valid_seconds > 0 {
            let usable = words::span(u64::from(self.valid_seconds) * 1000);
            facts.push((
                "usable for",
                page.paint(Tone::Plain, &format!("{usable} once it is made, and once")),
            ));
        }
        if let Some(approvers) = &self.approvers {
            let people = approvers.people.len();
            let mut needed = format!("{} of {people} have to sign", approvers.threshold);
            if let Some(more) = approvers.emergency_threshold {
                needed = format!("{needed}, {more} in an emergency");
            }
            facts.push(("approvers", page.paint(Tone::Plain, &needed)));
            facts.push(("digest", page.paint(Tone::Plain, &approvers.digest)));
        }
        page.facts(&facts);
        if let Some(approvers) = &self.approvers {
            page.line("the gateway would believe:");
            for person in &approvers.people {
                page.line(format!(
                    "  {} {}",
                    page.paint(Tone::Strong, &person.name),
                    page.paint(Tone::Plain, &person.key)
                ));
            }
        }
    }
}

/// One request.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RequestShown {
    /// The request.
    #[serde(flatten)]
    pub request: RequestLine,
    /// Who could confirm it now; only where it was just asked for.
    pub confirmers: Vec<String>,
    /// What to do next.
    pub next: String,
}

impl Report for RequestShown {
    const SCHEMA: &'static str = "penstock.request/1";
    fn page(&self, page: &mut Page) {
        self.request.facts(page);
        page.line(format!("  {} {}", page.paint(Tone::Dim, "next,"), self.next));
    }
}

impl RequestShown {
    /// What was asked for, and is not there yet.
    pub(super) fn waits(request: PendingRequest) -> Result<Self, Failure> {
        let confirmers = request.confirmers.clone();
        let people = match confirmers.as_slice() {
            [] => "another admin or approver".to_owned(),
            people => people.join(" or "),
        };
        let request = RequestLine::try_from(request)?;
        Ok(Self {
            next: format!(
                "{people} confirms it: penstock requests confirm {}; then type the same command again: nothing was written yet",
                request.id
            ),
            confirmers,
            request,
        })
    }

    fn of(request: RequestLine) -> Self {
        let next = match request.state.as_str() {
            "waiting" => format!(
                "another admin or approver than {} confirms it: penstock requests confirm {}",
                request.asked_by, request.id
            ),
            "confirmed" => format!(
                "{} types the same command again, with the same login, before it ends",
                request.asked_by
            ),
            _ => format!("{} may ask again", request.asked_by),
        };
        Self {
            request,
            confirmers: Vec::new(),
            next,
        }
    }
}

/// What waits for a second person.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RequestList {
    /// Each request, the oldest first.
    pub requests: Vec<RequestLine>,
}

impl Report for RequestList {
    const SCHEMA: &'static str = "penstock.requests/1";
    fn page(&self, page: &mut Page) {
        if self.requests.is_empty() {
            page.line("nothing waits for a second person");
            return;
        }
        let now_ms = words::now_ms();
        let rows: Vec<_> = self
            .requests
            .iter()
            .map(|request| {
                vec![
                    (Tone::Strong, request.id.clone()),
                    (Tone::Plain, request.what()),
                    (Tone::Name, request.asked_by.clone()),
                    request.standing(now_ms),
                ]
            })
            .collect();
        page.table(&["REQUEST", "FOR", "ASKED BY", "STANDING"], &rows);
        page.line(format!(
            "  {} penstock requests show REQUEST, then confirm or reject it",
            page.paint(Tone::Dim, "next,")
        ));
    }
}

/// `penstock requests …`.
pub(crate) async fn requests(out: &Output, context: Option<&str>, args: &Requests) -> Result<Exit, Failure> {
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    match &args.command {
        None | Some(RequestsCommand::List) => {
            let requests = listed(&mut online).await?;
            let requests = requests.into_iter().map(RequestLine::try_from);
            out.show(&RequestList {
                requests: requests.collect::<Result<_, _>>()?,
            })?;
        }
        Some(RequestsCommand::Show { id }) => {
            let found = found(&mut online, id).await?;
            out.show(&RequestShown::of(found.try_into()?))?;
        }
        Some(RequestsCommand::Confirm { id, plant, yes }) => {
            confirm(out, &mut online, id, plant.as_deref(), *yes).await?;
        }
        Some(RequestsCommand::Reject { id, reason }) => {
            let rejected = decide(&mut online, id, Decision::Reject(reason.clone())).await?;
            out.show(&RequestShown::of(rejected.try_into()?))?;
        }
    }
    Ok(Exit::Done)
}

async fn confirm(
    out: &Output,
    online: &mut Online,
    id: &str,
    plant: Option<&Path>,
    yes: bool,
) -> Result<(), Failure> {
    let request = found(online, id).await?;
    let inside = approvers(&request)?;
    if let Some(path) = plant {
        let own = loading::load(path, out)?.plant;
        if own.id != online.login.context.plant {
            return Err(Failure::usage(format!(
                "the document is of plant {}, the login of plant {}",
                own.id, online.login.context.plant
            )));
        }
        let inside = inside.ok_or_else(|| {
            Failure::usage(format!(
                "request {id} is for no gateway, so that there are no approvers to compare"
            ))
        })?;
        if own.approvers != inside {
            return Err(Failure::altered(
                "other-approvers",
                format!(
                    "the gateway would believe others than the approvers in {}; nothing was confirmed",
                    path.display()
                ),
            )
            .because(format!("in the request: {}", people(&inside)))
            .because(format!("in your document: {}", people(&own.approvers)))
            .help("find out who is right; if the request is wrong: penstock requests reject"));
        }
    }
    let line = RequestLine::try_from(request)?;
    let question = format!("Confirm the {} that {} asked for?", line.what(), line.asked_by);
    if out.for_people() {
        out.text(&out.page(&RequestShown::of(line)))?;
    }
    ask::confirm(out, yes, &question)?;
    let confirmed = decide(online, id, Decision::Confirm(true)).await?;
    out.show(&RequestShown::of(confirmed.try_into()?))
}

fn people(set: &ApproverSet) -> String {
    let names: Vec<_> = set
        .people
        .iter()
        .map(|(name, approver)| format!("{name} {}", String::from(approver.key)))
        .collect();
    format!("{} of {}", set.threshold, names.join(", "))
}

async fn listed(online: &mut Online) -> Result<Vec<PendingRequest>, Failure> {
    let answer = online.client.list_requests(ListRequestsRequest {}).await;
    Ok(answer.map_err(|status| refused(&status))?.into_inner().requests)
}

async fn found(online: &mut Online, id: &str) -> Result<PendingRequest, Failure> {
    let mut all = listed(online).await?;
    let at = all.iter().position(|request| request.id == id).ok_or_else(|| {
        Failure::new(
            Exit::Refused,
            "NOT_FOUND",
            format!("there is no request `{id}`: it was fetched, has ended, or never was"),
        )
        .help("see: penstock requests")
    })?;
    Ok(all.swap_remove(at))
}

async fn decide(online: &mut Online, id: &str, decision: Decision) -> Result<PendingRequest, Failure> {
    let request = DecideRequestRequest {
        id: id.to_owned(),
        decision: Some(decision),
    };
    let answer = online.client.decide_request(request).await;
    Ok(answer.map_err(|status| refused(&status))?.into_inner())
}

/// What is to be done with what a second person has to confirm: shows it, and with `wait` comes back when it is confirmed. `false`: whoever
/// asked has to ask again.
pub(super) async fn second_person(
    out: &Output,
    online: &mut Online,
    request: PendingRequest,
    wait: bool,
) -> Result<bool, Failure> {
    let shown = RequestShown::waits(request)?;
    if !wait {
        out.show(&shown)?;
        return Ok(false);
    }
    let id = shown.request.id.clone();
    out.remark(&format!(
        "request {id} waits for a second person: {}",
        shown.confirmers.join(" or ")
    ));
    let _waiting = ask::waiting(out, &format!("penstock requests confirm {id}"));
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let request = found(online, &id).await?;
        match request.state() {
            RequestState::Waiting => {}
            RequestState::Confirmed => return Ok(true),
            RequestState::Rejected | RequestState::Unspecified => {
                return Err(Failure::new(
                    Exit::Refused,
                    "request-rejected",
                    format!("{} rejected request {id}: {}", request.decided_by, request.reason),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn approvers_that_are_not_those_of_the_digest_are_not_shown_to_whoever_confirms() {
        let set = |threshold| ApproverSet {
            threshold,
            emergency_threshold: None,
            people: BTreeMap::new(),
        };
        let request = |shown: &ApproverSet, held_to: &ApproverSet| PendingRequest {
            subject: "gateway/gw-a".to_owned(),
            valid_seconds: 3600,
            approvers: shown.to_bytes().into(),
            approvers_digest: held_to.digest().0.to_vec().into(),
            ..PendingRequest::default()
        };
        let line = RequestLine::try_from(request(&set(2), &set(2))).unwrap();
        assert_eq!(line.what(), "token for gateway/gw-a");
        assert_eq!(line.approvers.unwrap().threshold, 2);
        let failure = RequestLine::try_from(request(&set(2), &set(1))).unwrap_err();
        assert_eq!(
            (failure.exit, &*failure.code),
            (Exit::Altered, "approvers-altered")
        );
    }
}
