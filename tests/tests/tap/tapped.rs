//! A tap at a gateway whose sides are only wires, and the frames that a test sends into them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_agent::audit::{self, Audit, Position, SpoolLimits};
use penstock_agent::reconcile::PolicyView;
use penstock_agent::tap::{Tap, TapSettings};
use penstock_lab::{Lab, Namespace, sandbox};
use penstock_policy::ids::ZoneId;
use penstock_policy::plan::{Observing, PLAN_FORMAT, Plan, PlanInterface};
use penstock_policy::terms::{GatewayMode, OnDrift};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditBlockBody, Fault, LearnedEvent};
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::wire::{Wire, checksum, ip, pseudo};

pub const PATIENCE: Duration = Duration::from_secs(60);
const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 2, 1], [2, 0, 0, 0, 1, 1]);

/// A gateway with three sides, whose far ends are only wires.
pub struct Sides {
    pub gateway: Namespace,
    /// `lan1`, `lan2`, `lan3`.
    pub wires: Vec<Wire>,
    pub folder: std::path::PathBuf,
}

impl Sides {
    pub fn new(lab: &Lab) -> Self {
        let gateway = lab.namespace("gateway").unwrap();
        // Nothing of the gateway's own may be on the wires: no neighbour discovery, no multicast.
        gateway.sysctl("net.ipv6.conf.all.disable_ipv6", "1").unwrap();
        gateway.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
        let wires = (1..=3)
            .map(|side| {
                let far = lab.namespace(&format!("side{side}")).unwrap();
                far.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
                lab.link((&gateway, &format!("lan{side}")), (&far, "eth0"))
                    .unwrap();
                far.enter(|| Wire::open("eth0")).unwrap()
            })
            .collect();
        let folder = lab.directory().to_owned();
        Self {
            gateway,
            wires,
            folder,
        }
    }

    /// Frames that came out of the gateway.
    pub fn came_out(&self) -> usize {
        self.wires
            .iter()
            .map(|wire| wire.catch_for(Duration::from_millis(50)).len())
            .sum()
    }
}

/// `lan1` to `lan3` (10.N.0.0/16, fd00:N::/64), of which these observe.
pub fn plan(observing: &[u8]) -> Option<Arc<Plan>> {
    let side = |number: u8| PlanInterface {
        name: format!("lan{number}"),
        zone: ZoneId::new(format!("zone{number}")).unwrap(),
        behind: vec![],
        routers: vec![],
        hardware: vec![],
        networks: vec![
            format!("10.{number}.0.0/16").parse().unwrap(),
            format!("fd00:{number}::/64").parse().unwrap(),
        ],
        observing: if observing.contains(&number) {
            Observing::Everything
        } else {
            Observing::Nothing
        },
    };
    Some(Arc::new(Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "works".parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        mode: GatewayMode::Bridged,
        requires: BTreeSet::new(),
        on_drift: OnDrift::Repair,
        interfaces: (1..=3).map(side).collect(),
        management: None,
        rules: Vec::new(),
        bridges: Vec::new(),
        grants: std::collections::BTreeMap::new(),
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: std::collections::BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        open: BTreeSet::new(),
        excepted: std::collections::BTreeMap::new(),
    }))
}

/// A running tap.
pub struct Tapped {
    pub policy: watch::Sender<PolicyView>,
    pub faults: watch::Receiver<Vec<Fault>>,
    pub audit: Audit,
    pub stop: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
}

impl Tapped {
    pub fn start(sides: &Sides, observing: &[u8]) -> Self {
        let limits = SpoolLimits {
            bytes_max: 16 << 20,
            block_bytes: audit::BLOCK_BYTES,
            free_bytes_min: 0,
        };
        let (audit, _writer) = audit::start(sides.folder.join("spool"), limits);
        let (policy, seen) = watch::channel(PolicyView {
            plan: plan(observing),
            ..PolicyView::default()
        });
        let (faults_in, faults) = watch::channel(Vec::new());
        let tap = Tap {
            settings: TapSettings {
                enabled: true,
                interval: Duration::from_secs(1),
            },
            policy: seen,
            audit: audit.clone(),
            faults: faults_in,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(tap.run(stop.clone()));
        Self {
            policy,
            faults,
            audit,
            stop,
            task,
        }
    }

    /// Waits until the kernel gives it packets, or no longer does.
    pub async fn hears(&self, does: bool) {
        let wait = async {
            loop {
                // A line for each packet socket of this network namespace, below the heading.
                let sockets = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
                if (sockets.lines().count() > 1) == does {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    }

    /// The fault that is, or comes to be, told.
    pub async fn fault(&mut self) -> Fault {
        let told = self.faults.wait_for(|faults| !faults.is_empty());
        let faults = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].clone()
    }

    /// Waits until none is told.
    pub async fn no_fault(&mut self) {
        let gone = tokio::time::timeout(PATIENCE, self.faults.wait_for(Vec::is_empty));
        gone.await.unwrap().unwrap();
    }

    /// The trail so far.
    pub async fn trail(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        let mut from = Position::default();
        while let Ok(blocks) = self.audit.read(from, 64, 1 << 20).await {
            let Some(last) = blocks.last() else { break };
            from = Position {
                epoch: last.epoch,
                sequence: last.sequence + 1,
            };
            for block in &blocks {
                let body = AuditBlockBody::decode(&block.body[..]).unwrap();
                kinds.extend(body.events.into_iter().filter_map(|event| event.kind));
            }
        }
        kinds
    }

    pub async fn learned(&self) -> Vec<LearnedEvent> {
        let kinds = self.trail().await.into_iter();
        kinds
            .filter_map(|kind| match kind {
                Kind::Learned(event) => Some(event),
                _ => None,
            })
            .collect()
    }

    /// All registers that were learned to be touched.
    pub async fn registers(&self) -> BTreeSet<u32> {
        let events = self.learned().await;
        let modbus = events.iter().flat_map(|event| &event.modbus);
        modbus
            .flat_map(|modbus| &modbus.write)
            .flat_map(|range| range.first..=range.last)
            .collect()
    }

    /// Waits until exactly these registers are learned.
    pub async fn wait_for(&self, registers: impl IntoIterator<Item = u32>) {
        let wanted: BTreeSet<u32> = registers.into_iter().collect();
        let wait = async {
            while self.registers().await != wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("wanted {wanted:?}, learned {:#?}", self.learned().await);
        }
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.audit.close().await;
    }
}

/// A TCP connection from `lan1` to `lan2` as its client's segments.
pub struct Client {
    pub from: IpAddr,
    pub to: IpAddr,
    port: u16,
    next: u32,
}

impl Client {
    pub fn new(from: &str, to: &str, port: u16) -> Self {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        Self {
            from,
            to,
            port,
            next: 1000,
        }
    }

    pub fn segment(&mut self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut tcp = [40_000_u16.to_be_bytes(), self.port.to_be_bytes()].concat();
        tcp.extend(self.next.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(payload);
        let sum = checksum(&[&pseudo(self.from, self.to, 6, tcp.len()), &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        self.next += u32::from(flags & 2 != 0) + payload.len() as u32;
        ip(self.from, self.to, 6, 0, &tcp)
    }

    /// The server's acknowledgement of everything so far.
    pub fn acknowledged(&self) -> Vec<u8> {
        let mut tcp = [self.port.to_be_bytes(), 40_000_u16.to_be_bytes()].concat();
        tcp.extend(5000_u32.to_be_bytes());
        tcp.extend(self.next.to_be_bytes());
        tcp.extend([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        let sum = checksum(&[&pseudo(self.to, self.from, 6, tcp.len()), &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        ip(self.to, self.from, 6, 0, &tcp)
    }

    pub fn syn(&mut self) -> Vec<u8> {
        self.segment(0x02, &[])
    }

    pub fn data(&mut self, payload: &[u8]) -> Vec<u8> {
        self.segment(0x18, payload)
    }
}

/// A request to read one holding register.
pub fn read(transaction: u16, register: u16) -> Vec<u8> {
    let mut adu = transaction.to_be_bytes().to_vec();
    adu.extend([0, 0, 0, 6, 1, 3]);
    adu.extend(register.to_be_bytes());
    adu.extend([0, 1]);
    adu
}

/// A frame with these bytes between the addresses and the packet.
pub fn framed(kind: &[u8], packet: &[u8]) -> Vec<u8> {
    [&MACS.1[..], &MACS.0, kind, packet].concat()
}

pub fn test(name: &str, body: impl AsyncFnOnce(&Sides) + Send) {
    let in_sandbox = |lab: &Lab| {
        let sides = Sides::new(lab);
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(body(&sides));
        };
        sides.gateway.enter(work).unwrap();
    };
    sandbox::test(name, in_sandbox).unwrap();
}

pub const V4: &[u8] = &[0x08, 0];
pub const V6: &[u8] = &[0x86, 0xdd];
