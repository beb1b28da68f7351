//! A client's bytes to a real server: through an inspected connection, or straight.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Output, Sender};
use penstock_inspect::judge::Rules;
use penstock_policy::protocol::Operations;
use penstock_policy::terms::OnRefusal;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// A server that does not end a connection by then is waited for no longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the client sends, piece by piece, and how long it waits for answers after each.
#[derive(Debug, Clone)]
pub struct Traffic {
    pub pieces: Vec<Vec<u8>>,
    pub pause: Duration,
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Straight to the server; returns when the server has ended the connection, and so has done all it will do.
pub fn straight(port: u16, traffic: &Traffic) {
    let mut server = connect(port);
    for piece in &traffic.pieces {
        // A server that has had enough closes early.
        if server.write_all(piece).is_err() {
            break;
        }
        std::thread::sleep(traffic.pause);
    }
    let _ = server.shutdown(Shutdown::Write);
    while server.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
}

/// Through an inspected connection under `operations`; gives what reached the server.
pub fn inspected(port: u16, operations: &Operations, on_refusal: OnRefusal, traffic: &Traffic) -> Vec<u8> {
    let rules = Arc::new(Rules::compile(operations).unwrap());
    let mut connection = Connection::new(rules, Mode::Enforce, on_refusal, ConnectionLimits::default());
    let mut server = connect(port);
    let begin = Instant::now();
    let mut passed = Vec::new();
    let mut feed = |connection: &mut Connection, server: &mut TcpStream, from: Sender, bytes: &[u8]| {
        connection.feed(from, begin.elapsed(), bytes, &mut |output| {
            if let Output::ToServer(bytes) = output {
                passed.extend_from_slice(bytes);
                let _ = server.write_all(bytes);
            }
        });
    };
    let mut buffer = [0; 4096];
    for piece in &traffic.pieces {
        feed(&mut connection, &mut server, Sender::Client, piece);
        if !traffic.pause.is_zero() {
            server.set_read_timeout(Some(traffic.pause)).unwrap();
            if let Ok(bytes) = server.read(&mut buffer) {
                feed(&mut connection, &mut server, Sender::Server, &buffer[..bytes]);
            }
        }
        if connection.is_closed() {
            break;
        }
    }
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = server.shutdown(Shutdown::Write);
    while let Ok(bytes) = server.read(&mut buffer) {
        if bytes == 0 {
            break;
        }
        feed(&mut connection, &mut server, Sender::Server, &buffer[..bytes]);
    }
    passed
}

/// Random cases, other ones at each run; a failure prints its case, made as small as can be.
pub fn runner(cases: u32) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &rand_seed());
    TestRunner::new_with_rng(config, rng)
}

fn rand_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut seed)
        .unwrap();
    seed
}

/// The bytes of all frames one after another, cut at places that are taken modulo their length.
pub fn pieces(frames: &[Vec<u8>], cuts: &[usize]) -> Vec<Vec<u8>> {
    let stream = frames.concat();
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    at.windows(2)
        .map(|pair| stream[pair[0]..pair[1]].to_vec())
        .collect()
}
