//! Alarms, and what the plant's broker hears of them and of health: opened with the store, and followed until the coordinator stops.

use std::sync::Arc;

use penstock_policy::ids::{CoordinatorId, PlantId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{AppError, background};
use crate::alarms::desk::{Alarms, Sources};
use crate::config::Config;
use crate::health_watch::PublishedHealth;
use crate::journal::Journal;
use crate::releases::Releases;
use crate::rollout::run::Rollouts;
use crate::scada;
use crate::scada::settings::ScadaSettings;
use crate::sessions::Fleet;
use crate::store::Store;

/// What tells a shift that something needs it.
pub(super) struct News {
    alarms: Alarms,
    sources: Sources,
    health: watch::Receiver<Arc<PublishedHealth>>,
    scada: Option<ScadaSettings>,
    names: (PlantId, CoordinatorId),
}

impl News {
    /// With what the store has of alarms.
    pub(super) async fn open(
        config: &Config,
        (store, journal): (Store, Journal),
        (fleet, rollouts, releases): (Arc<Fleet>, Rollouts, Releases),
        health: watch::Receiver<Arc<PublishedHealth>>,
    ) -> Result<Self, AppError> {
        Ok(Self {
            alarms: Alarms::open(store, journal, config.alarms.clone()).await?,
            sources: Sources {
                fleet,
                health: health.clone(),
                in_force: rollouts.in_force(),
                rollouts,
                releases,
                stale_after_ms: config.sessions.stale_after_ms(),
            },
            health,
            scada: config.scada.clone(),
            names: (config.plant.clone(), config.name.clone()),
        })
    }

    /// The alarms, for whoever calls.
    pub(super) fn alarms(&self) -> Alarms {
        self.alarms.clone()
    }

    /// Follows what happens, and publishes it.
    pub(super) fn start(self, tasks: &mut JoinSet<()>, stopping: &CancellationToken) {
        let (alarms, sources) = (self.alarms.clone(), self.sources);
        background(tasks, stopping, async move { alarms.follow(sources).await });
        // It has a last word to say to the broker, so that it ends by itself.
        tasks.spawn(scada::publish(
            self.scada,
            self.names,
            self.alarms,
            self.health,
            stopping.clone(),
        ));
    }
}
