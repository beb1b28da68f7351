//! What enforcing would change of inspected connections between zones that observe, for the health report. Pure.
//!
//! The trail has it all; here are the latest, each once, so that a zone does not look ready that is not. What was not seen
//! again for [`FRESH_MS`], or was seen under another revision, is forgotten.

use penstock_policy::ids::Revision;

/// Different things that are kept; of more the one that was seen longest ago makes room.
const KEPT_MAX: usize = 64;
/// How many a sentence names.
const NAMED_MAX: usize = 3;
/// For how long one counts: a day.
const FRESH_MS: u64 = 24 * 3600 * 1000;

/// The latest.
#[derive(Debug, Default)]
pub(super) struct Forecasts {
    seen: Vec<Forecast>,
}

#[derive(Debug)]
struct Forecast {
    revision: Revision,
    /// Between whom.
    ends: String,
    what: String,
    last_ms: u64,
}

impl Forecasts {
    /// `what` would not pass between these, under the plan of that revision.
    pub(super) fn note(&mut self, revision: Revision, ends: String, what: &str, last_ms: u64) {
        self.seen.retain(|seen| seen.revision == revision);
        let same = |seen: &&mut Forecast| seen.ends == ends && seen.what == what;
        if let Some(known) = self.seen.iter_mut().find(same) {
            known.last_ms = last_ms;
            return;
        }
        if self.seen.len() >= KEPT_MAX {
            let oldest = self.seen.iter().enumerate().min_by_key(|(_, seen)| seen.last_ms);
            if let Some(place) = oldest.map(|(place, _)| place) {
                self.seen.remove(place);
            }
        }
        self.seen.push(Forecast {
            revision,
            ends,
            what: what.to_owned(),
            last_ms,
        });
    }

    /// In a sentence, if there is anything under that revision.
    pub(super) fn words(&self, revision: Revision, now_ms: u64) -> Option<String> {
        let fresh: Vec<&Forecast> = self
            .seen
            .iter()
            .filter(|seen| seen.revision == revision && now_ms.saturating_sub(seen.last_ms) < FRESH_MS)
            .collect();
        if fresh.is_empty() {
            return None;
        }
        let named = fresh.iter().take(NAMED_MAX);
        let named: Vec<String> = named
            .map(|seen| format!("{}: {}", seen.ends, seen.what))
            .collect();
        let more = match fresh.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Some(format!(
            "enforcing would change what inspected connections carry today. {}{more}. All of it: `penstock audit search \
             --kind operation --decision would-deny`",
            named.join("; ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = FRESH_MS;

    #[test]
    fn what_would_change_is_said_once_and_forgotten_after_a_day_or_under_another_policy() {
        let mut foretold = Forecasts::default();
        assert_eq!(foretold.words(Revision(1), 0), None);
        for at in 0..5 {
            foretold.note(Revision(1), "hmi to plc".to_owned(), "odd answers", at);
        }
        let words = foretold.words(Revision(1), 5).unwrap_or_default();
        assert!(words.contains("today. hmi to plc: odd answers. All"), "{words}");
        assert_eq!(foretold.words(Revision(2), 5), None);
        assert_eq!(foretold.words(Revision(1), 4 + DAY_MS), None);
    }

    #[test]
    fn it_is_bounded_and_names_a_few() {
        let mut foretold = Forecasts::default();
        for number in 0..200 {
            foretold.note(Revision(1), format!("hmi to plc-{number}"), "odd answers", number);
        }
        let words = foretold.words(Revision(1), 200).unwrap_or_default();
        assert!(
            words.contains("plc-136: odd answers; hmi to plc-137") && words.contains("; and 61 more."),
            "{words}"
        );
        foretold.note(Revision(2), "a to b".to_owned(), "c", 200);
        assert_eq!(foretold.seen.len(), 1);
    }
}
