//! How fast the dev server hands out 8 MiB objects from memory to a plain HTTP client, each request's signature checked.
//!
//! Owns: the figure, printed in GiB/s. Server and client share this process and its cores.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use aws_credential_types::Credentials;
use aws_sdk_s3::config::{BehaviorVersion, Region, SharedCredentialsProvider};
use aws_sdk_s3::presigning::PresigningConfig;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use objfs::devserver::{Server, Settings};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const SIZE: usize = 8 << 20;
const TIME: Duration = Duration::from_secs(3);

async fn connect(server: &Server) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = Builder::new().max_buf_size(1 << 20).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Sends one request and gives the length of the answer.
async fn send(sender: &mut SendRequest<Full<Bytes>>, method: &str, url: &str, body: Bytes) -> usize {
    let uri: http::Uri = url.parse().unwrap();
    let request = http::Request::builder()
        .method(method)
        .header(http::header::HOST, uri.authority().unwrap().as_str())
        .uri(uri.path_and_query().unwrap().as_str());
    sender.ready().await.unwrap();
    let mut response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut length = 0;
    while let Some(frame) = response.body_mut().frame().await {
        length += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    length
}

async fn measure(server: &Server, url: &str, connections: usize) -> f64 {
    server.reset_counters();
    let started = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (mut sender, url) = (connect(server).await, url.to_owned());
        tasks.push(tokio::spawn(async move {
            let mut bytes = 0;
            while started.elapsed() < TIME {
                bytes += send(&mut sender, "GET", &url, Bytes::new()).await;
            }
            bytes
        }));
    }
    let mut bytes = 0;
    for task in tasks {
        bytes += task.await.unwrap();
    }
    let elapsed = started.elapsed().as_secs_f64();
    assert_eq!(server.counters().bytes_out, bytes as u64, "what the client read is what the server sent");
    bytes as f64 / elapsed / f64::from(1 << 30)
}

#[tokio::main]
async fn main() {
    let server = Server::start(Settings::default()).await.unwrap();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "objfs",
            "objfs-secret",
            None,
            None,
            "",
        )));
    let client = aws_sdk_s3::Client::from_conf(config.build());
    let expiry = PresigningConfig::expires_in(Duration::from_secs(600)).unwrap();
    let put = client.put_object().bucket("demo").key("k").presigned(expiry.clone()).await.unwrap();
    let get = client.get_object().bucket("demo").key("k").presigned(expiry).await.unwrap();
    send(&mut connect(&server).await, "PUT", put.uri(), Bytes::from(vec![7; SIZE])).await;
    for connections in [1, 2, 4, 8] {
        println!("{connections} connections: {:.2} GiB/s", measure(&server, get.uri(), connections).await);
    }
    server.shutdown().await;
}
