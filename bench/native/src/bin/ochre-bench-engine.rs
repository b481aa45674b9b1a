//! The embedded database over records in files, searched in this process, as `bench/compare/engines.py`
//! does with other engines.
//!
//! Prints a line once the records are indexed. Then reads conditions from standard input, one a line as
//! JSON, `null` or `["key", "=" or ">", value]`, runs all queries under each, one after the other on one
//! thread, and answers with the seconds that took and the ids found.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use ochre_bench::read_floats;
use ochre_engine::model::{Filter, HnswConfiguration, IndexSchema, Metadata, Scalar, Space, Test, Value};
use ochre_engine::{CollectionOptions, Database, Include, NewRecords, Options, QueryRequest};
use serde_json::Value as Json;

type Failure = Box<dyn std::error::Error>;

/// Fills and searches an embedded database.
#[derive(Parser)]
struct Arguments {
    /// Where the database is made.
    #[arg(long)]
    path: PathBuf,
    /// A JSON object a line: `id`, `document`, `metadata`.
    #[arg(long)]
    records: PathBuf,
    /// Their vectors: little-endian f32, row after row.
    #[arg(long)]
    base: PathBuf,
    /// Vectors to search for, in the same form.
    #[arg(long)]
    queries: PathBuf,
    /// Floats per vector.
    #[arg(long)]
    dimension: usize,
}

fn filter(condition: &Json) -> Result<Option<Filter>, Failure> {
    let Some([key, operator, value]) = condition.as_array().map(Vec::as_slice) else { return Ok(None) };
    let operand = match value {
        Json::String(text) => Scalar::Str(text.clone()),
        number => Scalar::Int(number.as_i64().ok_or("an operand is a string or an integer")?),
    };
    let test = if operator == "=" { Test::Eq(operand) } else { Test::Compare(Test::GREATER, operand) };
    Ok(Some(Filter::Key { key: key.as_str().ok_or("a key is a string")?.to_owned(), test }))
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let (base, queries) = (read_floats(&arguments.base)?, read_floats(&arguments.queries)?);
    let lines: Result<Vec<Json>, _> =
        std::fs::read_to_string(&arguments.records)?.lines().map(serde_json::from_str).collect();
    let lines = lines?;
    let database = Database::open_with(&arguments.path, Options::default())?;
    let hnsw = HnswConfiguration { space: Space::Cosine, ..HnswConfiguration::default() };
    let options = CollectionOptions { schema: Some(IndexSchema::new(&hnsw, None)), ..CollectionOptions::default() };
    let collection = database.create_collection_in("default_tenant", "default_database", "bench", options)?;
    for (lines, rows) in lines.chunks(1000).zip(base.chunks(1000 * arguments.dimension)) {
        let text = |line: &Json, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let metadata = |line: &Json| -> Metadata {
            let pairs = line["metadata"].as_object().into_iter().flatten();
            pairs.filter_map(|(key, json)| Some((key.clone(), Value::from_json(json.clone()).ok()??))).collect()
        };
        let records = NewRecords::new(lines.iter().map(|line| text(line, "id")), rows.chunks(arguments.dimension))
            .documents(lines.iter().map(|line| text(line, "document")))
            .metadatas(lines.iter().map(metadata));
        collection.add(records)?;
    }
    database.maintain()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    for line in std::io::stdin().lock().lines() {
        let filter = filter(&serde_json::from_str(&line?)?)?;
        let mut found: Vec<Vec<String>> = Vec::new();
        let begun = Instant::now();
        for query in queries.chunks(arguments.dimension) {
            let mut request = QueryRequest::nearest_to(query).include(Include::NONE);
            request.filter.clone_from(&filter);
            let answer = collection.query(&request)?;
            found.push(answer.results.into_iter().flatten().map(|hit| hit.record.id).collect());
        }
        let seconds = begun.elapsed().as_secs_f64();
        writeln!(out, "{}", serde_json::json!({"seconds": seconds, "found": found}))?;
        out.flush()?;
    }
    Ok(())
}
