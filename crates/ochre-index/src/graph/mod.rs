//! A navigable graph over quantised vectors (HNSW), with concurrent readers.
//!
//! The graph holds its own copy of the vectors as codes, so a search never touches the truth; what it finds
//! is reranked with exact distances by the caller. Links are pruned as in Vamana, which keeps some longer
//! ones: fewer candidates then give the same recall. Nodes are vectors, not records: a record whose vector
//! changes gets a new node, and who is current is the view's business.
//!
//! Invariants:
//! - Nodes are numbered in order of arrival, and again in copies; a node's highest level is a function of its number.
//! - Nodes with the same code share the links of the first of them, and hang below it in lists of their own: no search
//!   tells them apart, and as neighbours of each other they would crowd out all others.
//! - A link always points to a node whose codes are published. Readers may see a list of links while it
//!   is being rewritten: each entry is a valid node at any time.
//! - Capacity is fixed; a fuller graph is a copy ([`Graph::copied`]).
//! - All of its memory is slabs: of the heap, or of its snapshot, mapped. A damaged snapshot may make it find less,
//!   never panic: numbers from it are looked up, not trusted.
//!
//! Sources: Malkov & Yashunin, arXiv:1603.09320 (levels); Jayaram Subramanya et al., DiskANN, NeurIPS 2019
//! (thinning out).

mod build;
mod codes;
mod links;
mod reorder;
mod repair;
mod search;
mod snapshot;

use std::cmp::Ordering as Order;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use ochre_kernels::{Arena, prefetch};
use ochre_model::{HnswConfiguration, Space};
use parking_lot::Mutex;

pub use build::BuildOptions;
pub(crate) use codes::Query;
use codes::{Allocator, Codes, Quantization, arena, bytes_of, heap, sum};
use links::{Link, Links};
use repair::Connectivity;
use search::SearchContext;
pub(crate) use search::Wanted;
pub use snapshot::{SNAPSHOT_VERSION, SnapshotError, SnapshotHeader, verify_snapshot};

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
    /// links (below that it falls apart), at most 512, and at least 8 candidates while inserting. Half as
    /// many candidates again are kept as was asked for: thinning out links profits from a larger choice.
    pub fn new(configuration: &HnswConfiguration, dimension: usize) -> Self {
        Self {
            space: configuration.space,
            dimension,
            max_neighbors: configuration.max_neighbors.clamp(2, 512),
            ef_construction: (configuration.ef_construction * 3 / 2).clamp(8, 10_000),
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

impl Node {
    /// As the graph keeps it: the offset, then the lower and the higher half of the id.
    fn to_words(self) -> [u32; 3] {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let low = self.vector_id as u32;
        [self.offset, low, (self.vector_id >> 32) as u32]
    }

    fn from_words([offset, low, high]: [u32; 3]) -> Self {
        Self { offset, vector_id: u64::from(high) << 32 | u64::from(low) }
    }
}

/// A node with its distance, ordered by distance and then by number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Near {
    pub(crate) distance: f32,
    pub(crate) node: u32,
}

impl Eq for Near {}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Near {
    fn cmp(&self, other: &Self) -> Order {
        self.distance.total_cmp(&other.distance).then(self.node.cmp(&other.node))
    }
}

/// Measuring a node in a search takes about as long as measuring this many in a scan: a scan knows what
/// comes next, a search waits for memory.
pub(crate) const GRAPH_SEARCH_COST: usize = 4;
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
    nodes: Arena<[u32; 3]>,
    /// Nodes whose links are complete: all numbers below this.
    linked: AtomicU32,
    /// Nodes that it was laid out with: those of its snapshot.
    laid_out: usize,
    /// By node, the links on the lowest level.
    lowest: Links,
    /// By node, where its lists above the lowest level begin in `upper`.
    upper_start: Arena<u32>,
    upper: Links,
    /// How distances grow with rank, as the bits of an `f32`; 0 while nothing is known, and negative where they grow by
    /// no power of it: then it is how many times more candidates searches keep.
    distance_growth: AtomicU32,
    /// Searches find too little of what a scan of all codes finds, so all codes are scanned.
    is_scanned: AtomicBool,
    /// Level and number of the node that searches begin at.
    entry: AtomicU64,
    entry_lock: Mutex<()>,
    /// Which of the nodes that were linked by then no search reaches.
    reached: Mutex<Connectivity>,
    /// How many nodes are [`Graph::lost`], which every query tells.
    unreachable_count: AtomicUsize,
    stripes: Box<[Mutex<()>]>,
    context: Mutex<Vec<SearchContext>>,
}

/// Room for a graph's nodes, and how much of it is used.
#[derive(Clone, Copy)]
struct Capacity {
    capacity: usize,
    /// Nodes that are there.
    count: usize,
    /// Lists above the lowest level that `capacity` nodes have.
    upper_lists: usize,
}

impl Graph {
    /// An empty graph for up to `capacity` nodes. `sample` decides how vectors are coded; it should be
    /// some hundred of the vectors that will come.
    pub fn new(parameters: GraphParameters, capacity: usize, sample: &[&[f32]]) -> Self {
        Self::on_heap(parameters, capacity, Codes::choose(parameters, sample))
    }

    fn on_heap(parameters: GraphParameters, capacity: usize, coding: Quantization) -> Self {
        let starts = upper_starts(capacity, parameters.max_neighbors);
        let upper_lists = starts.last().map_or(0, |last| *last as usize);
        let room = Capacity { capacity, count: 0, upper_lists };
        let graph = Self::allocate(parameters, coding, room, &mut heap).expect("the heap always has more");
        let fits = graph.upper_start.append(&starts[..capacity]);
        debug_assert!(fits, "made for exactly this many");
        graph
    }

    /// A graph in memory that has what `room` says. Snapshots have its parts in this order.
    fn allocate(
        parameters: GraphParameters, coding: Quantization, room: Capacity, take: Allocator<'_>,
    ) -> Option<Self> {
        let Capacity { capacity, count, upper_lists } = room;
        let (lowest, upper) = (parameters.max_neighbors * 2, parameters.max_neighbors);
        Some(Self {
            parameters,
            codes: Codes::allocate(parameters, coding, capacity, count, take)?,
            nodes: arena(take, capacity, count)?,
            linked: AtomicU32::new(u32::try_from(count).ok()?),
            laid_out: count,
            upper_start: arena(take, capacity, if count > 0 { capacity } else { 0 })?,
            lowest: Links::over(take(Links::bytes(capacity, lowest))?, lowest),
            upper: Links::over(take(Links::bytes(upper_lists, upper))?, upper),
            distance_growth: AtomicU32::new(0),
            is_scanned: AtomicBool::new(false),
            entry: AtomicU64::new(NO_ENTRY),
            entry_lock: Mutex::new(()),
            reached: Mutex::default(),
            unreachable_count: AtomicUsize::new(0),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            context: Mutex::default(),
        })
    }

    /// A copy on the heap with room for `capacity` nodes, or for those there are if they are more. Nodes that are
    /// linked lie in it as searches read them, those that are not follow as before. No nodes may be added meanwhile.
    pub fn copied(&self, capacity: usize) -> Self {
        let count = self.nodes.len();
        let copy = Self::on_heap(self.parameters, capacity.max(count), self.codes.coding());
        let numbering = self.reordered(count);
        let appended = copy.codes.append_all(&self.codes, &numbering) && numbering.append(&copy.nodes, &self.nodes, 1);
        debug_assert!(appended, "a copy has room for what it is of");
        for (new, old) in (0u32..).zip(numbering.old()) {
            for level in 0..=level_of(old as usize, self.parameters.max_neighbors) {
                let ((table, list), links) = (copy.list(new, level), self.entries(old, level));
                table.set(list, links.filter_map(|link| Some(Link { node: numbering.renamed(link.node)?, ..link })));
            }
        }
        copy.set_calibration(self.calibration());
        copy.linked.store(self.linked.load(Ordering::Acquire), Ordering::Release);
        copy.entry.store(numbering.renamed_entry(self.entry.load(Ordering::Acquire)), Ordering::Release);
        copy.set_reached(self.reached.lock().renamed(&numbering));
        copy
    }

    /// The capacity a graph of `count` nodes should have, growing by `resize_factor` (1.05 to 4).
    pub fn capacity_for(count: usize, resize_factor: f64) -> usize {
        let factor = if resize_factor.is_finite() { resize_factor.clamp(1.05, 4.0) } else { 1.2 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a size"
        )]
        let grown = (count as f64 * factor) as usize;
        grown.max(count + 1024)
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
    pub fn linked(&self) -> impl ExactSizeIterator<Item = Node> {
        self.nodes().take(self.linked.load(Ordering::Acquire) as usize)
    }

    /// All nodes, those whose links are not complete included.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = Node> {
        self.nodes.as_slice().iter().map(|words| Node::from_words(*words))
    }

    pub(crate) fn node(&self, node: u32) -> Node {
        Node::from_words(self.nodes.as_slice()[node as usize])
    }

    /// Asks the processor for what [`Graph::node`] reads.
    pub(crate) fn prefetch_node(&self, node: u32) {
        prefetch(self.nodes.as_slice(), node as usize);
    }

    /// A vector in the graph's code, to measure nodes against.
    pub(crate) fn query(&self, vector: &[f32]) -> Query {
        self.codes.query(vector)
    }

    /// How far each node is from a query by code; `out` is as long as `nodes`.
    pub(crate) fn distances(&self, query: &Query, nodes: &[u32], out: &mut [f32]) {
        self.codes.distances(query, nodes, out);
    }

    /// How far a coded distance from this query may be from the exact one.
    pub(crate) fn error_bound(&self, query: &Query) -> f32 {
        self.codes.error_bound(query)
    }

    /// Bytes that codes take.
    pub fn codes_bytes(&self) -> usize {
        self.codes.bytes().0
    }

    /// Bytes that nodes and links take.
    pub fn links_bytes(&self) -> usize {
        self.nodes_and_links().0
    }

    /// How many of these bytes are pages of its snapshot, which cost nothing to let go of.
    pub fn file_bytes(&self) -> usize {
        self.codes.bytes().1 + self.nodes_and_links().1
    }

    /// Bytes of nodes that lie in no file, as far as they are used: all of them, or those that came since its snapshot
    /// was mapped.
    pub fn unsaved_bytes(&self) -> usize {
        let saved = if self.file_bytes() > 0 { self.laid_out } else { 0 };
        (self.codes_bytes() + self.links_bytes()) / self.capacity().max(1) * (self.len() - saved)
    }

    fn nodes_and_links(&self) -> (usize, usize) {
        sum([bytes_of(&self.nodes), bytes_of(&self.upper_start), self.lowest.memory(), self.upper.memory()])
    }

    /// Lets go of the pages of its snapshot: they are read again where they are needed.
    pub fn drop_pages(&self) {
        self.nodes.drop_pages();
    }

    fn entry(&self) -> Option<(usize, u32)> {
        let entry = self.entry.load(Ordering::Acquire);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word")]
        let parts = ((entry >> 32) as usize, entry as u32);
        (entry != NO_ENTRY).then_some(parts)
    }

    /// The table that has the links of a level, and the list of a node in it.
    fn list(&self, node: u32, level: usize) -> (&Links, usize) {
        match level.checked_sub(1) {
            None => (&self.lowest, node as usize),
            Some(above) => (&self.upper, self.upper_start.as_slice()[node as usize] as usize + above),
        }
    }

    /// Everything in a node's list: its neighbours, and duplicates of it.
    fn entries(&self, node: u32, level: usize) -> impl Iterator<Item = Link> {
        let ((table, list), nodes) = (self.list(node, level), self.nodes.len());
        // In a sound graph every link leads to a node.
        table.get(list).take_while(move |link| (link.node as usize) < nodes)
    }

    /// The neighbours of a node.
    fn links(&self, node: u32, level: usize) -> impl Iterator<Item = u32> {
        self.entries(node, level).filter(|link| !link.is_duplicate).map(|link| link.node)
    }

    /// The duplicates in a node's list; there are more in theirs.
    fn duplicates(&self, node: u32) -> impl Iterator<Item = u32> {
        self.entries(node, 0).filter(|link| link.is_duplicate).map(|link| link.node)
    }

    /// Replaces the neighbours of a node; duplicates in its list stay. The caller has the lock of the list.
    fn set_neighbours(&self, node: u32, level: usize, neighbours: impl IntoIterator<Item = u32>) {
        let (table, list) = self.list(node, level);
        let mut links: Vec<Link> = table.get(list).filter(|link| link.is_duplicate).collect();
        links.extend(neighbours.into_iter().map(Link::neighbour));
        table.set(list, links);
    }

    /// The lock for changing a node's lists.
    fn stripe(&self, node: u32) -> &Mutex<()> {
        &self.stripes[node as usize % STRIPES]
    }

    fn prefetch_links(&self, node: u32, level: usize) {
        let (table, list) = self.list(node, level);
        table.prefetch(list);
    }

    /// Links a list of this level has room for.
    fn links_max(&self, level: usize) -> usize {
        if level == 0 { self.lowest.length() } else { self.upper.length() }
    }
}

/// For each of so many nodes where its lists above the lowest level begin, and once more where the last ones end.
fn upper_starts(count: usize, max_neighbors: usize) -> Vec<u32> {
    let mut start = 0;
    let starts = (0..=count).map(|node| {
        let here = start;
        start += level_of(node, max_neighbors);
        u32::try_from(here).expect("a graph has fewer lists above the lowest level than nodes")
    });
    starts.collect()
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

/// A graph over all of these vectors, the first `linked` of them linked.
#[cfg(test)]
fn graph_of(vectors: &[Vec<f32>], linked: usize) -> Graph {
    let sample: Vec<&[f32]> = vectors.iter().take(1000).map(Vec::as_slice).collect();
    let parameters = GraphParameters::new(&HnswConfiguration::default(), vectors[0].len());
    let graph = Graph::new(parameters, vectors.len(), &sample);
    let nodes: Vec<(Node, &[f32])> = (0u32..)
        .zip(vectors)
        .map(|(offset, vector)| (Node { offset, vector_id: u64::from(offset) + 1 }, vector.as_slice()))
        .collect();
    assert!(graph.append(&nodes, 2));
    let vector = |node: Node| Some(vectors[node.offset as usize].as_slice());
    let stop = std::sync::atomic::AtomicBool::new(false);
    graph.link_next(linked, vector, BuildOptions { threads: 2, stop: &stop });
    graph
}
