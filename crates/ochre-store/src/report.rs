//! What a check of a database finds.

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the database directory.
    pub file: String,
    /// What is wrong and where.
    pub problem: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Everything that is wrong; empty for a clean database.
    pub findings: Vec<Finding>,
    /// What is worth knowing and no damage.
    pub notes: Vec<String>,
    /// Collections that were checked.
    pub collections: u64,
    /// Records that were checked.
    pub records: u64,
    /// Vectors whose checksums were verified.
    pub vectors: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    pub(crate) fn find(&mut self, file: &str, problem: String) {
        self.findings.push(Finding { file: file.to_owned(), problem });
    }
}
