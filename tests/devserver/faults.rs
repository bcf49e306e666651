//! Faults, counters and the control endpoints.
//!
//! Owns: what they do to clients. Does not own: the client (`client`).

use crate::client::*;
use aws_sdk_s3::primitives::ByteStream;
use objfs::devserver::{Effect, FaultSettings, Rule, Server, Settings};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn faults() {
    let (server, client) = start().await;
    let faults = server.faults();
    put(&client, "k", &vec![1; 100_000]).await;
    let read = || client.get_object().bucket("demo").key("k");

    faults.add(Rule::new(Effect::InternalError).on("GetObject").times(1));
    faults.add(Rule::new(Effect::SlowDown).on("HeadObject").times(1));
    assert_eq!(read().send().await.code_or_status(), "InternalError");
    assert!(read().send().await.is_ok());
    assert!(client.head_object().bucket("demo").key("k").send().await.is_err());
    assert!(client.head_object().bucket("demo").key("k").send().await.is_ok());
    faults.add(Rule::new(Effect::SlowDown).on("PutObject").times(1));
    let big = client.put_object().bucket("demo").key("big").body(ByteStream::from(vec![0; 20 << 20]));
    assert_eq!(big.send().await.code_or_status(), "SlowDown", "the answer is seen in spite of an unread body");

    faults.set(FaultSettings { seed: 1, rules: vec![Rule::new(Effect::ResetBefore).on("PutObject").times(1)] });
    let create = |key: &str| client.put_object().bucket("demo").key(key).body(ByteStream::from_static(b"x")).send();
    assert_eq!(create("before").await.code_or_status(), "dispatch");
    assert_eq!(client.head_object().bucket("demo").key("before").send().await.code_or_status(), "NotFound");
    faults.add(Rule::new(Effect::ResetAfter).on("PutObject").times(1));
    assert_eq!(create("after").await.code_or_status(), "dispatch");
    assert!(client.head_object().bucket("demo").key("after").send().await.is_ok(), "done, and the answer lost");

    faults.set(FaultSettings { seed: 1, rules: vec![Rule::new(Effect::Truncate).times(1)] });
    let cut = read().send().await.unwrap();
    assert_eq!(cut.content_length(), Some(100_000));
    assert!(cut.body.collect().await.is_err());

    let timed = async |rule: Rule| {
        faults.set(FaultSettings { seed: 1, rules: vec![rule] });
        let started = Instant::now();
        assert_eq!(get(&client, "k").await.len(), 100_000);
        started.elapsed()
    };
    assert!(timed(Rule::new(Effect::Latency { ms: 200 })).await >= Duration::from_millis(200));
    assert!(timed(Rule::new(Effect::Stall { ms: 200 })).await >= Duration::from_millis(200));
    let paced = timed(Rule::new(Effect::Bandwidth { bytes_per_second: 200_000 })).await;
    assert!((Duration::from_millis(450)..Duration::from_millis(1500)).contains(&paced), "{paced:?}");
    let started = Instant::now();
    put(&client, "k", &vec![1; 100_000]).await;
    assert!(started.elapsed() >= Duration::from_millis(400), "uploads are paced too");
}

async fn control(server: &Server, request: &str, body: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_and_control() {
    let (server, client) = start().await;
    put(&client, "k", &[1; 1000]).await;
    get(&client, "k").await;
    get(&client, "k").await;
    let counts = server.counters();
    assert_eq!((counts.of("PutObject"), counts.of("GetObject"), counts.total()), (1, 2, 3));
    assert_eq!((counts.bytes_in, counts.bytes_out, counts.statuses[&200]), (1000, 2000, 3));
    let (status, json) = control(&server, "GET /-/counters", "").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(serde_json::from_str::<objfs::devserver::Counts>(&json).unwrap().requests, counts.requests);
    control(&server, "POST /-/counters/reset", "").await;
    assert_eq!(server.counters().total(), 0);

    let rules = r#"{"seed":3,"rules":[{"effect":"slow-down","ops":["GetObject"],"times":1}]}"#;
    let (status, _) = control(&server, "PUT /-/faults", rules).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(client.get_object().bucket("demo").key("k").send().await.code_or_status(), "SlowDown");
    let (_, json) = control(&server, "GET /-/faults", "").await;
    assert_eq!(serde_json::from_str::<FaultSettings>(&json).unwrap().rules[0].times, Some(0));
    for (request, body, expected) in [
        ("PUT /-/faults", "{", "400"),
        ("PUT /-/faults", r#"{"rules":[{"effect":"truncate","rate":2}]}"#, "400"),
        ("DELETE /-/faults", "", "405"),
        ("GET /-/nothing", "", "404"),
    ] {
        assert!(control(&server, request, body).await.0.contains(expected), "{request} {body}");
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_are_counted() {
    let (server, client) = start().await;
    put(&client, "k", &vec![1; 3 << 20]).await;
    get(&client, "k").await;
    client.head_object().bucket("demo").key("k").send().await.unwrap();
    assert_eq!(client.get_object().bucket("demo").key("none").send().await.code_or_status(), "NoSuchKey");
    assert!(client.head_object().bucket("demo").key("none").send().await.is_err());
    put(&client, "gone", b"x").await;
    client.delete_object().bucket("demo").key("gone").send().await.unwrap();
    assert_eq!(server.counters().given_up, 0, "all of these had their answers");
    for (count, effect) in (1..).zip([Effect::Latency { ms: 60_000 }, Effect::Stall { ms: 60_000 }]) {
        server.faults().set(FaultSettings { seed: 1, rules: vec![Rule::new(effect)] });
        assert!(tokio::time::timeout(Duration::from_millis(300), get(&client, "k")).await.is_err(), "{effect:?}");
        let deadline = Instant::now() + Duration::from_secs(10);
        while server.counters().given_up < count {
            assert!(Instant::now() < deadline, "{effect:?}: nobody has noticed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(server.counters().given_up, count);
    }
}

#[tokio::test]
async fn loopback_only() {
    let listen = "0.0.0.0:0".parse().unwrap();
    let refused = Server::start(Settings { listen, ..Settings::default() }).await.unwrap_err();
    assert!(refused.to_string().contains("loopback"), "{refused}");
    assert!(Server::start(Settings { listen, allow_remote: true, ..Settings::default() }).await.is_ok());
}
