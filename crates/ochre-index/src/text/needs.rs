//! What a document must have in it to pass a test, in terms of trigrams.

use ochre_model::DocumentTest;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::key;

/// A class of characters with more members than this is not spelled out.
const MEMBERS_MAX: usize = 4;
/// Neighbouring classes are spelled out as far as that makes at most this many trigrams.
const SPELLINGS_MAX: usize = 32;

/// A condition on the trigrams of a document. Every document that passes the test meets it; others may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing can be said.
    Anything,
    /// A trigram out of a range of keys, both ends included.
    Trigram(u32, u32),
    /// All of these.
    All(Vec<Needs>),
    /// One of these.
    Any(Vec<Needs>),
}

impl Needs {
    /// What documents need to pass the positive side of a test; and whether all that meet it do pass.
    pub(crate) fn of(test: &DocumentTest) -> (Self, bool) {
        match test {
            DocumentTest::Contains(text) | DocumentTest::NotContains(text) => {
                (Self::literal(text.as_bytes()), (1..=3).contains(&text.len()))
            }
            DocumentTest::Is(text) | DocumentTest::IsNot(text) => (Self::literal(text.as_bytes()), false),
            DocumentTest::Matches(regex) | DocumentTest::NotMatches(regex) => {
                let parsed = regex_syntax::parse(regex.as_str());
                (parsed.map_or(Self::Anything, |pattern| Self::pattern(&pattern)), false)
            }
        }
    }

    fn literal(bytes: &[u8]) -> Self {
        let sets: Vec<Vec<u8>> = bytes.iter().map(|byte| vec![*byte]).collect();
        Self::run(&sets)
    }

    /// Neighbouring bytes, each one of a few.
    fn run(sets: &[Vec<u8>]) -> Self {
        let window = sets.len().min(3);
        if window == 0 {
            return Self::Anything;
        }
        let spelled = sets.windows(window).map(|sets| {
            let count: usize = sets.iter().map(Vec::len).product();
            if count > SPELLINGS_MAX {
                return Self::Anything;
            }
            let mut spellings: Vec<Vec<u8>> = vec![Vec::new()];
            for set in sets {
                spellings = spellings
                    .iter()
                    .flat_map(|spelling| set.iter().map(move |byte| [spelling.as_slice(), &[*byte]].concat()))
                    .collect();
            }
            Self::any(spellings.iter().map(|spelling| Self::prefix(spelling)).collect())
        });
        Self::all(spelled.collect())
    }

    /// The trigrams that begin with up to three bytes.
    fn prefix(bytes: &[u8]) -> Self {
        let filled = |fill| std::array::from_fn(|index| bytes.get(index).copied().unwrap_or(fill));
        Self::Trigram(key(filled(0)), key(filled(u8::MAX)))
    }

    fn all(mut parts: Vec<Self>) -> Self {
        parts.retain(|part| *part != Self::Anything);
        match parts.len() {
            0 => Self::Anything,
            1 => parts.remove(0),
            _ => Self::All(parts),
        }
    }

    fn any(mut parts: Vec<Self>) -> Self {
        if parts.contains(&Self::Anything) {
            return Self::Anything;
        }
        if parts.len() == 1 { parts.remove(0) } else { Self::Any(parts) }
    }

    fn pattern(pattern: &Hir) -> Self {
        match pattern.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::Anything,
            HirKind::Literal(literal) => Self::literal(&literal.0),
            HirKind::Class(class) => members(class).map_or(Self::Anything, |set| Self::run(&[set])),
            HirKind::Repetition(repetition) if repetition.min == 0 => Self::Anything,
            HirKind::Repetition(repetition) => Self::pattern(&repetition.sub),
            HirKind::Capture(capture) => Self::pattern(&capture.sub),
            HirKind::Alternation(parts) => Self::any(parts.iter().map(Self::pattern).collect()),
            HirKind::Concat(parts) => {
                let (mut needs, mut run) = (Vec::new(), Vec::new());
                for part in parts {
                    match part.kind() {
                        HirKind::Literal(literal) => run.extend(literal.0.iter().map(|byte| vec![*byte])),
                        HirKind::Class(class) if let Some(set) = members(class) => run.push(set),
                        _ => {
                            needs.push(Self::run(&std::mem::take(&mut run)));
                            needs.push(Self::pattern(part));
                        }
                    }
                }
                needs.push(Self::run(&run));
                Self::all(needs)
            }
        }
    }
}

/// The members of a class, if they are few and each is one byte.
fn members(class: &Class) -> Option<Vec<u8>> {
    let mut set = Vec::new();
    let Class::Unicode(class) = class else { return None };
    for range in class.ranges() {
        let (start, end) = (u8::try_from(range.start()).ok()?, u8::try_from(range.end()).ok()?);
        if !end.is_ascii() || set.len() + usize::from(end - start) + 1 > MEMBERS_MAX {
            return None;
        }
        set.extend(start..=end);
    }
    Some(set)
}
