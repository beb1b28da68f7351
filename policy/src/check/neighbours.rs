//! `PC0106`: on a bridged gateway, who finds whom depends on the routers that are declared.

use super::{Findings, Severity};
use crate::plan::Plan;
use crate::terms::GatewayMode;

pub(super) fn check(plan: &Plan, findings: &mut Findings) {
    let without_routers = plan.interfaces.iter().all(|side| side.routers.is_empty());
    if plan.mode == GatewayMode::Bridged && without_routers && !plan.rules.is_empty() {
        findings.add(
            Severity::Note,
            "PC0106",
            "no router is declared on any side of this bridge: the ends of its flows find each other only where they share one \
             network segment"
                .to_owned(),
            "declare the routers that stand between them, if there are any, under `routers` of the interface on whose side they \
             stand",
        );
    }
}
