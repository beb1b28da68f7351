//! Every mark that a picture can bear, and what it means. Whatever is drawn as a sign has the class of its mark; the legend lists the
//! marks whose classes occur, so it names all of them and no other.

use super::glyph;

/// How a mark is drawn in the legend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// A glyph, with these style classes.
    Glyph(&'static str, &'static str),
    /// A zone's frame.
    Frame,
    /// The frame of a zone that observes.
    Dashed,
    /// A wire with its head.
    Arrow,
    /// A wire that ends in a dot.
    Dot,
    /// A thick wire.
    Thick,
    /// A wire in a tube.
    Tube,
    /// The frame of an asset.
    Chip,
    /// Bars of levels.
    Bars,
    /// A service.
    Tag,
    /// Cards behind one another.
    Stack,
}

/// A mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Style class of all that bears it.
    pub(super) class: &'static str,
    /// What it means.
    pub(super) words: &'static str,
    /// How the legend draws it.
    pub(super) sign: Sign,
}

impl Mark {
    const fn new(class: &'static str, words: &'static str, sign: Sign) -> Self {
        Self { class, words, sign }
    }

    const fn glyph(class: &'static str, d: &'static str, words: &'static str) -> Self {
        Self::new(class, words, Sign::Glyph(d, "glyph"))
    }

    /// Its glyph's path; empty where it is no glyph.
    pub(super) fn d(&self) -> &'static str {
        match self.sign {
            Sign::Glyph(d, _) => d,
            _ => "",
        }
    }
}

pub(super) const GATE: Mark = Mark::glyph("m-gate", glyph::GATE, "gate: the gateway that guards a conduit");
pub(super) const SITE: Mark = Mark::glyph("m-site", glyph::SITE, "site");
pub(super) const STACK: Mark = Mark::new("m-stack", "equal ones, drawn once: × says how many", Sign::Stack);
pub(super) const ENFORCED: Mark = Mark::new("m-enforced", "zone is enforced", Sign::Frame);
pub(super) const OBSERVED: Mark = Mark::new(
    "m-observed",
    "zone only observes: undeclared traffic passes between such zones",
    Sign::Dashed,
);
pub(super) const OPENS: Mark = Mark::new("m-opens", "opens connections to", Sign::Arrow);
pub(super) const BEGINS: Mark = Mark::new("m-begins", "connections only begin at this end", Sign::Dot);
pub(super) const THICK: Mark = Mark::new("m-thick", "a flow that the process needs runs here", Sign::Thick);
pub(super) const TUBE: Mark = Mark::new(
    "m-tube",
    "runs in an encrypted tunnel between two gateways",
    Sign::Tube,
);
pub(super) const SERVICE: Mark = Mark::new("m-service", "service and port that may pass", Sign::Tag);
pub(super) const MUST: Mark = Mark::glyph("m-must", glyph::DROP, "must flow: the process needs it");
pub(super) const ONLY_OBSERVED: Mark = Mark::glyph(
    "m-only-observed",
    glyph::EYE,
    "only observed: what is not permitted passes all the same, and is recorded",
);
pub(super) const LENS: Mark = Mark::glyph("m-lens", glyph::LENS, "inspected: only named operations pass");
pub(super) const FAILS_OPEN: Mark = Mark::glyph(
    "m-fails-open",
    glyph::OPEN,
    "fails open: passes while no agent lives",
);
pub(super) const LOCK: Mark = Mark::glyph(
    "m-lock",
    glyph::LOCK,
    "the client's TLS ends here, at the gateway",
);
pub(super) const PLAIN: Mark = Mark::glyph(
    "m-plain",
    glyph::UNLOCKED,
    "last metre in the plain: the server speaks no TLS",
);
pub(super) const TUNNEL: Mark = Mark::glyph("m-tunnel", glyph::TUNNEL, "in a tunnel between two gateways");
pub(super) const ONE_WAY: Mark = Mark::glyph(
    "m-one-way",
    glyph::ONE_WAY,
    "one way: the gateway carries messages, and nothing comes back",
);
pub(super) const CLOCK: Mark = Mark::glyph(
    "m-clock",
    glyph::CLOCK,
    "by grant only: open while a grant of remote access lasts",
);
pub(super) const BADGE: Mark = Mark::glyph(
    "m-badge",
    glyph::BADGE,
    "how well both ends prove who they are: D0 by address, D1 by MAC or port, D3 and D4 by certificate",
);
pub(super) const CRITICAL: Mark = Mark::new("m-critical", "critical asset", Sign::Chip);
pub(super) const LEVEL: Mark = Mark::new(
    "m-level",
    "security level target, IAC UC SI DC RDF TRE RA",
    Sign::Bars,
);
pub(super) const WARN: Mark = Mark::new(
    "m-warn",
    "needs attention: the words beside it say why",
    Sign::Glyph(glyph::WARN, "mark warn-line"),
);
pub(super) const ALARM: Mark = Mark::new(
    "m-alarm",
    "an error of `penstock check`: do not release this",
    Sign::Glyph(glyph::ALARM, "mark alarm-line"),
);

const SHIELD: Mark = Mark::glyph("m-shield", glyph::SHIELD, "safety system");
const SCREEN: Mark = Mark::glyph("m-screen", glyph::SCREEN, "HMI, SCADA");
const DRUM: Mark = Mark::glyph("m-drum", glyph::DRUM, "historian, database");
const LAPTOP: Mark = Mark::glyph("m-laptop", glyph::LAPTOP, "workstation, client");
const RACK: Mark = Mark::glyph("m-rack", glyph::RACK, "controller");
const RELAY: Mark = Mark::glyph("m-relay", glyph::RELAY, "RTU, protection relay");
const GAUGE: Mark = Mark::glyph("m-gauge", glyph::GAUGE, "sensor, meter");
const MOTOR: Mark = Mark::glyph("m-motor", glyph::MOTOR, "drive, pump, fan");
const VALVE: Mark = Mark::glyph("m-valve", glyph::VALVE, "valve, actuator");
const ARM: Mark = Mark::glyph("m-arm", glyph::ARM, "robot, machine");
const NODE: Mark = Mark::glyph("m-node", glyph::NODE, "network device");
const CAMERA: Mark = Mark::glyph("m-camera", glyph::CAMERA, "camera");
const SERVER: Mark = Mark::glyph("m-server", glyph::SERVER, "server, broker");
const CLOUD: Mark = Mark::glyph("m-cloud", glyph::CLOUD, "outside service");
const CHIP: Mark = Mark::glyph("m-chip", glyph::CHIP, "other asset");

/// Every mark, in the order of the legend: what is not as it should be comes first.
pub(super) const ALL: [&Mark; 39] = [
    &ALARM,
    &WARN,
    &OBSERVED,
    &ENFORCED,
    &SITE,
    &STACK,
    &GATE,
    &OPENS,
    &BEGINS,
    &THICK,
    &TUBE,
    &SERVICE,
    &ONLY_OBSERVED,
    &MUST,
    &LENS,
    &FAILS_OPEN,
    &LOCK,
    &PLAIN,
    &TUNNEL,
    &ONE_WAY,
    &CLOCK,
    &BADGE,
    &LEVEL,
    &CRITICAL,
    &SHIELD,
    &SCREEN,
    &DRUM,
    &LAPTOP,
    &RACK,
    &RELAY,
    &GAUGE,
    &MOTOR,
    &VALVE,
    &ARM,
    &NODE,
    &CAMERA,
    &SERVER,
    &CLOUD,
    &CHIP,
];

/// The mark of an asset's role; a plain chip for a role that has none.
pub(super) fn of_role(role: Option<&str>) -> &'static Mark {
    let role = role.unwrap_or_default();
    let is = |words: &[&str]| words.iter().any(|word| role.contains(word));
    if is(&["safety", "sis", "esd"]) {
        &SHIELD
    } else if is(&["hmi", "panel", "display", "scada"]) {
        &SCREEN
    } else if is(&["historian", "database", "archive"]) {
        &DRUM
    } else if is(&["engineering", "workstation", "laptop", "client", "pc", "office"]) && !is(&["opc"]) {
        &LAPTOP
    } else if is(&["plc", "controller", "dcs", "pac"]) {
        &RACK
    } else if is(&["rtu", "ied", "relay", "protection", "bay"]) {
        &RELAY
    } else if is(&[
        "sensor",
        "meter",
        "transmitter",
        "analyser",
        "analyzer",
        "instrument",
        "scale",
    ]) {
        &GAUGE
    } else if is(&["drive", "motor", "pump", "fan"]) {
        &MOTOR
    } else if is(&["valve", "actuator"]) {
        &VALVE
    } else if is(&["robot", "cell", "machine"]) {
        &ARM
    } else if is(&["switch", "router", "firewall", "gateway", "access-point", "radio"]) {
        &NODE
    } else if is(&["camera", "vision"]) {
        &CAMERA
    } else if is(&[
        "broker", "server", "mes", "erp", "jump", "proxy", "update", "time", "ntp", "dns",
    ]) {
        &SERVER
    } else if is(&["cloud", "vendor", "internet"]) {
        &CLOUD
    } else {
        &CHIP
    }
}
