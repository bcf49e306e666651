//! What the S3 store makes of servers that do not answer as they should: none there, silent, slow, broken.
//!
//! Owns: small TCP servers that misbehave, and the kinds of failure expected. Does not own: retries.

use crate::stores::free_port;
use bytes::Bytes;
use futures::StreamExt;
use objfs::store::s3::{S3Settings, S3Store, Secret, StaticCredentials, Timeouts};
use objfs::store::{Condition, ErrorKind, ObjectHeaders, ObjectStore};
use objfs::types::Key;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HALF_BODY: &str = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 10\r\n\r\nhalf";

fn settings(port: u16) -> S3Settings {
    S3Settings {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        region: Some("auto".to_owned()),
        credentials: Some(StaticCredentials {
            access_key: "AK".to_owned(),
            secret_key: Secret::new("secret"),
            session_token: None,
        }),
        timeouts: Timeouts { read: Duration::from_millis(400), ..Timeouts::default() },
        ..S3Settings::new("bucket")
    }
}

/// A server that treats each connection as `serve` does.
async fn server<F: Future<Output = ()> + Send + 'static>(serve: fn(TcpStream) -> F) -> S3Store {
    server_for(Timeouts::default().attempt, serve).await
}

/// The same; a request without a body may take so long.
async fn server_for<F: Future<Output = ()> + Send + 'static>(attempt: Duration, serve: fn(TcpStream) -> F) -> S3Store {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let settings = settings(port);
    let timeouts = Timeouts { attempt, ..settings.timeouts };
    S3Store::connect(&S3Settings { timeouts, ..settings }).await.unwrap()
}

fn key() -> Key {
    Key::parse("k").unwrap()
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_says_refused() {
    let store = S3Store::connect(&settings(free_port())).await.unwrap();
    let error = store.head(&key()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let store = server(|mut stream| async move {
        let mut rest = Vec::new();
        _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let start = Instant::now();
    let error = store.head(&key()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_is_broken() {
    let store = server(|mut stream| async move {
        let mut some = [0; 64];
        _ = stream.read(&mut some).await;
    })
    .await;
    let error = store.head(&key()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Broken, "{error}");
}

#[tokio::test]
async fn a_body_that_stands_still_is_a_timeout() {
    let store = server(|mut stream| async move {
        let mut some = [0; 64 << 10];
        _ = stream.read(&mut some).await;
        _ = stream.write_all(HALF_BODY.as_bytes()).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    })
    .await;
    let mut answer = store.get(&key(), None, None).await.unwrap();
    assert_eq!(answer.body.next().await.unwrap().unwrap(), "half");
    assert_eq!(answer.body.next().await.unwrap().unwrap_err().kind, ErrorKind::Timeout);
    assert!(answer.body.next().await.is_none());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_broken() {
    let store = server(|mut stream| async move {
        let mut some = [0; 64 << 10];
        _ = stream.read(&mut some).await;
        _ = stream.write_all(HALF_BODY.as_bytes()).await;
    })
    .await;
    let mut answer = store.get(&key(), None, None).await.unwrap();
    assert_eq!(answer.body.next().await.unwrap().unwrap(), "half");
    assert_eq!(answer.body.next().await.unwrap().unwrap_err().kind, ErrorKind::Broken);
}

/// An upload takes longer than the read timeout, but always moves.
#[tokio::test]
async fn a_slow_upload_is_not_ended() {
    let store = server(|mut stream| async move {
        let mut piece = vec![0; 256 << 10];
        let mut left = 6u64 << 20;
        while left > 0 {
            let len = stream.read(&mut piece).await.unwrap() as u64;
            left = left.saturating_sub(len);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        // The headers came on top of the body: take what is left of it.
        _ = stream.write_all(b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 0\r\n\r\n").await;
        _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let start = Instant::now();
    let body = Bytes::from(vec![7; 6 << 20]);
    store.put(&key(), body, &ObjectHeaders::default(), &Condition::Always).await.unwrap();
    assert!(start.elapsed() > Duration::from_millis(600), "{:?}", start.elapsed());
}

/// Many small uploads share a slow line: each takes longer than a request that sends nothing may.
#[tokio::test]
async fn a_slow_upload_of_a_small_body_is_not_ended_either() {
    let store = server_for(Duration::from_millis(100), |mut stream| async move {
        let mut piece = vec![0; 64 << 10];
        let mut got = 0;
        while got < 256 << 10 {
            got += stream.read(&mut piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        _ = stream.write_all(b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 0\r\n\r\n").await;
        _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let body = Bytes::from(vec![7; 256 << 10]);
    store.put(&key(), body, &ObjectHeaders::default(), &Condition::Always).await.unwrap();
    assert_eq!(store.head(&key()).await.unwrap_err().kind, ErrorKind::Timeout);
}

#[tokio::test]
async fn an_error_inside_a_success_is_an_error() {
    let store = server(|mut stream| async move {
        let mut some = [0; 64 << 10];
        _ = stream.read(&mut some).await;
        let body = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>oh</Message></Error>";
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let copy = objfs::store::CopyRequest {
        source: key(),
        source_if_match: None,
        source_size: 1,
        destination: key(),
        headers: ObjectHeaders::default(),
        condition: Condition::Always,
    };
    let error = store.copy(&copy).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Server, Some("InternalError")), "{error}");
}

/// What requests of our own make of answers, and what the SDK makes of them.
#[tokio::test]
async fn answers_mean_the_same_with_the_sdk_and_without() {
    let document = |code: &str, message: &str| {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
        format!("x-amz-request-id: R1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let headers = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Type: a/b\r\nCache-Control: no-store\r\n\
        Content-Disposition: inline\r\nContent-Encoding: gzip\r\nContent-Language: de\r\nx-amz-storage-class: COLD\r\n\
        x-amz-version-id: V\r\nx-amz-meta-mode: 420\r\nX-Amz-Meta-Name: =?UTF-8?B?w6Q=?=\r\n";
    let answers = [
        format!("404 Not Found\r\n{}", document("NoSuchKey", "gone")),
        format!("404 Not Found\r\n{}", document("NoSuchBucket", "a &lt;b&gt; &amp; c")),
        format!("403 Forbidden\r\n{}", document("InvalidObjectState", "archived")),
        format!("403 Forbidden\r\n{}", document("SignatureDoesNotMatch", "")),
        format!("403 Forbidden\r\n{}", document("AccessDenied", "Forbidden: No such key: GK1")),
        format!("412 Precondition Failed\r\n{}", document("PreconditionFailed", "it changed")),
        format!("416 Range\r\n{}", document("InvalidRange", "too far")),
        format!("503 Slow Down\r\nx-amz-bucket-region: eu-west-1\r\n{}", document("SlowDown", "later")),
        format!("400 Bad Request\r\nx-amz-bucket-region: eu-west-1\r\n{}", document("Odd", "who knows")),
        "301 Moved\r\nx-amz-bucket-region: eu-west-1\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "412 Precondition Failed\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!("206 Partial\r\nETag: \"e\"\r\n{headers}Content-Range: bytes 2-5/9\r\nContent-Length: 4\r\n\r\ncdef"),
        format!("206 Partial\r\nETag: \"e\"\r\n{headers}Content-Range: bytes 0-3/9\r\nContent-Length: 4\r\n\r\nabcd"),
        "206 Partial\r\nETag: e\r\nContent-Range: nonsense\r\nContent-Length: 4\r\n\r\nabcd".to_owned(),
        "206 Partial\r\nContent-Range: bytes 2-5/9\r\nContent-Length: 4\r\n\r\ncdef".to_owned(),
        "200 OK\r\nETag: e\r\nContent-Length: 4\r\n\r\nabcd".to_owned(),
        "206 Partial\r\nETag: e\r\nContent-Range: bytes 2-5/9\r\nContent-Length: 4\r\n\r\ncd".to_owned(),
    ];
    let range = objfs::types::ByteRange::new(2, 6);
    for answer in answers {
        let mut said = Vec::new();
        for direct in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let settings = S3Settings { direct, ..settings(listener.local_addr().unwrap().port()) };
            let store = S3Store::connect(&settings).await.unwrap();
            let mut all = Vec::new();
            let asked = [format!("HTTP/1.1 {answer}"), format!("HTTP/1.1 {}", without_body(&answer))];
            let serve = async {
                for answer in asked {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    _ = stream.read(&mut [0; 64 << 10]).await;
                    _ = stream.write_all(answer.as_bytes()).await;
                }
            };
            let ask = async {
                match store.get(&key(), range, None).await {
                    Ok(mut got) => {
                        all.push(format!("{got:?}"));
                        while let Some(piece) = got.body.next().await {
                            all.push(format!("{:?}", piece.map_err(|e| (e.kind, e.code))));
                        }
                    }
                    Err(e) => all.push(format!("{e} {:?} {:?} {:?}", e.kind, e.code, e.request_id)),
                }
                // The SDK makes up a code where a HEAD has none.
                let head = store.head(&key()).await;
                all.push(format!("{:?}", head.map_err(|e| (e.kind, e.request_id))));
            };
            tokio::join!(serve, ask);
            said.push(all);
        }
        assert_eq!(said[0], said[1], "{answer}");
    }
}

fn without_body(answer: &str) -> &str {
    answer.split_inclusive("\r\n\r\n").next().unwrap_or_default()
}

/// The same of DELETE, whose answers have no body but an error's.
#[tokio::test]
async fn a_delete_means_the_same_with_the_sdk_and_without() {
    let document = |code: &str| {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
        format!("x-amz-request-id: R1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let answers = [
        "204 No Content\r\n\r\n".to_owned(),
        "200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!("404 Not Found\r\n{}", document("NoSuchKey")),
        format!("404 Not Found\r\n{}", document("NoSuchBucket")),
        format!("412 Precondition Failed\r\n{}", document("PreconditionFailed")),
        format!("409 Conflict\r\n{}", document("ConditionalRequestConflict")),
        format!("403 Forbidden\r\n{}", document("AccessDenied")),
        format!("501 Not Implemented\r\n{}", document("NotImplemented")),
        format!("503 Slow Down\r\n{}", document("SlowDown")),
        "500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ];
    let etag = objfs::types::ETag::parse("e");
    for (answer, if_match) in answers.iter().flat_map(|answer| [(answer, None), (answer, Some(&etag))]) {
        let mut said = Vec::new();
        for direct in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let settings = S3Settings { direct, ..settings(listener.local_addr().unwrap().port()) };
            let store = S3Store::connect(&settings).await.unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = vec![0; 64 << 10];
                let len = stream.read(&mut asked).await.unwrap();
                _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
                String::from_utf8_lossy(&asked[..len]).to_lowercase()
            };
            let key = key();
            let (asked, deleted) = tokio::join!(serve, store.delete(&key, if_match));
            assert!(asked.starts_with("delete /bucket/k"), "{asked}");
            assert_eq!(asked.contains("\r\nif-match: "), if_match.is_some(), "{asked}");
            said.push(format!("{:?}", deleted.map_err(|e| (e.to_string(), e.kind, e.code, e.request_id))));
        }
        assert_eq!(said[0], said[1], "{answer}");
    }
}

#[tokio::test]
async fn a_redirect_names_the_region() {
    let store = server(|mut stream| async move {
        let mut some = [0; 64 << 10];
        _ = stream.read(&mut some).await;
        let answer = "HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-west-1\r\nContent-Length: 0\r\n\r\n";
        _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let error = store.head(&key()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("eu-west-1"), "{error}");
}

#[tokio::test]
async fn anonymous_requests_carry_no_signature() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = S3Settings { anonymous: true, credentials: None, ..settings(listener.local_addr().unwrap().port()) };
    let store = S3Store::connect(&settings).await.unwrap();
    let asked = tokio::spawn(async move { store.head(&key()).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = vec![0; 64 << 10];
    let len = stream.read(&mut request).await.unwrap();
    let request = String::from_utf8_lossy(&request[..len]).to_ascii_lowercase();
    assert!(request.starts_with("head /bucket/k") && !request.contains("authorization"), "{request}");
    stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap_err().kind, ErrorKind::NotFound);
}

/// A certificate that nobody vouches for is refused; with the right CA bundle requests get through.
pub(crate) async fn certificates_are_checked(good: &S3Settings) {
    let distrusting = S3Settings { ca_bundle: None, ..good.clone() };
    let error = S3Store::connect(&distrusting).await.unwrap().head_bucket().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(error.message.contains("certificate"), "{error}");
    let store = S3Store::connect(good).await.unwrap();
    let error = store.head_bucket().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSuchBucket, "{error}");
    let body = Bytes::from(vec![1; 100_000]);
    let error = store.put(&key(), body, &ObjectHeaders::default(), &Condition::Always).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSuchBucket, "{error}");
    let missing = S3Settings { ca_bundle: Some("/no/such/file".into()), ..good.clone() };
    assert_eq!(S3Store::connect(&missing).await.unwrap_err().kind, ErrorKind::Invalid);
}

/// A server that checks signatures tells a wrong key and a wrong secret from a missing bucket.
pub(crate) async fn wrong_credentials_are_told_apart(good: &S3Settings) {
    let with = |access_key: &str, secret: &str| S3Settings {
        credentials: Some(StaticCredentials {
            access_key: access_key.to_owned(),
            secret_key: Secret::new(secret),
            session_token: None,
        }),
        ..good.clone()
    };
    let access_key = good.credentials.as_ref().unwrap().access_key.clone();
    for settings in [with("GK000000000000000000000000", "x"), with(&access_key, "wrong")] {
        let error = S3Store::connect(&settings).await.unwrap().head_bucket().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
    }
    let other = S3Settings { bucket: "no-such-bucket".to_owned(), ..good.clone() };
    let error = S3Store::connect(&other).await.unwrap().head_bucket().await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NoSuchBucket | ErrorKind::AccessDenied), "{error}");
}
