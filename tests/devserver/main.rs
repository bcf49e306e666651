//! The dev server, driven over HTTP by aws-sdk-s3 and by plain sockets.
//!
//! Owns: what a client sees of it. Does not own: its pure parts, which are tested beside their code.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod faults;
mod listings;
mod log;
mod objects;
#[path = "../servers/sdk.rs"]
mod sdk;
mod uploads;
