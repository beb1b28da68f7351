//! What is published of a gateway's health, as JSON. Fields are only added; another meaning gets another `schema`.

use std::time::Duration;

use serde::Serialize;

use crate::zones::{GatewayHealth, ZoneState};

/// The form.
const SCHEMA: &str = "penstock-gateway-health/1";

/// A document, and what of it is worth to be published at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// The JSON.
    pub(super) text: Vec<u8>,
    /// The same without time and counts.
    pub(super) key: Vec<u8>,
}

#[derive(Debug, Serialize)]
struct Gateway<'a> {
    schema: &'static str,
    plant: &'a str,
    gateway: &'a str,
    time_ms: u64,
    state: &'static str,
    revision: Option<u64>,
    trial: Option<u64>,
    drift: bool,
    overrides: usize,
    hold: bool,
    /// Since when there is a session with a coordinator; null: there is none.
    session_since_ms: Option<u64>,
    denied_last_minute: u64,
    must_flows: usize,
    must_flows_silent: usize,
    zones: Vec<Zone<'a>>,
    faults: Vec<ShownFault<'a>>,
}

#[derive(Debug, Serialize)]
struct Zone<'a> {
    zone: &'a str,
    state: &'static str,
    since_ms: u64,
    mode: &'static str,
    denied_last_minute: u64,
    would_deny_last_minute: u64,
    must_flows_silent: usize,
    faults: usize,
}

#[derive(Debug, Serialize)]
struct ShownFault<'a> {
    code: &'a str,
    message: &'a str,
    zones: &'a [String],
}

impl Document {
    /// Of this health.
    pub(super) fn of(health: &GatewayHealth) -> Self {
        // When a session began is computed from a moving clock, so that only whether it stands counts as a change.
        let since_ms = |since: Duration| {
            let ago = health.now.saturating_sub(since).as_millis();
            health
                .now_ms
                .saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX))
        };
        let zones = health.zones.iter().map(|zone| Zone {
            zone: zone.zone.as_str(),
            state: zone.state.as_str(),
            since_ms: zone.since_ms,
            mode: zone.mode.as_str(),
            denied_last_minute: zone.denied,
            would_deny_last_minute: zone.would_deny,
            must_flows_silent: zone.silent,
            faults: zone.faults,
        });
        let faults = health.faults.iter().map(|fault| ShownFault {
            code: &fault.code,
            message: &fault.message,
            zones: &fault.zones,
        });
        let mut gateway = Gateway {
            schema: SCHEMA,
            plant: &health.plant,
            gateway: &health.gateway,
            time_ms: health.now_ms,
            state: ZoneState::as_str(health.state),
            revision: health.revision,
            trial: health.trial,
            drift: health.drift,
            overrides: health.overrides,
            hold: health.hold,
            session_since_ms: health.session.map(since_ms),
            denied_last_minute: health.denied,
            must_flows: health.must_flows,
            must_flows_silent: health.silent,
            zones: zones.collect(),
            faults: faults.collect(),
        };
        // Names, numbers and texts cannot fail to be JSON.
        let text = serde_json::to_vec(&gateway).unwrap_or_default();
        (gateway.time_ms, gateway.denied_last_minute) = (0, 0);
        gateway.session_since_ms = health.session.map(|_| 0);
        for zone in &mut gateway.zones {
            (zone.denied_last_minute, zone.would_deny_last_minute) = (0, 0);
        }
        let key = serde_json::to_vec(&gateway).unwrap_or_default();
        Self { text, key }
    }
}
