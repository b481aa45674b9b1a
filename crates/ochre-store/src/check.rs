//! Verifying a database at rest: every checksum and every cross-reference, changing nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use ochre_model::{IndexSchema, Metadata};
use rusqlite::Connection;

use crate::definitions::{self, ExtensionTables};
use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Result};
use crate::head::{self, Found, HEAD_FILE};
use crate::lock::Owner;
use crate::quarantine::QUARANTINE_FOLDER;
use crate::report::Report;
use crate::segment::Segment;
use crate::sqlite::checksums::{PAGE_BYTES, damaged_pages, has_checksums};
use crate::sqlite::connection::{DATABASE_FILE, SEGMENTS_FOLDER};
use crate::sqlite::layers::{DELETED, Layers, has_forks, problem, rowids};
use crate::sqlite::open::{examine, open_read_only};
use crate::sqlite::reader::visit_range;
use crate::sqlite::segment_rows::segment_rows;

/// Checks the database in `directory`: SQLite's own structure, every checksum of every segment, and
/// that every record's vector, metadata and position are what the rest of the database says.
///
/// `known` are the tables of extensions, whose definitions are compared; those of others may be plain tables and
/// indexes.
///
/// # Errors
/// [`Error::Locked`] if a process has it open, [`Error::TooNew`], [`Error::Io`] if it cannot be read at
/// all. Damage is no error here: it is in the report.
pub fn check(directory: &Path, known: &[ExtensionTables]) -> Result<Report> {
    let path = directory.join(DATABASE_FILE);
    let is_there = [DATABASE_FILE, HEAD_FILE, SEGMENTS_FOLDER].iter().any(|name| directory.join(name).exists());
    if !is_there {
        let reason = "there is no database here".into();
        return Err(Error::Io { action: "check", path, reason });
    }
    let _owner = Owner::take_silently(directory)?;
    let mut report = Report::default();
    match head::read(&ReadOnlyDisk, directory)? {
        Found::Damaged => report.find(HEAD_FILE, "it does not match its checksum".into()),
        Found::Missing | Found::Head(_) => {}
    }
    match examine(&ReadOnlyDisk, directory, None) {
        Ok(examined) => examined.lost.into_iter().for_each(|reason| report.find(DATABASE_FILE, reason)),
        Err(Error::Corrupt { reason, .. }) => report.find(DATABASE_FILE, reason),
        Err(error) => return Err(error),
    }
    if directory.join(QUARANTINE_FOLDER).is_dir() {
        report
            .notes
            .push(format!("{QUARANTINE_FOLDER}/ holds files that were moved aside when the database was opened"));
    }
    if !path.is_file() {
        return Ok(report);
    }
    let checked = open_read_only(&path, None).and_then(|connection| {
        check_pages(&connection, &mut report, &mut |_, _| true)?;
        let problems = definitions::foreign(&connection, known)?;
        problems.into_iter().for_each(|problem| report.find(DATABASE_FILE, problem));
        check_database(&connection, directory, &mut report, &mut |_, _| true)
    });
    if let Err(error) = checked {
        let text = error.to_string();
        match Error::sqlite("check", &path, &error) {
            // Anything but a failing file system is something wrong with the content.
            error @ (Error::Io { .. } | Error::Full { .. }) if text.contains("disk I/O") => return Err(error),
            Error::Corrupt { reason, .. } => report.find(DATABASE_FILE, reason),
            _ => report.find(DATABASE_FILE, text),
        }
    }
    Ok(report)
}

/// Pages that are compared in one step.
const PAGES_AT_ONCE: u64 = 1000;

/// Compares every page of the database file with its checksum, whether anything refers to it or not; whether it came
/// to the end.
pub(crate) fn check_pages(connection: &Connection, report: &mut Report, pace: Pace<'_>) -> rusqlite::Result<bool> {
    // The header is looked at first.
    connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    if !has_checksums(connection)? {
        report.notes.push(format!("the pages of {DATABASE_FILE} have no checksums yet: run the job full-vacuum once"));
        return Ok(true);
    }
    let (mut first, mut pages, mut suspects) = (1, 1, Vec::new());
    while first <= pages {
        if !pace("pages", first - 1) {
            return Ok(false);
        }
        let (damaged, count) = damaged_pages(connection, first, PAGES_AT_ONCE)?;
        suspects.extend(damaged);
        (first, pages) = (first + PAGES_AT_ONCE, count);
    }
    if suspects.is_empty() {
        return Ok(true);
    }
    // What the log has again is not read from the file: a checkpoint that a crash or a full disk ended leaves pages
    // halfway.
    let path = connection.path().map(|path| Path::new(path).with_extension("sqlite3-wal"));
    let rewritten = path.map_or_else(BTreeSet::new, |path| pages_in_log(&path));
    for page in suspects.into_iter().filter(|page| !rewritten.contains(page)) {
        let (damaged, _) = damaged_pages(connection, page, 1)?;
        if !damaged.is_empty() {
            report.find(DATABASE_FILE, format!("page {page} does not match its checksum"));
        }
    }
    Ok(true)
}

/// The numbers of the pages that a write-ahead log holds; of the form that SQLite describes in "The WAL File Format".
fn pages_in_log(path: &Path) -> BTreeSet<u64> {
    const HEADER: usize = 32;
    const FRAME: usize = 24;
    let mut pages = BTreeSet::new();
    let Ok(mut log) = std::fs::File::open(path) else { return pages };
    let mut header = [0; HEADER];
    if log.read_exact(&mut header).is_err() {
        return pages;
    }
    let mut frame = vec![0; FRAME + PAGE_BYTES];
    // Frames of before the log was started over have other salts.
    while log.read_exact(&mut frame).is_ok() && frame[8..16] == header[16..24] {
        pages.insert(u64::from(u32::from_be_bytes(frame[..4].try_into().expect("four bytes"))));
    }
    pages
}

/// Asked before each step with what it is about and how many were done; `false` stops the check.
pub(crate) type Pace<'a> = &'a mut dyn FnMut(&str, u64) -> bool;

/// Checks one state of a database, while others may write new ones; whether it came to the end.
pub(crate) fn check_database(
    connection: &Connection, directory: &Path, report: &mut Report, pace: Pace<'_>,
) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0")?;
    let tables: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for (index, table) in tables.iter().enumerate() {
        if !pace("tables", index as u64) {
            return Ok(false);
        }
        let mut statement = connection.prepare(&format!("PRAGMA integrity_check('{table}')"))?;
        for line in statement.query_map([], |row| row.get::<_, String>(0))? {
            let line = line?;
            if line != "ok" {
                report.find(DATABASE_FILE, line);
            }
        }
    }
    let Some(vectors) = check_segments(connection, directory, report, pace)? else { return Ok(false) };
    if !check_records(connection, &vectors, report, pace)? {
        return Ok(false);
    }
    let layers = if has_forks(connection)? {
        "SELECT ifnull(layer, number) FROM collections UNION SELECT number FROM layers"
    } else {
        "SELECT number FROM collections"
    };
    let strays = format!("SELECT count(*) FROM records WHERE collection NOT IN ({layers})");
    let strays: i64 = connection.query_row(&strays, [], |row| row.get(0))?;
    if strays > 0 {
        report.find(DATABASE_FILE, format!("{strays} records belong to no collection"));
    }
    Ok(true)
}

/// Records that are checked in one step.
const RECORDS_AT_ONCE: u64 = 2000;

/// Where each vector is: its collection and dimension, by id.
type Vectors = HashMap<u64, (u32, u32)>;

fn check_segments(
    connection: &Connection, directory: &Path, report: &mut Report, pace: Pace<'_>,
) -> rusqlite::Result<Option<Vectors>> {
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk);
    let folder = directory.join(SEGMENTS_FOLDER);
    let mut vectors = Vectors::new();
    for row in segment_rows(connection)? {
        let file = format!("{SEGMENTS_FOLDER}/{:08}.seg", row.number);
        let segment = match Segment::open(&disk, &folder, row.number, row.committed_bytes, row.sealed, true) {
            Ok(segment) => Arc::new(segment),
            Err(Error::Corrupt { reason, .. }) => {
                report.find(&file, reason);
                continue;
            }
            Err(error) => {
                report.find(&file, error.to_string());
                continue;
            }
        };
        let entries = match row.sealed.then(|| segment.read_footer(row.committed_bytes)) {
            Some(Ok(entries)) => entries,
            Some(Err(error)) => {
                report.find(&file, error.to_string());
                segment.scan(row.committed_bytes).0
            }
            None => {
                let (entries, damage) = segment.scan(row.committed_bytes);
                if let Some(damage) = damage {
                    report.find(&file, damage.reason);
                }
                entries
            }
        };
        for entry in entries {
            if !pace("vectors", report.vectors) {
                return Ok(None);
            }
            match segment.load_block(&entry, row.committed_bytes) {
                Ok(block) => {
                    if let Err(damage) = block.rows() {
                        report.find(&file, damage.reason);
                    }
                    report.vectors += block.len() as u64;
                    vectors.extend(block.ids().iter().map(|id| (*id, (entry.collection, entry.dimension))));
                }
                Err(damage) => report.find(&file, damage.reason),
            }
        }
    }
    Ok(Some(vectors))
}

/// What the catalog says of a collection.
struct CheckedCollection {
    name: String,
    dimension: Option<u32>,
    position: i64,
    next_offset: i64,
    records: i64,
}

fn check_records(
    connection: &Connection, vectors: &Vectors, report: &mut Report, pace: Pace<'_>,
) -> rusqlite::Result<bool> {
    let mut statement = connection
        .prepare("SELECT number, name, schema, metadata, dimension, position, next_offset, records FROM collections WHERE deleted = 0")?;
    let mut collections = BTreeMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (number, name): (u32, String) = (row.get(0)?, row.get(1)?);
        report.collections += 1;
        if let Err(error) = IndexSchema::from_text(&row.get::<_, String>(2)?) {
            report.find(DATABASE_FILE, format!("collection '{name}': its schema is not readable: {error}"));
        }
        if let Some(Err(error)) = row.get::<_, Option<String>>(3)?.map(|text| Metadata::from_text(&text)) {
            report.find(DATABASE_FILE, format!("collection '{name}': {error}"));
        }
        let (dimension, position) = (row.get(4)?, row.get(5)?);
        let (next_offset, records) = (row.get(6)?, row.get(7)?);
        collections.insert(number, CheckedCollection { name, dimension, position, next_offset, records });
    }
    let (mut checked, has_forks) = (BTreeSet::new(), has_forks(connection)?);
    if has_forks && let Some(problem) = problem(connection)? {
        report.find(DATABASE_FILE, problem);
        return Ok(true);
    }
    for (number, collection) in collections {
        let layers = if has_forks { Layers::of(connection, number)? } else { Layers::single(number) };
        let blocks: BTreeSet<u32> = layers.block_numbers().collect();
        for layer in layers.iter() {
            // What forks share is checked once.
            if checked.insert(layer.number)
                && !check_layer(connection, layer.number, &blocks, &collection, vectors, report, pace)?
            {
                return Ok(false);
            }
        }
        let count = count_records(connection, &layers)?;
        report.records += count.cast_unsigned();
        if collection.records != count {
            let CheckedCollection { name, records, .. } = collection;
            report.find(
                DATABASE_FILE,
                format!("collection '{name}' says it has {records} records, but {count} are there"),
            );
        }
    }
    Ok(true)
}

/// How many records a collection has.
fn count_records(connection: &Connection, layers: &Layers) -> rusqlite::Result<i64> {
    if layers.is_single() {
        let sql = "SELECT count(*) FROM records WHERE rowid BETWEEN ?1 AND ?2";
        return connection.query_row(sql, rowids(layers.own().number), |row| row.get(0));
    }
    let mut count = 0;
    visit_range(connection, layers, "rowid, vector_id", [0, u32::MAX], &mut |_, _| {
        count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}

/// Checks the rows of one layer, as of one of the collections that read it; its vectors lie under one of the numbers
/// `blocks`.
fn check_layer(
    connection: &Connection, layer: u32, blocks: &BTreeSet<u32>, collection: &CheckedCollection, vectors: &Vectors,
    report: &mut Report, pace: Pace<'_>,
) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT rowid, vector_id, id, collection, updated_at_position, metadata FROM records
         WHERE rowid BETWEEN ?1 AND ?2",
    )?;
    let CheckedCollection { name, dimension, position, next_offset, .. } = collection;
    let (mut rows, mut seen) = (statement.query(rowids(layer))?, 0u64);
    while let Some(row) = rows.next()? {
        if seen.is_multiple_of(RECORDS_AT_ONCE) && !pace("records", report.records + seen) {
            return Ok(false);
        }
        seen += 1;
        let (rowid, vector_id, number): (i64, i64, u32) = (row.get(0)?, row.get(1)?, row.get(3)?);
        let is_deleted = vector_id == DELETED;
        let id = if is_deleted { format!("deleted, at offset {}", rowid & 0xFFFF_FFFF) } else { row.get(2)? };
        let mut wrong =
            |problem: String| report.find(DATABASE_FILE, format!("collection '{name}', record '{id}': {problem}"));
        if number != layer || (rowid & 0xFFFF_FFFF) >= *next_offset {
            wrong(format!("its row number {rowid} does not belong to the collection"));
        }
        if row.get::<_, i64>(4)? > *position {
            wrong("it is newer than its collection".into());
        }
        if is_deleted {
            continue;
        }
        match vectors.get(&vector_id.cast_unsigned()) {
            None => wrong(format!("its vector {vector_id} is in no segment")),
            Some((owner, _)) if !blocks.contains(owner) => {
                wrong(format!("its vector {vector_id} belongs to collection {owner}"))
            }
            Some((_, has)) if Some(*has) != *dimension => {
                wrong(format!("its vector has dimension {has}, not {dimension:?}"))
            }
            Some(_) => {}
        }
        if let Some(Err(error)) = row.get::<_, Option<String>>(5)?.map(|text| Metadata::from_text(&text)) {
            wrong(error.to_string());
        }
    }
    Ok(true)
}

/// The real disk, without its writing half: a longer file is not cut, nothing is made or removed.
struct ReadOnlyDisk;

struct ReadOnlyFile(std::fs::File);

fn read_only<T>() -> std::io::Result<T> {
    Err(std::io::Error::new(std::io::ErrorKind::ReadOnlyFilesystem, "a check changes nothing"))
}

impl Disk for ReadOnlyDisk {
    fn create_dir(&self, _: &Path) -> std::io::Result<()> {
        read_only()
    }
    fn create(&self, _: &Path) -> std::io::Result<Box<dyn crate::disk::DiskFile>> {
        read_only()
    }
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn crate::disk::DiskFile>> {
        Ok(Box::new(ReadOnlyFile(std::fs::File::open(path)?)))
    }
    fn rename(&self, _: &Path, _: &Path) -> std::io::Result<()> {
        read_only()
    }
    fn remove(&self, _: &Path) -> std::io::Result<()> {
        read_only()
    }
    fn list(&self, path: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
        RealDisk.list(path)
    }
    fn sync_dir(&self, _: &Path) -> std::io::Result<()> {
        read_only()
    }
}

impl crate::disk::DiskFile for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        crate::disk::DiskFile::read_at(&self.0, buffer, offset)
    }
    fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
        read_only()
    }
    fn sync(&self) -> std::io::Result<()> {
        read_only()
    }
    /// What lies behind the committed length is what the next opening cuts off: not damage.
    fn set_len(&self, _: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn size(&self) -> std::io::Result<u64> {
        crate::disk::DiskFile::size(&self.0)
    }
    fn is_removed(&self) -> std::io::Result<bool> {
        Ok(false)
    }
    fn mappable(&self) -> Option<&std::fs::File> {
        Some(&self.0)
    }
}
