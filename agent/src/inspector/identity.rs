//! The gateway's own identity, as TLS on the data path uses it: what new connections are met with, and what is wrong
//! with it.
//!
//! A renewed identity serves the connections that come; standing ones keep the keys that they agreed on. A certificate
//! that ended serves on: whether that is good enough is for each client and broker to say, and the fault says it here.
//! Without any identity TLS cannot end here, and such connections are refused.
//!
//! What the library needs for a handshake is set up once for each identity and each thing that flows say of TLS, and
//! shared by the connections: they differ in nothing but their keys. Sessions are not resumed, on neither side: a
//! resumed one is let in without its certificate, so that a device would outlive it. The list of withdrawn keys is asked by
//! each handshake, so that a longer one needs no other set-up.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use penstock_policy::ids::AssetId;
use penstock_policy::plan::Plan;
use penstock_policy::terms::Tls;
use penstock_proto::tls::data_path::{self, Devices, RoleReading};
use penstock_proto::tls::server::ServerCredentials;
use penstock_proto::tls::times::instant;
use penstock_proto::withdrawn::Life;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use crate::identity::Identity;

/// Sets of devices, and servers, whose set-up is kept.
const KEPT_MAX: usize = 1024;

/// An identity, ready to meet clients and servers with.
#[derive(Debug)]
pub(super) struct TlsIdentity {
    identity: Arc<Identity>,
    server: Arc<ServerCredentials>,
    clients: Cache<(Devices, RoleReading), ServerConfig>,
    servers: Cache<(Tls, AssetId, IpAddr), Server>,
}

/// How a server is met.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
    /// It is known by the plant's authority, so that its key can be withdrawn.
    pub(super) of_plant: bool,
}

impl TlsIdentity {
    pub(super) fn new(identity: Arc<Identity>) -> Result<Self, penstock_proto::tls::TlsError> {
        Ok(Self {
            server: ServerCredentials::new(identity.credentials())?,
            identity,
            clients: Cache::default(),
            servers: Cache::default(),
        })
    }

    /// Whether this life is over by the list of now, which may be longer than the one by which its handshake was judged.
    pub(super) fn ends(&self, life: &Life) -> bool {
        self.identity.plant_trust().withdrawn.ends(life)
    }

    /// How a client is met that must be one of these devices, and whether its role is asked for.
    pub(super) fn towards_clients(
        &self,
        devices: Devices,
        roles: RoleReading,
    ) -> Result<Arc<ServerConfig>, String> {
        self.clients.get((devices, roles), |(devices, roles)| {
            let trust = self.identity.plant_trust();
            data_path::device_server(trust, Arc::clone(&self.server), devices.clone(), *roles)
                .map_err(|error| format!("TLS towards clients cannot be set up: {error}"))
        })
    }

    /// How the server at `address` is met, which must be `asset`, as `tls` says.
    pub(super) fn towards_server(
        &self,
        tls: &Tls,
        asset: AssetId,
        address: IpAddr,
    ) -> Result<Arc<Server>, String> {
        self.servers
            .get((tls.clone(), asset, address), |(tls, asset, address)| {
                let profile = self
                    .identity
                    .broker_profile(tls, asset, *address)
                    .map_err(|error| format!("the flow's tls cannot be used: {error}"))?;
                let config = profile
                    .config()
                    .map_err(|error| format!("TLS towards the server cannot be set up: {error}"))?;
                Ok(Arc::new(Server {
                    config,
                    of_plant: profile.is_of_plant(),
                    name: profile.server_name,
                }))
            })
    }
}

/// What was made, by what it was made for.
#[derive(Debug)]
struct Cache<K, V>(Mutex<HashMap<K, Arc<V>>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> Cache<K, V> {
    /// The one that there is, else the one that is made now. When there are too many, all are forgotten: connections keep
    /// theirs, and what is asked for again is made again.
    fn get<E>(&self, key: K, make: impl FnOnce(&K) -> Result<Arc<V>, E>) -> Result<Arc<V>, E> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = kept.get(&key) {
            return Ok(Arc::clone(there));
        }
        let made = make(&key)?;
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&made));
        Ok(made)
    }
}

/// The identity that new connections are met with.
#[derive(Debug, Default)]
pub(super) struct OwnIdentity(RwLock<IdentityState>);

#[derive(Debug, Default)]
struct IdentityState {
    ready: Option<Arc<TlsIdentity>>,
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

impl OwnIdentity {
    /// From now on, new connections are met with this one. One that cannot be used leaves the one before.
    pub(super) fn replace(&self, identity: Option<Arc<Identity>>) {
        let made = identity
            .map(|identity| TlsIdentity::new(identity).map(Arc::new))
            .transpose();
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match made {
            Ok(ready) => (state.ready, state.problem) = (ready, None),
            Err(error) => state.problem = Some(error.to_string()),
        }
    }

    pub(super) fn get(&self) -> Option<Arc<TlsIdentity>> {
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
                            "the previous one stays in use: check the coordinator's certificate authority",
                        None => "they are refused: enrol this gateway again",
                    }
                ),
            });
        }
        let Some(ready) = &state.ready else {
            return Some(IdentityFault {
                code: "tls-without-identity",
                message: "TLS clients are refused: the policy ends their TLS here, and this gateway has no certificate until it is enrolled (penstock-agent enrol)"
                    .to_owned(),
            });
        };
        let (from_ms, until_ms) = ready.identity.validity_ms().ok()?;
        if now_ms < from_ms {
            return Some(IdentityFault {
                code: "tls-certificate-not-yet-valid",
                message: format!(
                    "clients whose TLS ends here may refuse this gateway's certificate: it is valid from {}, and this machine's clock shows {}; set the clock if it is behind, otherwise enrol this gateway again",
                    instant(from_ms),
                    instant(now_ms)
                ),
            });
        }
        (until_ms <= now_ms).then(|| IdentityFault {
            code: "tls-certificate-expired",
            message: format!(
                "clients whose TLS ends here may refuse this gateway's certificate: it was valid until {}, and this machine's clock shows {}. It stays in use; check the clock, and the link to the coordinator, which renews it",
                instant(until_ms),
                instant(now_ms)
            ),
        })
    }
}
