//! Programs that people use, at work in a mount and on the machine's own disk: what they print and what they leave
//! must be the same.
//!
//! Owns: real programs, from their first file to backups, servers and minutes of stress.
//! Does not own: single system calls, what they cost, and what a change elsewhere does (`tests/mount`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod archives;
mod backups;
mod calibre;
#[path = "../mount/client.rs"]
#[allow(dead_code, reason = "shared with the mount tests, which use more of it")]
mod client;
mod compare;
mod databases;
mod delays;
mod editing;
mod films;
#[path = "../servers/garage.rs"]
mod garage;
mod git;
mod make;
mod media;
#[path = "../mount/programs.rs"]
#[allow(dead_code, reason = "shared with the mount tests, which use more of it")]
mod programs;
mod rsync;
mod running;
#[path = "../servers/sdk.rs"]
mod sdk;
mod serving;
mod stress;
#[path = "../mount/common.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the mount tests, which use more of it")]
mod world;
