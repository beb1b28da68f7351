//! A gateway's trail, as it is uploaded: blocks of verdicts, few of them on their way at once, as an agent does.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use penstock_proto::audit::{GENESIS, block_digest};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::gateway_message::Message as Up;
use penstock_proto::v1::{
    AuditAck, AuditBlock, AuditBlockBody, AuditEvent, Decision, GatewayMessage, Severity, VerdictEvent,
};
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::sync::mpsc;

use super::gateways::{Counts, message};

/// Events of a block: about 16 KiB.
pub(super) const EVENTS: u64 = 80;
/// Blocks that are on their way at once.
const WINDOW: u64 = 4;

static BODY: LazyLock<Bytes> = LazyLock::new(|| {
    let events = (0..EVENTS).map(event).collect();
    AuditBlockBody { events }.encode_to_vec().into()
});

pub(super) fn event(number: u64) -> AuditEvent {
    AuditEvent {
        time_ms: 1_800_000_000_000 + number,
        severity: Severity::Warning.into(),
        revision: 1,
        kind: Some(Kind::Verdict(VerdictEvent {
            decision: Decision::Deny.into(),
            ingress: "eth1".into(),
            egress: "eth2".into(),
            source: "10.1.20.9".into(),
            destination: "10.20.4.7".into(),
            protocol: 6,
            port: 502,
            count: 1 + number % 7,
            first_ms: 1_800_000_000_000 + number,
            last_ms: 1_800_000_000_900 + number,
            reason: "no rule matches; closest is control-room-to-pumps/polling: the source differs".into(),
            ..VerdictEvent::default()
        })),
    }
}

/// Where it stands.
pub(super) struct Trail {
    sent: u64,
    acknowledged: u64,
    digest: [u8; 32],
}

impl Trail {
    /// It goes on where the coordinator's own ends.
    pub(super) fn after(held: Option<&AuditAck>) -> Self {
        let next = held.map_or(0, |held| held.next_sequence);
        let digest = held.and_then(|held| held.digest.as_ref().try_into().ok());
        Self {
            sent: next,
            acknowledged: next,
            digest: digest.unwrap_or(GENESIS),
        }
    }

    /// Sends what there is room for.
    pub(super) async fn send(&mut self, up: &mpsc::Sender<GatewayMessage>, counts: &Counts) {
        while counts.uploads.load(Ordering::Relaxed) && self.sent < self.acknowledged + WINDOW {
            let block = AuditBlock {
                epoch: 1,
                sequence: self.sent,
                previous_digest: self.digest.to_vec().into(),
                body: BODY.clone(),
            };
            self.digest = block_digest(&self.digest, 1, self.sent, &BODY);
            self.sent += 1;
            let _ = up.send(message(Up::Audit(block))).await;
        }
    }

    /// How many events are durable now that were not.
    pub(super) fn acknowledge(&mut self, ack: &AuditAck) -> u64 {
        let before = self.acknowledged;
        self.acknowledged = before.max(ack.next_sequence);
        (self.acknowledged - before) * EVENTS
    }
}
