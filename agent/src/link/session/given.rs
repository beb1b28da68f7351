//! What a session gives of what others in the agent know: the gateway's health, and what a coordinator that was restored from a backup asks for.

use std::time::Duration;

use penstock_proto::v1::gateway_message::Message as Outbound;
use penstock_proto::v1::{HealthReport, TunnelHealth};

use super::{Link, as_sent, supervisor};
use crate::health::{self, HealthInputs};
use crate::kernel::Kernel;

impl<K: Kernel> Link<K> {
    /// The list of withdrawn keys and the trust bundle, if the coordinator asks for them and this gateway can prove them.
    pub(super) async fn asked(&self, (withdrawn, trust): (bool, bool)) -> [Option<Outbound>; 2] {
        let list = self.withdrawn.prove().filter(|_| withdrawn);
        let bundles = match trust {
            true => self.trust.show().await,
            false => None,
        };
        [list.map(Outbound::Withdrawn), bundles.map(Outbound::Trust)]
    }

    /// How this gateway stands, in the session that was opened then.
    pub(super) async fn report(&self, opened: Duration) -> HealthReport {
        let counters = self.kernel.counters().await.ok();
        let policy = self.policy.borrow().clone();
        let audit = self.audit.state().borrow().clone();
        let validity = self
            .identity
            .borrow()
            .as_ref()
            .and_then(|own| own.validity_ms().ok());
        let clock = self.time.judge(validity);
        let mut faults = self.kernel.faults();
        faults.extend(self.certificate.borrow().iter().cloned());
        let further = self.faults.iter();
        faults.extend(further.flat_map(|faults| faults.borrow().clone()));
        faults.extend(supervisor::faults(&self.bridges.borrow(), clock.shows_ms));
        health::report(HealthInputs {
            policy: &policy,
            state: as_sent(&policy, opened),
            audit: &audit,
            kernel: counters,
            uptime: self.started.elapsed(),
            resident_bytes: health::resident_bytes(),
            clock,
            tunnels: self.tunnels.borrow().iter().map(TunnelHealth::from).collect(),
            faults,
        })
    }
}
