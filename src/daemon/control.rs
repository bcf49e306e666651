//! The control socket: how other processes of the same user ask a mount.
//!
//! Owns: the protocol (one JSON request per connection, one JSON answer), the socket file, both ends of it.
//! Does not own: what is answered (`status`, `serve`).

use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Longest request and answer, in bytes.
const MESSAGE_LEN_MAX: u64 = 16 << 20;

/// What may be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// How the mount is.
    Status,
    /// Commit everything, within so many seconds.
    Drain {
        /// Seconds.
        seconds: u64,
    },
    /// Keys that no path can express, after this one.
    Unmappable {
        /// The last key that was answered before; empty for the first page.
        after: String,
    },
    /// Ask the bucket at once about a path.
    Refresh {
        /// The names from the mount's root, as bytes.
        names: Vec<Vec<u8>>,
    },
    /// Commit what is at or below a path, within so many seconds.
    Sync {
        /// The names from the mount's root, as bytes.
        names: Vec<Vec<u8>>,
        /// Seconds.
        seconds: u64,
    },
    /// Try again what has failed at or below a path.
    Retry {
        /// The names from the mount's root, as bytes.
        names: Vec<Vec<u8>>,
    },
    /// Write a file as it is here to a new file elsewhere.
    Export {
        /// The names from the mount's root, as bytes.
        names: Vec<Vec<u8>>,
        /// The new file, absolute.
        to: PathBuf,
    },
    /// Drop what was changed here of a file.
    Discard {
        /// The names from the mount's root, as bytes.
        names: Vec<Vec<u8>>,
    },
    /// Multipart uploads that were neither completed nor aborted.
    Uploads,
    /// Abort one of them.
    AbortUpload {
        /// Its key, relative to the mount's prefix.
        key: String,
        /// Its id.
        id: String,
    },
    /// Answered never: the connection ends with the daemon.
    WaitForEnd,
}

/// A key that no path can express.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmappableKey {
    /// The key, relative to the mount's prefix.
    pub key: String,
    /// Why, in one word.
    pub why: String,
    /// Size of the object in bytes.
    pub size: u64,
}

/// A multipart upload that was neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfinishedUpload {
    /// The key that it would make, relative to the mount's prefix.
    pub key: String,
    /// Its id.
    pub id: String,
    /// When it began, in seconds since the epoch, where the server says.
    pub initiated: Option<i64>,
    /// Whether this mount's journal knows it.
    pub ours: bool,
}

/// The listening end.
#[derive(Debug)]
pub(super) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Which file is the socket: another mount may have put its own at the path.
    id: FileId,
}

/// Device and inode number of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    /// Of what is at `path`, be it a symbolic link.
    fn at(path: &Path) -> io::Result<FileId> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(FileId(meta.dev(), meta.ino()))
    }
}

impl ControlSocket {
    /// Listens at `path`, in a directory that is this user's alone. Whoever listened there before is not found any more.
    pub(super) fn bind(path: &Path) -> io::Result<ControlSocket> {
        if let Some(dir) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            let meta = std::fs::symlink_metadata(dir)?;
            if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
                return Err(io::Error::other(format!("{} is not this user's alone (0700)", dir.display())));
            }
        }
        // Whoever listened here is gone, or is the daemon of another bucket (the state lock is one per bucket), which may still
        // upload: the mountpoint is this mount's now.
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(ControlSocket { listener, path: path.to_owned(), id: FileId::at(path)? })
    }

    /// The next request, and the connection to answer it on. A connection that says nothing sensible is dropped.
    pub(super) async fn next(&self) -> Option<(Request, UnixStream)> {
        let (stream, _) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(error = %e, "control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
                return None;
            }
        };
        match tokio::time::timeout(Duration::from_secs(5), read_request(stream)).await {
            Ok(Ok(request)) => Some(request),
            Ok(Err(e)) => {
                tracing::debug!(error = %e, "a control request made no sense");
                None
            }
            Err(_) => None,
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Nobody else is given the inode number of this one as long as somebody listens on it.
        let removed = match FileId::at(&self.path) {
            Ok(id) if id != self.id => return tracing::debug!("the control socket is that of a later mount"),
            Ok(_) => std::fs::remove_file(&self.path),
            Err(e) => Err(e),
        };
        if let Err(e) = removed {
            tracing::debug!(error = %e, "the control socket was gone already");
        }
    }
}

async fn read_request(stream: UnixStream) -> io::Result<(Request, UnixStream)> {
    let mut reader = BufReader::new(stream.take(MESSAGE_LEN_MAX));
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let request = serde_json::from_str(&line)?;
    Ok((request, reader.into_inner().into_inner()))
}

/// Answers on a connection, and ends it.
pub(super) async fn answer<T: Serialize>(mut stream: UnixStream, value: &T) {
    let Ok(json) = serde_json::to_vec(value) else { return };
    if let Err(e) = stream.write_all(&json).await {
        tracing::debug!(error = %e, "whoever asked is gone");
    }
}

/// Asks the mount whose socket is at `path`. `None` if no daemon listens there, or it ended without an answer.
///
/// # Errors
/// The socket cannot be used.
pub async fn ask(path: &Path, request: &Request) -> io::Result<Option<String>> {
    match exchange(path, request).await {
        Ok(answer) => Ok(Some(answer).filter(|answer| !answer.is_empty())),
        Err(e) if is_end_of_daemon(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

async fn exchange(path: &Path, request: &Request) -> io::Result<String> {
    let mut stream = UnixStream::connect(path).await?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MESSAGE_LEN_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// No daemon, or one that ended with this connection not yet accepted or not yet answered: what WaitForEnd waits for.
fn is_end_of_daemon(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What whoever asks at `path` is told, if it is `socket` that answers there.
    async fn told(path: &Path, socket: &ControlSocket) -> Option<String> {
        let answering = async {
            while let Some((_, stream)) = socket.next().await {
                answer(stream, &"here").await;
            }
        };
        let request = Request::Status;
        tokio::select! {
            told = ask(path, &request) => told.unwrap(),
            () = answering => None,
        }
    }

    #[tokio::test]
    async fn a_daemon_that_ends_leaves_the_socket_of_the_next_at_its_mountpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("objfs/m.sock");
        let first = ControlSocket::bind(&path).unwrap();
        assert_eq!(told(&path, &first).await.as_deref(), Some("\"here\""));
        let second = ControlSocket::bind(&path).unwrap();
        assert_eq!(told(&path, &second).await.as_deref(), Some("\"here\""), "while the first is there");
        drop(first);
        assert_eq!(told(&path, &second).await.as_deref(), Some("\"here\""), "after its end");
        drop(second);
        assert!(path.symlink_metadata().is_err(), "the last takes it away");
        let third = ControlSocket::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "somebody else's").unwrap();
        drop(third);
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody else's");
    }
}
