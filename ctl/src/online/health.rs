//! `health`: how well each zone is guarded and why; with `--watch` a calm view that is redrawn in place.
//!
//! A state has a sign, a word and a colour, so that none of them is needed to read it. When the coordinator
//! goes away the last view stays, and says how old it is: stale is not well.

use std::time::Duration;

use penstock_proto::v1::{ListGatewaysRequest, PlantHealth, WatchHealthRequest, ZoneState};
use schemars::JsonSchema;
use serde::Serialize;

use super::fleet::GatewayLine;
use super::{Online, malformed, refused};
use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// How long to wait before the coordinator is tried again.
const RETRY: Duration = Duration::from_secs(2);

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
    /// Why the view is old, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
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
            state: match ZoneState::try_from(zone.state) {
                Ok(ZoneState::Enforcing) => "enforcing",
                Ok(ZoneState::Observing) => "observing",
                Ok(ZoneState::Degraded) => "degraded",
                Ok(ZoneState::Stale) => "stale",
                Ok(ZoneState::Unprotected) => "unprotected",
                Ok(ZoneState::Unknown | ZoneState::Unspecified) | Err(_) => "unknown",
            }
            .to_owned(),
            zone: zone.zone,
            reasons: zone.reasons,
            gateways: zone.gateways,
        });
        Self {
            plant: plant.to_owned(),
            time_ms: health.time_ms,
            current_revision: health.current_revision,
            zones: zones.collect(),
            gateways: Vec::new(),
            stale: None,
        }
    }

    /// Every zone is enforcing or meant to observe only.
    fn is_well(&self) -> bool {
        self.zones
            .iter()
            .all(|zone| matches!(zone.state.as_str(), "enforcing" | "observing"))
    }

    /// Zones of this view that differ from the one before.
    fn changes<'a>(&'a self, before: Option<&'a Self>) -> impl Iterator<Item = &'a ZoneLine> {
        self.zones
            .iter()
            .filter(move |zone| before.is_none_or(|before| !before.zones.contains(zone)))
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
        page.gap();
        let width = self
            .zones
            .iter()
            .map(|zone| zone.zone.chars().count())
            .max()
            .unwrap_or(0);
        for zone in &self.zones {
            let (mark, tone) = sign(&zone.state);
            let state = page.paint(tone, &format!("{mark} {:<11}", zone.state));
            let name = page.paint(Tone::Strong, &format!("{:<width$}", zone.zone));
            let by = page.paint(Tone::Dim, &zone.gateways.join(", "));
            page.line(format!("  {state}  {name}  {by}"));
            for reason in &zone.reasons {
                page.paragraph(18, Tone::Dim, reason);
            }
        }
        if !self.gateways.is_empty() {
            page.gap();
            let width = self
                .gateways
                .iter()
                .map(|gateway| gateway.name.chars().count())
                .max()
                .unwrap_or(0);
            for gateway in &self.gateways {
                let (mark, tone, words) = if gateway.connected {
                    ("●", Tone::Good, "connected".to_owned())
                } else if gateway.last_seen_ms == 0 {
                    ("○", Tone::Dim, "never seen".to_owned())
                } else {
                    (
                        "◌",
                        Tone::Warn,
                        format!(
                            "last seen {}",
                            words::relative(gateway.last_seen_ms, words::now_ms())
                        ),
                    )
                };
                let revision = gateway
                    .effective
                    .map_or_else(|| "nothing enforced".to_owned(), |n| format!("enforces r{n}"));
                let link = page.paint(tone, &format!("{mark} {words}"));
                let name = page.paint(Tone::Strong, &format!("{:<width$}", gateway.name));
                let revision = page.paint(Tone::Dim, &revision);
                page.line(format!("  {name}  {link}  {revision}"));
            }
        }
    }
}

/// `penstock health`.
pub async fn health(out: &Output, context: Option<&str>, args: &args::Health) -> Result<Exit, Failure> {
    if args.watch {
        return watch(out, context).await;
    }
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let plant = online.login.context.plant.to_string();
    let mut stream = online
        .client
        .watch_health(WatchHealthRequest {
            once: true,
            beats: false,
        })
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    let first = stream
        .message()
        .await
        .map_err(|s| refused(&s))?
        .ok_or_else(|| malformed("it is empty"))?;
    let mut health = Health::of(&plant, first);
    health.gateways = gateways(&mut online).await?;
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
        });
    Ok(lines.collect())
}

/// A change of one zone, a line each where there is no terminal.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Change {
    /// When it was so, milliseconds since 1970.
    pub time_ms: u64,
    /// The release that holds; 0 before the first.
    pub current_revision: u64,
    /// The zone as it is now.
    #[serde(flatten)]
    pub zone: ZoneLine,
}

impl Report for Change {
    const SCHEMA: &'static str = "penstock.health-change/1";
    fn page(&self, page: &mut Page) {
        let (mark, tone) = sign(&self.zone.state);
        let state = page.paint(tone, &format!("{mark} {}", self.zone.state));
        let zone = page.paint(Tone::Strong, &self.zone.zone);
        let why = page.paint(Tone::Dim, &self.zone.reasons.join("; "));
        page.line(format!(
            "{}  {zone}  {state}  {why}",
            words::instant(self.time_ms)
        ));
    }
}

/// Watches until interrupted; the coordinator may come and go.
async fn watch(out: &Output, context: Option<&str>) -> Result<Exit, Failure> {
    let mut screen = Screen {
        lines: 0,
        live: out.live && out.for_people(),
    };
    let mut last: Option<Health> = None;
    let mut connected_once = false;
    loop {
        let outcome = tokio::select! {
            ended = follow(out, context, &mut screen, &mut last, &mut connected_once) => ended,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        };
        let Err(failure) = outcome else { continue };
        // What cannot mend itself ends the watch: a refusal, or a coordinator that was never there.
        if failure.exit != Exit::Unreachable || !connected_once {
            return Err(failure);
        }
        match &mut last {
            Some(view) if screen.live => {
                view.stale = Some(format!(
                    "no word from the coordinator since {}; trying again",
                    words::instant(view.time_ms)
                ));
                screen.draw(out, &out.page(view))?;
            }
            _ => out.remark(&format!("{}; trying again", failure.message)),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

async fn follow(
    out: &Output,
    context: Option<&str>,
    screen: &mut Screen,
    last: &mut Option<Health>,
    connected_once: &mut bool,
) -> Result<(), Failure> {
    let mut online = Online::connect(context).await?;
    *connected_once = true;
    online.settle_zone().await;
    let plant = online.login.context.plant.to_string();
    let request = WatchHealthRequest {
        once: false,
        beats: false,
    };
    let mut stream = online
        .client
        .watch_health(request)
        .await
        .map_err(|s| refused(&s))?
        .into_inner();
    while let Some(next) = stream.message().await.map_err(|status| refused(&status))? {
        let mut view = Health::of(&plant, next);
        if screen.live {
            view.gateways = gateways(&mut online).await?;
            screen.draw(out, &out.page(&view))?;
        } else {
            for zone in view.changes(last.as_ref()) {
                let (time_ms, current_revision) = (view.time_ms, view.current_revision);
                out.show_next(&Change {
                    time_ms,
                    current_revision,
                    zone: zone.clone(),
                })?;
            }
        }
        *last = Some(view);
    }
    Err(super::unreachable("the coordinator ended the connection"))
}

/// The part of the terminal that is drawn over.
struct Screen {
    lines: usize,
    live: bool,
}

impl Screen {
    fn draw(&mut self, out: &Output, page: &str) -> Result<(), Failure> {
        // Up to where the last page began, and clear from there: the scroll-back stays as it was.
        let up = if self.lines > 0 {
            format!("\u{1b}[{}A\u{1b}[J", self.lines)
        } else {
            String::new()
        };
        self.lines = page.lines().map(|line| rows(line, out.style.width)).sum();
        out.text(&format!("{up}{page}"))
    }
}

/// How many rows of the terminal a line takes; colours take no room.
fn rows(line: &str, width: usize) -> usize {
    let mut shown: usize = 0;
    let mut in_colour = false;
    for character in line.chars() {
        match (in_colour, character) {
            (false, '\u{1b}') => in_colour = true,
            (true, 'm') => in_colour = false,
            (true, _) => {}
            (false, _) => shown += 1,
        }
    }
    shown.max(1).div_ceil(width.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_proto::v1::ZoneHealth;

    fn view(state: ZoneState) -> Health {
        let zone = ZoneHealth {
            zone: "control".into(),
            state: state as i32,
            reasons: vec!["gw-a was last heard 3 min ago".into()],
            gateways: vec!["gw-a".into()],
        };
        Health::of(
            "riverside",
            PlantHealth {
                time_ms: 1,
                current_revision: 2,
                zones: vec![zone],
                ..PlantHealth::default()
            },
        )
    }

    #[test]
    fn only_what_changed_is_said_again() {
        let (before, same, after) = (
            view(ZoneState::Enforcing),
            view(ZoneState::Enforcing),
            view(ZoneState::Stale),
        );
        assert_eq!(same.changes(Some(&before)).count(), 0);
        assert_eq!(after.changes(Some(&before)).count(), 1);
        assert_eq!(before.changes(None).count(), 1);
    }

    #[test]
    fn a_line_takes_as_many_rows_as_its_letters_need() {
        assert_eq!(rows("", 10), 1);
        assert_eq!(rows("\u{1b}[1m0123456789\u{1b}[0m", 10), 1);
        assert_eq!(rows("0123456789x", 10), 2);
    }

    #[test]
    fn a_state_that_is_not_known_here_is_not_well() {
        let mut strange = view(ZoneState::Enforcing);
        assert!(strange.is_well());
        for zone in &mut strange.zones {
            zone.state = "unknown".to_owned();
        }
        assert!(!strange.is_well());
        assert!(!view(ZoneState::Unspecified).is_well() && !view(ZoneState::Degraded).is_well());
    }
}
