//! `diff`: what a new document changes for whom, in words; also what approvers see before they sign.

use penstock_policy::diff::{self, Diff, Effect, Touch};
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

/// What differs between two plants.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Changes {
    /// Whether anything may permit more than before.
    pub may_widen: bool,
    /// The changes, those of flows first.
    pub changes: Vec<ChangeLine>,
    /// What each gateway gets.
    pub gateways: Vec<GatewayTouch>,
}

/// One change.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ChangeLine {
    /// What changed, in words: `flow control-room-to-pumps/polling`.
    pub subject: String,
    /// `added`, `widened`, `altered`, `narrowed`, `removed` or `recorded`: what that does to traffic.
    pub effect: String,
    /// How, in words.
    pub details: Vec<String>,
}

/// What a gateway gets.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GatewayTouch {
    /// The gateway.
    pub gateway: String,
    /// `changed`, `added`, `removed` or `untouched`.
    pub plan: String,
}

fn effect_word(effect: Effect) -> &'static str {
    match effect {
        Effect::Added => "added",
        Effect::Widened => "widened",
        Effect::Altered => "altered",
        Effect::Narrowed => "narrowed",
        Effect::Removed => "removed",
        Effect::Recorded => "recorded",
    }
}

fn touch_word(touch: Touch) -> &'static str {
    match touch {
        Touch::Changed => "changed",
        Touch::Added => "added",
        Touch::Removed => "removed",
        Touch::Untouched => "untouched",
    }
}

impl From<&Diff> for Changes {
    fn from(diff: &Diff) -> Self {
        let changes = diff.changes.iter().map(|change| ChangeLine {
            subject: change.subject.to_string(),
            effect: effect_word(change.effect).to_owned(),
            details: change.details.clone(),
        });
        let gateways = diff.gateways.iter().map(|(gateway, touch)| GatewayTouch {
            gateway: gateway.to_string(),
            plan: touch_word(*touch).to_owned(),
        });
        Self {
            may_widen: diff.may_widen(),
            changes: changes.collect(),
            gateways: gateways.collect(),
        }
    }
}

impl Changes {
    /// What `new` changes against `old`.
    pub(crate) fn between(old: Option<&Plant>, new: &Plant) -> Result<Self, Failure> {
        let diff = diff::diff(old, new).map_err(|error| {
            Failure::new(Exit::BadDocument, "not-compiled", "the plants cannot be compared").caused_by(&error)
        })?;
        Ok(Self::from(&diff))
    }
}

/// The sign and word of an effect, and how it is painted.
fn effect_head(effect: &str) -> (String, Tone) {
    let (mark, tone) = match effect {
        "added" => ("+", Tone::Warn),
        "widened" => ("▲", Tone::Warn),
        "altered" => ("~", Tone::Warn),
        "narrowed" => ("▼", Tone::Good),
        "removed" => ("−", Tone::Good),
        _ => ("·", Tone::Dim),
    };
    (format!("{mark} {effect:<8}"), tone)
}

impl Report for Changes {
    const SCHEMA: &'static str = "penstock.diff/1";
    fn page(&self, page: &mut Page) {
        let touched: Vec<&GatewayTouch> = self.gateways.iter().filter(|g| g.plan != "untouched").collect();
        if self.changes.is_empty() && touched.is_empty() {
            page.line("nothing changes");
            return;
        }
        let mut bare: Vec<(String, Vec<&str>)> = Vec::new();
        for change in &self.changes {
            // What only came or went needs no more words than its name; names of a kind share a line.
            if let ([_], Some((kind, name))) = (change.details.as_slice(), change.subject.rsplit_once(' '))
                && matches!(change.effect.as_str(), "added" | "removed")
                && kind != "flow"
            {
                let head = format!("{} {kind}", effect_head(&change.effect).0);
                match bare.iter_mut().find(|(known, _)| *known == head) {
                    Some((_, names)) => names.push(name),
                    None => bare.push((head, vec![name])),
                }
                continue;
            }
            let (head, tone) = effect_head(&change.effect);
            let effect = page.paint(tone, &head);
            let subject = page.paint(Tone::Strong, &change.subject);
            page.line(format!("{effect}  {subject}"));
            for detail in &change.details {
                page.paragraph(12, Tone::Plain, detail);
            }
        }
        for (head, names) in bare {
            page.paragraph(0, Tone::Plain, &format!("{head}: {}", names.join(", ")));
        }
        page.gap();
        let names: Vec<String> = touched
            .iter()
            .map(|g| format!("{} ({})", g.gateway, g.plan))
            .collect();
        let whom = if names.is_empty() {
            "no gateway's plan changes".to_owned()
        } else {
            format!("plans: {}", names.join(", "))
        };
        let untouched = self.gateways.len() - touched.len();
        let rest = if untouched > 0 && !touched.is_empty() {
            format!("; untouched: {}", words::count(untouched, "gateway"))
        } else {
            String::new()
        };
        page.paragraph(0, Tone::Plain, &format!("{whom}{rest}"));
        if self.may_widen {
            let words = page.paint(Tone::Warn, "▲ something may pass that did not pass before");
            page.line(words);
        }
    }
}

/// `penstock diff` of two documents, or of one against git.
pub(crate) fn diff(out: &Output, args: &args::Diff) -> Result<Exit, Failure> {
    let (old, new) = match (&args.new, &args.against) {
        (Some(new), _) => (Documents::read(&args.old)?, Documents::read(new)?),
        (None, Some(revision)) => (
            Documents::read_git(&args.old, revision)?,
            Documents::read(&args.old)?,
        ),
        (None, None) => {
            return Err(Failure::usage(
                "name two documents, or one with --against REV or --against-current",
            ));
        }
    };
    let (old, new) = (loading::judge(old, out)?, loading::judge(new, out)?);
    out.show(&Changes::between(Some(&old.plant), &new.plant)?)?;
    Ok(Exit::Done)
}
