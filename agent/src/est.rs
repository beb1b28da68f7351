//! Devices that enrol through this gateway, since they reach no coordinator (EST, RFC 7030).
//!
//! ```text
//! device ─ TLS 1.3, EST ─▶ this gateway ─ GatewayLink.CarryEst, by the gateway's own certificate ─▶ coordinator: judges again
//! ```
//!
//! TLS ends here with this gateway's certificate, in which the coordinator puts the gateway's own addresses where the release in force
//! declares them. What the device proved is carried on, and nothing is decided here; nothing is kept. Without a coordinator the
//! answer is 503, with the time to ask again. No packet between two sides passes because of it: the kernel lets in what
//! is addressed to the gateway itself at these ports (`enforce/nft/render/own`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::channel::Address;
use penstock_proto::est::{Answer, Asked, Body, Desk, Operation, serve};
use penstock_proto::refusal::explain;
use penstock_proto::tls::TlsError;
use penstock_proto::tls::data_path::enrolling_server;
use penstock_proto::tls::server::{Reception, ServerCredentials};
use penstock_proto::v1::carry_est_response::Body as Wire;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::{CarryEstRequest, CarryEstResponse, Fault};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::link::connect::{self, Shown};

/// How long a handshake with a device may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Requests that are carried at once; who comes then is asked to come again.
const CARRIED_MAX: usize = 8;
/// How long the coordinator may take.
const CARRY_TIME_MAX: Duration = Duration::from_secs(20);
/// When a device asks again that found no coordinator.
const AGAIN: Duration = Duration::from_secs(60);
/// How often, and how many times, is looked whether a listener of our own is closed.
const CLOSING_LOOK: Duration = Duration::from_millis(50);
const CLOSING_LOOKS: u32 = 20;
/// When an address that could not be listened on is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(10);

/// Why devices find nobody here.
#[derive(Debug, thiserror::Error)]
enum EstError {
    /// The identity cannot be used.
    #[error("the gateway's certificate cannot be used for devices that enrol")]
    Tls(#[from] TlsError),
    /// The threads.
    #[error("the threads for devices' TLS handshakes cannot be started")]
    Threads(#[source] std::io::Error),
    /// An address.
    #[error("cannot listen on {address}, where devices enrol through this gateway")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What it takes to carry devices' requests.
pub struct EstListener {
    /// Where devices connect; nowhere if there is none.
    pub listen: Vec<SocketAddr>,
    /// Coordinators instead of those in the enrolment; empty: those.
    pub coordinators: Vec<Address>,
    /// Who this gateway is.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// What is wrong.
    pub faults: watch::Sender<Vec<Fault>>,
}

impl EstListener {
    /// Listens until `stop` is cancelled; again with each new identity.
    pub async fn run(mut self, stop: CancellationToken) {
        if self.listen.is_empty() {
            return;
        }
        loop {
            let identity = self.identity.borrow_and_update().clone();
            let until = stop.child_token();
            let served = async {
                if let Some(identity) = identity {
                    self.serve_as(identity, &until).await;
                } else {
                    until.cancelled().await;
                }
            };
            let mut served = std::pin::pin!(served);
            let mut watched = self.identity.clone();
            let ended = tokio::select! {
                () = stop.cancelled() => Some(true),
                changed = watched.changed() => Some(changed.is_err()),
                // It is tried again.
                () = served.as_mut() => None,
            };
            if let Some(is_over) = ended {
                // What is being answered is answered.
                until.cancel();
                served.await;
                if is_over {
                    return;
                }
            }
        }
    }

    async fn serve_as(&self, identity: Arc<Identity>, until: &CancellationToken) {
        let mut serving = JoinSet::new();
        let begun = self.begin(&identity, &mut serving, until).await;
        let fault = begun.err().map(|error| Fault {
            code: "est-not-served".to_owned(),
            message: format!(
                "Devices cannot enrol through this gateway: {}; it is tried again",
                penstock_policy::text::sentence(&error)
            ),
            ..Fault::default()
        });
        let failed = fault.is_some();
        self.faults.send_if_modified(|shown| {
            let next: Vec<Fault> = fault.into_iter().collect();
            let changed = *shown != next;
            *shown = next;
            changed
        });
        tokio::select! {
            () = until.cancelled() => {}
            () = tokio::time::sleep(LISTEN_AGAIN), if failed => {
                serving.shutdown().await;
            }
        }
        while serving.join_next().await.is_some() {}
    }

    async fn begin(
        &self,
        identity: &Arc<Identity>,
        serving: &mut JoinSet<()>,
        until: &CancellationToken,
    ) -> Result<(), EstError> {
        let own = ServerCredentials::new(identity.credentials())?;
        let tls = enrolling_server(identity.plant_trust(), own)?;
        let reception =
            Reception::start(tls, serve::limits(HANDSHAKE_TIME_MAX)).map_err(EstError::Threads)?;
        let carrier = Arc::new(Carrier {
            identity: identity.clone(),
            coordinators: self.coordinators.clone(),
            places: Semaphore::new(CARRIED_MAX),
        });
        for address in &self.listen {
            let address = *address;
            let listener = listen(address).await;
            let listener = listener.map_err(|source| EstError::Listen { address, source })?;
            serving.spawn(serve::serve(
                listener,
                reception.clone(),
                carrier.clone(),
                until.clone(),
            ));
        }
        Ok(())
    }
}

/// Listens there. The listener of the identity before may just be closing.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    for _ in 0..CLOSING_LOOKS {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                tokio::time::sleep(CLOSING_LOOK).await;
            }
            other => return other,
        }
    }
    TcpListener::bind(address).await
}

/// All that a device needs to verify what the plant's authority issues: the roots, and what this gateway's own certificate was issued by.
fn authorities(identity: &Identity) -> Vec<CertificateDer<'static>> {
    let roots = identity.roots();
    let behind = identity.credentials().chain().iter().skip(1);
    let issuing = behind.filter(|shown| !roots.contains(shown));
    roots.iter().chain(issuing).cloned().collect()
}

/// Carries what devices ask to a coordinator.
struct Carrier {
    identity: Arc<Identity>,
    coordinators: Vec<Address>,
    places: Semaphore,
}

impl Desk for Carrier {
    async fn answer(&self, asked: Asked) -> Answer {
        match asked.operation {
            Operation::CaCerts => Answer::authorities(&authorities(&self.identity)),
            Operation::CsrAttrs => Answer::attributes(),
            Operation::SimpleEnroll | Operation::SimpleReenroll => {
                let Ok(_place) = self.places.try_acquire() else {
                    return later("this gateway carries as many requests as it can; ask again");
                };
                match tokio::time::timeout(CARRY_TIME_MAX, self.carry(asked)).await {
                    Ok(answer) => answer,
                    Err(_) => later("the coordinator did not answer in time; ask again"),
                }
            }
        }
    }
}

impl Carrier {
    async fn carry(&self, asked: Asked) -> Answer {
        let addresses = match self.coordinators.is_empty() {
            true => self.identity.enrolment.coordinators.clone(),
            false => self.coordinators.clone(),
        };
        let connected = match connect::connect(addresses, &self.identity, Shown::default()).await {
            Ok(connected) => connected,
            Err(error) => {
                tracing::debug!(%error, "a device asks, and no coordinator is there");
                return later("this gateway reaches no coordinator now; ask again");
            }
        };
        let (user, password) = match asked.login {
            Some(login) => (login.user, login.password),
            None => Default::default(),
        };
        let request = CarryEstRequest {
            operation: asked.operation.as_str().to_owned(),
            body: asked.body.into(),
            user,
            password,
            certificate_chain: asked.chain.iter().map(|der| der.to_vec().into()).collect(),
            address: asked.address.to_string(),
        };
        match GatewayLinkClient::new(connected.channel).carry_est(request).await {
            Ok(answer) => answered(answer.into_inner()),
            Err(status) => {
                let why = explain(&status).message;
                tracing::warn!(%why, "the coordinator takes no device's request from this gateway");
                later("the coordinator takes no requests from this gateway now; ask again")
            }
        }
    }
}

/// The coordinator's answer. One that makes no sense is no certificate.
fn answered(answer: CarryEstResponse) -> Answer {
    let retry_after = match answer.retry_after_seconds {
        0 => None,
        seconds => Some(Duration::from_secs(seconds.into())),
    };
    let status = u16::try_from(answer.status).ok();
    match (status, answer.body) {
        (Some(200), Some(Wire::Certificate(der))) => Answer {
            status: 200,
            body: Body::Certificate(der.to_vec()),
            retry_after,
        },
        (Some(status @ (202 | 400..=599)), Some(Wire::Words(words))) => Answer {
            status,
            body: Body::Words(words),
            retry_after,
        },
        _ => Answer::words(502, "the coordinator's answer makes no sense to this gateway"),
    }
}

fn later(words: &str) -> Answer {
    Answer {
        retry_after: Some(AGAIN),
        ..Answer::words(503, words)
    }
}
