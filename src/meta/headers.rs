//! Attributes as user metadata of objects.
//!
//! Owns: which names carry mode, owner and times in an object's user metadata. We write s3fs' names (decimal; mode with
//! S_IFMT, times as seconds with nanoseconds behind a point) and read s3fs, rclone (`mtime` in float seconds; with
//! `--metadata` an octal mode and RFC 3339), geesefs (as s3fs, but for symbolic links), the `file-*` family (DataSync, s5cmd)
//! and `goog-reserved-*` names. goofys writes none. What the mount option `nometa` makes of that.
//!
//! What we write has the names of s3fs, geesefs and rclone alike, and replaces what they wrote. What geesefs says of a link stays
//! true as long as it is one, and goes when something else gets the object's headers.
//! Does not own: the HTTP side of headers (`store`), the form of extended attributes (`xattrs`).

use super::xattrs;
use crate::types::{Attr, FileKind, Timestamp};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What the user metadata of an object says of its attributes. What it does not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderAttrs {
    /// The kind, when the mode names one.
    pub kind: Option<FileKind>,
    /// Permission bits.
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Device number.
    pub rdev: Option<u32>,
    /// Last access.
    pub atime: Option<Timestamp>,
    /// Last change of the content.
    pub mtime: Option<Timestamp>,
    /// Last change of content or attributes.
    pub ctime: Option<Timestamp>,
    /// Target of a symbolic link whose object is empty.
    pub target: Option<Vec<u8>>,
}

impl HeaderAttrs {
    /// The kind of an object of `size` bytes. A directory's key ends in '/': the mode of a plain key cannot make it one.
    pub fn kind_of_object(&self, size: u64) -> FileKind {
        match self.target_of_object(size) {
            Some(_) => FileKind::Symlink,
            None => self.kind.filter(|kind| *kind != FileKind::Dir).unwrap_or(FileKind::File),
        }
    }

    /// The target of a link that is an object of `size` bytes, unless it is these bytes: nothing hides bytes that are there.
    pub fn target_of_object(&self, size: u64) -> Option<&[u8]> {
        self.target.as_deref().filter(|_| size == 0)
    }
}

/// Where the attributes of files and directories are kept. What the mount option `nometa` means is decided here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kept {
    /// In the metadata of objects, for every machine.
    #[default]
    InObjects,
    /// In the catalogue of this machine alone, for as long as the version stays (`nometa`).
    Here,
}

impl Kept {
    /// Whether headers are read for attributes, and written when one is changed. If not, such a change is no request, and nobody
    /// goes by what headers say of kind, mode, owner, times and extended attributes.
    pub fn in_objects(self) -> bool {
        self == Kept::InObjects
    }

    /// Whether a file of this kind can be made: without headers every object is a plain file.
    pub fn has_kind(self, kind: FileKind) -> bool {
        self.in_objects() || matches!(kind, FileKind::File | FileKind::Dir)
    }

    /// Gives the user metadata of an object that is made or changed its attributes as [`to_user`] does, or takes those of the
    /// version before away, as nobody keeps them true any more; what geesefs says of a link as well. What is not ours is left alone.
    pub fn write(self, attr: &Attr, extended: Option<&str>, user: &mut BTreeMap<String, String>) {
        match self {
            Kept::InObjects => to_user(attr, extended, user),
            Kept::Here => OURS.iter().chain([&xattrs::HEADER, &TARGET]).for_each(|name| drop(user.remove(*name))),
        }
    }
}

/// Names under which each attribute is found, ours first.
const MODE: [&str; 3] = ["mode", "file-permissions", "goog-reserved-posix-mode"];
const UID: [&str; 3] = ["uid", "file-owner", "goog-reserved-posix-uid"];
const GID: [&str; 3] = ["gid", "file-group", "goog-reserved-posix-gid"];
const MTIME: [&str; 3] = ["mtime", "file-mtime", "goog-reserved-file-mtime"];
const ATIME: [&str; 2] = ["atime", "file-atime"];
const CTIME: [&str; 2] = ["ctime", "file-ctime"];

/// Where geesefs has the target of a symbolic link, percent-encoded, beside no bytes and perhaps the mode of a plain file
/// (core/cfg/flags.go, `symlink-attr`; core/dir.go, `CreateSymlink`; core/handles.go, `unescapeMetadata`).
const TARGET: &str = "--symlink-target";
/// Longest target of a symbolic link, in bytes (`PATH_MAX`, include/uapi/linux/limits.h).
pub const TARGET_LEN_MAX: u64 = 4096;
/// All bits of a mode.
const MODE_MAX: u32 = 0o177_777;

/// Every name that [`to_user`] writes, but for that of extended attributes: what a rewrite replaces. All other user metadata is kept
/// as it is.
const OURS: [&str; 7] = ["mode", "uid", "gid", "mtime", "ctime", "atime", "rdev"];

/// Reads the attributes out of the user metadata of an object that is no directory's marker. A value that makes no sense counts as
/// absent.
pub fn from_user(user: &BTreeMap<String, String>) -> HeaderAttrs {
    read(user, false)
}

/// The same of a directory's marker.
pub fn from_marker(user: &BTreeMap<String, String>) -> HeaderAttrs {
    read(user, true)
}

fn read(user: &BTreeMap<String, String>, is_dir: bool) -> HeaderAttrs {
    let find = |names: &[&'static str]| names.iter().find_map(|n| Some((*n, user.get(*n)?.trim())));
    let number = |names: &[&'static str]| find(names).and_then(|(_, v)| v.parse::<u32>().ok());
    let mode = find(&MODE).and_then(|(name, value)| parse_mode(name, value, is_dir));
    let time = |names: &[&'static str]| find(names).and_then(|(_, v)| parse_time(v));
    HeaderAttrs {
        kind: mode.and_then(FileKind::from_mode),
        perm: mode.map(|m| (m & 0o7777) as u16),
        uid: number(&UID),
        gid: number(&GID),
        rdev: number(&["rdev"]),
        atime: time(&ATIME),
        mtime: time(&MTIME),
        ctime: time(&CTIME),
        target: user.get(TARGET).and_then(|value| parse_target(value)),
    }
}

/// Puts the attributes into user metadata, and leaves what is not ours alone. So are extended attributes if they are not known
/// (`None`); without any (empty) their entry goes.
pub fn to_user(attr: &Attr, extended: Option<&str>, user: &mut BTreeMap<String, String>) {
    OURS.iter().for_each(|name| drop(user.remove(*name)));
    if attr.kind != FileKind::Symlink {
        user.remove(TARGET);
    }
    if let Some(text) = extended {
        match text {
            "" => drop(user.remove(xattrs::HEADER)),
            text => drop(user.insert(xattrs::HEADER.to_owned(), text.to_owned())),
        }
    }
    let mut put = |name: &str, value: String| drop(user.insert(name.to_owned(), value));
    put("mode", attr.mode().to_string());
    put("uid", attr.uid.to_string());
    put("gid", attr.gid.to_string());
    put("mtime", format_time(attr.mtime));
    put("ctime", format_time(attr.ctime));
    put("atime", format_time(attr.atime));
    if attr.rdev != 0 {
        put("rdev", attr.rdev.to_string());
    }
}

/// User metadata of a file that is renamed at `now`: if it tells a ctime, it is that. Of other files Last-Modified tells it, which
/// the copy moves.
pub fn set_ctime(user: &mut BTreeMap<String, String>, now: Timestamp) {
    if from_user(user).ctime.is_some() {
        user.insert("ctime".to_owned(), format_time(now));
    }
}

/// Takes the times out of user metadata that [`to_user`] has put there.
pub fn remove_times(user: &mut BTreeMap<String, String>) {
    ["mtime", "ctime", "atime"].iter().for_each(|name| drop(user.remove(*name)));
}

/// `file-permissions` and `goog-reserved-posix-mode` are octal. `mode` is decimal with s3fs (src/metaheader.cpp) and geesefs
/// (core/handles.go, `setFileMode`), and octal with rclone (backend/local/metadata_linux.go). Both name the kind, and that tells
/// them apart: `100644`, rclone's plain file, is more than a mode can be in decimal, and `40755`, its directory, no kind. `42755` would
/// be a link's, but for the key of a marker (`is_dir`). Of rclone's links the mode is left out: they are plain files here,
/// `NAME.rclonelink`, as they are in the bucket.
fn parse_mode(name: &str, value: &str, is_dir: bool) -> Option<u32> {
    let in_radix = |radix| u32::from_str_radix(value, radix).ok();
    if name != "mode" {
        return in_radix(8);
    }
    let decimal = in_radix(10).filter(|mode| *mode <= MODE_MAX);
    let is_read = |mode: &u32| matches!(FileKind::from_mode(*mode), None | Some(FileKind::File | FileKind::Dir));
    let octal = in_radix(8).filter(|mode| *mode <= MODE_MAX && is_read(mode));
    let kind = |mode: Option<u32>| mode.and_then(FileKind::from_mode);
    let is_decimal = kind(decimal).is_some_and(|kind| !is_dir || kind == FileKind::Dir);
    if value.starts_with('0') || kind(octal).is_some() && !is_decimal { octal } else { decimal }
}

/// A link leads somewhere, and not through a NUL.
fn parse_target(value: &str) -> Option<Vec<u8>> {
    let target: Vec<u8> = percent_decode_str(value).collect();
    let is_path = (1..=TARGET_LEN_MAX).contains(&(target.len() as u64)) && !target.contains(&0);
    is_path.then_some(target)
}

/// Decimal seconds, perhaps with a fraction. The `file-*` family appends `ns` to nanoseconds. rclone's `atime` is as RFC 3339 says
/// (backend/local/metadata.go), and its `mtime` in seconds (backend/s3/s3.go, `metaMtime`).
fn parse_time(value: &str) -> Option<Timestamp> {
    if value.contains('T') {
        let at = OffsetDateTime::parse(value, &Rfc3339).ok()?;
        return i64::try_from(at.unix_timestamp_nanos()).ok().map(Timestamp::from_nanos);
    }
    if let Some(nanos) = value.strip_suffix("ns") {
        return nanos.parse().ok().map(Timestamp::from_nanos);
    }
    let (secs, fraction) = value.split_once('.').unwrap_or((value, ""));
    let negative = secs.starts_with('-');
    let secs: i64 = secs.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: i64 = digits.parse().ok()?;
    let nanos = if negative { -nanos } else { nanos };
    Some(Timestamp::from_nanos(secs.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

fn format_time(time: Timestamp) -> String {
    let nanos = time.nanos();
    let sign = if nanos < 0 { "-" } else { "" };
    let abs = nanos.unsigned_abs();
    match abs % 1_000_000_000 {
        0 => format!("{sign}{}", abs / 1_000_000_000),
        fraction => format!("{sign}{}.{fraction:09}", abs / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn reads_every_family() {
        let s3fs = from_user(&user(&[("mode", "33188"), ("uid", "1000"), ("mtime", "1700000000.5")]));
        assert_eq!((s3fs.kind, s3fs.perm, s3fs.uid), (Some(FileKind::File), Some(0o644), Some(1000)));
        assert_eq!(s3fs.mtime, Some(Timestamp::from_nanos(1_700_000_000_500_000_000)));
        let rclone = from_user(&user(&[("mtime", "1700000000.123456789")]));
        assert_eq!(rclone.mtime, Some(Timestamp::from_nanos(1_700_000_000_123_456_789)));
        let datasync = from_user(&user(&[("file-permissions", "0644"), ("file-mtime", "1700000000123456789ns")]));
        assert_eq!(
            (datasync.perm, datasync.mtime),
            (Some(0o644), Some(Timestamp::from_nanos(1_700_000_000_123_456_789)))
        );
        let google = from_user(&user(&[("goog-reserved-posix-mode", "100600"), ("goog-reserved-file-mtime", "5")]));
        assert_eq!((google.perm, google.mtime), (Some(0o600), Some(Timestamp::from_parts(5, 0))));
        let theirs = [("file-owner", "7"), ("file-group", "8"), ("file-atime", "5ns"), ("file-ctime", "6")];
        let owned = from_user(&user(&theirs));
        assert_eq!((owned.uid, owned.gid), (Some(7), Some(8)));
        assert_eq!((owned.atime, owned.ctime), (Some(Timestamp::from_nanos(5)), Some(Timestamp::from_parts(6, 0))));
        let google = from_user(&user(&[("goog-reserved-posix-uid", "7"), ("goog-reserved-posix-gid", "8")]));
        assert_eq!((google.uid, google.gid), (Some(7), Some(8)));
    }

    #[test]
    fn what_is_written_has_the_form_of_s3fs() {
        let attr = Attr {
            kind: FileKind::File,
            perm: 0o644,
            uid: 1000,
            gid: 100,
            rdev: 0,
            size: 4,
            atime: Timestamp::from_nanos(1_700_000_000_000_000_005),
            mtime: Timestamp::from_parts(1_700_000_000, 0),
            ctime: Timestamp::from_nanos(1_700_000_001_500_000_000),
        };
        let mut map = BTreeMap::new();
        to_user(&attr, None, &mut map);
        let wanted = [
            ("mode", "33188"),
            ("uid", "1000"),
            ("gid", "100"),
            ("mtime", "1700000000"),
            ("ctime", "1700000001.500000000"),
            ("atime", "1700000000.000000005"),
        ];
        assert_eq!(map, user(&wanted));
        to_user(&Attr { kind: FileKind::BlockDevice, perm: 0o660, rdev: 2049, ..attr }, None, &mut map);
        assert_eq!((map["mode"].as_str(), map["rdev"].as_str()), ("25008", "2049"));
    }

    #[test]
    fn modes_in_octal_are_told_from_those_in_decimal() {
        let read = |mode: &str| {
            let said = from_user(&user(&[("mode", mode)]));
            (said.kind, said.perm)
        };
        let (file, dir, link) = (Some(FileKind::File), Some(FileKind::Dir), Some(FileKind::Symlink));
        assert_eq!([read("33188"), read("100644"), read("0100644")], [(file, Some(0o644)); 3]);
        assert_eq!([read("33261"), read("100755")], [(file, Some(0o755)); 2]);
        assert_eq!([read("16877"), read("40755"), read("040755")], [(dir, Some(0o755)); 3]);
        assert_eq!([read("16832"), read("40700")], [(dir, Some(0o700)); 2]);
        assert_eq!((read("41471"), read("120777")), ((link, Some(0o777)), (None, None)));
        assert_eq!((read("420"), read("0644")), ((None, Some(0o644)), (None, Some(0o644))), "without a kind");
        assert_eq!(read("4294967295"), (None, None));
        assert_eq!(read("42755"), (link, Some(0o3403)), "of a key without a slash");
    }

    #[test]
    fn modes_of_markers_are_those_of_directories() {
        let read = |mode: &str| {
            let said = from_marker(&user(&[("mode", mode)]));
            (said.kind, said.perm)
        };
        let perms = [
            ("40755", 0o755),
            ("41777", 0o1777),
            ("42755", 0o2755),
            ("43777", 0o3777),
            ("44755", 0o4755),
            ("042755", 0o2755),
            ("16877", 0o755),
            ("17901", 0o2755),
            ("17407", 0o1777),
            ("16777", 0o611),
        ];
        for (mode, perm) in perms {
            assert_eq!(read(mode), (Some(FileKind::Dir), Some(perm)), "{mode}");
        }
        assert_eq!(read("33188"), (Some(FileKind::File), Some(0o644)), "some programs know nothing else");
        assert_eq!((read("493"), read("0755")), ((None, Some(0o755)), (None, Some(0o755))), "without a kind");
    }

    #[test]
    fn what_rclone_writes_with_metadata_is_read() {
        let said = from_user(&user(&[
            ("mode", "100640"),
            ("uid", "1000"),
            ("gid", "100"),
            ("mtime", "1700000000.123456789"),
            ("atime", "2023-11-14T23:13:21.5+01:00"),
            ("btime", "2023-11-14T22:13:20Z"),
        ]));
        assert_eq!(
            (said.kind, said.perm, said.uid, said.gid),
            (Some(FileKind::File), Some(0o640), Some(1000), Some(100))
        );
        assert_eq!(said.mtime, Some(Timestamp::from_nanos(1_700_000_000_123_456_789)));
        assert_eq!(said.atime, Some(Timestamp::from_nanos(1_700_000_001_500_000_000)));
    }

    #[test]
    fn a_link_of_geesefs_is_one_as_long_as_it_is_empty() {
        let mut map = user(&[("--symlink-target", "../a%20b%25"), ("mode", "33188"), ("uid", "7")]);
        let said = from_user(&map);
        assert_eq!((said.kind_of_object(0), said.target_of_object(0)), (FileKind::Symlink, Some(&b"../a b%"[..])));
        assert_eq!((said.kind_of_object(5), said.target_of_object(5)), (FileKind::File, None));
        let link = Attr {
            kind: FileKind::Symlink,
            perm: 0o777,
            uid: 1,
            gid: 2,
            rdev: 0,
            size: 7,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
        };
        to_user(&link, None, &mut map);
        let said = from_user(&map);
        assert_eq!((said.kind_of_object(0), said.uid), (FileKind::Symlink, Some(1)), "it has other attributes now");
        assert_eq!(said.target.as_deref(), Some(&b"../a b%"[..]));
        to_user(&Attr { kind: FileKind::File, size: 0, ..link }, None, &mut map);
        assert_eq!(from_user(&map).kind_of_object(0), FileKind::File, "nor does a file become one that takes its name");
        for nothing in ["", "a%00b"] {
            assert_eq!(from_user(&user(&[("--symlink-target", nothing)])), HeaderAttrs::default());
        }
    }

    #[test]
    fn a_ctime_is_told_where_one_was_told_before() {
        let now = Timestamp::from_nanos(9_500_000_000);
        for (before, after) in
            [(vec![], None), (vec![("ctime", "5")], Some(now)), (vec![("file-ctime", "5")], Some(now))]
        {
            let mut map = user(&before);
            set_ctime(&mut map, now);
            assert_eq!(from_user(&map).ctime, after, "{before:?}");
        }
    }

    #[test]
    fn objects_carry_no_attributes_where_the_machine_keeps_them() {
        let attr = Attr {
            kind: FileKind::File,
            perm: 0o600,
            uid: 1,
            gid: 2,
            rdev: 0,
            size: 4,
            atime: Timestamp::from_parts(5, 0),
            mtime: Timestamp::from_parts(6, 0),
            ctime: Timestamp::from_parts(7, 0),
        };
        let theirs = [("author", "Ada"), ("objfs-write", "id"), ("objfs-sha256", "sum")];
        let ours = [("mode", "33188"), ("uid", "1"), ("mtime", "5"), ("rdev", "9"), ("xattr", "x"), (TARGET, "else")];
        let mut map = user(&[&theirs[..], &ours[..]].concat());
        Kept::Here.write(&attr, Some("y"), &mut map);
        assert_eq!(map, user(&theirs));
        Kept::InObjects.write(&attr, Some("y"), &mut map);
        assert_eq!((map["mode"].as_str(), map["xattr"].as_str(), map.len()), ("33152", "y", theirs.len() + 7));
        assert!(Kept::Here.has_kind(FileKind::Dir) && !Kept::Here.has_kind(FileKind::Symlink));
        assert!(Kept::InObjects.has_kind(FileKind::Fifo));
    }

    #[test]
    fn nonsense_counts_as_absent() {
        let read = from_user(&user(&[("mode", "rw-r--r--"), ("uid", "-1"), ("mtime", "yesterday"), ("atime", "1.x")]));
        assert_eq!(read, HeaderAttrs::default());
        assert_eq!(from_user(&user(&[("mtime", "2023-11-14T"), ("atime", "Tuesday")])), HeaderAttrs::default());
    }

    #[test]
    fn what_is_written_is_read_back_and_foreign_entries_stay() {
        let attr = Attr {
            kind: FileKind::Symlink,
            perm: 0o777,
            uid: 1,
            gid: 2,
            rdev: 0,
            size: 4,
            atime: Timestamp::from_nanos(-1_500_000_000),
            mtime: Timestamp::from_nanos(1),
            ctime: Timestamp::from_parts(7, 0),
        };
        let mut map = user(&[("author", "Ada"), ("rdev", "9"), ("xattr", "theirs")]);
        to_user(&attr, None, &mut map);
        assert_eq!(map.get("author").map(String::as_str), Some("Ada"));
        assert_eq!(xattrs::in_user(&map), "theirs");
        to_user(&attr, Some("ours"), &mut map);
        assert_eq!(xattrs::in_user(&map), "ours");
        to_user(&attr, Some(""), &mut map);
        assert_eq!(map.get("xattr"), None);
        let read = from_user(&map);
        assert_eq!(read.kind, Some(FileKind::Symlink));
        assert_eq!((read.atime, read.mtime, read.ctime), (Some(attr.atime), Some(attr.mtime), Some(attr.ctime)));
        assert_eq!(read.rdev, None);
    }
}
