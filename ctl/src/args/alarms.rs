//! `penstock alarms`.

use clap::{Args, Subcommand};

/// `penstock alarms`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  penstock alarms\n  penstock alarms --watch\n  \
                  penstock alarms ack boiler must-flow --reason \"control engineer is called\"\n  \
                  penstock alarms shelve boiler stale --minutes 120 --reason \"radio link is repaired until noon\"")]
pub struct Alarms {
    /// Keep watching: what stands is shown again at each change.
    #[arg(long, short)]
    pub watch: bool,
    /// Without one: list them.
    #[command(subcommand)]
    pub command: Option<AlarmsCommand>,
}

/// An alarm.
#[derive(Debug, Args)]
pub struct WhichAlarm {
    /// The zone; `_plant` for an alarm of the whole plant.
    pub zone: String,
    /// The cause, as the list shows it.
    pub cause: String,
}

/// `penstock alarms …`.
#[derive(Debug, Subcommand)]
pub enum AlarmsCommand {
    /// Say that you saw an alarm; it stays in the list until its cause is over
    Ack {
        /// Which.
        #[command(flatten)]
        alarm: WhichAlarm,
        /// What you know or did, for the trail and for whoever takes the shift over.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Put an alarm away for a while; it comes back by itself. Refused for a safety zone
    Shelve {
        /// Which.
        #[command(flatten)]
        alarm: WhichAlarm,
        /// For how many minutes: no longer than a shift.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=720))]
        minutes: u32,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Show a shelved alarm again
    Unshelve {
        /// Which.
        #[command(flatten)]
        alarm: WhichAlarm,
    },
    /// Take an alarm out of service until somebody ends that. Refused for a safety zone
    OutOfService {
        /// Which.
        #[command(flatten)]
        alarm: WhichAlarm,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Bring an alarm back that is out of service
    ReturnToService {
        /// Which.
        #[command(flatten)]
        alarm: WhichAlarm,
    },
}
