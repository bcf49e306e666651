//! Mounting, asking and unmounting, in every way that people and systems do it.
//!
//! Owns: what goes as it should, uploads that are under way included. Does not own: what goes wrong (`failures`, `crashes`).

use crate::world::{LONG, World, binary, eventually, is_alive, is_root, signal};
use nix::sys::signal::Signal;
use objfs::daemon::mounts;
use objfs::devserver::Effect;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Bytes of the upload that is under way, and how many of them pass in a second: four seconds.
const UPLOAD: usize = 2 << 20;
const SLOW: Effect = Effect::Bandwidth { bytes_per_second: 512 << 10 };

pub(crate) fn body() -> Vec<u8> {
    (0..UPLOAD).map(|i| (i / 7 % 251) as u8).collect()
}

/// A file that was written whole, whose upload is under way, and that no process holds open.
pub(crate) fn with_upload_under_way(more: &str) -> World {
    let world = World::new();
    world.mount(more);
    // The first write probes the server; that is over now.
    world.write("first", b"first").unwrap();
    std::fs::write(world.path("body"), body()).unwrap();
    world.faults(&[(SLOW, "PutObject")]);
    world.server().reset_counters();
    let mut copy = world.command("cp").arg(world.path("body")).arg(world.in_mnt("film")).spawn().unwrap();
    let puts = || world.server().counters().requests.get("PutObject").copied().unwrap_or_default();
    assert!(eventually(LONG, || puts() > 0), "no upload began\n{}", world.logs());
    signal(copy.id(), Signal::SIGKILL);
    world.end_of(&mut copy, Duration::from_secs(5));
    assert!(world.object("film").is_none(), "the upload was to last");
    world
}

/// The region that requests are signed for, as a URL of a file tells.
fn region(world: &World, name: &str) -> String {
    let mut command = world.command("getfattr");
    command.args(["--only-values", "--absolute-names", "-n", "user.objfs.url"]).arg(world.in_mnt(name));
    let url = world.run(command).good().out;
    let scope = url.split("X-Amz-Credential=").nth(1).unwrap_or_else(|| panic!("{url}"));
    scope.split("%2F").nth(2).unwrap().to_owned()
}

#[test]
fn mount_and_umount() {
    let world = World::new();
    world.put("from-elsewhere", b"hello");
    let took = world.mount("").took;
    assert_eq!(world.names(), ["from-elsewhere"]);
    world.write("from-here", b"world").unwrap();
    assert_eq!(world.object("from-here").unwrap(), b"world");
    assert_eq!(region(&world, "from-here"), "us-east-1");
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(world.mnt().to_str().unwrap())).unwrap();
    assert!(line.starts_with("s3://demo ") && line.contains(" fuse.objfs rw,nosuid,nodev"), "{line}");
    let umount = world.umount();
    world.assert_over();
    println!("mount {took:?}, umount {:?}", umount.took);
    assert!(took < Duration::from_secs(2) && umount.took < Duration::from_secs(2), "{took:?} {umount:?}");
}

/// Whoever reads what the command prints, through a pipe, is not kept waiting by the daemon.
#[test]
fn the_daemon_keeps_no_pipe_open() {
    let world = World::new();
    let mut shell = world.command("sh");
    shell.args(["-c", "\"$@\" 2>&1 | cat", "sh"]).arg(binary());
    let outcome = world.run({
        shell.args(["mount", "s3://demo", world.mnt().to_str().unwrap(), "-o", &world.options("")]);
        shell
    });
    assert!(outcome.took < Duration::from_secs(5) && outcome.out.is_empty(), "{outcome:?}");
    let open = std::fs::read_dir(format!("/proc/{}/fd", world.daemon())).unwrap();
    let links: Vec<PathBuf> = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok()).collect();
    assert!(!links.iter().any(|l| l.to_string_lossy().starts_with("pipe:")), "{links:?}");
    world.umount();
    world.assert_over();
}

#[test]
fn by_the_name_mount_objfs() {
    let world = World::new();
    let link = world.path("mount.objfs");
    symlink(binary(), &link).unwrap();
    let mut command = world.command(&link);
    // As mount(8) calls it.
    command.arg("s3://demo/p").arg(world.mnt()).args(["-n", "-o", &format!("rw,_netdev,{}", world.options(""))]);
    world.run(command).good();
    world.write("a", b"a").unwrap();
    assert_eq!(world.object("p/a").unwrap(), b"a");
    world.unmount_foreign();
    world.assert_over();
}

/// /sbin with the link that packaging/install makes, in a mount namespace of its own: this computer's /sbin stays as it is.
const SBIN: &str = r#"
set -e
old=$1 program=$2; shift 2
mount --bind /usr/sbin "$old"
mount -t tmpfs tmpfs /usr/sbin
ln -s "$old"/* /usr/sbin/
ln -s "$program" /usr/sbin/mount.objfs
"#;

#[test]
fn by_mount_t_objfs() {
    let world = World::new();
    let (mnt, options) = (world.mnt(), world.options("noexec"));
    let mnt = mnt.to_str().unwrap();
    if !is_root() {
        let mut mount = world.command("mount");
        mount.args(["-t", "objfs", "-o", &options, "s3://demo", mnt]);
        let outcome = world.run(mount);
        assert!(outcome.code != Some(0) && outcome.err.contains("superuser"), "{outcome:?}");
        return;
    }
    let old = world.path("sbin");
    std::fs::create_dir(&old).unwrap();
    let script = format!(
        "{SBIN}\nmount -t objfs -o {options} s3://demo {mnt}\ngrep {mnt} /proc/self/mounts\n\
         echo hello > {mnt}/hello\ncat {mnt}/hello\numount {mnt}"
    );
    let mut command = world.command("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(old).arg(binary());
    let outcome = world.run(command).good();
    assert!(
        outcome.out.contains("fuse.objfs rw,nosuid,nodev,noexec") && outcome.out.ends_with("hello\n"),
        "{outcome:?}"
    );
    assert_eq!(world.object("hello").unwrap(), b"hello\n");
    world.assert_over();
}

#[test]
fn in_the_foreground() {
    let world = World::new();
    let log = world.path("out/log");
    let mut command =
        world.objfs(["mount", "-f", "s3://demo", world.mnt().to_str().unwrap(), "-o", &world.options("")]);
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let mnt = world.mnt();
    assert!(eventually(LONG, || mounts::is_mounted(&mnt)), "{}", std::fs::read_to_string(&log).unwrap());
    world.write("a", b"a").unwrap();
    assert_eq!(world.daemon(), child.id());
    world.unmount_foreign();
    assert_eq!(world.end_of(&mut child, LONG), Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("mounted source=s3://demo") && log.contains("the bucket has everything"), "{log}");
    world.assert_over();
}

#[test]
fn by_the_environment_alone() {
    let world = World::new();
    let mut command = world.objfs(["mount", world.mnt().to_str().unwrap()]);
    if is_root() {
        // Else it is below XDG_STATE_HOME, which is the world's own; for root it is /var/lib.
        command.args(["-o", &format!("state_dir={},cache_size=0", world.path("home/state/objfs").display())]);
    }
    command.env("S3_BUCKET", "demo").env("S3_PREFIX", "books").env("S3_ENDPOINT", world.endpoint());
    command.env("S3_REGION", "auto").env("S3_POLL_INTERVAL", "5");
    world.run(command).good();
    world.write("a", b"a").unwrap();
    assert_eq!(world.object("books/a").unwrap(), b"a");
    assert_eq!(region(&world, "a"), "auto");
    let status = world.status();
    assert_eq!(status["source"], "s3://demo/books");
    let home = world.path("home/state/objfs");
    assert!(status["state_dir"].as_str().unwrap().starts_with(home.to_str().unwrap()), "{status}");
    world.umount();
    world.assert_over();
}

#[test]
fn aws_names_in_the_environment_and_a_profile() {
    let world = World::new();
    let mount = || {
        let mut command = world.objfs(["mount", "s3://demo", world.mnt().to_str().unwrap()]);
        command.env_remove("S3_ACCESS_KEY_ID").env_remove("S3_SECRET_ACCESS_KEY");
        command
    };
    let state = format!("state_dir={},cache_size=0", world.path("state").display());
    let mut by_variables = mount();
    by_variables.args(["-o", &state]).env("AWS_ACCESS_KEY_ID", "objfs").env("AWS_REGION", "us-east-1");
    by_variables.env("AWS_SECRET_ACCESS_KEY", crate::world::SECRET).env("AWS_ENDPOINT_URL", world.endpoint());
    world.run(by_variables).good();
    world.write("a", b"a").unwrap();
    world.umount();
    std::fs::create_dir(world.path("home/.aws")).unwrap();
    let keys = format!("[books]\naws_access_key_id = objfs\naws_secret_access_key = {}\n", crate::world::SECRET);
    std::fs::write(world.path("home/.aws/credentials"), keys).unwrap();
    let mut by_profile = mount();
    by_profile.args(["-o", &world.options("profile=books")]);
    world.run(by_profile).good();
    assert_eq!(world.names(), ["a"]);
    world.umount();
    world.assert_over();
}

#[test]
fn status_for_people_and_programs() {
    let world = World::new();
    world.mount("");
    world.put("x/../b", b"no path says this");
    world.write("a", b"abc").unwrap();
    world.names();
    let status = world.status();
    for field in [
        "version",
        "pid",
        "state",
        "source",
        "mountpoint",
        "read_only",
        "health",
        "pending",
        "requests",
        "in_flight",
        "conditional_writes",
        "polled_directories",
        "poll_period",
        "watched_poll_period",
        "lifetime",
        "polls_per_hour",
        "known_files",
        "known_bytes",
        "cached_bytes",
        "unmappable_keys",
        "state_dir",
    ] {
        assert!(!status[field].is_null(), "{field} is missing: {status}");
    }
    for field in ["files", "markers", "failed", "conflicts", "open_files"] {
        assert!(!status["pending"][field].is_null(), "pending.{field} is missing: {status}");
    }
    for field in ["sent", "failed", "bytes_sent", "bytes_received"] {
        assert!(status["requests"]["ListObjectsV2"][field].is_u64(), "{field} is missing: {status}");
    }
    assert_eq!((status["state"].as_str(), status["health"].as_str()), (Some("mounted"), Some("ok")));
    assert_eq!(status["mountpoint"].as_str(), world.mnt().to_str());
    assert_eq!(status["conditional_writes"]["put_if_absent"], "honoured");
    assert!(is_alive(world.daemon()));
    let text = world.run(world.objfs(["status", world.mnt().to_str().unwrap()])).good().out;
    for words in ["s3://demo at ", "health:    ok", "pending:   0 files", "ListObjectsV2", "put if absent Honoured"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    world.umount();
    world.assert_over();
}

#[test]
fn umount_waits_until_everything_is_committed() {
    let world = with_upload_under_way("");
    assert_eq!(world.status()["pending"]["files"], 1, "{}", world.status());
    let took = world.umount().took;
    assert!(took > Duration::from_millis(500), "{took:?}");
    world.faults(&[]);
    assert!(world.object("film").unwrap() == body());
    world.assert_over();
    assert!(world.staged().is_empty());
}

#[test]
fn fusermount_leaves_a_daemon_that_drains_and_ends() {
    let world = with_upload_under_way("");
    let daemon = world.daemon();
    world.unmount_foreign();
    assert!(!mounts::is_mounted(&world.mnt()) && is_alive(daemon), "it ended before the upload did\n{}", world.logs());
    assert!(eventually(LONG, || !is_alive(daemon)));
    world.faults(&[]);
    assert!(world.object("film").unwrap() == body(), "{}", world.logs());
    world.assert_over();
    assert!(world.staged().is_empty());
}

#[test]
fn a_mount_waits_for_its_predecessor_and_sees_its_files() {
    let world = with_upload_under_way("");
    let predecessor = world.daemon();
    world.unmount_foreign();
    let took = world.mount("").took;
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(30), "{took:?}");
    assert!(!is_alive(predecessor) && world.daemon() != predecessor);
    world.faults(&[]);
    assert!(world.read("film").unwrap() == body());
    world.umount();
    world.assert_over();
}

#[test]
fn sigterm_unmounts_and_drains() {
    let world = with_upload_under_way("");
    let daemon = world.daemon();
    signal(daemon, Signal::SIGTERM);
    assert!(eventually(LONG, || !is_alive(daemon)));
    world.faults(&[]);
    assert!(world.object("film").unwrap() == body(), "{}", world.logs());
    world.assert_over();
}

#[test]
fn umount_of_a_mount_in_use_says_so_and_it_goes_on() {
    let world = World::new();
    world.mount("");
    world.write("a", b"before").unwrap();
    let path = world.in_mnt("a");
    let open = world.within("opening", move || std::fs::File::open(path).unwrap());
    let outcome = world.try_umount();
    assert_eq!((outcome.code, outcome.err.lines().count()), (Some(32), 1), "{outcome:?}");
    assert!(outcome.err.contains("stays mounted") && outcome.err.contains("busy"), "{outcome:?}");
    world.write("b", b"after").unwrap();
    assert_eq!(world.read("a").unwrap(), b"before");
    assert_eq!(world.status()["state"], "mounted");
    world.within("closing", move || drop(open));
    world.umount();
    world.assert_over();
    assert_eq!(world.object("b").unwrap(), b"after");
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let world = World::new();
    world.put("a", b"a");
    world.mount("ro");
    assert_eq!(world.read("a").unwrap(), b"a");
    assert_eq!(world.write("b", b"b").unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(world.status()["read_only"], true);
    let (options, shown) = (mount_options(&world), if is_root() { "ro" } else { "rw" });
    assert!(options.iter().any(|option| option == shown), "{options:?}");
    world.umount();
    world.assert_over();
    assert!(world.object("b").is_none());
}

/// What /proc/mounts says of the mount.
fn mount_options(world: &World) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(world.mnt().to_str().unwrap())).unwrap();
    line.split(' ').nth(3).unwrap().split(',').map(str::to_owned).collect()
}

#[test]
fn flags_are_given_to_the_kernel() {
    let world = World::new();
    world.mount("noexec,noatime,nodiratime,sync,dirsync,suid,dev");
    let options = mount_options(&world);
    for flag in ["noexec", "nosuid", "nodev"] {
        assert!(options.iter().any(|option| option == flag), "{flag} is not in {options:?}");
    }
    for flag in ["noatime", "nodiratime", "sync", "dirsync"] {
        assert_eq!(options.iter().any(|option| option == flag), is_root(), "{flag}: {options:?}");
    }
    world.umount();
    world.assert_over();
}

#[test]
fn a_hundred_mounts_leave_nothing() {
    let world = World::new();
    let start = Instant::now();
    let (mut mounting, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for round in 0..100 {
        let took = world.mount("").took;
        (mounting, slowest) = (mounting + took, slowest.max(took));
        world.write("a", format!("{round}").as_bytes()).unwrap();
        if round % 2 == 0 { drop(world.umount()) } else { world.unmount_foreign() }
    }
    world.assert_over();
    let took = start.elapsed();
    println!("100 rounds in {took:?}; mounting {:?} on average, {slowest:?} at most", mounting / 100);
    assert_eq!(world.object("a").unwrap(), b"99");
    assert!(world.staged().is_empty(), "{:?}", world.staged());
    assert!(took < Duration::from_secs(60), "{took:?}");
}
