//! Headers of objects as the file system needs them.
//!
//! Owns: turning the store's headers into what the catalogue keeps and back, and the headers of a rewrite, which keeps all
//! that is not ours. Does not own: names of the metadata entries (`meta::headers`).

use super::{Fs, FsError, Result};
use crate::meta::headers::{Kept, to_user};
use crate::meta::{Found, Headers, InodeRow, xattrs};
use crate::remote::Entry;
use crate::store::{ObjectHeaders, ObjectMeta};
use crate::types::{ContentSum, FileKind, Key, Version, WriteId};

/// Bytes of an object's metadata that are left for what a chmod, a rename or the time of a write adds to it.
const SPARE: usize = 128;

/// What the catalogue keeps of an object's headers.
pub(super) fn to_meta(headers: &ObjectHeaders) -> Headers {
    // Serialising a map of strings cannot fail; an empty text would only mean that they are read again.
    let json = serde_json::to_string(headers).unwrap_or_default();
    Headers { json, user: Some(headers.user.clone()) }
}

/// The headers of the version that a row shows, if they were read.
pub(super) fn known(row: &InodeRow) -> Option<ObjectHeaders> {
    row.headers.as_deref().and_then(|json| serde_json::from_str(json).ok())
}

/// The extended attributes of a row, as its object's metadata has them. An older objfs has left them among the headers.
pub(super) fn xattrs_of(row: &InodeRow) -> String {
    match &row.xattrs {
        Some(text) => text.clone(),
        None => known(row).map(|headers| xattrs::in_user(&headers.user)).unwrap_or_default(),
    }
}

/// Bytes of user metadata of an object that is written with these headers.
pub(super) fn written_len(headers: &ObjectHeaders) -> usize {
    headers.clone().with_write_id(&WriteId::random()).user_len()
}

/// A remote entry in the catalogue's words.
pub(super) fn to_found(entry: Entry) -> Found {
    match entry {
        Entry::Object { version, storage_class, headers } => {
            Found::Object { version, storage_class, headers: headers.as_ref().map(to_meta) }
        }
        Entry::Dir { marker, read, .. } => Found::Dir { marker, read: read.map(|m| (m.version, to_meta(&m.headers))) },
    }
}

/// The headers that the journal has of a file: with its attributes, wherever those are kept, as they must outlive a kill.
pub(super) fn for_journal(mut headers: ObjectHeaders, row: &InodeRow) -> ObjectHeaders {
    to_user(&row.attr, row.xattrs.as_deref(), &mut headers.user);
    headers
}

impl Fs {
    /// Where attributes are kept.
    pub(super) fn kept(&self) -> Kept {
        self.meta.defaults().kept
    }

    /// Whether an object may say of the row's attributes what nobody has read.
    pub(super) fn has_unread_attr(&self, row: &InodeRow) -> bool {
        row.headers.is_none() && self.kept().in_objects()
    }

    /// The headers of a new object with the attributes of a row.
    pub(super) fn for_new(&self, row: &InodeRow, key: &Key) -> ObjectHeaders {
        let content_type = match row.attr.kind {
            FileKind::Dir => "application/x-directory".to_owned(),
            FileKind::File => mime_guess::from_path(key.as_str()).first_or_octet_stream().to_string(),
            _ => "application/octet-stream".to_owned(),
        };
        self.for_rewrite(ObjectHeaders { content_type: Some(content_type), ..ObjectHeaders::default() }, row)
    }

    /// The headers of an object that is rewritten with the attributes of a row: all else stays as it is.
    pub(super) fn for_rewrite(&self, mut headers: ObjectHeaders, row: &InodeRow) -> ObjectHeaders {
        self.kept().write(&row.attr, row.xattrs.as_deref(), &mut headers.user);
        headers
    }

    /// Bytes of user metadata that an object with these headers needs for the attributes of a row, and to be changed later.
    pub(super) fn needed_len(&self, headers: &ObjectHeaders, row: &InodeRow) -> usize {
        let mut headers = self.for_rewrite(headers.clone(), row);
        // It makes room if it has to.
        headers.user.remove(ContentSum::HEADER);
        written_len(&headers) + SPARE
    }

    /// The headers that the bucket has for the version that `row` shows: from the catalogue, or by a HEAD. Of the storage class
    /// listings tell more: a HEAD names no default one, and what we wrote ourselves may have got its class from an option.
    pub(super) async fn headers_of(&self, row: &InodeRow, key: &Key) -> Result<ObjectHeaders> {
        let mut headers = self.read_headers_of(row, key).await?;
        headers.storage_class = row.storage_class.clone().or(headers.storage_class);
        Ok(headers)
    }

    async fn read_headers_of(&self, row: &InodeRow, key: &Key) -> Result<ObjectHeaders> {
        if let Some(headers) = known(row) {
            return Ok(headers);
        }
        let meta = self.store.head(key).await?;
        match &row.version {
            Some(version) if !version.same(&meta.version) => Err(FsError::Stale),
            _ => Ok(meta.headers),
        }
    }

    /// The row of a file with the attributes that its object has. Those of one that only a listing has shown are defaults, and
    /// whoever changes one of them, or writes the object anew, would store them all.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the bucket has another version, or none.
    pub(super) async fn with_attr(&self, row: InodeRow, key: &Key) -> Result<InodeRow> {
        let Some(version) = row.version.clone().filter(|_| self.has_unread_attr(&row)) else { return Ok(row) };
        let meta = self.remote.head(key).await?.filter(|meta| version.same(&meta.version)).ok_or(FsError::Stale)?;
        let (ino, row) = (row.ino, self.meta.learn(row.ino, version, to_meta(&meta.headers)).await?);
        self.note_set_ids(ino, true);
        row.filter(|row| row.headers.is_some()).ok_or(FsError::Stale)
    }

    /// Headers for the commit of `row` under `key`.
    pub(super) async fn headers_for_commit(&self, row: &InodeRow, key: &Key) -> Result<ObjectHeaders> {
        if row.version.is_none() {
            return Ok(self.for_new(row, key));
        }
        match self.headers_of(row, key).await {
            Ok(headers) => Ok(self.for_rewrite(headers, row)),
            // Replaced or deleted elsewhere: the commit's condition decides what that means.
            Err(FsError::Stale) => Ok(self.for_new(row, key)),
            Err(FsError::Store(e)) if e.kind == crate::store::ErrorKind::NotFound => Ok(self.for_new(row, key)),
            Err(e) => Err(e),
        }
    }

    /// Takes over into the catalogue that we wrote `row`'s object with these headers.
    pub(super) async fn note_written(&self, row: &InodeRow, version: Version, headers: &ObjectHeaders) -> Result<()> {
        self.note_settled(row, version, headers, |_| {}).await
    }

    /// The same, with what else has changed in the row.
    pub(super) async fn note_settled(
        &self,
        row: &InodeRow,
        version: Version,
        headers: &ObjectHeaders,
        settle: impl FnOnce(&mut InodeRow) + Send + 'static,
    ) -> Result<()> {
        let staged = self.writer.get(row.ino);
        let is_local = move || staged.is_some_and(|s| s.is_changed());
        self.meta.committed(row.ino, version, to_meta(headers).json, is_local, settle).await?;
        Ok(())
    }
}

/// A HEAD's answer in the catalogue's words.
pub(super) fn found_object(meta: &ObjectMeta) -> Found {
    Found::Object {
        version: meta.version.clone(),
        storage_class: meta.headers.storage_class.clone(),
        headers: Some(to_meta(&meta.headers)),
    }
}
