//! Extended attributes. Owns nothing else.

mod told;

use super::promises::bench_with;
use super::*;

const NOTE: &str = "user.note";
/// What s3fs makes of `user.note` = `hello`, and of a POSIX ACL beside it.
const HELLO: &str = "%7B%22user.note%22%3A%22aGVsbG8%3D%22%7D";
const WITH_ACL: &str = "%7B%22system.posix_acl_access%22%3A%22AgAAAA%3D%3D%22%2C%22user.note%22%3A%22aGVsbG8%3D%22%7D";

async fn entry(b: &Bench, n: &str) -> Entry {
    b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap()
}

async fn set_with(b: &Bench, n: &str, attribute: &str, value: &[u8], flags: i32) -> Result<()> {
    let ino = entry(b, n).await.ino;
    b.fs.setxattr(ino, attribute.as_bytes().to_vec(), value.to_vec(), flags).await
}

async fn set(b: &Bench, n: &str, attribute: &str, value: &str) -> Result<()> {
    set_with(b, n, attribute, value.as_bytes(), 0).await
}

async fn remove(b: &Bench, n: &str, attribute: &str) -> Result<()> {
    b.fs.removexattr(entry(b, n).await.ino, attribute.as_bytes().to_vec()).await
}

async fn get(b: &Bench, n: &str, attribute: &str) -> Result<String> {
    let value = b.fs.getxattr(entry(b, n).await.ino, attribute.as_bytes()).await?;
    Ok(String::from_utf8(value).unwrap())
}

async fn list(b: &Bench, n: &str) -> Vec<String> {
    let names = b.fs.listxattr(entry(b, n).await.ino).await.unwrap();
    let names = String::from_utf8(names).unwrap();
    assert!(names.is_empty() || names.ends_with('\0'));
    names.split_terminator('\0').map(str::to_owned).collect()
}

/// The entry of the object's metadata.
async fn stored(b: &Bench, k: &str) -> Option<String> {
    b.memory.head(&key(k)).await.unwrap().headers.user.get("xattr").cloned()
}

/// What another client puts into the bucket with user metadata.
async fn put_foreign(b: &Bench, k: &str, body: &'static str, user: &[(&str, &str)]) {
    let user = user.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let headers = ObjectHeaders { user, ..ObjectHeaders::default() };
    b.memory.put(&key(k), Bytes::from_static(body.as_bytes()), &headers, &Condition::Always).await.unwrap();
}

async fn mv(b: &Bench, from: &str, to: &str) {
    b.fs.rename((Ino::ROOT, name(from)), (Ino::ROOT, name(to)), false).await.unwrap();
}

fn writes(b: &Bench) -> (u64, u64) {
    (b.count(Op::Put), b.count(Op::Copy))
}

#[tokio::test]
async fn an_attribute_of_a_clean_file_is_one_copy_and_moves_its_ctime() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    let (before, ctime) = (writes(&b), entry(&b, "a").await.attr.ctime);
    b.advance(1);
    set(&b, "a", NOTE, "hello").await.unwrap();
    assert_eq!(writes(&b), (before.0, before.1 + 1));
    assert_eq!(stored(&b, "a").await.as_deref(), Some(HELLO));
    assert_eq!((get(&b, "a", NOTE).await.unwrap().as_str(), b.read("a").await.as_str()), ("hello", "text"));
    assert!(entry(&b, "a").await.attr.ctime > ctime);
    assert_eq!(list(&b, "a").await, [NOTE]);
    remove(&b, "a", NOTE).await.unwrap();
    assert_eq!((stored(&b, "a").await, list(&b, "a").await), (None, Vec::new()));
    assert_eq!(get(&b, "a", NOTE).await.unwrap_err().errno(), libc::ENODATA);
}

#[tokio::test]
async fn an_attribute_of_a_file_with_changes_travels_with_its_commit() {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    let before = writes(&b);
    let (ino, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"text", false).await.unwrap();
    b.fs.setxattr(ino, NOTE.as_bytes().to_vec(), b"hello".to_vec(), 0).await.unwrap();
    assert_eq!((writes(&b), list(&b, "a").await), (before, vec![NOTE.to_owned()]));
    b.close(fh).await;
    assert_eq!((writes(&b), stored(&b, "a").await.as_deref()), ((before.0 + 1, before.1), Some(HELLO)));
    // Of a file that the bucket has, and that is changed again.
    let (ino, fh) = b.open("a", libc::O_WRONLY | libc::O_TRUNC).await;
    b.fs.setxattr(ino, b"user.more".to_vec(), b"x".to_vec(), 0).await.unwrap();
    b.close(fh).await;
    assert_eq!(writes(&b), (before.0 + 2, before.1));
    assert_eq!(list(&b, "a").await, ["user.more", NOTE]);
}

#[tokio::test]
async fn attributes_that_are_set_while_a_file_is_uploaded_are_stored_by_the_next_commit() {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    let (ino, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"text", false).await.unwrap();
    let held = b.faults.hold_next(Op::Put);
    let fs = Arc::clone(&b.fs);
    let flushing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    assert_eq!(get(&b, "a", "user.objfs.state").await.unwrap(), "uploading");
    b.fs.setxattr(ino, NOTE.as_bytes().to_vec(), b"hello".to_vec(), 0).await.unwrap();
    held.release();
    flushing.await.unwrap().unwrap();
    b.fs.release(fh).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(stored(&b, "a").await.as_deref(), Some(HELLO));
    assert_eq!((get(&b, "a", NOTE).await.unwrap().as_str(), b.object("a").await.as_deref()), ("hello", Some("text")));
}

#[tokio::test]
async fn attributes_are_there_after_a_remount_also_without_the_catalogue() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap();
    b.foreign("implied/x", "x").await;
    for n in ["a", "d", "implied"] {
        set(&b, n, NOTE, n).await.unwrap();
    }
    assert!(stored(&b, "d/").await.is_some() && stored(&b, "implied/").await.is_some());
    let mut b = b.remount().await;
    for round in 0..2 {
        for n in ["a", "d", "implied"] {
            assert_eq!(get(&b, n, NOTE).await.unwrap(), n, "{round}");
            assert_eq!(list(&b, n).await, [NOTE], "{round}");
        }
        b = b.remount_without_catalogue().await;
    }
    set(&b, "d", NOTE, "other").await.unwrap();
    assert_eq!(get(&b, "d", NOTE).await.unwrap(), "other");
}

#[tokio::test]
async fn attributes_in_the_journal_outlive_the_catalogue() {
    let b = bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    let (ino, fh) = b.create("old").await;
    b.fs.write(fh, Some(0), b"before", false).await.unwrap();
    b.fs.fsync(fh).await.unwrap();
    b.fs.release(fh).await;
    let owner = SetAttr { uid: Some(1234), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, owner, false).await.unwrap();
    b.write("old", "changed").await.unwrap();
    b.write("new", "made").await.unwrap();
    for n in ["old", "new"] {
        set(&b, n, NOTE, "hello").await.unwrap();
        assert_eq!(get(&b, n, "user.objfs.state").await.unwrap(), "journaled");
    }
    assert_eq!((stored(&b, "old").await, b.object("new").await), (None, None), "nothing is sent yet");
    let b = b.remount_without_catalogue().await;
    for n in ["old", "new"] {
        assert_eq!(get(&b, n, NOTE).await.unwrap(), "hello", "{n}");
        assert_eq!(get(&b, n, "user.objfs.state").await.unwrap(), "journaled");
    }
    assert_eq!(entry(&b, "old").await.attr.uid, 1234);
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    for n in ["old", "new"] {
        assert_eq!((stored(&b, n).await.as_deref(), list(&b, n).await), (Some(HELLO), vec![NOTE.to_owned()]), "{n}");
    }
    assert_eq!(b.object("old").await.as_deref(), Some("changed"));
    let made = b.memory.head(&key("old")).await.unwrap();
    assert_eq!(made.headers.user["uid"], "1234");
}

#[tokio::test]
async fn what_the_journal_does_not_know_is_read_of_the_object() {
    for (is_set, is_known) in [(false, false), (false, true), (true, false), (true, true)] {
        let b = bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
        put_foreign(&b, "a", "theirs", &[("uid", "1234"), ("mtime", "1000"), ("xattr", HELLO)]).await;
        b.ls(Ino::ROOT).await;
        let ino = b.fs.meta.child(Ino::ROOT, &name("a")).unwrap().unwrap().ino;
        // Its headers cannot be read when it is opened.
        b.faults.fail_next(Op::Head, ErrorKind::Unreachable, 2);
        let fh = b.fs.open(CALLER, ino, libc::O_WRONLY | libc::O_TRUNC).await.unwrap().fh;
        b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
        b.close(fh).await;
        b.advance(10);
        let at = Timestamp::from_parts(2000, 0);
        if is_set {
            let times = SetAttr { mtime: Some(SetTime::At(at)), ..SetAttr::default() };
            b.fs.setattr(CALLER, ino, times, false).await.unwrap();
        }
        let mtime = b.fs.getattr(ino).unwrap().attr.mtime;
        assert_eq!(mtime == at, is_set);
        let b = if is_known { b.remount().await } else { b.remount_without_catalogue().await };
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        let made = b.memory.head(&key("a")).await.unwrap();
        assert_eq!((b.object("a").await.as_deref(), stored(&b, "a").await.as_deref()), (Some("ours"), Some(HELLO)));
        assert_eq!(made.headers.user["uid"], "1234");
        let said = crate::meta::headers::from_user(&made.headers.user);
        assert_eq!((said.mtime, entry(&b, "a").await.attr.mtime), (Some(mtime), mtime), "{is_set} {is_known}");
    }
}

#[tokio::test]
async fn attributes_follow_renames_and_what_is_replaced_leaves_none() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    set(&b, "a", NOTE, "hello").await.unwrap();
    mv(&b, "a", "b").await;
    assert_eq!((get(&b, "b", NOTE).await.unwrap().as_str(), stored(&b, "b").await.as_deref()), ("hello", Some(HELLO)));
    let dir = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap().ino;
    set(&b, "d", NOTE, "hello").await.unwrap();
    b.fs.rename((Ino::ROOT, name("b")), (dir, name("b")), false).await.unwrap();
    mv(&b, "d", "e").await;
    assert_eq!(get(&b, "e", NOTE).await.unwrap(), "hello");
    assert_eq!((stored(&b, "e/").await.as_deref(), stored(&b, "e/b").await.as_deref()), (Some(HELLO), Some(HELLO)));
    let file = b.fs.lookup(dir, &name("b")).await.unwrap().unwrap().ino;
    assert_eq!(b.fs.getxattr(file, NOTE.as_bytes()).await.unwrap(), b"hello");
    // As editors save: a new file without attributes takes the name.
    b.write("doc", "old").await.unwrap();
    set(&b, "doc", NOTE, "hello").await.unwrap();
    let (_, fh) = b.create("doc.new").await;
    b.fs.write(fh, Some(0), b"new", false).await.unwrap();
    mv(&b, "doc.new", "doc").await;
    assert_eq!(list(&b, "doc").await, [] as [String; 0]);
    b.close(fh).await;
    assert_eq!((b.object("doc").await.as_deref(), stored(&b, "doc").await), (Some("new"), None));
}

#[tokio::test]
async fn a_conflict_copy_has_our_attributes_and_theirs_has_none_of_them() {
    let b = bench().await;
    b.write("a", "base").await.unwrap();
    set(&b, "a", NOTE, "hello").await.unwrap();
    let (ino, fh) = b.open("a", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    b.fs.setxattr(ino, b"user.more".to_vec(), b"x".to_vec(), 0).await.unwrap();
    b.foreign("a", "theirs").await;
    b.close(fh).await;
    assert_eq!((b.object("a").await.as_deref(), list(&b, "a").await), (Some("theirs"), Vec::new()));
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("a (conflict ")).unwrap();
    assert_eq!(list(&b, copy).await, ["user.more", NOTE, "user.objfs.conflict"]);
    assert_eq!(get(&b, copy, "user.objfs.conflict").await.unwrap(), "a");
    assert_eq!(remove(&b, copy, "user.objfs.conflict").await.unwrap_err().errno(), libc::EPERM);
    // What cp -a and rsync -X do.
    b.write("copy", "ours").await.unwrap();
    set(&b, "copy", "user.objfs.conflict", "a").await.unwrap();
    assert_eq!((get(&b, "copy", "user.objfs.conflict").await.unwrap(), list(&b, "copy").await.len()), ("a".into(), 1));
}

#[tokio::test]
async fn what_s3fs_has_stored_is_read_and_the_rest_of_it_is_kept() {
    let b = bench().await;
    put_foreign(&b, "a", "theirs", &[("mode", "33188"), ("xattr", WITH_ACL), ("color", "blue")]).await;
    b.ls(Ino::ROOT).await;
    let ino = b.fs.meta.child(Ino::ROOT, &name("a")).unwrap().unwrap().ino;
    let heads = b.count(Op::Head);
    assert_eq!(b.fs.listxattr(ino).await.unwrap(), b"user.note\0");
    assert_eq!((b.fs.getxattr(ino, NOTE.as_bytes()).await.unwrap(), b.count(Op::Head)), (b"hello".to_vec(), heads + 1));
    let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, private, false).await.unwrap();
    assert_eq!(stored(&b, "a").await.as_deref(), Some(WITH_ACL), "as it was");
    set(&b, "a", "user.more", "x").await.unwrap();
    remove(&b, "a", "user.more").await.unwrap();
    assert_eq!(stored(&b, "a").await.as_deref(), Some(WITH_ACL));
    b.write("a", "ours").await.unwrap();
    let made = b.memory.head(&key("a")).await.unwrap().headers.user;
    assert_eq!((made["xattr"].as_str(), made["color"].as_str()), (WITH_ACL, "blue"));
}

#[tokio::test]
async fn names_that_nobody_can_ask_for_are_not_listed_and_are_kept() {
    let b = bench().await;
    let (fits, too_long) = ("l".repeat(250), "n".repeat(251));
    let names = ["user.a%00", "user.b", &format!("user.{fits}"), &format!("user.{too_long}")];
    let pairs: Vec<String> = names.iter().map(|n| format!("%22{n}%22%3A%22eA%3D%3D%22")).collect();
    let theirs = format!("%7B{}%7D", pairs.join("%2C"));
    put_foreign(&b, "a", "theirs", &[("mode", "33188"), ("xattr", &theirs)]).await;
    assert_eq!(list(&b, "a").await, ["user.b", names[2]]);
    set(&b, "a", "user.c", "x").await.unwrap();
    assert_eq!(list(&b, "a").await, ["user.b", "user.c", names[2]]);
    let made = stored(&b, "a").await.unwrap();
    assert!(made.contains("user.a%00") && made.contains(&too_long), "{made}");
}

#[tokio::test]
async fn a_catalogue_of_an_older_objfs_loses_nobodys_attributes() {
    let b = bench().await;
    put_foreign(&b, "a", "theirs", &[("mode", "33188"), ("xattr", HELLO)]).await;
    let ino = entry(&b, "a").await.ino;
    // It read the headers, and took nothing of this out of them.
    b.fs.meta.change(ino, |row| row.xattrs = None).await.unwrap();
    assert_eq!((get(&b, "a", NOTE).await.unwrap().as_str(), list(&b, "a").await), ("hello", vec![NOTE.to_owned()]));
    let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, private, false).await.unwrap();
    assert_eq!(stored(&b, "a").await.as_deref(), Some(HELLO));
    set(&b, "a", "user.more", "x").await.unwrap();
    assert_eq!(list(&b, "a").await, ["user.more", NOTE]);
}

#[tokio::test]
async fn what_somebody_sets_elsewhere_is_seen_and_what_he_sets_on_a_directory_is_kept() {
    let b = bench().await;
    put_foreign(&b, "a", "theirs", &[("mode", "33188")]).await;
    b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap();
    assert_eq!(list(&b, "a").await, [] as [String; 0]);
    put_foreign(&b, "a", "theirs, again", &[("mode", "33188"), ("xattr", HELLO)]).await;
    let marker = b.memory.head(&key("d/")).await.unwrap();
    let mut headers = marker.headers;
    headers.user.insert("xattr".to_owned(), HELLO.to_owned());
    b.memory.put(&key("d/"), Bytes::new(), &headers, &Condition::Always).await.unwrap();
    set(&b, "d", "user.more", "x").await.unwrap();
    assert_eq!(list(&b, "d").await, ["user.more", NOTE]);
    b.advance(120);
    assert_eq!(get(&b, "a", NOTE).await.unwrap(), "hello");
}

#[tokio::test]
async fn flags_and_names_are_answered_as_setxattr_says() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    let errno = |result: Result<()>| result.unwrap_err().errno();
    assert_eq!(errno(set_with(&b, "a", NOTE, b"x", libc::XATTR_REPLACE).await), libc::ENODATA);
    set_with(&b, "a", NOTE, b"x", libc::XATTR_CREATE).await.unwrap();
    assert_eq!(errno(set_with(&b, "a", NOTE, b"y", libc::XATTR_CREATE).await), libc::EEXIST);
    set_with(&b, "a", NOTE, b"y", libc::XATTR_REPLACE).await.unwrap();
    set_with(&b, "a", "user.empty", b"", 0).await.unwrap();
    assert_eq!((get(&b, "a", NOTE).await.unwrap(), get(&b, "a", "user.empty").await.unwrap()), ("y".into(), "".into()));
    assert_eq!(errno(remove(&b, "a", "user.none").await), libc::ENODATA);
    let before = writes(&b);
    for n in ["system.posix_acl_access", "security.capability", "trusted.a", "plain"] {
        assert_eq!(get(&b, "a", n).await.unwrap_err().errno(), libc::EOPNOTSUPP, "{n}");
        assert_eq!(errno(set(&b, "a", n, "x").await), libc::EOPNOTSUPP, "{n}");
        assert_eq!(errno(remove(&b, "a", n).await), libc::EOPNOTSUPP, "{n}");
    }
    for n in ["etag", "storage-class", "version", "state", "url", "sha256", "unheard-of"] {
        let n = format!("user.objfs.{n}");
        assert_eq!(errno(set(&b, "a", &n, "x").await), libc::EPERM, "{n}");
        assert_eq!(errno(remove(&b, "a", &n).await), libc::EPERM, "{n}");
    }
    b.fs.symlink(CALLER, Ino::ROOT, name("l"), Bytes::from_static(b"a")).await.unwrap();
    assert_eq!(errno(set(&b, "l", NOTE, "x").await), libc::EPERM);
    assert_eq!(writes(&b), (before.0 + 1, before.1));
}

#[tokio::test]
async fn what_does_not_fit_into_the_metadata_of_an_object_is_refused_at_once() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    let before = writes(&b);
    let too_much = set_with(&b, "a", NOTE, &[b'a'; 1500], 0).await.unwrap_err();
    assert_eq!((too_much.errno(), writes(&b)), (libc::ENOSPC, before));
    set_with(&b, "a", NOTE, &[b'a'; 1250], 0).await.unwrap();
    let made = b.memory.head(&key("a")).await.unwrap().headers;
    assert!(made.user_len() <= 2048 && made.user.contains_key("xattr"), "{}", made.user_len());
    assert_eq!(set_with(&b, "a", "user.more", &[b'a'; 200], 0).await.unwrap_err().errno(), libc::ENOSPC);
    // All else goes on.
    b.write("a", "changed").await.unwrap();
    let set_times = SetAttr { mtime: Some(SetTime::At(Timestamp::from_nanos(i64::MIN))), ..SetAttr::default() };
    b.fs.setattr(CALLER, entry(&b, "a").await.ino, set_times, false).await.unwrap();
    mv(&b, "a", "b").await;
    assert_eq!((b.object("b").await.as_deref(), get(&b, "b", NOTE).await.unwrap().len()), (Some("changed"), 1250));
    remove(&b, "b", NOTE).await.unwrap();
    // Somebody else has filled it: what the server says is passed on.
    put_foreign(&b, "full", "theirs", &[("theirs", "x".repeat(2040).as_str())]).await;
    let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let full = entry(&b, "full").await.ino;
    assert_eq!(b.fs.setattr(CALLER, full, private, false).await.unwrap_err().errno(), libc::ENOSPC);
    assert_eq!(set(&b, "full", NOTE, "x").await.unwrap_err().errno(), libc::ENOSPC);
}

#[tokio::test]
async fn metadata_of_what_is_replaced_goes_if_it_does_not_fit_beside_that_of_the_new_file() {
    let b = bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    let user = [("big".to_owned(), "x".repeat(1400))].into();
    let headers = ObjectHeaders { content_type: Some("text/theirs".to_owned()), user, ..ObjectHeaders::default() };
    b.memory.put(&key("doc"), Bytes::from_static(b"old"), &headers, &Condition::Always).await.unwrap();
    b.write("doc.tmp", "new").await.unwrap();
    set_with(&b, "doc.tmp", NOTE, &[b'a'; 700], 0).await.unwrap();
    mv(&b, "doc.tmp", "doc").await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!((b.object("doc").await.as_deref(), get(&b, "doc", NOTE).await.unwrap().len()), (Some("new"), 700));
    let made = b.memory.head(&key("doc")).await.unwrap().headers;
    assert_eq!((made.content_type.as_deref(), made.user.contains_key("big")), (Some("text/theirs"), false));
    // What fits is kept.
    b.write("doc.tmp", "newer").await.unwrap();
    let headers = ObjectHeaders { user: [("small".to_owned(), "x".to_owned())].into(), ..headers };
    b.memory.put(&key("doc"), Bytes::from_static(b"theirs"), &headers, &Condition::Always).await.unwrap();
    b.advance(120);
    mv(&b, "doc.tmp", "doc").await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("doc").await.as_deref(), Some("newer"));
    assert_eq!(b.memory.head(&key("doc")).await.unwrap().headers.user["small"], "x");
}

#[tokio::test]
async fn a_conflict_copy_of_a_file_whose_metadata_is_full_is_made_all_the_same() {
    let b = bench().await;
    let long = "ü".repeat(120);
    b.write(&long, "base").await.unwrap();
    set_with(&b, &long, NOTE, &[b'a'; 1250], 0).await.unwrap();
    let (_, fh) = b.open(&long, libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    b.foreign(&long, "theirs").await;
    b.close(fh).await;
    let names = b.ls(Ino::ROOT).await;
    assert_eq!(names.len(), 2);
    let copy = names.iter().find(|n| **n != long).unwrap();
    assert_eq!((b.object(copy).await.as_deref(), list(&b, copy).await), (Some("ours"), vec![NOTE.to_owned()]));
}

#[tokio::test]
async fn attributes_that_are_known_are_answered_without_the_bucket() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    set(&b, "a", NOTE, "hello").await.unwrap();
    put_foreign(&b, "b", "theirs", &[("xattr", HELLO)]).await;
    b.ls(Ino::ROOT).await;
    let ino = |n: &str| b.fs.meta.child(Ino::ROOT, &name(n)).unwrap().unwrap().ino;
    let (a, unread) = (ino("a"), ino("b"));
    b.faults.fail_next(Op::Head, ErrorKind::Unreachable, 20);
    assert_eq!(b.fs.getxattr(a, NOTE.as_bytes()).await.unwrap(), b"hello");
    assert_eq!(b.fs.listxattr(a).await.unwrap(), b"user.note\0");
    // Of what nobody has read a list shows what is known, and no value is made up.
    assert_eq!(b.fs.listxattr(unread).await.unwrap(), b"");
    assert_eq!(b.fs.getxattr(unread, NOTE.as_bytes()).await.unwrap_err().errno(), libc::EIO);
}

#[tokio::test]
async fn names_of_attributes_are_not_asked_for_of_each_entry_where_objects_carry_none() {
    let b = bench().await;
    for i in 0..40 {
        b.foreign(&format!("{i:02}"), "x").await;
    }
    b.ls(Ino::ROOT).await;
    let heads = b.count(Op::Head);
    for i in 0..40 {
        let ino = b.fs.meta.child(Ino::ROOT, &name(&format!("{i:02}"))).unwrap().unwrap().ino;
        assert_eq!(b.fs.listxattr(ino).await.unwrap(), b"");
    }
    let asked = b.count(Op::Head) - heads;
    assert!((1..20).contains(&asked), "{asked} of 40");
}
