//! How to reach a bucket.
//!
//! Owns: the settings of the S3 store, secrets that never show, where defaults differ between AWS and other servers.
//! Does not own: reading them from arguments or files (`cli`), limits of providers (`providers`).

use super::storage::StorageOptions;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How to reach a bucket.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The bucket's name.
    pub bucket: String,
    /// URL of the server; without a scheme https is meant. `None`: what the AWS environment and profile say, else AWS.
    pub endpoint: Option<String>,
    /// The region to sign for. `None`: what the AWS environment and profile say, else `us-east-1`.
    pub region: Option<String>,
    /// Name of a profile in the AWS configuration files.
    pub profile: Option<String>,
    /// Whether the bucket is in the path or in the host name. `None`: in the path for every server but AWS.
    pub path_style: Option<bool>,
    /// A file of PEM certificates to trust beside the system's.
    pub ca_bundle: Option<PathBuf>,
    /// Credentials. `None`: the AWS chain (environment, profile, SSO, web identity, process, container, instance).
    pub credentials: Option<StaticCredentials>,
    /// Send requests without signature, for public buckets.
    pub anonymous: bool,
    /// Send GET, HEAD and DELETE of objects, and PUT of small ones, without the SDK, where Signature Version 4 is all that they need:
    /// that takes less time.
    pub direct: bool,
    /// Sign bodies, which takes a pass of SHA-256 over them. `None`: unless TLS protects them, or the server is on this machine.
    pub signed_bodies: Option<bool>,
    /// How objects are to be stored, and what every request is to say.
    pub storage: StorageOptions,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl S3Settings {
    /// The bucket on AWS, found as the AWS tools would.
    pub fn new(bucket: impl Into<String>) -> S3Settings {
        S3Settings {
            bucket: bucket.into(),
            endpoint: None,
            region: None,
            profile: None,
            path_style: None,
            ca_bundle: None,
            credentials: None,
            anonymous: false,
            direct: true,
            signed_bodies: None,
            storage: StorageOptions::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// A pair of keys, and the token of a temporary one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticCredentials {
    /// The access key id, which is no secret.
    pub access_key: String,
    /// The secret key.
    pub secret_key: Secret,
    /// The session token of temporary credentials.
    pub session_token: Option<Secret>,
}

/// A string that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a string from being shown.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(secret.into())
    }

    /// The string itself, for signing only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How long to wait for what. No request is limited as a whole while bytes of a body move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection is there, name lookup and TLS included.
    pub connect: Duration,
    /// Without progress: until a part of the body is sent, until the answer begins, between pieces of its body.
    pub read: Duration,
    /// Until the answer begins, for verbs that send no body; includes getting credentials.
    pub attempt: Duration,
    /// As `read` and `attempt`, for verbs that have the server copy or assemble bytes before it answers.
    pub server_side: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(3),
            read: Duration::from_secs(10),
            attempt: Duration::from_secs(30),
            server_side: Duration::from_secs(300),
        }
    }
}

/// The endpoint as a URL: with a scheme, without a trailing `/`.
pub(super) fn endpoint_url(endpoint: &str) -> String {
    let url = endpoint.trim_end_matches('/');
    if url.contains("://") { url.to_owned() } else { format!("https://{url}") }
}

/// The host of an endpoint, in lower case.
pub(super) fn endpoint_host(url: &str) -> String {
    let uri = url.parse::<http::Uri>().ok();
    uri.as_ref().and_then(|uri| uri.host()).unwrap_or_default().to_ascii_lowercase()
}

/// Whether a host is Amazon's own, which wants the bucket in the host name.
pub(super) fn is_aws(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let credentials = StaticCredentials {
            access_key: "AK".into(),
            secret_key: Secret::new("hidden"),
            session_token: Some(Secret::new("hidden")),
        };
        let settings = S3Settings { credentials: Some(credentials), ..S3Settings::new("b") };
        let shown = format!("{settings:?} {}", Secret::new("hidden"));
        assert!(!shown.contains("hidden") && shown.contains("***"));
    }

    #[test]
    fn times_are_those_of_the_documents() {
        let Timeouts { connect, read, attempt, server_side } = S3Settings::new("b").timeouts;
        assert_eq!([connect, read, attempt, server_side].map(|time| time.as_secs()), [3, 10, 30, 300]);
    }

    #[test]
    fn endpoints() {
        assert_eq!(endpoint_url("s3.example.org/"), "https://s3.example.org");
        assert_eq!(endpoint_url("http://127.0.0.1:9000"), "http://127.0.0.1:9000");
        assert_eq!(endpoint_host("https://S3.eu-west-1.amazonaws.com:443"), "s3.eu-west-1.amazonaws.com");
        assert!(is_aws("s3.eu-west-1.amazonaws.com") && !is_aws("amazonaws.com.example.org"));
    }
}
