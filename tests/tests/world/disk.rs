//! A gateway's disk: records that outlive their agent. It refuses writes for a while, does not give some of its records back for a
//! while, and is cut off amid a write, which is then done or not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_agent::durable::FileError;
use penstock_agent::reconcile::{Handed, Workplace};
use penstock_agent::store::{Records, StoreError};
use penstock_proto::v1::Fault;

use super::life::Life;

#[derive(Debug, Default)]
pub(crate) struct Disk {
    records: BTreeMap<&'static str, Vec<u8>>,
    pub(crate) full_until: Duration,
    pub(crate) unreadable_until: Duration,
    /// The records that cannot be read then.
    unreadable: Vec<&'static str>,
}

/// What an agent keeps of policies.
pub(crate) const RECORDS: [&str; 5] = ["policy-a", "policy-b", "effective", "trust", "trial"];

impl Disk {
    /// Whether it takes and gives back everything.
    pub(crate) fn works(&self, now: Duration) -> bool {
        now >= self.full_until.max(self.unreadable_until)
    }

    /// Those of its records cannot be read until then whose bit is set.
    pub(crate) fn give_back_all_but(&mut self, mask: u64, until: Duration) {
        let records = RECORDS.iter().enumerate();
        let meant = records.filter(|(bit, _)| mask & (1 << bit) != 0);
        self.unreadable = meant.map(|(_, record)| *record).collect();
        self.unreadable_until = until;
    }

    /// What stands there, for the checkers.
    pub(crate) fn record(&self, record: &str) -> Option<&[u8]> {
        self.records.get(record).map(Vec::as_slice)
    }
}

/// The disk as one agent has it.
#[derive(Clone)]
pub(crate) struct Mounted {
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) life: Life,
}

/// The disk in the hands of one piece of work.
struct Session<'a> {
    disk: &'a mut Disk,
    life: &'a Life,
}

impl Session<'_> {
    fn is_unreadable(&self, record: &str) -> bool {
        self.disk.unreadable.contains(&record) && self.life.now() < self.disk.unreadable_until
    }
}

impl Records for Session<'_> {
    fn load(&mut self, record: &'static str) -> Option<Vec<u8>> {
        let readable = !self.is_unreadable(record);
        readable.then(|| self.disk.records.get(record).cloned()).flatten()
    }

    fn save(&mut self, record: &'static str, payload: &[u8]) -> Result<(), StoreError> {
        let fails = self.life.now() < self.disk.full_until || self.unread(record).is_some();
        let dies_before = self.life.dies_here();
        if !fails && !dies_before {
            self.disk.records.insert(record, payload.to_vec());
        }
        // What is written may be the last thing that it did.
        if fails || self.life.dies_here() {
            return Err(StoreError {
                record,
                source: FileError {
                    verb: "write",
                    path: record.into(),
                    source: std::io::Error::other("the disk failed"),
                },
            });
        }
        Ok(())
    }

    fn unread(&self, record: &'static str) -> Option<&str> {
        (self.is_unreadable(record) && self.disk.records.contains_key(record))
            .then_some("the disk reports errors")
    }

    fn unusable(&self, record: &'static str) -> Option<&str> {
        self.unread(record)
    }

    fn faults(&self) -> Vec<Fault> {
        match self.life.now() < self.disk.unreadable_until {
            true => vec![Fault::new(
                "store-copy-unread",
                "the disk reports errors".to_owned(),
            )],
            false => Vec::new(),
        }
    }

    fn mend(&mut self) {}
}

impl Workplace for Mounted {
    fn on_records<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Records) -> T + Send + 'static,
    ) -> Handed<T> {
        let mounted = self.clone();
        Box::pin(async move {
            mounted.life.at_a_seam().await;
            let done = {
                let mut disk = mounted.disk.lock().unwrap();
                work(&mut Session {
                    disk: &mut disk,
                    life: &mounted.life,
                })
            };
            mounted.life.at_a_seam().await;
            Some(done)
        })
    }

    fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Handed<T> {
        let life = self.life.clone();
        Box::pin(async move {
            life.at_a_seam().await;
            Some(work())
        })
    }
}
