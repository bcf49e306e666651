//! Keys stay where they were given, and files are their user's alone.
//!
//! Owns: looking for the secret everywhere, and modes. Does not own: sentences of failures (`failures`).

use crate::world::{SECRET, World, binary, files_below, is_root};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A key for SSE-C, as its file and as headers have it.
const CUSTOMER_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

#[track_caller]
fn has_no_secret(what: &str, bytes: &[u8]) {
    for secret in [SECRET, CUSTOMER_KEY, "0123456789abcdef0123456789abcdef"] {
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "a secret is in {what}");
    }
}

#[test]
fn the_secret_is_written_nowhere() {
    let world = World::new();
    // As talkative as can be: signing is logged at this level, too.
    let key = world.path("key");
    std::fs::write(&key, CUSTOMER_KEY).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    world.mount(&format!("log=trace,sse_c_key_file={}", key.display()));
    world.write("a", b"a").unwrap();
    world.names();
    let pid = world.daemon();
    has_no_secret("cmdline", &std::fs::read(format!("/proc/{pid}/cmdline")).unwrap());
    has_no_secret("/proc/mounts", &std::fs::read("/proc/self/mounts").unwrap());
    has_no_secret("mountinfo", &std::fs::read("/proc/self/mountinfo").unwrap());
    has_no_secret("status --json", world.status().to_string().as_bytes());
    has_no_secret("status", world.run(world.objfs(["status", world.mnt().to_str().unwrap()])).out.as_bytes());
    let look = || {
        let files = files_below(&world.path("state"));
        assert!(
            files.iter().any(|f| f.ends_with("objfs.log")) && files.iter().any(|f| f.ends_with("catalogue.db-wal"))
        );
        assert!(std::fs::metadata(world.state_folder().join("objfs.log")).unwrap().len() > 1000);
        for file in files {
            has_no_secret(&file.display().to_string(), &std::fs::read(&file).unwrap());
        }
    };
    look();
    world.umount();
    for file in files_below(&world.path("state")) {
        has_no_secret(&file.display().to_string(), &std::fs::read(&file).unwrap());
    }
    world.assert_over();
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn state_is_for_its_user_alone_whatever_the_umask() {
    let world = World::new();
    // Left by somebody careless.
    let mut shell = world.command("sh");
    shell.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(binary());
    shell.args(["mount", "s3://demo", world.mnt().to_str().unwrap(), "-o", &world.options("")]);
    world.run(shell).good();
    let path = world.in_mnt("open");
    let open = world.within("writing", move || {
        let mut open = std::fs::File::create(path).unwrap();
        // Too much for a staging file in memory.
        open.write_all(&[b'x'; 100_000]).unwrap();
        open
    });
    let folder = world.state_folder();
    let files = files_below(&folder);
    for name in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm", "journal.db", "journal.db-wal", "objfs.log"] {
        assert!(files.iter().any(|file| file.ends_with(name)), "{name} is not there: {files:?}");
    }
    assert_eq!(world.staged().len(), 1, "{files:?}");
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert_eq!((mode(&folder), mode(&folder.join("staging"))), (0o700, 0o700));
    let sockets: Vec<PathBuf> = world.sockets();
    let [socket] = &sockets[..] else { panic!("{sockets:?}") };
    assert!(std::fs::symlink_metadata(socket).unwrap().file_type().is_socket());
    assert_eq!((mode(socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    world.within("closing", move || drop(open));
    world.umount();
    world.assert_over();
}

/// The daemon's umask is its own: files in the mount have the modes that their makers ask for.
#[test]
fn files_in_the_mount_have_the_modes_of_their_makers() {
    let world = World::new();
    world.mount("");
    let mut shell = world.command("sh");
    shell.args(["-c", "umask 022; cd \"$1\"; echo a > a; mkdir d; umask 007; echo b > b", "sh"]).arg(world.mnt());
    world.run(shell).good();
    let mnt = world.mnt();
    let modes = world.within("stat", move || [mode(&mnt.join("a")), mode(&mnt.join("d")), mode(&mnt.join("b"))]);
    assert_eq!(modes, [0o644, 0o755, 0o660]);
    world.umount();
    world.assert_over();
}

#[test]
fn others_cannot_ask_the_daemon() {
    let world = World::new();
    world.mount("");
    let [socket] = &world.sockets()[..] else { panic!("{:?}", world.sockets()) };
    if is_root() {
        let mut other = world.command("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "test", "-e"]).arg(socket);
        assert_eq!(world.run(other).code, Some(1), "another user sees {}", socket.display());
    } else {
        assert_eq!(std::fs::symlink_metadata(socket).unwrap().uid(), nix::unistd::geteuid().as_raw());
    }
    world.umount();
    world.assert_over();
}

/// Also where nobody has made a folder for what lives as long as a session.
#[test]
fn the_control_socket_is_in_a_private_folder() {
    let world = World::new();
    let mnt = world.mnt();
    let run = |args: &[&str]| {
        let mut command = world.objfs(args);
        command.env_remove("XDG_RUNTIME_DIR");
        world.run(command).good().out
    };
    run(&["mount", "s3://demo", mnt.to_str().unwrap(), "-o", &world.options("")]);
    let folder = if is_root() {
        PathBuf::from("/run/objfs")
    } else {
        world.path("tmp").join(format!("objfs-{}", nix::unistd::geteuid()))
    };
    assert_eq!(mode(&folder), 0o700);
    let sockets = || std::fs::read_dir(&folder).unwrap().count();
    assert!(sockets() > 0);
    assert!(run(&["status", mnt.to_str().unwrap()]).contains("s3://demo at "));
    run(&["umount", mnt.to_str().unwrap()]);
    world.assert_over();
    assert!(is_root() || sockets() == 0, "others of root may have theirs there");
}
