//! Conditions on writes: true on every store, once the guard is around it.
//!
//! Owns: each verb with a condition that holds and with ones that do not. Does not own: how the guard does it.

use super::uploads::create;
use super::{Case, content, etag, key, marked, put};
use bytes::Bytes;
use objfs::store::{Condition, CopyRequest, ErrorKind, GuardStore, KnownConditions, ObjectStore, Op, Support, fault};
use std::sync::{Arc, Mutex};

fn wrong() -> Condition {
    Condition::IfMatch(etag("00000000000000000000000000000000"))
}

pub(super) async fn probe_finds_what_the_server_keeps(c: &Case) {
    let told = Arc::new(Mutex::new(None));
    let telling = Arc::clone(&told);
    let on_probed = Box::new(move |found: &_| *telling.lock().unwrap() = Some(*found));
    let known = KnownConditions::new(None);
    let guard = GuardStore::new(c.retried(&known), known, on_probed);
    // What needs no condition asks nothing.
    put(&guard, "file", "x").await;
    guard.delete(&key("file"), None).await.unwrap();
    assert_eq!(guard.conditions(), None);
    guard.put(&key("file"), Bytes::from("x"), &marked().1, &Condition::IfAbsent).await.unwrap();
    assert_eq!(guard.conditions(), Some(c.conditions));
    assert_eq!(*told.lock().unwrap(), Some(c.conditions));
    guard.delete(&key("file"), None).await.unwrap();
    let all = objfs::store::ListRequest { prefix: key(""), delimited: false, continuation: None, max_keys: 10 };
    let left = guard.list(&all).await.unwrap().objects;
    assert!(left.is_empty(), "the probe left {left:?}");
    assert!(guard.list_uploads(&key("")).await.unwrap().is_empty(), "the probe left uploads");
}

pub(super) async fn puts(c: &Case) {
    let write = |name: &'static str, body: &'static str, condition: Condition| async move {
        c.store.put(&key(name), Bytes::from(body), &marked().1, &condition).await.map_err(|e| e.kind)
    };
    let first = write("file", "1", Condition::IfAbsent).await.unwrap();
    assert_eq!(write("file", "2", Condition::IfAbsent).await, Err(ErrorKind::Precondition));
    assert_eq!(write("file", "2", wrong()).await, Err(ErrorKind::Precondition));
    assert_eq!(write("none", "2", wrong()).await, Err(ErrorKind::NotFound));
    assert_eq!(content(&*c.store, "file").await, "1");
    let second = write("file", "2", Condition::IfMatch(first.etag.clone())).await.unwrap();
    assert_eq!(write("file", "3", Condition::IfMatch(first.etag)).await, Err(ErrorKind::Precondition));
    assert_eq!(content(&*c.store, "file").await, "2");
    assert_eq!(c.store.head(&key("file")).await.unwrap().version.etag, second.etag);
    write("file", "4", Condition::Always).await.unwrap();
    assert_eq!(c.store.head(&key("none")).await.unwrap_err().kind, ErrorKind::NotFound);
}

pub(super) async fn deletes(c: &Case) {
    let written = put(&*c.store, "file", "1").await;
    let kind = |answer: objfs::store::Result<()>| answer.map_err(|e| e.kind);
    let other = etag("00000000000000000000000000000000");
    assert_eq!(kind(c.store.delete(&key("file"), Some(&other)).await), Err(ErrorKind::Precondition));
    assert_eq!(content(&*c.store, "file").await, "1");
    c.store.delete(&key("file"), Some(&written.etag)).await.unwrap();
    assert_eq!(c.store.head(&key("file")).await.unwrap_err().kind, ErrorKind::NotFound);
    let gone = kind(c.store.delete(&key("file"), Some(&written.etag)).await);
    assert!(matches!(gone, Err(ErrorKind::NotFound | ErrorKind::Precondition)), "{gone:?}");
}

pub(super) async fn copies(c: &Case) {
    let source = put(&*c.store, "source", "new").await;
    let request = |to: &'static str, condition: Condition| CopyRequest {
        source: key("source"),
        source_if_match: Some(source.etag.clone()),
        source_size: 3,
        destination: key(to),
        headers: marked().1,
        condition,
    };
    let copy = |to: &'static str, condition: Condition| {
        let request = request(to, condition);
        async move { c.store.copy(&request).await.map_err(|e| e.kind) }
    };
    let first = copy("to", Condition::IfAbsent).await.unwrap();
    assert_eq!(content(&*c.store, "to").await, "new");
    assert_eq!(copy("to", Condition::IfAbsent).await, Err(ErrorKind::Precondition));
    assert_eq!(copy("to", wrong()).await, Err(ErrorKind::Precondition));
    assert_eq!(copy("none", wrong()).await, Err(ErrorKind::NotFound));
    copy("to", Condition::IfMatch(first.etag)).await.unwrap();
    // A server that copies no parts.
    for to in ["other", "to"] {
        let f = c.faulty(fault::Settings::default());
        f.fault.fail_next(Op::UploadPartCopy, ErrorKind::NotImplemented, 1);
        let answer = f.store.copy(&request(to, Condition::IfAbsent)).await.map(|_| ()).map_err(|e| e.kind);
        assert_eq!(answer, if to == "to" { Err(ErrorKind::Precondition) } else { Ok(()) });
    }
    assert!(c.store.list_uploads(&key("")).await.unwrap().is_empty(), "a copy left its upload behind");
}

pub(super) async fn completions(c: &Case) {
    let complete = |name: &'static str, body: &'static str, condition: Condition| async move {
        let (upload, id) = create(&*c.store, name).await;
        let part = c.store.upload_part(&upload, 1, Bytes::from(body)).await.unwrap();
        let answer = c.store.complete_upload(&upload, &[part], &condition, &id).await;
        if answer.is_err() {
            c.store.abort_upload(&upload).await.unwrap();
        }
        answer.map_err(|e| e.kind)
    };
    let first = complete("file", "1", Condition::IfAbsent).await.unwrap();
    assert_eq!(complete("file", "2", Condition::IfAbsent).await, Err(ErrorKind::Precondition));
    assert_eq!(complete("file", "2", wrong()).await, Err(ErrorKind::Precondition));
    let gone = complete("none", "2", wrong()).await;
    assert!(matches!(gone, Err(ErrorKind::NotFound | ErrorKind::Precondition)), "{gone:?}");
    assert_eq!(content(&*c.store, "file").await, "1");
    complete("file", "2", Condition::IfMatch(first.etag)).await.unwrap();
    assert_eq!(content(&*c.store, "file").await, "2");
}

/// Where the server keeps the condition, exactly one of many creators wins.
pub(super) async fn one_of_many_wins(c: &Case) {
    if c.conditions.put_if_absent != Support::Honoured || c.differs("race") {
        return;
    }
    for round in 0..5 {
        let k = key(&format!("file{round}"));
        let tries = (0..8).map(|i| {
            let (store, k) = (Arc::clone(&c.store), k.clone());
            async move { store.put(&k, Bytes::from(format!("{i}")), &marked().1, &Condition::IfAbsent).await }
        });
        let answers = futures::future::join_all(tries).await;
        let won: Vec<_> = answers.iter().filter_map(|a| a.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        assert_eq!(c.store.head(&k).await.unwrap().version.etag, won[0].etag);
    }
}
