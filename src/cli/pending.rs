//! `objfs sync`, `retry`, `export`, `discard` and `uploads`: what the bucket does not have, or has half.
//!
//! Owns: asking, and what is printed. Does not own: the deeds (`fs::parked`).

use super::args::{DiscardArgs, ExportArgs, RetryArgs, SyncArgs, UploadsArgs};
use super::ask::{ask, parse, place_in_mount, progress};
use super::exit_code::{ExitCode, Failure};
use super::out;
use crate::daemon::{FailedCommit, Request, UnfinishedUpload, absolute};
use std::path::Path;

fn failed(path: &Path) -> impl Fn(String) -> Failure {
    move |what| Failure::new(ExitCode::MountFailure, format!("{}: {what}", path.display()))
}

/// `objfs sync`: waits until the bucket has everything below a path.
///
/// # Errors
/// Something is left; it is in no mount.
pub(super) fn sync(args: &SyncArgs) -> Result<(), Failure> {
    let (mountpoint, names) = place_in_mount(&args.path)?;
    let bar = progress("committing");
    let answer = ask(&mountpoint, &Request::Sync { names, seconds: args.timeout })?;
    bar.finish_and_clear();
    let left: Vec<FailedCommit> = parse::<Result<_, String>>(&answer)?.map_err(failed(&args.path))?;
    if left.is_empty() {
        return Ok(());
    }
    let mut text = format!("{} files are not in the bucket:", left.len());
    for file in &left {
        let next = if file.retried { "goes on by itself" } else { "waits for you: objfs retry, export or discard" };
        text.push_str(&format!("\n  {}: {} ({next})", file.path, file.reason));
    }
    Err(Failure::new(ExitCode::NotCommitted, text))
}

/// `objfs retry`: tries again what has failed.
///
/// # Errors
/// It is in no mount.
pub(super) fn retry(args: &RetryArgs) -> Result<(), Failure> {
    let (mountpoint, names) = place_in_mount(&args.path)?;
    let answer = ask(&mountpoint, &Request::Retry { names })?;
    let count: usize = parse::<Result<_, String>>(&answer)?.map_err(failed(&args.path))?;
    out(&format!("{count} files are tried again; objfs sync waits for them, objfs status shows them"))
}

/// `objfs export`: saves a file elsewhere, as it is here.
///
/// # Errors
/// The bucket has all of it; the new file cannot be written.
pub(super) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let (mountpoint, names) = place_in_mount(&args.path)?;
    let bar = progress("writing");
    let answer = ask(&mountpoint, &Request::Export { names, to: absolute(&args.to) })?;
    bar.finish_and_clear();
    match parse::<Result<u64, String>>(&answer)?.map_err(failed(&args.path))? {
        0 => Ok(()),
        lost => {
            out(&format!("{lost} bytes of a version that is gone from the bucket are missing: zeros stand for them"))
        }
    }
}

/// `objfs discard`: drops what was changed here.
///
/// # Errors
/// Nothing was; it is open.
pub(super) fn discard(args: &DiscardArgs) -> Result<(), Failure> {
    let (mountpoint, names) = place_in_mount(&args.path)?;
    let answer = ask(&mountpoint, &Request::Discard { names })?;
    parse::<Result<(), String>>(&answer)?.map_err(failed(&args.path))
}

/// `objfs uploads`: multipart uploads that were not completed; aborts those that are named.
///
/// # Errors
/// Nothing of objfs is mounted there; what the server says.
pub(super) fn uploads(args: &UploadsArgs) -> Result<(), Failure> {
    let fail = failed(&args.mountpoint);
    let answer = ask(&args.mountpoint, &Request::Uploads)?;
    let all: Vec<UnfinishedUpload> = parse::<Result<_, String>>(&answer)?.map_err(&fail)?;
    if args.abort.is_empty() {
        for upload in &all {
            let whose = if upload.ours { "this mount" } else { "others" };
            let since = upload.initiated.map_or_else(|| "?".to_owned(), |at| at.to_string());
            out(&format!("{}\t{whose}\t{since}\t{:?}", upload.id, upload.key))?;
        }
        return Ok(());
    }
    for id in &args.abort {
        let Some(upload) = all.iter().find(|upload| upload.id == *id) else {
            return Err(fail(format!("there is no upload {id}; `objfs uploads` lists them")));
        };
        if upload.ours {
            return Err(fail(format!("{id} is under way in this mount, or is aborted by it")));
        }
        let request = Request::AbortUpload { key: upload.key.clone(), id: id.clone() };
        parse::<Result<(), String>>(&ask(&args.mountpoint, &request)?)?.map_err(&fail)?;
    }
    Ok(())
}
