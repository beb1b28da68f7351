//! The section as people read it.

use super::{Recorded, RecordedEnd, RecordedRefusal, RecordedUnjudged, SHOWN_MAX};
use crate::output::{Page, Tone};
use crate::{times, words};

impl RecordedEnd {
    /// "plc-7 (10.2.0.9, zone control)".
    fn in_words(&self) -> String {
        let zone = match &self.zone {
            Some(zone) => format!("zone {zone}"),
            None => "in no zone".to_owned(),
        };
        match &self.asset {
            Some(asset) => format!("{asset} ({}, {zone})", self.address),
            None => format!("{} ({zone})", self.address),
        }
    }
}

fn things(count: u64) -> String {
    words::count(usize::try_from(count).unwrap_or(usize::MAX), "thing")
}

fn times_of(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

impl Recorded {
    pub(super) fn page(&self, page: &mut Page) {
        let zone = times::zone();
        let span = match self.first_ms {
            0 => format!("none since {}", self.since),
            first => format!(
                "{} to {}",
                times::shown(first, &zone),
                times::shown(self.last_ms, &zone)
            ),
        };
        let heading = page.paint(Tone::Strong, "Recorded traffic");
        page.line(format!(
            "{heading}: {}, {span} by the coordinator's clock",
            words::count(usize::try_from(self.events).unwrap_or(usize::MAX), "event")
        ));
        let (good, bad) = (page.paint(Tone::Good, "✓"), page.paint(Tone::Bad, "✗"));
        let found = self.refused.len() as u64 + self.further.things;
        if found > 0 {
            page.line(format!("{bad} {} that passed would be refused", things(found)));
        } else if self.events == 0 {
            let mark = page.paint(Tone::Warn, "▲");
            page.line(format!(
                "{mark} nothing to judge: this says nothing about what the release refuses"
            ));
        } else if self.unjudged.is_empty() && self.missing.is_empty() {
            page.line(format!("{good} none of it would be refused"));
        } else {
            page.line(format!("{good} none of what could be judged would be refused"));
        }
        for refused in self.refused.iter().take(SHOWN_MAX) {
            refused.page(page);
        }
        let hidden = (self.refused.len().saturating_sub(SHOWN_MAX)) as u64 + self.further.things;
        if hidden > 0 {
            page.paragraph(
                2,
                Tone::Warn,
                &format!(
                    "{} more that would be refused, not shown (--output json)",
                    things(hidden)
                ),
            );
        }
        let sums = [
            (self.passes, "would pass"),
            (self.observed, "would pass only as their zones observe"),
            (
                self.newly_permitted,
                "that was refused would pass: newly permitted, permitted since, or only observed",
            ),
        ];
        for (sum, what) in sums.iter().filter(|(sum, _)| sum.things > 0) {
            page.paragraph(
                2,
                Tone::Plain,
                &format!("{} {what} ({})", things(sum.things), times_of(sum.count)),
            );
        }
        for RecordedUnjudged { why, what } in &self.unjudged {
            page.paragraph(
                2,
                Tone::Warn,
                &format!(
                    "▲ not judged: {} ({}): {why}",
                    things(what.things),
                    times_of(what.count)
                ),
            );
        }
        for missing in self.missing.iter().take(SHOWN_MAX) {
            page.paragraph(2, Tone::Warn, &format!("▲ {missing}"));
        }
        if let Some(more @ 1..) = self.missing.len().checked_sub(SHOWN_MAX) {
            let more = words::count(more, "more thing");
            let words = format!("▲ {more} missing, not shown (--output json)");
            page.paragraph(2, Tone::Warn, &words);
        }
        page.paragraph(
            2,
            Tone::Dim,
            "the trail is the coordinator's word: it can leave out what passed, or say what did not",
        );
    }
}

impl RecordedRefusal {
    fn page(&self, page: &mut Page) {
        let must = match self.must_flow {
            true => page.paint(Tone::Bad, "must flow: "),
            false => String::new(),
        };
        let inside = self
            .operation
            .as_ref()
            .map_or_else(String::new, |operation| format!(" {operation}"));
        let values = match self.values {
            Some([first, last]) if first == last => format!(" with value {first}"),
            Some([first, last]) => format!(" with values {first}\u{2013}{last}"),
            None => String::new(),
        };
        let what = format!(
            "{} → {} {}{inside}{values}",
            self.client.in_words(),
            self.server.in_words(),
            self.service
        );
        let what = page.paint(Tone::Strong, &what);
        let times = times_of(self.count);
        let already = if self.already {
            "; what is in force refuses it already"
        } else {
            ""
        };
        page.line(format!("  {must}{what}"));
        page.paragraph(
            4,
            Tone::Plain,
            &format!("{times}, last at {}, at {}{already}", self.last, self.gateway),
        );
        page.paragraph(4, Tone::Plain, &self.because);
    }
}
