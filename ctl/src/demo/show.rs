//! What the demo prints: numbered steps with their evidence, for people or as JSON lines.
//!
//! A step is announced before it is tried and closed with ✓ or ✗, so that one always sees what is being waited for.
//! As JSON each step is one object on one line, and the last line tells the whole.

use std::io::Write;
use std::time::Instant;

use owo_colors::{OwoColorize, Style};
use serde::Serialize;

use penstock_policy::text;

use super::DemoError;

/// How the demo speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Sentences for a terminal.
    Human,
    /// One JSON object per step.
    Json,
}

/// The demo's printer.
#[derive(Debug)]
pub(super) struct Show {
    tone: Tone,
    coloured: bool,
    begun: Instant,
    steps: Vec<Step>,
}

/// One step as it went.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    step: usize,
    title: &'static str,
    evidence: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    measured: Vec<Measurement>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    seconds: f64,
    #[serde(skip)]
    tone: Tone,
    #[serde(skip)]
    style: Style,
}

#[derive(Debug, Clone, Serialize)]
struct Measurement {
    what: &'static str,
    value: f64,
    unit: &'static str,
}

impl Step {
    /// Something that was seen to be so.
    pub(super) fn saw(&mut self, evidence: impl Into<String>) {
        let evidence = evidence.into();
        if self.tone == Tone::Human {
            let mut lines = evidence.lines();
            println!(
                "     {} {}",
                "·".style(self.style),
                lines.next().unwrap_or_default()
            );
            for line in lines {
                println!("       {}", line.style(self.style));
            }
        }
        self.evidence.push(evidence);
    }

    /// A figure, besides the sentence that tells it.
    pub(super) fn measured(&mut self, what: &'static str, value: f64, unit: &'static str) {
        self.measured.push(Measurement { what, value, unit });
    }
}

impl Show {
    pub(super) fn new(tone: Tone, coloured: bool) -> Self {
        Self {
            tone,
            coloured,
            begun: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// A line outside the steps, for people only.
    pub(super) fn say(&self, text: &str) {
        if self.tone == Tone::Human {
            println!("{text}");
        }
    }

    fn ink(&self, style: Style) -> Style {
        if self.coloured { style } else { Style::new() }
    }

    /// Announces a step, runs it, and tells how it went. A step that fails ends the demo.
    pub(super) fn step<T>(
        &mut self,
        title: &'static str,
        work: impl FnOnce(&mut Step) -> Result<T, DemoError>,
    ) -> Result<T, DemoError> {
        let number = self.steps.len().saturating_add(1);
        if self.tone == Tone::Human {
            println!(
                "\n {:>2}  {}",
                number.style(self.ink(Style::new().cyan())),
                title.style(self.ink(Style::new().bold()))
            );
        }
        let mut step = Step {
            step: number,
            title,
            evidence: Vec::new(),
            measured: Vec::new(),
            ok: false,
            fault: None,
            seconds: 0.0,
            tone: self.tone,
            style: self.ink(Style::new().dimmed()),
        };
        let begun = Instant::now();
        let result = work(&mut step);
        step.seconds = (begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        step.ok = result.is_ok();
        step.fault = result.as_ref().err().map(|error| text::sentence(error));
        match (self.tone, &step.fault) {
            (Tone::Human, None) => {
                let time = format!("{:.1} s", step.seconds);
                println!(
                    "     {} {}",
                    "✓".style(self.ink(Style::new().green())),
                    time.style(step.style)
                );
            }
            (Tone::Human, Some(fault)) => {
                println!("     {} {fault}", "✗".style(self.ink(Style::new().red())))
            }
            (Tone::Json, _) => print_json(&step),
        }
        // The terminal may be a pipe that is read as we go; a closed one is no reason to stop halfway.
        let _ = std::io::stdout().flush();
        self.steps.push(step);
        result
    }

    /// The last line.
    pub(super) fn finish(&self) {
        let ok = self.steps.iter().all(|step| step.ok);
        let seconds = self.begun.elapsed().as_secs_f64();
        let passed = self.steps.iter().filter(|step| step.ok).count();
        match self.tone {
            Tone::Json => print_json(
                &serde_json::json!({ "ok": ok, "steps": passed, "seconds": (seconds * 10.0).round() / 10.0 }),
            ),
            Tone::Human if ok => println!("\n All {passed} steps held, in {seconds:.1} s."),
            Tone::Human => println!("\n Step {} did not hold; see above.", self.steps.len()),
        }
    }
}

fn print_json(value: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(value) {
        println!("{line}");
    }
}
