//! What the tests of the dev server share.
//!
//! Owns: aws-sdk-s3 over plain hyper, short forms of frequent requests. Does not own: what is tested.

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation, SharedCredentialsProvider};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
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
use objfs::devserver::{Server, Settings};

/// aws-sdk-s3 over plain hyper.
#[derive(Debug, Clone)]
struct PlainHttp(hyper_util::client::legacy::Client<TcpConnector, SdkBody>);

impl HttpConnector for PlainHttp {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let sent = self.0.request(request.try_into_http1x().unwrap());
        HttpConnectorFuture::new(async move {
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

pub(crate) fn client_with(endpoint: &str, secret: &str, checksums: RequestChecksumCalculation) -> Client {
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(TcpConnector::new());
    let credentials = Credentials::new("objfs", secret, None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .request_checksum_calculation(checksums)
        .retry_config(RetryConfig::disabled())
        .http_client(PlainHttp(http));
    Client::from_conf(config.build())
}

pub(crate) fn client_of(server: &Server) -> Client {
    client_with(&server.endpoint(), "objfs-secret", RequestChecksumCalculation::WhenRequired)
}

pub(crate) async fn start() -> (Server, Client) {
    let server = Server::start(Settings::default()).await.unwrap();
    let client = client_of(&server);
    (server, client)
}

/// The S3 error code of a failed call, or its HTTP status where the answer has no body (HEAD, 304).
pub(crate) trait Code {
    fn code_or_status(&self) -> String;
}

impl<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug> Code for Result<T, SdkError<E>> {
    fn code_or_status(&self) -> String {
        match self {
            Ok(answer) => panic!("unexpected success: {answer:?}"),
            Err(SdkError::ServiceError(e)) => match e.err().code() {
                Some(code) => code.to_owned(),
                None => e.raw().status().as_u16().to_string(),
            },
            Err(SdkError::ResponseError(e)) => format!("response {}", e.raw().status()),
            Err(SdkError::DispatchFailure(_)) => "dispatch".to_owned(),
            Err(other) => panic!("unexpected failure: {other:?}"),
        }
    }
}

pub(crate) async fn put(client: &Client, key: &str, body: &[u8]) -> String {
    let put = client.put_object().bucket("demo").key(key).body(ByteStream::from(body.to_vec()));
    put.send().await.unwrap().e_tag.unwrap()
}

pub(crate) async fn get(client: &Client, key: &str) -> Vec<u8> {
    let answer = client.get_object().bucket("demo").key(key).send().await.unwrap();
    answer.body.collect().await.unwrap().to_vec()
}

pub(crate) async fn upload_parts(client: &Client, key: &str, parts: &[Vec<u8>]) -> (String, Vec<CompletedPart>) {
    let created = client.create_multipart_upload().bucket("demo").key(key).content_type("x/y").metadata("a", "b");
    let id = created.send().await.unwrap().upload_id.unwrap();
    let mut done = Vec::new();
    for (number, body) in (1..).zip(parts) {
        let part = client.upload_part().bucket("demo").key(key).upload_id(&id).part_number(number);
        let etag = part.body(ByteStream::from(body.clone())).send().await.unwrap().e_tag.unwrap();
        done.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
    }
    (id, done)
}

pub(crate) fn of_parts(parts: &[CompletedPart]) -> CompletedMultipartUpload {
    CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build()
}
