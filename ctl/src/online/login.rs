//! `login` by a token, `whoami`, `context`: who one is to which coordinator.

use penstock_policy::ids::Digest;
use penstock_proto::channel;
use penstock_proto::keys::{FileKey, Key, KeyError, KeyKind, certificate_request};
use penstock_proto::peer::{PeerIdentity, Subject};
use penstock_proto::tls::certificates_to_pem;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::token::Token;
use penstock_proto::v1::enrolment_client::EnrolmentClient;
use penstock_proto::v1::{EnrolRequest, EnrolResponse, Role, WhoAmIRequest};
use rustls::pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Online, malformed, refused, renew, unreachable};
use crate::args;
use crate::contexts::{self, Contexts};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// Who one is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Whoami {
    /// The operator's name.
    pub operator: String,
    /// `viewer`, `engineer`, `approver` or `admin`.
    pub role: String,
    /// The plant.
    pub plant: String,
    /// The coordinator that answered.
    pub coordinator: String,
    /// Its version.
    pub version: String,
    /// The login that was used.
    pub context: String,
}

impl Report for Whoami {
    const SCHEMA: &'static str = "penstock.whoami/1";
    fn page(&self, page: &mut Page) {
        page.facts(&[
            ("operator", page.paint(Tone::Strong, &self.operator)),
            ("role", page.paint(Tone::Plain, &self.role)),
            ("plant", page.paint(Tone::Name, &self.plant)),
            (
                "coordinator",
                page.paint(Tone::Plain, &format!("{} ({})", self.coordinator, self.version)),
            ),
            ("login", page.paint(Tone::Plain, &self.context)),
        ]);
    }
}

/// The word for a role.
pub(crate) fn role_word(role: i32) -> &'static str {
    match Role::try_from(role) {
        Ok(Role::Viewer) => "viewer",
        Ok(Role::Engineer) => "engineer",
        Ok(Role::Approver) => "approver",
        Ok(Role::Admin) => "admin",
        Ok(Role::Unspecified) | Err(_) => "unknown",
    }
}

/// `penstock whoami`.
pub(crate) async fn whoami(out: &Output, context: Option<&str>) -> Result<Exit, Failure> {
    let mut online = Online::connect(context).await?;
    let answer = online
        .client
        .who_am_i(WhoAmIRequest {})
        .await
        .map_err(|s| refused(&s))?
        .into_inner();
    out.show(&Whoami {
        role: role_word(answer.role).to_owned(),
        operator: answer.operator,
        plant: answer.plant,
        coordinator: answer.coordinator,
        version: answer.version,
        context: online.login.name,
    })?;
    Ok(Exit::Done)
}

/// A login that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LoggedIn {
    /// Its name.
    pub context: String,
    /// The operator.
    pub operator: String,
    /// The plant.
    pub plant: String,
    /// Where the coordinators are.
    pub coordinators: Vec<String>,
    /// When the certificate ends, milliseconds since 1970.
    pub expires_ms: u64,
}

impl Report for LoggedIn {
    const SCHEMA: &'static str = "penstock.login/1";
    fn page(&self, page: &mut Page) {
        page.line(format!(
            "{} {} is logged in to plant {} as `{}`",
            page.paint(Tone::Good, "✓"),
            page.paint(Tone::Strong, &self.operator),
            page.paint(Tone::Name, &self.plant),
            self.context,
        ));
        let until = format!(
            "the certificate holds until {}",
            words::when(self.expires_ms, words::now_ms())
        );
        page.line(format!("  {}", page.paint(Tone::Dim, &until)));
    }
}

/// `penstock login`.
pub(crate) async fn login(out: &Output, context: Option<&str>, args: &args::Login) -> Result<Exit, Failure> {
    let Some(file) = &args.token else {
        return renewed(out, context).await;
    };
    let token = read_token(file)?;
    let Subject::Operator(operator) = token.subject.clone() else {
        return Err(
            Failure::usage(format!("this token enrols {}, not a person", token.subject))
                .help("a gateway enrols with: penstock-agent enrol --token FILE"),
        );
    };
    let name = context.map_or_else(|| format!("{}.{operator}", token.plant), str::to_owned);
    let contexts = Contexts::open()?;

    // The key is on disk before the token is spent: if the answer is lost, the same key asks again.
    let key = match contexts.pending_key(&name)? {
        Some(key) => key,
        None => {
            let key = FileKey::generate(KeyKind::EcdsaP256).map_err(key_failed)?;
            contexts.keep_pending_key(&name, &key)?;
            key
        }
    };
    let identity = PeerIdentity {
        plant: token.plant.clone(),
        subject: token.subject.clone(),
    };
    let answer = enrol(&token, &key.into(), &identity).await?;

    let chain: Vec<CertificateDer<'static>> = answer
        .certificate_chain
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let leaf = chain
        .first()
        .ok_or_else(|| malformed("it holds no certificate"))?;
    let named = PeerIdentity::from_certificate(leaf).map_err(|error| malformed(&error.to_string()))?;
    if named != identity {
        return Err(malformed(&format!(
            "the certificate names {}, not {}",
            named.subject, identity.subject
        )));
    }
    // Others, if there are any, come by signed trust bundles.
    let Some(root) = answer
        .trust_bundle
        .iter()
        .find(|der| Digest::of(der) == token.root_digest)
    else {
        return Err(Failure::altered(
            "wrong-root",
            "the coordinator's roots lack the one that the token names",
        ));
    };
    let (_, expires_ms) =
        penstock_proto::tls::validity_ms(leaf).map_err(|error| malformed(&error.to_string()))?;
    let made = contexts::Context {
        plant: token.plant,
        operator,
        coordinators: token.coordinators,
    };
    contexts.save(
        &name,
        &made,
        &certificates_to_pem(&answer.certificate_chain),
        &certificates_to_pem(&[root]),
    )?;
    out.show(&LoggedIn {
        context: name,
        operator: made.operator.to_string(),
        plant: made.plant.to_string(),
        coordinators: made.coordinators.iter().map(ToString::to_string).collect(),
        expires_ms,
    })?;
    Ok(Exit::Done)
}

/// `penstock login --renew`.
async fn renewed(out: &Output, context: Option<&str>) -> Result<Exit, Failure> {
    let (mut online, shown) = Online::connect_with(context).await?;
    let expires_ms = renew::renew(&mut online, &shown).await?;
    let login = online.login;
    out.show(&LoggedIn {
        context: login.name,
        operator: login.context.operator.to_string(),
        plant: login.context.plant.to_string(),
        coordinators: login
            .context
            .coordinators
            .iter()
            .map(ToString::to_string)
            .collect(),
        expires_ms,
    })?;
    Ok(Exit::Done)
}

pub(super) fn key_failed(error: KeyError) -> Failure {
    Failure::local("key-unmade", "no key could be made for the login").caused_by(&error)
}

fn read_token(path: &std::path::Path) -> Result<Token, Failure> {
    let path = if path.as_os_str() == "-" {
        std::path::Path::new("/dev/stdin")
    } else {
        path
    };
    let bytes = files::read(path, Token::FILE_BYTES_MAX)?;
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        Failure::local(
            "token-unusable",
            format!("{} holds no token that can be used", path.display()),
        )
        .caused_by(error)
    };
    let token = Token::from_bytes(&bytes).map_err(|error| unusable(&error))?;
    let now = words::now_ms();
    if token.expires_ms < now {
        let when = words::when(token.expires_ms, now);
        return Err(
            Failure::local("token-expired", format!("the token expired at {when}"))
                .help("ask an administrator for a new one, or set this machine's clock if it is wrong"),
        );
    }
    Ok(token)
}

async fn enrol(token: &Token, key: &Key, identity: &PeerIdentity) -> Result<EnrolResponse, Failure> {
    let request = certificate_request(key, Some(identity)).map_err(key_failed)?;

    let profile = ClientProfile {
        plant: token.plant.clone(),
        trust: Trust::Pin(token.root_digest),
        credentials: None,
    };
    let tls = profile
        .config()
        .map_err(|error| Failure::local("tls", "cannot prepare a connection").caused_by(&error))?;
    let channel = channel::connect(token.coordinators.clone(), tls)
        .await
        .map_err(|error| unreachable(&error.to_string()))?;
    let answer = EnrolmentClient::new(channel)
        .enrol(EnrolRequest {
            name: identity.subject.name().to_owned(),
            secret: token.secret.0.to_vec().into(),
            certificate_request: request.into(),
            ..EnrolRequest::default()
        })
        .await
        .map_err(|status| refused(&status))?;
    Ok(answer.into_inner())
}

/// Logins on this machine.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ContextList {
    /// Each of them.
    pub contexts: Vec<ContextLine>,
}

/// One login.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ContextLine {
    /// Its name.
    pub name: String,
    /// Whether it is used when none is named.
    pub chosen: bool,
    /// The plant.
    pub plant: String,
    /// The operator.
    pub operator: String,
    /// Where the coordinators are.
    pub coordinators: Vec<String>,
    /// SHA-256 of each of the plant's roots that this login trusts (DER).
    pub roots: Vec<String>,
}

impl Report for ContextList {
    const SCHEMA: &'static str = "penstock.context/1";
    fn page(&self, page: &mut Page) {
        if self.contexts.is_empty() {
            page.line("no logins on this machine");
            return;
        }
        let rows: Vec<_> = self
            .contexts
            .iter()
            .map(|line| {
                vec![
                    (Tone::Good, if line.chosen { "●" } else { "" }.to_owned()),
                    (Tone::Strong, line.name.clone()),
                    (Tone::Name, line.plant.clone()),
                    (Tone::Plain, line.operator.clone()),
                    (Tone::Dim, line.coordinators.join(", ")),
                ]
            })
            .collect();
        page.table(&["", "LOGIN", "PLANT", "OPERATOR", "COORDINATORS"], &rows);
    }
}

/// `penstock context …`.
pub(crate) fn context(out: &Output, args: &args::Context) -> Result<Exit, Failure> {
    let contexts = Contexts::open()?;
    if let args::Context::Use { name } = args {
        contexts.choose(name)?;
    }
    let chosen = contexts.find(None).ok().map(|named| named.name);
    let mut lines = Vec::new();
    for name in contexts.names() {
        let found = contexts.find(Some(&name))?;
        lines.push(ContextLine {
            chosen: chosen.as_ref() == Some(&name),
            roots: contexts
                .roots(&name)
                .unwrap_or_default()
                .iter()
                .map(|root| Digest::of(root).to_string())
                .collect(),
            name,
            plant: found.context.plant.to_string(),
            operator: found.context.operator.to_string(),
            coordinators: found
                .context
                .coordinators
                .iter()
                .map(ToString::to_string)
                .collect(),
        });
    }
    out.show(&ContextList { contexts: lines })?;
    Ok(Exit::Done)
}
