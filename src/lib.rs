//! objfs: an S3-compatible bucket as a local directory.
//!
//! Owns: the rooms of the house and their order. Each says in its first lines what it owns and what it does not.
//!
//! ```text
//!       application                                                     operator
//!           | syscalls                                                     | argv, signals
//!   +-------v--------+   L5   main -> cli -> daemon  (composition root: builds all below, owns shutdown)
//!   | kernel /dev/fuse                                |
//!   +---^---+--------+                                v
//!       |   |  L4   fuse/    decode request, one call on Fs, encode reply          (only importer of `fuser`)
//!       |   v
//!       |       L3   fs/     POSIX meaning of each operation; handles; errno; applies remote changes
//!       |            |
//!       |   +--------+-------+------------------+
//!       |   v        v       v                  v
//!       |  L2 meta/  remote/ read/  <---------- write/      (arrows: "may import"; write reads base bytes)
//!       |   v          v       v                  v
//!       |  L1 db/    store/ <--+------------------+         (only importers of `rusqlite` / `aws_sdk_s3`)
//!       |
//!       +-- invalidation: fs/ owns trait KernelCache, fuse/ implements it (calls go up, imports stay down)
//!   L0  types/ (pure values)   telemetry/ (the log)
//!
//!   Beside the house, and used by cli alone: devserver/ (an S3 server for demos and tests), demo/ (a small library)
//! ```
//!
//! Four flows go through it:
//! - **lookup**: `fuse` > `fs::lookup` > `meta` (a fresh hit, or a complete directory without the name, answers) > else
//!   `remote` (a small directory is listed again; else HEAD and LIST of the one name at once) > `meta::reconcile` decides
//!   what the answer means > attributes with their TTL.
//! - **read**: `fuse` > `fs::io` > staged ranges from `write::staging`, the rest from `read` (memory cache > ranged GET
//!   with If-Match; blocks ahead of a sequential reader are fetched meanwhile).
//! - **write**: `fuse` > `fs::io` > `write::staging`; at close or fsync `fs::commit`: claim the key > fetch what the file
//!   keeps of its base > PUT or multipart, conditional > catalogue row > journal row, if there is one, cleared. A close by
//!   another process, and what failed: fdatasync, journal row, then `write::queue` > the same commit in the background.
//! - **change elsewhere**: `remote::schedule` says which directory is due (or somebody asks) > `fs::listing` > `meta::reconcile`
//!   > `fs::events` > `KernelCache`: the kernel forgets, or, where somebody watches, `fuse::replay` does the change again.
//!
//! ARCHITECTURE.md has the rules, the table of who may import whom, and the way to the room that you look for;
//! SEMANTICS.md has the promises to users.

// In the order in which an operation goes through them.
pub mod cli;
pub mod daemon;
pub mod fuse;

pub mod fs;

pub mod meta;
pub mod read;
pub mod remote;
pub mod write;

pub mod db;
pub mod store;

pub mod telemetry;
pub mod types;

pub mod demo;
pub mod devserver;
