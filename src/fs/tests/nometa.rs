//! The mount option `nometa`: attributes are kept on this machine, and no object carries any. Owns nothing else.

use super::*;
use crate::meta::headers::Kept;
use std::collections::BTreeMap;

const ATTRIBUTES: [&str; 8] = ["mode", "uid", "gid", "mtime", "ctime", "atime", "rdev", "xattr"];
/// What another client says of an object, and what it keeps there beside that.
const THEIRS: [(&str, &str); 7] = [
    ("mode", "33152"),
    ("uid", "1234"),
    ("mtime", "1000.5"),
    ("ctime", "5"),
    ("file-ctime", "5"),
    ("xattr", "%7B%7D"),
    ("color", "blue"),
];

fn nometa(defaults: &mut Defaults) {
    defaults.kept = Kept::Here;
}

async fn over(b: Bench, options: fn(&mut Defaults)) -> Bench {
    b.fs.meta.close();
    b.fs.writer.close();
    let Bench { memory, dir, clock, .. } = b;
    clock.advance(Duration::from_millis(1));
    mount_set(dir, memory, clock, crate::write::Settings::default(), |_, defaults| options(defaults)).await
}

/// With the probe behind it.
async fn bare_bench() -> Bench {
    let b = over(bench().await, nometa).await;
    b.write("probe", "x").await.unwrap();
    b
}

async fn put(b: &Bench, k: &str, body: &'static str) {
    let user = THEIRS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let headers = ObjectHeaders { user, ..ObjectHeaders::default() };
    b.memory.put(&key(k), Bytes::from_static(body.as_bytes()), &headers, &Condition::Always).await.unwrap();
}

async fn stored(b: &Bench, k: &str) -> BTreeMap<String, String> {
    b.memory.head(&key(k)).await.unwrap().headers.user
}

/// The user metadata of an object, which says nothing of attributes.
async fn bare(b: &Bench, k: &str) -> BTreeMap<String, String> {
    let user = stored(b, k).await;
    assert!(!ATTRIBUTES.iter().any(|name| user.contains_key(*name)), "{k}: {user:?}");
    user
}

async fn attr(b: &Bench, n: &str) -> Attr {
    b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().attr
}

async fn set(b: &Bench, n: &str, mode: u32, mtime: i64) {
    let ino = b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().ino;
    let mtime = Some(SetTime::At(Timestamp::from_parts(mtime, 5)));
    let set = SetAttr { mode: Some(mode), uid: Some(77), mtime, ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, set, false).await.unwrap();
}

/// What [`set`] has set.
async fn is_set(b: &Bench, n: &str, mode: u16, mtime: i64) {
    let attr = attr(b, n).await;
    assert_eq!((attr.perm, attr.uid, attr.mtime), (mode, 77, Timestamp::from_parts(mtime, 5)), "{n}");
}

fn requests(b: &Bench) -> u64 {
    Op::ALL.into_iter().map(|op| b.count(op)).sum()
}

#[tokio::test]
async fn what_is_written_carries_no_attributes_and_the_rest_of_the_metadata_stays() {
    let b = bare_bench().await;
    put(&b, "theirs", "theirs").await;
    b.write("new", "text").await.unwrap();
    b.write("theirs", "changed").await.unwrap();
    b.fs.mkdir(CALLER, Ino::ROOT, name("dir"), 0o700).await.unwrap();
    b.fs.mknod(CALLER, Ino::ROOT, name("made"), libc::S_IFREG | 0o640, 0).await.unwrap();
    for k in ["new", "theirs", "dir/", "made"] {
        assert!(bare(&b, k).await.contains_key("objfs-write"), "lost answers are recognised by it");
    }
    assert!(stored(&b, "new").await.contains_key("objfs-sha256"), "it is true of the bytes, whoever has them");
    assert_eq!(stored(&b, "theirs").await["color"], "blue");
    assert_eq!((attr(&b, "dir").await.perm, attr(&b, "made").await.perm), (0o700, 0o640), "known here");
    // A file that replaces another.
    put(&b, "other", "other").await;
    let (_, fh) = b.create("saved").await;
    b.fs.write(fh, Some(0), b"saved", false).await.unwrap();
    b.fs.rename((Ino::ROOT, name("saved")), (Ino::ROOT, name("other")), false).await.unwrap();
    b.close(fh).await;
    assert_eq!(
        (b.object("other").await.as_deref(), bare(&b, "other").await["color"].as_str()),
        (Some("saved"), "blue")
    );
}

#[tokio::test]
async fn attributes_are_set_without_a_request_and_stay_as_long_as_the_version() {
    let b = bare_bench().await;
    b.foreign("a", "text").await;
    b.foreign("implied/x", "x").await;
    b.write("own", "text").await.unwrap();
    b.fs.mkdir(CALLER, Ino::ROOT, name("dir"), 0o755).await.unwrap();
    let all = ["a", "implied", "own", "dir"];
    b.ls(Ino::ROOT).await;
    let before = requests(&b);
    for n in all {
        set(&b, n, 0o600, 1000).await;
    }
    assert_eq!(requests(&b), before);
    let mut b = over(b, nometa).await;
    for round in 0..2 {
        for n in all {
            is_set(&b, n, 0o600, 1000).await;
        }
        assert_eq!((b.read("a").await.as_str(), b.read("own").await.as_str()), ("text", "text"), "{round}");
        b.ls(Ino::ROOT).await;
        b.advance(120);
        b = over(b, nometa).await;
    }
    // They follow renames and writes of ours.
    let rename = async |from: &str, to: &str| {
        b.fs.rename((Ino::ROOT, name(from)), (Ino::ROOT, name(to)), false).await.unwrap();
    };
    rename("own", "moved").await;
    rename("dir", "other").await;
    is_set(&b, "moved", 0o600, 1000).await;
    is_set(&b, "other", 0o600, 1000).await;
    b.write("moved", "changed").await.unwrap();
    assert_eq!((attr(&b, "moved").await.perm, attr(&b, "moved").await.uid), (0o600, 77));
    b.foreign("a", "somebody else's").await;
    b.advance(120);
    b.fs.refresh(Ino::ROOT).await.unwrap();
    assert_eq!((attr(&b, "a").await.perm, attr(&b, "a").await.uid), (0o644, 0), "another version");
    for k in ["a", "moved", "other/"] {
        bare(&b, k).await;
    }
}

#[tokio::test]
async fn headers_are_not_read_for_attributes() {
    let b = bare_bench().await;
    for k in ["dir/a", "dir/", "file", "link"] {
        put(&b, k, "x").await;
    }
    let (heads, lists) = (b.count(Op::Head), b.count(Op::List));
    assert_eq!(attr(&b, "dir").await.perm, 0o755);
    assert_eq!((b.count(Op::Head) - heads, b.count(Op::List) - lists), (1, 1), "not that of the marker");
    b.ls(Ino::ROOT).await;
    let before = requests(&b);
    for n in ["dir", "file", "link"] {
        let entry = b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap();
        assert!(entry.ttl > Duration::from_secs(10), "there is nothing to be read: {:?}", entry.ttl);
        assert!(b.fs.listxattr(entry.ino).await.unwrap().is_empty());
    }
    assert_eq!(requests(&b), before);
    // What an open reads of them does not count either.
    b.advance(5);
    let heads = b.count(Op::Head);
    assert_eq!(b.read("file").await, "x");
    assert_eq!(b.count(Op::Head), heads + 1, "whether the version is still the one that is known");
    let shown = attr(&b, "file").await;
    assert_eq!((shown.kind, shown.perm, shown.uid), (FileKind::File, 0o644, 0));
    assert_ne!(shown.mtime, Timestamp::from_nanos(1_000_500_000_000));
}

#[tokio::test]
async fn what_is_set_here_no_other_machine_sees() {
    let b = bare_bench().await;
    let mounted = b.clock.now();
    for k in ["dir/", "file"] {
        put(&b, k, "x").await;
    }
    b.advance(5);
    let modified = b.memory.head(&key("file")).await.unwrap().version.last_modified.unwrap();
    let (dir, file) = (attr(&b, "dir").await, attr(&b, "file").await);
    assert_eq!((dir.kind, dir.perm, dir.uid, dir.mtime), (FileKind::Dir, 0o755, 0, mounted));
    assert_eq!((file.kind, file.perm, file.uid, file.mtime), (FileKind::File, 0o644, 0, modified));
    for n in ["dir", "file"] {
        set(&b, n, 0o700, 1000).await;
        is_set(&b, n, 0o700, 1000).await;
    }
    // Another state directory is another machine.
    b.fs.meta.close();
    b.remove_catalogue();
    let b = over(b, nometa).await;
    let (dir, file) = (attr(&b, "dir").await, attr(&b, "file").await);
    assert_eq!((dir.perm, dir.uid, file.perm, file.uid, file.mtime), (0o755, 0, 0o644, 0, modified));
}

#[tokio::test]
async fn a_conflict_copy_tells_others_which_name_it_had() {
    let b = bare_bench().await;
    b.write("a", "base").await.unwrap();
    let (_, fh) = b.open("a", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    b.foreign("a", "theirs").await;
    b.close(fh).await;
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("a (conflict ")).unwrap();
    assert_eq!((b.object(copy).await.as_deref(), bare(&b, copy).await["objfs-conflict"].as_str()), (Some("ours"), "a"));
}

#[tokio::test]
async fn a_rename_moves_an_object_as_it_is() {
    let b = bare_bench().await;
    put(&b, "link", "target").await;
    put(&b, "dir/a", "x").await;
    for (from, to) in [("link", "moved"), ("dir", "other")] {
        b.fs.rename((Ino::ROOT, name(from)), (Ino::ROOT, name(to)), false).await.unwrap();
    }
    for k in ["moved", "other/a"] {
        let user = stored(&b, k).await;
        assert!(THEIRS.iter().all(|(name, value)| user[*name] == *value), "{k}: {user:?}");
    }
    assert_eq!(attr(&b, "moved").await.perm, 0o644);
}

#[tokio::test]
async fn what_only_metadata_could_tell_is_refused() {
    let b = bare_bench().await;
    b.write("a", "text").await.unwrap();
    let linked = b.fs.symlink(CALLER, Ino::ROOT, name("l"), Bytes::from_static(b"a")).await;
    let piped = b.fs.mknod(CALLER, Ino::ROOT, name("p"), libc::S_IFIFO | 0o600, 0).await;
    assert_eq!([linked, piped].map(|made| made.unwrap_err().errno()), [libc::EPERM; 2]);
    let before = requests(&b);
    let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    for n in ["user.note", "user.objfs.conflict"] {
        let name = n.as_bytes().to_vec();
        assert_eq!(b.fs.setxattr(ino, name.clone(), b"x".to_vec(), 0).await.unwrap_err().errno(), libc::EOPNOTSUPP);
        assert_eq!(b.fs.removexattr(ino, name.clone()).await.unwrap_err().errno(), libc::EOPNOTSUPP);
        assert_eq!(b.fs.getxattr(ino, &name).await.unwrap_err().errno(), libc::ENODATA);
    }
    assert_eq!(b.fs.getxattr(ino, b"user.objfs.sha256").await.unwrap_err().errno(), libc::ENODATA);
    assert_eq!(b.fs.getxattr(ino, b"user.objfs.state").await.unwrap(), b"clean");
    assert!(!b.fs.getxattr(ino, b"user.objfs.etag").await.unwrap().is_empty());
    assert_eq!(requests(&b), before);
}

/// Nor does one that is set while the commit is under way make another commit.
#[tokio::test]
async fn what_is_set_of_a_file_with_changes_is_no_upload_of_its_own() {
    let b = bare_bench().await;
    b.foreign("a", "text").await;
    let (_, fh) = b.open("a", libc::O_WRONLY).await;
    b.fs.write(fh, Some(0), b"T", false).await.unwrap();
    let held = b.faults.hold_next(Op::Get);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    set(&b, "a", 0o600, 1000).await;
    held.release();
    closing.await.unwrap().unwrap();
    b.fs.release(fh).await;
    assert_eq!((b.object("a").await.as_deref(), b.fs.pending().unwrap().files), (Some("Text"), 0));
    bare(&b, "a").await;
    is_set(&b, "a", 0o600, 1000).await;
}

#[tokio::test]
async fn the_journal_has_the_attributes_of_what_the_bucket_does_not_have() {
    let b = bare_bench().await;
    let (_, fh) = b.create("a.part").await;
    b.fs.write(fh, Some(0), b"text", false).await.unwrap();
    b.close(fh).await;
    assert_eq!(b.object("a.part").await, None, "its name is a temporary one");
    set(&b, "a.part", 0o600, 1000).await;
    b.fs.meta.close();
    for file in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
        let _ = std::fs::remove_file(b.dir.path().join(file));
    }
    let b = over(b, nometa).await;
    is_set(&b, "a.part", 0o600, 1000).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("a.part").await.as_deref(), Some("text"));
    bare(&b, "a.part").await;
    is_set(&b, "a.part", 0o600, 1000).await;
}

#[tokio::test]
async fn what_was_set_of_a_directory_without_a_marker_outlives_the_option() {
    let b = bare_bench().await;
    b.foreign("implied/x", "x").await;
    set(&b, "implied", 0o700, 1000).await;
    let b = over(b, |_| {}).await;
    is_set(&b, "implied", 0o700, 1000).await;
}

#[tokio::test]
async fn a_mount_without_the_option_goes_by_what_objects_say_again() {
    let b = bare_bench().await;
    put(&b, "a", "text").await;
    assert_eq!(b.read("a").await, "text");
    set(&b, "a", 0o640, 2000).await;
    let b = over(b, |_| {}).await;
    assert_eq!(b.read("a").await, "text");
    let shown = attr(&b, "a").await;
    assert_eq!((shown.perm, shown.uid, shown.mtime), (0o600, 1234, Timestamp::from_nanos(1_000_500_000_000)));
    let b = over(b, nometa).await;
    assert_eq!(attr(&b, "a").await.uid, 1234, "it is known here by now");
}

#[tokio::test]
async fn what_is_set_of_the_root_stays_with_the_option_and_without() {
    let b = bench().await;
    b.foreign("", "a marker").await;
    b.foreign("a", "x").await;
    b.fs.setattr(CALLER, Ino::ROOT, SetAttr { mode: Some(0o700), ..SetAttr::default() }, false).await.unwrap();
    b.ls(Ino::ROOT).await;
    let b = over(b, nometa).await;
    b.ls(Ino::ROOT).await;
    let b = over(over(b, |_| {}).await, |_| {}).await;
    assert_eq!(b.fs.getattr(Ino::ROOT).unwrap().attr.perm, 0o700);
}

/// By another program, or by a mount without the option.
#[tokio::test]
async fn what_was_a_link_is_none_when_it_has_other_content() {
    let b = bare_bench().await;
    let user = [("--symlink-target".to_owned(), "else".to_owned()), ("color".to_owned(), "blue".to_owned())].into();
    let headers = ObjectHeaders { user, ..ObjectHeaders::default() };
    for k in ["written", "emptied"] {
        b.memory.put(&key(k), Bytes::new(), &headers, &Condition::Always).await.unwrap();
    }
    b.write("written", "text").await.unwrap();
    b.write("emptied", "text").await.unwrap();
    let (_, fh) = b.open("emptied", libc::O_WRONLY | libc::O_TRUNC).await;
    b.close(fh).await;
    for k in ["written", "emptied"] {
        let user = bare(&b, k).await;
        assert_eq!((user.get("--symlink-target"), user["color"].as_str()), (None, "blue"), "{k}");
    }
    let b = over(b, |_| {}).await;
    assert_eq!((attr(&b, "emptied").await.kind, attr(&b, "emptied").await.size), (FileKind::File, 0));
}

#[tokio::test]
async fn a_marker_that_a_directory_got_under_the_option_is_read_without_it() {
    let b = bench().await;
    b.foreign("d/x", "x").await;
    assert_eq!(attr(&b, "d").await.perm, 0o755);
    let user = [("mode".to_owned(), (libc::S_IFDIR | 0o700).to_string())].into();
    let headers = ObjectHeaders { user, ..ObjectHeaders::default() };
    b.memory.put(&key("d/"), Bytes::new(), &headers, &Condition::Always).await.unwrap();
    let b = over(b, nometa).await;
    b.advance(120);
    assert_eq!(attr(&b, "d").await.perm, 0o755);
    let b = over(b, |_| {}).await;
    b.ls(Ino::ROOT).await;
    assert_eq!(attr(&b, "d").await.perm, 0o700);
}
