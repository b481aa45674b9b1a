//! Read structures over the truth: typed columns, declared indexes, views, the graph, the trigrams and terms of
//! documents, and the planner that picks between exact search, scans of codes and the graph.
//!
//! Everything here is derived and may be thrown away at any moment. No I/O of its own: what has to be
//! read while a filter is evaluated is asked for through [`Rows`], snapshots go to any `Write`.
//!
//! Not here: when views are published, graphs built and snapshots written (`ochre-engine`).

mod bitmap;
mod bytes;
mod column;
mod composite;
mod coverage;
mod distance;
mod estimate;
mod evaluate;
mod graph;
mod planner;
mod postings;
mod records;
mod scores;
mod sparse;
mod text;
mod view;

pub use bitmap::{Bitmap, CHUNK};
pub use column::{TypeCounts, Values};
pub use composite::{
    COMPOSITE_VERSION, CompositeBuilder, CompositeHeader, CompositeIndex, CompositeSegment, Considered,
    INDEXED_BYTES_MAX, IndexColumn, IndexShape, KEYS_PER_RECORD_MAX, Reason, is_answerable,
};
pub use distance::Metric;
pub use evaluate::{Hints, Rows, Trace, evaluate, evaluate_with};
pub use graph::{
    BuildOptions, Graph, GraphParameters, Node, SNAPSHOT_VERSION, SnapshotError, SnapshotHeader, verify_snapshot,
};
pub use planner::{Hit, Nearest, Plan, Strategy, nearest};
pub use records::{RECORDS_VERSION, RecordPlace, StoredRecords};
pub use scores::{Scores, evaluate_rank, order_scores};
pub use sparse::NearestSparse;
pub use text::{Analyzer, NearestText, RecentDocuments, TEXT_VERSION, TextBuilder, TextHeader, TextSegment};
pub use view::{Damaged, Memory, VectorBlock, View};
