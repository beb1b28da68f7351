//! A log for tests: in memory, shared by the copies of one process, and in any weather: answers get lost, messages come late or never.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::{Awaited, Log, LogError, Message, NotPut, Patience};

/// A log that many have open.
#[derive(Debug, Clone)]
pub(crate) struct MemoryLog {
    shared: Arc<Shared>,
    message_bytes_max: usize,
    /// How long a message is waited for.
    pub(crate) put: Duration,
}

#[derive(Debug)]
struct Shared {
    messages: Mutex<Vec<Bytes>>,
    newest: watch::Sender<u64>,
    weather: Mutex<Weather>,
}

/// What becomes of what is put.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Drawn from, so that a test can be repeated; 0: all is well.
    pub(crate) seed: u64,
    /// Nothing comes and goes at all.
    pub(crate) cut: bool,
}

#[derive(Clone, Copy)]
enum Fate {
    Answered,
    /// It is there, and nobody says so.
    Unanswered,
    /// It is not there, and never will be.
    Lost,
    /// It comes after its sender has given up waiting for the answer.
    Late,
}

impl Weather {
    fn fate(&mut self) -> Fate {
        if self.cut {
            return Fate::Lost;
        }
        if self.seed == 0 {
            return Fate::Answered;
        }
        // SplitMix64.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.seed;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        match (drawn ^ (drawn >> 31)) % 10 {
            0 => Fate::Unanswered,
            1 => Fate::Lost,
            2 => Fate::Late,
            _ => Fate::Answered,
        }
    }
}

impl Shared {
    fn put(&self, last: u64, payload: Bytes) -> Result<u64, NotPut> {
        let mut messages = self.messages.lock().unwrap();
        if messages.len() as u64 != last {
            return Err(NotPut::Behind);
        }
        messages.push(payload);
        let number = messages.len() as u64;
        self.newest.send_replace(number);
        Ok(number)
    }
}

impl MemoryLog {
    /// Whose messages hold at most so many bytes.
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                messages: Mutex::default(),
                newest: watch::channel(0).0,
                weather: Mutex::default(),
            }),
            message_bytes_max,
            put: Duration::from_secs(5),
        }
    }

    pub(crate) fn weather(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// Throws away all behind the first `kept` messages, as servers do that were restored from an older backup.
    pub(crate) fn set_back(&self, kept: usize) {
        self.shared.messages.lock().unwrap().truncate(kept);
        self.shared.newest.send_replace(kept as u64);
    }

    /// As one coordinator has it open, behind the message of number `after`.
    pub(crate) fn open(&self, after: u64) -> Box<dyn Log> {
        Box::new(Opened {
            log: self.clone(),
            given: after,
            newest: self.shared.newest.subscribe(),
        })
    }
}

struct Opened {
    log: MemoryLog,
    given: u64,
    newest: watch::Receiver<u64>,
}

impl Log for Opened {
    fn message_bytes_max(&self) -> usize {
        self.log.message_bytes_max
    }

    fn patience(&self) -> Patience {
        Patience {
            put: self.log.put,
            look: Duration::from_millis(10),
            courtesy: Duration::from_millis(50),
        }
    }

    fn next(&mut self) -> Awaited<'_, Message, LogError> {
        Box::pin(async {
            let given = self.given;
            let grown = self.newest.wait_for(|newest| *newest > given).await;
            grown.map_err(|_| LogError::Closed)?;
            // As over a network, where others are in between.
            tokio::task::yield_now().await;
            if self.log.shared.weather.lock().unwrap().cut {
                std::future::pending::<()>().await;
            }
            let payload = self.log.shared.messages.lock().unwrap()[usize::try_from(given).unwrap()].clone();
            self.given = given + 1;
            Ok(Message {
                number: given + 1,
                payload,
            })
        })
    }

    fn put(&mut self, last: u64, payload: Bytes) -> Awaited<'_, u64, NotPut> {
        let shared = self.log.shared.clone();
        Box::pin(async move {
            let unknown = || NotPut::Unknown("no answer".to_owned());
            let fate = shared.weather.lock().unwrap().fate();
            match fate {
                Fate::Answered => shared.put(last, payload),
                Fate::Unanswered => {
                    let _ = shared.put(last, payload);
                    Err(unknown())
                }
                Fate::Lost => Err(unknown()),
                Fate::Late => {
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(30));
                        let _ = shared.put(last, payload);
                    });
                    Err(unknown())
                }
            }
        })
    }

    fn newest(&mut self) -> Awaited<'_, u64, NotPut> {
        let newest = *self.newest.borrow();
        Box::pin(async move { Ok(newest) })
    }
}
