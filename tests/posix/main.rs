//! What POSIX asks of a file system, on a mount and on the machine's own disk: both must come to the same.
//!
//! Owns: pjdfstest, test by test (`pjdfstest`), and a file under random operations (`fsx`).
//! Does not own: what is objfs' own (`tests/mount`).
//!
//! Both programs are crates of crates.io, which scripts/test installs. `expected.txt` names what a mount does not do,
//! and why. pjdfstest changes users, so it runs as root only. `OBJFS_FSX_SEED=N` repeats the dice of fsx.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

#[path = "../mount/client.rs"]
#[allow(dead_code, reason = "shared with the mount tests, which use more of it")]
mod client;
mod fsx;
#[path = "../servers/garage.rs"]
mod garage;
#[path = "../mount/common.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the mount tests, which use more of it")]
mod mounts;
mod pjdfstest;
#[path = "../mount/programs.rs"]
#[allow(dead_code, reason = "shared with the mount tests, which use more of it")]
mod programs;
#[path = "../servers/sdk.rs"]
mod sdk;
mod tools;
