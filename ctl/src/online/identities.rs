//! Who counts: how gateways, operators and devices stand, and what admins decide of it.

use std::path::Path;

use penstock_policy::ids::{AssetId, Digest};
use penstock_proto::peer::Subject;
use penstock_proto::v1::{
    ChangeStandingRequest, GetWithdrawnRequest, ListDevicesRequest, Standing, StandingChange, SubjectState,
};
use penstock_proto::withdrawn::{SignedList, Withdrawn};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Online, malformed, refused};
use crate::args::Grounds;
use crate::contexts::Contexts;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// Hexadecimal digits of a key that are shown in a table.
const KEY_SHOWN: usize = 12;

/// How a gateway, an operator or a device stands.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct IdentityLine {
    /// `active`, `suspended`, `revoked`, `retired` or `unknown`.
    pub standing: String,
    /// The number of its life: one begins with each key that takes the place of another.
    pub life: u32,
    /// SHA-256 of the public key that counts; absent: none does, or it is not known yet.
    pub key: Option<String>,
    /// Since when it stands so, milliseconds since 1970.
    pub since_ms: u64,
    /// Who decided it; empty: nobody did.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when two machines use its key, milliseconds since 1970; absent: as far as is known, one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub two_users_since_ms: Option<u64>,
}

impl From<SubjectState> for IdentityLine {
    fn from(state: SubjectState) -> Self {
        let key: Option<[u8; 32]> = state.key.as_ref().try_into().ok();
        Self {
            standing: match state.standing() {
                Standing::Active => "active",
                Standing::Suspended => "suspended",
                Standing::Revoked => "revoked",
                Standing::Retired => "retired",
                Standing::Unspecified => "unknown",
            }
            .to_owned(),
            life: state.epoch,
            key: key.map(|key| Digest(key).to_string()),
            since_ms: state.since_ms,
            by: state.by,
            reason: state.reason,
            two_users_since_ms: state.twin.map(|twin| twin.since_ms),
        }
    }
}

impl IdentityLine {
    /// Whether its key counts.
    pub fn is_active(&self) -> bool {
        self.standing == "active"
    }

    /// Whether two machines use its key.
    pub fn has_two_users(&self) -> bool {
        self.two_users_since_ms.is_some()
    }

    /// Its life and the beginning of its key.
    pub fn key_words(&self) -> String {
        match &self.key {
            Some(key) => {
                let digits = key.trim_start_matches("sha256:");
                format!("{}: {}", self.life, digits.get(..KEY_SHOWN).unwrap_or(digits))
            }
            None => "—".to_owned(),
        }
    }

    /// `✗ revoked 3 min ago by anna: stolen`, of one that does not count.
    pub fn words(&self, now_ms: u64) -> (Tone, String) {
        let by = match self.by.as_str() {
            "" => String::new(),
            by => format!(" by {by}"),
        };
        let words = format!(
            "✗ {} {}{by}: {}",
            self.standing,
            words::relative(self.since_ms, now_ms),
            self.reason
        );
        (Tone::Bad, words)
    }
}

/// What was decided of somebody.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StandingChanged {
    /// `gateway/<name>`, `operator/<name>` or `device/<name>`.
    pub subject: String,
    /// How it stands now.
    pub identity: IdentityLine,
    /// What follows.
    pub effect: String,
    /// What to do next.
    pub next: String,
}

impl Report for StandingChanged {
    const SCHEMA: &'static str = "penstock.identity/1";
    fn page(&self, page: &mut Page) {
        page.line(format!(
            "{} {} is {}: {}",
            page.paint(Tone::Good, "✓"),
            page.paint(Tone::Strong, &self.subject),
            self.identity.standing,
            self.effect
        ));
        page.line(format!("  {} {}", page.paint(Tone::Dim, "next,"), self.next));
    }
}

/// What a decision does, and what is to be done after it.
fn consequences(subject: &Subject, change: StandingChange) -> (&'static str, &'static str) {
    use StandingChange as Change;
    match (subject, change) {
        (Subject::Gateway(_), Change::Suspend) => (
            "its connections ended; it goes on enforcing the policy that it has",
            "to let it in again: penstock gateways resume",
        ),
        (Subject::Gateway(_), Change::Resume) => (
            "it may connect again, and its certificate is renewed again",
            "it comes back by itself; see penstock gateways",
        ),
        (Subject::Gateway(_), Change::Revoke) => (
            "its connections ended, and its key never counts again; where it stands, it goes on enforcing the policy that it has",
            "make a token for its replacement: penstock gateways token; or, if it was taken for good: penstock gateways retire",
        ),
        (Subject::Gateway(_), _) => (
            "its connections ended, and its key never counts again; where it stands, it goes on enforcing the policy that it has",
            "take it out of the plant document, and release that",
        ),
        (Subject::Device(_), Change::RevokeEarlier) => (
            "keys before the one that counts are refused by each gateway as soon as it has the list",
            "penstock devices list",
        ),
        (Subject::Device(_), _) => (
            "its key is refused by each gateway as soon as it has the list, and what it has open through them ends",
            "give it a certificate for a new key: penstock devices issue",
        ),
        (_, Change::Suspend) => (
            "their connections ended",
            "to let them in again: penstock operators resume",
        ),
        (_, Change::Resume) => ("they may log in again", "their login works as before"),
        (_, Change::Revoke) => (
            "their connections ended, and the key of their login never counts again",
            "on a new machine they log in with a new token: penstock operators add",
        ),
        (_, _) => (
            "their connections ended, and the key of their login never counts again",
            "if they are an approver, take their key out of the plant document, and release that",
        ),
    }
}

/// Decides, and says what came of it.
pub(super) async fn change(
    out: &Output,
    online: &mut Online,
    subject: Subject,
    change: StandingChange,
    because: &Grounds,
) -> Result<(), Failure> {
    let request = ChangeStandingRequest {
        subject: subject.to_string(),
        change: change.into(),
        reason: because.reason.clone(),
        ticket: because.ticket.clone().unwrap_or_default(),
    };
    let answer = online
        .client
        .change_standing(request)
        .await
        .map_err(|status| refused(&status))?;
    let (effect, next) = consequences(&subject, change);
    out.show(&StandingChanged {
        subject: subject.to_string(),
        identity: answer.into_inner().into(),
        effect: effect.to_owned(),
        next: next.to_owned(),
    })
}

/// Devices that got a certificate.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeviceList {
    /// Each of them.
    pub devices: Vec<DeviceLine>,
}

/// One device.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeviceLine {
    /// Its asset.
    pub name: String,
    /// The role that its certificates give it (Modbus/TCP Security); absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Which key of it counts.
    pub identity: IdentityLine,
}

impl Report for DeviceList {
    const SCHEMA: &'static str = "penstock.devices/1";
    fn page(&self, page: &mut Page) {
        if self.devices.is_empty() {
            page.line("no device got a certificate yet: penstock devices issue");
            return;
        }
        let now = words::now_ms();
        let rows: Vec<_> = self
            .devices
            .iter()
            .map(|device| {
                let standing = match device.identity.is_active() {
                    true => (
                        Tone::Good,
                        format!("● issued {}", words::relative(device.identity.since_ms, now)),
                    ),
                    false => device.identity.words(now),
                };
                vec![
                    (Tone::Strong, device.name.clone()),
                    (Tone::Plain, device.role.clone().unwrap_or_default()),
                    (Tone::Dim, device.identity.key_words()),
                    standing,
                ]
            })
            .collect();
        page.table(&["DEVICE", "ROLE", "LIFE: KEY", "STANDING"], &rows);
    }
}

/// `penstock devices list`.
pub(super) async fn devices(out: &Output, online: &mut Online) -> Result<(), Failure> {
    let answer = online
        .client
        .list_devices(ListDevicesRequest {})
        .await
        .map_err(|status| refused(&status))?;
    let devices = answer.into_inner().devices.into_iter().map(|state| DeviceLine {
        name: state.subject.trim_start_matches("device/").to_owned(),
        role: (!state.device_role.is_empty()).then(|| state.device_role.clone()),
        identity: state.into(),
    });
    out.show(&DeviceList {
        devices: devices.collect(),
    })
}

/// `penstock devices revoke`.
pub(super) async fn revoke_device(
    out: &Output,
    online: &mut Online,
    asset: &str,
    earlier: bool,
    because: &Grounds,
) -> Result<Exit, Failure> {
    let asset = AssetId::new(asset)
        .map_err(|error| Failure::usage(format!("this cannot be the name of an asset: {error}")))?;
    let what = match earlier {
        true => StandingChange::RevokeEarlier,
        false => StandingChange::Revoke,
    };
    change(out, online, Subject::Device(asset), what, because).await?;
    Ok(Exit::Done)
}

/// The list of withdrawn keys in a file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WithdrawnWritten {
    /// The file; absent: no key was withdrawn, and nothing was written.
    pub file: Option<String>,
    /// Gateways, operators and devices of which it withdraws keys.
    pub subjects: usize,
}

impl Report for WithdrawnWritten {
    const SCHEMA: &'static str = "penstock.gateways-withdrawn/1";
    fn page(&self, page: &mut Page) {
        let Some(file) = &self.file else {
            page.line("no key was withdrawn yet; nothing was written");
            return;
        };
        page.line(format!(
            "{} the signed list is in {}: keys of {} no longer count",
            page.paint(Tone::Good, "✓"),
            page.paint(Tone::Name, file),
            words::count(self.subjects, "subject"),
        ));
        page.line(format!(
            "  {} on the gateway: penstock-agent withdrawn take {}",
            page.paint(Tone::Dim, "next,"),
            files::quoted(Path::new(file))
        ));
    }
}

/// `penstock gateways withdrawn`. What is written was verified here: a gateway will take it.
pub(super) async fn withdrawn(out: &Output, online: &mut Online, file: &Path) -> Result<(), Failure> {
    let answer = online
        .client
        .get_withdrawn(GetWithdrawnRequest {})
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    if answer.payload.is_empty() {
        return out.show(&WithdrawnWritten {
            file: None,
            subjects: 0,
        });
    }
    let signed = SignedList::from(answer);
    let roots = Contexts::open()?.roots(&online.login.name)?;
    let mut list = Withdrawn::default();
    let verified = signed
        .verify(&online.login.context.plant, &roots)
        .and_then(|all| list.take(&all));
    verified.map_err(|error| malformed(&error.to_string()))?;
    files::replace(file, signed.to_json().as_bytes(), Mode::Shared)?;
    out.show(&WithdrawnWritten {
        file: Some(file.display().to_string()),
        subjects: list.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_short_and_whoever_does_not_count_is_shown_with_the_reason() {
        let state = SubjectState {
            standing: Standing::Revoked.into(),
            epoch: 3,
            since_ms: 1_000,
            by: "anna".to_owned(),
            reason: "stolen (INC-7)".to_owned(),
            ..SubjectState::default()
        };
        let revoked = IdentityLine::from(state.clone());
        assert_eq!(
            revoked.words(61_000).1,
            "✗ revoked 60 s ago by anna: stolen (INC-7)"
        );
        assert_eq!((revoked.is_active(), &*revoked.key_words()), (false, "—"));
        let active = IdentityLine::from(SubjectState {
            standing: Standing::Active.into(),
            key: vec![0xab; 32].into(),
            ..state
        });
        assert_eq!(
            (active.is_active(), &*active.key_words()),
            (true, "3: abababababab")
        );
    }
}
