//! Blocks as records with names, for whoever reads the trail without a person who waits: exports.

use penstock_proto::audit::read_body;
use penstock_proto::v1::AuditRecord;
use tonic::Code;

use super::names::Names;
use super::{Filter, events, record};
use crate::releases::Releases;
use crate::store::StoredBlock;

/// Why a block is not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// What is stored is not a block.
    Damaged(String),
    /// The names of its addresses cannot be looked up now.
    Names(String),
}

/// Reads blocks one after another.
#[derive(Debug)]
pub(crate) struct BlockReader {
    filter: Filter,
    releases: Releases,
    names: Names,
}

impl BlockReader {
    /// Of the events of `kinds` (bits; 0: all) of at least this severity.
    pub(crate) fn new(kinds: u32, severity_min: i32, releases: Releases) -> Self {
        Self {
            filter: Filter {
                kinds,
                severity_min,
                ..Filter::default()
            },
            releases,
            names: Names::default(),
        }
    }

    /// The same without names.
    pub(crate) fn unnamed(&self, block: &StoredBlock) -> Vec<AuditRecord> {
        let events = read_body(&block.body).map(|body| body.events).unwrap_or_default();
        let indexed = events.into_iter().zip(0..);
        let found = indexed.filter(|(event, _)| self.filter.matches(&block.source, block.received_ms, event));
        let records = found.map(|(event, index)| AuditRecord {
            source: block.source.clone(),
            epoch: block.epoch,
            sequence: block.sequence,
            index,
            received_ms: block.received_ms,
            event: Some(event),
            ..AuditRecord::default()
        });
        records.collect()
    }

    /// Such events of a block.
    pub(crate) async fn records(&mut self, block: &StoredBlock) -> Result<Vec<AuditRecord>, Unread> {
        let mut found = Vec::new();
        let asked = (&self.filter, &self.releases);
        let read = events(block, asked, &mut self.names, &mut |met| found.push(record(&met))).await;
        read.map(|()| found).map_err(|status| {
            let why = status.message().to_owned();
            match status.code() {
                Code::DataLoss => Unread::Damaged(why),
                _ => Unread::Names(why),
            }
        })
    }
}
