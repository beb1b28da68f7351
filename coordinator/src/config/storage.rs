//! How much of a disk a coordinator takes, which servers replicate its store, and what becomes of approved releases.

use std::net::IpAddr;
use std::path::PathBuf;

use penstock_policy::ids::PlantId;
use penstock_proto::channel::Address;
use serde::Deserialize;

use crate::rollout::run::AfterApproval;
use crate::store::NatsSettings;

/// Section `storage`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageFile {
    /// Free space that only what must go on may use, bytes.
    pub reserve_bytes: u64,
    /// How much one gateway's trail may grow in a day, bytes; eight days' worth at once.
    pub trail_bytes_per_day: u64,
    /// How long trails are kept, days; 0: for ever.
    pub trail_days: u32,
    /// The servers that replicate it.
    pub nats: NatsFile,
}

impl Default for StorageFile {
    fn default() -> Self {
        Self {
            reserve_bytes: 1 << 30,
            trail_bytes_per_day: 256 << 20,
            trail_days: 0,
            nats: NatsFile::default(),
        }
    }
}

/// Section `rollouts`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutsFile {
    /// What becomes of a release when it is approved: `wait`, `default-plan` or `at-once`.
    pub after_approval: AfterApproval,
}

/// Section `storage.nats`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsFile {
    /// `tls://HOST:PORT`, or `nats://HOST:PORT` where nothing leaves the machine; empty: the store stands alone.
    pub servers: Vec<String>,
    /// The stream's name; `""`: the plant's.
    pub stream: String,
    /// On how many servers each message is: 1, 3 or 5; 0: 3, or 1 where there is one server.
    pub replicas: usize,
    /// The PEM file with the roots that vouch for the servers.
    pub roots: String,
    /// Certificate and key (PEM) that say who this is.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// A file with one line `USER:PASSWORD`.
    pub user_file: String,
}

impl NatsFile {
    /// What was typed, checked; `None`: the store stands alone.
    pub(super) fn check(&self, plant: &PlantId) -> Result<Option<NatsSettings>, (&'static str, String)> {
        if self.servers.is_empty() {
            return match *self == Self::default() {
                true => Ok(None),
                false => Err(("storage.nats.servers", "is missing".to_owned())),
            };
        }
        let mut is_tls = false;
        for server in &self.servers {
            let rest = server.strip_prefix("tls://").map(|rest| (true, rest));
            let rest = rest.or_else(|| server.strip_prefix("nats://").map(|rest| (false, rest)));
            let address = rest.and_then(|(tls, rest)| Some((tls, rest.parse::<Address>().ok()?)));
            let Some((tls, address)) = address else {
                let what =
                    format!("names {server:?}, which is not of the form tls://HOST:PORT or nats://HOST:PORT");
                return Err(("storage.nats.servers", what));
            };
            let here = address.host() == "localhost"
                || address.host().parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
            if !tls && !here {
                let what = format!("names {server:?}: without TLS only servers on this machine are asked");
                return Err(("storage.nats.servers", what));
            }
            is_tls |= tls;
        }
        let path = |text: &String| (!text.is_empty()).then(|| PathBuf::from(text));
        let roots = path(&self.roots);
        if is_tls != roots.is_some() {
            let what = match is_tls {
                true => "is missing: the PEM file with the roots that vouch for the servers",
                false => "is of no use: nothing leaves this machine",
            };
            return Err(("storage.nats.roots", what.to_owned()));
        }
        let own = match (path(&self.certificate), path(&self.key)) {
            (None, None) => None,
            (Some(certificate), Some(key)) if is_tls => Some((certificate, key)),
            (Some(_), Some(_)) => {
                return Err((
                    "storage.nats.certificate",
                    "is of no use: there is no TLS".to_owned(),
                ));
            }
            _ => {
                let what = "stands alone: `certificate` and `key` are there together or not at all";
                return Err(("storage.nats.certificate", what.to_owned()));
            }
        };
        let stream = match self.stream.as_str() {
            "" => plant.to_string(),
            name if name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') =>
            {
                name.to_owned()
            }
            _ => {
                let what = "is not a name of letters, digits and hyphens".to_owned();
                return Err(("storage.nats.stream", what));
            }
        };
        let replicas = match self.replicas {
            0 if self.servers.len() == 1 => 1,
            0 => 3,
            replicas @ (1 | 3 | 5) => replicas,
            _ => return Err(("storage.nats.replicas", "is not 1, 3 or 5".to_owned())),
        };
        Ok(Some(NatsSettings {
            servers: self.servers.clone(),
            roots,
            own,
            user: path(&self.user_file),
            stream,
            replicas,
        }))
    }
}
