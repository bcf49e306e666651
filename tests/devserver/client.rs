//! What the tests of the dev server share.
//!
//! Owns: short forms of frequent requests. Does not own: the client's settings (`sdk`), what is tested.

use crate::sdk::{self, Place};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use objfs::devserver::{Server, Settings};

pub(crate) fn client_with(endpoint: &str, secret: &str, checksums: RequestChecksumCalculation) -> Client {
    let place = Place {
        endpoint: endpoint.to_owned(),
        region: "us-east-1".to_owned(),
        access_key: "objfs".to_owned(),
        secret_key: secret.to_owned(),
        bucket: "demo".to_owned(),
    };
    sdk::client(&place, checksums)
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
