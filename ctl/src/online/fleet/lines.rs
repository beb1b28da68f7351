//! `gateways`: each of them in a line, and what is in force somewhere, with its words.

use std::collections::BTreeMap;

use penstock_policy::ids::Digest;
use penstock_policy::release::spoken;
use penstock_proto::v1::{Drift, Gateway, KeyHeld, Release, TimeQuality};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::digest;
use super::super::identities::IdentityLine;
use super::super::releases::held::contradictions as contradictions_of;
use super::super::standing::StandingLine;
use super::tunnels::TunnelLine;
use super::unused;
use crate::known::KnownPlant;
use crate::output::{Page, Report, Tone};
use crate::words;

/// The gateways of the plant.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GatewayList {
    /// Each of them.
    pub gateways: Vec<GatewayLine>,
}

/// One gateway.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GatewayLine {
    /// Its name.
    pub name: String,
    /// Whether it has a certificate.
    pub enrolled: bool,
    /// Whether it is connected now.
    pub connected: bool,
    /// When it was last heard, milliseconds since 1970; 0: never.
    pub last_seen_ms: u64,
    /// Version of its agent.
    pub software_version: String,
    /// Where it says that its key is held, which nothing proves: `file` or `tpm`; absent: it does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_held: Option<String>,
    /// Revision that it was offered.
    pub offered: Option<u64>,
    /// Revision that it has verified and stored.
    pub staged: Option<u64>,
    /// Revision that its kernel holds.
    pub effective: Option<u64>,
    /// Digest of that release's statement; absent: its agent does not say it.
    pub statement_digest: Option<String>,
    /// That digest's first eight bytes in words, to be compared by telephone with `penstock-agent status` there.
    pub words: Option<String>,
    /// When that release got its last signature, milliseconds since 1970; absent: the coordinator shows no such release.
    pub approved_ms: Option<u64>,
    /// Why it cannot hold what it says to hold: another release under a known number, or one that is not shown.
    pub contradicts: Option<String>,
    /// How it stands to the release that it was ordered last, if it says more than what is staged and effective.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<StandingLine>,
    /// Why it refused the last offer, if it did.
    pub refused: Option<String>,
    /// `none`, `repaired`, `present` or `unknown`: foreign changes of the kernel's table.
    pub drift: String,
    /// Bytes of audit that wait on the gateway.
    pub spool_bytes: u64,
    /// Events that were shed, each replaced by a loss record.
    pub lost_events: u64,
    /// Packets that it refused since its agent began.
    pub denied_packets: u64,
    /// Operations inside connections that it refused since then, framing attacks among them.
    pub denied_operations: u64,
    /// How well its clock is known to be right: `synchronised`, `authenticated`, `floor` or `unknown`; absent: its agent does not say.
    pub clock: Option<String>,
    /// Its tunnels to other gateways, as last reported.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tunnels: Vec<TunnelLine>,
    /// Faults that a person should know.
    pub faults: Vec<String>,
    /// What it can enforce.
    pub capabilities: Vec<String>,
    /// When its certificate ends, milliseconds since 1970; 0: it has none.
    pub certificate_expires_ms: u64,
    /// When the token that was made for it and is not used yet ends, milliseconds since 1970, also if it has ended; 0: none.
    pub token_expires_ms: u64,
    /// Which key of it counts; absent: nothing is recorded yet, and its certificate counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityLine>,
}

impl From<Gateway> for GatewayLine {
    fn from(gateway: Gateway) -> Self {
        let policy = gateway.policy.unwrap_or_default();
        let spool = gateway.spool.unwrap_or_default();
        let kernel = gateway.kernel.unwrap_or_default();
        let statement = policy.effective.as_ref();
        let statement = statement.and_then(|mark| mark.statement_digest.as_ref().try_into().ok());
        let statement = statement.map(Digest);
        Self {
            denied_packets: kernel.denied_packets,
            denied_operations: kernel.denied_operations,
            drift: match Drift::try_from(gateway.drift) {
                Ok(Drift::None) => "none",
                Ok(Drift::Repaired) => "repaired",
                Ok(Drift::Present) => "present",
                Ok(Drift::Unspecified) | Err(_) => "unknown",
            }
            .to_owned(),
            clock: match TimeQuality::try_from(gateway.time_quality) {
                Ok(TimeQuality::Unknown) => Some("unknown".to_owned()),
                Ok(TimeQuality::Floor) => Some("floor".to_owned()),
                Ok(TimeQuality::Authenticated) => Some("authenticated".to_owned()),
                Ok(TimeQuality::Synchronised) => Some("synchronised".to_owned()),
                Ok(TimeQuality::Unspecified) | Err(_) => None,
            },
            key_held: match KeyHeld::try_from(gateway.key_held) {
                Ok(KeyHeld::File) => Some("file".to_owned()),
                Ok(KeyHeld::Tpm) => Some("tpm".to_owned()),
                Ok(KeyHeld::Unspecified) | Err(_) => None,
            },
            name: gateway.name,
            enrolled: gateway.enrolled,
            connected: gateway.connected,
            last_seen_ms: gateway.last_seen_ms,
            software_version: gateway.software_version,
            offered: gateway.offered.map(|mark| mark.revision),
            standing: policy.standing.as_ref().and_then(StandingLine::of),
            staged: policy.staged.map(|mark| mark.revision),
            effective: policy.effective.as_ref().map(|mark| mark.revision),
            statement_digest: statement.map(|digest| digest.to_string()),
            words: statement.map(|digest| spoken(&digest)),
            approved_ms: None,
            contradicts: None,
            refused: policy
                .refused
                .map(|refusal| format!("r{}: {}", refusal.revision, refusal.message)),
            spool_bytes: spool.bytes,
            lost_events: spool.lost_events,
            faults: gateway
                .faults
                .into_iter()
                .map(|fault| match fault.is_override() {
                    // Its words say so.
                    true => fault.message,
                    false => format!("{}: {}", fault.code, fault.message),
                })
                .collect(),
            tunnels: gateway.tunnels.into_iter().map(TunnelLine::from).collect(),
            capabilities: gateway.capabilities,
            certificate_expires_ms: gateway.certificate_expires_ms,
            token_expires_ms: gateway.token_expires_ms,
            identity: gateway.identity.map(Into::into),
        }
    }
}

impl GatewayLine {
    /// Which key counts in which life, and that it is in a TPM, where the gateway says so.
    fn key_words(&self) -> String {
        let key = self.identity.as_ref().map(IdentityLine::key_words);
        let key = key.unwrap_or_else(|| "—".to_owned());
        match self.key_held.as_deref() {
            Some("tpm") => key + ", in a TPM by its own word",
            _ => key,
        }
    }

    fn link(&self, now_ms: u64) -> (Tone, String) {
        if let Some(out) = self.identity.as_ref().filter(|identity| !identity.is_active()) {
            (Tone::Bad, format!("✗ {}", out.standing))
        } else if self.identity.as_ref().is_some_and(IdentityLine::has_two_users) {
            (Tone::Bad, "✗ two users".to_owned())
        } else if self.connected {
            (Tone::Good, "● connected".to_owned())
        } else if !self.enrolled {
            unused(self.token_expires_ms, now_ms)
        } else if self.last_seen_ms == 0 {
            (Tone::Warn, "◌ never seen".to_owned())
        } else {
            (
                Tone::Warn,
                format!("◌ last seen {}", words::relative(self.last_seen_ms, now_ms)),
            )
        }
    }

    fn remarks(&self, now_ms: u64) -> Vec<(Tone, String)> {
        let mut remarks = Vec::new();
        if let Some(out) = self.identity.as_ref().filter(|identity| !identity.is_active()) {
            remarks.push(out.words(now_ms));
        }
        if let Some(standing) = &self.standing {
            remarks.push(standing.words(now_ms));
        }
        if let Some(contradicts) = &self.contradicts {
            remarks.push((Tone::Bad, contradicts.clone()));
        }
        if let Some(refused) = &self.refused {
            remarks.push((Tone::Bad, format!("refused {refused}")));
        }
        match self.drift.as_str() {
            "present" => remarks.push((Tone::Bad, "somebody else changed the kernel's table".to_owned())),
            "repaired" => remarks.push((
                Tone::Warn,
                "a foreign change of the kernel's table was repaired".to_owned(),
            )),
            _ => {}
        }
        if self.lost_events > 0 {
            remarks.push((Tone::Bad, format!("{} audit events were lost", self.lost_events)));
        }
        remarks.extend(self.faults.iter().map(|fault| (Tone::Bad, fault.clone())));
        let tunnels = self.tunnels.iter().filter(|_| self.connected);
        remarks.extend(tunnels.map(|tunnel| tunnel.words(now_ms)));
        remarks
    }
}

impl Report for GatewayList {
    const SCHEMA: &'static str = "penstock.gateways/1";
    fn page(&self, page: &mut Page) {
        if self.gateways.is_empty() {
            page.line(
                "no gateways yet: they appear when a token is made for them (penstock gateways token), and with the first release",
            );
            return;
        }
        let now = words::now_ms();
        let revision = |mark: Option<u64>| mark.map_or_else(|| "—".to_owned(), |n| format!("r{n}"));
        let rows: Vec<_> = self
            .gateways
            .iter()
            .map(|gateway| {
                let behind = gateway.effective != gateway.offered;
                vec![
                    (Tone::Strong, gateway.name.clone()),
                    gateway.link(now),
                    (Tone::Plain, revision(gateway.offered)),
                    (Tone::Plain, revision(gateway.staged)),
                    (
                        if behind { Tone::Warn } else { Tone::Good },
                        revision(gateway.effective),
                    ),
                    (Tone::Dim, gateway.software_version.clone()),
                    (
                        Tone::Dim,
                        if gateway.certificate_expires_ms == 0 {
                            "—".into()
                        } else {
                            words::relative(gateway.certificate_expires_ms, now)
                        },
                    ),
                    (Tone::Dim, gateway.key_words()),
                ]
            })
            .collect();
        page.table(
            &[
                "GATEWAY",
                "LINK",
                "OFFERED",
                "STAGED",
                "EFFECTIVE",
                "VERSION",
                "CERTIFICATE ENDS",
                "LIFE: KEY",
            ],
            &rows,
        );
        self.held_page(page, now);
        for gateway in &self.gateways {
            for (tone, remark) in gateway.remarks(now) {
                let name = page.paint(Tone::Strong, &gateway.name);
                let remark = page.paint(tone, &remark);
                page.line(format!("{name}: {remark}"));
            }
        }
        if self.gateways.iter().any(|gateway| gateway.contradicts.is_some()) {
            page.line(
                "The coordinator was restored from a backup, or gives gateways different releases: compare the words with those of \
                 `penstock-agent status` on the gateways, by telephone, and sign nothing before you know which.",
            );
        }
    }
}

impl GatewayList {
    /// What is in force somewhere, the newest first: since when it is approved, and the words to compare.
    fn held_page(&self, page: &mut Page, now_ms: u64) {
        let mut held: BTreeMap<(u64, &str), (usize, Option<u64>)> = BTreeMap::new();
        for gateway in &self.gateways {
            if let (Some(revision), Some(words)) = (gateway.effective, &gateway.words) {
                let (count, approved) = held.entry((revision, words)).or_default();
                *count += 1;
                *approved = gateway.approved_ms;
            }
        }
        for ((revision, words), (count, approved_ms)) in held.iter().rev().take(HELD_SHOWN) {
            let revision = page.paint(Tone::Strong, &format!("r{revision}"));
            let words = page.paint(Tone::Plain, words);
            let age = approved_ms.map_or_else(String::new, |at| {
                format!(", approved {}", crate::words::when(at, now_ms))
            });
            let gateways = crate::words::count(*count, "gateway");
            page.line(format!("{revision} {words}: in force at {gateways}{age}"));
        }
    }

    /// With what the coordinator's releases and this machine's own knowledge say of what gateways hold.
    pub(super) fn judged(gateways: Vec<Gateway>, releases: &[Release], known: &KnownPlant) -> Self {
        let mut contradictions: BTreeMap<String, String> = BTreeMap::new();
        for found in contradictions_of(known, releases, &gateways) {
            contradictions.entry(found.gateway).or_insert(found.why);
        }
        let approved: BTreeMap<String, u64> = releases
            .iter()
            .filter(|release| release.approved_ms > 0)
            .filter_map(|release| {
                let digest = digest("statement_digest", &release.statement_digest).ok()?;
                Some((digest.to_string(), release.approved_ms))
            })
            .collect();
        let judged = gateways.into_iter().map(|gateway| {
            let line = GatewayLine::from(gateway);
            GatewayLine {
                approved_ms: line
                    .statement_digest
                    .as_ref()
                    .and_then(|digest| approved.get(digest).copied()),
                contradicts: contradictions.remove(&line.name),
                ..line
            }
        });
        Self {
            gateways: judged.collect(),
        }
    }
}

/// Releases in force somewhere that are listed below the gateways.
const HELD_SHOWN: usize = 8;
