//! Answering what is asked over the control socket.
//!
//! Owns: one answer per request. Does not own: the protocol (`control`), the deeds (`fs`).

use super::control::{self, ControlSocket, Request, UnfinishedUpload, UnmappableKey};
use super::serve::Rooms;
use super::status::{FailedCommit, PendingStatus};
use crate::fs::{Drained, Fs, FsError, Unsaved};
use crate::store::Upload;
use crate::types::{Key, Name};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Keys that one answer lists.
const UNMAPPABLE_PAGE: usize = 1000;

/// Answers until the task is dropped.
pub(super) async fn answer_requests(rooms: Arc<Rooms>, socket: ControlSocket) {
    loop {
        let Some((request, stream)) = socket.next().await else { continue };
        let rooms = Arc::clone(&rooms);
        tokio::spawn(async move {
            match request {
                Request::Status => control::answer(stream, &rooms.status()).await,
                Request::Drain { seconds } => control::answer(stream, &drain(&rooms.fs, seconds).await).await,
                Request::Unmappable { after } => control::answer(stream, &unmappable(&rooms.fs, &after)).await,
                Request::Refresh { names } => control::answer(stream, &refresh(&rooms.fs, names).await).await,
                Request::Sync { names, seconds } => {
                    control::answer(stream, &sync(&rooms.fs, names, seconds).await).await;
                }
                Request::Retry { names } => control::answer(stream, &retry(&rooms.fs, names)).await,
                Request::Export { names, to } => control::answer(stream, &export(&rooms.fs, names, &to).await).await,
                Request::Discard { names } => control::answer(stream, &discard(&rooms.fs, names).await).await,
                Request::Uploads => control::answer(stream, &uploads(&rooms.fs).await).await,
                Request::AbortUpload { key, id } => {
                    control::answer(stream, &abort_upload(&rooms.fs, &key, id).await).await;
                }
                // The connection ends with this process.
                Request::WaitForEnd => std::future::pending().await,
            }
        });
    }
}

async fn drain(fs: &Arc<Fs>, seconds: u64) -> PendingStatus {
    match fs.drain(Duration::from_secs(seconds)).await {
        Ok(Drained::Clean) => PendingStatus::default(),
        Ok(Drained::Left(pending)) => pending.into(),
        Err(e) => {
            let failed = FailedCommit { path: String::new(), reason: e.to_string(), retried: true };
            PendingStatus { failed: vec![failed], ..PendingStatus::default() }
        }
    }
}

fn unmappable(fs: &Fs, after: &str) -> Vec<UnmappableKey> {
    let keys = fs.meta().unmappable(after, UNMAPPABLE_PAGE).unwrap_or_default();
    keys.into_iter().map(|(key, why, size)| UnmappableKey { key, why, size }).collect()
}

fn path(names: Vec<Vec<u8>>) -> Result<Vec<Name>, String> {
    names.into_iter().map(Name::parse).collect::<Result<_, _>>().map_err(|e| e.to_string())
}

async fn refresh(fs: &Arc<Fs>, names: Vec<Vec<u8>>) -> Result<(), String> {
    fs.refresh_path(&path(names)?).await.map_err(|e| e.to_string())
}

async fn sync(fs: &Arc<Fs>, names: Vec<Vec<u8>>, seconds: u64) -> Result<Vec<FailedCommit>, String> {
    let failed = |file: Unsaved| FailedCommit {
        path: file.path,
        reason: file.reason.unwrap_or_else(|| "not uploaded yet".to_owned()),
        retried: file.is_retried,
    };
    let left = fs.sync_path(&path(names)?, Duration::from_secs(seconds)).await.map_err(|e| e.to_string())?;
    Ok(left.into_iter().map(failed).collect())
}

fn retry(fs: &Arc<Fs>, names: Vec<Vec<u8>>) -> Result<usize, String> {
    fs.retry_path(&path(names)?).map_err(|e| e.to_string())
}

async fn export(fs: &Arc<Fs>, names: Vec<Vec<u8>>, to: &Path) -> Result<u64, String> {
    fs.export_path(&path(names)?, to).await.map_err(|e| match e {
        FsError::Invalid => "the bucket has all of it: copy it from the mount".to_owned(),
        FsError::Disk(e) => format!("{}: {e}", to.display()),
        e => e.to_string(),
    })
}

async fn discard(fs: &Arc<Fs>, names: Vec<Vec<u8>>) -> Result<(), String> {
    fs.discard_path(&path(names)?).await.map_err(|e| match e {
        FsError::Invalid => "nothing of it was changed here that the bucket does not have".to_owned(),
        FsError::Disk(_) => "it is open: end the programs that use it first".to_owned(),
        e => e.to_string(),
    })
}

async fn uploads(fs: &Fs) -> Result<Vec<UnfinishedUpload>, String> {
    let each = |one: crate::fs::Unfinished| UnfinishedUpload {
        key: one.upload.key.to_string(),
        id: one.upload.id,
        initiated: one.upload.initiated.map(|at| at.secs()),
        ours: one.is_ours,
    };
    Ok(fs.unfinished_uploads().await.map_err(|e| e.to_string())?.into_iter().map(each).collect())
}

async fn abort_upload(fs: &Fs, key: &str, id: String) -> Result<(), String> {
    let key = Key::parse(key).map_err(|e| e.to_string())?;
    fs.abort_upload(&Upload { key, id, initiated: None }).await.map_err(|e| e.to_string())
}
