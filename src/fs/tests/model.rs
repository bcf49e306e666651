//! Random work of ours and of others, against a bucket that tells the truth.
//!
//! Owns: the steps, and what must hold after each. Every content is written once only, so that what is lost can be named.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A path of up to three names out of three.
type Path = Vec<u8>;

#[derive(Debug, Clone)]
enum Step {
    Write(Path),
    Append(Path),
    Unlink(Path),
    Mkdir(Path),
    Rmdir(Path),
    Rename(Path, Path),
    ForeignPut(Path),
    ForeignDelete(Path),
    ForeignMarker(Path),
    ForeignUnmark(Path),
    ForeignMove(Path, Path),
    Poll(bool),
    Wait(u8),
    Settle,
    Remount,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let path = || prop::collection::vec(0u8..3, 1..=3);
    let step = prop_oneof![
        4 => path().prop_map(Step::Write),
        1 => path().prop_map(Step::Append),
        2 => path().prop_map(Step::Unlink),
        2 => path().prop_map(Step::Mkdir),
        2 => path().prop_map(Step::Rmdir),
        3 => (path(), path()).prop_map(|(a, b)| Step::Rename(a, b)),
        4 => path().prop_map(Step::ForeignPut),
        2 => path().prop_map(Step::ForeignDelete),
        1 => path().prop_map(Step::ForeignMarker),
        1 => path().prop_map(Step::ForeignUnmark),
        2 => (path(), path()).prop_map(|(a, b)| Step::ForeignMove(a, b)),
        2 => any::<bool>().prop_map(Step::Poll),
        1 => (0u8..100).prop_map(Step::Wait),
        1 => Just(Step::Settle),
        1 => Just(Step::Remount),
        1 => Just(Step::Crash),
    ];
    // Whether the tree is compared after the step: that asks the bucket, and hides what staleness does.
    prop::collection::vec((step, prop::bool::weighted(0.7)), 1..25)
}

fn text(path: &[u8]) -> String {
    path.iter().map(|n| ["a", "b", "c"][usize::from(*n)]).collect::<Vec<_>>().join("/")
}

struct World {
    bench: Option<Bench>,
    next: u32,
    /// Inode numbers when the tree was last compared, by path and content.
    inos: BTreeMap<(String, String), Ino>,
    /// Directories that were emptied through the mount.
    emptied: BTreeSet<String>,
    /// Directories whose marker somebody else deleted: emptied through the mount, they may be gone.
    unmarked: BTreeSet<String>,
    /// What was appended to versions that were gone by then, and refused: it is kept, and cannot be completed.
    kept_apart: Vec<&'static str>,
}

/// The tree as the mount shows it.
#[derive(Default)]
struct Tree {
    /// With a slash at the end.
    dirs: BTreeSet<String>,
    /// With content and inode number.
    files: BTreeMap<String, (String, Ino)>,
    /// Files that lack bytes of a version that is gone.
    apart: Vec<String>,
}

impl World {
    fn b(&self) -> &Bench {
        self.bench.as_ref().unwrap()
    }

    fn content(&mut self) -> &'static str {
        self.next += 1;
        Box::leak(format!("content {}", self.next).into_boxed_str())
    }

    /// Objects of the bucket but objfs' own.
    async fn bucket(&self) -> BTreeMap<String, String> {
        let request =
            crate::store::ListRequest { prefix: Key::root(), delimited: false, continuation: None, max_keys: 1000 };
        let page = self.b().memory.list(&request).await.unwrap();
        let mut all = BTreeMap::new();
        for object in page.objects.iter().filter(|o| !o.key.as_str().starts_with(".objfs/")) {
            all.insert(object.key.as_str().to_owned(), self.b().object(object.key.as_str()).await.unwrap());
        }
        all
    }

    /// The directory of a path and its last name, looked up as the kernel does.
    async fn parent(&self, path: &[u8]) -> Result<(Ino, Name)> {
        let (last, dirs) = path.split_last().unwrap();
        let mut at = Ino::ROOT;
        for dir in dirs {
            let entry = self.b().fs.lookup(at, &name(&text(&[*dir]))).await?.ok_or(FsError::NotFound)?;
            if entry.attr.kind != FileKind::Dir {
                return Err(FsError::NotDir);
            }
            at = entry.ino;
        }
        Ok((at, name(&text(&[*last]))))
    }

    async fn write(&self, path: &[u8], content: &str, append: bool) -> Result<()> {
        let fs = &self.b().fs;
        let (parent, name) = self.parent(path).await?;
        let fh = match fs.lookup(parent, &name).await? {
            Some(entry) if append => fs.open(CALLER, entry.ino, libc::O_WRONLY | libc::O_APPEND).await?.fh,
            Some(entry) => fs.open(CALLER, entry.ino, libc::O_WRONLY | libc::O_TRUNC).await?.fh,
            None => fs.create(CALLER, parent, name, 0o644, CREATE | libc::O_TRUNC).await?.1.fh,
        };
        let at = if append { None } else { Some(0) };
        let written = fs.write(fh, at, content.as_bytes(), false).await;
        let flushed = fs.flush(CALLER, fh).await;
        fs.release(fh).await;
        written.and(flushed)
    }

    async fn unlink(&self, path: &[u8]) -> Result<()> {
        let (parent, name) = self.parent(path).await?;
        self.b().fs.unlink(parent, name).await
    }

    async fn mkdir(&self, path: &[u8]) -> Result<()> {
        let (parent, name) = self.parent(path).await?;
        self.b().fs.mkdir(CALLER, parent, name, 0o755).await.map(drop)
    }

    async fn rmdir(&self, path: &[u8]) -> Result<()> {
        let (parent, name) = self.parent(path).await?;
        self.b().fs.rmdir(parent, name).await
    }

    async fn rename(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from, to) = (self.parent(from).await?, self.parent(to).await?);
        self.b().fs.rename(from, to, false).await
    }

    /// One step of ours. Answers what may be lost by it: the content at these keys.
    async fn ours(&mut self, step: &Step) -> (Result<()>, Vec<String>) {
        match step {
            Step::Write(path) => {
                let content = self.content();
                let done = self.write(path, content, false).await;
                if done.is_ok() {
                    let kept = self.bucket().await.values().any(|c| c == content);
                    assert!(kept, "{content:?} was acknowledged, and the bucket has it nowhere");
                }
                (done, vec![text(path)])
            }
            Step::Append(path) => {
                let content = self.content();
                let done = self.write(path, content, true).await;
                if done.is_ok() {
                    let kept = self.bucket().await.values().any(|c| c.ends_with(content));
                    assert!(kept, "{content:?} was acknowledged, and the bucket has it nowhere");
                }
                if done.as_ref().is_err_and(|e| e.errno() == libc::ESTALE) {
                    self.kept_apart.push(content);
                }
                // It goes on in the longer one.
                (done, vec![text(path)])
            }
            Step::Unlink(path) => (self.unlink(path).await, vec![text(path)]),
            Step::Mkdir(path) => (self.mkdir(path).await, vec![]),
            Step::Rmdir(path) => (self.rmdir(path).await, vec![]),
            Step::Rename(from, to) => (self.rename(from, to).await, vec![text(to)]),
            _ => unreachable!("not ours"),
        }
    }

    async fn run(&mut self, step: &Step) {
        let b = self.b();
        match step {
            Step::ForeignPut(path) => {
                let content = self.content();
                self.b().foreign(&text(path), content).await;
            }
            Step::ForeignDelete(path) => b.foreign_delete(&text(path)).await,
            Step::ForeignMarker(path) => b.foreign(&format!("{}/", text(path)), "").await,
            Step::ForeignUnmark(path) => {
                let marker = format!("{}/", text(path));
                if b.object(&marker).await.is_some() {
                    b.foreign_delete(&marker).await;
                    self.emptied.remove(&marker);
                    self.unmarked.insert(marker);
                }
            }
            Step::ForeignMove(from, to) => {
                if let Some(content) = b.object(&text(from)).await.filter(|_| from != to) {
                    b.foreign(&text(to), Box::leak(content.into_boxed_str())).await;
                    b.foreign_delete(&text(from)).await;
                    self.note_left(from);
                }
            }
            Step::Poll(whole) => {
                b.advance(1);
                if *whole {
                    assert!(b.fs.list_whole(100).await.unwrap().is_some());
                } else {
                    let _ = self.tree(true).await;
                }
            }
            Step::Wait(secs) => b.advance(u64::from(*secs)),
            Step::Settle => self.settle().await,
            Step::Remount => {
                self.settle().await;
                self.bench = Some(self.bench.take().unwrap().remount().await);
            }
            // Nothing is drained, nothing is closed in order; every close was acknowledged.
            Step::Crash => self.bench = Some(self.bench.take().unwrap().crash().await),
            ours => {
                let before = self.bucket().await;
                let (done, may_go) = self.ours(ours).await;
                self.nothing_is_lost(ours, &before, &done, &may_go).await;
                if let (Step::Rename(from, _), true) = (ours, done.is_ok()) {
                    self.note_left(from);
                }
                self.note_emptied(ours, &done).await;
            }
        }
    }

    async fn settle(&self) {
        // What is kept apart never gets to the bucket.
        if self.kept_apart.is_empty() {
            assert_eq!(self.b().fs.drain(Duration::from_secs(5)).await.unwrap(), Drained::Clean);
        }
    }

    async fn nothing_is_lost(
        &self,
        step: &Step,
        before: &BTreeMap<String, String>,
        done: &Result<()>,
        may_go: &[String],
    ) {
        let after = self.bucket().await;
        for (key, content) in before.iter().filter(|(_, content)| !content.is_empty()) {
            let may_go = done.is_ok() && may_go.contains(key);
            let is_kept = after.values().any(|c| c.starts_with(content.as_str()));
            assert!(may_go || is_kept, "{step:?} ({done:?}) lost {content:?} of {key}: {after:?}");
        }
    }

    /// What was at a path went elsewhere. Should the same content come back, it may be another file.
    fn note_left(&mut self, path: &[u8]) {
        let (file, below) = (text(path), format!("{}/", text(path)));
        self.inos.retain(|(path, _), _| *path != file && !path.starts_with(&below));
    }

    /// A directory that was emptied through the mount stays.
    async fn note_emptied(&mut self, step: &Step, done: &Result<()>) {
        if done.is_err() {
            return;
        }
        let bucket = self.bucket().await;
        let from = match step {
            Step::Unlink(path) | Step::Rmdir(path) | Step::Rename(path, _) => path,
            _ => return,
        };
        let gone = format!("{}/", text(from));
        let moved: Vec<String> = self.emptied.iter().filter(|dir| dir.starts_with(&gone)).cloned().collect();
        self.emptied.retain(|dir| !dir.starts_with(&gone));
        if let Step::Rename(_, to) = step {
            self.emptied.extend(moved.iter().map(|dir| format!("{}/{}", text(to), &dir[gone.len()..])));
            // What was in the directory may be gone elsewhere meanwhile; it was renamed all the same, and stays.
            let (parent, name) = self.parent(to).await.unwrap();
            let there = self.b().fs.lookup(parent, &name).await.unwrap();
            let dir = format!("{}/", text(to));
            if there.is_some_and(|e| e.attr.kind == FileKind::Dir) && !bucket.keys().any(|key| key.starts_with(&dir)) {
                self.emptied.insert(dir);
            }
        }
        if let (_, [dirs @ .., _]) = from.split_at(0)
            && !dirs.is_empty()
        {
            let dir = format!("{}/", text(dirs));
            let may_be_gone = self.unmarked.contains(&dir) && !self.is_dir(dirs).await;
            if !may_be_gone && !bucket.keys().any(|key| key.starts_with(&dir)) {
                self.emptied.insert(dir);
            }
        }
    }

    /// Whether the mount shows a directory there once it has asked.
    async fn is_dir(&self, path: &[u8]) -> bool {
        self.b().advance(1);
        self.tree(true).await.dirs.contains(&format!("{}/", text(path)))
    }

    /// Content and size of a file whose beginning is gone: what was appended here.
    async fn read_apart(&self, path: &str, fh: Fh, size: u64) {
        assert!(path.contains(" (conflict "), "{path}: somebody else's version keeps the name");
        for content in &self.kept_apart {
            let at = size.saturating_sub(content.len() as u64);
            let tail = self.b().fs.read(fh, at, content.len() as u32).await;
            if tail.is_ok_and(|tail| tail == content.as_bytes()) {
                return;
            }
        }
        panic!("{path} cannot be read, and has nothing that was written here");
    }

    /// The tree as the mount shows it. `fresh`: after asking.
    async fn tree(&self, fresh: bool) -> Tree {
        let mut tree = Tree::default();
        let mut todo = vec![(Ino::ROOT, String::new())];
        let fs = &self.b().fs;
        while let Some((dir, path)) = todo.pop() {
            if fresh {
                fs.refresh(dir).await.unwrap();
            }
            let mut entries = Vec::new();
            let mut add = |e: DirEntry<'_>| {
                entries.push((String::from_utf8(e.name.to_vec()).unwrap(), e.entry));
                false
            };
            fs.readdir(dir, 2, &mut add).unwrap();
            for (name, entry) in entries {
                let path = format!("{path}{name}");
                if entry.attr.kind == FileKind::Dir {
                    tree.dirs.insert(format!("{path}/"));
                    todo.push((entry.ino, format!("{path}/")));
                } else {
                    let opened = fs.open(CALLER, entry.ino, libc::O_RDONLY).await.unwrap();
                    match fs.read(opened.fh, 0, 1 << 16).await {
                        Ok(bytes) => {
                            assert_eq!(entry.attr.size, bytes.len() as u64, "{path}");
                            tree.files.insert(path, (String::from_utf8(bytes.to_vec()).unwrap(), entry.ino));
                        }
                        Err(e) => {
                            assert_eq!(e.errno(), libc::ESTALE, "{path}: {e}");
                            self.read_apart(&path, opened.fh, entry.attr.size).await;
                            tree.apart.push(path);
                        }
                    }
                    fs.release(opened.fh).await;
                }
            }
        }
        tree
    }

    async fn compare(&mut self) {
        self.b().advance(1);
        let Tree { dirs, files, apart } = self.tree(true).await;
        let bucket = self.bucket().await;
        let mut wanted_dirs: BTreeSet<String> = self.emptied.clone();
        for key in bucket.keys().chain(&apart) {
            wanted_dirs.extend(key.match_indices('/').map(|(at, _)| key[..=at].to_owned()));
        }
        for dir in self.emptied.clone() {
            wanted_dirs.extend(dir.match_indices('/').map(|(at, _)| dir[..=at].to_owned()));
        }
        // What stands beside a directory of its name is hidden by it.
        let is_shown = |key: &&String| !key.ends_with('/') && !wanted_dirs.contains(&format!("{key}/"));
        let wanted: BTreeMap<&String, &String> = bucket.iter().filter(|(key, _)| is_shown(key)).collect();
        let shown: BTreeMap<&String, &String> = files.iter().map(|(path, (content, _))| (path, content)).collect();
        assert_eq!(shown, wanted, "files");
        assert_eq!(dirs, wanted_dirs, "directories");
        for (path, (content, ino)) in &files {
            if let Some(before) = self.inos.get(&(path.clone(), content.clone())) {
                assert_eq!(before, ino, "the inode number of {path}, which did not change");
            }
        }
        self.inos = files.into_iter().map(|(path, (content, ino))| ((path, content), ino)).collect();
    }
}

async fn work(steps: &[(Step, bool)]) {
    let mut world = World {
        bench: Some(bench().await),
        next: 0,
        inos: BTreeMap::new(),
        emptied: BTreeSet::new(),
        unmarked: BTreeSet::new(),
        kept_apart: Vec::new(),
    };
    for (step, compare) in steps {
        world.run(step).await;
        if *compare {
            world.compare().await;
        }
    }
    world.compare().await;
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("OBJFS_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256),
        max_shrink_iters: 2000,
        // The same cases in every run, unless somebody asks for a number of others.
        rng_seed: match std::env::var_os("OBJFS_MODEL_CASES") {
            Some(_) => proptest::test_runner::RngSeed::Random,
            None => proptest::test_runner::RngSeed::Fixed(1),
        },
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_tree_agrees_with_the_bucket_and_nothing_is_lost(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(&steps));
    }
}
