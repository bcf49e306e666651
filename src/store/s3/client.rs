//! Builds the SDK's client.
//!
//! Owns: where credentials, region and endpoint come from, and how the SDK is set: no retries, no checksums beyond those
//! required, one HTTP client for S3 and for all that fetches credentials.
//! Does not own: requests (`ops`).

use super::super::{ErrorKind, Op, Result, StoreError};
use super::http::Http1;
use super::settings::{S3Settings, endpoint_host, endpoint_url, is_aws};
use super::sign::Signer;
use super::storage::{AddHeaders, Encryption};
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use std::path::PathBuf;

/// The region that is signed for where nothing names one.
const REGION_DEFAULT: &str = "us-east-1";

/// The SDK's client, and what of the endpoint matters to requests.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) client: Client,
    /// The endpoint's host; empty for AWS itself.
    pub(super) host: String,
    /// Nobody can change what is sent on its way: by TLS, or because the server is on this machine.
    pub(super) is_safe: bool,
    /// What requests need that do not go through the SDK. `None` if all do.
    pub(super) direct: Option<Direct>,
}

/// What requests need that do not go through the SDK.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) http: Http1,
    pub(super) signer: Signer,
}

/// Builds the client. Credentials are fetched at the first request.
pub(super) async fn connect(settings: &S3Settings) -> Result<Connected> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let ca_bundle = settings.ca_bundle.clone().or_else(|| variable("AWS_CA_BUNDLE").map(PathBuf::from));
    let http = Http1::new(settings.timeouts.connect, ca_bundle.as_deref())?;
    let shared = load(settings, http.clone()).await;
    let endpoint = settings.endpoint.clone().or_else(|| variable("AWS_ENDPOINT_URL_S3"));
    let endpoint = endpoint.or_else(|| shared.endpoint_url().map(str::to_owned)).map(|e| endpoint_url(&e));
    let host = endpoint.as_deref().map(endpoint_host).unwrap_or_default();
    if endpoint.is_some() && host.is_empty() {
        let message = format!("the endpoint {:?} is no URL", endpoint.unwrap_or_default());
        return Err(StoreError::new(ErrorKind::Invalid, Op::HeadBucket, None, message));
    }
    let foreign = endpoint.is_some() && !is_aws(&host);
    let mut config = Builder::from(&shared)
        .interceptor(AddHeaders(settings.storage.clone()))
        .timeout_config(timeouts(settings, settings.timeouts.read))
        .force_path_style(settings.path_style.unwrap_or(foreign));
    config.set_region(shared.region().cloned().or_else(|| Some(Region::from_static(REGION_DEFAULT))));
    let is_on_this_machine = is_loopback(&host);
    let tls = !endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
    config.set_endpoint_url(endpoint);
    if !tls && matches!(settings.storage.encryption, Some(Encryption::Customer(_))) {
        tracing::warn!("the endpoint is http://: the key of SSE-C can be read on its way to the server");
    }
    if settings.anonymous {
        config = config.allow_no_auth();
    }
    let provider = shared.credentials_provider().filter(|_| settings.direct && !settings.anonymous);
    let direct = provider.map(|provider| Direct { http, signer: Signer::new(provider) });
    Ok(Connected { client: Client::from_conf(config.build()), host, is_safe: tls || is_on_this_machine, direct })
}

/// The timeouts that the HTTP client keeps. No limit of a whole attempt: that would end a long upload on a slow line.
pub(super) fn timeouts(settings: &S3Settings, read: std::time::Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(settings.timeouts.connect).read_timeout(read).build()
}

/// What the environment and the profile say, under what the settings say.
async fn load(settings: &S3Settings, http: Http1) -> aws_config::SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(1))
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        // The HTTP client sees for itself that bodies move.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    } else if settings.endpoint.as_deref().is_some_and(|endpoint| !is_aws(&endpoint_host(&endpoint_url(endpoint)))) {
        // Do not ask an instance's metadata service for the region of a server that is not AWS.
        let named = aws_config::environment::EnvironmentVariableRegionProvider::new();
        let chain = aws_config::meta::region::RegionProviderChain::first_try(named);
        let mut profile = aws_config::profile::ProfileFileRegionProvider::builder();
        if let Some(name) = &settings.profile {
            profile = profile.profile_name(name);
        }
        loader = loader.region(chain.or_else(profile.build()).or_else(Region::from_static(REGION_DEFAULT)));
    }
    if settings.anonymous {
        loader = loader.no_credentials();
    } else if let Some(fixed) = &settings.credentials {
        let token = fixed.session_token.as_ref().map(|token| token.reveal().to_owned());
        let keys = Credentials::new(&fixed.access_key, fixed.secret_key.reveal(), token, None, "objfs");
        loader = loader.credentials_provider(keys);
    }
    loader.load().await
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
