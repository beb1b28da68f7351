//! What must hold within a plan for an agent to use it: no rule that could mean anything or nothing, nothing limited
//! or carried that the plan does not require an agent to know.
//!
//! A plan that says less than it should is as bad as one that says too much: an agent without an inspector would
//! take a limit for met, so a capability that is needed and not required refuses the plan whole.

mod assurance;
mod frames;
mod tunnels;

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    AskedFrom, Bridge, Broker, Capability, ChangeWindows, Interlock, Observing, Plan, PlanInterface, Rule,
};
use crate::ids::{ConduitId, FlowId, FlowName};
use crate::protocol::mqtt::MqttOperation;
use crate::terms::{OnAgentLoss, Transport};

/// Whether the plan is well formed; if not, why, in words.
pub(super) fn check(plan: &Plan) -> Result<(), String> {
    let numbered = plan
        .rules
        .iter()
        .map(|rule| (rule.id, &rule.conduit, &rule.flow))
        .chain(
            plan.bridges
                .iter()
                .map(|bridge| (bridge.id, &bridge.conduit, &bridge.flow)),
        );
    numbers(numbered)?;
    for rule in &plan.rules {
        ends_and_ports(rule)?;
        operations(plan, rule)?;
    }
    for bridged in &plan.bridges {
        bridge(plan, bridged)?;
    }
    grants(plan)?;
    change_control(plan)?;
    break_glass(plan)?;
    interfaces(plan)?;
    assurance::check(plan)?;
    frames::check(plan)?;
    tunnels::check(plan)
}

/// Only an agent that watches the clock may take a plan with grants; and no grant is over before it begins.
fn grants(plan: &Plan) -> Result<(), String> {
    let needed = Capability::REMOTE_ACCESS;
    for (conduit, grants) in &plan.grants {
        if !requires(plan, needed) {
            return Err(format!(
                "grants open conduit {conduit}, but the plan does not require `{needed}`"
            ));
        }
        if let Some(grant) = grants.iter().find(|grant| grant.from_ms >= grant.until_ms) {
            return Err(format!(
                "grant {} of conduit {conduit} ends before it begins",
                grant.name
            ));
        }
        if let Some(bridge) = plan.bridges.iter().find(|bridge| bridge.conduit == *conduit) {
            return Err(format!("the bridge {conduit}/{} hangs on a grant", bridge.flow));
        }
    }
    Ok(())
}

/// Only an agent that keeps to windows and asks may take a plan that has them; and both can be kept to.
fn change_control(plan: &Plan) -> Result<(), String> {
    let needed = Capability::CHANGE_CONTROL;
    if (plan.windows.is_some() || plan.interlock.is_some()) && !requires(plan, needed) {
        return Err(format!(
            "the gateway may not change at any time, but the plan does not require `{needed}`"
        ));
    }
    if let Some(AskedFrom::Interface(name)) = plan.interlock.as_ref().map(|interlock| &interlock.from)
        && !is_interface_name(name)
    {
        return Err(format!("`{name}` is not the name of an interface"));
    }
    let windows = plan.windows.as_ref().and_then(ChangeWindows::fault);
    let fault = windows.or_else(|| plan.interlock.as_ref().and_then(Interlock::fault));
    fault.map_or(Ok(()), Err)
}

/// Only an agent that ends overrides may take a plan that permits them.
fn break_glass(plan: &Plan) -> Result<(), String> {
    let Some(permitting) = &plan.break_glass else {
        return Ok(());
    };
    let needed = Capability::OVERRIDES;
    if !requires(plan, needed) {
        return Err(format!(
            "people may override it, but the plan does not require `{needed}`"
        ));
    }
    permitting.fault().map_or(Ok(()), Err)
}

fn requires(plan: &Plan, capability: &str) -> bool {
    plan.requires.iter().any(|required| required.0 == capability)
}

/// Each number is in range, and stands for one flow, be it forwarded or bridged.
fn numbers<'a>(flows: impl Iterator<Item = (FlowId, &'a ConduitId, &'a FlowName)>) -> Result<(), String> {
    let mut ids = BTreeSet::new();
    for (id, conduit, flow) in flows {
        if id.0 == 0 || id.0 > FlowId::MAX || !ids.insert(id) {
            return Err(format!(
                "flow {conduit}/{flow} has the number {id}, which is taken or out of range"
            ));
        }
    }
    Ok(())
}

fn ends_and_ports(rule: &Rule) -> Result<(), String> {
    let name = format!("{}/{}", rule.conduit, rule.flow);
    if rule.sources.is_empty() || rule.destinations.is_empty() {
        return Err(format!("flow {name} has no source or no destination"));
    }
    if let Transport::Tcp(ports) | Transport::Udp(ports) = &rule.transport {
        if ports.is_empty() || ports.iter().any(|range| range.first > range.last) {
            return Err(format!(
                "flow {name} has no ports or a range that ends before it begins"
            ));
        }
        if ports.iter().any(|range| range.first == 0) {
            return Err(format!("flow {name} has the port 0, which no socket can have"));
        }
    }
    Ok(())
}

fn operations(plan: &Plan, rule: &Rule) -> Result<(), String> {
    let name = format!("{}/{}", rule.conduit, rule.flow);
    match rule.operations.as_deref() {
        Some(operations) if operations.permitted.is_empty() => {
            return Err(format!("flow {name} lists no operation"));
        }
        _ if rule.plain_port().is_some() => before_plain(rule, &name)?,
        None if rule.tls.is_some() => {
            return Err(format!(
                "flow {name} ends TLS at the gateway, but limits no operations"
            ));
        }
        Some(operations) if rule.tls.is_some() && !operations.protocol.reads_inside_tls() => {
            return Err(format!(
                "flow {name} ends TLS at the gateway for a protocol that is not read inside it"
            ));
        }
        _ => {}
    }
    by_role(rule, &name)?;
    let [limits, ends, roles] = rule.inspectors();
    let needed = limits
        .map(|inspector| (inspector, "limits operations"))
        .into_iter()
        .chain(ends.map(|inspector| (inspector, "ends TLS at the gateway")))
        .chain(roles.map(|roles| (roles, "limits operations by role")));
    let missing = needed
        .into_iter()
        .find(|(inspector, _)| !plan.requires.contains(inspector));
    match missing {
        Some((inspector, what)) => Err(format!(
            "flow {name} {what}, but the plan does not require `{inspector}`"
        )),
        None => Ok(()),
    }
}

/// Roles are read from certificates, which are shown where TLS ends at the gateway; and each limits what the flow permits.
fn by_role(rule: &Rule, name: &str) -> Result<(), String> {
    let Some(roles) = rule.roles.as_deref() else {
        return Ok(());
    };
    let problem = match (rule.operations.as_deref(), roles.fault()) {
        _ if rule.tls.is_none() => {
            "but ends no TLS at the gateway, so that no client shows a role".to_owned()
        }
        (None, _) => "but lists no operations that they could limit".to_owned(),
        (Some(operations), _) if !operations.protocol.has_roles => {
            format!("which {} does not have", operations.protocol.name)
        }
        (Some(operations), _) if roles.lists().any(|list| list.protocol != operations.protocol) => {
            "but one of them lists operations of another protocol".to_owned()
        }
        (_, Some(fault)) => format!("but {fault}"),
        _ => return Ok(()),
    };
    Err(format!("flow {name} has roles, {problem}"))
}

/// A client's TLS ends before a server that speaks none: at one port each, and never without an agent.
fn before_plain(rule: &Rule, name: &str) -> Result<(), String> {
    let one_port = match &rule.transport {
        Transport::Tcp(ports) => matches!(ports.as_slice(), [one] if one.first == one.last),
        Transport::Udp(_) | Transport::IcmpEcho => false,
    };
    let problem = if !one_port {
        "but not at one TCP port"
    } else if rule.plain_port() == Some(0) {
        "but before port 0, which no socket can have"
    } else if rule.on_agent_loss == OnAgentLoss::Pass {
        "but is to pass while no agent lives"
    } else {
        return Ok(());
    };
    Err(format!(
        "flow {name} ends TLS at the gateway before a server in the plain, {problem}"
    ))
}

fn bridge(plan: &Plan, bridge: &Bridge) -> Result<(), String> {
    let name = format!("{}/{}", bridge.conduit, bridge.flow);
    let needed = Capability::BRIDGE_MQTT;
    if !requires(plan, needed) {
        return Err(format!(
            "the bridge {name} stands in the plan, but the plan does not require `{needed}`"
        ));
    }
    if bridge.publications.is_empty() {
        return Err(format!("the bridge {name} lists no publication"));
    }
    for operation in &bridge.publications {
        match operation {
            MqttOperation::Publish { topics, .. } if topics.is_empty() => {
                return Err(format!("the bridge {name} lists a publication without topics"));
            }
            MqttOperation::Publish { .. } => {}
            MqttOperation::Subscribe { .. } | MqttOperation::Connect { .. } => {
                return Err(format!(
                    "the bridge {name} lists something else than publications"
                ));
            }
        }
    }
    let place = |broker: &Broker| (broker.address, broker.port);
    if bridge.from.port == 0 || bridge.to.port == 0 {
        return Err(format!(
            "the bridge {name} has a broker at port 0, which no socket can have"
        ));
    }
    if place(&bridge.from) == place(&bridge.to) {
        return Err(format!("the bridge {name} leads from a broker to itself"));
    }
    Ok(())
}

fn interfaces(plan: &Plan) -> Result<(), String> {
    let managed = plan.management.iter().map(|management| &management.interface);
    let guarded = plan.interfaces.iter().map(|interface| &interface.name);
    for name in guarded.clone().chain(managed) {
        if !is_interface_name(name) {
            return Err(format!("`{name}` is not the name of an interface"));
        }
    }
    let mut names = BTreeSet::new();
    for name in guarded {
        if !names.insert(name) {
            return Err(format!("interface {name} appears twice"));
        }
    }
    plan.interfaces.iter().try_for_each(observing)
}

/// Who observes on a side is a part of who lives there. That part may be all of it, where a zone that enforces has no
/// address yet.
fn observing(side: &PlanInterface) -> Result<(), String> {
    let Observing::Only(networks) = &side.observing else {
        return Ok(());
    };
    let name = &side.name;
    if networks.is_empty() {
        return Err(format!("interface {name} lists no observing network"));
    }
    if !disjoint_and_sorted(networks) {
        return Err(format!(
            "interface {name} has observing networks that overlap or are not in order"
        ));
    }
    let within = |inner: &IpNet| side.networks.iter().any(|outer| outer.contains(inner));
    match networks.iter().find(|inner| !within(inner)) {
        Some(astray) => Err(format!(
            "interface {name} observes {astray}, which is not on its side"
        )),
        None => Ok(()),
    }
}

fn disjoint_and_sorted(networks: &[IpNet]) -> bool {
    networks.windows(2).all(|pair| match pair {
        [one, next] => one < next && !one.contains(next) && !next.contains(one),
        _ => true,
    })
}

/// Whether a name can stand in a kernel ruleset as it is: 1–15 of `A-Z a-z 0-9 @ _ . -`, the first a letter or digit.
fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"@_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::compile::compile;
    use crate::ids::AssetId;
    use crate::plan::{Condition, Window};
    use crate::protocol::Operations;
    use crate::protocol::mqtt::MQTT;
    use crate::terms::PortRange;
    use crate::terms::{NumberRange, Tls};
    use crate::waterworks::{gateway, waterworks};

    fn refused(spoil: impl Fn(&mut Plan)) -> String {
        let mut plan = compile(&waterworks(), &gateway()).unwrap();
        spoil(&mut plan);
        Plan::from_bytes(&plan.to_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_name_that_would_be_more_than_a_name_in_a_ruleset_is_refused() {
        for name in [
            "",
            "eth0\"; flush ruleset",
            "eth 0",
            "$eth",
            "-eth0",
            "an-interface-too-long",
            "é",
        ] {
            assert!(refused(|plan| plan.interfaces[0].name = name.to_owned()).contains("is not the name"));
            let managed = |plan: &mut Plan| plan.management.as_mut().unwrap().interface = name.to_owned();
            assert!(refused(managed).contains("is not the name"), "{name}");
        }
    }

    #[test]
    fn limits_that_nobody_would_inspect_are_refused() {
        assert!(refused(|plan| plan.requires.clear()).contains("does not require `inspect:modbus-tcp`"));
        let none = |plan: &mut Plan| {
            plan.rules[0].operations = Some(Operations::from(Vec::<MqttOperation>::new()).into())
        };
        assert!(refused(none).contains("lists no operation"));
    }

    #[test]
    fn tls_that_nobody_would_end_is_refused() {
        let ended = |plan: &mut Plan| plan.rules[0].tls = Some(Tls::default().into());
        assert!(refused(ended).contains("not read inside it"), "Modbus");
        assert!(
            refused(|plan| {
                ended(plan);
                plan.rules[0].operations = None;
            })
            .contains("limits no operations")
        );
        assert!(
            refused(|plan| {
                ended(plan);
                plan.rules[0].operations = Some(Operations::from(vec![publish()]).into());
                plan.requires.insert(Capability::inspect(MQTT));
            })
            .contains("does not require `inspect:mqtt-tls`")
        );
    }

    fn publish() -> MqttOperation {
        MqttOperation::Publish {
            topics: vec!["line4/#".to_owned()],
            qos: NumberRange { first: 0, last: 1 },
            retain: false,
        }
    }

    fn broker(asset: &str, address: &str) -> Broker {
        Broker {
            asset: asset.parse::<AssetId>().unwrap(),
            address: address.parse().unwrap(),
            port: 1883,
            tls: None,
        }
    }

    /// The works' plan with a bridge in it, spoilt.
    fn bridged(spoil: impl Fn(&mut Plan)) -> Result<Plan, String> {
        let mut plan = compile(&waterworks(), &gateway()).unwrap();
        plan.requires
            .insert(Capability(Capability::BRIDGE_MQTT.to_owned()));
        plan.bridges.push(Bridge {
            id: FlowId(7),
            conduit: plan.rules[0].conduit.clone(),
            flow: "upwards".parse().unwrap(),
            from: broker("plc-7", "10.20.4.7"),
            to: broker("historian", "10.20.1.30"),
            publications: vec![publish()],
            must_flow: false,
        });
        spoil(&mut plan);
        Plan::from_bytes(&plan.to_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bridge_that_nobody_would_carry_or_that_carries_anything_is_refused() {
        assert!(bridged(|_| ()).is_ok());
        let because = |spoil: &dyn Fn(&mut Plan)| bridged(spoil).unwrap_err();
        assert!(
            because(&|plan| plan.requires.retain(|one| one.0 != Capability::BRIDGE_MQTT))
                .contains("does not require `bridge:mqtt`")
        );
        assert!(because(&|plan| plan.bridges[0].publications.clear()).contains("lists no publication"));
        let subscribe = MqttOperation::Subscribe {
            topics: vec!["#".to_owned()],
            qos: NumberRange { first: 0, last: 0 },
        };
        assert!(
            because(&|plan| plan.bridges[0].publications.push(subscribe.clone()))
                .contains("something else than publications")
        );
        let topicless = |plan: &mut Plan| {
            if let MqttOperation::Publish { topics, .. } = &mut plan.bridges[0].publications[0] {
                topics.clear();
            }
        };
        assert!(because(&topicless).contains("without topics"));
        assert!(because(&|plan| plan.bridges[0].to.port = 0).contains("port 0"));
        assert!(
            because(&|plan| plan.bridges[0].to.address = plan.bridges[0].from.address).contains("to itself")
        );
    }

    /// The works' plan with a window and a question in it, spoilt.
    fn held(spoil: impl Fn(&mut Plan)) -> Result<Plan, String> {
        let mut plan = compile(&waterworks(), &gateway()).unwrap();
        plan.requires.insert(Capability::of(Capability::CHANGE_CONTROL));
        plan.windows = Some(ChangeWindows {
            timezone: "Europe/Berlin".to_owned(),
            weekly: vec![window(5, 1320, 1440), window(6, 0, 240)],
        });
        plan.interlock = Some(Interlock {
            asset: "broker-1".parse().unwrap(),
            address: "10.20.4.30".parse().unwrap(),
            port: 1883,
            from: AskedFrom::Address("10.20.4.1".parse().unwrap()),
            condition: Condition::Topic {
                topic: "line/1/safe".to_owned(),
                is: "yes".to_owned(),
                tls: None,
            },
        });
        spoil(&mut plan);
        Plan::from_bytes(&plan.to_bytes()).map_err(|error| error.to_string())
    }

    fn window(weekday: u8, start_minute: u16, end_minute: u16) -> Window {
        Window {
            weekday,
            start_minute,
            end_minute,
        }
    }

    #[test]
    fn a_window_that_never_opens_and_a_question_that_cannot_be_asked_are_refused() {
        let read = held(|_| ()).unwrap();
        assert_eq!(Plan::from_bytes(&read.to_bytes()).unwrap(), read);
        let windows = |spoil: &dyn Fn(&mut ChangeWindows)| {
            held(|plan| spoil(plan.windows.as_mut().unwrap())).unwrap_err()
        };
        assert!(windows(&|them| them.weekly.clear()).contains("lists no change window"));
        assert!(windows(&|them| them.weekly[0].weekday = 7).contains("none of a week"));
        assert!(windows(&|them| them.weekly[0].end_minute = 1441).contains("none of a week"));
        assert!(windows(&|them| them.weekly[0].start_minute = 1440).contains("none of a week"));
        assert!(windows(&|them| them.weekly.reverse()).contains("not in order"));
        assert!(windows(&|them| them.weekly.push(window(6, 200, 300))).contains("overlap"));
        assert!(windows(&|them| them.timezone.clear()).contains("no time zone"));
        assert!(windows(&|them| them.timezone = "../../etc/passwd".to_owned()).contains("no time zone"));
        let asked = |spoil: &dyn Fn(&mut Interlock)| {
            held(|plan| spoil(plan.interlock.as_mut().unwrap())).unwrap_err()
        };
        assert!(asked(&|it| it.port = 0).contains("port 0"));
        assert!(asked(&|it| it.address = "fd00::1".parse().unwrap()).contains("families"));
        let through = |name: &str| asked(&|it| it.from = AskedFrom::Interface(name.to_owned()));
        assert!(through("eth0; flush").contains("not the name of an interface"));
        let topic = |topic: &str, is: &str| {
            asked(&|it| {
                it.condition = Condition::Topic {
                    topic: topic.to_owned(),
                    is: is.to_owned(),
                    tls: None,
                }
            })
        };
        assert!(topic("line/+/safe", "yes").contains("wildcards"));
        assert!(topic("", "yes").contains("topic that is empty"));
        assert!(topic("line/1/safe", "").contains("message that is empty"));
        for keep in [true, false] {
            let unknown = held(|plan| {
                plan.requires.remove(&Capability::of(Capability::CHANGE_CONTROL));
                if keep {
                    plan.windows = None;
                } else {
                    plan.interlock = None;
                }
            });
            assert!(unknown.unwrap_err().contains("does not require `change-control`"));
        }
    }

    #[test]
    fn a_plan_without_windows_and_question_has_the_bytes_that_it_had_before_there_were_any() {
        let plan = compile(&waterworks(), &gateway()).unwrap();
        let text = String::from_utf8(plan.to_bytes()).unwrap();
        assert!(!text.contains("windows") && !text.contains("interlock") && !text.contains("change-control"));
    }

    #[test]
    fn a_number_stands_for_one_flow_be_it_forwarded_or_bridged() {
        let taken = bridged(|plan| plan.bridges[0].id = plan.rules[1].id).unwrap_err();
        assert!(taken.contains("upwards has the number"), "{taken}");
        assert!(bridged(|plan| plan.bridges[0].id = FlowId(0)).is_err());
    }

    #[test]
    fn who_observes_on_a_side_is_a_part_of_who_lives_there() {
        let only = |networks: &[&str]| {
            let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
            let mut plan = compile(&waterworks(), &gateway()).unwrap();
            plan.interfaces[0].networks =
                vec!["10.1.0.0/16".parse().unwrap(), "10.7.0.0/16".parse().unwrap()];
            plan.interfaces[0].observing = Observing::Only(networks);
            Plan::from_bytes(&plan.to_bytes()).map_err(|error| error.to_string())
        };
        assert!(only(&["10.1.0.0/16", "10.7.3.0/24"]).is_ok());
        assert!(only(&["10.1.0.0/16", "10.7.0.0/16"]).is_ok());
        assert!(only(&[]).unwrap_err().contains("no observing network"));
        assert!(only(&["10.2.0.0/16"]).unwrap_err().contains("not on its side"));
        assert!(only(&["10.0.0.0/8"]).unwrap_err().contains("not on its side"));
        assert!(
            only(&["10.1.0.0/16", "10.1.3.0/24"])
                .unwrap_err()
                .contains("overlap")
        );
        assert!(
            only(&["10.7.0.0/16", "10.1.0.0/16"])
                .unwrap_err()
                .contains("not in order")
        );
    }

    #[test]
    fn rules_that_could_mean_anything_or_nothing_are_refused() {
        assert!(refused(|plan| plan.rules[0].destinations.clear()).contains("no source or no destination"));
        let ports =
            |ports: Vec<PortRange>| refused(|plan| plan.rules[0].transport = Transport::Tcp(ports.clone()));
        assert!(ports(Vec::new()).contains("no ports"));
        assert!(ports(vec![PortRange { first: 2, last: 1 }]).contains("ends before it begins"));
        assert!(ports(vec![PortRange { first: 0, last: 1 }]).contains("port 0"));
        assert!(refused(|plan| plan.rules[0].id = FlowId(FlowId::MAX + 1)).contains("out of range"));
        assert!(refused(|plan| plan.format = "penstock-plan/9".to_owned()).contains("penstock-plan/9"));
    }
}
