//! What this gateway knows of the time beside what its clock shows: the latest time that it ever believed, which is its *floor*, and what a
//! coordinator said since the machine was started.
//!
//! Believed are the beginning of the plant's authority, whose root was pinned when the gateway was enrolled; the clock here, while it is
//! synchronised; and a coordinator, as far as its time lies within the validity of the certificate that it has just accepted as valid. The
//! floor stands on the disk and only goes up.
//!
//! Nothing that protects the plant goes by it: that goes by the time since boot ([`crate::timepiece`]). The floor says how well the time is known, names
//! what is wrong with a clock, decides which certificate is shown first, and lets a certificate pass that is not valid yet by a clock that
//! is behind ([`penstock_proto::tls::times`]). It never makes one be refused that the clock alone would accept, so a time that was believed
//! wrongly, years ahead, takes nothing away.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use penstock_proto::tls::times::{self, apart, instant};
use penstock_proto::v1::{Fault, TimeQuality};
use serde::{Deserialize, Serialize};

use crate::boot;
use crate::durable;
use crate::identity::Identity;
use crate::timepiece::{Time, Timepiece};

/// The file, in the state folder.
pub const FILE: &str = "known-time.json";
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Clocks that differ by less agree.
const TOLERANCE_MS: u64 = 2 * 60_000;
/// How far the floor goes up before it is written again: a disk of flash is spared.
const WRITTEN_EACH_MS: u64 = 3_600_000;
/// How long after one that failed the next attempt at writing is made.
const AGAIN: Duration = Duration::from_secs(60);

/// By what a time was believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeSource {
    /// The plant's authority began then.
    Authority,
    /// The clock here, while it was synchronised.
    Clock,
    /// A coordinator.
    Coordinator,
}

impl fmt::Display for TimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authority => "the beginning of the plant's authority",
            Self::Clock => "this machine's clock while it was synchronised",
            Self::Coordinator => "the coordinator",
        })
    }
}

/// The latest time that was ever believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// By what.
    pub source: TimeSource,
}

/// What a coordinator said, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// The time of day, milliseconds since 1970.
    pub ms: u64,
    /// When, by the clock of the boot, milliseconds.
    pub at_ms: u64,
    /// In which boot.
    pub boot: String,
}

/// All that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The floor; `None`: no time was ever believed.
    pub floor: Option<Floor>,
    /// What a coordinator said last.
    pub said: Option<Said>,
}

/// How well this machine's clock is known to be right, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClockState {
    /// `unknown`, `floor`, `authenticated` or `synchronised`.
    pub quality: Quality,
    /// What it shows, milliseconds since 1970.
    pub shows_ms: u64,
    /// The latest time that was ever believed.
    pub floor: Option<Floor>,
    /// By how much it is wrong, in words: "56 years behind the certificate (valid from …)".
    pub wrong: Option<Wrong>,
}

/// How well the time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quality {
    /// Nothing vouches for the clock, and there is nothing to hold it against.
    Unknown,
    /// It is no earlier than the floor; nothing else vouches for the clock.
    Floor,
    /// A coordinator said the same since the machine was started.
    Authenticated,
    /// A time service keeps the clock.
    Synchronised,
}

impl From<Quality> for TimeQuality {
    fn from(quality: Quality) -> Self {
        match quality {
            Quality::Unknown => Self::Unknown,
            Quality::Floor => Self::Floor,
            Quality::Authenticated => Self::Authenticated,
            Quality::Synchronised => Self::Synchronised,
        }
    }
}

/// What is wrong with a clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// It is behind; otherwise it is ahead.
    pub is_behind: bool,
    /// "56 years behind the certificate (valid from …)".
    pub words: String,
}

impl Known {
    /// This time has come. Answers whether that is new.
    pub fn believe(&mut self, ms: u64, source: TimeSource) -> bool {
        let is_new = self.floor.is_none_or(|floor| floor.ms < ms);
        if is_new {
            self.floor = Some(Floor { ms, source });
        }
        is_new
    }

    /// The clock shows this.
    pub fn seen(&mut self, time: Time) {
        if time.synchronised {
            self.believe(time.wall_ms, TimeSource::Clock);
        }
    }

    /// A coordinator said that it is `ms`, to a gateway that showed a certificate valid in `certificate`. Answers whether that is believed.
    pub fn heard(&mut self, ms: u64, certificate: (u64, u64), (boot, time): (&str, Time)) -> bool {
        // By its own words, it would not have accepted the certificate.
        if ms < certificate.0 || ms > certificate.1 {
            return false;
        }
        self.believe(ms, TimeSource::Coordinator);
        self.said = Some(Said {
            ms,
            at_ms: milliseconds(time.boot),
            boot: boot.to_owned(),
        });
        true
    }

    /// The time by which certificates are chosen: the clock's, but where nothing vouches for it no earlier one than the floor.
    pub fn now_ms(&self, time: Time) -> u64 {
        let floor = self.floor.filter(|_| !time.synchronised);
        floor.map_or(time.wall_ms, |floor| floor.ms.max(time.wall_ms))
    }

    /// How the clock stands to what is known, and to the validity of the certificate in use.
    pub fn judge(&self, certificate: Option<(u64, u64)>, (boot, time): (&str, Time)) -> ClockState {
        let by_coordinator = self.said.as_ref().filter(|said| said.boot == boot).map(|said| {
            let since = milliseconds(time.boot).saturating_sub(said.at_ms);
            said.ms.saturating_add(since)
        });
        let wrong = self.wrong(certificate, by_coordinator, time.wall_ms);
        let quality = match (wrong.is_some(), by_coordinator.is_some(), self.floor.is_some()) {
            _ if time.synchronised => Quality::Synchronised,
            (false, true, _) => Quality::Authenticated,
            (_, _, true) => Quality::Floor,
            (_, _, false) => Quality::Unknown,
        };
        ClockState {
            quality,
            shows_ms: time.wall_ms,
            floor: self.floor,
            wrong,
        }
    }

    fn wrong(
        &self,
        certificate: Option<(u64, u64)>,
        by_coordinator: Option<u64>,
        wall_ms: u64,
    ) -> Option<Wrong> {
        let behind = |right_ms: u64, than: String| {
            (wall_ms.saturating_add(TOLERANCE_MS) < right_ms).then(|| Wrong {
                is_behind: true,
                words: format!("{} behind {than}", apart(wall_ms, right_ms)),
            })
        };
        let ahead = |right_ms: u64, than: String| {
            (wall_ms > right_ms.saturating_add(TOLERANCE_MS)).then(|| Wrong {
                is_behind: false,
                words: format!("{} ahead of {than}", apart(wall_ms, right_ms)),
            })
        };
        if let Some(said) = by_coordinator {
            let than = || "the coordinator's".to_owned();
            return behind(said, than()).or_else(|| ahead(said, than()));
        }
        let by_certificate = certificate
            .and_then(|(from, _)| behind(from, format!("the certificate (valid from {})", instant(from))));
        by_certificate.or_else(|| {
            let floor = self.floor?;
            let than = format!(
                "the latest time that this gateway knew ({}, by {})",
                instant(floor.ms),
                floor.source
            );
            behind(floor.ms, than)
        })
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl ClockState {
    /// What a person should know.
    pub fn fault(&self) -> Option<Fault> {
        let wrong = self.wrong.as_ref()?;
        let code = if wrong.is_behind {
            "clock-behind"
        } else {
            "clock-ahead"
        };
        // Nothing that changes from report to report.
        let message = format!(
            "The times of this gateway's events are wrong, and certificates may be refused: this machine's clock is {}. What is enforced \
             goes on unchanged. Set the clock that is wrong (`timedatectl`)",
            wrong.words
        );
        Some(Fault::new(code, message))
    }
}

impl fmt::Display for ClockState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", instant(self.shows_ms))?;
        f.write_str(match self.quality {
            Quality::Synchronised => "synchronised",
            Quality::Authenticated => {
                "not synchronised; the coordinator said the same since the machine started"
            }
            Quality::Floor | Quality::Unknown => "not synchronised",
        })?;
        match (&self.wrong, self.quality, self.floor) {
            (Some(wrong), ..) => write!(f, "; WRONG: {}; set it (`timedatectl`)", wrong.words),
            (None, Quality::Floor, Some(floor)) => {
                write!(f, "; it is not before {} ({})", instant(floor.ms), floor.source)
            }
            (None, Quality::Unknown, _) => f.write_str("; nothing is known to hold it against"),
            (None, ..) => Ok(()),
        }
    }
}

/// What the file says. One that cannot be read says nothing.
pub fn peek(state_folder: &Path) -> Known {
    read(&state_folder.join(FILE)).unwrap_or_default()
}

fn read(path: &Path) -> Result<Known, String> {
    let bytes = durable::read(path, FILE_BYTES_MAX).map_err(|error| error.to_string())?;
    let bytes = bytes.unwrap_or_else(|| b"{}".to_vec());
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// What is known, kept on the disk, for all parts of the agent.
#[derive(Debug, Clone)]
pub struct KnownTime {
    path: PathBuf,
    timepiece: Timepiece,
    boot: Arc<str>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    known: Known,
    /// As it stands on the disk.
    written: Known,
    /// Not before, on the boot's clock.
    write_at: Duration,
}

impl KnownTime {
    /// What is known in this state folder. A file that cannot be read is a warning: what it said is learnt again.
    pub fn open(state_folder: &Path, timepiece: Timepiece) -> Self {
        let path = state_folder.join(FILE);
        let known = read(&path).unwrap_or_else(|error| {
            tracing::warn!(%error, "the latest time that this gateway knew cannot be read; it is learnt again");
            Known::default()
        });
        let this = Self {
            path,
            timepiece,
            boot: boot::id().into(),
            kept: Arc::new(Mutex::new(Kept {
                written: known.clone(),
                known,
                write_at: Duration::ZERO,
            })),
        };
        this.publish();
        this
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        if let Some(floor) = self.kept().known.floor {
            times::raise_floor(floor.ms);
        }
    }

    /// The authority of this identity's plant has begun.
    pub fn believe_authority(&self, identity: &Identity) {
        if let Some(ms) = identity.authority_began_ms() {
            self.kept().known.believe(ms, TimeSource::Authority);
            self.publish();
        }
    }

    /// A coordinator said that it is `ms`, to this gateway with a certificate valid in `certificate`.
    pub fn heard(&self, ms: u64, certificate: (u64, u64)) {
        let time = self.timepiece.now();
        let is_believed = self.kept().known.heard(ms, certificate, (&self.boot, time));
        // 0: it did not say.
        if !is_believed && ms > 0 {
            tracing::warn!(
                time = instant(ms),
                "the coordinator said a time at which our certificate is not valid; it is not believed"
            );
        }
        self.publish();
    }

    /// The time by which certificates are chosen, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.kept().known.now_ms(self.timepiece.now())
    }

    /// How the clock stands to it.
    pub fn judge(&self, certificate: Option<(u64, u64)>) -> ClockState {
        self.kept()
            .known
            .judge(certificate, (&self.boot, self.timepiece.now()))
    }

    /// Looks at the clock, and writes what is new to the disk: seldom, and never again and again where it fails.
    pub async fn look(&self) {
        let time = self.timepiece.now();
        let due = {
            let mut kept = self.kept();
            kept.known.seen(time);
            let is_due = kept.is_due() && kept.write_at <= time.boot;
            is_due.then(|| {
                kept.write_at = time.boot + AGAIN;
                kept.known.clone()
            })
        };
        self.publish();
        let Some(known) = due else { return };
        let path = self.path.clone();
        // Numbers and a name cannot fail to be JSON.
        let bytes = serde_json::to_vec(&known).unwrap_or_default();
        let written = tokio::task::spawn_blocking(move || durable::replace(&path, &bytes, 0o644)).await;
        match written {
            Ok(Ok(())) => self.kept().written = known,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the latest known time is not on the disk; it is tried again")
            }
            Err(error) => tracing::error!(%error, "internal error in writing the latest known time"),
        }
    }
}

impl Kept {
    /// Whether the disk lacks something that counts.
    fn is_due(&self) -> bool {
        let boot = |known: &Known| known.said.as_ref().map(|said| said.boot.clone());
        let ms = |known: &Known| known.floor.map_or(0, |floor| floor.ms);
        let written = ms(&self.written);
        let goes_up = ms(&self.known) >= written.saturating_add(WRITTEN_EACH_MS);
        goes_up || boot(&self.known) != boot(&self.written) || (written == 0 && ms(&self.known) > 0)
    }
}

#[cfg(test)]
mod tests;
