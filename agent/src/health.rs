//! The health report, from facts; and the word to the service manager that we live.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use penstock_proto::v1::{Fault, HealthReport, KernelCounters};

use crate::audit::AuditState;
use crate::reconcile::PolicyView;

/// Everything a report is made of.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Policy, drift and their faults.
    pub policy: &'a PolicyView,
    /// The spool.
    pub audit: &'a AuditState,
    /// The data plane's counters; `None`: they could not be read.
    pub kernel: Option<KernelCounters>,
    /// How long the agent has run.
    pub uptime: Duration,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// The clock, milliseconds since 1970.
    pub time_ms: u64,
    /// Further faults.
    pub faults: Vec<Fault>,
}

/// The most faults in a report.
const FAULTS_MAX: usize = 32;

/// The report of these facts.
pub fn report(facts: Facts<'_>) -> HealthReport {
    let mut faults = facts.policy.faults.clone();
    faults.extend(facts.audit.fault.clone());
    faults.extend(facts.faults);
    faults.truncate(FAULTS_MAX);
    HealthReport {
        policy: Some(facts.policy.state.clone()),
        drift: facts.policy.drift.into(),
        spool: Some(facts.audit.spool),
        kernel: facts.kernel,
        resident_bytes: facts.resident_bytes,
        uptime_seconds: facts.uptime.as_secs(),
        faults,
        time_ms: facts.time_ms,
    }
}

/// This process's resident memory, bytes; 0 if the kernel does not tell.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages.saturating_mul(rustix::param::page_size() as u64)
}

/// The kernel's identifier of this boot; empty if it does not tell.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The service manager's socket (sd_notify), if we run under one that wants to be told.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl ServiceManager {
    /// From `NOTIFY_SOCKET`: a path, or `@name` in the abstract namespace.
    pub fn from_environment() -> Option<Self> {
        Self::at(&std::env::var("NOTIFY_SOCKET").ok()?)
    }

    fn at(name: &str) -> Option<Self> {
        let address = match name.strip_prefix('@') {
            Some(hidden) => SocketAddr::from_abstract_name(hidden),
            None => SocketAddr::from_pathname(name),
        };
        Some(Self {
            socket: UnixDatagram::unbound().ok()?,
            address: address.ok()?,
        })
    }

    /// Tells a state such as `READY=1`, `WATCHDOG=1` or `STOPPING=1`. Nobody listening is no error.
    pub fn tell(&self, state: &str) {
        let _ = self.socket.send_to_addr(state.as_bytes(), &self.address);
    }

    /// How often the watchdog wants to hear of us: half of what it allows.
    pub fn watchdog_interval() -> Option<Duration> {
        let allowed = std::env::var("WATCHDOG_USEC").ok()?.parse::<u64>().ok()?;
        (allowed > 0).then(|| Duration::from_micros(allowed / 2))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_service_manager_hears_that_we_are_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        ServiceManager::at(path.to_str().unwrap())
            .unwrap()
            .tell("READY=1");
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
    }

    #[test]
    fn this_process_has_memory_and_a_boot() {
        assert!(resident_bytes() > 100_000);
        assert!(boot_id().len() >= 32);
    }

    #[test]
    fn a_report_carries_the_faults_of_all_parts_and_is_bounded() {
        let fault = |code: &str| Fault {
            code: code.to_owned(),
            message: String::new(),
        };
        let policy = PolicyView {
            faults: vec![fault("kernel-failed")],
            ..PolicyView::default()
        };
        let audit = AuditState {
            fault: Some(fault("spool-filling")),
            ..AuditState::default()
        };
        let report = report(Facts {
            policy: &policy,
            audit: &audit,
            kernel: None,
            uptime: Duration::from_secs(5),
            resident_bytes: 1,
            time_ms: 2,
            faults: vec![fault("clock-behind"); 100],
        });
        assert_eq!(report.faults.len(), FAULTS_MAX);
        let codes: Vec<_> = report.faults.iter().take(3).map(|f| f.code.as_str()).collect();
        assert_eq!(codes, ["kernel-failed", "spool-filling", "clock-behind"]);
    }
}
