//! `rollout plan` and `rollout check`: how a release would be carried to its gateways, from a plant document alone.
//!
//! Whom a wave chooses is worked out here by the code that the coordinator works it out with, so that what is shown is what is
//! opened.

use std::path::Path;

use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::Digest;
use penstock_policy::model::Plant;
use penstock_policy::rollout::{Fleet, ReadPlan, RolloutPlan, assign, commented, default_plan};
use schemars::JsonSchema;
use serde::Serialize;

use super::plans;
use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::loading::{self, LoadedPlant};
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// Largest plan that is read, bytes: the reader itself takes no more.
const PLAN_BYTES_MAX: u64 = penstock_policy::document::limits::DOCUMENT_BYTES_MAX as u64;

/// A plan as it was judged.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PlanJudged {
    /// How many gateways it was judged for; absent: only by what it says itself.
    pub gateways: Option<usize>,
    /// How many errors it has: with any, no rollout is started.
    pub errors: usize,
    /// How many warnings.
    pub warnings: usize,
    /// Each of them: code, severity, message, location, label, help, related.
    pub diagnostics: Vec<serde_json::Value>,
    /// The waves in their order; only where the plan has no errors.
    pub waves: Vec<WaveLine>,
    /// How long shadow and looking on take together, seconds: it is not over before.
    pub seconds_min: u64,
    /// The diagnostics as they are drawn for people.
    #[serde(skip)]
    pub drawn: String,
}

/// One wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WaveLine {
    /// Its name.
    pub name: String,
    /// Whom it chooses; none where the plan was judged without gateways.
    pub gateways: Vec<String>,
    /// Most of one cell that change at the same time.
    pub per_cell: u32,
    /// How long to look on before the next wave.
    pub soak: String,
}

/// The waves of a plan, for these gateways or for none.
pub(crate) fn waves(plan: &RolloutPlan, fleet: Option<&Fleet>) -> Vec<WaveLine> {
    let chosen = fleet.map(|fleet| (fleet, assign(plan, fleet)));
    let names = |number: u16| match &chosen {
        None => Vec::new(),
        Some((fleet, waves)) => {
            let members = fleet.members().iter().zip(waves);
            let own = members.filter(|(_, wave)| **wave == Some(number));
            own.map(|(member, _)| member.id.to_string()).collect()
        }
    };
    let lines = (0_u16..).zip(&plan.waves).map(|(number, wave)| WaveLine {
        name: wave.name.clone(),
        gateways: names(number),
        per_cell: wave.per_cell,
        soak: wave.soak.to_string(),
    });
    lines.collect()
}

/// How long it takes at least, seconds.
pub(crate) fn seconds_min(plan: &RolloutPlan) -> u64 {
    let soaks = plan.waves.iter().map(|wave| wave.soak.as_seconds());
    soaks.fold(plan.shadow.as_seconds(), u64::saturating_add)
}

/// A line for each wave: its name, how many it chooses, and some of them.
pub(crate) fn waves_page(waves: &[WaveLine], page: &mut Page) {
    let width = waves
        .iter()
        .map(|wave| wave.name.chars().count())
        .max()
        .unwrap_or(0);
    let digits = waves
        .iter()
        .map(|wave| wave.gateways.len())
        .max()
        .unwrap_or(0)
        .to_string()
        .len();
    for (number, wave) in (1..).zip(waves) {
        let name = page.paint(Tone::Strong, &format!("{:<width$}", wave.name.as_str()));
        let names: Vec<&str> = wave.gateways.iter().map(String::as_str).collect();
        let names = page.paint(Tone::Plain, &words::some_of(&names));
        let soak = page.paint(Tone::Dim, &format!("then {} of looking on", wave.soak));
        let count = match wave.gateways.len() {
            0 => " ".repeat(digits),
            count => format!("{count:>digits$}"),
        };
        page.line(format!("  {number}. {name}  {count}  {names}  {soak}"));
    }
}

impl Report for PlanJudged {
    const SCHEMA: &'static str = "penstock.rollout-check/1";
    fn page(&self, page: &mut Page) {
        if !self.drawn.is_empty() {
            page.drawn(self.drawn.trim_end_matches('\n'));
            page.gap();
        }
        if self.errors > 0 {
            let bad = page.paint(Tone::Bad, "✗");
            page.line(format!(
                "{bad} {}: no rollout is started with this plan",
                words::count(self.errors, "error")
            ));
            return;
        }
        waves_page(&self.waves, page);
        let mark = match self.warnings {
            0 => page.paint(Tone::Good, "✓"),
            _ => page.paint(Tone::Warn, "▲"),
        };
        let said = match self.warnings {
            0 => "nothing to object to".to_owned(),
            count => words::count(count, "warning"),
        };
        let least = words::span(self.seconds_min.saturating_mul(1000));
        let scope = match self.gateways {
            Some(count) => format!(
                "{} in {}; shadow and looking on take {least}, windows and trials more",
                words::count(count, "gateway"),
                words::count(self.waves.len(), "wave")
            ),
            None => "judged without gateways: name a document, or a release with --revision".to_owned(),
        };
        page.line(format!("{mark} {said}: {scope}"));
    }
}

/// A fleet that a plant's gateways make.
pub(crate) fn fleet(plant: &Plant) -> Result<Fleet, Failure> {
    Fleet::of(plant).map_err(|error| {
        Failure::new(Exit::BadDocument, "no-fleet", "no rollout can carry this plant").caused_by(&error)
    })
}

/// What percentages are drawn with where nobody says: the same for the same documents, and another for others.
pub(crate) fn seed_of(documents: &Digest) -> u64 {
    let first = documents.0.iter().take(4);
    first.fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
}

/// `penstock rollout plan`, for the gateways of a plant; `whose`: what the plan is for.
pub(crate) fn plan(
    out: &Output,
    loaded: &LoadedPlant,
    whose: &str,
    seed: Option<u64>,
    file: Option<&Path>,
) -> Result<Exit, Failure> {
    let fleet = fleet(&loaded.plant)?;
    let plan = default_plan(&fleet, seed.unwrap_or_else(|| seed_of(&loaded.digest)));
    let heading = format!(
        "How {whose} is carried to its {}: the default plan. After a change, judge it with: penstock rollout check FILE DOCUMENT",
        words::count(fleet.len(), "gateway")
    );
    let text = commented(&plan, &fleet, &heading);
    plans::deliver(out, "rollout-plan", file, text.as_bytes())?;
    Ok(Exit::Done)
}

/// A plan from a file, judged for these gateways or only by itself.
pub(crate) fn judge(
    out: &Output,
    file: &Path,
    fleet: Option<&Fleet>,
) -> Result<(Option<RolloutPlan>, PlanJudged), Failure> {
    let bytes = files::read(file, PLAN_BYTES_MAX)?;
    let source = SourceFile::from_bytes(file.display().to_string(), bytes)
        .map_err(|error| Failure::new(Exit::Findings, "not-utf8", error.to_string()))?;
    let (plan, diagnostics) = ReadPlan::of(&source).judged(fleet);
    let judged = PlanJudged {
        gateways: fleet.map(Fleet::len),
        errors: diagnostics.errors().count(),
        warnings: diagnostics.warnings().count(),
        diagnostics: diagnostics
            .iter()
            .filter_map(|one| serde_json::to_value(one).ok())
            .collect(),
        waves: plan.as_ref().map(|plan| waves(plan, fleet)).unwrap_or_default(),
        seconds_min: plan.as_ref().map(seconds_min).unwrap_or_default(),
        drawn: if out.for_people() {
            diagnostics.render(loading::drawing(out.style))
        } else {
            String::new()
        },
    };
    Ok((plan, judged))
}

/// `penstock rollout check`.
pub(crate) fn check(out: &Output, file: &Path, fleet: Option<&Fleet>, strict: bool) -> Result<Exit, Failure> {
    let (_, judged) = judge(out, file, fleet)?;
    let is_refused = judged.errors > 0 || (strict && judged.warnings > 0);
    out.show(&judged)?;
    Ok(if is_refused { Exit::Findings } else { Exit::Done })
}

/// `rollout plan --from` and `rollout check` without a release, which need no coordinator; `None`: another command.
pub(crate) fn offline(out: &Output, args: &args::Rollout) -> Option<Result<Exit, Failure>> {
    match args {
        args::Rollout::Plan {
            from: Some(path),
            seed,
            out: file,
            ..
        } => Some(loading::load(path, out).and_then(|loaded| {
            plans::not_over(&loaded, file.as_deref())?;
            let whose = format!("a release of {}", loaded.plant.id);
            plan(out, &loaded, &whose, *seed, file.as_deref())
        })),
        args::Rollout::Check {
            plan,
            document,
            revision: None,
            strict,
        } => Some(
            document_fleet(out, document.as_deref())
                .and_then(|fleet| check(out, plan, fleet.as_ref(), *strict)),
        ),
        _ => None,
    }
}

fn document_fleet(out: &Output, document: Option<&Path>) -> Result<Option<Fleet>, Failure> {
    document
        .map(|path| fleet(&loading::load(path, out)?.plant))
        .transpose()
}
