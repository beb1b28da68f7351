//! `login --oidc`: a certificate through the plant's identity provider instead of with a token.
//!
//! The key is made here, and what the provider signs is bound to it (its `nonce` is the key's digest), so that the token is worth nothing to
//! anybody else. The coordinator is believed as always, by the plant's root: of the login that there is, or, for the first one, by the digest that was
//! given. It says who the provider is and who vouches for that one's web server.

mod callback;
mod token;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use penstock_policy::ids::{Digest, OperatorId, PlantId};
use penstock_proto::channel::{self, Address, OPERATOR_RESPONSE_BYTES_MAX};
use penstock_proto::keys::{FileKey, Key, KeyKind, certificate_request};
use penstock_proto::peer::{PeerIdentity, Subject, certified_key};
use penstock_proto::tls::certificates_to_pem;
use penstock_proto::tls::client::{ClientProfile, Trust};
use penstock_proto::v1::enrolment_client::EnrolmentClient;
use penstock_proto::v1::{GetProviderRequest, SignInRequest, SignInResponse};
use penstock_proto::withdrawn::WithdrawnView;
use rcgen::PublicKeyData as _;
use rustls::pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::Serialize;

use self::token::Provider;
use super::login::{LoggedIn, key_failed};
use super::{malformed, refused, unreachable};
use crate::args;
use crate::contexts::{Context, Contexts, NamedContext};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, Page, Report, Tone};

/// An account that nobody linked yet.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AccountWaits {
    /// By what name an admin links it.
    pub account: String,
    /// The provider.
    pub issuer: String,
    /// What to do next.
    pub next: String,
}

impl Report for AccountWaits {
    const SCHEMA: &'static str = "penstock.account-waits/1";
    fn page(&self, page: &mut Page) {
        page.line(format!(
            "{} the identity provider knows you; here account {} is not an operator's yet",
            page.paint(Tone::Warn, "○"),
            page.paint(Tone::Strong, &self.account),
        ));
        page.line(format!("  {} {}", page.paint(Tone::Dim, "next,"), self.next));
    }
}

/// Where one signs in, and with which key.
struct Place {
    plant: PlantId,
    coordinators: Vec<Address>,
    trust: Trust,
    withdrawn: WithdrawnView,
    /// The login that is signed in to again.
    known: Option<NamedContext>,
    /// What the key is kept under until it has a certificate.
    pending: String,
}

impl Place {
    fn find(contexts: &Contexts, context: Option<&str>, args: &args::SignIn) -> Result<Self, Failure> {
        let addresses = args.coordinator.iter().map(|text| {
            text.parse()
                .map_err(|error: channel::AddressError| Failure::usage(error.to_string()))
        });
        let mut coordinators = addresses.collect::<Result<Vec<Address>, _>>()?;
        let Some(plant) = &args.plant else {
            let known = contexts.find(context)?;
            let trusted = contexts.trusted(&known.name)?;
            if coordinators.is_empty() {
                coordinators.clone_from(&known.context.coordinators);
            }
            return Ok(Self {
                plant: known.context.plant.clone(),
                coordinators,
                trust: Trust::Roots(trusted.certificates()),
                withdrawn: WithdrawnView::default().without_issuers(&trusted.withdrawn),
                pending: known.name.clone(),
                known: Some(known),
            });
        };
        let plant = PlantId::new(plant.as_str())
            .map_err(|error| Failure::usage(format!("this cannot be the name of a plant: {error}")))?;
        let root = Digest::try_from(args.root.clone().unwrap_or_default())
            .map_err(|error| Failure::usage(format!("--root is not the digest of a root: {error}")))?;
        Ok(Self {
            pending: context.map_or_else(|| format!("{plant}.oidc"), str::to_owned),
            plant,
            coordinators,
            trust: Trust::Pin(root),
            withdrawn: WithdrawnView::default(),
            known: None,
        })
    }

    /// The login's own key, or a new one; on the disk before anybody is asked. Whether it is the login's own.
    fn key(&self, contexts: &Contexts, new: bool) -> Result<(FileKey, bool), Failure> {
        if let Some(known) = self.known.as_ref().filter(|_| !new)
            && let Some(own) = contexts.own_key(&known.name)
        {
            return Ok((own, true));
        }
        let pending = contexts.pending_key(&self.pending)?;
        let key = match pending {
            Some(key) => key,
            None => FileKey::generate(KeyKind::EcdsaP256).map_err(key_failed)?,
        };
        contexts.keep_pending_key(&self.pending, &key)?;
        Ok((key, false))
    }

    /// The operator whom the answer names, if its certificate is theirs and for this key.
    fn operator(&self, answer: &SignInResponse, key: &Key) -> Result<OperatorId, Failure> {
        let leaf = answer
            .certificate_chain
            .first()
            .map(|der| CertificateDer::from(der.to_vec()));
        let leaf = leaf.ok_or_else(|| malformed("it holds no certificate"))?;
        let named = PeerIdentity::from_certificate(&leaf).map_err(|error| malformed(&error.to_string()))?;
        if certified_key(&leaf) != Some(key.subject_public_key_info()) {
            return Err(malformed("the certificate is for another key"));
        }
        match named.subject {
            Subject::Operator(operator)
                if named.plant == self.plant && operator.as_str() == answer.operator =>
            {
                Ok(operator)
            }
            other => Err(malformed(&format!(
                "the certificate names {other} of {}",
                named.plant
            ))),
        }
    }

    /// The plant's root, as it is kept with the login.
    fn roots_pem(&self, contexts: &Contexts, answer: &SignInResponse) -> Result<String, Failure> {
        match (&self.known, &self.trust) {
            (Some(known), _) => Ok(certificates_to_pem(&contexts.enrolled_roots(&known.name)?)),
            (None, Trust::Pin(digest)) => {
                let root = answer.trust_bundle.iter().find(|der| Digest::of(der) == *digest);
                let root = root.ok_or_else(|| {
                    Failure::altered("wrong-root", "the coordinator's roots lack the one of --root")
                })?;
                Ok(certificates_to_pem(&[root]))
            }
            (None, Trust::Roots(_)) => Err(malformed("no root is known")),
        }
    }
}

/// `penstock login --oidc`.
pub(crate) async fn sign_in(
    out: &Output,
    context: Option<&str>,
    args: &args::SignIn,
) -> Result<Exit, Failure> {
    let contexts = Contexts::open()?;
    let place = Place::find(&contexts, context, args)?;
    let (key, is_own) = place.key(&contexts, args.new_key)?;
    let key = Key::from(key);

    let profile = ClientProfile {
        plant: place.plant.clone(),
        trust: place.trust.clone(),
        credentials: None,
    };
    let tls = profile
        .config_knowing(&place.withdrawn)
        .map_err(|error| Failure::local("tls", "cannot prepare a connection").caused_by(&error))?;
    let channel = channel::connect(place.coordinators.clone(), tls)
        .await
        .map_err(|error| unreachable(&error.to_string()))?;
    let mut enrolment = EnrolmentClient::new(channel).max_decoding_message_size(OPERATOR_RESPONSE_BYTES_MAX);
    let settings = enrolment.get_provider(GetProviderRequest {}).await;
    let settings = settings.map_err(|status| refused(&status))?.into_inner();

    let nonce = URL_SAFE_NO_PAD.encode(Digest::of(&key.subject_public_key_info()).0);
    let provider = Provider::new(&settings)?;
    let id_token = match args.device {
        true => provider.by_device_code(out, &nonce).await?,
        false => provider.by_browser(out, &nonce, !args.no_browser).await?,
    };
    let request = certificate_request(&key, None).map_err(key_failed)?;
    let request = SignInRequest {
        id_token,
        certificate_request: request.into(),
        operator: place
            .known
            .as_ref()
            .map(|known| known.context.operator.to_string())
            .unwrap_or_default(),
    };
    let answer = enrolment.sign_in(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    if answer.certificate_chain.is_empty() {
        let next = format!(
            "an admin links it: penstock operators link {} NAME --role ROLE; then sign in again, the same way",
            answer.account
        );
        out.show(&AccountWaits {
            account: answer.account,
            issuer: settings.issuer.clone(),
            next,
        })?;
        return Ok(Exit::Findings);
    }
    kept(out, &contexts, (&place, context), (&key, is_own), &answer)?;
    Ok(Exit::Done)
}

/// Keeps the certificate, and shows what came of it.
fn kept(
    out: &Output,
    contexts: &Contexts,
    (place, context): (&Place, Option<&str>),
    (key, is_own): (&Key, bool),
    answer: &SignInResponse,
) -> Result<(), Failure> {
    let operator = place.operator(answer, key)?;
    if let Some(known) = place
        .known
        .as_ref()
        .filter(|known| known.context.operator != operator)
    {
        return Err(Failure::new(
            Exit::Refused,
            "other-operator",
            format!(
                "this account is {operator}'s, and the login `{}` is {}'s: nothing was changed",
                known.name, known.context.operator
            ),
        )
        .help("sign in for a login of its own: penstock login --oidc --plant NAME --coordinator HOST:PORT --root DIGEST"));
    }
    let chain_pem = certificates_to_pem(&answer.certificate_chain);
    let made = Context {
        plant: place.plant.clone(),
        operator,
        coordinators: place.coordinators.clone(),
    };
    let name = match (&place.known, context) {
        (Some(known), _) => known.name.clone(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => format!("{}.{}", made.plant, made.operator),
    };
    if is_own {
        contexts.keep_renewed(&name, &chain_pem)?;
    } else {
        let roots_pem = place.roots_pem(contexts, answer)?;
        contexts.move_pending(&place.pending, &name)?;
        contexts.save(&name, &made, &chain_pem, &roots_pem)?;
    }
    let leaf = answer
        .certificate_chain
        .first()
        .map(|der| CertificateDer::from(der.to_vec()));
    let leaf = leaf.ok_or_else(|| malformed("it holds no certificate"))?;
    let (_, expires_ms) =
        penstock_proto::tls::validity_ms(&leaf).map_err(|error| malformed(&error.to_string()))?;
    out.show(&LoggedIn {
        context: name,
        operator: made.operator.to_string(),
        plant: made.plant.to_string(),
        coordinators: made.coordinators.iter().map(ToString::to_string).collect(),
        expires_ms,
    })
}
