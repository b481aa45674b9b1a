//! The strings of a column, each once.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::RwLock;

/// The distinct strings of a column, by code. Only grows, so views of any age can share it; once most of it is dead,
/// newer views get another.
#[derive(Default)]
pub(crate) struct Dictionary(RwLock<Strings>);

#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    /// Where each string ends in `bytes`.
    ends: Vec<usize>,
    codes: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Strings {
    fn get(&self, code: u32) -> &[u8] {
        let start = (code as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[code as usize]]
    }

    fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text.as_bytes());
        self.codes.find(hash, |code| self.get(*code) == text.as_bytes()).copied()
    }
}

impl Dictionary {
    /// The code of a string, if any record ever had it.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.0.read().find(text)
    }

    /// The code of a string, given one if it is new.
    pub(super) fn code(&self, text: &str) -> u32 {
        if let Some(code) = self.find(text) {
            return code;
        }
        let mut strings = self.0.write();
        if let Some(code) = strings.find(text) {
            return code;
        }
        let code = u32::try_from(strings.ends.len()).expect("one string a record, and offsets are u32");
        strings.bytes.extend_from_slice(text.as_bytes());
        let end = strings.bytes.len();
        strings.ends.push(end);
        let hash = strings.hasher.hash_one(text.as_bytes());
        let Strings { bytes, ends, codes, hasher } = &mut *strings;
        codes.insert_unique(hash, code, |code| {
            let start = (*code as usize).checked_sub(1).map_or(0, |before| ends[before]);
            hasher.hash_one(&bytes[start..ends[*code as usize]])
        });
        code
    }

    /// Bytes of one string.
    pub(super) fn bytes_of(&self, code: u32) -> usize {
        self.0.read().get(code).len()
    }

    /// Bytes of all strings, those that no record has any more included.
    pub(super) fn text_bytes(&self) -> usize {
        self.0.read().bytes.len()
    }

    /// How many strings there are, those that no record has any more included.
    pub(crate) fn len(&self) -> usize {
        self.0.read().ends.len()
    }

    /// Shows the string of a code.
    pub(super) fn with(&self, code: usize, show: impl FnOnce(&str)) {
        let strings = self.0.read();
        let code = u32::try_from(code).expect("codes are u32");
        show(std::str::from_utf8(strings.get(code)).expect("only whole strings were added"));
    }

    /// Shows each string with its code, those that no record has any more included.
    pub(crate) fn each_code(&self, show: &mut dyn FnMut(u32, &str)) {
        let strings = self.0.read();
        for code in 0..u32::try_from(strings.ends.len()).expect("codes are u32") {
            show(code, std::str::from_utf8(strings.get(code)).expect("only whole strings were added"));
        }
    }

    /// Shows each string whose code has a count, with that.
    pub(super) fn each(&self, counts: &[u64], show: &mut dyn FnMut(&str, u64)) {
        let strings = self.0.read();
        for (code, count) in (0u32..).zip(counts).filter(|(_, count)| **count > 0) {
            show(std::str::from_utf8(strings.get(code)).expect("only whole strings were added"), *count);
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let strings = self.0.read();
        strings.bytes.capacity() + strings.ends.capacity() * 8 + strings.codes.capacity() * 5
    }
}
