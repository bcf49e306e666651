//! Where the programs are, how long they may take, and a folder that is in no mount.
//!
//! Owns: that. Does not own: what the programs are asked to do.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// A little less than what a mount of the tests lives (`mounts`): who waits for a program should hear of the program.
const TIME_MAX: Duration = Duration::from_secs(100);
const TIME_MAX_FULL: Duration = Duration::from_secs(550);

/// Whether the long tests run.
pub(crate) fn is_full() -> bool {
    std::env::var_os("OBJFS_TEST_FULL").is_some_and(|value| !value.is_empty())
}

/// How long a program may run.
pub(crate) fn time_max() -> Duration {
    if is_full() { TIME_MAX_FULL } else { TIME_MAX }
}

/// A program in the PATH, or where scripts/test installs it.
pub(crate) fn find(program: &str) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(cache.map(|cache| cache.join("objfs-test/bin")));
    let found = folders.iter().map(|folder| folder.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("there is no {program} in {folders:?}; scripts/test installs what the tests need"))
}

/// A folder on the machine's own disk. Other users may go through it.
pub(crate) fn own_disk() -> TempDir {
    let folder = tempfile::Builder::new().prefix("p").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    folder
}
