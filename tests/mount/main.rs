//! Tests of the mounted file system: the real program, a real kernel, and an independent client on the other side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod allocate;
mod attributes;
#[allow(dead_code, reason = "shared with the tests of programs, which use the rest of it")]
mod client;
#[allow(dead_code, reason = "shared with the tests of programs, which use the rest of it")]
mod common;
mod conflicts;
mod content;
mod durability;
mod events;
mod features;
mod foreign;
#[path = "../servers/garage.rs"]
#[allow(dead_code, reason = "shared with the tests of programs, which use the rest of it")]
mod garage;
mod huge;
mod interrupts;
mod locks;
mod many;
mod names;
mod nometa;
mod offline;
mod options;
mod permissions;
mod programs;
mod renames;
mod requests;
#[path = "../servers/sdk.rs"]
mod sdk;
mod special;
mod totals;
mod versions;
mod xattrs;
