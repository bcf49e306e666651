//! Names that are not UTF-8, and keys that spell names otherwise than we do. Owns nothing else.

use super::promises::bench_with;
use super::*;

fn raw(n: &[u8]) -> Name {
    Name::parse(n).unwrap()
}

impl Bench {
    async fn write_raw(&self, dir: Ino, n: &[u8], bytes: &str) -> Ino {
        let (entry, opened) = self.fs.create(CALLER, dir, raw(n), 0o644, CREATE).await.unwrap();
        self.fs.write(opened.fh, Some(0), bytes.as_bytes(), false).await.unwrap();
        self.fs.flush(CALLER, opened.fh).await.unwrap();
        self.fs.release(opened.fh).await;
        entry.ino
    }

    async fn read_raw(&self, dir: Ino, n: &[u8]) -> String {
        let entry = self.fs.lookup(dir, &raw(n)).await.unwrap().unwrap();
        let opened = self.fs.open(CALLER, entry.ino, libc::O_RDONLY).await.unwrap();
        let bytes = self.fs.read(opened.fh, 0, 1 << 20).await.unwrap();
        self.fs.release(opened.fh).await;
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn ls_raw(&self, dir: Ino) -> Vec<Vec<u8>> {
        if !self.fs.opendir(dir).await.unwrap() {
            while self.fs.follow(dir).goes_on().await.unwrap() {}
        }
        let mut names = Vec::new();
        let mut add = |entry: DirEntry<'_>| {
            names.push(entry.name.to_vec());
            false
        };
        self.fs.readdir(dir, 2, &mut add).unwrap();
        names.sort();
        names
    }

    async fn rename_raw(&self, from: (Ino, &[u8]), to: (Ino, &[u8])) {
        self.fs.rename((from.0, raw(from.1)), (to.0, raw(to.1)), false).await.unwrap();
    }

    fn unmappable_keys(&self) -> Vec<(String, String)> {
        self.fs.meta.unmappable("", 99).unwrap().into_iter().map(|(key, why, _)| (key, why)).collect()
    }
}

/// A directory, a file in it, one beside it, and one whose name has a character that stands for a byte in keys.
async fn plant(b: &Bench) {
    let dir = b.fs.mkdir(CALLER, Ino::ROOT, raw(b"d\xe9"), 0o755).await.unwrap().ino;
    b.write_raw(dir, b"\xff\xfe", "one").await;
    b.write_raw(Ino::ROOT, b"caf\xe9", "two").await;
    b.write_raw(Ino::ROOT, "\u{e0e9}".as_bytes(), "three").await;
}

async fn shows_all(b: &Bench, when: &str) {
    assert_eq!(b.ls_raw(Ino::ROOT).await, [&b"caf\xe9"[..], b"d\xe9", "\u{e0e9}".as_bytes()], "{when}");
    let dir = b.fs.lookup(Ino::ROOT, &raw(b"d\xe9")).await.unwrap().unwrap();
    assert_eq!(dir.attr.kind, FileKind::Dir, "{when}");
    assert_eq!(b.ls_raw(dir.ino).await, [b"\xff\xfe"], "{when}");
    assert_eq!(b.read_raw(dir.ino, b"\xff\xfe").await, "one", "{when}");
    assert_eq!(b.read_raw(Ino::ROOT, b"caf\xe9").await, "two", "{when}");
    assert_eq!(b.read_raw(Ino::ROOT, "\u{e0e9}".as_bytes()).await, "three", "{when}");
    assert_eq!(b.unmappable_keys(), [], "{when}");
}

#[tokio::test]
async fn names_that_are_not_utf8_have_the_keys_that_s3fs_gives_them_and_survive() {
    let b = bench().await;
    plant(&b).await;
    let wanted = [
        ("d\u{e0e9}/", ""),
        ("d\u{e0e9}/\u{e0ff}\u{e0fe}", "one"),
        ("caf\u{e0e9}", "two"),
        // Not so in s3fs, which would show it as the byte.
        ("\u{e0ee}\u{e083}\u{e0a9}", "three"),
    ];
    for (k, bytes) in wanted {
        assert_eq!(b.object(k).await.as_deref(), Some(bytes), "{k:?}");
    }
    shows_all(&b, "at once").await;
    b.advance(120);
    shows_all(&b, "after a listing").await;
    let b = b.remount().await;
    shows_all(&b, "after a remount").await;
    b.advance(120);
    assert!(b.fs.list_whole(9).await.unwrap().is_some());
    shows_all(&b, "after a listing of everything").await;
    let b = b.remount_without_catalogue().await;
    shows_all(&b, "without the catalogue").await;
}

#[tokio::test]
async fn names_that_are_not_utf8_are_renamed_and_removed() {
    let b = bench().await;
    plant(&b).await;
    let dir = b.fs.lookup(Ino::ROOT, &raw(b"d\xe9")).await.unwrap().unwrap().ino;
    b.rename_raw((Ino::ROOT, b"caf\xe9"), (dir, b"\xe9tude")).await;
    assert_eq!(b.object("d\u{e0e9}/\u{e0e9}tude").await.as_deref(), Some("two"));
    assert_eq!(b.object("caf\u{e0e9}").await, None);
    b.rename_raw((Ino::ROOT, b"d\xe9"), (Ino::ROOT, b"\x80")).await;
    assert_eq!(b.object("\u{e080}/\u{e0ff}\u{e0fe}").await.as_deref(), Some("one"));
    assert_eq!(b.read_raw(dir, b"\xe9tude").await, "two");
    b.fs.unlink(dir, raw(b"\xff\xfe")).await.unwrap();
    assert_eq!(b.object("\u{e080}/\u{e0ff}\u{e0fe}").await, None);
    b.advance(120);
    assert_eq!(b.ls_raw(dir).await, [b"\xe9tude"]);
    assert_eq!(b.ls_raw(Ino::ROOT).await, [&b"\x80"[..], "\u{e0e9}".as_bytes()]);
}

#[tokio::test]
async fn what_is_in_the_journal_finds_its_name_that_is_not_utf8_again() {
    let b = bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    b.write_raw(Ino::ROOT, b"caf\xe9", "acknowledged").await;
    assert_eq!(b.object("caf\u{e0e9}").await, None, "it is in the journal only");
    let b = b.remount_without_catalogue().await;
    assert_eq!(b.read_raw(Ino::ROOT, b"caf\xe9").await, "acknowledged");
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("caf\u{e0e9}").await.as_deref(), Some("acknowledged"));
    assert_eq!(b.ls_raw(Ino::ROOT).await, [&b"caf\xe9"[..], b"known"]);
}

#[tokio::test]
async fn what_others_have_escaped_is_shown_and_what_they_spell_otherwise_is_counted_and_unharmed() {
    let (by_bytes, below) = ("\u{e0c3}\u{e0bc}", "d/\u{e061}/b");
    for whole in [true, false] {
        let b = bench().await;
        for k in ["caf\u{e0e9}", by_bytes, "d/x", below] {
            b.foreign(k, "theirs").await;
        }
        if whole {
            assert!(b.fs.list_whole(9).await.unwrap().is_some());
        }
        assert_eq!(b.ls_raw(Ino::ROOT).await, [&b"caf\xe9"[..], b"d"]);
        let dir = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
        assert_eq!(b.ls_raw(dir).await, [b"x"]);
        assert_eq!(b.read_raw(Ino::ROOT, b"caf\xe9").await, "theirs");
        assert!(b.fs.lookup(Ino::ROOT, &name("ü")).await.unwrap().is_none(), "that is another key");
        let counted = [below, by_bytes].map(|k| (k.to_owned(), "other-spelling".to_owned()));
        assert_eq!(b.unmappable_keys(), counted, "the whole tree: {whole}");
        // The name that it would be is free, and becomes another object.
        b.write("ü", "ours").await.unwrap();
        assert_eq!(b.object("ü").await.as_deref(), Some("ours"));
        assert_eq!(b.object(by_bytes).await.as_deref(), Some("theirs"));
        b.fs.unlink(dir, name("x")).await.unwrap();
        assert_eq!(b.fs.rmdir(Ino::ROOT, name("d")).await.unwrap_err().errno(), libc::ENOTEMPTY);
        b.rename_raw((Ino::ROOT, b"d"), (Ino::ROOT, b"\xff")).await;
        assert_eq!(b.object("\u{e0ff}/\u{e061}/b").await.as_deref(), Some("theirs"));
        assert_eq!(b.object(below).await, None);
    }
}

#[tokio::test]
async fn a_name_of_255_bytes_is_a_file_as_long_as_its_key_fits() {
    let b = bench().await;
    let long = [0xff_u8; 255];
    b.write_raw(Ino::ROOT, &long, "long").await;
    assert_eq!(b.object(&"\u{e0ff}".repeat(255)).await.as_deref(), Some("long"));
    let dir = b.fs.mkdir(CALLER, Ino::ROOT, name(&"d".repeat(255)), 0o755).await.unwrap().ino;
    b.write_raw(dir, &long, "in a directory").await;
    let deep = b.fs.mkdir(CALLER, dir, name("deep"), 0o755).await.unwrap().ino;
    let refused = b.fs.create(CALLER, deep, raw(&long), 0o644, CREATE).await.unwrap_err();
    assert_eq!(refused.errno(), libc::ENAMETOOLONG);
    assert!(b.fs.lookup(deep, &raw(&long)).await.unwrap().is_none());
    let b = b.remount_without_catalogue().await;
    assert_eq!(b.read_raw(Ino::ROOT, &long).await, "long");
    let dir = b.fs.lookup(Ino::ROOT, &name(&"d".repeat(255))).await.unwrap().unwrap().ino;
    assert_eq!(b.ls_raw(dir).await, [b"deep".to_vec(), long.to_vec()]);
}

#[tokio::test]
async fn a_conflict_copy_keeps_the_bytes_of_the_name() {
    let b = bench().await;
    let ino = b.write_raw(Ino::ROOT, b"caf\xe9.txt", "base").await;
    let opened = b.fs.open(CALLER, ino, libc::O_RDWR).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"ours", false).await.unwrap();
    b.foreign("caf\u{e0e9}.txt", "theirs").await;
    b.fs.flush(CALLER, opened.fh).await.unwrap();
    b.fs.release(opened.fh).await;
    let names = b.ls_raw(Ino::ROOT).await;
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with(b"caf\xe9 (conflict desk ") && names[0].ends_with(b").txt"), "{names:?}");
    assert_eq!(b.fs.conflict_of(ino).unwrap().as_deref(), Some(&b"caf\xe9.txt"[..]));
    let stored = b.memory.head(&key(&raw(&names[0]).to_component())).await.unwrap().headers;
    assert_eq!(stored.user.get("objfs-conflict").map(String::as_str), Some("caf%E9%2Etxt"));
    assert_eq!(b.read_raw(Ino::ROOT, &names[0]).await, "ours");
    assert_eq!(b.read_raw(Ino::ROOT, b"caf\xe9.txt").await, "theirs");
    assert_eq!(b.object("caf\u{e0e9}.txt").await.as_deref(), Some("theirs"));
}
