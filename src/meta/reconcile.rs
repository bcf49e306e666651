//! Decides what an answer of the bucket means for what we believe.
//!
//! Owns: the rules by which a sighting (a name as the bucket shows it now) changes an inode row. Pure.
//! Does not own: writing the rows (`meta::apply`), asking the bucket (`remote`).

use super::headers::{self, HeaderAttrs, Kept};
use super::xattrs;
use crate::db::{InodeRow, Marker};
use crate::types::{Attr, FileKind, Name, Timestamp, Version, WriteId};
use std::collections::BTreeMap;

/// A name as the bucket shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The name within its directory.
    pub name: Name,
    /// What is there.
    pub found: Found,
}

/// What the bucket has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An object.
    Object {
        /// Its version.
        version: Version,
        /// Its storage class, where told.
        storage_class: Option<String>,
        /// Its headers, if they were read.
        headers: Option<Headers>,
    },
    /// Keys below `name/`.
    Dir {
        /// Whether there is a marker object, if that is known.
        marker: Option<bool>,
        /// Version and headers of the marker, if they were read.
        read: Option<(Version, Headers)>,
    },
}

/// The headers of an object: as JSON to be kept, and the user metadata in them to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// All of them.
    pub json: String,
    /// User metadata: names in lower case, without `x-amz-meta-`. `None`: what it says of attributes does not count.
    pub user: Option<BTreeMap<String, String>>,
}

impl Headers {
    /// The same, of which nobody reads attributes if those are kept elsewhere.
    #[must_use]
    pub(super) fn where_kept(self, kept: Kept) -> Headers {
        Headers { user: self.user.filter(|_| kept.in_objects()), ..self }
    }

    /// What they say of attributes, if that counts. `is_dir`: they are those of a marker.
    pub(super) fn said(&self, is_dir: bool) -> Option<HeaderAttrs> {
        let user = self.user.as_ref()?;
        Some(if is_dir { headers::from_marker(user) } else { headers::from_user(user) })
    }

    fn xattrs(&self) -> Option<String> {
        self.user.as_ref().map(xattrs::in_user)
    }
}

/// What objects that say nothing of owner and mode are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whether `uid` holds for objects that name another owner too (mount option `uid=`).
    pub uid_forced: bool,
    /// Whether `gid` holds for objects that name another group too (mount option `gid=`).
    pub gid_forced: bool,
    /// Permission bits of files.
    pub file_perm: u16,
    /// Permission bits of directories.
    pub dir_perm: u16,
    /// Permission bits of all files, whatever objects say (mount option `file_mode=`).
    pub file_mode: Option<u16>,
    /// Permission bits of all directories, whatever objects say (mount option `dir_mode=`).
    pub dir_mode: Option<u16>,
    /// Where attributes are kept.
    pub kept: Kept,
    /// Shown where the bucket knows no time: implied directories.
    pub mounted_at: Timestamp,
}

impl Defaults {
    /// Attributes as the mount's options show them, whatever is stored. A symbolic link has the permission bits that it has: they
    /// mean nothing (symlink(7)).
    pub fn shown(&self, mut attr: Attr) -> Attr {
        if self.uid_forced {
            attr.uid = self.uid;
        }
        if self.gid_forced {
            attr.gid = self.gid;
        }
        let forced = match attr.kind {
            FileKind::Dir => self.dir_mode,
            FileKind::Symlink => None,
            _ => self.file_mode,
        };
        attr.perm = forced.unwrap_or(attr.perm);
        attr
    }
}

/// What is to be done with the row of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: what we have is newer than the answer, or holds changes of ours.
    Keep,
    /// There is no row: make one.
    Insert,
    /// The same version: confirm it, and take what was newly read.
    Confirm,
    /// Another version of the same kind, and nobody has it open: the inode takes it over.
    Update,
    /// Another kind, or another version while the old one is open: the name gets a new inode.
    Replace,
}

impl Found {
    /// The same, of which nobody reads attributes if those are kept elsewhere.
    #[must_use]
    pub(super) fn where_kept(self, kept: Kept) -> Found {
        match self {
            Found::Object { version, storage_class, headers } => {
                Found::Object { version, storage_class, headers: headers.map(|h| h.where_kept(kept)) }
            }
            Found::Dir { marker, read } => {
                Found::Dir { marker, read: read.map(|(version, headers)| (version, headers.where_kept(kept))) }
            }
        }
    }

    /// The kind that the bucket shows, as far as it was read.
    pub fn kind(&self) -> FileKind {
        match self {
            Found::Dir { .. } => FileKind::Dir,
            Found::Object { version, headers, .. } => {
                let said = headers.as_ref().and_then(|h| h.said(false));
                said.map_or(FileKind::File, |said| said.kind_of_object(version.size))
            }
        }
    }
}

/// The verdict on `row`, given what was found by a question asked at `began`.
pub(super) fn judge(row: Option<&InodeRow>, found: &Found, pinned: bool, began: Timestamp) -> Verdict {
    let Some(row) = row else { return Verdict::Insert };
    if row.local || row.checked_at > began {
        return Verdict::Keep;
    }
    match found {
        Found::Dir { .. } if row.attr.kind == FileKind::Dir => Verdict::Confirm,
        Found::Dir { .. } => Verdict::Replace,
        Found::Object { version, headers, .. } => {
            let same = row.version.as_ref().is_some_and(|v| v.same(version));
            let is_read = headers.as_ref().is_some_and(|h| h.user.is_some());
            let kind_known = is_read || row.headers.is_some() && same;
            let kind_fits = if is_read { row.attr.kind == found.kind() } else { row.attr.kind != FileKind::Dir };
            match (same, kind_fits) {
                (_, false) => Verdict::Replace,
                (true, true) => Verdict::Confirm,
                (false, true) if pinned || !kind_known && row.attr.kind != FileKind::File => Verdict::Replace,
                (false, true) => Verdict::Update,
            }
        }
    }
}

/// The row's content as the bucket shows it, for [`Verdict::Insert`], [`Verdict::Update`] and [`Verdict::Replace`].
pub(super) fn adopt(row: &mut InodeRow, found: &Found, defaults: &Defaults, began: Timestamp) {
    row.attr = attr_of(found, defaults);
    row.symlink = None;
    row.checked_at = began;
    match found {
        Found::Object { version, storage_class, headers } => {
            row.version = Some(version.clone());
            row.storage_class.clone_from(storage_class);
            row.headers = headers.as_ref().map(|h| h.json.clone());
            row.xattrs = headers.as_ref().and_then(Headers::xattrs);
        }
        Found::Dir { marker, read } => {
            row.version = read.as_ref().map(|(v, _)| v.clone());
            row.storage_class = None;
            row.headers = read.as_ref().map(|(_, h)| h.json.clone()).or_else(|| nothing_to_read(*marker));
            row.xattrs = read.as_ref().and_then(|(_, h)| h.xattrs());
            row.marker = if marker.unwrap_or(false) { Marker::Present } else { Marker::Implied };
        }
    }
}

/// Takes over what a question newly read about a version that we know.
pub(super) fn confirm(row: &mut InodeRow, found: &Found, defaults: &Defaults, began: Timestamp) {
    row.checked_at = began;
    match found {
        Found::Object { version, storage_class, headers } => {
            let mut is_rewritten = false;
            if let Some(known) = &mut row.version
                && known.last_modified.is_none()
            {
                known.last_modified = version.last_modified;
                // Until now that of a PUT of ours, which somebody else may have given other metadata since: the ETag stays the same.
                is_rewritten = headers.as_ref().is_some_and(|now| is_of_other_write(row.headers.as_deref(), now));
            }
            if storage_class.is_some() {
                row.storage_class.clone_from(storage_class);
            }
            if let Some(headers) = headers
                && (row.headers.is_none() || is_rewritten)
            {
                if headers.user.is_some() {
                    let before = std::mem::replace(&mut row.attr, attr_of(found, defaults));
                    keep_access(&mut row.attr, &before);
                }
                row.headers = Some(headers.json.clone());
                row.xattrs = headers.xattrs();
            }
        }
        Found::Dir { marker, read } => {
            match marker {
                Some(true) => {
                    if row.marker != Marker::Present && read.is_none() {
                        // What is known is of the time without it: nobody has read what the new one says.
                        row.headers = None;
                        row.xattrs = None;
                    }
                    row.marker = Marker::Present;
                }
                Some(false) if row.marker == Marker::Present => row.marker = Marker::Implied,
                _ => {}
            }
            if row.headers.is_none() {
                row.headers = nothing_to_read(*marker);
            }
            if let Some((version, headers)) = read {
                if headers.user.is_some() {
                    let mtime = row.attr.mtime;
                    row.attr = attr_of(found, defaults);
                    // Children that come and go move a directory's mtime on; the marker only remembers the last setattr.
                    row.attr.mtime = row.attr.mtime.max(mtime);
                }
                row.version = Some(version.clone());
                row.headers = Some(headers.json.clone());
                row.xattrs = headers.xattrs();
            }
        }
    }
}

/// Whether headers that were read now are not of the write that those which are known are of.
fn is_of_other_write(known: Option<&str>, now: &Headers) -> bool {
    let known = known.and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok());
    let id = known.as_ref().and_then(|known| known["user"][WriteId::HEADER].as_str());
    now.user.as_ref().is_some_and(|user| user.get(WriteId::HEADER).map(String::as_str) != id)
}

/// Takes over what the headers say of the version that `row` shows, if nobody has read them. Size and kind stay: an inode never
/// changes its kind, and headers that name another are left to whoever looks the name up.
pub(super) fn learn(row: &mut InodeRow, headers: &Headers, defaults: &Defaults) {
    if row.headers.is_some() {
        return;
    }
    let Some(said) = headers.said(row.attr.kind == FileKind::Dir) else {
        row.headers = Some(headers.json.clone());
        return;
    };
    let object_size = row.version.as_ref().map_or(row.attr.size, |version| version.size);
    let named = said.kind_of_object(object_size);
    if row.attr.kind != FileKind::Dir && row.attr.kind != named {
        return;
    }
    let modified = row.version.as_ref().and_then(|v| v.last_modified).unwrap_or(row.attr.mtime);
    let old = row.attr.clone();
    let size = said.target_of_object(object_size).filter(|_| old.kind == FileKind::Symlink);
    let size = size.map_or(old.size, |target| target.len() as u64);
    row.attr = attr_from(old.kind, &said, size, modified, defaults);
    row.attr.ctime = row.attr.ctime.max(old.ctime);
    keep_access(&mut row.attr, &old);
    if old.kind == FileKind::Dir {
        row.attr.mtime = row.attr.mtime.max(old.mtime);
    }
    row.headers = Some(headers.json.clone());
    row.xattrs = headers.xattrs();
}

/// Whoever has read a file before its headers were known has moved its atime; else that is the mtime.
fn keep_access(attr: &mut Attr, before: &Attr) {
    if before.atime > before.mtime {
        attr.atime = attr.atime.max(before.atime);
    }
}

/// The same of a directory's marker, which need not be the one that the row shows: of another one, which may have the same (no) bytes,
/// all is new.
pub(super) fn learn_marker(row: &mut InodeRow, version: &Version, headers: &Headers, defaults: &Defaults) {
    let is_same = row.version.as_ref().is_some_and(|known| known.same(version));
    if !is_same || row.headers.as_deref() != Some(headers.json.as_str()) {
        row.version = Some(version.clone());
        row.headers = None;
    }
    learn(row, headers, defaults);
}

/// A directory that is known to have no marker has no headers either, and nobody need ask for them.
fn nothing_to_read(marker: Option<bool>) -> Option<String> {
    (marker == Some(false)).then(|| "{}".to_owned())
}

fn attr_of(found: &Found, defaults: &Defaults) -> Attr {
    let (said, size, modified) = match found {
        Found::Object { version, headers, .. } => {
            let said = headers.as_ref().and_then(|h| h.said(false)).unwrap_or_default();
            // The kernel cuts a link's target to the size that it is told.
            let size = said.target_of_object(version.size).map_or(version.size, |target| target.len() as u64);
            (said, size, version.last_modified)
        }
        Found::Dir { read, .. } => {
            let said = read.as_ref().and_then(|(_, h)| h.said(true)).unwrap_or_default();
            (said, 0, read.as_ref().and_then(|(v, _)| v.last_modified))
        }
    };
    attr_from(found.kind(), &said, size, modified.unwrap_or(defaults.mounted_at), defaults)
}

fn attr_from(kind: FileKind, said: &HeaderAttrs, size: u64, modified: Timestamp, defaults: &Defaults) -> Attr {
    let default_perm = match kind {
        FileKind::Dir => defaults.dir_perm,
        FileKind::Symlink => 0o777,
        _ => defaults.file_perm,
    };
    let mtime = said.mtime.unwrap_or(modified);
    Attr {
        kind,
        perm: said.perm.unwrap_or(default_perm),
        uid: said.uid.unwrap_or(defaults.uid),
        gid: said.gid.unwrap_or(defaults.gid),
        rdev: said.rdev.unwrap_or(0),
        size,
        atime: said.atime.unwrap_or(mtime),
        mtime,
        ctime: said.ctime.unwrap_or(modified),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ETag, Ino};

    fn defaults() -> Defaults {
        Defaults {
            uid: 10,
            gid: 20,
            uid_forced: false,
            gid_forced: false,
            file_perm: 0o644,
            dir_perm: 0o755,
            file_mode: None,
            dir_mode: None,
            kept: Kept::InObjects,
            mounted_at: Timestamp::from_nanos(1),
        }
    }

    #[test]
    fn modes_of_the_mount_are_shown_for_files_and_directories_and_not_for_links() {
        let forced = Defaults { file_mode: Some(0o640), dir_mode: Some(0o2750), ..defaults() };
        let of = |found: &Found| forced.shown(attr_of(found, &forced));
        let (file, pipe, link) = (object("a", Some("33188")), object("a", Some("4516")), object("a", Some("41471")));
        assert_eq!((of(&file).perm, of(&pipe).perm, of(&link).perm), (0o640, 0o640, 0o777));
        assert_eq!((of(&pipe).kind, of(&link).kind), (FileKind::Fifo, FileKind::Symlink));
        assert_eq!(of(&Found::Dir { marker: None, read: None }).perm, 0o2750);
        assert_eq!(attr_of(&file, &forced).perm, 0o644, "what is stored");
    }

    fn object(etag: &str, mode: Option<&str>) -> Found {
        let user = mode.map(|m| BTreeMap::from([("mode".to_owned(), m.to_owned())]));
        let headers = user.map(|user| Headers { json: "{}".into(), user: Some(user) });
        let version = Version { etag: ETag::parse(etag), last_modified: Some(Timestamp::from_parts(9, 0)), size: 3 };
        Found::Object { version, storage_class: None, headers }
    }

    fn row(found: &Found) -> InodeRow {
        let mut row = InodeRow {
            ino: Ino(2),
            parent: Some(Ino::ROOT),
            name: Name::parse("a").ok(),
            attr: attr_of(found, &defaults()),
            version: None,
            storage_class: None,
            symlink: None,
            headers: None,
            xattrs: None,
            local: false,
            checked_at: Timestamp::default(),
            complete_at: None,
            marker: Marker::Implied,
            place: None,
        };
        adopt(&mut row, found, &defaults(), Timestamp::from_nanos(50));
        row
    }

    #[test]
    fn our_own_newer_state_wins() {
        let known = row(&object("a", None));
        let at = |n| Timestamp::from_nanos(n);
        assert_eq!(judge(Some(&known), &object("b", None), false, at(49)), Verdict::Keep);
        assert_eq!(judge(Some(&known), &object("b", None), false, at(51)), Verdict::Update);
        let dirty = InodeRow { local: true, ..known };
        assert_eq!(judge(Some(&dirty), &object("b", None), false, at(51)), Verdict::Keep);
    }

    #[test]
    fn an_open_inode_keeps_its_version() {
        let known = row(&object("a", None));
        assert_eq!(judge(Some(&known), &object("b", None), true, Timestamp::from_nanos(60)), Verdict::Replace);
        assert_eq!(judge(Some(&known), &object("a", None), true, Timestamp::from_nanos(60)), Verdict::Confirm);
    }

    #[test]
    fn a_marker_with_an_octal_mode_of_a_setgid_directory_is_no_link() {
        let user = BTreeMap::from([("mode".to_owned(), "42755".to_owned())]);
        let (version, headers) = (
            Version { etag: ETag::parse("a"), last_modified: None, size: 0 },
            Headers { json: "{}".into(), user: Some(user) },
        );
        let found = Found::Dir { marker: Some(true), read: Some((version.clone(), headers.clone())) };
        let mut known = row(&found);
        assert_eq!((known.attr.kind, known.attr.perm), (FileKind::Dir, 0o2755));
        known.headers = None;
        known.attr.perm = 0o700;
        learn_marker(&mut known, &version, &headers, &defaults());
        assert_eq!(known.attr.perm, 0o2755);
    }

    #[test]
    fn a_directory_that_has_got_a_marker_is_read_again() {
        let dir = |marker| Found::Dir { marker, read: None };
        let mut known = row(&dir(Some(false)));
        assert_eq!(known.headers.as_deref(), Some("{}"), "there is nothing to read");
        confirm(&mut known, &dir(None), &defaults(), Timestamp::from_nanos(60));
        assert!(known.headers.is_some());
        confirm(&mut known, &dir(Some(true)), &defaults(), Timestamp::from_nanos(70));
        assert_eq!((known.marker, known.headers.clone()), (Marker::Present, None));
        known.headers = Some("read".to_owned());
        confirm(&mut known, &dir(Some(true)), &defaults(), Timestamp::from_nanos(80));
        assert_eq!(known.headers.as_deref(), Some("read"), "it is the one that was there");
    }

    #[test]
    fn an_inode_never_changes_its_kind() {
        let now = Timestamp::from_nanos(60);
        let listed = row(&object("a", None));
        let link = object("a", Some("41471"));
        assert_eq!(link.kind(), FileKind::Symlink);
        assert_eq!(judge(Some(&listed), &link, false, now), Verdict::Replace);
        let known_link = row(&link);
        assert_eq!(
            judge(Some(&known_link), &object("a", None), false, now),
            Verdict::Confirm,
            "a listing reads no mode"
        );
        assert_eq!(judge(Some(&known_link), &object("b", None), false, now), Verdict::Replace);
        let dir = Found::Dir { marker: None, read: None };
        assert_eq!(judge(Some(&listed), &dir, false, now), Verdict::Replace);
        assert_eq!(judge(Some(&row(&dir)), &dir, false, now), Verdict::Confirm);
        assert_eq!(judge(Some(&row(&dir)), &object("a", None), false, now), Verdict::Replace);
    }

    #[test]
    fn an_empty_object_with_a_target_among_its_headers_is_a_link_as_long_as_that() {
        let version = Version { etag: ETag::parse("a"), last_modified: None, size: 0 };
        let user = BTreeMap::from([("--symlink-target".into(), "some%2Fwhere".into())]);
        let headers = Some(Headers { json: "{}".into(), user: Some(user) });
        let link = row(&Found::Object { version, storage_class: None, headers: headers.clone() });
        assert_eq!((link.attr.kind, link.attr.size, link.attr.perm), (FileKind::Symlink, 10, 0o777));
        let mut moved = InodeRow { headers: None, attr: Attr { size: 0, ..link.attr.clone() }, ..link.clone() };
        learn(&mut moved, headers.as_ref().unwrap(), &defaults());
        assert_eq!((moved.attr.size, moved.headers.is_some()), (10, true));
        let Found::Object { version, storage_class, .. } = object("a", None) else { return };
        assert_eq!(Found::Object { version, storage_class, headers }.kind(), FileKind::File, "three bytes are no link");
    }

    #[test]
    fn headers_read_later_are_taken_over_and_a_mode_makes_no_directory() {
        let mut known = row(&object("a", None));
        confirm(&mut known, &object("a", Some("33152")), &defaults(), Timestamp::from_nanos(70));
        assert_eq!((known.attr.perm, known.headers.is_some()), (0o600, true));
        assert_eq!(known.xattrs.as_deref(), Some(""), "they have none, and that is known");
        let read_at = Timestamp::from_parts(20, 0);
        let mut read = row(&object("a", None));
        read.attr.atime = read_at;
        confirm(&mut read, &object("a", Some("33152")), &defaults(), Timestamp::from_nanos(70));
        assert_eq!((read.attr.perm, read.attr.atime), (0o600, read_at), "what was read stays read");
        confirm(&mut read, &object("a", Some("33152")), &defaults(), Timestamp::from_nanos(80));
        assert_eq!(read.attr.atime, read_at);
        adopt(&mut read, &object("b", None), &defaults(), Timestamp::from_nanos(90));
        assert_eq!(read.attr.atime, read.attr.mtime, "nobody has read the new version");
        assert_eq!(object("a", Some("16877")).kind(), FileKind::File);
    }

    #[test]
    fn attributes_that_are_kept_here_stay_with_the_version_whatever_headers_say() {
        let at = |n| Timestamp::from_nanos(n);
        let here = |found: Found| found.where_kept(Kept::Here);
        let mut known = row(&object("a", None));
        known.attr.perm = 0o600;
        let link = here(object("a", Some("41471")));
        assert_eq!((link.kind(), judge(Some(&known), &link, false, at(60))), (FileKind::File, Verdict::Confirm));
        confirm(&mut known, &link, &defaults(), at(60));
        assert_eq!((known.attr.perm, known.attr.kind, known.headers.is_some()), (0o600, FileKind::File, true));
        let mut learned = InodeRow { headers: None, ..known.clone() };
        let Found::Object { headers: Some(headers), .. } = &link else { panic!("it is an object") };
        learn(&mut learned, headers, &defaults());
        assert_eq!((learned.attr.perm, learned.headers.is_some()), (0o600, true));
        let other = here(object("b", Some("33152")));
        assert_eq!(judge(Some(&known), &other, false, at(70)), Verdict::Update);
        adopt(&mut known, &other, &defaults(), at(70));
        assert_eq!(known.attr.perm, 0o644, "another version has none");
        // What an earlier mount has read of it is known here.
        let before = row(&object("a", Some("41471")));
        assert_eq!(judge(Some(&before), &link, false, at(60)), Verdict::Confirm);
        assert_eq!(judge(Some(&before), &here(object("b", Some("41471"))), false, at(60)), Verdict::Replace);
    }
}
