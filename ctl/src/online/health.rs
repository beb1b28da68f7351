//! `health`: how well each zone is guarded and why; with `--watch` a calm view that is redrawn in place.
//!
//! A state has a sign, a word and a colour, so that none of them is needed to read it. When the coordinator
//! goes away the last view stays, and says how old it is: stale is not well. The worst comes first, and many equal lines are one
//! ([`fold`]).

mod fold;
mod identities;
#[cfg(test)]
mod tests;
mod watch;

pub use self::identities::AssuranceLine;
pub use self::watch::{Change, FaultChange, NoteChange};

use std::collections::{BTreeMap, BTreeSet};

use penstock_proto::v1::{ListGatewaysRequest, PlantHealth, WatchHealthRequest, ZoneState};
use schemars::JsonSchema;
use serde::Serialize;

use super::fleet::GatewayLine;
use super::standing::StandingLine;
use super::{Online, malformed, refused};
use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// Names up to this width stand in a column.
const NAME_WIDTH_MAX: usize = 32;

/// The health of a plant.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Health {
    /// The plant.
    pub plant: String,
    /// When it was so, milliseconds since 1970.
    pub time_ms: u64,
    /// The release that holds; 0 before the first.
    pub current_revision: u64,
    /// Each zone.
    pub zones: Vec<ZoneLine>,
    /// Each gateway.
    pub gateways: Vec<GatewayBrief>,
    /// What is wrong with the coordinator itself.
    pub coordinator: Vec<CoordinatorFault>,
    /// What holds for the whole plant, although nothing is wrong: the line is stopped, say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why the view is old, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
    /// How old the gateways' figures are, where they are older than the view.
    #[serde(skip)]
    counted: Option<String>,
    /// Single zones were asked for: each says how well the ends of its flows are known.
    #[serde(skip)]
    in_detail: bool,
}

/// Something that is wrong with the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CoordinatorFault {
    /// Stable code.
    pub code: String,
    /// In words.
    pub message: String,
}

/// One zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ZoneLine {
    /// The zone.
    pub zone: String,
    /// `enforcing`, `observing`, `degraded`, `stale`, `unprotected` or `unknown`.
    pub state: String,
    /// Why.
    pub reasons: Vec<String>,
    /// The gateways that guard it.
    pub gateways: Vec<String>,
    /// The permitted flows of its conduits, by how well the weakest of their ends is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub assurance: Vec<AssuranceLine>,
    /// How many of its flows are denied, wholly or to some ends, since these prove too little.
    pub denied_flows: u32,
}

/// One gateway, in short.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GatewayBrief {
    /// Its name.
    pub name: String,
    /// Whether it is connected.
    pub connected: bool,
    /// When it was last heard, milliseconds since 1970; 0: never.
    pub last_seen_ms: u64,
    /// Revision that its kernel holds.
    pub effective: Option<u64>,
    /// How it stands to the release that it was ordered last, if it says more than what is staged and effective.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<StandingLine>,
    /// Packets that it refused since its agent began.
    pub denied_packets: u64,
    /// Operations inside connections that it refused since then.
    pub denied_operations: u64,
}

/// The word of a zone's state.
pub(super) fn state_word(state: i32) -> &'static str {
    match ZoneState::try_from(state) {
        Ok(ZoneState::Enforcing) => "enforcing",
        Ok(ZoneState::Observing) => "observing",
        Ok(ZoneState::Degraded) => "degraded",
        Ok(ZoneState::Stale) => "stale",
        Ok(ZoneState::Unprotected) => "unprotected",
        Ok(ZoneState::Unknown | ZoneState::Unspecified) | Err(_) => "unknown",
    }
}

/// How grave a state is: 0 is well.
fn gravity(state: &str) -> u8 {
    match state {
        "enforcing" => 0,
        "observing" => 1,
        "degraded" => 2,
        "stale" => 3,
        "unprotected" => 5,
        _ => 4,
    }
}

/// Which part of a plant is asked for.
#[derive(Debug, Clone, Default)]
struct HealthFilter {
    zones: Vec<String>,
    gateways: Vec<String>,
    gravity_min: u8,
}

impl HealthFilter {
    fn of(args: &args::Health) -> Self {
        Self {
            zones: args.zone.clone(),
            gateways: args.gateway.clone(),
            gravity_min: args.severity.map_or(0, |state| gravity(state.word())),
        }
    }

    fn is_all(&self) -> bool {
        self.zones.is_empty() && self.gateways.is_empty() && self.gravity_min == 0
    }

    fn zone(&self, zone: &ZoneLine) -> bool {
        (self.zones.is_empty() || self.zones.contains(&zone.zone))
            && (self.gateways.is_empty()
                || zone
                    .gateways
                    .iter()
                    .any(|gateway| self.gateways.contains(gateway)))
    }

    fn is_grave(&self, zone: &ZoneLine) -> bool {
        gravity(&zone.state) >= self.gravity_min
    }
}

/// The sign and tone of a state.
fn sign(state: &str) -> (&'static str, Tone) {
    match state {
        "enforcing" => ("●", Tone::Good),
        "observing" => ("◉", Tone::Name),
        "degraded" => ("▲", Tone::Warn),
        "stale" => ("◌", Tone::Warn),
        "unprotected" => ("✗", Tone::Bad),
        _ => ("?", Tone::Warn),
    }
}

impl Health {
    fn of(plant: &str, health: PlantHealth) -> Self {
        let zones = health.zones.into_iter().map(|zone| ZoneLine {
            state: state_word(zone.state).to_owned(),
            zone: zone.zone,
            reasons: zone.reasons,
            gateways: zone.gateways,
            assurance: zone
                .assurance
                .into_iter()
                .map(|of| AssuranceLine {
                    assurance: of.assurance,
                    flows: of.flows,
                })
                .collect(),
            denied_flows: zone.denied_flows,
        });
        Self {
            plant: plant.to_owned(),
            time_ms: health.time_ms,
            current_revision: health.current_revision,
            zones: zones.collect(),
            gateways: Vec::new(),
            coordinator: health
                .coordinator
                .into_iter()
                .map(|fault| CoordinatorFault {
                    code: fault.code,
                    message: fault.message,
                })
                .collect(),
            notes: health.notes,
            stale: None,
            counted: None,
            in_detail: false,
        }
    }

    /// Keeps the zones that are asked for, however well they are, the worst first.
    fn narrowed(mut self, asked: &HealthFilter) -> Result<Self, Failure> {
        for zone in &asked.zones {
            if !self.zones.iter().any(|line| line.zone == *zone) {
                return Err(Failure::usage(format!(
                    "the release in force has no zone `{zone}`"
                )));
            }
        }
        for gateway in &asked.gateways {
            if !self.zones.iter().any(|line| line.gateways.contains(gateway)) {
                return Err(Failure::usage(format!(
                    "no zone of the release in force depends on a gateway `{gateway}`"
                )));
            }
        }
        self.zones.retain(|zone| asked.zone(zone));
        self.in_detail = !asked.zones.is_empty();
        self.zones.sort_by(|one, other| {
            let key = |zone: &ZoneLine| (std::cmp::Reverse(gravity(&zone.state)), zone.zone.clone());
            key(one).cmp(&key(other))
        });
        Ok(self)
    }

    /// Keeps the zones that are as grave as is asked for.
    fn grave(mut self, asked: &HealthFilter) -> Self {
        self.zones.retain(|zone| asked.is_grave(zone));
        self
    }

    /// Adds the gateways on which the shown zones depend; all, if all is asked for.
    fn with_gateways(&mut self, mut gateways: Vec<GatewayBrief>, asked: &HealthFilter) {
        if !asked.is_all() {
            let zones = self.zones.iter().filter(|zone| asked.is_grave(zone));
            let named: BTreeSet<&String> = zones.flat_map(|zone| &zone.gateways).collect();
            gateways.retain(|gateway| named.contains(&gateway.name));
        }
        self.gateways = gateways;
    }

    /// Every zone is enforcing or meant to observe only, and nothing is wrong with the coordinator.
    fn is_well(&self) -> bool {
        self.coordinator.is_empty()
            && self
                .zones
                .iter()
                .all(|zone| gravity(&zone.state) <= gravity("observing"))
    }

    /// Zones of this view that differ from the one before, and are as grave as is asked for, or were before.
    fn changes<'a>(
        &'a self,
        before: Option<&'a Self>,
        asked: &'a HealthFilter,
    ) -> impl Iterator<Item = &'a ZoneLine> {
        let before: BTreeMap<&str, &ZoneLine> = before
            .into_iter()
            .flat_map(|before| &before.zones)
            .map(|zone| (zone.zone.as_str(), zone))
            .collect();
        self.zones.iter().filter(move |zone| {
            let was = before.get(zone.zone.as_str());
            was != Some(zone) && (asked.is_grave(zone) || was.is_some_and(|was| asked.is_grave(was)))
        })
    }

    /// What is wrong with the coordinator and was not in the view before; and, not begun but ended, what no longer is.
    fn fault_changes<'a>(
        &'a self,
        before: Option<&'a Self>,
    ) -> impl Iterator<Item = (bool, &'a CoordinatorFault)> {
        let then: &[CoordinatorFault] = before.map_or(&[], |before| &before.coordinator);
        let begun = self.coordinator.iter().filter(|fault| !then.contains(fault));
        let goes_on = |fault: &CoordinatorFault| self.coordinator.iter().any(|own| own.code == fault.code);
        let ended = then.iter().filter(move |fault| !goes_on(fault));
        begun
            .map(|fault| (true, fault))
            .chain(ended.map(|fault| (false, fault)))
    }

    /// What holds for the whole plant and did not in the view before; and, not begun but ended, what no longer does.
    fn note_changes<'a>(&'a self, before: Option<&'a Self>) -> impl Iterator<Item = (bool, &'a str)> {
        let then: &[String] = before.map_or(&[], |before| &before.notes);
        let begun = self.notes.iter().filter(|note| !then.contains(note));
        let ended = then.iter().filter(|note| !self.notes.contains(note));
        let begun = begun.map(|note| (true, note.as_str()));
        begun.chain(ended.map(|note| (false, note.as_str())))
    }
}

impl Report for Health {
    const SCHEMA: &'static str = "penstock.health/1";
    fn page(&self, page: &mut Page) {
        let well = self
            .zones
            .iter()
            .filter(|z| matches!(z.state.as_str(), "enforcing" | "observing"))
            .count();
        let release = if self.current_revision == 0 {
            "no release yet".to_owned()
        } else {
            format!("release r{}", self.current_revision)
        };
        let plant = page.paint(Tone::Strong, &self.plant);
        let facts = page.paint(
            Tone::Dim,
            &format!(
                " · {release} · {well} of {} well · {}",
                words::count(self.zones.len(), "zone"),
                words::instant(self.time_ms)
            ),
        );
        page.line(format!("{plant}{facts}"));
        if let Some(stale) = &self.stale {
            let stale = page.paint(Tone::Warn, &format!("◌ {stale}"));
            page.line(stale);
        }
        for fault in &self.coordinator {
            let fault = page.paint(
                Tone::Bad,
                &format!("✗ coordinator: {} ({})", fault.message, fault.code),
            );
            page.line(fault);
        }
        for note in &self.notes {
            page.paragraph(2, Tone::Warn, &format!("▲ {note}"));
        }
        page.gap();
        let folds = fold::zones(&self.zones);
        let width = names_width(&folds);
        for fold in &folds {
            let (mark, tone) = sign(&fold.state);
            let state = page.paint(tone, &format!("{mark} {:<11}", fold.state));
            let name = page.paint(Tone::Strong, &format!("{:<width$}", fold.names));
            let by = page.paint(Tone::Dim, &fold.gateways);
            page.line(format!("  {state}  {name}  {by}"));
            for reason in &fold.reasons {
                page.paragraph(18, Tone::Dim, reason);
            }
        }
        self.identities(page);
        if self.gateways.is_empty() {
            return;
        }
        page.gap();
        let mut gateways: Vec<&GatewayBrief> = self.gateways.iter().collect();
        gateways.sort_by_key(|gateway| gateway.connected);
        let folds = fold::gateways(&gateways, |gateway| {
            let revision = gateway
                .effective
                .map_or_else(|| "nothing enforced".to_owned(), |n| format!("enforces r{n}"));
            let standing = gateway.standing.as_ref().map(|standing| standing.brief().1);
            let words = match standing {
                Some(standing) => format!("{revision}; {standing}"),
                None => revision,
            };
            (link_words(gateway), words)
        });
        let width = names_width(&folds);
        for fold in &folds {
            let tone = match fold.state.chars().next() {
                Some('●') => Tone::Good,
                Some('○') => Tone::Dim,
                _ => Tone::Warn,
            };
            let link = page.paint(tone, &fold.state);
            let name = page.paint(Tone::Strong, &format!("{:<width$}", fold.names));
            let revision = page.paint(Tone::Dim, &fold.reasons.join(", "));
            page.line(format!("  {name}  {link}  {revision}"));
        }
        let refused =
            |of: fn(&GatewayBrief) -> u64| self.gateways.iter().map(of).fold(0, u64::saturating_add);
        let (packets, operations) = (
            refused(|one| one.denied_packets),
            refused(|one| one.denied_operations),
        );
        if packets > 0 || operations > 0 {
            let age = self.counted.as_deref().unwrap_or_default();
            let refused = format!(
                "  refused since the agents started: {packets} packets, {operations} operations{age}"
            );
            let refused = page.paint(Tone::Dim, &refused);
            page.line(refused);
        }
    }
}

/// The width of the names that stand alone: a folded line is longer, and its neighbours are not moved for it.
fn names_width(folds: &[fold::Fold]) -> usize {
    let widths = folds.iter().map(|fold| fold.names.chars().count());
    widths.filter(|width| *width <= NAME_WIDTH_MAX).max().unwrap_or(0)
}

fn link_words(gateway: &GatewayBrief) -> String {
    if gateway.connected {
        "● connected".to_owned()
    } else if gateway.last_seen_ms == 0 {
        "○ never seen".to_owned()
    } else {
        format!(
            "◌ last seen {}",
            words::relative(gateway.last_seen_ms, words::now_ms())
        )
    }
}

/// `penstock health`.
pub(crate) async fn health(
    out: &Output,
    context: Option<&str>,
    args: &args::Health,
) -> Result<Exit, Failure> {
    let asked = HealthFilter::of(args);
    if args.watch {
        return watch::watch(out, context, &asked).await;
    }
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let plant = online.login.context.plant.to_string();
    let request = WatchHealthRequest {
        once: true,
        beats: false,
    };
    let mut stream = online
        .client
        .watch_health(request)
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    let first = stream
        .message()
        .await
        .map_err(|s| refused(&s))?
        .ok_or_else(|| malformed("it is empty"))?;
    let mut health = Health::of(&plant, first).narrowed(&asked)?.grave(&asked);
    health.with_gateways(gateways(&mut online).await?, &asked);
    out.show(&health)?;
    Ok(if health.is_well() {
        Exit::Done
    } else {
        Exit::Findings
    })
}

async fn gateways(online: &mut Online) -> Result<Vec<GatewayBrief>, Failure> {
    let answer = online
        .client
        .list_gateways(ListGatewaysRequest {})
        .await
        .map_err(|s| refused(&s))?
        .into_inner();
    let lines = answer
        .gateways
        .into_iter()
        .map(GatewayLine::from)
        .map(|line| GatewayBrief {
            name: line.name,
            connected: line.connected,
            last_seen_ms: line.last_seen_ms,
            effective: line.effective,
            standing: line.standing,
            denied_packets: line.denied_packets,
            denied_operations: line.denied_operations,
        });
    Ok(lines.collect())
}
