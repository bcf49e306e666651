//! The life of a mount: build, mount, serve, drain, close.
//!
//! Owns: the order of all that. Does not own: any of the rooms.

use super::background::Ready;
use super::config::{MountConfig, control_socket};
use super::control::ControlSocket;
use super::failure::{FailureKind, MountFailure};
use super::limits::raise_descriptors;
use super::lock::StateLock;
use super::mounts;
use super::requests::answer_requests;
use super::status::Status;
use crate::fs::{Drained, Fs};
use crate::fuse::{self, MountSettings, Session, SessionSettings};
use crate::meta::headers::Kept;
use crate::meta::{Defaults, Meta};
use crate::read::{self, DiskSettings, Reader};
use crate::store::open::{self, Opened, StackSettings};
use crate::store::{Conditions, ErrorKind, LimitStore, ListRequest, ObjectStore, Op, StoreError};
use crate::telemetry;
use crate::types::{Ino, Key, SystemClock, Timestamp, WallClock};
use crate::write::{self, DirDisk, Journal, Writer};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// How long the bucket may take to answer the first question before the mount is given up.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// How long the first answer of a bucket that an earlier mount knew is waited for: then the mount is ready without it.
const KNOWN_FIRST_ANSWER: Duration = Duration::from_millis(50);
/// How long the bucket is waited for when something older can be shown.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the catalogue keeps what the probe found.
const CONDITIONS_KEY: &str = "conditions";
/// Where the catalogue keeps what scratch objects are called.
const SCRATCH_KEY: &str = "scratch";

/// A mount's rooms.
pub(super) struct Rooms {
    config: MountConfig,
    pub(super) fs: Arc<Fs>,
    store: Opened,
    draining: AtomicBool,
    /// By an earlier daemon, which may have left something.
    was_mounted_before: bool,
    /// Why the bucket refused the first question, if it did after the mount was ready.
    refused: Arc<OnceLock<String>>,
}

impl Rooms {
    /// How the mount is.
    pub(super) fn status(&self) -> Status {
        let state = if self.draining.load(Ordering::SeqCst) { "draining" } else { "mounted" };
        Status::of(&self.config, &self.fs, &self.store, state, self.refused.get())
    }
}

/// Serves the mount until it is unmounted, and then until the bucket has everything. Blocks.
///
/// # Errors
/// Why it could not be mounted; `ready` is told the same.
pub fn serve(config: MountConfig, mut ready: Ready) -> Result<(), MountFailure> {
    keep_files_private();
    let built = prepare(&config).and_then(|lock| {
        raise_descriptors();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // Of address space: futures within futures are large, in debug builds above all.
            .thread_stack_size(4 << 20)
            .enable_all()
            .thread_name("objfs")
            .build()
            .map_err(|e| MountFailure::new(FailureKind::Other, format!("no runtime: {e}")))?;
        Ok((lock, runtime))
    });
    let outcome = built.and_then(|(lock, runtime)| {
        let served = runtime.block_on(run(config, &mut ready));
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop(lock);
        served
    });
    if let Err(failure) = &outcome {
        tracing::error!(%failure, "not mounted");
        ready.tell(&outcome);
    }
    outcome
}

/// Files that this process makes from now on are its user's alone, those of libraries included. Files in the mount have
/// the modes that their makers ask for all the same: the kernel applies the umask of each.
pub fn keep_files_private() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// What can be checked and made before anything is asked of the network.
fn prepare(config: &MountConfig) -> Result<StateLock, MountFailure> {
    check_mountpoint(&config.mountpoint, config.non_empty)?;
    let folder = config.state_folder();
    make_private(&folder)?;
    let log = folder.join("objfs.log");
    if config.foreground {
        telemetry::log_to_stderr(config.log.as_deref());
    } else {
        telemetry::log_to_file(&log, config.log.as_deref()).map_err(|e| MountFailure::state(&log, e))?;
    }
    StateLock::take(&folder, &config.mountpoint)
}

fn make_private(folder: &Path) -> Result<(), MountFailure> {
    use std::os::unix::fs::PermissionsExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)))
        .map_err(|e| MountFailure::state(folder, e))
}

/// Whether something can be mounted there: a directory, empty unless `non_empty`, and not mounted already.
///
/// # Errors
/// Why not.
pub fn check_mountpoint(at: &Path, non_empty: bool) -> Result<(), MountFailure> {
    let fail = |kind, message: String| Err(MountFailure::new(kind, message));
    if let Some(kind) = mounts::type_at(at).filter(|_| !non_empty) {
        let message = format!("{} is a mount of type {kind} already: unmount it first (objfs umount)", at.display());
        return fail(FailureKind::AlreadyMounted, message);
    }
    match std::fs::metadata(at) {
        Ok(meta) if !meta.is_dir() => {
            return fail(FailureKind::MountpointMissing, format!("{} is not a directory", at.display()));
        }
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("the mountpoint {} does not exist: create it (mkdir)", at.display());
            return fail(FailureKind::MountpointMissing, message);
        }
        Err(e) => return fail(FailureKind::MountpointMissing, format!("{}: {e}", at.display())),
    }
    let has_entries = std::fs::read_dir(at).is_ok_and(|mut entries| entries.next().is_some());
    if has_entries && !non_empty {
        let message = format!("{} is not empty: choose an empty directory, or add -o nonempty", at.display());
        return fail(FailureKind::MountpointNotEmpty, message);
    }
    Ok(())
}

async fn run(config: MountConfig, ready: &mut Ready) -> Result<(), MountFailure> {
    let rooms = Arc::new(build(config).await?);
    let config = &rooms.config;
    rooms.fs.recover().await.map_err(|e| MountFailure::state(&config.state_folder(), e))?;
    let socket_path = control_socket(&config.mountpoint);
    let socket = ControlSocket::bind(&socket_path).map_err(|e| MountFailure::state(&socket_path, e))?;
    let mut ended = start_session(&rooms)?;
    let background = tokio::spawn(Arc::clone(&rooms.fs).run_background());
    let control = tokio::spawn(answer_requests(Arc::clone(&rooms), socket));
    if !config.read_only && rooms.was_mounted_before {
        let guard = Arc::clone(&rooms.store.guard);
        tokio::spawn(async move {
            if let Err(e) = guard.clean_left_probe().await {
                tracing::debug!(error = %e, "what a killed probe may have left is still there");
            }
        });
    }
    if let Err(failure) = wait_until_it_answers(&config.mountpoint).await {
        take_away(&config.mountpoint);
        return Err(failure);
    }
    if let Ok(root) = nix::sys::stat::stat(&config.mountpoint) {
        rooms.fs.set_device(nix::sys::stat::major(root.st_dev), nix::sys::stat::minor(root.st_dev));
    }
    tracing::info!(source = %config.source(), mountpoint = %config.mountpoint.display(), "mounted");
    ready.tell(&Ok(()));
    wait_for_the_end(&config.mountpoint, &mut ended).await;
    rooms.draining.store(true, Ordering::SeqCst);
    rooms.fs.session_ended();
    drain(&rooms).await;
    background.abort();
    // The socket goes last: whoever finds none takes it that all files are closed.
    rooms.fs.close();
    control.abort();
    Ok(())
}

async fn build(config: MountConfig) -> Result<Rooms, MountFailure> {
    let folder = config.state_folder();
    let clock: Arc<dyn WallClock> = Arc::new(SystemClock);
    let state = |what: &str, e: &dyn std::fmt::Display| MountFailure::state(&folder.join(what), e);
    let meta = Meta::open(&folder.join("catalogue.db"), defaults(&config, clock.now()), clock)
        .await
        .map_err(|e| state("catalogue.db", &e))?;
    let known = meta.kv(CONDITIONS_KEY).map_err(|e| state("catalogue.db", &e))?;
    let known: Option<Conditions> = known.and_then(|json| serde_json::from_str(&json).ok());
    let (probed, found) = mpsc::unbounded_channel();
    let (scratch, was_mounted_before) = scratch_name(&meta).await.map_err(|e| state("catalogue.db", &e))?;
    let stack = StackSettings {
        prefix: config.prefix.clone(),
        requests_max: config.requests_max,
        scratch,
        ..StackSettings::default()
    };
    let on_probed = Box::new(move |conditions: &Conditions| {
        if probed.send(*conditions).is_err() {
            tracing::debug!("the mount is over: the probe's result is not kept");
        }
    });
    let refused = |e: StoreError| MountFailure::from_store(&e, &config.s3.bucket, config.s3.endpoint.as_deref());
    let store = open::open(&config.s3, &stack, known, on_probed).await.map_err(refused)?;
    let refusal = Arc::new(OnceLock::new());
    let root = meta.get(Ino::ROOT).map_err(|e| state("catalogue.db", &e))?;
    let is_known = root.is_some_and(|root| root.complete_at.is_some());
    ask_first(&store, &config, is_known, &refusal).await.map_err(refused)?;
    // Half for what is read, a third for what is written; the rest is everything else.
    let reader = Reader::new(
        Arc::clone(&store.store),
        read::Settings { memory: config.memory / 2, disk: disk_cache(&config), ..read::Settings::default() },
    );
    let journal = Journal::open(&folder.join("journal.db")).map_err(|e| state("journal.db", &e))?;
    let disk = DirDisk::new(&folder.join("staging")).map_err(|e| state("staging", &e))?;
    let writer = Writer::new(
        Arc::clone(&store.store),
        reader.clone(),
        Arc::new(disk),
        journal,
        write::Settings {
            memory: config.memory / 3,
            staging: config.staging_size.unwrap_or_else(|| fit_staging(&folder)),
        },
    );
    let fs = Fs::new(meta, Arc::clone(&store.store), reader, writer, fs_settings(&config));
    tokio::spawn(remember_conditions(Arc::clone(&fs), found));
    Ok(Rooms { config, fs, store, draining: AtomicBool::new(false), was_mounted_before, refused: refusal })
}

/// How much may be staged below the state folder, unless somebody says otherwise.
fn fit_staging(folder: &Path) -> u64 {
    let free = nix::sys::statvfs::statvfs(folder).map(|disk| disk.blocks_available() * disk.fragment_size());
    free.map_or(u64::MAX, |free| fit_staging_beside(free, folder))
}

/// Nine tenths of what is free: the journal needs room as well, and so do others. What an earlier mount left staged is added: it
/// counts against the limit, or is taken away, and is no part of what is free.
fn fit_staging_beside(free: u64, folder: &Path) -> u64 {
    free.saturating_add(bytes_on_disk(&folder.join("staging"))) / 10 * 9
}

/// What the files in a directory take of the disk, in bytes. What cannot be looked at counts as nothing.
fn bytes_on_disk(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    // Blocks are of 512 bytes here, whatever those of the file system are (stat(2)).
    entries.filter_map(|entry| entry.and_then(|entry| entry.metadata()).ok()).map(|file| file.blocks() * 512).sum()
}

fn disk_cache(config: &MountConfig) -> Option<DiskSettings> {
    let fit = DiskSettings::default_in(config.cache_folder());
    let size = config.cache_size.unwrap_or(fit.size);
    (size > 0).then_some(DiskSettings { size, ..fit })
}

fn fs_settings(config: &MountConfig) -> crate::fs::Settings {
    let host = nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok());
    crate::fs::Settings {
        read_only: config.read_only,
        noatime: config.mount_flags.iter().any(|flag| flag == "noatime"),
        poll_interval: config.poll_interval,
        poll_budget: config.poll_budget,
        events: config.events,
        filter: config.filter.clone(),
        writes: config.writes.clone(),
        host: host.unwrap_or_else(|| "localhost".to_owned()),
        patience: PATIENCE,
        prefix_len: config.prefix.as_str().len(),
    }
}

fn defaults(config: &MountConfig, now: Timestamp) -> Defaults {
    Defaults {
        uid: config.uid.unwrap_or_else(|| nix::unistd::getuid().as_raw()),
        gid: config.gid.unwrap_or_else(|| nix::unistd::getgid().as_raw()),
        uid_forced: config.uid.is_some(),
        gid_forced: config.gid.is_some(),
        file_perm: 0o666 & !config.umask,
        dir_perm: 0o777 & !config.umask,
        file_mode: config.file_mode,
        dir_mode: config.dir_mode,
        kept: if config.nometa { Kept::Here } else { Kept::InObjects },
        mounted_at: now,
    }
}

/// Whether the bucket answers. A bucket that an earlier mount knew is mounted without an answer, from the catalogue: while
/// the network is gone, and before an answer that takes long. What it says then goes to log and status.
async fn ask_first(
    store: &Opened,
    config: &MountConfig,
    is_known: bool,
    refused: &Arc<OnceLock<String>>,
) -> Result<(), StoreError> {
    let first = first_answer(Arc::clone(&store.limit), config.prefix.clone());
    if !is_known {
        return first.await;
    }
    let mut first = tokio::spawn(first);
    match tokio::time::timeout(KNOWN_FIRST_ANSWER, &mut first).await {
        Ok(Ok(Err(e))) if !e.kind.is_silence() => Err(e),
        Ok(answer) => {
            if let Ok(Err(e)) = answer {
                tracing::warn!(error = %e, "the server does not answer: mounted from what is known");
            }
            Ok(())
        }
        Err(_) => {
            let (refused, bucket, endpoint) =
                (Arc::clone(refused), config.s3.bucket.clone(), config.s3.endpoint.clone());
            tokio::spawn(async move {
                let Ok(Err(e)) = first.await else { return };
                let failure = MountFailure::from_store(&e, &bucket, endpoint.as_deref());
                tracing::error!(%failure, "mounted from what is known, but the bucket cannot be used");
                if !e.kind.is_silence() && refused.set(failure.message).is_err() {
                    tracing::debug!("refused twice");
                }
            });
            Ok(())
        }
    }
}

/// One key under the prefix: tells whether the server answers, the keys are good, the bucket exists and may be listed.
/// Below the retries, so that a wrong endpoint is a sentence and not half a minute of silence.
async fn first_answer(store: Arc<LimitStore>, prefix: Key) -> Result<(), StoreError> {
    let request = ListRequest { prefix, delimited: true, continuation: None, max_keys: 1 };
    let mut attempts = 0;
    loop {
        attempts += 1;
        let answer = tokio::time::timeout(FIRST_ANSWER, store.list(&request)).await;
        let silent = || StoreError::new(ErrorKind::Timeout, Op::List, None, "no answer");
        match answer.unwrap_or_else(|_| Err(silent())) {
            Err(e) if attempts < 3 && matches!(e.kind, ErrorKind::Throttled | ErrorKind::Server) => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            result => return result.map(|_| ()),
        }
    }
}

/// What the scratch objects of this state folder's mounts are called, and whether there was one before.
async fn scratch_name(meta: &Meta) -> Result<(String, bool), crate::meta::DbError> {
    if let Some(known) = meta.kv(SCRATCH_KEY)? {
        return Ok((known, true));
    }
    let new = uuid::Uuid::new_v4().to_string();
    meta.set_kv(SCRATCH_KEY, new.clone()).await?;
    Ok((new, false))
}

async fn remember_conditions(fs: Arc<Fs>, mut found: mpsc::UnboundedReceiver<Conditions>) {
    while let Some(conditions) = found.recv().await {
        tracing::info!(?conditions, "probed which conditional writes the server keeps");
        let Ok(json) = serde_json::to_string(&conditions) else { continue };
        if let Err(e) = fs.meta().set_kv(CONDITIONS_KEY, json).await {
            tracing::warn!(error = %e, "the probe's result could not be stored: it will be made again");
        }
    }
}

/// Mounts, and serves requests on threads of its own. The receiver resolves when the kernel ends the session.
fn start_session(rooms: &Arc<Rooms>) -> Result<oneshot::Receiver<()>, MountFailure> {
    let config = &rooms.config;
    let settings = MountSettings {
        mountpoint: config.mountpoint.clone(),
        source: config.source(),
        read_only: config.read_only,
        allow_other: config.allow_other,
        flags: config.mount_flags.clone(),
    };
    let fd = fuse::mount(&settings).map_err(|e| {
        let kind = match e {
            fuse::MountError::NoDevice | fuse::MountError::Device(_) | fuse::MountError::NoFusermount => {
                FailureKind::NoFuse
            }
            fuse::MountError::Refused(_) => FailureKind::Other,
        };
        MountFailure::new(kind, e.to_string())
    })?;
    let features = SessionSettings { disabled: config.disabled_features.clone() };
    let session = Session::start(&rooms.fs, fd, &config.mountpoint, features, tokio::runtime::Handle::current())
        .map_err(|e| {
            take_away(&config.mountpoint);
            MountFailure::new(FailureKind::Other, format!("the kernel ended the session: {e}"))
        })?;
    let (end, ended) = oneshot::channel();
    let run = move || {
        if let Err(e) = session.run() {
            tracing::error!(error = %e, "the session ended with an error");
        }
        if end.send(()).is_err() {
            tracing::debug!("nobody waits for the end of the session");
        }
    };
    std::thread::Builder::new()
        .name("fuse-session".to_owned())
        .spawn(run)
        .map_err(|e| MountFailure::new(FailureKind::Other, format!("no thread: {e}")))?;
    Ok(ended)
}

async fn wait_until_it_answers(mountpoint: &Path) -> Result<(), MountFailure> {
    let path = mountpoint.to_owned();
    let stat = tokio::task::spawn_blocking(move || std::fs::metadata(path));
    match tokio::time::timeout(Duration::from_secs(10), stat).await {
        Ok(Ok(Ok(_))) => Ok(()),
        Ok(Ok(Err(e))) => Err(MountFailure::new(FailureKind::Other, format!("the mount does not answer: {e}"))),
        _ => Err(MountFailure::new(FailureKind::Other, "the mount does not answer")),
    }
}

/// Until somebody unmounts, or a signal asks us to.
async fn wait_for_the_end(mountpoint: &Path, ended: &mut oneshot::Receiver<()>) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::warn!("signals cannot be caught: unmount to end");
        return drop(ended.await);
    };
    tokio::select! {
        _ = &mut *ended => return,
        _ = terminate.recv() => tracing::info!("asked to end by SIGTERM"),
        _ = interrupt.recv() => tracing::info!("asked to end by SIGINT"),
    }
    let path = mountpoint.to_owned();
    if tokio::task::spawn_blocking(move || take_away(&path)).await.is_err() {
        tracing::error!("unmounting panicked");
    }
    drop(ended.await);
}

/// Unmounts, if need be while it is in use: the session then ends when the last user does.
fn take_away(mountpoint: &Path) {
    if let Err(e) = fuse::unmount(mountpoint, false) {
        tracing::info!(error = %e, "in use: unmounting lazily");
        if let Err(e) = fuse::unmount(mountpoint, true) {
            tracing::error!(error = %e, "could not be unmounted");
        }
    }
}

async fn drain(rooms: &Rooms) {
    match rooms.fs.drain(rooms.config.drain_timeout).await {
        Ok(Drained::Clean) => tracing::info!("unmounted; the bucket has everything"),
        Ok(Drained::Left(pending)) => {
            let left = pending.files + pending.markers;
            tracing::error!(left, failed = ?pending.failed, "unmounted; the next mount goes on with what is left");
        }
        Err(e) => tracing::error!(error = %e, "unmounted; what is left is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_those_of_the_documents() {
        assert_eq!((PATIENCE, KNOWN_FIRST_ANSWER), (Duration::from_secs(5), Duration::from_millis(50)));
    }

    #[test]
    fn staged_files_may_take_nine_tenths_of_what_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let disk = nix::sys::statvfs::statvfs(dir.path()).unwrap();
        let free = disk.blocks_available() * disk.fragment_size();
        // Others use that disk as well.
        assert!(fit_staging(dir.path()).abs_diff(free / 10 * 9) < free / 10);
    }

    #[test]
    fn what_an_earlier_mount_left_staged_takes_nothing_of_what_is_free() {
        use std::io::Write;
        const FREE: u64 = 40 << 20;
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(fit_staging_beside(FREE, dir.path()), FREE / 10 * 9, "nothing was ever staged");
        let staging = dir.path().join("staging");
        std::fs::create_dir(&staging).unwrap();
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
        for n in ["a", "b"] {
            let mut file = std::fs::File::create(staging.join(n)).unwrap();
            file.write_all(&noise).unwrap();
            // Holes take nothing.
            file.set_len(1 << 30).unwrap();
            file.sync_all().unwrap();
        }
        let more = fit_staging_beside(FREE, dir.path()) - FREE / 10 * 9;
        assert!((1 << 20..8 << 20).contains(&more), "nine tenths of 2 MiB, and not {more}");
        assert_eq!(fit_staging_beside(u64::MAX, dir.path()), u64::MAX / 10 * 9);
    }
}
