//! A log on the gateway's disk: records in at one end, out at the other, and one sync makes a whole batch durable.
//!
//! ```text
//! folder ─▶ segments (files that only grow, numbered) ─▶ records (a length, a digest, a body that is the owner's own)
//! ```
//!
//! Plain files rather than a database: the order is the file's own, and the bytes of one record are nobody else's. The owner begins
//! each segment with a record that says what the older ones added up to, so that those can go without loss.
//!
//! Invariants:
//! - what [`Segments::append`] returned for is durable; what it failed for is given up with its segment, which is never written again;
//! - a segment that was there at opening is never written again either: nobody knows what of its end the disk holds;
//! - a record is read only where it was written: its digest binds it to its log, its segment and its place;
//! - an error of the disk is never taken for damage, and removes nothing.
//!
//! All that touches the disk goes through [`Disk`], so that tests can have one that tears, forgets and refuses.
//! Not here: what records mean, which of them are done with, and quotas ([`crate::bridge::queue`],
//! [`crate::audit::spool`]).

mod disk;
#[cfg(test)]
pub mod faulty;
pub mod frame;
mod read_only;
mod scan;
mod segments;

pub use disk::{Disk, DiskFile, RealDisk};
pub use frame::LogId;
pub use read_only::ReadOnlyDisk;
pub use scan::{Scan, Step};
pub use segments::{Found, Segment, Segments, numbered, read_header};
