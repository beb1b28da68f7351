//! `check`: all faults of a document at once, and an independent look at the plans that it compiles to.
//!
//! What is found is said once and written in the form that the reader wants: a page, JSON in one schema whether or not the document has
//! errors, or what other programs show at the line (`annotations`).

pub(crate) mod annotations;

use std::time::Duration;

use penstock_policy::LoadedDocument;
use penstock_policy::check::{self, Finding};
use penstock_policy::compile::compile_all;
use penstock_policy::diagnostics::{Diagnostics, Location};
use penstock_policy::model::{Acceptance, Plant};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args;
use crate::documents::Documents;
use crate::exit::Exit;
use crate::failure::{Failure, PIPE_CLOSED};
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
    /// All that it names: what an entry under `accepted` lists. Only of `check`.
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The file in which what it is about is defined. Only of `check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line there, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column there, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Set if people accepted it, and that has not expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<AcceptedLine>,
}

/// Who lives with a finding, and until when.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AcceptedLine {
    /// The approver who accepted it.
    pub by: String,
    /// The last day on which that counts.
    pub expires: String,
    /// Why.
    pub reason: String,
}

impl From<&Acceptance> for AcceptedLine {
    fn from(acceptance: &Acceptance) -> Self {
        Self {
            by: acceptance.by.to_string(),
            expires: acceptance.expires.clone(),
            reason: acceptance.reason.clone(),
        }
    }
}

impl From<Finding> for FindingLine {
    fn from(finding: Finding) -> Self {
        Self {
            code: finding.code.to_owned(),
            severity: finding.severity.to_string(),
            gateway: finding.gateway.map(|gateway| gateway.to_string()),
            message: finding.words,
            help: finding.help,
            names: Vec::new(),
            file: None,
            line: None,
            column: None,
            accepted: None,
        }
    }
}

impl FindingLine {
    /// The finding with all that the document says of it.
    fn located(finding: Finding, plant: &Plant, loaded: &LoadedDocument) -> Self {
        let mut names: Vec<String> = check::named(plant, &finding)
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        names.sort();
        names.dedup();
        let subject = check::main_subject(plant, &finding);
        let location: Option<Location> =
            subject.and_then(|(kind, name)| loaded.definitions.location(kind, &name));
        let accepted = check::acceptance(plant, &finding).map(AcceptedLine::from);
        Self {
            names,
            line: location.as_ref().map(|at| at.line),
            column: location.as_ref().map(|at| at.column),
            file: location.map(|at| at.file),
            accepted,
            ..Self::from(finding)
        }
    }

    /// Somebody should weigh it: it is not a note, and nobody accepted it.
    fn is_open(&self) -> bool {
        self.severity != "note" && self.accepted.is_none()
    }
}

/// What the checker of plans finds.
fn findings(plant: &Plant, loaded: &LoadedDocument) -> Result<Vec<FindingLine>, Failure> {
    let plans = compile_all(plant).map_err(|error| {
        Failure::new(
            Exit::BadDocument,
            "not-compiled",
            "no plans can be made of the document",
        )
        .caused_by(&error)
    })?;
    let found = check::check(plant, &plans, None).into_iter();
    Ok(found
        .map(|finding| FindingLine::located(finding, plant, loaded))
        .collect())
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
        self.warnings > 0 || self.findings.iter().any(FindingLine::is_open)
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
                    self.findings.iter().filter(|finding| finding.is_open()).count(),
                    "finding"
                )
            )
        };
        page.line(format!("  {verdict}"));
        let accepted = self
            .findings
            .iter()
            .filter(|finding| finding.accepted.is_some())
            .count();
        if accepted > 0 {
            page.line(format!(
                "  {} accepted, each until its day",
                words::count(accepted, "finding")
            ));
        }
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
        let at = match (&self.file, self.line) {
            (Some(file), Some(line)) => {
                format!(" {}", page.style.paint(Tone::Dim, &format!("{file}:{line}")))
            }
            _ => String::new(),
        };
        page.line(format!("{code}{gateway}{at}"));
        page.paragraph(2, Tone::Plain, &self.message);
        match &self.accepted {
            None => page.paragraph(2, Tone::Dim, &format!("help: {}", self.help)),
            Some(AcceptedLine { by, expires, reason }) => {
                page.paragraph(
                    2,
                    Tone::Dim,
                    &format!("accepted by {by} until {expires}: {reason}"),
                );
            }
        }
    }
}

/// How often the files are looked at while somebody watches.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// `penstock check`.
pub(crate) fn check(out: &Output, args: &args::Check) -> Result<Exit, Failure> {
    let from_stdin = args.path.as_os_str() == "-";
    match (args.watch, from_stdin) {
        (true, true) => {
            Err(Failure::usage("standard input cannot be watched").help("name a file or a folder"))
        }
        (true, false) => watch(out, args),
        (false, true) => judge(out, args, &Documents::from_stdin()?),
        (false, false) => judge(out, args, &Documents::read(&args.path)?),
    }
}

/// Checks again whenever a file changes, comes or goes, until an interrupt.
fn watch(out: &Output, args: &args::Check) -> Result<Exit, Failure> {
    let mut seen = None;
    loop {
        let read = Documents::read(&args.path);
        let state = read.as_ref().map(Documents::digest).map_err(ToString::to_string);
        if seen.as_ref() != Some(&state) {
            seen = Some(state);
            let answer = read
                .map_err(Failure::from)
                .and_then(|documents| judge(out, args, &documents));
            match answer {
                Err(failure) if &*failure.code == PIPE_CLOSED => return Err(failure),
                Err(failure) => out.fail(&failure),
                Ok(_) => {}
            }
            out.remark("watching; end with an interrupt");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn judge(out: &Output, args: &args::Check, documents: &Documents) -> Result<Exit, Failure> {
    let loaded = loading::examine(documents)?;
    let checked = Checked::of(documents, &loaded, out)?;
    let bad = checked.findings.iter().any(|finding| finding.severity == "error");
    let exit = match checked.plant {
        None => Exit::BadDocument,
        Some(_) if bad || (args.strict && checked.is_doubtful()) => Exit::Findings,
        Some(_) => Exit::Done,
    };
    if let Some(form) = args.report {
        out.text(&annotations::written(form, &checked, &loaded.diagnostics))?;
        return Ok(exit);
    }
    if checked.plant.is_none() {
        // For programs the same answer as without errors, beside the failure; for people the failure says it all.
        if !out.for_people() {
            out.show(&checked)?;
        }
        return Err(loading::bad_document(documents, &loaded.diagnostics, out));
    }
    out.show(&checked)?;
    Ok(exit)
}

impl Checked {
    fn of(documents: &Documents, loaded: &LoadedDocument, out: &Output) -> Result<Self, Failure> {
        let findings = match &loaded.plant {
            Some(plant) => findings(plant, loaded)?,
            None => Vec::new(),
        };
        Ok(Self {
            plant: loaded.plant.as_ref().map(Summary::of),
            document_digest: documents.digest().to_string(),
            errors: loaded.diagnostics.errors().count(),
            warnings: loaded.diagnostics.warnings().count(),
            diagnostics: as_values(&loaded.diagnostics),
            findings,
            drawn: if out.for_people() {
                loaded.diagnostics.render(loading::drawing(out.style))
            } else {
                String::new()
            },
        })
    }
}

fn as_values(diagnostics: &Diagnostics) -> Vec<serde_json::Value> {
    diagnostics
        .iter()
        .filter_map(|diagnostic| serde_json::to_value(diagnostic).ok())
        .collect()
}
