//! What a mount is started with, validated.
//!
//! Owns: [`MountConfig`], and where a mount keeps its state. Does not own: the syntax of options (`cli`).

use crate::store::s3::S3Settings;
use crate::types::Key;
use nix::unistd::geteuid;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a mount is started with.
#[derive(Debug, Clone)]
pub struct MountConfig {
    /// How to reach the bucket.
    pub s3: S3Settings,
    /// The directory of the bucket that is the root of the mount.
    pub prefix: Key,
    /// Where to mount.
    pub mountpoint: PathBuf,
    /// Nothing may be changed.
    pub read_only: bool,
    /// Other users may look inside.
    pub allow_other: bool,
    /// The mountpoint may have entries, which the mount hides.
    pub non_empty: bool,
    /// Owner of everything, whatever objects say.
    pub uid: Option<u32>,
    /// Group of everything, whatever objects say.
    pub gid: Option<u32>,
    /// Permission bits taken away from files and directories that name none.
    pub umask: u16,
    /// Permission bits of every file, whatever objects say.
    pub file_mode: Option<u16>,
    /// Permission bits of every directory, whatever objects say.
    pub dir_mode: Option<u16>,
    /// Attributes are kept on this machine only, and not in objects.
    pub nometa: bool,
    /// How long an answer of the bucket counts as fresh.
    pub poll_interval: Duration,
    /// LIST requests of the poller in that time, at most.
    pub poll_budget: u32,
    /// Which changes made elsewhere raise inotify events.
    pub events: crate::fs::Events,
    /// Which names are shown.
    pub filter: crate::fs::Filter,
    /// What close and fsync wait for.
    pub writes: crate::fs::Writes,
    /// How long an unmount waits for uploads.
    pub drain_timeout: Duration,
    /// Catalogue, journal, staging: one folder per bucket and prefix in here.
    pub state_dir: PathBuf,
    /// Name of that folder. `None`: made of bucket, endpoint and prefix.
    pub state_name: Option<String>,
    /// The profile that the AWS environment names, unless it is the default one: as one that is asked for, it may name a server.
    pub aws_profile: Option<String>,
    /// What may be deleted at any time.
    pub cache_dir: PathBuf,
    /// Bytes that the disk cache takes, at most; 0 for none. `None`: as much as is fit.
    pub cache_size: Option<u64>,
    /// Bytes that may be staged. `None`: nine tenths of what is free where they are, or staged already.
    pub staging_size: Option<u64>,
    /// Bytes of memory for blocks and parts together.
    pub memory: u64,
    /// Most requests in flight.
    pub requests_max: usize,
    /// Flags of mount(2) by name (noexec, noatime). With noatime, reading moves no atime.
    pub mount_flags: Vec<String>,
    /// Kernel features that are not used.
    pub disabled_features: Vec<String>,
    /// What is logged.
    pub log: Option<String>,
    /// Stay in the foreground, and log to standard error.
    pub foreground: bool,
}

impl MountConfig {
    /// The bucket and prefix as people write it.
    pub fn source(&self) -> String {
        format!("s3://{}/{}", self.s3.bucket, self.prefix).trim_end_matches('/').to_owned()
    }

    /// The folder of this bucket and prefix within `state_dir`: readable, and different for each endpoint.
    pub fn state_folder(&self) -> PathBuf {
        self.state_dir.join(self.folder_name())
    }

    /// The folder of this bucket and prefix within `cache_dir`.
    pub fn cache_folder(&self) -> PathBuf {
        self.cache_dir.join(self.folder_name())
    }

    fn folder_name(&self) -> String {
        if let Some(name) = &self.state_name {
            return name.clone();
        }
        let server = match (&self.s3.endpoint, self.s3.profile.as_ref().or(self.aws_profile.as_ref())) {
            (Some(endpoint), _) => endpoint.trim_end_matches('/').to_owned(),
            // It may name a server of its own.
            (None, Some(profile)) => format!("aws profile {profile}"),
            (None, None) => "aws".to_owned(),
        };
        let identity = format!("{server}\n{}\n{}", self.s3.bucket, self.prefix);
        format!("{}-{}", self.s3.bucket, hash(identity.as_bytes()))
    }
}

/// Where state is kept by default: /var/lib for root, the user's state folder (XDG base directories) for others.
pub fn default_state_dir() -> PathBuf {
    if geteuid().is_root() { PathBuf::from("/var/lib/objfs") } else { xdg("XDG_STATE_HOME", ".local/state") }
}

/// Where the cache is by default.
pub fn default_cache_dir() -> PathBuf {
    if geteuid().is_root() { PathBuf::from("/var/cache/objfs") } else { xdg("XDG_CACHE_HOME", ".cache") }
}

fn xdg(variable: &str, below_home: &str) -> PathBuf {
    let base = std::env::var_os(variable).filter(|v| Path::new(v).is_absolute()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(below_home);
    base.unwrap_or_else(home).join("objfs")
}

/// The control socket of the mount at `mountpoint`. Its directory belongs to one user alone.
pub fn control_socket(mountpoint: &Path) -> PathBuf {
    let run = match std::env::var_os("XDG_RUNTIME_DIR") {
        _ if geteuid().is_root() => PathBuf::from("/run/objfs"),
        Some(dir) if Path::new(&dir).is_absolute() => PathBuf::from(dir).join("objfs"),
        _ => std::env::temp_dir().join(format!("objfs-{}", geteuid())),
    };
    run.join(format!("{}.sock", hash(absolute(mountpoint).as_os_str().as_bytes())))
}

/// The path without symbolic links in its directories. The last component is not touched: it may be a mount that hangs.
pub fn absolute(path: &Path) -> PathBuf {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let full: PathBuf = full.components().collect();
    match (full.parent().map(Path::canonicalize), full.file_name()) {
        (Some(Ok(parent)), Some(name)) if name != OsStr::new("..") => parent.join(name),
        _ => full,
    }
}

/// Twelve hexadecimal digits: enough to tell the mounts of one machine apart.
fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(6).fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_different_mountpoints_differ_and_spelling_does_not_matter() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(control_socket(&here.join("mnt")), control_socket(Path::new("./mnt/")));
        assert_ne!(control_socket(Path::new("/a")), control_socket(Path::new("/b")));
    }

    #[test]
    fn roots_state_is_the_systems_and_that_of_others_is_theirs() {
        let (state, cache) = (default_state_dir(), default_cache_dir());
        if geteuid().is_root() {
            assert_eq!((state, cache), (PathBuf::from("/var/lib/objfs"), PathBuf::from("/var/cache/objfs")));
        } else {
            assert!(state.ends_with("objfs") && !state.starts_with("/var/lib"), "{}", state.display());
            assert!(cache.ends_with("objfs") && !cache.starts_with("/var/cache"), "{}", cache.display());
        }
    }
}
