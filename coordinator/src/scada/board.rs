//! What each topic should say. Pure: from health and alarms to messages.

use std::collections::BTreeMap;

use bytes::Bytes;
use penstock_policy::ids::ZoneId;
use penstock_proto::v1;

use super::PlantState;
use super::schema::{AlarmMessage, AlarmsMessage, Published, ZoneHealth};
use crate::alarms::{AlarmKey, Cause, PLANT, view};

/// The messages of a plant by their topics, which begin with `root`.
pub(super) fn board(root: &str, state: &PlantState) -> BTreeMap<String, Bytes> {
    let (health, alarms) = (state.health(), state.alarms());
    let mut all = BTreeMap::new();
    let mut say = |topic: String, published: &Published| {
        // These are plain texts and numbers, which always become JSON.
        if let Ok(text) = serde_json::to_vec(published) {
            all.insert(format!("{root}/{topic}"), Bytes::from(text));
        }
    };
    for zone in &health.zones {
        let published = Published::Health(ZoneHealth {
            zone: zone.zone.clone(),
            state: state_word(zone.state()).to_owned(),
            reasons: zone.reasons.clone(),
            gateways: zone.gateways.clone(),
            revision: health.current_revision,
        });
        say(format!("zone/{}/health", zone.zone), &published);
    }
    for (key, alarm) in every_alarm(state) {
        let common = common_of(alarms, &alarm);
        let published = Published::Alarm(Box::new(message(&key, alarm, common)));
        say(format!("alarm/{}/{}", key.place(), key.cause), &published);
    }
    say("alarms".to_owned(), &Published::Alarms(in_numbers(alarms)));
    all
}

/// The alarm of each place and cause, also where it is normal.
pub(super) fn every_alarm(state: &PlantState) -> BTreeMap<AlarmKey, v1::Alarm> {
    let zones = state.health().zones.iter();
    let zones = zones.filter_map(|zone| ZoneId::new(zone.zone.as_str()).ok());
    let of_zones = zones.flat_map(|zone| {
        let causes = Cause::ALL.into_iter().filter(|cause| *cause != Cause::Rollout);
        causes.map(move |cause| AlarmKey::of_zone(&zone, cause))
    });
    let keys = of_zones.chain([Cause::Rollout, Cause::Trail].map(AlarmKey::of_plant));
    let mut all: BTreeMap<AlarmKey, v1::Alarm> = keys
        .map(|key| {
            let normal = v1::Alarm {
                state: "normal".to_owned(),
                ..view::described(&key)
            };
            (key, normal)
        })
        .collect();
    for alarm in &state.alarms().alarms {
        if let Some(key) = AlarmKey::of_words(&alarm.zone, &alarm.cause) {
            all.insert(key, alarm.clone());
        }
    }
    all
}

/// The word of a zone's state.
pub(super) fn state_word(state: v1::ZoneState) -> &'static str {
    match state {
        v1::ZoneState::Enforcing => "enforcing",
        v1::ZoneState::Observing => "observing",
        v1::ZoneState::Degraded => "degraded",
        v1::ZoneState::Stale => "stale",
        v1::ZoneState::Unprotected => "unprotected",
        v1::ZoneState::Unknown | v1::ZoneState::Unspecified => "unknown",
    }
}

fn common_of(alarms: &v1::PlantAlarms, alarm: &v1::Alarm) -> Option<String> {
    let of = |common: &&v1::CommonCause| common.cause == alarm.cause && common.zones.contains(&alarm.zone);
    let is_seen = matches!(alarm.state.as_str(), "unacknowledged" | "acknowledged");
    let common = alarms.common.iter().find(of).filter(|_| is_seen)?;
    Some(common.message.clone())
}

fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn instant(ms: u64) -> Option<String> {
    let ms = i64::try_from(ms).ok().filter(|ms| *ms > 0)?;
    let stamp = jiff::Timestamp::from_millisecond(ms).ok()?;
    Some(stamp.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

fn message(key: &AlarmKey, alarm: v1::Alarm, common_cause: Option<String>) -> AlarmMessage {
    let is_normal = alarm.state == "normal";
    AlarmMessage {
        zone: key.place().to_owned(),
        cause: alarm.cause,
        state: alarm.state,
        priority: said(alarm.priority).filter(|_| !is_normal),
        since: instant(alarm.since_ms),
        raised: instant(alarm.raised_ms),
        message: alarm.message,
        consequence: alarm.consequence,
        action: alarm.action,
        respond_minutes: alarm.respond_minutes,
        by: said(alarm.by),
        by_topic: alarm.by_topic,
        reason: said(alarm.reason),
        until: instant(alarm.until_ms),
        gateways: alarm.gateways,
        safety: alarm.safety,
        common_cause,
    }
}

fn in_numbers(alarms: &v1::PlantAlarms) -> AlarmsMessage {
    let of = |state: &str| {
        let count = alarms.alarms.iter().filter(|alarm| alarm.state == state).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let asking = alarms.alarms.iter().filter(|alarm| {
        matches!(
            alarm.state.as_str(),
            "unacknowledged" | "acknowledged" | "returned"
        )
    });
    let rank = |alarm: &&v1::Alarm| {
        ["high", "medium", "low"]
            .iter()
            .position(|word| alarm.priority == *word)
    };
    let load = alarms.load.unwrap_or_default();
    AlarmsMessage {
        unacknowledged: of("unacknowledged"),
        acknowledged: of("acknowledged"),
        returned: of("returned"),
        shelved: of("shelved"),
        suppressed: of("suppressed"),
        out_of_service: of("out-of-service"),
        highest: asking.min_by_key(rank).map(|alarm| alarm.priority.clone()),
        common_causes: alarms
            .common
            .iter()
            .map(|common| common.message.clone())
            .collect(),
        raised_ten_minutes: load.ten_minutes,
        raised_hour: load.hour,
        raised_day: load.day,
        flood: load.flood,
    }
}

/// Place and cause of the topic by which an alarm is acknowledged.
pub(super) fn acknowledged(root: &str, topic: &str) -> Option<AlarmKey> {
    let words = topic
        .strip_prefix(root)?
        .strip_prefix("/alarm/")?
        .strip_suffix("/ack")?;
    let (place, cause) = words.split_once('/')?;
    let key = AlarmKey::of_words(place, cause)?;
    // Nothing else than what is published under that name.
    (key.place() == place && (place == PLANT || key.zone.is_some())).then_some(key)
}
