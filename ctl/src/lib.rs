//! # penstock
//!
//! The operator's program. Offline first: whatever can be told from a document, a key or a signed release on disk
//! needs no coordinator.
//!
//! ```text
//! args ─▶ app ─▶ offline/*  documents ─ loading ─▶ model::Plant ─▶ answers
//!           └──▶ online/*   contexts ─ Online ─▶ coordinator, never believed: compiled again here
//!                                │
//! output ◀─ Report (JSON by its schema, a page for people) ─┘   failure ─▶ exit code
//! ```
//!
//! Invariants: answers go to standard output, all else to standard error; JSON has a `schema`; exit codes are those
//! of [`exit`]; text from elsewhere cannot command the terminal; nothing is overwritten that was not made here.

#![warn(clippy::missing_errors_doc)]

pub mod app;
pub mod args;
pub mod ask;
pub mod contexts;
pub mod demo;
pub mod documents;
pub mod exit;
pub mod failure;
pub mod files;
pub mod keys;
pub mod known;
pub mod loading;
pub mod locate;
pub mod offline;
pub mod online;
pub mod output;
pub mod schemas;
pub mod times;
pub mod words;
