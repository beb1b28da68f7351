//! Bytes as a script for one connection, and all that came out of it.
//!
//! A script is played three times: as written, cut into single bytes, and with neighbours of one side joined. The
//! same must come out. Freezing happens only as written, so that it too must change nothing.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, DeviationKind, Mode, Output, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};

/// Reads numbers and pieces off the fuzzer's bytes; zeros after their end.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A length, and as many bytes as there are of it.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }
}

/// One step of a script.
pub enum Step {
    Feed(Sender, Vec<u8>),
    Wait(Duration),
    Freeze,
    /// Other rules from here on.
    Rules(usize),
}

/// All that a script is played with.
pub struct Script {
    pub rules: Vec<Arc<Rules>>,
    pub first_rules: usize,
    pub mode: Mode,
    pub on_refusal: OnRefusal,
    pub limits: ConnectionLimits,
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    AsWritten,
    IntoBytes,
    Joined,
}

/// What came out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Record {
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
    /// Operation and verdict in words, and whether it was forwarded.
    pub judged: Vec<(String, bool)>,
    pub noted: Vec<String>,
    pub closed: Option<bool>,
    /// Deviations that were only told.
    pub foretold: usize,
    /// Observing, the stream was lost: where it is read again depends on how it is cut, and is not written down.
    pub lost: bool,
}

impl Record {
    fn take(&mut self, output: Output<'_>) {
        assert!(self.closed.is_none(), "output after the end");
        if self.lost && !matches!(output, Output::ToServer(_) | Output::ToClient(_)) {
            return;
        }
        match output {
            Output::ToServer(bytes) => self.to_server.extend_from_slice(bytes),
            Output::ToClient(bytes) => self.to_client.extend_from_slice(bytes),
            Output::Judged {
                operation,
                verdict,
                forwarded,
            } => {
                assert!(
                    forwarded || !verdict.allows(),
                    "allowed and withheld: {operation}"
                );
                self.judged.push((format!("{operation}: {verdict:?}"), forwarded));
            }
            Output::Exception { asked, refusal } => self.noted.push(format!("{refusal} to {asked}")),
            Output::Deviation { what, effect, done } => {
                self.noted.push(format!("{what}: {}", effect.word()));
                self.foretold += usize::from(!done);
                self.lost = !done && what.kind() == DeviationKind::Unreadable;
            }
            Output::Resynchronised { .. } | Output::Answered { .. } => {}
            Output::Close { reset } => self.closed = Some(reset),
        }
    }
}

pub fn mode(bits: u8) -> Mode {
    if bits & 1 == 1 {
        Mode::Observe
    } else {
        Mode::Enforce
    }
}

pub fn on_refusal(bits: u8) -> OnRefusal {
    match bits % 5 {
        0 => OnRefusal::Answer,
        1 => OnRefusal::Acknowledge,
        2 => OnRefusal::Disconnect,
        3 => OnRefusal::Reset,
        _ => OnRefusal::Drop,
    }
}

impl Script {
    /// Plays it in each way, and gives what always came out.
    pub fn play(&self, held_bytes_max: usize) -> Record {
        let written = self.played(Cut::AsWritten, held_bytes_max);
        assert_eq!(
            written,
            self.played(Cut::IntoBytes, held_bytes_max),
            "cut into bytes"
        );
        assert_eq!(written, self.played(Cut::Joined, held_bytes_max), "joined");
        written
    }

    fn played(&self, cut: Cut, held_bytes_max: usize) -> Record {
        let rules = |at: usize| Arc::clone(&self.rules[at % self.rules.len()]);
        let (mode, on_refusal, limits) = (self.mode, self.on_refusal, self.limits);
        let mut now = Duration::ZERO;
        let mut current = self.first_rules;
        let mut connection = Connection::new(rules(current), mode, on_refusal, limits);
        let mut record = Record::default();
        let mut feed = |connection: &mut Connection, now: Duration, from: Sender, bytes: &[u8]| {
            connection.feed(from, now, bytes, &mut |output| record.take(output));
            let held = connection.held_bytes();
            assert!(
                held <= held_bytes_max || connection.is_closed(),
                "{held} bytes held"
            );
        };
        let mut waiting: Option<(Sender, Vec<u8>)> = None;
        for step in &self.steps {
            if let (Some((from, bytes)), Step::Feed(next, more)) = (&mut waiting, step)
                && *from == *next
            {
                bytes.extend_from_slice(more);
                continue;
            }
            if let Some((from, bytes)) = waiting.take() {
                feed(&mut connection, now, from, &bytes);
            }
            match step {
                Step::Feed(from, bytes) if cut == Cut::Joined => waiting = Some((*from, bytes.clone())),
                Step::Feed(from, bytes) if cut == Cut::IntoBytes => {
                    for byte in bytes {
                        feed(&mut connection, now, *from, std::slice::from_ref(byte));
                    }
                }
                Step::Feed(from, bytes) => feed(&mut connection, now, *from, bytes),
                Step::Wait(time) => now += *time,
                Step::Rules(at) => {
                    current = *at;
                    connection.set_rules(rules(current));
                }
                Step::Freeze if cut == Cut::AsWritten => {
                    let frozen = connection.freeze(now);
                    connection = Connection::thaw(&frozen, now, rules(current), mode, on_refusal, limits)
                        .expect("a connection that was just frozen thaws");
                    assert_eq!(connection.freeze(now), frozen, "frozen again it is the same");
                }
                Step::Freeze => {}
            }
        }
        if let Some((from, bytes)) = waiting.take() {
            feed(&mut connection, now, from, &bytes);
        }
        record
    }

    /// All that a side sent.
    pub fn sent(&self, by: Sender) -> Vec<u8> {
        let of = |step: &Step| match step {
            Step::Feed(from, bytes) if *from == by => bytes.clone(),
            _ => Vec::new(),
        };
        self.steps.iter().flat_map(of).collect()
    }
}
