//! What of the plan's publications is asked for, and what may cross: the inspector's own rules, asked twice.
//!
//! A publication is judged when it comes and again before it goes, so that a message which waited on disk meets the
//! policy of the day on which it leaves. It crosses at the quality of service at which the broker delivered it.

use std::borrow::Cow;

use penstock_inspect::judge::{Rules, RulesError};
use penstock_inspect::mqtt::judge::MqttRules;
use penstock_inspect::mqtt::topic;
use penstock_inspect::{Operation, mqtt};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;

use super::packet::SubscribeFilter;

/// The permitted publications of one bridge.
#[derive(Debug)]
pub struct PublicationRules {
    rules: Rules,
    wanted: Vec<SubscribeFilter>,
}

impl PublicationRules {
    /// Compiles the plan's list.
    ///
    /// # Errors
    /// It is empty, or of a newer document language.
    pub fn compile(publications: &[MqttOperation]) -> Result<Self, RulesError> {
        let rules = Rules::compile(&Operations::from(publications.to_vec()))?;
        Ok(Self {
            rules,
            wanted: subscriptions(publications),
        })
    }

    /// What to subscribe to.
    pub fn wanted(&self) -> &[SubscribeFilter] {
        &self.wanted
    }

    /// `Err` says in words why a publication may not cross.
    pub(crate) fn judge(&self, topic: &str, qos: u8, retain: bool) -> Result<(), String> {
        let publish = mqtt::Operation::Publish {
            topic: Cow::Borrowed(topic),
            qos,
            retain,
        };
        let Some(rules) = self.rules.of::<MqttRules>() else {
            return Err("the bridge's rules are not of MQTT".to_owned());
        };
        let verdict = rules.judge(&publish);
        if verdict.allows() {
            Ok(())
        } else {
            let operation = Operation::from(publish);
            Err(format!(
                "{operation}: {}",
                self.rules.explain(&operation, verdict)
            ))
        }
    }
}

/// One subscription for each filter that no other covers: overlapping ones could make the broker deliver twice.
fn subscriptions(publications: &[MqttOperation]) -> Vec<SubscribeFilter> {
    let mut all: Vec<SubscribeFilter> = Vec::new();
    for operation in publications {
        let MqttOperation::Publish { topics, qos, retain } = operation else {
            continue;
        };
        let qos = u8::try_from(qos.last).unwrap_or(2).min(2);
        for filter in topics {
            match all.iter_mut().find(|known| known.filter == *filter) {
                Some(known) => {
                    known.qos = known.qos.max(qos);
                    known.retained |= retain;
                }
                None => all.push(SubscribeFilter {
                    filter: filter.clone(),
                    qos,
                    retained: *retain,
                }),
            }
        }
    }
    let covered = |one: &SubscribeFilter| {
        all.iter().any(|other| {
            other.filter != one.filter
                && other.qos >= one.qos
                && other.retained >= one.retained
                && topic::covers(&other.filter, &one.filter)
        })
    };
    all.iter().filter(|one| !covered(one)).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use penstock_policy::terms::NumberRange;

    use super::*;

    fn publish(topics: &[&str], first: u32, last: u32, retain: bool) -> MqttOperation {
        MqttOperation::Publish {
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            qos: NumberRange { first, last },
            retain,
        }
    }

    #[test]
    fn a_covered_filter_is_not_asked_for_twice_and_a_higher_quality_is_not_given_up() {
        let permitted = PublicationRules::compile(&[
            publish(&["works/#", "works/a"], 0, 1, true),
            publish(&["works/b", "works/#"], 0, 1, false),
            publish(&["works/c"], 2, 2, false),
        ])
        .unwrap();
        let asked: Vec<_> = permitted
            .wanted()
            .iter()
            .map(|one| (one.filter.as_str(), one.qos, one.retained))
            .collect();
        assert_eq!(asked, [("works/#", 1, true), ("works/c", 2, false)]);
    }

    #[test]
    fn what_no_rule_permits_does_not_cross_and_is_explained() {
        let permitted = PublicationRules::compile(&[publish(&["works/+/pressure"], 0, 1, false)]).unwrap();
        assert_eq!(permitted.judge("works/3/pressure", 1, false), Ok(()));
        for (topic, qos, retain, says) in [
            ("works/3/setpoint", 1, false, "no rule covers the topic"),
            ("$SYS/broker/uptime", 0, false, "no rule covers the topic"),
            ("works/3/pressure", 2, false, "quality of service"),
            ("works/3/pressure", 0, true, "retained"),
        ] {
            let why = permitted.judge(topic, qos, retain).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        assert!(PublicationRules::compile(&[]).is_err());
    }
}
