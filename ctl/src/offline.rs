//! Commands that need no coordinator: they read documents, keys and signed releases from disk.

pub mod changes;
pub mod check;
pub mod consequences;
pub mod event_proof;
pub mod evidence;
pub mod explain;
pub mod fmt;
pub mod graph;
pub mod init;
pub mod learn;
pub mod overrides;
pub mod plans;
pub mod reach;
pub mod records;
pub mod replay;
pub mod rollout;
pub mod signing;
