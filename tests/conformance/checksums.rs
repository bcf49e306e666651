//! Bodies that are changed on the way are refused, and sent again.
//!
//! Owns: what comes of bytes that change on the line, and of a server that refuses checksums. Does not own: the checksums
//! (`store::s3`), the line (`line`).

use crate::line::line;
use crate::stores::{dev_server, settings};
use bytes::Bytes;
use futures::TryStreamExt;
use objfs::devserver::{Effect, Rule, Storage};
use objfs::store::probe::{Found, probe};
use objfs::store::s3::{S3Settings, S3Store};
use objfs::store::{Condition, Conditions, ErrorKind, ObjectHeaders, ObjectStore, RetryStore, Support, Upload, retry};
use objfs::types::{Key, WriteId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const RIGHT: &[u8] = b"what was meant";
const WRONG: &[u8] = b"what was moant";

/// A line on which a byte of the body `RIGHT` changes so many times. Answers its port.
async fn noisy_line(to: SocketAddr, times: Arc<AtomicUsize>) -> u16 {
    line(to, move |sent| {
        if let Some(at) = sent.windows(RIGHT.len()).position(|window| window == RIGHT)
            && times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            sent[at..at + RIGHT.len()].copy_from_slice(WRONG);
        }
    })
    .await
}

#[tokio::test]
async fn what_did_not_arrive_whole_is_refused_and_sent_again() {
    let server = dev_server(Storage::Memory).await;
    let times = Arc::new(AtomicUsize::new(0));
    let port = noisy_line(server.address(), Arc::clone(&times)).await;
    let keys = objfs::devserver::Settings::default();
    let endpoint = format!("http://127.0.0.1:{port}");
    let settings = settings(&endpoint, "us-east-1", &keys.access_key, &keys.secret_key);
    // Signed bodies are checked by their signature; over TLS, and on this machine, nobody signs them.
    for signed in [true, false] {
        let settings = S3Settings { signed_bodies: Some(signed), ..settings.clone() };
        arrives_whole(Arc::new(S3Store::connect(&settings).await.unwrap()), &times).await;
    }
}

async fn arrives_whole(store: Arc<S3Store>, times: &AtomicUsize) {
    let (key, headers) = (Key::parse("k").unwrap(), ObjectHeaders::default());
    let put = |store: Arc<dyn ObjectStore>| {
        let (key, headers) = (key.clone(), headers.clone());
        async move { store.put(&key, Bytes::from_static(RIGHT), &headers, &Condition::Always).await }
    };
    times.store(1, Ordering::SeqCst);
    let error = put(Arc::<S3Store>::clone(&store)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    assert_eq!(store.head(&key).await.unwrap_err().kind, ErrorKind::NotFound);
    times.store(1, Ordering::SeqCst);
    let patient: Arc<dyn ObjectStore> = Arc::new(RetryStore::new(store, retry::Settings::default()));
    put(Arc::clone(&patient)).await.unwrap();
    // Parts as well; the completion names their checksums.
    let id = WriteId::new("an-id");
    let upload_id = patient.create_upload(&key, &headers).await.unwrap();
    let upload = Upload { key: key.clone(), id: upload_id, initiated: None };
    times.store(1, Ordering::SeqCst);
    let part = patient.upload_part(&upload, 1, Bytes::from_static(RIGHT)).await.unwrap();
    assert!(part.crc.is_some() && times.load(Ordering::SeqCst) == 0, "{part:?}");
    patient.complete_upload(&upload, &[part], &Condition::Always, &id).await.unwrap();
    let got: Vec<Bytes> = patient.get(&key, None, None).await.unwrap().body.try_collect().await.unwrap();
    assert_eq!(got.concat(), RIGHT);
    patient.delete(&key, None).await.unwrap();
}

/// Each verb has a store of its own, and is the first that is refused.
#[tokio::test]
async fn a_server_that_refuses_checksums_is_sent_md5s() {
    let server = dev_server(Storage::Memory).await;
    server.faults().add(Rule::new(Effect::RefuseChecksums));
    let keys = objfs::devserver::Settings::default();
    let settings = settings(&server.endpoint(), "us-east-1", &keys.access_key, &keys.secret_key);
    let (key, headers, id) = (Key::parse("k").unwrap(), ObjectHeaders::default(), WriteId::new("an-id"));
    for direct in [true, false] {
        let settings = S3Settings { direct, ..settings.clone() };
        let connect = async || S3Store::connect(&settings).await.unwrap();
        for len in [10, 2 << 20] {
            let (store, body) = (connect().await, Bytes::from(vec![7; len]));
            server.reset_counters();
            for _ in 0..2 {
                store.put(&key, body.clone(), &headers, &Condition::Always).await.unwrap();
            }
            assert_eq!(server.counters().of("PutObject"), 3, "{len} bytes: one was refused, and the next was not");
            let got: Vec<Bytes> = store.get(&key, None, None).await.unwrap().body.try_collect().await.unwrap();
            assert!(got.concat() == body, "{len} bytes came back changed");
        }
        let upload_id = connect().await.create_upload(&key, &headers).await.unwrap();
        let upload = Upload { key: key.clone(), id: upload_id, initiated: None };
        let part = connect().await.upload_part(&upload, 1, Bytes::from_static(RIGHT)).await.unwrap();
        assert_eq!(part.crc, None);
        connect().await.complete_upload(&upload, &[part], &Condition::Always, &id).await.unwrap();
        let found = probe(Arc::new(connect().await), "name").await.unwrap();
        assert_eq!(found, Found { conditions: Conditions::all(Support::Honoured), is_denied: false });
    }
}
