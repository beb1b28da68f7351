//! `diff`: what a new document changes for whom, in words; also what approvers see before they sign.
//!
//! What follows from the changes (paths between zones, what must flow, findings) is `consequences`.

use penstock_policy::diff::{Effect, Touch};
use penstock_policy::model::Plant;
use penstock_policy::preview::Preview;
use schemars::JsonSchema;
use serde::Serialize;

use super::check::FindingLine;
use super::consequences::{self, FindingsCompared, MustFlowLine, ZonePairs};
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
    /// Zones of which one can act on the other where it could not, or do more to it.
    pub opened: ZonePairs,
    /// Zones of which one can no longer act on the other, or do less to it.
    pub closed: ZonePairs,
    /// What must flow, and the change takes away, narrows, enforces or interrupts.
    pub must_flows: Vec<MustFlowLine>,
    /// What the checker of plans finds now and did not before.
    pub findings: FindingsCompared,
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

impl From<&Preview> for Changes {
    fn from(preview: &Preview) -> Self {
        let diff = &preview.diff;
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
            opened: ZonePairs::from(&preview.paths.opened),
            closed: ZonePairs::from(&preview.paths.closed),
            must_flows: preview.must_flows.iter().map(MustFlowLine::from).collect(),
            findings: FindingsCompared::from(&preview.findings),
        }
    }
}

impl Changes {
    /// What `new` changes against `old`.
    pub(crate) fn between(old: Option<&Plant>, new: &Plant) -> Result<Self, Failure> {
        Ok(Self::with_findings(old, new)?.0)
    }

    /// The same, with all that the checker of plans finds, known or new; gravest first.
    pub(crate) fn with_findings(
        old: Option<&Plant>,
        new: &Plant,
    ) -> Result<(Self, Vec<FindingLine>), Failure> {
        let preview = Preview::of(old, new).map_err(|error| {
            Failure::new(Exit::BadDocument, "not-compiled", "the plants cannot be compared").caused_by(&error)
        })?;
        let changes = Self::from(&preview);
        let mut findings = [preview.findings.new, preview.findings.known].concat();
        findings.sort();
        Ok((changes, findings.into_iter().map(FindingLine::from).collect()))
    }

    /// Whether nothing of the plant itself changes.
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.gateways.iter().all(|gateway| gateway.plan == "untouched")
    }

    /// Whose plans change: by name where they are few, in numbers where they are not.
    fn gateways(&self) -> String {
        let touched: Vec<&GatewayTouch> = self.gateways.iter().filter(|g| g.plan != "untouched").collect();
        let untouched = self.gateways.len() - touched.len();
        let rest = match untouched {
            0 => String::new(),
            _ => format!("; untouched: {}", words::count(untouched, "gateway")),
        };
        let names: Vec<String> = match touched.len() {
            0 => return "no gateway's plan changes".to_owned(),
            1..=GATEWAYS_NAMED => touched
                .iter()
                .map(|g| format!("{} ({})", g.gateway, g.plan))
                .collect(),
            _ => ["changed", "added", "removed"]
                .into_iter()
                .filter_map(|word| {
                    let mut names = touched
                        .iter()
                        .filter(|g| g.plan == word)
                        .map(|g| g.gateway.as_str());
                    let shown: Vec<&str> = names.by_ref().take(GATEWAYS_SHOWN).collect();
                    let others = match names.count() {
                        _ if shown.is_empty() => return None,
                        0 => return Some(format!("{} {word} ({})", shown.len(), shown.join(", "))),
                        others => others,
                    };
                    let all = shown.len() + others;
                    Some(format!("{all} {word} ({} and {others} others)", shown.join(", ")))
                })
                .collect(),
        };
        format!("plans: {}{rest}", names.join(", "))
    }
}

impl Changes {
    /// What becomes of gateways that get no plan any more.
    fn left_behind(&self) -> Option<String> {
        let removed = self.gateways.iter().filter(|gateway| gateway.plan == "removed");
        let names: Vec<&str> = removed.map(|gateway| gateway.gateway.as_str()).collect();
        let who = match names.as_slice() {
            [] => return None,
            [only] => format!("{only} gets no plan any more, and goes on by its last one"),
            [..] if names.len() <= GATEWAYS_NAMED => format!(
                "{} get no plan any more, and each goes on by its last one",
                names.join(", ")
            ),
            many => format!(
                "{} gateways get no plan any more, and each goes on by its last one",
                many.len()
            ),
        };
        Some(format!(
            "▲ {who} until it is taken out: what this says closes there stays open until then"
        ))
    }
}

/// So many gateways are each named with what they get.
const GATEWAYS_NAMED: usize = 12;
/// Of more, so many are named of those that get the same.
const GATEWAYS_SHOWN: usize = 4;

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

/// Changes with the same words, or that differ only in a name that is each one's own, by which equal stations differ.
struct Alike<'a> {
    first: &'a ChangeLine,
    others: Vec<&'a str>,
}

/// How many of them are named.
const ALIKE_NAMED: usize = 6;
/// How many of the newest are looked at for one with the same words: a long list stays linear.
const ALIKE_LOOKED_AT: usize = 64;

/// Whether two names differ in their numbers alone (`ps-001`, `ps-002`) and hold a letter that no number has: nothing else of a sentence (a port, a
/// value, an operation) can then be taken for them.
fn are_of_a_series(one: &str, other: &str) -> bool {
    let shape = |name: &str| -> Vec<String> {
        let parts = name.split(|c: char| c.is_ascii_digit());
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let is_numbered = |name: &str| name.contains(|c: char| c.is_ascii_digit());
    is_numbered(one)
        && is_numbered(other)
        && shape(one) == shape(other)
        && one.contains(|c: char| c.is_ascii_alphabetic() && !c.is_ascii_hexdigit())
}

/// The text with the other name wherever the name stands as a whole word.
fn swapped(text: &str, name: &str, other: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(name) {
        out.push_str(before);
        let is_inside = |c: char| c.is_ascii_alphanumeric();
        let is_whole = !out.ends_with(is_inside) && !after.starts_with(is_inside);
        out.push_str(if is_whole { other } else { name });
        rest = after;
    }
    out + rest
}

impl<'a> Alike<'a> {
    /// Whether the change has the same words; then it belongs to these.
    fn take(&mut self, change: &'a ChangeLine) -> bool {
        let first = self.first;
        if first.effect != change.effect || first.details.len() != change.details.len() {
            return false;
        }
        let own =
            own_names(&first.subject, &change.subject).filter(|(one, other)| are_of_a_series(one, other));
        let same = |one: &str, other: &str| {
            one == other || own.is_some_and(|(name, others)| swapped(one, name, others) == other)
        };
        let all = first
            .details
            .iter()
            .zip(&change.details)
            .all(|(one, other)| same(one, other));
        // What merely has the same words is named in any case; of a series, the first ones stand for the others.
        let is_in_series = same(&first.subject, &change.subject);
        let has_room = self.others.len() < ALIKE_NAMED;
        let alike = all && (is_in_series || (has_room && first.details == change.details));
        if alike {
            self.others.push(&change.subject);
        }
        alike
    }

    fn page(&self, page: &mut Page) {
        let (head, tone) = effect_head(&self.first.effect);
        let effect = page.paint(tone, &head);
        let subject = page.paint(Tone::Strong, &self.first.subject);
        page.line(format!("{effect}  {subject}"));
        for detail in &self.first.details {
            page.paragraph(12, Tone::Plain, detail);
        }
        if self.others.is_empty() {
            return;
        }
        let named: Vec<&str> = self.others.iter().take(ALIKE_NAMED).copied().collect();
        let more = match self.others.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more (`--output json` names all)"),
        };
        page.paragraph(12, Tone::Strong, &format!("likewise {}{more}", named.join(", ")));
    }
}

/// The names in which two subjects differ: the words, between spaces, `/` and `.`, around what is not the same in both.
fn own_names<'a>(one: &'a str, other: &'a str) -> Option<(&'a str, &'a str)> {
    let between = |c: char| matches!(c, ' ' | '/' | '.');
    let same = |(a, b): &(char, char)| a == b;
    let before: usize = one
        .chars()
        .zip(other.chars())
        .take_while(same)
        .map(|(c, _)| c.len_utf8())
        .sum();
    let start = one.get(..before)?.rfind(between).map_or(0, |at| at + 1);
    let (one, other) = (one.get(start..)?, other.get(start..)?);
    let behind: usize = one
        .chars()
        .rev()
        .zip(other.chars().rev())
        .take_while(same)
        .map(|(c, _)| c.len_utf8())
        .sum();
    let shorter = one.len().min(other.len());
    let tail = one.get(one.len().checked_sub(behind.min(shorter))?..)?;
    let end = tail.find(between).map_or(0, |at| tail.len() - at);
    let (one, other) = (one.get(..one.len() - end)?, other.get(..other.len() - end)?);
    (one != other && !one.is_empty() && !other.is_empty()).then_some((one, other))
}

impl Report for Changes {
    const SCHEMA: &'static str = "penstock.diff/1";
    fn page(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("nothing changes");
            self.findings.page(page);
            return;
        }
        let mut bare: Vec<(String, Vec<&str>)> = Vec::new();
        let mut said: Vec<Alike<'_>> = Vec::new();
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
            let mut last = said.iter_mut().rev().take(ALIKE_LOOKED_AT);
            if !last.any(|alike| alike.take(change)) {
                said.push(Alike {
                    first: change,
                    others: Vec::new(),
                });
            }
        }
        for alike in said {
            alike.page(page);
        }
        for (head, names) in bare {
            page.paragraph(0, Tone::Plain, &format!("{head}: {}", names.join(", ")));
        }
        page.gap();
        page.paragraph(0, Tone::Plain, &self.gateways());
        if let Some(words) = self.left_behind() {
            page.paragraph(0, Tone::Warn, &words);
        }
        if self.may_widen {
            let words = page.paint(Tone::Warn, "▲ something may pass that did not pass before");
            page.line(words);
        }
        let paths = (&self.opened, &self.closed);
        consequences::page(&self.must_flows, paths, &self.findings, page);
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
    let changes = Changes::between(Some(&old.plant), &new.plant)?;
    out.show(&changes)?;
    Ok(if args.fail_on_widened && changes.may_widen {
        Exit::Findings
    } else {
        Exit::Done
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn names_that_equal_stations_have_of_their_own_are_told_from_what_they_share() {
        for (one, other, names) in [
            (
                "flow ps-001.tc/poll",
                "flow ps-002.tc/poll",
                Some(("ps-001", "ps-002")),
            ),
            ("flow ps-1.tc/poll", "flow ps-11.tc/poll", Some(("ps-1", "ps-11"))),
            (
                "gateway gw-north",
                "gateway gw-south",
                Some(("gw-north", "gw-south")),
            ),
            ("zone a", "conduit a", Some(("zone", "conduit"))),
            ("zone a", "zone a", None),
        ] {
            assert_eq!(own_names(one, other), names, "{one} {other}");
        }
    }

    #[test]
    fn changes_are_folded_where_the_same_is_said_but_for_a_stations_own_name() {
        let change = |subject: &str, detail: &str| ChangeLine {
            subject: subject.to_owned(),
            effect: "widened".to_owned(),
            details: vec![detail.to_owned()],
        };
        let first = change("flow ps-001.tc/poll", "42 on ps-001.plc");
        let like = change("flow ps-002.tc/poll", "42 on ps-002.plc");
        let more = change("flow ps-003.tc/poll", "42-43 on ps-003.plc");
        let crossed = change("flow ps-004.tc/poll", "42 on ps-005.plc");
        let word_for_word = change("flow other/poll", "42 on ps-001.plc");
        let mut alike = Alike {
            first: &first,
            others: Vec::new(),
        };
        assert!(alike.take(&like) && alike.take(&word_for_word));
        assert!(!alike.take(&more) && !alike.take(&crossed));
        assert_eq!(alike.others, ["flow ps-002.tc/poll", "flow other/poll"]);
    }

    #[test]
    fn no_name_can_be_taken_for_a_port_a_value_or_an_operation_and_whatever_merely_has_the_same_words_is_named()
     {
        let change = |subject: &str, detail: &str| ChangeLine {
            subject: subject.to_owned(),
            effect: "added".to_owned(),
            details: vec![detail.to_owned()],
        };
        for (first, other) in [
            (
                ("flow 443/a", "hmi to plc by tcp/443"),
                ("flow 22/a", "hmi to plc by tcp/22"),
            ),
            (("flow 15/a", "values 0-15"), ("flow 65535/a", "values 0-65535")),
            (
                ("flow read-holding/a", "read-holding-registers"),
                ("flow write-multiple/a", "write-multiple-registers"),
            ),
            (("flow fc3/a", "function fc30"), ("flow fc4/a", "function fc40")),
        ] {
            let (first, other) = (change(first.0, first.1), change(other.0, other.1));
            let mut alike = Alike {
                first: &first,
                others: Vec::new(),
            };
            assert!(!alike.take(&other), "{other:?}");
        }
        let all: Vec<ChangeLine> = (0..9)
            .map(|number| {
                change(
                    &format!("flow {}/x", ["a", "b", "c"][number % 3].repeat(number + 1)),
                    "to every pump",
                )
            })
            .collect();
        let mut alike = Alike {
            first: &all[0],
            others: Vec::new(),
        };
        let taken = all[1..].iter().filter(|change| alike.take(change)).count();
        assert_eq!(taken, ALIKE_NAMED, "the others are shown by themselves");
    }

    #[test]
    fn of_gateways_that_get_no_plan_any_more_it_is_said_that_they_go_on_by_their_last_one() {
        let with = |plans: &[&str]| {
            let gateways = plans.iter().enumerate().map(|(number, plan)| GatewayTouch {
                gateway: format!("gw-{number}"),
                plan: (*plan).to_owned(),
            });
            let none = || ZonePairs {
                pairs: Vec::new(),
                further: 0,
                unexamined_zones: 0,
            };
            let changes = Changes {
                may_widen: false,
                changes: Vec::new(),
                gateways: gateways.collect(),
                opened: none(),
                closed: none(),
                must_flows: Vec::new(),
                findings: FindingsCompared {
                    new: Vec::new(),
                    gone: Vec::new(),
                    known: 0,
                },
            };
            let mut page = Page::new(crate::output::Style {
                color: false,
                width: 200,
                wrap: true,
            });
            changes.page(&mut page);
            page.finish()
        };
        let one = with(&["removed", "changed"]);
        assert!(
            one.contains(
                "▲ gw-0 gets no plan any more, and goes on by its last one until it is taken out: what this says closes there stays \
                 open until then"
            ),
            "{one}"
        );
        assert!(with(&["removed", "removed"]).contains("gw-0, gw-1 get no plan"));
        assert!(with(&["removed"; 40]).contains("40 gateways get no plan"));
        assert!(!with(&["added", "changed"]).contains("no plan"));
    }
}
