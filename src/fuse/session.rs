//! The session with the kernel: what is negotiated, and its event loop.
//!
//! Owns: capabilities and limits of INIT, each with a switch that stands for a kernel without it.
//! Does not own: mounting (`mount`), requests (`adapter`).

use fuser::{InitFlags, KernelConfig};

/// A capability of newer kernels that the mount uses where it is offered, and that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Its name in the mount option `disable=`.
    pub name: &'static str,
    /// What goes without it.
    pub without: &'static str,
    flag: Option<InitFlags>,
}

/// Every such capability. LEVERS behind each choice: measured on kernel 6.18 with fuser 0.18.
pub const FEATURES: [Feature; 8] = [
    feature("async_read", "READs of one file one after another", InitFlags::FUSE_ASYNC_READ),
    feature("async_dio", "O_DIRECT requests one after another", InitFlags::FUSE_ASYNC_DIO),
    feature("atomic_o_trunc", "a SETATTR more for O_TRUNC", InitFlags::FUSE_ATOMIC_O_TRUNC),
    feature("parallel_dirops", "lookups in a directory one after another", InitFlags::FUSE_PARALLEL_DIROPS),
    feature("readdirplus", "a LOOKUP for each entry of ls -l", InitFlags::FUSE_DO_READDIRPLUS),
    feature("killpriv_v2", "a GETXATTR for each write", InitFlags::FUSE_HANDLE_KILLPRIV_V2),
    feature("cache_symlinks", "a READLINK for each use of a symlink", InitFlags::FUSE_CACHE_SYMLINKS),
    Feature { name: "noflush", without: "a FLUSH for each close of a file opened for reading", flag: None },
];

const fn feature(name: &'static str, without: &'static str, flag: InitFlags) -> Feature {
    Feature { name, without, flag: Some(flag) }
}

/// What the session is to be like.
#[derive(Debug, Clone, Default)]
pub struct SessionSettings {
    /// Names of [`FEATURES`] that are not used even where the kernel offers them.
    pub disabled: Vec<String>,
}

impl SessionSettings {
    /// Whether the feature of this name may be used.
    pub fn allows(&self, name: &str) -> bool {
        !self.disabled.iter().any(|d| d == name)
    }

    /// Negotiates with the kernel.
    pub(super) fn configure(&self, config: &mut KernelConfig) {
        for feature in FEATURES {
            let Some(flag) = feature.flag.filter(|_| self.allows(feature.name)) else { continue };
            let flag = if feature.name == "readdirplus" { flag | InitFlags::FUSE_READDIRPLUS_AUTO } else { flag };
            if config.add_capabilities(flag).is_err() {
                tracing::info!(feature = feature.name, costs = feature.without, "not offered by this kernel");
            }
        }
        // Pages are dropped when we say so, not whenever an mtime differs; always there since 5.2.
        if config.add_capabilities(InitFlags::FUSE_EXPLICIT_INVAL_DATA).is_err() {
            tracing::warn!("this kernel is older than 5.2: changes made elsewhere may be noticed late");
        }
        let limits = [config.set_max_write(1 << 20).is_ok(), config.set_max_background(64).is_ok()];
        if limits.contains(&false) {
            tracing::info!("the kernel keeps its own limits");
        }
    }
}
