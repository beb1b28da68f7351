//! The configuration's sections `export`: what was typed, and what was checked of it. Files that are named are read when the
//! export connects, so that one that is missing is a fault of the export and stops nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use penstock_proto::event::{EventKind, severity_word};
use penstock_proto::export::{Format, LineFormat, otlp};
use penstock_proto::https::Address;
use penstock_proto::tls::{TlsError, foreign};
use penstock_proto::v1::Severity;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;

/// Most exports of one coordinator.
const EXPORTS_MAX: usize = 8;
/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 40;
/// Where syslog over TLS listens (RFC 5425).
const SYSLOG_PORT: u16 = 6514;

/// A section `export`, as it was typed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportFile {
    /// Its name: the place up to which it came is kept under it.
    pub name: String,
    /// `jsonl`, `syslog`, `cef`, `ocsf` or `otlp`.
    pub format: String,
    /// `file:/PATH`, `syslog+tls://HOST:PORT` or `otlp+https://HOST:PORT/v1/logs`.
    pub to: String,
    /// PEM file with the roots that vouch for the receiver.
    #[serde(default)]
    pub roots: String,
    /// PEM file with a certificate for a receiver that asks for one, and what issued it.
    #[serde(default)]
    pub certificate: String,
    /// PEM file with its key.
    #[serde(default)]
    pub key: String,
    /// Only these kinds of events; empty: all.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Only this severity and worse.
    #[serde(default = "least")]
    pub severity: String,
    /// Where it begins the first time.
    #[serde(default)]
    pub start: Start,
}

fn least() -> String {
    severity_word(Severity::Info.into()).to_owned()
}

/// Where an export begins that has no place yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the oldest block that is stored.
    #[default]
    Oldest,
    /// With what comes from now on.
    Now,
}

/// An export, as it was checked.
#[derive(Debug, Clone)]
pub struct ExportSettings {
    /// Its name.
    pub name: String,
    /// Where to, and in which format.
    pub to: Destination,
    /// Bits of the kinds; 0: all.
    pub kinds: u32,
    /// The least severity.
    pub severity_min: i32,
    /// Where it begins the first time.
    pub start: Start,
}

/// Where an export goes.
#[derive(Debug, Clone)]
pub enum Destination {
    /// Lines at the end of a file.
    File {
        /// The file.
        path: PathBuf,
        /// Of each line.
        format: LineFormat,
    },
    /// Messages of RFC 5424 over TLS.
    Syslog {
        /// DNS name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// The same for the TLS library.
        server: ServerName<'static>,
        /// Of the text of each message.
        format: LineFormat,
        /// Whom to believe, and what to show.
        tls: TlsFiles,
    },
    /// OTLP/HTTP.
    Otlp {
        /// Of the receiver.
        address: Address,
        /// Whom to believe, and what to show.
        tls: TlsFiles,
    },
}

/// The files of an export's TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Roots that vouch for the receiver; `None`: nothing leaves the machine.
    pub roots: Option<PathBuf>,
    /// Certificate and key for a receiver that asks for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// How to connect. The files are read each time, so that renewed ones count.
    pub(super) fn config(&self) -> Result<ClientConfig, TlsError> {
        let own = self.own.as_ref();
        let own = own.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        foreign::config(self.roots.as_deref(), own)
    }
}

/// A key of a section, and what is wrong with it.
type Wrong = (&'static str, String);

/// Checks all sections.
///
/// # Errors
/// A value makes no sense: its key, and what is wrong with it.
pub(crate) fn check(files: &[ExportFile]) -> Result<Vec<ExportSettings>, Wrong> {
    if files.len() > EXPORTS_MAX {
        return Err(("export", format!("stands more than {EXPORTS_MAX} times")));
    }
    let mut names = BTreeSet::new();
    for file in files {
        if !names.insert(&file.name) {
            return Err((
                "export.name",
                format!(
                    "`{}` stands twice: each export keeps its place under a name of its own",
                    file.name
                ),
            ));
        }
    }
    files.iter().map(ExportFile::check).collect()
}

impl ExportFile {
    fn check(&self) -> Result<ExportSettings, Wrong> {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(is_name) {
            let what = format!(
                "`{}` has to be 1 to {NAME_BYTES_MAX} of a to z, 0 to 9 and -",
                self.name
            );
            return Err(("export.name", what));
        }
        let format = Format::of_word(&self.format).ok_or_else(|| {
            let known: Vec<_> = Format::ALL.iter().map(|format| format.word()).collect();
            (
                "export.format",
                format!("is `{}`; known are {}", self.format, known.join(", ")),
            )
        })?;
        let mut kinds = 0;
        for kind in &self.kinds {
            let known = EventKind::of_word(kind).ok_or_else(|| {
                let known: Vec<_> = EventKind::ALL.iter().map(|kind| kind.word()).collect();
                (
                    "export.kinds",
                    format!("has `{kind}`; known are {}", known.join(", ")),
                )
            })?;
            kinds |= known.bit();
        }
        let severities = [
            Severity::Info,
            Severity::Notice,
            Severity::Warning,
            Severity::Alarm,
        ];
        let severity = severities
            .into_iter()
            .find(|severity| severity_word((*severity).into()) == self.severity);
        let severity = severity.ok_or_else(|| {
            (
                "export.severity",
                format!("is `{}`; known are info, notice, warning, alarm", self.severity),
            )
        })?;
        Ok(ExportSettings {
            name: self.name.clone(),
            to: self.destination(format)?,
            kinds,
            severity_min: severity.into(),
            start: self.start,
        })
    }

    fn destination(&self, format: Format) -> Result<Destination, Wrong> {
        let bad = |what: &str| Err(("export.to", format!("`{}` {what}", self.to)));
        let lines = |scheme: &str| match format {
            Format::Lines(format) => Ok(format),
            Format::Otlp => Err((
                "export.format",
                format!("is `otlp`, which goes to otlp+https://, not to {scheme}"),
            )),
        };
        if let Some(path) = self.to.strip_prefix("file:") {
            let path = PathBuf::from(path);
            if !path.is_absolute() || path.file_name().is_none() {
                return bad("is not file:/ with the whole path of a file");
            }
            self.without_tls()?;
            return Ok(Destination::File {
                path,
                format: lines("file:")?,
            });
        }
        if let Some(rest) = self.to.strip_prefix("syslog+tls://") {
            let Some((host, port)) = host_and_port(rest) else {
                return bad("is not syslog+tls://HOST or syslog+tls://HOST:PORT");
            };
            let Ok(server) = ServerName::try_from(host.clone()) else {
                return bad("names neither a DNS name nor an address");
            };
            return Ok(Destination::Syslog {
                host,
                port,
                server,
                format: lines("syslog+tls://")?,
                tls: self.tls(true)?,
            });
        }
        let Some(rest) = self.to.strip_prefix("otlp+") else {
            return bad("begins with none of file:/, syslog+tls:// and otlp+https://");
        };
        if format != Format::Otlp {
            return Err((
                "export.format",
                format!("is `{}`; otlp+https:// takes `otlp`", self.format),
            ));
        }
        let has_path = rest.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let whole = if has_path {
            rest.to_owned()
        } else {
            format!("{rest}{}", otlp::PATH)
        };
        let address = Address::parse(&whole).map_err(|error| ("export.to", error.to_string()))?;
        let tls = self.tls(address.is_tls())?;
        Ok(Destination::Otlp { address, tls })
    }

    fn tls(&self, is_needed: bool) -> Result<TlsFiles, Wrong> {
        if !is_needed {
            self.without_tls()?;
            return Ok(TlsFiles::default());
        }
        if self.roots.is_empty() {
            return Err((
                "export.roots",
                "is missing: the PEM file with the roots that vouch for the receiver".to_owned(),
            ));
        }
        let own = match (self.certificate.as_str(), self.key.as_str()) {
            ("", "") => None,
            ("", _) | (_, "") => {
                let what = "stands alone: `certificate` and `key` are there together or not at all";
                return Err(("export.certificate", what.to_owned()));
            }
            (certificate, key) => Some((certificate.into(), key.into())),
        };
        Ok(TlsFiles {
            roots: Some((&self.roots).into()),
            own,
        })
    }

    fn without_tls(&self) -> Result<(), Wrong> {
        match self.roots.is_empty() && self.certificate.is_empty() && self.key.is_empty() {
            true => Ok(()),
            false => Err((
                "export.roots",
                "is of no use: nothing leaves this machine".to_owned(),
            )),
        }
    }
}

/// `host`, `host:port`, `[address]:port`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let text = text.trim_end_matches('/');
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Some(SYSLOG_PORT), |port| port.parse().ok())?;
    let is_host = !host.is_empty() && !host.contains(['/', '@', '[', ' ']);
    (is_host && port != 0).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn typed(more: &str) -> Result<Vec<ExportSettings>, Wrong> {
        let file: ExportFile = toml::from_str(more).unwrap();
        check(&[file])
    }

    #[test]
    fn each_destination_is_read_with_its_defaults() {
        let file = typed("name = \"lines\"\nformat = \"jsonl\"\nto = \"file:/var/log/penstock/audit.jsonl\"")
            .unwrap();
        assert!(matches!(&file[0].to, Destination::File { path, .. } if path.ends_with("audit.jsonl")));
        assert_eq!(
            (file[0].kinds, file[0].severity_min, file[0].start),
            (0, 1, Start::Oldest)
        );
        let siem = "name = \"siem\"\nformat = \"cef\"\nto = \"syslog+tls://siem.example\"\nroots = \"/r.pem\"\n\
                    kinds = [\"verdict\", \"fault\"]\nseverity = \"warning\"\nstart = \"now\"";
        let siem = typed(siem).unwrap();
        assert!(
            matches!(&siem[0].to, Destination::Syslog { host, port: 6514, .. } if host == "siem.example")
        );
        assert_eq!((siem[0].kinds, siem[0].severity_min), (1 | 256, 3));
        let here = "name = \"c\"\nformat = \"otlp\"\nto = \"otlp+http://127.0.0.1:4318\"";
        assert!(
            matches!(&typed(here).unwrap()[0].to, Destination::Otlp { address, .. } if !address.is_tls())
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        for (more, key) in [
            (
                "name = \"A\"\nformat = \"jsonl\"\nto = \"file:/a\"",
                "export.name",
            ),
            (
                "name = \"a\"\nformat = \"xml\"\nto = \"file:/a\"",
                "export.format",
            ),
            (
                "name = \"a\"\nformat = \"otlp\"\nto = \"file:/a\"",
                "export.format",
            ),
            (
                "name = \"a\"\nformat = \"jsonl\"\nto = \"otlp+https://h\"\nroots = \"/r\"",
                "export.format",
            ),
            ("name = \"a\"\nformat = \"jsonl\"\nto = \"file:a\"", "export.to"),
            (
                "name = \"a\"\nformat = \"jsonl\"\nto = \"file:/a\"\nroots = \"/r\"",
                "export.roots",
            ),
            (
                "name = \"a\"\nformat = \"syslog\"\nto = \"syslog://h\"",
                "export.to",
            ),
            (
                "name = \"a\"\nformat = \"syslog\"\nto = \"syslog+tls://h:0\"\nroots = \"/r\"",
                "export.to",
            ),
            (
                "name = \"a\"\nformat = \"syslog\"\nto = \"syslog+tls://h\"",
                "export.roots",
            ),
            (
                "name = \"a\"\nformat = \"syslog\"\nto = \"syslog+tls://h\"\nroots = \"/r\"\nkey = \"/k\"",
                "export.certificate",
            ),
            (
                "name = \"a\"\nformat = \"otlp\"\nto = \"otlp+http://collector.example\"",
                "export.to",
            ),
            (
                "name = \"a\"\nformat = \"otlp\"\nto = \"otlp+https://collector.example\"",
                "export.roots",
            ),
            (
                "name = \"a\"\nformat = \"jsonl\"\nto = \"file:/a\"\nkinds = [\"gossip\"]",
                "export.kinds",
            ),
            (
                "name = \"a\"\nformat = \"jsonl\"\nto = \"file:/a\"\nseverity = \"bad\"",
                "export.severity",
            ),
        ] {
            let (named, what) = typed(more).unwrap_err();
            assert_eq!(named, key, "{more}: {what}");
        }
        let file: ExportFile = toml::from_str("name = \"a\"\nformat = \"jsonl\"\nto = \"file:/a\"").unwrap();
        assert_eq!(check(&[file.clone(), file.clone()]).unwrap_err().0, "export.name");
        assert!(
            toml::from_str::<ExportFile>("name = \"a\"\nformat = \"jsonl\"\nto = \"file:/a\"\ncolour = 1")
                .is_err()
        );
    }
}
