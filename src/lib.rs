//! objfs: an S3-compatible bucket as a local directory.

pub mod devserver;
pub mod store;
pub mod types;
