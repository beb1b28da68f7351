//! All TCP connections of a capture: which side opened each, and what each side sent, in order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::link::Segment;
use super::reassembly::{self, Piece, Stream};
use crate::connection::Sender;

/// A connection by its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Who opened it.
    pub client: SocketAddr,
    /// To whom.
    pub server: SocketAddr,
}

/// What happens on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening<'a> {
    /// A connection that was not known before.
    Begins {
        /// It was opened earlier than the capture began: its opening is not there.
        midway: bool,
    },
    /// A side sent these bytes, next in its stream.
    Data(Sender, &'a [u8]),
    /// So many bytes of a side are not in the capture.
    Gap(Sender, u64),
    /// A side sent other bytes for the same place in its stream: so many differ.
    Conflict(Sender, usize),
    /// It is over.
    Ends,
}

/// Bounds of all connections together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections followed at a time; segments of further ones are counted and left out.
    pub flows_max: usize,
    /// Each direction of each.
    pub stream: reassembly::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows_max: 65_536,
            stream: reassembly::Limits::default(),
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
    limits: Limits,
    server_ports: Vec<u16>,
    open: HashMap<(SocketAddr, SocketAddr), Flow>,
    next_number: FlowNumber,
    left_out: u64,
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
}

impl Flows {
    /// None yet. Where the opening is not captured, the end with one of `server_ports` is the server, else the
    /// one with the lower port.
    pub fn new(limits: Limits, server_ports: &[u16]) -> Self {
        Self {
            limits,
            server_ports: server_ports.to_vec(),
            open: HashMap::new(),
            next_number: 0,
            left_out: 0,
        }
    }

    /// Segments left out because too many connections were open at a time.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes a segment.
    pub fn segment(&mut self, at: Duration, segment: &Segment<'_>, out: &mut Sink<'_>) {
        let ends = if segment.source <= segment.destination {
            (segment.source, segment.destination)
        } else {
            (segment.destination, segment.source)
        };
        let opening = segment.syn && segment.acknowledged.is_none();
        // A new SYN on the same ends, not the old one again, is a new connection.
        if opening
            && let Some(flow) = self.open.get(&ends)
            && flow.opening != Some(segment.sequence)
            && let Some(flow) = self.open.remove(&ends)
        {
            flow.finish(at, out);
        }
        if !self.open.contains_key(&ends) {
            // The last acknowledgements of a connection that is over open no new one.
            if segment.rst || (segment.payload.is_empty() && segment.missing_bytes == 0 && !segment.syn) {
                return;
            }
            if self.open.len() >= self.limits.flows_max {
                self.left_out += 1;
                return;
            }
            let flow = self.begin(at, segment, out);
            self.open.insert(ends, flow);
        }
        let Some(flow) = self.open.get_mut(&ends) else {
            return;
        };
        if flow.take(at, segment, out)
            && let Some(flow) = self.open.remove(&ends)
        {
            flow.finish(at, out);
        }
    }

    /// The capture is over.
    pub fn finish(&mut self, out: &mut Sink<'_>) {
        let mut flows: Vec<Flow> = self.open.drain().map(|(_, flow)| flow).collect();
        flows.sort_by_key(|flow| flow.number);
        for flow in flows {
            let last = flow.last;
            flow.finish(last, out);
        }
    }

    fn begin(&mut self, at: Duration, segment: &Segment<'_>, out: &mut Sink<'_>) -> Flow {
        let known = |end: SocketAddr| self.server_ports.contains(&end.port());
        let from_client = if segment.syn {
            segment.acknowledged.is_none()
        } else {
            match (known(segment.source), known(segment.destination)) {
                (true, false) => false,
                (false, true) => true,
                _ => segment.destination.port() <= segment.source.port(),
            }
        };
        let (client, server) = if from_client {
            (segment.source, segment.destination)
        } else {
            (segment.destination, segment.source)
        };
        let flow = Flow {
            number: self.next_number,
            key: FlowKey { client, server },
            client: Stream::new(self.limits.stream),
            server: Stream::new(self.limits.stream),
            opening: (segment.syn && segment.acknowledged.is_none()).then_some(segment.sequence),
            closed: [false; 2],
            last: at,
        };
        self.next_number += 1;
        out(
            flow.number,
            flow.key,
            at,
            Happening::Begins { midway: !segment.syn },
        );
        flow
    }
}

impl Flow {
    /// Takes a segment; whether the connection is over.
    fn take(&mut self, at: Duration, segment: &Segment<'_>, out: &mut Sink<'_>) -> bool {
        self.last = at;
        let (number, key) = (self.number, self.key);
        let from = if segment.source == key.client {
            Sender::Client
        } else {
            Sender::Server
        };
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
            let peer = match from {
                Sender::Client => Sender::Server,
                Sender::Server => Sender::Client,
            };
            other.acknowledged(acknowledged, &mut |piece| tell(peer, piece));
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

    fn finish(mut self, at: Duration, out: &mut Sink<'_>) {
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
        out(number, key, at, Happening::Ends);
    }
}
