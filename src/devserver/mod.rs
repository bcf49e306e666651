//! An S3 server for demonstrations, tests and benchmarks.
//!
//! Owns: an S3 endpoint on this machine, made of the protocol layer `s3s` and a backend of its own: objects in memory or in
//! a directory, generated objects, faults on demand, counters, a log. The only importer of `s3s`.
//! Does not own: anything that a mount needs. Nothing else of objfs imports it but the command line and tests.
//!
//! A request goes: `http` (connection) > s3s (signature, framing, XML) > `gate` (count, faults) > `service` (the operation) >
//! `receive` (body) > `backend` (condition and change under one lock) > `index`, and with a directory `disk` before that.
//!
//! Buckets are unversioned. Unsupported operations answer 501. Writes to generated keys are kept and hide the generated
//! object; deleting one hides it too.

mod auth;
mod backend;
mod body;
mod conditions;
mod control;
mod counters;
mod disk;
mod faults;
mod gate;
mod http;
mod index;
mod listing;
mod log;
mod receive;
mod record;
mod service;
mod settings;
mod synthetic;
mod transport;

pub use counters::Counts;
pub use faults::{Effect, FaultSettings, Faults, Rule, RuleError};
pub use log::{Log, LogEntry};
pub use settings::{Settings, StartError, Storage};
pub use synthetic::{Synthetic, SyntheticError};

use backend::Backend;
use counters::Counters;
use s3s::service::S3ServiceBuilder;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    counters: Arc<Counters>,
    faults: Faults,
    log: Arc<Log>,
    stop: DropGuard,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts a server on the current tokio runtime.
    ///
    /// # Errors
    /// Settings that make no sense, an address or a directory that cannot be had.
    pub async fn start(settings: Settings) -> Result<Server, StartError> {
        settings.check()?;
        let listen = settings.listen;
        let cannot_listen = |source| StartError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let Settings { access_key, secret_key, faults, .. } = settings.clone();
        let backend = tokio::task::spawn_blocking(move || Backend::open(&settings))
            .await
            .map_err(|error| StartError::Listen { address, source: std::io::Error::other(error) })??;
        let (counters, faults) = (Arc::new(Counters::default()), Faults::new(faults));
        let mut builder = S3ServiceBuilder::new(service::Service { backend: Arc::new(backend) });
        builder.set_auth(auth::OneKey { access_key, secret_key: secret_key.into() });
        builder.set_access(gate::Gate { faults: faults.clone(), counters: Arc::clone(&counters) });
        let log = Arc::<Log>::default();
        let shared = http::Shared {
            s3: builder.build(),
            counters: Arc::clone(&counters),
            faults: faults.clone(),
            log: Arc::clone(&log),
        };
        let stop = CancellationToken::new();
        let accepting = tokio::spawn(http::serve(listener, Arc::new(shared), stop.clone()));
        tracing::info!(%address, "dev server is listening");
        Ok(Server { address, counters, faults, log, stop: stop.drop_guard(), accepting })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint URL for clients, which must use path-style addressing.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Counts since the start or the last reset.
    pub fn counters(&self) -> Counts {
        self.counters.get()
    }

    /// Sets all counts to zero.
    pub fn reset_counters(&self) {
        self.counters.reset();
    }

    /// The faults, to be read and changed.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What was asked of objects, once that has been started.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Stops: accepts nothing more, lets running requests finish for two seconds, and closes the storage.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the dev server did not stop in order");
        }
    }
}
