//! A small water works for example tests: office, operations, control and safety behind one gateway.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use crate::protocol::modbus_tcp::MODBUS_TCP;
use crate::protocol::mqtt::MQTT;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::ids::{ApproverId, GatewayId};
use crate::model::{
    Approver, ApproverSet, Asset, BridgeSource, Conduit, Flow, FlowEnd, Gateway, Interface, ManagementAccess,
    Plant, Service, Site, SlVector, Zone, ZoneKind,
};
use crate::protocol::Operations;
use crate::protocol::modbus_tcp::ModbusOperation;
use crate::protocol::mqtt::MqttOperation;
use crate::release::signing::ApproverKey;
use crate::terms::{
    Enforcement, GatewayMode, NumberRange, OnAgentLoss, OnDrift, OnRefusal, PortRange, Transport,
};

/// The gateway of the works.
pub(crate) fn gateway() -> GatewayId {
    id("gw-works")
}

/// The only name or address that `text` can be.
pub(crate) fn id<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

/// The key of approver number `seed`.
pub(crate) fn key(seed: u8) -> ApproverKey {
    ApproverKey::from_seed(&[seed; 32])
}

/// A set of these approvers, each with the key of its number.
pub(crate) fn approvers(threshold: u8, people: &[(&str, u8)]) -> ApproverSet {
    ApproverSet {
        emergency_threshold: None,
        threshold,
        people: people
            .iter()
            .map(|(person, seed)| {
                let approver = Approver {
                    key: key(*seed).public(),
                    role: None,
                };
                (id::<ApproverId>(person), approver)
            })
            .collect(),
    }
}

pub(crate) fn zone(kind: ZoneKind, level: u8, network: &str) -> Zone {
    Zone {
        title: format!("{kind:?}"),
        kind,
        parent: None,
        sl_target: Some(SlVector {
            iac: level,
            uc: level,
            si: level,
            dc: level,
            rdf: level,
            tre: level,
            ra: level,
        }),
        networks: vec![id(network)],
        consequence: None,
        accountable: None,
        boundary: None,
        requirements: Vec::new(),
        assumptions: Vec::new(),
        enforcement: Enforcement::Enforce,
    }
}

pub(crate) fn asset(zone: &str, address: &str) -> Asset {
    Asset {
        title: None,
        tag: None,
        zone: id(zone),
        addresses: vec![id(address)],
        mac: None,
        role: None,
        vendor: None,
        model: None,
        firmware: None,
        criticality: None,
        sl_capability: None,
        identity: None,
    }
}

pub(crate) fn modbus(operations: Option<Vec<ModbusOperation>>, plant: &Plant, from: &str, to: &str) -> Flow {
    Flow {
        title: None,
        sources: vec![end(plant, from)],
        destinations: vec![end(plant, to)],
        service: Service {
            name: "modbus-tcp".to_owned(),
            protocol: Some(MODBUS_TCP),
            transport: Transport::Tcp(vec![PortRange::single(502)]),
        },
        operations: operations.map(Operations::from),
        must_flow: true,
        on_refusal: OnRefusal::default(),
        answers: crate::terms::Answers::default(),
        tls: None,
        roles: None,
        bridge_source: None,
    }
}

pub(crate) fn end(plant: &Plant, asset: &str) -> FlowEnd {
    FlowEnd::Asset(id(asset), plant.assets[&id(asset)].addresses.clone())
}

pub(crate) fn operation(function: &str, addresses: (u32, u32)) -> ModbusOperation {
    ModbusOperation {
        function: function.to_owned(),
        units: Some(vec![NumberRange { first: 1, last: 1 }]),
        addresses: Some(vec![NumberRange {
            first: addresses.0,
            last: addresses.1,
        }]),
        read_addresses: None,
        values: None,
        sub_functions: None,
    }
}

pub(crate) fn conduit(from: &str, to: &str, flows: Vec<(&str, Flow)>) -> Conduit {
    Conduit {
        title: format!("{from} to {to}"),
        from: id(from),
        to: id(to),
        via: BTreeSet::from([gateway()]),
        enforced_by: crate::model::Enforcer::default(),
        sl_target: None,
        on_agent_loss: OnAgentLoss::Block,
        tunnel: false,
        only_by_grant: false,
        minimum_assurance: None,
        accountable: None,
        flows: flows.into_iter().map(|(name, flow)| (id(name), flow)).collect(),
        frames: BTreeMap::new(),
    }
}

/// The works: the control room polls and steers one controller; the office may see the historian's web page.
pub(crate) fn waterworks() -> Plant {
    let interface = |zone: &str| Interface {
        zone: id(zone),
        behind: Vec::new(),
        routers: Vec::new(),
        addresses: Vec::new(),
    };
    let mut plant = Plant {
        id: id("riverside-water"),
        title: "Riverside drinking-water works".to_owned(),
        owner: None,
        approvers: approvers(2, &[("j.meyer", 1), ("a.silva", 2), ("k.ito", 3)]),
        sites: BTreeMap::from([(
            id("works"),
            Site {
                title: "Water works".to_owned(),
                timezone: "Europe/Berlin".to_owned(),
            },
        )]),
        gateways: BTreeMap::from([(
            gateway(),
            Gateway {
                site: id("works"),
                mode: GatewayMode::Routed,
                labels: BTreeMap::new(),
                interfaces: BTreeMap::from([
                    ("eth1".to_owned(), interface("office")),
                    ("eth2".to_owned(), interface("operations")),
                    ("eth3".to_owned(), interface("control")),
                    ("eth4".to_owned(), interface("safety")),
                ]),
                management: Some(ManagementAccess {
                    interface: "eth0".to_owned(),
                    peers: vec![id::<IpNet>("192.0.2.10/32")],
                }),
                windows: Vec::new(),
                safe_to_change: None,
                redundant_with: None,
                on_drift: OnDrift::Repair,
                tunnel: None,
                tunnels: BTreeMap::new(),
            },
        )]),
        zones: BTreeMap::from([
            (id("office"), zone(ZoneKind::Enterprise, 1, "10.1.0.0/16")),
            (id("operations"), zone(ZoneKind::Operations, 2, "10.20.1.0/24")),
            (id("control"), zone(ZoneKind::Control, 2, "10.20.4.0/24")),
            (id("safety"), zone(ZoneKind::Safety, 3, "10.20.9.0/28")),
        ]),
        assets: BTreeMap::from([
            (id("desk-1"), asset("office", "10.1.7.21")),
            (id("hmi-1"), asset("operations", "10.20.1.21")),
            (id("historian"), asset("operations", "10.20.1.30")),
            (id("plc-7"), asset("control", "10.20.4.7")),
            (id("sis-1"), asset("safety", "10.20.9.3")),
        ]),
        conduits: BTreeMap::new(),
        remote_access: BTreeMap::new(),
        break_glass: None,
        compensating_controls: BTreeMap::new(),
        risk: Vec::new(),
        accepted: Vec::new(),
    };
    let mut polling = modbus(
        Some(vec![operation("read-holding-registers", (0, 199))]),
        &plant,
        "hmi-1",
        "plc-7",
    );
    polling.sources.push(end(&plant, "historian"));
    let setpoints = modbus(
        Some(vec![operation("write-single-register", (40, 41))]),
        &plant,
        "hmi-1",
        "plc-7",
    );
    let mut page = modbus(None, &plant, "desk-1", "historian");
    page.sources = vec![FlowEnd::Zone(id("office"), vec![id("10.1.0.0/16")])];
    page.must_flow = false;
    page.service = Service {
        name: "https".to_owned(),
        protocol: None,
        transport: Transport::Tcp(vec![PortRange::single(443)]),
    };
    plant.conduits = BTreeMap::from([
        (
            id("control-room-to-pumps"),
            conduit(
                "operations",
                "control",
                vec![("polling", polling), ("setpoints", setpoints)],
            ),
        ),
        (
            id("office-to-historian"),
            conduit("office", "operations", vec![("page", page)]),
        ),
    ]);
    plant
}

/// The works with a broker in the control zone and one in operations, and this flow between the two.
pub(crate) fn with_brokers(flow: impl FnOnce(&Plant) -> Flow) -> Plant {
    let mut plant = waterworks();
    plant
        .assets
        .insert(id("broker-pumps"), asset("control", "10.20.4.40"));
    plant
        .assets
        .insert(id("broker-works"), asset("operations", "10.20.1.40"));
    let flow = flow(&plant);
    plant.conduits.insert(
        id("telemetry"),
        conduit("control", "operations", vec![("upwards", flow)]),
    );
    plant
}

/// A bridge from the pumps' broker to the works' one.
pub(crate) fn bridge(plant: &Plant) -> Flow {
    let mut bridge = messages(plant);
    carried(&mut bridge);
    bridge
}

/// Makes a bridge of a flow, with the same service at both ends.
pub(crate) fn carried(flow: &mut Flow) {
    flow.service.name = "mqtt-bridge".to_owned();
    flow.bridge_source = Some(BridgeSource {
        service: flow.service.clone(),
        tls: flow.tls.clone(),
    });
}

/// An MQTT flow from the pumps' broker to the works' one, limited to publishing pressures.
pub(crate) fn messages(plant: &Plant) -> Flow {
    let mut flow = modbus(None, plant, "broker-pumps", "broker-works");
    flow.service = Service {
        name: "mqtt".to_owned(),
        protocol: Some(MQTT),
        transport: Transport::Tcp(vec![PortRange::single(1883)]),
    };
    flow.operations = Some(Operations::from(vec![publish("pumps/+/pressure")]));
    flow
}

/// Publishing to one filter, QoS 0–1, not retained.
pub(crate) fn publish(topic: &str) -> MqttOperation {
    MqttOperation::Publish {
        topics: vec![topic.to_owned()],
        qos: NumberRange { first: 0, last: 1 },
        retain: false,
    }
}

/// When [`grant_visit`] begins, milliseconds since 1970.
pub(crate) const VISIT_MS: u64 = 1_796_112_000_000;

/// Grants Carla eight hours on a conduit, which then is closed but for them.
pub(crate) fn grant_visit(plant: &mut Plant, conduit: &str) {
    let access = crate::model::RemoteAccess {
        person: "Carla".to_owned(),
        conduit: id(conduit),
        reason: "maintenance".to_owned(),
        from: "2026-12-01T08:00:00Z".to_owned(),
        until: "2026-12-01T16:00:00Z".to_owned(),
        from_ms: VISIT_MS,
        until_ms: VISIT_MS + 8 * 3_600_000,
        approved_by: id("a.silva"),
    };
    plant.remote_access.insert(id("visit"), access);
}
