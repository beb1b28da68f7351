//! Recordings from disk, frame by frame.

use std::path::PathBuf;

use penstock_inspect::capture::{Frame, Frames};

use super::unread::share;
use crate::failure::Failure;

/// A file is gone over twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// For what tells of connections that stood before the recording.
    Survey,
    /// For the rest.
    Take,
}

/// Reads captures one after another, each packet in both passes. What could not be read to its end is reported.
pub(crate) fn read(
    files: &[PathBuf],
    mut take: impl FnMut(Pass, &Frame<'_>),
) -> Result<Vec<String>, Failure> {
    let mut cut = Vec::new();
    for file in files {
        let unreadable = |error: &dyn std::fmt::Display| {
            Failure::local(
                "capture-unreadable",
                format!("the capture {} cannot be read", file.display()),
            )
            .because(error.to_string())
            .help("name a file as `tcpdump -w`, `dumpcap` or Wireshark write it (pcap or pcapng)")
        };
        let bytes = std::fs::read(file).map_err(|error| unreadable(&error))?;
        let frames = || Frames::open(&bytes).map_err(|error| unreadable(&error));
        frames()?.flatten().for_each(|frame| take(Pass::Survey, &frame));
        let mut frames = frames()?;
        while let Some(frame) = frames.next() {
            match frame {
                Ok(frame) => take(Pass::Take, &frame),
                Err(error) => {
                    let unread = share(frames.rest_bytes(), bytes.len() as u64, "bytes");
                    cut.push(format!("{}: {error}; unread: {unread}", file.display()));
                }
            }
        }
    }
    Ok(cut)
}
