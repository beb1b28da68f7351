//! What is known of each gateway, in memory: the facts last reported, bounded in size whatever a gateway sends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use penstock_policy::ids::{Digest, GatewayId, Revision, ZoneId};
use penstock_policy::text;
use penstock_proto::convert::PolicyMark;
use penstock_proto::fault::{FLOWS_MAX, ZONES_MAX, flows_in_words};
use penstock_proto::v1;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::enrolment::GatewayRecord;
use crate::health::{GatewayEvidence, ReportedFault};

/// Longest text a gateway may have remembered, bytes.
const TEXT_BYTES_MAX: usize = 256;
/// Most faults or capabilities remembered of one gateway.
const ITEMS_MAX: usize = 32;

/// A release that a gateway refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRelease {
    /// Its number.
    pub revision: Revision,
    /// Digest of its statement; `None`: from software that does not report it.
    pub statement: Option<Digest>,
    /// Stable reason.
    pub code: String,
    /// The reason in words.
    pub message: String,
}

/// What is known of one gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GatewayFacts {
    /// Its session stands.
    pub connected: bool,
    /// When it enrolled, milliseconds since 1970; 0: not that is known here.
    pub enrolled_ms: u64,
    /// When its certificate expires, milliseconds since 1970.
    pub certificate_expires_ms: u64,
    /// When anything came from it last, milliseconds since 1970.
    pub last_seen_ms: u64,
    /// When it last reported its state; `None`: not since this coordinator started.
    pub reported_ms: Option<u64>,
    /// Its software.
    pub software_version: String,
    /// What it can enforce.
    pub capabilities: Vec<String>,
    /// What it was offered last, in this session.
    pub offered: Option<PolicyMark>,
    /// What it verified and stored.
    pub staged: Option<PolicyMark>,
    /// What its kernel holds.
    pub effective: Option<PolicyMark>,
    /// What it refused last.
    pub refused: Option<RefusedRelease>,
    /// The release that it verified last and whose approvers it believes: number and digest of the statement.
    pub trusted: Option<(Revision, Digest)>,
    /// The kernel's table against the plan.
    pub drift: i32,
    /// Its audit spool.
    pub spool: Option<v1::SpoolState>,
    /// What its data plane decided since its agent began.
    pub kernel: Option<v1::KernelCounters>,
    /// Faults that it reported, bounded.
    pub faults: Vec<v1::Fault>,
    /// What is wrong with its trail here.
    pub trail_fault: Option<String>,
}

/// The code under which a gateway reports, among its faults, for whom a grant of remote access opened a conduit, and until when.
const GRANTED: &str = "remote-access";
/// The fault by which a gateway foretells what enforcing would change.
const NOT_READY: &str = "not-ready-to-enforce";
/// Faults by which it is certain that a gateway's kernel does not hold its policy.
const OPEN: [&str; 2] = ["kernel-failed", "rules-gone"];

impl GatewayFacts {
    /// For the judgement on health; `wanted` is what the current release holds for it.
    pub fn evidence(&self, wanted: Option<PolicyMark>) -> GatewayEvidence {
        let (foretold, faults): (Vec<_>, Vec<_>) =
            self.faults.iter().partition(|fault| fault.code == NOT_READY);
        let (granted, faults): (Vec<_>, Vec<_>) = faults.into_iter().partition(|fault| fault.code == GRANTED);
        let mut faults: Vec<ReportedFault> = faults.into_iter().map(reported).collect();
        faults.extend(self.trail_fault.iter().map(|words| ReportedFault {
            words: words.clone(),
            ..ReportedFault::default()
        }));
        GatewayEvidence {
            connected: self.connected,
            reported_ms: self.reported_ms,
            effective: self.effective,
            wanted,
            // A refusal of what is no longer wanted is history.
            refused: self
                .refused
                .as_ref()
                .filter(|refused| wanted.is_some_and(|wanted| wanted.revision == refused.revision))
                .map(|refused| {
                    (
                        refused.revision,
                        format!("{} ({})", refused.message, refused.code),
                    )
                }),
            drift: self.drift == i32::from(v1::Drift::Present),
            kernel_failed: self
                .faults
                .iter()
                .any(|fault| OPEN.contains(&fault.code.as_str())),
            faults,
            granted: granted.iter().map(|fault| fault.message.clone()).collect(),
            foretold: foretold.iter().map(|fault| fault.message.clone()).collect(),
        }
    }

    /// Takes a reported policy state over; what is malformed counts as not reported.
    pub fn take_policy(&mut self, policy: &v1::PolicyState) {
        let read = |mark: &Option<v1::RevisionDigest>| mark.as_ref().and_then(|mark| mark.try_into().ok());
        self.effective = read(&policy.effective);
        self.staged = read(&policy.staged);
        let statement = |bytes: &[u8]| penstock_proto::convert::digest("statement_digest", bytes).ok();
        self.refused = policy.refused.as_ref().map(|refused| RefusedRelease {
            revision: Revision(refused.revision),
            statement: statement(&refused.statement_digest),
            code: bounded(&refused.code),
            message: bounded(&refused.message),
        });
        self.trusted = policy
            .trusted
            .as_ref()
            .and_then(|trusted| Some((Revision(trusted.revision), statement(&trusted.statement_digest)?)));
    }

    /// Takes the first message of a session over.
    pub fn take_hello(&mut self, hello: &v1::Hello) {
        self.software_version = bounded(&hello.software_version);
        self.capabilities = hello
            .capabilities
            .iter()
            .take(ITEMS_MAX)
            .map(|c| bounded(c))
            .collect();
        self.spool = hello.spool;
        if let Some(policy) = &hello.policy {
            self.take_policy(policy);
        }
    }

    /// Takes a health report over.
    pub fn take_report(&mut self, report: &v1::HealthReport) {
        if let Some(policy) = &report.policy {
            self.take_policy(policy);
        }
        self.drift = report.drift;
        self.spool = report.spool;
        self.kernel = report.kernel;
        self.faults = report.faults.iter().take(ITEMS_MAX).map(bounded_fault).collect();
    }

    /// Whether two states of knowledge lead to the same judgement, but for their age.
    fn same_judgement(&self, other: &Self) -> bool {
        self.connected == other.connected
            && self.reported_ms.is_some() == other.reported_ms.is_some()
            && self.effective == other.effective
            && self.refused == other.refused
            && self.trusted == other.trusted
            && self.drift == other.drift
            && self.faults == other.faults
            && self.trail_fault == other.trail_fault
            && self.staged == other.staged
            && self.offered == other.offered
    }
}

/// A fault in words, with the zones that it concerns.
fn reported(fault: &v1::Fault) -> ReportedFault {
    let flows = flows_in_words(&fault.flows, fault.further_flows);
    // A name that is none here would leave a fault that concerns nobody.
    let zones: Option<BTreeSet<ZoneId>> = fault
        .zones
        .iter()
        .map(|zone| ZoneId::new(zone.as_str()).ok())
        .collect();
    ReportedFault {
        words: format!("{}{flows} ({})", fault.message, fault.code),
        zones: zones.unwrap_or_default(),
    }
}

fn bounded_fault(fault: &v1::Fault) -> v1::Fault {
    let names = |names: &[String], max: usize| {
        names
            .iter()
            .take(max)
            .map(|name| bounded(name))
            .collect::<Vec<_>>()
    };
    let flows = names(&fault.flows, FLOWS_MAX);
    let further = u32::try_from(fault.flows.len() - flows.len()).unwrap_or(u32::MAX);
    v1::Fault {
        code: bounded(&fault.code),
        message: bounded(&fault.message),
        // One that concerns more zones than are kept concerns all.
        zones: if fault.zones.len() > ZONES_MAX {
            Vec::new()
        } else {
            names(&fault.zones, ZONES_MAX)
        },
        flows,
        further_flows: fault.further_flows.saturating_add(further),
    }
}

fn bounded(text: &str) -> String {
    text::bounded(text, TEXT_BYTES_MAX).to_owned()
}

#[derive(Debug, Default)]
struct GatewayEntry {
    facts: GatewayFacts,
    /// The session that stands, by number, and how to end it.
    session: Option<(u64, CancellationToken)>,
}

/// All gateways that are known.
#[derive(Debug, Default)]
pub struct Fleet {
    entries: Mutex<BTreeMap<GatewayId, GatewayEntry>>,
    sessions_so_far: std::sync::atomic::AtomicU64,
    changed: Notify,
}

impl Fleet {
    /// What is remembered from before a restart.
    pub fn remembered(records: Vec<(GatewayId, GatewayRecord)>) -> Self {
        let entries = records
            .into_iter()
            .map(|(gateway, record)| {
                let facts = GatewayFacts {
                    enrolled_ms: record.enrolled_ms,
                    certificate_expires_ms: record.certificate_expires_ms,
                    last_seen_ms: record.last_seen_ms,
                    ..GatewayFacts::default()
                };
                let entry = GatewayEntry { facts, session: None };
                (gateway, entry)
            })
            .collect();
        Self {
            entries: Mutex::new(entries),
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GatewayId, GatewayEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session begins; one that stood before is ended. Answers with its number and how it is told to end.
    pub fn begin(&self, gateway: &GatewayId) -> (u64, CancellationToken) {
        let number = self
            .sessions_so_far
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let token = CancellationToken::new();
        let before = self
            .lock()
            .entry(gateway.clone())
            .or_default()
            .session
            .replace((number, token.clone()));
        if let Some((_, before)) = before {
            before.cancel();
        }
        (number, token)
    }

    /// A session ends. If it was the one that stood, the gateway is no longer connected.
    pub fn end(&self, gateway: &GatewayId, number: u64) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(gateway) else {
            return false;
        };
        if entry.session.as_ref().is_none_or(|(stands, _)| *stands != number) {
            return false;
        }
        entry.session = None;
        entry.facts.connected = false;
        entry.facts.offered = None;
        drop(entries);
        self.changed.notify_one();
        true
    }

    /// Changes what is known of a gateway by its standing session; what an older session says no longer counts.
    pub fn tell(&self, gateway: &GatewayId, number: u64, change: impl FnOnce(&mut GatewayFacts)) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(gateway) else {
            return;
        };
        if entry.session.as_ref().is_none_or(|(stands, _)| *stands != number) {
            return;
        }
        let before = entry.facts.clone();
        change(&mut entry.facts);
        let same = before.same_judgement(&entry.facts);
        drop(entries);
        if !same {
            self.changed.notify_one();
        }
    }

    /// Something came from a gateway by its standing session.
    pub fn seen(&self, gateway: &GatewayId, number: u64, now_ms: u64) {
        if let Some(entry) = self.lock().get_mut(gateway)
            && entry
                .session
                .as_ref()
                .is_some_and(|(stands, _)| *stands == number)
        {
            entry.facts.last_seen_ms = now_ms;
        }
    }

    /// A gateway enrolled.
    pub fn enrolled(&self, gateway: &GatewayId, enrolled_ms: u64, certificate_expires_ms: u64) {
        let mut entries = self.lock();
        let facts = &mut entries.entry(gateway.clone()).or_default().facts;
        facts.enrolled_ms = enrolled_ms;
        facts.certificate_expires_ms = certificate_expires_ms;
    }

    /// What is known of one gateway.
    pub fn facts(&self, gateway: &GatewayId) -> Option<GatewayFacts> {
        self.lock().get(gateway).map(|entry| entry.facts.clone())
    }

    /// What is known of all.
    pub fn all(&self) -> Vec<(GatewayId, GatewayFacts)> {
        self.lock()
            .iter()
            .map(|(gateway, entry)| (gateway.clone(), entry.facts.clone()))
            .collect()
    }

    /// Looks at all without copying them.
    pub fn inspect(&self, mut look: impl FnMut(&GatewayId, &GatewayFacts)) {
        for (gateway, entry) in self.lock().iter() {
            look(gateway, &entry.facts);
        }
    }

    /// Waits for a change that may change a judgement.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
