//! How fresh answers are, and what they cost. Owns nothing else.

use super::*;
use std::time::Instant;

/// HEADs and LISTs so far.
fn asked(b: &Bench) -> (u64, u64) {
    (b.count(Op::Head), b.count(Op::List))
}

async fn find(b: &Bench, dir: Ino, n: &str) -> Option<Entry> {
    b.fs.lookup(dir, &name(n)).await.unwrap()
}

/// Opens a file for reading, and closes it.
async fn look_into(b: &Bench, ino: Ino) {
    let fh = b.fs.open(CALLER, ino, libc::O_RDONLY).await.unwrap().fh;
    b.fs.release(fh).await;
}

/// What another client puts into the bucket with user metadata.
async fn put_with(b: &Bench, k: &str, user: &[(&str, &str)]) {
    let user = user.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let headers = ObjectHeaders { user, ..ObjectHeaders::default() };
    b.memory.put(&key(k), Bytes::from_static(b"text"), &headers, &Condition::Always).await.unwrap();
}

#[tokio::test]
async fn the_bucket_is_asked_again_once_its_answer_is_no_longer_fresh() {
    let b = bench().await;
    for k in ["d/a", "d/b"] {
        b.foreign(k, "text").await;
    }
    let d = find(&b, Ino::ROOT, "d").await.unwrap().ino;
    assert_eq!(b.ls(d).await, ["a", "b"]);
    let a = find(&b, d, "a").await.unwrap().ino;
    let (heads, lists) = asked(&b);
    b.advance(30);
    b.foreign("d/new", "text").await;
    assert!(find(&b, d, "a").await.is_some());
    assert!(find(&b, d, "new").await.is_none(), "the directory was listed completely");
    assert_eq!(b.ls(d).await, ["a", "b"]);
    assert_eq!(asked(&b), (heads, lists), "all within the poll interval");
    look_into(&b, a).await;
    assert_eq!(asked(&b), (heads + 1, lists), "an open asks");
    look_into(&b, a).await;
    assert_eq!(asked(&b), (heads + 1, lists), "unless the version was just confirmed");
    b.advance(2);
    look_into(&b, a).await;
    assert_eq!(asked(&b), (heads + 2, lists));
    b.advance(29);
    assert!(find(&b, d, "new").await.is_some());
    assert_eq!(asked(&b).1, lists + 1);
    b.advance(61);
    assert!(find(&b, d, "a").await.is_some());
    assert_eq!(asked(&b).1, lists + 2);
    b.advance(61);
    assert_eq!(b.ls(d).await, ["a", "b", "new"]);
    assert_eq!(asked(&b).1, lists + 3);
    // What has changes of ours counts, however old it is.
    let (_, fh) = b.create("ours").await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    b.advance(600);
    let before = asked(&b);
    assert_eq!(find(&b, Ino::ROOT, "ours").await.unwrap().attr.size, 4);
    assert_eq!(asked(&b), before);
    b.fs.release(fh).await;
}

#[tokio::test]
async fn a_directory_of_a_thousand_is_listed_for_one_name_and_a_larger_one_is_not() {
    for (count, is_listed) in [(1000, true), (1001, false)] {
        let b = bench().await;
        for i in 0..count {
            b.foreign(&format!("{i:04}"), "x").await;
        }
        assert_eq!(b.ls(Ino::ROOT).await.len(), count);
        b.advance(61);
        for (n, asks) in [("0001", true), ("0002", !is_listed)] {
            let lists = b.count(Op::List);
            assert!(find(&b, Ino::ROOT, n).await.is_some());
            assert_eq!(b.count(Op::List) > lists, asks, "{n} of {count}");
        }
    }
}

/// `rm -r` looks up every name, and goes on for longer than a listing is fresh.
#[tokio::test]
async fn a_large_directory_is_listed_again_for_who_goes_through_it() {
    let b = bench().await;
    let names: Vec<String> = (0..1500).map(|i| format!("{i:04}")).collect();
    for n in &names {
        b.foreign(n, "x").await;
    }
    assert_eq!(b.ls(Ino::ROOT).await, names);
    // Whoever removes something now and then is still at it.
    let (names, gone) = names.split_at(1497);
    for n in gone {
        b.advance(21);
        b.fs.unlink(Ino::ROOT, name(n)).await.unwrap();
    }
    let (heads, lists) = asked(&b);
    for n in &names[..64] {
        assert!(find(&b, Ino::ROOT, n).await.is_some());
    }
    let listed_since = b.clock.now().minus(Duration::from_secs(30));
    for _ in 0..500 {
        if b.fs.is_listed_since(Ino::ROOT, listed_since) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for n in &names[64..] {
        assert!(find(&b, Ino::ROOT, n).await.is_some());
    }
    // Two pages; and eight lookups read headers.
    assert_eq!(asked(&b), (heads + 64 + 8, lists + 64 + 2));
}

#[tokio::test]
async fn what_only_a_listing_has_shown_is_a_plain_file_until_it_is_looked_up() {
    let b = bench().await;
    put_with(&b, "a", &[("uid", "1234"), ("mode", "33152"), ("mtime", "1000.5")]).await;
    put_with(&b, "link", &[("mode", "41471")]).await;
    b.ls(Ino::ROOT).await;
    let listed = |n: &str| b.fs.meta.child(Ino::ROOT, &name(n)).unwrap().unwrap();
    for n in ["a", "link"] {
        let row = listed(n);
        assert_eq!((row.attr.kind, row.attr.perm, row.attr.uid), (FileKind::File, 0o644, 0), "{n}");
        assert_eq!(Some(row.attr.mtime), b.memory.head(&key(n)).await.unwrap().version.last_modified, "{n}");
    }
    let (ino, before, heads) = (listed("a").ino, listed("link"), b.count(Op::Head));
    for _ in 0..2 {
        let a = find(&b, Ino::ROOT, "a").await.unwrap();
        let mtime = Timestamp::from_nanos(1_000_500_000_000);
        assert_eq!((a.ino, a.attr.perm, a.attr.uid, a.attr.mtime), (ino, 0o600, 1234, mtime));
        let link = find(&b, Ino::ROOT, "link").await.unwrap();
        assert_eq!(link.attr.kind, FileKind::Symlink);
        assert_ne!(link.ino, before.ino);
        assert_eq!(b.count(Op::Head), heads + 2, "once for each version");
    }
    assert_eq!(listed("link").pos(), before.pos());
}

/// `ls -l` looks up every name.
#[tokio::test]
async fn few_of_the_lookups_that_follow_a_readdir_read_headers() {
    let b = bench().await;
    for dir in 0..10 {
        for file in 0..10 {
            b.foreign(&format!("d{dir}/f{file}"), "x").await;
        }
    }
    for dir in 0..10 {
        let ino = find(&b, Ino::ROOT, &format!("d{dir}")).await.unwrap().ino;
        assert_eq!(b.ls(ino).await.len(), 10);
        let heads = b.count(Op::Head);
        for file in 0..10 {
            assert!(find(&b, ino, &format!("f{file}")).await.is_some());
        }
        let expected = if dir < 8 { 8 } else { 0 };
        assert_eq!(b.count(Op::Head) - heads, expected, "8 in a directory, and 64 in all: d{dir}");
    }
}

#[tokio::test]
async fn headers_are_read_four_at_a_time_and_two_thousand_for_each_listing() {
    let b = bench().await;
    for i in 0..2010 {
        put_with(&b, &format!("{i:04}"), &[("mode", "33152")]).await;
    }
    b.ls(Ino::ROOT).await;
    // Nobody knows yet that they are worth reading, and a moment later somebody does.
    tokio::time::sleep(Duration::from_millis(50)).await;
    find(&b, Ino::ROOT, "0000").await.unwrap();
    let holds: Vec<_> = (0..5).map(|_| b.faults.hold_next(Op::Head)).collect();
    b.ls(Ino::ROOT).await;
    for hold in &holds[..4] {
        hold.reached().await;
    }
    let fifth = tokio::time::timeout(Duration::from_millis(50), holds[4].reached()).await;
    assert!(fifth.is_err(), "four at a time");
    holds.iter().for_each(|hold| hold.release());
    for left in [9, 0] {
        let unread = || b.fs.meta.unread(Ino::ROOT, Pos::START, 5000).unwrap().len();
        for _ in 0..1000 {
            if unread() == left {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(unread(), left);
        b.ls(Ino::ROOT).await;
    }
}

/// The mounts here wait for a second where others wait for five.
#[tokio::test]
async fn a_silent_bucket_is_waited_for_once_and_then_not_for_five_seconds() {
    let b = bench().await;
    for k in ["a", "b", "d/x"] {
        b.foreign(k, "text").await;
    }
    assert_eq!(b.ls(Ino::ROOT).await, ["a", "b", "d"]);
    let a = find(&b, Ino::ROOT, "a").await.unwrap().ino;
    let d = find(&b, Ino::ROOT, "d").await.unwrap().ino;
    assert_eq!(b.ls(d).await, ["x"]);
    b.advance(120);
    let held: Vec<_> = (0..9).flat_map(|_| [Op::Head, Op::List].map(|op| b.faults.hold_next(op))).collect();
    let second = Duration::from_secs(1);
    let start = Instant::now();
    assert_eq!(find(&b, Ino::ROOT, "a").await.unwrap().ino, a);
    assert!(start.elapsed() >= second && start.elapsed() < 3 * second, "{:?}", start.elapsed());
    b.advance(4);
    let start = Instant::now();
    assert!(find(&b, Ino::ROOT, "b").await.is_some());
    look_into(&b, a).await;
    assert_eq!(b.ls(d).await, ["x"]);
    assert!(start.elapsed() < second / 2, "{:?}", start.elapsed());
    b.advance(2);
    let start = Instant::now();
    look_into(&b, a).await;
    assert!(start.elapsed() >= second && start.elapsed() < 3 * second, "{:?}", start.elapsed());
    drop(held);
}
