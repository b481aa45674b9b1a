//! `ochre check`: verifies a database at rest.

use std::path::PathBuf;

use ochre_server::Extensions;

use crate::output::{Exit, Output};

/// Verify every checksum and cross-reference of a database; changes nothing.
#[derive(clap::Args)]
pub(crate) struct Check {
    /// Directory of the database.
    #[arg(long, value_name = "DIR", env = "OCHRE_PATH", default_value = "./ochre-data")]
    path: PathBuf,
}

impl Check {
    pub(crate) fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        let tables = [ochre_server::key_tables()];
        let report = ochre_engine::check_with(&self.path, &extensions.all_of_store(), &tables)?;
        for finding in &report.findings {
            output.data(&format!("{}: {}", finding.file, finding.problem))?;
        }
        report.notes.iter().for_each(|note| output.words(note));
        let checked = format!(
            "checked {} collections, {} records, {} vectors",
            report.collections, report.records, report.vectors
        );
        if report.is_clean() {
            output.words(&format!("{checked}: clean"));
            return Ok(Exit::Ok);
        }
        output.words(&format!(
            "{checked}: {} problems found; restore the damaged records from a backup, or write them again",
            report.findings.len()
        ));
        Ok(Exit::DamageFound)
    }
}
