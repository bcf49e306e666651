//! The composition root: builds all rooms of a mount, and takes them down in order.
//!
//! Owns: configuration, the state folder and its lock, background start, the control socket, shutdown.
//! Does not own: everything else; nothing below imports it.

mod background;
mod config;
mod control;
pub mod doctor;
mod failure;
mod fill;
mod limits;
mod lock;
pub mod mounts;
mod requests;
mod serve;
mod status;

pub use crate::fs::{Conflicts, Databases, Events, Filter, TempNames, WriteMode, Writes};
pub use crate::fuse::{FEATURES, MountError, unmount};
pub use crate::store::s3::{CustomerKey, Encryption, S3Settings, Secret, StaticCredentials, StorageOptions, Tags};
pub use background::{Ready, start as start_in_background};
pub use config::{MountConfig, absolute, control_socket, default_cache_dir, default_state_dir};
pub use control::{Request, UnfinishedUpload, UnmappableKey, ask};
pub use failure::{FailureKind, MountFailure};
pub use fill::put_missing;
pub use serve::{check_mountpoint, keep_files_private, serve};
pub use status::{FailedCommit, PendingStatus, RequestCount, Status};
