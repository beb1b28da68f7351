//! `override seal`, `override show` and `override sign`: what people do away from a gateway for an override of it. No coordinator.
//!
//! A request is a stranger's file: it is read strictly, shown without what a terminal obeys, and signed only after it was shown.

mod asked;

use std::collections::BTreeSet;
use std::path::Path;

use penstock_policy::compile::compile;
use penstock_policy::ids::{ApproverId, GatewayId, NameError};
use penstock_policy::model::PublicKey;
use penstock_policy::overrides::{BYTES_MAX, Code, Override as Request, Signed};
use penstock_policy::plan::Plan;
use penstock_policy::release::Signature;
use schemars::JsonSchema;
use serde::Serialize;

pub use self::asked::{EffectShown, OverrideShown, SignatureShown};
use crate::args::Override;
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::keys::{self, passphrase};
use crate::loading;
use crate::output::{Output, Page, Report, Tone};

/// How many random bytes a code is made of.
const CODE_BYTES: usize = 26;

/// `penstock override`.
pub(crate) fn overrides(out: &Output, args: &Override) -> Result<Exit, Failure> {
    match args {
        Override::Seal { plant, gateway } => seal(out, plant, gateway),
        Override::Show { file, documents } => show(out, file, documents.as_deref()),
        Override::Sign {
            file,
            key,
            unlock,
            person,
            documents,
            out: into,
            yes,
        } => {
            let request = SignRequest {
                file,
                key,
                passphrase_file: unlock.passphrase_file.as_deref(),
                person,
                documents: documents.as_deref(),
                into: into.as_deref(),
                yes: *yes,
            };
            sign(out, &request)
        }
    }
}

/// A code that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sealed {
    /// The plant.
    pub plant: String,
    /// The gateway that it opens.
    pub gateway: String,
    /// The code, shown this once.
    pub code: String,
    /// Its digest.
    pub digest: String,
    /// What stands under `break_glass`, `sealed` for this gateway now, and this digest with it.
    pub line: String,
}

impl Report for Sealed {
    const SCHEMA: &'static str = "penstock.override-seal/1";
    fn page(&self, page: &mut Page) {
        let (code, gateway) = (
            page.paint(Tone::Strong, &self.code),
            page.paint(Tone::Name, &self.gateway),
        );
        page.line(format!("code for {gateway} of {}", self.plant));
        page.gap();
        page.line(format!("    {code}"));
        page.gap();
        page.line("Copy it onto paper and seal the envelope: it is stored nowhere, and is not shown again. Whoever has it and stands at the gateway can override it once.");
        page.line("Into the plant document, so that it is good from the next release on:");
        page.gap();
        page.line("break_glass:");
        page.line("  sealed:");
        page.drawn(&format!("    {}", self.line));
    }
}

fn seal(out: &Output, plant: &Path, gateway: &str) -> Result<Exit, Failure> {
    let loaded = loading::load(plant, out)?;
    let gateway = known_gateway(&loaded.plant, gateway)?;
    let mut random = [0; CODE_BYTES];
    getrandom::fill(&mut random).map_err(|error| Failure::from(keys::KeyError::Random(error)))?;
    let code = Code::from_random(random);
    let digest = code.digest(&loaded.plant.id, &gateway);
    let sealed = loaded
        .plant
        .break_glass
        .as_ref()
        .map(|permitting| &permitting.sealed);
    let mut codes: Vec<String> = sealed
        .and_then(|sealed| sealed.get(&gateway))
        .into_iter()
        .flatten()
        .map(|digest| format!("\"{digest}\""))
        .collect();
    codes.push(format!("\"{digest}\""));
    let line = match codes.as_slice() {
        [only] => format!("{gateway}: {only}"),
        several => format!("{gateway}: [{}]", several.join(", ")),
    };
    out.show(&Sealed {
        plant: loaded.plant.id.to_string(),
        gateway: gateway.to_string(),
        code: code.to_string(),
        digest: digest.to_string(),
        line,
    })?;
    Ok(Exit::Done)
}

fn known_gateway(plant: &penstock_policy::model::Plant, name: &str) -> Result<GatewayId, Failure> {
    let gateway = named::<GatewayId>(name)?;
    if plant.gateways.contains_key(&gateway) {
        return Ok(gateway);
    }
    let names: Vec<&str> = plant.gateways.keys().map(GatewayId::as_str).collect();
    let failure = Failure::usage(format!("{} has no gateway `{gateway}`", plant.id));
    Err(failure.help(format!("its gateways: {}", crate::words::some_of(&names))))
}

fn named<T: std::str::FromStr<Err = NameError>>(text: &str) -> Result<T, Failure> {
    text.parse()
        .map_err(|error: NameError| Failure::usage(error.to_string()))
}

/// A request from a file, and what it asks.
fn read(file: &Path) -> Result<(Signed, Request), Failure> {
    // In an envelope's base64, with the signatures of more people than a plant has.
    let bytes = files::read(file, 2 * BYTES_MAX as u64)?;
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        let message = format!("{} is not a request for an override", file.display());
        Failure::altered("override-unusable", message)
            .caused_by(error)
            .help("make one on the gateway: penstock-agent override request")
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| unusable(&error))?;
    let signed = Signed::from_json(text).map_err(|error| unusable(&error))?;
    let asked = Request::from_bytes(&signed.payload).map_err(|error| unusable(&error))?;
    Ok((signed, asked))
}

/// The plan that these documents make for the gateway of a request.
fn plan(out: &Output, asked: &Request, documents: &Path) -> Result<(loading::LoadedPlant, Plan), Failure> {
    let loaded = loading::load(documents, out)?;
    if loaded.plant.id != asked.plant {
        return Err(Failure::altered(
            "other-plant",
            format!(
                "the request is for {}, and the documents are of {}",
                asked.plant, loaded.plant.id
            ),
        ));
    }
    let plan = compile(&loaded.plant, &asked.gateway).map_err(|error| {
        Failure::altered(
            "other-gateway",
            "the documents have no plan for the gateway of the request",
        )
        .caused_by(&error)
    })?;
    Ok((loaded, plan))
}

fn show(out: &Output, file: &Path, documents: Option<&Path>) -> Result<Exit, Failure> {
    let (signed, asked) = read(file)?;
    let plan = documents
        .map(|documents| plan(out, &asked, documents))
        .transpose()?;
    let shown = OverrideShown::of(
        &signed,
        &asked,
        plan.as_ref().map(|(loaded, plan)| (&loaded.plant, plan)),
    );
    out.show(&shown)?;
    Ok(match shown.permitted {
        Some(false) => Exit::Findings,
        Some(true) | None => Exit::Done,
    })
}

/// What `override sign` was asked.
#[derive(Debug)]
struct SignRequest<'a> {
    file: &'a Path,
    key: &'a Path,
    passphrase_file: Option<&'a Path>,
    person: &'a str,
    documents: Option<&'a Path>,
    into: Option<&'a Path>,
    yes: bool,
}

/// A request that was signed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OverrideSigned {
    /// What it asks.
    pub request: OverrideShown,
    /// Who signed just now.
    pub signed_as: String,
    /// The file.
    pub file: String,
}

impl Report for OverrideSigned {
    const SCHEMA: &'static str = "penstock.override-sign/1";
    fn page(&self, page: &mut Page) {
        let (done, by, file) = (
            page.paint(Tone::Good, "✓"),
            page.paint(Tone::Strong, &self.signed_as),
            page.paint(Tone::Name, &self.file),
        );
        page.line(format!("{done} signed by {by}, written to {file}"));
        let names: Vec<&str> = self
            .request
            .signatures
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        page.line(format!(
            "  signatures in it: {}",
            page.paint(Tone::Plain, &names.join(", "))
        ));
        let next = match names.len() {
            1 => "it takes another person's: penstock override sign",
            _ => "on the gateway: penstock-agent override begin",
        };
        page.line(format!("  {next} {}", files::quoted(Path::new(&self.file))));
    }
}

fn sign(out: &Output, request: &SignRequest<'_>) -> Result<Exit, Failure> {
    let (mut signed, asked) = read(request.file)?;
    let person: ApproverId = named(request.person)?;
    if let Some(into) = request.into {
        files::free(into)?;
    }
    let plan = request
        .documents
        .map(|documents| plan(out, &asked, documents))
        .transpose()?;
    let by = plan.as_ref().map(|(loaded, plan)| (&loaded.plant, plan));
    let key = keys::read(request.key, || {
        passphrase::existing(out, request.key, request.passphrase_file)
    })?;
    if let Some((_, plan)) = by {
        may_sign(plan, &person, &key)?;
    }
    let earlier = signed
        .signatures
        .iter()
        .find(|earlier| earlier.approver != person && has_signed(&signed, earlier, &key.public()));
    if let Some(earlier) = earlier {
        return Err(Failure::local(
            "one-key",
            format!("this key has signed it as {} already", earlier.approver),
        )
        .help("it takes two people, each with a key of their own"));
    }
    if out.for_people() {
        let mut page = Page::new(out.style);
        OverrideShown::of(&signed, &asked, by).page(&mut page);
        page.gap();
        out.text(&page.finish())?;
    }
    let question = format!("Sign this override of {} as {person}?", asked.gateway);
    ask::confirm(out, request.yes, &question)?;
    let people = plan.as_ref().and_then(|(_, plan)| plan.break_glass.as_ref());
    let known = people.and_then(|permitting| permitting.people.get(&person));
    let signature = key.sign(person.clone(), &signed.signable(), known)?;
    signed.add(signature);
    let json = signed.to_json();
    let file = match request.into {
        Some(into) => {
            files::create(into, json.as_bytes(), Mode::Shared)?;
            into
        }
        None => {
            files::replace(request.file, json.as_bytes(), Mode::Shared)?;
            request.file
        }
    };
    out.show(&OverrideSigned {
        request: OverrideShown::of(&signed, &asked, by),
        signed_as: person.to_string(),
        file: file.display().to_string(),
    })?;
    Ok(Exit::Done)
}

/// Whether this key made that signature, in whichever of its forms.
fn has_signed(signed: &Signed, signature: &Signature, key: &PublicKey) -> bool {
    let point = PublicKey::ed25519(*key.point());
    let forms = [Some(*key), Some(point), PublicKey::from_ssh(&point.to_ssh()).ok()];
    forms
        .iter()
        .flatten()
        .any(|form| signed.verifies(signature, form))
}

/// Refuses a signature that the gateway would not count.
fn may_sign(plan: &Plan, person: &ApproverId, key: &keys::Signer) -> Result<(), Failure> {
    let people = plan.break_glass.as_ref().map(|permitting| &permitting.people);
    match people.and_then(|people| people.get(person)) {
        Some(known) if known.is_held_as(&key.public()) => Ok(()),
        Some(known) => Err(Failure::local(
            "wrong-key",
            format!("this is not the key that `break_glass` of the document has for {person}"),
        )
        .because(format!("the document has {}", String::from(*known)))
        .because(format!("the file holds {}", keys::public_words(key)))),
        None => {
            let names: BTreeSet<&str> = people
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str())
                .collect();
            let failure = Failure::local(
                "not-permitted",
                format!("{person} may not override {}", plan.gateway),
            );
            Err(match names.len() {
                0 => failure.because("the documents name nobody who may"),
                _ => failure.help(format!(
                    "those who may: {}",
                    names.into_iter().collect::<Vec<_>>().join(", ")
                )),
            })
        }
    }
}
