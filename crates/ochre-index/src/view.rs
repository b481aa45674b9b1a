//! One committed state of a collection, as queries see it.
//!
//! A view is immutable once published; the next one is a clone with a commit applied to it. Clones share
//! everything a commit did not touch.
//!
//! Invariants:
//! - `slots[offset]` names the current vector of every live offset, and nothing for any other.
//! - `nodes` says which node of `graph` has the code of an offset's *current* vector, and `in_graph` holds the offsets
//!   whose node is linked. Every other live offset is the unindexed vectors: no search finds it, so its code is scanned
//!   if there is one, else its vector measured.

use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::HashMap;
use ochre_kernels::prefetch;
use ochre_model::budget::Exceeded;
use ochre_model::{Metadata, Space, Value, ValueType};

use crate::bitmap::{Bitmap, CHUNK};
use crate::column::{Column, TypeCounts, Values};
use crate::composite::CompositeIndex;
use crate::coverage::Coverage;
use crate::graph::{Graph, Node};
use crate::text::{Needs, TextCache, TextSegment};

/// Vectors that cannot be read; the text says which file, where and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged(pub String);

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damaged {}

/// A block of vectors, wherever it lies.
pub trait VectorBlock: Send + Sync {
    /// One vector of the block.
    ///
    /// # Errors
    /// [`Damaged`] if it cannot be read.
    fn row(&self, row: usize) -> Result<&[f32], Damaged>;
    /// The Euclidean norm of that vector.
    fn norm(&self, row: usize) -> f32;
    /// Asks the processor for a vector and its norm, which will be read soon. A hint, which may be left out.
    fn prefetch(&self, row: usize) {
        let _ = row;
    }
    /// Bytes of the heap it holds.
    fn heap_bytes(&self) -> usize;
}

/// Where the vector of an offset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// 0 for none: ids count from 1.
    vector_id: u64,
    block: u32,
    row: u32,
}

const NO_SLOT: Slot = Slot { vector_id: 0, block: u32::MAX, row: 0 };
/// A slot whose vector is in no readable block.
const LOST: u32 = u32::MAX;
/// An offset that is not in the graph.
const NO_NODE: u32 = u32::MAX;
/// Blocks per shared chunk of the block list.
const BLOCK_CHUNK: usize = 1024;

/// A state of a collection: who is live, the typed columns, where vectors are, and the graph over them.
#[derive(Clone)]
pub struct View {
    position: u64,
    space: Space,
    live: Bitmap,
    with_document: Bitmap,
    columns: HashMap<Arc<str>, Arc<Column>>,
    slots: Vec<Arc<Vec<Slot>>>,
    blocks: Vec<Arc<Vec<Arc<dyn VectorBlock>>>>,
    graph: Option<Arc<Graph>>,
    in_graph: Bitmap,
    nodes: Vec<Arc<Vec<u32>>>,
    /// The trigrams and the terms of documents.
    pub(crate) text: Coverage<TextSegment>,
    /// What was made of them for searches.
    pub(crate) text_cache: TextCache,
    /// Declared indexes of metadata.
    pub(crate) indexes: Vec<CompositeIndex>,
}

impl View {
    /// The view of an empty collection.
    pub fn new(space: Space) -> Self {
        Self {
            position: 0,
            space,
            live: Bitmap::new(),
            with_document: Bitmap::new(),
            columns: HashMap::new(),
            slots: Vec::new(),
            blocks: Vec::new(),
            graph: None,
            in_graph: Bitmap::new(),
            nodes: Vec::new(),
            text: Coverage::default(),
            text_cache: TextCache::default(),
            indexes: Vec::new(),
        }
    }

    /// The position of the last commit in it.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Says up to which commit the view is.
    pub fn set_position(&mut self, position: u64) {
        self.position = position;
    }

    /// The space distances are measured in.
    pub fn space(&self) -> Space {
        self.space
    }

    /// The live offsets.
    pub fn live(&self) -> &Bitmap {
        &self.live
    }

    /// The offsets that have a document.
    pub fn with_document(&self) -> &Bitmap {
        &self.with_document
    }

    pub(crate) fn column(&self, key: &str) -> Option<&Column> {
        self.columns.get(key).map(|column| &**column)
    }

    /// Every column, by key.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.columns.iter().map(|(key, column)| (&**key, &**column))
    }

    /// Puts a whole column under a key.
    pub(crate) fn put_column(&mut self, key: &str, column: Column) {
        self.columns.insert(key.into(), Arc::new(column));
    }

    /// The metadata keys that records have, each with how many have a value of each type. Takes time by the
    /// number of keys, whatever the number of records.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &TypeCounts)> {
        let columns = self.columns.iter().map(|(key, column)| (&**key, column.counts()));
        columns.filter(|(_, counts)| counts.iter().any(|count| *count > 0))
    }

    /// How many of the records in `within` have a value of each type under a key.
    pub fn count_types(&self, key: &str, within: &Bitmap) -> TypeCounts {
        self.column(key).map_or_else(TypeCounts::default, |column| column.counts_within(within))
    }

    /// The value of a record under a key.
    pub fn value(&self, key: &str, offset: u32) -> Option<Value> {
        self.column(key)?.value(offset)
    }

    /// Gives the values under a key, of the records in `within`, to `values`.
    ///
    /// # Errors
    /// [`Exceeded`]: the request may not go on, here and below.
    pub fn visit_values(&self, key: &str, within: &Bitmap, values: &mut dyn Values) -> Result<(), Exceeded> {
        self.column(key).map_or(Ok(()), |column| column.visit(within, values))
    }

    /// Calls `visit` with the records in `within` whose value under a key has one of these types, until it breaks.
    pub fn visit_typed(
        &self, key: &str, within: &Bitmap, types: &[ValueType], visit: &mut dyn FnMut(u32, Value) -> ControlFlow<()>,
    ) -> Result<(), Exceeded> {
        self.column(key).map_or(Ok(()), |column| column.visit_typed(within, types, visit))
    }

    /// The graph, if the collection has one.
    pub fn graph(&self) -> Option<&Arc<Graph>> {
        self.graph.as_ref()
    }

    /// The offsets whose current vector is in the graph.
    pub fn in_graph(&self) -> &Bitmap {
        &self.in_graph
    }

    /// The node that has the code of an offset's current vector, if there is one.
    pub(crate) fn node(&self, offset: u32) -> Option<u32> {
        let node = *self.nodes.get(offset as usize / CHUNK)?.get(offset as usize % CHUNK)?;
        (node != NO_NODE).then_some(node)
    }

    fn set_node(&mut self, offset: u32, node: u32) {
        let (chunk, local) = (offset as usize / CHUNK, offset as usize % CHUNK);
        if self.nodes.len() <= chunk {
            if node == NO_NODE {
                return;
            }
            self.nodes.resize_with(chunk + 1, Arc::default);
        }
        let nodes = Arc::make_mut(&mut self.nodes[chunk]);
        if nodes.len() <= local {
            nodes.resize(local + 1, NO_NODE);
        }
        nodes[local] = node;
    }

    /// How many live vectors are not in the graph.
    pub fn unindexed_len(&self) -> usize {
        self.live.len() - self.in_graph.len()
    }

    /// How many vectors no search finds, as far as that was looked at: they stay among the unindexed vectors.
    pub fn unreachable_len(&self) -> usize {
        self.graph.as_ref().map_or(0, |graph| graph.unreachable_count()).min(self.unindexed_len())
    }

    /// How many vectors wait for the graph.
    pub fn pending_len(&self) -> usize {
        self.unindexed_len() - self.unreachable_len()
    }

    /// The current vector's id, if the offset is live.
    pub fn vector_id(&self, offset: u32) -> Option<u64> {
        self.slot(offset).filter(|slot| slot.vector_id != 0).map(|slot| slot.vector_id)
    }

    /// The current vector of a live offset, and its norm.
    ///
    /// # Errors
    /// [`Damaged`] if it cannot be read.
    pub fn vector(&self, offset: u32) -> Result<(&[f32], f32), Damaged> {
        let slot = self.slot(offset).filter(|slot| slot.vector_id != 0);
        let slot = slot.ok_or_else(|| Damaged(format!("record at offset {offset} has no vector")))?;
        let block = self.block(slot.block);
        let block = block.ok_or_else(|| Damaged(format!("vector {} is in no readable segment", slot.vector_id)))?;
        Ok((block.row(slot.row as usize)?, block.norm(slot.row as usize)))
    }

    fn block(&self, block: u32) -> Option<&Arc<dyn VectorBlock>> {
        self.blocks.get(block as usize / BLOCK_CHUNK)?.get(block as usize % BLOCK_CHUNK)
    }

    /// Asks the processor for what tells where the vector of an offset is.
    pub(crate) fn prefetch_place(&self, offset: u32) {
        if let Some(slots) = self.slots.get(offset as usize / CHUNK) {
            prefetch(slots, offset as usize % CHUNK);
        }
    }

    /// Asks the processor for the vector of an offset.
    pub(crate) fn prefetch_vector(&self, offset: u32) {
        if let Some(slot) = self.slot(offset)
            && let Some(block) = self.block(slot.block)
        {
            block.prefetch(slot.row as usize);
        }
    }

    fn slot(&self, offset: u32) -> Option<Slot> {
        self.slots.get(offset as usize / CHUNK)?.get(offset as usize % CHUNK).copied()
    }

    fn set_slot(&mut self, offset: u32, slot: Slot) {
        let (chunk, local) = (offset as usize / CHUNK, offset as usize % CHUNK);
        if self.slots.len() <= chunk {
            self.slots.resize_with(chunk + 1, Arc::default);
        }
        let slots = Arc::make_mut(&mut self.slots[chunk]);
        if slots.len() <= local {
            slots.resize(local + 1, NO_SLOT);
        }
        slots[local] = slot;
    }

    /// Adds a block; its number for [`View::set_vector`].
    pub fn add_block(&mut self, block: Arc<dyn VectorBlock>) -> u32 {
        if self.blocks.last().is_none_or(|chunk| chunk.len() == BLOCK_CHUNK) {
            self.blocks.push(Arc::default());
        }
        let chunks = self.blocks.len();
        let chunk = Arc::make_mut(self.blocks.last_mut().expect("just made sure of"));
        chunk.push(block);
        u32::try_from((chunks - 1) * BLOCK_CHUNK + chunk.len() - 1).expect("fewer than 2³² blocks")
    }

    /// Forgets all blocks, before they are added again from where they lie now; slots keep their ids.
    pub fn clear_blocks(&mut self) {
        self.blocks.clear();
    }

    /// Makes `offset` live with this vector; it is among the unindexed vectors until the graph has it.
    pub fn set_vector(&mut self, offset: u32, vector_id: u64, place: Option<(u32, u32)>) {
        let (block, row) = place.unwrap_or((LOST, 0));
        self.set_slot(offset, Slot { vector_id, block, row });
        self.live.insert(offset);
        self.forget_node(offset);
    }

    /// Says where the vector an offset already has lies now.
    pub fn move_vector(&mut self, offset: u32, place: Option<(u32, u32)>) {
        if let Some(vector_id) = self.vector_id(offset) {
            let (block, row) = place.unwrap_or((LOST, 0));
            self.set_slot(offset, Slot { vector_id, block, row });
        }
    }

    /// Replaces all metadata of an offset.
    pub fn set_metadata(&mut self, offset: u32, metadata: &Metadata) {
        self.indexes.iter_mut().for_each(|index| index.change(offset));
        let stale: Vec<Arc<str>> = self
            .columns
            .iter()
            .filter(|(key, column)| metadata.get(key).is_none() && column.has(offset))
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in stale {
            if let Some(column) = self.columns.get_mut(&key) {
                Arc::make_mut(column).set(offset, None);
            }
        }
        metadata.iter().for_each(|(key, value)| self.set_value(offset, key, value));
    }

    /// Sets one key of an offset.
    pub fn set_value(&mut self, offset: u32, key: &str, value: &Value) {
        let column = match self.columns.get_mut(key) {
            Some(column) => column,
            None => self.columns.entry(key.into()).or_default(),
        };
        Arc::make_mut(column).set(offset, Some(value));
    }

    /// Says whether an offset has a document, and whether that changed.
    pub fn set_document(&mut self, offset: u32, has_document: bool, changed: bool) {
        if has_document {
            self.with_document.insert(offset);
        } else {
            self.with_document.remove(offset);
        }
        if changed {
            self.text.change(offset);
            self.text_cache.change(offset);
        }
    }

    /// Documents that no text segment knows: they are read when one is looked for.
    pub fn outside_text(&self) -> Bitmap {
        self.with_document.and_not(self.text.covered())
    }

    /// The text segments, each with the offsets whose document it has as it is now.
    pub fn text(&self) -> &[(Arc<TextSegment>, Bitmap)] {
        self.text.segments()
    }

    /// The documents that are in a segment as they are now.
    pub fn in_text(&self) -> &Bitmap {
        self.text.covered()
    }

    /// Begins to note which documents change, until [`View::replace_text`] with the same token, which is not
    /// to be used again.
    pub fn begin_text(&mut self, token: u64) {
        self.text.begin(token);
    }

    /// Puts new segments, read after [`View::begin_text`], in place of those that are `gone`; `false`, and
    /// nothing done, if the view was reloaded since, or is older than they are.
    pub fn replace_text(&mut self, token: u64, gone: &[Arc<TextSegment>], new: &[Arc<TextSegment>]) -> bool {
        let is_replaced = self.text.replace(token, self.position, gone, new, &self.with_document);
        if is_replaced {
            self.text_cache = TextCache::default();
        }
        is_replaced
    }

    /// Uses segments that were found when the collection was loaded, each with the offsets whose document is
    /// the one that was indexed; no offset in two of these.
    pub fn load_text(&mut self, segments: Vec<(Arc<TextSegment>, Bitmap)>) {
        self.text.load(segments, &self.with_document);
    }

    /// The documents in text segments that meet a condition, and maybe some more.
    pub(crate) fn find_text(&self, needs: &Needs) -> Bitmap {
        let segments = self.text.segments().iter();
        segments.fold(Bitmap::new(), |all, (segment, current)| all.or(&segment.find(needs).and(current)))
    }

    /// Removes a record.
    pub fn remove(&mut self, offset: u32) {
        self.set_slot(offset, NO_SLOT);
        self.live.remove(offset);
        self.forget_node(offset);
        self.set_document(offset, false, true);
        self.indexes.iter_mut().for_each(|index| index.change(offset));
        for column in self.columns.values_mut().filter(|column| column.has(offset)) {
            Arc::make_mut(column).set(offset, None);
        }
    }

    /// Puts a graph in place of the one there was. Which of its nodes are current vectors is found by comparing ids, so
    /// any graph over the same offsets may be given, however old. What none of its searches finds is in the tail.
    pub fn set_graph(&mut self, graph: Option<Arc<Graph>>) {
        self.in_graph = Bitmap::new();
        self.nodes = Vec::new();
        if let Some(graph) = &graph {
            self.graph = Some(Arc::clone(graph));
            self.mark_coded(graph, 0);
            self.mark_linked(graph, 0);
            self.unmark_linked(&graph.unreachable());
        }
        self.graph = graph;
    }

    /// Notes that `graph` has the codes of its nodes from `first` on; those that no longer are their offset's
    /// current vector are passed over. Nothing happens if the view has another graph by now.
    pub fn mark_coded(&mut self, graph: &Arc<Graph>, first: usize) {
        if !self.has_graph(graph) {
            return;
        }
        for (index, node) in graph.nodes().enumerate().skip(first) {
            if self.vector_id(node.offset) == Some(node.vector_id) {
                self.set_node(node.offset, u32::try_from(index).expect("nodes are numbered by u32"));
            }
        }
    }

    /// Notes that searches of `graph` find its nodes from `first` on, as far as they are linked. Nothing happens
    /// if the view has another graph by now.
    pub fn mark_linked(&mut self, graph: &Arc<Graph>, first: usize) {
        if !self.has_graph(graph) {
            return;
        }
        for node in graph.linked().skip(first) {
            if self.vector_id(node.offset) == Some(node.vector_id) {
                self.in_graph.insert(node.offset);
            }
        }
    }

    fn has_graph(&self, graph: &Arc<Graph>) -> bool {
        self.graph.as_ref().is_some_and(|own| Arc::ptr_eq(own, graph))
    }

    /// Whether an offset's current vector has a code.
    pub fn is_coded(&self, offset: u32) -> bool {
        self.node(offset).is_some()
    }

    /// Puts a copy of a graph in its place. Nothing happens if the view has another graph by now.
    pub fn replace_graph(&mut self, graph: &Arc<Graph>, copy: Arc<Graph>) {
        if self.has_graph(graph) {
            self.set_graph(Some(copy));
        }
    }

    /// Puts the vectors of nodes that no search finds back into the unindexed vectors.
    pub fn unmark_linked(&mut self, lost: &[Node]) {
        for node in lost {
            if self.vector_id(node.offset) == Some(node.vector_id) {
                self.in_graph.remove(node.offset);
            }
        }
    }

    fn forget_node(&mut self, offset: u32) {
        self.in_graph.remove(offset);
        if self.node(offset).is_some() {
            self.set_node(offset, NO_NODE);
        }
    }

    /// Lets go of the pages of files that it holds beside vectors: they are read again where they are needed.
    pub fn drop_pages(&self) {
        if let Some(graph) = &self.graph {
            graph.drop_pages();
        }
    }

    /// Bytes of the heap that it holds, those it shares with others in full.
    pub fn heap_bytes(&self) -> usize {
        let Memory { columns, vectors, locations, quantized, links, text: _, indexes: _ } = self.memory();
        let files = self.graph.as_ref().map_or(0, |graph| graph.file_bytes());
        columns + vectors + locations + quantized + links - files + self.text_cache.heap_bytes()
    }

    /// Bytes of memory by part. What the view shares with others counts in full.
    pub fn memory(&self) -> Memory {
        fn held<T>(chunks: &[Arc<Vec<T>>]) -> usize {
            chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum()
        }
        let graph = self.graph.as_ref();
        let text_cache = self.text_cache.heap_bytes();
        Memory {
            columns: self.columns.values().map(|column| column.heap_bytes()).sum(),
            vectors: self.blocks.iter().flat_map(|chunk| chunk.iter()).map(|block| block.heap_bytes()).sum(),
            locations: held(&self.slots) + held(&self.nodes),
            text: self.text.segments().iter().map(|(segment, _)| segment.bytes()).sum::<usize>() + text_cache,
            indexes: self.indexes.iter().map(CompositeIndex::bytes).sum(),
            quantized: graph.map_or(0, |graph| graph.codes_bytes()),
            links: graph.map_or(0, |graph| graph.links_bytes()),
        }
    }
}

/// Bytes of memory that a view holds, by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Typed columns and their dictionaries.
    pub columns: usize,
    /// Vectors that are not in mapped files.
    pub vectors: usize,
    /// Where the vector and the node of each record are.
    pub locations: usize,
    /// Trigrams and terms of documents; mapped files if the database is on disk, but for what was made for searches.
    pub text: usize,
    /// Declared indexes of metadata; mapped files if the database is on disk.
    pub indexes: usize,
    /// The graph's quantized vectors; a mapped file if the graph is that of a snapshot.
    pub quantized: usize,
    /// The graph's nodes and edges; mapped likewise.
    pub links: usize,
}

impl Memory {
    /// All parts together.
    pub fn total(&self) -> usize {
        let Self { columns, vectors, locations, text, indexes, quantized, links } = self;
        columns + vectors + locations + text + indexes + quantized + links
    }
}
