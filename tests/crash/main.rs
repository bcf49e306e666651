//! Daemons that are killed, and machines that lose their power: what was acknowledged is there afterwards, in the mount
//! and in the bucket, and no file is a mixture of versions.
//!
//! Owns: SIGKILL at random moments (`kill`), power loss at every operation on the state directory (`power`).
//! Does not own: what a server does that fails (`mount`), single crashes with a story (`mount_cli`).
//!
//! `OBJFS_CRASH_SEED=N` repeats a run's dice; the moments are never quite the same. `OBJFS_CRASH_KILLS=N`: so many
//! kills in each mode. `OBJFS_CRASH_EVERY_K=N`: power loss at every N-th operation; `OBJFS_CRASH_K=N`: at that one
//! only. `OBJFS_CRASH_STRICT=1`: names last only once their directory was synced. Without numbers each test takes half
//! a minute; with `OBJFS_TEST_FULL=1` there are 250 kills in each mode, and power is lost at every operation.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod disk;
mod kill;
mod model;
mod power;
mod recording;
#[path = "../servers/sdk.rs"]
mod sdk;
mod settings;
mod verify;
mod work;
mod world;
