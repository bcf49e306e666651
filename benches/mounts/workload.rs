//! The workloads, as data.
//!
//! Owns: which steps each has, on which objects, what bounds it, on which profiles it runs by default.
//! Does not own: how a step is done (`step`), how the bound is measured (`limit`), how objects come about (`data`).

use crate::figures::Unit;
use crate::step::Step;
use std::sync::LazyLock;

/// Sizes that workloads and data have to agree upon.
pub(crate) const GIB: u64 = 1 << 30;
/// The tree that `cp -r` copies: files, and directories that they are in.
pub(crate) const TREE_FILES: u64 = 6400;
pub(crate) const TREE_DIRS: u64 = 1024;
/// Objects of the directory that is renamed, files that rsync looks at, and files that are created.
pub(crate) const MANY: u64 = 1000;
/// Media files, and EPUBs.
pub(crate) const LIBRARY: u64 = 100;
/// Objects below the two listed prefixes, and in each directory there.
pub(crate) const LISTED: u64 = 50_000;
pub(crate) const LISTED_FANOUT: u64 = 500;
pub(crate) const MILLION: u64 = 1_000_000;
pub(crate) const MILLION_FANOUT: u64 = 1000;

/// The objects below the prefix that is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layout {
    /// One file of 1 GiB and four of 256 MiB, shared by all contestants.
    Big,
    /// 50,000 objects in directories of 500, shared.
    Listed,
    /// 1,000,000 objects in directories of 1,000, shared. Generated: only the dev server has them.
    Million,
    /// 100 films, shared.
    Media,
    /// 100 EPUBs, shared.
    Books,
    /// Nothing, for this mount alone.
    Empty,
    /// 1,000 objects in a directory, for this mount alone.
    Directory,
    /// One object of 1 GiB, for this mount alone.
    OneBig,
}

/// What bounds a step: the bare client, or the native file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Ranged GETs of 64 MiB of the big file, on 1 to 16 connections.
    Get,
    /// GETs of so many bytes at random places, one after the other.
    RandomGet(u64),
    /// A multipart upload of 1 GiB by the SDK, with the parts that objfs sends and as many at once, from memory.
    Upload,
    /// PUTs of objects of so many bytes, on 1 to 16 connections.
    PutSmall(usize),
    /// PUTs of objects of so many bytes by the SDK, one after the other.
    PutSerially(usize),
    /// GETs of whole small objects, on 1 to 16 connections.
    GetSmall,
    /// DELETEs, on 1 to 16 connections.
    Delete,
    /// All pages of a flat listing, one after the other; the unit is the object.
    List,
    /// CopyObject and DeleteObject, on 1 to 16 connections.
    CopyDelete,
    /// UploadPartCopy of 1 GiB, a part of one byte, completion.
    Append,
    /// A HEAD and a GET of so many bytes for each object, one object after the other.
    HeadAndGet(u64),
    /// The same step on the native file system.
    Native,
}

/// Something to do with a mount.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Without measuring.
    Prepare(Step),
    /// Measured; pages are dropped before it unless it is about them.
    Measure(Measure),
    /// Unmount and mount again, with the state that the first mount left; pages are dropped.
    Remount,
}

/// A measured step.
#[derive(Debug, Clone)]
pub(crate) struct Measure {
    pub(crate) row: &'static str,
    pub(crate) about: &'static str,
    pub(crate) unit: Unit,
    pub(crate) step: Step,
    pub(crate) limit: Limit,
    pub(crate) keep_pages: bool,
    /// What the bucket has below the mount's prefix if the step was durable when it returned.
    pub(crate) leaves: Option<Leaves>,
}

/// What a step leaves in the bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leaves {
    /// This object, with this size.
    Size(&'static str, u64),
    /// So many objects below this prefix; markers of directories do not count.
    Count(&'static str, u64),
}

/// A sequence of actions on one mount.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) layout: Layout,
    pub(crate) actions: Vec<Action>,
    /// Profiles of the default set.
    pub(crate) profiles: &'static [&'static str],
    /// For us and the limit only.
    pub(crate) without_peers: bool,
}

const ALL: &[&str] = &["lan", "s3", "garage"];
const LAN: &[&str] = &["lan"];
const LAN_S3: &[&str] = &["lan", "s3"];
const LAN_GARAGE: &[&str] = &["lan", "garage"];

fn workload(name: &'static str, layout: Layout, profiles: &'static [&'static str], actions: Vec<Action>) -> Workload {
    Workload { name, layout, actions, profiles, without_peers: layout == Layout::Million }
}

fn measure(row: &'static str, about: &'static str, unit: Unit, limit: Limit, step: Step) -> Measure {
    Measure { row, about, unit, step, limit, keep_pages: false, leaves: None }
}

impl Measure {
    fn leaves(mut self, leaves: Leaves) -> Action {
        self.leaves = Some(leaves);
        Action::Measure(self)
    }

    fn with_pages(mut self) -> Action {
        self.keep_pages = true;
        Action::Measure(self)
    }

    fn cold(self) -> Action {
        Action::Measure(self)
    }
}

/// All workloads, in the order in which they run.
pub(crate) static WORKLOADS: LazyLock<Vec<Workload>> = LazyLock::new(|| {
    let mut all = reads();
    all.extend(fio_jobs());
    all.extend(writes());
    all.extend(listings());
    all.extend(programs());
    all
});

fn whole() -> Step {
    Step::Read { files: vec!["1GiB.bin".to_owned()], size: GIB }
}

fn fio(row: &'static str, about: &'static str, unit: Unit, limit: Limit, arguments: &str) -> Vec<Action> {
    let step = Step::Fio { file: "1GiB.bin".to_owned(), arguments: words(arguments) };
    vec![measure(row, about, unit, limit, step).cold()]
}

fn random(row: &'static str, about: &'static str, block: u64) -> Vec<Action> {
    let step = Step::Random { file: "1GiB.bin".to_owned(), size: GIB, block, seconds: 5.0 };
    vec![measure(row, about, Unit::Operations, Limit::RandomGet(block), step).cold()]
}

fn reads() -> Vec<Workload> {
    use Unit::Bytes;
    let four = Step::Read { files: (0..4).map(|i| format!("256MiB-{i}.bin")).collect(), size: GIB / 4 };
    let one = measure("read-1", "sequential read of 1 GiB, 1 stream, cold", Bytes, Limit::Get, whole()).cold();
    let four = measure("read-4", "sequential read of 4 x 256 MiB, 4 streams, cold", Bytes, Limit::Get, four).cold();
    let page = measure("reread-page", "1 GiB again, warm in the page cache", Bytes, Limit::Native, whole());
    let disk = measure("reread-disk", "1 GiB again, after a remount, pages dropped", Bytes, Limit::Native, whole());
    let reread = vec![Action::Prepare(whole()), page.with_pages(), Action::Remount, disk.cold()];
    let random_4k = random("random-4k", "random reads of 4 KiB in 1 GiB, 5 s", 4 << 10);
    let random_128k = random("random-128k", "random reads of 128 KiB in 1 GiB, 5 s", 128 << 10);
    vec![
        workload("read-1", Layout::Big, ALL, vec![one]),
        workload("read-4", Layout::Big, ALL, vec![four]),
        workload("random-4k", Layout::Big, LAN_S3, random_4k),
        workload("random-128k", Layout::Big, LAN_S3, random_128k),
        workload("reread", Layout::Big, LAN_GARAGE, reread),
    ]
}

/// The jobs of mountpoint-s3's `fs_bench.sh`, cut to 1 GiB.
fn fio_jobs() -> Vec<Workload> {
    use Unit::{Bytes, Milliseconds};
    let about = "mountpoint-s3's fio job seq_read, 1 GiB";
    let seq = fio("fio-seq", about, Bytes, Limit::Get, "--rw=read --bs=256k");
    let (about, limit) = ("mountpoint-s3's fio job rand_read, 5 s", Limit::RandomGet(256 << 10));
    let rand = fio("fio-rand", about, Bytes, limit, "--rw=randread --bs=256k --runtime=5 --time_based");
    let about = "mountpoint-s3's fio job seq_read_skip_17m, 1 GiB";
    let skip = fio("fio-skip-17m", about, Bytes, Limit::Get, "--rw=read:17m --bs=256m");
    let about = "mountpoint-s3's fio job ttfb: mean time of 10";
    let arguments = "--rw=read --bs=1 --io_size=1 --direct=1 --loops=10";
    let ttfb = fio("fio-ttfb", about, Milliseconds, Limit::RandomGet(1), arguments);
    vec![
        workload("fio-seq", Layout::Big, LAN, seq),
        workload("fio-rand", Layout::Big, LAN, rand),
        workload("fio-skip-17m", Layout::Big, LAN_S3, skip),
        workload("fio-ttfb", Layout::Big, LAN_S3, ttfb),
    ]
}

fn writes() -> Vec<Workload> {
    use Unit::{Bytes, Operations};
    let step = Step::Write { name: "new.bin".to_owned(), size: GIB };
    let write = measure("write", "sequential write of 1 GiB, with close", Bytes, Limit::Upload, step);
    let (about, step) = ("create 1,000 files of 4 KiB, one after the other", Step::Create { count: MANY, size: 4096 });
    let create = measure("create", about, Operations, Limit::PutSerially(4096), step);
    let step = Step::Rename { from: "many".to_owned(), to: "renamed".to_owned(), count: MANY };
    let rename = measure("rename", "rename of a directory of 1,000 objects", Operations, Limit::CopyDelete, step);
    let step = Step::Append { file: "1GiB.bin".to_owned() };
    let append = measure("append", "one byte appended to 1 GiB, with close", Operations, Limit::Append, step);
    vec![
        workload("write", Layout::Empty, ALL, vec![write.leaves(Leaves::Size("new.bin", GIB))]),
        workload("create", Layout::Empty, ALL, vec![create.leaves(Leaves::Count("", MANY))]),
        workload("tree", Layout::Empty, LAN_GARAGE, tree()),
        workload("rename", Layout::Directory, LAN_S3, vec![rename.leaves(Leaves::Count("renamed/", MANY))]),
        workload("append", Layout::OneBig, LAN_S3, vec![append.leaves(Leaves::Size("1GiB.bin", GIB + 1))]),
    ]
}

/// geesefs' benchmark of small files.
fn tree() -> Vec<Action> {
    let total = TREE_FILES + TREE_DIRS + 1;
    let all = |line: &str| Step::Command { line: words(line), total };
    let about = "cp -r of 6,400 files of 0.5 to 300 KB in 1,024 directories";
    let copy = all("cp -rv {source}/tree {root}/tree");
    let copy = measure("tree-cp", about, Unit::Operations, Limit::PutSmall(30_000), copy);
    let about = "the same tree read back, after a remount";
    let read = Step::ReadTree { directory: "tree".to_owned() };
    let read = measure("tree-read", about, Unit::Operations, Limit::GetSmall, read);
    let remove = all("rm -rv {root}/tree");
    let remove = measure("tree-rm", "rm -r of the same tree", Unit::Operations, Limit::Delete, remove);
    vec![
        copy.leaves(Leaves::Count("tree/", TREE_FILES)),
        Action::Remount,
        read.cold(),
        remove.leaves(Leaves::Count("tree/", 0)),
    ]
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn listing(program: &str, objects: u64, fanout: u64) -> Step {
    let directories = objects / fanout;
    match program {
        // Each directory has a blank line, its name and its total.
        "ls" => Step::Command { line: words("ls -lR {root}"), total: objects + 4 * directories + 2 },
        _ => Step::Command { line: words("find {root}"), total: objects + directories + 1 },
    }
}

fn listings() -> Vec<Workload> {
    use Unit::Operations;
    let three = |rows: [&'static str; 3], about: [&'static str; 3], step: &Step| {
        let one = |i: usize| measure(rows[i], about[i], Operations, Limit::List, step.clone());
        vec![one(0).cold(), one(1).with_pages(), Action::Remount, one(2).cold()]
    };
    vec![
        workload(
            "ls",
            Layout::Listed,
            ALL,
            three(
                ["ls-cold", "ls-warm", "ls-remount"],
                ["ls -lR of 50,000 objects, cold", "ls -lR of 50,000 again, warm", "ls -lR of 50,000 after a remount"],
                &listing("ls", LISTED, LISTED_FANOUT),
            ),
        ),
        workload(
            "find",
            Layout::Listed,
            LAN,
            three(
                ["find-cold", "find-warm", "find-remount"],
                ["find on 50,000 objects, cold", "find on 50,000 again, warm", "find on 50,000 after a remount"],
                &listing("find", LISTED, LISTED_FANOUT),
            ),
        ),
        workload(
            "ls-1m",
            Layout::Million,
            LAN,
            three(
                ["ls-1m-cold", "ls-1m-warm", "ls-1m-remount"],
                [
                    "ls -lR of 1,000,000 objects, cold",
                    "ls -lR of 1,000,000 again, warm",
                    "ls -lR of 1,000,000 after a remount",
                ],
                &listing("ls", MILLION, MILLION_FANOUT),
            ),
        ),
        workload(
            "find-1m",
            Layout::Million,
            LAN,
            three(
                ["find-1m-cold", "find-1m-warm", "find-1m-remount"],
                [
                    "find on 1,000,000 objects, cold",
                    "find on 1,000,000 again, warm",
                    "find on 1,000,000 after a remount",
                ],
                &listing("find", MILLION, MILLION_FANOUT),
            ),
        ),
    ]
}

fn programs() -> Vec<Workload> {
    use Unit::Operations;
    let rsync = Step::Command { line: words("rsync -a {source}/flat/ {root}/flat/"), total: MANY };
    let each = |line: &str| Step::Each { line: words(line) };
    vec![
        workload(
            "rsync",
            Layout::Empty,
            LAN,
            vec![
                Action::Prepare(rsync.clone()),
                Action::Remount,
                measure("rsync", "second run of rsync -a over 1,000 files", Operations, Limit::List, rsync).cold(),
            ],
        ),
        workload(
            "ffprobe",
            Layout::Media,
            LAN_S3,
            vec![
                measure(
                    "ffprobe",
                    "ffprobe of 100 films of 20 MB",
                    Operations,
                    Limit::HeadAndGet(256 << 10),
                    each("ffprobe -v error -show_format -show_streams {}"),
                )
                .cold(),
            ],
        ),
        workload(
            "unzip",
            Layout::Books,
            LAN_S3,
            vec![
                measure(
                    "unzip",
                    "unzip -l of 100 EPUBs of 2 MB",
                    Operations,
                    Limit::HeadAndGet(64 << 10),
                    each("unzip -l {}"),
                )
                .cold(),
            ],
        ),
    ]
}
