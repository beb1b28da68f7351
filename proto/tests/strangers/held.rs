//! What strangers make a listener hold: handshakes and connections, by one source, one certificate, or without an end.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use penstock_proto::tls::Credentials;
use penstock_proto::tls::server::{AcceptLimits, Reception, ServerCredentials, server_config};
use penstock_proto::tls::socket::HANDSHAKE_BYTES_MAX;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_stream::StreamExt as _;
use tonic::transport::server::Connected as _;

use super::shown::{Authority, Believes, client_showing, plant};

/// A claim that does not hold fails by then; no test that passes waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
#[tokio::test]
async fn a_handshake_longer_than_any_of_ours_is_given_up() {
    let ca = Authority::named("root of water");
    let server = serve(&ca, AcceptLimits::default()).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    // A greeting that says it has 60,000 bytes, in records of one byte each.
    let mut sent = 0;
    let mut greeting = vec![1, 0, 0xea, 0x60];
    greeting.resize(60_000, 0);
    for byte in greeting {
        if stream.write_all(&[22, 3, 1, 0, 1, byte]).await.is_err() {
            break;
        }
        sent += 6;
    }
    // What is in the sockets' buffers does not count; the end does.
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(sent >= HANDSHAKE_BYTES_MAX, "{sent}");
}

/// A coordinator's door: it greets whom it let in.
async fn serve(ca: &Authority, limits: AcceptLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = ServerCredentials::new(&ca.issue("coordinator/c1")).unwrap();
    let config = server_config(&plant(), own, &[ca.root()]).unwrap();
    let mut incoming = Box::pin(Reception::start(config, limits).unwrap().incoming(listener));
    tokio::spawn(async move {
        while let Some(peer) = incoming.next().await {
            tokio::spawn(async move {
                let mut peer = peer.unwrap();
                let _ = peer.write_all(b"in").await;
                let _ = peer.flush().await;
                // It stands until the client ends it, or it is cut.
                let _ = peer.read(&mut [0; 1]).await;
            });
        }
    });
    address
}

async fn dial_from(source: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket.connect(server).await.unwrap()
}

/// Whether a client without a certificate from `source` is let in; it stays for as long as the stream lives.
async fn gets_in(source: Ipv4Addr, server: SocketAddr) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut stream = knocks(source, server).await?;
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).await.ok()?;
    Some(stream)
}

/// A client without a certificate after its side of the handshake. It has read nothing.
async fn knocks(source: Ipv4Addr, server: SocketAddr) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believes))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("broker.example").unwrap();
    let tcp = dial_from(source, server).await;
    connector.connect(name, tcp).await.ok()
}

/// A door that writes to everybody without end, and reports how that ended; with `cut`, it cuts them meanwhile.
async fn serve_without_end(
    ca: &Authority,
    limits: AcceptLimits,
    cut: bool,
) -> (SocketAddr, mpsc::Receiver<io::Error>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = ServerCredentials::new(&ca.issue("coordinator/c1")).unwrap();
    let config = server_config(&plant(), own, &[ca.root()]).unwrap();
    let mut incoming = Box::pin(Reception::start(config, limits).unwrap().incoming(listener));
    let (ended, ends) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(peer) = incoming.next().await {
            let mut peer = peer.unwrap();
            let (ended, line) = (ended.clone(), peer.connect_info().line);
            let (mut full, is_full) = (Some(()), Arc::new(Notify::new()));
            let fills = Arc::clone(&is_full);
            tokio::spawn(async move {
                let error = std::future::poll_fn(|cx| {
                    loop {
                        match Pin::new(&mut peer).poll_write(cx, &[0; 16 * 1024]) {
                            Poll::Ready(Ok(_)) => {}
                            Poll::Ready(Err(error)) => return Poll::Ready(error),
                            Poll::Pending => {
                                full.take().inspect(|()| fills.notify_one());
                                return Poll::Pending;
                            }
                        }
                    }
                })
                .await;
                // Whoever asks again is answered the same.
                assert_eq!(peer.flush().await.unwrap_err().kind(), error.kind());
                assert_eq!(peer.read(&mut [0; 1]).await.unwrap_err().kind(), error.kind());
                assert_eq!(peer.shutdown().await.unwrap_err().kind(), error.kind());
                ended.send(error).await.unwrap();
            });
            if cut {
                is_full.notified().await;
                line.cut();
            }
        }
    });
    (address, ends)
}

#[tokio::test]
async fn a_peer_that_takes_no_more_bytes_escapes_neither_its_deadline_nor_the_loss_of_its_place_nor_a_cut() {
    let ca = Authority::named("root of water");
    let long = AcceptLimits {
        anonymous_max: 1,
        anonymous_lifetime: Duration::from_secs(600),
        ..AcceptLimits::default()
    };
    let short = AcceptLimits {
        anonymous_lifetime: Duration::from_millis(500),
        ..AcceptLimits::default()
    };
    let crowded = AcceptLimits {
        anonymous_lifetime: Duration::from_secs(3),
        ..long
    };
    for (limits, cut, peers, words) in [
        (long, true, 1, "does not read"),
        (short, false, 1, "without a client certificate is over"),
        (crowded, false, 2, "limit of connections is reached"),
    ] {
        let (server, mut ends) = serve_without_end(&ca, limits, cut).await;
        let first = knocks(Ipv4Addr::LOCALHOST, server).await.unwrap();
        let mut others = Vec::new();
        while others.len() + 1 < peers {
            // Among equals a place is lost once it is a sixth of its time old.
            others.extend(gets_in(Ipv4Addr::new(127, 0, 0, 2), server).await);
        }
        let error = tokio::time::timeout(PATIENCE, ends.recv()).await;
        let error = error
            .expect("a peer that does not read kept its connection")
            .unwrap();
        assert!(error.to_string().contains(words), "{error}");
        drop((first, others));
    }
}

#[tokio::test]
async fn one_source_that_holds_all_handshakes_or_all_connections_keeps_no_other_out() {
    let ca = Authority::named("root of water");
    let limits = AcceptLimits {
        handshake_timeout: Duration::from_secs(600),
        linger: Duration::from_secs(1),
        handshakes_max: 8,
        connections_max: 8,
        anonymous_max: 4,
        anonymous_lifetime: Duration::from_secs(600),
    };
    let server = serve(&ca, limits).await;
    let (greedy, other) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(dial_from(greedy, server).await);
    }
    let first = gets_in(other, server).await.expect("beside silent ones");
    drop((silent, first));
    let mut held = Vec::new();
    for _ in 0..4 {
        // Its silent ones may still be on their way out.
        held.push(
            tokio::time::timeout(PATIENCE, async {
                loop {
                    if let Some(stream) = gets_in(greedy, server).await {
                        break stream;
                    }
                }
            })
            .await
            .unwrap(),
        );
    }
    assert!(
        gets_in(other, server).await.is_some(),
        "beside connections that stand"
    );
    let cut = tokio::time::timeout(PATIENCE, async {
        loop {
            for stream in &mut held {
                let mut byte = [0; 1];
                if let Ok(end) = tokio::time::timeout(Duration::from_millis(10), stream.read(&mut byte)).await
                {
                    return end.map_or(true, |count| count == 0);
                }
            }
        }
    });
    assert!(cut.await.unwrap(), "the oldest of the greedy one made room");
}

/// Whether a peer with this certificate is let in; it stays for as long as the stream lives.
async fn known_gets_in(
    credentials: &Credentials,
    server: SocketAddr,
) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
    let connector = tokio_rustls::TlsConnector::from(client_showing(credentials, &[b"h2"]));
    let name = ServerName::try_from("broker.example").unwrap();
    let tcp = TcpStream::connect(server).await.unwrap();
    let mut stream = connector.connect(name, tcp).await.ok()?;
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).await.ok()?;
    Some(stream)
}

#[tokio::test]
async fn one_certificate_holds_a_few_places_and_a_broken_line_keeps_nobody_from_coming_back() {
    let ca = Authority::named("root of water");
    let limits = AcceptLimits {
        connections_max: 40,
        ..AcceptLimits::default()
    };
    let server = serve(&ca, limits).await;
    let greedy = ca.issue("gateway/gw-1");
    let mut held = Vec::new();
    for _ in 0..50 {
        // The newest one is always let in: it may be all that is left of a peer whose line broke.
        held.push(known_gets_in(&greedy, server).await.expect("the newest"));
    }
    // As many as one may hold leave places to others, at once and without waiting for anybody's end.
    let mut others = Vec::new();
    for number in 2..10 {
        let other = ca.issue(&format!("gateway/gw-{number}"));
        others.push(known_gets_in(&other, server).await.expect("another peer"));
    }
    // The oldest of its own were lost, and the newest stands.
    let mut newest = held.pop().unwrap();
    for mut stream in held.drain(..18) {
        let mut byte = [0; 1];
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut byte))
            .await
            .unwrap();
        assert!(end.map_or(true, |count| count == 0));
    }
    let mut byte = [0; 1];
    let stands = tokio::time::timeout(Duration::from_millis(100), newest.read(&mut byte)).await;
    assert!(stands.is_err());
}
