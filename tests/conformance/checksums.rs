//! Bodies that are changed on the way are refused, and sent again.
//!
//! Owns: what comes of bytes that change on the line. Does not own: the checksums (`store::s3`), the line (`line`).

use crate::line::line;
use crate::stores::{dev_server, settings};
use bytes::Bytes;
use futures::TryStreamExt;
use objfs::devserver::Storage;
use objfs::store::s3::{S3Settings, S3Store};
use objfs::store::{Condition, ErrorKind, ObjectHeaders, ObjectStore, RetryStore, Upload, retry};
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
