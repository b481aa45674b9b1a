//! `ochre check`: verifies a database at rest.

use std::collections::HashMap;
use std::path::PathBuf;

use ochre_engine::Finding;
use ochre_server::Extensions;

use crate::output::{Exit, Output};

/// Verify every checksum and cross-reference of a database; changes nothing.
#[derive(clap::Args)]
pub(crate) struct Check {
    /// Directory of the database.
    #[arg(long, value_name = "DIR", env = "OCHRE_PATH", default_value = "./ochre-data")]
    path: PathBuf,
    /// List every problem instead of the first ten of each kind in a file.
    #[arg(long)]
    all: bool,
}

/// Problems of one kind in one file that are listed without `--all`.
const LISTED_MAX: usize = 10;

impl Check {
    pub(crate) fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        let tables = [ochre_server::key_tables(), ochre_server::user_job_tables()];
        let report = ochre_engine::check_with(&self.path, &extensions.all_of_store(), &tables)?;
        for (file, problems) in by_kind(&report.findings) {
            let listed = if self.all { problems.len() } else { problems.len().min(LISTED_MAX) };
            for problem in &problems[..listed] {
                output.data(&format!("{file}: {problem}"))?;
            }
            if listed < problems.len() {
                output.data(&format!("{file}: {} more like these; --all lists them", problems.len() - listed))?;
            }
        }
        report.notes.iter().for_each(|note| output.status(note));
        let checked = format!(
            "checked {} collections, {} records, {} vectors",
            report.collections, report.records, report.vectors
        );
        if report.is_clean() {
            output.status(&format!("{checked}: clean"));
            return Ok(Exit::Ok);
        }
        output.status(&format!(
            "{checked}: {} problems found; restore the damaged records from a backup, or write them again",
            report.findings.len()
        ));
        Ok(Exit::DamageFound)
    }
}

/// The problems of each file that differ in nothing but names and numbers, in the order in which they were found.
fn by_kind(findings: &[Finding]) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut places: HashMap<(&str, String), usize> = HashMap::new();
    for Finding { file, problem } in findings {
        let place = *places.entry((file, kind(problem))).or_insert_with(|| {
            groups.push((file, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(problem);
    }
    groups
}

/// A text without what is quoted in it, and without digits.
fn kind(problem: &str) -> String {
    let unquoted = problem.split('\'').step_by(2);
    unquoted.flat_map(str::chars).filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_that_differ_in_names_and_numbers_are_of_one_kind() {
        let finding = |file: &str, problem: &str| Finding { file: file.into(), problem: problem.into() };
        let findings = [
            finding("a", "record 'x' of 'c' has no vector 17"),
            finding("b", "record 'x' of 'c' has no vector 17"),
            finding("a", "the page 5 is damaged"),
            finding("a", "record 'it is 1' of 'c' has no vector 4"),
        ];
        let groups = by_kind(&findings);
        let counts: Vec<(&str, usize)> = groups.iter().map(|(file, problems)| (*file, problems.len())).collect();
        assert_eq!(counts, [("a", 2), ("b", 1), ("a", 1)]);
    }
}
