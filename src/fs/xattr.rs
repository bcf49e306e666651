//! Extended attributes.
//!
//! Owns: get, set, list, remove; which attributes there are: `user.*`, which an object carries, and `user.objfs.*`, which tell
//! something. Does not own: their form in the object's metadata (`meta::xattrs`), the way there (`attr`).

use super::attr::Wanted;
use super::headers::{known, xattrs_of};
use super::{Fs, FsError, Result};
use crate::meta::headers::Kept;
use crate::meta::{InodeRow, Marker, xattrs};
use crate::store::ObjectMeta;
use crate::types::{ContentSum, FileKind, Ino, Version};
use std::sync::Arc;
use std::time::Duration;

/// The attribute that tells which name a conflict copy had. Copies of it carry it along, so it can be set.
const CONFLICT: &[u8] = b"user.objfs.conflict";
/// How long the URL of `user.objfs.url` is good.
const URL_VALID: Duration = Duration::from_secs(3600);
/// The storage class that answers to a HEAD do not name ("HeadObject" in the S3 API reference).
const STANDARD: &str = "STANDARD";
/// Longest name of an attribute (XATTR_NAME_MAX, include/uapi/linux/limits.h).
const NAME_LEN_MAX: usize = 255;

/// What an attribute of ours tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    ETag,
    StorageClass,
    Version,
    State,
    Url,
    Sha256,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    /// What somebody has set.
    Stored,
    /// The name that a conflict copy had.
    Conflict,
    /// Setting it, to whatever value, asks the bucket at once.
    Refresh,
    /// What we know.
    Told(Told),
    /// A name that is kept for more of these.
    Unused,
    /// What somebody would set, where objects carry none (`nometa`).
    NotKept,
}

impl Attribute {
    /// # Errors
    /// [`FsError::NotSupported`] for attributes of the kernel (`system.*`, `security.*`, `trusted.*`) and names without any
    /// namespace (xattr(7)). It must not be ENOSYS, after which the kernel asks for no attribute at all (fs/fuse/xattr.c).
    fn of(name: &[u8]) -> Result<Attribute> {
        let own = match name.strip_prefix(b"user.") {
            None => return Err(FsError::NotSupported),
            Some(b"") => return Err(FsError::Invalid),
            Some(rest) => rest.strip_prefix(b"objfs."),
        };
        Ok(match own {
            None => Attribute::Stored,
            Some(b"conflict") => Attribute::Conflict,
            Some(b"refresh") => Attribute::Refresh,
            Some(b"etag") => Attribute::Told(Told::ETag),
            Some(b"storage-class") => Attribute::Told(Told::StorageClass),
            Some(b"version") => Attribute::Told(Told::Version),
            Some(b"state") => Attribute::Told(Told::State),
            Some(b"url") => Attribute::Told(Told::Url),
            Some(b"sha256") => Attribute::Told(Told::Sha256),
            Some(_) => Attribute::Unused,
        })
    }

    /// What is left of it for the mount: without attributes in objects, what would come from their headers is not there.
    fn where_kept(self, kept: Kept) -> Attribute {
        match self {
            _ if kept.in_objects() => self,
            Attribute::Stored | Attribute::Conflict => Attribute::NotKept,
            Attribute::Told(Told::Sha256) => Attribute::Unused,
            other => other,
        }
    }
}

impl Fs {
    fn attribute(&self, name: &[u8]) -> Result<Attribute> {
        Ok(Attribute::of(name)?.where_kept(self.kept()))
    }

    /// GETXATTR: the value.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`], [`FsError::NotSupported`]; what the store says if the object's headers were not read yet.
    pub async fn getxattr(self: &Arc<Self>, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        match self.attribute(name)? {
            Attribute::Stored | Attribute::Conflict => {
                let row = self.row_with_xattrs(ino).await?;
                match xattrs::parse(&xattrs_of(&row)).remove(name) {
                    Some(value) => Ok(value),
                    None if name == CONFLICT => self.conflict_of(ino)?.ok_or(FsError::NoAttribute),
                    None => Err(FsError::NoAttribute),
                }
            }
            Attribute::Told(what) => Ok(self.told(ino, what).await?.into_bytes()),
            Attribute::Refresh | Attribute::Unused | Attribute::NotKept => Err(FsError::NoAttribute),
        }
    }

    /// LISTXATTR: the names, each with a zero at its end (listxattr(2)). Of ours only what a copy of the file should have as well.
    /// While the bucket does not answer, and where asking for each entry of a directory is not worth it, those that are known.
    ///
    /// # Errors
    /// As [`Fs::getxattr`].
    pub async fn listxattr(self: &Arc<Self>, ino: Ino) -> Result<Vec<u8>> {
        let mut row = self.row(ino)?;
        if !self.kept().in_objects() {
            return Ok(Vec::new());
        }
        if is_unread(&row) && row.parent.is_some_and(|dir| self.unread.is_worth_listing(dir, self.meta.now())) {
            row = match self.row_with_xattrs(ino).await {
                Err(e) if e.is_outage() => row,
                read => read?,
            };
        }
        let mut names: Vec<Vec<u8>> = xattrs::parse(&xattrs_of(&row)).into_keys().collect();
        names.retain(|name| {
            is_a_name(name) && matches!(Attribute::of(name), Ok(Attribute::Stored | Attribute::Conflict))
        });
        if self.conflict_of(ino)?.is_some() && !names.iter().any(|name| name == CONFLICT) {
            names.push(CONFLICT.to_vec());
        }
        Ok(names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect())
    }

    /// SETXATTR. It travels with what is to be committed of the file, or is a copy of the object to itself. `flags` as of setxattr(2).
    ///
    /// # Errors
    /// [`FsError::Exists`] and [`FsError::NoAttribute`] as `flags` say, [`FsError::FixedAttribute`], [`FsError::MetadataFull`],
    /// [`FsError::NotSupported`]; what the store says.
    pub async fn setxattr(self: &Arc<Self>, ino: Ino, name: Vec<u8>, value: Vec<u8>, flags: i32) -> Result<()> {
        match self.attribute(&name)? {
            Attribute::Stored | Attribute::Conflict => self.change_xattr(ino, name, Some(value), flags).await,
            Attribute::Refresh => self.refresh(ino).await,
            Attribute::Told(_) | Attribute::Unused => Err(FsError::FixedAttribute),
            Attribute::NotKept => Err(FsError::NotSupported),
        }
    }

    /// REMOVEXATTR.
    ///
    /// # Errors
    /// As [`Fs::setxattr`].
    pub async fn removexattr(self: &Arc<Self>, ino: Ino, name: Vec<u8>) -> Result<()> {
        match self.attribute(&name)? {
            Attribute::Stored | Attribute::Conflict => self.change_xattr(ino, name, None, libc::XATTR_REPLACE).await,
            Attribute::Refresh | Attribute::Told(_) | Attribute::Unused => Err(FsError::FixedAttribute),
            Attribute::NotKept => Err(FsError::NotSupported),
        }
    }

    async fn change_xattr(self: &Arc<Self>, ino: Ino, name: Vec<u8>, value: Option<Vec<u8>>, flags: i32) -> Result<()> {
        self.writable()?;
        let fs = Arc::clone(self);
        self.changing_attr(ino, async move {
            let row = fs.row_with_attr(ino).await?;
            if !matches!(row.attr.kind, FileKind::File | FileKind::Dir) {
                // Of others the kernel takes none of these (fs/xattr.c, xattr_permission).
                return Err(FsError::Impossible);
            }
            match xattrs::parse(&xattrs_of(&row)).contains_key(&name) {
                true if flags & libc::XATTR_CREATE != 0 => return Err(FsError::Exists),
                false if flags & libc::XATTR_REPLACE != 0 => {
                    // The mark of a conflict copy is none that anybody has set.
                    let is_mark = name == CONFLICT && fs.conflict_of(ino)?.is_some();
                    return Err(if is_mark { FsError::FixedAttribute } else { FsError::NoAttribute });
                }
                _ => {}
            }
            let wanted = Wanted::Xattr { name, value, now: fs.meta.now() };
            fs.check_room(&row, &wanted)?;
            fs.store_attr(row, wanted).await
        })
        .await
    }

    /// Whether the store takes that much metadata of one object. What takes less of it than before is never refused.
    fn check_room(&self, row: &InodeRow, wanted: &Wanted) -> Result<()> {
        let headers = known(row).unwrap_or_default();
        let len = self.needed_len(&headers, &wanted.applied_to(row));
        if len > self.store.capabilities().user_metadata_max && len > self.needed_len(&headers, row) {
            return Err(FsError::MetadataFull);
        }
        Ok(())
    }

    /// The row of an inode with the extended attributes that the bucket has.
    async fn row_with_xattrs(self: &Arc<Self>, ino: Ino) -> Result<InodeRow> {
        let row = self.row(ino)?;
        if is_unread(&row) { self.patiently(self.row_with_attr(ino)).await } else { Ok(row) }
    }

    async fn told(self: &Arc<Self>, ino: Ino, what: Told) -> Result<String> {
        let row = self.row(ino)?;
        match what {
            Told::State => Ok(self.state_of(&row).to_owned()),
            Told::ETag => Ok(version_of(&row)?.etag.bare().to_owned()),
            Told::StorageClass => match &row.storage_class {
                Some(class) => Ok(class.clone()),
                None => Ok(self.head_of(&row).await?.headers.storage_class.unwrap_or_else(|| STANDARD.to_owned())),
            },
            Told::Version => self.head_of(&row).await?.version_id.ok_or(FsError::NoAttribute),
            Told::Url => {
                version_of(&row)?;
                self.store.presign(&self.key(&row)?, URL_VALID).await?.ok_or(FsError::NoAttribute)
            }
            Told::Sha256 => self.sha256_of(ino).await,
        }
    }

    /// How far a file is on its way into the bucket, in one word.
    fn state_of(&self, row: &InodeRow) -> &'static str {
        let Some(staged) = self.writer.get(row.ino).filter(|staged| staged.is_changed()) else {
            // The marker of a directory that was emptied here is neither in the bucket nor in the journal.
            return if row.marker == Marker::Owed { "open" } else { "clean" };
        };
        // Whoever lets go of it has the journal told what there is.
        let is_written_to = self.handles.of(row.ino).iter().any(|handle| handle.writable);
        if self.queue().is_parked(row.ino) {
            "parked"
        } else if staged.is_uploading() {
            "uploading"
        } else if staged.is_recorded() || staged.is_journaled() && !is_written_to {
            "journaled"
        } else {
            "open"
        }
    }

    /// What the bucket says of the version that a row shows.
    async fn head_of(self: &Arc<Self>, row: &InodeRow) -> Result<ObjectMeta> {
        let (version, key) = (version_of(row)?, self.key(row)?);
        if let Some(meta) = self.remote.head(&key).await?.filter(|meta| version.same(&meta.version)) {
            return Ok(meta);
        }
        if row.attr.kind != FileKind::Dir {
            self.look_again(row, &key).await?;
        }
        Err(FsError::Stale)
    }

    /// The SHA-256 of a file's bytes, if its object carries it. Nobody reads them for that.
    async fn sha256_of(self: &Arc<Self>, ino: Ino) -> Result<String> {
        let row = self.row_with_xattrs(ino).await?;
        // Until the row shows the version that was committed, it has the sum of the one before.
        if row.local || self.writer.get(ino).is_some_and(|staged| staged.is_changed()) {
            return Err(FsError::NoAttribute);
        }
        let sum = known(&row).and_then(|headers| ContentSum::parse(headers.user.get(ContentSum::HEADER)?));
        let version = version_of(&row)?;
        sum.as_ref().and_then(|sum| sum.of(version)).map(str::to_owned).ok_or(FsError::NoAttribute)
    }
}

/// Whether programs can ask for an attribute of this name. Of others, which somebody else has stored, the kernel may refuse the whole
/// list (fs/fuse/xattr.c, fuse_verify_xattr_list).
fn is_a_name(name: &[u8]) -> bool {
    name.len() <= NAME_LEN_MAX && !name.contains(&0)
}

/// The version that a row shows.
fn version_of(row: &InodeRow) -> Result<&Version> {
    row.version.as_ref().ok_or(FsError::NoAttribute)
}

/// Whether the bucket has something of the inode whose headers nobody has read.
fn is_unread(row: &InodeRow) -> bool {
    let is_there = row.version.is_some() || row.attr.kind == FileKind::Dir && row.marker != Marker::Owed;
    is_there && row.headers.is_none() && row.parent.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_what_is_set_what_is_told_or_nothing() {
        let of = |name: &str| Attribute::of(name.as_bytes());
        assert_eq!(of("user.a").unwrap(), Attribute::Stored);
        assert_eq!(of("user.objfs").unwrap(), Attribute::Stored);
        assert_eq!(of("user.objfs.etag").unwrap(), Attribute::Told(Told::ETag));
        assert_eq!(of("user.objfs.refresh").unwrap(), Attribute::Refresh);
        assert_eq!(of("user.objfs.else").unwrap(), Attribute::Unused);
        assert_eq!(Attribute::of(CONFLICT).unwrap(), Attribute::Conflict);
        for name in ["system.posix_acl_access", "security.selinux", "trusted.a", "a", "user", "User.a"] {
            assert_eq!(of(name).unwrap_err().errno(), libc::EOPNOTSUPP, "{name}");
        }
        assert_eq!(of("user.").unwrap_err().errno(), libc::EINVAL);
        let here = |name: &str| Attribute::of(name.as_bytes()).unwrap().where_kept(Kept::Here);
        assert_eq!((here("user.a"), here("user.objfs.conflict")), (Attribute::NotKept, Attribute::NotKept));
        assert_eq!((here("user.objfs.sha256"), here("user.objfs.refresh")), (Attribute::Unused, Attribute::Refresh));
        assert_eq!(here("user.objfs.etag").where_kept(Kept::InObjects), Attribute::Told(Told::ETag));
    }
}
