//! One recording while it is read: as many of its bytes as hold the next packet.

use std::io::Read;
use std::ops::Range;
use std::time::Duration;

use penstock_inspect::capture::{CaptureError, FilePlace, Frame, Frames};

use super::super::unread::share;
use super::opened::Input;
use crate::failure::Failure;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 1 << 18;
/// The header of a file, as much of it as says what it is.
const HEADER_BYTES: usize = 24;

/// A recording and the packet that comes next.
pub(super) struct Source {
    name: String,
    bytes: Box<dyn Read>,
    length: Option<u64>,
    /// Bytes that were read and not gone over, from `at` on.
    buffer: Vec<u8>,
    at: usize,
    /// Bytes before those.
    gone_over: u64,
    ended: bool,
    place: Option<FilePlace>,
    next: Option<NextFrame>,
    taken: u64,
    cut: Option<String>,
}

/// A packet in the buffer.
struct NextFrame {
    link_type: u16,
    at: Duration,
    wire_bytes: usize,
    bytes: Range<usize>,
}

impl Source {
    /// Opens a recording.
    pub(super) fn open(input: &Input) -> Result<Self, Failure> {
        let name = input.name();
        let opened = input.open().map_err(|error| unreadable(&name, &error))?;
        let mut source = Self {
            bytes: opened.bytes,
            length: opened.length,
            buffer: Vec::new(),
            at: 0,
            gone_over: 0,
            ended: false,
            place: None,
            next: None,
            taken: 0,
            cut: None,
            name,
        };
        while source.buffer.len() < HEADER_BYTES && !source.ended {
            source.fill()?;
        }
        let frames = Frames::open(&source.buffer).map_err(|error| unreadable(&source.name, &error))?;
        let rest = usize::try_from(frames.rest_bytes()).unwrap_or(usize::MAX);
        source.at = source.buffer.len().saturating_sub(rest);
        source.place = Some(frames.pause());
        Ok(source)
    }

    /// When the next packet was recorded; `None`: there is none more.
    pub(super) fn next_at(&mut self) -> Result<Option<Duration>, Failure> {
        while self.next.is_none() {
            let Some(place) = self.place.take() else { break };
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            let begin = rest.as_ptr().addr();
            let mut frames = Frames::resume(place, rest);
            let found = frames.next();
            let left = usize::try_from(frames.rest_bytes()).unwrap_or(usize::MAX);
            let at = self.buffer.len().saturating_sub(left);
            match found {
                Some(Ok(frame)) => {
                    let from = self.at + frame.bytes.as_ptr().addr().saturating_sub(begin);
                    self.next = Some(NextFrame {
                        link_type: frame.link_type,
                        at: frame.at,
                        wire_bytes: frame.wire_bytes,
                        bytes: from..from + frame.bytes.len(),
                    });
                    self.place = Some(frames.pause());
                    self.at = at;
                }
                None if self.ended => {}
                Some(Err(CaptureError::CutShort(_))) | None if !self.ended => {
                    self.place = Some(frames.pause());
                    self.at = at;
                    self.fill_or_cut()?;
                }
                Some(Err(error)) => {
                    let unread = self.unread(left);
                    self.cut = Some(format!("{}: {error}; unread: {unread}", self.name));
                }
                None => {}
            }
        }
        Ok(self.next.as_ref().map(|next| next.at))
    }

    /// Whether no packet of it was taken yet.
    pub(super) fn is_at_its_beginning(&self) -> bool {
        self.taken == 0
    }

    /// Hands on the next packet, as the one with this number.
    pub(super) fn take(&mut self, number: u64, take: &mut impl FnMut(&Frame<'_>)) {
        let Some(next) = self.next.take() else { return };
        self.taken += 1;
        take(&Frame {
            number,
            link_type: next.link_type,
            at: next.at,
            bytes: self.buffer.get(next.bytes).unwrap_or_default(),
            wire_bytes: next.wire_bytes,
        });
    }

    /// Why it was not read to its end, if it was not.
    pub(super) fn cut(self) -> Option<String> {
        self.cut
    }

    /// How much was not read, where that can be said.
    fn unread(&self, left: usize) -> String {
        let read = self.gone_over + (self.buffer.len().saturating_sub(left)) as u64;
        match self.length {
            Some(length) => share(length.saturating_sub(read), length, "bytes"),
            None => "what follows".to_owned(),
        }
    }

    /// Reads on; what cannot be read, or not be decompressed, ends the recording there.
    fn fill_or_cut(&mut self) -> Result<(), Failure> {
        if let Err(failure) = self.fill() {
            if self.taken == 0 {
                return Err(failure);
            }
            let why = failure.because.join("; ");
            self.cut = Some(format!(
                "{}: after {} packets: {why}; unread: what follows",
                self.name, self.taken
            ));
            self.place = None;
            self.ended = true;
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), Failure> {
        self.buffer.drain(..self.at);
        self.gone_over += self.at as u64;
        self.at = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + CHUNK_BYTES, 0);
        let room = self.buffer.get_mut(before..).unwrap_or_default();
        let read = loop {
            match self.bytes.read(room) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = read.as_ref().copied().unwrap_or(0);
        self.buffer.truncate(before + count);
        self.ended = count == 0;
        read.map_err(|error| unreadable(&self.name, &error))?;
        Ok(())
    }
}

fn unreadable(name: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::local("capture-unreadable", format!("the capture {name} cannot be read"))
        .because(error.to_string())
        .help(
            "name a file as `tcpdump -w`, `dumpcap` or Wireshark write it (pcap or pcapng), also compressed by gzip or zstd; \
             `-` is standard input",
        )
}
