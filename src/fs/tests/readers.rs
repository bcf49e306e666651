//! Open files, their versions and their attributes. Owns nothing else.

use super::*;

#[tokio::test]
async fn a_deleted_open_file_is_read_on() {
    let b = bench().await;
    b.write("a", "still here").await.unwrap();
    let (ino, fh) = b.open("a", libc::O_RDONLY).await;
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    assert_eq!(b.object("a").await, None);
    assert!(b.ls(Ino::ROOT).await.is_empty(), "neither the file nor the copy shows");
    assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "still here");
    b.fs.release(fh).await;
    assert_eq!(b.fs.getattr(ino).unwrap_err().errno(), libc::ESTALE);
    let all = crate::store::ListRequest { prefix: key(""), delimited: false, continuation: None, max_keys: 10 };
    assert_eq!(b.memory.list(&all).await.unwrap().objects, [], "the copy is gone with its last reader");
}

#[tokio::test]
async fn an_open_reader_never_sees_a_mixture() {
    let b = bench().await;
    b.foreign("a", "first").await;
    let (ino, fh) = b.open("a", libc::O_RDONLY).await;
    b.foreign("a", "other").await;
    b.advance(2);
    let (new, fh2) = b.open_again("a").await;
    assert_ne!(ino, new);
    let read = b.fs.read(fh, 0, 100).await;
    assert!(matches!(&read, Ok(bytes) if bytes == "first") || read.unwrap_err().errno() == libc::ESTALE);
    assert_eq!(b.fs.read(fh2, 0, 100).await.unwrap(), "other");
}

#[tokio::test]
async fn a_new_name_or_mode_does_not_fetch_the_bytes_again() {
    let b = bench().await;
    b.foreign("a", "bytes").await;
    b.foreign("books/b", "more bytes").await;
    assert_eq!(b.read("a").await, "bytes");
    let books = b.fs.lookup(Ino::ROOT, &name("books")).await.unwrap().unwrap().ino;
    let read_b = async |dir: Ino| {
        let ino = b.fs.lookup(dir, &name("b")).await.unwrap().unwrap().ino;
        let fh = b.fs.open(CALLER, ino, libc::O_RDONLY).await.unwrap().fh;
        let bytes = b.fs.read(fh, 0, 100).await.unwrap();
        b.fs.release(fh).await;
        bytes
    };
    assert_eq!(read_b(books).await, "more bytes");
    let asked = b.count(Op::Get);
    b.fs.rename((Ino::ROOT, name("a")), (Ino::ROOT, name("c")), false).await.unwrap();
    let ino = b.fs.lookup(Ino::ROOT, &name("c")).await.unwrap().unwrap().ino;
    b.fs.setattr(CALLER, ino, SetAttr { mode: Some(0o600), ..SetAttr::default() }, false).await.unwrap();
    assert_eq!(b.read("c").await, "bytes");
    b.fs.rename((Ino::ROOT, name("books")), (Ino::ROOT, name("shelf")), false).await.unwrap();
    assert_eq!(read_b(books).await, "more bytes");
    assert_eq!(b.count(Op::Get), asked);
}

/// The mount believes in a version that somebody has replaced: what it kept of that must not become what the new name shows.
#[tokio::test]
async fn what_is_kept_of_a_replaced_version_is_not_carried_to_the_new_name() {
    let b = bench().await;
    b.foreign("d/f", "version one").await;
    let find = async |dir: Ino, n: &str| b.fs.lookup(dir, &name(n)).await.unwrap().unwrap().ino;
    let dir = find(Ino::ROOT, "d").await;
    let read = async || {
        let fh = b.fs.open(CALLER, find(dir, "f").await, libc::O_RDONLY).await.unwrap().fh;
        let bytes = b.fs.read(fh, 0, 100).await.unwrap();
        b.fs.release(fh).await;
        bytes
    };
    assert_eq!(read().await, "version one");
    b.foreign("d/f", "version two").await;
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    assert_eq!(read().await, "version two");
}

#[tokio::test]
async fn a_deleted_file_is_read_on_in_the_version_that_was_deleted() {
    let b = bench().await;
    b.foreign("a", "version one").await;
    let (_, first) = b.open("a", libc::O_RDONLY).await;
    assert_eq!(b.fs.read(first, 0, 100).await.unwrap(), "version one");
    b.foreign("a", "version two").await;
    b.advance(120);
    let (_, second) = b.open_again("a").await;
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    assert_eq!(b.fs.read(second, 0, 100).await.unwrap(), "version two");
    let read = b.fs.read(first, 0, 100).await;
    assert!(read.as_ref().is_ok_and(|bytes| bytes == "version one") || read.is_err(), "{read:?}");
}

#[tokio::test]
async fn small_files_read_in_order_are_there_before_they_are_read() {
    let b = bench().await;
    for i in 0..60 {
        b.foreign(&format!("f{i:02}"), "a page").await;
    }
    assert_eq!(b.ls(Ino::ROOT).await.len(), 60);
    for i in 0..20 {
        assert_eq!(b.read(&format!("f{i:02}")).await, "a page");
        // As long as a reader would wait for the bucket.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let asked = b.count(Op::Get);
    assert!((21..=20 + 16).contains(&asked), "{asked} requests for 20 files and those that follow");
    assert_eq!(b.read("f20").await, "a page");
    assert_eq!(b.read("f59").await, "a page");
    for i in [57, 41, 50] {
        let asked = b.count(Op::Get);
        b.read(&format!("f{i:02}")).await;
        assert_eq!(b.count(Op::Get), asked + 1, "nothing is fetched ahead of who reads here and there");
    }
}

#[tokio::test]
async fn what_is_written_after_a_foreign_change_to_an_open_file_is_refused_and_not_swallowed() {
    let b = bench().await;
    b.write("log", "one").await.unwrap();
    let (_, fh) = b.open("log", libc::O_RDWR).await;
    b.foreign("log", "theirs").await;
    b.advance(120);
    b.fs.lookup(Ino::ROOT, &name("log")).await.unwrap().unwrap();
    let refused = b.fs.write(fh, Some(3), b" two", false).await.unwrap_err();
    assert_eq!(refused.errno(), libc::ESTALE);
    b.fs.release(fh).await;
    assert_eq!(b.object("log").await.as_deref(), Some("theirs"));
}

#[tokio::test]
async fn attributes_travel_with_the_object_and_foreign_headers_stay() {
    let b = bench().await;
    let headers = ObjectHeaders {
        content_type: Some("application/epub+zip".to_owned()),
        cache_control: Some("max-age=5".to_owned()),
        user: [("author".to_owned(), "Ada".to_owned())].into(),
        ..ObjectHeaders::default()
    };
    b.memory.put(&key("a"), Bytes::from_static(b"x"), &headers, &Condition::Always).await.unwrap();
    let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    let mtime = Timestamp::from_nanos(1_000_000_123);
    let set = SetAttr { mode: Some(0o600), mtime: Some(SetTime::At(mtime)), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, set, false).await.unwrap();
    let kept = b.memory.head(&key("a")).await.unwrap().headers;
    assert_eq!((kept.content_type, kept.cache_control), (headers.content_type, headers.cache_control));
    assert_eq!(kept.user["author"], "Ada");
    let b = b.remount().await;
    b.advance(120);
    let entry = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap();
    assert_eq!((entry.ino, entry.attr.perm, entry.attr.mtime), (ino, 0o600, mtime));
}

#[tokio::test]
async fn the_kernels_pages_are_kept_unless_they_are_of_another_version() {
    let b = bench().await;
    b.foreign("a", "first").await;
    let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    let first = b.fs.open(CALLER, ino, libc::O_RDONLY).await.unwrap();
    assert!(first.keep_cache, "there are none, and dropping them would wait for other readers");
    b.fs.release(first.fh).await;
    b.foreign("a", "other").await;
    b.advance(2);
    let (same, again) = (ino, b.fs.open(CALLER, ino, libc::O_RDONLY).await.unwrap());
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino, same);
    assert!(!again.keep_cache, "the pages are of the first version");
    let third = b.fs.open(CALLER, ino, libc::O_RDONLY).await.unwrap();
    assert!(third.keep_cache);
}

/// `ls -l` makes no HEAD, but once anything shows that the bucket's objects carry attributes, what was listed is read.
#[tokio::test]
async fn headers_of_a_listed_directory_are_read_in_the_background_if_the_bucket_has_any() {
    let b = bench().await;
    let put = |n: String, mode: Option<&'static str>| {
        let mut headers = ObjectHeaders::default();
        headers.user.extend(mode.map(|m| ("mode".to_owned(), m.to_owned())));
        let memory = Arc::clone(&b.memory);
        async move { memory.put(&key(&n), Bytes::from_static(b"x"), &headers, &Condition::Always).await.map(drop).unwrap() }
    };
    for i in 0..150 {
        put(format!("plain/{i:03}"), None).await;
        put(format!("rich/{i:03}"), Some("33152")).await;
    }
    let dir = |n: &'static str| async { b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().ino };
    let (plain, rich) = (dir("plain").await, dir("rich").await);
    b.ls(plain).await;
    b.fs.lookup(plain, &name("007")).await.unwrap().unwrap();
    b.ls(plain).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        b.fs.meta.unread(plain, Pos::START, 1000).unwrap().len(),
        149,
        "one shows nothing: the others are left alone"
    );
    b.ls(rich).await;
    b.fs.lookup(rich, &name("007")).await.unwrap().unwrap();
    b.ls(rich).await;
    for _ in 0..500 {
        if b.fs.meta.unread(rich, Pos::START, 1000).unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let heads = b.count(Op::Head);
    assert_eq!(b.fs.meta.unread(rich, Pos::START, 1000).unwrap(), vec![]);
    assert_eq!(b.fs.meta.child(rich, &name("100")).unwrap().unwrap().attr.perm, 0o600);
    b.advance(61);
    b.ls(rich).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(b.count(Op::Head), heads, "once for each version, ever");
}

impl Bench {
    /// What READDIR shows beyond a cookie, and the cookie of the last.
    fn entries(&self, dir: Ino, after: u64) -> (Vec<String>, u64) {
        let (mut names, mut cookie) = (Vec::new(), after);
        let mut add = |entry: DirEntry<'_>| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            cookie = entry.cookie;
            false
        };
        self.fs.readdir(dir, after, &mut add).unwrap();
        (names, cookie)
    }
}

#[tokio::test]
async fn a_large_directory_is_read_while_it_is_listed() {
    let b = bench().await;
    let expected: Vec<String> = (0..2500).map(|i| format!("{i:04}")).collect();
    for n in &expected {
        b.foreign(n, "x").await;
    }
    let first = b.faults.hold_next(Op::List);
    let second = b.faults.hold_next(Op::List);
    let fs = Arc::clone(&b.fs);
    let opening = tokio::spawn(async move { fs.opendir(Ino::ROOT).await });
    first.reached().await;
    first.release();
    assert!(!opening.await.unwrap().unwrap(), "there is more to come");
    let mut follow = b.fs.follow(Ino::ROOT);
    let (mut names, cookie) = b.entries(Ino::ROOT, 2);
    assert_eq!(names.len(), 1000, "while the second page is still on its way");
    second.reached().await;
    second.release();
    let mut at = cookie;
    while follow.goes_on().await.unwrap() {
        let (more, cookie) = b.entries(Ino::ROOT, at);
        (names, at) = ([names, more].concat(), cookie);
    }
    assert_eq!(names, expected, "each once");
    assert!(b.fs.opendir(Ino::ROOT).await.unwrap() && b.count(Op::List) == 3);
}

#[tokio::test]
async fn a_listing_that_breaks_off_is_no_short_directory() {
    let b = bench().await;
    for i in 0..1500 {
        b.foreign(&format!("{i:04}"), "x").await;
    }
    let hold = b.faults.hold_next(Op::List);
    b.faults.fail_next(Op::List, ErrorKind::AccessDenied, 1);
    let fs = Arc::clone(&b.fs);
    let opening = tokio::spawn(async move { fs.opendir(Ino::ROOT).await });
    hold.reached().await;
    hold.release();
    // It may have broken off already when the first page is to be shown.
    if let Ok(is_whole) = opening.await.unwrap() {
        assert!(!is_whole);
        assert_eq!(b.fs.follow(Ino::ROOT).until_more(u64::MAX / 4).await.unwrap_err().errno(), libc::EACCES);
    }
    let mut late = b.fs.follow(Ino::ROOT);
    assert!(late.until_more(u64::MAX / 4).await.is_err(), "whoever asks after that hears of it too");
    assert_eq!(b.ls(Ino::ROOT).await.len(), 1500);
}

#[tokio::test]
async fn what_was_known_of_a_directory_is_not_shown_before_its_listing_confirms_it() {
    let b = bench().await;
    for i in 0..1500 {
        b.foreign(&format!("{i:04}"), "x").await;
    }
    assert!(b.fs.lookup(Ino::ROOT, &name("1400")).await.unwrap().is_some());
    b.foreign_delete("1400").await;
    b.advance(600);
    assert!(b.fs.opendir(Ino::ROOT).await.unwrap(), "the end is waited for");
    assert_eq!(b.entries(Ino::ROOT, 2).0.len(), 1499);
}

#[tokio::test]
async fn the_last_copy_of_a_deleted_file_is_not_given_up_for_room() {
    let b = bench().await;
    b.write("other", "other").await.unwrap();
    for is_replaced in [false, true] {
        let (_, fh) = b.create("a").await;
        b.fs.write(fh, Some(0), b"only here", false).await.unwrap();
        b.fs.fsync(fh).await.unwrap();
        if is_replaced {
            b.fs.rename((Ino::ROOT, name("other")), (Ino::ROOT, name("a")), false).await.unwrap();
        } else {
            b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
        }
        b.fs.writer.give_room();
        assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "only here");
        b.fs.release(fh).await;
    }
}

/// The name has gone to somebody else's version, and the last handle is being closed: between its end and that of the row,
/// somebody opens the inode by the name that the kernel still knows.
#[tokio::test]
async fn a_file_whose_name_and_last_handle_are_gone_is_not_opened_and_written_to() {
    for is_row_gone in [false, true] {
        let (b, ino, fh) = lost().await;
        let row = b.fs.meta.get(ino).unwrap().unwrap();
        b.fs.handles.remove(fh).unwrap();
        assert!(b.fs.meta.pins().unpin(ino));
        if is_row_gone {
            b.fs.meta.drop_nameless(ino).await.unwrap();
            assert_eq!(b.fs.stage_for_write(&row).await.unwrap_err().errno(), libc::ESTALE);
        }
        for flags in [libc::O_WRONLY, libc::O_WRONLY | libc::O_TRUNC, libc::O_RDONLY] {
            assert_eq!(b.fs.open(CALLER, ino, flags).await.unwrap_err().errno(), libc::ESTALE, "{flags:#o}");
        }
        assert_eq!(b.object("a").await.as_deref(), Some("theirs"));
    }
}

/// Opens `a`, whose name then goes to somebody else's version.
async fn lost() -> (Bench, Ino, Fh) {
    let b = bench().await;
    b.write("a", "ours").await.unwrap();
    let (ino, fh) = b.open("a", libc::O_RDWR).await;
    b.foreign("a", "theirs").await;
    b.advance(120);
    assert_ne!(b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino, ino);
    (b, ino, fh)
}

#[tokio::test]
async fn nothing_that_is_written_to_a_file_whose_name_is_gone_is_acknowledged() {
    let (b, _, fh) = lost().await;
    for _ in 0..2 {
        assert!(b.fs.write_staged(fh, Some(0), b"late", false).is_none());
        assert_eq!(b.fs.write(fh, Some(0), b"late", false).await.unwrap_err().errno(), libc::ESTALE);
    }
    b.fs.flush(CALLER, fh).await.unwrap();
    assert_eq!(b.fs.read(fh, 0, 100).await.unwrap_err().errno(), libc::ESTALE);
    b.fs.release(fh).await;
    // Accepted in the moment before the name went.
    for is_synced in [false, true] {
        let (b, ino, fh) = lost().await;
        let staged = b.fs.writer.stage(ino, b.fs.handles.get(fh).unwrap().object()).unwrap();
        staged.write(Some(0), b"late").unwrap();
        assert!(b.fs.write_staged(fh, Some(4), b"later", false).is_none());
        let told = if is_synced { b.fs.fsync(fh).await } else { b.fs.flush(CALLER, fh).await };
        assert_eq!(told.unwrap_err().errno(), libc::ESTALE);
        b.fs.release(fh).await;
        assert_eq!((b.object("a").await.as_deref(), b.fs.pending().unwrap().files), (Some("theirs"), 0));
    }
}

impl Bench {
    /// Copies for readers that the bucket has, and those on the list that outlives the daemon.
    pub(super) async fn copies(&self) -> (usize, usize) {
        let prefix = key(".objfs/orphan/");
        let all = crate::store::ListRequest { prefix, delimited: false, continuation: None, max_keys: 10 };
        let listed = self.fs.meta.kv("orphans").unwrap().unwrap_or_default().lines().count();
        (self.memory.list(&all).await.unwrap().objects.len(), listed)
    }
}

/// close(2) returns before RELEASE comes, so that an unlink or rename that follows it meets a file which is still open.
#[tokio::test]
async fn a_copy_whose_last_reader_goes_while_it_is_made_goes_too() {
    for is_replaced in [false, true] {
        let b = bench().await;
        b.write("a", "text").await.unwrap();
        b.write("other", "other").await.unwrap();
        let (ino, fh) = b.open("a", libc::O_RDONLY).await;
        let copying = b.faults.hold_next_answer(Op::Copy);
        let fs = Arc::clone(&b.fs);
        let going = tokio::spawn(async move {
            if is_replaced {
                fs.rename((Ino::ROOT, name("other")), (Ino::ROOT, name("a")), false).await
            } else {
                fs.unlink(Ino::ROOT, name("a")).await
            }
        });
        copying.reached().await;
        assert_eq!(b.copies().await, (1, 1), "on the list from its beginning");
        b.fs.release(fh).await;
        copying.release();
        going.await.unwrap().unwrap();
        assert_eq!(b.copies().await, (0, 0), "replaced: {is_replaced}");
        assert_eq!(b.fs.getattr(ino).unwrap_err().errno(), libc::ESTALE);
    }
}

#[tokio::test]
async fn a_copy_that_is_made_when_the_daemon_is_killed_is_deleted_by_the_next_mount() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    b.open("a", libc::O_RDONLY).await;
    let copying = b.faults.hold_next_answer(Op::Copy);
    let fs = Arc::clone(&b.fs);
    tokio::spawn(async move { fs.unlink(Ino::ROOT, name("a")).await });
    copying.reached().await;
    let b = b.crash().await;
    assert_eq!(b.copies().await, (1, 1));
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!((b.copies().await, b.read("a").await.as_str()), ((0, 0), "text"));
}

#[tokio::test]
async fn a_copy_that_cannot_be_deleted_is_tried_again_and_the_file_is_gone_all_the_same() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    let (ino, fh) = b.open("a", libc::O_RDONLY).await;
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    // As often as a request is tried.
    b.faults.fail_next(Op::Delete, ErrorKind::Server, 2);
    b.fs.release(fh).await;
    assert_eq!(b.fs.getattr(ino).unwrap_err().errno(), libc::ESTALE);
    assert_eq!(b.copies().await, (1, 1));
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    for _ in 0..400 {
        if b.copies().await == (0, 0) {
            break;
        }
        b.advance(60);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(b.copies().await, (0, 0));
    background.abort();
}

#[tokio::test]
async fn copies_whose_last_close_was_never_heard_of_are_deleted_at_the_end_of_the_mount() {
    let b = bench().await;
    for n in ["a", "b"] {
        b.write(n, "text").await.unwrap();
    }
    b.open("a", libc::O_RDONLY).await;
    let (_, fh) = b.open("b", libc::O_RDONLY).await;
    for n in ["a", "b"] {
        b.fs.unlink(Ino::ROOT, name(n)).await.unwrap();
    }
    assert_eq!(b.fs.drain(Duration::from_secs(5)).await.unwrap(), Drained::Clean);
    assert_eq!(b.copies().await, (2, 2), "they are read");
    b.fs.release(fh).await;
    b.fs.session_ended();
    assert_eq!(b.fs.drain(Duration::from_secs(5)).await.unwrap(), Drained::Clean);
    assert_eq!(b.copies().await, (0, 0));
}

#[tokio::test]
async fn what_somebody_sets_of_a_file_that_was_written_here_a_moment_ago_shows() {
    let b = bench().await;
    b.write("a", "ours").await.unwrap();
    // The ETag stays: it is of the bytes.
    let headers = ObjectHeaders { user: [("mode".to_owned(), "33152".to_owned())].into(), ..ObjectHeaders::default() };
    b.memory.put(&key("a"), Bytes::from_static(b"ours"), &headers, &Condition::Always).await.unwrap();
    b.advance(5);
    let (ino, fh) = b.open("a", libc::O_RDONLY).await;
    assert_eq!(b.fs.getattr(ino).unwrap().attr.perm, 0o600);
    b.fs.release(fh).await;
}
