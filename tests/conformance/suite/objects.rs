//! Whole objects: PutObject, GetObject, HeadObject, DeleteObject, CopyObject.
//!
//! Owns: bodies, headers, ranges. Does not own: conditions on writes (`conditions`), listings (`listing`).

use super::{Case, content, etag, key, marked, pattern, put, read};
use bytes::Bytes;
use futures::StreamExt;
use objfs::store::{Condition, CopyRequest, ErrorKind, ObjectHeaders};
use objfs::types::ByteRange;

pub(super) async fn bucket_answers(c: &Case) {
    c.store.head_bucket().await.unwrap();
}

pub(super) async fn put_get_head_delete(c: &Case) {
    let k = key("file");
    assert_eq!(c.store.head(&k).await.unwrap_err().kind, ErrorKind::NotFound);
    let error = c.store.get(&k, None, None).await.unwrap_err();
    assert_eq!((error.kind, error.key), (ErrorKind::NotFound, Some(k.clone())));
    let written = put(&*c.store, "file", "hello").await;
    let meta = c.store.head(&k).await.unwrap();
    assert_eq!((meta.version.size, &meta.version.etag), (5, &written.etag));
    assert!(meta.version.last_modified.is_some());
    let answer = c.store.get(&k, None, None).await.unwrap();
    assert_eq!(answer.meta.version, meta.version);
    assert_eq!(answer.range, ByteRange::new(0, 5));
    assert_eq!(read(answer).await, "hello");
    let rewritten = put(&*c.store, "file", "other").await;
    assert_ne!(rewritten.etag, written.etag);
    assert_eq!(content(&*c.store, "file").await, "other");
    c.store.delete(&k, None).await.unwrap();
    assert_eq!(c.store.head(&k).await.unwrap_err().kind, ErrorKind::NotFound);
    c.store.delete(&k, None).await.unwrap();
}

fn all_headers(c: &Case) -> ObjectHeaders {
    let mut user = vec![("mode", "33188"), ("mtime", "1700000000.123456789"), ("note", "Grüße, 世界")];
    if !c.differs("encoded-word") {
        user.push(("odd", "=?UTF-8?Q?x?="));
    }
    ObjectHeaders {
        content_type: Some("text/x-objfs".to_owned()),
        cache_control: Some("max-age=60".to_owned()),
        content_disposition: Some("attachment".to_owned()),
        content_encoding: Some("br".to_owned()),
        content_language: Some("de".to_owned()),
        storage_class: None,
        user: user.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
}

/// What came back, without what the server adds.
fn comparable(headers: &ObjectHeaders) -> ObjectHeaders {
    ObjectHeaders { storage_class: None, ..headers.clone() }
}

pub(super) async fn headers_round_trip(c: &Case) {
    let sent = all_headers(c);
    c.store.put(&key("file"), Bytes::from("x"), &sent, &Condition::Always).await.unwrap();
    let meta = c.store.head(&key("file")).await.unwrap();
    assert_eq!(comparable(&meta.headers), sent);
    let answer = c.store.get(&key("file"), None, None).await.unwrap();
    assert_eq!(answer.meta.headers, meta.headers);
}

pub(super) async fn empty_objects(c: &Case) {
    put(&*c.store, "dir/", "").await;
    let meta = c.store.head(&key("dir/")).await.unwrap();
    assert_eq!(meta.version.size, 0);
    let answer = c.store.get(&key("dir/"), None, None).await.unwrap();
    assert_eq!(answer.range, None);
    assert_eq!(read(answer).await, "");
    let error = c.store.get(&key("dir/"), ByteRange::new(0, 1), None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidRange, "{error}");
    let (_, headers) = marked();
    let copy = CopyRequest {
        source: key("dir/"),
        source_if_match: Some(meta.version.etag),
        source_size: 0,
        destination: key("dir2/"),
        headers,
        condition: Condition::IfAbsent,
    };
    c.store.copy(&copy).await.unwrap();
    assert_eq!(c.store.head(&key("dir2/")).await.unwrap().version.size, 0);
}

pub(super) async fn ranges(c: &Case) {
    let body = pattern(100_000);
    put(&*c.store, "file", body.clone()).await;
    let get = |start, end| async move {
        let answer = c.store.get(&key("file"), ByteRange::new(start, end), None).await?;
        assert_eq!(answer.meta.version.size, 100_000);
        let range = answer.range.unwrap();
        Ok::<_, objfs::store::StoreError>((range.start(), range.end(), read(answer).await))
    };
    assert_eq!(get(0, 1).await.unwrap(), (0, 1, body.slice(0..1)));
    assert_eq!(get(5000, 70_000).await.unwrap(), (5000, 70_000, body.slice(5000..70_000)));
    assert_eq!(get(99_999, 200_000).await.unwrap(), (99_999, 100_000, body.slice(99_999..)));
    assert_eq!(get(0, 100_000).await.unwrap(), (0, 100_000, body.clone()));
    assert_eq!(get(100_000, 100_001).await.unwrap_err().kind, ErrorKind::InvalidRange);
}

pub(super) async fn get_if_match(c: &Case) {
    let written = put(&*c.store, "file", "hello").await;
    let answer = c.store.get(&key("file"), ByteRange::new(1, 3), Some(&written.etag)).await.unwrap();
    assert_eq!(read(answer).await, "el");
    let wrong = etag("00000000000000000000000000000000");
    let error = c.store.get(&key("file"), None, Some(&wrong)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Precondition, "{error}");
    let error = c.store.get(&key("none"), None, Some(&wrong)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
}

pub(super) async fn large_bodies(c: &Case) {
    let body = pattern(9 << 20);
    put(&*c.store, "file", body.clone()).await;
    assert!(content(&*c.store, "file").await == body, "the body came back changed");
    // A reader that goes away in the middle harms nobody.
    let mut answer = c.store.get(&key("file"), None, None).await.unwrap();
    answer.body.next().await.unwrap().unwrap();
    drop(answer);
    let answer = c.store.get(&key("file"), ByteRange::new(8 << 20, 9 << 20), None).await.unwrap();
    assert!(read(answer).await == body.slice(8 << 20..));
}

pub(super) async fn copies(c: &Case) {
    let written = put(&*c.store, "dir/sou rce+ü%", "hello").await;
    let copy = CopyRequest {
        source: key("dir/sou rce+ü%"),
        source_if_match: Some(written.etag.clone()),
        source_size: 5,
        destination: key("to"),
        headers: all_headers(c),
        condition: Condition::Always,
    };
    let copied = c.store.copy(&copy).await.unwrap();
    let meta = c.store.head(&key("to")).await.unwrap();
    assert_eq!(meta.version.etag, copied.etag);
    assert_eq!(comparable(&meta.headers), all_headers(c));
    assert_eq!(content(&*c.store, "to").await, "hello");
    if !c.differs("copy-source-condition") {
        let wrong = CopyRequest { source_if_match: Some(etag("00000000000000000000000000000000")), ..copy.clone() };
        assert_eq!(c.store.copy(&wrong).await.unwrap_err().kind, ErrorKind::Precondition);
    }
    let missing = CopyRequest { source: key("none"), source_if_match: None, ..copy.clone() };
    assert_eq!(c.store.copy(&missing).await.unwrap_err().kind, ErrorKind::NotFound);
    // New headers for an object that stays where it is.
    let (id, headers) = marked();
    let same = CopyRequest { source: key("to"), source_if_match: Some(copied.etag), headers, ..copy };
    c.store.copy(&same).await.unwrap();
    let meta = c.store.head(&key("to")).await.unwrap();
    assert_eq!(meta.headers.write_id(), Some(id));
    assert_eq!(content(&*c.store, "to").await, "hello");
}
