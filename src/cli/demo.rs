//! `objfs demo`: a small library from a server of objfs' own, mounted.
//!
//! Owns: putting server, library and mount together, and what the user is told to try. Does not own: any of the three.

use super::args::DemoArgs;
use super::exit_code::Failure;
use super::mount::configure;
use super::{args::MountArgs, out};
use crate::daemon::{
    self, FailureKind, MountConfig, MountFailure, Ready, Secret, StaticCredentials, absolute, default_state_dir, mounts,
};
use crate::demo;
use crate::devserver::{Server, Settings, StartError, Storage};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;

const BUCKET: &str = "demo";
const ACCESS_KEY: &str = "objfs-demo";

/// Starts it all, and returns when the library can be read; in the foreground, when it is unmounted.
///
/// # Errors
/// Why not.
pub(super) fn run(args: &DemoArgs, arguments: &[OsString]) -> Result<(), Failure> {
    let dir = args.dir.clone().unwrap_or_else(|| default_state_dir().join("demo"));
    let mountpoint = absolute(&args.mountpoint);
    if let Some(ready) = Ready::inherited() {
        return Ok(serve(&dir, &mountpoint, false, ready)?);
    }
    if !mounts::is_mounted(&mountpoint) {
        std::fs::create_dir_all(&mountpoint).map_err(|e| fail(&mountpoint, &e))?;
    }
    if args.foreground {
        return Ok(serve(&dir, &mountpoint, true, Ready::nobody())?);
    }
    daemon::start_in_background(arguments)?;
    out(&tell(&dir, &mountpoint)?)
}

/// Server and mount, until the mount ends. Whoever waits for `ready` is told if it does not come to a mount.
fn serve(dir: &Path, mountpoint: &Path, foreground: bool, mut ready: Ready) -> Result<(), MountFailure> {
    daemon::keep_files_private();
    let (runtime, server, config) = match prepare(dir, mountpoint, foreground) {
        Ok(prepared) => prepared,
        Err(failure) => {
            ready.tell(&Err(failure.clone()));
            return Err(failure);
        }
    };
    let served = daemon::serve(config, ready);
    runtime.block_on(server.shutdown());
    served
}

/// The server, filled, and how to mount its bucket.
fn prepare(dir: &Path, mountpoint: &Path, foreground: bool) -> Result<(Runtime, Server, MountConfig), MountFailure> {
    daemon::check_mountpoint(mountpoint, false)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .thread_name("demo-server")
        .build()
        .map_err(|e| fail(dir, &e))?;
    let secret = uuid::Uuid::new_v4().to_string();
    let (server, config) = runtime.block_on(async {
        let server = start_server(dir, &secret).await?;
        write_credentials(dir, &server.endpoint(), &secret)?;
        let mut config = config(dir, mountpoint, &server.endpoint(), &secret)?;
        config.foreground = foreground;
        fill(&config).await?;
        Ok::<_, MountFailure>((server, config))
    })?;
    Ok((runtime, server, config))
}

async fn start_server(dir: &Path, secret: &str) -> Result<Server, MountFailure> {
    let storage = dir.join("server");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| fail(dir, &e))?;
    let settings = Settings {
        access_key: ACCESS_KEY.to_owned(),
        secret_key: secret.to_owned(),
        buckets: vec![BUCKET.to_owned()],
        storage: Storage::Directory(storage),
        ..Settings::default()
    };
    let refused = |e: StartError| {
        let hint = if matches!(e, StartError::Storage { .. }) { " (does another demo use it?)" } else { "" };
        MountFailure::new(FailureKind::Other, format!("{e}{hint}"))
    };
    Server::start(settings).await.map_err(refused)
}

fn config(dir: &Path, mountpoint: &Path, endpoint: &str, secret: &str) -> Result<MountConfig, MountFailure> {
    let args = MountArgs {
        places: vec![format!("s3://{BUCKET}"), mountpoint.to_string_lossy().into_owned()],
        options: Vec::new(),
        foreground: false,
        no_mtab: false,
        sloppy: false,
        verbose: false,
        namespace: None,
        fs_type: None,
    };
    let mut config = configure(&args, &|_| None).map_err(|e| MountFailure::new(FailureKind::Other, e.message))?;
    config.mountpoint = mountpoint.to_owned();
    config.s3.endpoint = Some(endpoint.to_owned());
    config.s3.region = Some("us-east-1".to_owned());
    config.s3.credentials = Some(StaticCredentials {
        access_key: ACCESS_KEY.to_owned(),
        secret_key: Secret::new(secret),
        session_token: None,
    });
    // The server's port changes from start to start; the demo is the same.
    config.state_dir = dir.to_owned();
    config.cache_dir = dir.join("cache");
    config.state_name = Some("mount".to_owned());
    config.poll_interval = Duration::from_secs(2);
    Ok(config)
}

/// Puts what is missing of the library into the bucket; what the user changed or added stays.
async fn fill(config: &MountConfig) -> Result<(), MountFailure> {
    let library = demo::library().map_err(|e| MountFailure::new(FailureKind::Other, format!("the library: {e}")))?;
    daemon::put_missing(config, library.into_iter().map(|i| (i.key, i.content_type, i.body))).await
}

/// For other S3 programs: a file in the format of ~/.aws/credentials, readable by this user alone.
fn write_credentials(dir: &Path, endpoint: &str, secret: &str) -> Result<(), MountFailure> {
    let path = credentials_file(dir);
    let text = format!(
        "# {endpoint}\n[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret}\n\
         endpoint_url = {endpoint}\nregion = us-east-1\n"
    );
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    open.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| fail(&path, &e))
}

fn credentials_file(dir: &Path) -> PathBuf {
    dir.join("credentials")
}

fn tell(dir: &Path, mountpoint: &Path) -> Result<String, Failure> {
    let mut listing = String::new();
    let mut entries: Vec<_> =
        std::fs::read_dir(mountpoint).map_err(|e| fail(mountpoint, &e))?.filter_map(Result::ok).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let slash = if entry.file_type().is_ok_and(|t| t.is_dir()) { "/" } else { "" };
        listing.push_str(&format!("    {}{slash}\n", entry.file_name().to_string_lossy()));
    }
    let at = mountpoint.display();
    let credentials = credentials_file(dir);
    Ok(format!(
        "A bucket is mounted at {at}:\n\n{listing}\n\
         Try:\n\
         \x20   ls -lR {at}\n\
         \x20   cp FILE {at}/            # uploaded when cp ends\n\
         \x20   objfs status {at}\n\
         The same bucket with another program, with its objects as they are:\n\
         \x20   AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE={} aws s3 ls s3://{BUCKET}/\n\
         It runs until you unmount it:\n\
         \x20   fusermount3 -u {at}",
        credentials.display()
    ))
}

fn fail(path: &Path, error: &dyn std::fmt::Display) -> MountFailure {
    MountFailure::new(FailureKind::Other, format!("{}: {error}", path.display()))
}
