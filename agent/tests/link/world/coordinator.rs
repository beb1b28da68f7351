//! A coordinator that keeps what gateways send, and sends what a test wants.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_proto::audit::{ChainError, Head, read_body};
use penstock_proto::channel::Address;
use penstock_proto::peer::Subject;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::Credentials;
use penstock_proto::tls::server::{AcceptLimits, Reception, ServerCredentials, server_config};
use penstock_proto::token::{Secret, Token};
use penstock_proto::v1::coordinator_message::Message as Outbound;
use penstock_proto::v1::enrolment_server::{Enrolment, EnrolmentServer};
use penstock_proto::v1::gateway_link_server::{GatewayLink, GatewayLinkServer};
use penstock_proto::v1::gateway_message::Message as Inbound;
use penstock_proto::v1::{
    AuditAck, AuditBlock, AuditEvent, CarryEstRequest, CarryEstResponse, CoordinatorMessage, EnrolRequest,
    EnrolResponse, GatewayMessage, GetProviderRequest, IdentityProvider, PolicyState, RenewRequest,
    SignInRequest, SignInResponse, Welcome,
};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Authority, GATEWAY, approvers, gateway, plant, within};

/// What it remembers over its own restarts.
#[derive(Default)]
pub struct Memory {
    pub head: Option<Head>,
    pub blocks: Vec<AuditBlock>,
    pub sessions: usize,
    pub faults: Vec<String>,
    /// Blocks that are received but never acknowledged.
    pub withhold_acks: bool,
    pub refuse_token: Option<Reason>,
    pub policy: Option<PolicyState>,
    /// What the agent said in its last Hello that it can do.
    pub capabilities: Vec<String>,
    /// What it puts into gateways' certificates.
    pub tls_ends: Vec<IpAddr>,
    /// The years from whose beginning until whose beginning gateways' certificates are valid; `None`: the library's default.
    pub years: Option<(i32, i32)>,
    /// Certificates renewed.
    pub renewals: usize,
    /// Codes of the faults in the last health report.
    pub reported: Vec<String>,
    /// How far the agent's list of withdrawn keys went, by each Hello: number and digest.
    pub held: Vec<(u64, Vec<u8>)>,
    /// Why no session is opened.
    pub refuse_session: Option<Reason>,
    /// Another authority, whose root stands in each answer ...
    pub thief: Option<Arc<Authority>>,
    /// ... and which issues the certificates in them.
    pub thief_issues: bool,
}

pub struct Coordinator {
    pub authority: Arc<Authority>,
    pub memory: Arc<Mutex<Memory>>,
    /// Moves whenever the memory did.
    moved: watch::Sender<u64>,
    pub address: SocketAddr,
    messages: broadcast::Sender<CoordinatorMessage>,
    current: watch::Sender<Option<CoordinatorMessage>>,
    server: Option<JoinHandle<()>>,
    cut: CancellationToken,
}

#[derive(Clone)]
struct Service {
    authority: Arc<Authority>,
    memory: Arc<Mutex<Memory>>,
    moved: watch::Sender<u64>,
    messages: broadcast::Sender<CoordinatorMessage>,
    current: watch::Receiver<Option<CoordinatorMessage>>,
    cut: CancellationToken,
}

impl Coordinator {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        let mut coordinator = Self {
            authority: Arc::new(Authority::new()),
            memory: Arc::default(),
            moved: watch::channel(0).0,
            address,
            messages: broadcast::channel(16).0,
            current: watch::channel(None).0,
            server: None,
            cut: CancellationToken::new(),
        };
        coordinator.restart().await;
        coordinator
    }

    /// Cuts all connections and listens again at the same place.
    pub async fn restart(&mut self) {
        self.restart_as("coordinator/c-1").await;
    }

    /// The same with a certificate of this life.
    pub async fn restart_in_life(&mut self, epoch: u32) {
        let credentials = self.authority.server_of("coordinator/c-1", Some(epoch));
        self.restart_with(&credentials).await;
    }

    /// The same, but it shows a certificate of somebody else in the plant.
    pub async fn restart_as(&mut self, subject: &str) {
        let credentials = self.authority.server(subject);
        self.restart_with(&credentials).await;
    }

    async fn restart_with(&mut self, credentials: &Credentials) {
        self.kill().await;
        let listener = within(async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await;
        self.address = listener.local_addr().unwrap();
        let credentials = ServerCredentials::new(credentials).unwrap();
        let config = server_config(&plant(), credentials, &[self.authority.root()]).unwrap();
        let service = Service {
            authority: self.authority.clone(),
            memory: self.memory.clone(),
            moved: self.moved.clone(),
            messages: self.messages.clone(),
            current: self.current.subscribe(),
            cut: self.cut.clone(),
        };
        self.server = Some(tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(GatewayLinkServer::new(service.clone()))
                .add_service(EnrolmentServer::new(service))
                .serve_with_incoming(
                    Reception::start(config, AcceptLimits::default())
                        .unwrap()
                        .incoming(listener),
                )
                .await
                .unwrap();
        }));
    }

    pub async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
        // The server's connections outlive it: their sessions are cut one by one.
        self.cut.cancel();
        self.cut = CancellationToken::new();
    }

    pub fn token(&self) -> Token {
        Token {
            plant: plant(),
            subject: Subject::Gateway(gateway()),
            coordinators: vec![self.address.to_string().parse::<Address>().unwrap()],
            secret: Secret([7; 32]),
            root_digest: Digest::of(&self.authority.root()),
            approvers: Some(approvers()),
            expires_ms: u64::MAX,
        }
    }

    /// Sends to the sessions under way.
    pub fn send(&self, message: Option<Outbound>) {
        let _ = self.messages.send(CoordinatorMessage { message });
    }

    /// Sends now and at the start of each later session.
    pub fn keep_sending(&self, message: Outbound) {
        let message = CoordinatorMessage {
            message: Some(message),
        };
        self.current.send_replace(Some(message.clone()));
        let _ = self.messages.send(message);
    }

    pub async fn until(&self, mut what: impl FnMut(&Memory) -> bool) {
        let mut moved = self.moved.subscribe();
        within(async {
            while !what(&self.memory.lock().unwrap()) {
                moved.changed().await.unwrap();
            }
        })
        .await;
    }

    pub async fn sessions(&self, count: usize) {
        self.until(|memory| memory.sessions >= count).await;
    }
}

impl Memory {
    pub fn events(&self) -> Vec<AuditEvent> {
        self.blocks
            .iter()
            .flat_map(|block| read_body(&block.body).unwrap().events)
            .collect()
    }
}

#[tonic::async_trait]
impl Enrolment for Service {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        if let Some(reason) = self.memory.lock().unwrap().refuse_token {
            return Err(Refusal::new(reason, "no").into());
        }
        assert_eq!((request.name.as_str(), request.secret.len()), (GATEWAY, 32));
        Ok(Response::new(self.issue(&request.certificate_request)))
    }

    async fn get_provider(
        &self,
        _: Request<GetProviderRequest>,
    ) -> Result<Response<IdentityProvider>, Status> {
        Err(Status::unimplemented("gateways do not sign in"))
    }

    async fn sign_in(&self, _: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        Err(Status::unimplemented("gateways do not sign in"))
    }
}

impl Service {
    fn moved(&self) {
        self.moved.send_modify(|count| *count += 1);
    }

    fn issue(&self, request: &[u8]) -> EnrolResponse {
        let memory = self.memory.lock().unwrap();
        let issuing = memory.thief.as_ref().filter(|_| memory.thief_issues);
        let issuing = issuing.unwrap_or(&self.authority);
        let leaf = issuing.sign(request, &memory.tls_ends, memory.years);
        let root = self.authority.root();
        let strange = memory.thief.iter().map(|thief| thief.root().to_vec().into());
        EnrolResponse {
            certificate_chain: vec![leaf.to_vec().into(), root.to_vec().into()],
            trust_bundle: std::iter::once(root.to_vec().into()).chain(strange).collect(),
        }
    }

    fn take(&self, block: AuditBlock) -> Option<AuditAck> {
        let mut memory = self.memory.lock().unwrap();
        match Head::accept(memory.head.as_ref(), &block) {
            Ok(accepted) => {
                if accepted.missing > 0 {
                    memory
                        .faults
                        .push(format!("{} blocks are missing", accepted.missing));
                }
                memory.head = Some(accepted.head);
                memory.blocks.push(block);
            }
            Err(ChainError::Held { .. }) => {}
            Err(error) => memory.faults.push(error.to_string()),
        }
        (!memory.withhold_acks).then(|| ack(memory.head))
    }
}

fn ack(head: Option<Head>) -> AuditAck {
    head.map_or_else(AuditAck::default, |head| AuditAck {
        trails: None,
        epoch: head.epoch,
        next_sequence: head.next_sequence,
        digest: head.digest.to_vec().into(),
        witness: None,
    })
}

#[tonic::async_trait]
impl GatewayLink for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<GatewayMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if let Some(reason) = self.memory.lock().unwrap().refuse_session {
            return Err(Refusal::new(reason, "gateway gw-1 was removed").into());
        }
        let mut inbound = request.into_inner();
        let (outbound, stream) = mpsc::channel(16);
        let service = self.clone();
        let mut messages = self.messages.subscribe();
        let current = self.current.borrow().clone();
        tokio::spawn(async move {
            let Ok(Some(GatewayMessage {
                message: Some(Inbound::Hello(hello)),
            })) = inbound.message().await
            else {
                return;
            };
            let audit = {
                let mut memory = service.memory.lock().unwrap();
                memory.sessions += 1;
                (memory.policy, memory.capabilities) = (hello.policy, hello.capabilities);
                let held = hello.withdrawn.unwrap_or_default();
                memory.held.push((held.number, held.digest.to_vec()));
                ack(memory.head)
            };
            service.moved();
            let welcome = Outbound::Welcome(Welcome {
                coordinator: "c-1".to_owned(),
                time_ms: 1,
                health_interval_ms: 1000,
                audit: Some(audit),
                ..Welcome::default()
            });
            let say = async |message| {
                let message = CoordinatorMessage {
                    message: Some(message),
                };
                outbound.send(Ok(message)).await.is_ok()
            };
            say(welcome).await;
            if let Some(message) = current {
                let _ = outbound.send(Ok(message)).await;
            }
            loop {
                tokio::select! {
                    () = service.cut.cancelled() => {
                        let _ = outbound.send(Err(Status::unavailable("cut"))).await;
                        return;
                    }
                    message = inbound.message() => match message {
                        Ok(Some(GatewayMessage { message: Some(Inbound::Audit(block)) })) => {
                            let ack = service.take(block);
                            service.moved();
                            if let Some(ack) = ack {
                                say(Outbound::AuditAck(ack)).await;
                            }
                        }
                        Ok(Some(GatewayMessage { message: Some(Inbound::Policy(state)) })) => {
                            service.memory.lock().unwrap().policy = Some(state);
                            service.moved();
                        }
                        Ok(Some(GatewayMessage { message: Some(Inbound::Health(report)) })) => {
                            let codes = report.faults.into_iter().map(|fault| fault.code).collect();
                            service.memory.lock().unwrap().reported = codes;
                            service.moved();
                        }
                        Ok(Some(_)) => {}
                        _ => return,
                    },
                    message = messages.recv() => match message {
                        Ok(message) => {
                            let _ = outbound.send(Ok(message)).await;
                        }
                        Err(_) => return,
                    },
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn carry_est(&self, _: Request<CarryEstRequest>) -> Result<Response<CarryEstResponse>, Status> {
        Err(Status::unimplemented("no device enrols here"))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolResponse>, Status> {
        self.memory.lock().unwrap().renewals += 1;
        self.moved();
        Ok(Response::new(
            self.issue(&request.into_inner().certificate_request),
        ))
    }
}
