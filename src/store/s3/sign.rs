//! Requests that do not go through the SDK: their URL and their signature.
//!
//! Owns: where the objects of the bucket are, as the SDK's own rules for endpoints have it; credentials for as long as they hold;
//! Signature Version 4; URLs for others. Does not own: which requests these are (`direct`), the chain of credential providers
//! (`aws-config`).

use super::super::{Op, Result, StoreError};
use super::encoding::key_path;
use super::error;
use crate::types::Key;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::OnceCell;

/// How long before they expire credentials are fetched anew, and how long those hold that do not say (both as the SDK has it).
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(15 * 60);
/// Between two times that credentials are fetched because they were refused.
const BETWEEN_FETCHES: Duration = Duration::from_secs(5);
/// For the URL that is only looked at.
const PRESIGNED_FOR: Duration = Duration::from_secs(60);
/// The key of that URL.
const SAMPLE: &str = "k";

/// Where objects are, and what their requests are signed for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// A key follows.
    base: String,
    region: String,
}

/// The body of a request, and whether the signature says what it is.
#[derive(Debug)]
pub(super) enum Body {
    /// Anybody who changes it is found out.
    Signed(Bytes),
    /// Nobody can change it.
    Unsigned(Bytes),
}

impl Body {
    pub(super) fn is_empty(&self) -> bool {
        let (Body::Signed(bytes) | Body::Unsigned(bytes)) = self;
        bytes.is_empty()
    }
}

/// Credentials, until when they hold, and since when they are here.
#[derive(Debug)]
struct Held {
    credentials: Credentials,
    until: SystemTime,
    since: Instant,
}

/// Signs requests for the objects of one bucket.
#[derive(Debug)]
pub(super) struct Signer {
    provider: SharedCredentialsProvider,
    /// `None` inside: such requests are the SDK's business.
    place: OnceCell<Option<Place>>,
    held: Mutex<Option<Held>>,
    /// Whoever fetches credentials: the others wait for his.
    fetching: tokio::sync::Mutex<()>,
    settings: SigningSettings,
}

impl Signer {
    pub(super) fn new(provider: SharedCredentialsProvider) -> Signer {
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let (place, held, fetching) = (OnceCell::new(), Mutex::default(), tokio::sync::Mutex::default());
        Signer { provider, place, held, fetching, settings }
    }

    /// A signed request for `key`. `None` if the SDK must send it: its endpoint wants more than Signature Version 4 (directory
    /// buckets, multi-region access points).
    pub(super) async fn request(
        &self,
        client: &Client,
        bucket: &str,
        (op, method): (Op, &'static str),
        key: &Key,
        headers: &[(&str, &str)],
        body: &Body,
    ) -> Result<Option<http::Request<SdkBody>>> {
        let place = self.place.get_or_try_init(|| find(client, bucket, op, key)).await?;
        let Some(place) = place else { return Ok(None) };
        let credentials = self.credentials(op, key).await?;
        let signed = self.sign(place, credentials, method, key, headers, body);
        let signed = signed.map_err(|e| StoreError::new(super::ErrorKind::Invalid, op, Some(key), e.to_string()))?;
        Ok(Some(signed))
    }

    /// The credentials were refused with this code: if others may be had, the next request fetches them. Not each time: a key that
    /// is wrong stays wrong.
    pub(super) fn on_refused(&self, code: Option<&str>) {
        let is_outdated =
            matches!(code, Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "InvalidAccessKeyId"));
        let mut held = self.held();
        if is_outdated && held.as_ref().is_some_and(|held| held.since.elapsed() >= BETWEEN_FETCHES) {
            *held = None;
        }
    }

    async fn credentials(&self, op: Op, key: &Key) -> Result<Credentials> {
        if let Some(held) = self.fresh() {
            return Ok(held);
        }
        let _fetching = self.fetching.lock().await;
        if let Some(held) = self.fresh() {
            return Ok(held);
        }
        let fetched = self.provider.provide_credentials().await;
        let fetched = fetched.map_err(|e| error::from_unanswered(op, key, e))?;
        let until = fetched.expiry().unwrap_or_else(|| SystemTime::now() + HOLD);
        *self.held() = Some(Held { credentials: fetched.clone(), until, since: Instant::now() });
        Ok(fetched)
    }

    fn fresh(&self) -> Option<Credentials> {
        let held = self.held();
        let held = held.as_ref()?;
        (SystemTime::now() + EXPIRY_MARGIN < held.until).then(|| held.credentials.clone())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sign(
        &self,
        place: &Place,
        credentials: Credentials,
        method: &'static str,
        key: &Key,
        headers: &[(&str, &str)],
        body: &Body,
    ) -> Result<http::Request<SdkBody>, Box<dyn Error + Send + Sync>> {
        let url = format!("{}{}", place.base, key_path(key.as_str()));
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&place.region)
            .name("s3")
            .time(SystemTime::now())
            .settings(self.settings.clone())
            .build()?
            .into();
        let (to_sign, bytes) = match body {
            Body::Signed(bytes) => (SignableBody::Bytes(bytes), bytes),
            Body::Unsigned(bytes) => (SignableBody::UnsignedPayload, bytes),
        };
        let signable = SignableRequest::new(method, &url, headers.iter().copied(), to_sign)?;
        let (instructions, _) = sign(signable, &parameters)?.into_parts();
        let mut request = http::Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.header(http::header::USER_AGENT, USER_AGENT).body(bytes.clone().into())?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

const USER_AGENT: &str = concat!("objfs/", env!("CARGO_PKG_VERSION"));

/// Asks the SDK where an object of the bucket is. Nothing is sent, but for credentials.
async fn find(client: &Client, bucket: &str, op: Op, key: &Key) -> Result<Option<Place>> {
    Ok(place(&presigned(client, (bucket, SAMPLE), PRESIGNED_FOR, (op, key)).await?))
}

/// A URL by which `key` can be read for so long. Nothing is sent, but for credentials.
pub(super) async fn presign(client: &Client, bucket: &str, key: &Key, valid: Duration) -> Result<String> {
    presigned(client, (bucket, key.as_str()), valid, (Op::Get, key)).await
}

/// A URL of an object. `op` and `key` are what is asked for meanwhile.
async fn presigned(
    client: &Client,
    (bucket, object): (&str, &str),
    valid: Duration,
    (op, key): (Op, &Key),
) -> Result<String> {
    let invalid = |e: &dyn Error| StoreError::new(super::ErrorKind::Invalid, op, Some(key), e.to_string());
    let presigning = PresigningConfig::expires_in(valid).map_err(|e| invalid(&e))?;
    let presigned = client.get_object().bucket(bucket).key(object).presigned(presigning).await;
    let presigned = presigned.map_err(|e| error::from_sdk(op, Some(key), e))?;
    Ok(presigned.uri().to_owned())
}

/// What a presigned URL tells. `None` if it is signed with anything but Signature Version 4 for S3 itself.
fn place(url: &str) -> Option<Place> {
    let (path, query) = url.split_once('?')?;
    let base = path.strip_suffix(SAMPLE).filter(|base| base.ends_with('/'))?;
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
    };
    let scope = percent_encoding::percent_decode_str(value("X-Amz-Credential")?).decode_utf8().ok()?;
    let mut scope = scope.rsplit('/');
    let parts = (scope.next()?, scope.next()?, scope.next()?);
    let is_plain = value("X-Amz-Algorithm") == Some("AWS4-HMAC-SHA256") && value("X-Amz-S3session-Token").is_none();
    match parts {
        ("aws4_request", "s3", region) if is_plain => Some(Place { base: base.to_owned(), region: region.to_owned() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_presigned_url_tells_where_objects_are() {
        let url = |base: &str, algorithm: &str, scope: &str| {
            format!(
                "{base}k?x-id=GetObject&X-Amz-Algorithm={algorithm}&X-Amz-Credential=AK%2F20260101%2F{scope}&X-Amz-Date=1"
            )
        };
        let of = |base: &str| Some(Place { base: base.to_owned(), region: "eu-west-1".to_owned() });
        let plain = "eu-west-1%2Fs3%2Faws4_request";
        for base in ["https://b.s3.eu-west-1.amazonaws.com/", "http://127.0.0.1:9000/b/"] {
            assert_eq!(place(&url(base, "AWS4-HMAC-SHA256", plain)), of(base));
        }
        let base = "https://b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com/";
        assert_eq!(place(&url(base, "AWS4-HMAC-SHA256", "us-east-1%2Fs3express%2Faws4_request")), None);
        assert_eq!(place(&url(base, "AWS4-ECDSA-P256-SHA256", plain)), None);
        assert_eq!(place("https://b.s3.amazonaws.com/k"), None);
    }

    #[tokio::test]
    async fn credentials_are_fetched_once_and_again_before_they_expire_or_when_refused() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU64, Ordering};

        #[derive(Debug, Clone, Default)]
        struct Expiring(Arc<AtomicU64>, Arc<AtomicU64>);
        impl ProvideCredentials for Expiring {
            fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                self.0.fetch_add(1, Ordering::Relaxed);
                let until = SystemTime::now() + Duration::from_secs(self.1.load(Ordering::Relaxed));
                let credentials = Credentials::new("AK", "secret", None, Some(until), "test");
                aws_credential_types::provider::future::ProvideCredentials::ready(Ok(credentials))
            }
        }

        let provider = Expiring::default();
        provider.1.store(100, Ordering::Relaxed);
        let signer = Signer::new(SharedCredentialsProvider::new(provider.clone()));
        let key = Key::parse("k").unwrap();
        let get = || signer.credentials(Op::Get, &key);
        futures::future::join_all([get(), get(), get()]).await;
        assert_eq!(provider.0.load(Ordering::Relaxed), 1);
        provider.1.store(5, Ordering::Relaxed);
        signer.on_refused(Some("ExpiredToken"));
        get().await.unwrap();
        assert_eq!(provider.0.load(Ordering::Relaxed), 1, "they were fetched a moment ago");
        signer.held().as_mut().unwrap().since -= BETWEEN_FETCHES;
        signer.on_refused(Some("SignatureDoesNotMatch"));
        get().await.unwrap();
        assert_eq!(provider.0.load(Ordering::Relaxed), 1, "others would do no better");
        signer.on_refused(Some("ExpiredToken"));
        for fetched in 2..4 {
            get().await.unwrap();
            assert_eq!(provider.0.load(Ordering::Relaxed), fetched, "they expire within the margin");
        }
    }
}
