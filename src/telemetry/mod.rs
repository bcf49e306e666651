//! Logging.
//!
//! Owns: where log lines go and which of them. Does not own: what is logged.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;

/// s3s reports injected faults as errors, and the SDK each failed request of an HTTP client that is not its own.
const DEFAULT_FILTER: &str = "warn,objfs=info,s3s=off,aws_smithy_runtime::client::http::connection_poisoning=off";

/// What logs whole requests and answers before anybody has taken the keys out (SSE-C), if it may log everything.
const TALKATIVE: [&str; 2] = ["aws_sigv4", "aws_smithy_runtime"];

/// A log file that is larger than this when a mount begins is put aside.
const LOG_SIZE_MAX: u64 = 8 << 20;

/// Sends log lines to standard error. `filter`: as in `RUST_LOG`, or the environment's `OBJFS_LOG`.
pub fn log_to_stderr(filter: Option<&str>) {
    let subscriber = tracing_subscriber::fmt().with_env_filter(env_filter(filter)).with_writer(io::stderr);
    install(subscriber.with_ansi(false).finish());
}

/// Sends log lines to the file at `path`, 0600, keeping one earlier file when it has grown large.
///
/// # Errors
/// A file that cannot be opened.
pub fn log_to_file(path: &Path, filter: Option<&str>) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|m| m.len() > LOG_SIZE_MAX) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    let file: File = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(env_filter(filter)).with_writer(Mutex::new(file));
    install(subscriber.with_ansi(false).finish());
    Ok(())
}

fn env_filter(filter: Option<&str>) -> EnvFilter {
    let asked = filter.map(str::to_owned).or_else(|| std::env::var("OBJFS_LOG").ok());
    EnvFilter::builder().parse_lossy(asked.as_deref().unwrap_or(DEFAULT_FILTER))
}

/// Whether a line may be written at all, whatever the filter says.
fn may_log(line: &Metadata<'_>) -> bool {
    *line.level() != Level::TRACE || !TALKATIVE.iter().any(|name| line.target().starts_with(name))
}

fn install(subscriber: impl tracing::Subscriber + Send + Sync) {
    let subscriber = subscriber.with(filter_fn(may_log));
    // Once per process; a second call, in a test, keeps the first.
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("logging was set up already");
    }
}
