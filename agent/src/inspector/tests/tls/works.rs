//! A plant with an authority of its own, a broker inside TLS and devices with certificates.

use super::*;

pub(in super::super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(in super::super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(in super::super) fn root(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(in super::super) fn issue(&self, subject: &str) -> (Credentials, String) {
        self.issue_until(subject, 2099)
    }

    pub(in super::super) fn issue_until(&self, subject: &str, year: i32) -> (Credentials, String) {
        self.issue_of(subject, year, None)
    }

    /// One that says to be of this life.
    pub(in super::super) fn issue_life(&self, subject: &str, epoch: u32) -> Credentials {
        self.issue_of(subject, 2099, Some(epoch)).0
    }

    /// A certificate as the coordinator issues it, for 127.0.0.1 too; its key in PEM.
    fn issue_of(&self, subject: &str, year: i32, epoch: Option<u32>) -> (Credentials, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let uri = format!("spiffe://works/{subject}");
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        if let Some(epoch) = epoch {
            params.distinguished_name.push(
                rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]),
                rcgen::DnValue::Utf8String(epoch.to_string()),
            );
        }
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let pem = key.serialize_pem();
        let chain = vec![certificate.der().clone(), self.0.der().clone()];
        (Credentials::new(chain, FileKey::of(key).unwrap()).unwrap(), pem)
    }

    /// A certificate of this authority, for a device in every respect but this.
    pub(super) fn odd(&self, change: impl FnOnce(&mut CertificateParams)) -> Credentials {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let chain = vec![certificate.der().clone(), self.0.der().clone()];
        Credentials::new(chain, FileKey::of(key).unwrap()).unwrap()
    }

    /// A certificate that only its own key vouches for.
    pub(super) fn itself(uri: &str) -> Credentials {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(uri.to_owned().try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Credentials::new(vec![certificate.der().clone()], FileKey::of(key).unwrap()).unwrap()
    }

    /// A good certificate with so many more behind it.
    pub(super) fn with_a_long_chain(&self, subject: &str, more: usize) -> Credentials {
        let (good, key) = self.issue(subject);
        let mut chain = good.chain().to_vec();
        chain.extend(std::iter::repeat_n(self.root(), more));
        let key = KeyPair::from_pem(&key).unwrap();
        Credentials::new(chain, FileKey::of(key).unwrap()).unwrap()
    }

    pub(in super::super) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// The gateway as it was enrolled, with a certificate that ends in `year`.
    pub(in super::super) fn gateway(&self, year: i32) -> Arc<Identity> {
        self.gateway_knowing(year, WithdrawnView::default())
    }

    /// The same, which judges its peers by this list.
    pub(in super::super) fn gateway_knowing(&self, year: i32, withdrawn: WithdrawnView) -> Arc<Identity> {
        let folder = tempfile::tempdir().unwrap();
        let (credentials, key) = self.issue_until("gateway/gw", year);
        let files = folder.path().join("identity");
        std::fs::create_dir(&files).unwrap();
        std::fs::write(files.join("chain.pem"), certificates_to_pem(credentials.chain())).unwrap();
        std::fs::write(files.join("roots.pem"), certificates_to_pem(&[self.0.der()])).unwrap();
        std::fs::write(files.join("key.pem"), key).unwrap();
        let enrolment = Enrolment {
            plant: "works".parse().unwrap(),
            gateway: "gw".parse().unwrap(),
            coordinators: Vec::new(),
            root_digest: Digest::of(self.0.der()),
            approvers: ApproverSet {
                emergency_threshold: None,
                threshold: 1,
                people: std::collections::BTreeMap::new(),
            },
        };
        let folder = IdentityFolder::new(folder.path()).knowing(withdrawn);
        Arc::new(folder.load(enrolment).unwrap())
    }
}

pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A plant whose device `hmi` publishes to its broker `plc` through the relay.
pub(in super::super) struct Works {
    pub(super) ca: Authority,
    pub(super) world: World,
    pub(super) broker: Credentials,
}

pub(super) fn mqtts(port: u16, tls: Option<Tls>) -> Plan {
    let publish = MqttOperation::Publish {
        topics: vec!["line/#".to_owned()],
        qos: NumberRange { first: 0, last: 1 },
        retain: false,
    };
    let mut plan = plan(port, Some(Operations::from(vec![publish])), Enforcement::Enforce);
    plan.rules[0].tls = tls.map(Arc::new);
    plan
}

impl Works {
    pub(in super::super) async fn new() -> Self {
        let works = Self::without_identity().await;
        works.world.inspector.identify(Some(works.ca.gateway(2099)));
        works
    }

    pub(in super::super) async fn without_identity() -> Self {
        let ca = Authority::new();
        let works = Self {
            broker: ca.issue("device/plc").0,
            ca,
            world: World::new(SeatLimits::default()),
        };
        works.put(|_| ()).await;
        works
    }

    pub(in super::super) async fn put(&self, change: impl FnOnce(&mut Plan)) {
        let mut plan = mqtts(self.port(), Some(Tls::default()));
        change(&mut plan);
        let policy = Inspector::prepare(Arc::new(plan), Revision(4)).unwrap();
        self.world.inspector.put(policy).await;
    }

    pub(in super::super) fn port(&self) -> u16 {
        self.world.server.local_addr().unwrap().port()
    }

    pub(in super::super) fn device(&self, name: &str) -> Credentials {
        self.ca.issue(&format!("device/{name}")).0
    }

    /// An ordinary client: it checks the server's address against the certificate.
    pub(in super::super) async fn dial(
        &self,
        own: Option<Credentials>,
    ) -> io::Result<client::TlsStream<tokio::net::TcpStream>> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.ca.roots());
        let config = match own {
            Some(own) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified().unwrap())))
            }
            None => builder.with_no_client_auth(),
        };
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.world.inspector.ports().v4)).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The broker's side of the next connection.
    pub(in super::super) async fn serve(&self) -> io::Result<server::TlsStream<tokio::net::TcpStream>> {
        self.serve_on(self.reached().await?).await
    }

    /// The next connection to the broker, before its handshake.
    pub(super) async fn reached(&self) -> io::Result<tokio::net::TcpStream> {
        let listener = self.world.server.try_clone().unwrap();
        let (stream, _) = tokio::task::spawn_blocking(move || listener.accept()).await??;
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    }

    pub(super) async fn serve_on(
        &self,
        stream: tokio::net::TcpStream,
    ) -> io::Result<server::TlsStream<tokio::net::TcpStream>> {
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(self.ca.roots()),
            provider(),
        );
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.broker.certified().unwrap())));
        TlsAcceptor::from(Arc::new(config)).accept(stream).await
    }

    /// A device and its broker, which have greeted each other.
    pub(in super::super) async fn pair(
        &self,
    ) -> (
        client::TlsStream<tokio::net::TcpStream>,
        server::TlsStream<tokio::net::TcpStream>,
    ) {
        self.pair_of(self.device("hmi")).await
    }

    /// The same for this device.
    pub(in super::super) async fn pair_of(
        &self,
        own: Credentials,
    ) -> (
        client::TlsStream<tokio::net::TcpStream>,
        server::TlsStream<tokio::net::TcpStream>,
    ) {
        let (client, served) = tokio::join!(self.dial(Some(own)), self.serve());
        let (mut client, mut served) = (client.unwrap(), served.unwrap());
        client.write_all(CONNECT).await.unwrap();
        assert_eq!(take(&mut served, CONNECT.len()).await, CONNECT);
        served.write_all(CONNACK).await.unwrap();
        assert_eq!(take(&mut client, CONNACK.len()).await, CONNACK);
        (client, served)
    }

    /// What a client with this certificate meets with: an error, sooner or later. The server hears of nobody.
    pub(in super::super) async fn refuses(
        &mut self,
        own: Option<Credentials>,
        because: &str,
    ) -> OperationSeen {
        let error = match self.dial(own).await {
            Ok(mut client) => client.read_u8().await.unwrap_err(),
            Err(error) => error,
        };
        let told = self.world.until(because).await.pop().unwrap();
        self.world.server.set_nonblocking(true).unwrap();
        assert_eq!(
            self.world.server.accept().unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "{error}"
        );
        self.world.server.set_nonblocking(false).unwrap();
        told
    }
}
