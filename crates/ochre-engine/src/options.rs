//! How a database is opened: every knob with its default.

use std::sync::Arc;
use std::time::Duration;

use ochre_store::{Disk, RealDisk};

/// How to open a [`Database`](crate::Database).
#[derive(Clone)]
pub struct Options {
    /// Where segment files go; tests put a recording disk here.
    pub disk: Arc<dyn Disk>,
    /// The SQLite VFS; the platform's own if absent.
    pub vfs: Option<String>,
    /// Map sealed vector segments and database pages into memory. Turn it off on network file systems.
    pub map_segments: bool,
    /// Size at which a vector segment is sealed, in bytes.
    pub segment_bytes: u64,
    /// Collections with fewer records have no graph: measuring all is faster.
    pub graph_records_min: usize,
    /// Up to this many matches of a filter are all measured exactly, without a look at the graph or its codes.
    pub exact_records_max: usize,
    /// Documents that are read when a text is looked for; once there are more, they are indexed.
    pub text_unindexed_max: usize,
    /// Vectors that may wait outside the graph, in bytes; writes wait past it.
    pub tail_bytes_max: usize,
    /// How long a write waits for the tail to shrink before it is refused, in milliseconds.
    pub tail_wait_ms: u64,
    /// A graph with a larger share of replaced and deleted nodes is built anew.
    pub graph_dead_share_max: f64,
    /// A sealed segment with a larger share of dead vectors is compacted.
    pub segment_dead_share_max: f64,
    /// A collection without a graph that no request used for this long is dropped from memory; the next
    /// request reads it again.
    pub idle_unload: Duration,
    /// Run maintenance on a thread of its own. Without, call `Database::maintain`.
    pub background: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            vfs: None,
            map_segments: true,
            segment_bytes: 256 << 20,
            graph_records_min: 10_000,
            exact_records_max: 64,
            text_unindexed_max: 2000,
            tail_bytes_max: 512 << 20,
            tail_wait_ms: 30_000,
            graph_dead_share_max: 0.3,
            segment_dead_share_max: 0.3,
            idle_unload: Duration::from_secs(300),
            background: true,
        }
    }
}
