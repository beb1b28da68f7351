//! One peer of an inspected connection: what it has not taken yet, and how far its stream has come to an end.

use std::io;
use std::task::{Context, Poll};

use super::super::leg::Leg;

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) leg: Leg,
    /// What it has not taken yet.
    pub(super) backlog: Vec<u8>,
    /// It sends no more.
    pub(super) over: bool,
    /// It was told that nothing more comes.
    pub(super) finished: bool,
}

impl Peer {
    pub(super) fn new(leg: Leg) -> Self {
        Self {
            leg,
            backlog: Vec::new(),
            over: false,
            finished: false,
        }
    }

    /// Sends `bytes` after what waits; what is not taken waits.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.backlog.is_empty() {
            while !rest.is_empty() {
                match self.leg.poll_write(cx, rest)? {
                    Poll::Ready(count) => rest = rest.get(count..).unwrap_or_default(),
                    Poll::Pending => break,
                }
            }
        }
        self.backlog.extend_from_slice(rest);
        Ok(())
    }

    /// Sends what waits, as far as it is taken.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.backlog.is_empty() {
            match self.leg.poll_write(cx, &self.backlog)? {
                Poll::Ready(count) => drop(self.backlog.drain(..count.min(self.backlog.len()))),
                Poll::Pending => return Ok(()),
            }
        }
        // A connection that once was slow keeps no memory for it.
        self.backlog = Vec::new();
        let Poll::Ready(flushed) = self.leg.poll_flush(cx) else {
            return Ok(());
        };
        flushed
    }

    /// The same where nothing else is left to do: its end is what closing it sends, unless it has to be said inside TLS.
    pub(super) fn finish_last(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.over && self.backlog.is_empty() && !self.leg.is_tls() {
            self.finished = true;
        }
        self.finish(cx)
    }

    /// Passes the end of the other side on, once everything before it was taken.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.finished && self.backlog.is_empty() && self.leg.poll_finish(cx)?.is_ready() {
            self.finished = true;
        }
        Ok(())
    }
}
