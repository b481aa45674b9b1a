//! `ochre backup`: takes backups of a running server's database; lists and verifies what is at a target.

use anyhow::Context;
use ochre_engine::{Manifest, Repository};
use ochre_server::{Config, Extensions};

use crate::client::Connection;
use crate::jobs::Start;
use crate::output::{Exit, Output, table};
use crate::run::Settings;

/// Take, list and verify backups
#[derive(clap::Subcommand)]
pub(crate) enum Backup {
    /// Take a backup of a running server's database, to the target of its configuration
    Now(Now),
    /// List the backups at a target, oldest first
    List(At),
    /// Verify every chunk of the backups at a target and name what is damaged
    Verify(At),
}

#[derive(clap::Args)]
pub(crate) struct Now {
    #[command(flatten)]
    connection: Connection,
    /// Only what changed since the last backup
    #[arg(long)]
    incremental: bool,
}

/// Which target.
#[derive(clap::Args)]
pub(crate) struct At {
    #[command(flatten)]
    settings: Settings,
    /// The directory of the backups; the target of the configuration if absent
    #[arg(long, value_name = "TARGET")]
    from: Option<String>,
    /// Accept backups without a keyed hash although `backup.key` is set
    #[arg(long)]
    accept_unsigned: bool,
}

impl At {
    fn repository(self, extensions: &Extensions) -> anyhow::Result<Repository> {
        repository(&self.settings.resolve()?, extensions, self.from, self.accept_unsigned)
    }
}

/// The backups at a target.
pub(crate) fn repository(
    config: &Config, extensions: &Extensions, from: Option<String>, accept_unsigned: bool,
) -> anyhow::Result<Repository> {
    let target = from.unwrap_or_else(|| config.backup.target.clone());
    anyhow::ensure!(!target.is_empty(), "no target is configured: name one with --from, or set `target` in [backup]");
    let trust = config.backup.trust();
    let trust = if accept_unsigned { trust.accepting_unsigned(true) } else { trust };
    Ok(Repository::new(extensions.backup_targets().open(&target)?).trusting(trust))
}

impl Backup {
    pub(crate) fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        match self {
            Self::Now(now) => {
                let job = if now.incremental { "backup-incremental" } else { "backup" };
                Start::waiting_for(job, now.connection).run(output)
            }
            Self::List(at) => {
                let repository = at.repository(extensions)?;
                let (manifests, faults) = repository.manifests()?;
                let row = |manifest: &Manifest| {
                    let records: u64 = manifest.collections.iter().map(|collection| collection.records).sum();
                    [
                        manifest.id.clone(),
                        manifest.position.to_string(),
                        format!("{} in {}", records, manifest.collections.len()),
                        manifest.bytes.to_string(),
                        manifest.shipped_bytes.to_string(),
                        manifest.database.clone().unwrap_or_else(|| "-".to_owned()),
                    ]
                };
                let rows: Vec<[String; 6]> = manifests.iter().map(row).collect();
                table(["backup", "position", "records in collections", "bytes", "shipped", "database"], &rows, output)?;
                if rows.is_empty() {
                    output.status(&format!("there are no backups at {}", repository.describe()));
                }
                faults.0.iter().for_each(|fault| output.status(fault));
                Ok(if faults.0.is_empty() { Exit::Ok } else { Exit::DamageFound })
            }
            Self::Verify(at) => {
                let repository = at.repository(extensions)?;
                let (count, faults) = repository.verify_all().context("could not verify the backups")?;
                for fault in &faults.0 {
                    output.data(fault)?;
                }
                // Whoever verifies backups believes that there are some.
                anyhow::ensure!(count + faults.0.len() > 0, "there are no backups at {}", repository.describe());
                output.status(&format!("{count} backups at {}: {} faults", repository.describe(), faults.0.len()));
                Ok(if faults.0.is_empty() { Exit::Ok } else { Exit::DamageFound })
            }
        }
    }
}
