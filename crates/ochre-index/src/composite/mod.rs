//! Composite indexes of metadata: keys made of several columns, sorted, with the records that have them.
//!
//! An index is a set of immutable segments over the records as they once were, beside the columns, which are always
//! right: what changed since is looked up there. So an index never changes an answer, whatever its state.
//!
//! A lookup takes equality on the first columns and, on the one after those, equality with any of a list or a range;
//! a record whose first column is empty has no key.

mod choose;
mod key;
mod segment;

use std::collections::HashMap;
use std::sync::Arc;

use ochre_model::{Filter, ValueType};

pub(crate) use self::choose::Choice;
pub use self::choose::{Considered, Reason, is_answerable};
pub use self::key::INDEXED_BYTES_MAX;
pub use self::segment::{COMPOSITE_VERSION, CompositeBuilder, CompositeHeader, CompositeSegment};
use crate::bitmap::Bitmap;
use crate::coverage::Coverage;
use crate::view::View;

/// Records whose entries in a segment are collected at once.
const VERIFIED_AT_ONCE: usize = 262_144;

/// A record with more keys, because of a long list, is not in the index: it is looked at in the columns.
pub const KEYS_PER_RECORD_MAX: usize = 10_000;

/// A column of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexColumn {
    /// The value under a metadata key.
    Key(String),
    /// Each element of the list under a metadata key, or the value if it is no list.
    Elements(String),
    /// Every metadata key whose value has this type, with that value.
    Every(ValueType),
}

impl IndexColumn {
    /// Whether a record may have several keys because of it.
    pub fn is_multiple(&self) -> bool {
        !matches!(self, Self::Key(_))
    }
}

/// What an index is of.
#[derive(Clone, Debug)]
pub struct IndexShape {
    /// Its id, which files are named by.
    pub id: [u8; 16],
    /// Its name, for explanations.
    pub name: String,
    /// At least one; at most one of them multiple.
    pub columns: Vec<IndexColumn>,
    /// Only records that pass this are in it: tests on metadata, all of which hold.
    pub partial: Vec<Filter>,
}

/// An index as a view has it.
#[derive(Clone)]
pub struct CompositeIndex {
    shape: Arc<IndexShape>,
    generation: u64,
    is_hidden: bool,
    /// Whether it was complete once: until then no query uses it.
    is_ready: bool,
    coverage: Coverage<CompositeSegment>,
}

impl CompositeIndex {
    /// An index without segments.
    pub fn new(shape: Arc<IndexShape>, generation: u64, is_hidden: bool) -> Self {
        Self { shape, generation, is_hidden, is_ready: false, coverage: Coverage::default() }
    }

    /// What it is of.
    pub fn shape(&self) -> &Arc<IndexShape> {
        &self.shape
    }

    /// Which build of the index it is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its segments, each with the offsets that it shows as they are now.
    pub fn segments(&self) -> &[(Arc<CompositeSegment>, Bitmap)] {
        self.coverage.segments()
    }

    /// The records that it shows as they are now.
    pub fn covered(&self) -> &Bitmap {
        self.coverage.covered()
    }

    /// Whether queries may use it.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub(crate) fn change(&mut self, offset: u32) {
        self.coverage.change(offset);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.segments().iter().map(|(segment, _)| segment.bytes()).sum()
    }

    /// Uses segments that were found when the collection was loaded.
    pub fn load(&mut self, segments: Vec<(Arc<CompositeSegment>, Bitmap)>, live: &Bitmap, is_ready: bool) {
        self.coverage.load(segments, live);
        self.is_ready = is_ready;
    }
}

impl View {
    /// The declared indexes.
    pub fn indexes(&self) -> &[CompositeIndex] {
        &self.indexes
    }

    /// An index by its id and build.
    pub fn index(&self, id: [u8; 16], generation: u64) -> Option<&CompositeIndex> {
        self.indexes.iter().find(|index| index.shape.id == id && index.generation == generation)
    }

    fn index_mut(&mut self, id: [u8; 16], generation: u64) -> Option<&mut CompositeIndex> {
        self.indexes.iter_mut().find(|index| index.shape.id == id && index.generation == generation)
    }

    /// Adds an index; one of the same id and build is replaced.
    pub fn add_index(&mut self, index: CompositeIndex) {
        self.remove_index(index.shape.id, |generation| generation == index.generation);
        self.indexes.push(index);
    }

    /// Removes the builds of an index that `which` names.
    pub fn remove_index(&mut self, id: [u8; 16], which: impl Fn(u64) -> bool) {
        self.indexes.retain(|index| index.shape.id != id || !which(index.generation));
    }

    /// Removes every index.
    pub fn clear_indexes(&mut self) {
        self.indexes.clear();
    }

    /// Lets a build of an index be named as `shape` is, and be hidden from queries or not.
    pub fn describe_index(&mut self, shape: &Arc<IndexShape>, generation: u64, is_hidden: bool) {
        if let Some(index) = self.index_mut(shape.id, generation) {
            (index.shape, index.is_hidden) = (Arc::clone(shape), is_hidden);
        }
    }

    /// Begins to note which records change, until [`View::replace_index_segments`] with the same token.
    pub fn begin_index(&mut self, id: [u8; 16], generation: u64, token: u64) {
        if let Some(index) = self.index_mut(id, generation) {
            index.coverage.begin(token);
        }
    }

    /// Puts new segments in place of those that are `gone`; `false`, and nothing done, if the view was reloaded
    /// since [`View::begin_index`], or has the index no more.
    pub fn replace_index_segments(
        &mut self, id: [u8; 16], generation: u64, token: u64, gone: &[Arc<CompositeSegment>],
        new: &[Arc<CompositeSegment>],
    ) -> bool {
        let (position, live) = (self.position(), self.live().clone());
        self.index_mut(id, generation).is_some_and(|index| index.coverage.replace(token, position, gone, new, &live))
    }

    /// Lets queries use an index that is complete.
    pub fn ready_index(&mut self, id: [u8; 16], generation: u64) {
        if let Some(index) = self.index_mut(id, generation) {
            index.is_ready = true;
        }
    }

    /// Records that no segment of an index shows as they are.
    pub fn outside_index(&self, index: &CompositeIndex) -> Bitmap {
        self.live().and_not(index.covered())
    }

    /// Adds the keys of these records to a builder, until it has this many bytes.
    pub fn collect_keys(&self, shape: &IndexShape, offsets: &[u32], bytes_max: usize, builder: &mut CompositeBuilder) {
        for offset in offsets {
            if builder.heap_bytes() >= bytes_max {
                break;
            }
            if let Some(keys) = self.index_keys(shape, *offset) {
                builder.cover(*offset);
                keys.iter().for_each(|key| builder.add(*offset, key));
            }
        }
    }

    /// The keys that a record has in an index; `None` if those are too many.
    fn index_keys(&self, shape: &IndexShape, offset: u32) -> Option<Vec<Vec<u8>>> {
        if !shape.partial.iter().all(|test| self.passes(test, offset)) {
            return Some(Vec::new());
        }
        let mut keys: Vec<Vec<u8>> = vec![Vec::new()];
        for (number, column) in shape.columns.iter().enumerate() {
            match column {
                IndexColumn::Key(name) => {
                    let value = self.value(name, offset);
                    if number == 0 && value.is_none() {
                        return Some(Vec::new());
                    }
                    keys.iter_mut().for_each(|key| key::push_value(key, value.as_ref()));
                }
                IndexColumn::Elements(name) => {
                    let value = self.value(name, offset);
                    if number == 0 && value.is_none() {
                        return Some(Vec::new());
                    }
                    let mut opened = Vec::new();
                    for key in &keys {
                        let before = opened.len();
                        value.iter().for_each(|value| {
                            key::for_each_element(value, &mut |element| {
                                if opened.len() <= KEYS_PER_RECORD_MAX {
                                    opened.push([key, element].concat());
                                }
                            });
                        });
                        if opened.len() == before {
                            let mut whole = key.clone();
                            key::push_value(&mut whole, value.as_ref());
                            opened.push(whole);
                        }
                    }
                    keys = opened;
                }
                IndexColumn::Every(ty) => {
                    let mut opened = Vec::new();
                    for (name, _) in self.keys().filter(|(_, counts)| counts[*ty as usize] > 0) {
                        let Some(value) = self.value(name, offset).filter(|value| value.value_type() == *ty) else {
                            continue;
                        };
                        for key in &keys {
                            let mut key = key.clone();
                            key::push_name(&mut key, name);
                            key::push_value(&mut key, Some(&value));
                            opened.push(key);
                        }
                    }
                    if opened.is_empty() && number > 0 {
                        // The columns before it find the record all the same.
                        opened.extend(keys.iter().map(|key| {
                            let mut key = key.clone();
                            key::push_value(&mut key, None);
                            key
                        }));
                    }
                    keys = opened;
                }
            }
            if keys.len() > KEYS_PER_RECORD_MAX {
                return None;
            }
        }
        Some(keys)
    }

    /// Whether a record passes a test on its metadata.
    fn passes(&self, filter: &Filter, offset: u32) -> bool {
        match filter {
            Filter::Key { key, test } => test.matches(self.value(key, offset).as_ref()),
            Filter::All(parts) => parts.iter().all(|part| self.passes(part, offset)),
            Filter::Any(parts) => parts.iter().any(|part| self.passes(part, offset)),
            Filter::Document(_) | Filter::Ids(_) | Filter::NotIds(_) => false,
        }
    }

    /// Compares what an index says of the records that it shows with their metadata: how many records were compared,
    /// and how many of them differ.
    pub fn verify_index(&self, index: &CompositeIndex, stop: &mut dyn FnMut(usize) -> bool) -> (usize, usize) {
        let (mut compared, mut wrong) = (0, 0);
        for (segment, current) in index.segments() {
            let offsets: Vec<u32> = current.iter().collect();
            // A segment is in the order of its keys: what it says of some records is collected at once, in bounded
            // memory.
            for part in offsets.chunks(VERIFIED_AT_ONCE) {
                let (first, last) = (part[0], part[part.len() - 1]);
                let mut said: HashMap<u32, Vec<Vec<u8>>> = HashMap::new();
                let mut entries = 0usize;
                let mut is_stopped = false;
                segment.each(&mut |key, offset| {
                    entries += 1;
                    is_stopped |= entries.is_multiple_of(65_536) && stop(compared);
                    if !is_stopped && (first..=last).contains(&offset) && current.contains(offset) {
                        said.entry(offset).or_default().push(key.to_vec());
                    }
                });
                for offset in part {
                    if is_stopped || compared % 4096 == 0 && stop(compared) {
                        return (compared, wrong);
                    }
                    let mut is = self.index_keys(&index.shape, *offset).unwrap_or_default();
                    is.sort_unstable();
                    is.dedup();
                    compared += 1;
                    wrong += usize::from(said.remove(offset).unwrap_or_default() != is);
                }
            }
        }
        (compared, wrong)
    }
}
