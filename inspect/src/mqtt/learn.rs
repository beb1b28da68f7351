//! What is proposed for packets that were seen, and whether rules permit it already.

use std::collections::BTreeMap;

use penstock_policy::protocol::LimitSet;

use super::judge::MqttRules;
use super::operation::{self, CLIENT_IDS, QOS, RETAIN, TOPICS, USERS};
use crate::learn::{EntryKey, EntrySeen, Lesson};
use crate::operation::Operation;
use crate::protocols::Confirmation;

/// A line for each topic; a will needs the same as a publication to its topic. What is delivered shows a subscription, at least to
/// its topic.
pub(super) fn lesson(operation: &Operation<'_>) -> Lesson {
    let permitted_as = match operation.name {
        "publish" | "will" => "publish",
        "subscribe" | "deliver" => "subscribe",
        "connect" => {
            return Lesson::Name {
                name: operation.text(CLIENT_IDS).unwrap_or_default().to_owned(),
                user: operation.text(USERS).map(str::to_owned),
            };
        }
        // An end of a subscription needs no rule.
        _ => return Lesson::Nothing,
    };
    let mut sets = BTreeMap::new();
    if let Some(qos) = operation.numbers(QOS) {
        sets.insert(QOS, LimitSet::Range(qos));
    }
    if permitted_as == "publish" {
        sets.insert(RETAIN, LimitSet::Flag(operation.is(RETAIN)));
    }
    let (key, sets) = (EntryKey::of(operation, permitted_as, &[]), sets.into());
    match operation.name {
        "deliver" => Lesson::Inferred(key, sets),
        _ => Lesson::Entry(key, sets),
    }
}

/// A broker answers subscriptions, and publications at QoS 1 and 2; where it does not, it carries them out all the same.
pub(super) fn confirmed_by(operation: &Operation<'_>) -> Confirmation {
    let acknowledged = || operation.numbers(QOS).is_some_and(|qos| qos.first > 0);
    match operation.name {
        "connect" | "will" | "subscribe" => Confirmation::NoRefusal,
        "publish" if acknowledged() => Confirmation::NoRefusal,
        _ => Confirmation::Nothing,
    }
}

/// Whether all messages that were seen of a topic are permitted, at each quality of service between the least and the greatest.
pub(super) fn permits(rules: &MqttRules, key: &EntryKey, seen: &EntrySeen) -> bool {
    let (Some(topic), Some(qos)) = (key.text(TOPICS), seen.ranges(QOS).first()) else {
        return false;
    };
    let asked = |qos: u8| match key.operation.as_str() {
        "publish" => Some(operation::Operation::Publish {
            topic: topic.into(),
            qos,
            retain: seen.is(RETAIN),
        }),
        "subscribe" => Some(operation::Operation::Subscribe {
            filter: topic.into(),
            qos,
        }),
        _ => None,
    };
    let allows = |qos: u32| {
        let asked = u8::try_from(qos).ok().and_then(asked);
        asked.is_some_and(|asked| rules.judge(&asked).allows())
    };
    (qos.first..=qos.last).all(allows)
}
