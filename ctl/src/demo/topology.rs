//! The demo's networks: every machine of the plant in a network namespace of its own.
//!
//! ```text
//!   office-pc ── gw-ops ─┬─ operations ─┬─ gw-safety ── sis-1
//!                        │  hmi-1       │
//!                        │  historian   │
//!                        └─ control ── plc-7, plc-8
//!   coordinator ─ management ─ engineering, gw-ops, gw-safety
//! ```
//!
//! Addresses and interface names are those of `plant/plant.yaml`. Switches are namespaces with a bridge and no rules.

use penstock_lab::{Lab, LabError, Namespace};

/// Address of the coordinator on the management network.
pub(super) const COORDINATOR: &str = "192.0.2.10";
/// The filters' controller.
pub(super) const PLC_7: &str = "10.20.4.7";
/// The pumps' controller.
pub(super) const PLC_8: &str = "10.20.4.8";
/// The safety controller.
pub(super) const SIS_1: &str = "10.20.9.3";
/// The historian with its broker.
pub(super) const HISTORIAN: &str = "10.20.1.30";
/// The office's workstation.
pub(super) const OFFICE_PC: &str = "10.1.0.66";

/// Every machine of the plant.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) office_pc: Namespace,
    pub(super) hmi: Namespace,
    pub(super) historian: Namespace,
    pub(super) plc_7: Namespace,
    pub(super) plc_8: Namespace,
    pub(super) sis: Namespace,
    pub(super) gw_ops: Namespace,
    pub(super) gw_safety: Namespace,
    pub(super) coordinator: Namespace,
    pub(super) engineering: Namespace,
}

impl Topology {
    /// Makes all namespaces, cables, addresses and routes.
    pub(super) fn build(lab: &Lab) -> Result<Self, LabError> {
        let gateway = |name| {
            let gateway = lab.namespace(name)?;
            gateway.forward()?;
            Ok::<_, LabError>(gateway)
        };
        let plant = Self {
            office_pc: lab.namespace("office-pc")?,
            hmi: lab.namespace("hmi-1")?,
            historian: lab.namespace("historian")?,
            plc_7: lab.namespace("plc-7")?,
            plc_8: lab.namespace("plc-8")?,
            sis: lab.namespace("sis-1")?,
            gw_ops: gateway("gw-ops")?,
            gw_safety: gateway("gw-safety")?,
            coordinator: lab.namespace("coordinator")?,
            engineering: lab.namespace("engineering")?,
        };

        lab.link((&plant.office_pc, "eth0"), (&plant.gw_ops, "office"))?;
        lab.link((&plant.gw_safety, "safety"), (&plant.sis, "eth0"))?;
        let (gw_ops, gw_safety) = (&plant.gw_ops, &plant.gw_safety);
        let operations = [
            (&plant.hmi, "eth0"),
            (&plant.historian, "eth0"),
            (gw_ops, "operations"),
            (gw_safety, "operations"),
        ];
        switch(lab, "sw-operations", &operations)?;
        switch(
            lab,
            "sw-control",
            &[
                (&plant.plc_7, "eth0"),
                (&plant.plc_8, "eth0"),
                (gw_ops, "control"),
            ],
        )?;
        let management = [
            (&plant.coordinator, "eth0"),
            (&plant.engineering, "eth0"),
            (gw_ops, "mgmt"),
            (gw_safety, "mgmt"),
        ];
        switch(lab, "sw-management", &management)?;

        for (machine, interface, address) in [
            (&plant.office_pc, "eth0", "10.1.0.66/24"),
            (&plant.hmi, "eth0", "10.20.1.21/24"),
            (&plant.historian, "eth0", "10.20.1.30/24"),
            (&plant.plc_7, "eth0", "10.20.4.7/24"),
            (&plant.plc_8, "eth0", "10.20.4.8/24"),
            (&plant.sis, "eth0", "10.20.9.3/28"),
            (gw_ops, "office", "10.1.0.1/24"),
            (gw_ops, "operations", "10.20.1.1/24"),
            (gw_ops, "control", "10.20.4.1/24"),
            (gw_ops, "mgmt", "192.0.2.21/24"),
            (gw_safety, "operations", "10.20.1.2/24"),
            (gw_safety, "safety", "10.20.9.1/28"),
            (gw_safety, "mgmt", "192.0.2.22/24"),
            (&plant.coordinator, "eth0", "192.0.2.10/24"),
            (&plant.engineering, "eth0", "192.0.2.20/24"),
        ] {
            machine.address(interface, address)?;
        }
        for (machine, destination, router) in [
            (&plant.office_pc, "default", "10.1.0.1"),
            (&plant.hmi, "default", "10.20.1.1"),
            (&plant.hmi, "10.20.9.0/28", "10.20.1.2"),
            (&plant.historian, "default", "10.20.1.1"),
            (&plant.historian, "10.20.9.0/28", "10.20.1.2"),
            (&plant.plc_7, "default", "10.20.4.1"),
            (&plant.plc_8, "default", "10.20.4.1"),
            (&plant.sis, "default", "10.20.9.1"),
            (gw_ops, "10.20.9.0/28", "10.20.1.2"),
            (gw_safety, "10.1.0.0/24", "10.20.1.1"),
            (gw_safety, "10.20.4.0/24", "10.20.1.1"),
        ] {
            machine.route(destination, router)?;
        }
        Ok(plant)
    }
}

/// A switch in a namespace of its own, with one cable to each machine.
fn switch(lab: &Lab, name: &str, machines: &[(&Namespace, &str)]) -> Result<(), LabError> {
    let switch = lab.namespace(name)?;
    let ports: Vec<String> = (1..=machines.len())
        .map(|number| format!("port{number}"))
        .collect();
    for (port, machine) in ports.iter().zip(machines) {
        lab.link((&switch, port), *machine)?;
    }
    switch.bridge("switch", &ports.iter().map(String::as_str).collect::<Vec<_>>())
}
