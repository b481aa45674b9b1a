//! The documents of a collection, indexed twice. By trigrams: which documents may contain a text or match a pattern,
//! without reading them. By terms: which documents fit the words of a query best, as BM25 has it.
//!
//! A document is indexed under every three consecutive bytes of it, with two bytes that UTF-8 never uses
//! ([`END`]) put behind its end: so a text of one or two bytes is a prefix of some trigrams, in any
//! script. What a pattern needs is worked out once ([`Needs`]); segments ([`TextSegment`]) then say which
//! of their documents have it. All of these are read and tested, except where the index knows for sure.
//!
//! Source: Russ Cox, Regular Expression Matching with a Trigram Index, 2012.

mod analyzer;
mod cache;
mod document;
mod needs;
mod ranked;
mod recent;
mod segment;
mod terms;

pub use analyzer::Analyzer;
pub(crate) use cache::TextCache;
pub(crate) use needs::Needs;
pub use ranked::NearestText;
pub use recent::RecentDocuments;
pub use segment::{TEXT_VERSION, TextBuilder, TextHeader, TextSegment};

/// Stands behind the end of a document; no byte of UTF-8.
const END: u8 = 0xFF;

/// Three bytes as a number, so that trigrams are sorted as bytes are.
fn key(bytes: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}
