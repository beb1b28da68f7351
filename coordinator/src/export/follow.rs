//! One export, as long as the coordinator runs: reads behind its place, sends, and notes what certainly arrived. Whatever fails is
//! tried again after a pause, from the place that is noted.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use penstock_proto::backoff::Backoff;
use penstock_proto::export::ExportRecord;
use penstock_proto::v1::AuditRecord;

use super::place::Place;
use super::receiver::{Receiver, ReceiverError};
use super::settings::ExportSettings;
use super::window::Window;
use crate::clock;
use crate::health::exports::Standings;
use crate::query::{BlockReader, Unread};
use crate::releases::Releases;
use crate::store::{BlockFilter, Cursor, Page, Store, StoreError};

/// Blocks read at once, and so kept in memory.
const PAGE: usize = 16;
/// Records sent at once.
const BATCH: usize = 1000;
/// Between two notes of the place, each of which is a write to the disk.
const NOTE: Duration = Duration::from_secs(1);
/// Between two attempts.
const PAUSE: Backoff = Backoff::between(Duration::from_millis(500), Duration::from_secs(15));
/// How often the names of a block's addresses are asked for before it is sent without them.
const NAMES_TRIES: u32 = 3;

/// Why an export pauses.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    /// The trail cannot be read, or the place not noted.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The receiver.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// The names of addresses.
    #[error("the names of addresses cannot be looked up now: {0}")]
    Names(String),
}

/// What an export needs.
pub(crate) struct Exporter {
    /// Where to, and what.
    pub(crate) settings: ExportSettings,
    /// The plant's name, for the records.
    pub(crate) plant: String,
    /// Where the trail is.
    pub(crate) store: Store,
    /// Where names are.
    pub(crate) releases: Releases,
    /// Where it is said how it goes.
    pub(crate) standings: Standings,
}

/// Exports until the coordinator stops.
pub(crate) async fn follow(exporter: Exporter) {
    let mut pause = PAUSE;
    let name = exporter.settings.name.clone();
    let mut tries = 0;
    loop {
        let began = Instant::now();
        let mut arrived = false;
        let Err(error) = exporter.run(tries, &mut arrived).await;
        if arrived {
            pause.worked();
        }
        tries = match &error {
            ExportError::Names(_) => tries + 1,
            _ => 0,
        };
        let why = crate::chain(&error);
        tracing::warn!(export = name, error = why, "an export waits");
        exporter.standings.waits(&name, clock::now_ms(), why);
        let wait = pause.ended(began.elapsed(), getrandom::u64().unwrap_or(0));
        tokio::time::sleep(wait).await;
    }
}

impl Exporter {
    /// Sends from the noted place on until something fails. `tries`: how often names could not be looked up there; `arrived`: whether
    /// the place went on.
    async fn run(&self, tries: u32, arrived: &mut bool) -> Result<Infallible, ExportError> {
        let name = &self.settings.name;
        let mut place = Place::load(&self.store, &self.settings).await?;
        let mut receiver = Receiver::open(&self.settings.to).await?;
        let mut window = Window::new(receiver.hold());
        let mut appended = self.store.appended();
        let mut reader = BlockReader::new(
            self.settings.kinds,
            self.settings.severity_min,
            self.releases.clone(),
        );
        let mut names_left = NAMES_TRIES.saturating_sub(tries);
        let (mut sent, mut noted) = (place.cursor.clone(), None::<Instant>);
        loop {
            appended.borrow_and_update();
            // Each block is read, whatever the filter: a page is then bounded, and a rare kind in a long trail still gets on.
            let page = self
                .store
                .page(BlockFilter::default(), Some(sent.clone()), PAGE)
                .await?;
            // Behind the page: what it did not see because it was removed meanwhile is counted, too.
            let (more, end) = match self.store.removed_behind(sent.clone()).await? {
                Some(removed) => {
                    let why = "retention removed them before they certainly arrived";
                    self.send_missing(&mut receiver, removed.blocks, why).await?;
                    (true, removed.end)
                }
                None => {
                    self.lag(&page);
                    self.send_page(&mut receiver, &page, &mut reader, &mut names_left)
                        .await?;
                    (page.more, page.end)
                }
            };
            // Not before: a receiver that can be reached need not take anything.
            self.standings.goes_on(name);
            if end != sent {
                sent = end;
                window.acknowledged(sent.clone(), Instant::now());
            }
            if noted.is_none_or(|noted| noted.elapsed() >= NOTE)
                && self.note(&mut place, window.settled(Instant::now())).await?
            {
                (*arrived, noted) = (true, Some(Instant::now()));
            }
            if more {
                continue;
            }
            tokio::select! {
                // A store that closed appends nothing any more, and the next page says so.
                _ = appended.changed() => {}
                error = receiver.ended() => return Err(error.into()),
                // The next turn notes it.
                () = until(window.due().map(|due| noted.map_or(due, |noted| due.max(noted + NOTE)))) => {}
            }
        }
    }

    async fn send_page(
        &self,
        receiver: &mut Receiver,
        page: &Page,
        reader: &mut BlockReader,
        names_left: &mut u32,
    ) -> Result<(), ExportError> {
        let mut batch: Vec<ExportRecord> = Vec::new();
        for block in &page.blocks {
            let records = match reader.records(block).await {
                Ok(records) => records,
                Err(Unread::Damaged(why)) => {
                    self.send_batch(receiver, std::mem::take(&mut batch)).await?;
                    self.send_missing(receiver, 1, &why).await?;
                    continue;
                }
                Err(Unread::Names(why)) if *names_left > 0 => return Err(ExportError::Names(why)),
                Err(Unread::Names(why)) => {
                    tracing::warn!(
                        export = self.settings.name,
                        why,
                        "a block is exported without names"
                    );
                    reader.unnamed(block)
                }
            };
            *names_left = NAMES_TRIES;
            batch.extend(
                records
                    .iter()
                    .map(|record: &AuditRecord| ExportRecord::of(&self.plant, record)),
            );
            if batch.len() >= BATCH {
                self.send_batch(receiver, std::mem::take(&mut batch)).await?;
            }
        }
        self.send_batch(receiver, batch).await
    }

    async fn send_batch(&self, receiver: &mut Receiver, batch: Vec<ExportRecord>) -> Result<(), ExportError> {
        let records = batch.len();
        if records == 0 {
            return Ok(());
        }
        let name = &self.settings.name;
        if let Some(rejected) = receiver.send(batch).await? {
            let what = format!(
                "the receiver rejected {} records for good: {}",
                rejected.records, rejected.why
            );
            tracing::error!(export = name, "{what}");
            self.standings.is_short(name, clock::now_ms(), what);
            metrics::counter!("penstock_export_rejected_total", "export" => name.clone())
                .increment(rejected.records);
        }
        metrics::counter!("penstock_export_records_total", "export" => name.clone())
            .increment(records as u64);
        Ok(())
    }

    /// Says in the export itself, and in health, that it does not bring these blocks.
    async fn send_missing(&self, receiver: &mut Receiver, blocks: u64, why: &str) -> Result<(), ExportError> {
        let (name, now_ms) = (&self.settings.name, clock::now_ms());
        let record = ExportRecord::missing(&self.plant, name, now_ms, blocks, why);
        tracing::error!(export = name, "{}", record.sentence);
        self.standings.is_short(name, now_ms, record.sentence.clone());
        metrics::counter!("penstock_export_missing_blocks_total", "export" => name.clone()).increment(blocks);
        self.send_batch(receiver, vec![record]).await
    }

    /// Notes what is certain by now; whether there was anything.
    async fn note(&self, place: &mut Place, settled: Option<Cursor>) -> Result<bool, ExportError> {
        match settled {
            Some(cursor) if cursor != place.cursor => {
                place.note(&self.store, cursor).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// How far behind the export is: by what it sends next.
    fn lag(&self, page: &Page) {
        let behind_ms = page
            .blocks
            .first()
            .map_or(0, |block| clock::now_ms().saturating_sub(block.received_ms));
        metrics::gauge!("penstock_export_lag_seconds", "export" => self.settings.name.clone())
            .set(behind_ms as f64 / 1000.0);
    }
}

/// Waits until then; for ever, if there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
