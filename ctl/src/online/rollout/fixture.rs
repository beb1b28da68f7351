//! A rollout in the middle of things, for example tests.

#![allow(clippy::panic)]

use std::collections::HashMap;

use penstock_proto::v1::policy_standing::State;
use penstock_proto::v1::{
    Because, PolicyStanding, Reverted, Rollout, RolloutEvent, RolloutGateway, RolloutWait,
};

use super::view::RolloutView;

/// As a coordinator sends it: 5 of 12 confirmed, 2 on trial, one went back.
pub(super) fn sent() -> Rollout {
    let counts = [
        ("waiting", 4),
        ("trial", 2),
        ("confirmed", 5),
        ("reverted-hard", 1),
    ];
    let wait = |gateway: &str, gateways, reason: &str| RolloutWait {
        gateway: gateway.to_owned(),
        gateways,
        reason: reason.to_owned(),
    };
    Rollout {
        revision: 5,
        statement_digest: vec![7; 32].into(),
        stage: "opening".to_owned(),
        wave: 2,
        waves: 3,
        wave_name: "one-percent".to_owned(),
        started_by: "anna".to_owned(),
        because: Some(Because {
            reason: "Historian reads PLC 7".to_owned(),
            ticket: "CHG-4711".to_owned(),
        }),
        started_ms: 1_000,
        counts: counts
            .map(|(word, count)| (word.to_owned(), count))
            .into_iter()
            .collect::<HashMap<_, _>>(),
        failed: 1,
        activated: 8,
        waits: vec![
            wait("gw-1", 0, "the gateway's trial to show that it can be confirmed"),
            wait("gw-2", 0, "the gateway's trial to show that it can be confirmed"),
            wait("", 4, "its turn"),
        ],
        gateways: vec![RolloutGateway {
            name: "gw-3".to_owned(),
            state: "reverted-hard".to_owned(),
            wave: 2,
            connected: true,
            standing: Some(PolicyStanding {
                order: 4,
                revision: 5,
                statement_digest: vec![7; 32].into(),
                state: Some(State::Reverted(Reverted {
                    code: "crash".to_owned(),
                    message: "the agent ended".to_owned(),
                    at_ms: 60_000,
                    ordered: false,
                })),
            }),
            without_trials: false,
            overridden: Vec::new(),
        }],
        events: vec![RolloutEvent {
            time_ms: 1_000,
            by: "anna".to_owned(),
            what: "started".to_owned(),
            message: "started".to_owned(),
            because: Some(Because {
                reason: "Historian reads PLC 7".to_owned(),
                ticket: "CHG-4711".to_owned(),
            }),
        }],
        time_ms: 120_000,
        ..Rollout::default()
    }
}

/// As it is shown.
pub(super) fn rollout() -> RolloutView {
    RolloutView::of(sent()).unwrap_or_else(|failure| panic!("{failure:?}"))
}
