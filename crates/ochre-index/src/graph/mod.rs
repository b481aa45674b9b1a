//! A navigable graph over quantised vectors (HNSW), with concurrent readers.
//!
//! The graph holds its own copy of the vectors as codes, so a walk never touches the truth; what it finds
//! is measured again exactly by the caller. Nodes are vectors, not records: a record whose vector
//! changes gets a new node, and who is current is the view's business.
//!
//! Invariants:
//! - Nodes are numbered in order of arrival; a node's level is a function of its number.
//! - A link always points to a node whose codes are published. Readers may see a list of links while it
//!   is being rewritten: each entry is a valid node at any time.
//! - Capacity is fixed; a fuller graph is a copy ([`Graph::grown`]).
//!
//! Source: Malkov & Yashunin, arXiv:1603.09320.

mod build;
mod codes;
mod snapshot;
mod walk;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ochre_kernels::Arena;
use ochre_model::{HnswConfiguration, Space};
use parking_lot::Mutex;

pub use build::BuildOptions;
use codes::Codes;
pub(crate) use codes::Encoded;
pub use snapshot::{SNAPSHOT_VERSION, SnapshotError, SnapshotHeader};
use walk::Visited;

/// What fixes the shape of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphParameters {
    /// The space distances are measured in.
    pub space: Space,
    /// Floats per vector.
    pub dimension: usize,
    /// Links per node above the lowest level; twice that on the lowest.
    pub max_neighbors: usize,
    /// Candidates kept while a node is inserted.
    pub ef_construction: usize,
}

impl GraphParameters {
    /// The parameters of a collection, brought into the range a graph can be built with: at least 2
    /// links (below that it falls apart), at most 512, and at least 8 candidates while inserting.
    pub fn new(configuration: &HnswConfiguration, dimension: usize) -> Self {
        Self {
            space: configuration.space,
            dimension,
            max_neighbors: configuration.max_neighbors.clamp(2, 512),
            ef_construction: configuration.ef_construction.clamp(8, 10_000),
        }
    }
}

/// Which vector a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The record's offset.
    pub offset: u32,
    /// The vector's id: a record whose vector changed has another.
    pub vector_id: u64,
}

/// Locks for changing a node's links; nodes share them.
const STRIPES: usize = 1024;
/// No entry point yet.
const NO_ENTRY: u64 = u64::MAX;
/// Levels above the lowest; more would need 16¹⁵ nodes.
const LEVEL_MAX: usize = 15;

/// The graph. See the module.
pub struct Graph {
    parameters: GraphParameters,
    codes: Codes,
    nodes: Arena<Node>,
    /// Nodes whose links are complete: all numbers below this.
    linked: AtomicU32,
    /// Per node: the number of links, then the links.
    lowest: Box<[AtomicU32]>,
    /// Where a node's links above the lowest level begin in `upper`.
    upper_start: Box<[u32]>,
    upper: Box<[AtomicU32]>,
    /// Level and number of the node that walks begin at.
    entry: AtomicU64,
    entry_lock: Mutex<()>,
    stripes: Box<[Mutex<()>]>,
    visited: Mutex<Vec<Visited>>,
}

impl Graph {
    /// An empty graph for up to `capacity` nodes. `sample` decides how vectors are coded; it should be
    /// some hundred of the vectors that will come.
    pub fn new(parameters: GraphParameters, capacity: usize, sample: &[&[f32]]) -> Self {
        Self::with_codes(parameters, capacity, Codes::choose(parameters, capacity, sample))
    }

    fn with_codes(parameters: GraphParameters, capacity: usize, codes: Codes) -> Self {
        let stride = 1 + parameters.max_neighbors * 2;
        let mut start = 0;
        let upper_start = (0..capacity).map(|node| {
            let here = start;
            start += level_of(node, parameters.max_neighbors) * (1 + parameters.max_neighbors);
            u32::try_from(here).expect("upper links of a graph fit u32")
        });
        let upper_start = upper_start.collect();
        Self {
            parameters,
            codes,
            nodes: Arena::with_capacity(capacity),
            linked: AtomicU32::new(0),
            lowest: zeros(capacity * stride),
            upper_start,
            upper: zeros(start),
            entry: AtomicU64::new(NO_ENTRY),
            entry_lock: Mutex::new(()),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            visited: Mutex::default(),
        }
    }

    /// A copy with room for `capacity` nodes.
    pub fn grown(&self, capacity: usize) -> Self {
        let copy = Self::with_codes(self.parameters, capacity, self.codes.grown(capacity));
        let appended = copy.nodes.append(self.nodes.as_slice());
        debug_assert!(appended, "a grown graph has room for what it grew from");
        copy_links(&copy.lowest, &self.lowest);
        copy_links(&copy.upper, &self.upper);
        copy.linked.store(self.linked.load(Ordering::Acquire), Ordering::Release);
        copy.entry.store(self.entry.load(Ordering::Acquire), Ordering::Release);
        copy
    }

    /// The capacity a graph of `count` nodes should have, growing by `resize_factor` (1.05 to 4).
    pub fn capacity_for(count: usize, resize_factor: f64) -> usize {
        snapshot::grown_capacity(count, resize_factor)
    }

    /// What it was built with.
    pub fn parameters(&self) -> GraphParameters {
        self.parameters
    }

    /// How many nodes fit.
    pub fn capacity(&self) -> usize {
        self.nodes.capacity()
    }

    /// How many nodes there are, those of replaced and deleted vectors included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes whose links are complete.
    pub fn linked(&self) -> &[Node] {
        &self.nodes.as_slice()[..self.linked.load(Ordering::Acquire) as usize]
    }

    pub(crate) fn node(&self, node: u32) -> Node {
        self.nodes.as_slice()[node as usize]
    }

    /// A vector in the graph's code, to measure nodes against.
    pub(crate) fn encode(&self, vector: &[f32]) -> Encoded {
        self.codes.encode(vector)
    }

    /// Bytes of the heap the graph holds.
    pub fn heap_bytes(&self) -> usize {
        (self.lowest.len() + self.upper.len() + self.upper_start.len()) * 4
            + self.nodes.capacity() * size_of::<Node>()
            + self.codes.heap_bytes()
    }

    fn entry(&self) -> Option<(usize, u32)> {
        let entry = self.entry.load(Ordering::Acquire);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word")]
        let parts = ((entry >> 32) as usize, entry as u32);
        (entry != NO_ENTRY).then_some(parts)
    }

    /// The link list of a node on a level: its count, then its links.
    fn list(&self, node: u32, level: usize) -> &[AtomicU32] {
        let neighbors = self.parameters.max_neighbors;
        if level == 0 {
            let stride = 1 + neighbors * 2;
            &self.lowest[node as usize * stride..(node as usize + 1) * stride]
        } else {
            let start = self.upper_start[node as usize] as usize + (level - 1) * (1 + neighbors);
            &self.upper[start..start + 1 + neighbors]
        }
    }

    fn links(&self, node: u32, level: usize) -> impl Iterator<Item = u32> {
        let list = self.list(node, level);
        let count = (list[0].load(Ordering::Acquire) as usize).min(list.len() - 1);
        // Acquire: whoever sees a link sees the codes of the node it leads to.
        list[1..=count].iter().map(|link| link.load(Ordering::Acquire))
    }
}

/// The highest level of a node: geometric with ratio `max_neighbors`, drawn from the node's number.
fn level_of(node: usize, max_neighbors: usize) -> usize {
    // SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): the levels are the same in every build and copy.
    let mut bits = (node as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    #[expect(clippy::cast_precision_loss, reason = "a random number needs no more than 53 bits")]
    let uniform = ((bits >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
    let level = -uniform.ln() / (max_neighbors.max(4) as f64).ln();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 53")]
    let level = level as usize;
    level.min(LEVEL_MAX)
}

fn zeros(len: usize) -> Box<[AtomicU32]> {
    (0..len).map(|_| AtomicU32::new(0)).collect()
}

fn copy_links(to: &[AtomicU32], from: &[AtomicU32]) {
    for (to, from) in to.iter().zip(from) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}
