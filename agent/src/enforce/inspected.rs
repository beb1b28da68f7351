//! What the inspector has to know beside the policy: who this gateway is, whose keys no longer count, and that the agent ends.

use std::sync::Arc;

use penstock_proto::withdrawn::Withdrawn;

use super::Enforcer;
use crate::identity::Identity;
use crate::service_manager::ServiceManager;

impl Enforcer {
    /// Leaves inspected connections with the service manager, for the agent that comes next. From here on none is
    /// carried.
    pub async fn hand_over(&self, manager: &ServiceManager) {
        let Some(inspector) = &self.inspector else { return };
        match inspector.hand_over(manager).await {
            Ok(connections) => tracing::info!(connections, "inspected connections are handed over"),
            Err(error) => {
                tracing::error!(%error, "inspected connections cannot be handed over and end with this agent");
            }
        }
    }

    /// Who this gateway is, for the TLS of clients that ends here.
    pub fn identify(&self, identity: Option<Arc<Identity>>) {
        if let Some(inspector) = &self.inspector {
            inspector.identify(identity);
        }
    }

    /// Ends inspected connections of peers whose keys no longer count by this list.
    pub async fn heed(&self, withdrawn: Arc<Withdrawn>) {
        if let Some(inspector) = &self.inspector {
            inspector.heed(withdrawn).await;
        }
    }
}
