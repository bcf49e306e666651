//! The object store on S3 and servers like it.
//!
//! Owns: the only use of the AWS SDK, requests that do without it for speed; everything in which one server differs from another.
//! Does not own: retries, limits and counters (the wrappers of `store`).

use super::{Capabilities, Op, Result};
use crate::store::ErrorKind;
use crate::types::Key;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::future::Future;
use std::time::Duration;

mod body;
mod checksum;
mod client;
mod convert;
mod direct;
mod encoding;
mod error;
mod http;
mod ops;
mod providers;
mod settings;
mod sign;
mod storage;

pub use settings::{S3Settings, Secret, StaticCredentials, Timeouts};
pub use storage::{CustomerKey, Encryption, StorageOptions, Tags};

/// A bucket on S3 or a server like it.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    bucket: String,
    capabilities: Capabilities,
    /// Whether bodies go without a signature of their own, because nobody can change them on their way.
    unsigned_bodies: bool,
    settings: S3Settings,
    checksums: checksum::Checksums,
    /// For requests that do not go through the SDK.
    direct: Option<client::Direct>,
}

impl S3Store {
    /// Prepares requests to a bucket. Nothing is sent yet, except what finding the region takes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for settings that cannot work.
    pub async fn connect(settings: &S3Settings) -> Result<S3Store> {
        let connected = client::connect(settings).await?;
        let host = if connected.host.is_empty() { "s3.amazonaws.com" } else { &connected.host };
        Ok(S3Store {
            capabilities: providers::capabilities(host),
            client: connected.client,
            bucket: settings.bucket.clone(),
            unsigned_bodies: !settings.signed_bodies.unwrap_or(!connected.is_safe),
            settings: settings.clone(),
            checksums: checksum::Checksums::default(),
            direct: connected.direct,
        })
    }

    /// Waits for the answer to a request that sends no body.
    async fn answer<T, E>(
        &self,
        op: Op,
        key: Option<&Key>,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.within(self.settings.timeouts.attempt, op, key, request).await
    }

    async fn within<T, E>(
        &self,
        limit: Duration,
        op: Op,
        key: Option<&Key>,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(|e| error::from_sdk(op, key, e)),
            Err(_) => Err(error::late(op, key, limit)),
        }
    }

    /// How the SDK is to wait for verbs that have the server copy or assemble bytes.
    fn patient(&self) -> aws_sdk_s3::config::Builder {
        let timeouts = client::timeouts(&self.settings, self.settings.timeouts.server_side);
        aws_sdk_s3::config::Builder::new().timeout_config(timeouts)
    }
}
