//! One segment file: blocks of vectors one after another, and a table of them once it is sealed.
//!
//! The bytes are described in `docs/formats/segments.md`. Invariants:
//! - A block's payload starts at a multiple of 64 bytes; its header and entries have a checksum of their
//!   own, so that ids are readable where vectors are not.
//! - Bytes past the committed length (which the catalog keeps) do not exist: opening cuts them off.
//! - A sealed file is never written again.
//!
//! Not here: which segments there are and which is written to (`segments`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::block::{Damage, VectorBlock};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::store::CollectionNumber;

/// The version of the segment format.
pub const SEGMENT_VERSION: u32 = 1;

pub(crate) const ALIGNMENT: u64 = 64;
/// The file header, every block header and the trailer have this size, in bytes.
pub(crate) const HEADER_BYTES: u64 = 64;
const ENTRY_BYTES: u64 = 16;
const FOOTER_ENTRY_BYTES: usize = 40;
const FILE_MAGIC: [u8; 8] = *b"OCHRESEG";
const BLOCK_MAGIC: [u8; 4] = *b"OBLK";
const TRAILER_MAGIC: [u8; 8] = *b"OCHREEND";

/// An open segment file.
pub(crate) struct Segment {
    pub(crate) number: u32,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    pub(crate) file: Box<dyn DiskFile>,
    mapping: Option<Mapping>,
    remove_on_drop: AtomicBool,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({})", self.path.display())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.remove_on_drop.load(Ordering::Relaxed) {
            // If this fails the file is an orphan, which the next opening removes.
            let _ = self.disk.remove(&self.path);
        }
    }
}

/// Where a block lies and what it holds; enough to find a vector without reading the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub(crate) offset: u64,
    pub(crate) collection: CollectionNumber,
    pub(crate) count: u32,
    pub(crate) dimension: u32,
    pub(crate) first_id: u64,
    pub(crate) last_id: u64,
}

/// A block that was found behind what the catalog knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uncommitted {
    /// The transaction that it was appended for; 0 in files that do not say.
    pub(crate) transaction: u64,
    pub(crate) last_id: u64,
}

impl BlockEntry {
    pub(crate) const fn entries_end(&self) -> u64 {
        self.offset + HEADER_BYTES + self.count as u64 * ENTRY_BYTES
    }

    pub(crate) const fn payload_start(&self) -> u64 {
        self.entries_end().next_multiple_of(ALIGNMENT)
    }

    pub(crate) const fn payload_bytes(&self) -> u64 {
        self.count as u64 * self.dimension as u64 * 4
    }

    pub(crate) const fn end(&self) -> u64 {
        (self.payload_start() + self.payload_bytes()).next_multiple_of(ALIGNMENT)
    }
}

/// A block that is about to be appended.
#[derive(Debug)]
pub(crate) struct NewBlock {
    pub(crate) collection: CollectionNumber,
    pub(crate) dimension: usize,
    pub(crate) ids: Vec<u64>,
    pub(crate) norms: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

/// A block's header and entries as read back.
struct BlockHead {
    entry: BlockEntry,
    payload_checksum: u32,
    transaction: u64,
    ids: Vec<u64>,
    norms: Vec<f32>,
}

impl Segment {
    pub(crate) fn path_in(directory: &Path, number: u32) -> PathBuf {
        directory.join(format!("{number:08}.seg"))
    }

    /// Makes an empty segment file with its header, not yet synced.
    pub(crate) fn create(disk: &Arc<dyn Disk>, directory: &Path, number: u32) -> Result<Self> {
        let path = Self::path_in(directory, number);
        let file = disk.create(&path).map_err(|error| Error::io("create", &path, &error))?;
        let mut header = [0u8; HEADER_BYTES as usize];
        header[..8].copy_from_slice(&FILE_MAGIC);
        header[8..12].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&number.to_le_bytes());
        seal_checksum(&mut header);
        file.write_at(&header, 0).map_err(|error| {
            // Nobody knows of it.
            let _ = disk.remove(&path);
            Error::io("write", &path, &error)
        })?;
        Ok(Self { number, path, disk: Arc::clone(disk), file, mapping: None, remove_on_drop: AtomicBool::new(false) })
    }

    /// Opens a segment, cuts it back to its committed length, and maps it if it is sealed.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>, directory: &Path, number: u32, committed: u64, sealed: bool, map: bool,
    ) -> Result<Self> {
        let path = Self::path_in(directory, number);
        let io = |action, error: &std::io::Error| Error::io(action, &path, error);
        let corrupt = |reason: String| Error::Corrupt { path: path.clone(), reason };
        let file = disk.open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => corrupt("the file is missing".into()),
            _ => io("open", &error),
        })?;
        let len = file.size().map_err(|error| io("measure", &error))?;
        if len < committed {
            return Err(corrupt(format!("{len} bytes long, but {committed} bytes were committed")));
        }
        if len > committed {
            file.set_len(committed).map_err(|error| io("cut", &error))?;
        }
        let mut header = [0u8; HEADER_BYTES as usize];
        file.read_at(&mut header, 0).map_err(|error| io("read", &error))?;
        if header[..8] != FILE_MAGIC || !checksum_holds(&header) {
            return Err(corrupt("the file header does not match its checksum".into()));
        }
        let version = u32_at(&header, 8);
        if version > SEGMENT_VERSION {
            return Err(Error::TooNew { path, found: version.into(), supported: SEGMENT_VERSION.into() });
        }
        if u32_at(&header, 12) != number {
            return Err(corrupt(format!("the header says it is segment {}", u32_at(&header, 12))));
        }
        let mapping = match (sealed && map, file.mappable()) {
            (true, Some(file)) => Some(Mapping::new(file).map_err(|error| io("map", &error))?),
            _ => None,
        };
        Ok(Self { number, path, disk: Arc::clone(disk), file, mapping, remove_on_drop: AtomicBool::new(false) })
    }

    /// Lets go of the mapped pages.
    pub(crate) fn drop_pages(&self) {
        if let Some(mapping) = &self.mapping {
            mapping.drop_pages();
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the file go with its last reader.
    pub(crate) fn remove_when_unused(&self) {
        self.remove_on_drop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn mapped_bytes(&self, start: usize, len: usize) -> &[u8] {
        let mapping = self.mapping.as_ref().expect("blocks of a segment that is not mapped own their rows");
        &mapping.bytes()[start..start + len]
    }

    /// Writes a block at `offset`, for a transaction that is to be committed, without a sync; where it lies.
    pub(crate) fn write_block(&self, offset: u64, block: &NewBlock, transaction: u64) -> Result<BlockEntry> {
        let count = u32::try_from(block.ids.len()).expect("a block holds less than 2³² vectors");
        let entry = BlockEntry {
            offset,
            collection: block.collection,
            count,
            dimension: u32::try_from(block.dimension).expect("a dimension fits u32"),
            first_id: *block.ids.first().expect("a block holds vectors"),
            last_id: *block.ids.last().expect("a block holds vectors"),
        };
        let payload: &[u8] = bytemuck::cast_slice(&block.values);
        let mut head = vec![0u8; usize::try_from(entry.payload_start() - offset).expect("a header fits memory")];
        head[..4].copy_from_slice(&BLOCK_MAGIC);
        head[4..8].copy_from_slice(&block.collection.to_le_bytes());
        head[8..12].copy_from_slice(&count.to_le_bytes());
        head[12..16].copy_from_slice(&entry.dimension.to_le_bytes());
        head[16..20].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        head[20..28].copy_from_slice(&transaction.to_le_bytes());
        for (index, (id, norm)) in block.ids.iter().zip(&block.norms).enumerate() {
            let at = HEADER_BYTES as usize + index * ENTRY_BYTES as usize;
            head[at..at + 8].copy_from_slice(&id.to_le_bytes());
            head[at + 8..at + 12].copy_from_slice(&norm.to_le_bytes());
        }
        let checksum = block_head_checksum(&head);
        head[60..64].copy_from_slice(&checksum.to_le_bytes());
        let io = |error: std::io::Error| Error::io("write", &self.path, &error);
        self.file.write_at(&head, offset).map_err(io)?;
        self.file.write_at(payload, entry.payload_start()).map_err(io)?;
        let padding = usize::try_from(entry.end() - entry.payload_start() - entry.payload_bytes()).unwrap_or(0);
        if padding > 0 {
            self.file.write_at(&vec![0; padding], entry.payload_start() + entry.payload_bytes()).map_err(io)?;
        }
        Ok(entry)
    }

    /// Writes the table of blocks behind the last one, without a sync; the file's new length.
    pub(crate) fn write_footer(&self, offset: u64, entries: &[BlockEntry]) -> Result<u64> {
        let mut bytes = Vec::with_capacity(entries.len() * FOOTER_ENTRY_BYTES + 128);
        for entry in entries {
            bytes.extend_from_slice(&entry.offset.to_le_bytes());
            bytes.extend_from_slice(&entry.collection.to_le_bytes());
            bytes.extend_from_slice(&entry.count.to_le_bytes());
            bytes.extend_from_slice(&entry.dimension.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&entry.first_id.to_le_bytes());
            bytes.extend_from_slice(&entry.last_id.to_le_bytes());
        }
        let table_checksum = crc32c::crc32c(&bytes);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        let mut trailer = [0u8; HEADER_BYTES as usize];
        trailer[..8].copy_from_slice(&TRAILER_MAGIC);
        trailer[8..16].copy_from_slice(&offset.to_le_bytes());
        trailer[16..24].copy_from_slice(&(entries.len() as u64).to_le_bytes());
        trailer[24..28].copy_from_slice(&table_checksum.to_le_bytes());
        seal_checksum(&mut trailer);
        bytes.extend_from_slice(&trailer);
        self.file.write_at(&bytes, offset).map_err(|error| Error::io("write", &self.path, &error))?;
        Ok(offset + bytes.len() as u64)
    }

    /// The table of blocks of a sealed segment; an error if it is damaged.
    pub(crate) fn read_footer(&self, committed: u64) -> Result<Vec<BlockEntry>> {
        let mut trailer = [0u8; HEADER_BYTES as usize];
        let trailer_at =
            committed.checked_sub(HEADER_BYTES).ok_or_else(|| self.corrupt("too short for a trailer".into()))?;
        self.read(&mut trailer, trailer_at)?;
        if trailer[..8] != TRAILER_MAGIC || !checksum_holds(&trailer) {
            return Err(self.corrupt("the trailer does not match its checksum".into()));
        }
        let (start, count) = (u64_at(&trailer, 8), u64_at(&trailer, 16));
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(FOOTER_ENTRY_BYTES));
        let bytes = bytes.filter(|bytes| start.checked_add(*bytes as u64).is_some_and(|end| end <= trailer_at));
        let mut table = vec![0u8; bytes.ok_or_else(|| self.corrupt("the trailer points outside the file".into()))?];
        self.read(&mut table, start)?;
        if crc32c::crc32c(&table) != u32_at(&trailer, 24) {
            return Err(self.corrupt("the table of blocks does not match its checksum".into()));
        }
        Ok(table
            .chunks_exact(FOOTER_ENTRY_BYTES)
            .map(|bytes| BlockEntry {
                offset: u64_at(bytes, 0),
                collection: u32_at(bytes, 8),
                count: u32_at(bytes, 12),
                dimension: u32_at(bytes, 16),
                first_id: u64_at(bytes, 24),
                last_id: u64_at(bytes, 32),
            })
            .collect())
    }

    /// The blocks found by hopping from header to header, up to `end`, and the first damage if there is
    /// any: what follows it cannot be found.
    pub(crate) fn scan(&self, end: u64) -> (Vec<BlockEntry>, Option<Damage>) {
        let mut entries = Vec::new();
        let mut offset = HEADER_BYTES;
        while offset < end {
            match self.read_head(offset, end) {
                Ok(head) => {
                    offset = head.entry.end();
                    entries.push(head.entry);
                }
                Err(damage) => return (entries, Some(damage)),
            }
        }
        (entries, None)
    }

    /// The blocks that lie behind what the catalog knows of, as far as they are whole.
    pub(crate) fn uncommitted(disk: &dyn Disk, path: &Path, committed: u64) -> Result<Vec<Uncommitted>> {
        let io = |error: std::io::Error| Error::io("read", path, &error);
        let file = disk.open(path).map_err(io)?;
        let end = file.size().map_err(io)?;
        let (mut found, mut offset) = (Vec::new(), committed.max(HEADER_BYTES));
        while offset < end {
            match read_head(&*file, path, offset, end) {
                Ok(head) => {
                    offset = head.entry.end();
                    found.push(Uncommitted { transaction: head.transaction, last_id: head.entry.last_id });
                }
                // What was being written when the process ended.
                Err(_) => break,
            }
        }
        Ok(found)
    }

    /// Loads a block: its ids and norms, and its rows unless they are mapped.
    ///
    /// # Errors
    /// [`Damage`] if the header or the entries do not match their checksum; damaged rows are reported
    /// when they are read.
    pub(crate) fn load_block(self: &Arc<Self>, entry: &BlockEntry, end: u64) -> Result<VectorBlock, Damage> {
        let head = self.read_head(entry.offset, end)?;
        if head.entry != *entry {
            return Err(self.damage(format!("the block at byte {} is not the one in the table", entry.offset)));
        }
        let dimension = entry.dimension as usize;
        if self.mapping.is_some() {
            let start = usize::try_from(entry.payload_start()).expect("a mapped file fits memory");
            let segment = Arc::clone(self);
            return Ok(VectorBlock::mapped(dimension, head.ids, head.norms, segment, start, head.payload_checksum));
        }
        let mut values = vec![0f32; entry.count as usize * dimension];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        let read = self.file.read_at(bytes, entry.payload_start());
        let reason = match read {
            Ok(()) if crc32c::crc32c(bytes) == head.payload_checksum => {
                return Ok(VectorBlock::owned(dimension, head.ids, head.norms, values));
            }
            Ok(()) => format!("the vectors at byte {} do not match their checksum", entry.payload_start()),
            Err(error) => format!("the vectors at byte {} cannot be read: {error}", entry.payload_start()),
        };
        Ok(VectorBlock::lost(dimension, head.ids, head.norms, self.damage(reason)))
    }

    fn read_head(&self, offset: u64, end: u64) -> Result<BlockHead, Damage> {
        read_head(&*self.file, &self.path, offset, end)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_at(buffer, offset).map_err(|error| Error::io("read", &self.path, &error))
    }

    fn corrupt(&self, reason: String) -> Error {
        Error::Corrupt { path: self.path.clone(), reason }
    }

    fn damage(&self, reason: String) -> Damage {
        Damage { path: self.path.clone(), reason }
    }
}

/// The head of the block at `offset`, of a file whose blocks end before `end`.
fn read_head(file: &dyn DiskFile, path: &Path, offset: u64, end: u64) -> Result<BlockHead, Damage> {
    let damage = |reason: String| Damage { path: path.to_owned(), reason };
    let bad = |what: &str| damage(format!("the block at byte {offset} {what}"));
    let mut header = [0u8; HEADER_BYTES as usize];
    if offset + HEADER_BYTES > end {
        return Err(bad("runs past the end of the file"));
    }
    let unreadable = |error: std::io::Error| damage(format!("the block at byte {offset} cannot be read: {error}"));
    file.read_at(&mut header, offset).map_err(unreadable)?;
    if header[..4] != BLOCK_MAGIC {
        return Err(bad("has no block header"));
    }
    let (count, dimension) = (u32_at(&header, 8), u32_at(&header, 12));
    let mut entry = BlockEntry { offset, collection: u32_at(&header, 4), count, dimension, first_id: 0, last_id: 0 };
    let fits = u64::from(count).checked_mul(u64::from(dimension)).is_some_and(|n| n < 1 << 40) && entry.end() <= end;
    if count == 0 || !fits {
        return Err(bad("runs past the end of the file"));
    }
    let mut head = vec![0u8; usize::try_from(entry.payload_start() - offset).expect("a header fits memory")];
    file.read_at(&mut head, offset).map_err(unreadable)?;
    if block_head_checksum(&head) != u32_at(&header, 60) {
        return Err(bad("has a header that does not match its checksum"));
    }
    let entries = head[HEADER_BYTES as usize..].chunks_exact(ENTRY_BYTES as usize).take(count as usize);
    let (ids, norms): (Vec<_>, Vec<_>) =
        entries.map(|bytes| (u64_at(bytes, 0), f32::from_bits(u32_at(bytes, 8)))).unzip();
    entry.first_id = ids[0];
    entry.last_id = ids[ids.len() - 1];
    let (payload_checksum, transaction) = (u32_at(&header, 16), u64_at(&header, 20));
    Ok(BlockHead { entry, payload_checksum, transaction, ids, norms })
}

/// The checksum of a block's header and entries; its own field counts as zero.
fn block_head_checksum(head: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&head[..60]);
    crc32c::crc32c_append(sum, &head[64..])
}

/// Puts the checksum of the first 60 bytes into the last four.
fn seal_checksum(header: &mut [u8; 64]) {
    let checksum = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum_holds(header: &[u8; 64]) -> bool {
    crc32c::crc32c(&header[..60]) == u32_at(header, 60)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
