//! Attributes as user metadata of objects.
//!
//! Owns: which names carry mode, owner and times in an object's user metadata. We write s3fs' names (decimal; mode with
//! S_IFMT, times as seconds with nanoseconds behind a point) and read s3fs, rclone (`mtime` in float seconds), the
//! `file-*` family (DataSync, s5cmd), `goog-reserved-*` and goofys/geesefs names.
//! Does not own: the HTTP side of headers (`store`), the form of extended attributes (`xattrs`).

use super::xattrs;
use crate::types::{Attr, FileKind, Timestamp};
use std::collections::BTreeMap;

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
}

/// Names under which each attribute is found, ours first.
const MODE: [&str; 3] = ["mode", "file-permissions", "goog-reserved-posix-mode"];
const UID: [&str; 3] = ["uid", "file-owner", "goog-reserved-posix-uid"];
const GID: [&str; 3] = ["gid", "file-group", "goog-reserved-posix-gid"];
const MTIME: [&str; 3] = ["mtime", "file-mtime", "goog-reserved-file-mtime"];
const ATIME: [&str; 2] = ["atime", "file-atime"];
const CTIME: [&str; 2] = ["ctime", "file-ctime"];

/// Every name that [`to_user`] writes, but for that of extended attributes: what a rewrite replaces. All other user metadata is kept
/// as it is.
const OURS: [&str; 7] = ["mode", "uid", "gid", "mtime", "ctime", "atime", "rdev"];

/// Reads the attributes out of user metadata. A value that makes no sense counts as absent.
pub fn from_user(user: &BTreeMap<String, String>) -> HeaderAttrs {
    let find = |names: &[&'static str]| names.iter().find_map(|n| Some((*n, user.get(*n)?.trim())));
    let number = |names: &[&'static str]| find(names).and_then(|(_, v)| v.parse::<u32>().ok());
    let mode = find(&MODE).and_then(|(name, value)| parse_mode(name, value));
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
    }
}

/// Puts the attributes into user metadata, and leaves what is not ours alone. So are extended attributes if they are not known
/// (`None`); without any (empty) their entry goes.
pub fn to_user(attr: &Attr, extended: Option<&str>, user: &mut BTreeMap<String, String>) {
    OURS.iter().for_each(|name| drop(user.remove(*name)));
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

/// Takes the times out of user metadata that [`to_user`] has put there.
pub fn remove_times(user: &mut BTreeMap<String, String>) {
    ["mtime", "ctime", "atime"].iter().for_each(|name| drop(user.remove(*name)));
}

/// `file-permissions` and `goog-reserved-posix-mode` are octal, `mode` is decimal (s3fs src/metaheader.cpp).
fn parse_mode(name: &str, value: &str) -> Option<u32> {
    let radix = if name == "mode" { 10 } else { 8 };
    u32::from_str_radix(value, radix).ok()
}

/// Decimal seconds, perhaps with a fraction. The `file-*` family appends `ns` to nanoseconds.
fn parse_time(value: &str) -> Option<Timestamp> {
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
    }

    #[test]
    fn nonsense_counts_as_absent() {
        let read = from_user(&user(&[("mode", "rw-r--r--"), ("uid", "-1"), ("mtime", "yesterday"), ("atime", "1.x")]));
        assert_eq!(read, HeaderAttrs::default());
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
