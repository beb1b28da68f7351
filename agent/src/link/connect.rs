//! A connection to a coordinator with the certificate that it accepts.
//!
//! Which of this gateway's certificates does is for the coordinator to say: the clock here may be wrong, and so may the one
//! by which a certificate was issued. The one that is good by the clock here is shown first, and where the coordinator does not
//! accept it, the others ([`crate::identity`]).
//!
//! One that has ended by the coordinator's clock is accepted for a renewal alone, which shows only when something else is asked for:
//! then the next one that ends later is shown ([`Shown`]).

use penstock_proto::channel::{self, Address, ConnectError};
use penstock_proto::tls::TlsError;
use penstock_proto::tls::times::instant;
use tonic::transport::Channel;

use crate::identity::Identity;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The identity cannot be used.
    #[error("the identity of this gateway cannot be used for TLS")]
    Tls(#[from] TlsError),
    /// No coordinator could be reached, or none accepts any of the certificates.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// A connection.
pub struct LinkChannel {
    /// To the coordinator.
    pub channel: Channel,
    /// Which certificate was not accepted, why, and which one was, if not the first.
    pub fell_back: Option<String>,
    /// Which certificate was accepted.
    pub shown: Shown,
    /// From when until when it is valid, milliseconds since 1970.
    pub validity_ms: (u64, u64),
}

/// Which of a gateway's certificates, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shown(usize);

impl Shown {
    /// The next one that ends later, if there is one: where this one has ended, all that end before it have, too.
    pub fn later_of(self, identity: &Identity) -> Option<Self> {
        let ends: Vec<u64> = identity
            .profiles()
            .map(|profile| profile.credentials.and_then(|own| own.validity_ms().ok()))
            .map(|span| span.map_or(0, |(_, until)| until))
            .collect();
        let own = ends.get(self.0)?;
        let later = ends.iter().enumerate().skip(self.0 + 1);
        later
            .into_iter()
            .find(|(_, until)| *until > own)
            .map(|(index, _)| Self(index))
    }
}

/// Connects as `identity`, or says why the first certificate does not do. The certificates before `from` are not shown.
///
/// # Errors
/// No coordinator can be reached, or none accepts a certificate of this gateway.
pub async fn connect(
    addresses: Vec<Address>,
    identity: &Identity,
    from: Shown,
) -> Result<LinkChannel, LinkError> {
    let mut first: Option<ConnectError> = None;
    for (index, profile) in identity.profiles().enumerate().skip(from.0) {
        let tls = profile.config_knowing(identity.plant_trust().withdrawn)?;
        let span = tls.own_validity_ms;
        match channel::connect(addresses.clone(), tls).await {
            Ok(channel) => {
                let fell_back = first.map(|refused| {
                    let (from, until) = span.unwrap_or_default();
                    format!(
                        "{refused}; another certificate of this gateway is in use, valid from {} until {}",
                        instant(from),
                        instant(until)
                    )
                });
                return Ok(LinkChannel {
                    channel,
                    fell_back,
                    shown: Shown(index),
                    validity_ms: span.unwrap_or_default(),
                });
            }
            Err(error) if error.own_refused => {
                first.get_or_insert(error);
            }
            Err(error) => return Err(first.unwrap_or(error).into()),
        }
    }
    Err(first.unwrap_or_else(ConnectError::nowhere).into())
}
