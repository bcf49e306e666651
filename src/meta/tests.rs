//! Tests of the catalogue's rules as a whole. Owns nothing else.

use super::*;
use crate::types::{ETag, ManualClock};
use std::collections::BTreeMap;
use std::time::Duration;

struct Bench {
    meta: Meta,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_parts(1000, 0)));
    let defaults = Defaults {
        uid: 1,
        gid: 2,
        uid_forced: false,
        gid_forced: false,
        file_perm: 0o644,
        dir_perm: 0o755,
        file_mode: None,
        dir_mode: None,
        kept: headers::Kept::InObjects,
        mounted_at: clock.now(),
    };
    let meta = Meta::open(&dir.path().join("c.db"), defaults, Arc::<ManualClock>::clone(&clock)).await.unwrap();
    Bench { meta, clock, _dir: dir }
}

fn name(n: &str) -> Name {
    Name::parse(n).unwrap()
}

fn file(n: &str, etag: &str) -> Sighting {
    let version = Version { etag: ETag::parse(etag), last_modified: Some(Timestamp::from_parts(5, 0)), size: 4 };
    Sighting { name: name(n), found: Found::Object { version, storage_class: None, headers: None } }
}

fn dir(n: &str) -> Sighting {
    Sighting { name: name(n), found: Found::Dir { marker: None, read: None } }
}

impl Bench {
    async fn list(&self, pages: Vec<Vec<Sighting>>) -> Vec<Change> {
        self.clock.advance(Duration::from_secs(1));
        let listing = self.meta.begin_listing(Ino::ROOT).unwrap();
        let (mut changes, mut hidden) = (Vec::new(), Vec::new());
        let count = pages.len();
        for (i, seen) in pages.into_iter().enumerate() {
            let page = Page { seen, is_last: i + 1 == count, ..Page::default() };
            let (changed, left) = self.meta.apply_page(page, Key::root(), hidden, &listing).await.unwrap();
            changes.extend(changed);
            hidden = left;
        }
        changes
    }

    /// Names in the order of readdir, with their places.
    fn places(&self) -> Vec<(String, Pos)> {
        let rows = self.meta.children(Ino::ROOT, Pos::START, 100).unwrap();
        rows.iter().map(|r| (r.name.as_ref().unwrap().to_string(), r.pos())).collect()
    }

    fn row(&self, n: &str) -> InodeRow {
        self.meta.child(Ino::ROOT, &name(n)).unwrap().unwrap()
    }

    fn names(&self) -> Vec<(String, FileKind)> {
        let rows = self.meta.children(Ino::ROOT, Pos::START, 100).unwrap();
        let mut names: Vec<_> = rows.iter().map(|r| (r.name.as_ref().unwrap().to_string(), r.attr.kind)).collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        names
    }
}

#[tokio::test]
async fn inode_numbers_outlive_listings_and_restarts() {
    let b = bench().await;
    b.list(vec![vec![file("a", "1"), dir("d")]]).await;
    let before: Vec<Ino> = b.meta.children(Ino::ROOT, Pos::START, 9).unwrap().iter().map(|r| r.ino).collect();
    let changes = b.list(vec![vec![file("a", "2"), dir("d")]]).await;
    assert_eq!(changes, vec![Change::Content(before[0])]);
    let after: Vec<Ino> = b.meta.children(Ino::ROOT, Pos::START, 9).unwrap().iter().map(|r| r.ino).collect();
    assert_eq!(before, after);
    assert!(b.meta.get(Ino::ROOT).unwrap().unwrap().complete_at.is_some());
}

#[tokio::test]
async fn a_name_missing_from_a_listing_is_gone_but_not_if_it_is_ours() {
    let b = bench().await;
    b.list(vec![vec![file("a", "1"), file("b", "1")]]).await;
    let attr = Attr { kind: FileKind::File, ..b.meta.get(Ino::ROOT).unwrap().unwrap().attr };
    let mut own = b.meta.blank(Ino::ROOT, &name("own"), attr);
    own.local = true;
    b.meta.create(own).await.unwrap().unwrap();
    let changes = b.list(vec![vec![file("a", "1")]]).await;
    assert!(matches!(&changes[..], [Change::Removed { name: n, .. }] if *n == name("b")), "{changes:?}");
    assert_eq!(b.names(), vec![("a".into(), FileKind::File), ("own".into(), FileKind::File)]);
}

#[tokio::test]
async fn a_file_beside_a_directory_of_its_name_is_hidden_and_counted_in_every_order() {
    for pages in [
        vec![vec![file("a", "1"), dir("a")]],
        vec![vec![dir("a")], vec![file("a", "1")]],
        vec![vec![file("a", "1")], vec![file("a-b", "1"), dir("a")]],
    ] {
        let b = bench().await;
        b.list(pages.clone()).await;
        let ino = b.meta.child(Ino::ROOT, &name("a")).unwrap().unwrap();
        assert_eq!(ino.attr.kind, FileKind::Dir);
        assert_eq!(b.meta.unmappable("", 9).unwrap()[0].0, "a");
        let changes = b.list(pages).await;
        assert!(changes.is_empty(), "a second listing changes nothing: {changes:?}");
        assert_eq!(b.meta.child(Ino::ROOT, &name("a")).unwrap().unwrap().ino, ino.ino);
        b.list(vec![vec![file("a", "1")]]).await;
        assert_eq!(b.meta.child(Ino::ROOT, &name("a")).unwrap().unwrap().attr.kind, FileKind::File);
        assert_eq!(b.meta.count_unmappable().unwrap(), 0);
    }
}

#[tokio::test]
async fn a_listing_that_began_earlier_does_not_undo_our_unlink_or_our_commit() {
    let b = bench().await;
    b.list(vec![vec![file("a", "1"), file("c", "1")]]).await;
    b.clock.advance(Duration::from_secs(1));
    let listing = b.meta.begin_listing(Ino::ROOT).unwrap();
    b.clock.advance(Duration::from_secs(1));
    let (a, c) =
        (b.meta.child(Ino::ROOT, &name("a")).unwrap().unwrap(), b.meta.child(Ino::ROOT, &name("c")).unwrap().unwrap());
    b.meta.remove(a.ino).await.unwrap();
    let newer = Version { etag: ETag::parse("2"), last_modified: None, size: 9 };
    b.meta.committed(c.ino, newer.clone(), "{}".into(), || false, |_| {}).await.unwrap();
    let page = Page { seen: vec![file("a", "1"), file("c", "1")], is_last: true, ..Page::default() };
    b.meta.apply_page(page, Key::root(), vec![], &listing).await.unwrap();
    assert_eq!(b.meta.child(Ino::ROOT, &name("a")).unwrap(), None);
    assert_eq!(b.meta.child(Ino::ROOT, &name("c")).unwrap().unwrap().version, Some(newer));
}

#[tokio::test]
async fn a_foreign_change_of_an_open_file_gives_the_name_a_new_inode() {
    let b = bench().await;
    b.list(vec![vec![file("a", "1")]]).await;
    let old = b.meta.child(Ino::ROOT, &name("a")).unwrap().unwrap();
    b.meta.pins().pin(old.ino);
    b.list(vec![vec![file("a", "2")]]).await;
    let new = b.meta.child(Ino::ROOT, &name("a")).unwrap().unwrap();
    assert_ne!(old.ino, new.ino);
    assert_eq!(b.meta.get(old.ino).unwrap().unwrap().version, old.version, "the open inode is as it was");
    b.meta.pins().unpin(old.ino);
    b.meta.drop_nameless(old.ino).await.unwrap();
    assert_eq!(b.meta.get(old.ino).unwrap(), None);
}

#[tokio::test]
async fn keys_follow_renames_of_directories() {
    let b = bench().await;
    b.list(vec![vec![dir("d"), dir("e")]]).await;
    let d = b.meta.child(Ino::ROOT, &name("d")).unwrap().unwrap();
    let attr = Attr { kind: FileKind::File, ..d.attr.clone() };
    let f = b.meta.create(b.meta.blank(d.ino, &name("f"), attr)).await.unwrap().unwrap();
    assert_eq!(b.meta.key(&f).unwrap().unwrap().unwrap().as_str(), "d/f");
    let e = b.meta.child(Ino::ROOT, &name("e")).unwrap().unwrap();
    b.meta.rename(d.ino, e.ino, name("g"), vec![]).await.unwrap();
    assert_eq!(b.meta.key(&f).unwrap().unwrap().unwrap().as_str(), "e/g/f");
}

#[tokio::test]
async fn a_clock_that_was_set_back_between_two_mounts_hides_no_change() {
    let b = bench().await;
    b.clock.advance(Duration::from_secs(3600));
    b.list(vec![vec![file("a", "1")]]).await;
    b.meta.close();
    let clock = Arc::new(ManualClock::new(Timestamp::from_parts(2000, 0)));
    let defaults = Defaults { mounted_at: clock.now(), ..b.meta.defaults().clone() };
    let path = b._dir.path().join("c.db");
    let meta = Meta::open(&path, defaults, Arc::<ManualClock>::clone(&clock)).await.unwrap();
    let b = Bench { meta, clock, _dir: b._dir };
    let changes = b.list(vec![vec![file("a", "2")]]).await;
    assert!(matches!(changes[..], [Change::Content(_)]), "{changes:?}");
}

/// Whoever reads the directory meanwhile goes on after the place that was read last: a name that moved on would come again, and
/// one that moved back would be left out.
#[tokio::test]
async fn a_name_keeps_its_place_whoever_has_it() {
    let b = bench().await;
    b.list(vec![vec![file("a", "1"), file("b", "2"), file("c", "3"), file("d", "4")]]).await;
    let before = b.places();
    // A listing has shown it as a file, and it is a link.
    let Found::Object { version, .. } = file("b", "2").found else { panic!("it is an object") };
    let user = BTreeMap::from([("mode".to_owned(), "41471".to_owned())]);
    let headers = Some(Headers { json: "{}".to_owned(), user: Some(user) });
    let link = Found::Object { version, storage_class: None, headers };
    let asked = b.meta.observe();
    b.meta.apply_lookup(Ino::ROOT, name("b"), Some(link), &asked).await.unwrap();
    drop(asked);
    assert_eq!(b.row("b").attr.kind, FileKind::Symlink);
    // Changed elsewhere while it is open.
    let open = b.row("c");
    b.meta.pins().pin(open.ino);
    b.list(vec![vec![file("a", "1"), file("b", "2"), file("c", "5"), file("d", "4")]]).await;
    assert_ne!(b.row("c").ino, open.ino);
    // Replaced by a file that was before it.
    let a = b.row("a");
    b.meta.rename(a.ino, Ino::ROOT, name("d"), vec![]).await.unwrap();
    assert_eq!(b.row("d").ino, a.ino);
    assert_eq!(b.places(), before[1..]);
    // The open one gets a name again: its place belongs to the other.
    b.meta.rename(open.ino, Ino::ROOT, name("e"), vec![]).await.unwrap();
    // A conflict: the name is theirs.
    let place = b.meta.make_way(a.ino, Ino::ROOT, name("f")).await.unwrap().unwrap().left;
    assert_eq!(place, Some(before[3].1));
    let asked = b.meta.observe();
    let theirs = b.meta.take_place((Ino::ROOT, name("d")), file("d", "6").found, place, &asked).await.unwrap().unwrap();
    assert_ne!(theirs.ino, a.ino);
    let after = b.places();
    assert_eq!(after[..3], before[1..]);
    assert_eq!((after[3].0.as_str(), after[4].0.as_str(), after.len()), ("e", "f", 5));
    assert!(after.is_sorted_by(|one, next| one.1 < next.1), "{after:?}");
    // A new name comes after all of them.
    let made = b.meta.create(b.meta.blank(Ino::ROOT, &name("0"), a.attr)).await.unwrap().unwrap();
    assert!(made.pos() > after[4].1);
}

#[tokio::test]
async fn a_file_that_was_moved_elsewhere_has_the_place_of_its_new_name() {
    let b = bench().await;
    b.list(vec![vec![file("a", "1"), file("b", "2")]]).await;
    let (a, place_of_b) = (b.row("a"), b.row("b").pos());
    b.list(vec![vec![file("b", "2"), file("c", "1")]]).await;
    assert_eq!(b.row("c").ino, a.ino, "the same inode");
    assert!(b.row("c").pos() > place_of_b, "where the name was from the moment on in which it was listed");
}

#[tokio::test]
async fn between_two_pages_the_object_shows_and_then_the_directory() {
    let b = bench().await;
    let listing = b.meta.begin_listing(Ino::ROOT).unwrap();
    let page = |seen, is_last| Page { seen, is_last, ..Page::default() };
    let first = page(vec![file("a", "1")], false);
    let (_, hidden) = b.meta.apply_page(first, Key::root(), vec![], &listing).await.unwrap();
    assert_eq!(b.row("a").attr.kind, FileKind::File);
    b.meta.apply_page(page(vec![dir("a")], true), Key::root(), hidden, &listing).await.unwrap();
    assert_eq!(b.row("a").attr.kind, FileKind::Dir);
}

#[tokio::test]
async fn a_name_that_comes_or_goes_moves_the_times_of_its_directory_and_changes_nothing_else() {
    let b = bench().await;
    b.list(vec![vec![dir("d"), dir("e")]]).await;
    let (before, others) = (b.row("d"), b.row("e"));
    let now = || {
        b.clock.advance(Duration::from_secs(7));
        let (attr, at) = (before.attr.clone(), b.clock.now());
        InodeRow { attr: Attr { mtime: at, ctime: at, ..attr }, ..before.clone() }
    };
    let expected = now();
    let attr = Attr { kind: FileKind::File, ..before.attr.clone() };
    let x = b.meta.create(b.meta.blank(before.ino, &name("x"), attr)).await.unwrap().unwrap();
    assert_eq!(b.row("d"), expected);
    let expected = now();
    b.meta.remove(x.ino).await.unwrap();
    assert_eq!((b.row("d"), b.row("e")), (expected, others));
    assert_eq!(b.meta.get(x.ino).unwrap(), None);
    assert_eq!(b.names(), vec![("d".into(), FileKind::Dir), ("e".into(), FileKind::Dir)]);
}

#[tokio::test]
async fn what_is_below_a_directory_goes_with_it() {
    let b = bench().await;
    b.list(vec![vec![dir("d"), file("f", "1")]]).await;
    let d = b.row("d");
    let attr = Attr { kind: FileKind::File, ..d.attr.clone() };
    let x = b.meta.create(b.meta.blank(d.ino, &name("x"), attr)).await.unwrap().unwrap();
    b.meta.remove(d.ino).await.unwrap();
    assert_eq!((b.meta.get(d.ino).unwrap(), b.meta.get(x.ino).unwrap()), (None, None));
    assert_eq!(b.names(), vec![("f".into(), FileKind::File)]);
}
