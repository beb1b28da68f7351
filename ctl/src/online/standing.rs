//! How a gateway stands to the release that it was ordered: judged in shadow, held, on trial, or back; as the gateway says, in words.

use penstock_proto::v1::policy_standing::State;
use penstock_proto::v1::{HoldReason, PolicyStanding};
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::Tone;
use crate::words;

/// Flows that are named of those that shadow would refuse something.
const FLOWS: usize = 3;

/// How a gateway stands to the release that it was ordered last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StandingLine {
    /// The release.
    pub revision: u64,
    /// `shadow`, `held`, `trial` or `reverted`.
    pub state: String,
    /// Of `held`: `window`, `interlock`, `person`, `clock`, `not-cleared`, `zone` or `unknown`. Of `reverted`: why, as a stable word. Else empty.
    pub code: String,
    /// In the gateway's words; may be empty.
    pub message: String,
    /// Until when it is held at the earliest, milliseconds since 1970; 0: not known, or not held.
    pub until_ms: u64,
    /// Milliseconds of its trial that are left.
    pub left_ms: u64,
    /// Its trial can be confirmed.
    pub confirmable: bool,
    /// When it went back, by its own clock, or since when it judges in shadow, milliseconds since 1970; 0: neither.
    pub at_ms: u64,
    /// What shadow counted; absent where it is not in shadow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowLine>,
}

/// What enforcing a release would have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ShadowLine {
    /// Packets that passed and were judged.
    pub judged_packets: u64,
    /// Packets that would not pass.
    pub would_deny_packets: u64,
    /// Operations that would not pass.
    pub would_deny_operations: u64,
    /// Connections that would be ended.
    pub would_cut_connections: u64,
    /// Flows that would be refused something, those that must not stop first.
    pub flows: Vec<String>,
    /// Flows beyond those that are named.
    pub further_flows: u32,
    /// A flow that must not stop is among them.
    pub cuts_must_flow: bool,
    /// What cannot be judged beside live traffic; empty: nothing.
    pub not_judged: String,
}

impl ShadowLine {
    /// It would change nothing, as far as can be judged.
    fn is_harmless(&self) -> bool {
        self.would_deny_packets == 0 && self.would_deny_operations == 0 && self.would_cut_connections == 0
    }

    fn words(&self) -> String {
        let judged = format!("{} judged", words::count_u64(self.judged_packets, "packet"));
        if self.is_harmless() {
            return format!("{judged}, nothing would be refused{}", self.not_judged_words());
        }
        let mut would = Vec::new();
        for (count, what) in [
            (self.would_deny_packets, "packet"),
            (self.would_deny_operations, "operation"),
        ] {
            if count > 0 {
                would.push(format!("{} refused", words::count_u64(count, what)));
            }
        }
        if self.would_cut_connections > 0 {
            would.push(format!(
                "{} cut",
                words::count_u64(self.would_cut_connections, "connection")
            ));
        }
        let named: Vec<&str> = self.flows.iter().take(FLOWS).map(String::as_str).collect();
        let further = self.flows.len().saturating_sub(FLOWS) + self.further_flows as usize;
        let flows = match (named.is_empty(), further) {
            (true, _) => String::new(),
            (false, 0) => format!(" ({})", named.join(", ")),
            (false, more) => format!(" ({} and {more} more)", named.join(", ")),
        };
        let must = match self.cuts_must_flow {
            true => "; A FLOW THAT MUST NOT STOP IS AMONG THEM",
            false => "",
        };
        format!(
            "{judged}, would be: {}{flows}{must}{}",
            would.join(", "),
            self.not_judged_words()
        )
    }

    fn not_judged_words(&self) -> String {
        match self.not_judged.as_str() {
            "" => String::new(),
            what => format!("; not judged: {what}"),
        }
    }
}

fn hold_word(reason: i32) -> &'static str {
    match HoldReason::try_from(reason) {
        Ok(HoldReason::Window) => "window",
        Ok(HoldReason::Interlock) => "interlock",
        Ok(HoldReason::Person) => "person",
        Ok(HoldReason::Clock) => "clock",
        Ok(HoldReason::NotCleared) => "not-cleared",
        Ok(HoldReason::Zone) => "zone",
        Ok(HoldReason::NoSession) => "no-session",
        Ok(HoldReason::Unspecified) | Err(_) => "unknown",
    }
}

/// Who or what holds a gateway.
fn holder(code: &str) -> &'static str {
    match code {
        "window" => "its window is closed",
        "interlock" => "the process does not say that it is safe",
        "person" => "a person on site holds it",
        "clock" => "its clock cannot be trusted",
        "not-cleared" => "too many releases that went back are not cleared",
        "zone" => "it does not know the time zone of its windows",
        "no-session" => "it has no session in which its trial could be confirmed",
        _ => "it does not say why",
    }
}

impl StandingLine {
    /// As it came; `None` where there is nothing to say beyond what is staged and effective.
    pub(crate) fn of(standing: &PolicyStanding) -> Option<Self> {
        let mut line = Self {
            revision: standing.revision,
            state: String::new(),
            code: String::new(),
            message: String::new(),
            until_ms: 0,
            left_ms: 0,
            confirmable: false,
            at_ms: 0,
            shadow: None,
        };
        match standing.state.as_ref()? {
            State::Shadow(shadow) => {
                "shadow".clone_into(&mut line.state);
                line.at_ms = shadow.since_ms;
                line.shadow = Some(ShadowLine {
                    judged_packets: shadow.judged_packets,
                    would_deny_packets: shadow.would_deny_packets,
                    would_deny_operations: shadow.would_deny_operations,
                    would_cut_connections: shadow.would_cut_connections,
                    flows: shadow.flows.clone(),
                    further_flows: shadow.further_flows,
                    cuts_must_flow: shadow.cuts_must_flow,
                    not_judged: shadow.not_judged.clone(),
                });
            }
            State::Held(held) => {
                "held".clone_into(&mut line.state);
                hold_word(held.reason).clone_into(&mut line.code);
                line.message.clone_from(&held.message);
                line.until_ms = held.until_ms;
            }
            State::Trial(trial) => {
                "trial".clone_into(&mut line.state);
                line.left_ms = trial.left_ms;
                line.confirmable = trial.confirmable;
            }
            State::Reverted(reverted) => {
                "reverted".clone_into(&mut line.state);
                line.code.clone_from(&reverted.code);
                line.message.clone_from(&reverted.message);
                line.at_ms = reverted.at_ms;
            }
        }
        Some(line)
    }

    /// In a few words without times, so that gateways that are alike read alike.
    pub(crate) fn brief(&self) -> (Tone, String) {
        let revision = self.revision;
        match self.state.as_str() {
            "shadow" => match self.shadow.as_ref().is_none_or(ShadowLine::is_harmless) {
                true => (Tone::Plain, format!("judges r{revision} in shadow")),
                false => (
                    Tone::Warn,
                    format!("judges r{revision} in shadow, which would refuse something"),
                ),
            },
            "held" => (Tone::Warn, format!("r{revision} is held: {}", holder(&self.code))),
            "trial" => (Tone::Warn, format!("r{revision} is on trial")),
            _ => (Tone::Bad, format!("went back from r{revision} ({})", self.code)),
        }
    }

    /// All of it, seen from `now_ms`.
    pub(crate) fn words(&self, now_ms: u64) -> (Tone, String) {
        let revision = self.revision;
        let (tone, brief) = self.brief();
        let message = match self.message.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let said = match self.state.as_str() {
            "shadow" => {
                let shadow = self.shadow.as_ref().map(ShadowLine::words).unwrap_or_default();
                format!(
                    "judges r{revision} in shadow since {}: {shadow}",
                    words::span(now_ms.saturating_sub(self.at_ms))
                )
            }
            "held" => {
                let until = match self.until_ms {
                    0 => String::new(),
                    until => format!(", until {} at the earliest", words::when(until, now_ms)),
                };
                format!("{brief}{until}{message}")
            }
            "trial" => {
                let confirmable = match self.confirmable {
                    true => "it can be confirmed",
                    false => "it cannot be confirmed yet",
                };
                format!("{brief}: {} left, {confirmable}", words::span(self.left_ms))
            }
            _ => format!(
                "{brief} {}{message}; it refuses r{revision} until a person on site clears that",
                words::relative(self.at_ms, now_ms)
            ),
        };
        (tone, said)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use penstock_proto::v1::{Held, OnTrial, Reverted, Shadowed};

    use super::*;

    fn line(state: State) -> StandingLine {
        StandingLine::of(&PolicyStanding {
            order: 3,
            revision: 6,
            state: Some(state),
            ..PolicyStanding::default()
        })
        .unwrap()
    }

    #[test]
    fn how_a_gateway_stands_to_its_release_is_said_with_what_it_wants() {
        let held = line(State::Held(Held {
            reason: HoldReason::Window.into(),
            message: "opens Sun 02:00".to_owned(),
            until_ms: 7_200_000,
        }));
        assert_eq!(
            held.words(0).1,
            "r6 is held: its window is closed, until 1970-01-01T02:00:00Z (in 2 h) at the earliest: opens Sun 02:00"
        );
        let trial = |confirmable| {
            line(State::Trial(OnTrial {
                elapsed_ms: 1,
                left_ms: 240_000,
                confirmable,
            }))
        };
        assert_eq!(
            trial(true).words(0).1,
            "r6 is on trial: 4 min left, it can be confirmed"
        );
        assert_eq!(
            trial(false).words(0).1,
            "r6 is on trial: 4 min left, it cannot be confirmed yet"
        );
        let back = line(State::Reverted(Reverted {
            code: "must-flow".to_owned(),
            message: "control/polling is silent".to_owned(),
            at_ms: 0,
            ordered: false,
        }));
        assert_eq!(
            back.words(180_000),
            (
                Tone::Bad,
                "went back from r6 (must-flow) 3 min ago: control/polling is silent; it refuses r6 until a person on site clears that"
                    .to_owned()
            )
        );
    }

    #[test]
    fn shadow_says_what_would_be_refused_and_what_it_could_not_judge() {
        let shadow = |would_deny_packets, not_judged: &str| {
            line(State::Shadow(Shadowed {
                since_ms: 0,
                judged_packets: 1_000,
                would_deny_packets,
                would_cut_connections: would_deny_packets,
                flows: ["a/1", "a/2", "a/3", "a/4"].map(str::to_owned).to_vec(),
                further_flows: 2,
                cuts_must_flow: true,
                not_judged: not_judged.to_owned(),
                ..Shadowed::default()
            }))
        };
        assert_eq!(
            shadow(0, "TLS").words(60_000).1,
            "judges r6 in shadow since 60 s: 1000 packets judged, nothing would be refused; not judged: TLS"
        );
        assert_eq!(
            shadow(1, "").words(60_000).1,
            "judges r6 in shadow since 60 s: 1000 packets judged, would be: 1 packet refused, 1 connection cut (a/1, a/2, a/3 and 3 \
             more); A FLOW THAT MUST NOT STOP IS AMONG THEM"
        );
        assert_eq!(shadow(1, "").brief().0, Tone::Warn);
    }

    #[test]
    fn a_gateway_that_only_has_an_order_says_nothing_more() {
        assert_eq!(StandingLine::of(&PolicyStanding::default()), None);
    }
}
