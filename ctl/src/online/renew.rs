//! The login's certificate is renewed before its end: by `penstock login --renew`, or by whatever asks a coordinator in the last third of its
//! life, without a word.
//!
//! It is renewed for the key that it has, over a connection that this key opened. What comes back is held against that before it is kept, and the
//! certificate before it stays on the disk. One that has ended is not renewed: an admin makes a token, or its owner signs in through the identity provider.

use std::time::Duration;

use penstock_proto::keys::certificate_request;
use penstock_proto::peer::{PeerIdentity, certified_key};
use penstock_proto::tls::{Credentials, certificates_to_pem, times, validity_ms};
use penstock_proto::v1::RenewRequest;
use rcgen::PublicKeyData as _;
use rustls::pki_types::CertificateDer;

use super::{Online, malformed, refused};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::aside;
use crate::words;

/// How long a command waits for a renewal that nobody asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a certificate is in the last third of its life.
fn is_due((from_ms, until_ms): (u64, u64), now_ms: u64) -> bool {
    let third = until_ms.saturating_sub(from_ms) / 3;
    now_ms >= until_ms.saturating_sub(third) && now_ms < until_ms
}

/// Renews the login if it is time. What comes of it is no concern of the command: it is tried again with the next one.
pub(super) async fn in_time(online: &mut Online, shown: &Credentials) {
    let due = shown
        .validity_ms()
        .is_ok_and(|validity| is_due(validity, words::now_ms()));
    if !due {
        return;
    }
    let name = online.login.name.clone();
    match tokio::time::timeout(PATIENCE, renew(online, shown)).await {
        Ok(Ok(until_ms)) => {
            let until = words::when(until_ms, words::now_ms());
            aside(&format!(
                "the certificate of the login `{name}` was renewed, and holds until {until}"
            ));
        }
        Ok(Err(failure)) => aside(&format!(
            "the certificate of the login `{name}` could not be renewed yet: {}",
            failure.message
        )),
        Err(_) => aside(&format!(
            "the certificate of the login `{name}` could not be renewed yet: no answer within {} s",
            PATIENCE.as_secs()
        )),
    }
}

/// Renews the login; until when it holds then, milliseconds since 1970.
pub(super) async fn renew(online: &mut Online, shown: &Credentials) -> Result<u64, Failure> {
    let name = online.login.name.clone();
    if !online.contexts.has_key_of(&name, shown) {
        return Err(Failure::local(
            "login-before",
            format!("the newest certificate of the login `{name}` is not accepted, and the one before it is not renewed"),
        )
        .help("is this machine's clock right? else log in again: penstock login --token FILE"));
    }
    let key = shown.key();
    let request = certificate_request(key, None).map_err(|error| {
        Failure::local("key-unusable", "the login's key cannot sign a request").caused_by(&error)
    })?;
    let request = RenewRequest {
        certificate_request: request.into(),
        ..RenewRequest::default()
    };
    let answer = online.client.renew_operator(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let chain: Vec<CertificateDer<'static>> = answer
        .certificate_chain
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let leaf = chain
        .first()
        .ok_or_else(|| malformed("it holds no certificate"))?;
    let unreadable = |error: &dyn std::error::Error| malformed(&error.to_string());
    let named = PeerIdentity::from_certificate(leaf).map_err(|error| unreadable(&error))?;
    let own = shown.identity().map_err(|error| unreadable(&error))?;
    if named != own {
        return Err(malformed(&format!("the certificate names {named}, not {own}")));
    }
    if certified_key(leaf) != Some(key.subject_public_key_info()) {
        return Err(malformed("the certificate is for another key"));
    }
    let (_, until_ms) = validity_ms(leaf).map_err(|error| unreadable(&error))?;
    online
        .contexts
        .keep_renewed(&name, &certificates_to_pem(&chain))?;
    Ok(until_ms)
}

/// What a login is refused with whose certificates have all ended; `None`: one has not.
pub(super) fn ended(name: &str, all: &[Credentials], why: &str) -> Option<Failure> {
    let now_ms = words::now_ms();
    let ends: Vec<u64> = all
        .iter()
        .map(|one| one.validity_ms().map_or(u64::MAX, |(_, until_ms)| until_ms))
        .collect();
    let last = ends.iter().max().filter(|until_ms| **until_ms <= now_ms)?;
    Some(
        Failure::new(
            Exit::Local,
            "login-ended",
            format!("the certificate of the login `{name}` ended at {}, and is not renewed any more", times::instant(*last)),
        )
        .because(why)
        .help("ask an admin for a token (penstock operators add NAME --role ROLE -o FILE), then: penstock login --token FILE")
        .help("where the plant has an identity provider and your account is linked: penstock login --oidc")
        .help("where no admin is left, a token is made on the coordinator's own machine: penstock-coordinator token"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_renewed_in_the_last_third_of_its_life_and_not_after_its_end() {
        let validity = (1_000, 4_000);
        for (now_ms, due) in [
            (0, false),
            (2_999, false),
            (3_000, true),
            (3_999, true),
            (4_000, false),
        ] {
            assert_eq!(is_due(validity, now_ms), due, "{now_ms}");
        }
    }
}
