//! Answers of get and query, written straight into bytes: stored metadata passes through as it is.

use std::io::Write;

use serde::Serialize;

use super::records::{Include, IncludeList};
use super::search::Selected;

/// A record's columns as an answer shows them; metadata is JSON text.
pub trait Row {
    /// Its id.
    fn id(&self) -> &str;
    /// Its embedding.
    fn embedding(&self) -> Option<&[f32]>;
    /// Its document.
    fn document(&self) -> Option<&str>;
    /// Its metadata, as JSON.
    fn metadata(&self) -> Option<&str>;
    /// Its URI.
    fn uri(&self) -> Option<&str>;
    /// Its distance from the query.
    fn distance(&self) -> Option<f32> {
        None
    }
}

/// The body of a get answer; `next_cursor`, if given, is that of the next page, or that there is none.
pub fn get_response<R: Row>(rows: &[R], include: &IncludeList, next_cursor: Option<Option<&str>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + rows.len() * 64);
    out.push(b'{');
    column(&mut out, "ids", Some(()), |out| list(out, rows, |out, row| json(out, row.id())));
    for include_column in [Include::Embeddings, Include::Documents, Include::Uris, Include::Metadatas] {
        let wanted = include.has(include_column).then_some(());
        column(&mut out, include_column.name(), wanted, |out| {
            list(out, rows, |out, row| cell(out, row, include_column))
        });
    }
    if let Some(next_cursor) = next_cursor {
        column(&mut out, "next_cursor", Some(()), |out| json(out, &next_cursor));
    }
    finish(out, include)
}

/// The body of a query answer: a list of rows per query.
pub fn query_response<R: Row>(results: &[Vec<R>], include: &IncludeList) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + results.len() * 1024);
    out.push(b'{');
    column(&mut out, "ids", Some(()), |out| {
        list(out, results, |out, rows| list(out, rows, |out, row| json(out, row.id())));
    });
    for include_column in
        [Include::Embeddings, Include::Documents, Include::Uris, Include::Metadatas, Include::Distances]
    {
        let wanted = include.has(include_column).then_some(());
        column(&mut out, include_column.name(), wanted, |out| {
            list(out, results, |out, rows| list(out, rows, |out, row| cell(out, row, include_column)));
        });
    }
    finish(out, include)
}

/// The body of a search answer: for each search its rows, and what was selected of them.
pub fn search_response<R: Row>(results: &[(Selected, Vec<R>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + results.len() * 1024);
    out.push(b'{');
    column(&mut out, "ids", Some(()), |out| {
        list(out, results, |out, (_, rows)| list(out, rows, |out, row| json(out, row.id())));
    });
    for (name, include, is_selected) in [
        ("documents", Include::Documents, (|selected| selected.document) as fn(&Selected) -> bool),
        ("embeddings", Include::Embeddings, |selected| selected.embedding),
        ("metadatas", Include::Metadatas, |selected| selected.metadata || !selected.metadata_keys.is_empty()),
        ("scores", Include::Distances, |selected| selected.score),
    ] {
        column(&mut out, name, Some(()), |out| {
            list(out, results, |out, (selected, rows)| {
                if is_selected(selected) {
                    list(out, rows, |out, row| cell(out, row, include));
                } else {
                    out.extend_from_slice(b"null");
                }
            });
        });
    }
    out.extend_from_slice(b"\"select\":");
    list(&mut out, results, |out, (selected, _)| list(out, &selected.keys, json));
    out.push(b'}');
    out
}

fn finish(mut out: Vec<u8>, include: &IncludeList) -> Vec<u8> {
    out.extend_from_slice(b"\"include\":");
    list(&mut out, &include.0, |out, include| json(out, include.name()));
    out.push(b'}');
    out
}

fn column(out: &mut Vec<u8>, name: &str, wanted: Option<()>, write: impl FnOnce(&mut Vec<u8>)) {
    json(out, name);
    out.push(b':');
    match wanted {
        Some(()) => write(out),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b',');
}

fn list<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn cell<R: Row>(out: &mut Vec<u8>, row: &R, include: Include) {
    match include {
        Include::Documents => json(out, &row.document()),
        Include::Uris => json(out, &row.uri()),
        Include::Distances => json(out, &row.distance()),
        Include::Metadatas => out.extend_from_slice(row.metadata().unwrap_or("null").as_bytes()),
        Include::Embeddings => match row.embedding() {
            Some(values) => list(out, values, json),
            None => out.extend_from_slice(b"null"),
        },
    }
}

/// Plain values only: writing one into memory cannot fail.
fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    if serde_json::to_writer(&mut *out, value).is_err() {
        let _ = out.write_all(b"null");
    }
}
