//! Directories that change while somebody reads them. Owns nothing else.

use super::*;
use std::collections::HashSet;

/// Entries that one READDIR takes.
const AT_ONCE: usize = 4;
/// Names of each kind.
const EACH: usize = 24;

impl Bench {
    /// One READDIR of the root beyond `cookie`. Answers the names, and the cookie of the last.
    fn some_entries(&self, cookie: u64) -> (Vec<String>, u64) {
        let (mut names, mut last) = (Vec::new(), cookie);
        let mut add = |entry: DirEntry<'_>| {
            if names.len() == AT_ONCE {
                return true;
            }
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            last = entry.cookie;
            false
        };
        self.fs.readdir(Ino::ROOT, cookie, &mut add).unwrap();
        (names, last)
    }

    /// A symbolic link that another client has made: a listing shows it as a plain file.
    async fn foreign_link(&self, k: &str) {
        let mut headers = ObjectHeaders::default();
        headers.user.insert("mode".to_owned(), "41471".to_owned());
        self.memory.put(&key(k), Bytes::from_static(b"target"), &headers, &Condition::Always).await.unwrap();
    }

    /// Its headers are read: it is a link, and gets a new inode. Nothing happens if they were read before.
    async fn find_kind(&self, n: &str) {
        let row = self.fs.meta.child(Ino::ROOT, &name(n)).unwrap().unwrap();
        if row.headers.is_none() {
            let link = self.fs.read_headers(&row).await.unwrap().unwrap();
            assert!(link.ino != row.ino && link.attr.kind == FileKind::Symlink, "{n}");
        }
    }

    /// Something happens to a name.
    async fn change_something(&self, dice: &mut fastrand::Rng, number: usize) {
        let stays = format!("stays-{:02}", dice.usize(0..EACH));
        let goes = format!("goes-{:02}", dice.usize(0..EACH));
        let new = format!("new-{number}");
        let rename = async |from: &str, to: &str| {
            self.fs.rename((Ino::ROOT, name(from)), (Ino::ROOT, name(to)), false).await.unwrap();
        };
        let is_there = self.fs.meta.child(Ino::ROOT, &name(&goes)).unwrap().is_some();
        match dice.u8(0..5) {
            0 => self.find_kind(&stays).await,
            1 => {
                self.write(&new, "another file").await.unwrap();
                rename(&new, &stays).await;
            }
            2 if is_there => self.fs.unlink(Ino::ROOT, name(&goes)).await.unwrap(),
            3 if is_there => rename(&goes, &new).await,
            _ => self.write(&new, "a new name").await.unwrap(),
        }
    }
}

/// The kind of a name is found by reading its headers, before and after the name was read.
#[tokio::test]
async fn a_name_is_read_once_though_it_gets_another_inode_meanwhile() {
    let mut b = bench().await;
    let expected: Vec<String> = (0..40).map(|i| format!("{i:02}")).collect();
    for n in &expected {
        b.foreign_link(n).await;
    }
    b.ls(Ino::ROOT).await;
    let (mut names, mut cookie) = b.some_entries(2);
    for step in 0..expected.len() {
        for at in [step, expected.len() - 1 - step] {
            b.find_kind(&expected[at]).await;
        }
        if step == 5 {
            b = b.remount().await;
        }
        let (more, last) = b.some_entries(cookie);
        if more.is_empty() {
            break;
        }
        names.extend(more);
        cookie = last;
    }
    assert_eq!(names, expected);
}

#[tokio::test]
async fn what_is_there_all_the_time_is_read_once_while_names_come_and_go() {
    for seed in 0..12 {
        let (b, mut dice) = (bench().await, fastrand::Rng::with_seed(seed));
        let stays: Vec<String> = (0..EACH).map(|i| format!("stays-{i:02}")).collect();
        for (i, n) in stays.iter().enumerate() {
            b.foreign_link(n).await;
            b.foreign(&format!("goes-{i:02}"), "x").await;
        }
        b.ls(Ino::ROOT).await;
        let (mut names, mut cookie, mut changes) = (Vec::new(), 2, 0);
        loop {
            let (more, last) = b.some_entries(cookie);
            if more.is_empty() {
                break;
            }
            names.extend(more);
            cookie = last;
            for _ in 0..3 {
                b.change_something(&mut dice, changes).await;
                changes += 1;
            }
        }
        let read: HashSet<&String> = names.iter().collect();
        assert_eq!(read.len(), names.len(), "seed {seed}: a name was read twice: {names:?}");
        let missed: Vec<&String> = stays.iter().filter(|n| !read.contains(n)).collect();
        assert!(missed.is_empty(), "seed {seed}: {missed:?}");
        let rows = b.fs.meta.children(Ino::ROOT, Pos::START, 1000).unwrap();
        let places: HashSet<Pos> = rows.iter().map(|row| row.pos()).collect();
        assert_eq!(places.len(), rows.len(), "seed {seed}: each name has a place of its own");
    }
}

#[tokio::test]
async fn a_conflict_copy_comes_at_the_end_and_the_name_stays_in_its_place() {
    let b = bench().await;
    for i in 0..8 {
        b.write(&format!("{i}"), "base").await.unwrap();
    }
    let (ino, fh) = b.open("1", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    let (first, cookie) = b.some_entries(2);
    assert_eq!(first, ["0", "1", "2", "3"]);
    b.foreign("1", "theirs").await;
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_ne!(b.fs.lookup(Ino::ROOT, &name("1")).await.unwrap().unwrap().ino, ino);
    let (more, cookie) = b.some_entries(cookie);
    assert_eq!(more, ["4", "5", "6", "7"]);
    let (last, _) = b.some_entries(cookie);
    assert!(last.len() == 1 && last[0].starts_with("1 (conflict desk "), "{last:?}");
    assert_eq!(b.some_entries(2).0, first);
}

/// The rows are all of the moment of the first, and a commit may end before the last is shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_closed_while_its_directory_is_read_is_shown_with_its_size() {
    let b = bench().await;
    b.write("a", "clean").await.unwrap();
    let (ino, fh) = b.create("x").await;
    b.fs.write(fh, Some(0), b"written", false).await.unwrap();
    let (runtime, fs) = (tokio::runtime::Handle::current(), Arc::clone(&b.fs));
    let close = async move {
        fs.flush(CALLER, fh).await.unwrap();
        fs.release(fh).await;
    };
    let (mut close, mut sizes) = (Some(close), Vec::new());
    let mut add = |entry: DirEntry<'_>| {
        if let Some(close) = close.take() {
            // This thread is in the runtime already.
            std::thread::scope(|scope| scope.spawn(|| runtime.block_on(close)).join().unwrap());
            assert!(b.fs.writer.get(ino).is_none(), "it is clean, and nobody has it open");
        }
        sizes.push((entry.name.to_vec(), entry.entry.attr.size));
        false
    };
    b.fs.readdir(Ino::ROOT, 2, &mut add).unwrap();
    assert_eq!(sizes, [(b"a".to_vec(), 5), (b"x".to_vec(), 7)]);
}
