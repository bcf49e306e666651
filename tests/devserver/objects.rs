//! Objects.
//!
//! Owns: objects, buckets, ranges, conditions, copies, checksums and signatures. Does not own: the client (`client`).

use crate::client::*;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::operation::RequestId;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, MetadataDirective};
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::TokioExecutor;
use objfs::devserver::{Effect, FaultSettings, Rule, Server, Settings, Storage};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn objects_with_their_headers() {
    let (server, client) = start().await;
    let before = Instant::now();
    let written = client
        .put_object()
        .bucket("demo")
        .key("k")
        .body(ByteStream::from_static(b"hello"))
        .content_type("text/x")
        .cache_control("no-store")
        .content_disposition("inline")
        .content_encoding("gzip")
        .content_language("de")
        .storage_class("STANDARD_IA".into())
        .metadata("mode", "33188")
        .metadata("mtime", "1.5")
        .content_md5("XUFAKrxLKna5cZ2REBfFkg==")
        .send()
        .await
        .unwrap();
    assert_eq!(written.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    let head = client.head_object().bucket("demo").key("k").send().await.unwrap();
    assert_eq!(head.content_length(), Some(5));
    assert_eq!(head.e_tag(), written.e_tag());
    assert_eq!(head.content_type(), Some("text/x"));
    assert_eq!(head.cache_control(), Some("no-store"));
    assert_eq!(head.content_disposition(), Some("inline"));
    assert_eq!(head.content_encoding(), Some("gzip"));
    assert_eq!(head.content_language(), Some("de"));
    assert_eq!(head.storage_class().unwrap().as_str(), "STANDARD_IA");
    assert_eq!(head.metadata().unwrap()["mode"], "33188");
    assert_eq!(head.metadata().unwrap()["mtime"], "1.5");
    assert!(head.request_id().is_some());
    let age = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .abs_diff(head.last_modified().unwrap().secs() as u64);
    assert!(age <= before.elapsed().as_secs() + 1);
    assert_eq!(get(&client, "k").await, b"hello");
    let wrong = client.put_object().bucket("demo").key("k").body(ByteStream::from_static(b"HELLO"));
    assert_eq!(wrong.content_md5("XUFAKrxLKna5cZ2REBfFkg==").send().await.code_or_status(), "BadDigest");
    assert_eq!(get(&client, "k").await, b"hello");
    put(&client, "empty", b"").await;
    assert_eq!(get(&client, "empty").await, b"");
    client.delete_object().bucket("demo").key("k").send().await.unwrap();
    client.delete_object().bucket("demo").key("k").send().await.unwrap();
    let missing = client.get_object().bucket("demo").key("k").send().await;
    assert!(missing.as_ref().unwrap_err().request_id().is_some());
    assert_eq!(missing.code_or_status(), "NoSuchKey");
    assert_eq!(client.get_object().bucket("none").key("k").send().await.code_or_status(), "NoSuchBucket");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_metadata_than_s3_takes_is_refused() {
    let (_server, client) = start().await;
    let put = |len: usize| {
        let put = client.put_object().bucket("demo").key("k").body(ByteStream::from_static(b"hello"));
        put.metadata("name", "x".repeat(len))
    };
    put(2044).send().await.unwrap();
    assert_eq!(put(2045).send().await.code_or_status(), "MetadataTooLarge");
    let copy = client.copy_object().bucket("demo").key("k").copy_source("demo/k").metadata("name", "x".repeat(2045));
    let copy = copy.metadata_directive(MetadataDirective::Replace);
    assert_eq!(copy.send().await.code_or_status(), "MetadataTooLarge");
    let create = client.create_multipart_upload().bucket("demo").key("k").metadata("name", "x".repeat(2045));
    assert_eq!(create.send().await.code_or_status(), "MetadataTooLarge");
    let head = client.head_object().bucket("demo").key("k").send().await.unwrap();
    assert_eq!(head.metadata().unwrap()["name"].len(), 2044);
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets() {
    let (_server, client) = start().await;
    client.create_bucket().bucket("second").send().await.unwrap();
    assert_eq!(client.create_bucket().bucket("second").send().await.code_or_status(), "BucketAlreadyOwnedByYou");
    let names: Vec<_> =
        client.list_buckets().send().await.unwrap().buckets().iter().map(|b| b.name().unwrap().to_owned()).collect();
    assert_eq!(names, ["demo", "second"]);
    client.head_bucket().bucket("second").send().await.unwrap();
    client.get_bucket_location().bucket("second").send().await.unwrap();
    client.get_bucket_versioning().bucket("second").send().await.unwrap();
    client.delete_bucket().bucket("demo").send().await.unwrap();
    assert_eq!(client.head_bucket().bucket("demo").send().await.code_or_status(), "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges() {
    let (_server, client) = start().await;
    put(&client, "k", b"0123456789").await;
    for (range, expected, content_range) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=3-5", "345", "bytes 3-5/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=8-100", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
    ] {
        let part = client.get_object().bucket("demo").key("k").range(range).send().await.unwrap();
        assert_eq!(part.content_range(), Some(content_range));
        assert_eq!(part.content_length(), Some(expected.len() as i64));
        assert_eq!(part.body.collect().await.unwrap().to_vec(), expected.as_bytes());
    }
    for range in ["bytes=10-", "bytes=-0", "bytes=10-12"] {
        let answer = client.get_object().bucket("demo").key("k").range(range).send().await;
        assert_eq!(answer.code_or_status(), "InvalidRange");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions() {
    let (server, client) = start().await;
    let bucket = "demo";
    let create = |key: &str| client.put_object().bucket(bucket).key(key).body(ByteStream::from_static(b"new"));
    assert_eq!(create("k").if_match("\"x\"").send().await.code_or_status(), "NoSuchKey");
    let first = create("k").if_none_match("*").send().await.unwrap().e_tag.unwrap();
    assert_eq!(create("k").if_none_match("*").send().await.code_or_status(), "PreconditionFailed");
    assert_eq!(create("k").if_match("\"x\"").send().await.code_or_status(), "PreconditionFailed");
    create("k").if_match(&first).send().await.unwrap();

    let read = || client.get_object().bucket(bucket).key("k");
    assert_eq!(read().if_match("\"x\"").send().await.code_or_status(), "PreconditionFailed");
    assert!(read().if_match(&first).send().await.is_ok());
    assert_eq!(read().if_none_match(&first).send().await.code_or_status(), "304");
    assert!(read().if_none_match("\"x\"").send().await.is_ok());
    let head = || client.head_object().bucket(bucket).key("k");
    assert!(head().if_match("\"x\"").send().await.is_err());
    assert!(head().if_none_match(&first).send().await.is_err());
    assert!(head().if_match(&first).send().await.is_ok());

    let copy = |to: &str| client.copy_object().bucket(bucket).key(to).copy_source("demo/k");
    assert_eq!(copy("c").copy_source_if_match("\"x\"").send().await.code_or_status(), "PreconditionFailed");
    assert_eq!(copy("c").copy_source_if_none_match(&first).send().await.code_or_status(), "PreconditionFailed");
    assert_eq!(copy("c").if_match(&first).send().await.code_or_status(), "NoSuchKey");
    copy("c").if_none_match("*").copy_source_if_match(&first).send().await.unwrap();
    assert_eq!(copy("c").if_none_match("*").send().await.code_or_status(), "PreconditionFailed");
    copy("c").if_match(&first).send().await.unwrap();

    let delete = |key: &str| client.delete_object().bucket(bucket).key(key);
    assert_eq!(delete("c").if_match("\"x\"").send().await.code_or_status(), "PreconditionFailed");
    delete("c").if_match(&first).send().await.unwrap();
    assert_eq!(delete("c").if_match(&first).send().await.code_or_status(), "NoSuchKey");

    server.faults().add(Rule::new(Effect::RefuseConditions).on("PutObject").times(1));
    assert_eq!(create("k").if_none_match("*").send().await.code_or_status(), "NotImplemented");
    server.faults().set(FaultSettings { seed: 0, rules: vec![Rule::new(Effect::IgnoreConditions)] });
    create("k").if_none_match("*").send().await.unwrap();
    delete("k").if_match("\"x\"").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_conditional_writes_one_wins() {
    for storage in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let storage = if storage { Storage::Directory(dir.path().join("s")) } else { Storage::Memory };
        let server = Server::start(Settings { storage, ..Settings::default() }).await.unwrap();
        let client = client_of(&server);
        let mut if_match = None;
        for round in 0..3 {
            let racers = (0..50).map(|i| {
                // Of another size in each round: the same body again would have the same ETag, and let two of them win.
                let body = ByteStream::from(vec![i; 1000 + round]);
                let put = client.put_object().bucket("demo").key("k").body(body);
                let put = match &if_match {
                    None => put.if_none_match("*"),
                    Some(etag) => put.if_match(etag),
                };
                tokio::spawn(put.send())
            });
            let mut won = Vec::new();
            for outcome in futures::future::join_all(racers).await {
                match outcome.unwrap() {
                    Ok(answer) => won.push(answer.e_tag.unwrap()),
                    lost => assert_eq!(lost.code_or_status(), "PreconditionFailed"),
                }
            }
            assert_eq!(won.len(), 1);
            let head = client.head_object().bucket("demo").key("k").send().await.unwrap();
            assert_eq!(head.e_tag(), Some(won[0].as_str()));
            if_match = Some(won.remove(0));
        }
        server.shutdown().await;
        if dir.path().join("s").exists() {
            assert_eq!(std::fs::read_dir(dir.path().join("s/bodies")).unwrap().count(), 1, "losers leave no bodies");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies() {
    let (_server, client) = start().await;
    let put = client.put_object().bucket("demo").key("k").body(ByteStream::from_static(b"x")).metadata("a", "1");
    let etag = put.content_type("t/1").send().await.unwrap().e_tag;
    let onto_itself = || client.copy_object().bucket("demo").key("k").copy_source("demo/k");
    assert_eq!(onto_itself().send().await.code_or_status(), "InvalidRequest");
    let changed = onto_itself().metadata_directive(MetadataDirective::Replace).metadata("b", "2").send().await.unwrap();
    assert_eq!(changed.copy_object_result.unwrap().e_tag, etag);
    let head = client.head_object().bucket("demo").key("k").send().await.unwrap();
    assert_eq!(head.metadata().unwrap().len(), 1);
    assert_eq!((head.metadata().unwrap()["b"].as_str(), head.content_type()), ("2", Some("binary/octet-stream")));
    let kept = client.copy_object().bucket("demo").key("other").copy_source("demo/k").metadata("ignored", "1");
    kept.send().await.unwrap();
    let head = client.head_object().bucket("demo").key("other").send().await.unwrap();
    assert_eq!(head.metadata().unwrap()["b"], "2");
    let none = client.copy_object().bucket("demo").key("other").copy_source("demo/none").send().await;
    assert_eq!(none.code_or_status(), "NoSuchKey");
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_and_signatures() {
    let (server, client) = start().await;
    let trailing = client_with(&server.endpoint(), "objfs-secret", RequestChecksumCalculation::WhenSupported);
    for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc64Nvme, ChecksumAlgorithm::Sha256] {
        let body = vec![7; 300_000];
        let put = trailing.put_object().bucket("demo").key("k").checksum_algorithm(algorithm);
        put.body(ByteStream::from(body.clone())).send().await.unwrap();
        let read = trailing.get_object().bucket("demo").key("k").checksum_mode(ChecksumMode::Enabled);
        let read = read.send().await.unwrap();
        let sums = [read.checksum_crc32(), read.checksum_crc64_nvme(), read.checksum_sha256()];
        assert_eq!(sums.iter().flatten().count(), 1);
        assert_eq!(read.content_encoding(), None);
        assert_eq!(read.body.collect().await.unwrap().to_vec(), body);
    }
    let wrong = client.put_object().bucket("demo").key("k").checksum_crc32("AAAAAA==");
    assert_eq!(wrong.body(ByteStream::from_static(b"x")).send().await.code_or_status(), "BadDigest");
    let stranger = client_with(&server.endpoint(), "wrong", RequestChecksumCalculation::WhenRequired);
    assert_eq!(stranger.list_buckets().send().await.code_or_status(), "SignatureDoesNotMatch");

    put(&client, "sp ace/ü", b"signed").await;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .build::<_, http_body_util::Empty<bytes::Bytes>>(TcpConnector::new());
    let expiry = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let presigned = client.get_object().bucket("demo").key("sp ace/ü").presigned(expiry).await.unwrap();
    let answer = http.get(presigned.uri().parse().unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let tampered = presigned.uri().replace("Expires=60", "Expires=61");
    assert_eq!(http.get(tampered.parse().unwrap()).await.unwrap().status(), 403);
    let unsigned = http.get(format!("{}/demo/k", server.endpoint()).parse().unwrap()).await.unwrap();
    assert_eq!(unsigned.status(), 403);
    assert_eq!(server.counters().of("Rejected"), 3);
}
