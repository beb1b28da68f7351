//! The register map that panels read: the health of this gateway's zones, over Modbus/TCP, read-only.
//!
//! ```text
//! zones (each second) ─▶ registers (an image of 4,200 words) ─▶ server (functions 3 and 4) ─▶ panels that the configuration names
//! ```
//!
//! Off by default. It is a port of the gateway itself: the kernel opens exactly this address and port to exactly these clients, each on
//! the side where the plan has it (`enforce/nft/render/own`), and the server asks once more. It has a thread of its own, which nothing
//! that enforces waits for; whatever happens to it, enforcement goes on. What the registers mean: `docs/panel.md`.
//!
//! Not here: how zones are ([`crate::zones`]).

mod answer;
pub mod registers;
mod seats;
mod server;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::ZoneId;
use penstock_policy::plan::Plan;
use penstock_policy::text::sentence;
use penstock_proto::v1::Fault;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::server::ServerError;
use crate::reconcile::PolicyView;
use crate::zones::GatewayHealth;

/// The most clients that a configuration may name: each has a connection of its own at least.
pub const CLIENTS_MAX: usize = seats::SEATS_MAX;
/// What all connections hold, and the images that they read, bytes.
pub const HELD_BYTES_MAX: usize = 256 * 1024;

/// When an address that could not be listened on is tried again.
pub const AGAIN: Duration = Duration::from_secs(10);

/// What this machine's configuration says of panels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanelSettings {
    /// Where they read: one of the gateway's own addresses.
    pub listen: SocketAddr,
    /// Who may; never empty.
    pub clients: BTreeSet<IpAddr>,
    /// The zones whose places in the map are given; the others follow by name.
    pub zones: Vec<ZoneId>,
}

/// What it takes to serve panels.
pub struct PanelServer {
    /// Where, and to whom.
    pub settings: PanelSettings,
    /// How zones are.
    pub health: watch::Receiver<Option<Arc<GatewayHealth>>>,
    /// The policy, by which a client is in a zone or in none.
    pub policy: watch::Receiver<PolicyView>,
    /// What is wrong.
    pub faults: watch::Sender<Vec<Fault>>,
    /// When an address that could not be listened on is tried again.
    pub again: Duration,
}

impl PanelServer {
    /// Serves until `stop` is cancelled. An address that is not there, and a thread that ended, are tried again.
    pub async fn run(mut self, stop: CancellationToken) {
        // What stands until a listener proves that it is over.
        let mut not_served = None;
        loop {
            let (listens_in, mut listens) = oneshot::channel();
            let mut served = self.begin(listens_in, &stop);
            let ended = loop {
                self.show(not_served.clone());
                tokio::select! {
                    () = stop.cancelled() => return,
                    ended = &mut served => break ended,
                    Ok(()) = &mut listens, if !listens.is_terminated() => not_served = None,
                    changed = self.policy.changed() => if changed.is_err() { return },
                }
            };
            let error = match ended {
                Ok(Err(error)) => sentence(&error),
                Ok(Ok(())) => return,
                Err(_) => "internal error in the thread that answers panels".to_owned(),
            };
            not_served = Some(format!(
                "Panels cannot read the register map: {error}; it is tried again"
            ));
            self.show(not_served.clone());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.again) => {}
            }
        }
    }

    /// Starts the thread. What it came to is sent when it ends.
    fn begin(
        &self,
        listens: oneshot::Sender<()>,
        stop: &CancellationToken,
    ) -> oneshot::Receiver<Result<(), ServerError>> {
        let (ended_in, ended) = oneshot::channel();
        let (settings, health) = (self.settings.clone(), self.health.clone());
        let until = stop.child_token();
        let thread = std::thread::Builder::new()
            .name("panel".to_owned())
            .spawn(move || {
                let _ = ended_in.send(server::run(settings, health, listens, until));
            });
        match thread {
            Ok(_) => ended,
            Err(source) => {
                let (failed_in, failed) = oneshot::channel();
                let _ = failed_in.send(Err(ServerError::Thread(source)));
                failed
            }
        }
    }

    /// Shows what is wrong now.
    fn show(&self, not_served: Option<String>) {
        let mut faults = Vec::new();
        faults.extend(not_served.map(|message| Fault::new("panel-not-served", message)));
        if let Some(plan) = &self.policy.borrow().plan {
            faults.extend(elsewhere(&self.settings.clients, plan));
        }
        self.faults.send_if_modified(|shown| {
            let changed = *shown != faults;
            if changed {
                for fault in &faults {
                    tracing::warn!(code = fault.code, "{}", fault.message);
                }
                *shown = faults;
            }
            changed
        });
    }
}

/// That clients of the configuration are on no side of the plan, so that the rules let nothing of theirs in.
fn elsewhere(clients: &BTreeSet<IpAddr>, plan: &Plan) -> Option<Fault> {
    let is_known = |client: &IpAddr| plan.interfaces.iter().any(|side| side.holds(*client));
    let unknown: Vec<String> = clients
        .iter()
        .filter(|client| !is_known(client))
        .map(ToString::to_string)
        .collect();
    (!unknown.is_empty()).then(|| {
        let message = format!(
            "No zone at this gateway has {}, which `panel.clients` names: the rules let no panel in by an address that no zone has. Correct \
             the configuration, or declare the address in the plant document",
            unknown.join(", ")
        );
        Fault::new("panel-client-elsewhere", message)
    })
}

#[cfg(test)]
mod tests;
