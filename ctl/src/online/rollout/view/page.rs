//! A rollout for people: its head, those that failed, who waits for what, what was done.

use super::{EventLine, GatewayState, RolloutList, RolloutView, is_failure, ticket_words};
use crate::output::{Page, Report, Tone};
use crate::words;

/// Gateways that are named because they failed; further ones are counted.
const FAILED: usize = 10;
/// Things that are waited for; further ones are counted.
const WAITS: usize = 12;
/// Events that are shown, the newest.
const EVENTS: usize = 12;

impl RolloutView {
    /// The sign and tone of how it is.
    fn sign(&self) -> (&'static str, Tone) {
        match self.stage.as_str() {
            "completed" => ("✓", Tone::Good),
            _ if !self.halted.is_empty() => ("✗", Tone::Bad),
            "rolling-back" | "rolled-back" => ("✗", Tone::Bad),
            _ if self.frozen.is_some() && !self.is_over() => ("▲", Tone::Warn),
            _ if !self.paused.is_empty() => ("▲", Tone::Warn),
            "completed-with-exceptions" => ("▲", Tone::Warn),
            "cancelled" | "superseded" => ("·", Tone::Dim),
            _ => ("●", Tone::Name),
        }
    }

    fn head(&self, page: &mut Page) {
        let (mark, tone) = self.sign();
        let stage = page.paint(tone, &format!("{mark} {}", self.stage_words()));
        let release = page.paint(Tone::Strong, &format!("r{}", self.revision));
        let emergency = match self.emergency {
            true => " · emergency: no shadow, no soak",
            false => "",
        };
        let facts = page.paint(Tone::Dim, &format!("({}){emergency}", self.short()));
        page.line(format!("{release} {facts}  {stage}"));
        for stop in self.stops() {
            let tone = if stop.starts_with('✗') {
                Tone::Bad
            } else {
                Tone::Warn
            };
            let stop = page.paint(tone, &stop);
            page.line(format!("  {stop}"));
        }
        let counts = page.paint(Tone::Plain, &self.counts_words());
        page.line(format!("  {counts}"));
    }

    /// Head, failures and waits: what `watch` draws again and again.
    pub(in crate::online::rollout) fn live(&self, page: &mut Page) {
        self.head(page);
        let is_named = |gateway: &&GatewayState| is_failure(&gateway.state);
        let failed: Vec<&GatewayState> = self.gateways.iter().filter(is_named).collect();
        for gateway in failed.iter().take(FAILED) {
            let name = page.paint(Tone::Strong, &gateway.name);
            let bad = page.paint(Tone::Bad, &format!("✗ {}", gateway.words(self.time_ms)));
            page.line(format!("  {name}  {bad}"));
        }
        let named = failed.len().min(FAILED);
        // Where each gateway was asked for, those that are left out are any.
        let further = match failed.len() == self.gateways.len() {
            true => self.further_gateways as usize,
            false => 0,
        };
        let more = failed.len() - named + further;
        if named > 0 && more > 0 {
            let more = page.paint(Tone::Bad, &format!("and {more} more"));
            page.line(format!("  {more}"));
        }
        if !self.waits.is_empty() {
            let heading = page.paint(Tone::Dim, "  waits for");
            page.line(heading);
        }
        for wait in self.waits.iter().take(WAITS) {
            let who = page.paint(Tone::Strong, &wait.who());
            let what = page.paint(Tone::Plain, &wait.reason);
            page.line(format!("    {who}: {what}"));
        }
        let more = self.waits.len().saturating_sub(WAITS) + self.further_waits as usize;
        if more > 0 {
            let more = page.paint(Tone::Dim, &format!("    and {more} more"));
            page.line(more);
        }
    }
}

impl EventLine {
    /// Who did what and why, in a line.
    pub(in crate::online::rollout) fn words(&self) -> String {
        let by = match self.by.as_str() {
            "" => "by the plan",
            by => by,
        };
        let why = match self.reason.as_str() {
            "" => String::new(),
            reason if self.message.contains(reason) => ticket_words(&self.ticket),
            reason => format!(": {reason}{}", ticket_words(&self.ticket)),
        };
        let message = match self.message.as_str() {
            "" => &self.what,
            message => message,
        };
        format!("{by}  {message}{why}")
    }

    pub(in crate::online::rollout) fn page(&self, page: &mut Page) {
        let when = page.paint(Tone::Dim, &words::instant(self.time_ms));
        let words = page.paint(Tone::Plain, &self.words());
        page.line(format!("  {when}  {words}"));
    }
}

impl Report for RolloutView {
    const SCHEMA: &'static str = "penstock.rollout/1";
    fn page(&self, page: &mut Page) {
        self.live(page);
        let others: Vec<&GatewayState> = self
            .gateways
            .iter()
            .filter(|gateway| !is_failure(&gateway.state))
            .collect();
        if !others.is_empty() {
            page.gap();
            let row = |gateway: &&GatewayState| {
                vec![
                    (Tone::Strong, gateway.name.clone()),
                    (Tone::Plain, gateway.wave.to_string()),
                    (Tone::Plain, gateway.words(self.time_ms)),
                ]
            };
            let rows: Vec<_> = others.iter().map(row).collect();
            page.table(&["GATEWAY", "WAVE", "STATE"], &rows);
            if self.further_gateways > 0 {
                let more = page.paint(Tone::Dim, &format!("and {} more", self.further_gateways));
                page.line(more);
            }
        }
        page.gap();
        let by = match self.started_by.as_str() {
            "" => "the coordinator, by its settings",
            by => by,
        };
        let started = format!(
            "started by {by} {}: {}{}",
            words::when(self.started_ms, self.time_ms),
            self.reason,
            ticket_words(&self.ticket)
        );
        let started = page.paint(Tone::Plain, &started);
        page.line(started);
        let older = self.events.len().saturating_sub(EVENTS);
        if older > 0 {
            let older = page.paint(
                Tone::Dim,
                &format!(
                    "  {older} older events: penstock rollout show {} --output json",
                    self.revision
                ),
            );
            page.line(older);
        }
        for event in self.events.iter().skip(older) {
            event.page(page);
        }
        if self.ended_ms > 0 {
            let ended = page.paint(
                Tone::Plain,
                &format!("ended {}", words::when(self.ended_ms, self.time_ms)),
            );
            page.line(ended);
        }
    }
}

impl Report for RolloutList {
    const SCHEMA: &'static str = "penstock.rollout-list/1";
    fn page(&self, page: &mut Page) {
        if let Some(frozen) = &self.frozen {
            page.paragraph(
                0,
                Tone::Warn,
                &format!("▲ the plant is frozen {}", frozen.words()),
            );
        }
        if self.rollouts.is_empty() {
            page.line("no rollouts yet; start one with: penstock rollout start REVISION --reason REASON");
            return;
        }
        let now = words::now_ms();
        let row = |rollout: &RolloutView| {
            let (mark, tone) = rollout.sign();
            let stop = match (rollout.halted.is_empty(), rollout.paused.is_empty()) {
                (false, _) => ", halted",
                (true, false) => ", paused",
                (true, true) => "",
            };
            vec![
                (Tone::Strong, format!("r{}", rollout.revision)),
                (tone, format!("{mark} {}{stop}", rollout.stage)),
                (
                    Tone::Plain,
                    format!("{} of {}", rollout.confirmed(), rollout.total()),
                ),
                (
                    if rollout.failed > 0 { Tone::Bad } else { Tone::Dim },
                    rollout.failed.to_string(),
                ),
                (Tone::Plain, rollout.started_by.clone()),
                (Tone::Dim, words::relative(rollout.started_ms, now)),
                (
                    Tone::Plain,
                    format!("{}{}", rollout.reason, ticket_words(&rollout.ticket)),
                ),
            ]
        };
        let rows: Vec<_> = self.rollouts.iter().map(row).collect();
        page.table(
            &[
                "RELEASE",
                "STAGE",
                "CONFIRMED",
                "FAILED",
                "BY",
                "STARTED",
                "REASON",
            ],
            &rows,
        );
    }
}
