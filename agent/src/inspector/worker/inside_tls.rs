//! How a connection inside TLS comes to stand: first the client proves which device it is, so that nobody else gets as far
//! as the server; then the server proves which asset it is, unless it speaks no TLS: then it is spoken to in the plain.
//!
//! What goes wrong before the client's handshake is over is told to it by TLS's alert, later by a reset.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use penstock_policy::terms::Tls;
use penstock_proto::peer;
use tokio::net::TcpStream;

use super::opening::PolicyAnswer;
use super::{Worker, now};
use crate::inspector::handshake;
use crate::inspector::leg::Leg;
use crate::inspector::lookup::InspectionPolicy;
use crate::inspector::seats::Seat;
use crate::inspector::session::Lives;
use crate::inspector::tuple::Tuple;
use crate::observed::Subject;

/// Why a connection inside TLS does not come to stand.
enum HandshakeFailure {
    /// The client is at fault.
    TurnedAway(String),
    /// The server, or the gateway.
    Unable(String),
}

impl Worker {
    pub(super) async fn serve_inside_tls(
        self: Rc<Self>,
        stream: TcpStream,
        (client, mut tuple): (SocketAddr, Tuple),
        (policy, tls): (Arc<InspectionPolicy>, Arc<Tls>),
        mut seat: Seat,
    ) {
        let met = tokio::select! {
            met = self.meet(stream, (client, &mut tuple), (&policy, &tls)) => met,
            end = seat.lost() => Err(HandshakeFailure::Unable(end.words().into_owned())),
        };
        let opened = match met {
            // It may be another one by now.
            Ok(legs) => match self.settled_policy().await {
                Ok(policy) => Ok((legs, policy)),
                Err(why) => {
                    let (legs, _) = legs;
                    legs.0.reset_on_close();
                    legs.1.reset_on_close();
                    Err(HandshakeFailure::Unable(why))
                }
            },
            Err(failure) => Err(failure),
        };
        match opened {
            Ok(((legs, lives), policy)) => {
                let said = PolicyAnswer::of(policy, &tuple);
                let inside = Some((tls, lives));
                self.stand((client, tuple), legs, inside, said, seat).await;
            }
            Err(failure) => match (self.tally(&tuple), failure) {
                (Some(tally), HandshakeFailure::TurnedAway(why)) => {
                    tally
                        .borrow_mut()
                        .turned_away(now(), format!("connection refused: {why}"));
                }
                (Some(tally), HandshakeFailure::Unable(why)) => {
                    tally.borrow_mut().note(now(), Subject::Note, why);
                }
                (None, _) => self.untold(),
            },
        }
    }

    /// Both handshakes, and whose lives they showed; the client's device stands in the tuple then.
    async fn meet(
        &self,
        stream: TcpStream,
        (client, tuple): (SocketAddr, &mut Tuple),
        (policy, tls): (&InspectionPolicy, &Tls),
    ) -> Result<((Leg, Leg), Box<Lives>), HandshakeFailure> {
        let unable = |why: String| HandshakeFailure::Unable(format!("connection reset: {why}"));
        let reset = |stream: TcpStream, why: String| {
            Leg::plain(stream).reset_on_close();
            unable(why)
        };
        let Some(own) = self.shared.own.get() else {
            let why = "this gateway has no certificate to end the client's TLS with: enrol it";
            return Err(reset(stream, why.to_owned()));
        };
        let Some(asset) = policy.server(tuple.client, tuple.server) else {
            let why =
                "TLS ends here only before a server that the flow names as an asset, and it names a zone";
            return Err(reset(stream, why.to_owned()));
        };
        let devices = policy.devices(tuple.client, tuple.server);
        let roles = policy.role_reading(tuple.client, tuple.server);
        let config = match own.towards_clients(devices, roles) {
            Ok(config) => config,
            Err(why) => return Err(reset(stream, why)),
        };
        let (leg, life, role) = handshake::accept(&self.shared.handshakes, (stream, tuple.client), config)
            .await
            .map_err(HandshakeFailure::TurnedAway)?;
        if let peer::Subject::Device(device) = &life.subject {
            tuple.device = Some(Rc::new(device.clone()));
        }
        match role {
            Ok(role) => tuple.role = role,
            // Its handshake would not have come about where its role counts and zones enforce.
            Err(error) if policy.tells_roles_apart(tuple.client, tuple.server) => self.note(
                tuple,
                &format!("the client counts as one without a role: {error}"),
            ),
            Err(_) => {}
        }
        let leg = Leg::tls(leg);
        if let Some(port) = tls.plain_port {
            let server = SocketAddr::new(tuple.server.ip(), port);
            return match self.reach(client, server).await {
                Ok(stream) => {
                    let lives = Lives {
                        client: life,
                        server: None,
                    };
                    Ok(((leg, Leg::plain(stream)), Box::new(lives)))
                }
                Err(why) => {
                    leg.reset_on_close();
                    Err(HandshakeFailure::Unable(format!(
                        "{why} (in the plain, at port {port})"
                    )))
                }
            };
        }
        let server = async {
            let server = own
                .towards_server(tls, asset, tuple.server.ip())
                .map_err(unable)?;
            let stream = self
                .reach(client, tuple.server)
                .await
                .map_err(HandshakeFailure::Unable)?;
            handshake::connect(&self.shared.handshakes, (stream, tuple.client), &server)
                .await
                .map_err(unable)
        };
        match server.await {
            Ok((stream, server)) => {
                let lives = Lives { client: life, server };
                Ok(((leg, Leg::tls(stream)), Box::new(lives)))
            }
            Err(failure) => {
                leg.reset_on_close();
                Err(failure)
            }
        }
    }
}
