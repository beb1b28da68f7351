//! How long overrides last on a gateway, which of them are over, and what is shown of them. Pure: times and plans are arguments.
//!
//! - Within a boot an override ends at a moment of the boot's clock, which nobody sets. A restart of the machine goes on with what was
//!   noted last, which is a little less than what was left: a device that was replaced is not cut off at 04:00 because of a power cut,
//!   and nothing lasts longer, in time that the machine runs, than was signed. Where the clock is synchronised, it also ends by that.
//! - It is over before that where the release that is in force for good says the same, or leaves nothing to override.
//!
//! Not here: what is written and when the kernel changes (`reconcile/overrides.rs`), and who may ([`penstock_policy::overrides`]).

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use penstock_policy::ids::{Digest, ZoneId};
use penstock_policy::overrides::{Authority, Effect, Fit, Override, fit};
use penstock_policy::plan::Plan;
use penstock_policy::text::bounded;
use penstock_proto::fault::{OVERRIDDEN, ZONES_MAX};
use penstock_proto::tls::times::instant;
use penstock_proto::v1::Fault;
use serde::{Deserialize, Serialize};

use crate::policy_store::overrides::{LastingOverride, OverrideEnd};
use crate::timepiece::Time;

/// Overrides that last at a time, at most.
pub const LASTING_MAX: usize = 4;
/// How often the disk hears how long they still last.
pub const NOTED_EVERY: Duration = Duration::from_secs(60);
/// What the disk has is what is left this much later: the next note is there by then.
const RESERVE: Duration = Duration::from_secs(75);
/// Numbers that were given out and not used, at most; the oldest gives way.
const NUMBERS_MAX: usize = 16;
/// How long a number can be used, on the boot's clock.
const NUMBER_LASTS: Duration = Duration::from_secs(24 * 3600);
/// Hexadecimal digits by which people name an override.
const SHORT: usize = 12;

impl LastingOverride {
    /// One that begins now, and is noted with it.
    pub fn begin(asked: Override, authority: Authority, by: String, boot: String, now: Time) -> Self {
        let (people, code) = match authority {
            Authority::People(people) => (people, None),
            Authority::Code(code) => (Vec::new(), Some(code)),
        };
        let mut begun = Self {
            ends_ms: milliseconds(now.boot).saturating_add(u64::from(asked.seconds) * 1000),
            asked,
            people,
            code,
            by,
            since_ms: now.wall_ms,
            boot,
            left_ms: 0,
            until_ms: None,
            ended: None,
        };
        begun.note(now);
        begun
    }

    /// The same in a boot that may be another one.
    pub fn resume(&mut self, boot: &str, now: Time) {
        let same = !self.boot.is_empty() && self.boot == boot;
        if !same {
            // All that this boot has run counts.
            (self.ends_ms, self.boot) = (self.left_ms, boot.to_owned());
        }
        self.note(now);
    }

    /// As it is to be written now.
    pub fn note(&mut self, now: Time) {
        let left = self.left(now);
        self.left_ms = milliseconds(left.saturating_sub(RESERVE));
        if now.synchronised && self.until_ms.is_none() {
            self.until_ms = Some(now.wall_ms.saturating_add(milliseconds(left)));
        }
    }

    /// How long it lasts yet, in the boot that it was resumed in.
    pub fn left(&self, now: Time) -> Duration {
        let by_boot = Duration::from_millis(self.ends_ms).saturating_sub(now.boot);
        match self.until_ms.filter(|_| now.synchronised) {
            Some(until) => by_boot.min(Duration::from_millis(until.saturating_sub(now.wall_ms))),
            None => by_boot,
        }
    }

    /// Why it is over, if it is: by time, or by the release that is in force for good.
    pub fn is_over(&self, in_force: Option<&Plan>, now: Time) -> Option<OverrideEnd> {
        let end = |code: &str, why: String| {
            Some(OverrideEnd {
                code: code.to_owned(),
                why,
            })
        };
        if self.left(now).is_zero() {
            return end("time", "its time is over".to_owned());
        }
        let plan = in_force?;
        let fits: Vec<_> = self
            .asked
            .effects
            .iter()
            .map(|effect| fit(plan, effect))
            .collect();
        if fits.contains(&Fit::Changes) {
            return None;
        }
        if fits.contains(&Fit::Already) {
            return end("ratified", "the release in force says the same".to_owned());
        }
        let why = fits.into_iter().find_map(|fit| match fit {
            Fit::Nothing(why) => Some(why),
            Fit::Already | Fit::Changes => None,
        });
        let why = format!("nothing is left to override: {}", why.unwrap_or_default());
        end("nothing-left", why)
    }
}

/// Numbers that this agent made, and that it takes once.
#[derive(Debug, Default)]
pub struct Numbers(VecDeque<(Digest, Duration)>);

impl Numbers {
    /// Gives out this one.
    pub fn give_out(&mut self, number: Digest, boot: Duration) {
        if self.0.len() >= NUMBERS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((number, boot));
    }

    /// Whether it can be used now.
    pub fn has(&self, number: Digest, boot: Duration) -> bool {
        let is_good =
            |(made, at): &(Digest, Duration)| *made == number && boot.saturating_sub(*at) < NUMBER_LASTS;
        self.0.iter().any(is_good)
    }

    /// It was used.
    pub fn take(&mut self, number: Digest) {
        self.0.retain(|(made, _)| *made != number);
    }
}

/// What others may know of an override that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownOverride {
    /// What was asked for.
    pub asked: Override,
    /// Who permitted it.
    pub authority: String,
    /// Who handed it in.
    pub by: String,
    /// When it began, milliseconds since 1970.
    pub since_ms: u64,
    /// When it ends, on the boot's clock.
    pub ends: Duration,
    /// When it ends, milliseconds since 1970.
    pub until_ms: u64,
    /// The kernel has it.
    pub in_kernel: bool,
}

impl ShownOverride {
    /// This one; `in_kernel`: the kernel has it.
    pub fn of(lasting: &LastingOverride, in_kernel: bool) -> Self {
        let by_its_own_clock = lasting
            .since_ms
            .saturating_add(u64::from(lasting.asked.seconds) * 1000);
        Self {
            authority: lasting.authority(),
            by: lasting.by.clone(),
            since_ms: lasting.since_ms,
            ends: Duration::from_millis(lasting.ends_ms),
            until_ms: lasting.until_ms.unwrap_or(by_its_own_clock),
            in_kernel,
            asked: lasting.asked.clone(),
        }
    }

    /// What the coordinator and health show. The words stay as they are while it lasts.
    pub fn fault(&self, plan: Option<&Plan>) -> Fault {
        let zones = plan.map(|plan| zones(plan, &self.asked.effects));
        let zones = zones.filter(|zones| zones.len() <= ZONES_MAX).unwrap_or_default();
        let Override { reason, ticket, .. } = &self.asked;
        let message = format!(
            "overridden until {} by {} ({}): {}; why: {}{}",
            instant(self.until_ms),
            self.authority,
            short(self.asked.number),
            in_words(&self.asked.effects),
            reason,
            ticket_in_words(ticket.as_deref()),
        );
        Fault {
            zones: zones.iter().map(ToString::to_string).collect(),
            ..Fault::new(
                OVERRIDDEN,
                bounded(&message, crate::audit::record::TEXT_BYTES_MAX).to_owned(),
            )
        }
    }
}

/// An override as a person at the gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideState {
    /// By which it is named.
    pub number: Digest,
    /// What it changes.
    pub effects: Vec<Effect>,
    /// Who permitted it.
    pub authority: String,
    /// Who handed it in.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What a change management calls it.
    pub ticket: Option<String>,
    /// When it began, milliseconds since 1970.
    pub since_ms: u64,
    /// When it ends, milliseconds since 1970.
    pub until_ms: u64,
    /// How long it lasts yet, milliseconds.
    pub left_ms: u64,
    /// Whether the kernel has it; `None`: not known.
    pub in_kernel: Option<bool>,
}

impl OverrideState {
    /// As an agent that runs shows it.
    pub fn of_shown(shown: &ShownOverride, boot: Duration) -> Self {
        Self {
            number: shown.asked.number,
            effects: shown.asked.effects.clone(),
            authority: shown.authority.clone(),
            by: shown.by.clone(),
            reason: shown.asked.reason.clone(),
            ticket: shown.asked.ticket.clone(),
            since_ms: shown.since_ms,
            until_ms: shown.until_ms,
            left_ms: milliseconds(shown.ends.saturating_sub(boot)),
            in_kernel: Some(shown.in_kernel),
        }
    }

    /// As the disk has it, where no agent says more: in a boot that is called so.
    pub fn of_stored(mut lasting: LastingOverride, boot: &str, now: Time) -> Self {
        lasting.resume(boot, now);
        Self {
            left_ms: milliseconds(lasting.left(now)),
            in_kernel: None,
            ..Self::of_shown(&ShownOverride::of(&lasting, false), now.boot)
        }
    }
}

impl fmt::Display for OverrideState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = short(self.number);
        write!(
            f,
            "{number}: {}; since {} until {}, {} min left; permitted by {}, begun by {}; why: {}{}",
            in_words(&self.effects),
            instant(self.since_ms),
            instant(self.until_ms),
            self.left_ms.div_ceil(60_000),
            self.authority,
            self.by,
            self.reason,
            ticket_in_words(self.ticket.as_deref()),
        )?;
        match self.in_kernel {
            Some(true) => write!(f, "; `penstock-agent override end {number}` ends it"),
            Some(false) => f.write_str("; NOT in the kernel: see the faults"),
            None if self.left_ms == 0 => f.write_str("; it is over when the agent starts"),
            None => f.write_str("; no agent runs that could say whether the kernel has it"),
        }
    }
}

/// What is so while it lasts.
pub fn in_words(effects: &[Effect]) -> String {
    let effects: Vec<_> = effects.iter().map(ToString::to_string).collect();
    effects.join("; ")
}

/// By which people name it.
pub fn short(number: Digest) -> String {
    let digits = number.to_string();
    let digits = digits.trim_start_matches("sha256:");
    bounded(digits, SHORT).to_owned()
}

/// Whether a person who wrote this means that number: its first digits, no fewer than six.
pub fn is_meant(written: &str, number: Digest) -> bool {
    let written = written.trim().trim_start_matches("sha256:").to_ascii_lowercase();
    let digits = number.to_string();
    written.len() >= 6 && digits.trim_start_matches("sha256:").starts_with(&written)
}

/// ` (T-9)`
pub fn ticket_in_words(ticket: Option<&str>) -> String {
    ticket.map_or_else(String::new, |ticket| format!(" ({ticket})"))
}

/// The zones on the sides that these concern; none: all.
fn zones(plan: &Plan, effects: &[Effect]) -> BTreeSet<ZoneId> {
    let mut zones = BTreeSet::new();
    for effect in effects {
        let addresses = match effect {
            Effect::Device { address, .. } => vec![*address],
            Effect::Observe { one, other } => vec![one.addr(), other.addr()],
            Effect::Unasked => return BTreeSet::new(),
        };
        let sides = plan.interfaces.iter();
        for side in sides.filter(|side| addresses.iter().any(|address| side.holds(*address))) {
            zones.insert(side.zone.clone());
            zones.extend(side.behind.iter().cloned());
        }
    }
    zones
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
