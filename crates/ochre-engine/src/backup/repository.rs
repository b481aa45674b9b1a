//! What is at a target: manifests and chunks; reading, checking and thinning them out.
//!
//! Not here: what a manifest may say (`manifest`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ochre_scheduler::{Progress, Stop};
use parking_lot::Mutex;

use crate::backup::manifest::{
    BackedUpFile, BackupKind, BackupTrust, CHUNK_BYTES, MANIFEST_BYTES_MAX, Manifest, is_hash, is_id,
};
use crate::backup::target::BackupTarget;
use crate::error::Error;

const MANIFESTS: &str = "manifests/";
const CHUNKS: &str = "chunks/";
const VERIFIED: &str = "verified/";
const PROBES: &str = "probes/";
/// Manifests at one target that are read, in bytes of all of them.
const MANIFESTS_BYTES_MAX: u64 = 1 << 30;
/// A chunk as it is kept is no larger than this: what does not compress grows a little.
const PACKED_BYTES_MAX: u64 = CHUNK_BYTES as u64 + (64 << 10);
/// The longest chain that is followed; far more than `chain_max` lets one become.
const CHAIN_MAX: usize = 10_000;

/// The backups at a target.
pub struct Repository {
    target: Arc<dyn BackupTarget>,
    trust: BackupTrust,
    /// Manifests that were read, by name and size: they never change.
    read: Mutex<BTreeMap<(String, u64), Manifest>>,
}

/// What is wrong with backups: which, and what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

/// Asked before each step; `Err` stops the work.
pub(crate) type Pace<'a> = &'a dyn Fn(Progress) -> Result<(), Stop>;

impl Repository {
    /// The backups at this target. Without a key, whatever has a right hash is believed.
    pub fn new(target: Arc<dyn BackupTarget>) -> Self {
        Self { target, trust: BackupTrust::default(), read: Mutex::default() }
    }

    /// Believes only these.
    #[must_use]
    pub fn trusting(mut self, trust: BackupTrust) -> Self {
        self.trust = trust;
        self
    }

    /// How the target is named in messages.
    pub fn describe(&self) -> String {
        self.target.describe()
    }

    /// The manifests, oldest first, and what is wrong with those that cannot be read.
    ///
    /// # Errors
    /// [`Error::Backup`] if the target cannot be read.
    pub fn manifests(&self) -> Result<(Vec<Manifest>, Faults), Error> {
        let (mut manifests, mut faults) = (Vec::new(), Faults::default());
        let names = self.target.list(MANIFESTS)?;
        let mut read = self.read.lock();
        read.retain(|name, _| names.contains(name));
        let mut bytes = 0u64;
        for (name, size) in names {
            if let Some(manifest) = read.get(&(name.clone(), size)) {
                manifests.push(manifest.clone());
                continue;
            }
            bytes = bytes.saturating_add(size);
            if bytes > MANIFESTS_BYTES_MAX {
                faults.0.push(format!("{name}: there are more than {MANIFESTS_BYTES_MAX} bytes of manifests"));
                break;
            }
            let file = name.strip_prefix(MANIFESTS).unwrap_or(&name);
            let bytes = match self.target.get(&name, MANIFEST_BYTES_MAX) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(error) => {
                    faults.0.push(error.to_string());
                    continue;
                }
            };
            match Manifest::from_bytes(file, &bytes, &self.trust) {
                Ok(manifest) => {
                    read.insert((name, size), manifest.clone());
                    manifests.push(manifest);
                }
                Err(reason) => faults.0.push(format!("{name} {reason}")),
            }
        }
        manifests.sort_by(|a, b| order(a).cmp(&order(b)));
        Ok((manifests, faults))
    }

    /// Reads manifests again from now on, whether they look as they did or not.
    pub(crate) fn forget_manifests(&self) {
        self.read.lock().clear();
    }

    /// Puts an object there and removes it again.
    ///
    /// # Errors
    /// [`Error::Backup`] if either fails.
    pub(super) fn try_writing(&self, name: &str) -> Result<(), Error> {
        let name = format!("{PROBES}{name}");
        self.target.put(&name, b"written to see whether it can be")?;
        self.target.delete(&name)
    }

    pub(super) fn put_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let kept = manifest
            .to_bytes(&self.trust)
            .map_err(|error| Error::Backup(format!("cannot write the manifest: {error}")))?;
        if kept.len() as u64 > MANIFEST_BYTES_MAX {
            let bytes = kept.len();
            return Err(Error::Backup(format!("the manifest has {bytes} bytes, more than {MANIFEST_BYTES_MAX}")));
        }
        self.target.put(&format!("{MANIFESTS}{}.json", manifest.id), &kept)
    }

    /// The backups that lead to one of them: a full one first, then increments.
    pub(crate) fn chain<'a>(manifests: &'a [Manifest], last: &'a Manifest) -> Result<Vec<&'a Manifest>, Error> {
        let mut chain = vec![last];
        while let Some(parent) = &chain[chain.len() - 1].parent {
            let child = chain[chain.len() - 1];
            let damaged =
                |what: &str| Error::DamagedBackup(format!("backup {} continues {parent}, which {what}", child.id));
            let found = manifests.iter().find(|manifest| manifest.id == *parent);
            let found = found.ok_or_else(|| damaged("is not there"))?;
            // By positions, not by times: a clock may have been put back.
            if found.position > child.position {
                return Err(damaged("is not older"));
            }
            if chain.iter().any(|later| later.id == found.id) {
                return Err(damaged("continues it in turn"));
            }
            if found.epoch != child.epoch {
                return Err(damaged("has another history"));
            }
            chain.push(found);
            if chain.len() > CHAIN_MAX {
                return Err(damaged("is one of more than 10000 in a chain"));
            }
        }
        chain.reverse();
        Ok(chain)
    }

    /// Puts a chunk unless it is there; its hash, and the bytes that had to be put.
    pub(super) fn put_chunk(&self, there: &mut BTreeSet<String>, bytes: &[u8]) -> Result<(String, u64), Error> {
        let hash = blake3::hash(bytes).to_hex().to_string();
        if there.contains(&hash) {
            return Ok((hash, 0));
        }
        let packed = zstd::bulk::compress(bytes, 3)
            .map_err(|error| Error::Backup(format!("cannot compress a chunk: {error}")))?;
        self.target.put(&chunk_name(&hash), &packed)?;
        there.insert(hash.clone());
        Ok((hash, packed.len() as u64))
    }

    /// The chunks that are there.
    pub(super) fn chunks(&self) -> Result<BTreeSet<String>, Error> {
        let names = self.target.list(CHUNKS)?;
        let hashes = names.into_iter().filter_map(|(name, _)| {
            let hash = name.rsplit('/').next()?;
            (is_hash(hash) && name == chunk_name(hash)).then(|| hash.to_owned())
        });
        Ok(hashes.collect())
    }

    /// The bytes of a chunk, if they are what its hash says and as many as they should be.
    pub(super) fn get_chunk(&self, hash: &str, bytes: usize) -> Result<Vec<u8>, Error> {
        let name = chunk_name(hash);
        let damaged =
            |reason: &str| Error::DamagedBackup(format!("chunk {name} at {} {reason}", self.target.describe()));
        let packed = self.target.get(&name, PACKED_BYTES_MAX)?.ok_or_else(|| damaged("is missing"))?;
        // No more than it should be is ever unpacked.
        let unpacked = zstd::bulk::decompress(&packed, bytes)
            .map_err(|_| damaged(&format!("is damaged: it does not unpack to {bytes} bytes")))?;
        if unpacked.len() != bytes || blake3::hash(&unpacked).to_hex().as_str() != hash {
            return Err(damaged("is damaged: its bytes have another hash"));
        }
        Ok(unpacked)
    }

    /// Reads every chunk of every backup; how many backups there are, and what is wrong.
    ///
    /// # Errors
    /// [`Error::Backup`] if the target cannot be read.
    pub fn verify_all(&self) -> Result<(usize, Faults), Error> {
        let (manifests, mut faults) = self.manifests()?;
        if let Ok(found) = self.verify(&manifests.iter().collect::<Vec<_>>(), &|_| Ok(()))? {
            faults.0.extend(found.0);
        }
        Ok((manifests.len(), faults))
    }

    /// Reads every chunk of these backups; what is wrong names the chunk, its file and its backup.
    pub(crate) fn verify(&self, manifests: &[&Manifest], pace: Pace<'_>) -> Result<Result<Faults, Stop>, Error> {
        let mut faults = Faults::default();
        let mut read: BTreeMap<(&str, usize), Option<String>> = BTreeMap::new();
        let all: usize = manifests.iter().flat_map(|manifest| &manifest.files).map(|file| file.chunks.len()).sum();
        let mut done = 0;
        for manifest in manifests {
            for file in &manifest.files {
                for (chunk, bytes) in file.pieces() {
                    let progress = Progress { done, total: Some(all as u64), what: "chunks verified".into() };
                    if let Err(stop) = pace(progress) {
                        return Ok(Err(stop));
                    }
                    done += 1;
                    let fault = match read.get(&(chunk, bytes)) {
                        Some(fault) => fault.clone(),
                        None => {
                            let fault = self.get_chunk(chunk, bytes).err().map(|error| error.to_string());
                            read.insert((chunk, bytes), fault.clone());
                            fault
                        }
                    };
                    if let Some(fault) = fault {
                        faults.0.push(format!("backup {}, {}: {fault}", manifest.id, file.name));
                    }
                }
            }
            if let Some(parent) = manifest.parent.as_ref().filter(|parent| !manifests.iter().any(|m| m.id == **parent))
            {
                faults.0.push(format!("backup {} continues {parent}, which is not there", manifest.id));
            }
        }
        Ok(Ok(faults))
    }

    /// Notes that a backup, and those it continues, were read whole and restored.
    pub(crate) fn note_verified(&self, id: &str) -> Result<(), Error> {
        self.target.put(&format!("{VERIFIED}{id}"), self.trust.sign(id.as_bytes()).unwrap_or_default().as_bytes())
    }

    /// Backups that were verified.
    pub(crate) fn verified(&self) -> Result<BTreeSet<String>, Error> {
        let names = self.target.list(VERIFIED)?;
        let mut verified = BTreeSet::new();
        for (name, _) in &names {
            let Some(id) = name.strip_prefix(VERIFIED).filter(|id| is_id(id)) else { continue };
            let Some(mark) = self.target.get(name, 64)? else { continue };
            let given = std::str::from_utf8(&mark).ok().filter(|mark| !mark.is_empty());
            if self.trust.check(id.as_bytes(), given).is_ok() {
                verified.insert(id.to_owned());
            }
        }
        Ok(verified)
    }

    /// Removes chains beyond the last `keep` and those older than `not_before`, an RFC 3339 time; then chunks that
    /// no backup names. The last chain always stays, and so does the last that was verified.
    pub(crate) fn prune(
        &self, keep: usize, not_before: &str, pace: Pace<'_>,
    ) -> Result<Result<(usize, usize), Stop>, Error> {
        let (manifests, faults) = self.manifests()?;
        if let Some(fault) = faults.0.first() {
            // Its chunks would look like nobody's.
            return Err(Error::Backup(format!("nothing is removed while a manifest cannot be read: {fault}")));
        }
        let verified = self.verified()?;
        let fulls: Vec<&Manifest> = manifests.iter().filter(|manifest| manifest.kind == BackupKind::Full).collect();
        let chain_of = |manifest: &Manifest| Self::chain(&manifests, manifest).ok().map(|chain| chain[0].id.clone());
        let last_verified = manifests.iter().rev().find(|manifest| verified.contains(&manifest.id)).and_then(chain_of);
        let is_kept = |index: usize, full: &Manifest| {
            let age = fulls.len() - 1 - index;
            age == 0
                || last_verified.as_ref() == Some(&full.id)
                || age < keep && full.taken_at.as_str() >= not_before
                // Without a chain that is known to restore, none is given up.
                || last_verified.is_none()
        };
        let kept: BTreeSet<&str> = fulls
            .iter()
            .enumerate()
            .filter(|(index, full)| is_kept(*index, full))
            .map(|(_, full)| full.id.as_str())
            .collect();
        let is_kept = |manifest: &&Manifest| chain_of(manifest).is_none_or(|full| kept.contains(full.as_str()));
        let (kept, gone): (Vec<&Manifest>, Vec<&Manifest>) = manifests.iter().partition(|manifest| is_kept(manifest));
        // Increments go before what they continue, manifests before their chunks.
        for (index, manifest) in gone.iter().rev().enumerate() {
            let progress =
                Progress { done: index as u64, total: Some(gone.len() as u64), what: "backups removed".into() };
            if let Err(stop) = pace(progress) {
                return Ok(Err(stop));
            }
            self.target.delete(&format!("{MANIFESTS}{}.json", manifest.id))?;
            self.target.delete(&format!("{VERIFIED}{}", manifest.id))?;
        }
        let used: BTreeSet<&String> = kept.iter().flat_map(|m| &m.files).flat_map(|file| &file.chunks).collect();
        let unused: Vec<String> = self.chunks()?.into_iter().filter(|chunk| !used.contains(chunk)).collect();
        for (index, chunk) in unused.iter().enumerate() {
            let progress =
                Progress { done: index as u64, total: Some(unused.len() as u64), what: "chunks removed".into() };
            if let Err(stop) = pace(progress) {
                return Ok(Err(stop));
            }
            self.target.delete(&chunk_name(chunk))?;
        }
        Ok(Ok((gone.len(), unused.len())))
    }

    /// Writes a file of a backup, chunk by chunk.
    pub(super) fn unpack(&self, file: &BackedUpFile, out: &mut dyn std::io::Write) -> Result<(), Error> {
        for (chunk, bytes) in file.pieces() {
            let bytes = self.get_chunk(chunk, bytes)?;
            out.write_all(&bytes).map_err(|error| Error::Backup(format!("cannot write {}: {error}", file.name)))?;
        }
        Ok(())
    }
}

/// What backups are ordered by. Ids have seconds only, and two backups may be of one second and position: the time is
/// finer.
fn order(manifest: &Manifest) -> (&str, &str) {
    (manifest.taken_at.trim_end_matches('Z'), &manifest.id)
}

fn chunk_name(hash: &str) -> String {
    format!("{CHUNKS}{}/{hash}", hash.get(..2).unwrap_or("00"))
}
