//! Gateways that put releases on trial, played by a test: each does as its conduct says, and remembers what came to it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_proto::v1;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_message::Message as Up;
use penstock_proto::v1::policy_standing::State;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::World;

/// What a gateway does with a release that it may activate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// It can be confirmed.
    Good,
    /// A must-flow stops: it goes back.
    LosesMustFlow,
    /// It goes on trial, and cannot be confirmed yet.
    Waits,
    /// A person holds it.
    Held,
    /// Its agent knows no trials.
    Old,
}

/// What a gateway has on its disk, and what came to it.
#[derive(Debug, Clone)]
pub struct Disk {
    pub effective: Option<v1::RevisionDigest>,
    previous: Option<v1::RevisionDigest>,
    staged: Option<v1::RevisionDigest>,
    state: Option<State>,
    about: Option<v1::RevisionDigest>,
    order: u64,
    pub conduct: Conduct,
    /// `offer 1`, `active 1`, `confirm 1`, `revert 1`: the release's number behind what it was.
    pub log: Vec<String>,
}

/// A gateway; its session ends with it, its disk stays.
pub struct Simulated {
    pub disk: Arc<Mutex<Disk>>,
    pub name: String,
    task: Option<JoinHandle<()>>,
}

impl Simulated {
    pub fn new(name: &str, conduct: Conduct) -> Self {
        Self {
            disk: Arc::new(Mutex::new(Disk {
                effective: None,
                previous: None,
                staged: None,
                state: None,
                about: None,
                order: 0,
                conduct,
                log: Vec::new(),
            })),
            name: name.to_owned(),
            task: None,
        }
    }

    /// Connects, and goes on connecting, until it is told to leave.
    pub fn connect(&mut self, world: &World) {
        let credentials = world.certificate(&format!("gateway/{}", self.name));
        let (trust, address, plant) = (world.roots(), world.address.clone(), world.config.plant.clone());
        let disk = self.disk.clone();
        self.task = Some(tokio::spawn(async move {
            loop {
                let profile = penstock_proto::tls::client::ClientProfile {
                    plant: plant.clone(),
                    trust: trust.clone(),
                    credentials: Some(credentials.clone()),
                };
                let connected =
                    penstock_proto::channel::connect(vec![address.clone()], profile.config().unwrap()).await;
                if let Ok(channel) = connected {
                    session(&disk, channel).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }

    pub fn leave(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    pub fn log(&self) -> Vec<String> {
        self.disk.lock().unwrap().log.clone()
    }

    /// How often something came to it.
    pub fn count(&self, what: &str) -> usize {
        self.log().iter().filter(|line| *line == what).count()
    }

    pub fn effective(&self) -> u64 {
        let disk = self.disk.lock().unwrap();
        disk.effective.as_ref().map_or(0, |mark| mark.revision)
    }

    pub fn is_on_trial(&self) -> bool {
        matches!(self.disk.lock().unwrap().state, Some(State::Trial(_)))
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.leave();
    }
}

async fn session(disk: &Mutex<Disk>, channel: Channel) {
    let (hello, knows_trials) = {
        let mut disk = disk.lock().unwrap();
        // Orders count in the session in which they came.
        disk.order = 0;
        let knows_trials = disk.conduct != Conduct::Old;
        let mut capabilities = vec!["kernel".to_owned()];
        capabilities.extend(knows_trials.then(|| "trials".to_owned()));
        let hello = v1::Hello {
            trails_size: None,
            software_version: "test".to_owned(),
            key_held: 0,
            capabilities,
            boot_id: "1".to_owned(),
            policy: Some(disk.policy()),
            spool: None,
            withdrawn: None,
            ticket: None,
            trust: None,
        };
        (hello, knows_trials)
    };
    let (up, messages) = tokio::sync::mpsc::channel(64);
    let greeting = v1::GatewayMessage {
        message: Some(Up::Hello(hello)),
    };
    up.send(greeting).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
    let opened = v1::gateway_link_client::GatewayLinkClient::new(channel)
        .max_decoding_message_size(penstock_proto::channel::COORDINATOR_MESSAGE_BYTES_MAX)
        .session(stream)
        .await;
    let Ok(opened) = opened else { return };
    let mut down = opened.into_inner();
    while let Ok(Some(message)) = down.message().await {
        let reports = {
            let mut disk = disk.lock().unwrap();
            disk.take(message.message.unwrap(), knows_trials)
        };
        for policy in reports {
            let report = v1::GatewayMessage {
                message: Some(Up::Policy(policy)),
            };
            if up.send(report).await.is_err() {
                return;
            }
        }
    }
}

impl Disk {
    fn policy(&self) -> v1::PolicyState {
        let about = self.about.clone().unwrap_or_default();
        let mut state = self.state.clone();
        if let Some(State::Trial(trial)) = &mut state {
            trial.confirmable = self.conduct == Conduct::Good;
        }
        let standing = v1::PolicyStanding {
            order: self.order,
            revision: about.revision,
            statement_digest: about.statement_digest,
            state,
        };
        v1::PolicyState {
            effective: self.effective.clone(),
            staged: self.staged.clone(),
            standing: (self.conduct != Conduct::Old).then_some(standing),
            ..v1::PolicyState::default()
        }
    }

    fn take(&mut self, message: Down, knows_trials: bool) -> Vec<v1::PolicyState> {
        match message {
            Down::Offer(offer) => {
                let signed = offer.release.unwrap();
                let statement = penstock_policy::release::Statement::from_bytes(&signed.statement).unwrap();
                let mark = v1::RevisionDigest {
                    revision: statement.revision.0,
                    plan_digest: Digest::of(&offer.plan).0.to_vec().into(),
                    statement_digest: Digest::of(&signed.statement).0.to_vec().into(),
                };
                self.log.push(format!("offer {}", mark.revision));
                self.staged = Some(mark.clone());
                if !knows_trials || offer.order.is_none() {
                    self.effective = Some(mark);
                    return vec![self.policy()];
                }
                self.obey(offer.order.unwrap())
            }
            Down::Order(order) => self.obey(order),
            Down::Confirm(confirm) => {
                let is_on_trial = matches!(self.state, Some(State::Trial(_)));
                if is_on_trial && self.is_about(&confirm.statement_digest) {
                    self.log
                        .push(format!("confirm {}", self.effective.as_ref().unwrap().revision));
                    (self.state, self.about) = (None, None);
                }
                vec![self.policy()]
            }
            Down::Revert(revert) => {
                let is_on_trial = matches!(self.state, Some(State::Trial(_)));
                if is_on_trial && self.is_about(&revert.statement_digest) {
                    self.log
                        .push(format!("revert {}", self.effective.as_ref().unwrap().revision));
                    self.goes_back("asked", true);
                }
                vec![self.policy()]
            }
            Down::Welcome(_) | Down::AuditAck(_) | Down::Withdrawn(_) | Down::Trust(_) => Vec::new(),
        }
    }

    fn is_about(&self, statement: &[u8]) -> bool {
        self.about
            .as_ref()
            .is_some_and(|about| about.statement_digest == statement)
    }

    fn goes_back(&mut self, code: &str, ordered: bool) {
        self.effective = self.previous.take();
        self.state = Some(State::Reverted(v1::Reverted {
            code: code.to_owned(),
            message: "it went back".to_owned(),
            at_ms: 1,
            ordered,
        }));
    }

    fn obey(&mut self, order: v1::Order) -> Vec<v1::PolicyState> {
        assert!(order.number > self.order, "orders rise: {order:?}");
        // It is answered, also about a release that is not here.
        self.order = order.number;
        let Some(staged) = self
            .staged
            .clone()
            .filter(|staged| staged.statement_digest == order.statement_digest)
        else {
            return vec![self.policy()];
        };
        let word = match order.upto() {
            v1::Upto::Active => "active",
            v1::Upto::Shadow => "shadow",
            _ => "staged",
        };
        self.log.push(format!("{word} {}", staged.revision));
        let has_it = self.effective.as_ref() == Some(&staged);
        let went_back =
            matches!(self.state, Some(State::Reverted(_))) && self.is_about(&order.statement_digest);
        if has_it || went_back {
            return vec![self.policy()];
        }
        self.about = Some(staged.clone());
        self.state = None;
        if order.upto() != v1::Upto::Active {
            return vec![self.policy()];
        }
        if self.conduct == Conduct::Held {
            self.state = Some(State::Held(v1::Held {
                reason: v1::HoldReason::Person.into(),
                message: "held".to_owned(),
                until_ms: 0,
            }));
            return vec![self.policy()];
        }
        self.previous = self.effective.replace(staged);
        self.state = Some(State::Trial(v1::OnTrial {
            elapsed_ms: 0,
            left_ms: 60_000,
            confirmable: false,
        }));
        let trial = self.policy();
        if self.conduct == Conduct::LosesMustFlow {
            self.goes_back("must-flow", false);
            return vec![trial, self.policy()];
        }
        vec![trial]
    }
}
