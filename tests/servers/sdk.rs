//! aws-sdk-s3 over plain hyper: a client that shares no code with objfs.
//!
//! Owns: its settings. Used by several test binaries and by the benchmarks. Does not own: requests, servers.

use aws_credential_types::Credentials;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::TokioExecutor;

#[derive(Debug, Clone)]
struct PlainHttp(hyper_util::client::legacy::Client<TcpConnector, SdkBody>);

impl HttpConnector for PlainHttp {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let sent = request.try_into_http1x().map(|request| self.0.request(request));
        HttpConnectorFuture::new(async move {
            let sent = sent.map_err(|e| ConnectorError::other(e.into(), None))?;
            let response = sent.await.map_err(|e| ConnectorError::io(e.into()))?;
            let response = response.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(response).map_err(|e| ConnectorError::other(e.into(), None))
        })
    }
}

impl HttpClient for PlainHttp {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// Where a bucket is, and the keys to it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    #[allow(dead_code, reason = "a test binary that has one bucket names it itself")]
    pub(crate) bucket: String,
}

/// A client without retries, with connections of its own.
pub(crate) fn client(place: &Place, checksums: RequestChecksumCalculation) -> aws_sdk_s3::Client {
    let mut tcp = TcpConnector::new();
    tcp.set_nodelay(true);
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(tcp);
    let credentials = Credentials::new(&place.access_key, &place.secret_key, None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(place.region.clone()))
        .endpoint_url(&place.endpoint)
        .force_path_style(true)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .request_checksum_calculation(checksums)
        .retry_config(RetryConfig::disabled())
        .http_client(PlainHttp(http));
    aws_sdk_s3::Client::from_conf(config.build())
}
