//! How alarms of the control room behave.

use std::collections::BTreeMap;
use std::time::Duration;

use penstock_policy::ids::ZoneId;
use serde::Deserialize;

use super::ConfigError;
use crate::alarms::desk::AlarmSettings;
use crate::alarms::machine::Delays;

/// Section `alarms`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlarmsFile {
    /// How long a condition stands before it is raised, seconds.
    pub on_seconds: u32,
    /// How long it is away before it is over, seconds.
    pub off_seconds: u32,
    /// For how long nothing may be known of a zone's gateways before that is an alarm, minutes.
    pub dark_minutes: u32,
    /// The same for single zones.
    pub dark_zones: BTreeMap<ZoneId, u32>,
}

impl Default for AlarmsFile {
    fn default() -> Self {
        Self {
            on_seconds: 5,
            off_seconds: 30,
            dark_minutes: 15,
            dark_zones: BTreeMap::new(),
        }
    }
}

impl AlarmsFile {
    /// Checks the values.
    pub(super) fn check(&self) -> Result<AlarmSettings, ConfigError> {
        let within = |key, value: u32, most: u32| match value <= most {
            true => Ok(u64::from(value)),
            false => Err(ConfigError::Value {
                key,
                what: format!("is more than {most}"),
            }),
        };
        let dark =
            |key, minutes| within(key, minutes, 525_600).map(|minutes| Duration::from_secs(60 * minutes));
        let zones = self.dark_zones.iter();
        Ok(AlarmSettings {
            delays: Delays {
                on: Duration::from_secs(within("alarms.on_seconds", self.on_seconds, 600)?),
                off: Duration::from_secs(within("alarms.off_seconds", self.off_seconds, 3600)?),
            },
            dark: dark("alarms.dark_minutes", self.dark_minutes)?,
            dark_zones: zones
                .map(|(zone, minutes)| Ok((zone.clone(), dark("alarms.dark_zones", *minutes)?)))
                .collect::<Result<_, ConfigError>>()?,
        })
    }
}
