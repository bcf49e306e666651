//! Tests of the mounted file system: the real program, a real kernel, and an independent client on the other side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod applications;
mod attributes;
mod client;
mod common;
mod conflicts;
mod content;
mod durability;
mod events;
mod features;
mod foreign;
#[path = "../servers/garage.rs"]
mod garage;
mod huge;
mod interrupts;
mod names;
mod offline;
mod programs;
mod renames;
mod requests;
mod saving;
#[path = "../servers/sdk.rs"]
mod sdk;
