//! Multipart uploads.
//!
//! Owns: parts, part copies, lists of both, aborts, the server's checks. Does not own: conditions (`conditions`).

use super::{Case, content, etag, key, marked, pattern, put, read};
use bytes::Bytes;
use objfs::store::{Condition, ErrorKind, ObjectStore, Part, PartSource, Upload};
use objfs::types::{ByteRange, WriteId};

/// The smallest part that is not the last.
pub(super) const PART: usize = 5 << 20;

pub(super) async fn create(store: &dyn ObjectStore, name: &str) -> (Upload, WriteId) {
    let (id, headers) = marked();
    let upload = store.create_upload(&key(name), &headers).await.unwrap();
    (Upload { key: key(name), id: upload, initiated: None }, id)
}

fn numbers(parts: &[Part]) -> Vec<(u16, String)> {
    parts.iter().map(|part| (part.number, part.etag.bare().to_owned())).collect()
}

pub(super) async fn parts_become_an_object(c: &Case) {
    let body = pattern(PART + 1000);
    let (upload, id) = create(&*c.store, "dir/fi le").await;
    let second = c.store.upload_part(&upload, 2, body.slice(PART..)).await.unwrap();
    let first = c.store.upload_part(&upload, 1, body.slice(..PART)).await.unwrap();
    let parts = [first, second];
    if !c.differs("list-parts") {
        let listed = c.store.list_parts(&upload).await.unwrap();
        assert_eq!(numbers(&listed), numbers(&parts));
        assert_eq!(listed[1].size, Some(1000));
    }
    let uploads = c.store.list_uploads(&key("dir/")).await.unwrap();
    assert!(uploads.iter().any(|u| u.id == upload.id && u.key == upload.key), "{uploads:?}");
    assert_eq!(c.store.head(&upload.key).await.unwrap_err().kind, ErrorKind::NotFound);
    let written = c.store.complete_upload(&upload, &parts, &Condition::Always, &id).await.unwrap();
    let meta = c.store.head(&upload.key).await.unwrap();
    assert_eq!((meta.version.size, meta.version.etag), (body.len() as u64, written.etag));
    assert_eq!(meta.headers.write_id(), Some(id));
    let across = ByteRange::new(PART as u64 - 10, PART as u64 + 10);
    let answer = c.store.get(&upload.key, across, None).await.unwrap();
    assert_eq!(read(answer).await, body.slice(PART - 10..PART + 10));
    assert!(c.store.list_uploads(&key("dir/")).await.unwrap().is_empty());
}

pub(super) async fn parts_are_copied(c: &Case) {
    let body = pattern(PART + 1000);
    let base = put(&*c.store, "ba se", body.clone()).await;
    let (upload, id) = create(&*c.store, "new").await;
    let source = PartSource {
        key: key("ba se"),
        if_match: Some(base.etag.clone()),
        range: ByteRange::new(1000, PART as u64 + 1000),
    };
    let wrong = PartSource { if_match: Some(etag("00000000000000000000000000000000")), ..source.clone() };
    if !c.differs("copy-source-condition") {
        let error = c.store.upload_part_copy(&upload, 1, &wrong).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Precondition, "{error}");
    }
    let first = c.store.upload_part_copy(&upload, 1, &source).await.unwrap();
    let second = c.store.upload_part(&upload, 2, Bytes::from("end")).await.unwrap();
    c.store.complete_upload(&upload, &[first, second], &Condition::Always, &id).await.unwrap();
    let expected = [&body[1000..], b"end".as_slice()].concat();
    assert!(content(&*c.store, "new").await == expected, "the bytes differ");
    if c.differs("small-part-copy") {
        return;
    }
    // A small object as a whole, as conditional copies do.
    put(&*c.store, "small", "tiny").await;
    let (upload, id) = create(&*c.store, "whole").await;
    let source = PartSource { key: key("small"), if_match: None, range: None };
    let part = c.store.upload_part_copy(&upload, 1, &source).await.unwrap();
    c.store.complete_upload(&upload, &[part], &Condition::Always, &id).await.unwrap();
    assert_eq!(content(&*c.store, "whole").await, "tiny");
}

pub(super) async fn aborted_uploads_are_gone(c: &Case) {
    let (upload, id) = create(&*c.store, "file").await;
    let part = c.store.upload_part(&upload, 1, Bytes::from("x")).await.unwrap();
    c.store.abort_upload(&upload).await.unwrap();
    c.store.abort_upload(&upload).await.unwrap();
    assert!(c.store.list_uploads(&key("")).await.unwrap().is_empty());
    if !c.differs("no-such-upload") {
        let error = c.store.complete_upload(&upload, &[part], &Condition::Always, &id).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSuchUpload, "{error}");
        assert_eq!(c.store.list_parts(&upload).await.unwrap_err().kind, ErrorKind::NoSuchUpload);
    }
    assert_eq!(c.store.head(&upload.key).await.unwrap_err().kind, ErrorKind::NotFound);
}

pub(super) async fn parts_are_checked(c: &Case) {
    let (upload, id) = create(&*c.store, "file").await;
    let first = c.store.upload_part(&upload, 1, Bytes::from("too small")).await.unwrap();
    let second = c.store.upload_part(&upload, 2, Bytes::from("end")).await.unwrap();
    let complete = |parts: Vec<Part>| {
        let (store, upload, id) = (&c.store, &upload, &id);
        async move { store.complete_upload(upload, &parts, &Condition::Always, id).await.unwrap_err().kind }
    };
    if !c.differs("part-order") {
        assert_eq!(complete(vec![second.clone(), first.clone()]).await, ErrorKind::Invalid);
    }
    let forged = Part { etag: etag("00000000000000000000000000000000"), ..first.clone() };
    assert_eq!(complete(vec![forged]).await, ErrorKind::Invalid);
    if !c.differs("part-size") {
        assert_eq!(complete(vec![first, second]).await, ErrorKind::Invalid);
    }
    c.store.abort_upload(&upload).await.unwrap();
}
