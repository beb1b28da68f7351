//! Faults in words: what the gateway reports, the coordinator judges and people read.

use crate::v1::Fault;

/// The code under which a gateway reports what people in front of it override, one fault for each override.
pub const OVERRIDDEN: &str = "overridden";
/// The codes of faults by which it is certain that the kernel does not hold the policy: its zones are unprotected.
pub const OF_OPEN: [&str; 2] = ["kernel-failed", "rules-gone"];
/// The codes of faults of what shows zones to panels and the SCADA, not of what guards them: they are shown, degrade no zone and fail no release.
pub const OF_SHOWING: [&str; 3] = ["panel-not-served", "panel-client-elsewhere", "scada-not-reached"];
/// The codes of faults of trails, at the coordinator and on the gateway's disk: they are shown and degrade zones, and are no release's doing.
pub const OF_TRAILS: [&str; 2] = ["trails-rewritten", "spool-set-back"];
/// Flows named in one fault at most, those first that must flow; further ones are counted.
pub const FLOWS_MAX: usize = 64;
/// As many of them stand in a sentence.
const FLOWS_SAID: usize = 8;
/// Zones named in one fault at most; one that concerns more concerns all.
pub const ZONES_MAX: usize = 16;

impl Fault {
    /// A fault that concerns all zones at its gateway's boundary.
    pub fn new(code: &str, message: String) -> Self {
        Self {
            code: code.to_owned(),
            message,
            ..Self::default()
        }
    }

    /// Whether people in front of the gateway override what it enforces.
    pub fn is_override(&self) -> bool {
        self.code == OVERRIDDEN
    }
}

/// "; flows supply/polling, supply/alarms and 4 more"; nothing where no flow is named.
pub fn flows_in_words(flows: &[String], further: u32) -> String {
    if flows.is_empty() {
        return String::new();
    }
    let noun = if flows.len() == 1 && further == 0 {
        "flow"
    } else {
        "flows"
    };
    let said = flows.get(..FLOWS_SAID).unwrap_or(flows);
    let unsaid = u32::try_from(flows.len() - said.len()).unwrap_or(u32::MAX);
    let more = match further.saturating_add(unsaid) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; {noun} {}{more}", said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flows_concerned_are_named_and_those_beyond_are_counted() {
        let flows = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(flows_in_words(&[], 0), "");
        assert_eq!(flows_in_words(&flows(&["a/b"]), 0), "; flow a/b");
        assert_eq!(
            flows_in_words(&flows(&["a/b", "a/c"]), 4),
            "; flows a/b, a/c and 4 more"
        );
        assert_eq!(
            flows_in_words(&flows(&["a/b"; 11]), 4),
            format!("; flows {} and 7 more", ["a/b"; 8].join(", "))
        );
    }
}
