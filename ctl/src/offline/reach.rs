//! `reach`: by which conduits, and with which operations at most, one zone can act on another.

use std::collections::BTreeSet;

use penstock_policy::ids::ZoneId;
use penstock_policy::model::Plant;
use penstock_policy::plan::opened_by;
use penstock_policy::protocol::Operations;
use penstock_policy::reach::{self, Permit, Reach, Steps};
use penstock_policy::words::transport_words;
use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, Page, Report, Tone};
use crate::{args, loading};

/// Who can act on whom.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reaches {
    /// Each ordered pair of zones that was asked for and of which one can act on the other.
    pub reaches: Vec<ReachLine>,
    /// So many more pairs there are: too many to be answered at once.
    pub further_pairs: usize,
}

/// How one zone can act on another.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReachLine {
    /// Who acts.
    pub from: String,
    /// On whom.
    pub to: String,
    /// Paths that enter no zone twice, shortest first.
    pub paths: Vec<Vec<StepLine>>,
    /// Whether these are all. If not, each zone from which the target is entered still has the shortest path by it here.
    pub complete: bool,
    /// Zones on none of these paths, through which those that are not here may lead.
    pub also_through: Vec<String>,
}

/// One step from zone to zone.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StepLine {
    /// Where it starts.
    pub from: String,
    /// Where it ends.
    pub to: String,
    /// What permits it.
    pub ways: Vec<WayLine>,
}

/// What permits a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WayLine {
    /// `conduit/flow`; absent where both zones only observe, so that anything passes.
    pub flow: Option<String>,
    /// The gateway between zones that both only observe.
    pub observed_at: Option<String>,
    /// Who may open it.
    pub sources: Vec<String>,
    /// To whom.
    pub destinations: Vec<String>,
    /// `tcp/502`.
    pub transport: Option<String>,
    /// The operations it is limited to; absent if it is not limited.
    pub operations: Option<Vec<String>>,
    /// The gateway itself carries these messages, one way; no connection passes.
    pub bridged: bool,
    /// What opens its conduit, if it does not stand open: the grants of remote access.
    pub granted: Option<String>,
    /// The conduit, if no gateway of the plant enforces it: anything counts as possible then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unenforced: Option<String>,
    /// Who enforces that conduit; absent if nobody does yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced_by: Option<String>,
    /// Frames other than IP that bridged gateways let pass (with `flow`, their name); absent where it is about connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<String>,
}

impl From<Permit> for WayLine {
    fn from(way: Permit) -> Self {
        match way {
            Permit::Flow {
                conduit,
                flow,
                sources,
                destinations,
                transport,
                operations,
                bridged,
                granted,
            } => Self {
                flow: Some(format!("{conduit}/{flow}")),
                observed_at: None,
                sources,
                destinations,
                transport: Some(transport_words(&transport)),
                operations: operations.as_ref().map(Operations::phrases),
                bridged,
                granted: granted.map(|grants| opened_by(&grants)),
                unenforced: None,
                enforced_by: None,
                frames: None,
            },
            Permit::Frames {
                conduit,
                flow,
                frames,
            } => Self {
                flow: Some(format!("{conduit}/{flow}")),
                frames: Some(frames.to_string()),
                ..Self::default()
            },
            Permit::Observed { gateway } => Self {
                observed_at: Some(gateway.to_string()),
                ..Self::default()
            },
            Permit::Elsewhere { conduit, by } => Self {
                unenforced: Some(conduit.to_string()),
                enforced_by: by,
                ..Self::default()
            },
        }
    }
}

impl From<Reach> for ReachLine {
    fn from(reach: Reach) -> Self {
        let step = |step: reach::Step| StepLine {
            from: step.from.to_string(),
            to: step.to.to_string(),
            ways: step.ways.into_iter().map(WayLine::from).collect(),
        };
        Self {
            from: reach.from.to_string(),
            to: reach.to.to_string(),
            paths: reach
                .paths
                .into_iter()
                .map(|path| path.into_iter().map(step).collect())
                .collect(),
            complete: reach.not_shown.is_none(),
            also_through: reach
                .not_shown
                .into_iter()
                .flat_map(|not_shown| not_shown.through)
                .map(|zone| zone.to_string())
                .collect(),
        }
    }
}

impl Report for Reaches {
    const SCHEMA: &'static str = "penstock.reach/1";
    fn page(&self, page: &mut Page) {
        if self.reaches.is_empty() {
            page.line(
                "no zone that was asked for can open anything towards another, by any path of conduits",
            );
            return;
        }
        for reach in &self.reaches {
            reach.page(page);
        }
        page.gap();
        if self.further_pairs > 0 {
            let words = format!(
                "▲ {} further pairs of zones are not shown. `--from` and `--to` choose which are.",
                self.further_pairs
            );
            page.paragraph(0, Tone::Warn, &words);
        }
        let complete = self.reaches.iter().all(|reach| reach.complete);
        let shown = match complete {
            true => "Shown is every path that enters no zone twice.",
            false => "Shown are paths that enter no zone twice, where no ▲ says otherwise all of them.",
        };
        page.paragraph(
            0,
            Tone::Dim,
            &format!(
                "{shown} Whoever holds one asset of a zone is taken to hold the whole zone. What no gateway stands between is \
                 not known here."
            ),
        );
    }
}

impl ReachLine {
    /// The paths first, then what permits each of their steps: many paths share one.
    fn page(&self, page: &mut Page) {
        page.gap();
        let (from, to) = (
            page.paint(Tone::Strong, &self.from),
            page.paint(Tone::Strong, &self.to),
        );
        page.line(format!("{from} can act on {to}"));
        for path in &self.paths {
            let mut zones = vec![self.from.as_str()];
            zones.extend(path.iter().map(|step| step.to.as_str()));
            let by = page.paint(Tone::Name, &zones.join(" → "));
            page.line(format!("  {by}"));
        }
        if !self.complete {
            let through = match self.also_through.as_slice() {
                [] => String::new(),
                zones => format!(" They may also lead through {}.", zones.join(", ")),
            };
            let words = format!(
                "▲ not all paths: the shortest ones, with one by each zone from which {} is entered. Others are longer, or as \
                 long.{through} `--paths` shows more.",
                self.to
            );
            page.paragraph(2, Tone::Warn, &words);
        }
        let mut told = BTreeSet::new();
        for step in self.paths.iter().flatten() {
            if told.insert((&step.from, &step.to)) {
                page.line(format!("    {} → {}", step.from, step.to));
                for way in &step.ways {
                    way.page(page);
                }
            }
        }
    }
}

impl WayLine {
    /// Writes it for people.
    pub(super) fn page(&self, page: &mut Page) {
        if let Some(conduit) = &self.unenforced {
            let words = match &self.enforced_by {
                None => format!("▲ anything: nobody enforces the conduit {conduit} yet"),
                Some(by) => {
                    format!("▲ what {by} lets pass: no gateway of the plant enforces the conduit {conduit}")
                }
            };
            let words = page.paint(Tone::Warn, &words);
            page.line(format!("      {words}"));
            return;
        }
        let Some(flow) = &self.flow else {
            let gateway = self.observed_at.clone().unwrap_or_default();
            let words = format!("▲ anything: both zones only observe at {gateway}");
            let words = page.paint(Tone::Warn, &words);
            page.line(format!("      {words}"));
            return;
        };
        let ends = format!("{} → {}", self.sources.join(", "), self.destinations.join(", "));
        let transport = self.transport.clone().unwrap_or_default();
        let (flow, ends) = (
            page.paint(Tone::Plain, flow),
            page.paint(Tone::Dim, &format!("{ends}, {transport}")),
        );
        page.line(format!("      {flow}  {ends}"));
        if let Some(granted) = &self.granted {
            page.paragraph(8, Tone::Plain, &format!("only during {granted}"));
        }
        match &self.operations {
            None => page.paragraph(8, Tone::Warn, "▲ anything that the service can do"),
            Some(operations) => {
                if self.bridged {
                    page.paragraph(
                        8,
                        Tone::Dim,
                        "carried by the gateway one way, nothing comes back:",
                    );
                }
                for operation in operations {
                    page.paragraph(8, Tone::Plain, &format!("· {operation}"));
                }
            }
        }
    }
}

/// `penstock reach`.
pub(crate) fn reach(out: &Output, args: &args::Reach) -> Result<Exit, Failure> {
    let loaded = loading::load(&args.path, out)?;
    let from = args
        .from
        .as_deref()
        .map(|name| zone(&loaded.plant, name))
        .transpose()?;
    let to = args
        .to
        .as_deref()
        .map(|name| zone(&loaded.plant, name))
        .transpose()?;
    let found = Steps::of(&loaded.plant).all(from.as_ref(), to.as_ref(), args.paths);
    out.show(&Reaches {
        reaches: found.reaches.into_iter().map(ReachLine::from).collect(),
        further_pairs: found.further_pairs,
    })?;
    Ok(Exit::Done)
}

fn zone(plant: &Plant, name: &str) -> Result<ZoneId, Failure> {
    ZoneId::new(name)
        .ok()
        .filter(|id| plant.zones.contains_key(id))
        .ok_or_else(|| {
            let known: Vec<_> = plant.zones.keys().map(ToString::to_string).collect();
            Failure::usage(format!("the document knows no zone `{name}`"))
                .help(format!("it knows: {}", known.join(", ")))
        })
}
