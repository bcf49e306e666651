//! How many descriptors this process may have.
//!
//! Owns: raising that at the start. Does not own: who has them (`store`, `db`, `read`, `write`).

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as the hard limit says. The soft one is 1,024 on many systems for the sake of programs that use select(2), and a mount has
/// sockets, databases, and files of its caches.
pub(super) fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(e) = raised {
        tracing::warn!(error = %e, "the number of files that may be open stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).unwrap();
        raise_descriptors();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
