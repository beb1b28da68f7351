//! Runs the tunnels that the policy in force names, and no others.
//!
//! Level-triggered: it compares what runs with the plan at each change and every [`LOOK`], so that a port that was taken, a device that was removed or a
//! route that another program deleted comes back. It needs no coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipnet::IpNet;
use penstock_policy::plan::{Plan, PlanInterface, Rule, Tunnels};
use penstock_proto::fault::{FLOWS_MAX, ZONES_MAX};
use penstock_proto::v1::Fault;
use penstock_proto::withdrawn::WithdrawnView;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::line::{Line, Setup};
use super::reset::ResetSecret;
use super::shown::{self, TunnelState};
use super::station::Station;
use crate::audit::{Audit, record};
use crate::clock;
use crate::enforce::ground::beyond;
use crate::identity::Identity;
use crate::reconcile::PolicyView;

/// How often what runs is compared with the plan although nothing changed.
pub const LOOK: Duration = Duration::from_secs(2);

/// A line, and where it leads.
struct Laid {
    line: Line,
    networks: Vec<IpNet>,
    concern: Concern,
}

/// What does not cross while a tunnel is down: bounded as faults are.
#[derive(Default)]
struct Concern {
    zones: BTreeSet<String>,
    flows: Vec<String>,
    further: u32,
}

impl Concern {
    /// Of the tunnel with this device.
    fn of(plan: &Plan, device: &str) -> Self {
        let mut concern = Self::default();
        let ends = |rule: &Rule, side: &PlanInterface| {
            let mut ends = rule.sources.iter().chain(&rule.destinations);
            ends.any(|end| side.holds(end.network.network()))
        };
        let Some(beyond) = plan.interfaces.iter().find(|side| side.name == device) else {
            return concern;
        };
        let through: Vec<&Rule> = plan.rules.iter().filter(|rule| ends(rule, beyond)).collect();
        for side in plan
            .interfaces
            .iter()
            .filter(|side| through.iter().any(|rule| ends(rule, side)))
        {
            let zones = std::iter::once(&side.zone).chain(&side.behind);
            concern.zones.extend(zones.map(ToString::to_string));
        }
        if concern.zones.len() > ZONES_MAX {
            concern.zones.clear();
        }
        let by_weight = |must| through.iter().filter(move |rule| rule.must_flow == must);
        for rule in by_weight(true).chain(by_weight(false)) {
            if concern.flows.len() < FLOWS_MAX {
                concern.flows.push(format!("{}/{}", rule.conduit, rule.flow));
            } else {
                concern.further = concern.further.saturating_add(1);
            }
        }
        concern
    }
}

/// The port, and who meets those who connect to it.
struct Open {
    station: Arc<Station>,
    port: u16,
    meeting: JoinHandle<()>,
}

/// The task that runs all tunnels.
pub struct Supervisor {
    policy: watch::Receiver<PolicyView>,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    withdrawn: WithdrawnView,
    audit: Audit,
    faults: watch::Sender<Vec<Fault>>,
    states: watch::Sender<Vec<TunnelState>>,
    /// Where how they stand is left for people; `None`: nowhere.
    folder: Option<PathBuf>,
    /// By what the port says that it does not know a connection any more.
    resets: ResetSecret,
    open: Option<Open>,
    laid: BTreeMap<String, Laid>,
    /// The plan that they were compared with last.
    seen: Option<Arc<Plan>>,
    /// Why something of the plan does not run, by what it is.
    problems: BTreeMap<String, String>,
}

impl Supervisor {
    /// A supervisor, and where what is wrong with its tunnels can be watched.
    pub fn new(
        policy: watch::Receiver<PolicyView>,
        identity: watch::Receiver<Option<Arc<Identity>>>,
        withdrawn: WithdrawnView,
        audit: Audit,
    ) -> (Self, watch::Receiver<Vec<Fault>>) {
        let (faults, seen) = watch::channel(Vec::new());
        let supervisor = Self {
            policy,
            identity,
            withdrawn,
            audit,
            faults,
            states: watch::Sender::default(),
            folder: None,
            resets: ResetSecret::default(),
            open: None,
            laid: BTreeMap::new(),
            seen: None,
            problems: BTreeMap::new(),
        };
        (supervisor, seen)
    }

    /// Leaves in this folder how the tunnels stand, and keeps there what has to outlive this agent.
    #[must_use]
    pub fn showing_in(mut self, folder: PathBuf) -> Self {
        self.folder = Some(folder);
        self
    }

    /// How the tunnels stand, as of the last look.
    pub fn states(&self) -> watch::Receiver<Vec<TunnelState>> {
        self.states.subscribe()
    }

    /// Runs until `stop`, also where nobody is left who puts another policy in force.
    pub async fn run(mut self, stop: CancellationToken) {
        if let Some(folder) = self.folder.clone() {
            let kept = tokio::task::spawn_blocking(move || ResetSecret::kept_in(&folder));
            self.resets = kept.await.unwrap_or_default();
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut planned, mut identified) = (true, true);
        loop {
            let plan = self.policy.borrow_and_update().plan.clone();
            if let Some(plan) = plan {
                self.bring_about(&plan).await;
            }
            self.show();
            self.leave().await;
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.policy.changed(), if planned => planned = changed.is_ok(),
                changed = self.identity.changed(), if identified => identified = changed.is_ok(),
                _ = look.tick() => {}
            }
        }
        self.close("the agent stops").await;
    }

    async fn bring_about(&mut self, plan: &Arc<Plan>) {
        self.problems.clear();
        let Some(tunnels) = &plan.tunnels else {
            return self.close("the policy has no tunnels").await;
        };
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.port != tunnels.port || open.meeting.is_finished())
        {
            self.close("the policy has tunnels at another port").await;
        }
        let station = match self.station(tunnels.port) {
            Ok(station) => station,
            Err(error) => {
                let what = format!("UDP port {} cannot be used: {error}", tunnels.port);
                self.problems.insert(String::new(), what);
                return;
            }
        };
        self.keep_only(tunnels).await;
        for tunnel in &tunnels.peers {
            let side = plan.interfaces.iter().find(|side| side.name == tunnel.device);
            let networks = side.map(|side| side.networks.clone()).unwrap_or_default();
            if !self.laid.contains_key(&tunnel.device) {
                let setup = Setup {
                    tunnel: tunnel.clone(),
                    station: station.clone(),
                    identity: self.identity.clone(),
                    withdrawn: self.withdrawn.clone(),
                    audit: self.audit.clone(),
                };
                match Line::begin(setup) {
                    Ok(line) => {
                        let laid = Laid {
                            line,
                            networks: Vec::new(),
                            concern: Concern::of(plan, &tunnel.device),
                        };
                        self.laid.insert(tunnel.device.clone(), laid);
                    }
                    Err(error) => {
                        let what = format!("the device {} cannot be made: {error}", tunnel.device);
                        self.problems.insert(tunnel.device.clone(), what);
                        continue;
                    }
                }
            }
            self.lead(&tunnel.device, networks).await;
        }
        if self.seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, plan)) {
            for (device, laid) in &mut self.laid {
                laid.concern = Concern::of(plan, device);
            }
            self.seen = Some(plan.clone());
        }
        let arrivals = tunnels.peers.iter().filter(|tunnel| tunnel.connect.is_none());
        let arrivals = arrivals.filter_map(|tunnel| {
            let laid = self.laid.get(&tunnel.device)?;
            Some((tunnel.peer.clone(), laid.line.arrivals.clone()))
        });
        let identity = self.identity.borrow_and_update().clone();
        if let Err(problem) = station.expect(arrivals.collect(), identity.as_deref()) {
            self.problems
                .insert(String::new(), format!("nobody can connect: {problem}"));
        }
    }

    /// The open port.
    fn station(&mut self, port: u16) -> std::io::Result<Arc<Station>> {
        if let Some(open) = &self.open {
            return Ok(open.station.clone());
        }
        let station = Station::open(port, &self.resets)?;
        let meeting = tokio::spawn(station.clone().meet());
        self.open = Some(Open {
            station: station.clone(),
            port,
            meeting,
        });
        Ok(station)
    }

    /// Ends the lines that the plan does not have as they are.
    async fn keep_only(&mut self, tunnels: &Tunnels) {
        let outdated: Vec<String> = self
            .laid
            .iter()
            .filter(|(_, laid)| {
                let mut peers = tunnels.peers.iter();
                !peers.any(|tunnel| tunnel.is_line_of(&laid.line.tunnel)) || laid.line.is_finished()
            })
            .map(|(device, _)| device.clone())
            .collect();
        for device in outdated {
            if let Some(laid) = self.laid.remove(&device) {
                laid.line.end().await;
            }
        }
    }

    /// Leads what lies beyond a tunnel into its device, and nothing else.
    async fn lead(&mut self, device: &str, networks: Vec<IpNet>) {
        let Some(laid) = self.laid.get_mut(device) else {
            return;
        };
        let gone: Vec<IpNet> = laid
            .networks
            .iter()
            .filter(|known| !networks.contains(known))
            .copied()
            .collect();
        laid.networks.clone_from(&networks);
        let name = device.to_owned();
        let led = tokio::task::spawn_blocking(move || {
            beyond::lead_no_more(&name, &gone)?;
            beyond::lead(&name, &networks)
        });
        let problem = match led.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let what = format!("the routes into {device} cannot be set: {problem}");
        self.problems.insert(device.to_owned(), what);
    }

    async fn close(&mut self, why: &str) {
        for (_, laid) in std::mem::take(&mut self.laid) {
            laid.line.end().await;
        }
        if let Some(open) = self.open.take() {
            open.station.close(why);
            open.meeting.abort();
        }
    }

    /// Leaves how the tunnels stand for people, and for health.
    async fn leave(&mut self) {
        let states: Vec<TunnelState> = self.laid.values().map(|laid| laid.line.shown()).collect();
        self.states.send_replace(states.clone());
        let Some(folder) = self.folder.clone() else {
            return;
        };
        let left = tokio::task::spawn_blocking(move || shown::write(&folder, &states));
        if let Ok(Err(error)) = left.await {
            tracing::debug!(%error, "how the tunnels stand is not left for `penstock-agent status`");
        }
    }

    /// Leaves what is wrong for health.
    fn show(&self) {
        let broken = self.problems.values().map(|problem| {
            let text = format!(
                "{problem}; nothing of the tunnels concerned crosses. It is tried again every {} s",
                LOOK.as_secs()
            );
            Fault::new("tunnel-unusable", record::bounded(&text))
        });
        let down = self.laid.values().filter_map(|laid| {
            let state = laid.line.state.borrow();
            let problem = state.problem.as_ref()?;
            let text = format!(
                "the tunnel to gateway {} does not stand since {}: {problem}. Nothing of it crosses meanwhile, {} packets went nowhere",
                state.peer,
                clock::utc(state.since_ms),
                laid.line.counters.dropped.load(Ordering::Relaxed)
            );
            Some(Fault {
                code: "tunnel-down".to_owned(),
                message: record::bounded(&text),
                zones: laid.concern.zones.iter().cloned().collect(),
                flows: laid.concern.flows.clone(),
                further_flows: laid.concern.further,
            })
        });
        let faults: Vec<Fault> = broken.chain(down).collect();
        self.faults.send_if_modified(|shown| {
            let changed = *shown != faults;
            *shown = faults;
            changed
        });
    }
}
