//! The health report, from facts.

use std::time::Duration;

use penstock_policy::terms::TUNNELS_MAX;
use penstock_proto::v1::{Fault, HealthReport, KernelCounters, PolicyState, TimeQuality, TunnelHealth};

use crate::audit::AuditState;
use crate::known_time::ClockState;
use crate::reconcile::PolicyView;

/// Everything a report is made of.
#[derive(Debug, Clone)]
pub struct HealthInputs<'a> {
    /// Policy, drift and their faults.
    pub policy: &'a PolicyView,
    /// What of the policy is sent, with how the gateway stands in this session.
    pub state: PolicyState,
    /// The spool.
    pub audit: &'a AuditState,
    /// The data plane's counters; `None`: they could not be read.
    pub kernel: Option<KernelCounters>,
    /// How long the agent has run.
    pub uptime: Duration,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// The clock, and how well it is known to be right.
    pub clock: ClockState,
    /// How the tunnels to other gateways stand.
    pub tunnels: Vec<TunnelHealth>,
    /// Further faults.
    pub faults: Vec<Fault>,
}

/// The most faults in a report.
const FAULTS_MAX: usize = 32;
/// The code of the last of them, where there are more.
const FURTHER: &str = "further-faults";

/// The report of these facts, as it is sent: of too many faults the last place says how many more there are, which may concern any zone.
pub fn report(facts: HealthInputs<'_>) -> HealthReport {
    let mut report = whole_report(facts);
    let further = report.faults.len().saturating_sub(FAULTS_MAX - 1);
    if further > 1 {
        report.faults.truncate(FAULTS_MAX - 1);
        report.faults.push(Fault::new(
            FURTHER,
            format!(
                "{further} further faults are not in this report: see penstock-agent status on the gateway"
            ),
        ));
    }
    report
}

/// The same with every fault.
pub fn whole_report(facts: HealthInputs<'_>) -> HealthReport {
    let mut faults = facts.policy.faults.clone();
    faults.extend(facts.audit.fault.clone());
    faults.extend(facts.clock.fault());
    faults.extend(facts.faults);
    HealthReport {
        policy: Some(facts.state),
        drift: facts.policy.drift.into(),
        spool: Some(facts.audit.spool),
        kernel: facts.kernel,
        resident_bytes: facts.resident_bytes,
        uptime_seconds: facts.uptime.as_secs(),
        faults,
        time_ms: facts.clock.shows_ms,
        time_quality: TimeQuality::from(facts.clock.quality).into(),
        tunnels: facts.tunnels.into_iter().take(TUNNELS_MAX).collect(),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::known_time::{Quality, Wrong};

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes() > 100_000);
    }

    #[test]
    fn a_report_carries_the_faults_of_all_parts_and_is_bounded() {
        let fault = |code: &str| Fault {
            code: code.to_owned(),
            message: String::new(),
            ..Fault::default()
        };
        let policy = PolicyView {
            faults: vec![fault("kernel-failed")],
            ..PolicyView::default()
        };
        let audit = AuditState {
            fault: Some(fault("spool-filling")),
            ..AuditState::default()
        };
        let report = report(HealthInputs {
            policy: &policy,
            state: policy.state.clone(),
            audit: &audit,
            kernel: None,
            uptime: Duration::from_secs(5),
            resident_bytes: 1,
            clock: ClockState {
                quality: Quality::Floor,
                shows_ms: 2,
                floor: None,
                wrong: Some(Wrong {
                    is_behind: true,
                    words: "56 years behind the certificate".to_owned(),
                }),
            },
            tunnels: vec![TunnelHealth::default(); 100],
            faults: vec![fault("tap-overrun"); 100],
        });
        assert_eq!(
            (report.faults.len(), report.tunnels.len()),
            (FAULTS_MAX, TUNNELS_MAX)
        );
        let codes: Vec<_> = report.faults.iter().take(4).map(|f| f.code.as_str()).collect();
        assert_eq!(
            codes,
            ["kernel-failed", "spool-filling", "clock-behind", "tap-overrun"]
        );
        // Those that found no place may concern any zone.
        let last = report.faults.last().cloned().unwrap_or_default();
        assert!(last.code == FURTHER && last.zones.is_empty() && last.message.starts_with("72 further"));
        assert_eq!((report.time_ms, report.time_quality()), (2, TimeQuality::Floor));
    }
}
