//! The coordinator's configuration: what was typed ([`ConfigFile`]) and what was checked ([`Config`]).
//!
//! TOML, strict: an unknown key is refused. Every value but three has a default; [`DEFAULT`] is a file that
//! says them all, and a test holds it equal to the code.

mod alarms;
mod issuing;
mod log;
mod storage;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_policy::ids::{CoordinatorId, PlantId};
use penstock_policy::secrets;
use penstock_proto::tls::names::{NAMES_MAX, ServerNames};
use penstock_proto::tls::server::AcceptLimits;
use serde::Deserialize;

pub use self::alarms::AlarmsFile;
pub use self::issuing::{AuthorityFile, CertificatesFile};
pub use self::log::{LogFile, LogFormat};
pub use self::storage::{NatsFile, RolloutsFile, StorageFile};
use crate::alarms::desk::AlarmSettings;
use crate::allowance::Share;
use crate::ca::Lifetimes;
use crate::enrolment::AttemptsLimits;
use crate::export::{self, ExportFile, ExportSettings};
use crate::files::{self, FileError};
use crate::oidc::{OidcFile, OidcSettings};
use crate::pkcs11::KeyUri;
use crate::rollout::run::AfterApproval;
use crate::scada::settings::{ScadaFile, ScadaSettings};
use crate::sessions::SessionLimits;
use crate::store::{DiskReserve, NatsSettings};
use crate::witnesses::{self, WitnessFile, WitnessSettings};

/// A file with every key at its default.
pub const DEFAULT: &str = include_str!("config/default.toml");

/// What was typed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The plant's name.
    pub plant: PlantId,
    /// This coordinator's name.
    pub name: CoordinatorId,
    /// Where it keeps everything.
    pub data: PathBuf,
    /// Where it listens.
    #[serde(default)]
    pub listen: ListenFile,
    /// Which key issues.
    #[serde(default)]
    pub authority: AuthorityFile,
    /// How long certificates are valid.
    #[serde(default)]
    pub certificates: CertificatesFile,
    /// How sessions behave.
    #[serde(default)]
    pub sessions: SessionsFile,
    /// Where devices enrol by themselves.
    #[serde(default)]
    pub est: EstFile,
    /// How operators sign in without a token.
    #[serde(default)]
    pub oidc: OidcFile,
    /// How much at once.
    #[serde(default)]
    pub limits: LimitsFile,
    /// How much on disk.
    #[serde(default)]
    pub storage: StorageFile,
    /// What becomes of approved releases.
    #[serde(default)]
    pub rollouts: RolloutsFile,
    /// How alarms behave.
    #[serde(default)]
    pub alarms: AlarmsFile,
    /// Where SCADA systems hear of health and alarms.
    #[serde(default)]
    pub scada: ScadaFile,
    /// What is logged, and how.
    #[serde(default)]
    pub log: LogFile,
    /// Where the trail goes, beside the store.
    #[serde(default, rename = "export")]
    pub exports: Vec<ExportFile>,
    /// Who cosigns the head of the trails, outside the plant.
    #[serde(default, rename = "witness")]
    pub witnesses: Vec<WitnessFile>,
}

/// Section `listen`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenFile {
    /// For gateways and operators; TLS 1.3.
    pub grpc: Vec<SocketAddr>,
    /// DNS names and addresses by which clients reach it. They stand in its certificate, for clients that others wrote.
    pub names: Vec<String>,
    /// For Prometheus and liveness probes; plain HTTP, loopback only. `""`: none.
    pub metrics: String,
}

impl Default for ListenFile {
    fn default() -> Self {
        Self {
            grpc: vec![SocketAddr::from((
                std::net::Ipv6Addr::UNSPECIFIED,
                penstock_proto::channel::DEFAULT_PORT,
            ))],
            names: Vec::new(),
            metrics: "127.0.0.1:9643".to_owned(),
        }
    }
}

/// Section `sessions`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionsFile {
    /// How often gateways report, milliseconds.
    pub health_interval_ms: u64,
    /// How long a gateway may take to make room for a message, milliseconds.
    pub send_timeout_ms: u64,
}

impl Default for SessionsFile {
    fn default() -> Self {
        Self {
            health_interval_ms: 10_000,
            send_timeout_ms: 30_000,
        }
    }
}

/// Section `est`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EstFile {
    /// For devices (RFC 7030); HTTPS by TLS 1.3. Empty: nowhere.
    pub listen: Vec<SocketAddr>,
}

/// Section `limits`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    /// Connections of gateways, at once; operators have places of their own.
    pub connections_max: usize,
    /// Connections without one (for enrolment), at once.
    pub anonymous_max: usize,
    /// Handshakes under way, at once.
    pub handshakes_max: usize,
    /// How long a handshake may take, milliseconds.
    pub handshake_timeout_ms: u64,
    /// Wrong enrolment attempts from one address within a minute.
    pub enrolment_failures_per_minute: u32,
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            anonymous_max: 256,
            handshakes_max: 512,
            handshake_timeout_ms: 10_000,
            enrolment_failures_per_minute: 10,
        }
    }
}

/// How many days' worth of its trail a gateway may deliver at once, after it was dark.
const TRAIL_DAYS_AT_ONCE: u64 = 8;

/// What was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The plant.
    pub plant: PlantId,
    /// This coordinator.
    pub name: CoordinatorId,
    /// The servers that replicate its store; `None`: it stands alone.
    pub nats: Option<NatsSettings>,
    /// Its folder.
    pub data: PathBuf,
    /// Where gateways and operators connect.
    pub grpc: Vec<SocketAddr>,
    /// What its certificate names it by besides its URI.
    pub names: ServerNames,
    /// Where metrics are read.
    pub metrics: Option<SocketAddr>,
    /// Where devices enrol by themselves.
    pub est: Vec<SocketAddr>,
    /// The tokens that hold the key by which it issues: the first one is the next one. Empty: a file does.
    pub keys: Vec<KeyUri>,
    /// How operators sign in without a token.
    pub oidc: OidcSettings,
    /// How long certificates are valid.
    pub lifetimes: Lifetimes,
    /// For how long after its end a gateway can still renew its certificate.
    pub grace: Duration,
    /// How sessions behave.
    pub sessions: SessionLimits,
    /// How many connections.
    pub accept: AcceptLimits,
    /// How many wrong enrolments.
    pub attempts: AttemptsLimits,
    /// What is kept of the disk for what must go on.
    pub room: DiskReserve,
    /// How much one gateway's trail may grow.
    pub trail: Share,
    /// How long trails are kept; `None`: for ever.
    pub trail_kept: Option<Duration>,
    /// What becomes of a release when it is approved.
    pub after_approval: AfterApproval,
    /// How alarms behave.
    pub alarms: AlarmSettings,
    /// The plant's MQTT broker; `None`: there is none.
    pub scada: Option<ScadaSettings>,
    /// Where the trail goes, beside the store.
    pub exports: Vec<ExportSettings>,
    /// Who cosigns the head of the trails, outside the plant.
    pub witnesses: Vec<WitnessSettings>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not UTF-8.
    #[error("{0} is not text")]
    NotText(PathBuf),
    /// It is not TOML of the right shape.
    #[error("{path} cannot be used")]
    Shape {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("`{key}` {what}")]
    Value {
        /// Section and key.
        key: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, is not text, or is not TOML with the keys of a configuration.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            String::from_utf8(files::read(path)?).map_err(|_| ConfigError::NotText(path.to_owned()))?;
        toml::from_str(&text).map_err(|mut source| {
            if secrets::on_line(&text, source.span().unwrap_or_default().start) {
                // Without the line that it refuses.
                source.set_input(None);
            }
            ConfigError::Shape {
                path: path.to_owned(),
                source: Box::new(source),
            }
        })
    }

    /// A configuration with every default.
    ///
    /// ```
    /// use penstock_coordinator::config::ConfigFile;
    /// use penstock_policy::ids::{CoordinatorId, PlantId};
    ///
    /// let plant = PlantId::new("works").unwrap();
    /// let name = CoordinatorId::new("coordinator-1").unwrap();
    /// let mut file = ConfigFile::with_defaults(plant, name, "/var/lib/penstock-coordinator".into());
    /// assert!(file.check().is_ok());
    /// file.certificates.gateway_days = 0;
    /// assert!(file.check().is_err());
    /// ```
    pub fn with_defaults(plant: PlantId, name: CoordinatorId, data: PathBuf) -> Self {
        Self {
            plant,
            name,
            data,
            listen: ListenFile::default(),
            authority: AuthorityFile::default(),
            certificates: CertificatesFile::default(),
            sessions: SessionsFile::default(),
            est: EstFile::default(),
            oidc: OidcFile::default(),
            limits: LimitsFile::default(),
            storage: StorageFile::default(),
            rollouts: RolloutsFile::default(),
            alarms: AlarmsFile::default(),
            scada: ScadaFile::default(),
            log: LogFile::default(),
            exports: Vec::new(),
            witnesses: Vec::new(),
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// A value makes no sense; the error names its key and says what is wrong with it.
    pub fn check(&self) -> Result<Config, ConfigError> {
        let bad = |key, what: &str| ConfigError::Value {
            key,
            what: what.to_owned(),
        };
        if self.listen.grpc.is_empty() {
            return Err(bad("listen.grpc", "is empty: nobody could connect"));
        }
        if let Some(shared) = self
            .est
            .listen
            .iter()
            .find(|at| at.port() != 0 && self.listen.grpc.contains(at))
        {
            let words = format!(
                "holds {shared}, where gateways and operators connect: devices need a port of their own"
            );
            return Err(bad("est.listen", &words));
        }
        let metrics = match self.listen.metrics.as_str() {
            "" => None,
            text => {
                let address: SocketAddr = text
                    .parse()
                    .map_err(|_| bad("listen.metrics", "is not `address:port`"))?;
                if !address.ip().is_loopback() {
                    return Err(bad(
                        "listen.metrics",
                        "must be a loopback address: it has neither encryption nor authentication",
                    ));
                }
                Some(address)
            }
        };
        let mut names = ServerNames::default();
        for name in &self.listen.names {
            names
                .add(name)
                .map_err(|error| bad("listen.names", &error.to_string()))?;
        }
        names.extend(
            self.listen
                .grpc
                .iter()
                .chain(&self.est.listen)
                .map(SocketAddr::ip)
                .filter(|ip| !ip.is_unspecified()),
        );
        if names.len() > NAMES_MAX {
            return Err(bad("listen.names", "holds more names than a certificate carries"));
        }
        let days = |key, days: u32| {
            if (1..=825).contains(&days) {
                Ok(Duration::from_secs(u64::from(days) * 86_400))
            } else {
                Err(bad(key, "is not between 1 and 825 days"))
            }
        };
        let ms = |key, ms: u64, least: u64| {
            if (least..=600_000).contains(&ms) {
                Ok(Duration::from_millis(ms))
            } else {
                Err(ConfigError::Value {
                    key,
                    what: format!("is not between {least} and 600000 ms"),
                })
            }
        };
        let limits = &self.limits;
        for (key, value) in [
            ("limits.connections_max", limits.connections_max),
            ("limits.anonymous_max", limits.anonymous_max),
            ("limits.handshakes_max", limits.handshakes_max),
        ] {
            if !(1..=1_000_000).contains(&value) {
                return Err(bad(key, "is not between 1 and 1000000"));
            }
        }
        let storage = &self.storage;
        if storage.trail_bytes_per_day < 1 << 20 {
            return Err(bad("storage.trail_bytes_per_day", "is less than 1 MiB (1048576)"));
        }
        let trail_kept = match storage.trail_days {
            0 => None,
            days @ 1..=36_500 => Some(Duration::from_secs(u64::from(days) * 86_400)),
            _ => return Err(bad("storage.trail_days", "is not between 0 and 36500 days")),
        };
        Ok(Config {
            room: DiskReserve {
                reserve_bytes: storage.reserve_bytes,
                ..DiskReserve::default()
            },
            trail: Share {
                at_once: storage.trail_bytes_per_day.saturating_mul(TRAIL_DAYS_AT_ONCE),
                per_day: storage.trail_bytes_per_day,
            },
            trail_kept,
            nats: storage
                .nats
                .check(&self.plant)
                .map_err(|(key, what)| ConfigError::Value { key, what })?,
            after_approval: self.rollouts.after_approval,
            alarms: self.alarms.check()?,
            scada: self
                .scada
                .check()
                .map_err(|(key, what)| ConfigError::Value { key, what })?,
            exports: export::check(&self.exports).map_err(|(key, what)| ConfigError::Value { key, what })?,
            witnesses: witnesses::check(&self.witnesses)
                .map_err(|(key, what)| ConfigError::Value { key, what })?,
            plant: self.plant.clone(),
            name: self.name.clone(),
            data: self.data.clone(),
            grpc: self.listen.grpc.clone(),
            names,
            metrics,
            est: self.est.listen.clone(),
            keys: self.authority.check()?,
            oidc: self
                .oidc
                .check()
                .map_err(|(key, what)| ConfigError::Value { key, what })?,
            lifetimes: Lifetimes {
                gateway: days("certificates.gateway_days", self.certificates.gateway_days)?,
                operator: days("certificates.operator_days", self.certificates.operator_days)?,
                coordinator: days(
                    "certificates.coordinator_days",
                    self.certificates.coordinator_days,
                )?,
                device: days("certificates.device_days", self.certificates.device_days)?,
            },
            grace: match self.certificates.gateway_grace_days {
                0 => Duration::ZERO,
                grace @ 1..=3650 => Duration::from_secs(u64::from(grace) * 86_400),
                _ => {
                    return Err(bad(
                        "certificates.gateway_grace_days",
                        "is not between 0 and 3650 days",
                    ));
                }
            },
            sessions: SessionLimits {
                health_interval: ms(
                    "sessions.health_interval_ms",
                    self.sessions.health_interval_ms,
                    100,
                )?,
                send_timeout: ms("sessions.send_timeout_ms", self.sessions.send_timeout_ms, 100)?,
                ..SessionLimits::default()
            },
            accept: AcceptLimits {
                handshake_timeout: ms("limits.handshake_timeout_ms", limits.handshake_timeout_ms, 100)?,
                handshakes_max: limits.handshakes_max,
                connections_max: limits.connections_max,
                anonymous_max: limits.anonymous_max,
                ..AcceptLimits::default()
            },
            attempts: AttemptsLimits {
                per_address: limits.enrolment_failures_per_minute.max(1),
                ..AttemptsLimits::default()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_default_file_says_exactly_what_the_code_does_without_it() {
        let written: ConfigFile = toml::from_str(DEFAULT).unwrap();
        let short = format!(
            "plant = \"{}\"\nname = \"{}\"\ndata = \"{}\"",
            written.plant,
            written.name,
            written.data.display()
        );
        let silent: ConfigFile = toml::from_str(&short).unwrap();
        assert_eq!(written, silent);
        written.check().unwrap();
        // Every key of every section stands in the file.
        let table: toml::Table = DEFAULT.parse().unwrap();
        let keys: usize = table
            .values()
            .map(|value| value.as_table().map_or(1, toml::Table::len))
            .sum();
        assert_eq!(keys, 3 + 3 + 1 + 5 + 2 + 1 + 11 + 5 + 4 + 1 + 4 + 10 + 2);
    }

    #[test]
    fn unknown_keys_and_values_that_make_no_sense_are_refused_by_name() {
        let with = |more: &str| format!("plant = \"p\"\nname = \"c\"\ndata = \"/d\"\n{more}");
        assert!(toml::from_str::<ConfigFile>(&with("colour = 1")).is_err());
        assert!(toml::from_str::<ConfigFile>(&with("[listen]\nhttp = \"x\"")).is_err());
        assert!(toml::from_str::<ConfigFile>("plant = \"P!\"\nname = \"c\"\ndata = \"/d\"").is_err());
        for (more, key) in [
            ("[listen]\ngrpc = []", "listen.grpc"),
            ("[listen]\nmetrics = \"0.0.0.0:1\"", "listen.metrics"),
            ("[listen]\nnames = [\"not a name\"]", "listen.names"),
            ("[oidc]\nissuer = \"http://login.example\"", "oidc.issuer"),
            ("[oidc]\nissuer = \"https://login.example\"", "oidc.client_id"),
            (
                "[oidc]\nissuer = \"https://login.example\"\nclient_id = \"penstock\"",
                "oidc.roots",
            ),
            ("[oidc]\ncertificate_hours = 169", "oidc.certificate_hours"),
            ("[est]\nlisten = [\"[::]:7643\"]", "est.listen"),
            (
                "[authority]\nkeys = [\"pkcs11:token=a;object=b\"]",
                "authority.keys",
            ),
            ("[alarms]\non_seconds = 601", "alarms.on_seconds"),
            ("[scada]\nbroker = \"mqtt://b:1883\"", "scada.broker"),
            (
                "[[witness]]\nurl = \"http://w.example/\"\nkey = \"w\"",
                "witness.url",
            ),
            (
                "[[witness]]\nurl = \"https://w.example/\"\nkey = \"w\"",
                "witness.key",
            ),
            ("[certificates]\ngateway_days = 0", "certificates.gateway_days"),
            (
                "[certificates]\ngateway_grace_days = 3651",
                "certificates.gateway_grace_days",
            ),
            (
                "[sessions]\nhealth_interval_ms = 1",
                "sessions.health_interval_ms",
            ),
            ("[limits]\nconnections_max = 0", "limits.connections_max"),
            (
                "[storage]\ntrail_bytes_per_day = 1",
                "storage.trail_bytes_per_day",
            ),
            ("[storage]\ntrail_days = 99999", "storage.trail_days"),
            ("[storage.nats]\nstream = \"s\"", "storage.nats.servers"),
            ("[storage.nats]\nservers = [\"n:4222\"]", "storage.nats.servers"),
            (
                "[storage.nats]\nservers = [\"nats://10.0.0.1:4222\"]",
                "storage.nats.servers",
            ),
            (
                "[storage.nats]\nservers = [\"tls://n:4222\"]",
                "storage.nats.roots",
            ),
            (
                "[storage.nats]\nservers = [\"nats://127.0.0.1:4222\"]\nroots = \"r.pem\"",
                "storage.nats.roots",
            ),
            (
                "[storage.nats]\nservers = [\"tls://n:4222\"]\nroots = \"r.pem\"\nkey = \"k\"",
                "storage.nats.certificate",
            ),
            (
                "[storage.nats]\nservers = [\"nats://[::1]:4222\"]\nstream = \"a b\"",
                "storage.nats.stream",
            ),
            (
                "[storage.nats]\nservers = [\"nats://localhost:4222\"]\nreplicas = 2",
                "storage.nats.replicas",
            ),
        ] {
            let file: ConfigFile = toml::from_str(&with(more)).unwrap();
            let error = file.check().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
