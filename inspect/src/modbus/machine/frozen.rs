//! The Modbus half of [`crate::connection::frozen`]: ADUs that are not whole, and requests that wait.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Modbus;
use super::certainty::Unproven;
use crate::connection::buffer::SideBuffer;
use crate::connection::frozen::{Bytes, PASSED, ThawError, is_zero};
use crate::connection::machine::Terms;
use crate::connection::{ConnectionLimits, Mode};
use crate::modbus::frame::{self, ADU_BYTES_MAX};
use crate::modbus::framings::{Framing, PLACES_MAX, StreamPosition};
use crate::modbus::transactions::{Awaits, Outstanding, Reads, Transactions};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::modbus) struct FrozenModbus {
    from_client: Bytes,
    from_server: Bytes,
    /// How many of the held bytes have gone on.
    #[serde(default, skip_serializing_if = "is_zero")]
    passed_client: usize,
    #[serde(default, skip_serializing_if = "is_zero")]
    passed_server: usize,
    in_flight: Vec<FrozenRequest>,
    /// Where else its server may be reading.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unread: Vec<(Framing, Bytes)>,
    /// It may answer what was not asked.
    #[serde(default, skip_serializing_if = "is_false")]
    answers: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    carried_out: Vec<u8>,
    /// What passed while it was only observed, and its server may still be reading.
    #[serde(default, skip_serializing_if = "Unproven::is_nothing")]
    unproven: Unproven,
}

/// The most bytes that a connection takes under these limits.
pub(in crate::modbus) fn frozen_bytes_max(limits: &ConnectionLimits) -> usize {
    // Hexadecimal: what is held of each side, and where else a server may be reading.
    let held = 2 * 2 * ADU_BYTES_MAX;
    let places = PLACES_MAX * 2 * 600;
    // An entry with its names and numbers takes less than 512.
    held + places + 512 * 2 * limits.transactions.outstanding_max
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrozenRequest {
    transaction: u16,
    unit: u8,
    /// For how long it has waited.
    age: Duration,
    awaits: Awaits,
    /// It was sent before one that stands alone.
    #[serde(default, skip_serializing_if = "is_false")]
    earlier: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reads: Option<Reads>,
}

impl FrozenModbus {
    /// What has not gone on, of each side.
    pub(in crate::modbus) fn unsent(mut self) -> [Vec<u8>; 2] {
        [
            (&mut self.from_client, self.passed_client),
            (&mut self.from_server, self.passed_server),
        ]
        .map(|(held, passed)| held.0.split_off(passed.min(held.0.len())))
    }
}

impl Modbus {
    pub(super) fn frozen(&self, now: Duration) -> FrozenModbus {
        let request = |entry: &Outstanding| FrozenRequest {
            transaction: entry.transaction,
            unit: entry.unit,
            age: now.saturating_sub(entry.since),
            awaits: entry.awaits,
            earlier: entry.earlier,
            reads: entry.reads,
        };
        let (unread, answers) = self.standing.parts();
        FrozenModbus {
            from_client: Bytes(self.from_client.bytes.clone()),
            from_server: Bytes(self.from_server.bytes.clone()),
            passed_client: self.from_client.passed(),
            passed_server: self.from_server.passed(),
            in_flight: self.transactions.outstanding().iter().map(request).collect(),
            unread: unread
                .iter()
                .map(|(framing, bytes)| (*framing, Bytes(bytes.clone())))
                .collect(),
            answers,
            carried_out: self.carried_out.clone(),
            unproven: self.unproven,
        }
    }

    pub(in crate::modbus) fn thaw(
        terms: Terms,
        frozen: FrozenModbus,
        now: Duration,
    ) -> Result<Self, ThawError> {
        if terms.mode == Mode::Enforce && frozen.unproven != Unproven::Nothing {
            return Err(ThawError::Unfollowed);
        }
        let held = |bytes: Bytes, passed| SideBuffer::of(bytes.0, passed).ok_or(PASSED);
        let from_client = held(frozen.from_client, frozen.passed_client)?;
        let from_server = held(frozen.from_server, frozen.passed_server)?;
        for held in [&from_client, &from_server] {
            ThawError::unless(
                matches!(frame::next(&held.bytes), Ok(None)),
                "what is held is not the beginning of one ADU",
            )?;
        }
        let most = terms.limits.transactions.outstanding_max;
        let sent = |request: &&FrozenRequest| matches!(request.awaits, Awaits::Answer(_));
        let sent = frozen.in_flight.iter().filter(sent).count();
        ThawError::unless_within("requests in flight", sent, most)?;
        ThawError::unless_within(
            "refusals that wait for their turn",
            frozen.in_flight.len() - sent,
            most,
        )?;
        let in_flight: Vec<Outstanding> = frozen
            .in_flight
            .into_iter()
            .map(|request| Outstanding {
                transaction: request.transaction,
                unit: request.unit,
                since: now.saturating_sub(request.age),
                awaits: request.awaits,
                earlier: request.earlier,
                reads: request.reads,
                revoked: false,
                number: 0,
            })
            .collect();
        let transactions = Transactions::of(terms.limits.transactions, in_flight).ok_or(
            ThawError::Inconsistent("a request waits for what no request waits for"),
        )?;
        let unread = frozen.unread.into_iter();
        let unread = unread.map(|(framing, Bytes(bytes))| (framing, bytes)).collect();
        let standing = StreamPosition::of(unread, frozen.answers)
            .ok_or(ThawError::Inconsistent("its server cannot be reading there"))?;
        ThawError::unless_within("functions carried out", frozen.carried_out.len(), 127)?;
        Ok(Self {
            terms,
            from_client,
            from_server,
            transactions,
            standing,
            carried_out: frozen.carried_out,
            unproven: frozen.unproven,
            begun: 0,
            is_midway: false,
            judged: 0,
        })
    }
}
