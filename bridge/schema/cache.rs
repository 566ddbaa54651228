//! What a registry said, kept on disk: its ids never change their meaning, so that one which is down stops nothing
//! that was already known.
//!
//! One file an entry: the SHA-256 of the rest in hex, a line feed, JSON. A file is written beside its place and then
//! renamed into it; no fsync, for a file that a power failure cut short fails its checksum and counts as absent.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::fs;
use tracing::warn;
use uuid::Uuid;

/// Files in one registry's folder. Two a schema version are written; ten thousand serve thousands of versions.
const MAX_ENTRIES: usize = 10_000;

/// Bytes of one file that are read: a schema of the largest size that is taken, twice over for escaping.
const MAX_ENTRY: u64 = 2 << 20;

/// The folder of one registry's entries.
#[derive(Debug)]
pub(super) struct DiskCache {
    dir: PathBuf,
    entries: AtomicUsize,
}

impl DiskCache {
    /// Each registry has a folder of its own below `root`: another registry's ids mean other schemas.
    pub(super) fn open(root: &Path, url: &str) -> io::Result<Self> {
        let dir = root.join(&digest(&[url])[..16]);
        std::fs::create_dir_all(&dir)?;
        let entries = std::fs::read_dir(&dir)?.count();
        Ok(Self { dir, entries: AtomicUsize::new(entries) })
    }

    /// What was kept under `key`; a file that is damaged is as good as none.
    pub(super) async fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let path = self.path(key);
        match fs::metadata(&path).await {
            Ok(metadata) if metadata.len() <= MAX_ENTRY => {}
            Ok(_) => {
                warn!(path = %path.display(), "a registry cache file is too large and is ignored");
                return None;
            }
            Err(_) => return None,
        }
        let read = fs::read(&path).await.map_err(|error| error.to_string());
        match read.and_then(|bytes| open_entry(&bytes)) {
            Ok(entry) => Some(entry),
            Err(reason) => {
                warn!(path = %path.display(), reason, "a registry cache file is damaged and is ignored");
                None
            }
        }
    }

    /// Keeps `entry` under `key`. A disk that refuses costs the cache, not the event: it is logged.
    pub(super) async fn put<T: Serialize + Sync>(&self, key: &str, entry: &T) {
        let path = self.path(key);
        let is_new = fs::metadata(&path).await.is_err();
        if is_new && self.entries.load(Ordering::Relaxed) >= MAX_ENTRIES {
            warn!(dir = %self.dir.display(), limit = MAX_ENTRIES, "the registry cache is full and keeps nothing new");
            return;
        }
        match self.write(&path, entry).await {
            Ok(()) if is_new => _ = self.entries.fetch_add(1, Ordering::Relaxed),
            Ok(()) => {}
            Err(error) => warn!(path = %path.display(), %error, "a registry cache file could not be written"),
        }
    }

    /// Forgets everything: the registry behind this url is another one than it was.
    pub(super) async fn clear(&self) {
        let Ok(mut entries) = fs::read_dir(&self.dir).await else { return };
        while let Ok(Some(entry)) = entries.next_entry().await {
            if let Err(error) = fs::remove_file(entry.path()).await {
                warn!(path = %entry.path().display(), %error, "a stale registry cache file could not be removed");
            }
        }
        self.entries.store(0, Ordering::Relaxed);
    }

    async fn write<T: Serialize + Sync>(&self, path: &Path, entry: &T) -> io::Result<()> {
        let json = serde_json::to_string(entry)?;
        let temporary = self.dir.join(format!(".{}", Uuid::new_v4()));
        let written = match fs::write(&temporary, format!("{}\n{json}", digest(&[&json]))).await {
            Ok(()) => fs::rename(&temporary, path).await,
            Err(error) => Err(error),
        };
        if written.is_err() {
            // It may never have been made; the first error is the one that matters.
            let _ = fs::remove_file(&temporary).await;
        }
        written
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{key}.json"))
    }
}

fn open_entry<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let (checksum, json) = text.split_once('\n').ok_or("it has no checksum")?;
    if digest(&[json]) != checksum {
        return Err("its checksum does not match".to_owned());
    }
    serde_json::from_str(json).map_err(|error| error.to_string())
}

/// SHA-256 of the parts in hex, each with its length before it so that none runs into the next.
pub(super) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_put_is_there_again_and_another_registry_does_not_see_it() {
        let root = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(root.path(), "http://one").unwrap();
        cache.put("id-1", &"schema").await;
        cache.put("id-1", &"schema again").await;
        let reopened = DiskCache::open(root.path(), "http://one").unwrap();
        assert_eq!(reopened.get::<String>("id-1").await.as_deref(), Some("schema again"));
        assert_eq!(reopened.entries.load(Ordering::Relaxed), 1);
        let other = DiskCache::open(root.path(), "http://two").unwrap();
        assert_eq!(other.get::<String>("id-1").await, None);
        reopened.clear().await;
        assert_eq!(reopened.get::<String>("id-1").await, None);
    }

    #[tokio::test]
    async fn a_file_cut_short_or_altered_at_any_byte_is_absent() {
        let root = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(root.path(), "http://one").unwrap();
        cache.put("id-1", &vec!["schema"]).await;
        let path = cache.path("id-1");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(cache.get::<Vec<String>>("id-1").await, None, "cut at {cut}");
            let mut altered = whole.clone();
            altered[cut] ^= 1;
            std::fs::write(&path, &altered).unwrap();
            assert_eq!(cache.get::<Vec<String>>("id-1").await, None, "altered at {cut}");
        }
        cache.put("id-1", &vec!["schema"]).await;
        assert!(cache.get::<Vec<String>>("id-1").await.is_some());
    }
}
