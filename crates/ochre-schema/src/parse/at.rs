//! Where in a schema the parser is, and why it refuses what is there.

/// What is said of a member that stands twice.
const DOUBLED: &str = "it stands twice in its object, and only one of them could count: keep one";

/// Why a schema was refused: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chroma:schema is not valid at {}: {problem}", if pointer.is_empty() { "its root" } else { pointer })]
pub struct InvalidSchema {
    /// A JSON pointer into the schema (RFC 6901).
    pub pointer: String,
    /// What is wrong there, and what to do about it.
    pub problem: String,
}

pub(super) type Parsed<T> = Result<T, InvalidSchema>;

/// Where in the schema the parser is.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) parent: Option<&'a At<'a>>,
    pub(super) name: &'a str,
    /// It was declared before, maybe by a version that refused less.
    pub(super) is_stored: bool,
}

impl<'a> At<'a> {
    pub(super) const fn root(is_stored: bool) -> Self {
        Self { parent: None, name: "", is_stored }
    }

    pub(super) fn to(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), name, is_stored: self.is_stored }
    }

    pub(super) fn pointer(&self) -> String {
        let Some(parent) = self.parent else { return String::new() };
        format!("{}/{}", parent.pointer(), self.name.replace('~', "~0").replace('/', "~1"))
    }

    pub(super) fn error<T>(&self, problem: impl Into<String>) -> Parsed<T> {
        Err(InvalidSchema { pointer: self.pointer(), problem: problem.into() })
    }
}

impl InvalidSchema {
    /// Of a document that has a member twice, with where.
    pub fn doubled(pointer: String) -> Self {
        Self { pointer, problem: DOUBLED.into() }
    }
}
