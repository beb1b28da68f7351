//! The agent's configuration: as it was typed ([`ConfigFile`]), and as it was checked ([`Config`]).
//!
//! One TOML file, strict: an unknown key is refused with its place. Every field has a default, and
//! [`DEFAULT_TEXT`] is the file that says so; a test holds the two together. What the *plant* decides (zones, drift,
//! grants) is not here but in the signed policy.

mod credentials;
mod error;
mod panel;
mod scada;
mod services;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_policy::secrets;
use penstock_proto::channel::Address;
use serde::{Deserialize, Serialize};

use self::credentials::{TypedCredentials, logins};
pub use self::error::ConfigError;
use self::panel::TypedPanel;
use self::scada::TypedScada;
use self::services::TypedEst;
use crate::audit::{BLOCK_BYTES, SpoolLimits};
use crate::bridge::side::Login;
use crate::durable;
use crate::identity::IdentityFolder;
use crate::local::{self, LocalSettings};
use crate::panel::PanelSettings;
use crate::scada::ScadaSettings;
use crate::timepiece::Timepiece;
use crate::tpm::{KeyPlace, NotATpm, Tpm, TpmAddress};
use crate::{inspector, tap};

/// The configuration with its defaults and what they mean; `penstock-agent config --default` prints it.
pub const DEFAULT_TEXT: &str = include_str!("config/default.toml");

const CONFIG_BYTES_MAX: u64 = 256 * 1024;

/// The file as typed. Everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConfigFile {
    agent: TypedAgent,
    identity: TypedIdentity,
    link: TypedLink,
    local: TypedLocal,
    est: TypedEst,
    panel: TypedPanel,
    scada: TypedScada,
    audit: TypedAudit,
    enforce: TypedEnforce,
    inspect: TypedInspect,
    tap: TypedTap,
    bridge: TypedBridge,
    clock: TypedClock,
    log: TypedLog,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedAgent {
    state_folder: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedIdentity {
    key: Option<KeyPlace>,
    tpm: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedLink {
    coordinators: Option<Vec<String>>,
    islanded: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedLocal {
    socket: Option<PathBuf>,
    group: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedAudit {
    spool_bytes_max: Option<u64>,
    free_bytes_min: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedEnforce {
    nft: Option<PathBuf>,
    log_group: Option<u16>,
    verify_interval_s: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedInspect {
    connections_max: Option<usize>,
    connections_per_client_max: Option<usize>,
    held_bytes_max: Option<usize>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedTap {
    enabled: Option<bool>,
    interval_s: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedBridge {
    queue_bytes_max: Option<u64>,
    message_bytes_max: Option<u32>,
    credentials: Vec<TypedCredentials>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedClock {
    synchronised_by: Option<ClockSource>,
}

/// Who says that this machine's clock is right: grants of remote access need one that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockSource {
    /// The kernel, which a time service tells (NTP, PTP).
    Kernel,
    /// Whoever runs this machine, such as a hypervisor that keeps its clock: it is always taken for right.
    Host,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedLog {
    level: Option<String>,
    format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people and the journal.
    Human,
    /// One JSON object per line.
    Json,
}

/// A configuration that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where identity, policy and audit spool are kept.
    pub state_folder: PathBuf,
    /// Where a new key of this gateway is made.
    pub key: KeyPlace,
    /// The TPM of this machine.
    pub tpm: TpmAddress,
    /// Coordinators instead of those in the token; empty: the token's.
    pub coordinators: Vec<Address>,
    /// Nobody may be there to confirm a trial: it confirms itself.
    pub islanded: bool,
    /// The socket of local commands; `None`: in the state folder.
    pub local_socket: Option<PathBuf>,
    /// Who may use it beside root and the agent's user.
    pub local_group: Option<String>,
    /// Where devices enrol through this gateway: addresses of its own; empty: nowhere.
    pub est: Vec<SocketAddr>,
    /// Where panels read the register map, and which; `None`: nowhere.
    pub panel: Option<PanelSettings>,
    /// Where this gateway's health is published; `None`: nowhere.
    pub scada: Option<ScadaSettings>,
    /// Hard quota of the audit spool, bytes.
    pub spool_bytes_max: u64,
    /// The spool writes nothing while its file system has less than this free, bytes.
    pub free_bytes_min: u64,
    /// The `nft` program, by name or path.
    pub nft: PathBuf,
    /// The kernel's log group (NFLOG) for verdicts.
    pub log_group: u16,
    /// How often the kernel is compared with the plan although no change was seen.
    pub verify_interval: Duration,
    /// Bounds on inspected connections.
    pub inspect: inspector::SeatLimits,
    /// Learning what zones do that only observe.
    pub tap: tap::TapSettings,
    /// Hard quota of each bridge's queue, bytes.
    pub bridge_queue_bytes_max: u64,
    /// The largest payload that a bridge takes, bytes.
    pub bridge_message_bytes_max: u32,
    /// How bridges log in, by broker.
    pub bridge_logins: BTreeMap<String, Login>,
    /// Who says that the clock is right.
    pub clock: ClockSource,
    /// A `tracing` filter, such as `info` or `info,penstock_agent::link=debug`.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_folder: PathBuf::from("/var/lib/penstock-agent"),
            key: KeyPlace::File,
            tpm: TpmAddress::default(),
            coordinators: Vec::new(),
            islanded: false,
            local_socket: None,
            local_group: None,
            est: Vec::new(),
            panel: None,
            scada: None,
            spool_bytes_max: 256 * 1024 * 1024,
            free_bytes_min: 64 * 1024 * 1024,
            nft: PathBuf::from("nft"),
            log_group: 86,
            verify_interval: Duration::from_secs(300),
            inspect: inspector::SeatLimits::default(),
            tap: tap::TapSettings {
                enabled: false,
                interval: Duration::from_secs(60),
            },
            bridge_queue_bytes_max: 64 * 1024 * 1024,
            bridge_message_bytes_max: 256 * 1024,
            bridge_logins: BTreeMap::new(),
            clock: ClockSource::Kernel,
            log_level: "info".to_owned(),
            log_format: LogFormat::Human,
        }
    }
}

/// The smallest spool that can hold the largest block and a loss record.
pub const SPOOL_BYTES_MIN: u64 = 1024 * 1024;

/// The largest payload that a bridge may be told to take, and how many such its queue must hold.
pub const BRIDGE_MESSAGE_BYTES: (u32, u32) = (1024, 16 * 1024 * 1024);
const BRIDGE_QUEUE_MESSAGES_MIN: u64 = 16;

/// Comparing more often would cost more than it could find.
pub const VERIFY_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// With less, a few clients that send long packets at once would be cut.
const HELD_BYTES_MIN: usize = 1024 * 1024;
/// More inspected connections than this have no sockets in one process as the unit limits it.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Telling more often would fill the trail with what a minute's event says as well.
pub const TAP_INTERVAL_MIN: Duration = Duration::from_secs(1);

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// There is no such file, it cannot be read or is not UTF-8 text, or [`Config::parse`] refuses it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes =
            durable::read(path, CONFIG_BYTES_MAX)?.ok_or_else(|| ConfigError::Missing(path.to_owned()))?;
        let text = String::from_utf8(bytes).map_err(|_| ConfigError::Text(path.to_owned()))?;
        Self::parse(&text, path)
    }

    /// Checks a text; `path` names it in errors.
    ///
    /// ```
    /// use std::path::Path;
    /// use penstock_agent::config::Config;
    ///
    /// let path = Path::new("agent.toml");
    /// assert!(Config::parse("", path).is_ok(), "every key has a default");
    /// assert!(Config::parse("[audit]\nspool_bytes = 1\n", path).is_err(), "unknown keys are refused");
    /// ```
    ///
    /// # Errors
    /// It is not TOML, has a key that no configuration has, or a value that does not hold; the error names the key
    /// and says what to write.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let typed: ConfigFile = toml::from_str(text).map_err(|mut source| {
            if secrets::on_line(text, source.span().unwrap_or_default().start) {
                // Without the line that it refuses.
                source.set_input(None);
            }
            ConfigError::Form {
                path: path.to_owned(),
                source: Box::new(source),
            }
        })?;
        check(typed).map_err(|(key, problem)| ConfigError::Value {
            path: path.to_owned(),
            key,
            problem,
        })
    }

    /// Where the time comes from.
    pub fn timepiece(&self) -> Timepiece {
        match self.clock {
            ClockSource::Kernel => Timepiece::Kernel,
            ClockSource::Host => Timepiece::Host,
        }
    }

    /// Where this gateway's identity is kept, and where a new key of it is made.
    pub fn identity(&self) -> IdentityFolder {
        IdentityFolder::new(&self.state_folder).with_keys(self.key, Tpm::at(self.tpm.clone()))
    }

    /// Where a new key is made, as one sentence.
    pub fn key_in_words(&self) -> String {
        match self.key {
            KeyPlace::File => "A new key of this gateway is made in a file.".to_owned(),
            KeyPlace::Tpm => format!("A new key of this gateway is made in the TPM at {}.", self.tpm),
        }
    }

    /// Where local commands come in, and whose.
    pub fn local(&self) -> LocalSettings {
        let socket = self.local_socket.clone();
        LocalSettings {
            socket: socket.unwrap_or_else(|| self.state_folder.join(local::SOCKET)),
            group: self.local_group.clone(),
        }
    }

    /// How much the audit spool may take.
    pub fn spool_limits(&self) -> SpoolLimits {
        SpoolLimits {
            bytes_max: self.spool_bytes_max,
            block_bytes: BLOCK_BYTES,
            free_bytes_min: self.free_bytes_min,
        }
    }
}

fn check(typed: ConfigFile) -> Result<Config, (&'static str, String)> {
    let default = Config::default();
    let config = Config {
        state_folder: typed.agent.state_folder.unwrap_or(default.state_folder),
        key: typed.identity.key.unwrap_or(default.key),
        tpm: match typed.identity.tpm {
            Some(text) => text
                .parse()
                .map_err(|error: NotATpm| ("identity.tpm", error.to_string()))?,
            None => default.tpm,
        },
        coordinators: typed
            .link
            .coordinators
            .unwrap_or_default()
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map_err(|error: penstock_proto::channel::AddressError| {
                (
                    "link.coordinators",
                    format!("holds an address that cannot be used: {error}"),
                )
            })?,
        islanded: typed.link.islanded.unwrap_or(default.islanded),
        local_socket: typed.local.socket.filter(|socket| !socket.as_os_str().is_empty()),
        local_group: typed.local.group.filter(|group| !group.is_empty()),
        panel: typed.panel.check(typed.est.addresses())?,
        scada: typed.scada.check()?,
        est: typed.est.check()?,
        spool_bytes_max: typed.audit.spool_bytes_max.unwrap_or(default.spool_bytes_max),
        free_bytes_min: typed.audit.free_bytes_min.unwrap_or(default.free_bytes_min),
        nft: typed.enforce.nft.unwrap_or(default.nft),
        log_group: typed.enforce.log_group.unwrap_or(default.log_group),
        verify_interval: typed
            .enforce
            .verify_interval_s
            .map_or(default.verify_interval, |s| Duration::from_secs(u64::from(s))),
        inspect: inspector::SeatLimits {
            connections_max: typed
                .inspect
                .connections_max
                .unwrap_or(default.inspect.connections_max),
            connections_per_client_max: typed
                .inspect
                .connections_per_client_max
                .unwrap_or(default.inspect.connections_per_client_max),
            held_bytes_max: typed
                .inspect
                .held_bytes_max
                .unwrap_or(default.inspect.held_bytes_max),
        },
        tap: tap::TapSettings {
            enabled: typed.tap.enabled.unwrap_or(default.tap.enabled),
            interval: typed
                .tap
                .interval_s
                .map_or(default.tap.interval, |s| Duration::from_secs(u64::from(s))),
        },
        bridge_queue_bytes_max: typed
            .bridge
            .queue_bytes_max
            .unwrap_or(default.bridge_queue_bytes_max),
        bridge_message_bytes_max: typed
            .bridge
            .message_bytes_max
            .unwrap_or(default.bridge_message_bytes_max),
        bridge_logins: logins(typed.bridge.credentials)?,
        clock: typed.clock.synchronised_by.unwrap_or(default.clock),
        log_level: typed.log.level.unwrap_or(default.log_level),
        log_format: typed.log.format.unwrap_or(default.log_format),
    };
    if !config.state_folder.is_absolute() {
        return Err(("agent.state_folder", "must be an absolute path".to_owned()));
    }
    if config
        .local_socket
        .as_ref()
        .is_some_and(|socket| !socket.is_absolute())
    {
        return Err(("local.socket", "must be an absolute path, or empty".to_owned()));
    }
    if config.spool_bytes_max < SPOOL_BYTES_MIN {
        return Err((
            "audit.spool_bytes_max",
            format!("must be at least {SPOOL_BYTES_MIN}"),
        ));
    }
    if config.verify_interval < VERIFY_INTERVAL_MIN {
        return Err((
            "enforce.verify_interval_s",
            format!("must be at least {}", VERIFY_INTERVAL_MIN.as_secs()),
        ));
    }
    for (key, value) in [
        ("inspect.connections_max", config.inspect.connections_max),
        (
            "inspect.connections_per_client_max",
            config.inspect.connections_per_client_max,
        ),
    ] {
        if !(1..=CONNECTIONS_MAX).contains(&value) {
            return Err((key, format!("must be 1 to {CONNECTIONS_MAX}")));
        }
    }
    if config.inspect.held_bytes_max < HELD_BYTES_MIN {
        return Err((
            "inspect.held_bytes_max",
            format!("must be at least {HELD_BYTES_MIN}"),
        ));
    }
    if config.tap.interval < TAP_INTERVAL_MIN {
        return Err((
            "tap.interval_s",
            format!("must be at least {}", TAP_INTERVAL_MIN.as_secs()),
        ));
    }
    let (least, most) = BRIDGE_MESSAGE_BYTES;
    if !(least..=most).contains(&config.bridge_message_bytes_max) {
        return Err((
            "bridge.message_bytes_max",
            format!("must be from {least} to {most}"),
        ));
    }
    let least = u64::from(config.bridge_message_bytes_max).saturating_mul(BRIDGE_QUEUE_MESSAGES_MIN);
    if config.bridge_queue_bytes_max < least {
        return Err((
            "bridge.queue_bytes_max",
            format!(
                "must be at least {least}: {BRIDGE_QUEUE_MESSAGES_MIN} messages of `bridge.message_bytes_max`"
            ),
        ));
    }
    if config.log_level.parse::<tracing_subscriber::EnvFilter>().is_err() {
        return Err((
            "log.level",
            format!(
                "is `{}`, which is not a log filter; write `info` or `debug`",
                config.log_level
            ),
        ));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::enforce::OwnClients;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("agent.toml"))
    }

    #[test]
    fn the_printed_default_is_the_default_and_so_is_an_empty_file() {
        assert_eq!(parse(DEFAULT_TEXT).unwrap(), Config::default());
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn the_printed_default_names_every_field() {
        let table: toml::Table = DEFAULT_TEXT.parse().unwrap();
        let keys: Vec<_> = table
            .iter()
            .flat_map(|(section, keys)| {
                keys.as_table()
                    .unwrap()
                    .keys()
                    .map(move |key| format!("{section}.{key}"))
            })
            .collect();
        assert_eq!(keys.len(), 33, "{keys:?}");
    }

    #[test]
    fn a_refused_line_with_a_secret_on_it_is_not_repeated() {
        for text in [
            "[[bridge.credentials]]\nbroker = \"b\"\nuser = \"u\"\npassword = \"hunter2\"",
            "penstock-token-1.hunter2",
        ] {
            let error = parse(text).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(!source.contains("hunter2") && !source.is_empty(), "{source}");
        }
    }

    #[test]
    fn a_panel_and_a_broker_are_as_they_were_written_and_the_panel_opens_its_port_to_its_clients() {
        let text = "[est]\nlisten = [\"10.0.0.1:9443\"]\n[panel]\nlisten = \"10.0.0.1:502\"\nclients = [\"10.0.0.9\"]\n\
                    zones = [\"b\", \"a\"]\n[scada]\nbroker = \"10.0.0.5:8883\"\nauthorities = \"/etc/scada.pem\"\n\
                    server_name = \"broker.example\"\nuser = \"u\"\npassword_file = \"/p\"\nprefix = \"ot/penstock\"";
        let config = parse(text).unwrap();
        let panel = config.panel.as_ref().unwrap();
        let zones: Vec<_> = panel.zones.iter().map(|zone| zone.as_str()).collect();
        assert_eq!(zones, ["b", "a"]);
        let own = config.own_services();
        assert_eq!(own.len(), 2);
        let clients = [[10, 0, 0, 9].into()].into();
        assert_eq!(own[&panel.listen], OwnClients::Only(clients));
        let scada = config.scada.unwrap();
        assert_eq!(
            (scada.prefix.as_str(), scada.login.unwrap().user.as_str()),
            ("ot/penstock", "u")
        );
    }

    #[test]
    fn what_is_unknown_or_does_not_hold_is_refused_by_name() {
        for (text, names) in [
            ("[agent]\nstate_dir = \"/x\"", "state_dir"),
            ("[enforcement]", "enforcement"),
            ("[agent]\nstate_folder = \"relative\"", "agent.state_folder"),
            ("[identity]\nkey = \"token\"", "token"),
            ("[identity]\ntpm = \"tpmrm0\"", "identity.tpm"),
            ("[identity]\ntpm = \"/dev/tpm0\"", "resource manager"),
            ("[link]\ncoordinators = [\"no-port\"]", "link.coordinators"),
            ("[local]\nsocket = \"relative\"", "local.socket"),
            ("[audit]\nspool_bytes_max = 1", "audit.spool_bytes_max"),
            ("[inspect]\nconnections_max = 0", "inspect.connections_max"),
            ("[tap]\ninterval_s = 0", "tap.interval_s"),
            ("[bridge]\nqueue_bytes_max = 1", "bridge.queue_bytes_max"),
            ("[bridge]\nmessage_bytes_max = 1", "bridge.message_bytes_max"),
            (
                "[[bridge.credentials]]\nbroker = \"b\"\nuser = \"u\"\npassword_file = \"p\"",
                "absolute",
            ),
            (
                "[[bridge.credentials]]\nbroker = \"b\"\nuser = \"u\"\npassword = \"p\"",
                "password",
            ),
            ("[est]\nlisten = [\"0.0.0.0:9443\"]", "est.listen"),
            ("[est]\nlisten = [\"10.0.0.1:0\"]", "est.listen"),
            ("[panel]\nlisten = \"10.0.0.1:502\"", "panel.clients"),
            ("[panel]\nclients = [\"10.0.0.9\"]", "panel.listen"),
            (
                "[panel]\nlisten = \"0.0.0.0:502\"\nclients = [\"10.0.0.9\"]",
                "panel.listen",
            ),
            (
                "[panel]\nlisten = \"10.0.0.1:502\"\nclients = [\"0.0.0.0\"]",
                "panel.clients",
            ),
            (
                "[panel]\nlisten = \"10.0.0.1:502\"\nclients = [\"fd00::9\"]",
                "panel.clients",
            ),
            (
                "[panel]\nlisten = \"10.0.0.1:502\"\nclients = [\"10.0.0.9\"]\nzones = [\"A b\"]",
                "panel.zones",
            ),
            (
                "[panel]\nlisten = \"10.0.0.1:502\"\nclients = [\"10.0.0.9\"]\nzones = [\"a\", \"a\"]",
                "panel.zones",
            ),
            (
                "[est]\nlisten = [\"10.0.0.1:502\"]\n[panel]\nlisten = \"10.0.0.1:502\"\nclients = [\"10.0.0.9\"]",
                "panel.listen",
            ),
            ("[scada]\nbroker = \"10.0.0.5:8883\"", "scada.asset"),
            ("[scada]\nasset = \"broker\"", "scada.broker"),
            (
                "[scada]\nbroker = \"broker:8883\"\nasset = \"broker\"",
                "scada.broker",
            ),
            (
                "[scada]\nbroker = \"10.0.0.5:8883\"\nasset = \"b\"\nauthorities = \"/x\"",
                "scada.asset",
            ),
            (
                "[scada]\nbroker = \"10.0.0.5:8883\"\nauthorities = \"x\"",
                "scada.authorities",
            ),
            (
                "[scada]\nbroker = \"10.0.0.5:8883\"\nasset = \"b\"\nserver_name = \"x\"",
                "scada.server_name",
            ),
            (
                "[scada]\nbroker = \"10.0.0.5:8883\"\nasset = \"b\"\nuser = \"u\"",
                "scada.password_file",
            ),
            (
                "[scada]\nbroker = \"10.0.0.5:8883\"\nasset = \"b\"\nprefix = \"a/#\"",
                "scada.prefix",
            ),
            ("[log]\nformat = \"xml\"", "xml"),
            ("[log]\nlevel = \"=,=\"", "log.level"),
        ] {
            let error = parse(text).unwrap_err();
            let mut all = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                all.push_str(&source.to_string());
            }
            assert!(all.contains(names), "{all}");
        }
    }
}
