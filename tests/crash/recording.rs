//! What the recorder wrote down.
//!
//! Owns: building `recorder.c`, the variables that it reads, the form of its log. Does not own: what is recorded
//! (`recorder.c`), what it means for a disk (`disk`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes before the path of a record.
const HEAD: usize = 33;

/// Something that happened to a file or name. Paths are relative to the directory that was recorded, which is ""
/// itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Create { id: u64, path: String },
    Write { id: u64, offset: u64, data: Vec<u8> },
    Punch { id: u64, offset: u64, len: u64 },
    Resize { id: u64, size: u64 },
    Sync { id: u64 },
    SyncDir { path: String },
    Rename { from: String, to: String },
    Unlink { path: String },
    MakeDir { path: String },
    RemoveDir { path: String },
}

/// An act, and its number among all operations, those that failed included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) count: u64,
    pub(crate) act: Act,
}

/// The recorder, built.
#[derive(Debug)]
pub(crate) struct Recorder(PathBuf);

impl Recorder {
    /// Builds it into this folder, with the compiler that also builds SQLite.
    pub(crate) fn build(folder: &Path) -> Recorder {
        let project = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let source = PathBuf::from(project).join("tests/crash/recorder.c");
        let library = folder.join("recorder.so");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-O1", "-U_FORTIFY_SOURCE", "-Wall", "-pthread", "-o"]);
        let output = command.arg(&library).arg(source).output().expect("a C compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Recorder(library)
    }

    /// Variables for a daemon that is recorded, and killed before its `kill_at`-th operation; never for 0.
    pub(crate) fn variables(&self, dir: &Path, log: &Path, kill_at: u64) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.0.clone().into()),
            ("OBJFS_RECORD_DIR", dir.into()),
            ("OBJFS_RECORD_LOG", log.into()),
            ("OBJFS_RECORD_KILL", kill_at.to_string().into()),
        ]
    }
}

/// Every record of a log; none if there is no log. The last one may be there in part only: then it does not count.
pub(crate) fn read(log: &Path) -> Vec<Record> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let mut rest = &bytes[..];
    let mut records = Vec::new();
    while let Some((record, after)) = split(rest) {
        records.push(record);
        rest = after;
    }
    records
}

fn split(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let head = bytes.get(..HEAD)?;
    let long = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap());
    let len = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap()) as usize;
    let (count, id, number) = (long(1), long(9), long(17));
    let (path_len, data_len) = (len(25), len(29));
    let path = bytes.get(HEAD..HEAD + path_len)?;
    let data = bytes.get(HEAD + path_len..HEAD + path_len + data_len)?;
    let path = String::from_utf8(path.to_vec()).unwrap();
    let act = match head[0] {
        b'C' => Act::Create { id, path },
        b'W' => Act::Write { id, offset: number, data: data.to_vec() },
        b'H' => Act::Punch { id, offset: number, len: u64::from_ne_bytes(data.try_into().unwrap()) },
        b'T' => Act::Resize { id, size: number },
        b'S' => Act::Sync { id },
        b'D' => Act::SyncDir { path },
        b'R' => Act::Rename { from: path, to: String::from_utf8(data.to_vec()).unwrap() },
        b'U' => Act::Unlink { path },
        b'M' => Act::MakeDir { path },
        b'V' => Act::RemoveDir { path },
        kind => {
            panic!("the daemon did something to {path:?} that the recorder has no word for ({:?})", char::from(kind))
        }
    };
    Some((Record { count, act }, &bytes[HEAD + path_len + data_len..]))
}
