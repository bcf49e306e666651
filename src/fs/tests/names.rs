//! Names: renaming, removing, and what is in the way. Owns nothing else.

use super::large::probed;
use super::*;

#[tokio::test]
async fn saving_by_rename_is_one_put_when_the_new_file_is_not_uploaded_yet() {
    let b = bench().await;
    b.write("a", "old").await.unwrap();
    let (_, fh) = b.create("a.tmp").await;
    b.fs.write(fh, Some(0), b"new", false).await.unwrap();
    let (puts, copies) = (b.count(Op::Put), b.count(Op::Copy));
    b.fs.rename((Ino::ROOT, name("a.tmp")), (Ino::ROOT, name("a")), false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.count(Op::Put) - puts, 1);
    assert_eq!(b.count(Op::Copy), copies);
    assert_eq!(b.object("a").await.as_deref(), Some("new"));
    assert_eq!(b.ls(Ino::ROOT).await, ["a"]);
}

/// The bodies stand for ETags that differ although both markers are empty.
#[tokio::test]
async fn a_directory_whose_marker_was_made_anew_elsewhere_is_removed_at_the_second_attempt() {
    let b = bench().await;
    b.foreign("d/", "one").await;
    assert_eq!(b.ls(Ino::ROOT).await, ["d"]);
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    let row = b.fs.meta.get(d).unwrap().unwrap();
    b.fs.read_headers(&row).await.unwrap();
    b.foreign("d/", "two").await;
    assert_eq!(b.fs.rmdir(Ino::ROOT, name("d")).await.unwrap_err().errno(), libc::ESTALE);
    assert!(b.object("d/").await.is_some(), "nobody has seen that one");
    b.fs.rmdir(Ino::ROOT, name("d")).await.unwrap();
    assert_eq!(b.object("d/").await, None);
    assert_eq!(b.fs.getattr(d).unwrap_err().errno(), libc::ESTALE);
}

#[tokio::test]
async fn a_renamed_directory_takes_everything_along_or_nothing() {
    let b = probed().await;
    for k in ["d/a", "d/s/b", "d/s/", "d/unseen/c"] {
        b.foreign(k, "x").await;
    }
    let dir = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    let (_, opened) = b.fs.create(CALLER, dir, name("new"), 0o644, CREATE).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"staged", false).await.unwrap();
    b.faults.fail_next(Op::Copy, ErrorKind::AccessDenied, 1);
    assert!(b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.is_err());
    assert_eq!(b.object("d/s/b").await.as_deref(), Some("x"));
    assert_eq!(b.object("e/a").await.or(b.object("e/s/b").await), None, "copies that were made are taken back");
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    b.fs.flush(CALLER, opened.fh).await.unwrap();
    for k in ["e/a", "e/s/b", "e/unseen/c"] {
        assert_eq!(b.object(k).await.as_deref(), Some("x"), "{k}");
    }
    assert_eq!(b.object("e/new").await.as_deref(), Some("staged"));
    assert_eq!(b.object("d/a").await, None);
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().ino, dir, "the same inode");
}

#[tokio::test]
async fn a_renamed_directory_shows_nothing_of_keys_that_are_no_paths() {
    let b = bench().await;
    for k in ["d/x", "d//y", "d/../z", "d/\u{e061}"] {
        b.foreign(k, "x").await;
    }
    let dir = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    for k in ["e/x", "e//y", "e/../z", "e/\u{e061}"] {
        assert_eq!(b.object(k).await.as_deref(), Some("x"), "{k:?}");
    }
    let rows = b.fs.meta.children(dir, crate::types::Pos(0), 9).unwrap();
    let shown: Vec<String> = rows.iter().filter_map(|row| row.name.as_ref()).map(ToString::to_string).collect();
    assert_eq!(shown, ["x"]);
}

#[tokio::test]
async fn a_directory_is_not_renamed_over_one_with_entries() {
    let b = bench().await;
    b.foreign("d/a", "x").await;
    b.foreign("e/b", "y").await;
    let over = b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap_err();
    assert_eq!(over.errno(), libc::ENOTEMPTY);
    let into_itself = {
        let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
        b.fs.rename((Ino::ROOT, name("d")), (d, name("x")), false).await.unwrap_err()
    };
    assert_eq!(into_itself.errno(), libc::EINVAL);
}

#[tokio::test]
async fn an_emptied_directory_stays_and_rm_r_makes_no_marker() {
    let b = bench().await;
    b.foreign("d/a", "x").await;
    let dir = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.fs.opendir(dir).await.unwrap();
    b.fs.unlink(dir, name("a")).await.unwrap();
    b.advance(120);
    assert_eq!(b.ls(Ino::ROOT).await, ["d"], "nothing in the bucket implies it any more");
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("d/").await.as_deref(), Some(""));
    b.fs.rmdir(Ino::ROOT, name("d")).await.unwrap();
    assert_eq!(b.object("d/").await, None);
    b.foreign("e/a", "x").await;
    b.advance(120);
    let dir = b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().ino;
    let puts = b.count(Op::Put);
    b.fs.opendir(dir).await.unwrap();
    b.fs.unlink(dir, name("a")).await.unwrap();
    b.fs.rmdir(Ino::ROOT, name("e")).await.unwrap();
    assert_eq!(b.count(Op::Put), puts);
}

#[tokio::test]
async fn names_of_ours_are_nobodys() {
    let b = bench().await;
    assert!(b.fs.lookup(Ino::ROOT, &name(".objfs")).await.unwrap().is_none());
    let made = b.fs.mkdir(CALLER, Ino::ROOT, name(".objfs"), 0o755).await.unwrap_err();
    assert_eq!(made.errno(), libc::EACCES);
    assert!(b.fs.create(CALLER, Ino::ROOT, name(".objfs"), 0o644, CREATE).await.is_err());
    let link = b.fs.symlink(CALLER, Ino::ROOT, name("l"), Bytes::from_static(b"target")).await.unwrap();
    assert_eq!(link.attr.kind, FileKind::Symlink);
    let b = b.remount().await;
    b.advance(120);
    let link = b.fs.lookup(Ino::ROOT, &name("l")).await.unwrap().unwrap();
    assert_eq!(b.fs.readlink(link.ino).await.unwrap(), "target");
}

#[tokio::test]
async fn a_name_that_appeared_elsewhere_is_seen_after_it_was_in_the_way() {
    let b = bench().await;
    b.ls(Ino::ROOT).await;
    b.foreign("d/x", "x").await;
    b.foreign("d/", "").await;
    let made = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap_err();
    assert_eq!(made.errno(), libc::EEXIST);
    assert!(b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().is_some(), "EEXIST and ENOENT would contradict");
}

#[tokio::test]
async fn keys_too_long_are_told_at_create_and_not_at_close() {
    let b = bench().await;
    let mut dir = Ino::ROOT;
    for _ in 0..5 {
        dir = b.fs.mkdir(CALLER, dir, name(&"d".repeat(190)), 0o755).await.unwrap().ino;
    }
    let error = b.fs.create(CALLER, dir, name(&"f".repeat(100)), 0o644, CREATE).await.unwrap_err();
    assert_eq!(error.errno(), libc::ENAMETOOLONG);
    assert!(b.fs.create(CALLER, dir, name(&"f".repeat(60)), 0o644, CREATE).await.is_ok());
}

#[tokio::test]
async fn appending_to_a_name_that_appeared_elsewhere_does_not_create_it_anew() {
    let b = bench().await;
    b.ls(Ino::ROOT).await;
    b.advance(10);
    b.foreign("log", "theirs").await;
    let append = CREATE | libc::O_APPEND;
    b.fs.look_before_create(Ino::ROOT, &name("log"), append).await.unwrap();
    let create = b.fs.create(CALLER, Ino::ROOT, name("log"), 0o644, append).await.unwrap_err();
    assert_eq!(create.errno(), libc::ESTALE, "the kernel looks again, and opens what is there");
    let (_, fh) = b.open("log", libc::O_WRONLY | libc::O_APPEND).await;
    b.fs.write(fh, None, b" ours", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    assert_eq!(b.object("log").await.as_deref(), Some("theirs ours"));
}

#[tokio::test]
async fn a_changed_file_that_was_changed_elsewhere_can_be_removed_and_replaced() {
    let b = bench().await;
    for n in ["a", "b"] {
        b.write(n, "base").await.unwrap();
        let (_, fh) = b.open(n, libc::O_RDWR).await;
        b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
        b.foreign(n, "theirs").await;
    }
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    assert_eq!(b.object("a").await.as_deref(), Some("theirs"), "nobody here has seen it");
    assert_eq!(b.read("a").await, "theirs");
    // What is read ahead of it was asked before that.
    b.clock.advance(Duration::from_millis(1));
    b.write("new", "new").await.unwrap();
    let rename = async || b.fs.rename((Ino::ROOT, name("new")), (Ino::ROOT, name("b")), false).await;
    match rename().await {
        // What was read ahead may have come late. The kernel asks a second time by itself.
        Err(FsError::Stale) => rename().await.unwrap(),
        renamed => renamed.unwrap(),
    }
    assert_eq!(b.object("b").await.as_deref(), Some("new"));
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("b (conflict")).unwrap();
    assert_eq!(b.object(copy).await.as_deref(), Some("ours"));
}

#[tokio::test]
async fn keys_that_are_no_paths_are_forgotten_with_their_directory() {
    let b = bench().await;
    for k in ["d/x", "d//y", "d/e//z"] {
        b.memory.put(&key(k), Bytes::new(), &ObjectHeaders::default(), &Condition::Always).await.unwrap();
    }
    assert!(b.fs.list_whole(9).await.unwrap().is_some());
    assert_eq!(b.fs.meta.count_unmappable().unwrap(), 2);
    for k in ["d/x", "d//y", "d/e//z"] {
        b.foreign_delete(k).await;
    }
    b.advance(2);
    b.fs.refresh(Ino::ROOT).await.unwrap();
    assert_eq!(b.fs.meta.count_unmappable().unwrap(), 0);
}

#[tokio::test]
async fn a_directory_whose_key_is_too_long_with_the_mounts_prefix_is_not_empty_but_refused() {
    let mut b = bench().await;
    Arc::get_mut(&mut b.fs).unwrap().settings.prefix_len = 1000;
    let refused = |result: Result<()>| assert_eq!(result.unwrap_err().errno(), libc::ENAMETOOLONG);
    let mkdir = async |n: String| b.fs.mkdir(CALLER, Ino::ROOT, name(&n), 0o755).await.map(drop);
    mkdir("d".repeat(23)).await.unwrap();
    refused(mkdir("d".repeat(24)).await);
    // An earlier objfs has shown it.
    let root = b.fs.meta.get(Ino::ROOT).unwrap().unwrap();
    let attr = b.fs.new_attr(CALLER, &root, FileKind::Dir, 0o755);
    let shown = b.fs.meta.blank(Ino::ROOT, &name("long enough to be too long"), attr);
    let shown = b.fs.meta.create(shown).await.unwrap().unwrap();
    refused(b.fs.opendir(shown.ino).await.map(drop));
    refused(b.fs.rmdir(Ino::ROOT, name("long enough to be too long")).await);
}

#[tokio::test]
async fn the_number_of_a_file_that_is_gone_is_not_used_again() {
    let b = bench().await;
    b.write("a", "x").await.unwrap();
    let first = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    let b = b.remount().await;
    b.write("a", "x").await.unwrap();
    assert!(b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino > first);
}

#[tokio::test]
async fn the_marker_of_an_emptied_directory_comes_after_two_seconds_or_when_it_is_synced() {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    for k in ["waits/x", "synced/x", "killed/x"] {
        b.foreign(k, "x").await;
    }
    let emptied = async |n: &str| {
        let dir = b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().ino;
        b.fs.opendir(dir).await.unwrap();
        b.fs.unlink(dir, name("x")).await.unwrap();
        dir
    };
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    emptied("waits").await;
    b.advance(1);
    // The background looks twice in a second.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(b.object("waits/").await, None);
    b.advance(1);
    while b.object("waits/").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    background.abort();
    let dir = emptied("synced").await;
    let (_, opened) = b.fs.create(CALLER, dir, name("t.part"), 0o644, CREATE).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"x", false).await.unwrap();
    b.fs.flush(CALLER, opened.fh).await.unwrap();
    b.fs.fsyncdir(dir).await.unwrap();
    assert_eq!(b.object("synced/").await.as_deref(), Some(""));
    assert_eq!(b.object("synced/t.part").await, None, "it may be renamed in a moment");
    b.fs.release(opened.fh).await;
    emptied("killed").await;
    let b = b.crash().await;
    assert_eq!((b.fs.pending().unwrap().markers, b.object("killed/").await), (1, None));
    assert!(b.fs.lookup(Ino::ROOT, &name("killed")).await.unwrap().is_some());
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("killed/").await.as_deref(), Some(""));
}

#[tokio::test]
async fn a_marker_that_was_written_without_an_answer_goes_with_its_directory() {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    b.foreign("d/x", "x").await;
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.fs.opendir(d).await.unwrap();
    b.fs.unlink(d, name("x")).await.unwrap();
    b.faults.lose_next(Op::Put, ErrorKind::Broken, 2);
    b.faults.fail_next(Op::Head, ErrorKind::Broken, 8);
    b.fs.fsyncdir(d).await.unwrap_err();
    assert_eq!((b.object("d/").await.as_deref(), b.fs.pending().unwrap().markers), (Some(""), 1));
    let counts = || [Op::List, Op::Head, Op::Delete].map(|op| b.count(op));
    let [lists, heads, deletes] = counts();
    b.fs.rmdir(Ino::ROOT, name("d")).await.unwrap();
    assert_eq!(b.object("d/").await, None);
    assert_eq!(counts(), [lists + 1, heads, deletes + 1]);
}

#[tokio::test]
async fn of_the_keys_below_a_prefix_that_is_no_path_a_thousand_are_listed_and_then_the_prefix() {
    let b = bench().await;
    b.foreign("d/x", "x").await;
    for i in 0..1002 {
        b.foreign(&format!("d//{i:04}"), "x").await;
    }
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    assert_eq!(b.ls(d).await, ["x"]);
    let listed = b.fs.meta.unmappable("", 2000).unwrap();
    assert_eq!(listed.len(), 1001);
    let is_listed = |k: &str| listed.iter().any(|(found, why, _)| found == k && why == "empty-component");
    assert!(is_listed("d//") && is_listed("d//0000") && is_listed("d//0999") && !is_listed("d//1000"));
}

#[tokio::test]
async fn a_directory_with_a_key_that_no_request_can_name_is_neither_renamed_nor_removed() {
    use crate::store::InvalidKey;
    use crate::types::Unmappable;
    let text = format!("d/{}", "x".repeat(1030));
    let long = InvalidKey { bytes: text.clone().into_bytes(), text, why: Unmappable::LongKey, size: 7 };
    let odd = InvalidKey { text: "e/%FF".to_owned(), bytes: b"e/\xff".to_vec(), why: Unmappable::NotUtf8, size: 3 };
    let memory = Arc::new(MemoryStore::new().with_keys_that_are_none(vec![long.clone(), odd.clone()]));
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let b = mount(tempfile::tempdir().unwrap(), memory, clock).await;
    for n in ["d", "e"] {
        b.foreign(&format!("{n}/x"), "x").await;
        let dir = b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().ino;
        assert_eq!(b.ls(dir).await, ["x"]);
        let renamed = b.fs.rename((Ino::ROOT, name(n)), (Ino::ROOT, name("to")), false).await.unwrap_err();
        assert_eq!(renamed.errno(), libc::ENAMETOOLONG, "{n}");
        b.fs.unlink(dir, name("x")).await.unwrap();
        assert_eq!(b.fs.rmdir(Ino::ROOT, name(n)).await.unwrap_err().errno(), libc::ENOTEMPTY, "{n}");
    }
    let counted = b.fs.meta.unmappable("", 9).unwrap();
    assert_eq!(counted, [(long.text, "key-too-long".to_owned(), 7), (odd.text, "not-utf8".to_owned(), 3)]);
}

#[tokio::test]
async fn the_prefix_of_the_mount_counts_in_the_length_of_a_key() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let (dir, memory) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let limits = crate::write::Settings::default();
    let b = mount_set(dir, memory, clock, limits, |settings, _| settings.prefix_len = 1000).await;
    let (fits, too_long) = (name(&"f".repeat(24)), name(&"f".repeat(25)));
    let refused = b.fs.create(CALLER, Ino::ROOT, too_long, 0o644, CREATE).await.unwrap_err();
    assert_eq!(refused.errno(), libc::ENAMETOOLONG);
    assert!(b.fs.create(CALLER, Ino::ROOT, fits, 0o644, CREATE).await.is_ok());
}

#[tokio::test]
async fn a_directory_is_not_moved_where_a_file_that_is_not_uploaded_would_have_too_long_a_key() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let (dir, memory) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let limits = crate::write::Settings::default();
    let b = mount_set(dir, memory, clock, limits, |settings, _| settings.prefix_len = 100).await;
    let mkdir = async |parent: Ino, n: &str| b.fs.mkdir(CALLER, parent, name(n), 0o755).await.unwrap().ino;
    let d = mkdir(Ino::ROOT, "d").await;
    let outer = mkdir(Ino::ROOT, &"o".repeat(255)).await;
    let inner = mkdir(outer, &"i".repeat(255)).await;
    let file = name(&format!("{}.part", "f".repeat(250)));
    let (_, opened) = b.fs.create(CALLER, d, file.clone(), 0o644, CREATE).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"text", false).await.unwrap();
    b.close(opened.fh).await;
    assert_eq!(b.object(&format!("d/{file}")).await, None, "its name is a temporary one");
    let (requests, to) = (b.count(Op::Copy), "t".repeat(200));
    let refused = b.fs.rename((Ino::ROOT, name("d")), (inner, name(&to)), false).await.unwrap_err();
    assert_eq!((refused.errno(), b.count(Op::Copy)), (libc::ENAMETOOLONG, requests));
    assert!(b.object("d/").await.is_some() && b.fs.lookup(d, &file).await.unwrap().is_some());
    b.fs.rename((Ino::ROOT, name("d")), (outer, name(&to)), false).await.unwrap();
    assert_eq!(b.fs.lookup(outer, &name(&to)).await.unwrap().unwrap().ino, d);
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    let uploaded = b.object(&format!("{}/{to}/{}.part", "o".repeat(255), "f".repeat(250))).await;
    assert_eq!(uploaded.as_deref(), Some("text"));
}
