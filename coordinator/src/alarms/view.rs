//! Alarms as operators and panels see them.

use std::sync::OnceLock;

use bytes::Bytes;
use penstock_proto::v1;

use super::AlarmKey;
use super::common_causes::{CommonCause, common_causes};
use super::load::Counts;
use super::machine::{AlarmRecord, Machine, Step};
use crate::frame::frame;

/// The alarms of a plant at one moment, and as they go to all who watch them: the message is made once, when somebody wants it.
#[derive(Debug, Default)]
pub(crate) struct PublishedAlarms {
    alarms: v1::PlantAlarms,
    frame: OnceLock<Bytes>,
}

impl PublishedAlarms {
    pub(crate) fn new(alarms: v1::PlantAlarms) -> Self {
        let frame = OnceLock::new();
        Self { alarms, frame }
    }

    /// Them.
    pub(crate) fn alarms(&self) -> &v1::PlantAlarms {
        &self.alarms
    }

    /// As they go out.
    pub(crate) fn frame(&self) -> Bytes {
        self.frame.get_or_init(|| frame(&self.alarms)).clone()
    }
}

/// One alarm.
pub(crate) fn alarm(key: &AlarmKey, record: &AlarmRecord) -> v1::Alarm {
    v1::Alarm {
        state: record.state.as_str().to_owned(),
        priority: record.priority.as_str().to_owned(),
        since_ms: record.since_ms,
        raised_ms: record.raised_ms,
        message: record.message.clone(),
        by: record.by.name.clone(),
        by_topic: record.by.by_topic,
        reason: record.reason.clone(),
        until_ms: record.until_ms,
        gateways: record.gateways.iter().map(ToString::to_string).collect(),
        safety: record.is_safety,
        ..described(key)
    }
}

/// One that is normal again by a step.
pub(crate) fn after(step: &Step) -> v1::Alarm {
    match &step.after {
        Some(record) => alarm(&step.key, record),
        None => v1::Alarm {
            state: "normal".to_owned(),
            priority: step.priority.as_str().to_owned(),
            message: step.message.clone(),
            by: step.by.name.clone(),
            by_topic: step.by.by_topic,
            ..described(&step.key)
        },
    }
}

/// What is the same of all alarms of a place and cause.
pub(crate) fn described(key: &AlarmKey) -> v1::Alarm {
    let minutes = key.cause.respond_within().as_secs() / 60;
    v1::Alarm {
        zone: key.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        cause: key.cause.to_string(),
        consequence: key.cause.consequence().to_owned(),
        action: key.cause.action().to_owned(),
        respond_minutes: u32::try_from(minutes).unwrap_or(u32::MAX),
        ..v1::Alarm::default()
    }
}

/// All of them: those that ask for somebody first, the gravest first.
pub(crate) fn plant(machine: &Machine, counts: Counts, now_ms: u64) -> v1::PlantAlarms {
    let mut records: Vec<_> = machine.records().iter().collect();
    records.sort_by_key(|(key, record)| (record.state, record.priority, key.cause, record.raised_ms));
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::PlantAlarms {
        time_ms: now_ms,
        alarms: records
            .into_iter()
            .map(|(key, record)| alarm(key, record))
            .collect(),
        common: common_causes(machine.records()).iter().map(common).collect(),
        load: Some(v1::AlarmLoad {
            ten_minutes: number(counts.ten_minutes),
            hour: number(counts.hour),
            day: number(counts.day),
            flood: counts.flood,
        }),
    }
}

fn common(common: &CommonCause) -> v1::CommonCause {
    v1::CommonCause {
        cause: common.cause.to_string(),
        gateway: common.gateway.to_string(),
        zones: common.zones.iter().map(ToString::to_string).collect(),
        message: common.words(),
    }
}

/// A step, for the trail.
pub(crate) fn event(step: &Step) -> v1::AlarmEvent {
    v1::AlarmEvent {
        step: step.word.to_owned(),
        zone: step
            .key
            .zone
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        cause: step.key.cause.to_string(),
        state: step.state().to_owned(),
        priority: step.priority.as_str().to_owned(),
        message: step.message.clone(),
        by: step.by.name.clone(),
        by_topic: step.by.by_topic,
        reason: step.reason.clone(),
        until_ms: step.after.as_ref().map_or(0, |after| after.until_ms),
    }
}
