//! How much alarms ask of whoever is on shift, against what people can bear (EEMUA 191, ISA-18.2): about 150 a day, six an hour, one in ten
//! minutes; a flood begins above ten in ten minutes and ends below five.
//!
//! It is counted since the coordinator started. What has one cause and comes from one gateway within ten minutes counts once.

use std::collections::VecDeque;

use super::machine::Step;

const MINUTE_MS: u64 = 60_000;
const TEN_MINUTES_MS: u64 = 10 * MINUTE_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// A flood begins above so many within ten minutes ...
const FLOOD_ABOVE: usize = 10;
/// ... and ends below so many.
const FLOOD_BELOW: usize = 5;
/// Alarms that are remembered.
const RAISES_MAX: usize = 8192;

/// An alarm that asked for attention.
#[derive(Debug, Clone)]
struct Raise {
    at_ms: u64,
    step: Step,
}

/// The alarms of the last day.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load {
    raises: VecDeque<Raise>,
    flood: bool,
}

/// How many there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ten_minutes: usize,
    pub(crate) hour: usize,
    pub(crate) day: usize,
    pub(crate) flood: bool,
}

impl Load {
    /// Counts a step.
    pub(crate) fn count(&mut self, step: &Step, now_ms: u64) {
        if !step.is_raise() || self.is_known(step, now_ms) {
            return;
        }
        self.raises.push_back(Raise {
            at_ms: now_ms,
            step: step.clone(),
        });
        if self.raises.len() > RAISES_MAX {
            self.raises.pop_front();
        }
    }

    /// Whether one of the same cause from one of its gateways, of another place, was counted within ten minutes.
    fn is_known(&self, step: &Step, now_ms: u64) -> bool {
        let gateways = |step: &Step| step.after.as_ref().map(|after| after.gateways.clone());
        let Some(own) = gateways(step) else { return false };
        let recent = self.raises.iter().rev();
        recent
            .take_while(|raise| now_ms.saturating_sub(raise.at_ms) < TEN_MINUTES_MS)
            .filter(|raise| raise.step.key.cause == step.key.cause && raise.step.key != step.key)
            .any(|raise| gateways(&raise.step).is_some_and(|others| !others.is_disjoint(&own)))
    }

    /// How many there were until now.
    pub(crate) fn counts(&mut self, now_ms: u64) -> Counts {
        // Of a clock that was set back nothing is counted twice: what seems to come is kept as new.
        let age = |raise: &Raise| now_ms.saturating_sub(raise.at_ms);
        while self.raises.front().is_some_and(|raise| age(raise) >= DAY_MS) {
            self.raises.pop_front();
        }
        let within = |ms: u64| self.raises.iter().filter(|raise| age(raise) < ms).count();
        let ten_minutes = within(TEN_MINUTES_MS);
        self.flood = match self.flood {
            true => ten_minutes >= FLOOD_BELOW,
            false => ten_minutes > FLOOD_ABOVE,
        };
        Counts {
            ten_minutes,
            hour: within(HOUR_MS),
            day: self.raises.len(),
            flood: self.flood,
        }
    }
}
