//! TLS handshakes on either side of an inspected connection: with words for what went wrong.
//!
//! They are computed on a thread of their own ([`Handshakes`]), so that no stranger delays what the other threads carry;
//! there they are bounded, and shared by the client's address.
//!
//! The client's is first: nobody whom the policy does not name gets as far as the server. What fails is ended so that
//! the peer can read TLS's alert, and is never carried on in the plain.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::RoleName;
use penstock_proto::peer::Subject;
use penstock_proto::tls::WrongPeer;
use penstock_proto::tls::data_path::{self, RoleError};
use penstock_proto::tls::handshakes::Handshakes;
use penstock_proto::tls::socket::Socket;
use penstock_proto::tls::times::peer_refused;
use penstock_proto::withdrawn::Life;
use rustls::{AlertDescription, CertificateError, Error, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::identity::Server;
use super::leg::TLS_BUFFER_BYTES;

/// So long a peer that was refused is heard, so that the alert is not lost in a reset.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// And so much of it.
const FAREWELL_BYTES_MAX: usize = 64 * 1024;

/// Meets a client, which must be one of the devices that `config` accepts; which it is, in which life, and in which role.
pub(super) async fn accept(
    handshakes: &Handshakes,
    (stream, client): (TcpStream, IpAddr),
    config: Arc<ServerConfig>,
) -> Result<
    (
        server::TlsStream<Socket>,
        Life,
        Result<Option<RoleName>, RoleError>,
    ),
    String,
> {
    let stream = stream.into_std().map_err(|error| error.to_string())?;
    let work = async move {
        let stream = Socket::of_stranger(TcpStream::from_std(stream)?);
        match TlsAcceptor::from(config).accept(stream).into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, stream)) => {
                farewell(stream).await;
                Err(error)
            }
        }
    };
    let met = handshakes.meet(client, work).await;
    let met = met.map_err(|unmet| format!("the client was turned away: {unmet}"))?;
    let mut stream = met.map_err(|error| client_failed(&error))?;
    let (socket, tls) = stream.get_mut();
    tls.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    settle(socket)?;
    match data_path::peer(stream.get_ref().1) {
        Some(life) if matches!(life.subject, Subject::Device(_)) => {
            let role = data_path::role(stream.get_ref().1);
            Ok((stream, life, role))
        }
        _ => Err("the client's certificate names no device".to_owned()),
    }
}

/// Meets a server, for the client at this address; which life of it, where it is known by the plant's authority.
pub(super) async fn connect(
    handshakes: &Handshakes,
    (stream, client): (TcpStream, IpAddr),
    server: &Server,
) -> Result<(client::TlsStream<Socket>, Option<Life>), String> {
    let stream = stream.into_std().map_err(|error| error.to_string())?;
    let (connector, name) = (
        TlsConnector::from(Arc::clone(&server.config)),
        server.name.clone(),
    );
    let work = async move {
        let stream = Socket::of_stranger(TcpStream::from_std(stream)?);
        match connector.connect(name, stream).into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, stream)) => {
                farewell(stream).await;
                Err(error)
            }
        }
    };
    let met = handshakes.meet(client, work).await;
    let met = met.map_err(|unmet| format!("the server cannot be reached by TLS: {unmet}"))?;
    let mut stream = met.map_err(|error| server_failed(&error))?;
    let (socket, tls) = stream.get_mut();
    tls.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    settle(socket)?;
    let life = server.of_plant.then(|| data_path::peer(stream.get_ref().1));
    Ok((stream, life.flatten()))
}

fn settle(socket: &mut Socket) -> Result<(), String> {
    socket
        .settle()
        .map_err(|error| format!("the socket cannot be watched: {error}"))?;
    // Its seat counts that (`Leg::held_bytes`).
    socket.read_ahead();
    Ok(())
}

/// Ends a stream so that what was sent last arrives: closing on unheard bytes would be a reset.
async fn farewell(mut stream: Socket) {
    let hearing = async {
        let _ = stream.shutdown().await;
        let (mut heard, mut buffer) = (0, [0; 2048]);
        while heard < FAREWELL_BYTES_MAX {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => heard += count,
            }
        }
    };
    let _ = tokio::time::timeout(FAREWELL_MAX, hearing).await;
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn is_of_another_plants_authority(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnknownIssuer | CertificateError::BadSignature
    )
}

fn wrong_peer(error: &CertificateError) -> Option<&WrongPeer> {
    match error {
        CertificateError::Other(reason) => reason.0.downcast_ref(),
        _ => None,
    }
}

fn role_fault(error: &CertificateError) -> Option<&RoleError> {
    match error {
        CertificateError::Other(reason) => reason.0.downcast_ref(),
        _ => None,
    }
}

fn is_withdrawn(error: &CertificateError) -> bool {
    matches!(wrong_peer(error), Some(WrongPeer::Over { .. }))
}

fn is_another_peer(error: &CertificateError) -> bool {
    wrong_peer(error).is_some() && !is_withdrawn(error)
}

/// TLS has one word for a certificate that is too old and for one whose time has not come.
fn outlived(peer: &str, what: &str) -> String {
    format!(
        "the {peer} rejects this gateway's certificate as expired or not valid yet ({what}): compare the {peer}'s clock with this gateway's, and with the validity that `penstock-agent status` shows"
    )
}

/// Why a client's TLS failed, and what to do about it.
pub(super) fn client_failed(error: &io::Error) -> String {
    let what = data_path::explain(error);
    let Some(tls) = tls(error) else {
        if error.kind() == io::ErrorKind::InvalidData {
            return format!("the client aborted the TLS handshake ({what})");
        }
        return format!("the client closed the connection during the TLS handshake ({what})");
    };
    if let Error::InvalidCertificate(wrong) = tls
        && let Some(words) = peer_refused(wrong, "the client's", "issue it again (penstock devices issue)")
    {
        return words;
    }
    match tls {
        Error::InvalidMessage(_) => format!(
            "the client does not speak TLS, which this flow's clients must ({what}): switch TLS on in the client, or let \
             it use the port of a flow without TLS"
        ),
        Error::NoCertificatesPresented => {
            "the client shows no certificate: give it the one of its asset (penstock devices \
                                           issue)"
                .to_owned()
        }
        Error::InvalidCertificate(wrong) if role_fault(wrong).is_some() => format!(
            "the flow asks for the client's role, and {what}: issue the device another certificate, in one role (penstock devices issue \
             --role)"
        ),
        Error::InvalidCertificate(wrong) if is_withdrawn(wrong) => {
            format!(
                "{what}: if the device is where it belongs, issue it another one for a new key (penstock devices issue)"
            )
        }
        Error::InvalidCertificate(wrong) if is_another_peer(wrong) => {
            format!(
                "{what}: only the devices that the flow names as sources get in, each from its own address"
            )
        }
        Error::InvalidCertificate(wrong) if is_of_another_plants_authority(wrong) => format!(
            "the client's certificate is not of this plant's authority ({what}): give it the one of its asset (penstock \
             devices issue)"
        ),
        Error::InvalidCertificate(_) => format!(
            "the client's certificate is refused ({what}): give it the one of its asset (penstock devices issue)"
        ),
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            format!(
                "the client and this gateway have no TLS version in common ({what}): the client must support TLS 1.3"
            )
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => outlived("client", &what),
        Error::AlertReceived(_) => format!(
            "the client refuses this gateway's certificate ({what}): it must trust the plant's authority (penstock devices \
             authority), and call the server by its address or by the flow's server_name"
        ),
        _ => format!("the client's TLS failed ({what})"),
    }
}

/// Why a server's TLS failed, and what to do about it.
pub(super) fn server_failed(error: &io::Error) -> String {
    let what = data_path::explain(error);
    let Some(tls) = tls(error) else {
        if error.kind() == io::ErrorKind::InvalidData {
            return format!("the server aborted the TLS handshake ({what})");
        }
        return format!("the server closed the connection during the TLS handshake ({what})");
    };
    if let Error::InvalidCertificate(wrong) = tls
        && let Some(words) = peer_refused(wrong, "the server's", "issue it again")
    {
        return words;
    }
    match tls {
        Error::InvalidMessage(_) => {
            format!(
                "the server does not speak TLS, which this flow's server must ({what}): switch TLS on in it"
            )
        }
        Error::InvalidCertificate(wrong) if is_withdrawn(wrong) => {
            format!(
                "{what}: if the server is where it belongs, issue it another one for a new key (penstock devices issue)"
            )
        }
        Error::InvalidCertificate(wrong) if is_another_peer(wrong) => {
            format!("{what}: give the server the certificate of its asset (penstock devices issue)")
        }
        Error::InvalidCertificate(_) => format!(
            "the server's certificate is not good ({what}): it must be of the plant's authority (penstock devices issue), \
             or of the flow's server_authorities and for its server_name or address"
        ),
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            format!(
                "the server and this gateway have no TLS version in common ({what}): the server must support TLS 1.3"
            )
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => outlived("server", &what),
        Error::AlertReceived(_) => format!(
            "the server refuses this gateway's certificate ({what}): let it trust the plant's authority (penstock devices \
             authority)"
        ),
        _ => format!("the server's TLS failed ({what})"),
    }
}
