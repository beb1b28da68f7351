//! The parts by which panels and the SCADA see this gateway's zones. Without either of them, nobody looks.

use std::sync::Arc;

use penstock_proto::v1::Fault;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kernel::Kernel;
use crate::panel::{self, PanelServer};
use crate::scada::ScadaPublisher;
use crate::zones::{GatewayHealth, ZoneKeeper};

/// Who looks, and who shows it.
pub(super) struct HealthParts<K> {
    keeper: ZoneKeeper<K>,
    shown: watch::Sender<Option<Arc<GatewayHealth>>>,
    panel: Option<PanelServer>,
    scada: Option<ScadaPublisher>,
}

/// The parts of this configuration, with where the panel's and the SCADA's say what is wrong.
pub(super) fn show_health<K: Kernel>(
    config: &Config,
    keeper: ZoneKeeper<K>,
    [panel_faults, scada_faults]: [watch::Sender<Vec<Fault>>; 2],
) -> HealthParts<K> {
    let (shown, health) = watch::channel(None);
    let panel = config.panel.clone().map(|settings| PanelServer {
        settings,
        health: health.clone(),
        policy: keeper.policy.clone(),
        faults: panel_faults,
        again: panel::AGAIN,
    });
    let scada = config.scada.clone().map(|settings| ScadaPublisher {
        settings,
        health: health.clone(),
        identity: keeper.identity.clone(),
        faults: scada_faults,
    });
    HealthParts {
        keeper,
        shown,
        panel,
        scada,
    }
}

impl<K: Kernel> HealthParts<K> {
    /// Starts them among `parts`.
    pub(super) fn spawn(self, parts: &mut JoinSet<()>, stop: &CancellationToken) {
        if self.panel.is_none() && self.scada.is_none() {
            return;
        }
        parts.spawn(self.keeper.run(self.shown, stop.clone()));
        if let Some(panel) = self.panel {
            parts.spawn(panel.run(stop.clone()));
        }
        if let Some(scada) = self.scada {
            parts.spawn(scada.run(stop.clone()));
        }
    }
}
