//! When a gateway may be changed, and what the process must say before: change windows, and the condition that `safe_to_change` names.
//!
//! The model and the plan have them with the same types. Whether a window is open, and what the process says, is for the gateway to
//! find out; nothing here knows the time or asks anyone.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ids::AssetId;
use crate::terms::Tls;

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;
/// Longest topic that is asked for, and longest value that is compared, bytes: what says "safe" is a word, not a document.
pub const TEXT_BYTES_MAX: usize = 256;
/// Longest name of a time zone.
const ZONE_BYTES_MAX: usize = 64;
/// The unit that a Modbus/TCP device is asked by where it has no others behind it (MODBUS Messaging on TCP/IP 1.0b, 4.4.2).
pub const UNIT_DEFAULT: u8 = 255;

/// A weekly change window. Minutes since midnight, site time; `end` above `start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// 0 = Monday … 6 = Sunday.
    pub weekday: u8,
    /// First minute.
    pub start_minute: u16,
    /// First minute after it.
    pub end_minute: u16,
}

/// As the document writes it: `Sun 02:00-04:00`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let day = DAYS.get(usize::from(self.weekday)).unwrap_or(&"?");
        let [from, until] = [self.start_minute, self.end_minute]
            .map(|minute| format!("{:02}:{:02}", minute / 60, minute % 60));
        write!(f, "{day} {from}-{until}")
    }
}

/// The windows of a gateway with the clock that they are read by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeWindows {
    /// IANA name of the site's time zone.
    pub timezone: String,
    /// In the order of the week, never none.
    pub weekly: Vec<Window>,
}

impl ChangeWindows {
    /// Why these are no windows, in words.
    pub(crate) fn fault(&self) -> Option<String> {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte);
        if self.timezone.is_empty()
            || self.timezone.len() > ZONE_BYTES_MAX
            || !self.timezone.bytes().all(named)
        {
            return Some("its change windows have no time zone".to_owned());
        }
        if self.weekly.is_empty() {
            return Some("it lists no change window".to_owned());
        }
        let is_whole = |window: &Window| {
            window.weekday < 7 && window.start_minute < window.end_minute && window.end_minute <= DAY_MINUTES
        };
        if let Some(window) = self.weekly.iter().find(|window| !is_whole(window)) {
            return Some(format!("the change window {window} is none of a week"));
        }
        let in_order = self.weekly.windows(2).all(|pair| match pair {
            [one, next] => {
                (one.weekday, one.end_minute) <= (next.weekday, next.start_minute)
                    && one.weekday <= next.weekday
            }
            _ => true,
        });
        (!in_order).then(|| "its change windows overlap or are not in order".to_owned())
    }
}

/// What must hold in the process for a change to be safe.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Condition {
    /// A Modbus/TCP device has this coil at this value.
    Coil {
        /// The unit that is asked.
        unit: u8,
        /// The coil, counted from 0 as on the wire.
        coil: u16,
        /// The value that means safe.
        is: bool,
    },
    /// A broker holds a retained message under this topic that reads so.
    Topic {
        /// The topic; no wildcards.
        topic: String,
        /// What the message must be, byte for byte.
        is: String,
        /// Spoken inside TLS.
        tls: Option<Tls>,
    },
}

/// `coil 5 (unit 1) is on`, `"line/1/safe" is "yes"`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coil { unit, coil, is } => {
                let unit = match *unit {
                    UNIT_DEFAULT => String::new(),
                    unit => format!(" (unit {unit})"),
                };
                write!(f, "coil {coil}{unit} is {}", if *is { "on" } else { "off" })
            }
            Self::Topic { topic, is, tls } => {
                let inside = if tls.is_some() { " (TLS)" } else { "" };
                write!(f, "the topic {topic:?}{inside} is {is:?}")
            }
        }
    }
}

impl Condition {
    /// The port that is usual for such a question.
    pub fn usual_port(&self) -> u16 {
        match self {
            Self::Coil { .. } => 502,
            Self::Topic { tls: None, .. } => 1883,
            Self::Topic { tls: Some(_), .. } => 8883,
        }
    }

    /// Why nobody could ask for it, in words.
    pub(crate) fn fault(&self) -> Option<String> {
        let Self::Topic { topic, is, .. } = self else {
            return None;
        };
        let problem = if topic.is_empty() || topic.len() > TEXT_BYTES_MAX {
            "has a topic that is empty or too long"
        } else if topic.contains(['+', '#', '\0']) {
            "has wildcards in its topic"
        } else if is.is_empty() || is.len() > TEXT_BYTES_MAX {
            "waits for a message that is empty or too long"
        } else {
            return None;
        };
        Some(format!("the interlock {problem}"))
    }
}

/// What a gateway asks the process before it changes, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interlock {
    /// The asset's name.
    pub asset: AssetId,
    /// Its address.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// How the question leaves the gateway.
    pub from: AskedFrom,
    /// The answer that means safe.
    pub condition: Condition,
}

impl Interlock {
    /// Why nobody could ask, in words. The interface's name is for the plan to judge.
    pub(crate) fn fault(&self) -> Option<String> {
        if self.port == 0 {
            return Some("the interlock asks at port 0, which no socket can have".to_owned());
        }
        if let AskedFrom::Address(own) = self.from
            && own.is_ipv4() != self.address.is_ipv4()
        {
            return Some("the interlock asks across families of addresses".to_owned());
        }
        self.condition.fault()
    }
}

/// How a question leaves the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AskedFrom {
    /// From this address of the gateway's own.
    Address(IpAddr),
    /// Through this interface, from whatever address the gateway has there: its way in for people.
    Interface(String),
}

impl fmt::Display for AskedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Interface(interface) => write!(f, "{interface}"),
        }
    }
}
