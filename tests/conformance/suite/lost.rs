//! Lost replies: the request was carried out, its answer did not come. Exactly one write, no false conflict.
//!
//! Owns: each writing verb with its answer lost, alone and with the HEAD after it failing too, and a storm of faults.
//! Does not own: when to try again (`retry`).

use super::uploads::create;
use super::{Case, content, key, marked, put};
use bytes::Bytes;
use objfs::store::{Condition, CopyRequest, ErrorKind, ObjectStore, Op, Support, fault};

const KINDS: [ErrorKind; 4] = [ErrorKind::Broken, ErrorKind::Timeout, ErrorKind::Server, ErrorKind::Conflict];

pub(super) async fn puts(c: &Case) {
    for kind in KINDS {
        let name = format!("file-{kind:?}");
        let f = c.faulty(fault::Settings::default());
        f.fault.lose_next(Op::Put, kind, 1);
        let (id, headers) = marked();
        let written = f.store.put(&key(&name), Bytes::from("1"), &headers, &Condition::IfAbsent).await.unwrap();
        let meta = c.store.head(&key(&name)).await.unwrap();
        assert_eq!((meta.version.etag, meta.headers.write_id()), (written.etag.clone(), Some(id)));
        assert_eq!(f.counters.of(Op::Put).requests, 1, "one write");
        // The next version, and the HEAD that would tell is lost as well: the refusal of the second try is looked into.
        f.fault.lose_next(Op::Put, kind, 1);
        let condition = Condition::IfMatch(written.etag);
        let (id, headers) = marked();
        if c.conditions.put_if_match == Support::Honoured {
            f.fault.fail_next(Op::Head, ErrorKind::AccessDenied, 1);
        }
        f.store.put(&key(&name), Bytes::from("2"), &headers, &condition).await.unwrap();
        assert_eq!(c.store.head(&key(&name)).await.unwrap().headers.write_id(), Some(id));
        // Somebody else's object is a conflict all the same.
        let (_, headers) = marked();
        f.fault.lose_next(Op::Put, kind, 1);
        let error = f.store.put(&key(&name), Bytes::from("3"), &headers, &Condition::IfAbsent).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Precondition, "{error}");
        assert_eq!(content(&*c.store, &name).await, "2");
    }
}

pub(super) async fn copies(c: &Case) {
    let source = put(&*c.store, "source", "hello").await;
    for kind in KINDS {
        let to = format!("to-{kind:?}");
        let f = c.faulty(fault::Settings::default());
        f.fault.lose_next(Op::Copy, kind, 1);
        f.fault.lose_next(Op::CompleteUpload, kind, 1);
        let (id, headers) = marked();
        let copy = CopyRequest {
            source: key("source"),
            source_if_match: Some(source.etag.clone()),
            source_size: 5,
            destination: key(&to),
            headers,
            condition: Condition::IfAbsent,
        };
        let written = f.store.copy(&copy).await.unwrap();
        let meta = c.store.head(&key(&to)).await.unwrap();
        assert_eq!((meta.version.etag, meta.headers.write_id()), (written.etag, Some(id)));
    }
}

pub(super) async fn completions(c: &Case) {
    for kind in KINDS {
        let f = c.faulty(fault::Settings::default());
        let (upload, id) = create(&f.store, &format!("file-{kind:?}")).await;
        let part = f.store.upload_part(&upload, 1, Bytes::from("1")).await.unwrap();
        f.fault.lose_next(Op::CompleteUpload, kind, 1);
        let parts = [part];
        let written = f.store.complete_upload(&upload, &parts, &Condition::IfAbsent, &id).await.unwrap();
        assert_eq!(c.store.head(&upload.key).await.unwrap().version.etag, written.etag);
        assert_eq!(f.counters.of(Op::CompleteUpload).requests, 1, "one write");
        // A completion that an earlier run had carried out: the upload is gone, the object is ours.
        let again = f.store.complete_upload(&upload, &parts, &Condition::Always, &id).await.unwrap();
        assert_eq!(again.etag, written.etag);
    }
}

pub(super) async fn deletes(c: &Case) {
    let written = put(&*c.store, "file", "1").await;
    let f = c.faulty(fault::Settings::default());
    f.fault.lose_next(Op::Delete, ErrorKind::Broken, 1);
    f.store.delete(&key("file"), Some(&written.etag)).await.unwrap();
    assert_eq!(c.store.head(&key("file")).await.unwrap_err().kind, ErrorKind::NotFound);
}

/// Everything fails now and then: each write still happens once, and chains of conditions never break.
pub(super) async fn storm(c: &Case) {
    let errors = vec![ErrorKind::Throttled, ErrorKind::Unreachable, ErrorKind::Server, ErrorKind::Timeout];
    let f = c.faulty(fault::Settings { seed: 7, error_rate: 0.2, errors, lost_rate: 0.2, ..Default::default() });
    let mut condition = Condition::IfAbsent;
    for round in 0..20 {
        let body = format!("round {round}");
        let written = f.store.put(&key("file"), Bytes::from(body.clone()), &marked().1, &condition).await;
        let written = written.unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(content(&*c.store, "file").await, body);
        condition = Condition::IfMatch(written.etag);
    }
}
