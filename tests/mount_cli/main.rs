//! The program as people start, ask and end it: the binary, the kernel and a server of its own.
//!
//! Owns: what can be seen from outside of mounting and unmounting: exit codes, sentences, processes, mounts, files left.
//! Does not own: what files in a mount do (`mount_*` beside it), pure parts (unit tests beside the code).

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../devserver/client.rs"]
#[allow(dead_code)] // Shared with another test target, which uses more of it.
mod client;
mod crashes;
mod demo;
mod doctor;
mod failures;
mod help;
mod lifecycle;
mod logs;
mod packaging;
mod pending;
mod readme;
#[path = "../servers/sdk.rs"]
mod sdk;
mod secrets;
mod state;
mod world;
