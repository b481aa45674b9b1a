//! What is at a target: manifests and chunks; reading, checking and thinning them out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ochre_scheduler::{Progress, Stop};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{BACKUP_VERSION, BackedUpFile, BackupKind, BackupTarget, Manifest};
use crate::error::Error;

const MANIFESTS: &str = "manifests/";
const CHUNKS: &str = "chunks/";
const VERIFIED: &str = "verified/";

/// The backups at a target.
pub struct Repository {
    target: Arc<dyn BackupTarget>,
    /// Manifests that were read, by name and size: they never change.
    read: Mutex<BTreeMap<(String, u64), Manifest>>,
}

/// What is wrong with backups: which, and what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

/// A manifest as it is kept: with a hash of itself.
#[derive(Serialize, Deserialize)]
struct Kept {
    hash: String,
    manifest: Manifest,
}

/// Asked before each step; `Err` stops the work.
pub(crate) type Pace<'a> = &'a dyn Fn(Progress) -> Result<(), Stop>;

impl Repository {
    /// The backups at this target.
    pub fn new(target: Arc<dyn BackupTarget>) -> Self {
        Self { target, read: Mutex::default() }
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
        for (name, size) in names {
            if let Some(manifest) = read.get(&(name.clone(), size)) {
                manifests.push(manifest.clone());
                continue;
            }
            let Some(bytes) = self.target.get(&name)? else { continue };
            match read_manifest(&bytes) {
                Ok(manifest) if manifest.format > BACKUP_VERSION => faults.0.push(format!(
                    "{name} has format {}, and this program reads up to {BACKUP_VERSION}: use a newer ochre",
                    manifest.format
                )),
                Ok(manifest) => {
                    read.insert((name, size), manifest.clone());
                    manifests.push(manifest);
                }
                Err(reason) => faults.0.push(format!("{name}: {reason}")),
            }
        }
        // Ids have seconds only, and two backups may be of one second and position: the time is finer.
        manifests.sort_by(|a, b| {
            let key = |manifest: &Manifest| manifest.taken_at.trim_end_matches('Z').to_owned();
            key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
        });
        Ok((manifests, faults))
    }

    pub(super) fn put_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let hash = manifest_hash(manifest);
        let kept = serde_json::to_vec_pretty(&Kept { hash, manifest: manifest.clone() })
            .map_err(|error| Error::Backup(format!("cannot write the manifest: {error}")))?;
        self.target.put(&format!("{MANIFESTS}{}.json", manifest.id), &kept)
    }

    /// The backups that lead to one of them: a full one first, then increments.
    pub(crate) fn chain<'a>(manifests: &'a [Manifest], last: &'a Manifest) -> Result<Vec<&'a Manifest>, Error> {
        let mut chain = vec![last];
        while let Some(parent) = &chain[chain.len() - 1].parent {
            let found = manifests.iter().find(|manifest| manifest.id == *parent);
            chain.push(found.ok_or_else(|| {
                let id = &chain[chain.len() - 1].id;
                Error::DamagedBackup(format!("backup {id} continues {parent}, which is not there"))
            })?);
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
        Ok(names.iter().filter_map(|(name, _)| Some(name.rsplit('/').next()?.to_owned())).collect())
    }

    /// The bytes of a chunk, if they are what its hash says.
    pub(super) fn get_chunk(&self, hash: &str) -> Result<Vec<u8>, Error> {
        let name = chunk_name(hash);
        let damaged =
            |reason: &str| Error::DamagedBackup(format!("chunk {name} at {} {reason}", self.target.describe()));
        let packed = self.target.get(&name)?.ok_or_else(|| damaged("is missing"))?;
        let bytes =
            zstd::stream::decode_all(packed.as_slice()).map_err(|_| damaged("is damaged: it does not unpack"))?;
        if blake3::hash(&bytes).to_hex().as_str() != hash {
            return Err(damaged("is damaged: its bytes have another hash"));
        }
        Ok(bytes)
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
        let mut read: BTreeMap<&str, Option<String>> = BTreeMap::new();
        let all: usize = manifests.iter().flat_map(|manifest| &manifest.files).map(|file| file.chunks.len()).sum();
        let mut done = 0;
        for manifest in manifests {
            for file in &manifest.files {
                for chunk in &file.chunks {
                    let progress = Progress { done, total: Some(all as u64), what: "chunks verified".into() };
                    if let Err(stop) = pace(progress) {
                        return Ok(Err(stop));
                    }
                    done += 1;
                    let fault = match read.get(chunk.as_str()) {
                        Some(fault) => fault.clone(),
                        None => {
                            let fault = self.get_chunk(chunk).err().map(|error| error.to_string());
                            read.insert(chunk, fault.clone());
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
        self.target.put(&format!("{VERIFIED}{id}"), b"")
    }

    /// Backups that were verified.
    pub(crate) fn verified(&self) -> Result<BTreeSet<String>, Error> {
        let names = self.target.list(VERIFIED)?;
        Ok(names.iter().filter_map(|(name, _)| name.strip_prefix(VERIFIED).map(str::to_owned)).collect())
    }

    /// Removes chains beyond the last `keep` and those older than `not_before`, an RFC 3339 time; then chunks that
    /// no backup names. The last chain always stays, and so does the last that was verified.
    pub(crate) fn thin_out(
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
        let mut written = 0;
        for chunk in &file.chunks {
            let bytes = self.get_chunk(chunk)?;
            written += bytes.len() as u64;
            out.write_all(&bytes).map_err(|error| Error::Backup(format!("cannot write {}: {error}", file.name)))?;
        }
        if written != file.bytes {
            let reason = format!("{} has {written} bytes in its chunks, not {}", file.name, file.bytes);
            return Err(Error::DamagedBackup(reason));
        }
        Ok(())
    }
}

fn chunk_name(hash: &str) -> String {
    format!("{CHUNKS}{}/{hash}", hash.get(..2).unwrap_or("00"))
}

fn manifest_hash(manifest: &Manifest) -> String {
    let text = serde_json::to_vec(manifest).unwrap_or_default();
    blake3::hash(&text).to_hex().to_string()
}

fn read_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let kept: Kept = serde_json::from_slice(bytes).map_err(|error| format!("is damaged: {error}"))?;
    if manifest_hash(&kept.manifest) != kept.hash {
        return Err("is damaged: its content has another hash".into());
    }
    Ok(kept.manifest)
}
