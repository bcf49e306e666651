//! Several writers of one bucket, failing servers and full disks: nobody's version is lost without being known to be.
//!
//! Owns: long runs of the real program against the dev server, judged by that server's own log.
//! Does not own: single conflicts and single failures, step by step (`tests/mount`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

#[path = "../mount/client.rs"]
#[allow(dead_code, reason = "shared with the mount tests, which use more of it")]
mod client;
mod disk_full;
mod faults;
mod ledger;
mod lost;
#[path = "../mount/programs.rs"]
#[allow(dead_code, reason = "shared with the mount tests, which use more of it")]
mod programs;
mod races;
mod records;
#[path = "../servers/sdk.rs"]
mod sdk;
mod world;
mod writers;
