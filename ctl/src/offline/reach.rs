//! `reach`: by which conduits, and with which operations at most, one zone can act on another.

use penstock_policy::ids::ZoneId;
use penstock_policy::model::{Operations, Plant};
use penstock_policy::plan::{PortRange, Transport};
use penstock_policy::reach::{self, Reach, Way};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading;
use crate::output::{Output, Page, Report, Tone};

/// Who can act on whom.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reaches {
    /// Each ordered pair of zones that was asked for and of which one can act on the other.
    pub reaches: Vec<ReachLine>,
}

/// How one zone can act on another.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReachLine {
    /// Who acts.
    pub from: String,
    /// On whom.
    pub to: String,
    /// The shortest path by each way in; shortest first.
    pub paths: Vec<Vec<StepLine>>,
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
#[derive(Debug, Serialize, JsonSchema)]
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
}

/// `tcp/502,1000-1010`.
pub(crate) fn transport_words(transport: &Transport) -> String {
    let ports = |ports: &[PortRange]| {
        let each = |r: &PortRange| {
            if r.first == r.last {
                r.first.to_string()
            } else {
                format!("{}-{}", r.first, r.last)
            }
        };
        ports.iter().map(each).collect::<Vec<_>>().join(",")
    };
    match transport {
        Transport::Tcp(ranges) => format!("tcp/{}", ports(ranges)),
        Transport::Udp(ranges) => format!("udp/{}", ports(ranges)),
        Transport::IcmpEcho => "icmp-echo".to_owned(),
    }
}

impl From<Way> for WayLine {
    fn from(way: Way) -> Self {
        match way {
            Way::Flow {
                conduit,
                flow,
                sources,
                destinations,
                transport,
                operations,
                bridged,
            } => Self {
                flow: Some(format!("{conduit}/{flow}")),
                observed_at: None,
                sources,
                destinations,
                transport: Some(transport_words(&transport)),
                operations: operations.as_ref().map(Operations::phrases),
                bridged,
            },
            Way::Observed { gateway } => Self {
                flow: None,
                observed_at: Some(gateway.to_string()),
                sources: Vec::new(),
                destinations: Vec::new(),
                transport: None,
                operations: None,
                bridged: false,
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
            page.gap();
            let (from, to) = (
                page.paint(Tone::Strong, &reach.from),
                page.paint(Tone::Strong, &reach.to),
            );
            page.line(format!("{from} can act on {to}"));
            for path in &reach.paths {
                let mut zones = vec![reach.from.as_str()];
                zones.extend(path.iter().map(|step| step.to.as_str()));
                let by = page.paint(Tone::Name, &zones.join(" → "));
                page.line(format!("  {by}"));
                for step in path {
                    for way in &step.ways {
                        way.page(page);
                    }
                }
            }
        }
        page.gap();
        page.paragraph(
            0,
            Tone::Dim,
            "Whoever holds one asset of a zone is taken to hold the whole zone. What no gateway stands between is not \
             known here.",
        );
    }
}

impl WayLine {
    fn page(&self, page: &mut Page) {
        let Some(flow) = &self.flow else {
            let gateway = self.observed_at.clone().unwrap_or_default();
            let words = format!("▲ anything: both zones only observe at {gateway}");
            let words = page.paint(Tone::Warn, &words);
            page.line(format!("    {words}"));
            return;
        };
        let ends = format!("{} → {}", self.sources.join(", "), self.destinations.join(", "));
        let transport = self.transport.clone().unwrap_or_default();
        let (flow, ends) = (
            page.paint(Tone::Plain, flow),
            page.paint(Tone::Dim, &format!("{ends}, {transport}")),
        );
        page.line(format!("    {flow}  {ends}"));
        match &self.operations {
            None => page.paragraph(6, Tone::Warn, "▲ anything that the service can do"),
            Some(operations) => {
                if self.bridged {
                    page.paragraph(
                        6,
                        Tone::Dim,
                        "carried by the gateway one way, nothing comes back:",
                    );
                }
                for operation in operations {
                    page.paragraph(6, Tone::Plain, &format!("· {operation}"));
                }
            }
        }
    }
}

/// `penstock reach`.
pub fn reach(out: &Output, args: &args::Reach) -> Result<Exit, Failure> {
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
    let reaches = reach::reach_all(&loaded.plant)
        .into_iter()
        .filter(|reach| from.as_ref().is_none_or(|from| reach.from == *from))
        .filter(|reach| to.as_ref().is_none_or(|to| reach.to == *to));
    out.show(&Reaches {
        reaches: reaches.map(ReachLine::from).collect(),
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
