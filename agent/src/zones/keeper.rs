//! Gathers the facts once a second, and publishes how zones are by them.

use std::sync::Arc;
use std::time::Duration;

use penstock_proto::v1::{Fault, PolicyState};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::GatewayHealth;
use super::judge::{Facts, Judge};
use crate::audit::Audit;
use crate::bridge::report::BridgeState;
use crate::bridge::supervisor;
use crate::health::{self, HealthInputs};
use crate::identity::Identity;
use crate::kernel::Kernel;
use crate::known_time::KnownTime;
use crate::link::session::LinkState;
use crate::reconcile::PolicyView;
use crate::{clock, timepiece};

/// How often.
const LOOK: Duration = Duration::from_secs(1);

/// What it takes to know how zones are. Nothing of it waits for a peer.
pub struct ZoneKeeper<K> {
    /// For counters and faults.
    pub kernel: Arc<K>,
    /// What is in force.
    pub policy: watch::Receiver<PolicyView>,
    /// Whether the link is up.
    pub link: watch::Receiver<LinkState>,
    /// Who this gateway is.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// The trail, for its fault.
    pub audit: Audit,
    /// The clock, for its fault.
    pub time: KnownTime,
    /// The bridges, for theirs.
    pub bridges: watch::Receiver<Vec<BridgeState>>,
    /// What is wrong with the certificate.
    pub certificate: watch::Receiver<Option<Fault>>,
    /// What else is wrong.
    pub faults: Vec<watch::Receiver<Vec<Fault>>>,
    /// When the agent started.
    pub started: Instant,
}

impl<K: Kernel> ZoneKeeper<K> {
    /// Publishes in `shown` until `stop` is cancelled.
    pub async fn run(self, shown: watch::Sender<Option<Arc<GatewayHealth>>>, stop: CancellationToken) {
        let mut judge = Judge::default();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let health = self.look(&mut judge).await;
            shown.send_replace(Some(Arc::new(health)));
        }
    }

    async fn look(&self, judge: &mut Judge) -> GatewayHealth {
        let counters = self.kernel.counters().await.ok();
        let policy = self.policy.borrow().clone();
        let audit = self.audit.state().borrow().clone();
        let identity = self.identity.borrow().clone();
        let validity = identity.as_ref().and_then(|own| own.validity_ms().ok());
        let clock = self.time.judge(validity);
        let mut faults = self.kernel.faults();
        faults.extend(self.certificate.borrow().iter().cloned());
        let further = self.faults.iter();
        faults.extend(further.flat_map(|faults| faults.borrow().clone()));
        faults.extend(supervisor::faults(&self.bridges.borrow(), clock.shows_ms));
        let report = health::whole_report(HealthInputs {
            policy: &policy,
            state: PolicyState::default(),
            audit: &audit,
            kernel: counters,
            uptime: self.started.elapsed(),
            resident_bytes: 0,
            clock,
            faults,
            tunnels: Vec::new(),
        });
        let name = identity.map(|own| {
            let enrolment = &own.enrolment;
            (enrolment.plant.to_string(), enrolment.gateway.to_string())
        });
        judge.judge(&Facts {
            name,
            policy: &policy,
            report: &report,
            refusals: self.kernel.refusals(),
            must_flows: self.kernel.must_flows().len(),
            session: self.link.borrow().opened,
            now: (timepiece::since_boot(), clock::now_ms()),
        })
    }
}
