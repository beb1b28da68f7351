//! What a replay could not judge: said before everything else, and never counted as fine.

use std::collections::BTreeMap;

use penstock_inspect::replay::Report;
pub(crate) use penstock_inspect::share::share;
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::{Page, Tone};

/// What could not be judged of the recorded traffic, as it could not be read.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Unread {
    /// Nothing was judged at all: no connection and no datagram was read.
    pub everything: bool,
    /// Packets, by reason.
    pub packets: BTreeMap<String, u64>,
    /// Connections, and clients of a server's port over UDP, of which an end lies on no side of a gateway.
    pub strangers: u64,
    /// Payload bytes of connections whose operations are limited: those that the recording lacks, those inside TLS, and those
    /// that could not be read as the protocol.
    pub bytes: u64,
    /// All payload bytes of these connections.
    pub bytes_of: u64,
}

impl Unread {
    /// Of a replay.
    pub(super) fn of(report: &Report) -> Self {
        let mut unread = Self {
            everything: report.flows.is_empty()
                && report.datagrams.is_empty()
                && report.refused.is_empty()
                && report.observed.is_empty()
                && report.passed == 0,
            packets: report.unread.clone(),
            ..Self::default()
        };
        let flows = report
            .flows
            .iter()
            .map(|flow| flow.treatments.iter().any(|one| one.stranger));
        let datagrams = report.datagrams.iter();
        let datagrams = datagrams.map(|some| some.judgements.iter().any(|one| one.stranger));
        unread.strangers = flows.chain(datagrams).map(u64::from).sum();
        for flow in &report.flows {
            let of_track = flow.treatments.iter().map(|treatment| treatment.unjudged_bytes);
            let bytes = of_track.max().unwrap_or(0);
            if bytes > 0 {
                unread.bytes += bytes;
                unread.bytes_of += flow.bytes.iter().sum::<u64>() + flow.missing_bytes;
            }
        }
        unread
    }

    /// Whether there is anything.
    pub(super) fn is_any(&self) -> bool {
        self.everything || !self.packets.is_empty() || self.strangers > 0 || self.bytes > 0
    }

    /// Says it, with its share of `packets`.
    pub(super) fn page(&self, packets: u64, page: &mut Page) {
        if self.everything {
            let words = match packets {
                0 => "✗ Nothing was judged: the recording holds no packet.".to_owned(),
                _ => {
                    "✗ Nothing was judged: in no packet a connection or a datagram could be read.".to_owned()
                }
            };
            page.paragraph(0, Tone::Bad, &words);
        }
        for (reason, count) in &self.packets {
            let words = format!("▲ not judged: {}: {reason}", share(*count, packets, "packets"));
            page.paragraph(0, Tone::Warn, &words);
        }
        if self.strangers > 0 {
            let words = format!(
                "▲ not judged: {} of the connections and UDP clients below: an end lies on no side of a gateway, so that it is not \
                 known whether one stands in the way",
                self.strangers
            );
            page.paragraph(0, Tone::Warn, &words);
        }
        if self.bytes > 0 {
            let words = format!(
                "▲ not judged: {} on connections whose operations are limited: they are not in the recording (lost, or cut off by \
                 its snap length), answer what is not in it, are inside TLS, or could not be read as the protocol",
                share(self.bytes, self.bytes_of, "payload bytes")
            );
            page.paragraph(0, Tone::Warn, &words);
        }
    }
}
