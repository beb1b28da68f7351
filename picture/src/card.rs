//! Conduits as a gate between two boxes: the gateways that guard them, what passes, and how it is looked at. One card is for one conduit, or
//! for all between two boxes of which one is drawn as a card itself.

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::assurance::FlowAssurance;
use penstock_policy::ids::{ConduitId, GatewayId};
use penstock_policy::model::{Conduit, Enforcer, Flow, Service};
use penstock_policy::terms::{OnAgentLoss, Transport};
use penstock_policy::words::port_words;

use super::facts::{Facts, Notice, count, some_names};
use super::marks::{self, Mark};
use super::shape::{Align, Area, Block, Line, Shape};
use super::text::{self, Face};
use super::{notice, room};

/// All cards are equally wide.
pub(super) const WIDTH: f64 = 226.0;
const PADDING: f64 = 11.0;
const LINTEL_H: f64 = 24.0;
/// Most lines of services.
const SERVICE_LINES_MAX: usize = 2;
/// What stays free for "+n" in the last of them.
const REST_W: f64 = 48.0;
/// Most conduits whose flows a tooltip lists.
const TOLD_MAX: usize = 8;
/// Most names of conduits or gateways on a card.
const NAMES_MAX: usize = 3;

/// Conduits, and what is known of them.
pub(super) struct Card<'s, 'a> {
    /// Never empty.
    pub(super) conduits: &'s [(&'a ConduitId, &'a Conduit)],
    /// The style class of the box that they reach.
    pub(super) class: &'static str,
    pub(super) facts: &'s Facts<'a>,
}

impl<'a> Card<'_, 'a> {
    fn flows(&self) -> impl Iterator<Item = &'a Flow> {
        self.conduits
            .iter()
            .flat_map(|(_, conduit)| conduit.flows.values())
    }

    /// How well the ends of a conduit's flows are known, those that are in a plan.
    fn known(&self, id: &'a ConduitId, conduit: &'a Conduit) -> impl Iterator<Item = FlowAssurance> {
        let flows = conduit.flows.keys();
        flows.filter_map(move |name| self.facts.known.get(&(id, name)).copied())
    }

    fn all_known(&self) -> impl Iterator<Item = FlowAssurance> {
        self.conduits
            .iter()
            .flat_map(|(id, conduit)| self.known(id, conduit))
    }

    /// The one conduit, if it is one.
    fn only(&self) -> Option<(&'a ConduitId, &'a Conduit)> {
        match self.conduits {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// What is not as it should be, whoever enforces them aside.
    fn notices(&self) -> Vec<Notice> {
        let found = self.conduits.iter().flat_map(|(id, _)| self.facts.of_conduit(id));
        let mut notices: Vec<Notice> = found.cloned().collect();
        let denied = self.all_known().filter(|flow| flow.denied).count();
        if denied > 0 {
            notices.push(Notice {
                error: false,
                words: format!(
                    "{denied} of {} denied by identity",
                    count(self.flows().count(), "flow")
                ),
                sentence: "their ends prove too little".to_owned(),
            });
        }
        notices
    }
}

/// Draws the card.
pub(super) fn draw(card: &Card<'_, '_>) -> Block {
    let mut shapes = Vec::new();
    let lintel = lintel(card, &mut shapes);
    let (title, names) = match card.only() {
        Some((id, conduit)) if conduit.title == id.as_str() => (conduit.title.clone(), None),
        Some((id, conduit)) => (conduit.title.clone(), Some(id.to_string())),
        None => {
            let flows = count(card.flows().count(), "flow");
            let title = format!("{}, {flows}", count(card.conduits.len(), "conduit"));
            let names = some_names(card.conduits.iter().map(|(id, _)| id), NAMES_MAX);
            (title, Some(names))
        }
    };
    let mut y = LINTEL_H + 17.0;
    for line in text::wrap(&title, WIDTH - 2.0 * PADDING, 12.0, Face::Bold, 2) {
        shapes.push(Shape::Text(Line::new(PADDING, y, 12.0, Face::Bold, "ink", line)));
        y += 15.0;
    }
    for line in names
        .iter()
        .flat_map(|names| text::wrap(names, WIDTH - 2.0 * PADDING, 10.0, Face::Regular, 2))
    {
        shapes.push(Shape::Text(Line::new(
            PADDING,
            y,
            10.0,
            Face::Regular,
            "muted",
            line,
        )));
        y += 13.0;
    }
    y = services(card, y - 6.0, &mut shapes);
    y = signs(card, y, &mut shapes);
    let notices = card.notices();
    if let Some((error, words)) = notice::summary(&notices) {
        notice::draw((error, &words), PADDING, y, WIDTH - 2.0 * PADDING, &mut shapes);
        y += 18.0;
    }
    let h = y + 4.0;
    shapes.insert(0, Shape::area(Area::new(0.0, 0.0, WIDTH, h), 7.0, "card-frame"));
    shapes.insert(
        1,
        Shape::Path {
            d: lintel_path(),
            class: lintel.to_owned(),
        },
    );
    Block {
        w: WIDTH,
        h,
        class: format!("card {}", card.class),
        title: tooltip(card, &notices),
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

/// Gate and gateways, and the conduits' own target level; the lintel's style class.
fn lintel(card: &Card<'_, '_>, shapes: &mut Vec<Shape>) -> &'static str {
    let mut levels: Vec<_> = card
        .conduits
        .iter()
        .map(|(_, conduit)| &conduit.sl_target)
        .collect();
    levels.dedup();
    let level = match levels.as_slice() {
        [Some(target)] => Some(room::sl_words(Some(target))),
        _ => None,
    };
    let level_w = level
        .as_ref()
        .map_or(0.0, |words| text::width(words, 10.0, Face::Bold) + 8.0);
    let (words, abnormal) = enforcers(card);
    let (mark, class) = if abnormal {
        (&marks::WARN, "lintel warn-fill m-warn")
    } else {
        (&marks::GATE, "lintel")
    };
    let guarded = card
        .conduits
        .iter()
        .any(|(_, conduit)| conduit.enforced_by.is_gateways());
    if abnormal || guarded {
        shapes.push(Shape::Glyph {
            x: PADDING - 2.0,
            y: 4.5,
            scale: 0.95,
            d: mark.d(),
            class: format!("gate {}", mark.class),
        });
    }
    let names = text::fit(&words, WIDTH - 2.0 * PADDING - 20.0 - level_w, 11.0, Face::Bold);
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
    class
}

/// Who lets only what is declared pass, in words, and whether nobody does.
fn enforcers(card: &Card<'_, '_>) -> (String, bool) {
    let all = card.conduits.len();
    let of = |n: usize, one: &str, many: &str| match all {
        1 => one.to_owned(),
        _ => format!("{many} {n} of {all}"),
    };
    let enforcers = card
        .conduits
        .iter()
        .map(|(_, conduit)| (&conduit.enforced_by, &conduit.via));
    let nobody = enforcers
        .clone()
        .filter(|(by, _)| **by == Enforcer::Nobody)
        .count();
    let bare = enforcers
        .clone()
        .filter(|(by, via)| by.is_gateways() && via.is_empty())
        .count();
    if nobody > 0 {
        return (of(nobody, "nobody enforces it yet", "nobody enforces"), true);
    }
    if bare > 0 {
        return (of(bare, "no gateway guards it", "no gateway guards"), true);
    }
    let via: BTreeSet<&GatewayId> = enforcers.clone().flat_map(|(_, via)| via).collect();
    let mut names: Vec<String> = match via.len() {
        0 => Vec::new(),
        1..=NAMES_MAX => via.iter().map(ToString::to_string).collect(),
        many => vec![format!("{many} gateways")],
    };
    let others: BTreeSet<&str> = enforcers
        .filter_map(|(by, _)| match by {
            Enforcer::Other(by) => Some(by.as_str()),
            Enforcer::Gateways | Enforcer::Nobody => None,
        })
        .collect();
    names.extend(others.into_iter().map(|by| format!("by {by}")));
    (names.join(", "), false)
}

/// Services as tags, in at most [`SERVICE_LINES_MAX`] lines.
fn services(card: &Card<'_, '_>, top: f64, shapes: &mut Vec<Shape>) -> f64 {
    let frames = card
        .conduits
        .iter()
        .flat_map(|(_, conduit)| conduit.frames.values());
    let names: BTreeSet<String> = card
        .flows()
        .flat_map(services_of)
        .map(service_words)
        .chain(frames.map(|flow| flow.frames.ether_type.word()))
        .collect();
    let names: Vec<String> = names.into_iter().collect();
    let (mut x, mut y, mut line) = (PADDING, top, 1);
    let right = WIDTH - PADDING;
    for (at, name) in names.iter().enumerate() {
        let more = names.len() - at - 1;
        // Room for "+n" stays free in the last line while there is more to come.
        let reserve = if more > 0 && line == SERVICE_LINES_MAX {
            REST_W
        } else {
            0.0
        };
        let w = (text::width(name, 10.0, Face::Mono) + 10.0).min(right - PADDING - REST_W);
        if x + w > right - reserve {
            if line == SERVICE_LINES_MAX {
                let rest = format!("+{}", more + 1);
                let w = text::width(&rest, 10.0, Face::Mono) + 10.0;
                tag(&rest, x, y, w.min(REST_W - 2.0), shapes);
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
    let class = format!("tag {}", marks::SERVICE.class);
    shapes.push(Shape::area(Area::new(x, y, w, 17.0), 4.0, class));
    let words = text::fit(words, w - 8.0, 10.0, Face::Mono);
    shapes.push(Shape::Text(
        Line::new(x + w / 2.0, y + 12.0, 10.0, Face::Mono, "ink", words).aligned(Align::Middle),
    ));
}

/// What holds for the conduits, each sign with its words; where it does not hold for all, with their number.
fn signs(card: &Card<'_, '_>, top: f64, shapes: &mut Vec<Shape>) -> f64 {
    let all = card.conduits.len();
    let mut signs: Vec<(&Mark, String)> = Vec::new();
    let mut add = |mark: &'static Mark, words: &str, holds: &dyn Fn(&ConduitId, &Conduit) -> bool| {
        let n = card
            .conduits
            .iter()
            .filter(|(id, conduit)| holds(id, conduit))
            .count();
        match n {
            0 => {}
            n if n == all => signs.push((mark, words.to_owned())),
            n => signs.push((mark, format!("{words}: {n}"))),
        }
    };
    let inspected: fn(&Flow) -> bool = |flow| flow.operations.is_some() && !flow.is_bridge();
    let facts = card.facts;
    add(&marks::ONLY_OBSERVED, "only observed", &|_, conduit| {
        conduit.enforced_by.is_gateways() && facts.plant.only_observes(conduit)
    });
    add(&marks::MUST, "must flow", &|_, conduit| {
        some(conduit, |flow| flow.must_flow)
    });
    add(&marks::LENS, "inspected", &|_, conduit| some(conduit, inspected));
    // What happens on the loss of the agent matters only where it inspects.
    add(&marks::FAILS_OPEN, "fails open", &|_, conduit| {
        some(conduit, inspected) && conduit.on_agent_loss == OnAgentLoss::Pass
    });
    add(&marks::LOCK, "TLS ends here", &|_, conduit| {
        some(conduit, |flow| flow.tls.is_some() && !flow.is_bridge())
    });
    add(&marks::PLAIN, "last metre in the plain", &|_, conduit| {
        some(conduit, |flow| flow.plain_port().is_some())
    });
    add(&marks::TUNNEL, "in a tunnel", &|_, conduit| conduit.tunnel);
    add(&marks::ONE_WAY, "one way", &|_, conduit| {
        some(conduit, Flow::is_bridge)
    });
    add(&marks::CLOCK, "by grant only", &|id, _| {
        card.facts.limited.contains(id)
    });
    if let Some(least) = card.all_known().filter_map(|flow| flow.least).min() {
        signs.push((&marks::BADGE, format!("ends known to {}", least.assurance())));
    }
    if signs.is_empty() {
        return top + 2.0;
    }
    let (mut x, mut y) = (PADDING, top);
    for (mark, words) in signs {
        let w = 13.0 + text::width(&words, 10.0, Face::Regular);
        if x > PADDING && x + w > WIDTH - PADDING {
            x = PADDING;
            y += 16.0;
        }
        shapes.push(Shape::Glyph {
            x,
            y: y + 2.0,
            scale: 0.66,
            d: mark.d(),
            class: format!("mark {}", mark.class),
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

fn some(conduit: &Conduit, holds: fn(&Flow) -> bool) -> bool {
    conduit.flows.values().any(holds)
}

/// Its service; of a bridge, those of both brokers.
fn services_of(flow: &Flow) -> impl Iterator<Item = &Service> {
    let source = flow.bridge_source.as_ref().map(|source| &source.service);
    source.into_iter().chain([&flow.service])
}

/// `modbus-tcp 502`, or the transport alone where that is how it was written.
fn service_words(service: &Service) -> String {
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

/// Conduits in words, for those who cannot see the picture.
pub(super) fn in_words(conduits: &[(&ConduitId, &Conduit)]) -> String {
    let ways = match conduits {
        [(id, conduit)] => format!("Conduit {id} leads from {} to {}", conduit.from, conduit.to),
        [(id, conduit), ..] => format!(
            "{} conduits, the first is {id} from {} to {}",
            conduits.len(),
            conduit.from,
            conduit.to
        ),
        [] => return String::new(),
    };
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for (_, conduit) in conduits {
        let words = match &conduit.enforced_by {
            Enforcer::Gateways if conduit.tunnel => "in a tunnel".to_owned(),
            Enforcer::Gateways => continue,
            Enforcer::Other(by) => format!("enforced by {by} and by no gateway"),
            Enforcer::Nobody => "enforced by nobody yet".to_owned(),
        };
        *times.entry(words).or_default() += 1;
    }
    let mut said = ways;
    for (words, times) in times {
        let times = if conduits.len() == 1 {
            String::new()
        } else {
            format!("{times} ")
        };
        said.push_str(&format!(", {times}{words}"));
    }
    said.push('.');
    said
}

fn tooltip(card: &Card<'_, '_>, notices: &[Notice]) -> String {
    let mut words = match card.conduits {
        [_] => String::new(),
        several => format!("{} conduits. ", several.len()),
    };
    for (id, conduit) in card.conduits.iter().take(TOLD_MAX) {
        one(card, id, conduit, &mut words);
    }
    match card.conduits.len().saturating_sub(TOLD_MAX) {
        0 => {}
        more => words.push_str(&format!(" And {more} more.")),
    }
    words.push_str(&notice::sentences(notices));
    words
}

/// One conduit in words.
fn one<'a>(card: &Card<'_, 'a>, id: &'a ConduitId, conduit: &'a Conduit, words: &mut String) {
    let gap = if words.is_empty() || words.ends_with(' ') {
        ""
    } else {
        " "
    };
    words.push_str(&format!(
        "{gap}Conduit {id}: {}, from {} to {}.",
        conduit.title, conduit.from, conduit.to
    ));
    match &conduit.enforced_by {
        Enforcer::Gateways => {}
        Enforcer::Other(by) => words.push_str(&format!(" Enforced by {by}, by no gateway of the plant.")),
        Enforcer::Nobody => words.push_str(" Nobody enforces it yet."),
    }
    if conduit.enforced_by.is_gateways() && card.facts.plant.only_observes(conduit) {
        words.push_str(" Only observed: what is not permitted passes all the same, and is recorded.");
    }
    if conduit.tunnel {
        words.push_str(" Runs in an encrypted tunnel between its gateways.");
    }
    for (name, flow) in &conduit.frames {
        words.push_str(&format!(" {name}: frames from {flow}."));
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
        if let Some(known) = card.facts.known.get(&(id, name)) {
            if let Some(least) = known.least {
                words.push_str(&format!(", its ends known at least {least}"));
            }
            if known.denied {
                words.push_str(", denied to ends that prove too little");
            }
        }
        words.push('.');
    }
}
