//! What is mounted where, without touching any mount.
//!
//! Owns: reading /proc/self/mountinfo. Does not own: mounting (`fuse::mount`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Whether anything is mounted at this path.
pub fn is_mounted(path: &Path) -> bool {
    type_at(path).is_some()
}

/// The type of the file system that is mounted at this path, if any: the topmost.
pub fn type_at(path: &Path) -> Option<String> {
    let info = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    info.lines().rev().filter_map(parse).find(|(at, _)| at == path).map(|(_, kind)| kind)
}

/// Mounts of this type: where, and the device (`major:minor`).
pub fn of_type(kind: &str) -> Vec<(PathBuf, String)> {
    let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_line = |line: &str| {
        let (at, its_kind) = parse(line)?;
        (its_kind == kind).then_some((at, line.split(' ').nth(2)?.to_owned()))
    };
    info.lines().filter_map(of_line).collect()
}

/// Mountpoint and type of a line (proc(5): optional fields end with a lone `-`).
fn parse(line: &str) -> Option<(PathBuf, String)> {
    let mountpoint = line.split(' ').nth(4)?;
    let (_, after) = line.split_once(" - ")?;
    Some((PathBuf::from(OsString::from_vec(unescape(mountpoint))), after.split(' ').next()?.to_owned()))
}

/// Space, tab, newline and backslash are written as octal escapes.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = octal.and_then(|o| std::str::from_utf8(o).ok()).and_then(|o| u8::from_str_radix(o, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let line = "36 35 98:0 / /mnt/my\\040books rw,noatime master:1 - fuse.objfs s3://b rw,errors=continue";
        assert_eq!(parse(line), Some((PathBuf::from("/mnt/my books"), "fuse.objfs".to_owned())));
        assert!(is_mounted(Path::new("/proc")));
        assert!(of_type("proc").iter().any(|(at, device)| at == Path::new("/proc") && device.starts_with("0:")));
        assert!(!is_mounted(Path::new("/proc/self/no such mount")));
    }
}
