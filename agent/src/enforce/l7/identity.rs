//! The gateway's own identity, as TLS on the data path uses it: what new connections are met with, and what is wrong
//! with it.
//!
//! A renewed identity serves the connections that come; standing ones keep the keys that they agreed on. A certificate
//! that ended serves on: whether that is good enough is for each client and broker to say, and the fault says it here.
//! Without any identity TLS cannot end here, and such connections are refused.

use std::sync::{Arc, PoisonError, RwLock};

use penstock_policy::plan::Plan;
use penstock_proto::tls::server::ServerCredentials;

use crate::identity::Identity;

/// An identity, ready to meet clients with.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) identity: Arc<Identity>,
    pub(super) server: Arc<ServerCredentials>,
}

/// The identity that new connections are met with.
#[derive(Debug, Default)]
pub(super) struct Own(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    ready: Option<Arc<Ready>>,
    /// Why one that was given is not used.
    problem: Option<String>,
}

/// Something about the identity that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFault {
    /// One of a few fixed words.
    pub code: &'static str,
    /// What it means, and what to do.
    pub message: String,
}

impl Own {
    /// From now on, new connections are met with this one. One that cannot be used leaves the one before.
    pub(super) fn replace(&self, identity: Option<Arc<Identity>>) {
        let made = identity
            .map(|identity| {
                let server = ServerCredentials::new(identity.credentials())?;
                Ok::<_, penstock_proto::tls::TlsError>(Arc::new(Ready { identity, server }))
            })
            .transpose();
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match made {
            Ok(ready) => (state.ready, state.problem) = (ready, None),
            Err(error) => state.problem = Some(error.to_string()),
        }
    }

    pub(super) fn get(&self) -> Option<Arc<Ready>> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        state.ready.clone()
    }

    /// What is wrong with it at `now_ms` for connections under `plan`.
    pub(super) fn fault(&self, plan: &Plan, now_ms: u64) -> Option<IdentityFault> {
        if plan.rules.iter().all(|rule| rule.tls.is_none()) {
            return None;
        }
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = &state.problem {
            return Some(IdentityFault {
                code: "tls-identity-unusable",
                message: format!(
                    "the gateway's newest certificate cannot be used for the TLS of clients: {problem}; {}",
                    match &state.ready {
                        Some(_) =>
                            "the one before serves on: look at the coordinator's certificate authority",
                        None => "they are refused: enrol this gateway again",
                    }
                ),
            });
        }
        let Some(ready) = &state.ready else {
            return Some(IdentityFault {
                code: "tls-without-identity",
                message: "the policy ends the TLS of clients here, and this gateway has no certificate to meet them \
                          with: they are refused until it is enrolled (penstock-agent enrol)"
                    .to_owned(),
            });
        };
        let (_, until_ms) = ready.identity.validity_ms().ok()?;
        (until_ms <= now_ms).then(|| IdentityFault {
            code: "tls-certificate-expired",
            message: "the gateway's certificate ended, and clients whose TLS ends here may refuse it; it serves on: look \
                      at the link to the coordinator, which renews it"
                .to_owned(),
        })
    }
}
