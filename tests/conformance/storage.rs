//! Options of storage become headers of the verbs that they concern, through the SDK and without it.
//!
//! Owns: the heads of requests, and what is expected of them. The dev server behind it checks
//! signatures, and so that what was signed is what was sent. Does not own: which options a mount has.

use crate::line::line;
use crate::stores::{dev_server, settings};
use bytes::Bytes;
use futures::StreamExt;
use objfs::devserver::Storage;
use objfs::store::s3::{CustomerKey, Encryption, S3Settings, S3Store, StorageOptions, Tags};
use objfs::store::{Condition, CopyRequest, ListRequest, ObjectHeaders, ObjectStore, Op, PartSource, Upload};
use objfs::types::{Key, WriteId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const RAW: &[u8] = b"0123456789abcdef0123456789abcdef";
const BASE64: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What clients sent.
type Log = Arc<Mutex<Vec<u8>>>;
/// The headers of a request, with names in lower case.
type Head = BTreeMap<String, String>;

/// A line to the server, and what clients sent over it. Answers its port.
async fn record(to: SocketAddr) -> (u16, Log) {
    let log = Log::default();
    let kept = Arc::clone(&log);
    (line(to, move |sent| kept.lock().unwrap().extend_from_slice(sent)).await, log)
}

/// The heads of the requests since the last time.
fn take(log: &Log) -> Vec<Head> {
    let bytes = std::mem::take(&mut *log.lock().unwrap());
    let text = String::from_utf8_lossy(&bytes);
    let mut heads = Vec::new();
    let mut lines = text.split("\r\n");
    while let Some(line) = lines.next() {
        if line.ends_with(" HTTP/1.1") {
            let headers = lines.by_ref().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
            heads.push(headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect());
        }
    }
    heads
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn copy_of(source: &str, headers: ObjectHeaders) -> CopyRequest {
    CopyRequest {
        source: key(source),
        source_if_match: None,
        source_size: 3,
        destination: key("copy"),
        headers,
        condition: Condition::Always,
    }
}

/// Sends every verb once, and answers their heads.
async fn every_verb(store: &S3Store, log: &Log) -> Vec<(Op, Head)> {
    let mut seen = Vec::new();
    let mut note = |op: Op| {
        let mut heads = take(log);
        assert_eq!(heads.len(), 1, "{op:?}: {heads:?}");
        seen.push((op, heads.remove(0)));
    };
    let (plain, body) = (ObjectHeaders::default(), Bytes::from_static(b"abc"));
    store.head_bucket().await.unwrap();
    note(Op::HeadBucket);
    store.put(&key("k"), body.clone(), &plain, &Condition::Always).await.unwrap();
    note(Op::Put);
    store.head(&key("k")).await.unwrap();
    note(Op::Head);
    let got = store.get(&key("k"), None, None).await.unwrap();
    note(Op::Get);
    got.body.count().await;
    let list = ListRequest { prefix: Key::root(), delimited: true, continuation: None, max_keys: 10 };
    store.list(&list).await.unwrap();
    note(Op::List);
    store.copy(&copy_of("k", plain.clone())).await.unwrap();
    note(Op::Copy);
    let upload = |id: String| Upload { key: key("u"), id, initiated: None };
    let first = upload(store.create_upload(&key("u"), &plain).await.unwrap());
    note(Op::CreateUpload);
    let part = store.upload_part(&first, 1, body).await.unwrap();
    note(Op::UploadPart);
    store.list_parts(&first).await.unwrap();
    note(Op::ListParts);
    store.list_uploads(&Key::root()).await.unwrap();
    note(Op::ListUploads);
    store.complete_upload(&first, &[part], &Condition::Always, &WriteId::new("w")).await.unwrap();
    note(Op::CompleteUpload);
    let second = upload(store.create_upload(&key("u"), &plain).await.unwrap());
    take(log);
    let source = PartSource { key: key("k"), if_match: None, range: None };
    store.upload_part_copy(&second, 1, &source).await.unwrap();
    note(Op::UploadPartCopy);
    store.abort_upload(&second).await.unwrap();
    note(Op::AbortUpload);
    store.delete(&key("k"), None).await.unwrap();
    note(Op::Delete);
    assert_eq!(seen.len(), Op::ALL.len());
    seen
}

/// A store with these options on a dev server of its own, with requests of our own or without.
async fn store_with(storage: StorageOptions, direct: bool) -> (objfs::devserver::Server, S3Store, Log) {
    let server = dev_server(Storage::Memory).await;
    let (port, log) = record(server.address()).await;
    let keys = objfs::devserver::Settings::default();
    let endpoint = format!("http://127.0.0.1:{port}");
    let settings = settings(&endpoint, "us-east-1", &keys.access_key, &keys.secret_key);
    let store = S3Store::connect(&S3Settings { direct, storage, ..settings }).await.unwrap();
    (server, store, log)
}

/// The header is there with this value, and signed, where it is expected; and nowhere else.
#[track_caller]
fn carries(seen: &[(Op, Head)], name: &str, value: &str, verbs: &[Op]) {
    for (op, head) in seen {
        let expected = verbs.contains(op).then_some(value);
        assert_eq!(head.get(name).map(String::as_str), expected, "{name} of {op:?}");
        let signed = head["authorization"].split("SignedHeaders=").nth(1).unwrap().split(',').next().unwrap();
        assert!(expected.is_none() || signed.split(';').any(|n| n == name), "{name} of {op:?}: {signed}");
    }
}

const NEW: [Op; 2] = [Op::Put, Op::CreateUpload];
const WRITTEN: [Op; 3] = [Op::Put, Op::CreateUpload, Op::Copy];
const COPIES: [Op; 2] = [Op::Copy, Op::UploadPartCopy];

#[tokio::test]
async fn options_become_headers() {
    let options = StorageOptions {
        storage_class: Some("STANDARD_IA".to_owned()),
        encryption: Some(Encryption::Kms { key: Some("key-1".to_owned()), dual: false }),
        acl: Some("bucket-owner-full-control".to_owned()),
        tags: Some(Tags::parse("team=a b&x=1").unwrap()),
        requester_pays: true,
        bucket_owner: Some("123456789012".to_owned()),
    };
    for direct in [true, false] {
        let (_server, store, log) = store_with(options.clone(), direct).await;
        let seen = every_verb(&store, &log).await;
        carries(&seen, "x-amz-request-payer", "requester", &Op::ALL);
        carries(&seen, "x-amz-expected-bucket-owner", "123456789012", &Op::ALL);
        carries(&seen, "x-amz-source-expected-bucket-owner", "123456789012", &COPIES);
        carries(&seen, "x-amz-storage-class", "STANDARD_IA", &WRITTEN);
        carries(&seen, "x-amz-acl", "bucket-owner-full-control", &WRITTEN);
        carries(&seen, "x-amz-tagging", "team=a%20b&x=1", &NEW);
        // Else the server would not keep those of what is copied.
        carries(&seen, "x-amz-tagging-directive", "", &[]);
        carries(&seen, "x-amz-server-side-encryption", "aws:kms", &WRITTEN);
        carries(&seen, "x-amz-server-side-encryption-aws-kms-key-id", "key-1", &WRITTEN);
        carries(&seen, "x-amz-server-side-encryption-customer-key", "", &[]);
    }
}

#[tokio::test]
async fn a_customers_key_goes_with_every_request_that_needs_it() {
    let encryption = Some(Encryption::Customer(CustomerKey::parse(RAW).unwrap()));
    let options = StorageOptions { encryption, ..StorageOptions::default() };
    let verbs = [
        Op::Put,
        Op::CreateUpload,
        Op::UploadPart,
        Op::Get,
        Op::Head,
        Op::Copy,
        Op::UploadPartCopy,
        Op::CompleteUpload,
        Op::ListParts,
    ];
    for direct in [true, false] {
        let (_server, store, log) = store_with(options.clone(), direct).await;
        let shown = format!("{store:?} {store:#?}");
        assert!(!shown.contains(BASE64) && !shown.contains("0123456789abcdef"), "{shown}");
        let seen = every_verb(&store, &log).await;
        let md5 = seen.iter().find_map(|(_, head)| head.get("x-amz-server-side-encryption-customer-key-md5"));
        let md5 = md5.unwrap().clone();
        assert_eq!(md5.len(), 24);
        for (prefix, verbs) in [("x-amz-", &verbs[..]), ("x-amz-copy-source-", &COPIES[..])] {
            let name = |rest: &str| format!("{prefix}server-side-encryption-customer-{rest}");
            carries(&seen, &name("algorithm"), "AES256", verbs);
            carries(&seen, &name("key"), BASE64, verbs);
            carries(&seen, &name("key-md5"), &md5, verbs);
        }
        carries(&seen, "x-amz-server-side-encryption", "", &[]);
    }
}

#[tokio::test]
async fn no_options_no_headers() {
    let (_server, store, log) = store_with(StorageOptions::default(), true).await;
    for (op, head) in every_verb(&store, &log).await {
        let ours = ["request-payer", "bucket-owner", "encryption", "storage-class", "acl", "tagging"];
        let found = head.keys().find(|name| name.starts_with("x-amz-") && ours.iter().any(|o| name.contains(o)));
        assert_eq!(found, None, "{op:?}");
    }
}

/// What rewrites an object names the object's own class.
#[tokio::test]
async fn an_object_keeps_its_class() {
    let with = |class: &str| ObjectHeaders { storage_class: Some(class.to_owned()), ..ObjectHeaders::default() };
    for (option, own, sent) in [
        (Some("STANDARD_IA"), "COLD", Some("COLD")),
        (Some("STANDARD_IA"), "STANDARD", Some("STANDARD")),
        (None, "COLD", Some("COLD")),
        (None, "STANDARD", None),
    ] {
        let options = StorageOptions { storage_class: option.map(str::to_owned), ..StorageOptions::default() };
        let (_server, store, log) = store_with(options, true).await;
        store.put(&key("k"), Bytes::from_static(b"abc"), &with(own), &Condition::Always).await.unwrap();
        store.copy(&copy_of("k", with(own))).await.unwrap();
        store.create_upload(&key("u"), &with(own)).await.unwrap();
        let heads = take(&log);
        assert_eq!(heads.len(), 3);
        for head in heads {
            assert_eq!(head.get("x-amz-storage-class").map(String::as_str), sent, "{option:?} {own}");
        }
    }
}

/// Whoever has only a URL sends no headers.
#[tokio::test]
async fn a_url_is_given_where_it_suffices() {
    const HOUR: Duration = Duration::from_secs(3600);
    let plain = settings("http://s3.example.com", "eu-west-1", "AK", "secret");
    let anonymous = S3Settings { anonymous: true, credentials: None, ..plain.clone() };
    let with = |storage: StorageOptions| S3Settings { storage, ..plain.clone() };
    let customer = Some(Encryption::Customer(CustomerKey::parse(RAW).unwrap()));
    let others = [
        anonymous,
        with(StorageOptions { encryption: customer, ..StorageOptions::default() }),
        with(StorageOptions { requester_pays: true, ..StorageOptions::default() }),
        with(StorageOptions { bucket_owner: Some("123456789012".to_owned()), ..StorageOptions::default() }),
    ];
    for settings in others {
        let store = S3Store::connect(&settings).await.unwrap();
        assert_eq!(store.presign(&key("k"), HOUR).await.unwrap(), None);
    }
    let store = S3Store::connect(&plain).await.unwrap();
    let url = store.presign(&key("k"), HOUR).await.unwrap().unwrap();
    assert!(url.contains("X-Amz-Expires=3600"), "{url}");
}

/// Nothing is sent: the URL tells where a request would go.
#[tokio::test]
async fn the_bucket_is_in_the_path_or_in_the_name_of_the_host() {
    let given = settings("http://s3.example.com", "eu-west-1", "AK", "secret");
    let bucket = given.bucket.clone();
    let aws = format!("https://{bucket}.s3.eu-west-1.amazonaws.com/k?");
    for (is_aws, path_style, wanted) in [
        (false, None, format!("http://s3.example.com/{bucket}/k?")),
        (false, Some(true), format!("http://s3.example.com/{bucket}/k?")),
        (false, Some(false), format!("http://{bucket}.s3.example.com/k?")),
        (true, None, aws.clone()),
        (true, Some(false), aws),
        (true, Some(true), format!("https://s3.eu-west-1.amazonaws.com/{bucket}/k?")),
    ] {
        let endpoint = given.endpoint.clone().filter(|_| !is_aws);
        let store = S3Store::connect(&S3Settings { endpoint, path_style, ..given.clone() }).await.unwrap();
        let url = store.presign(&key("k"), Duration::from_secs(60)).await.unwrap().unwrap();
        assert!(url.starts_with(&wanted), "{path_style:?}: {url}");
        assert!(url.contains("%2Feu-west-1%2Fs3%2F"), "{url}");
    }
}
