//! What is told of a filter that no declared index answers.

use super::definition::IndexDefinition;
use super::status::IndexStatus;

/// That no metadata index answers a filter, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
pub struct UnindexedFilter {
    /// How many records the collection has.
    pub records: usize,
    /// What to do.
    pub remedy: UnindexedRemedy,
}

/// What to do about a filter that no metadata index answers.
#[derive(Clone, Debug, PartialEq)]
pub enum UnindexedRemedy {
    /// No index answers such tests: others have to narrow the records down.
    OtherTests,
    /// An index of its keys is not used: wait until it is ready, show it, or ask for shorter or fewer values.
    Existing {
        /// Its name.
        index_name: String,
        /// How far it is.
        status: IndexStatus,
        /// Whether it is hidden from queries.
        is_hidden: bool,
    },
    /// Declare an index.
    Declare(Box<IndexDefinition>),
}

impl std::fmt::Display for UnindexedFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { records, remedy } = self;
        write!(f, "where: no metadata index answers this filter, and the collection has {records} records; {remedy}")
    }
}

impl std::fmt::Display for UnindexedRemedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherTests => {
                f.write_str("no index answers such tests; add one for equality or a range on a key that has an index")
            }
            Self::Existing { index_name, status, is_hidden } => {
                let hidden = if *is_hidden { ", hidden" } else { "" };
                let status = status.name();
                write!(
                    f,
                    "index '{index_name}' ({status}{hidden}) has its keys: wait until it is ready, show it, or ask for at most 1,000 values of at most 512 bytes"
                )
            }
            Self::Declare(definition) => {
                let keys: Vec<&str> = definition.columns.iter().map(|column| column.key.as_str()).collect();
                write!(f, "declare one of {}", keys.join(", "))
            }
        }
    }
}
