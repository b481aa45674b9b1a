//! A graph as a file that is its memory: `docs/formats/snapshots.md`.
//!
//! A snapshot is only a shortcut. Whatever does not fit exactly (format, epoch, collection, parameters, sizes,
//! checksum of what is read at once) makes it worthless, and the graph is rebuilt. What is not read at once is
//! verified by [`verify_snapshot`] when there is time; until then damage can only make searches find less.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use ochre_kernels::{Region, Slab};
use ochre_model::Space;

use super::codes::{Codes, Quantization};
use super::links::Links;
use super::reorder::NodePermutation;
use super::{Capacity, Connectivity, Graph, GraphParameters, LEVEL_MAX, NO_ENTRY, level_of, upper_starts};

/// The version of the snapshot format.
pub const SNAPSHOT_VERSION: u32 = 5;
const MAGIC: [u8; 8] = *b"OCHREGRF";
/// Refuses sizes that no graph has before memory is reserved for them.
const NODES_MAX: u64 = (1 << 31) - 1;
/// Bytes of the head, before the mean and the lost nodes.
const HEAD: usize = 512;
/// Where the checksum of the preface stands in the head.
const CHECKSUM_AT: usize = 12;
/// What is mapped begins at a multiple of this.
const ALIGN: usize = 64;
/// Bytes that are read at once while a snapshot is verified.
const VERIFY_AT_ONCE: usize = 4 << 20;

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The database's epoch.
    pub epoch: u64,
    /// The collection's id.
    pub collection: [u8; 16],
    /// The position of the view it was made from; newer vectors are among the unindexed vectors after loading.
    pub position: u64,
}

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub enum SnapshotError {
    /// It is of something else, or its bytes contradict each other.
    Unusable(&'static str),
    /// It could not be read.
    Io(io::Error),
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unusable(why) => f.write_str(why),
            Self::Io(error) => error.fmt(f),
        }
    }
}

use SnapshotError::Unusable;

/// Passes bytes on and sums them up.
struct Summed<'a, W> {
    inner: &'a mut W,
    bytes: u64,
    checksum: u32,
}

impl<W: Write> Summed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// A part of the file: where it begins, how many of its bytes are used, and their checksum.
#[derive(Clone, Copy)]
struct Section {
    start: u64,
    used: u64,
    checksum: u32,
}

impl Section {
    const BYTES: usize = 20;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.used.to_le_bytes());
        bytes[16..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }
}

/// Writes the parts of a snapshot one after the other, each with room behind it that takes no disk where files
/// can have holes.
struct Parts<'a, W> {
    out: &'a mut W,
    at: u64,
    sections: Vec<Section>,
}

impl<W: Write + Seek> Parts<'_, W> {
    fn part(&mut self, reserved: usize, write: impl FnOnce(&mut Summed<'_, W>) -> io::Result<()>) -> io::Result<()> {
        self.out.seek(SeekFrom::Start(self.at))?;
        let mut summed = Summed { inner: &mut *self.out, bytes: 0, checksum: 0 };
        write(&mut summed)?;
        self.sections.push(Section { start: self.at, used: summed.bytes, checksum: summed.checksum });
        self.at += reserved.next_multiple_of(ALIGN) as u64;
        Ok(())
    }

    /// Each node's row of `width` elements, by new numbers.
    fn rows<T: bytemuck::Pod>(
        &mut self, capacity: usize, rows: &[T], width: usize, numbering: &NodePermutation,
    ) -> io::Result<()> {
        self.part(capacity * width * size_of::<T>(), |out| {
            numbering.rows(rows, width).try_for_each(|row| out.write(bytemuck::cast_slice(row)))
        })
    }
}

impl Graph {
    /// Writes the linked part of the graph, with room for `capacity` nodes, or for those there are if they are more,
    /// its nodes in the order that searches read them. No nodes may be added meanwhile, and
    /// [`Graph::search_weakly_linked_again`] comes first.
    ///
    /// # Errors
    /// Whatever `out` fails with.
    pub fn write_snapshot<W: Write + Seek>(
        &self, header: &SnapshotHeader, capacity: usize, out: &mut W,
    ) -> io::Result<()> {
        let (parameters, count) = (self.parameters, self.linked().len());
        let capacity = capacity.max(count);
        let starts = upper_starts(capacity, parameters.max_neighbors);
        let upper_lists = starts[capacity] as usize;
        let numbering = self.reordered(count);
        let lost = numbering.all_renamed(&self.reached.lock().not_known_to_be_found());
        let coding = self.codes.coding();
        let preface = preface_bytes(&coding, lost.len());
        let mut parts = Parts { out, at: preface as u64, sections: Vec::new() };
        self.write_codes(capacity, &numbering, &mut parts)?;
        parts.rows(capacity, self.nodes.as_slice(), 1, &numbering)?;
        parts.part(capacity * size_of::<u32>(), |out| out.write(bytemuck::cast_slice(&starts[..capacity])))?;
        // The lists of these levels, node after node.
        let mut row = Vec::new();
        let mut lists = |levels: fn(usize) -> RangeInclusive<usize>, out: &mut Summed<'_, W>| {
            numbering.old().try_for_each(|node| {
                row.clear();
                for level in levels(level_of(node as usize, parameters.max_neighbors)) {
                    let (table, list) = self.list(node, level);
                    table.row(list, |link| numbering.renamed(link), &mut row);
                }
                out.write(&row)
            })
        };
        parts.part(Links::bytes(capacity, self.lowest.length()), |out| lists(|_| 0..=0, out))?;
        parts.part(Links::bytes(upper_lists, self.upper.length()), |out| lists(|highest| 1..=highest, out))?;
        let Parts { out, at: end, sections } = parts;
        if out.seek(SeekFrom::End(0))? < end {
            out.seek(SeekFrom::Start(end - 1))?;
            out.write_all(&[0])?;
        }
        let (kind, error_stddev, mean) = match &coding {
            Quantization::Sq4(mean, error_stddev) => (2u32, *error_stddev, mean.as_slice()),
            Quantization::Sq8(mean, error_stddev) => (1, *error_stddev, mean.as_slice()),
            Quantization::FullPrecision => (0, 0.0, &[][..]),
        };
        let mut head = Vec::with_capacity(preface);
        head.extend(MAGIC);
        head.extend(SNAPSHOT_VERSION.to_le_bytes());
        head.extend(0u32.to_le_bytes());
        head.extend(header.epoch.to_le_bytes());
        head.extend(header.collection);
        head.extend(header.position.to_le_bytes());
        let GraphParameters { space, dimension, max_neighbors, ef_construction } = parameters;
        for number in [space as usize, dimension, max_neighbors, ef_construction] {
            head.extend(to_u32(number).to_le_bytes());
        }
        head.extend(kind.to_le_bytes());
        head.extend(error_stddev.to_le_bytes());
        head.extend(self.calibration().to_le_bytes());
        head.extend(to_u32(lost.len()).to_le_bytes());
        for number in
            [count as u64, capacity as u64, upper_lists as u64, numbering.renamed_entry(self.entry_below(count))]
        {
            head.extend(number.to_le_bytes());
        }
        head.extend(to_u32(sections.len()).to_le_bytes());
        sections.iter().for_each(|section| head.extend(section.to_bytes()));
        head.resize(HEAD, 0);
        head.extend(mean.iter().flat_map(|x| x.to_le_bytes()));
        head.extend(lost.iter().flat_map(|node| node.to_le_bytes()));
        head.resize(preface, 0);
        let checksum = crc32c::crc32c(&head);
        head[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&head)
    }

    fn write_codes<W: Write + Seek>(
        &self, capacity: usize, numbering: &NodePermutation, parts: &mut Parts<'_, W>,
    ) -> io::Result<()> {
        match &self.codes {
            Codes::Sq4(nibbles) => {
                parts.rows(capacity, nibbles.rows.as_slice(), nibbles.lines(), numbering)?;
                parts.rows(capacity, nibbles.extras.as_slice(), 1, numbering)?;
                parts.rows(capacity, nibbles.sums.as_slice(), 1, numbering)
            }
            Codes::Sq8(bytes) => {
                parts.rows(capacity, bytes.codes.as_slice(), self.parameters.dimension, numbering)?;
                parts.rows(capacity, bytes.extras.as_slice(), 1, numbering)
            }
            Codes::FullPrecision(floats) => {
                parts.rows(capacity, floats.values.as_slice(), self.parameters.dimension, numbering)
            }
        }
    }

    /// The entry point, or, if that is a node past the first `count`, whose linking was interrupted, the
    /// highest of those.
    fn entry_below(&self, count: usize) -> u64 {
        let entry = self.entry.load(Ordering::Acquire);
        if self.entry().is_none_or(|(_, node)| (node as usize) < count) {
            return entry;
        }
        let level = |node: usize| level_of(node, self.parameters.max_neighbors);
        let highest = (0..count).max_by_key(|node| (level(*node), std::cmp::Reverse(*node)));
        highest.map_or(NO_ENTRY, |node| (level(node) as u64) << 32 | node as u64)
    }

    /// A graph in the memory of its snapshot, if that is of this epoch and collection and was built with these
    /// parameters. Also says the position it was made at. Codes and links are not looked at.
    ///
    /// # Errors
    /// [`SnapshotError`] if anything does not fit: build the graph again.
    pub fn from_snapshot(
        epoch: u64, collection: [u8; 16], parameters: GraphParameters, mut memory: Region,
    ) -> Result<(Self, u64), SnapshotError> {
        if cfg!(target_endian = "big") {
            return Err(Unusable("it is laid out for another kind of processor"));
        }
        let mut next = |bytes: usize| memory.take(bytes).ok_or(Unusable("it is too short"));
        let mut preface = copy_of(&next(HEAD)?);
        let mut head = Head { bytes: &preface, at: 0 };
        if head.take::<8>() != MAGIC {
            return Err(Unusable("it is no graph snapshot"));
        }
        if head.u32() != SNAPSHOT_VERSION {
            return Err(Unusable("it has another format version"));
        }
        let checksum = head.u32();
        let (own_epoch, own_collection, position) = (head.u64(), head.take::<16>(), head.u64());
        let space = head.u32();
        let space = [Space::L2, Space::Cosine, Space::Ip].into_iter().find(|known| *known as u32 == space);
        let stored = GraphParameters {
            space: space.ok_or(Unusable("it names no known space"))?,
            dimension: head.u32() as usize,
            max_neighbors: head.u32() as usize,
            ef_construction: head.u32() as usize,
        };
        let (kind, error_stddev, calibration, lost) = (head.u32(), head.f32(), head.f32(), head.u32() as usize);
        let (count, capacity, upper_lists, entry) = (head.u64(), head.u64(), head.u64(), head.u64());
        if own_epoch != epoch || own_collection != collection {
            return Err(Unusable("it is of another epoch or collection"));
        }
        if stored != parameters {
            return Err(Unusable("it was built with other parameters"));
        }
        if count == 0 {
            return Err(Unusable("it has no nodes"));
        }
        if count > capacity || capacity > NODES_MAX || upper_lists > NODES_MAX || lost as u64 > count {
            return Err(Unusable("it claims more nodes than a graph has"));
        }
        let sections = head.sections().ok_or(Unusable("it names too many parts"))?;
        let mean_len = if kind == 0 { 0 } else { parameters.dimension };
        let rest = copy_of(&next((mean_len + lost) * 4)?);
        preface.extend(&rest);
        preface.resize(preface.len().next_multiple_of(ALIGN), 0);
        preface[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
        if crc32c::crc32c(&preface) != checksum {
            return Err(Unusable("its head does not match its checksum"));
        }
        let (words, _) = rest.as_chunks::<4>();
        let mean: Vec<f32> = words[..mean_len].iter().map(|x| f32::from_le_bytes(*x)).collect();
        let lost: Vec<u32> = words[mean_len..].iter().map(|x| u32::from_le_bytes(*x)).collect();
        let coding = quantization(kind, mean, error_stddev)?;
        let number = |number: u64| usize::try_from(number).map_err(|_| Unusable("it does not fit memory"));
        let room = Capacity { capacity: number(capacity)?, count: number(count)?, upper_lists: number(upper_lists)? };
        let graph = Self::allocate(parameters, coding, room, &mut |bytes| memory.take(bytes))
            .ok_or(Unusable("it is too short for its nodes"))?;
        // What every reader of the graph goes by is verified now.
        let [.., nodes, starts, _, _] = sections.as_slice() else { return Err(Unusable("it has too few parts")) };
        let is_sound = |section: &Section, bytes: &[u8]| {
            section.used == bytes.len() as u64 && section.checksum == crc32c::crc32c(bytes)
        };
        if !is_sound(nodes, bytemuck::cast_slice(graph.nodes.as_slice()))
            || !is_sound(starts, bytemuck::cast_slice(graph.upper_start.as_slice()))
            || lost.iter().any(|node| u64::from(*node) >= count)
        {
            return Err(Unusable("its nodes do not match their checksum"));
        }
        graph.set_calibration(calibration);
        graph.entry.store(entry, Ordering::Release);
        let entry_fits = graph.entry().is_none_or(|(level, node)| {
            u64::from(node) < count && level <= LEVEL_MAX && level_of(node as usize, parameters.max_neighbors) == level
        });
        if !entry_fits || !graph.has_entry() {
            return Err(Unusable("its entry point is no node of it"));
        }
        graph.set_reached(Connectivity::of_snapshot(room.count, lost));
        Ok((graph, position))
    }
}

fn quantization(kind: u32, mean: Vec<f32>, error_stddev: f32) -> Result<Quantization, SnapshotError> {
    match kind {
        2 => Ok(Quantization::Sq4(mean, error_stddev)),
        1 => Ok(Quantization::Sq8(mean, error_stddev)),
        0 => Ok(Quantization::FullPrecision),
        _ => Err(Unusable("it codes vectors in an unknown way")),
    }
}

/// Reads a whole snapshot and compares it with its checksums, a few megabytes at a time: `step` is asked before each
/// with the bytes read so far and all there are, and ends it with an error of its own.
///
/// # Errors
/// [`SnapshotError`] within the answer if it is damaged; outside of it whatever `step` says.
pub fn verify_snapshot<R: Read + Seek, E>(
    from: &mut R, step: &mut dyn FnMut(u64, u64) -> Result<(), E>,
) -> Result<Result<(), SnapshotError>, E> {
    let mut head = vec![0; HEAD];
    let read = from.seek(SeekFrom::End(0)).and_then(|end| {
        from.seek(SeekFrom::Start(0))?;
        from.read_exact(&mut head).map(|()| end)
    });
    let end = match read {
        Ok(end) => end,
        Err(error) => return Ok(Err(error.into())),
    };
    let Some(sections) = (Head { bytes: &head, at: SECTIONS_AT }).sections() else {
        return Ok(Err(Unusable("it names too many parts")));
    };
    let starts = sections.iter().map(|section| section.start).skip(1).chain([end]);
    let mut buffer = vec![0; VERIFY_AT_ONCE];
    for (section, next) in sections.iter().zip(starts) {
        let (mut at, mut checksum) = (section.start, 0);
        let used = section.start.saturating_add(section.used);
        if let Err(error) = from.seek(SeekFrom::Start(at)) {
            return Ok(Err(error.into()));
        }
        while at < next {
            step(at, end)?;
            let stop = if at < used { used.min(next) } else { next };
            let part = &mut buffer[..VERIFY_AT_ONCE.min(usize::try_from(stop - at).unwrap_or(usize::MAX))];
            if let Err(error) = from.read_exact(part) {
                return Ok(Err(error.into()));
            }
            if at < used {
                checksum = crc32c::crc32c_append(checksum, part);
            } else if part.iter().any(|byte| *byte != 0) {
                return Ok(Err(Unusable("there is something where there should be room")));
            }
            at += part.len() as u64;
        }
        if checksum != section.checksum || used > next {
            return Ok(Err(Unusable("a part of it does not match its checksum")));
        }
    }
    Ok(Ok(()))
}

/// Where the list of parts begins in the head.
const SECTIONS_AT: usize = 8 + 4 + 4 + 8 + 16 + 8 + 4 * 4 + 4 * 4 + 8 * 4;

/// Bytes before the first part.
fn preface_bytes(coding: &Quantization, lost: usize) -> usize {
    let mean = match coding {
        Quantization::Sq4(mean, _) | Quantization::Sq8(mean, _) => mean.len(),
        Quantization::FullPrecision => 0,
    };
    (HEAD + (mean + lost) * 4).next_multiple_of(ALIGN)
}

fn copy_of(slab: &Slab) -> Vec<u8> {
    slab.atomics().iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect()
}

/// Reads numbers off the head, which has all of them.
struct Head<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Head<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        taken.copy_from_slice(&self.bytes[self.at..self.at + N]);
        self.at += N;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn f32(&mut self) -> f32 {
        f32::from_le_bytes(self.take())
    }

    /// The parts, which are the last of the head; `None` if that has no room for so many.
    fn sections(&mut self) -> Option<Vec<Section>> {
        debug_assert_eq!(self.at, SECTIONS_AT);
        let count = self.u32() as usize;
        let fits = count <= (HEAD - self.at) / Section::BYTES;
        fits.then(|| {
            (0..count).map(|_| Section { start: self.u64(), used: self.u64(), checksum: self.u32() }).collect()
        })
    }
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).expect("sizes of a graph fit u32")
}
