//! One name: file, directory or nothing.
//!
//! Owns: HEAD and LIST raced, and which of the two wins. Does not own: when to ask.

use super::{Entry, Remote};
use crate::store::{ErrorKind, ListRequest, ObjectMeta, Result, StoreError};
use crate::types::{ETag, Key, KeyError, Name};

/// What the first keys of a directory show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Below {
    /// The ETag of its marker, if it has one.
    pub marker: Option<ETag>,
    /// It has a key other than that.
    pub has_keys: bool,
}

impl Remote {
    /// What the bucket has under `name` in the directory `dir`: HEAD of the object and LIST of one key below `name/` at
    /// once. Where both exist, the directory wins: the keys below it could not be reached otherwise. The headers of its marker are
    /// one more HEAD, if they are wanted (`with_headers`).
    ///
    /// # Errors
    /// The first request that failed. A name that makes no key exists nowhere.
    pub async fn lookup(&self, dir: &Key, name: &Name, with_headers: bool) -> Result<Option<Entry>> {
        let keys = dir.child(name).and_then(|file| Ok((dir.child_dir(name)?, file)));
        let (dir_key, file_key) = match keys {
            Ok(keys) => keys,
            Err(KeyError::KeyTooLong) => return self.lookup_file_only(dir, name).await,
            Err(_) => return Ok(None),
        };
        let (head, has_marker) = tokio::join!(self.head(&file_key), self.begins_with_marker(&dir_key));
        let (head, has_marker) = (head?, has_marker?);
        let Some(has_marker) = has_marker else { return Ok(head.map(object)) };
        let read = if has_marker && with_headers { self.head(&dir_key).await? } else { None };
        let hides = head.map(|h| h.version.size);
        Ok(Some(Entry::Dir { marker: Some(has_marker), read, hides }))
    }

    /// A key of exactly 1,024 bytes can be an object, but not a directory.
    async fn lookup_file_only(&self, dir: &Key, name: &Name) -> Result<Option<Entry>> {
        match dir.child(name) {
            Ok(key) => Ok(self.head(&key).await?.map(object)),
            Err(_) => Ok(None),
        }
    }

    /// Headers and version of one object, or `None` if there is none.
    ///
    /// # Errors
    /// Any failure but [`ErrorKind::NotFound`].
    pub async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        absent_is_none(self.store.head(key).await)
    }

    /// Whether the directory has a key other than its marker.
    ///
    /// # Errors
    /// A LIST that failed.
    pub async fn has_keys_below(&self, dir: &Key) -> Result<bool> {
        Ok(self.below(dir).await?.has_keys)
    }

    /// Whether the directory has a marker, and whether it has any other key.
    ///
    /// # Errors
    /// A LIST that failed.
    pub async fn below(&self, dir: &Key) -> Result<Below> {
        let page = self.store.list(&request(dir, 2)).await?;
        let has_keys = page.objects.iter().any(|o| o.key != *dir) || !page.invalid.is_empty();
        // It sorts before all others.
        let marker = page.objects.into_iter().find(|o| o.key == *dir).map(|o| o.version.etag);
        Ok(Below { marker, has_keys })
    }

    /// Whether the first of the directory's keys is its marker, which sorts before all others. `None` if it has no key.
    async fn begins_with_marker(&self, dir: &Key) -> Result<Option<bool>> {
        let page = self.store.list(&request(dir, 1)).await?;
        let first = page.objects.first().map(|o| o.key == *dir);
        Ok(first.or((!page.invalid.is_empty()).then_some(false)))
    }
}

fn request(prefix: &Key, max_keys: u16) -> ListRequest {
    ListRequest { prefix: prefix.clone(), delimited: false, continuation: None, max_keys }
}

fn object(meta: ObjectMeta) -> Entry {
    let storage_class = meta.headers.storage_class.clone();
    Entry::Object { version: meta.version, storage_class, headers: Some(meta.headers) }
}

fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(StoreError { kind: ErrorKind::NotFound, .. }) => Ok(None),
        Err(e) => Err(e),
    }
}
