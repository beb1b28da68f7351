//! `health --watch`: a view that is redrawn in place and says how old it is; elsewhere a line for each change.
//!
//! The coordinator gives a sign of life every few seconds, so the view knows silence from calm: what it shows is as old as the
//! last sign.

use std::time::{Duration, Instant};

use penstock_proto::v1::WatchHealthRequest;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Health, HealthFilter, ZoneLine, gateways, sign};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::online::screen::Screen;
use crate::online::{Online, refused, unreachable};
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// How long to wait before the coordinator is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How often the age is drawn.
const REDRAW: Duration = Duration::from_secs(1);
/// The gateways' figures are fetched again when they are older: their counters change where no zone's health does.
const COUNTED_EVERY: Duration = Duration::from_secs(30);
/// A coordinator that gives signs of life and is silent for so long is not heard any more.
const SILENT: Duration = Duration::from_secs(16);

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

/// A change of what is wrong with the coordinator, a line each where there is no terminal.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FaultChange {
    /// When it was so, milliseconds since 1970.
    pub time_ms: u64,
    /// `began` or `ended`.
    pub step: String,
    /// Stable code.
    pub code: String,
    /// In words.
    pub message: String,
}

impl Report for FaultChange {
    const SCHEMA: &'static str = "penstock.health-fault/1";
    fn page(&self, page: &mut Page) {
        let (tone, mark) = match self.step.as_str() {
            "ended" => (Tone::Good, "✓ coordinator, no more:"),
            _ => (Tone::Bad, "✗ coordinator:"),
        };
        let fault = page.paint(tone, &format!("{mark} {} ({})", self.message, self.code));
        page.line(format!("{}  {fault}", words::instant(self.time_ms)));
    }
}

/// A change of what holds for the whole plant, a line each where there is no terminal.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NoteChange {
    /// When it was so, milliseconds since 1970.
    pub time_ms: u64,
    /// `began` or `ended`.
    pub step: String,
    /// In words.
    pub note: String,
}

impl Report for NoteChange {
    const SCHEMA: &'static str = "penstock.health-note/1";
    fn page(&self, page: &mut Page) {
        let (tone, mark) = match self.step.as_str() {
            "ended" => (Tone::Good, "✓ no more:"),
            _ => (Tone::Warn, "▲"),
        };
        let note = page.paint(tone, &format!("{mark} {}", self.note));
        page.line(format!("{}  {note}", words::instant(self.time_ms)));
    }
}

/// The step of a change.
fn step(began: bool) -> String {
    if began { "began" } else { "ended" }.to_owned()
}

/// The last view, and when it was last known to hold.
#[derive(Debug)]
struct LastView {
    view: Health,
    at: Instant,
    /// When its gateways were asked about.
    counted: Instant,
}

impl LastView {
    /// The view as it is drawn now.
    fn drawn(&self, out: &Output, asked: &HealthFilter, lost: bool) -> String {
        let age = self.at.elapsed().as_secs();
        let mut view = self.view.clone().grave(asked);
        view.counted = Some(format!(
            ", as of {} ago",
            words::span(self.counted.elapsed().as_secs() * 1000)
        ));
        if lost {
            view.stale = Some(format!(
                "nothing heard from the coordinator for {}; this is its last report, trying again",
                words::span(age * 1000)
            ));
        }
        let mut page = out.page(&view);
        if !lost {
            page.push_str(
                &out.style
                    .paint(Tone::Dim, &format!("as of {} ago", words::span(age * 1000))),
            );
            page.push('\n');
        }
        page
    }
}

/// Watches until interrupted; the coordinator may come and go.
pub(super) async fn watch(
    out: &Output,
    context: Option<&str>,
    asked: &HealthFilter,
) -> Result<Exit, Failure> {
    let mut screen = Screen::new(out);
    let mut last: Option<LastView> = None;
    let mut connected_once = false;
    loop {
        let outcome = tokio::select! {
            ended = follow(out, context, asked, &mut screen, &mut last, &mut connected_once) => ended,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        };
        let Err(failure) = outcome else { continue };
        // What cannot mend itself ends the watch: a refusal, or a coordinator that was never there.
        if failure.exit != Exit::Unreachable || !connected_once {
            return Err(failure);
        }
        match &last {
            Some(seen) if screen.live => screen.draw(out, &seen.drawn(out, asked, true))?,
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
    asked: &HealthFilter,
    screen: &mut Screen,
    last: &mut Option<LastView>,
    connected_once: &mut bool,
) -> Result<(), Failure> {
    let mut online = Online::connect(context).await?;
    *connected_once = true;
    online.settle_zone().await;
    let plant = online.login.context.plant.to_string();
    let request = WatchHealthRequest {
        once: false,
        beats: true,
    };
    let mut stream = online
        .client
        .watch_health(request)
        .await
        .map_err(|s| refused(&s))?
        .into_inner();
    // One from before gives no signs of life: then nothing is concluded from silence.
    let mut beats = false;
    let mut heard = Instant::now();
    loop {
        let next = match tokio::time::timeout(REDRAW, stream.message()).await {
            Ok(next) => next.map_err(|status| refused(&status))?,
            Err(_) => {
                if let (Some(seen), true) = (&*last, screen.live) {
                    screen.draw(out, &seen.drawn(out, asked, false))?;
                }
                if beats && heard.elapsed() >= SILENT {
                    return Err(unreachable("the coordinator does not respond"));
                }
                continue;
            }
        };
        let Some(next) = next else {
            return Err(unreachable("the coordinator ended the connection"));
        };
        heard = Instant::now();
        if next.unchanged {
            beats = true;
            if let Some(seen) = last {
                seen.at = heard;
                seen.view.time_ms = next.time_ms;
                if screen.live && seen.counted.elapsed() >= COUNTED_EVERY {
                    let gateways = gateways(&mut online).await?;
                    seen.view.with_gateways(gateways, asked);
                    seen.counted = Instant::now();
                }
            }
            continue;
        }
        let mut view = Health::of(&plant, next).narrowed(asked)?;
        if screen.live {
            view.with_gateways(gateways(&mut online).await?, asked);
        } else {
            let before = last.as_ref().map(|seen| &seen.view);
            let (time_ms, current_revision) = (view.time_ms, view.current_revision);
            for (began, fault) in view.fault_changes(before) {
                out.show_next(&FaultChange {
                    time_ms,
                    step: step(began),
                    code: fault.code.clone(),
                    message: fault.message.clone(),
                })?;
            }
            for (began, note) in view.note_changes(before) {
                out.show_next(&NoteChange {
                    time_ms,
                    step: step(began),
                    note: note.to_owned(),
                })?;
            }
            for zone in view.changes(before, asked) {
                out.show_next(&Change {
                    time_ms,
                    current_revision,
                    zone: zone.clone(),
                })?;
            }
        }
        let seen = last.insert(LastView {
            view,
            at: heard,
            counted: Instant::now(),
        });
        if screen.live {
            screen.draw(out, &seen.drawn(out, asked, false))?;
        }
    }
}
