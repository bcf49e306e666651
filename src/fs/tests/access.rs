//! Times of last access. Owns nothing else.

use super::*;

const DAY: u64 = 24 * 60 * 60;

impl Bench {
    fn attr(&self, ino: Ino) -> Attr {
        self.fs.getattr(ino).unwrap().attr
    }

    /// What the catalogue has, with all that was read so far.
    async fn stored(&self, ino: Ino) -> Attr {
        self.fs.write_atimes().await;
        self.fs.meta.get(ino).unwrap().unwrap().attr
    }

    fn writes(&self) -> u64 {
        [Op::Put, Op::Copy, Op::CreateUpload].map(|op| self.count(op)).iter().sum()
    }
}

#[tokio::test]
async fn the_first_read_of_a_handle_moves_the_atime_where_relatime_says_so() {
    let b = bench().await;
    b.foreign("a", "text").await;
    b.advance(10);
    let (ino, fh) = b.open("a", libc::O_RDONLY).await;
    let before = b.attr(ino);
    assert_eq!(before.atime, before.mtime, "opened, and not read");
    let writes = b.writes();
    b.fs.read(fh, 0, 4).await.unwrap();
    let read = Attr { atime: b.clock.now(), ..before.clone() };
    assert_eq!(b.attr(ino), read, "at once");
    assert_eq!(b.stored(ino).await, read);
    b.advance(10);
    b.fs.read(fh, 0, 4).await.unwrap();
    b.fs.release(fh).await;
    b.read("a").await;
    assert_eq!(b.attr(ino), read, "read since it was changed, and today");
    b.advance(DAY);
    b.read("a").await;
    assert_eq!(b.attr(ino), Attr { atime: b.clock.now(), ..before });
    assert_eq!(b.writes(), writes, "the bucket is told nothing");
    assert_eq!(b.fs.pending().unwrap().files, 0);
}

#[tokio::test]
async fn an_atime_survives_a_remount_and_a_listing_but_not_another_version() {
    let b = bench().await;
    b.foreign("a", "text").await;
    b.advance(10);
    b.read("a").await;
    let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    let read_at = b.clock.now();
    let b = b.remount().await;
    assert_eq!(b.attr(ino).atime, read_at, "written at the end, without waiting");
    b.ls(Ino::ROOT).await;
    b.fs.refresh(ino).await.unwrap();
    assert_eq!(b.attr(ino).atime, read_at);
    b.foreign("a", "other").await;
    b.fs.refresh(ino).await.unwrap();
    let other = b.attr(ino);
    assert_eq!((other.size, other.atime), (5, other.mtime), "nobody has read that");
}

#[tokio::test]
async fn an_atime_outlives_a_kill_a_moment_later() {
    let b = bench().await;
    b.foreign("a", "text").await;
    b.advance(10);
    b.read("a").await;
    let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    let read_at = b.clock.now();
    // Nobody asks for that.
    let written = async {
        while b.fs.meta.get(ino).unwrap().unwrap().attr.atime != read_at {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
    let b = b.crash().await;
    assert_eq!(b.attr(ino).atime, read_at);
}

#[tokio::test]
async fn reading_a_directory_or_a_link_moves_nothing() {
    let b = bench().await;
    let dir = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap().ino;
    let link = b.fs.symlink(CALLER, Ino::ROOT, name("l"), Bytes::from_static(b"d")).await.unwrap().ino;
    let before = [b.stored(dir).await, b.stored(link).await];
    b.advance(10);
    b.ls(dir).await;
    assert_eq!(b.fs.readlink(link).await.unwrap(), "d");
    assert_eq!([b.stored(dir).await, b.stored(link).await], before);
}

#[tokio::test]
async fn a_file_whose_pages_the_kernel_has_is_read_when_it_is_opened() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    let told = b.kernel();
    b.advance(10);
    let (_, written_only) = b.open("a", libc::O_WRONLY).await;
    b.fs.release(written_only).await;
    assert!(b.attr(ino).atime < b.clock.now());
    let (_, fh) = b.open("a", libc::O_RDONLY).await;
    assert_eq!(b.attr(ino).atime, b.clock.now());
    assert!(told.0.lock().unwrap().contains(&format!("attr {ino}")), "it would show the old one for a minute");
    b.fs.release(fh).await;
}

#[tokio::test]
async fn what_is_written_and_read_through_one_handle_goes_with_its_commit() {
    let b = bench().await;
    b.write("before", "the probe is over").await.unwrap();
    let writes = b.writes();
    let (ino, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"text", false).await.unwrap();
    b.advance(10);
    b.fs.read(fh, 0, 4).await.unwrap();
    let read_at = b.stored(ino).await.atime;
    assert_eq!(read_at, b.clock.now());
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.writes() - writes, 1);
    let said = b.memory.head(&key("a")).await.unwrap().headers.user["atime"].clone();
    assert!(said.starts_with(&read_at.secs().to_string()), "{said}");
}

#[tokio::test]
async fn an_atime_that_somebody_sets_is_not_that_of_an_earlier_read() {
    let b = bench().await;
    b.foreign("a", "text").await;
    b.advance(10);
    b.read("a").await;
    let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    let old = Timestamp::from_parts(5, 0);
    let set = SetAttr { atime: Some(SetTime::At(old)), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, set, false).await.unwrap();
    assert_eq!((b.attr(ino).atime, b.stored(ino).await.atime), (old, old));
}

#[tokio::test]
async fn nothing_moves_where_nothing_is_to_move() {
    for (read_only, noatime, flags) in [(true, false, 0), (false, true, 0), (false, false, libc::O_NOATIME)] {
        let b = bench().await;
        b.foreign("a", "text").await;
        let Bench { fs, memory, clock, dir, .. } = b;
        fs.close();
        let set =
            |settings: &mut Settings, _: &mut Defaults| (settings.read_only, settings.noatime) = (read_only, noatime);
        let b = mount_set(dir, memory, clock, crate::write::Settings::default(), set).await;
        b.advance(10);
        for _ in 0..2 {
            let (ino, fh) = b.open("a", libc::O_RDONLY | flags).await;
            b.fs.read(fh, 0, 4).await.unwrap();
            b.fs.release(fh).await;
            let stored = b.stored(ino).await;
            assert_eq!((b.attr(ino).atime, stored.atime), (stored.mtime, stored.mtime), "{read_only} {noatime}");
        }
    }
}
