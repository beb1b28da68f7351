//! The relay over loopback: one client, one server, one policy between them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::net::{Shutdown, TcpListener, TcpStream};

use ipnet::IpNet;
use penstock_policy::ids::{ConduitId, FlowId, FlowName as FlowNameId};
use penstock_policy::plan::{Endpoint, PLAN_FORMAT, PlanInterface, Rule};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::terms::{
    Enforcement, GatewayMode, OnAgentLoss, OnDrift, OnRefusal, PortRange, Transport,
};

mod awake;
mod faults;
mod observing;
mod reading;
mod removed;
mod revoked;
mod room;
mod shadow;
mod strangers;
mod tls;

use super::*;
use crate::observed::Observation;
use crate::observed::{OperationSeen, Subject};
use crate::service_manager::stored::stored;
use penstock_policy::verdict::Decision;

/// A claim that does not hold fails by then; no test that passes waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// After which operations are reported, so that no test waits for it.
const SOON: Duration = Duration::from_millis(20);

const READ: [u8; 12] = [0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
const WRITE: [u8; 12] = [0, 2, 0, 0, 0, 6, 1, 6, 0, 40, 0, 9];
const ANSWER: [u8; 11] = [0, 1, 0, 0, 0, 5, 1, 3, 2, 0, 7];

fn operations(function: &str) -> Operations {
    Operations::from(vec![ModbusOperation {
        function: function.to_owned(),
        units: None,
        addresses: None,
        read_addresses: None,
        values: None,
        sub_functions: None,
    }])
}

pub(super) fn plan(port: u16, operations: Option<Operations>, enforcement: Enforcement) -> Plan {
    let network: IpNet = "127.0.0.1/32".parse().unwrap();
    let end = |name: &str| Endpoint {
        name: name.into(),
        network,
    };
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "works".parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: std::collections::BTreeSet::new(),
        on_drift: OnDrift::Repair,
        interfaces: vec![PlanInterface {
            name: "lo".to_owned(),
            zone: "office".parse().unwrap(),
            behind: Vec::new(),
            routers: vec![],
            hardware: vec![],
            networks: vec![network],
            observing: enforcement.into(),
        }],
        management: None,
        rules: vec![Rule {
            id: FlowId(7),
            conduit: "supply".parse::<ConduitId>().unwrap(),
            flow: "polling".parse::<FlowNameId>().unwrap(),
            sources: vec![end("hmi")],
            destinations: vec![end("plc")],
            transport: Transport::Tcp(vec![PortRange::single(port)]),
            must_flow: false,
            on_agent_loss: OnAgentLoss::Block,
            operations: operations.map(Arc::new),
            on_refusal: OnRefusal::Answer,
            roles: None,
            answers: penstock_policy::terms::Answers::Strict,
            tls: None,
        }],
        bridges: Vec::new(),
        grants: std::collections::BTreeMap::new(),
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: std::collections::BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        open: std::collections::BTreeSet::new(),
        excepted: std::collections::BTreeMap::new(),
    }
}

/// An inspector before one server.
struct World {
    inspector: Inspector,
    server: TcpListener,
    observed: mpsc::Receiver<Observation>,
}

impl World {
    fn new(limits: SeatLimits) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (sender, observed) = mpsc::channel(1024);
        let way = Redirect::Fixed(server.local_addr().unwrap());
        let inspector =
            Inspector::start(way, limits, SOON, Arc::new(Outbox::new(sender)), Vec::new()).unwrap();
        Self {
            inspector,
            server,
            observed,
        }
    }

    async fn put(&self, operations: Option<Operations>, enforcement: Enforcement) {
        let plan = plan(self.server.local_addr().unwrap().port(), operations, enforcement);
        let policy = Inspector::prepare(Arc::new(plan), Revision(3)).unwrap();
        self.inspector.put(policy).await;
    }

    async fn reading() -> Self {
        let world = Self::new(SeatLimits::default());
        world
            .put(Some(operations("read-only")), Enforcement::Enforce)
            .await;
        world
    }

    fn dial(&self) -> std::io::Result<TcpStream> {
        let client = TcpStream::connect(("127.0.0.1", self.inspector.ports().v4))?;
        client.set_read_timeout(Some(PATIENCE))?;
        Ok(client)
    }

    fn connect(&self) -> TcpStream {
        self.dial().unwrap()
    }

    /// Whether a new connection is reset: its client may learn of it as it connects, or as it reads.
    fn resets_a_new_one(&self) -> bool {
        match self.dial() {
            Ok(mut client) => is_reset(&mut client),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// A client and the server's end of its connection.
    fn pair(&self) -> (TcpStream, TcpStream) {
        let client = self.connect();
        let (served, _) = self.server.accept().unwrap();
        served.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, served)
    }

    /// What is observed until something of it contains `text`.
    async fn until(&mut self, text: &str) -> Vec<OperationSeen> {
        let mut all = Vec::new();
        let waiting = async {
            while let Some(observed) = self.observed.recv().await {
                let Observation::Operation(seen) = observed else {
                    continue;
                };
                let enough = seen.text.contains(text);
                all.push(*seen);
                if enough {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(in_time.is_ok(), "no `{text}` in {all:#?}");
        all
    }
}

fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Whether the next read tells of a reset.
fn is_reset(stream: &mut TcpStream) -> bool {
    stream
        .read(&mut [0; 64])
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_permitted_passes_and_what_is_not_is_answered_in_the_protocol() {
    let mut world = World::reading().await;
    let (mut client, mut served) = world.pair();
    client.write_all(&READ).unwrap();
    assert_eq!(read_exactly(&mut served, 12), READ);
    served.write_all(&ANSWER).unwrap();
    assert_eq!(read_exactly(&mut client, 11), ANSWER);
    client.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut client, 9), [0, 2, 0, 0, 0, 3, 1, 0x86, 1]);
    client.shutdown(Shutdown::Write).unwrap();
    // The refused request is not there: after the first comes the end.
    assert_eq!(served.read(&mut [0; 64]).unwrap(), 0);
    let seen = world.until("write-single-register").await;
    let refused = seen.last().unwrap();
    assert_eq!(refused.decision, Some(Decision::Deny));
    assert_eq!(refused.text, "write-single-register 40 of unit 1");
    assert_eq!(
        (refused.client_name.as_str(), refused.server_name.as_str()),
        ("hmi", "plc")
    );
    assert_eq!(refused.flow.as_ref().unwrap().name, "supply/polling");
    assert!(
        refused.reason.contains("no rule permits the function"),
        "{}",
        refused.reason
    );
    assert!(seen.iter().any(|seen| seen.decision == Some(Decision::Allow)
        && seen.text == "read-holding-registers"
        && seen.count == 1));
    assert!(seen.iter().any(|seen| seen.text == "connection opened"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_observes_lets_everything_pass_and_says_what_it_would_refuse() {
    let mut world = World::new(SeatLimits::default());
    world
        .put(Some(operations("read-only")), Enforcement::Observe)
        .await;
    let (mut client, mut served) = world.pair();
    client.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut served, 12), WRITE);
    let seen = world.until("write-single-register").await;
    assert_eq!(seen.last().unwrap().decision, Some(Decision::WouldDeny));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_policy_holds_from_the_next_request_on_and_a_revoked_connection_is_reset() {
    let world = World::reading().await;
    let (mut client, mut served) = world.pair();
    client.write_all(&READ[..7]).unwrap();
    world
        .put(Some(operations("write-single-register")), Enforcement::Enforce)
        .await;
    client.write_all(&WRITE).unwrap_or_default();
    drop((client, served));
    let (mut client, mut served2) = world.pair();
    client.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut served2, 12), WRITE);
    served = served2;
    // No longer limited: it goes on.
    world.put(None, Enforcement::Enforce).await;
    client.write_all(&READ).unwrap();
    assert_eq!(read_exactly(&mut served, 12), READ);
    // Limited again: it was followed all the while.
    world
        .put(Some(operations("read-only")), Enforcement::Enforce)
        .await;
    client.write_all(&[&[0, 5], &WRITE[2..]].concat()).unwrap();
    assert_eq!(read_exactly(&mut client, 9)[7..], [0x86, 1]);
    let nothing = Plan {
        rules: Vec::new(),
        ..plan(1, None, Enforcement::Enforce)
    };
    let policy = Inspector::prepare(Arc::new(nothing), Revision(9)).unwrap();
    world.inspector.put(policy).await;
    assert!(is_reset(&mut client));
    assert!(is_reset(&mut served));
    assert!(world.resets_a_new_one());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_made_while_the_policy_changes_waits_and_is_judged_by_the_new_one() {
    let world = World::reading().await;
    let coming = plan(1, None, Enforcement::Enforce);
    let hold = world
        .inspector
        .hold(Inspector::prepare(Arc::new(coming), Revision(4)).unwrap())
        .await;
    let mut client = world.connect();
    client.write_all(&WRITE).unwrap();
    world.server.set_nonblocking(true).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    world
        .put(Some(operations("write-single-register")), Enforcement::Enforce)
        .await;
    drop(hold);
    world.server.set_nonblocking(false).unwrap();
    let (mut served, _) = world.server.accept().unwrap();
    assert_eq!(read_exactly(&mut served, 12), WRITE);
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_and_ends_are_carried_over() {
    let world = World::reading().await;
    let (mut client, served) = world.pair();
    socket2::SockRef::from(&served)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(served);
    assert!(is_reset(&mut client));
    let (client, mut served) = world.pair();
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    assert!(is_reset(&mut served));
    // The server goes on after the client's end.
    let (mut client, mut served) = world.pair();
    client.write_all(&READ).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_exactly(&mut served, 12), READ);
    assert_eq!(served.read(&mut [0; 8]).unwrap(), 0);
    served.write_all(&ANSWER).unwrap();
    drop(served);
    assert_eq!(read_exactly(&mut client, 11), ANSWER);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    drop(client);
    let forgotten = async {
        while world.inspector.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_a_reset_for_the_client() {
    let mut world = World::reading().await;
    world.server = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(world.resets_a_new_one());
    world.until("server cannot be reached").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_nothing_holds_up_only_its_own_connection() {
    let world = World::new(SeatLimits::default());
    world.put(None, Enforcement::Enforce).await;
    let (mut client, mut served) = world.pair();
    client
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut sent = 0_usize;
    while let Ok(count) = client.write(&[7; 65536]) {
        sent += count;
        assert!(sent < 64 << 20, "the relay takes without end");
    }
    let (mut other, mut other_served) = world.pair();
    other.write_all(&READ).unwrap();
    assert_eq!(read_exactly(&mut other_served, 12), READ);
    // And nothing of it was lost.
    drop(client.shutdown(Shutdown::Write));
    let mut taken = 0;
    let mut buffer = [0; 65536];
    loop {
        match served.read(&mut buffer).unwrap() {
            0 => break,
            count => taken += count,
        }
    }
    assert_eq!(taken, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_a_connection_is_reset_and_told() {
    let mut world = World::new(SeatLimits {
        connections_max: 2,
        connections_per_client_max: 2,
        ..SeatLimits::default()
    });
    world
        .put(Some(operations("read-only")), Enforcement::Enforce)
        .await;
    let _standing = [world.pair(), world.pair()];
    assert!(world.resets_a_new_one());
    world.until("limit of 2").await;
}

impl World {
    /// The same world behind another inspector, which got what the first one left.
    async fn restarted(self, spoil: impl FnOnce(&mut Vec<StoredDescriptor>)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let keeping = stored(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
        let manager = ServiceManager::at(path.to_str().unwrap()).unwrap();
        self.inspector.hand_over(&manager).await.unwrap();
        let mut kept = tokio::task::spawn_blocking(|| keeping.join().unwrap())
            .await
            .unwrap();
        spoil(&mut kept);
        let ports = self.inspector.ports();
        drop(self.inspector);
        let (sender, observed) = mpsc::channel(1024);
        let way = Redirect::Fixed(self.server.local_addr().unwrap());
        let inspector = Inspector::start(
            way,
            SeatLimits::default(),
            SOON,
            Arc::new(Outbox::new(sender)),
            kept,
        )
        .unwrap();
        assert_eq!(inspector.ports(), ports);
        Self {
            inspector,
            server: self.server,
            observed,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_go_on_across_a_planned_restart_at_the_very_byte() {
    let world = World::reading().await;
    let (mut client, mut served) = world.pair();
    let (mut quiet, mut quiet_served) = world.pair();
    client.write_all(&READ).unwrap();
    assert_eq!(read_exactly(&mut served, 12), READ);
    // A request in flight, and half of the next one.
    client.write_all(&[&[0, 9], &READ[2..7]].concat()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut world = world.restarted(|_| {}).await;
    // Meanwhile nobody carries them, and one more comes.
    served.write_all(&ANSWER).unwrap();
    client.write_all(&READ[7..]).unwrap();
    let mut late = world.connect();
    late.write_all(&READ).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    world
        .put(Some(operations("read-only")), Enforcement::Enforce)
        .await;
    assert_eq!(read_exactly(&mut client, 11), ANSWER);
    assert_eq!(read_exactly(&mut served, 12)[7..], READ[7..]);
    let (mut late_served, _) = world.server.accept().unwrap();
    assert_eq!(read_exactly(&mut late_served, 12), READ);
    // Judged as before, and ended as before.
    quiet.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut quiet, 9)[7..], [0x86, 1]);
    assert_eq!(world.inspector.connections(), 3);
    drop(quiet);
    assert_eq!(quiet_served.read(&mut [0; 8]).unwrap(), 0);
    world.until("goes on after the agent's restart").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_over_and_is_unusable_or_no_longer_permitted_is_reset() {
    let world = World::reading().await;
    let (mut client, mut served) = world.pair();
    // Both legs stand, for the inspector too.
    client.write_all(&READ).unwrap();
    assert_eq!(read_exactly(&mut served, 12), READ);
    let world = world
        .restarted(|kept| {
            let state = kept.iter_mut().find(|kept| kept.name == "state").unwrap();
            let mut file = std::fs::File::from(state.descriptor.try_clone().unwrap());
            std::io::Seek::rewind(&mut file).unwrap();
            file.write_all(b"{\"format\":2").unwrap();
        })
        .await;
    assert!(is_reset(&mut client));
    assert!(is_reset(&mut served));
    world
        .put(Some(operations("read-only")), Enforcement::Enforce)
        .await;
    let (mut client, mut served) = world.pair();
    // Both legs stand, for the inspector too.
    client.write_all(&READ).unwrap();
    assert_eq!(read_exactly(&mut served, 12), READ);
    let world = world.restarted(|_| {}).await;
    let nothing = Plan {
        rules: Vec::new(),
        ..plan(1, None, Enforcement::Enforce)
    };
    let policy = Inspector::prepare(Arc::new(nothing), Revision(9)).unwrap();
    world.inspector.put(policy).await;
    assert!(is_reset(&mut client));
    assert!(is_reset(&mut served));
}
