//! Which MAC address is behind each address of the gateway's sides, and at which interface: what somebody needs to pin a device to its MAC address, and
//! to notice that another one has its address.
//!
//! ```text
//! routed:  the kernel's neighbour table ──────────────┐
//! bridged: ARP and neighbour discovery, copies of it ─┴▶ table (what is new, what changed) ─▶ trail, `penstock-agent status`
//! ```
//!
//! Invariants:
//! - nothing is sent: no neighbour is asked, and no answer is provoked;
//! - nothing is enforced by what is learned here, and no permission rests on it: that takes a `mac` in a signed document;
//! - at most [`table::BINDINGS_MAX`] addresses are kept, those of assets first; each is reported at most once in [`table::QUIET`].
//!
//! A bridged gateway needs CAP_NET_RAW for it, as the tap does (`penstock-agent-tap.conf`); without it, it learns none.

mod frames;
pub mod shown;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_policy::plan::Plan;
use penstock_policy::terms::GatewayMode;
use penstock_proto::v1::audit_event::Kind;
use rustix::net::netdevice::name_to_index;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::frames::FrameSockets;
use self::table::{Sighting, Table};
use crate::audit::Audit;
use crate::clock;
use crate::enforce::ground::neighbours;
use crate::reconcile::PolicyView;

/// How often it is looked who is there.
const LOOK: Duration = Duration::from_secs(2);
/// How often it is left for people although nothing but the time of the last sighting is new.
const LEAVE: Duration = Duration::from_secs(60);

/// Learns for as long as the agent runs.
#[derive(Debug)]
pub struct BindingWatch {
    /// The plan in force.
    pub policy: watch::Receiver<PolicyView>,
    /// Where what is new goes.
    pub audit: Audit,
    /// Where it is left for people, and for the next agent.
    pub folder: PathBuf,
}

impl BindingWatch {
    /// Runs until `stop` is cancelled, also where nobody is left who puts another policy in force.
    pub async fn run(mut self, stop: CancellationToken) {
        let folder = self.folder.clone();
        let left = tokio::task::spawn_blocking(move || shown::read(&folder)).await;
        let mut table = Table::of(left.unwrap_or_default());
        let mut sockets = FrameSockets::default();
        let mut seen: Option<Arc<Plan>> = None;
        let mut left_at: Option<Instant> = None;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                // What a new plan guards is looked at from its first moment on. (Once nobody can put another one in force, only time counts.)
                Ok(()) = self.policy.changed() => {}
                _ = look.tick() => {}
            }
            let Some(plan) = self.policy.borrow_and_update().plan.clone() else {
                continue;
            };
            if seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &plan)) {
                table.follow(&plan);
                seen = Some(plan.clone());
            }
            let now_ms = clock::now_ms();
            let interfaces = interfaces(&plan);
            let sightings = match plan.mode {
                GatewayMode::Routed => neighbours_of(interfaces, now_ms).await,
                GatewayMode::Bridged => sockets.drain(&interfaces, now_ms),
            };
            let events = table.take(sightings, now_ms);
            let is_news = !events.is_empty();
            for event in events {
                self.audit.note(Kind::Learned(event));
            }
            if is_news || left_at.is_none_or(|at| at.elapsed() >= LEAVE) {
                left_at = Some(Instant::now());
                self.leave(&table).await;
            }
        }
    }

    async fn leave(&self, table: &Table) {
        let (folder, bindings) = (self.folder.clone(), table.shown());
        let left = tokio::task::spawn_blocking(move || shown::write(&folder, &bindings));
        if let Ok(Err(error)) = left.await {
            tracing::debug!(%error, "which MAC addresses were seen is not left for `penstock-agent status`");
        }
    }
}

/// The plan's interfaces by the kernel's numbers.
fn interfaces(plan: &Plan) -> BTreeMap<u32, String> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    let Ok(socket) = socket else {
        return BTreeMap::new();
    };
    let names = plan.interfaces.iter().map(|side| &side.name);
    names
        .filter_map(|name| Some((name_to_index(&socket, name).ok()?, name.clone())))
        .collect()
}

async fn neighbours_of(interfaces: BTreeMap<u32, String>, now_ms: u64) -> Vec<Sighting> {
    let read = tokio::task::spawn_blocking(move || {
        let mut sightings = Vec::new();
        neighbours::read(|one| {
            if let Some(interface) = interfaces.get(&one.interface)
                && sightings.len() < table::SIGHTINGS_MAX
            {
                sightings.push(Sighting {
                    address: one.address,
                    mac: one.mac,
                    interface: interface.clone(),
                    at_ms: now_ms.saturating_sub(one.ago_ms),
                });
            }
        })?;
        Ok::<_, std::io::Error>(sightings)
    });
    match read.await {
        Ok(Ok(sightings)) => sightings,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the kernel's neighbours cannot be read");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}
