//! Watches the routes of packets that go to the inspector, and puts them back when somebody took them away.
//!
//! Not here: the routes themselves (`ground/routing`).

use std::sync::Arc;
use std::time::Duration;

use penstock_policy::terms::OnDrift;

use crate::enforce::ground::routing;
use crate::enforce::nft::netlink::Hearer;
use crate::enforce::table::Table;
use crate::intercept::{ROUTING_PRIORITY, ROUTING_TABLE};
use crate::observed::DriftStep;

/// Distance of repairs if another program keeps taking the rule away.
const BETWEEN: Duration = Duration::from_millis(50);

/// Looks whether the routes of the plan in force are in effect, and puts them back if they are to be repaired.
pub(in crate::enforce) async fn mend(table: &Table) {
    let current = table.verdicts.current();
    let Some(current) = current.filter(|_| table.settings.inspector.is_some()) else {
        return;
    };
    if !routing::is_needed(&current.plan) {
        return;
    }
    let missing = match routing::missing().await {
        Ok(missing) if missing.is_empty() => return,
        Ok(missing) => missing.join(" and "),
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the routes of inspected packets are not known"
            );
            return;
        }
    };
    let message = format!(
        "the routing rule {ROUTING_PRIORITY} or its table {ROUTING_TABLE} was taken away ({missing}), so inspected \
         connections stood still"
    );
    table.say(DriftStep::Found, &message, None);
    if current.plan.on_drift != OnDrift::Repair {
        return;
    }
    match routing::set().await {
        Ok(()) => table.say(DriftStep::Repaired, &message, None),
        Err(error) => {
            let cause = std::error::Error::source(&error)
                .map(|e| format!(": {e}"))
                .unwrap_or_default();
            table.say(
                DriftStep::RepairFailed,
                &format!("{message}; {error}{cause}"),
                None,
            );
        }
    }
}

/// Mends for as long as the agent runs.
pub(in crate::enforce) async fn watch(table: Arc<Table>, socket: Hearer) {
    let mut buffer = vec![0; routing::BUFFER_BYTES];
    loop {
        let touched = match socket.receive(&mut buffer).await {
            Ok(length) => routing::concerns_us(buffer.get(..length).unwrap_or_default()),
            // Some were lost.
            Err(_) => true,
        };
        if touched {
            mend(&table).await;
            tokio::time::sleep(BETWEEN).await;
        }
    }
}
