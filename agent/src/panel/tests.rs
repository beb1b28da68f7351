#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::registers::MAGIC;
use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server on this machine that lets 127.0.0.1 in, and knows nothing of zones yet.
struct World {
    at: SocketAddr,
    faults: watch::Receiver<Vec<Fault>>,
    policy: watch::Sender<PolicyView>,
    _health: watch::Sender<Option<Arc<GatewayHealth>>>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    fn start(at: SocketAddr, clients: &[&str]) -> Self {
        let (health_in, health) = watch::channel(None);
        let (policy_in, policy) = watch::channel(PolicyView::default());
        let (faults_in, faults) = watch::channel(Vec::new());
        let server = PanelServer {
            settings: PanelSettings {
                listen: at,
                clients: clients.iter().map(|client| client.parse().unwrap()).collect(),
                zones: Vec::new(),
            },
            health,
            policy,
            faults: faults_in,
            again: Duration::from_millis(20),
        };
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        Self {
            at,
            faults,
            policy: policy_in,
            _health: health_in,
            stop,
        }
    }

    fn connect(&self) -> TcpStream {
        let begun = std::time::Instant::now();
        loop {
            match TcpStream::connect(self.at) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A request of so many registers from 0 on.
fn request(transaction: u8, count: u8) -> [u8; 12] {
    [0, transaction, 0, 0, 0, 6, 1, 3, 0, 0, 0, count]
}

fn answer(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut heard = vec![0; bytes];
    stream.read_exact(&mut heard).unwrap();
    heard
}

/// Whether the other end has ended the connection.
fn is_over(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_somebody_else_has_is_one_fault_through_all_attempts_and_over_once_it_is_listened_on()
{
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::start(other.local_addr().unwrap(), &["127.0.0.1"]);
    let codes = |faults: &[Fault]| -> Vec<String> { faults.iter().map(|fault| fault.code.clone()).collect() };
    let named = "panel-not-served".to_owned();
    let wait = world.faults.wait_for(|faults| codes(faults).contains(&named));
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
    // Some twenty attempts: nothing changes.
    let changed = tokio::time::timeout(Duration::from_millis(400), world.faults.changed()).await;
    assert!(changed.is_err(), "{:?}", world.faults.borrow());
    drop(other);
    let wait = world.faults.wait_for(|faults| !codes(faults).contains(&named));
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
    world.connect();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_in_their_order_whatever_pieces_they_come_in_and_what_is_no_modbus_ends_it() {
    let world = World::start(free(), &["127.0.0.1"]);
    let mut stream = world.connect();
    let both = [request(1, 1), request(2, 2)].concat();
    for piece in [&both[..3], &both[3..14], &both[14..]] {
        stream.write_all(piece).unwrap();
    }
    let [high, low] = MAGIC.to_be_bytes();
    assert_eq!(answer(&mut stream, 11), [0, 1, 0, 0, 0, 5, 1, 3, 2, high, low]);
    assert_eq!(
        answer(&mut stream, 13),
        [0, 2, 0, 0, 0, 7, 1, 3, 4, high, low, 0, 1]
    );
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0, 1, 0, 0, 0, 1, 1],
        &[0xff; 300],
    ] {
        let mut stream = world.connect();
        stream.write_all(garbage).unwrap();
        assert!(is_over(&mut stream));
    }
    stream.write_all(&request(3, 1)).unwrap();
    assert_eq!(answer(&mut stream, 11)[1], 3, "no connection ends for another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_for_the_fifth_time_loses_its_most_silent_connection_and_who_is_not_listed_gets_none()
 {
    let world = World::start(free(), &["127.0.0.1"]);
    let mut streams: Vec<TcpStream> = (0..4).map(|_| world.connect()).collect();
    for stream in &mut streams {
        stream.write_all(&request(1, 1)).unwrap();
        answer(stream, 11);
    }
    let mut fifth = world.connect();
    fifth.write_all(&request(9, 1)).unwrap();
    answer(&mut fifth, 11);
    assert!(is_over(&mut streams[0]));
    streams[3].write_all(&request(2, 1)).unwrap();
    assert_eq!(answer(&mut streams[3], 11)[1], 2);

    let others = World::start(free(), &["127.0.0.2"]);
    assert!(is_over(&mut others.connect()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_had_and_a_client_in_no_zone_are_faults() {
    let mut world = World::start(free(), &["127.0.0.1"]);
    world.connect();
    let plan = serde_json::json!({
        "format": "penstock-plan/2", "plant": "p", "gateway": "g", "mode": "routed", "requires": [],
        "on_drift": "repair", "interfaces": [], "management": null, "rules": [], "bridges": []
    });
    let plan = Arc::new(Plan::from_bytes(plan.to_string().as_bytes()).unwrap());
    world
        .policy
        .send_modify(|view| view.plan = Some(Arc::clone(&plan)));
    let elsewhere = |faults: &Vec<Fault>| faults.iter().any(|fault| fault.code == "panel-client-elsewhere");
    assert!(elsewhere(&world.faults.wait_for(elsewhere).await.unwrap()));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut second = World::start(taken.local_addr().unwrap(), &["127.0.0.1"]);
    let faults = second.faults.wait_for(|faults| !faults.is_empty()).await.unwrap();
    assert_eq!(faults[0].code, "panel-not-served");
    assert!(
        faults[0].message.contains("cannot listen on 127.0.0.1:"),
        "{}",
        faults[0].message
    );
}
