//! `gateways` and `operators`: who belongs to the plant, and tokens to enrol them. What is shown of gateways is in `fleet/lines`.

mod lines;
mod tunnels;

use std::path::Path;

use penstock_policy::ids::{Digest, GatewayId, OperatorId};
use penstock_policy::model::ApproverSet;
use penstock_proto::channel::Address;
use penstock_proto::peer::Subject;
use penstock_proto::token::{Secret, Token};
use penstock_proto::v1::create_token_request::Subject as TokenSubject;
use penstock_proto::v1::{
    CreateTokenRequest, ListGatewaysRequest, ListOperatorsRequest, ListReleasesRequest, Role, StandingChange,
};
use schemars::JsonSchema;
use serde::Serialize;

pub use self::lines::{GatewayLine, GatewayList};

use super::accounts;
use super::batch;
use super::identities::{self, IdentityLine};
use super::login::role_word;
use super::releases::held::LOOKED_THROUGH;
use super::{Online, digest, malformed, refused, requests};
use crate::args::{self, GatewaysCommand, Grounds, RoleArg};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::loading;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// What is to be said of who has not enrolled: the token that was made for them, by its end.
fn unused(token_expires_ms: u64, now_ms: u64) -> (Tone, String) {
    match token_expires_ms {
        0 => (Tone::Dim, "○ not enrolled, no token".to_owned()),
        until if until > now_ms => (
            Tone::Dim,
            format!("○ token not used yet, ends {}", words::relative(until, now_ms)),
        ),
        until => (
            Tone::Warn,
            format!("○ token ended {} unused", words::relative(until, now_ms)),
        ),
    }
}

/// `penstock gateways …`.
pub(crate) async fn gateways(
    out: &Output,
    context: Option<&str>,
    args: &args::Gateways,
) -> Result<Exit, Failure> {
    match &args.command {
        None | Some(GatewaysCommand::List) => {
            let mut online = Online::connect(context).await?;
            let answer = online
                .client
                .list_gateways(ListGatewaysRequest {})
                .await
                .map_err(|s| refused(&s))?
                .into_inner();
            let request = ListReleasesRequest {
                limit: LOOKED_THROUGH,
            };
            let releases = online.client.list_releases(request).await;
            let releases = releases.map_err(|status| refused(&status))?.into_inner().releases;
            out.show(&GatewayList::judged(answer.gateways, &releases, &online.known()?))?;
        }
        Some(GatewaysCommand::Token {
            gateway,
            path,
            out: file,
            key,
            hours,
            coordinator,
            wait,
        }) => {
            let key = key.as_deref().map(key_digest).transpose()?;
            let gateway: GatewayId = gateway.parse().map_err(|error| bad_name("gateway", &error))?;
            let loaded = loading::load(path, out)?;
            if !loaded.plant.gateways.contains_key(&gateway) {
                let known: Vec<_> = loaded.plant.gateways.keys().map(ToString::to_string).collect();
                return Err(
                    Failure::usage(format!("the document knows no gateway `{gateway}`"))
                        .help(format!("it knows: {}", known.join(", "))),
                );
            }
            let online = Online::connect(context).await?;
            if online.login.context.plant != loaded.plant.id {
                return Err(Failure::usage(format!(
                    "the document is of plant {}, the login of plant {}",
                    loaded.plant.id, online.login.context.plant
                ))
                .help("name another login with --context"));
            }
            let wanted = TokenRequest {
                subject: Subject::Gateway(gateway),
                role: Role::Unspecified,
                key,
                hours: *hours,
                approvers: Some(loaded.plant.approvers),
                coordinators: addresses(coordinator)?,
                next: "on the gateway: penstock-agent enrol --token FILE",
                wait: *wait,
            };
            return token(out, online, wanted, file).await;
        }
        Some(GatewaysCommand::Batch { command }) => return batch::batch(out, context, command).await,
        Some(GatewaysCommand::Suspend { gateway, because }) => {
            decide(out, context, gateway, StandingChange::Suspend, because).await?;
        }
        Some(GatewaysCommand::Resume { gateway, because }) => {
            decide(out, context, gateway, StandingChange::Resume, because).await?;
        }
        Some(GatewaysCommand::Revoke { gateway, because }) => {
            decide(out, context, gateway, StandingChange::Revoke, because).await?;
        }
        Some(GatewaysCommand::Withdrawn { out: file }) => {
            let mut online = Online::connect(context).await?;
            identities::withdrawn(out, &mut online, file).await?;
        }
        Some(GatewaysCommand::Retire { gateway, because }) => {
            decide(out, context, gateway, StandingChange::Retire, because).await?;
        }
    }
    Ok(Exit::Done)
}

/// The digest of a key, as somebody read it to somebody.
fn key_digest(text: &str) -> Result<Digest, Failure> {
    Digest::try_from(text.to_owned()).map_err(|error| {
        Failure::usage(format!("`{text}` is not the digest of a key: {error}"))
            .help("`penstock-agent key` shows it on the gateway")
    })
}

/// Decides about a gateway.
async fn decide(
    out: &Output,
    context: Option<&str>,
    gateway: &str,
    change: StandingChange,
    because: &Grounds,
) -> Result<(), Failure> {
    let gateway: GatewayId = gateway.parse().map_err(|error| bad_name("gateway", &error))?;
    let mut online = Online::connect(context).await?;
    identities::change(out, &mut online, Subject::Gateway(gateway), change, because).await
}

/// Operators of the coordinator.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OperatorList {
    /// Each of them.
    pub operators: Vec<OperatorLine>,
}

/// One operator.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OperatorLine {
    /// The name.
    pub name: String,
    /// `viewer`, `engineer`, `approver` or `admin`.
    pub role: String,
    /// Whether they have logged in once.
    pub enrolled: bool,
    /// When the token that was made for them and is not used yet ends, milliseconds since 1970, also if it has ended; 0: none.
    pub token_expires_ms: u64,
    /// Which key of their login counts; absent: nothing is recorded yet, and their certificate counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityLine>,
}

impl Report for OperatorList {
    const SCHEMA: &'static str = "penstock.operators/1";
    fn page(&self, page: &mut Page) {
        let now = words::now_ms();
        let rows: Vec<_> = self
            .operators
            .iter()
            .map(|operator| {
                let identity = operator.identity.as_ref();
                let enrolled = if let Some(out) = identity.filter(|identity| !identity.is_active()) {
                    out.words(now)
                } else if operator.enrolled {
                    (Tone::Good, "● enrolled".to_owned())
                } else {
                    unused(operator.token_expires_ms, now)
                };
                vec![
                    (Tone::Strong, operator.name.clone()),
                    (Tone::Plain, operator.role.clone()),
                    (
                        Tone::Dim,
                        identity.map_or_else(|| "—".to_owned(), IdentityLine::key_words),
                    ),
                    enrolled,
                ]
            })
            .collect();
        page.table(&["OPERATOR", "ROLE", "LIFE: KEY", "LOGIN"], &rows);
    }
}

/// `penstock operators …`.
pub(crate) async fn operators(
    out: &Output,
    context: Option<&str>,
    args: &args::Operators,
) -> Result<Exit, Failure> {
    let mut online = Online::connect(context).await?;
    match args {
        args::Operators::List => {
            let answer = online
                .client
                .list_operators(ListOperatorsRequest {})
                .await
                .map_err(|s| refused(&s))?
                .into_inner();
            let operators = answer.operators.into_iter().map(|operator| OperatorLine {
                role: role_word(operator.role).to_owned(),
                name: operator.name,
                enrolled: operator.enrolled,
                token_expires_ms: operator.token_expires_ms,
                identity: operator.identity.map(Into::into),
            });
            out.show(&OperatorList {
                operators: operators.collect(),
            })?;
        }
        args::Operators::Add {
            name,
            role,
            out: file,
            hours,
            coordinator,
            wait,
        } => {
            let name: OperatorId = name.parse().map_err(|error| bad_name("operator", &error))?;
            let wanted = TokenRequest {
                subject: Subject::Operator(name),
                role: wire_role(*role),
                key: None,
                hours: *hours,
                approvers: None,
                coordinators: addresses(coordinator)?,
                next: "they log in with: penstock login --token FILE",
                wait: *wait,
            };
            return token(out, online, wanted, file).await;
        }
        args::Operators::Accounts => accounts::accounts(out, &mut online).await?,
        args::Operators::Link {
            account,
            name,
            role,
            wait,
        } => {
            let name: OperatorId = name.parse().map_err(|error| bad_name("operator", &error))?;
            return accounts::link(out, &mut online, (account, &name, wire_role(*role)), *wait).await;
        }
        args::Operators::Unlink { account, reason } => {
            accounts::unlink(out, &mut online, account, reason).await?;
        }
        args::Operators::Suspend { name, because } => {
            let subject = operator(name)?;
            identities::change(out, &mut online, subject, StandingChange::Suspend, because).await?;
        }
        args::Operators::Resume { name, because } => {
            let subject = operator(name)?;
            identities::change(out, &mut online, subject, StandingChange::Resume, because).await?;
        }
        args::Operators::Revoke { name, because } => {
            let subject = operator(name)?;
            identities::change(out, &mut online, subject, StandingChange::Revoke, because).await?;
        }
        args::Operators::Remove { name, because } => {
            let subject = operator(name)?;
            identities::change(out, &mut online, subject, StandingChange::Retire, because).await?;
        }
    }
    Ok(Exit::Done)
}

fn wire_role(role: RoleArg) -> Role {
    match role {
        RoleArg::Viewer => Role::Viewer,
        RoleArg::Engineer => Role::Engineer,
        RoleArg::Approver => Role::Approver,
        RoleArg::Admin => Role::Admin,
    }
}

fn operator(name: &str) -> Result<Subject, Failure> {
    let name: OperatorId = name.parse().map_err(|error| bad_name("operator", &error))?;
    Ok(Subject::Operator(name))
}

fn bad_name(what: &str, error: &penstock_policy::ids::NameError) -> Failure {
    Failure::usage(format!("this cannot be the name of a {what}: {error}"))
}

fn addresses(texts: &[String]) -> Result<Vec<Address>, Failure> {
    texts
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|error: penstock_proto::channel::AddressError| Failure::usage(error.to_string()))
        })
        .collect()
}

/// A token that is asked for.
struct TokenRequest {
    subject: Subject,
    role: Role,
    key: Option<Digest>,
    hours: u32,
    approvers: Option<ApproverSet>,
    coordinators: Vec<Address>,
    next: &'static str,
    /// Until a second person has confirmed it.
    wait: bool,
}

/// A token that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TokenMade {
    /// Whom it enrols: `gateway/<name>` or `operator/<name>`.
    pub subject: String,
    /// The file that holds it.
    pub file: String,
    /// Until when it may be used, milliseconds since 1970.
    pub expires_ms: u64,
    /// SHA-256 of the only public key that may enrol with it; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whose signatures a gateway will believe, and how many it needs; for gateways.
    pub approvers: Vec<String>,
    /// How many of them have to sign.
    pub threshold: u8,
    /// What to do with it.
    pub next: String,
}

impl Report for TokenMade {
    const SCHEMA: &'static str = "penstock.token/1";
    fn page(&self, page: &mut Page) {
        page.line(format!(
            "{} token for {} written to {}",
            page.paint(Tone::Good, "✓"),
            page.paint(Tone::Strong, &self.subject),
            page.paint(Tone::Name, &self.file)
        ));
        let until = words::when(self.expires_ms, words::now_ms());
        page.line(format!("  it is a secret, works once, and ends {until}"));
        if let Some(key) = &self.key {
            page.line(format!(
                "  only the key {} enrols with it",
                page.paint(Tone::Plain, key)
            ));
        }
        if !self.approvers.is_empty() {
            let people = page.paint(Tone::Plain, &self.approvers.join(", "));
            page.line(format!(
                "  the gateway will believe {} of: {people}",
                self.threshold
            ));
        }
        page.line(format!("  {} {}", page.paint(Tone::Dim, "next,"), self.next));
    }
}

async fn token(out: &Output, mut online: Online, wanted: TokenRequest, file: &Path) -> Result<Exit, Failure> {
    online.settle_zone().await;
    // Looked at before the coordinator is asked, so that no token is made that cannot be kept.
    if file.exists() {
        return Err(files::FileError::Exists {
            path: file.to_owned(),
        }
        .into());
    }
    let subject = match &wanted.subject {
        Subject::Gateway(id) => TokenSubject::Gateway(id.to_string()),
        other => TokenSubject::Operator(other.name().to_owned()),
    };
    let approvers = wanted.approvers.as_ref();
    let request = CreateTokenRequest {
        device_role: None,
        subject: Some(subject),
        role: wanted.role as i32,
        valid_seconds: wanted.hours.saturating_mul(3_600),
        key_digest: wanted.key.map(|key| key.0.to_vec().into()).unwrap_or_default(),
        approvers_digest: approvers
            .map(|set| set.digest().0.to_vec().into())
            .unwrap_or_default(),
        approvers: approvers.map(|set| set.to_bytes().into()).unwrap_or_default(),
    };
    let answer = loop {
        let answer = online.client.create_token(request.clone()).await;
        let mut answer = answer.map_err(|status| refused(&status))?.into_inner();
        let Some(waits) = answer.waits.take() else {
            break answer;
        };
        if !requests::second_person(out, &mut online, waits, wanted.wait).await? {
            return Ok(Exit::Findings);
        }
    };
    let context = &online.login.context;
    let made = Token {
        plant: context.plant.clone(),
        subject: wanted.subject,
        coordinators: if wanted.coordinators.is_empty() {
            context.coordinators.clone()
        } else {
            wanted.coordinators
        },
        secret: Secret::try_from(answer.secret.as_ref()).map_err(|error| malformed(&error.to_string()))?,
        root_digest: digest("root_digest", &answer.root_digest)?,
        approvers: wanted.approvers,
        expires_ms: answer.expires_ms,
    };
    files::create(file, format!("{made}\n").as_bytes(), Mode::Secret)?;
    out.show(&TokenMade {
        subject: made.subject.to_string(),
        file: file.display().to_string(),
        expires_ms: made.expires_ms,
        key: wanted.key.map(String::from),
        approvers: made
            .approvers
            .iter()
            .flat_map(|set| set.people.keys().map(ToString::to_string))
            .collect(),
        threshold: made.approvers.as_ref().map_or(0, |set| set.threshold),
        next: wanted.next.to_owned(),
    })?;
    Ok(Exit::Done)
}
