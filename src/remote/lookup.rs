//! One name: file, directory or nothing.
//!
//! Owns: HEAD and LIST raced, and which of the two wins. Does not own: when to ask.

use super::{Entry, Remote};
use crate::store::{ErrorKind, ListRequest, ObjectMeta, Result, StoreError};
use crate::types::{Key, KeyError, Name};

impl Remote {
    /// What the bucket has under `name` in the directory `dir`: HEAD of the object and LIST of one key below `name/` at
    /// once. Where both exist, the directory wins: the keys below it could not be reached otherwise.
    ///
    /// # Errors
    /// The first request that failed. A name that makes no key exists nowhere.
    pub async fn lookup(&self, dir: &Key, name: &Name) -> Result<Option<Entry>> {
        let keys = dir.child(name).and_then(|file| Ok((dir.child_dir(name)?, file)));
        let (dir_key, file_key) = match keys {
            Ok(keys) => keys,
            Err(KeyError::KeyTooLong) => return self.lookup_file_only(dir, name).await,
            Err(_) => return Ok(None),
        };
        let (head, below) = tokio::join!(self.head(&file_key), self.first_below(&dir_key));
        let (head, below) = (head?, below?);
        let Some(first) = below else { return Ok(head.map(object)) };
        let read = if first == dir_key { self.head(&dir_key).await? } else { None };
        let hides = head.map(|h| h.version.size);
        Ok(Some(Entry::Dir { marker: Some(first == dir_key), read, hides }))
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
        let page = self.store.list(&request(dir, 2)).await?;
        Ok(page.objects.iter().any(|o| o.key != *dir))
    }

    async fn first_below(&self, dir: &Key) -> Result<Option<Key>> {
        let page = self.store.list(&request(dir, 1)).await?;
        Ok(page.objects.into_iter().next().map(|o| o.key))
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
