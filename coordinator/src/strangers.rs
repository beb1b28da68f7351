//! Connections that end in their handshake, in metrics and trail: whoever has no certificate of the plant, or one that is over, gets no further,
//! and no call of theirs is refused that would be written down (IEC 62443-3-3 SR 2.8, SR 6.1).
//!
//! Anybody who reaches the port can cause one. So the first is written at once, and then one event a minute says how many there were.

use std::sync::Arc;
use std::time::Duration;

use penstock_proto::tls::server::{RefusedConnections, TurnedAway};

use crate::journal::Journal;

/// How long others are counted after one event.
const PAUSE: Duration = Duration::from_secs(60);
/// Whom the events are about.
const STRANGER: &str = "connection";

/// Follows them until nobody wants to know.
pub(crate) async fn follow(turned_away: Arc<TurnedAway>, journal: Journal) {
    loop {
        let refused = turned_away.next().await;
        metrics::counter!("penstock_connections_refused_total").increment(refused.count);
        let words = in_words(&refused);
        let written = journal.stranger_refused(STRANGER, refused.address, &words);
        if let Err(error) = written.await {
            tracing::warn!(error = %crate::chain(&error), "cannot write down that connections were refused");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn in_words(refused: &RefusedConnections) -> String {
    let RefusedConnections { count, why, .. } = refused;
    match count {
        1 => format!("before anybody was known: {why}"),
        count => format!(
            "{count} connections since the last such event, before anybody was known; the last: {why}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refused_connection_and_many_are_said_in_one_sentence() {
        let refused = |count| RefusedConnections {
            count,
            address: [10, 0, 0, 1].into(),
            why: "the peer's certificate has ended".to_owned(),
        };
        assert_eq!(
            in_words(&refused(1)),
            "before anybody was known: the peer's certificate has ended"
        );
        assert!(in_words(&refused(9)).starts_with("9 connections since"));
    }
}
