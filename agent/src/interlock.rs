//! The question to the process before a change (`safe_to_change`): the one packet that this program sends to an asset on its own account.
//!
//! ```text
//! reconciler ─ says(plan) ─▶ asking (pure: when, how old) ◀─ answer ─ run ─ reach ─▶ modbus │ mqtt ─▶ the asset
//! ```
//!
//! Invariants:
//! - it is asked only while somebody wants to change (`says` is called because nothing else holds the change), at most once a second, one
//!   question at a time;
//! - absent is not safe: silence, an error, an exception, any other value and an answer that is old are all the same "no", each with
//!   its reason;
//! - a yes begins one change: the next one asks again;
//! - nothing is written: one coil is read, or one retained message; a question takes [`ANSWER_WITHIN`] at most, and what
//!   is read of an answer is bounded;
//! - it leaves from where the plan says, so that the way is the document's, not the routing table's;
//! - the trail has the first answer, and each time that it turns.
//!
//! Whoever asks does not wait: until there is an answer it is "not safe: being asked".

mod asking;
mod modbus;
mod mqtt;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_policy::ids::GatewayId;
use penstock_policy::plan::{AskedFrom, Condition, Interlock as Wanted, Plan};
use penstock_policy::text::sentence;
use penstock_proto::event::AgentStep;
use penstock_proto::tls::times::instant;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::asking::{Answer, Asking, Next, Question};
use crate::audit::{Audit, record};
use crate::bridge::connection::ConnectionError;
use crate::bridge::side::Login;
use crate::identity::Identity;
use crate::reconcile::site::Interlock;
use crate::timepiece::Timepiece;

/// How long a question may take, from the first packet to the answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Whoever wants to know whether the process may be changed asks here.
#[derive(Debug, Clone)]
pub struct Interlocks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    asking: Mutex<Asking>,
    wake: Notify,
    timepiece: Timepiece,
}

impl Shared {
    /// Since the machine was started, also while it slept: an answer from before a sleep is old.
    fn now(&self) -> Duration {
        self.timepiece.now().boot
    }

    fn with<T>(&self, look: impl FnOnce(&mut Asking, Duration) -> T) -> T {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut asking, self.now())
    }
}

impl Interlocks {
    /// What the process says, as far as it is known now; never waits. Asks beside, as long as this is called.
    pub fn says(&self, plan: &Plan) -> Interlock {
        let Some(wanted) = &plan.interlock else {
            return Interlock::NotDeclared;
        };
        let question = Question {
            gateway: plan.gateway.clone(),
            wanted: wanted.clone(),
        };
        let said = self.shared.with(|asking, now| asking.wanted(question, now));
        self.shared.wake.notify_one();
        match said {
            Some(Answer::Safe) => Interlock::Safe,
            Some(Answer::NotSafe(why)) => Interlock::NotSafe(why),
            None => Interlock::NotSafe(format!("{} is being asked", place(wanted))),
        }
    }
}

/// The part of the program that asks.
pub struct Asker {
    shared: Arc<Shared>,
    /// How to log in, by broker.
    logins: Arc<BTreeMap<String, Login>>,
    /// The gateway's certificate, for brokers inside TLS.
    identity: watch::Receiver<Option<Arc<Identity>>>,
    audit: Audit,
}

impl Asker {
    /// The part, and the handle to it.
    pub fn new(
        logins: Arc<BTreeMap<String, Login>>,
        identity: watch::Receiver<Option<Arc<Identity>>>,
        audit: Audit,
        timepiece: Timepiece,
    ) -> (Self, Interlocks) {
        let shared = Arc::new(Shared {
            asking: Mutex::default(),
            wake: Notify::new(),
            timepiece,
        });
        let interlocks = Interlocks {
            shared: Arc::clone(&shared),
        };
        let asker = Self {
            shared,
            logins,
            identity,
            audit,
        };
        (asker, interlocks)
    }

    /// Asks while somebody wants to know.
    pub async fn run(self, stop: CancellationToken) {
        let asked = stop.run_until_cancelled(async {
            let mut silence = Silence::default();
            loop {
                match self.shared.with(|asking, now| asking.next(now)) {
                    Next::Ask(question) => {
                        let answer = self.ask(&question).await;
                        let now_ms = self.shared.timepiece.now().wall_ms;
                        let answer = silence.heard(&question, answer, now_ms);
                        if let Some(turned) = self.shared.with(|asking, _| asking.answered(answer)) {
                            self.tell(&question, &turned);
                        }
                    }
                    Next::Wait(wait) => tokio::time::sleep(wait).await,
                    Next::Idle => self.shared.wake.notified().await,
                }
            }
        });
        asked.await;
    }

    fn tell(&self, question: &Question, answer: &Answer) {
        let Wanted { condition, from, .. } = &question.wanted;
        let place = place(&question.wanted);
        let words = match answer {
            Answer::Safe => format!("safe to change: {condition} at {place} (asked from {from})"),
            Answer::NotSafe(why) => format!("not safe to change: {why} (asked from {from})"),
        };
        tracing::info!("{words}");
        self.audit.note(record::agent(AgentStep::Interlock, &words));
    }

    /// One question and its answer, within [`ANSWER_WITHIN`].
    ///
    /// # Errors
    /// There is none that means anything; why.
    async fn ask(&self, question: &Question) -> Result<Answer, String> {
        let asked = async {
            let stream = reach(&question.wanted).await?;
            match &question.wanted.condition {
                Condition::Coil { unit, coil, .. } => {
                    let is_on = modbus::read_coil(stream, *unit, *coil).await?;
                    Ok::<_, AskError>(Value::Coil(is_on))
                }
                Condition::Topic { topic, tls, .. } => {
                    let login = self.logins.get(question.wanted.asset.as_str()).cloned();
                    let broker = mqtt::peer(question, tls.clone(), login, self.identity.clone());
                    Ok(Value::Message(mqtt::retained(&broker, stream, topic).await?))
                }
            }
        };
        let place = place(&question.wanted);
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(value)) => Ok(judge(&question.wanted.condition, &value, &place)),
            Ok(Err(error)) => Err(format!("{place}: {}", sentence(&error))),
            Err(_) => Err(match &question.wanted.condition {
                Condition::Coil { .. } => {
                    format!("{place} does not answer within {} s", ANSWER_WITHIN.as_secs())
                }
                Condition::Topic { topic, .. } => format!(
                    "{place} gives no retained message of {topic:?} within {} s",
                    ANSWER_WITHIN.as_secs()
                ),
            }),
        }
    }
}

/// Since when one question has no answer: where an asset is gone for good, that is what people need to read.
#[derive(Debug, Default)]
struct Silence {
    since: Option<(Question, u64)>,
}

impl Silence {
    /// What came of a question, at this time (milliseconds since 1970): with no answer, it is not safe.
    fn heard(&mut self, question: &Question, answer: Result<Answer, String>, now_ms: u64) -> Answer {
        match answer {
            Ok(answer) => {
                self.since = None;
                answer
            }
            Err(why) => {
                let known = self.since.take().filter(|(asked, _)| asked == question);
                let (_, since_ms) = self
                    .since
                    .insert(known.unwrap_or_else(|| (question.clone(), now_ms)));
                Answer::NotSafe(format!("{why}; no answer since {}", instant(*since_ms)))
            }
        }
    }
}

/// What was read.
enum Value {
    Coil(bool),
    Message(Vec<u8>),
}

fn judge(condition: &Condition, value: &Value, place: &str) -> Answer {
    let words = match (condition, value) {
        (Condition::Coil { is, .. }, Value::Coil(read)) if is == read => return Answer::Safe,
        (Condition::Topic { is, .. }, Value::Message(read)) if is.as_bytes() == read => return Answer::Safe,
        (Condition::Coil { coil, .. }, Value::Coil(read)) => {
            format!("coil {coil} is {} at {place}", if *read { "on" } else { "off" })
        }
        (Condition::Topic { topic, .. }, Value::Message(read)) => {
            format!("{topic:?} is {} at {place}", shown(read))
        }
        _ => format!("{place} was asked something else"),
    };
    Answer::NotSafe(words)
}

/// A message of somebody else's, in a sentence: its beginning, with nothing that a terminal would obey.
fn shown(message: &[u8]) -> String {
    const SHOWN_MAX: usize = 32;
    let text: String = String::from_utf8_lossy(message).chars().take(SHOWN_MAX).collect();
    format!("{:?}", penstock_policy::text::printable(&text))
}

/// Where it is asked, for people.
fn place(wanted: &Wanted) -> String {
    format!(
        "{} ({})",
        wanted.asset,
        SocketAddr::new(wanted.address, wanted.port)
    )
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// It cannot leave from where the plan says.
    #[error("the question cannot leave from {from}")]
    Leave {
        from: AskedFrom,
        #[source]
        source: std::io::Error,
    },
    /// No connection.
    #[error("it cannot be reached")]
    Reach(#[source] std::io::Error),
    /// No coil.
    #[error("it does not give the coil")]
    Modbus(#[from] modbus::ModbusError),
    /// No message.
    #[error("it does not give the message")]
    Mqtt(#[from] ConnectionError),
}

/// A connection from where the plan says.
async fn reach(wanted: &Wanted) -> Result<TcpStream, AskError> {
    let leave = |source| AskError::Leave {
        from: wanted.from.clone(),
        source,
    };
    let socket = if wanted.address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(leave)?;
    match &wanted.from {
        AskedFrom::Address(own) => socket.bind(SocketAddr::new(*own, 0)),
        AskedFrom::Interface(name) => socket.bind_device(Some(name.as_bytes())),
    }
    .map_err(leave)?;
    let stream = socket.connect(SocketAddr::new(wanted.address, wanted.port)).await;
    let stream = stream.map_err(AskError::Reach)?;
    stream.set_nodelay(true).map_err(AskError::Reach)?;
    Ok(stream)
}

/// Under which name a broker sees this gateway ask.
fn client_id(gateway: &GatewayId) -> String {
    format!("penstock-{gateway}-interlock")
}
