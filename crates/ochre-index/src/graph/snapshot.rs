//! A graph as bytes, and back: `docs/formats/snapshots.md`.
//!
//! A snapshot is only a shortcut. Whatever does not fit exactly — format, epoch, collection, parameters,
//! checksum, a link out of range — makes it worthless, and the graph is built anew.

use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;

use ochre_kernels::Line;
use ochre_model::Space;

use super::codes::{ByteExtra, Codes, NibbleExtra};
use super::{Graph, GraphParameters, Node};

/// The version of the snapshot format.
pub const SNAPSHOT_VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"OCHREGRF";
/// Refuses sizes that no graph has before memory is reserved for them.
const NODES_MAX: u64 = 1 << 31;

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The database's epoch.
    pub epoch: u64,
    /// The collection's id.
    pub collection: [u8; 16],
    /// The position of the view it was made from; newer vectors are in the tail after loading.
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

/// Passes bytes on and sums them up.
struct Summed<T> {
    inner: T,
    checksum: u32,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Summed<R> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        Ok(())
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn f32(&mut self) -> io::Result<f32> {
        self.take().map(f32::from_le_bytes)
    }
}

impl Graph {
    /// Writes the linked part of the graph. No nodes may be added meanwhile.
    ///
    /// # Errors
    /// Whatever `out` fails with.
    pub fn write_snapshot(&self, header: &SnapshotHeader, out: &mut dyn Write) -> io::Result<()> {
        let mut out = Summed { inner: out, checksum: 0 };
        let (parameters, nodes) = (self.parameters, self.linked());
        out.write_all(&MAGIC)?;
        out.write_all(&SNAPSHOT_VERSION.to_le_bytes())?;
        out.write_all(&header.epoch.to_le_bytes())?;
        out.write_all(&header.collection)?;
        out.write_all(&header.position.to_le_bytes())?;
        let space = parameters.space as u32;
        for number in
            [space, to_u32(parameters.dimension), to_u32(parameters.max_neighbors), to_u32(parameters.ef_construction)]
        {
            out.write_all(&number.to_le_bytes())?;
        }
        out.write_all(&(nodes.len() as u64).to_le_bytes())?;
        out.write_all(&self.entry_below(nodes.len()).to_le_bytes())?;
        for node in nodes {
            out.write_all(&node.offset.to_le_bytes())?;
            out.write_all(&node.vector_id.to_le_bytes())?;
        }
        match &self.codes {
            Codes::Nibbles(nibbles) => {
                out.write_all(&2u32.to_le_bytes())?;
                out.write_all(&nibbles.deviation.to_le_bytes())?;
                nibbles.mean.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))?;
                for extra in &nibbles.extras.as_slice()[..nodes.len()] {
                    [extra.scale, extra.bias, extra.sum].iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))?;
                }
                for line in &nibbles.rows.as_slice()[..nodes.len() * nibbles.lines()] {
                    out.write_all(&line.0)?;
                }
            }
            Codes::Bytes(bytes) => {
                out.write_all(&1u32.to_le_bytes())?;
                out.write_all(&bytes.deviation.to_le_bytes())?;
                bytes.mean.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))?;
                for extra in &bytes.extras.as_slice()[..nodes.len()] {
                    [extra.scale, extra.bias].iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))?;
                }
                for chunk in bytes.codes.as_slice()[..nodes.len() * parameters.dimension].chunks(8192) {
                    let raw: Vec<u8> = chunk.iter().map(|code| code.cast_unsigned()).collect();
                    out.write_all(&raw)?;
                }
            }
            Codes::Floats(floats) => {
                out.write_all(&0u32.to_le_bytes())?;
                for chunk in floats.values.as_slice()[..nodes.len() * parameters.dimension].chunks(2048) {
                    let raw: Vec<u8> = chunk.iter().flat_map(|x| x.to_le_bytes()).collect();
                    out.write_all(&raw)?;
                }
            }
        }
        // Lists are written without their unused slots.
        for (node, _) in (0u32..).zip(nodes) {
            for level in 0..=super::level_of(node as usize, parameters.max_neighbors) {
                let links: Vec<u32> = self.links(node, level).filter(|link| (*link as usize) < nodes.len()).collect();
                out.write_all(&to_u32(links.len()).to_le_bytes())?;
                let raw: Vec<u8> = links.iter().flat_map(|link| link.to_le_bytes()).collect();
                out.write_all(&raw)?;
            }
        }
        let checksum = out.checksum;
        out.inner.write_all(&checksum.to_le_bytes())
    }

    /// The entry point, or, if that is a node past the first `count`, whose linking was interrupted, the
    /// highest of those.
    fn entry_below(&self, count: usize) -> u64 {
        let entry = self.entry.load(Ordering::Acquire);
        if self.entry().is_none_or(|(_, node)| (node as usize) < count) {
            return entry;
        }
        let level = |node: usize| super::level_of(node, self.parameters.max_neighbors);
        let highest = (0..count).max_by_key(|node| (level(*node), std::cmp::Reverse(*node)));
        highest.map_or(super::NO_ENTRY, |node| (level(node) as u64) << 32 | node as u64)
    }

    /// Reads a snapshot of this epoch and collection with these parameters, with room to grow by
    /// `resize_factor`. Also says the position it was made at.
    ///
    /// # Errors
    /// [`SnapshotError`] if anything does not fit: build the graph anew.
    pub fn read_snapshot(
        epoch: u64, collection: [u8; 16], parameters: GraphParameters, resize_factor: f64, from: &mut dyn Read,
    ) -> Result<(Self, u64), SnapshotError> {
        use SnapshotError::Unusable;
        let mut from = Summed { inner: from, checksum: 0 };
        if from.take::<8>()? != MAGIC {
            return Err(Unusable("it is no graph snapshot"));
        }
        if from.u32()? != SNAPSHOT_VERSION {
            return Err(Unusable("it has another format version"));
        }
        if from.u64()? != epoch || from.take::<16>()? != collection {
            return Err(Unusable("it is of another epoch or collection"));
        }
        let position = from.u64()?;
        let space = from.u32()?;
        let space = [Space::L2, Space::Cosine, Space::Ip].into_iter().find(|known| *known as u32 == space);
        let stored = GraphParameters {
            space: space.ok_or(Unusable("it names no known space"))?,
            dimension: from.u32()? as usize,
            max_neighbors: from.u32()? as usize,
            ef_construction: from.u32()? as usize,
        };
        if stored != parameters {
            return Err(Unusable("it was built with other parameters"));
        }
        let count = from.u64()?;
        let entry = from.u64()?;
        if count > NODES_MAX {
            return Err(Unusable("it claims more nodes than a graph has"));
        }
        let count = usize::try_from(count).map_err(|_| Unusable("it does not fit memory"))?;
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(Node { offset: from.u32()?, vector_id: from.u64()? });
        }
        let capacity = grown_capacity(count, resize_factor);
        let codes = read_codes(&mut from, parameters, count, capacity)?;
        let graph = Self::with_codes(parameters, capacity, codes);
        if !graph.nodes.append(&nodes) {
            return Err(Unusable("its nodes do not fit"));
        }
        let mut list = Vec::new();
        for node in 0..to_u32(count) {
            for level in 0..=super::level_of(node as usize, parameters.max_neighbors) {
                let links = from.u32()? as usize;
                if links > graph.links_max(level) {
                    return Err(Unusable("a node has too many links"));
                }
                list.clear();
                for _ in 0..links {
                    let link = from.u32()?;
                    let leads_nowhere = link as usize >= count
                        || (level > 0 && super::level_of(link as usize, parameters.max_neighbors) < level);
                    if leads_nowhere {
                        return Err(Unusable("a link leads nowhere"));
                    }
                    list.push(link);
                }
                let (table, number) = graph.list(node, level);
                table.set(number, list.iter().copied());
            }
        }
        let checksum = from.checksum;
        if from.u32()? != checksum {
            return Err(Unusable("it does not match its checksum"));
        }
        graph.entry.store(entry, Ordering::Release);
        graph.linked.store(to_u32(count), Ordering::Release);
        let entry_fits = graph.entry().is_none_or(|(level, node)| {
            (node as usize) < count && super::level_of(node as usize, parameters.max_neighbors) == level
        });
        if !entry_fits || (count > 0 && !graph.has_entry()) {
            return Err(Unusable("its entry point is no node of it"));
        }
        Ok((graph, position))
    }
}

fn read_codes<R: Read>(
    from: &mut Summed<R>, parameters: GraphParameters, count: usize, capacity: usize,
) -> Result<Codes, SnapshotError> {
    let unfit = SnapshotError::Unusable("its vectors do not fit");
    match from.u32()? {
        2 => {
            let deviation = from.f32()?;
            let mean = (0..parameters.dimension).map(|_| from.f32()).collect::<io::Result<Vec<_>>>()?;
            let codes = Codes::nibbles(parameters.space, mean, deviation, capacity);
            let Codes::Nibbles(nibbles) = &codes else { return Err(unfit) };
            let extras =
                (0..count).map(|_| Ok(NibbleExtra { scale: from.f32()?, bias: from.f32()?, sum: from.f32()? }));
            let mut fits = nibbles.extras.append(&extras.collect::<io::Result<Vec<_>>>()?);
            let mut row = vec![Line([0; 64]); nibbles.lines()];
            for _ in 0..count {
                row.iter_mut().try_for_each(|line| from.fill(&mut line.0))?;
                fits &= nibbles.rows.append(&row);
            }
            if fits { Ok(codes) } else { Err(unfit) }
        }
        1 => {
            let deviation = from.f32()?;
            let mean = (0..parameters.dimension).map(|_| from.f32()).collect::<io::Result<Vec<_>>>()?;
            let codes = Codes::bytes(parameters.space, mean, deviation, capacity);
            let Codes::Bytes(bytes) = &codes else { return Err(unfit) };
            let extras = (0..count).map(|_| Ok(ByteExtra { scale: from.f32()?, bias: from.f32()? }));
            let mut fits = bytes.extras.append(&extras.collect::<io::Result<Vec<_>>>()?);
            let mut raw = vec![0u8; parameters.dimension];
            for _ in 0..count {
                from.fill(&mut raw)?;
                let row: Vec<i8> = raw.iter().map(|byte| byte.cast_signed()).collect();
                fits &= bytes.codes.append(&row);
            }
            if fits { Ok(codes) } else { Err(unfit) }
        }
        0 => {
            let codes = Codes::floats(parameters.space, parameters.dimension, capacity);
            let Codes::Floats(floats) = &codes else { return Err(unfit) };
            let mut fits = true;
            let mut raw = vec![0u8; parameters.dimension * 4];
            for _ in 0..count {
                from.fill(&mut raw)?;
                let (floats_raw, _) = raw.as_chunks::<4>();
                let row: Vec<f32> = floats_raw.iter().map(|x| f32::from_le_bytes(*x)).collect();
                fits &= floats.values.append(&row);
            }
            if fits { Ok(codes) } else { Err(unfit) }
        }
        _ => Err(SnapshotError::Unusable("it codes vectors in an unknown way")),
    }
}

/// The capacity that `count` nodes grow to.
pub(crate) fn grown_capacity(count: usize, resize_factor: f64) -> usize {
    let factor = if resize_factor.is_finite() { resize_factor.clamp(1.05, 4.0) } else { 1.2 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a size")]
    let grown = (count as f64 * factor) as usize;
    grown.max(count + 1024)
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).expect("sizes of a graph fit u32")
}
