//! What the coordinator found about another's trail, or did to it.

use serde_json::{Value, json};

use super::{Described, KindDescription, Writer};
use crate::v1::{NamedAddress, Severity, TrailEvent};

pub(super) const KIND: KindDescription = KindDescription {
    word: "trail",
    bit: 9,
    writer: Writer::Coordinator,
    meaning: "what the coordinator found about a gateway's trail (a gap, blocks that it did not take, no room), or removed of it",
    severities: &[
        (
            Severity::Alarm,
            "a gap, a refusal, seals that do not fit, a trail that was taken back or waits, a new epoch of the coordinator's own",
        ),
        (Severity::Notice, "removed because of its age; its seals begin"),
    ],
};

impl Described for TrailEvent {
    fn severity(&self) -> Severity {
        match self.step.as_str() {
            "expired" | "sealed" => Severity::Notice,
            _ => Severity::Alarm,
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![&self.step, &self.source, &self.message]
    }

    fn sentence(&self, _: &[NamedAddress]) -> String {
        let (source, message) = (&self.source, &self.message);
        match self.step.as_str() {
            "gap" => format!("the trail of {source} has a gap: {message}"),
            "refused" => format!("part of the trail of {source} was not taken: {message}"),
            "seals" => format!("the seals of the trail of {source} do not fit: {message}"),
            "sealed" => format!("the seals of the trail of {source}: {message}"),
            "epoch" => format!("the coordinator's own trail goes on in a new epoch: {message}"),
            "rewound" => format!("the trail of {source} was taken back: {message}"),
            "waits" | "expired" if !message.is_empty() => message.clone(),
            other => format!("trail of {source}, {other}: {message}"),
        }
    }

    fn fields(&self) -> Value {
        json!({
            "step": self.step, "source": self.source, "epoch": self.epoch, "sequence": self.sequence,
            "blocks": self.blocks, "message": self.message,
        })
    }
}
