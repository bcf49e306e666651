//! objfs: an S3-compatible bucket as a local directory.

pub mod cli;
pub mod daemon;
pub mod db;
pub mod demo;
pub mod devserver;
pub mod fs;
pub mod fuse;
pub mod meta;
pub mod read;
pub mod remote;
pub mod store;
pub mod telemetry;
pub mod types;
pub mod write;
