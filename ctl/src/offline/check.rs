//! `check`: all faults of a document at once, and an independent look at the plans that it compiles to.

use penstock_policy::check::{self, Finding};
use penstock_policy::compile::compile_all;
use penstock_policy::diagnostics::Diagnostics;
use penstock_policy::model::Plant;
use schemars::JsonSchema;
use serde::Serialize;

use crate::args;
use crate::documents::Documents;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// What a check found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checked {
    /// The plant; absent if the document has errors.
    pub plant: Option<Summary>,
    /// Digest of the document, as a release would state it.
    pub document_digest: String,
    /// How many errors its text has.
    pub errors: usize,
    /// How many warnings its text has.
    pub warnings: usize,
    /// Each of them: code, severity, message, location, label, help, related.
    pub diagnostics: Vec<serde_json::Value>,
    /// What the checker of plans found; only if there is a plant.
    pub findings: Vec<FindingLine>,
    /// The diagnostics as they are drawn for people.
    #[serde(skip)]
    pub drawn: String,
}

/// The plant in numbers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Summary {
    /// Its name.
    pub plant: String,
    /// How many zones.
    pub zones: usize,
    /// How many conduits.
    pub conduits: usize,
    /// How many flows in them.
    pub flows: usize,
    /// How many gateways.
    pub gateways: usize,
    /// How many assets.
    pub assets: usize,
}

/// Something that the checker of plans found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FindingLine {
    /// Stable code.
    pub code: String,
    /// `error`, `warning` or `note`.
    pub severity: String,
    /// The gateway whose plan it is about, if it is about one.
    pub gateway: Option<String>,
    /// What was found.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl From<Finding> for FindingLine {
    fn from(finding: Finding) -> Self {
        Self {
            code: finding.code.to_owned(),
            severity: finding.severity.to_string(),
            gateway: finding.gateway.map(|gateway| gateway.to_string()),
            message: finding.words,
            help: finding.help,
        }
    }
}

/// What the checker of plans finds.
fn findings(plant: &Plant) -> Result<Vec<FindingLine>, Failure> {
    let plans = compile_all(plant).map_err(|error| {
        Failure::new(
            Exit::BadDocument,
            "not-compiled",
            "no plans can be made of the document",
        )
        .caused_by(&error)
    })?;
    let found = check::check(plant, &plans, None).into_iter();
    Ok(found.map(FindingLine::from).collect())
}

impl Summary {
    fn of(plant: &Plant) -> Self {
        Self {
            plant: plant.id.to_string(),
            zones: plant.zones.len(),
            conduits: plant.conduits.len(),
            flows: plant.conduits.values().map(|conduit| conduit.flows.len()).sum(),
            gateways: plant.gateways.len(),
            assets: plant.assets.len(),
        }
    }
}

impl Checked {
    /// There is something that a person should weigh; notes are only for the record.
    fn is_doubtful(&self) -> bool {
        self.warnings > 0 || self.findings.iter().any(|finding| finding.severity != "note")
    }
}

impl Report for Checked {
    const SCHEMA: &'static str = "penstock.check/1";
    fn page(&self, page: &mut Page) {
        if !self.drawn.is_empty() {
            page.drawn(self.drawn.trim_end_matches('\n'));
        }
        for finding in &self.findings {
            finding.page(page);
        }
        if !self.drawn.is_empty() || !self.findings.is_empty() {
            page.gap();
        }
        let Some(summary) = &self.plant else {
            return;
        };
        let clean = !self.is_doubtful();
        let mark = if clean {
            page.paint(Tone::Good, "✓")
        } else {
            page.paint(Tone::Warn, "▲")
        };
        let name = page.paint(Tone::Strong, &summary.plant);
        let counts = [
            words::count(summary.zones, "zone"),
            words::count(summary.conduits, "conduit"),
            words::count(summary.flows, "flow"),
            words::count(summary.gateways, "gateway"),
            words::count(summary.assets, "asset"),
        ];
        page.line(format!("{mark} {name}: {}", counts.join(", ")));
        let verdict = if clean {
            "nothing to object to".to_owned()
        } else {
            format!(
                "{} and {} about its plans",
                words::count(self.warnings, "warning"),
                words::count(
                    self.findings.iter().filter(|f| f.severity != "note").count(),
                    "finding"
                )
            )
        };
        page.line(format!("  {verdict}"));
    }
}

impl FindingLine {
    /// Writes it for people.
    pub fn page(&self, page: &mut Page) {
        let (mark, tone) = match self.severity.as_str() {
            "error" => ("✗", Tone::Bad),
            "warning" => ("▲", Tone::Warn),
            _ => ("·", Tone::Dim),
        };
        let code = page.paint(tone, &format!("{mark} {} {}", self.severity, self.code));
        let gateway = self.gateway.as_ref().map_or_else(String::new, |name| {
            format!(" {}", page.style.paint(Tone::Name, name))
        });
        page.line(format!("{code}{gateway}"));
        page.paragraph(2, Tone::Plain, &self.message);
        page.paragraph(2, Tone::Dim, &format!("help: {}", self.help));
    }
}

/// `penstock check`.
pub(crate) fn check(out: &Output, args: &args::Check) -> Result<Exit, Failure> {
    let documents = Documents::read(&args.path)?;
    let (plant, diagnostics) = loading::examine(&documents)?;
    let Some(plant) = plant else {
        return Err(loading::bad_document(&documents, &diagnostics, out));
    };
    let checked = Checked {
        plant: Some(Summary::of(&plant)),
        document_digest: documents.digest().to_string(),
        errors: 0,
        warnings: diagnostics.warnings().count(),
        diagnostics: as_values(&diagnostics),
        findings: findings(&plant)?,
        drawn: if out.for_people() {
            diagnostics.render(loading::drawing(out.style))
        } else {
            String::new()
        },
    };
    let bad = checked.findings.iter().any(|finding| finding.severity == "error");
    let exit = if bad || (args.strict && checked.is_doubtful()) {
        Exit::Findings
    } else {
        Exit::Done
    };
    out.show(&checked)?;
    Ok(exit)
}

fn as_values(diagnostics: &Diagnostics) -> Vec<serde_json::Value> {
    diagnostics
        .iter()
        .filter_map(|diagnostic| serde_json::to_value(diagnostic).ok())
        .collect()
}
