//! All TCP connections of a capture: which side opened each, and what each side sent, in order.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::direction::{self, Declarations, KnownServers, Opening, PortCarrier};
use super::envelope::{BothEnds, Envelope, Lanes};
use super::link::Segment;
use super::reassembly::{self, Piece, Stream};
use crate::sender::Sender;

/// A connection by its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Who opened it.
    pub client: SocketAddr,
    /// To whom.
    pub server: SocketAddr,
    /// The tags and labels of its packets: what has equal addresses in two VLANs is two connections.
    pub envelope: Envelope,
}

/// What happens on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening<'a> {
    /// A connection that was not known before.
    Begins {
        /// How it is known who opened it.
        opening: Opening,
    },
    /// A side sent these bytes, next in its stream.
    Data(Sender, &'a [u8]),
    /// So many bytes of a side are not in the capture.
    Gap(Sender, u64),
    /// A side sent other bytes for the same place in its stream: so many differ.
    Conflict(Sender, usize),
    /// Nothing was ever said on it, by either side. It ends next.
    Unopened(Unopened),
    /// It is over.
    Ends {
        /// Its end was seen; else nothing more of it is followed.
        seen: bool,
    },
}

/// How a connection came to carry nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unopened {
    /// Its server refused it by a reset.
    Refused,
    /// Nobody answered.
    Unanswered,
    /// It was opened, or may have been: the recording has not both directions.
    Silent,
}

/// Bounds of all connections together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowLimits {
    /// Connections followed at a time; segments of further ones are counted and left out.
    pub flows_max: usize,
    /// When all places are taken, the connection that was silent longest makes room if it was so at least this long.
    /// `None`: never.
    pub silent_after: Option<Duration>,
    /// Each direction of each.
    pub stream: reassembly::ReassemblyLimits,
    /// Bytes held of all together, beyond which nothing is remembered of what was handed on, to compare retransmissions with.
    pub remembered_bytes_max: usize,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            flows_max: 65_536,
            silent_after: Some(Duration::from_secs(600)),
            stream: reassembly::ReassemblyLimits::default(),
            remembered_bytes_max: 128 << 20,
        }
    }
}

/// Number of a connection in the capture, from 0: the same two ends may connect again.
pub type FlowNumber = usize;

/// Takes what happens: number, ends, time, what.
pub type Sink<'s> = dyn FnMut(FlowNumber, FlowKey, Duration, Happening<'_>) + 's;

/// The connections of a capture.
#[derive(Debug)]
pub struct Flows {
    limits: FlowLimits,
    /// Ends to which connections were opened.
    served: KnownServers,
    open: HashMap<BothEnds, Flow>,
    lanes: Lanes,
    next_number: FlowNumber,
    left_out: u64,
    held_bytes: usize,
    /// When each connection was heard, or earlier: that is looked at when all places are taken.
    by_silence: BTreeSet<(Duration, BothEnds)>,
}

#[derive(Debug)]
struct Flow {
    number: FlowNumber,
    key: FlowKey,
    client: Stream,
    server: Stream,
    /// Sequence number of the opening SYN, to know its retransmission from a new connection.
    opening: Option<u32>,
    closed: [bool; 2],
    last: Duration,
    /// Its place in [`Flows::by_silence`].
    queued: Duration,
    /// A payload byte was sent.
    carried: bool,
    /// Something other than a reset came from its server, or showed that it had come.
    taken: bool,
    /// Its server sent a reset.
    reset: bool,
}

impl Flows {
    /// None yet.
    pub fn new(limits: FlowLimits) -> Self {
        Self {
            limits,
            served: KnownServers::default(),
            open: HashMap::new(),
            lanes: Lanes::default(),
            next_number: 0,
            left_out: 0,
            held_bytes: 0,
            by_silence: BTreeSet::new(),
        }
    }

    /// Segments left out because too many connections were open at a time.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Looks at a segment of what will be taken later, for who is opened to: it tells of connections that stood before.
    pub fn survey(&mut self, segment: &Segment<'_>) {
        if segment.syn {
            self.served.add(match segment.acknowledged {
                None => segment.destination,
                Some(_) => segment.source,
            });
        }
    }

    /// Takes a segment; `declared` tells of connections whose opening is not recorded.
    pub fn segment(
        &mut self,
        at: Duration,
        segment: &Segment<'_>,
        declared: &dyn Declarations,
        out: &mut Sink<'_>,
    ) {
        self.survey(segment);
        let ends = self.both_ends(segment);
        let opening = segment.syn && segment.acknowledged.is_none();
        // A new SYN on the same ends, not the old one again, is a new connection.
        if opening
            && let Some(flow) = self.open.get(&ends)
            && flow.opening != Some(segment.sequence)
            && let Some(flow) = self.remove(&ends)
        {
            flow.finish(at, true, out);
        }
        if !self.open.contains_key(&ends) {
            // The last acknowledgements of a connection that is over open no new one.
            if segment.rst || (segment.payload.is_empty() && segment.missing_bytes == 0 && !segment.syn) {
                return;
            }
            if self.open.len() >= self.limits.flows_max && !self.make_room(at, out) {
                self.left_out += 1;
                return;
            }
            let flow = self.begin(at, segment, declared, out);
            self.open.insert(ends, flow);
            if self.limits.silent_after.is_some() {
                self.by_silence.insert((at, ends));
            }
        }
        let Some(flow) = self.open.get_mut(&ends) else {
            return;
        };
        let held_before = flow.held_bytes();
        let over = flow.take(at, segment, out);
        if self.held_bytes > self.limits.remembered_bytes_max {
            flow.client.forget();
            flow.server.forget();
        }
        self.held_bytes = (self.held_bytes + flow.held_bytes()).saturating_sub(held_before);
        if over && let Some(flow) = self.remove(&ends) {
            flow.finish(at, true, out);
        }
    }

    /// Ends the connection that was silent longest, if that is long enough; whether it did.
    fn make_room(&mut self, now: Duration, out: &mut Sink<'_>) -> bool {
        let Some(limit) = self.limits.silent_after else {
            return false;
        };
        while let Some((heard, ends)) = self.by_silence.pop_first() {
            let Some(flow) = self.open.get_mut(&ends) else {
                continue;
            };
            if flow.last > heard {
                flow.queued = flow.last;
                self.by_silence.insert((flow.queued, ends));
                continue;
            }
            if now.saturating_sub(heard) < limit {
                self.by_silence.insert((heard, ends));
                return false;
            }
            if let Some(flow) = self.remove(&ends) {
                flow.finish(now, false, out);
            }
            return true;
        }
        false
    }

    /// Bytes held of all connections.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Follows the connection that `segment` belongs to no longer: what it held is let go.
    pub fn give_up(&mut self, at: Duration, segment: &Segment<'_>, out: &mut Sink<'_>) {
        let ends = self.both_ends(segment);
        if let Some(flow) = self.remove(&ends) {
            flow.finish(at, false, out);
            self.left_out += 1;
        }
    }

    fn both_ends(&mut self, segment: &Segment<'_>) -> BothEnds {
        let ends = (segment.source, segment.destination);
        self.lanes
            .ends(ends, segment.envelope, |ends| self.open.contains_key(ends))
    }

    fn remove(&mut self, ends: &BothEnds) -> Option<Flow> {
        let flow = self.open.remove(ends)?;
        self.by_silence.remove(&(flow.queued, *ends));
        self.held_bytes = self.held_bytes.saturating_sub(flow.held_bytes());
        Some(flow)
    }

    /// The capture is over.
    pub fn finish(&mut self, out: &mut Sink<'_>) {
        self.held_bytes = 0;
        let mut flows: Vec<Flow> = self.open.drain().map(|(_, flow)| flow).collect();
        flows.sort_by_key(|flow| flow.number);
        for flow in flows {
            let last = flow.last;
            flow.finish(last, false, out);
        }
    }

    fn begin(
        &mut self,
        at: Duration,
        segment: &Segment<'_>,
        declared: &dyn Declarations,
        out: &mut Sink<'_>,
    ) -> Flow {
        let ends = [segment.source, segment.destination];
        let (from_client, opening) = if segment.syn {
            (segment.acknowledged.is_none(), Opening::Recorded)
        } else {
            let told = direction::server(PortCarrier::Tcp, ends, &self.served, declared);
            let server = told.unwrap_or_else(|| direction::likely_server(ends, declared));
            let opening = told.map_or(Opening::Guessed, |_| Opening::Told);
            (server == segment.destination, opening)
        };
        let (client, server) = if from_client {
            (segment.source, segment.destination)
        } else {
            (segment.destination, segment.source)
        };
        let flow = Flow {
            number: self.next_number,
            key: FlowKey {
                client,
                server,
                envelope: segment.envelope,
            },
            client: Stream::new(self.limits.stream),
            server: Stream::new(self.limits.stream),
            opening: (segment.syn && segment.acknowledged.is_none()).then_some(segment.sequence),
            closed: [false; 2],
            last: at,
            queued: at,
            carried: false,
            taken: false,
            reset: false,
        };
        self.next_number += 1;
        out(flow.number, flow.key, at, Happening::Begins { opening });
        flow
    }
}

impl Flow {
    fn held_bytes(&self) -> usize {
        self.client.held_bytes() + self.server.held_bytes()
    }

    /// Takes a segment; whether the connection is over.
    fn take(&mut self, at: Duration, segment: &Segment<'_>, out: &mut Sink<'_>) -> bool {
        self.last = at;
        let (number, key) = (self.number, self.key);
        let from = if segment.source == key.client {
            Sender::Client
        } else {
            Sender::Server
        };
        self.carried |= !segment.payload.is_empty() || segment.missing_bytes > 0;
        match from {
            Sender::Server if segment.rst => self.reset = true,
            Sender::Server => self.taken = true,
            // Who acknowledges has been answered.
            Sender::Client => self.taken |= segment.acknowledged.is_some() && !segment.rst,
        }
        let (stream, other, side) = match from {
            Sender::Client => (&mut self.client, &mut self.server, 0),
            Sender::Server => (&mut self.server, &mut self.client, 1),
        };
        let mut tell = |of: Sender, piece: Piece<'_>| {
            let happening = match piece {
                Piece::Data(bytes) => Happening::Data(of, bytes),
                Piece::Gap(bytes) => Happening::Gap(of, bytes),
                Piece::Conflict(bytes) => Happening::Conflict(of, bytes),
            };
            out(number, key, at, happening);
        };
        let first = if segment.syn {
            segment.sequence.wrapping_add(1)
        } else {
            segment.sequence
        };
        if segment.syn {
            stream.begin(first);
        }
        // What the other side is known to have received comes before what it says next.
        if let Some(acknowledged) = segment.acknowledged {
            other.acknowledged(acknowledged, &mut |piece| tell(from.other(), piece));
        }
        stream.segment(first, segment.payload, &mut |piece| tell(from, piece));
        if segment.missing_bytes > 0 {
            let kept = u32::try_from(segment.payload.len()).unwrap_or(0);
            stream.begin(first);
            stream.lost(first.wrapping_add(kept), segment.missing_bytes, &mut |piece| {
                tell(from, piece)
            });
        }
        if segment.fin
            && let Some(closed) = self.closed.get_mut(side)
        {
            *closed = true;
        }
        segment.rst || self.closed == [true; 2]
    }

    fn finish(mut self, at: Duration, seen: bool, out: &mut Sink<'_>) {
        let (number, key) = (self.number, self.key);
        for (from, stream) in [
            (Sender::Client, &mut self.client),
            (Sender::Server, &mut self.server),
        ] {
            stream.finish(&mut |piece| {
                let happening = match piece {
                    Piece::Data(bytes) => Happening::Data(from, bytes),
                    Piece::Gap(bytes) => Happening::Gap(from, bytes),
                    Piece::Conflict(bytes) => Happening::Conflict(from, bytes),
                };
                out(number, key, at, happening);
            });
        }
        if !self.carried {
            let how = match (self.taken, self.reset) {
                (true, _) => Unopened::Silent,
                (false, true) => Unopened::Refused,
                (false, false) => Unopened::Unanswered,
            };
            out(number, key, at, Happening::Unopened(how));
        }
        out(number, key, at, Happening::Ends { seen });
    }
}
