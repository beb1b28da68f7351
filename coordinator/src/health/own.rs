//! The coordinator's own health: whether its store can be written, its disk, its clock, its certificates. Zones may be well
//! while the one who says so is not.
//!
//! [`OwnHealth`] is a pure machine; [`follow`] feeds it. What is proved is proved: the store by a write ([`Probe`]), at a bounded rate,
//! whoever asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::tls::{certificates_from_pem, validity_ms};
use penstock_proto::v1::Fault;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::clock;
use crate::health::exports::ExportFaults;
use crate::store::{Change, Expect, Silent, Store, StoreError};
use crate::witnesses;

/// How often the coordinator looks at itself.
const LOOK: Duration = Duration::from_secs(10);
/// How long the proof of a write counts for itself, ...
const PROVED: Duration = Duration::from_secs(30);
/// ... and for who asks from outside.
pub const PROVED_FOR_OTHERS: Duration = Duration::from_secs(2);
/// How long a write may take.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// A clock that goes off by more than this at once was set.
const JUMP_MS: u64 = 5_000;
/// How long a jump is shown.
const JUMP_SHOWN: Duration = Duration::from_secs(3600);
/// Our own certificate is renewed in time; when it has only this long left, that failed.
const CERTIFICATE_LEFT_MS: u64 = 3 * 86_400_000;
/// The authority's has to be replaced by people.
const AUTHORITY_LEFT_MS: u64 = 90 * 86_400_000;
/// So has the issuing certificate, and the root's key is far away; what is issued in its last months ends with it.
const ISSUING_LEFT_MS: u64 = 180 * 86_400_000;
/// The record that is written to prove that one can be.
const PROBE: &str = "health/probe";

/// What is known at one moment.
#[derive(Debug, Clone)]
pub struct OwnFacts {
    /// The clock, milliseconds since 1970.
    pub now_ms: u64,
    /// The time since boot, suspended or not.
    pub since_boot: Duration,
    /// Why the store could not be written.
    pub store: Option<String>,
    /// What the store may still take, bytes; `None`: it could not be asked.
    pub free_bytes: Option<u64>,
    /// What of it is kept for what must go on.
    pub reserve_bytes: u64,
    /// Why the newest approved release is not offered to gateways.
    pub release: Option<String>,
    /// Why the list of withdrawn keys may lack something.
    pub withdrawn: Option<String>,
    /// What was lost with an older backup, and learnt back from gateways.
    pub restored: Option<String>,
    /// Why nothing can be issued.
    pub issuing: Option<String>,
    /// Why external witnesses did not cosign the head of the trails.
    pub witnesses: Option<String>,
    /// Why the own trail is not sealed as it should be.
    pub unsealed: Option<String>,
    /// What is wrong with exports of the trail.
    pub exports: Vec<Fault>,
    /// What is wrong with what a replicated store rests on.
    pub cluster: Vec<Fault>,
    /// Validity of our own certificate, milliseconds since 1970; `None`: it cannot be read.
    pub certificate_ms: Option<(u64, u64)>,
    /// The same of the plant's root.
    pub root_ms: Option<(u64, u64)>,
    /// The same of the certificate by which this coordinator issues; `None`: the root issues.
    pub issuing_ms: Option<Option<(u64, u64)>>,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct OwnHealth {
    last: Option<(u64, Duration)>,
    /// When the clock jumped, by the time since boot; from what to what, milliseconds since 1970.
    jumped: Option<(Duration, u64, u64)>,
}

impl OwnHealth {
    /// Takes in what is known now; gives what a person should know.
    pub fn see(&mut self, facts: &OwnFacts) -> Vec<Fault> {
        if let Some((then_ms, then)) = self.last {
            let passed = u64::try_from(facts.since_boot.saturating_sub(then).as_millis()).unwrap_or(u64::MAX);
            let expected_ms = then_ms.saturating_add(passed);
            if expected_ms.abs_diff(facts.now_ms) > JUMP_MS {
                self.jumped = Some((facts.since_boot, expected_ms, facts.now_ms));
            }
        }
        self.last = Some((facts.now_ms, facts.since_boot));
        let mut faults = Vec::new();
        if let Some(why) = &facts.store {
            faults.push(Fault::new(
                "store-failed",
                format!("nothing can be stored, so audit waits at the gateways and no release can be approved: {why}"),
            ));
        }
        if let Some(why) = &facts.release {
            faults.push(Fault::new(
                "release-unreadable",
                format!(
                    "gateways are not offered the newest approved release, and stay with the one before: {why}; it is tried again. If it \
                     stays so, propose the documents again, or restore the store from a backup"
                ),
            ));
        }
        if let Some(why) = &facts.withdrawn {
            faults.push(Fault::new("withdrawn-behind", why.clone()));
        }
        if let Some(why) = &facts.restored {
            faults.push(Fault::new("restored", why.clone()));
        }
        if let Some(why) = &facts.unsealed {
            faults.push(Fault::new(
                "own-trail-unsealed",
                format!(
                    "the coordinator's own trail is written, and what operators do now is not sealed against whoever takes this machine later: {why}; it is tried again"
                ),
            ));
        }
        if let Some(why) = &facts.issuing {
            faults.push(Fault::new(
                "issuing-key",
                format!(
                    "nobody can be enrolled and no certificate renewed, nor is the list of withdrawn keys signed for gateways: {why}. Certificates that were issued go on counting until they end"
                ),
            ));
        }
        if let Some(why) = &facts.witnesses {
            faults.push(Fault::new("witness-waits", why.clone()));
        }
        faults.extend(facts.exports.iter().cloned());
        faults.extend(facts.cluster.iter().cloned());
        match facts.free_bytes {
            Some(free) if free <= facts.reserve_bytes => faults.push(Fault::new(
                "disk-low",
                format!(
                    "gateways' audit waits: the store's disk has at most {} MiB left, which are reserved for approvals, certificates and operators' own trail; make room, or let `storage.trail_days` remove old audit",
                    step_above(free, facts.reserve_bytes)
                ),
            )),
            Some(_) => {}
            None => faults.push(Fault::new(
                "disk-unknown",
                "the free space on the store's disk cannot be determined".to_owned(),
            )),
        }
        if let Some((at, from_ms, to_ms)) = self.jumped
            && facts.since_boot.saturating_sub(at) <= JUMP_SHOWN
        {
            faults.push(Fault::new(
                "clock-set",
                format!(
                    "the coordinator's clock was set from {} to {}: ages and times of receipt from before and after cannot be compared; check its time service",
                    utc(from_ms),
                    utc(to_ms)
                ),
            ));
        }
        faults.extend(certificate(
            "certificate",
            "the coordinator's own certificate",
            facts.certificate_ms,
            facts.now_ms,
            CERTIFICATE_LEFT_MS,
        ));
        faults.extend(certificate(
            "authority",
            "the root certificate of the plant",
            facts.root_ms,
            facts.now_ms,
            AUTHORITY_LEFT_MS,
        ));
        if let Some(issuing_ms) = facts.issuing_ms {
            let fault = certificate(
                "issuing",
                "the issuing certificate of this coordinator",
                issuing_ms,
                facts.now_ms,
                ISSUING_LEFT_MS,
            );
            faults.extend(fault.map(|fault| Fault {
                message: format!(
                    "{}; have the plant's root sign another one: penstock-coordinator authority request",
                    fault.message
                ),
                ..fault
            }));
        }
        faults
    }
}

/// The room that is left in steps, MiB, so that a fault is not another one with each block.
fn step_above(free_bytes: u64, reserve_bytes: u64) -> u64 {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    mib(free_bytes).next_power_of_two().min(mib(reserve_bytes))
}

fn certificate(
    code: &str,
    what: &str,
    validity_ms: Option<(u64, u64)>,
    now_ms: u64,
    left_ms: u64,
) -> Option<Fault> {
    let Some((from_ms, until_ms)) = validity_ms else {
        return Some(Fault::new(
            &format!("{code}-unreadable"),
            format!("{what} cannot be read"),
        ));
    };
    let left = until_ms.saturating_sub(now_ms);
    if now_ms < from_ms {
        Some(Fault::new(
            &format!("{code}-not-yet-valid"),
            format!(
                "{what} is not valid before {}: is the coordinator's clock behind?",
                utc(from_ms)
            ),
        ))
    } else if left == 0 {
        Some(Fault::new(
            &format!("{code}-expired"),
            format!(
                "{what} expired on {}: gateways and operators refuse to connect",
                utc(until_ms)
            ),
        ))
    } else if left <= left_ms {
        Some(Fault::new(
            &format!("{code}-expires"),
            format!("{what} expires on {}", utc(until_ms)),
        ))
    } else {
        None
    }
}

fn utc(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(
            || format!("{ms} ms"),
            |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        )
}

/// Proves that the store takes a write.
#[derive(Debug)]
pub struct Probe {
    store: Store,
    last: Mutex<Option<(Instant, Option<String>)>>,
}

impl Probe {
    /// Of this store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            last: Mutex::new(None),
        }
    }

    /// Why the store cannot be written; `None`: it can, as a write has proved no longer than `fresh` ago. Who asks meanwhile
    /// waits for the same proof.
    pub async fn fault(&self, fresh: Duration) -> Option<String> {
        let mut last = self.last.lock().await;
        if let Some((at, outcome)) = &*last
            && at.elapsed() < fresh
        {
            return outcome.clone();
        }
        let outcome = match tokio::time::timeout(WRITE_MAX, self.write()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(crate::chain(&error)),
            Err(_) => Some(format!("a write takes longer than {} s", WRITE_MAX.as_secs())),
        };
        *last = Some((Instant::now(), outcome.clone()));
        outcome
    }

    async fn write(&self) -> Result<(), StoreError> {
        let held = self.store.get(PROBE).await?;
        let expect = held.map_or(Expect::Absent, |record| Expect::Revision(record.revision));
        let change = Change::silent(Silent::Observed).json(PROBE, expect, &clock::now_ms())?;
        match self.store.apply(change).await {
            // Somebody else wrote it: so it can be written.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Where the certificates are that are looked at.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The coordinator's own.
    pub own: PathBuf,
    /// The one by which it issues; `None`: the root issues.
    pub issuing: Option<PathBuf>,
    /// The plant's root.
    pub root: PathBuf,
}

/// What others find wrong of the coordinator itself.
pub(crate) struct OwnReasons {
    /// What the store does not take, withdrawn keys that are behind, a restored backup, why nothing is issued, and why the own trail is not sealed.
    pub(crate) words: [watch::Receiver<Option<String>>; 5],
    /// Why external witnesses did not cosign, by name.
    pub(crate) witnesses: watch::Receiver<BTreeMap<String, String>>,
    /// Exports of the trail.
    pub(crate) exports: ExportFaults,
    /// What a replicated store rests on.
    pub(crate) cluster: watch::Receiver<Vec<Fault>>,
}

/// Looks at the coordinator itself until nobody wants to know.
pub(crate) async fn follow(
    probe: Arc<Probe>,
    files: CertificateFiles,
    reasons: OwnReasons,
    faults: watch::Sender<Vec<Fault>>,
) {
    let OwnReasons {
        words: [mut untaken, mut behind, mut restored, mut issuing, mut unsealed],
        mut witnesses,
        mut exports,
        mut cluster,
    } = reasons;
    let mut seen = OwnHealth::default();
    loop {
        let store = probe.fault(PROVED).await;
        let looked = tokio::task::spawn_blocking({
            let files = files.clone();
            move || {
                let issuing = files.issuing.as_deref().map(validity);
                (validity(&files.own), validity(&files.root), issuing)
            }
        });
        let Ok((certificate_ms, root_ms, issuing_ms)) = looked.await else {
            return;
        };
        let free_bytes = probe
            .store
            .free_bytes()
            .await
            .ok()
            .filter(|free| *free < u64::MAX);
        let now = seen.see(&OwnFacts {
            now_ms: clock::now_ms(),
            since_boot: since_boot(),
            store,
            free_bytes,
            release: untaken.borrow_and_update().clone(),
            withdrawn: behind.borrow_and_update().clone(),
            restored: restored.borrow_and_update().clone(),
            issuing: issuing.borrow_and_update().clone(),
            witnesses: witnesses::in_words(&witnesses.borrow_and_update()),
            unsealed: unsealed.borrow_and_update().clone(),
            exports: exports.now(clock::now_ms()),
            cluster: cluster.borrow_and_update().clone(),
            reserve_bytes: probe.store.reserve_bytes(),
            certificate_ms,
            root_ms,
            issuing_ms,
        });
        metrics::gauge!("penstock_coordinator_faults").set(now.len() as f64);
        faults.send_if_modified(|held| {
            let new = *held != now;
            if new {
                for fault in &now {
                    tracing::error!(code = fault.code, "{}", fault.message);
                }
                *held = now;
            }
            new
        });
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            Ok(()) = untaken.changed() => {}
            Ok(()) = behind.changed() => {}
            Ok(()) = restored.changed() => {}
            Ok(()) = issuing.changed() => {}
            Ok(()) = witnesses.changed() => {}
            Ok(()) = unsealed.changed() => {}
            () = exports.changed() => {}
            Ok(()) = cluster.changed() => {}
            () = faults.closed() => return,
        }
    }
}

fn validity(file: &Path) -> Option<(u64, u64)> {
    let pem = std::fs::read(file).ok()?;
    let chain = certificates_from_pem(&pem, "certificate").ok()?;
    validity_ms(chain.first()?).ok()
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const YEAR_MS: u64 = 365 * 86_400_000;

    fn well(second: u64) -> OwnFacts {
        OwnFacts {
            now_ms: NOW_MS + second * 1000,
            since_boot: Duration::from_secs(1000 + second),
            store: None,
            release: None,
            withdrawn: None,
            restored: None,
            issuing: None,
            witnesses: None,
            unsealed: None,
            exports: Vec::new(),
            cluster: Vec::new(),
            free_bytes: Some(10 << 30),
            reserve_bytes: 1 << 30,
            certificate_ms: Some((NOW_MS - YEAR_MS, NOW_MS + YEAR_MS)),
            root_ms: Some((NOW_MS - YEAR_MS, NOW_MS + YEAR_MS)),
            issuing_ms: None,
        }
    }

    fn codes(facts: &OwnFacts) -> Vec<String> {
        OwnHealth::default()
            .see(facts)
            .into_iter()
            .map(|fault| fault.code)
            .collect()
    }

    #[test]
    fn each_thing_that_is_wrong_with_the_coordinator_is_named_and_nothing_else_is() {
        assert_eq!(codes(&well(0)), [""; 0]);
        type Wrong = fn(&mut OwnFacts);
        let cases: [(&str, Wrong); 14] = [
            ("release-unreadable", |facts| {
                facts.release = Some("the stored plans are not those of r5".to_owned())
            }),
            ("withdrawn-behind", |facts| {
                facts.withdrawn = Some("gateway gw-1 holds more".to_owned())
            }),
            ("own-trail-unsealed", |facts| {
                facts.unsealed = Some("cannot replace seal.keys".to_owned())
            }),
            ("issuing-key", |facts| {
                facts.issuing = Some("the token is not there".to_owned())
            }),
            ("store-failed", |facts| facts.store = Some("full".to_owned())),
            ("disk-low", |facts| facts.free_bytes = Some(100 << 20)),
            ("disk-unknown", |facts| facts.free_bytes = None),
            ("certificate-expires", |facts| {
                facts.certificate_ms = Some((0, NOW_MS + 86_400_000))
            }),
            ("certificate-expired", |facts| {
                facts.certificate_ms = Some((0, NOW_MS - 1))
            }),
            ("certificate-not-yet-valid", |facts| {
                facts.certificate_ms = Some((NOW_MS + 1, NOW_MS + YEAR_MS));
            }),
            ("certificate-unreadable", |facts| facts.certificate_ms = None),
            ("authority-expires", |facts| {
                facts.root_ms = Some((0, NOW_MS + 86_400_000))
            }),
            ("issuing-expires", |facts| {
                facts.issuing_ms = Some(Some((0, NOW_MS + 179 * 86_400_000)));
            }),
            ("issuing-unreadable", |facts| facts.issuing_ms = Some(None)),
        ];
        for (code, wrong) in cases {
            let mut facts = well(0);
            wrong(&mut facts);
            assert_eq!(codes(&facts), [code]);
        }
    }

    #[test]
    fn a_disk_that_fills_slowly_is_told_in_steps() {
        let told = |free_mib: u64| {
            let facts = OwnFacts {
                free_bytes: Some(free_mib << 20),
                ..well(0)
            };
            OwnHealth::default().see(&facts)
        };
        assert_eq!(told(200), told(190));
        assert_ne!(told(200), told(100));
        for (free_mib, words) in [(200, "at most 256 MiB left"), (1024, "at most 1024 MiB left")] {
            assert!(told(free_mib).first().unwrap().message.contains(words));
        }
    }

    #[test]
    fn a_clock_that_was_set_is_shown_for_an_hour_and_one_that_only_goes_on_is_not() {
        let mut own = OwnHealth::default();
        assert_eq!(own.see(&well(0)), []);
        assert_eq!(own.see(&well(3000)), []);
        let set = |second: u64| OwnFacts {
            now_ms: NOW_MS - 7200 * 1000 + second * 1000,
            ..well(second)
        };
        let told = own.see(&set(3010));
        assert_eq!(told.first().unwrap().code, "clock-set");
        assert_eq!(own.see(&set(3010 + 3600)).len(), 1);
        assert_eq!(own.see(&set(3010 + 3601)), []);
    }

    #[tokio::test]
    async fn a_store_that_takes_no_write_is_told_and_many_who_ask_cost_one_write() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let probe = Arc::new(Probe::new(store.clone()));
        assert_eq!(probe.fault(PROVED_FOR_OTHERS).await, None);
        let revision = store.get(PROBE).await.unwrap().unwrap().revision;
        for _ in 0..100 {
            assert_eq!(probe.fault(Duration::from_secs(3600)).await, None);
        }
        assert_eq!(store.get(PROBE).await.unwrap().unwrap().revision, revision);
        // Somebody holds the database: reading goes on, writing does not.
        let other = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(store.get(PROBE).await.unwrap().is_some());
        assert!(probe.fault(Duration::ZERO).await.is_some());
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(probe.fault(Duration::ZERO).await, None);
    }
}
