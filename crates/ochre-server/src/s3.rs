//! Backups in an S3-compatible store: `s3://bucket/prefix`.
//!
//! Who and where comes from the environment, by the names that AWS' own tools use: `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`; `AWS_ENDPOINT_URL` for stores other than AWS, with
//! `AWS_ALLOW_HTTP=true` where that is not encrypted.
//!
//! Nothing here relies on conditional writes, which several stores accept and ignore: chunks are named by
//! their content, and manifests by time and position.

use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use ochre_engine::{BackupTarget, BackupTargets, Error};
use tokio::runtime::Runtime;

/// A bucket, or what lies below a prefix in it.
struct S3Target {
    url: String,
    prefix: String,
    store: AmazonS3,
    /// The engine is synchronous; what waits for the network waits here.
    runtime: Runtime,
}

/// The kinds of backup targets that the server and the command know.
pub(crate) fn backup_targets() -> BackupTargets {
    let mut targets = BackupTargets::default();
    targets.register("s3", |url| Ok(Arc::new(S3Target::open(url)?)));
    targets
}

impl S3Target {
    fn open(url: &str) -> Result<Self, Error> {
        let failed = |reason: &dyn std::fmt::Display| Error::Backup(format!("'{url}': {reason}"));
        let path = url.strip_prefix("s3://").unwrap_or(url);
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            return Err(failed(&"it names no bucket; write s3://bucket/prefix"));
        }
        // Fails only if there is a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build().map_err(|error| failed(&error))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { url: url.to_owned(), prefix, store, runtime })
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}{name}", self.prefix))
    }

    fn failed(&self, action: &str, name: &str, error: &object_store::Error) -> Error {
        Error::Backup(format!("cannot {action} {name} at {}: {error}", self.url))
    }
}

impl BackupTarget for S3Target {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path(name);
        let put = self.store.put(&path, bytes.to_vec().into());
        self.runtime.block_on(put).map(drop).map_err(|error| self.failed("write", name, &error))
    }

    fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(name);
        let get = async {
            let found = self.store.get(&path).await?;
            // What is said of the size is what is sent: HTTP ends a body there.
            if found.meta.size > limit { Ok(Err(found.meta.size)) } else { found.bytes().await.map(Ok) }
        };
        match self.runtime.block_on(get) {
            Ok(Ok(bytes)) => Ok(Some(bytes.to_vec())),
            Ok(Err(bytes)) => Err(Error::Backup(format!(
                "{name} at {} has {bytes} bytes, and none of its kind has more than {limit}",
                self.url
            ))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", name, &error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        let path = self.path(prefix);
        let list = self.store.list(Some(&path)).try_collect::<Vec<_>>();
        let found = self.runtime.block_on(list).map_err(|error| self.failed("list", prefix, &error))?;
        let mut names: Vec<(String, u64)> = found
            .into_iter()
            .filter_map(|object| Some((object.location.as_ref().strip_prefix(&*self.prefix)?.to_owned(), object.size)))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        match self.runtime.block_on(self.store.delete(&self.path(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("remove", name, &error)),
        }
    }

    fn describe(&self) -> String {
        self.url.clone()
    }
}
