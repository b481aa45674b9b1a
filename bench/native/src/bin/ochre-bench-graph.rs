//! Builds a graph over vectors in a file and searches it in this process, as `bench/compare/graph.py`
//! does with other libraries.
//!
//! Reads commands from standard input, one a line, and answers each with a line of JSON: `search EF` runs
//! all queries once, one after the other on one thread, and says how many seconds that took; `scan 0` does
//! the same by scanning all codes instead of searching the graph, `query EF` as the planner decides. The ids
//! found lie in the file named by `--found`, as little-endian u32, `k` for each query.

use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::Parser;
use ochre_bench::read_floats;
use ochre_index::{
    BuildOptions, Damaged, Graph, GraphParameters, Nearest, Node, SnapshotHeader, Strategy, VectorBlock, View, nearest,
};
use ochre_kernels::{Region, prefetch, prefetch_row};
use ochre_model::{HnswConfiguration, Space, norm};

type Failure = Box<dyn std::error::Error>;

/// Builds and searches a graph.
#[derive(Parser)]
struct Arguments {
    /// Vectors to index: little-endian f32, row after row.
    #[arg(long)]
    base: PathBuf,
    /// Vectors to search for, in the same form.
    #[arg(long)]
    queries: PathBuf,
    /// Floats per vector.
    #[arg(long)]
    dimension: usize,
    /// `l2`, `cosine` or `ip`.
    #[arg(long, default_value = "cosine")]
    space: String,
    /// How many to find.
    #[arg(long, default_value_t = 10)]
    k: usize,
    /// Links per node above the lowest level; twice that on the lowest.
    #[arg(long, default_value_t = 16)]
    max_neighbors: usize,
    /// Candidates kept while a node is inserted.
    #[arg(long, default_value_t = 100)]
    ef_construction: usize,
    /// Threads that build.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Where the ids found are written.
    #[arg(long)]
    found: PathBuf,
    /// A snapshot of the graph: written once it is built, and mapped instead of building if it is there.
    #[arg(long)]
    snapshot: Option<PathBuf>,
}

/// All vectors of the file.
struct Rows {
    dimension: usize,
    values: Vec<f32>,
    norms: Vec<f32>,
}

impl VectorBlock for Rows {
    fn row(&self, row: usize) -> Result<&[f32], Damaged> {
        Ok(&self.values[row * self.dimension..(row + 1) * self.dimension])
    }

    fn norm(&self, row: usize) -> f32 {
        self.norms[row]
    }

    fn prefetch(&self, row: usize) {
        prefetch(&self.norms, row);
        prefetch_row(&self.values[row * self.dimension..(row + 1) * self.dimension]);
    }

    fn heap_bytes(&self) -> usize {
        self.values.len() * 4
    }
}

/// What the snapshot says it is of.
const HEADER: SnapshotHeader = SnapshotHeader { epoch: 0, collection: [0; 16], position: 0 };

fn build(rows: &Rows, parameters: GraphParameters, threads: usize) -> Result<Graph, Failure> {
    let (count, dimension) = (rows.norms.len(), rows.dimension);
    let sample: Vec<&[f32]> = rows.values.chunks(dimension).step_by((count / 4096).max(1)).collect();
    let graph = Graph::new(parameters, count, &sample);
    let stop = AtomicBool::new(false);
    for first in (0..count).step_by(2000) {
        let nodes: Result<Vec<(Node, &[f32])>, Failure> = (first..count.min(first + 2000))
            .map(|row| {
                let offset = u32::try_from(row)?;
                Ok((Node { offset, vector_id: u64::from(offset) + 1 }, rows.row(row)?))
            })
            .collect();
        if !graph.append(&nodes?, threads) {
            return Err("the graph is full".into());
        }
        let vector = |node: Node| rows.row(node.offset as usize).ok();
        graph.link_next(usize::MAX, vector, BuildOptions { threads, stop: &stop });
    }
    graph.search_weakly_linked_again();
    graph.calibrate();
    while graph.unsearched() > 0 {
        let vector = |node: Node| rows.row(node.offset as usize).ok();
        graph.search_own(usize::MAX, 100, vector, BuildOptions { threads, stop: &stop });
    }
    Ok(graph.copied(count))
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let dimension = arguments.dimension;
    let space = match arguments.space.as_str() {
        "l2" => Space::L2,
        "cosine" => Space::Cosine,
        "ip" => Space::Ip,
        other => return Err(format!("unknown space '{other}'; use l2, cosine or ip").into()),
    };
    let values = read_floats(&arguments.base)?;
    let norms: Vec<f32> = values.chunks(dimension).map(norm).collect();
    let (count, queries) = (norms.len(), read_floats(&arguments.queries)?);
    let rows: Arc<Rows> = Arc::new(Rows { dimension, values, norms });

    let begun = Instant::now();
    let configuration = HnswConfiguration {
        space,
        max_neighbors: arguments.max_neighbors,
        ef_construction: arguments.ef_construction,
        ..HnswConfiguration::default()
    };
    let parameters = GraphParameters::new(&configuration, dimension);
    let graph = match arguments.snapshot.as_ref().filter(|path| path.exists()) {
        Some(path) => {
            let memory = Region::map(&File::open(path)?, true)?;
            Graph::from_snapshot(HEADER.epoch, HEADER.collection, parameters, memory).map_err(|e| e.to_string())?.0
        }
        None => build(&rows, parameters, arguments.threads)?,
    };
    let build_seconds = begun.elapsed().as_secs_f64();

    if let Some(path) = arguments.snapshot.filter(|path| !path.exists()) {
        graph.write_snapshot(
            &HEADER,
            Graph::capacity_for(graph.linked().len(), 1.2),
            &mut BufWriter::new(File::create(path)?),
        )?;
    }
    let mut view = View::new(space);
    let block = view.add_block(Arc::clone(&rows) as Arc<dyn VectorBlock>);
    for offset in 0..u32::try_from(count)? {
        view.set_vector(offset, u64::from(offset) + 1, Some((block, offset)));
    }
    view.set_graph(Some(Arc::new(graph)));
    let memory = view.memory();
    let mut out = std::io::stdout().lock();
    let unreachable = view.unreachable_len();
    let built = serde_json::json!({
        "build_seconds": build_seconds, "codes_bytes": memory.quantized, "links_bytes": memory.links, "unreachable": unreachable,
    });
    writeln!(out, "{built}")?;

    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let Some((command, ef_search)) = line.split_once(' ') else { break };
        let hint = match command {
            "scan" => Some(Strategy::Scan),
            "query" => None,
            _ => Some(Strategy::Graph),
        };
        let ef_search = ef_search.trim().parse()?;
        let mut found: Vec<u32> = Vec::new();
        let (mut visited, mut reranked) = (0, 0);
        let begun = Instant::now();
        for query in queries.chunks(dimension) {
            let wanted = Nearest { query, k: arguments.k, ef_search, exact_max: 0, matches: None, hint };
            let (hits, plan) = nearest(&view, wanted)?;
            found.extend(hits.iter().map(|hit| hit.offset));
            visited += plan.visited;
            reranked += plan.reranked;
        }
        let seconds = begun.elapsed().as_secs_f64();
        std::fs::write(&arguments.found, bytemuck::cast_slice(&found))?;
        let (visited, reranked) = (visited * dimension / queries.len(), reranked * dimension / queries.len());
        writeln!(out, "{}", serde_json::json!({"seconds": seconds, "visited": visited, "measured": reranked}))?;
        out.flush()?;
    }
    Ok(())
}
