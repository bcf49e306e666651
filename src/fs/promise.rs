//! What close and fsync wait for: the bucket, or the journal.
//!
//! Owns: the settings of writing, names that are temporary, the decision of each close and fsync. Pure.
//! Does not own: carrying it out (`open`, `io`), when a journaled file is uploaded (`write::queue`).

use super::conflict::Conflicts;
use super::sqlite::{Databases, Role};
use crate::types::Name;
use globset::{Glob, GlobSet, GlobSetBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Names under which programs write what they rename when it is whole: downloads (browsers, curl, torrents), rsync's
/// `.name.XXXXXX`, GLib's `.goutputstream-XXXXXX`, editors' swap and backup files, lock files that git renames, Python's tempfile.
const TEMP_NAMES: [&str; 26] = [
    "*.part",
    "*.partial",
    "*.crdownload",
    "*.download",
    "*.opdownload",
    "*.filepart",
    "*.tmp",
    "*.tmp.*",
    "*.temp",
    "*.!qB",
    "*.!ut",
    "*.aria2",
    ".*.??????",
    ".goutputstream-*",
    "*~",
    "~$*",
    ".~*",
    ".#*",
    "#*#",
    "*.swp",
    "*.swx",
    "*.lock",
    "tmp_obj_*",
    "*-tmp-*",
    "tmp????????",
    "4913",
];
/// How long a temporary file waits to be renamed, before it is uploaded under the name that it has.
const TEMP_DELAY: Duration = Duration::from_secs(5);
/// How long a database waits for its upload, and again if a transaction is under way then.
const DATABASE_DELAY: Duration = Duration::from_secs(2);
/// Bytes of an earlier version that a close fetches so that it can be acknowledged before the upload. If it were more, the upload,
/// for which the bucket copies them, is faster.
const FILL_MAX: u64 = 16 << 20;

/// What close waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// The bucket.
    #[default]
    Through,
    /// The journal.
    Back,
}

/// What tunes writing.
#[derive(Debug, Clone)]
pub struct Writes {
    /// What close waits for.
    pub mode: WriteMode,
    /// fsync waits for the journal only, as close does, when that is [`WriteMode::Back`].
    pub fsync_local: bool,
    /// Names that are uploaded when they are renamed, or a little later.
    pub temp_names: TempNames,
    /// How long a file that was acknowledged waits for its upload: what is written again meanwhile is uploaded once.
    pub delay: Duration,
    /// Uploads in the background at once.
    pub uploads: usize,
    /// Files that may wait for their upload. Beyond that, closes wait for the bucket.
    pub queue_max: usize,
    /// What becomes of conflicts.
    pub conflict: Conflicts,
    /// How SQLite databases are treated.
    pub databases: Databases,
}

impl Default for Writes {
    fn default() -> Writes {
        Writes {
            mode: WriteMode::Through,
            fsync_local: false,
            temp_names: TempNames::usual(),
            delay: Duration::from_secs(5),
            uploads: 8,
            queue_max: 10_000,
            conflict: Conflicts::KeepBoth,
            databases: Databases::Consistent,
        }
    }
}

/// Names that are temporary.
#[derive(Debug, Clone)]
pub struct TempNames(GlobSet);

impl TempNames {
    /// Names that match one of these patterns.
    ///
    /// # Errors
    /// What is wrong with a pattern.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<TempNames, String> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(Glob::new(pattern).map_err(|e| e.to_string())?);
        }
        set.build().map(TempNames).map_err(|e| e.to_string())
    }

    /// Those of the programs that we know.
    pub fn usual() -> TempNames {
        TempNames::new(TEMP_NAMES).unwrap_or(TempNames(GlobSet::empty()))
    }

    /// Whether `name` is one.
    pub fn contains(&self, name: &Name) -> bool {
        self.0.is_match(OsStr::from_bytes(name.as_bytes()))
    }
}

/// What a close or fsync waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// The bucket.
    Bucket,
    /// The journal; the upload follows after this time, if nothing asks for it earlier.
    Journal(Duration),
}

/// A file that is closed or synced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Closing {
    /// It has a name that is temporary.
    pub(super) is_temp: bool,
    /// Whoever closes it is not the process that opened it.
    pub(super) is_heir: bool,
    /// It is new, and nobody has written to it.
    pub(super) is_unwritten: bool,
    /// What it has to do with a SQLite database.
    pub(super) role: Role,
    /// It, or what it belongs to, is in the midst of a transaction.
    pub(super) is_in_transaction: bool,
    /// Bytes of the version before that are not here.
    pub(super) missing: u64,
    /// Files that wait for their upload.
    pub(super) waiting: usize,
}

impl Writes {
    /// What close(2) waits for.
    pub(super) fn on_close(&self, file: Closing) -> Promise {
        let is_back = self.mode == WriteMode::Back;
        // A shell opens, dup2()s and closes before anything is written: an empty object now would be an upload too many. A close by
        // a child of an inherited descriptor is none of the file. It does not fetch gigabytes for the journal either: the bucket copies
        // them.
        if file.is_heir && file.missing <= FILL_MAX || file.is_unwritten {
            let delay = if is_back { self.delay } else { Duration::ZERO };
            return Promise::Journal(if file.is_temp { TEMP_DELAY.max(delay) } else { delay });
        }
        match file.role {
            Role::Companion => Promise::Journal(self.database_delay()),
            Role::Database if file.is_in_transaction => Promise::Journal(self.database_delay()),
            _ => self.later(file, is_back),
        }
    }

    /// What fsync(2) waits for.
    pub(super) fn on_fsync(&self, file: Closing) -> Promise {
        match file.role {
            Role::None => self.later(file, self.mode == WriteMode::Back && self.fsync_local),
            // A transaction syncs several times; the bucket gets what it leaves.
            _ => Promise::Journal(self.database_delay()),
        }
    }

    /// How long a database waits for its upload.
    pub(super) fn database_delay(&self) -> Duration {
        DATABASE_DELAY.max(self.delay)
    }

    fn later(&self, file: Closing, may_wait: bool) -> Promise {
        if file.missing > FILL_MAX || file.waiting >= self.queue_max {
            return Promise::Bucket;
        }
        match (file.is_temp, may_wait) {
            (true, _) => Promise::Journal(TEMP_DELAY.max(self.delay)),
            (false, true) => Promise::Journal(self.delay),
            (false, false) => Promise::Bucket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_temp(name: &str) -> bool {
        TempNames::usual().contains(&Name::parse(name).unwrap())
    }

    #[test]
    fn programs_temporary_names_are_known_and_titles_are_not() {
        for name in ["film.mkv.part", "film.mkv.crdownload", ".film.mkv.Xa81bc", ".goutputstream-K3W5Z1"] {
            assert!(is_temp(name), "{name}");
        }
        for name in ["a.txt~", ".a.txt.swp", "index.lock", "tmp_obj_4fG2x1", "a.tmp"] {
            assert!(is_temp(name), "{name}");
        }
        for name in ["film.mkv", "part", "Part 1.mkv", ".hidden", "book (lock).epub", "a.tmpl", "template.html"] {
            assert!(!is_temp(name), "{name}");
        }
        let rsync = Name::parse(b".caf\xe9.Xa81bc").unwrap();
        assert!(TempNames::usual().contains(&rsync), "{rsync}");
    }

    #[test]
    fn close_waits_for_what_was_promised() {
        let (through, plain) = (Writes::default(), Closing::default());
        let back = Writes { mode: WriteMode::Back, ..Writes::default() };
        let local = Writes { fsync_local: true, ..back.clone() };
        let temp = Closing { is_temp: true, ..plain };
        let wait = Promise::Journal(Duration::from_secs(5));
        assert_eq!((through.on_close(plain), through.on_fsync(plain)), (Promise::Bucket, Promise::Bucket));
        assert_eq!((back.on_close(plain), back.on_fsync(plain), local.on_fsync(plain)), (wait, Promise::Bucket, wait));
        assert_eq!(through.on_close(temp), Promise::Journal(Duration::from_secs(5)));
        assert_eq!(through.on_close(Closing { is_heir: true, ..plain }), Promise::Journal(Duration::ZERO));
        // The queue is full, or the file needs more of its base than is worth fetching.
        assert_eq!(back.on_close(Closing { waiting: 10_000, ..plain }), Promise::Bucket);
        assert_eq!(back.on_close(Closing { missing: 17 << 20, ..plain }), Promise::Bucket);
        assert_eq!(back.on_close(Closing { missing: 16 << 20, ..plain }), wait);
        for writes in [&through, &back] {
            let heir = Closing { is_heir: true, missing: 17 << 20, ..plain };
            assert_eq!(writes.on_close(heir), Promise::Bucket);
            assert_eq!(writes.on_close(Closing { is_temp: true, ..heir }), Promise::Bucket);
            // Not in the midst of a transaction.
            let database = Closing { role: Role::Database, is_in_transaction: true, ..heir };
            assert_eq!(writes.on_close(database), Promise::Journal(Duration::from_secs(5)));
        }
    }

    #[test]
    fn databases_wait_for_the_end_of_their_transaction() {
        let usual = Writes::default();
        let eager = Writes { delay: Duration::ZERO, ..usual.clone() };
        let database = Closing { role: Role::Database, ..Closing::default() };
        let companion = Closing { role: Role::Companion, ..Closing::default() };
        for (writes, secs) in [(usual, 5), (eager, 2)] {
            let wait = Promise::Journal(Duration::from_secs(secs));
            assert_eq!((writes.on_fsync(database), writes.on_fsync(companion)), (wait, wait));
            assert_eq!(writes.on_close(Closing { is_in_transaction: true, ..database }), wait);
            assert_eq!((writes.on_close(database), writes.on_close(companion)), (Promise::Bucket, wait));
        }
    }
}
