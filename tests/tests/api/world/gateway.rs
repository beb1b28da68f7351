//! A gateway's end of a session, played by a test: what it sends, and what comes back.

use hyper_util::rt::TokioIo;
use penstock_proto::channel;
use penstock_proto::tls::client::ClientProfile;
use penstock_proto::v1;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::gateway_message::Message as Up;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{PATIENCE, World};

impl World {
    /// A gateway's session after its hello, with what came back first.
    pub async fn session(&self, name: &str, policy: v1::PolicyState) -> Session {
        let credentials = self.certificate(&format!("gateway/{name}"));
        let channel = self.channel(self.roots(), Some(credentials)).await.unwrap();
        self.session_over(channel, policy).await
    }

    /// A session of a gateway that has room for few messages which it did not read yet.
    pub async fn narrow_session(&self, name: &str) -> Session {
        let channel = self.narrow_channel(name).await;
        self.session_over(channel, v1::PolicyState::default()).await
    }

    /// A gateway's connection with as little room in each of its sessions.
    pub async fn narrow_channel(&self, name: &str) -> Channel {
        let profile = ClientProfile {
            plant: self.config.plant.clone(),
            trust: self.roots(),
            credentials: Some(self.certificate(&format!("gateway/{name}"))),
        };
        let tls = TlsConnector::from(profile.config().unwrap().config);
        let (host, port) = (self.address.host().to_owned(), self.address.port());
        let connect = tower::service_fn(move |_: tonic::transport::Uri| {
            let (tls, host) = (tls.clone(), host.clone());
            async move {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                let name = "coordinator.penstock".try_into().unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let channel = tonic::transport::Endpoint::from_static("http://coordinator.penstock")
            .initial_stream_window_size(1024)
            .connect_with_connector(connect)
            .await;
        channel.unwrap()
    }

    /// A session over a connection that stands.
    pub async fn session_over(&self, channel: Channel, policy: v1::PolicyState) -> Session {
        let hello = v1::Hello {
            trails_size: None,
            software_version: "test".to_owned(),
            key_held: 0,
            capabilities: vec!["kernel".to_owned()],
            boot_id: "1".to_owned(),
            policy: Some(policy),
            spool: None,
            withdrawn: None,
            ticket: None,
            trust: None,
        };
        self.greeting(channel, hello).await
    }

    /// A session that begins with this hello.
    pub async fn greeting(&self, channel: Channel, hello: v1::Hello) -> Session {
        let (up, messages) = mpsc::channel(64);
        up.send(message(Up::Hello(hello))).await.unwrap();
        let down = GatewayLinkClient::new(channel)
            .max_decoding_message_size(channel::COORDINATOR_MESSAGE_BYTES_MAX)
            .session(ReceiverStream::new(messages))
            .await
            .unwrap()
            .into_inner();
        let welcome = v1::Welcome::default();
        let mut session = Session { up, down, welcome };
        session.welcome = match session.next().await.unwrap() {
            Down::Welcome(welcome) => welcome,
            other => panic!("{other:?}"),
        };
        assert_eq!(session.welcome.coordinator, self.config.name.as_str());
        session
    }
}

pub fn message(message: Up) -> v1::GatewayMessage {
    v1::GatewayMessage {
        message: Some(message),
    }
}

/// A gateway's end of a session.
pub struct Session {
    pub up: mpsc::Sender<v1::GatewayMessage>,
    pub down: Streaming<v1::CoordinatorMessage>,
    /// What it was welcomed with.
    pub welcome: v1::Welcome,
}

impl Session {
    pub async fn send(&self, up: Up) {
        self.up.send(message(up)).await.unwrap();
    }

    /// The next message, or how the session ended.
    pub async fn next(&mut self) -> Result<Down, Status> {
        let next = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("a message in time")?;
        next.map_or_else(
            || Err(Status::cancelled("the stream ended")),
            |message| Ok(message.message.unwrap()),
        )
    }

    pub async fn offer(&mut self) -> v1::PolicyOffer {
        match self.next().await.unwrap() {
            Down::Offer(offer) => offer,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing is sent to it that it does not ask for: what comes next answers it.
    pub async fn silence(&mut self) {
        let block = v1::AuditBlock {
            epoch: 1,
            sequence: 0,
            previous_digest: vec![0; 32].into(),
            body: v1::AuditBlockBody::default().encode_to_vec().into(),
        };
        self.send(Up::Audit(block)).await;
        let next = self.next().await.unwrap();
        assert!(matches!(next, Down::AuditAck(_)), "{next:?}");
    }
}
