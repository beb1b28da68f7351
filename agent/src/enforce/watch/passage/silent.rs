//! Must-flows that fell silent against their own rhythm: a pure machine over the packets that the kernel counted of each.
//!
//! Each second in which a flow carries a fair part of its usual packets is a *beat*; the pauses between beats are its rhythm.
//! A flow is judged once it has beaten `beats_min` times over `learned_min` or longer ([`Pace`]), and is silent when it has not beaten for
//! [`PATIENCE`] times its longest pause, and not for `silent_min`. So a flow of one packet an hour is first judged after more
//! than a day, and then has four hours; a flow that pauses as it never did before raises this once, and that pause is then
//! part of its rhythm. A few packets where there were many (a client that only tries to reach its server) are no beat.
//!
//! Bounded: one small record for each flow that is followed ([`super::must_flows`] bounds those), and [`KEPT`] of its seconds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use penstock_policy::ids::FlowId;

/// How many times its longest pause a flow may be silent.
const PATIENCE: u32 = 4;
/// A second with less than this part of the usual packets is no beat.
const FAIR_PART: u64 = 4;
/// Seconds with packets from which the usual number is taken.
const KEPT: usize = 32;
/// A flow that goes on with few packets for so long has a new rhythm.
const ANEW: Duration = Duration::from_secs(3600);
/// What is usual for a flow is taken from its last pauses: at least those of this many beats ...
const USUAL_BEATS: u32 = 200;
/// ... and of this time, so that an outage of yesterday is forgotten.
const USUAL_SPAN: Duration = Duration::from_secs(600);
/// A trial watches a flow that has beaten so often ...
const ALIVE_BEATS: u32 = 10;
/// ... over so long. Earlier than health judges it: a trial that comes soon after the agent's start is watched, too.
const ALIVE_SPAN: Duration = Duration::from_secs(10);

/// When a flow is judged, and from when on it may be silent at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Beats before a flow is judged, ...
    pub beats_min: u32,
    /// ... and over how long.
    pub learned_min: Duration,
    /// No flow is silent before.
    pub silent_min: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            beats_min: 30,
            learned_min: Duration::from_secs(60),
            silent_min: Duration::from_secs(30),
        }
    }
}

/// The rhythm of one flow.
#[derive(Debug)]
struct Rhythm {
    counted: u64,
    began: Duration,
    last: Duration,
    last_ms: u64,
    beats: u32,
    longest: Duration,
    /// The longest pauses of the time before, and of the time that goes on: see [`USUAL_BEATS`].
    recent: [Duration; 2],
    recent_beats: u32,
    recent_since: Duration,
    /// Packets in the last seconds that had some.
    volumes: VecDeque<u64>,
    /// Since when it carries few packets, if it does.
    weak: Option<Duration>,
}

/// A flow that fell silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Silent {
    pub(super) flow: FlowId,
    /// Since when, milliseconds since 1970.
    pub(super) since_ms: u64,
    /// Its longest pause before.
    pub(super) longest: Duration,
    /// Whether it carries a few packets still.
    pub(super) weak: bool,
}

/// How a flow goes, for whoever wants to know whether a change takes it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beats {
    /// Its longest usual pause; `None`: it does not go on now, or was not followed for long enough.
    pub(super) usual: Option<Duration>,
    /// When it beat last.
    pub(super) last: Option<Duration>,
}

/// All that are followed.
#[derive(Debug, Default)]
pub(super) struct Rhythms {
    pace: Pace,
    flows: BTreeMap<FlowId, Rhythm>,
}

impl Rhythms {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            flows: BTreeMap::new(),
        }
    }

    /// Takes in what the kernel has counted of each flow by now; gives those that are silent.
    pub(super) fn see(&mut self, counted: &BTreeMap<FlowId, u64>, now: (Duration, u64)) -> Vec<Silent> {
        self.flows.retain(|flow, _| counted.contains_key(flow));
        let mut silent = Vec::new();
        for (flow, packets) in counted {
            let rhythm = self
                .flows
                .entry(*flow)
                .or_insert_with(|| Rhythm::new(*packets, now));
            silent.extend(rhythm.see(*packets, now, self.pace).map(|longest| Silent {
                flow: *flow,
                since_ms: rhythm.last_ms,
                longest,
                weak: rhythm.weak.is_some(),
            }));
        }
        silent
    }

    /// How each goes.
    pub(super) fn beats(&self, now: Duration) -> impl Iterator<Item = (FlowId, Beats)> {
        self.flows
            .iter()
            .map(move |(flow, rhythm)| (*flow, rhythm.beats(now)))
    }
}

impl Rhythm {
    fn new(counted: u64, (now, now_ms): (Duration, u64)) -> Self {
        Self {
            counted,
            began: now,
            last: now,
            last_ms: now_ms,
            beats: 0,
            longest: Duration::ZERO,
            recent: [Duration::ZERO; 2],
            recent_beats: 0,
            recent_since: now,
            volumes: VecDeque::new(),
            weak: None,
        }
    }

    /// The longest pause, if this one is far longer.
    fn see(&mut self, packets: u64, at: (Duration, u64), pace: Pace) -> Option<Duration> {
        let (now, _) = at;
        // Counters of tables that were made since begin at 0.
        let carried = packets.checked_sub(self.counted).unwrap_or(packets);
        self.counted = packets;
        if carried > 0 && carried.saturating_mul(FAIR_PART) >= self.usual() {
            self.beat(carried, at);
            return None;
        }
        if carried > 0 {
            let since = *self.weak.get_or_insert(now);
            if now.saturating_sub(since) >= ANEW {
                *self = Self::new(packets, at);
                return None;
            }
        }
        let learned =
            self.beats >= pace.beats_min && self.last.saturating_sub(self.began) >= pace.learned_min;
        let allowed = self.longest.saturating_mul(PATIENCE).max(pace.silent_min);
        (learned && now.saturating_sub(self.last) > allowed).then_some(self.longest)
    }

    fn beat(&mut self, carried: u64, (now, now_ms): (Duration, u64)) {
        if self.beats == 0 {
            self.began = now;
        } else {
            let pause = now.saturating_sub(self.last);
            self.longest = self.longest.max(pause);
            let [_, going_on] = &mut self.recent;
            *going_on = pause.max(*going_on);
            self.recent_beats = self.recent_beats.saturating_add(1);
            if self.recent_beats >= USUAL_BEATS && now.saturating_sub(self.recent_since) >= USUAL_SPAN {
                let [before, going_on] = &mut self.recent;
                *before = std::mem::take(going_on);
                (self.recent_beats, self.recent_since) = (0, now);
            }
        }
        self.beats = self.beats.saturating_add(1);
        (self.last, self.last_ms) = (now, now_ms);
        self.weak = None;
        if self.volumes.len() >= KEPT {
            self.volumes.pop_front();
        }
        self.volumes.push_back(carried);
    }

    fn beats(&self, now: Duration) -> Beats {
        let [before, going_on] = self.recent;
        let usual = before.max(going_on);
        let known = self.beats >= ALIVE_BEATS && self.last.saturating_sub(self.began) >= ALIVE_SPAN;
        let goes_on = now.saturating_sub(self.last) <= usual.saturating_mul(PATIENCE);
        Beats {
            usual: (known && goes_on).then_some(usual),
            last: (self.beats > 0).then_some(self.last),
        }
    }

    /// How many packets a second with packets has as a rule.
    fn usual(&self) -> u64 {
        let mut volumes: Vec<u64> = self.volumes.iter().copied().collect();
        volumes.sort_unstable();
        volumes.get(volumes.len() / 2).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const FLOW: FlowId = FlowId(7);

    fn at(second: u64) -> (Duration, u64) {
        (Duration::from_secs(second), second * 1000)
    }

    /// Feeds so many packets each second; the seconds at which the flow was silent.
    fn silences(seconds: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut rhythms = Rhythms::default();
        let (mut counted, mut silent) = (0, Vec::new());
        for (second, packets) in (0..).zip(seconds) {
            counted += packets;
            let found = rhythms.see(&BTreeMap::from([(FLOW, counted)]), at(second));
            silent.extend((!found.is_empty()).then_some(second));
        }
        silent
    }

    fn every(period: usize, packets: u64, seconds: usize) -> impl Iterator<Item = u64> {
        (0..seconds).map(move |second| if second % period == 0 { packets } else { 0 })
    }

    #[test]
    fn a_flow_that_was_polled_each_second_is_silent_after_half_a_minute_and_no_longer_when_it_goes_on() {
        let fell = every(1, 4, 120).chain(every(1, 0, 60));
        assert_eq!(silences(fell).first(), Some(&150));
        let goes_on = every(1, 4, 120).chain(every(1, 0, 40)).chain(every(1, 4, 10));
        assert_eq!(silences(goes_on).last(), Some(&159));
    }

    #[test]
    fn a_client_that_only_tries_to_reach_its_server_does_not_keep_its_flow_from_falling_silent() {
        let tries = every(1, 5, 120).chain(every(2, 1, 120));
        assert_eq!(silences(tries).first(), Some(&150));
    }

    #[test]
    fn a_rare_flow_raises_nothing_by_being_rare() {
        let hour = 3600;
        assert_eq!(silences(every(hour, 3, 40 * hour)), [0; 0]);
        // With four hours of silence after a day and a half it does.
        let ends = silences(every(hour, 3, 36 * hour).chain(every(1, 0, 8 * hour)));
        assert_eq!(*ends.first().unwrap() as usize, 35 * hour + 4 * hour + 1);
    }

    #[test]
    fn a_pause_that_it_came_back_from_is_part_of_its_rhythm() {
        let day = || every(1, 4, 300).chain(every(1, 0, 600));
        let first = silences(day().chain(day()).chain(day()));
        assert!(
            first.iter().all(|second| (300..900).contains(second)),
            "{first:?}"
        );
        assert!(!first.is_empty());
    }

    #[test]
    fn a_flow_that_goes_on_with_few_packets_for_an_hour_has_a_new_rhythm() {
        let weaker = every(1, 100, 120).chain(every(1, 5, 2 * 3600));
        let found = silences(weaker);
        assert_eq!(found.first(), Some(&150));
        assert!(*found.last().unwrap() < 120 + 3600, "{:?}", found.last());
    }

    /// How the flow goes at the end of these seconds.
    fn beats_after(seconds: impl IntoIterator<Item = u64>) -> Beats {
        let mut rhythms = Rhythms::default();
        let (mut counted, mut end) = (0, 0);
        for (second, packets) in (0..).zip(seconds) {
            (counted, end) = (counted + packets, second);
            rhythms.see(&BTreeMap::from([(FLOW, counted)]), at(second));
        }
        let beats = rhythms.beats(at(end).0).map(|(_, beats)| beats);
        beats.last().unwrap()
    }

    #[test]
    fn a_trial_watches_what_goes_on_by_what_was_usual_lately_and_not_what_has_stopped_or_never_was() {
        let seconds = Duration::from_secs;
        assert_eq!(beats_after(every(1, 4, 9)).usual, None, "it is too new");
        assert_eq!(beats_after(every(1, 4, 15)).usual, Some(seconds(1)));
        assert_eq!(beats_after(every(3, 4, 120)).usual, Some(seconds(3)));
        let stopped = every(1, 4, 60).chain(every(1, 0, 6));
        assert_eq!(
            beats_after(stopped),
            Beats {
                usual: None,
                last: Some(seconds(59))
            }
        );
        assert_eq!(
            beats_after(every(1, 0, 60)),
            Beats {
                usual: None,
                last: None
            }
        );
        // An outage is forgotten when the flow went on for long enough after it.
        let outage = || every(1, 4, 60).chain(every(1, 0, 300));
        assert_eq!(
            beats_after(outage().chain(every(1, 4, 60))).usual,
            Some(seconds(301))
        );
        assert_eq!(
            beats_after(outage().chain(every(1, 4, 1500))).usual,
            Some(seconds(1))
        );
    }

    #[test]
    fn counters_that_begin_at_nothing_again_are_no_silence_and_no_burst() {
        let mut rhythms = Rhythms::default();
        for second in 0..400_u64 {
            let counted = if second < 200 {
                second * 4
            } else {
                (second - 200) * 4
            };
            let found = rhythms.see(&BTreeMap::from([(FLOW, counted)]), at(second));
            assert_eq!(found, [], "{second}");
        }
    }

    proptest! {
        /// Random traffic, at any mean distance: no silence is found in what goes on as it did.
        #[test]
        fn random_traffic_is_not_silent_while_it_goes_on(mean in 1_u64..40, seed in prop::collection::vec(1_u64..1000, 200)) {
            let mut seconds = Vec::new();
            for draw in seed {
                // Distances up to four times the shortest usual one.
                let distance = mean + mean * (draw % 4);
                seconds.push(2 + draw % 3);
                seconds.extend(std::iter::repeat_n(0, usize::try_from(distance).unwrap()));
            }
            prop_assert_eq!(silences(seconds), Vec::<u64>::new());
        }
    }
}
