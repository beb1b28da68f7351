//! What the trail lacks, so that it is never silently short; and what a bridge between brokers lost.

use serde_json::{Value, json};

use super::{Described, KindDescription, Writer};
use crate::v1::{LossEvent, NamedAddress, Severity};

/// The cause of packets that were not learned from.
const TAP: &str = "tap-overrun";
/// What the causes of messages that a bridge lost begin with.
const BRIDGE: &str = "bridge-";

pub(super) const KIND: KindDescription = KindDescription {
    word: "loss",
    bit: 3,
    writer: Writer::Gateway,
    meaning: "how many events the trail lacks, or how many messages of a bridge will not arrive, from when until when, and why",
    severities: &[
        (Severity::Alarm, "any other cause"),
        (Severity::Notice, "packets were not learned from"),
    ],
};

impl Described for LossEvent {
    fn severity(&self) -> Severity {
        if self.cause == TAP {
            Severity::Notice
        } else {
            Severity::Alarm
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![&self.cause]
    }

    fn sentence(&self, _: &[NamedAddress]) -> String {
        if self.events == 0 && self.blocks > 0 {
            return format!("{} blocks are missing ({})", self.blocks, self.cause);
        }
        let what = match self.cause.as_str() {
            TAP => "packets were not learned from",
            cause if cause.starts_with(BRIDGE) => "messages of a bridge will not arrive",
            _ => "events were shed",
        };
        format!("{} {what} ({})", self.events, self.cause)
    }

    fn fields(&self) -> Value {
        json!({
            "events": self.events, "blocks": self.blocks, "first_ms": self.first_ms, "last_ms": self.last_ms,
            "cause": self.cause,
        })
    }
}
