//! Single frames at the tap: which it reads, which it leaves, what it does when some are missing or too many come, and
//! that it sends none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock::lab::{Lab, Namespace, sandbox};
use penstock_agent::audit::{self, Audit, Limits, Position};
use penstock_agent::reconcile::PolicyView;
use penstock_agent::tap::{Settings, Tap};
use penstock_policy::ids::ZoneId;
use penstock_policy::model::{Enforcement, GatewayMode, OnDrift};
use penstock_policy::plan::{PLAN_FORMAT, Plan, PlanInterface};
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditBlockBody, Fault, LearnedEvent};
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::wire::{Wire, checksum, ip, pseudo};

const PATIENCE: Duration = Duration::from_secs(60);
const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 2, 1], [2, 0, 0, 0, 1, 1]);

/// A gateway with three sides, whose far ends are only wires.
struct Sides {
    gateway: Namespace,
    /// `lan1`, `lan2`, `lan3`.
    wires: Vec<Wire>,
    folder: std::path::PathBuf,
}

impl Sides {
    fn new(lab: &Lab) -> Self {
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
    fn came_out(&self) -> usize {
        self.wires
            .iter()
            .map(|wire| wire.catch_for(Duration::from_millis(50)).len())
            .sum()
    }
}

/// `lan1` to `lan3` (10.N.0.0/16, fd00:N::/64), of which these observe.
fn plan(observing: &[u8]) -> Option<Arc<Plan>> {
    let side = |number: u8| PlanInterface {
        name: format!("lan{number}"),
        zone: ZoneId::new(format!("zone{number}")).unwrap(),
        behind: vec![],
        enforcement: if observing.contains(&number) {
            Enforcement::Observe
        } else {
            Enforcement::Enforce
        },
        networks: vec![
            format!("10.{number}.0.0/16").parse().unwrap(),
            format!("fd00:{number}::/64").parse().unwrap(),
        ],
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
    }))
}

/// A running tap.
struct Tapped {
    policy: watch::Sender<PolicyView>,
    faults: watch::Receiver<Vec<Fault>>,
    audit: Audit,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Tapped {
    fn start(sides: &Sides, observing: &[u8]) -> Self {
        let limits = Limits {
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
            settings: Settings {
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

    /// The fault that is, or comes to be, told.
    async fn fault(&mut self) -> Fault {
        let told = self.faults.wait_for(|faults| !faults.is_empty());
        let faults = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].clone()
    }

    /// Waits until none is told.
    async fn no_fault(&mut self) {
        let gone = tokio::time::timeout(PATIENCE, self.faults.wait_for(Vec::is_empty));
        gone.await.unwrap().unwrap();
    }

    /// The trail so far.
    async fn trail(&self) -> Vec<Kind> {
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

    async fn learned(&self) -> Vec<LearnedEvent> {
        let kinds = self.trail().await.into_iter();
        kinds
            .filter_map(|kind| match kind {
                Kind::Learned(event) => Some(event),
                _ => None,
            })
            .collect()
    }

    /// All registers that were learned to be touched.
    async fn registers(&self) -> BTreeSet<u32> {
        let events = self.learned().await;
        let modbus = events.iter().flat_map(|event| &event.modbus);
        modbus
            .flat_map(|modbus| &modbus.write)
            .flat_map(|range| range.first..=range.last)
            .collect()
    }

    /// Waits until exactly these registers are learned.
    async fn wait_for(&self, registers: impl IntoIterator<Item = u32>) {
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

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.audit.close().await;
    }
}

/// A TCP connection from `lan1` to `lan2` as its client's segments.
struct Client {
    from: IpAddr,
    to: IpAddr,
    port: u16,
    next: u32,
}

impl Client {
    fn new(from: &str, to: &str, port: u16) -> Self {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        Self {
            from,
            to,
            port,
            next: 1000,
        }
    }

    fn segment(&mut self, flags: u8, payload: &[u8]) -> Vec<u8> {
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
    fn acknowledged(&self) -> Vec<u8> {
        let mut tcp = [self.port.to_be_bytes(), 40_000_u16.to_be_bytes()].concat();
        tcp.extend(5000_u32.to_be_bytes());
        tcp.extend(self.next.to_be_bytes());
        tcp.extend([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        let sum = checksum(&[&pseudo(self.to, self.from, 6, tcp.len()), &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        ip(self.to, self.from, 6, 0, &tcp)
    }

    fn syn(&mut self) -> Vec<u8> {
        self.segment(0x02, &[])
    }

    fn data(&mut self, payload: &[u8]) -> Vec<u8> {
        self.segment(0x18, payload)
    }
}

/// A request to read one holding register.
fn read(transaction: u16, register: u16) -> Vec<u8> {
    let mut adu = transaction.to_be_bytes().to_vec();
    adu.extend([0, 0, 0, 6, 1, 3]);
    adu.extend(register.to_be_bytes());
    adu.extend([0, 1]);
    adu
}

/// A frame with these bytes between the addresses and the packet.
fn framed(kind: &[u8], packet: &[u8]) -> Vec<u8> {
    [&MACS.1[..], &MACS.0, kind, packet].concat()
}

fn test(name: &str, body: impl AsyncFnOnce(&Sides) + Send) {
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

const V4: &[u8] = &[0x08, 0];
const V6: &[u8] = &[0x86, 0xdd];

#[test]
fn frames_with_and_without_tags_in_both_families_are_read_and_nothing_is_ever_sent() {
    test(
        "frames::frames_with_and_without_tags_in_both_families_are_read_and_nothing_is_ever_sent",
        async |sides| {
            let tapped = Tapped::start(sides, &[1, 2]);
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut number = 0;
            let v6 = ("fd00:1::5", "fd00:2::9");
            for (kind, (from, to)) in [
                (V4, ("10.1.0.5", "10.2.0.9")),
                (V6, v6),
                (&[0x81, 0, 0, 5, 0x08, 0], ("10.1.0.6", "10.2.0.9")),
                (&[0x81, 0, 0xe0, 0, 0x86, 0xdd], ("fd00:1::6", "fd00:2::9")),
                (
                    &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x08, 0],
                    ("10.1.0.7", "10.2.0.9"),
                ),
                (
                    &[0x81, 0, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd],
                    ("fd00:1::7", "fd00:2::9"),
                ),
            ] {
                let mut client = Client::new(from, to, 502);
                number += 10;
                for packet in [client.syn(), client.data(&read(number, number))] {
                    sides.wires[0].send(&framed(kind, &packet));
                }
            }
            // IPv6 with a hop-by-hop header in front of TCP.
            let mut client = Client::new("fd00:1::8", "fd00:2::9", 502);
            for packet in [client.syn(), client.data(&read(70, 70))] {
                let tcp = [&[6, 0, 1, 4, 0, 0, 0, 0], &packet[40..]].concat();
                let packet = ip(client.from, client.to, 0, 0, &tcp);
                sides.wires[0].send(&framed(V6, &packet));
            }
            tapped.wait_for([10, 20, 30, 40, 50, 60, 70]).await;
            let connections: u64 = tapped.learned().await.iter().map(|event| event.connections).sum();
            assert_eq!(connections, 7);
            tapped.end().await;
            assert_eq!(sides.came_out(), 0, "the tap sends nothing");
        },
    );
}

#[test]
fn only_what_crosses_between_observing_sides_is_learned_and_only_while_they_observe() {
    test(
        "frames::only_what_crosses_between_observing_sides_is_learned_and_only_while_they_observe",
        async |sides| {
            let tapped = Tapped::start(sides, &[1, 2]);
            tokio::time::sleep(Duration::from_millis(200)).await;
            let send = |side: usize, from: &str, to: &str, port: u16, register: u16| {
                let mut client = Client::new(from, to, port);
                for packet in [client.syn(), client.data(&read(register, register))] {
                    sides.wires[side].send(&framed(V4, &packet));
                }
            };
            send(0, "10.1.0.5", "10.2.0.9", 502, 100);
            send(0, "10.1.0.5", "10.2.0.9", 503, 200); // A port of nothing that is read.
            send(0, "10.1.0.5", "10.3.0.9", 502, 300); // To a side that enforces.
            send(2, "10.3.0.5", "10.2.0.9", 502, 400); // On a side that enforces: not even looked at.
            send(0, "10.1.0.5", "10.1.0.9", 502, 500); // Crosses nothing.
            tapped.wait_for([100]).await;
            // The zone of lan1 begins to enforce.
            tapped.policy.send_modify(|view| view.plan = plan(&[2]));
            tokio::time::sleep(Duration::from_millis(300)).await;
            send(0, "10.1.0.5", "10.2.0.9", 502, 600);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            // Nobody observes any more; then both do again.
            tapped.policy.send_modify(|view| view.plan = plan(&[]));
            tokio::time::sleep(Duration::from_millis(300)).await;
            send(0, "10.1.0.5", "10.2.0.9", 502, 700);
            tapped.policy.send_modify(|view| view.plan = plan(&[1, 2]));
            tokio::time::sleep(Duration::from_millis(300)).await;
            send(0, "10.1.0.5", "10.2.0.9", 502, 800);
            tapped.wait_for([100, 800]).await;
            assert!(tapped.faults.borrow().is_empty());
            tapped.end().await;
        },
    );
}

#[test]
fn from_a_stream_with_holes_nothing_is_learned_that_was_not_asked() {
    test(
        "frames::from_a_stream_with_holes_nothing_is_learned_that_was_not_asked",
        async |sides| {
            let tapped = Tapped::start(sides, &[1, 2]);
            tokio::time::sleep(Duration::from_millis(200)).await;
            let asked: BTreeSet<u32> = (1..=600).map(|n| n * 100).collect();
            let in_order: Vec<u32> = asked.iter().copied().collect();
            let mut seed = 42_u32;
            let mut random = |below: u32| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 8) % below
            };
            for (turn, registers) in in_order.chunks(30).enumerate() {
                let mut client = Client::new(&format!("10.1.1.{turn}"), "10.2.0.9", 502);
                sides.wires[0].send(&framed(V4, &client.syn()));
                let stream: Vec<u8> = registers
                    .iter()
                    .enumerate()
                    .flat_map(|(n, register)| read(n as u16, *register as u16))
                    .collect();
                // Cut anywhere, mostly within a request; every fourth segment is lost.
                let mut rest = &stream[..];
                while !rest.is_empty() {
                    let (now, after) = rest.split_at((1 + random(40) as usize).min(rest.len()));
                    let segment = client.data(now);
                    if random(4) != 0 {
                        sides.wires[0].send(&framed(V4, &segment));
                    }
                    // The server had all of it: what the tap lacks by now it will never see.
                    sides.wires[1].send(&framed(V4, &client.acknowledged()));
                    rest = after;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            let enough = async {
                while tapped.registers().await.len() <= 50 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(PATIENCE, enough).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2500)).await;
            let learned = tapped.registers().await;
            tapped.end().await;
            assert!(learned.is_subset(&asked), "{:?}", learned.difference(&asked));
        },
    );
}

#[test]
fn a_flood_is_bounded_in_memory_and_its_losses_are_told() {
    test(
        "frames::a_flood_is_bounded_in_memory_and_its_losses_are_told",
        async |sides| {
            let tapped = Tapped::start(sides, &[1, 2]);
            tokio::time::sleep(Duration::from_millis(1200)).await;
            let before = penstock_agent::health::resident_bytes();
            // Every client new, every register new, every packet the beginning of something that never ends.
            for n in 0..60_000_u32 {
                let [_, _, middle, low] = n.to_be_bytes();
                let port = if n % 2 == 0 { 502 } else { 1883 };
                let mut client = Client::new(&format!("10.1.{middle}.{low}"), "10.2.0.9", port);
                let mut payload = read(n as u16, n as u16);
                payload.extend([0, 9, 0, 0, 0, 200, 1, 3]);
                payload.extend([0xab; 100]);
                sides.wires[0].send(&framed(V4, &client.data(&payload)));
                if n % 500 == 499 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let grown = penstock_agent::health::resident_bytes().saturating_sub(before);
            println!("60,000 packets of as many clients: {grown} bytes more resident");
            // What the trail's own queue and database take is in this, too.
            assert!(grown < 4 << 20, "{grown}");
            let lost: u64 = tapped
                .trail()
                .await
                .into_iter()
                .map(|kind| match kind {
                    Kind::Loss(loss) if loss.cause == "tap-overrun" => loss.events,
                    _ => 0,
                })
                .sum();
            assert!(lost > 1000, "{lost}");
            // A quiet plant is learned again once the flood's connections have been silent for a while; and at once
            // by a connection that is followed already.
            assert!(!tapped.learned().await.is_empty());
            tapped.end().await;
            assert_eq!(sides.came_out(), 0);
        },
    );
}

#[test]
fn without_the_right_to_packet_sockets_the_agent_goes_on_and_says_so() {
    test(
        "frames::without_the_right_to_packet_sockets_the_agent_goes_on_and_says_so",
        async |sides| {
            let all = rustix::thread::capabilities(None).unwrap();
            let raw = rustix::thread::CapabilitySet::NET_RAW;
            let without = rustix::thread::CapabilitySets {
                effective: all.effective - raw,
                ..all
            };
            rustix::thread::set_capabilities(None, without).unwrap();
            let mut tapped = Tapped::start(sides, &[1, 2]);
            assert_eq!(tapped.fault().await.code, "tap-not-permitted");
            // With the right it begins by itself, and the fault goes.
            rustix::thread::set_capabilities(None, all).unwrap();
            tapped.no_fault().await;
            let mut client = Client::new("10.1.0.5", "10.2.0.9", 502);
            for packet in [client.syn(), client.data(&read(1, 100))] {
                sides.wires[0].send(&framed(V4, &packet));
            }
            tapped.wait_for([100]).await;
            let steps: BTreeMap<String, usize> =
                tapped
                    .trail()
                    .await
                    .into_iter()
                    .fold(BTreeMap::new(), |mut steps, kind| {
                        if let Kind::Agent(event) = kind {
                            *steps.entry(event.step).or_default() += 1;
                        }
                        steps
                    });
            assert_eq!(steps.get("not-learning"), Some(&1), "said once: {steps:?}");
            tapped.end().await;
        },
    );
}

#[test]
fn an_observing_interface_that_is_no_ethernet_link_is_told_and_the_others_are_read() {
    test(
        "frames::an_observing_interface_that_is_no_ethernet_link_is_told_and_the_others_are_read",
        async |sides| {
            let mut tapped = Tapped::start(sides, &[1, 2]);
            let with_another = plan(&[1, 2, 3]).map(|plan| {
                let mut plan = Arc::unwrap_or_clone(plan);
                plan.interfaces[2].name = "lo".to_owned();
                Arc::new(plan)
            });
            tapped.policy.send_modify(|view| view.plan = with_another);
            let fault = tapped.fault().await;
            assert_eq!(fault.code, "tap-not-ethernet");
            assert!(
                fault.message.contains("come in by lo are not"),
                "{}",
                fault.message
            );
            let mut client = Client::new("10.1.0.5", "10.2.0.9", 502);
            for packet in [client.syn(), client.data(&read(1, 100))] {
                sides.wires[0].send(&framed(V4, &packet));
            }
            tapped.wait_for([100]).await;
            tapped.policy.send_modify(|view| view.plan = plan(&[1, 2]));
            tapped.no_fault().await;
            tapped.end().await;
        },
    );
}
