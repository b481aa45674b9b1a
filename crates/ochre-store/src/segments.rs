//! All segments of a database: which there are, which is written to, and where each vector lies.
//!
//! Invariants:
//! - At most one segment is not sealed: the one with the highest number among those appended to.
//! - What is appended becomes visible (`publish`) only after the catalog committed the new length; until
//!   then it can be taken back (`rollback`).
//! - Numbers are never used twice while a file of that number exists.
//! - The collection of a block is the number of the layer that it was written to: that of the collection itself, unless
//!   it was forked.
//!
//! Not here: the catalog rows (`sqlite`), the bytes of a file (`segment`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use crate::block::{Damage, VectorBlock};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::segment::{BlockEntry, HEADER_BYTES, NewBlock, Segment};
use crate::store::{CollectionNumber, Statistics};

/// A block holds at most this many bytes of vectors, so that verifying one on first touch stays cheap.
const BLOCK_BYTES_MAX: usize = 1 << 20;

/// A segment is not sealed early for fewer dead bytes than this.
const DEAD_BYTES_MIN: u64 = 1 << 20;

/// A segment as the catalog has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) number: u32,
    pub(crate) committed_bytes: u64,
    pub(crate) sealed: bool,
    pub(crate) dead_bytes: u64,
}

pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    map: bool,
    seal_bytes: u64,
    next_number: AtomicU32,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u32, File>,
    blocks: HashMap<CollectionNumber, Vec<Located>>,
    damage: Vec<Damage>,
}

struct File {
    segment: Arc<Segment>,
    row: SegmentRow,
    entries: Vec<BlockEntry>,
    /// Not all of it can be read: it stays as it is, and nothing is appended to it.
    unreadable: bool,
}

impl File {
    /// Whether it can be appended to.
    const fn is_open(&self) -> bool {
        !self.row.sealed && !self.unreadable
    }

    /// The share of its vectors that nothing refers to.
    fn dead_share(&self) -> f64 {
        let payload: u64 = self.entries.iter().map(BlockEntry::payload_bytes).sum();
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
        let share = self.row.dead_bytes as f64 / payload.max(1) as f64;
        share
    }
}

struct Located {
    entry: BlockEntry,
    segment: u32,
    cached: Weak<VectorBlock>,
}

/// A block, and what it takes to load it.
pub(crate) struct WantedBlock {
    entry: BlockEntry,
    number: u32,
    segment: Arc<Segment>,
    committed_bytes: u64,
    cached: Option<Arc<VectorBlock>>,
}

/// What an append or a rewrite did to the files, waiting for the catalog to commit it.
#[derive(Default)]
pub(crate) struct Pending {
    /// Rows to insert or replace in the catalog.
    pub(crate) rows: Vec<SegmentRow>,
    /// Numbers to remove from the catalog.
    pub(crate) removed: Vec<u32>,
    added: Vec<(u32, Vec<BlockEntry>)>,
    /// Existing files that were written behind their committed length.
    grown: Vec<(Arc<Segment>, u64)>,
    created: Vec<Arc<Segment>>,
    sealed: Vec<u32>,
    /// The transaction that rewritten blocks are for.
    transaction: u64,
    /// The appended blocks, in memory.
    pub(crate) blocks: Vec<Arc<VectorBlock>>,
}

/// The blocks of a group of requests, and how many of them belong to each request.
#[derive(Default)]
pub(crate) struct NewBlocks {
    pub(crate) blocks: Vec<NewBlock>,
    pub(crate) counts: Vec<usize>,
}

/// How many vectors of this dimension a block holds at most.
pub(crate) fn rows_per_block(dimension: usize) -> usize {
    (BLOCK_BYTES_MAX / (dimension * 4).max(1)).max(1)
}

/// Splits a batch of vectors into blocks of bounded size.
pub(crate) fn into_blocks(
    collection: CollectionNumber, dimension: usize, ids: &[u64], norms: &[f32], values: &[f32],
) -> Vec<NewBlock> {
    let rows = rows_per_block(dimension);
    ids.chunks(rows)
        .zip(norms.chunks(rows))
        .zip(values.chunks(rows * dimension))
        .map(|((ids, norms), values)| NewBlock {
            collection,
            dimension,
            ids: ids.to_vec(),
            norms: norms.to_vec(),
            values: values.to_vec(),
        })
        .collect()
}

impl Segments {
    /// Opens the segments of the catalog, and cuts each back to its committed length: what the caller made sure is no
    /// more than a crash leaves. Damaged ones are reported and left out, the rest works.
    pub(crate) fn open(
        disk: Arc<dyn Disk>, directory: PathBuf, map: bool, seal_bytes: u64, rows: &[SegmentRow],
    ) -> Result<Self> {
        disk.create_dir(&directory).map_err(|error| Error::io("create", &directory, &error))?;
        let next_number = AtomicU32::new(rows.iter().map(|row| row.number + 1).max().unwrap_or(1));
        let segments = Self { disk, directory, map, seal_bytes, next_number, state: RwLock::default() };
        {
            let mut state = segments.state.write();
            for row in rows {
                segments.open_file(&mut state, *row)?;
            }
        }
        Ok(segments)
    }

    fn open_file(&self, state: &mut State, row: SegmentRow) -> Result<()> {
        let opened = Segment::open(&self.disk, &self.directory, row.number, row.committed_bytes, row.sealed, self.map);
        let segment = match opened {
            Ok(segment) => Arc::new(segment),
            Err(Error::Corrupt { path, reason }) => {
                state.damage.push(Damage { path, reason });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let table = if row.sealed { segment.read_footer(row.committed_bytes).map(Some) } else { Ok(None) };
        let (entries, damage) = match table {
            Ok(Some(entries)) => (entries, None),
            Ok(None) => segment.scan(row.committed_bytes),
            Err(error) => {
                let damage = Damage { path: segment.path().to_owned(), reason: error.to_string() };
                (segment.scan(row.committed_bytes).0, Some(damage))
            }
        };
        let unreadable = damage.is_some();
        state.damage.extend(damage);
        add_blocks(state, row.number, &entries);
        state.files.insert(row.number, File { segment, row, entries, unreadable });
        Ok(())
    }

    /// Segments and blocks found damaged when the database was opened.
    pub(crate) fn damage(&self) -> Vec<Damage> {
        self.state.read().damage.clone()
    }

    /// Writes blocks for a transaction that is to be committed, and makes them durable. Nothing of it is visible before
    /// [`Segments::publish`].
    pub(crate) fn append(&self, blocks: Vec<NewBlock>, transaction: u64) -> Result<Pending> {
        let mut pending = Pending::default();
        let written = self.append_to(&mut pending, blocks, transaction);
        Self::keep_or_take_back(pending, written)
    }

    fn append_to(&self, pending: &mut Pending, blocks: Vec<NewBlock>, transaction: u64) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let active = {
            let state = self.state.read();
            state.files.values().find(|file| file.is_open()).map(|file| (Arc::clone(&file.segment), file.row))
        };
        let bytes: u64 = blocks.iter().map(|block| block.values.len() as u64 * 4).sum();
        let (segment, mut row) = match active {
            Some((segment, row)) if row.committed_bytes + bytes <= self.seal_bytes => {
                pending.grown.push((Arc::clone(&segment), row.committed_bytes));
                (segment, row)
            }
            active => {
                if let Some((segment, row)) = active {
                    self.write_seal(pending, &segment, row)?;
                }
                self.create(pending)?
            }
        };
        let mut entries = Vec::with_capacity(blocks.len());
        for block in blocks {
            let entry = segment.write_block(row.committed_bytes, &block, transaction)?;
            row.committed_bytes = entry.end();
            entries.push(entry);
            let owned = VectorBlock::owned(block.dimension, block.ids, block.norms, block.values);
            pending.blocks.push(Arc::new(owned));
        }
        segment.file.sync().map_err(|error| Error::io("sync", segment.path(), &error))?;
        self.refuse_if_removed(&segment)?;
        pending.rows.push(row);
        pending.added.push((row.number, entries));
        Ok(())
    }

    /// Refuses to go on with a file that has no name any more: what is in it would be lost with the process.
    fn refuse_if_removed(&self, segment: &Segment) -> Result<()> {
        match segment.file.is_removed() {
            Ok(false) => Ok(()),
            Ok(true) => Err(Error::Corrupt {
                path: segment.path().to_owned(),
                reason: "it was removed while the database is open: stop, put the folder back or restore a backup"
                    .into(),
            }),
            Err(error) => Err(Error::io("look at", segment.path(), &error)),
        }
    }

    /// Writes the table of the segment being appended to, if it holds at least `min_bytes`, or enough
    /// that is dead; `None` if there is nothing to seal.
    pub(crate) fn seal(&self, min_bytes: u64, dead_share_max: f64) -> Result<Option<Pending>> {
        let active = {
            let state = self.state.read();
            let unsealed = state.files.values().find(|file| file.is_open() && file.row.committed_bytes > HEADER_BYTES);
            let is_due = |file: &&File| {
                let is_dead = file.row.dead_bytes >= DEAD_BYTES_MIN && file.dead_share() > dead_share_max;
                is_dead || file.row.committed_bytes >= min_bytes
            };
            unsealed.filter(is_due).map(|file| (Arc::clone(&file.segment), file.row))
        };
        let Some((segment, row)) = active else { return Ok(None) };
        let mut pending = Pending::default();
        let written = self.write_seal(&mut pending, &segment, row);
        Self::keep_or_take_back(pending, written).map(Some)
    }

    fn write_seal(&self, pending: &mut Pending, segment: &Arc<Segment>, mut row: SegmentRow) -> Result<()> {
        pending.grown.push((Arc::clone(segment), row.committed_bytes));
        pending.sealed.push(row.number);
        let entries = self.state.read().files[&row.number].entries.clone();
        row.committed_bytes = segment.write_footer(row.committed_bytes, &entries)?;
        row.sealed = true;
        segment.file.sync().map_err(|error| Error::io("sync", segment.path(), &error))?;
        self.refuse_if_removed(segment)?;
        pending.rows.push(row);
        Ok(())
    }

    fn create(&self, pending: &mut Pending) -> Result<(Arc<Segment>, SegmentRow)> {
        let mut number = self.next_number.fetch_add(1, Ordering::Relaxed);
        // What somebody else put there is left alone.
        while Segment::path_in(&self.directory, number).exists() {
            number = self.next_number.fetch_add(1, Ordering::Relaxed);
        }
        let segment = Arc::new(Segment::create(&self.disk, &self.directory, number).map_err(|error| {
            if self.directory.is_dir() {
                return error;
            }
            let reason = "the folder was removed while the database is open: stop, put it back or restore a backup";
            Error::Corrupt { path: self.directory.clone(), reason: reason.into() }
        })?);
        pending.created.push(Arc::clone(&segment));
        self.disk.sync_dir(&self.directory).map_err(|error| Error::io("sync", &self.directory, &error))?;
        Ok((segment, SegmentRow { number, committed_bytes: HEADER_BYTES, sealed: false, dead_bytes: 0 }))
    }

    fn keep_or_take_back(pending: Pending, written: Result<()>) -> Result<Pending> {
        match written {
            Ok(()) => Ok(pending),
            Err(error) => {
                Self::rollback(pending);
                Err(error)
            }
        }
    }

    /// Undoes a pending change: files go back to their committed length, new ones go. What cannot be
    /// undone now is undone by the next opening. Only for what certainly was not committed: after a failed
    /// commit the store is reopened instead.
    pub(crate) fn rollback(pending: Pending) {
        for segment in pending.created {
            segment.remove_when_unused();
        }
        for (segment, committed) in pending.grown {
            let _ = segment.file.set_len(committed);
        }
    }

    /// Makes a pending change visible; call it after the catalog committed it. The collections whose
    /// vectors lie elsewhere now are returned.
    pub(crate) fn publish(&self, pending: Pending) -> Vec<CollectionNumber> {
        let mut state = self.state.write();
        for segment in pending.created {
            let row =
                SegmentRow { number: segment.number, committed_bytes: HEADER_BYTES, sealed: false, dead_bytes: 0 };
            state.files.insert(segment.number, File { segment, row, entries: Vec::new(), unreadable: false });
        }
        for row in pending.rows {
            if let Some(file) = state.files.get_mut(&row.number) {
                file.row = row;
            }
        }
        let mut appended = pending.blocks.into_iter();
        for (number, entries) in pending.added {
            add_blocks(&mut state, number, &entries);
            for entry in &entries {
                if let (Some(block), Some(blocks)) = (appended.next(), state.blocks.get_mut(&entry.collection))
                    && let Some(located) = blocks.iter_mut().rev().find(|located| located.entry == *entry)
                {
                    located.cached = Arc::downgrade(&block);
                }
            }
            if let Some(file) = state.files.get_mut(&number) {
                file.entries.extend(entries);
            }
        }
        let mut moved = BTreeSet::new();
        for number in pending.sealed {
            let Some(row) = state.files.get(&number).map(|file| file.row) else { continue };
            let opened = Segment::open(&self.disk, &self.directory, number, row.committed_bytes, true, self.map);
            // If it cannot be mapped now it stays readable through the file.
            if let (Ok(segment), Some(file)) = (opened, state.files.get_mut(&number)) {
                file.segment = Arc::new(segment);
            }
            moved.extend(forget_cached(&mut state, number));
        }
        for number in pending.removed {
            if let Some(file) = state.files.remove(&number) {
                file.segment.remove_when_unused();
            }
            for (collection, blocks) in &mut state.blocks {
                let before = blocks.len();
                blocks.retain(|located| located.segment != number);
                if blocks.len() != before {
                    moved.insert(*collection);
                }
            }
        }
        state.blocks.retain(|_, blocks| !blocks.is_empty());
        moved.into_iter().collect()
    }

    /// All blocks of a collection, as they are now; to be loaded.
    pub(crate) fn find_blocks(&self, collection: CollectionNumber) -> Vec<WantedBlock> {
        self.wanted(collection, |blocks| 0..blocks.len())
    }

    /// These blocks of a collection. What of them was moved meanwhile is read from where it was.
    pub(crate) fn load_blocks(&self, collection: CollectionNumber, wanted: &[WantedBlock]) -> Vec<Arc<VectorBlock>> {
        let mut found = Vec::new();
        for wanted in wanted {
            match self.load(collection, wanted) {
                Ok(block) => found.push(block),
                Err(damage) => found.extend(lost(&wanted.entry, damage)),
            }
        }
        found
    }

    /// Whether the vector of this id has exactly these bits; `None` if it cannot be read.
    pub(crate) fn vector_equals(&self, collection: CollectionNumber, id: u64, vector: &[f32]) -> Option<bool> {
        // Blocks hold ranges of ids that do not overlap.
        let holder = |blocks: &[Located]| {
            let end = blocks.partition_point(|located| located.entry.first_id <= id);
            end.saturating_sub(1)..end
        };
        let wanted = self.wanted(collection, holder).pop()?;
        let block = self.load(collection, &wanted).ok()?;
        let row = block.row(block.ids().binary_search(&id).ok()?).ok()?;
        let same = row.iter().zip(vector).all(|(a, b)| a.to_bits() == b.to_bits());
        Some(row.len() == vector.len() && same)
    }

    /// Blocks of a collection as they are now, with what it takes to load them: those in a range of all of them, which
    /// are sorted by first id.
    fn wanted(&self, collection: CollectionNumber, range: impl FnOnce(&[Located]) -> Range<usize>) -> Vec<WantedBlock> {
        let state = self.state.read();
        let Some(blocks) = state.blocks.get(&collection) else { return Vec::new() };
        let of = |located: &Located| {
            let file = state.files.get(&located.segment)?;
            Some(WantedBlock {
                entry: located.entry,
                number: located.segment,
                segment: Arc::clone(&file.segment),
                committed_bytes: file.row.committed_bytes,
                cached: located.cached.upgrade(),
            })
        };
        blocks[range(blocks)].iter().filter_map(of).collect()
    }

    /// Loads a block, if nobody has it. No lock is held while it is read and verified.
    fn load(&self, collection: CollectionNumber, wanted: &WantedBlock) -> Result<Arc<VectorBlock>, Damage> {
        if let Some(block) = &wanted.cached {
            return Ok(Arc::clone(block));
        }
        let block = Arc::new(wanted.segment.load_block(&wanted.entry, wanted.committed_bytes)?);
        let mut state = self.state.write();
        let State { files, blocks, .. } = &mut *state;
        // The file may have been sealed meanwhile: then it is mapped, and this block lies on the heap.
        let is_same_file = files.get(&wanted.number).is_some_and(|file| Arc::ptr_eq(&file.segment, &wanted.segment));
        let Some(blocks) = blocks.get_mut(&collection).filter(|_| is_same_file) else { return Ok(block) };
        let first_id = wanted.entry.first_id;
        let start = blocks.partition_point(|located| located.entry.first_id < first_id);
        let same_start = blocks[start..].iter_mut().take_while(|located| located.entry.first_id == first_id);
        // It may have been moved, or loaded by somebody else.
        if let Some(located) = { same_start }.find(|located| located.segment == wanted.number) {
            if let Some(theirs) = located.cached.upgrade() {
                return Ok(theirs);
            }
            located.cached = Arc::downgrade(&block);
        }
        Ok(block)
    }

    /// How many bytes of each segment these vectors take, for counting them as dead.
    pub(crate) fn dead_bytes_of(&self, collection: CollectionNumber, ids: &[u64]) -> BTreeMap<u32, u64> {
        let state = self.state.read();
        let mut weight = BTreeMap::new();
        let Some(blocks) = state.blocks.get(&collection) else { return weight };
        for id in ids {
            let end = blocks.partition_point(|located| located.entry.first_id <= *id);
            // Blocks hold ranges of ids that do not overlap.
            if let Some(located) = end.checked_sub(1).map(|at| &blocks[at]).filter(|at| at.entry.last_id >= *id) {
                *weight.entry(located.segment).or_default() += u64::from(located.entry.dimension) * 4;
            }
        }
        weight
    }

    /// How many bytes of each segment all blocks of a number take.
    pub(crate) fn weigh(&self, collection: CollectionNumber) -> BTreeMap<u32, u64> {
        let mut weight = BTreeMap::new();
        for located in self.state.read().blocks.get(&collection).into_iter().flatten() {
            *weight.entry(located.segment).or_default() += located.entry.payload_bytes();
        }
        weight
    }

    /// Counts bytes as dead, after the catalog committed the count.
    pub(crate) fn add_dead_bytes(&self, weight: &BTreeMap<u32, u64>) {
        let mut state = self.state.write();
        for (number, bytes) in weight {
            if let Some(file) = state.files.get_mut(number) {
                file.row.dead_bytes += bytes;
            }
        }
    }

    /// How many bytes of a segment are counted as dead.
    pub(crate) fn dead_bytes(&self, number: u32) -> u64 {
        self.state.read().files.get(&number).map_or(0, |file| file.row.dead_bytes)
    }

    /// The sealed segment with the largest dead share above the limit.
    pub(crate) fn most_dead(&self, dead_share_max: f64) -> Option<SegmentRow> {
        let state = self.state.read();
        let files = state.files.values().filter(|file| file.row.sealed && !file.unreadable);
        let dead = files.map(|file| (file.dead_share(), file.row)).filter(|(share, _)| *share > dead_share_max);
        dead.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, row)| row)
    }

    /// Copies the live vectors of a segment into a new, sealed one, regrouped by collection, and makes it
    /// durable. `live` says which of a collection's vectors are referenced, ascending. `None` if the
    /// segment has damage, and so must stay as it is.
    pub(crate) fn rewrite(
        &self, number: u32, transaction: u64, live: &mut dyn FnMut(CollectionNumber) -> Result<Vec<u64>>,
    ) -> Result<Option<Pending>> {
        let (segment, row, entries) = {
            let state = self.state.read();
            let Some(file) = state.files.get(&number) else { return Ok(None) };
            (Arc::clone(&file.segment), file.row, file.entries.clone())
        };
        let mut pending = Pending { removed: vec![number], transaction, ..Pending::default() };
        let written = self.rewrite_into(&mut pending, &segment, row, &entries, live);
        match written {
            Ok(true) => Ok(Some(pending)),
            Ok(false) => {
                Self::rollback(pending);
                if let Some(file) = self.state.write().files.get_mut(&number) {
                    file.unreadable = true;
                }
                Ok(None)
            }
            Err(error) => {
                Self::rollback(pending);
                Err(error)
            }
        }
    }

    fn rewrite_into(
        &self, pending: &mut Pending, segment: &Arc<Segment>, row: SegmentRow, entries: &[BlockEntry],
        live: &mut dyn FnMut(CollectionNumber) -> Result<Vec<u64>>,
    ) -> Result<bool> {
        let mut by_collection: BTreeMap<CollectionNumber, Vec<BlockEntry>> = BTreeMap::new();
        for entry in entries {
            by_collection.entry(entry.collection).or_default().push(*entry);
        }
        let mut target: Option<(Arc<Segment>, SegmentRow, Vec<BlockEntry>)> = None;
        for (collection, mut entries) in by_collection {
            let live = live(collection)?;
            entries.sort_by_key(|entry| entry.first_id);
            let mut writer = BlockWriter::new(collection);
            for entry in &entries {
                let Ok(block) = segment.load_block(entry, row.committed_bytes) else { return Ok(false) };
                for (index, id) in block.ids().iter().enumerate() {
                    if live.binary_search(id).is_ok() {
                        let Ok(vector) = block.row(index) else { return Ok(false) };
                        if let Some(full) = writer.push(*id, block.norms()[index], vector) {
                            self.write_to(&mut target, pending, &full)?;
                        }
                    }
                }
            }
            if let Some(rest) = writer.finish() {
                self.write_to(&mut target, pending, &rest)?;
            }
        }
        if let Some((segment, mut row, entries)) = target {
            row.committed_bytes = segment.write_footer(row.committed_bytes, &entries)?;
            row.sealed = true;
            segment.file.sync().map_err(|error| Error::io("sync", segment.path(), &error))?;
            self.refuse_if_removed(&segment)?;
            pending.sealed.push(row.number);
            pending.rows.push(row);
            pending.added.push((row.number, entries));
        }
        Ok(true)
    }

    fn write_to(
        &self, target: &mut Option<(Arc<Segment>, SegmentRow, Vec<BlockEntry>)>, pending: &mut Pending,
        block: &NewBlock,
    ) -> Result<()> {
        let (segment, row, entries) = match target {
            Some(target) => target,
            None => {
                let (segment, row) = self.create(pending)?;
                target.insert((segment, row, Vec::new()))
            }
        };
        let entry = segment.write_block(row.committed_bytes, block, pending.transaction)?;
        row.committed_bytes = entry.end();
        entries.push(entry);
        Ok(())
    }

    /// What the segments are, in sizes; the rest is left at its default.
    pub(crate) fn sizes(&self) -> Statistics {
        let state = self.state.read();
        let mut sizes = Statistics::default();
        for file in state.files.values() {
            sizes.segment_bytes += file.row.committed_bytes;
            sizes.dead_vector_bytes += file.row.dead_bytes;
            sizes.segment_count += 1;
            if file.is_open() {
                sizes.open_segment_bytes = file.row.committed_bytes;
                sizes.open_segment_dead_bytes = file.row.dead_bytes;
            } else if !file.unreadable && file.dead_share() > sizes.most_dead_share {
                (sizes.most_dead_share, sizes.most_dead_bytes) = (file.dead_share(), file.row.dead_bytes);
            }
        }
        sizes
    }

    /// Lets go of the mapped pages of all segments.
    pub(crate) fn drop_pages(&self) {
        self.state.read().files.values().for_each(|file| file.segment.drop_pages());
    }

    /// Forgets everything and reads it again as `rows` say, after a storage failure.
    pub(crate) fn reopen(&self, rows: &[SegmentRow]) -> Result<()> {
        let mut state = self.state.write();
        *state = State::default();
        rows.iter().try_for_each(|row| self.open_file(&mut state, *row))
    }
}

/// Gathers vectors into blocks of bounded size.
struct BlockWriter {
    block: NewBlock,
}

impl BlockWriter {
    fn new(collection: CollectionNumber) -> Self {
        let block = NewBlock { collection, dimension: 0, ids: Vec::new(), norms: Vec::new(), values: Vec::new() };
        Self { block }
    }

    /// Adds a vector; the block before it, if that is full.
    fn push(&mut self, id: u64, norm: f32, vector: &[f32]) -> Option<NewBlock> {
        let full = self.block.values.len() * 4 + vector.len() * 4 > BLOCK_BYTES_MAX;
        let done = if full { self.finish() } else { None };
        self.block.dimension = vector.len();
        self.block.ids.push(id);
        self.block.norms.push(norm);
        self.block.values.extend_from_slice(vector);
        done
    }

    fn finish(&mut self) -> Option<NewBlock> {
        if self.block.ids.is_empty() {
            return None;
        }
        let next = Self::new(self.block.collection).block;
        Some(std::mem::replace(&mut self.block, next))
    }
}

/// Adds a file's blocks to the directory, each collection's kept sorted by first id.
fn add_blocks(state: &mut State, segment: u32, entries: &[BlockEntry]) {
    for entry in entries {
        let blocks = state.blocks.entry(entry.collection).or_default();
        let at = blocks.partition_point(|located| located.entry.first_id <= entry.first_id);
        blocks.insert(at, Located { entry: *entry, segment, cached: Weak::new() });
    }
}

/// Makes the next fetch of a file's blocks load them again; the collections they belong to.
fn forget_cached(state: &mut State, segment: u32) -> BTreeSet<CollectionNumber> {
    let mut moved = BTreeSet::new();
    for (collection, blocks) in &mut state.blocks {
        for located in blocks.iter_mut().filter(|located| located.segment == segment) {
            located.cached = Weak::new();
            moved.insert(*collection);
        }
    }
    moved
}

/// Stands in for a block whose header is damaged: every id it may have held leads to the damage.
fn lost(entry: &BlockEntry, damage: Damage) -> Option<Arc<VectorBlock>> {
    /// Beyond this the range says too little about what was in the block.
    const RANGE_MAX: u64 = 1 << 20;
    let ids: Vec<u64> =
        (entry.last_id - entry.first_id < RANGE_MAX).then(|| (entry.first_id..=entry.last_id).collect())?;
    let norms = vec![0.0; ids.len()];
    Some(Arc::new(VectorBlock::lost(entry.dimension as usize, ids, norms, damage)))
}
