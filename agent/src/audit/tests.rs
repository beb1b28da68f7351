//! The spool against a reference that is nothing but a list, with crashes at any point; and the writer around it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod astray;
mod faults;
mod kept;
mod model;
mod seals;
mod settled;
mod trail;
mod writing;

use std::path::Path;

use penstock_proto::audit::{Head, read_body};
use penstock_proto::v1::{AuditBlock, AuditEvent, Severity, audit_event::Kind};

use super::layout::Position;
use super::record;
use super::spool::{Spool, SpoolLimits};
use crate::log::Disk;

const LIMITS: SpoolLimits = SpoolLimits {
    bytes_max: 24 * 1024,
    block_bytes: 1024,
    free_bytes_min: 0,
};

fn event(severity: i32, time_ms: u64, text_bytes: usize) -> AuditEvent {
    record::event(
        time_ms,
        Severity::try_from(severity).unwrap(),
        7,
        record::agent("step", &"x".repeat(text_bytes)),
    )
}

fn all<D: Disk>(spool: &mut Spool<D>) -> Vec<AuditBlock> {
    spool.read(Position::default(), usize::MAX, usize::MAX).unwrap()
}

/// Verifies the chain and returns its blocks missing, events present, events and blocks told as lost.
fn verify(blocks: &[AuditBlock]) -> (u64, u64, u64, u64) {
    let mut head: Option<Head> = None;
    let (mut missing, mut events, mut told_events, mut told_blocks) = (0, 0, 0, 0);
    for block in blocks {
        let accepted = Head::accept(head.as_ref(), block).unwrap();
        missing += accepted.missing;
        head = Some(accepted.head);
        for event in read_body(&block.body).unwrap().events {
            match event.kind.unwrap() {
                Kind::Loss(loss) => {
                    told_events += loss.events;
                    told_blocks += loss.blocks;
                }
                _ => events += 1,
            }
        }
    }
    (missing, events, told_events, told_blocks)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A folder in memory, for tests that sync thousands of times.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A copy of the folder as the file system has it now: what a power cut leaves of what was synced, and more.
fn crash(from: &Path) -> tempfile::TempDir {
    let to = folder();
    copy(from, to.path());
    to
}
