//! What each command to the agent that runs takes, and how it is asked.

use std::path::PathBuf;

use penstock_policy::text;

use crate::config::{Config, ConfigError};
use crate::local::{Ask, LocalSettings, ask};

/// Where the configuration is by default.
pub const CONFIG_PATH: &str = "/etc/penstock/agent.toml";

/// What each of them takes.
#[derive(Debug, clap::Args)]
pub struct Asking {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
    config: PathBuf,
    /// Who you are, for the audit trail. Root has to say it; by default the user who called sudo.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl Asking {
    /// The configuration.
    ///
    /// # Errors
    /// It cannot be read, or is wrong.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config)
    }

    /// Where the agent is asked.
    ///
    /// # Errors
    /// The configuration cannot be read, or is wrong.
    pub fn settings(&self) -> Result<LocalSettings, ConfigError> {
        Ok(self.config()?.local())
    }

    /// Has the agent do something, and prints what is so then.
    ///
    /// # Errors
    /// No agent answers, this user may not ask it, or it did not do it.
    pub fn steer(self, settings: &LocalSettings, ask_for: Ask) -> anyhow::Result<()> {
        let done = self.asked(settings, ask_for)?;
        println!("{}", text::printable(&done));
        Ok(())
    }

    /// The same, for whoever prints it otherwise.
    ///
    /// # Errors
    /// As above.
    pub fn asked(self, settings: &LocalSettings, ask_for: Ask) -> anyhow::Result<String> {
        Ok(ask::steer(settings, self.said(), ask_for)?)
    }

    /// Who asks, by their own word.
    pub fn said(&self) -> Option<String> {
        let said = self.by.clone().or_else(|| std::env::var("SUDO_USER").ok());
        said.filter(|said| !said.is_empty())
    }
}
