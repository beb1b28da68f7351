//! The answer of `adopt`, for programs and as people read it.

use jiff::tz::TimeZone;
use penstock_proto::v1::Gateway;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::why::Refused;
use crate::output::{Page, Report, Tone};
use crate::{times, words};

/// What enforcing a zone would change, and whether it was quiet for long enough.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Adoption {
    /// The zone.
    pub zone: String,
    /// Since when was looked, in the sites' time.
    pub since: String,
    /// The same, milliseconds since 1970.
    pub since_ms: u64,
    /// Days in which nothing undeclared may be seen.
    pub quiet_days: u32,
    /// Nothing undeclared was seen for so long, and its gateways watched all the time.
    pub ready: bool,
    /// Why it is not ready.
    pub not_yet: Vec<String>,
    /// When something was seen last that would stop, in the sites' time; absent: nothing was since `since`.
    pub last_undeclared: Option<String>,
    /// The same, milliseconds since 1970.
    pub last_undeclared_ms: Option<u64>,
    /// What passed and would be refused, with the flow that would permit it; worst first.
    pub would_stop: Vec<Refused>,
    /// Connections that would be reset once, at the moment of the change: their clients open them again.
    pub reset_once: Vec<Refused>,
    /// Further things that are not listed (`--limit`).
    pub further: usize,
    /// Things that were not permitted when they were seen, and that the current release permits.
    pub declared: usize,
    /// How the gateways of the zone watched.
    pub watch: Vec<ZoneWatch>,
    /// The release by which that is judged.
    pub current_revision: u64,
    /// It is the one that was verified last on this machine; else it and its documents are the coordinator's word.
    pub current_verified: bool,
}

/// How a gateway of the zone watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ZoneWatch {
    /// The gateway.
    pub gateway: String,
    /// Whether it is connected: what one saw that is not, is not in the trail yet.
    pub connected: bool,
    /// When it was last heard, milliseconds since 1970; 0: never.
    pub last_seen_ms: u64,
    /// Since when the zone observes there by its trail, not before the time that was asked for, milliseconds since 1970; absent: it does not.
    pub since_ms: Option<u64>,
    /// Verdicts that it could not report within the quiet days.
    pub missed: u64,
}

impl ZoneWatch {
    pub(super) fn of(name: String, gateway: &Gateway, since_ms: Option<u64>, missed: u64) -> Self {
        Self {
            gateway: name,
            connected: gateway.connected,
            last_seen_ms: gateway.last_seen_ms,
            since_ms,
            missed,
        }
    }

    /// Why what it did not report since then may have been there all the same.
    pub(super) fn doubts(&self, quiet_ms: u64, zone: &TimeZone) -> Vec<String> {
        let name = &self.gateway;
        let mut doubts = Vec::new();
        match self.since_ms {
            None => doubts.push(format!(
                "{name} has no release in force by which the zone observes: it saw nothing"
            )),
            Some(since) if since > quiet_ms => doubts.push(format!(
                "{name} has watched only since {}",
                times::shown(since, zone)
            )),
            Some(_) => {}
        }
        if !self.connected {
            doubts.push(match self.last_seen_ms {
                0 => format!("{name} was never connected"),
                last => format!(
                    "{name} is not connected: what it saw since {} is not in the trail yet",
                    times::shown(last, zone)
                ),
            });
        }
        if self.missed > 0 {
            doubts.push(format!(
                "{name} could not report {}: penstock audit search --kind loss --source {name}",
                words::count_u64(self.missed, "verdict")
            ));
        }
        doubts
    }
}

impl Report for Adoption {
    const SCHEMA: &'static str = "penstock.adopt/1";
    fn page(&self, page: &mut Page) {
        let zone = page.paint(Tone::Strong, &self.zone);
        let release = format!("r{}", self.current_revision);
        if self.ready {
            let mark = page.paint(Tone::Good, "✓");
            page.line(format!(
                "{mark} zone {zone}: nothing undeclared was seen for {} by release {release}",
                words::count(self.quiet_days as usize, "day")
            ));
        } else {
            let mark = page.paint(Tone::Warn, "▲");
            page.line(format!(
                "{mark} zone {zone} is not ready to be enforced by release {release}"
            ));
            for why in &self.not_yet {
                page.paragraph(2, Tone::Plain, why);
            }
        }
        if !self.current_verified {
            let whose =
                format!("release {release} is NOT VERIFIED on this machine: it is the coordinator's word");
            page.paragraph(2, Tone::Warn, &whose);
        }
        let by = (self.current_revision, self.current_verified);
        let parts = [
            ("would stop", &self.would_stop),
            (
                "would be reset once, and come back when their clients reconnect",
                &self.reset_once,
            ),
        ];
        for (title, all) in parts.into_iter().filter(|(_, all)| !all.is_empty()) {
            page.gap();
            let title = page.paint(Tone::Strong, &format!("{title} (seen since {}):", self.since));
            page.line(title);
            for refused in all {
                page.gap();
                refused.page(page, by);
            }
        }
        page.gap();
        if self.further > 0 {
            let more = format!("{} not shown (--limit)", words::count(self.further, "more thing"));
            let more = page.paint(Tone::Dim, &more);
            page.line(more);
        }
        if self.declared > 0 {
            let declared = format!(
                "{} that {} not permitted at the time {} permitted by {release}",
                words::count(self.declared, "thing"),
                if self.declared == 1 { "was" } else { "were" },
                if self.declared == 1 { "is" } else { "are" },
            );
            page.paragraph(0, Tone::Dim, &declared);
        }
        page.paragraph(0, Tone::Plain, &self.next());
    }
}

impl Adoption {
    /// What to do now.
    fn next(&self) -> String {
        if self.ready {
            return format!(
                "next: take `enforcement: observe` out of zone {}, see what changes (penstock diff PATH --against-current), and propose it. \
                 Whatever happens less often than every {} was not looked for",
                self.zone,
                words::count(self.quiet_days as usize, "day")
            );
        }
        match self.would_stop.is_empty() {
            true => "next: let it watch on; nothing is enforced meanwhile".to_owned(),
            false => "next: declare what belongs there (the flows above; all that gateways learned: penstock learn --from-gateways), find out \
                      about the rest, release it while the zone still observes, and ask again"
                .to_owned(),
        }
    }
}
