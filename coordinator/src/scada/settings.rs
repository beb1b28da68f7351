//! The configuration's section `scada`: what was typed, and what was checked of it.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// Section `scada`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScadaFile {
    /// The plant's MQTT broker, `mqtts://host:port`; `""`: none.
    pub broker: String,
    /// PEM file of those who vouch for the broker.
    pub roots: String,
    /// PEM files of a certificate and its key, by which the coordinator shows who it is.
    pub certificate: String,
    /// The key.
    pub key: String,
    /// The name by which it logs in instead.
    pub user: String,
    /// File with the password.
    pub password_file: String,
    /// What every topic begins with.
    pub prefix: String,
    /// Whether alarms are acknowledged by topic.
    pub acknowledge: bool,
    /// Group of the Sparkplug B node; `""`: there is none.
    pub sparkplug_group: String,
    /// The node's name in it.
    pub sparkplug_node: String,
}

impl Default for ScadaFile {
    fn default() -> Self {
        Self {
            broker: String::new(),
            roots: String::new(),
            certificate: String::new(),
            key: String::new(),
            user: String::new(),
            password_file: String::new(),
            prefix: "penstock".to_owned(),
            acknowledge: false,
            sparkplug_group: String::new(),
            sparkplug_node: "penstock".to_owned(),
        }
    }
}

/// A broker, as it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScadaSettings {
    /// Its name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Who vouches for it; `None`: nobody has to, it is on this machine.
    pub roots: Option<PathBuf>,
    /// Certificate and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// User and the file with the password.
    pub login: Option<(String, PathBuf)>,
    /// What every topic begins with.
    pub prefix: String,
    /// Whether alarms are acknowledged by topic.
    pub acknowledge: bool,
    /// The Sparkplug B node.
    pub sparkplug: Option<SparkplugNode>,
}

/// Where a Sparkplug B node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparkplugNode {
    /// Its group.
    pub group: String,
    /// Its name.
    pub node: String,
}

type Wrong = (&'static str, String);

/// Scheme, host and port.
fn broker(text: &str) -> Result<(bool, String, u16), Wrong> {
    let bad = |what: &str| ("scada.broker", what.to_owned());
    let form = || bad("is not `mqtts://host:port`");
    let (is_tls, rest) = match text.split_once("://") {
        Some(("mqtts", rest)) => (true, rest),
        Some(("mqtt", rest)) => (false, rest),
        _ => return Err(form()),
    };
    let (host, port) = rest.rsplit_once(':').ok_or_else(form)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(form)?;
    if host.is_empty() || host.contains(['/', '@', '#', '?']) {
        return Err(form());
    }
    let is_here = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !is_tls && !is_here {
        return Err(bad(
            "has no TLS (mqtts://), which is accepted only where nothing leaves the machine",
        ));
    }
    Ok((is_tls, host.to_owned(), port))
}

/// A level of a topic, or some.
fn is_level(text: &str, levels: bool) -> bool {
    let plain = |c: char| !c.is_control() && !matches!(c, '+' | '#') && (levels || c != '/');
    (1..=128).contains(&text.len())
        && text.chars().all(plain)
        && !text.starts_with(['$', '/'])
        && !text.ends_with('/')
}

fn both(key: &'static str, one: &str, other: &str) -> Result<Option<(PathBuf, PathBuf)>, Wrong> {
    match (one, other) {
        ("", "") => Ok(None),
        ("", _) | (_, "") => Err((key, "is said without the other one of the two".to_owned())),
        _ => Ok(Some((one.into(), other.into()))),
    }
}

impl ScadaFile {
    /// Checks the values; `None`: there is no broker.
    ///
    /// # Errors
    /// One makes no sense: its key, and what is wrong with it.
    pub fn check(&self) -> Result<Option<ScadaSettings>, Wrong> {
        if self.broker.is_empty() {
            return Ok(None);
        }
        let (is_tls, host, port) = broker(&self.broker)?;
        if is_tls && self.roots.is_empty() {
            let what = "is missing: the PEM file with the roots that vouch for the broker";
            return Err(("scada.roots", what.to_owned()));
        }
        if !is_level(&self.prefix, true) {
            return Err((
                "scada.prefix",
                "cannot begin a topic: it has a wildcard, begins with `$` or `/`, or is empty".to_owned(),
            ));
        }
        let sparkplug = match self.sparkplug_group.as_str() {
            "" => None,
            group if !is_level(group, false) => {
                return Err((
                    "scada.sparkplug_group",
                    "cannot be one level of a topic".to_owned(),
                ));
            }
            _ if !is_level(&self.sparkplug_node, false) => {
                return Err((
                    "scada.sparkplug_node",
                    "cannot be one level of a topic".to_owned(),
                ));
            }
            group => Some(SparkplugNode {
                group: group.to_owned(),
                node: self.sparkplug_node.clone(),
            }),
        };
        let login = both("scada.password_file", &self.user, &self.password_file)?;
        Ok(Some(ScadaSettings {
            host,
            port,
            roots: is_tls.then(|| PathBuf::from(&self.roots)),
            certificate: both("scada.certificate", &self.certificate, &self.key)?,
            login: login.map(|(_, file)| (self.user.clone(), file)),
            prefix: self.prefix.clone(),
            acknowledge: self.acknowledge,
            sparkplug,
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_broker_is_reached_by_tls_but_on_this_machine_and_topics_have_no_wildcards() {
        let file = |broker: &str| ScadaFile {
            broker: broker.to_owned(),
            roots: "/etc/roots.pem".to_owned(),
            ..ScadaFile::default()
        };
        assert_eq!(file("").check(), Ok(None));
        let settings = file("mqtts://[fd00::7]:8883").check().unwrap().unwrap();
        assert_eq!((settings.host.as_str(), settings.port), ("fd00::7", 8883));
        assert!(
            file("mqtt://127.0.0.1:1883")
                .check()
                .unwrap()
                .unwrap()
                .roots
                .is_none()
        );
        for (wrong, key) in [
            (file("mqtt://broker.plant:1883"), "scada.broker"),
            (file("broker.plant:8883"), "scada.broker"),
            (file("mqtts://user@broker:8883"), "scada.broker"),
            (file("mqtts://broker:0"), "scada.broker"),
            (
                ScadaFile {
                    roots: String::new(),
                    ..file("mqtts://b:8883")
                },
                "scada.roots",
            ),
            (
                ScadaFile {
                    prefix: "plant/#".to_owned(),
                    ..file("mqtts://b:8883")
                },
                "scada.prefix",
            ),
            (
                ScadaFile {
                    sparkplug_group: "a/b".to_owned(),
                    ..file("mqtts://b:8883")
                },
                "scada.sparkplug_group",
            ),
            (
                ScadaFile {
                    user: "penstock".to_owned(),
                    ..file("mqtts://b:8883")
                },
                "scada.password_file",
            ),
        ] {
            assert_eq!(wrong.check().unwrap_err().0, key);
        }
    }
}
