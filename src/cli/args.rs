//! Arguments, raw.
//!
//! Owns: clap's structs. Does not own: what arguments mean together (the subcommands' files).

use super::exit_code::EXIT_CODES;
use super::options;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Mounts an S3-compatible bucket as a local directory.
#[derive(Debug, Parser)]
#[command(name = "objfs", version, about, after_help = environment_help())]
pub(super) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mount a bucket, or a prefix of one, at a directory
    #[command(after_help = mount_help())]
    Mount(MountArgs),
    /// Commit everything, unmount, and wait for the daemon to end
    Umount(UmountArgs),
    /// Show how a mount is: health, what waits, requests, the probe's result
    Status(StatusArgs),
    /// Ask the bucket at once for what a directory or file is now
    Refresh(RefreshArgs),
    /// Wait until the bucket has everything at and below a path
    Sync(SyncArgs),
    /// Try again what could not be uploaded
    Retry(RetryArgs),
    /// Save a file that cannot be uploaded elsewhere, as it is here
    Export(ExportArgs),
    /// Drop what was changed here of a file, and show what the bucket has
    Discard(DiscardArgs),
    /// List multipart uploads that were never completed, or abort them
    Uploads(UploadsArgs),
    /// List what the directory tree of a mount cannot show
    Ls(LsArgs),
    /// Say what this machine lacks for mounts, and what to do about it, without root too
    Doctor,
    /// Mount a small made-up library from a server of objfs' own
    Demo(DemoArgs),
    /// Run an S3 server for demos, tests and benchmarks
    DevServer(DevServerArgs),
}

/// Arguments of `mount` and of `mount.objfs`.
#[derive(Debug, Args)]
pub(super) struct MountArgs {
    /// s3://BUCKET[/PREFIX] and the directory; with S3_BUCKET set, the directory alone
    #[arg(value_names = ["SOURCE", "MOUNTPOINT"], num_args = 1..=2, required = true)]
    pub(super) places: Vec<String>,
    /// Options, separated by commas; may be repeated
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub(super) options: Vec<String>,
    /// Stay in the foreground and log to standard error
    #[arg(short = 'f', long)]
    pub(super) foreground: bool,
    /// Accepted for mount(8)
    #[arg(short = 'n', hide = true)]
    pub(super) no_mtab: bool,
    /// Accepted for mount(8)
    #[arg(short = 's', hide = true)]
    pub(super) sloppy: bool,
    /// Accepted for mount(8)
    #[arg(short = 'v', hide = true)]
    pub(super) verbose: bool,
    /// Accepted for mount(8)
    #[arg(short = 'N', hide = true)]
    pub(super) namespace: Option<String>,
    /// Accepted for mount(8)
    #[arg(short = 't', hide = true)]
    pub(super) fs_type: Option<String>,
}

/// `mount.objfs`, as mount(8) calls it.
#[derive(Debug, Parser)]
#[command(name = "mount.objfs", version, about = "Mounts an S3-compatible bucket as a local directory",
          after_help = mount_help())]
pub(super) struct MountHelper {
    /// The same as `objfs mount`.
    #[command(flatten)]
    pub(super) mount: MountArgs,
}

/// Arguments of `umount`.
#[derive(Debug, Args)]
pub(super) struct UmountArgs {
    /// Where it is mounted
    pub(super) mountpoint: PathBuf,
    /// Seconds to wait until everything is committed
    #[arg(long, default_value_t = 600)]
    pub(super) timeout: u64,
    /// Unmount although something could not be committed; the next mount goes on with it
    #[arg(long)]
    pub(super) force: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Where it is mounted
    pub(super) mountpoint: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Arguments of `refresh`.
#[derive(Debug, Args)]
pub(super) struct RefreshArgs {
    /// A path in a mount
    pub(super) path: PathBuf,
}

/// Arguments of `sync`.
#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    /// A path in a mount
    pub(super) path: PathBuf,
    /// Seconds to wait
    #[arg(long, default_value_t = 600)]
    pub(super) timeout: u64,
}

/// Arguments of `retry`.
#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// A path in a mount
    pub(super) path: PathBuf,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// A file in a mount
    pub(super) path: PathBuf,
    /// The new file, outside of the mount
    pub(super) to: PathBuf,
}

/// Arguments of `discard`.
#[derive(Debug, Args)]
pub(super) struct DiscardArgs {
    /// A file in a mount
    pub(super) path: PathBuf,
}

/// Arguments of `uploads`.
#[derive(Debug, Args)]
pub(super) struct UploadsArgs {
    /// Where it is mounted
    pub(super) mountpoint: PathBuf,
    /// Abort the upload with this id, which another program has left; may be repeated
    #[arg(long, value_name = "ID")]
    pub(super) abort: Vec<String>,
}

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Keys that no path can express, with the reason and the size, in directories that were listed so far
    #[arg(long, required = true)]
    pub(super) unmappable: bool,
    /// Where it is mounted
    pub(super) mountpoint: PathBuf,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// An empty directory, made if it is not there
    pub(super) mountpoint: PathBuf,
    /// Where the server keeps its objects
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Stay in the foreground
    #[arg(short = 'f', long)]
    pub(super) foreground: bool,
}

/// Arguments of `dev-server`. Its keys come from the environment, so that `ps` does not show them.
#[derive(Debug, Args)]
pub(super) struct DevServerArgs {
    /// Address and port; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9797")]
    pub(super) listen: std::net::SocketAddr,
    /// Keep objects in this directory (default: in memory)
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// A bucket to make; may be repeated
    #[arg(long, default_value = "demo")]
    pub(super) bucket: Vec<String>,
    /// Generated objects, such as count=1000000,fanout=1000,size=4096,prefix=many/
    #[arg(long, value_name = "SPEC")]
    pub(super) synthetic: Option<String>,
    /// Faults as JSON; the same that PUT /-/faults takes
    #[arg(long, value_name = "JSON")]
    pub(super) faults: Option<String>,
    /// Listen on an address that other machines can reach
    #[arg(long)]
    pub(super) allow_remote: bool,
}

fn environment_help() -> String {
    let codes: Vec<String> = EXIT_CODES.iter().map(|(code, what)| format!("  {:>2}  {what}", *code as u8)).collect();
    format!(
        "Environment: the AWS names (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL, ...), and S3_BUCKET,\n\
         S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY, S3_ENDPOINT, S3_REGION, S3_PREFIX, S3_POLL_INTERVAL.\n\
         Options come first, then the S3_ names, then the AWS ones. OBJFS_LOG says what is logged.\n\n\
         Exit codes:\n{}",
        codes.join("\n")
    )
}

fn mount_help() -> String {
    format!(
        "{}\nExamples:\n  objfs mount s3://library/books ~/books\n  \
         objfs mount s3://photos ~/photos -o ro,endpoint=https://s3.example.com,region=garage\n  \
         mount -t objfs s3://library /mnt/library -o _netdev,allow_other\n\n{}",
        options::help(),
        environment_help()
    )
}
