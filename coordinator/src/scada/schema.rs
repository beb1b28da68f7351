//! What is published, as JSON. `docs/scada.schema.json` is made from this.

use schemars::JsonSchema;
use serde::Serialize;

/// One message of any topic but `online`, which is `true` or `false`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "schema")]
pub enum Published {
    /// `<prefix>/<plant>/zone/<zone>/health`.
    #[serde(rename = "penstock.scada-health/1")]
    Health(ZoneHealth),
    /// `<prefix>/<plant>/alarm/<zone>/<cause>`.
    #[serde(rename = "penstock.scada-alarm/1")]
    Alarm(Box<AlarmMessage>),
    /// `<prefix>/<plant>/alarms`.
    #[serde(rename = "penstock.scada-alarms/1")]
    Alarms(AlarmsMessage),
}

/// How well a zone is guarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ZoneHealth {
    /// The zone.
    pub zone: String,
    /// `enforcing`, `observing`, `degraded`, `stale`, `unprotected` or `unknown`.
    pub state: String,
    /// Why; never empty.
    pub reasons: Vec<String>,
    /// The gateways that guard it.
    pub gateways: Vec<String>,
    /// The release that holds; 0 before the first.
    pub revision: u64,
}

/// An alarm, also one that is normal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AlarmMessage {
    /// The zone; `_plant`: the whole plant.
    pub zone: String,
    /// `must-flow`, `unprotected`, `refused-write`, `drift`, `rollout`, `trail` or `stale`.
    pub cause: String,
    /// `normal`, `unacknowledged`, `acknowledged`, `returned`, `shelved`, `suppressed` or `out-of-service`.
    pub state: String,
    /// `high`, `medium` or `low`; absent of one that is normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Since when it is in this state (RFC 3339); absent of one that is normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When it was raised last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised: Option<String>,
    /// What is wrong; empty of one that is normal.
    pub message: String,
    /// What comes of it if nobody does anything.
    pub consequence: String,
    /// What to do.
    pub action: String,
    /// Within how many minutes somebody should respond.
    pub respond_minutes: u32,
    /// Who acknowledged it, shelved it or took it out of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// They did it by topic: nothing proves the name.
    pub by_topic: bool,
    /// Why they did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When one that is shelved or suppressed comes back at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The gateways from which it comes.
    pub gateways: Vec<String>,
    /// It is of a safety zone.
    pub safety: bool,
    /// What it has in common with others, for instance "3 zones: gw-office lost".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_cause: Option<String>,
}

/// All alarms in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AlarmsMessage {
    /// How many are in this state.
    pub unacknowledged: u32,
    /// How many are in this state.
    pub acknowledged: u32,
    /// How many are in this state.
    pub returned: u32,
    /// How many are in this state.
    pub shelved: u32,
    /// How many are in this state.
    pub suppressed: u32,
    /// How many are in this state.
    pub out_of_service: u32,
    /// The highest priority of those that stand or returned unacknowledged: `high`, `medium` or `low`; absent: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest: Option<String>,
    /// What several have in common.
    pub common_causes: Vec<String>,
    /// How many asked for attention within ten minutes, an hour and a day; what has one common cause counts once.
    pub raised_ten_minutes: u32,
    /// Within an hour.
    pub raised_hour: u32,
    /// Within a day.
    pub raised_day: u32,
    /// More than ten within ten minutes, until it is fewer than five.
    pub flood: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    #[test]
    fn the_schema_in_the_documentation_is_that_of_what_is_published() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scada.schema.json");
        let made = serde_json::to_string_pretty(&schemars::schema_for!(super::Published)).unwrap() + "\n";
        if std::env::var_os("PENSTOCK_UPDATE_GOLDENS").is_some() {
            std::fs::write(&file, &made).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), made);
    }
}
