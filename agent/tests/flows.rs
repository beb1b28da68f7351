//! What a flow takes in the agent's memory for as long as a plan is in force, and while it is read, and what learning takes at its
//! bounds, counted by the allocator.
//!
//! A test of its own program: the allocator counts all that the process holds.
#![allow(unsafe_code, clippy::unwrap_used, clippy::indexing_slicing)] // An allocator cannot be written otherwise.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etherparse::PacketBuilder;
use penstock_agent::enforce::shape::lower::lower;
use penstock_agent::inspector::Inspector;
use penstock_agent::tap::gather::{CONNECTIONS_MAX, Gather, HELD_BYTES_MAX, TEXTS_BYTES_MAX, THINGS_MAX};
use penstock_agent::tap::legs::OwnLegs;
use penstock_agent::tap::scope::TapScope;
use penstock_policy::ids::{ConduitId, FlowId, FlowName, Revision};
use penstock_policy::plan::{Endpoint, Plan, Rule};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::terms::{
    Answers, Enforcement, NumberRange, OnAgentLoss, OnRefusal, PortRange, Transport,
};

/// Bytes that are held now, as glibc takes them from the system: 8 more for each piece, in steps of 16, at least 32.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// The most that were held.
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// One test at a time: the allocator counts for all.
static ALONE: Mutex<()> = Mutex::new(());

struct Counting;

fn taken(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(taken(layout), Ordering::Relaxed) + taken(layout);
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FLOWS: u32 = 20_000;

/// What 100,000 flows may take, so that an agent with them stays below 60 MB, by flow.
const FLOW_BYTES_MAX: usize = 420;

/// A plan as it comes from the wire: each flow between a client and a server of its own, `operations` or none.
fn plan(operations: Option<&Operations>) -> Vec<u8> {
    let stored = include_bytes!("../../policy/fixtures/plan-format-1.json");
    let mut plan = Plan::from_bytes(stored).unwrap();
    let end = |name: String, side: u8, number: u32| {
        let [.., high, low] = number.to_be_bytes();
        vec![Endpoint {
            name: name.into(),
            network: std::net::IpAddr::from([10, side, high, low]).into(),
        }]
    };
    plan.bridges.clear();
    plan.rules = (1..=FLOWS)
        .map(|number| Rule {
            id: FlowId(number),
            conduit: ConduitId::new(format!("line-{}", number / 100)).unwrap(),
            flow: FlowName::new(format!("flow{number}")).unwrap(),
            sources: end(format!("hmi-{}", number % 1000), 1, number % 1000),
            destinations: end(format!("plc-{}", number / 10), 2, number),
            transport: Transport::Tcp(vec![PortRange::single(502)]),
            must_flow: false,
            on_agent_loss: OnAgentLoss::Block,
            operations: operations.cloned().map(Arc::new),
            on_refusal: OnRefusal::Answer,
            roles: None,
            answers: Answers::Strict,
            tls: None,
        })
        .collect();
    plan.to_bytes()
}

#[test]
fn a_flow_of_a_plan_in_force_takes_no_more_than_its_share() {
    let _alone = ALONE.lock();
    let reading = Operations::from(vec![ModbusOperation {
        function: "read-holding-registers".to_owned(),
        units: None,
        addresses: Some(vec![NumberRange { first: 0, last: 99 }]),
        read_addresses: None,
        values: None,
        sub_functions: None,
    }]);
    for operations in [None, Some(&reading)] {
        let bytes = plan(operations);
        let before = HELD.load(Ordering::Relaxed);
        let plan = Arc::new(Plan::from_bytes(&bytes).unwrap());
        let read = HELD.load(Ordering::Relaxed) - before;
        let elements = lower(&plan).unwrap();
        let lowered = HELD.load(Ordering::Relaxed) - before - read;
        let policy = Inspector::prepare(Arc::clone(&plan), Revision(1)).unwrap();
        let held = HELD.load(Ordering::Relaxed) - before;
        let each = held / usize::try_from(FLOWS).unwrap();
        assert!(
            each <= FLOW_BYTES_MAX,
            "{each} bytes: the plan {}, kernel entries {}, the inspector's index {}",
            read / 20_000,
            lowered / 20_000,
            (held - read - lowered) / 20_000
        );
        drop((plan, elements, policy));
    }
}

/// The same plan as the version before wrote it.
fn as_before(bytes: &[u8]) -> Vec<u8> {
    let mut plan: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    plan["format"] = "penstock-plan/1".into();
    for side in plan["interfaces"].as_array_mut().unwrap() {
        let side = side.as_object_mut().unwrap();
        for field in ["observing", "routers", "hardware"] {
            side.remove(field).unwrap();
        }
        side.insert("enforcement".to_owned(), "enforce".into());
    }
    for rule in plan["rules"].as_array_mut().unwrap() {
        rule.as_object_mut().unwrap().remove("answers").unwrap();
    }
    serde_json::to_vec(&plan).unwrap()
}

/// What reading takes at its height, beyond the bytes that are read.
fn height(bytes: &[u8]) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let plan = Plan::from_bytes(bytes).unwrap();
    assert_eq!(plan.rules.len(), usize::try_from(FLOWS).unwrap());
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn a_plan_of_the_format_before_takes_no_more_to_be_read_than_one_of_today() {
    let _alone = ALONE.lock();
    let today = plan(None);
    let before = as_before(&today);
    let (today, before) = (height(&today), height(&before));
    assert!(
        before <= today + today / 10,
        "{before} bytes, and today's {today}"
    );
}

/// What learning may take, as the runbook says, without the kernel's buffer for it (twice what is asked for) and the packet that is
/// read.
const LEARNING_BYTES_MAX: usize = 4_000_000 - 2 * 256 * 1024 - 65_557;

/// A client's connection to a broker, as packets that a gateway sees.
struct Client {
    number: u16,
    sequence: u32,
    broker: u8,
}

impl Client {
    fn frame(&mut self, gather: &mut Gather, at: Duration, syn: bool, payload: &[u8]) {
        let [high, low] = self.number.to_be_bytes();
        let tcp = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 1, high, low], [10, 2, 0, self.broker], 64)
            .tcp(40_000, 1883, self.sequence, 1000);
        let builder = if syn { tcp.syn() } else { tcp };
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        gather.frame(at, &frame, frame.len());
        self.sequence += u32::try_from(payload.len()).unwrap() + u32::from(syn);
    }

    /// A session with so many publications, each to a topic of its own, then a segment that does not follow.
    fn talk(&mut self, gather: &mut Gather, at: Duration, topics: usize, topic_bytes: usize, waiting: usize) {
        self.frame(gather, at, true, &[]);
        let mut said = vec![0x10, 22, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 10];
        said.extend(format!("client{:04}", self.number).bytes());
        for n in 0..topics {
            let topic = format!("{:04}/{}/{n:03}/", self.number, self.broker);
            let topic = format!("{topic:t<topic_bytes$}");
            let length = u8::try_from(topic_bytes).unwrap();
            said.extend([0x31, length + 3, 0, length]);
            said.extend(topic.bytes());
            said.push(b'x');
        }
        self.frame(gather, at, false, &said);
        self.sequence += 7;
        self.frame(gather, at, false, &vec![0x30; waiting]);
    }
}

#[tokio::test]
async fn learning_takes_at_its_bounds_no_more_memory_than_the_runbook_says() {
    let _alone = ALONE.lock();
    let mut plan = Plan::from_bytes(include_bytes!("../../policy/fixtures/plan-format-1.json")).unwrap();
    let mut sides = plan.interfaces.clone().into_iter().cycle();
    plan.interfaces = [1, 2]
        .map(|number| {
            let mut side = sides.next().unwrap();
            side.name = format!("lan{number}");
            side.networks = vec![format!("10.{number}.0.0/16").parse().unwrap()];
            side.observing = Enforcement::Observe.into();
            side
        })
        .into();
    let scope = TapScope::of(&plan);
    drop(plan);
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let begun = tokio::time::Instant::now();
    let mut gather = Gather::new((scope, OwnLegs::default()), Duration::from_secs(60), begun);
    let topics = THINGS_MAX / CONNECTIONS_MAX - 1;
    let topic_bytes = TEXTS_BYTES_MAX / (THINGS_MAX - CONNECTIONS_MAX) - 10;
    let mut at = Duration::from_secs(1_000_000);
    let mut told = 0;
    // What was told first stays known, while as much that is new waits to be told.
    for broker in [9, 10] {
        for number in 0..u16::try_from(CONNECTIONS_MAX).unwrap() {
            let (sequence, waiting) = (100, HELD_BYTES_MAX / CONNECTIONS_MAX - 64);
            let mut client = Client {
                number,
                sequence,
                broker,
            };
            client.talk(&mut gather, at, topics, topic_bytes, waiting);
        }
        if broker == 9 {
            let events = gather.due(begun, true);
            told = events.iter().map(|event| event.published.len()).sum();
        }
        at += Duration::from_secs(120);
    }
    let held = HELD.load(Ordering::Relaxed) - before;
    let peak = PEAK.load(Ordering::Relaxed) - before;
    let all = topics * CONNECTIONS_MAX;
    assert!(
        told > all * 9 / 10 && told <= all,
        "{told} of {all} topics fill it"
    );
    assert!(held > LEARNING_BYTES_MAX / 4, "{held} bytes are not its bounds");
    assert!(peak <= LEARNING_BYTES_MAX, "{held} bytes, at most {peak}");
    let events = gather.due(begun, true);
    assert!(events.iter().map(|event| event.published.len()).sum::<usize>() > all * 9 / 10);
}
