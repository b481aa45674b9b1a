//! `ochre config`: the settings.

use crate::output::{Exit, Output};
use crate::run::Settings;

/// Print the settings.
#[derive(clap::Subcommand)]
pub(crate) enum Config {
    /// Every setting with its meaning and its default, as a file to copy from.
    Default,
    /// The settings in force, from flags, environment, file and defaults.
    Show(Settings),
}

impl Config {
    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        match self {
            Self::Default => output.data(ochre_server::DEFAULT_TOML.trim_end())?,
            Self::Show(settings) => output.data(settings.resolve()?.to_toml().trim_end())?,
        }
        Ok(Exit::Ok)
    }
}
