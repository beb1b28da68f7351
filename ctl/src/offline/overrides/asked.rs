//! A request for an override, in words.

use std::collections::BTreeSet;
use std::net::IpAddr;

use penstock_policy::ids::Digest;
use penstock_policy::model::Plant;
use penstock_policy::overrides::{BreakGlass, Effect, Override as Request, OverrideRefused, Signed, Warrant};
use penstock_policy::plan::Plan;
use penstock_policy::release;
use penstock_policy::times::Span;
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::{Page, Report, Tone};

/// What a request asks, and who has signed it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OverrideShown {
    /// The plant.
    pub plant: String,
    /// The gateway.
    pub gateway: String,
    /// The statement's digest of the release that is in force there.
    pub release: String,
    /// That digest in words, as `release known` and the gateway's status show it.
    pub release_words: String,
    /// The number that the gateway gave it, and takes once.
    pub number: String,
    /// How long it would last, seconds.
    pub seconds: u32,
    /// Why.
    pub reason: String,
    /// What a change management calls it.
    pub ticket: Option<String>,
    /// What would be so while it lasts.
    pub effects: Vec<EffectShown>,
    /// Who has signed, or says to have.
    pub signatures: Vec<SignatureShown>,
    /// Whether the documents permit it with these signatures; absent where none were given.
    pub permitted: Option<bool>,
    /// Why they do not.
    pub refusal: Option<String>,
}

/// One effect.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EffectShown {
    /// In a sentence.
    pub words: String,
    /// What the document calls the addresses in it.
    pub assets: Vec<String>,
    /// What follows from it beyond that.
    pub means: String,
    /// As it is signed.
    pub effect: serde_json::Value,
}

/// One signature.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SignatureShown {
    /// The name in it.
    pub name: String,
    /// Whether it is that of a person who may, by the documents; absent where none were given.
    pub counts: Option<bool>,
}

impl OverrideShown {
    /// What a request asks; by these documents, where there are any.
    pub fn of(signed: &Signed, asked: &Request, documents: Option<(&Plant, &Plan)>) -> Self {
        let refusal = documents.map(|(_, plan)| refusal(signed, asked, plan));
        let counts = |name: &str| {
            let (_, plan) = documents?;
            let one = signed
                .signatures
                .iter()
                .filter(|one| one.approver.as_str() == name);
            let people = &plan.break_glass.as_ref()?.people;
            Some(one.into_iter().any(|one| {
                let key = people.get(&one.approver);
                key.is_some_and(|key| signed.verifies(one, key))
            }))
        };
        Self {
            plant: asked.plant.to_string(),
            gateway: asked.gateway.to_string(),
            release: asked.release.to_string(),
            release_words: release::spoken(&asked.release),
            number: asked.number.to_string(),
            seconds: asked.seconds,
            reason: asked.reason.clone(),
            ticket: asked.ticket.clone(),
            effects: asked
                .effects
                .iter()
                .map(|effect| shown(effect, documents))
                .collect(),
            signatures: signed
                .signatures
                .iter()
                .map(|one| SignatureShown {
                    name: one.approver.to_string(),
                    counts: documents.map(|_| counts(one.approver.as_str()) == Some(true)),
                })
                .collect(),
            permitted: refusal.as_ref().map(Option::is_none),
            refusal: refusal.flatten().map(|error| error.to_string()),
        }
    }
}

/// Why a plan does not permit it, the release in force taken to be the one that the request names.
fn refusal(signed: &Signed, asked: &Request, plan: &Plan) -> Option<OverrideRefused> {
    let warrant = Warrant::Signatures(&signed.signatures);
    BreakGlass::permits(
        (plan, asked.release),
        &signed.payload,
        warrant,
        &BTreeSet::<Digest>::new(),
    )
    .err()
}

fn shown(effect: &Effect, documents: Option<(&Plant, &Plan)>) -> EffectShown {
    let plant = documents.map(|(plant, _)| plant);
    let (assets, means) = match effect {
        Effect::Device { address, .. } => (
            assets(plant, |known| known == *address),
            "its MAC address is taken from this request and no longer from the document; what it may do stays the same",
        ),
        Effect::Observe { one, other } => (
            assets(plant, |known| one.contains(&known) || other.contains(&known)),
            "what would be refused between the two passes and is recorded; so does what each of them exchanges with zones that \
             observe, and with networks behind interfaces that the gateway does not guard. On a bridged gateway, false claims of MAC \
             addresses on their two sides are recorded instead of refused, too",
        ),
        Effect::Unasked => (
            Vec::new(),
            "a release gets in force without the answer that `safe_to_change` waits for; windows and trials stay",
        ),
    };
    EffectShown {
        words: effect.to_string(),
        assets,
        means: means.to_owned(),
        effect: serde_json::to_value(effect).unwrap_or_default(),
    }
}

/// The names of assets with such an address.
fn assets(plant: Option<&Plant>, is_meant: impl Fn(IpAddr) -> bool) -> Vec<String> {
    let all = plant.into_iter().flat_map(|plant| &plant.assets);
    all.filter(|(_, asset)| asset.addresses.iter().any(|address| is_meant(*address)))
        .map(|(name, _)| name.to_string())
        .collect()
}

impl Report for OverrideShown {
    const SCHEMA: &'static str = "penstock.override/1";
    fn page(&self, page: &mut Page) {
        let plain = |text: &str| page.style.paint(Tone::Plain, text);
        let facts = [
            (
                "gateway",
                page.paint(Tone::Strong, &format!("{} of {}", self.gateway, self.plant)),
            ),
            (
                "lasts",
                plain(&format!(
                    "{} from its beginning",
                    Span::seconds(self.seconds.into())
                )),
            ),
            ("reason", plain(&self.reason)),
            ("ticket", plain(self.ticket.as_deref().unwrap_or("—"))),
            ("release", page.paint(Tone::Strong, &self.release_words)),
            ("", page.paint(Tone::Dim, &self.release)),
            ("number", page.paint(Tone::Dim, &self.number)),
        ];
        page.facts(&facts);
        page.gap();
        page.line("While it lasts:");
        for effect in &self.effects {
            let mark = page.paint(Tone::Warn, "▲");
            let words = page.paint(Tone::Strong, &effect.words);
            page.line(format!("  {mark} {words}"));
            if !effect.assets.is_empty() {
                let names: Vec<&str> = effect.assets.iter().map(String::as_str).collect();
                page.paragraph(
                    4,
                    Tone::Plain,
                    &format!("in the document: {}", crate::words::some_of(&names)),
                );
            }
            page.paragraph(4, Tone::Dim, &effect.means);
        }
        page.gap();
        if self.signatures.is_empty() {
            page.line("Nobody has signed it.");
        }
        for signature in &self.signatures {
            let name = page.paint(Tone::Strong, &signature.name);
            let line = match signature.counts {
                Some(true) => format!("{} signed by {name}", page.paint(Tone::Good, "✓")),
                Some(false) => format!(
                    "{} the signature under the name {name} does not count",
                    page.paint(Tone::Bad, "✗")
                ),
                None => format!("· signed under the name {name}"),
            };
            page.line(line);
        }
        match (self.permitted, &self.refusal) {
            (Some(true), _) => {
                let good = page.paint(Tone::Good, "✓");
                page.line(format!("{good} the documents permit it"));
            }
            (Some(false), refusal) => {
                let bad = page.paint(Tone::Bad, "✗");
                let why = page.paint(Tone::Plain, refusal.as_deref().unwrap_or_default());
                page.line(format!("{bad} the documents do not permit it so far: {why}"));
            }
            (None, _) => {
                let note = page.paint(Tone::Dim, "Who may was not looked at (--documents PATH).");
                page.line(note);
            }
        }
    }
}
