//! `ochre restore`: makes a database directory out of a backup.

use std::path::PathBuf;

use ochre_engine::{RestoreAt, RestoreOptions};
use ochre_server::Extensions;

use crate::backup::repository;
use crate::output::{Exit, Output};
use crate::run::Settings;

/// Restore a backup into a new directory
#[derive(clap::Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    settings: Settings,
    /// The directory of the backups; the target of the configuration if absent
    #[arg(long, value_name = "TARGET")]
    from: Option<String>,
    /// The last backup at or before this point: a commit number, an RFC 3339 time, a backup's id, or `latest`
    #[arg(long, default_value = "latest", value_name = "POSITION|TIME|ID")]
    at: String,
    /// The directory to restore into: empty, or not there yet
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Only the collection of this name or id
    #[arg(long, value_name = "NAME|ID")]
    collection: Option<String>,
    /// Accept backups without a keyed hash although `backup.key` is set
    #[arg(long)]
    accept_unsigned: bool,
}

impl Restore {
    pub(crate) fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        let at: RestoreAt = self.at.parse()?;
        let config = self.settings.resolve()?;
        let repository = repository(&config, extensions, self.from, self.accept_unsigned)?;
        let extensions = extensions.load(&config)?.store().to_vec();
        let tables = vec![ochre_server::key_tables(), ochre_server::user_job_tables()];
        let options = RestoreOptions { at, collection: self.collection, extensions, tables };
        let manifest = repository.restore(&options, &self.into)?;
        output.data(&format!(
            "restored {} at position {} into {}",
            manifest.id,
            manifest.position,
            self.into.display()
        ))?;
        let report = ochre_engine::check_with(&self.into, &options.extensions, &options.tables)?;
        for finding in &report.findings {
            output.status(&format!("{}: {}", finding.file, finding.problem));
        }
        output.status(&format!(
            "{} collections with {} records; start it with: ochre run --path {}",
            report.collections,
            report.records,
            self.into.display()
        ));
        Ok(if report.is_clean() { Exit::Ok } else { Exit::DamageFound })
    }
}
