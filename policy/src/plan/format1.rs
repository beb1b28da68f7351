//! Reads plans of the format before this one, `penstock-plan/1`.
//!
//! Each field that came with `penstock-plan/2` is given the value that means what such a plan meant. A plan of the format
//! before that has one of them nevertheless is refused, as is any other field that its format does not know.

//!
//! It is read as such a plan is written, rule by rule, and takes no more memory than one of the format of today: a gateway
//! whose agent is upgraded reads it within the same limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{
    Bridge, Capability, Endpoint, Management, Observing, PLAN_FORMAT, Plan, PlanError, PlanInterface, Rule,
    shared,
};
use crate::ids::{ConduitId, FlowId, FlowName, GatewayId, PlantId, ZoneId};
use crate::protocol::Operations;
use crate::terms::{Answers, Enforcement, GatewayMode, OnAgentLoss, OnDrift, OnRefusal, Tls, Transport};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanBefore {
    #[serde(rename = "format")]
    _format: IgnoredAny,
    plant: PlantId,
    gateway: GatewayId,
    mode: GatewayMode,
    requires: BTreeSet<Capability>,
    on_drift: OnDrift,
    interfaces: Vec<InterfaceBefore>,
    management: Option<Management>,
    #[serde(deserialize_with = "shared::rules_of::<RuleBefore, _>")]
    rules: Vec<Rule>,
    bridges: Vec<Bridge>,
}

/// A whole side observed or enforced.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InterfaceBefore {
    name: String,
    zone: ZoneId,
    behind: Vec<ZoneId>,
    enforcement: Enforcement,
    networks: Vec<IpNet>,
}

/// Answers were matched strictly.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleBefore {
    id: FlowId,
    conduit: ConduitId,
    flow: FlowName,
    sources: Vec<Endpoint>,
    destinations: Vec<Endpoint>,
    transport: Transport,
    must_flow: bool,
    on_agent_loss: OnAgentLoss,
    operations: Option<Arc<Operations>>,
    on_refusal: OnRefusal,
    tls: Option<Arc<Tls>>,
}

/// The plan that `bytes` of the format before mean.
pub(super) fn read(bytes: &[u8]) -> Result<Plan, PlanError> {
    let plan: PlanBefore = serde_json::from_slice(bytes).map_err(PlanError::Unreadable)?;
    Ok(Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: plan.plant,
        gateway: plan.gateway,
        mode: plan.mode,
        requires: plan.requires,
        on_drift: plan.on_drift,
        interfaces: plan.interfaces.into_iter().map(Into::into).collect(),
        management: plan.management,
        rules: plan.rules,
        bridges: plan.bridges,
        frames: Vec::new(),
        grants: BTreeMap::new(),
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: BTreeMap::new(),
        unproven: Vec::new(),
        open: BTreeSet::new(),
        excepted: BTreeMap::new(),
    })
}

impl From<InterfaceBefore> for PlanInterface {
    fn from(side: InterfaceBefore) -> Self {
        Self {
            name: side.name,
            zone: side.zone,
            behind: side.behind,
            networks: side.networks,
            observing: Observing::from(side.enforcement),
            // Such a plan does not know its routers: whoever could be one is taken for one, as it was.
            routers: vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())],
            hardware: Vec::new(),
        }
    }
}

impl From<RuleBefore> for Rule {
    fn from(rule: RuleBefore) -> Self {
        Self {
            id: rule.id,
            conduit: rule.conduit,
            flow: rule.flow,
            sources: rule.sources,
            destinations: rule.destinations,
            transport: rule.transport,
            must_flow: rule.must_flow,
            on_agent_loss: rule.on_agent_loss,
            operations: rule.operations,
            roles: None,
            on_refusal: rule.on_refusal,
            answers: Answers::Strict,
            tls: rule.tls,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// A plan of the waterworks as the version before wrote it: the safety zone observes, and so does the office, which lies
    /// behind the side of the control room, which enforces.
    const STORED: &[u8] = include_bytes!("../../fixtures/plan-format-1.json");

    #[test]
    fn a_plan_of_the_format_before_goes_on_meaning_what_it_meant() {
        let plan = Plan::from_bytes(STORED).unwrap();
        assert_eq!(plan.format, PLAN_FORMAT);
        let observing: Vec<_> = plan
            .interfaces
            .iter()
            .map(|side| (side.name.as_str(), &side.observing))
            .collect();
        assert_eq!(
            observing,
            [
                ("eth1", &Observing::Nothing),
                ("eth2", &Observing::Nothing),
                ("eth3", &Observing::Everything),
            ]
        );
        assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
    }

    #[test]
    fn a_plan_of_the_format_of_today_is_read_and_written_as_it_was_when_the_format_was_made() {
        let stored = include_bytes!("../../fixtures/plan-format-2.json");
        let plan = Plan::from_bytes(stored).unwrap();
        assert_eq!(plan.to_bytes(), stored);
        assert_eq!((plan.rules.len(), plan.grants.len()), (4, 1));
    }

    #[test]
    fn nothing_else_of_it_is_read_otherwise() {
        let mut read: Value = serde_json::from_slice(&Plan::from_bytes(STORED).unwrap().to_bytes()).unwrap();
        for rule in read["rules"].as_array_mut().unwrap() {
            assert_eq!(
                rule.as_object_mut().unwrap().remove("answers"),
                Some("strict".into())
            );
        }
        let stored: Value = serde_json::from_slice(STORED).unwrap();
        for (field, value) in stored.as_object().unwrap() {
            if !["format", "interfaces"].contains(&field.as_str()) {
                assert_eq!(&read[field], value, "{field}");
            }
        }
    }

    #[test]
    fn what_its_format_does_not_know_is_refused_in_it_too() {
        let with = |spoil: &dyn Fn(&mut Value)| {
            let mut plan: Value = serde_json::from_slice(STORED).unwrap();
            spoil(&mut plan);
            Plan::from_bytes(&serde_json::to_vec(&plan).unwrap()).is_ok()
        };
        assert!(with(&|_| ()));
        assert!(!with(
            &|plan| plan["interfaces"][0]["observing"] = "everything".into()
        ));
        assert!(!with(&|plan| plan["interfaces"][0]["shiny"] = true.into()));
        assert!(!with(&|plan| drop(
            plan["interfaces"][0]
                .as_object_mut()
                .unwrap()
                .remove("enforcement")
        )));
        assert!(!with(&|plan| plan["grants"] = serde_json::json!({})));
        assert!(!with(&|plan| plan["rules"][0]["answers"] = "strict".into()));
        assert!(!with(&|plan| plan["interfaces"] = 7.into()));
        assert!(!with(&|plan| plan["rules"][0]["shiny"] = true.into()));
    }
}
