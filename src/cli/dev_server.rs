//! `objfs dev-server`.
//!
//! Owns: its arguments becoming settings, running until a signal. Does not own: the server (`devserver`).

use super::args::DevServerArgs;
use super::exit_code::{ExitCode, Failure};
use super::out;
use crate::devserver::{FaultSettings, Server, Settings, Storage, Synthetic};
use crate::telemetry;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the server until SIGINT or SIGTERM.
///
/// # Errors
/// Settings that make no sense, an address that cannot be had.
pub(super) fn run(args: &DevServerArgs) -> Result<(), Failure> {
    telemetry::log_to_stderr(None);
    let settings = settings(args)?;
    let fail = |e: &dyn std::fmt::Display| Failure::new(ExitCode::MountFailure, e.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| fail(&e))?;
    runtime.block_on(async {
        let (access_key, buckets) = (settings.access_key.clone(), settings.buckets.join(", "));
        let server = Server::start(settings).await.map_err(|e| fail(&e))?;
        out(&format!("listening on {} for {access_key}, buckets: {buckets}", server.endpoint()))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| fail(&e))?;
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        server.shutdown().await;
        Ok(())
    })
}

fn settings(args: &DevServerArgs) -> Result<Settings, Failure> {
    let usage = |e: &dyn std::fmt::Display| Failure::new(ExitCode::Usage, e.to_string());
    let defaults = Settings::default();
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let faults = match &args.faults {
        Some(json) => serde_json::from_str(json).map_err(|e| usage(&format!("--faults: {e}")))?,
        None => FaultSettings::default(),
    };
    Ok(Settings {
        listen: args.listen,
        access_key: variable("S3_ACCESS_KEY_ID").unwrap_or(defaults.access_key),
        secret_key: variable("S3_SECRET_ACCESS_KEY").unwrap_or(defaults.secret_key),
        buckets: args.bucket.clone(),
        storage: args.dir.clone().map_or(Storage::Memory, Storage::Directory),
        synthetic: Synthetic::parse_list(args.synthetic.as_deref().unwrap_or("")).map_err(|e| usage(&e))?,
        faults,
        allow_remote: args.allow_remote,
    })
}
