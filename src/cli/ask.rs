//! `objfs status`, `objfs refresh`, `objfs ls` and `objfs umount`: what is asked of a running mount.
//!
//! Owns: asking over the control socket, and the answers' layout for people. Does not own: the answers (`daemon`).

use super::args::{LsArgs, RefreshArgs, StatusArgs, UmountArgs};
use super::exit_code::{ExitCode, Failure};
use super::out;
use crate::daemon::{self, PendingStatus, Request, Status, UnmappableKey, absolute, control_socket, mounts};
use indicatif::{ProgressBar, ProgressStyle};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `objfs status`.
///
/// # Errors
/// Nothing of objfs is mounted there.
pub(super) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let json = ask(&args.mountpoint, &Request::Status)?;
    if args.json {
        let value: serde_json::Value = parse(&json)?;
        return out(&serde_json::to_string_pretty(&value).unwrap_or(json));
    }
    out(&layout(&parse::<Status>(&json)?))
}

fn layout(s: &Status) -> String {
    let mut lines = vec![
        format!("{} at {} ({}, process {})", s.source, s.mountpoint, s.state, s.pid),
        format!("health:    {}", s.health),
        format!(
            "pending:   {} files, {} markers; {} conflicts since the mount; {} open files",
            s.pending.files, s.pending.markers, s.pending.conflicts, s.pending.open_files
        ),
    ];
    lines.extend(s.notices.iter().map(|notice| format!("notice:    {notice}")));
    for failed in &s.pending.failed {
        let next = if failed.retried { "tried again by itself" } else { "waits for you" };
        lines.push(format!("  {}: {} ({next})", failed.path, failed.reason));
    }
    let others = s.polled_directories.saturating_sub(s.watched_directories);
    lines.push(format!(
        "polling:   {} watched directories every {:.0} s, {others} others every {:.0} s: {:.0} LIST requests an hour",
        s.watched_directories, s.watched_poll_period, s.poll_period, s.polls_per_hour
    ));
    lines.push(format!("lifetime:  names and attributes are asked for again after {} s", s.lifetime));
    lines.push(format!("known:     {} entries, {} bytes", s.known_files, s.known_bytes));
    lines.push(format!("cached:    {} bytes on the disk", s.cached_bytes));
    if s.unmappable_keys > 0 {
        let hint = "objfs ls --unmappable lists them";
        lines.push(format!("not shown: {} keys that no path can express ({hint})", s.unmappable_keys));
    }
    lines.push(match s.conditional_writes {
        Some(c) => format!(
            "conditions: put if absent {:?}, put if match {:?}, complete {:?}, copy {:?}, delete {:?}",
            c.put_if_absent, c.put_if_match, c.complete, c.copy, c.delete
        ),
        None => "conditions: not probed yet; the first write does".to_owned(),
    });
    lines.push(format!("requests:  {} in flight", s.in_flight));
    for (kind, count) in &s.requests {
        lines.push(format!(
            "  {kind:<24} {:>8} sent {:>6} failed {:>14} bytes out {:>14} bytes in",
            count.sent, count.failed, count.bytes_sent, count.bytes_received
        ));
    }
    lines.push(format!("state:     {}", s.state_dir));
    lines.join("\n")
}

/// `objfs refresh`: the mount asks the bucket at once.
///
/// # Errors
/// The path is in no mount of objfs, or the bucket's answer.
pub(super) fn refresh(args: &RefreshArgs) -> Result<(), Failure> {
    let (mountpoint, names) = place_in_mount(&args.path)?;
    let bar = progress("asking the bucket");
    let answer = ask(&mountpoint, &Request::Refresh { names })?;
    bar.finish_and_clear();
    let failed = |what: String| Failure::new(ExitCode::MountFailure, format!("{}: {what}", args.path.display()));
    parse::<Result<(), String>>(&answer)?.map_err(failed)
}

/// The mount that a path is in, and the names from its root.
pub(super) fn place_in_mount(path: &Path) -> Result<(PathBuf, Vec<Vec<u8>>), Failure> {
    let path = absolute(path);
    let mountpoint = path.ancestors().find(|at| mounts::type_at(at).is_some_and(|kind| kind == "fuse.objfs"));
    let none = || Failure::new(ExitCode::NotMounted, format!("{} is in no mount of objfs", path.display()));
    let mountpoint = mountpoint.ok_or_else(none)?;
    let below = path.strip_prefix(mountpoint).unwrap_or(Path::new(""));
    Ok((mountpoint.to_owned(), below.iter().map(|name| name.as_bytes().to_vec()).collect()))
}

/// `objfs ls --unmappable`: reason, size in bytes and key, a line each.
///
/// # Errors
/// Nothing of objfs is mounted there.
pub(super) fn ls(args: &LsArgs) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let keys: Vec<UnmappableKey> = parse(&ask(&args.mountpoint, &Request::Unmappable { after })?)?;
        for key in &keys {
            // A key may hold anything, line ends included: written as Rust would, it stays one line.
            out(&format!("{}\t{}\t{:?}", key.why, key.size, key.key))?;
        }
        match keys.last() {
            Some(last) => after = last.key.clone(),
            None => return Ok(()),
        }
    }
}

/// `objfs umount`: commit everything, unmount, wait for the daemon.
///
/// # Errors
/// Something could not be committed, or the mount is in use.
pub(super) fn umount(args: &UmountArgs) -> Result<(), Failure> {
    let at = absolute(&args.mountpoint);
    let socket = control_socket(&at);
    let bar = progress("committing");
    let answer = block_on(daemon::ask(&socket, &Request::Drain { seconds: args.timeout }))?;
    bar.finish_and_clear();
    match answer {
        Some(json) => {
            let left: PendingStatus = parse(&json)?;
            if (left.files + left.markers > 0 || !left.failed.is_empty()) && !args.force {
                return Err(Failure::new(ExitCode::NotCommitted, describe_left(&left)));
            }
        }
        None if !mounts::is_mounted(&at) => {
            return Err(Failure::new(ExitCode::NotMounted, format!("nothing is mounted at {}", at.display())));
        }
        // Mounted, and nobody answers: a daemon that died, or somebody else's mount.
        None => {}
    }
    let busy = |e| {
        let at = at.display();
        let message = format!("{at} stays mounted: {e}; if it is in use, end what uses it (fuser -vm {at} shows that)");
        Failure::new(ExitCode::MountFailure, message)
    };
    daemon::unmount(&at, false).map_err(busy)?;
    let bar = progress("waiting for the daemon to end");
    block_on(daemon::ask(&socket, &Request::WaitForEnd))?;
    bar.finish_and_clear();
    Ok(())
}

fn describe_left(left: &PendingStatus) -> String {
    let mut text = format!("not unmounted: {} files and {} markers are not committed", left.files, left.markers);
    for failed in &left.failed {
        text.push_str(&format!("\n  {}: {}", failed.path, failed.reason));
    }
    text.push_str("\ntry again when the cause is gone, or unmount with --force: the next mount goes on with them");
    text
}

/// On a terminal only, and only while there is something to wait for.
pub(super) fn progress(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

pub(super) fn ask(mountpoint: &Path, request: &Request) -> Result<String, Failure> {
    let at = absolute(mountpoint);
    let none = || Failure::new(ExitCode::NotMounted, format!("nothing of objfs is mounted at {}", at.display()));
    block_on(daemon::ask(&control_socket(&at), request))?.ok_or_else(none)
}

fn block_on<T>(work: impl Future<Output = std::io::Result<T>>) -> Result<T, Failure> {
    let fail = |e: std::io::Error| Failure::new(ExitCode::MountFailure, format!("the mount's control socket: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    runtime.block_on(work).map_err(fail)
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Failure> {
    serde_json::from_str(json).map_err(|e| {
        Failure::new(ExitCode::MountFailure, format!("the daemon's answer makes no sense (another version?): {e}"))
    })
}
