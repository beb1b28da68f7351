//! What the desk does with the controller all the while: it polls, and sends datagrams of which each counts.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use penstock_lab::{Namespace, wait_until};

use super::plant::{BESIDE, Plant};
use crate::world::PATIENCE;

/// Between two polls, and how long an answer may take.
const PERIOD: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_millis(500);
/// Reads one holding register (Modbus), and its answer.
const ASKS: [u8; 12] = [0, 1, 0, 0, 0, 6, 1, 3, 0, 7, 0, 1];
const SAYS: [u8; 11] = [0, 1, 0, 0, 0, 5, 1, 3, 2, 3, 239];

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    good: AtomicU64,
    missed: AtomicU64,
    longest: Mutex<Duration>,
}

/// A register that is read ten times a second.
pub struct Polling {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Polling {
    /// Begins, with a controller that answers at this address.
    pub fn start(plant: &Plant<'_>, address: &str) -> Self {
        Self::between(&plant.desk, &plant.controller, address)
    }

    /// The same from one host to another.
    pub fn between(desk: &Namespace, controller: &Namespace, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let listener = controller.enter(|| TcpListener::bind(address).unwrap()).unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                std::thread::spawn(move || answer(connection));
            }
        });
        let seen = Arc::new(Seen::default());
        let (polls, desk) = (Arc::clone(&seen), desk.clone());
        let thread = std::thread::spawn(move || {
            desk.move_in().unwrap();
            let (mut connection, mut last) = (None, Instant::now());
            while !polls.stop.load(Relaxed) {
                if poll(&mut connection, address) {
                    polls.good.fetch_add(1, Relaxed);
                    let mut longest = polls.longest.lock().unwrap();
                    *longest = last.elapsed().max(*longest);
                    last = Instant::now();
                } else {
                    polls.missed.fetch_add(1, Relaxed);
                    connection = None;
                }
                std::thread::sleep(PERIOD);
            }
        });
        let polling = Self {
            seen,
            thread: Some(thread),
        };
        polling.wait_for_answers(1);
        polling.seen.missed.store(0, Relaxed);
        polling
    }

    /// Polls that nobody answered.
    pub fn missed(&self) -> u64 {
        self.seen.missed.load(Relaxed)
    }

    /// Waits until so many more polls in a row were not answered.
    #[track_caller]
    pub fn wait_for_silence(&self, count: u64) {
        let so_far = || (self.seen.good.load(Relaxed), self.missed());
        let (mut good, mut missed) = so_far();
        wait_until("no answers", PATIENCE, || {
            let (now_good, now_missed) = so_far();
            if now_good > good {
                (good, missed) = (now_good, now_missed);
            }
            now_missed >= missed + count
        })
        .unwrap();
    }

    pub fn wait_for_answers(&self, count: u64) {
        let wanted = self.seen.good.load(Relaxed) + count;
        wait_until("answers", PATIENCE, || self.seen.good.load(Relaxed) >= wanted).unwrap();
    }

    /// Ends, and gives the longest time without an answer.
    pub fn stop(mut self) -> Duration {
        self.end();
        *self.seen.longest.lock().unwrap()
    }

    fn end(&mut self) {
        self.seen.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.end();
    }
}

fn poll(connection: &mut Option<TcpStream>, address: SocketAddr) -> bool {
    if connection.is_none() {
        *connection = TcpStream::connect_timeout(&address, ANSWER).ok();
    }
    let Some(open) = connection else { return false };
    open.set_read_timeout(Some(ANSWER)).unwrap();
    let mut said = [0; SAYS.len()];
    open.write_all(&ASKS).is_ok() && open.read_exact(&mut said).is_ok() && said == SAYS
}

fn answer(mut connection: TcpStream) {
    let mut asked = [0; ASKS.len()];
    while connection.read_exact(&mut asked).is_ok() && asked == ASKS {
        if connection.write_all(&SAYS).is_err() {
            return;
        }
    }
}

/// A datagram every two milliseconds, and the controller that counts them.
pub struct Datagrams {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    arrived: Arc<AtomicU64>,
}

impl Datagrams {
    pub fn start(plant: &Plant<'_>) -> Self {
        let arrived = Arc::new(AtomicU64::new(0));
        let socket = plant
            .controller
            .enter(|| UdpSocket::bind(BESIDE).unwrap())
            .unwrap();
        let count = Arc::clone(&arrived);
        std::thread::spawn(move || {
            let mut number = [0; 8];
            while socket.recv(&mut number).is_ok() {
                count.fetch_add(1, Relaxed);
            }
        });
        let stop = Arc::new(AtomicBool::new(false));
        let (ends, desk) = (Arc::clone(&stop), plant.desk.clone());
        let sender = std::thread::spawn(move || {
            desk.move_in().unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(BESIDE).unwrap();
            let mut sent = 0_u64;
            while !ends.load(Relaxed) {
                socket.send(&sent.to_be_bytes()).unwrap();
                sent += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            sent
        });
        Self {
            stop,
            sender,
            arrived,
        }
    }

    /// How many were sent and how many arrived.
    pub fn stop(self) -> (u64, u64) {
        self.stop.store(true, Relaxed);
        let sent = self.sender.join().unwrap();
        let _ = wait_until("the last ones", Duration::from_secs(10), || {
            self.arrived.load(Relaxed) >= sent
        });
        (sent, self.arrived.load(Relaxed))
    }
}
