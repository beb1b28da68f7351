//! A conduit as a gate between two rooms: the gateways that guard it, what passes, and how it is looked at.

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::assurance::FlowAssurance;
use penstock_policy::ids::{ConduitId, FlowName};
use penstock_policy::model::{Conduit, Enforcer, Flow, Service};
use penstock_policy::terms::{OnAgentLoss, Transport};
use penstock_policy::words::port_words;

use super::shape::{Align, Area, Block, Line, Shape};
use super::text::{self, Face};
use super::{glyph, room};

/// All cards are equally wide.
pub(super) const WIDTH: f64 = 226.0;
const PADDING: f64 = 11.0;
const LINTEL_H: f64 = 24.0;
/// Most lines of services.
const SERVICE_LINES_MAX: usize = 2;

/// How well the ends of each flow are known.
pub(super) type Known<'a> = BTreeMap<(&'a ConduitId, &'a FlowName), FlowAssurance>;

/// A conduit, and what its card says beside what it declares.
pub(super) struct Card<'a> {
    pub(super) id: &'a ConduitId,
    pub(super) conduit: &'a Conduit,
    /// The style class of the zone that it reaches.
    pub(super) class: &'a str,
    /// It is open only while a grant of remote access lasts.
    pub(super) limited: bool,
    pub(super) known: &'a Known<'a>,
}

impl Card<'_> {
    /// How well the ends of its flows are known, those that are in a plan.
    fn known(&self) -> impl Iterator<Item = FlowAssurance> {
        let flows = self.conduit.flows.keys();
        flows.filter_map(|name| self.known.get(&(self.id, name)).copied())
    }
}

/// Draws a conduit.
pub(super) fn draw(card: &Card<'_>) -> Block {
    let Card {
        id, conduit, class, ..
    } = *card;
    let mut shapes = Vec::new();
    lintel(conduit, &mut shapes);
    let mut y = LINTEL_H + 17.0;
    for line in text::wrap(&conduit.title, WIDTH - 2.0 * PADDING, 12.0, Face::Bold, 2) {
        shapes.push(Shape::Text(Line::new(PADDING, y, 12.0, Face::Bold, "ink", line)));
        y += 15.0;
    }
    if conduit.title != id.as_str() {
        let name = text::fit(id.as_str(), WIDTH - 2.0 * PADDING, 10.0, Face::Regular);
        shapes.push(Shape::Text(Line::new(
            PADDING,
            y,
            10.0,
            Face::Regular,
            "muted",
            name,
        )));
        y += 13.0;
    }
    y = services(conduit, y - 6.0, &mut shapes);
    y = marks(card, y, &mut shapes);
    let h = y + 4.0;
    shapes.insert(0, Shape::area(Area::new(0.0, 0.0, WIDTH, h), 7.0, "card-frame"));
    shapes.insert(
        1,
        Shape::Path {
            d: lintel_path(),
            class: "lintel".to_owned(),
        },
    );
    Block {
        w: WIDTH,
        h,
        class: format!("card {class}"),
        title: tooltip(card),
        shapes,
    }
}

/// The upper part of the card with rounded upper corners.
fn lintel_path() -> String {
    format!(
        "M0 {LINTEL_H}V7Q0 0 7 0H{}Q{WIDTH} 0 {WIDTH} 7V{LINTEL_H}Z",
        WIDTH - 7.0
    )
}

/// Gate and gateways, and the conduit's own target level.
fn lintel(conduit: &Conduit, shapes: &mut Vec<Shape>) {
    let level = conduit
        .sl_target
        .as_ref()
        .map(|target| room::sl_words(Some(target)));
    let level_w = level
        .as_ref()
        .map_or(0.0, |words| text::width(words, 10.0, Face::Bold) + 8.0);
    if conduit.enforced_by.is_gateways() {
        shapes.push(Shape::Glyph {
            x: PADDING - 2.0,
            y: 4.5,
            scale: 0.95,
            d: glyph::GATE,
            class: "gate".to_owned(),
        });
    }
    let names: Vec<&str> = conduit
        .via
        .iter()
        .map(penstock_policy::ids::GatewayId::as_str)
        .collect();
    let names = match &conduit.enforced_by {
        Enforcer::Other(by) => format!("by {by}"),
        Enforcer::Nobody => "nobody enforces it yet".to_owned(),
        Enforcer::Gateways if names.is_empty() => "no gateway guards it".to_owned(),
        Enforcer::Gateways => names.join(", "),
    };
    let names = text::fit(&names, WIDTH - 2.0 * PADDING - 20.0 - level_w, 11.0, Face::Bold);
    shapes.push(Shape::Text(Line::new(
        PADDING + 20.0,
        16.0,
        11.0,
        Face::Bold,
        "on-lintel",
        names,
    )));
    if let Some(words) = level {
        let line = Line::new(WIDTH - PADDING, 16.0, 10.0, Face::Bold, "on-lintel", words);
        shapes.push(Shape::Text(line.aligned(Align::End)));
    }
}

/// Services as tags, in at most [`SERVICE_LINES_MAX`] lines.
fn services(conduit: &Conduit, top: f64, shapes: &mut Vec<Shape>) -> f64 {
    let names: BTreeSet<String> = conduit
        .flows
        .values()
        .flat_map(services_of)
        .map(service_words)
        .collect();
    let names: Vec<String> = names.into_iter().collect();
    let (mut x, mut y, mut line) = (PADDING, top, 1);
    let right = WIDTH - PADDING;
    for (at, name) in names.iter().enumerate() {
        let more = names.len() - at - 1;
        // Room for "+n" stays free in the last line while there is more to come.
        let reserve = if more > 0 && line == SERVICE_LINES_MAX {
            34.0
        } else {
            0.0
        };
        let w = (text::width(name, 10.0, Face::Mono) + 10.0).min(right - PADDING - 34.0);
        if x + w > right - reserve {
            if line == SERVICE_LINES_MAX {
                tag(&format!("+{}", more + 1), x, y, 30.0, shapes);
                break;
            }
            line += 1;
            x = PADDING;
            y += 20.0;
        }
        tag(name, x, y, w, shapes);
        x += w + 4.0;
    }
    y + 22.0
}

fn tag(words: &str, x: f64, y: f64, w: f64, shapes: &mut Vec<Shape>) {
    shapes.push(Shape::area(Area::new(x, y, w, 17.0), 4.0, "tag"));
    let words = text::fit(words, w - 8.0, 10.0, Face::Mono);
    shapes.push(Shape::Text(
        Line::new(x + w / 2.0, y + 12.0, 10.0, Face::Mono, "ink", words).aligned(Align::Middle),
    ));
}

/// Marks that hold for the conduit, each glyph with its word.
fn marks(card: &Card<'_>, top: f64, shapes: &mut Vec<Shape>) -> f64 {
    let Card { conduit, limited, .. } = *card;
    let inspected = conduit
        .flows
        .values()
        .any(|flow| flow.operations.is_some() && !flow.is_bridge());
    let in_plain = conduit.flows.values().any(|flow| flow.plain_port().is_some());
    let ended = conduit
        .flows
        .values()
        .any(|flow| flow.tls.is_some() && !flow.is_bridge());
    let bridged = conduit.flows.values().any(|flow| flow.is_bridge());
    let must = conduit.flows.values().any(|flow| flow.must_flow);
    let mut marks: Vec<(&'static str, &str, &'static str)> = Vec::new();
    if must {
        marks.push((glyph::DROP, "must flow", "mark must"));
    }
    if inspected {
        marks.push((glyph::LENS, "inspected", "mark"));
        // What happens on the loss of the agent matters only where it inspects.
        if conduit.on_agent_loss == OnAgentLoss::Pass {
            marks.push((glyph::OPEN, "fails open", "mark"));
        }
    }
    if ended {
        marks.push((glyph::LOCK, "TLS ends here", "mark"));
    }
    if in_plain {
        marks.push((glyph::OPEN, "last metre in the plain", "mark"));
    }
    if conduit.tunnel {
        marks.push((glyph::TUNNEL, "in a tunnel", "mark"));
    }
    if bridged {
        marks.push((glyph::ONE_WAY, "one way", "mark"));
    }
    if limited {
        marks.push((glyph::CLOCK, "by grant only", "mark"));
    }
    let least = card.known().filter_map(|flow| flow.least).min();
    let least = least.map(|proof| format!("ends known to {}", proof.assurance()));
    if let Some(least) = &least {
        marks.push((glyph::BADGE, least, "mark"));
    }
    let denied = card.known().filter(|flow| flow.denied).count();
    let denied = format!("{denied} of {} denied by identity", conduit.flows.len());
    if card.known().any(|flow| flow.denied) {
        marks.push((glyph::BADGE, &denied, "mark must"));
    }
    if marks.is_empty() {
        return top + 2.0;
    }
    let (mut x, mut y) = (PADDING, top);
    for (d, words, class) in marks {
        let w = 13.0 + text::width(words, 10.0, Face::Regular);
        if x + w > WIDTH - PADDING {
            x = PADDING;
            y += 16.0;
        }
        shapes.push(Shape::Glyph {
            x,
            y: y + 2.0,
            scale: 0.66,
            d,
            class: class.to_owned(),
        });
        shapes.push(Shape::Text(Line::new(
            x + 13.0,
            y + 11.0,
            10.0,
            Face::Regular,
            "muted",
            words,
        )));
        x += w + 8.0;
    }
    y + 18.0
}

/// Its service; of a bridge, those of both brokers.
fn services_of(flow: &Flow) -> impl Iterator<Item = &Service> {
    let source = flow.bridge_source.as_ref().map(|source| &source.service);
    source.into_iter().chain([&flow.service])
}

/// `modbus-tcp 502`, or the transport alone where that is how it was written.
pub(crate) fn service_words(service: &Service) -> String {
    let carried = match &service.transport {
        Transport::Tcp(ranges) => ("tcp", port_words(ranges)),
        Transport::Udp(ranges) => ("udp", port_words(ranges)),
        Transport::IcmpEcho => return service.name.clone(),
    };
    if service.name.starts_with("tcp/") || service.name.starts_with("udp/") {
        format!("{}/{}", carried.0, carried.1)
    } else {
        format!("{} {}", service.name, carried.1)
    }
}

fn tooltip(card: &Card<'_>) -> String {
    let Card { id, conduit, .. } = *card;
    let mut words = format!(
        "Conduit {id}: {}, from {} to {}.",
        conduit.title, conduit.from, conduit.to
    );
    match &conduit.enforced_by {
        Enforcer::Gateways => {}
        Enforcer::Other(by) => words.push_str(&format!(" Enforced by {by}, by no gateway of the plant.")),
        Enforcer::Nobody => words.push_str(" Nobody enforces it yet."),
    }
    if conduit.tunnel {
        words.push_str(" Runs in an encrypted tunnel between its gateways.");
    }
    for (name, flow) in &conduit.flows {
        let mut services: Vec<String> = services_of(flow).map(service_words).collect();
        services.dedup();
        words.push_str(&format!(" {name}: {}", services.join(" to ")));
        if flow.must_flow {
            words.push_str(", must flow");
        }
        if flow.is_bridge() {
            words.push_str(", carried one way by the gateway");
        } else if flow.operations.is_some() {
            words.push_str(", limited to named operations");
        }
        if flow.tls.is_some() && !flow.is_bridge() {
            words.push_str(" inside TLS that ends at the gateway");
        }
        if let Some(port) = flow.plain_port() {
            words.push_str(&format!(", the last metre in the plain to port {port}"));
        }
        if let Some(known) = card.known.get(&(id, name)) {
            if let Some(least) = known.least {
                words.push_str(&format!(", its ends known at least {least}"));
            }
            if known.denied {
                words.push_str(", denied to ends that prove too little");
            }
        }
        words.push('.');
    }
    words
}
