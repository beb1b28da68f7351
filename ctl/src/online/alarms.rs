//! `alarms`: what needs somebody on shift now, what to do about it, and that somebody saw it. Nothing that is enforced changes.
//!
//! Whoever has a SCADA sees the same there (`docs/scada.md`).

use penstock_proto::v1::change_alarm_request::Change;
use penstock_proto::v1::{Alarm, ChangeAlarmRequest, PlantAlarms, WatchAlarmsRequest};
use schemars::JsonSchema;
use serde::Serialize;

use super::screen::Screen;
use super::{Online, malformed, refused};
use crate::args::{Alarms, AlarmsCommand, WhichAlarm};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, Page, Report, Tone};
use crate::words;

/// What the list calls the whole plant.
const PLANT: &str = "_plant";

/// One alarm.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AlarmLine {
    /// The zone; `_plant`: the whole plant.
    pub zone: String,
    /// `must-flow`, `unprotected`, `refused-write`, `drift`, `rollout`, `trail` or `stale`.
    pub cause: String,
    /// `normal`, `unacknowledged`, `acknowledged`, `returned`, `shelved`, `suppressed` or `out-of-service`.
    pub state: String,
    /// `high`, `medium` or `low`.
    pub priority: String,
    /// Since when it is in this state, milliseconds since 1970.
    pub since_ms: u64,
    /// When it was raised last, milliseconds since 1970.
    pub raised_ms: u64,
    /// What is wrong.
    pub message: String,
    /// What comes of it if nobody does anything.
    pub consequence: String,
    /// What to do.
    pub action: String,
    /// Within how many minutes.
    pub respond_minutes: u32,
    /// Who acknowledged or shelved it, or took it out of service; empty: nobody.
    pub by: String,
    /// They did it through the plant's MQTT broker: nothing proves the name.
    pub by_topic: bool,
    /// Why they did.
    pub reason: String,
    /// When one that is shelved or suppressed comes back at the latest, milliseconds since 1970; 0: it is neither.
    pub until_ms: u64,
    /// The gateways from which it comes.
    pub gateways: Vec<String>,
    /// It is of a safety zone: nobody shelves it alone.
    pub safety: bool,
}

impl From<Alarm> for AlarmLine {
    fn from(alarm: Alarm) -> Self {
        Self {
            zone: match alarm.zone.as_str() {
                "" => PLANT.to_owned(),
                _ => alarm.zone,
            },
            cause: alarm.cause,
            state: alarm.state,
            priority: alarm.priority,
            since_ms: alarm.since_ms,
            raised_ms: alarm.raised_ms,
            message: alarm.message,
            consequence: alarm.consequence,
            action: alarm.action,
            respond_minutes: alarm.respond_minutes,
            by: alarm.by,
            by_topic: alarm.by_topic,
            reason: alarm.reason,
            until_ms: alarm.until_ms,
            gateways: alarm.gateways,
            safety: alarm.safety,
        }
    }
}

impl AlarmLine {
    /// Sign, tone and words of its state: each tells it alone.
    fn standing(&self) -> (Tone, String) {
        let (tone, mark) = match (self.state.as_str(), self.priority.as_str()) {
            ("unacknowledged", "high") => (Tone::Bad, "■ 1"),
            ("unacknowledged", "medium") => (Tone::Warn, "▲ 2"),
            ("unacknowledged", _) => (Tone::Name, "● 3"),
            ("acknowledged", _) => (Tone::Plain, "✓"),
            ("returned", _) => (Tone::Plain, "□"),
            ("normal", _) => (Tone::Dim, "·"),
            _ => (Tone::Dim, "◷"),
        };
        (tone, format!("{mark} {}", self.state))
    }

    fn page(&self, page: &mut Page, now_ms: u64) {
        let (tone, standing) = self.standing();
        let standing = page.paint(tone, &format!("{standing:<17}"));
        let name = page.paint(Tone::Strong, &format!("{} {}", self.zone, self.cause));
        let since = match self.since_ms {
            0 => String::new(),
            since_ms => format!("  {}", words::relative(since_ms, now_ms)),
        };
        let since = page.paint(Tone::Dim, &since);
        page.line(format!("  {standing}  {name}{since}"));
        if !self.message.is_empty() {
            page.paragraph(21, Tone::Plain, &self.message);
        }
        if self.state != "normal" {
            let act = format!("{} Within {} min.", self.action, self.respond_minutes);
            page.paragraph(21, Tone::Dim, &act);
        }
        if !self.by.is_empty() {
            let by = match self.by_topic {
                true => format!("by topic, as {}", self.by),
                false => format!("by {}", self.by),
            };
            let why = match self.reason.as_str() {
                "" => by,
                reason => format!("{by}: {reason}"),
            };
            page.paragraph(21, Tone::Dim, &why);
        }
        if self.until_ms > 0 {
            let until = format!(
                "comes back {} at the latest",
                words::relative(self.until_ms, now_ms)
            );
            page.paragraph(21, Tone::Dim, &until);
        }
    }
}

/// The alarms of a plant.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AlarmList {
    /// When it was so, milliseconds since 1970.
    pub time_ms: u64,
    /// Each alarm that is not normal, the gravest first.
    pub alarms: Vec<AlarmLine>,
    /// What several zones have in common.
    pub common_causes: Vec<String>,
    /// How many asked for attention within ten minutes; what has one common cause counts once.
    pub raised_ten_minutes: u32,
    /// Within an hour.
    pub raised_hour: u32,
    /// Within a day, at most since the coordinator started.
    pub raised_day: u32,
    /// More than ten within ten minutes, until it is fewer than five.
    pub flood: bool,
}

impl From<PlantAlarms> for AlarmList {
    fn from(alarms: PlantAlarms) -> Self {
        let load = alarms.load.unwrap_or_default();
        Self {
            time_ms: alarms.time_ms,
            alarms: alarms.alarms.into_iter().map(AlarmLine::from).collect(),
            common_causes: alarms.common.into_iter().map(|common| common.message).collect(),
            raised_ten_minutes: load.ten_minutes,
            raised_hour: load.hour,
            raised_day: load.day,
            flood: load.flood,
        }
    }
}

impl AlarmList {
    /// Whether anything asks for somebody.
    fn asks(&self) -> bool {
        let asks = |alarm: &AlarmLine| {
            matches!(
                alarm.state.as_str(),
                "unacknowledged" | "acknowledged" | "returned"
            )
        };
        self.alarms.iter().any(asks)
    }
}

impl Report for AlarmList {
    const SCHEMA: &'static str = "penstock.alarms/1";
    fn page(&self, page: &mut Page) {
        if self.alarms.is_empty() {
            page.line("no alarm stands");
        }
        for common in &self.common_causes {
            page.paragraph(2, Tone::Bad, &format!("■ {common}"));
        }
        for alarm in &self.alarms {
            alarm.page(page, words::now_ms());
        }
        let flood = if self.flood { ", a flood" } else { "" };
        let load = format!(
            "raised: {} in ten minutes{flood}, {} in an hour, {} in a day",
            self.raised_ten_minutes, self.raised_hour, self.raised_day
        );
        page.gap();
        page.paragraph(2, Tone::Dim, &load);
        if self.asks() {
            let next = page.paint(Tone::Dim, "next,");
            page.line(format!("  {next} penstock alarms ack ZONE CAUSE"));
        }
    }
}

/// An alarm after something was done about it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AlarmChanged {
    /// It.
    #[serde(flatten)]
    pub alarm: AlarmLine,
}

impl Report for AlarmChanged {
    const SCHEMA: &'static str = "penstock.alarm/1";
    fn page(&self, page: &mut Page) {
        self.alarm.page(page, words::now_ms());
    }
}

/// `penstock alarms …`.
pub(crate) async fn alarms(out: &Output, context: Option<&str>, args: &Alarms) -> Result<Exit, Failure> {
    let mut online = Online::connect(context).await?;
    online.settle_zone().await;
    let Some(command) = &args.command else {
        return shown(out, &mut online, args.watch).await;
    };
    let (which, change, reason) = match command {
        AlarmsCommand::Ack { alarm, reason } => (alarm, Change::Acknowledge(true), reason.as_str()),
        AlarmsCommand::Shelve {
            alarm,
            minutes,
            reason,
        } => (alarm, Change::ShelveMinutes(*minutes), reason.as_str()),
        AlarmsCommand::Unshelve { alarm } => (alarm, Change::Unshelve(true), ""),
        AlarmsCommand::OutOfService { alarm, reason } => (alarm, Change::OutOfService(true), reason.as_str()),
        AlarmsCommand::ReturnToService { alarm } => (alarm, Change::ReturnToService(true), ""),
    };
    let changed = online.client.change_alarm(request(which, change, reason)).await;
    let changed = changed.map_err(|status| refused(&status))?.into_inner();
    let alarm = AlarmLine::from(changed);
    out.show(&AlarmChanged { alarm })?;
    Ok(Exit::Done)
}

fn request(which: &WhichAlarm, change: Change, reason: &str) -> ChangeAlarmRequest {
    ChangeAlarmRequest {
        zone: match which.zone.as_str() {
            PLANT => String::new(),
            zone => zone.to_owned(),
        },
        cause: which.cause.clone(),
        change: Some(change),
        reason: reason.to_owned(),
    }
}

/// What stands: once, or again at each change until the coordinator goes or somebody stops it.
async fn shown(out: &Output, online: &mut Online, watch: bool) -> Result<Exit, Failure> {
    let asked = WatchAlarmsRequest { once: !watch };
    let answer = online.client.watch_alarms(asked).await;
    let mut answer = answer.map_err(|status| refused(&status))?.into_inner();
    let mut screen = Screen::new(out);
    let mut last = None;
    loop {
        let next = tokio::select! {
            next = answer.message() => next.map_err(|status| refused(&status))?,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        };
        let Some(next) = next else { break };
        let list = AlarmList::from(next);
        match watch && screen.live {
            true => screen.draw(out, &out.page(&list))?,
            false => out.show_next(&list)?,
        }
        last = Some(list);
    }
    let last = last.ok_or_else(|| malformed("it is empty"))?;
    Ok(if last.asks() { Exit::Findings } else { Exit::Done })
}
