//! Bytes that claim to be a frozen connection.
//!
//! Promises: no panic; what thaws is within the limits, freezes to something that thaws again, and behaves as a
//! connection does, whatever comes next.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Sender};
use penstock_inspect::judge::Rules;
use penstock_policy::protocol::Operations;

use super::play::{Input, mode, on_refusal};

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let config = input.byte();
    let (client, server) = (input.piece(), input.piece());
    let mut limits = ConnectionLimits {
        packet_bytes_max: 2000,
        control_bytes_max: 300,
        queued_bytes_max: 40,
        refused_publications_max: 3,
        pending_filters_max: 6,
        ..ConnectionLimits::default()
    };
    limits.transactions.outstanding_max = 3;
    limits.aliases.aliases_max = 3;
    let operations = if config & 0x80 == 0 {
        Operations::from(super::modbus::lists().swap_remove(usize::from(config & 3)))
    } else {
        Operations::from(super::mqtt::lists().swap_remove(usize::from(config & 3)))
    };
    let rules = Arc::new(Rules::compile(&operations).unwrap());
    let now = Duration::from_secs(9);
    let thaw = |frozen: &[u8]| {
        let (mode, on_refusal) = (mode(config >> 2), on_refusal(config >> 3 & 7));
        Connection::thaw(frozen, now, Arc::clone(&rules), mode, on_refusal, limits)
    };
    let Ok(mut connection) = thaw(input.0) else { return };
    for (from, bytes) in [
        (Sender::Client, client),
        (Sender::Server, server),
        (Sender::Client, client),
    ] {
        let frozen = connection.freeze(now);
        assert!(
            frozen.len() <= limits.frozen_bytes_max(),
            "{} bytes frozen",
            frozen.len()
        );
        let again = thaw(&frozen).expect("what was thawed and frozen thaws again");
        assert_eq!(again.freeze(now), frozen);
        connection = again;
        connection.feed(from, now, bytes, &mut |_| {});
        let held = connection.held_bytes();
        assert!(held <= 2 * 1028 || connection.is_closed(), "{held} bytes held");
    }
}
