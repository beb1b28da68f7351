//! What follows from a change of the plant: zones that can act on others from now on, or no longer; what must flow and is at risk; and
//! what the checker of plans finds now and did not before.

use penstock_policy::check::Finding;
use penstock_policy::preview::{FindingChanges, MustFlowAtRisk, PairChange, PairChanges, Risk};
use schemars::JsonSchema;
use serde::Serialize;

use super::check::FindingLine;
use super::reach::WayLine;
use crate::output::{Page, Tone};
use crate::words;

/// Pairs of zones in one direction.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ZonePairs {
    /// Those from a zone at which a step changed first.
    pub pairs: Vec<ZonePair>,
    /// So many more pairs there are.
    pub further: usize,
    /// From so many zones not every pair was looked for: there would be too much to look at.
    pub unexamined_zones: usize,
}

/// One zone that can act on another where it could not, or the other way round.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ZonePair {
    /// Who acts.
    pub from: String,
    /// On whom.
    pub to: String,
    /// Opened: it could not act at all before. Closed: it no longer can at all. Else: with more, or with less.
    pub entirely: bool,
    /// A shortest path to the change, from zone to zone.
    pub path: Vec<String>,
    /// What permits its last step, and had no equal before, or has none any more.
    pub ways: Vec<WayLine>,
    /// So many more there are.
    pub further_ways: usize,
}

/// Something that must flow, and is at risk.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MustFlowLine {
    /// `conduit/flow`.
    pub flow: String,
    /// `lost`, `narrowed`, `enforced`, `interrupted`, or `not-judged`: whether standing connections go on cannot be told.
    pub risk: String,
    /// At which gateways.
    pub gateways: Vec<String>,
    /// All of it in a sentence.
    pub message: String,
}

/// What the checker of plans finds, apart from what it found before.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FindingsCompared {
    /// Not before.
    pub new: Vec<FindingLine>,
    /// Before, and no longer.
    pub gone: Vec<FindingLine>,
    /// How many were there before and stay.
    pub known: usize,
}

impl From<&PairChanges> for ZonePairs {
    fn from(changes: &PairChanges) -> Self {
        Self {
            pairs: changes.pairs.iter().map(ZonePair::from).collect(),
            further: changes.further,
            unexamined_zones: changes.unexamined,
        }
    }
}

impl From<&PairChange> for ZonePair {
    fn from(pair: &PairChange) -> Self {
        Self {
            from: pair.from.to_string(),
            to: pair.to.to_string(),
            entirely: pair.entirely,
            path: pair.path.iter().map(ToString::to_string).collect(),
            ways: pair.ways.iter().cloned().map(WayLine::from).collect(),
            further_ways: pair.further_ways,
        }
    }
}

impl From<&MustFlowAtRisk> for MustFlowLine {
    fn from(at_risk: &MustFlowAtRisk) -> Self {
        Self {
            flow: format!("{}/{}", at_risk.conduit, at_risk.flow),
            risk: match at_risk.risk {
                Risk::Lost => "lost",
                Risk::Narrowed => "narrowed",
                Risk::Enforced => "enforced",
                Risk::Interrupted => "interrupted",
                Risk::NotJudged => "not-judged",
            }
            .to_owned(),
            gateways: at_risk.gateways.iter().map(ToString::to_string).collect(),
            message: at_risk.to_string(),
        }
    }
}

impl From<&FindingChanges> for FindingsCompared {
    fn from(changes: &FindingChanges) -> Self {
        let lines = |findings: &[Finding]| findings.iter().cloned().map(FindingLine::from).collect();
        Self {
            new: lines(&changes.new),
            gone: lines(&changes.gone),
            known: changes.known.len(),
        }
    }
}

/// Of a page's parts, as many entries as a person reads.
const SHOWN: usize = 12;
/// Zones that a line names before it counts them.
const ZONES_SHOWN: usize = 4;

/// All of it for people: what is at risk first, then what opens and what closes.
pub(super) fn page(
    must_flows: &[MustFlowLine],
    (opened, closed): (&ZonePairs, &ZonePairs),
    findings: &FindingsCompared,
    page: &mut Page,
) {
    at_risk(must_flows, page);
    let verbs = ["can act on", "can do more to"];
    opened.page(page, ("▲", Tone::Warn), verbs, "from now on");
    let verbs = ["can no longer act on", "can do less to"];
    closed.page(page, ("▼", Tone::Good), verbs, "before");
    findings.page(page);
}

fn at_risk(at_risk: &[MustFlowLine], page: &mut Page) {
    if at_risk.is_empty() {
        return;
    }
    page.gap();
    let head = format!("{} that must flow at risk", words::count(at_risk.len(), "flow"));
    let head = page.paint(Tone::Strong, &head);
    page.line(head);
    for line in at_risk.iter().take(SHOWN) {
        let (mark, tone) = match line.risk.as_str() {
            "lost" => ("✗", Tone::Bad),
            _ => ("▲", Tone::Warn),
        };
        page.paragraph(2, tone, &format!("{mark} {}", line.message));
    }
    not_shown(page, at_risk.len().saturating_sub(SHOWN), "flow");
}

fn not_shown(page: &mut Page, count: usize, noun: &str) {
    if count > 0 {
        let words = format!("and {} (--output json shows them)", words::count(count, noun));
        page.paragraph(2, Tone::Plain, &words);
    }
}

/// Pairs that differ only in where they start: one last step opened them.
struct ZoneGroup<'a> {
    first: &'a ZonePair,
    from: Vec<&'a str>,
}

impl ZonePairs {
    fn groups(&self) -> Vec<ZoneGroup<'_>> {
        let mut groups: Vec<ZoneGroup<'_>> = Vec::new();
        let last = |pair: &ZonePair| pair.path.iter().rev().nth(1).cloned();
        for pair in &self.pairs {
            let alike = |group: &&mut ZoneGroup<'_>| {
                let first = group.first;
                (&first.to, first.entirely, first.further_ways)
                    == (&pair.to, pair.entirely, pair.further_ways)
                    && last(first) == last(pair)
                    && first.ways == pair.ways
            };
            match groups.iter_mut().find(alike) {
                Some(group) => group.from.push(&pair.from),
                None => groups.push(ZoneGroup {
                    first: pair,
                    from: vec![&pair.from],
                }),
            }
        }
        groups
    }

    /// `when` says of which of the two plants the flows are that are shown.
    fn page(&self, page: &mut Page, (mark, tone): (&str, Tone), [all, part]: [&str; 2], when: &str) {
        let groups = self.groups();
        for group in groups.iter().take(SHOWN) {
            page.gap();
            let verb = if group.first.entirely { all } else { part };
            group.page(page, (mark, tone), verb, when);
        }
        let beyond = groups
            .iter()
            .skip(SHOWN)
            .map(|group| group.from.len())
            .sum::<usize>();
        let further = beyond + self.further;
        if further > 0 {
            let pairs = match further {
                1 => "1 further pair of zones".to_owned(),
                many => format!("{many} further pairs of zones"),
            };
            page.gap();
            page.paragraph(
                0,
                tone,
                &format!("{mark} {pairs}: one zone {all} the other, or {part} it"),
            );
        }
        if self.unexamined_zones > 0 {
            let zones = words::count(self.unexamined_zones, "zone");
            page.gap();
            page.paragraph(
                0,
                Tone::Warn,
                &format!(
                    "▲ from {zones} not every pair was looked for; `penstock reach --from ZONE` shows them"
                ),
            );
        }
    }
}

impl ZoneGroup<'_> {
    fn page(&self, page: &mut Page, (mark, tone): (&str, Tone), verb: &str, when: &str) {
        let pair = self.first;
        let shown: Vec<&str> = self.from.iter().take(ZONES_SHOWN).copied().collect();
        let who = match (shown.as_slice(), self.from.len() - shown.len()) {
            ([only], 0) => (*only).to_owned(),
            ([firsts @ .., last], 0) => format!("{} and {last}", firsts.join(", ")),
            (_, others) => format!("{} and {}", shown.join(", "), words::count(others, "other zone")),
        };
        let head = page.paint(tone, &format!("{mark} {who} {verb} {}; {when}:", pair.to));
        page.line(head);
        let path = match (self.from.len(), pair.path.as_slice()) {
            (1, [_, _]) => String::new(),
            (1, path) => path.join(" → "),
            (_, [.., last, to]) => format!("the last step: {last} → {to}"),
            _ => String::new(),
        };
        if !path.is_empty() {
            let path = page.paint(Tone::Name, &path);
            page.line(format!("    {path}"));
        }
        pair.ways.iter().for_each(|way| way.page(page));
        if pair.further_ways > 0 {
            let flows = words::count(pair.further_ways, "more flow");
            page.paragraph(6, Tone::Plain, &format!("and {flows}"));
        }
    }
}

impl FindingsCompared {
    /// Those that are new in full, the others in a line.
    pub(super) fn page(&self, page: &mut Page) {
        if !self.new.is_empty() {
            page.gap();
            let head = page.paint(Tone::Strong, &words::count(self.new.len(), "new finding"));
            page.line(head);
            self.new.iter().for_each(|finding| finding.page(page));
        }
        if !self.gone.is_empty() {
            page.gap();
            let head = page.paint(Tone::Strong, "no longer found");
            page.line(head);
            for finding in self.gone.iter().take(SHOWN) {
                let words = format!("− {} {}: {}", finding.severity, finding.code, finding.message);
                page.paragraph(2, Tone::Good, &words);
            }
            not_shown(page, self.gone.len().saturating_sub(SHOWN), "finding");
        }
        if self.known > 0 {
            page.gap();
            let known = words::count(self.known, "known finding");
            page.paragraph(
                0,
                Tone::Dim,
                &format!("{known}, as before: `penstock check` shows them"),
            );
        }
    }
}
