//! Follows one *recorded* connection: the same machine that judges live traffic, observing, and put back on its
//! feet where the recording has holes.
//!
//! A live gateway sees every byte, and ends a connection that it cannot follow. A recording may begin midway or
//! lack segments; then the next segment that begins a packet is waited for, and what was skipped is told. Segments
//! are where senders begin packets, so that is where the search looks.

use std::sync::Arc;
use std::time::Duration;

use penstock_policy::model::Protocol;

use crate::connection::{Connection, Limits, Mode, Note, Output, Sender, Version};
use crate::judge::refusal::OnRefusal;
use crate::judge::{Rules, Verdict};
use crate::modbus::{Request, frame};
use crate::mqtt::packet::{Header, Packet, kind};
use crate::mqtt::{Connect, Publish};
use crate::operation::Operation;

/// What following tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding<'a> {
    /// An operation and what the rules say of it.
    Judged {
        /// What was asked.
        operation: Operation<'a>,
        /// The answer.
        verdict: Verdict,
    },
    /// The device refused an operation by itself.
    Exception {
        /// Function code of the request.
        code: u8,
        /// The device's exception code.
        exception: u8,
    },
    /// Something that is no operation.
    Noted(Note),
    /// A gateway that enforces would have ended the connection here.
    WouldEnd,
    /// Bytes were skipped to find the beginning of a packet again.
    Resynchronised {
        /// Whose.
        from: Sender,
        /// How many.
        skipped_bytes: u64,
    },
    /// Nothing could be found until the end.
    NeverFollowed {
        /// Whose.
        from: Sender,
        /// How many bytes passed unread.
        skipped_bytes: u64,
    },
}

/// Takes findings as they arise.
pub type Sink<'s> = dyn FnMut(Finding<'_>) + 's;

/// One recorded connection.
#[derive(Debug)]
pub struct Follower {
    rules: Arc<Rules>,
    limits: Limits,
    connection: Connection,
    /// Bytes skipped so far, while a side's next packet is looked for.
    seeking: [Option<u64>; 2],
    /// An MQTT connection whose version has to be found out.
    version_unknown: bool,
}

fn side(from: Sender) -> usize {
    match from {
        Sender::Client => 0,
        Sender::Server => 1,
    }
}

fn observing(rules: &Arc<Rules>, limits: Limits) -> Connection {
    Connection::new(Arc::clone(rules), Mode::Observe, OnRefusal::Answer, limits)
}

impl Follower {
    /// A connection judged by `rules`; `midway` if its opening is not in the recording.
    pub fn new(rules: Arc<Rules>, midway: bool) -> Self {
        Self::within(Limits::default(), rules, midway)
    }

    /// The same, within other bounds.
    pub fn within(limits: Limits, rules: Arc<Rules>, midway: bool) -> Self {
        let seeking = midway.then_some(0);
        Self {
            limits,
            connection: observing(&rules, limits),
            version_unknown: midway && rules.protocol() == Protocol::Mqtt,
            rules,
            seeking: [seeking; 2],
        }
    }

    /// Bytes held of packets that are not whole yet.
    pub fn held_bytes(&self) -> usize {
        self.connection.held_bytes()
    }

    /// The rules that judge it.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The next bytes of a side.
    pub fn data(&mut self, from: Sender, at: Duration, bytes: &[u8], out: &mut Sink<'_>) {
        let Some(seeking) = self.seeking.get_mut(side(from)) else {
            return;
        };
        if let Some(skipped) = *seeking {
            let Some(begins) = begins_packet(self.rules.protocol(), from, bytes) else {
                *seeking = Some(skipped.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX)));
                return;
            };
            *seeking = None;
            if let Begins::Mqtt(version) = begins
                && self.version_unknown
            {
                self.connection = observing(&self.rules, self.limits).resumed(version);
                self.version_unknown = false;
            } else if begins == Begins::MqttConnect {
                self.connection = observing(&self.rules, self.limits);
                self.version_unknown = false;
                self.seeking = [None; 2];
            }
            out(Finding::Resynchronised {
                from,
                skipped_bytes: skipped,
            });
        }
        let mut lost = false;
        self.connection.feed(from, at, bytes, &mut |output| match output {
            Output::Judged {
                operation, verdict, ..
            } => out(Finding::Judged { operation, verdict }),
            Output::Exception { code, exception } => out(Finding::Exception { code, exception }),
            Output::Noted(Note::Unfollowed) => {
                lost = true;
                out(Finding::WouldEnd);
            }
            Output::Noted(note) => out(Finding::Noted(note)),
            Output::ToServer(_) | Output::ToClient(_) | Output::Close { .. } => {}
        });
        if lost {
            self.connection = observing(&self.rules, self.limits);
            self.version_unknown = self.rules.protocol() == Protocol::Mqtt;
            self.seeking = [Some(0); 2];
        }
    }

    /// Bytes of a side are missing.
    pub fn gap(&mut self, from: Sender) {
        self.connection.skip_to_boundary(from);
        if let Some(seeking) = self.seeking.get_mut(side(from)) {
            seeking.get_or_insert(0);
        }
    }

    /// The recording of this connection is over.
    pub fn finish(&mut self, out: &mut Sink<'_>) {
        for from in [Sender::Client, Sender::Server] {
            let skipped = self.seeking.get_mut(side(from)).and_then(Option::take);
            if let Some(skipped_bytes) = skipped.filter(|bytes| *bytes > 0) {
                out(Finding::NeverFollowed { from, skipped_bytes });
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    Modbus,
    Mqtt(Version),
    /// The packet that opens a connection: everything is known from here on.
    MqttConnect,
}

/// Whether `bytes` begin with a packet that reads strictly.
fn begins_packet(protocol: Protocol, from: Sender, bytes: &[u8]) -> Option<Begins> {
    match protocol {
        Protocol::ModbusTcp => {
            let frame = frame::next(bytes).ok()??;
            let code = *frame.pdu.first()?;
            let fits = match from {
                Sender::Client => Request::decode(frame.unit, frame.pdu).is_ok(),
                Sender::Server => code & 0x7f != 0 && (code < 0x80 || frame.pdu.len() == 2),
            };
            fits.then_some(Begins::Modbus)
        }
        Protocol::Mqtt => {
            let header = Header::decode(from, bytes).ok()??;
            let limit = Limits::default().control_bytes_max;
            let body = bytes.get(header.header_bytes..)?;
            if header.kind == kind::CONNECT {
                return Connect::decode(body.get(..header.remaining)?)
                    .ok()
                    .map(|_| Begins::MqttConnect);
            }
            let reads = |version: &Version| {
                if header.kind == kind::PUBLISH {
                    let head = Publish::decode(*version, from, header.flags, body, header.remaining, limit);
                    return matches!(head, Ok(Some(_)));
                }
                body.get(..header.remaining)
                    .is_some_and(|body| Packet::decode(*version, from, header, body).is_ok())
            };
            // Topics and filters stand at the same place in both versions, so a wrong guess misleads nobody for long.
            [Version::V311, Version::V5]
                .into_iter()
                .find(reads)
                .map(Begins::Mqtt)
        }
    }
}
