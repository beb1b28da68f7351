//! `gateways` and `operators`: who belongs to the plant, and tokens to enrol them.

use std::path::Path;

use penstock_policy::ids::{GatewayId, OperatorId};
use penstock_policy::model::ApproverSet;
use penstock_proto::channel::Address;
use penstock_proto::peer::Subject;
use penstock_proto::token::{Secret, Token};
use penstock_proto::v1::create_token_request::Subject as TokenSubject;
use penstock_proto::v1::{
    CreateTokenRequest, Drift, Gateway, ListGatewaysRequest, ListOperatorsRequest, Role,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::login::role_word;
use super::{Online, digest, malformed, refused};
use crate::args::{self, GatewaysCommand, RoleArg};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::loading;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// The gateways of the plant.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GatewayList {
    /// Each of them.
    pub gateways: Vec<GatewayLine>,
}

/// One gateway.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GatewayLine {
    /// Its name.
    pub name: String,
    /// Whether it has a certificate.
    pub enrolled: bool,
    /// Whether it is connected now.
    pub connected: bool,
    /// When it was last heard, milliseconds since 1970; 0: never.
    pub last_seen_ms: u64,
    /// Version of its agent.
    pub software_version: String,
    /// Revision that it was offered.
    pub offered: Option<u64>,
    /// Revision that it has verified and stored.
    pub staged: Option<u64>,
    /// Revision that its kernel holds.
    pub effective: Option<u64>,
    /// Why it refused the last offer, if it did.
    pub refused: Option<String>,
    /// `none`, `repaired`, `present` or `unknown`: foreign changes of the kernel's table.
    pub drift: String,
    /// Bytes of audit that wait on the gateway.
    pub spool_bytes: u64,
    /// Events that were shed, each replaced by a loss record.
    pub lost_events: u64,
    /// Packets that it refused since its agent began.
    pub denied_packets: u64,
    /// Operations inside connections that it refused since then, framing attacks among them.
    pub denied_operations: u64,
    /// Faults that a person should know.
    pub faults: Vec<String>,
    /// What it can enforce.
    pub capabilities: Vec<String>,
    /// When its certificate ends, milliseconds since 1970; 0: it has none.
    pub certificate_expires_ms: u64,
    /// When the token that was made for it and is not used yet ends, milliseconds since 1970, also if it has ended; 0: none.
    pub token_expires_ms: u64,
}

impl From<Gateway> for GatewayLine {
    fn from(gateway: Gateway) -> Self {
        let policy = gateway.policy.unwrap_or_default();
        let spool = gateway.spool.unwrap_or_default();
        let kernel = gateway.kernel.unwrap_or_default();
        Self {
            denied_packets: kernel.denied_packets,
            denied_operations: kernel.denied_operations,
            drift: match Drift::try_from(gateway.drift) {
                Ok(Drift::None) => "none",
                Ok(Drift::Repaired) => "repaired",
                Ok(Drift::Present) => "present",
                Ok(Drift::Unspecified) | Err(_) => "unknown",
            }
            .to_owned(),
            name: gateway.name,
            enrolled: gateway.enrolled,
            connected: gateway.connected,
            last_seen_ms: gateway.last_seen_ms,
            software_version: gateway.software_version,
            offered: gateway.offered.map(|mark| mark.revision),
            staged: policy.staged.map(|mark| mark.revision),
            effective: policy.effective.map(|mark| mark.revision),
            refused: policy
                .refused
                .map(|refusal| format!("r{}: {}", refusal.revision, refusal.message)),
            spool_bytes: spool.bytes,
            lost_events: spool.lost_events,
            faults: gateway
                .faults
                .into_iter()
                .map(|fault| format!("{}: {}", fault.code, fault.message))
                .collect(),
            capabilities: gateway.capabilities,
            certificate_expires_ms: gateway.certificate_expires_ms,
            token_expires_ms: gateway.token_expires_ms,
        }
    }
}

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

impl GatewayLine {
    fn link(&self, now_ms: u64) -> (Tone, String) {
        if self.connected {
            (Tone::Good, "● connected".to_owned())
        } else if !self.enrolled {
            unused(self.token_expires_ms, now_ms)
        } else if self.last_seen_ms == 0 {
            (Tone::Warn, "◌ never seen".to_owned())
        } else {
            (
                Tone::Warn,
                format!("◌ last seen {}", words::relative(self.last_seen_ms, now_ms)),
            )
        }
    }

    fn remarks(&self) -> Vec<(Tone, String)> {
        let mut remarks = Vec::new();
        if let Some(refused) = &self.refused {
            remarks.push((Tone::Bad, format!("refused {refused}")));
        }
        match self.drift.as_str() {
            "present" => remarks.push((Tone::Bad, "somebody else changed the kernel's table".to_owned())),
            "repaired" => remarks.push((
                Tone::Warn,
                "a foreign change of the kernel's table was repaired".to_owned(),
            )),
            _ => {}
        }
        if self.lost_events > 0 {
            remarks.push((Tone::Bad, format!("{} audit events were lost", self.lost_events)));
        }
        remarks.extend(self.faults.iter().map(|fault| (Tone::Bad, fault.clone())));
        remarks
    }
}

impl Report for GatewayList {
    const SCHEMA: &'static str = "penstock.gateways/1";
    fn page(&self, page: &mut Page) {
        if self.gateways.is_empty() {
            page.line(
                "no gateways yet: they appear when a token is made for them (penstock gateways token), and with the first release",
            );
            return;
        }
        let now = words::now_ms();
        let revision = |mark: Option<u64>| mark.map_or_else(|| "—".to_owned(), |n| format!("r{n}"));
        let rows: Vec<_> = self
            .gateways
            .iter()
            .map(|gateway| {
                let behind = gateway.effective != gateway.offered;
                vec![
                    (Tone::Strong, gateway.name.clone()),
                    gateway.link(now),
                    (Tone::Plain, revision(gateway.offered)),
                    (Tone::Plain, revision(gateway.staged)),
                    (
                        if behind { Tone::Warn } else { Tone::Good },
                        revision(gateway.effective),
                    ),
                    (Tone::Dim, gateway.software_version.clone()),
                    (
                        Tone::Dim,
                        if gateway.certificate_expires_ms == 0 {
                            "—".into()
                        } else {
                            words::relative(gateway.certificate_expires_ms, now)
                        },
                    ),
                ]
            })
            .collect();
        page.table(
            &[
                "GATEWAY",
                "LINK",
                "OFFERED",
                "STAGED",
                "EFFECTIVE",
                "VERSION",
                "CERTIFICATE ENDS",
            ],
            &rows,
        );
        for gateway in &self.gateways {
            for (tone, remark) in gateway.remarks() {
                let name = page.paint(Tone::Strong, &gateway.name);
                let remark = page.paint(tone, &remark);
                page.line(format!("{name}: {remark}"));
            }
        }
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
            let gateways = answer.gateways.into_iter().map(GatewayLine::from).collect();
            out.show(&GatewayList { gateways })?;
        }
        Some(GatewaysCommand::Token {
            gateway,
            path,
            out: file,
            hours,
            coordinator,
        }) => {
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
                hours: *hours,
                approvers: Some(loaded.plant.approvers),
                coordinators: addresses(coordinator)?,
                next: "on the gateway: penstock-agent enrol --token FILE",
            };
            token(out, online, wanted, file).await?;
        }
    }
    Ok(Exit::Done)
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
}

impl Report for OperatorList {
    const SCHEMA: &'static str = "penstock.operators/1";
    fn page(&self, page: &mut Page) {
        let now = words::now_ms();
        let rows: Vec<_> = self
            .operators
            .iter()
            .map(|operator| {
                let enrolled = if operator.enrolled {
                    (Tone::Good, "● enrolled".to_owned())
                } else {
                    unused(operator.token_expires_ms, now)
                };
                vec![
                    (Tone::Strong, operator.name.clone()),
                    (Tone::Plain, operator.role.clone()),
                    enrolled,
                ]
            })
            .collect();
        page.table(&["OPERATOR", "ROLE", "LOGIN"], &rows);
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
        } => {
            let name: OperatorId = name.parse().map_err(|error| bad_name("operator", &error))?;
            let role = match role {
                RoleArg::Viewer => Role::Viewer,
                RoleArg::Engineer => Role::Engineer,
                RoleArg::Approver => Role::Approver,
                RoleArg::Admin => Role::Admin,
            };
            let wanted = TokenRequest {
                subject: Subject::Operator(name),
                role,
                hours: *hours,
                approvers: None,
                coordinators: addresses(coordinator)?,
                next: "they log in with: penstock login --token FILE",
            };
            token(out, online, wanted, file).await?;
        }
    }
    Ok(Exit::Done)
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
    hours: u32,
    approvers: Option<ApproverSet>,
    coordinators: Vec<Address>,
    next: &'static str,
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

async fn token(out: &Output, mut online: Online, wanted: TokenRequest, file: &Path) -> Result<(), Failure> {
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
    let request = CreateTokenRequest {
        subject: Some(subject),
        role: wanted.role as i32,
        valid_seconds: wanted.hours.saturating_mul(3_600),
    };
    let answer = online
        .client
        .create_token(request)
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
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
        approvers: made
            .approvers
            .iter()
            .flat_map(|set| set.people.keys().map(ToString::to_string))
            .collect(),
        threshold: made.approvers.as_ref().map_or(0, |set| set.threshold),
        next: wanted.next.to_owned(),
    })
}
