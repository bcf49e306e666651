//! What st_nlink shows. Owns nothing else.

use super::*;

impl Bench {
    /// The links of a name. LOOKUP, READDIRPLUS and GETATTR show the same: the kernel keeps what it was told last.
    async fn links(&self, parent: Ino, n: &str) -> u32 {
        let found = self.fs.lookup(parent, &name(n)).await.unwrap().unwrap();
        let mut read = None;
        let mut add = |entry: DirEntry<'_>| {
            if entry.name == n.as_bytes() {
                read = Some(entry.entry.nlink);
            }
            false
        };
        self.fs.readdir(parent, 2, &mut add).unwrap();
        let asked = self.fs.getattr(found.ino).unwrap().nlink;
        assert_eq!((read, asked), (Some(found.nlink), found.nlink), "{n}");
        found.nlink
    }
}

#[tokio::test]
async fn a_file_that_is_only_open_has_no_links() {
    let b = bench().await;
    for n in ["deleted", "replaced", "new"] {
        b.write(n, "x").await.unwrap();
    }
    let (deleted, first) = b.open("deleted", libc::O_RDONLY).await;
    let (replaced, second) = b.open("replaced", libc::O_RDONLY).await;
    let links = |ino: Ino| b.fs.getattr(ino).unwrap().nlink;
    assert_eq!((links(deleted), links(replaced)), (1, 1));
    b.fs.unlink(Ino::ROOT, name("deleted")).await.unwrap();
    b.fs.rename((Ino::ROOT, name("new")), (Ino::ROOT, name("replaced")), false).await.unwrap();
    assert_eq!((links(deleted), links(replaced)), (0, 0));
    assert_eq!(b.links(Ino::ROOT, "replaced").await, 1);
    b.fs.release(first).await;
    b.fs.release(second).await;
}

#[tokio::test]
async fn a_directory_has_a_link_for_each_subdirectory_once_its_names_are_known() {
    let b = bench().await;
    for k in ["d/s/x", "d/t/x", "d/f", "e/x"] {
        b.foreign(k, "x").await;
    }
    assert_eq!(b.links(Ino::ROOT, "d").await, 1, "nobody has listed it");
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    let e = b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().ino;
    for dir in [Ino::ROOT, d, e] {
        b.ls(dir).await;
    }
    assert_eq!((b.links(Ino::ROOT, "d").await, b.links(Ino::ROOT, "e").await), (4, 2));
    assert_eq!(b.fs.getattr(Ino::ROOT).unwrap().nlink, 4);
    let told = b.kernel();
    b.foreign("d/u/x", "x").await;
    b.advance(120);
    b.ls(d).await;
    assert_eq!(b.links(Ino::ROOT, "d").await, 5);
    assert!(told.0.lock().unwrap().contains(&format!("attr {d}")), "the kernel has another count");
    b.fs.rename((d, name("s")), (e, name("s")), false).await.unwrap();
    assert_eq!((b.links(Ino::ROOT, "d").await, b.links(Ino::ROOT, "e").await), (4, 3));
    b.fs.mkdir(CALLER, d, name("made"), 0o755).await.unwrap();
    assert_eq!((b.links(Ino::ROOT, "d").await, b.links(d, "made").await), (5, 2));
    b.fs.rmdir(d, name("made")).await.unwrap();
    assert_eq!(b.links(Ino::ROOT, "d").await, 4);
}

#[tokio::test]
async fn subdirectories_are_counted_up_to_a_thousand() {
    let b = bench().await;
    for i in 0..1001 {
        b.foreign(&format!("many/{i:04}/x"), "x").await;
    }
    let many = b.fs.lookup(Ino::ROOT, &name("many")).await.unwrap().unwrap().ino;
    assert_eq!(b.ls(many).await.len(), 1001);
    assert_eq!(b.links(Ino::ROOT, "many").await, 1);
    b.foreign_delete("many/0000/x").await;
    b.advance(120);
    assert_eq!(b.ls(many).await.len(), 1000);
    assert_eq!(b.links(Ino::ROOT, "many").await, 1002);
}

#[tokio::test]
async fn nothing_is_counted_for_the_two_names_that_every_directory_has() {
    let b = bench().await;
    for k in ["d/s/x", "d/t/x"] {
        b.foreign(k, "x").await;
    }
    b.ls(Ino::ROOT).await;
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.ls(d).await;
    let mut read = Vec::new();
    let mut add = |entry: DirEntry<'_>| {
        let Entry { ino, attr, nlink, .. } = entry.entry;
        read.push((String::from_utf8(entry.name.to_vec()).unwrap(), ino, attr.kind, nlink));
        read.len() == 2
    };
    b.fs.readdir(d, 0, &mut add).unwrap();
    let dots = [(".", d), ("..", Ino::ROOT)].map(|(n, ino)| (n.to_owned(), ino, FileKind::Dir, 1));
    assert_eq!(read[..2], dots);
}
