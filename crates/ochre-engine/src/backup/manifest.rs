//! A backup's manifest: what it says, what of it is believed, and how it is kept.
//!
//! A manifest is read from a place where others may write: every name, size and number in it is checked before it is
//! used. Its hash is over its own bytes, so that members which a newer version adds do not make it unreadable.

use std::collections::BTreeSet;

use ochre_scheduler::Timestamp;
use ochre_store::CopiedCollection;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The version of the format of backups.
///
/// 2: increments have the schedules of jobs; manifests name the database.
pub const BACKUP_VERSION: u32 = 2;
/// Bytes of a chunk before it is compressed; only a file's last chunk is shorter.
pub(super) const CHUNK_BYTES: usize = 4 << 20;
/// The largest manifest that is read, in bytes.
pub(super) const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// How a key for manifests becomes the key of BLAKE3's keyed hash.
const KEY_CONTEXT: &str = "ochre 2026-11-27 hashes of backup manifests";

/// What a backup holds, and when it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// Names the backup; ascending by time.
    pub id: String,
    /// Whole, or what changed since the parent.
    pub kind: BackupKind,
    /// The backup that this one continues.
    pub parent: Option<String>,
    /// When it was taken, as RFC 3339.
    pub taken_at: String,
    /// The version of ochre that took it.
    pub ochre: String,
    /// How many changes the database had seen: it holds exactly these.
    pub position: u64,
    /// The database's epoch.
    pub epoch: u64,
    /// The database's id, in hexadecimal; backups of version 1 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The id that the next new vector would have got.
    pub next_vector_id: u64,
    /// Where each collection stood.
    pub collections: Vec<CopiedCollection>,
    /// The files, in chunks.
    pub files: Vec<BackedUpFile>,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes that were uploaded for this backup, compressed: chunks that the target had already are not counted.
    pub shipped_bytes: u64,
}

/// Full or incremental.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupKind {
    /// It holds the whole database.
    Full,
    /// It holds what changed since its parent.
    Incremental,
}

impl BackupKind {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        }
    }
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpFile {
    /// Its name within the database directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its pieces, in order: the hash of each, which is its name.
    pub chunks: Vec<String>,
}

impl BackedUpFile {
    /// The chunks with the length of each.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (&str, usize)> {
        let last = self.chunks.len().saturating_sub(1);
        let rest = self.bytes - last as u64 * CHUNK_BYTES as u64;
        let rest = usize::try_from(rest).unwrap_or(CHUNK_BYTES);
        let bytes = move |index| if index == last { rest } else { CHUNK_BYTES };
        self.chunks.iter().enumerate().map(move |(index, hash)| (hash.as_str(), bytes(index)))
    }
}

/// Which manifests are believed.
#[derive(Clone, Default)]
pub struct BackupTrust {
    key: Option<[u8; 32]>,
    accept_unsigned: bool,
}

impl BackupTrust {
    /// Manifests written from now on carry a hash by this key, and others are refused; without a key, or with an empty
    /// one, none has such a hash and all are believed.
    pub fn with_key(key: &str) -> Self {
        let key = (!key.is_empty()).then(|| blake3::derive_key(KEY_CONTEXT, key.as_bytes()));
        Self { key, accept_unsigned: false }
    }

    /// Believe manifests without such a hash too; a wrong hash is still refused.
    #[must_use]
    pub fn accepting_unsigned(mut self, accept: bool) -> Self {
        self.accept_unsigned = accept;
        self
    }

    /// The keyed hash of some bytes, in hexadecimal.
    pub(super) fn sign(&self, bytes: &[u8]) -> Option<String> {
        self.key.map(|key| blake3::keyed_hash(&key, bytes).to_hex().to_string())
    }

    /// Whether this is the keyed hash of these bytes, where there is a key to ask.
    pub(super) fn check(&self, bytes: &[u8], given: Option<&str>) -> Result<(), String> {
        let Some(key) = self.key else { return Ok(()) };
        match given {
            // Compared in constant time.
            Some(given)
                if blake3::Hash::from_hex(given).is_ok_and(|given| blake3::keyed_hash(&key, bytes) == given) =>
            {
                Ok(())
            }
            Some(_) => Err("its keyed hash is not by this `backup.key`: it was changed, or written with another key".into()),
            None if self.accept_unsigned => Ok(()),
            None => Err(
                "it has no keyed hash, and `backup.key` is set: it was written before that, or by somebody else; --accept-unsigned takes such backups".into(),
            ),
        }
    }
}

/// A manifest as it is kept: with hashes of its bytes.
#[derive(Serialize, Deserialize)]
struct StoredManifest<'a> {
    hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyed_hash: Option<String>,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

impl Manifest {
    /// The bytes to keep.
    pub(super) fn to_bytes(&self, trust: &BackupTrust) -> Result<Vec<u8>, String> {
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        let stored = StoredManifest {
            hash: blake3::hash(text.as_bytes()).to_hex().to_string(),
            keyed_hash: trust.sign(text.as_bytes()),
            manifest: &RawValue::from_string(text).map_err(|error| error.to_string())?,
        };
        serde_json::to_vec(&stored).map_err(|error| error.to_string())
    }

    /// Reads what was kept under this file name, such as `20261127T131955Z-000000000012-full.json`.
    pub(super) fn from_bytes(file: &str, bytes: &[u8], trust: &BackupTrust) -> Result<Self, String> {
        let damaged = |error: serde_json::Error| format!("is damaged: {error}");
        let stored: StoredManifest<'_> = serde_json::from_slice(bytes).map_err(damaged)?;
        let text = without_spaces(stored.manifest.get());
        if blake3::hash(text.as_bytes()).to_hex().as_str() != stored.hash {
            return Err("is damaged: its content has another hash".into());
        }
        trust.check(text.as_bytes(), stored.keyed_hash.as_deref()).map_err(|reason| format!("is refused: {reason}"))?;
        let manifest: Self = serde_json::from_str(&text).map_err(damaged)?;
        if manifest.format > BACKUP_VERSION {
            let found = manifest.format;
            return Err(format!(
                "has format {found}, and this program reads up to {BACKUP_VERSION}: use a newer ochre"
            ));
        }
        manifest.check(file).map_err(|reason| format!("is refused: {reason}"))?;
        Ok(manifest)
    }

    /// Whether everything in it is as every backup has it.
    fn check(&self, file: &str) -> Result<(), String> {
        if file.strip_suffix(".json") != Some(&self.id) {
            return Err(format!("it says that its id is {:?}", self.id));
        }
        if !is_id(&self.id) || !self.id.ends_with(&format!("-{}", self.kind.word())) {
            return Err(format!("{:?} is no id of a {} backup", self.id, self.kind.word()));
        }
        if self.taken_at.parse::<Timestamp>().is_err() {
            return Err(format!("{:?} is no RFC 3339 time", self.taken_at));
        }
        match (self.kind, &self.parent) {
            (BackupKind::Full, None) => {}
            (BackupKind::Incremental, Some(parent)) if is_id(parent) && *parent != self.id => {}
            (kind, parent) => return Err(format!("a {} backup cannot continue {parent:?}", kind.word())),
        }
        let mut names = BTreeSet::new();
        let mut bytes = 0u64;
        for file in &self.files {
            if !is_file_name(&file.name, self.kind) || !names.insert(&file.name) {
                return Err(format!("it holds a file {:?}, which no {} backup has", file.name, self.kind.word()));
            }
            if file.bytes.div_ceil(CHUNK_BYTES as u64) != file.chunks.len() as u64 {
                let count = file.chunks.len();
                return Err(format!("{} of {} bytes cannot have {count} chunks of 4 MiB", file.name, file.bytes));
            }
            if let Some(chunk) = file.chunks.iter().find(|chunk| !is_hash(chunk)) {
                return Err(format!("{} has a chunk {chunk:?}, which is no hash", file.name));
            }
            bytes = bytes.saturating_add(file.bytes);
        }
        if bytes != self.bytes || bytes >= u64::MAX / 2 {
            return Err(format!("its files have {bytes} bytes, not {}", self.bytes));
        }
        Ok(())
    }
}

/// Whether this could be a backup's id: the time in UTC to the second, the position in twelve digits or more, the kind.
pub(super) fn is_id(id: &str) -> bool {
    let mut parts = id.split('-');
    let (Some(stamp), Some(position), Some(kind), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    stamp.len() == 16
        && is_digits(&stamp[..8])
        && stamp[8..].starts_with('T')
        && is_digits(&stamp[9..15])
        && stamp.ends_with('Z')
        && (12..=20).contains(&position.len())
        && is_digits(position)
        && ["full", "incremental"].contains(&kind)
}

/// Whether a backup of this kind holds files of this name.
fn is_file_name(name: &str, kind: BackupKind) -> bool {
    match kind {
        BackupKind::Full => {
            let number = name.strip_prefix("segments/").and_then(|name| name.strip_suffix(".seg"));
            name == "ochre.sqlite3"
                || number.is_some_and(|number| {
                    (8..=10).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
                })
        }
        BackupKind::Incremental => name == "increment.sqlite3",
    }
}

/// Whether this is a BLAKE3 hash in hexadecimal.
pub(super) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// JSON without the spaces between its parts: manifests were kept with some, and hashed without.
fn without_spaces(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let (mut in_string, mut is_escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            (in_string, is_escaped) = (is_escaped || c != '"', !is_escaped && c == '\\');
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
impl Manifest {
    /// One for tests.
    pub(super) fn sample() -> Self {
        let chunk = "0".repeat(64);
        Self {
            format: 1,
            id: "20261127T131955Z-000000000012-full".into(),
            kind: BackupKind::Full,
            parent: None,
            taken_at: "2026-11-27T13:19:55Z".into(),
            ochre: "0.1.0 \"x\\".into(),
            position: 12,
            epoch: u64::MAX,
            database: None,
            next_vector_id: 1,
            collections: Vec::new(),
            files: vec![
                BackedUpFile { name: "ochre.sqlite3".into(), bytes: 4096, chunks: vec![chunk.clone()] },
                BackedUpFile {
                    name: "segments/00000001.seg".into(),
                    bytes: (CHUNK_BYTES + 1) as u64,
                    chunks: vec![chunk.clone(), chunk],
                },
            ],
            bytes: (CHUNK_BYTES + 4097) as u64,
            shipped_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What reading a manifest says after something of it was changed, its hash with it.
    fn check(change: impl FnOnce(&mut Manifest), words: &str) {
        let mut changed = Manifest::sample();
        change(&mut changed);
        let trust = BackupTrust::default();
        let bytes = changed.to_bytes(&trust).unwrap();
        let file = format!("{}.json", Manifest::sample().id);
        match Manifest::from_bytes(&file, &bytes, &trust) {
            Ok(read) => assert!(words.is_empty() && read == changed, "{words}"),
            Err(reason) => assert!(!words.is_empty() && reason.contains(words), "{words}: {reason}"),
        }
    }

    #[test]
    fn names_sizes_and_ids_that_no_backup_has_are_refused() {
        check(|_| {}, "");
        for name in [
            "../ochre.sqlite3",
            "/etc/passwd",
            "segments/../../x",
            "segments/00000001.seg/x",
            "segments/1.seg",
            "lock",
            "increment.sqlite3",
            "segments/0000000a.seg",
            "",
        ] {
            check(|manifest| manifest.files[1].name = name.into(), "holds a file");
        }
        check(|manifest| manifest.files[1].name = "ochre.sqlite3".into(), "holds a file");
        for id in ["../../x", "20261127T131955Z-000000000012-full/../x", "20261127T131955Z-1-full"] {
            check(|manifest| manifest.id = id.into(), "its id is");
        }
        check(|manifest| manifest.kind = BackupKind::Incremental, "no id of a incremental");
        check(|manifest| manifest.parent = Some(manifest.id.clone()), "cannot continue");
        check(|manifest| manifest.taken_at = "yesterday".into(), "no RFC 3339");
        check(|manifest| manifest.files[0].chunks[0] = "../../etc/passwd".into(), "no hash");
        check(|manifest| manifest.files[0].chunks[0] = "A".repeat(64), "no hash");
        check(|manifest| manifest.files[0].bytes = u64::MAX, "cannot have 1 chunks");
        check(|manifest| manifest.files[0].bytes = 0, "cannot have 1 chunks");
        check(|manifest| manifest.bytes = 1, "not 1");
        check(|manifest| manifest.format = BACKUP_VERSION + 1, "a newer ochre");
        let piece_bytes: Vec<usize> = Manifest::sample().files[1].pieces().map(|(_, bytes)| bytes).collect();
        assert_eq!(piece_bytes, [CHUNK_BYTES, 1]);
    }

    #[test]
    fn members_of_newer_versions_and_spaces_change_nothing() {
        let text = serde_json::to_string(&Manifest::sample()).unwrap();
        let text = text.replacen('{', "{\"newer\":{\"a b\": \"c \\\" d\"},", 1).replace("\": \"", "\":\"");
        let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
        let file = format!("{}.json", Manifest::sample().id);
        for shown in [text.clone(), text.replace(":{\"a b", ":  {\n\t\"a b")] {
            let bytes = format!("{{\"hash\": \"{hash}\", \"manifest\": {shown}}}");
            assert_eq!(
                Manifest::from_bytes(&file, bytes.as_bytes(), &BackupTrust::default()).unwrap(),
                Manifest::sample()
            );
        }
    }

    #[test]
    fn with_a_key_only_manifests_written_with_it_are_believed() {
        let file = format!("{}.json", Manifest::sample().id);
        let trusts = ["", "mine", "other"].map(BackupTrust::with_key);
        let [plain, mine, other] = &trusts;
        let read = |written: &BackupTrust, read: &BackupTrust| {
            Manifest::from_bytes(&file, &Manifest::sample().to_bytes(written).unwrap(), read)
        };
        assert!(read(mine, mine).is_ok() && read(mine, plain).is_ok());
        assert!(read(plain, mine).unwrap_err().contains("--accept-unsigned"));
        assert!(read(plain, &mine.clone().accepting_unsigned(true)).is_ok());
        assert!(read(other, &mine.clone().accepting_unsigned(true)).unwrap_err().contains("another key"));
    }
}
