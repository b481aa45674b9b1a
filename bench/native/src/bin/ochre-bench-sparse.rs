//! Searches of sparse vectors in process, one thread, on demand of a benchmark:
//!
//!     ochre-bench-sparse VECTORS QUERIES
//!
//! Both files are little-endian: how many vectors, `u32`; of each how many values, `u32`, the indices, `u32` each, and
//! the values, `f32` each. Says `ready`; then answers each line on its input: `all` or `filtered`, every tenth vector
//! alone, with a JSON object: the seconds that all queries took, and what each found.

use std::io::{BufRead as _, Write as _};
use std::time::Instant;

use ochre_index::{Bitmap, Hit, NearestSparse, View};
use ochre_model::{Space, SparseVector, Value};
use serde_json::json;

/// How many are found.
const K: usize = 10;
/// Every tenth vector passes the filter.
const FILTERED: usize = 10;
const KEY: &str = "sparse";

type Failure = Box<dyn std::error::Error>;

fn read(path: &str) -> Result<Vec<SparseVector>, Failure> {
    let bytes = std::fs::read(path)?;
    let mut numbers = bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let mut next = || numbers.next().ok_or_else(|| format!("{path} is cut off"));
    let mut vectors = Vec::new();
    for _ in 0..next()? {
        let count = next()?;
        let indices = (0..count).map(|_| next()).collect::<Result<Vec<u32>, _>>()?;
        let values = (0..count).map(|_| next().map(f32::from_bits)).collect::<Result<Vec<f32>, _>>()?;
        vectors.push(SparseVector::new(indices, values, None)?);
    }
    Ok(vectors)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [vectors, queries] = arguments.as_slice() else {
        return Err("give a file of vectors and one of queries".into());
    };
    let (vectors, queries) = (read(vectors)?, read(queries)?);
    let mut view = View::new(Space::L2);
    for (offset, vector) in (0_u32..).zip(vectors) {
        view.set_vector(offset, u64::from(offset) + 1, None);
        view.set_value(offset, KEY, &Value::Sparse(Box::new(vector)));
    }
    let filter: Bitmap = view.live().iter().filter(|offset| (*offset as usize).is_multiple_of(FILTERED)).collect();
    let search = |query: &SparseVector, matches: Option<&Bitmap>| -> Result<Vec<Hit>, Failure> {
        let wanted = NearestSparse { key: KEY, query, is_bm25: false, k: K, matches };
        let (hits, _) = view.nearest_sparse(&wanted).map_err(|error| format!("{error:?}"))?;
        Ok(hits)
    };
    // The postings are made when they are first searched.
    queries.first().map(|query| search(query, None)).transpose()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let matches = match line?.as_str() {
            "all" => None,
            "filtered" => Some(&filter),
            other => return Err(format!("there is no {other:?}; there are all and filtered").into()),
        };
        let began = Instant::now();
        let found = queries.iter().map(|query| search(query, matches)).collect::<Result<Vec<_>, _>>()?;
        let seconds = began.elapsed().as_secs_f64();
        let found: Vec<Vec<u32>> = found.iter().map(|hits| hits.iter().map(|hit| hit.offset).collect()).collect();
        writeln!(out, "{}", json!({"seconds": seconds, "found": found}))?;
        out.flush()?;
    }
    Ok(())
}
