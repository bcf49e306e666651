//! What a server is started with.
//!
//! Owns: [`Settings`] with its defaults and checks, [`StartError`].
//! Does not own: the syntax of fault rules (`faults`) and of generated keys (`synthetic`).

use super::faults::FaultSettings;
use super::synthetic::{Synthetic, SyntheticError};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where objects are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In memory, gone when the server stops.
    Memory,
    /// In this directory, which is created if need be: an SQLite index and one file per body. One server at a time.
    Directory(PathBuf),
}

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The one access key id that is let in.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Buckets to create if they do not exist.
    pub buckets: Vec<String>,
    /// Where objects are kept.
    pub storage: Storage,
    /// Generated objects; see [`Synthetic::parse_list`].
    pub synthetic: Vec<Synthetic>,
    /// Faults from the start on.
    pub faults: FaultSettings,
    /// Whether to listen on an address that other machines can reach.
    pub allow_remote: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            access_key: "objfs".to_owned(),
            secret_key: "objfs-secret".to_owned(),
            buckets: vec!["demo".to_owned()],
            storage: Storage::Memory,
            synthetic: Vec::new(),
            faults: FaultSettings::default(),
            allow_remote: false,
        }
    }
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is reachable from other machines, and that was not allowed.
    #[error(
        "{0} can be reached from other machines; the dev server listens on loopback only unless remote access is allowed"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A bucket's name is against S3's rules.
    #[error("{0:?} is no name for a bucket")]
    BucketName(String),
    /// The directory cannot be used.
    #[error("cannot keep objects in {path}: {reason}")]
    Storage {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The description of generated objects makes no sense.
    #[error(transparent)]
    Synthetic(#[from] SyntheticError),
}

impl Settings {
    /// Whether these settings make sense together, before anything is opened.
    pub(super) fn check(&self) -> Result<(), StartError> {
        if !self.allow_remote && !self.listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(self.listen));
        }
        let named = self.synthetic.iter().filter_map(|s| s.bucket.as_ref());
        match self.buckets.iter().chain(named).find(|b| !s3s::path::check_bucket_name(b)) {
            Some(bad) => Err(StartError::BucketName(bad.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_unless_allowed() {
        let mut settings = Settings { listen: SocketAddr::from(([0, 0, 0, 0], 0)), ..Settings::default() };
        assert!(matches!(settings.check(), Err(StartError::NotLoopback(_))));
        settings.allow_remote = true;
        assert!(settings.check().is_ok());
    }

    #[test]
    fn bucket_names_are_checked() {
        let settings = Settings { buckets: vec!["A_b".to_owned()], ..Settings::default() };
        assert!(matches!(settings.check(), Err(StartError::BucketName(_))));
    }
}
