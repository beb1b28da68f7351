//! The side that takes: a subscriber at one broker that acknowledges only what is durable here.
//!
//! This side never publishes. What no rule permits is acknowledged in its turn, so that the broker does not send it
//! for ever, and goes nowhere. A broker that sends what cannot be understood loses its connection; what it had not
//! handed over, it still has. Memory is bounded by not reading on while a batch waits, not by trust in the receive
//! maximum: Mosquitto 2.0 sends a resumed session's whole queue at once, whatever it was told.
//!
//! [`machine`] decides; here is the shell that has connection, queue, clock, and the file that notes the filters.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use penstock_policy::text::sentence;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::keeper::{Ack, IntakeBatch};
use super::report::{BridgeSide, Reporter};
use super::rules::PublicationRules;
use super::side::line::Action;
use super::side::{BrokerPeer, Wire, moment, reached};
use crate::durable;

pub mod machine;

use machine::{Durable, Fact, IntakeMachine, Subscribed};

/// How many publications at QoS 1 and 2 we ask the broker to have under way to us at most.
pub const RECEIVE_MAXIMUM: u16 = 128;
/// Syncs whose acknowledgements may wait to be written; far fewer can be under way, since while these wait few batches follow.
const ACKS_MAX: usize = 64;
/// The largest list of filters in a plan is far below.
const FILTERS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The taking side of one bridge.
pub struct Intake {
    /// The broker.
    pub peer: BrokerPeer,
    /// What may cross.
    pub permitted: Arc<PublicationRules>,
    /// To the queue.
    pub batches: mpsc::Sender<IntakeBatch>,
    /// The bridge's voice.
    pub reporter: Reporter,
    /// Where the filters that the broker's session has are noted.
    pub filters_path: PathBuf,
    /// The bridge is revoked: the broker shall forget it.
    pub revoked: Arc<AtomicBool>,
}

/// The machine and all that it acts on.
struct Running {
    side: Intake,
    machine: IntakeMachine,
    wire: Wire,
    /// Where it is heard that this connection's batches are durable; of the one before nobody hears.
    durable_in: mpsc::Sender<Vec<Ack>>,
    durable: mpsc::Receiver<Vec<Ack>>,
}

impl Intake {
    /// Keeps a connection until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (durable_in, durable) = mpsc::channel(ACKS_MAX);
        let noted = noted(&self.filters_path);
        let machine = IntakeMachine::new(self.permitted.clone(), noted, moment().instant, self.peer.backoff);
        let running = Running {
            side: self,
            machine,
            wire: Wire::Closed,
            durable_in,
            durable,
        };
        running.until(stop).await;
    }
}

impl Running {
    async fn until(mut self, stop: CancellationToken) {
        self.machine.take(Fact::TimePassed, moment());
        loop {
            self.act().await;
            if self.machine.is_over() {
                return;
            }
            let machine = &mut self.machine;
            let listens = machine.listens();
            tokio::select! {
                () = stop.cancelled() => {
                    let forget = self.side.revoked.load(Ordering::Acquire);
                    machine.take(Fact::Stopping { forget }, moment());
                }
                room = self.side.batches.reserve(), if machine.has_entries() => match room {
                    Ok(room) => room.send(IntakeBatch {
                        entries: machine.hand_over(),
                        durable: self.durable_in.clone(),
                    }),
                    Err(_) => machine.take(Fact::QueueClosed, moment()),
                },
                fact = self.wire.next_if(listens) => machine.take(fact, moment()),
                Some(owed) = self.durable.recv() => {
                    machine.take(Fact::Own(Durable(owed)), moment());
                    while let Ok(owed) = self.durable.try_recv() {
                        machine.take(Fact::Own(Durable(owed)), moment());
                    }
                }
                () = reached(machine.deadline()) => machine.take(Fact::TimePassed, moment()),
            }
        }
    }

    /// Does what the machine wants done.
    async fn act(&mut self) {
        while let Some(action) = self.machine.action() {
            match action {
                Action::Connect { clean_start } => {
                    (self.durable_in, self.durable) = mpsc::channel(ACKS_MAX);
                    self.wire.open(&self.side.peer, clean_start);
                }
                Action::Send(bytes) => {
                    let fact = self.wire.send(&bytes).await;
                    self.machine.take(fact, moment());
                }
                Action::Close(goodbye) => self.wire.close(goodbye).await,
                Action::Report(notice) => self.side.reporter.notice(BridgeSide::From, notice),
                Action::Own(Subscribed(filters)) => note(&self.side.filters_path, &filters),
            }
        }
    }
}

/// The filters that the broker's session was last given; `None`: it never was. A note that cannot be read says that it was, and
/// no more: that such a session is lost is reported, and what is no longer wanted is refused.
fn noted(path: &Path) -> Option<Vec<String>> {
    match durable::read(path, FILTERS_BYTES_MAX) {
        Ok(None) => None,
        Ok(Some(bytes)) => Some(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) => {
            tracing::warn!(error = %sentence(&error), "a bridge's subscriptions cannot be read");
            Some(Vec::new())
        }
    }
}

/// Without this note the broker would deliver what is no longer wanted, which is refused then: worth a try, no more.
fn note(path: &Path, filters: &[String]) {
    if noted(path).is_some_and(|before| before == filters) {
        return;
    }
    let text = serde_json::Value::from(filters).to_string();
    if let Err(error) = durable::replace(path, text.as_bytes(), 0o600) {
        tracing::warn!(%error, "a bridge's subscriptions were not recorded");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_note_that_cannot_be_read_still_says_that_the_broker_had_been_given_a_session() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("subscribed");
        assert_eq!(noted(&path), None);
        for torn in [&b""[..], b"[\"works/", b"\xff"] {
            std::fs::write(&path, torn).unwrap();
            assert_eq!(noted(&path), Some(Vec::new()));
        }
        let filters = ["works/#".to_owned(), "\"\u{e9}/+".to_owned()];
        note(&path, &filters);
        assert_eq!(noted(&path).unwrap(), filters);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(noted(&path), Some(Vec::new()));
    }
}
