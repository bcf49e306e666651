//! Pipes, sockets and device nodes: objects without bytes whose headers say what they are, and which the kernel serves.

use crate::common::{Mount, Store, errno, is_root, names};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

/// Kind and permissions of a name, and the number of its device.
fn seen(mount: &Mount<'_>, name: &str) -> (u32, u64) {
    let meta = fs::symlink_metadata(mount.at(name)).unwrap();
    assert_eq!(meta.len(), 0, "{name}");
    (meta.mode(), meta.rdev())
}

/// The object has no bytes, and its headers say what it is.
#[track_caller]
fn assert_kept(store: &Store, key: &str, mode: u32, rdev: Option<u64>) {
    assert_eq!(store.get(key), b"", "{key}");
    let headers = store.metadata(key);
    assert_eq!(headers["mode"], mode.to_string(), "{key}");
    assert_eq!(headers["uid"], nix::unistd::geteuid().to_string(), "{key}");
    assert_eq!(headers.get("rdev").cloned(), rdev.map(|rdev| rdev.to_string()), "{key}");
}

#[test]
fn a_pipe_passes_bytes_between_processes_and_none_to_the_bucket() {
    let store = Store::dev();
    let mut mount = store.mount();
    mount.sh("umask 022; mkfifo pipe");
    for _ in 0..2 {
        store.server().reset_counters();
        assert_eq!(mount.sh("head -c 1000000 /dev/zero > pipe & wc -c < pipe; wait").trim(), "1000000");
        // Both ways: what one asks the other answers.
        let asked = mount.sh(
            "mkfifo back; (read line < pipe; echo \"$line too\" > back) & echo hello > pipe; cat back; wait; rm back",
        );
        assert_eq!(asked.trim(), "hello too");
        let mut alone = OpenOptions::new();
        alone.write(true).custom_flags(libc::O_NONBLOCK);
        assert_eq!(errno(alone.open(mount.at("pipe"))), libc::ENXIO, "nobody reads");
        let counts = store.server().counters();
        assert_eq!((counts.of("GetObject"), counts.of("UploadPart")), (0, 0), "{counts:?}");
        assert_eq!(seen(&mount, "pipe"), (libc::S_IFIFO | 0o644, 0));
        assert_kept(&store, "pipe", libc::S_IFIFO | 0o644, None);
        mount.remount();
    }
}

#[test]
fn a_socket_is_bound_and_connected_to_and_its_name_stays() {
    let store = Store::dev();
    let mut mount = store.mount();
    // Its whole path may be longer than an address of a socket.
    let said = mount.py(
        "import socket\n\
         os.umask(0o022)\n\
         server = socket.socket(socket.AF_UNIX)\n\
         server.settimeout(10)\n\
         server.bind('socket')\n\
         server.listen()\n\
         child = os.fork()\n\
         if child == 0:\n\
         \x20   client = socket.socket(socket.AF_UNIX)\n\
         \x20   client.connect('socket')\n\
         \x20   client.sendall(b'hello')\n\
         \x20   os._exit(0 if client.recv(9) == b'world' else 1)\n\
         peer, _ = server.accept()\n\
         print(peer.recv(9).decode())\n\
         peer.sendall(b'world')\n\
         print(os.waitpid(child, 0)[1])\n\
         try: socket.socket(socket.AF_UNIX).bind('socket')\n\
         except OSError as e: print(errno.errorcode[e.errno])",
        &[],
    );
    assert_eq!(said, "hello\n0\nEADDRINUSE\n");
    for _ in 0..2 {
        assert_eq!(seen(&mount, "socket"), (libc::S_IFSOCK | 0o755, 0));
        assert_kept(&store, "socket", libc::S_IFSOCK | 0o755, None);
        let connect = "import socket\n\
            try: socket.socket(socket.AF_UNIX).connect('socket')\n\
            except OSError as e: print(errno.errorcode[e.errno])";
        assert_eq!(mount.py(connect, &[]).trim(), "ECONNREFUSED", "nobody listens any more");
        mount.remount();
    }
    fs::remove_file(mount.at("socket")).unwrap();
    assert!(store.keys().is_empty());
}

#[test]
fn the_standard_library_binds_and_connects_in_a_mount() {
    let store = Store::dev();
    let mount = store.mount();
    let listener = UnixListener::bind(mount.at("s")).unwrap();
    let connected = UnixStream::connect(mount.at("s")).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    drop((connected, accepted, listener));
    assert_eq!(errno(UnixStream::connect(mount.at("s"))), libc::ECONNREFUSED);
}

#[test]
fn device_nodes_are_kept_and_cannot_be_opened() {
    let store = Store::dev();
    let mut mount = store.mount();
    let permissions = Mode::from_bits_truncate(0o600);
    let make = |path: &std::path::Path, kind, rdev| mknod(path, kind, permissions, rdev);
    let null = makedev(1, 3);
    if !is_root() || make(&mount.outside("null"), SFlag::S_IFCHR, null).is_err() {
        // Who may not make one on a local disk may not here.
        assert_eq!(make(&mount.at("null"), SFlag::S_IFCHR, null), Err(Errno::EPERM));
        return;
    }
    // Numbers that do not fit into the 16 bits of old.
    let nodes = [
        ("null", SFlag::S_IFCHR, null),
        ("far", SFlag::S_IFCHR, makedev(259, 70_000)),
        ("loop", SFlag::S_IFBLK, makedev(7, 300)),
    ];
    for (name, kind, rdev) in nodes {
        make(&mount.at(name), kind, rdev).unwrap();
        assert_eq!(make(&mount.at(name), kind, rdev), Err(Errno::EEXIST));
    }
    for round in ["before", "after"] {
        for (name, kind, rdev) in nodes {
            let mode = kind.bits() | 0o600;
            assert_eq!(seen(&mount, name), (mode, rdev), "{name} {round}");
            assert_eq!(errno(File::open(mount.at(name))), libc::EACCES, "{name} {round}: mounts have nodev");
            assert_kept(&store, name, mode, Some(rdev));
        }
        mount.remount();
    }
    mount.sh("chmod 640 loop; mv loop moved");
    assert_kept(&store, "moved", libc::S_IFBLK | 0o640, Some(makedev(7, 300)));
    drop(mount);
    let elsewhere = store.mount();
    assert_eq!(seen(&elsewhere, "moved"), (libc::S_IFBLK | 0o640, makedev(7, 300)), "on another machine");
}

#[test]
fn pipes_and_sockets_are_renamed_changed_and_deleted_like_files() {
    let store = Store::dev();
    let mount = store.mount();
    mount.sh("umask 022; mkfifo pipe; mkdir d; chmod 600 pipe; mv pipe d/moved; mkfifo gone; rm gone");
    assert_eq!(store.keys(), ["d/", "d/moved"]);
    assert_kept(&store, "d/moved", libc::S_IFIFO | 0o600, None);
    mount.sh("mv d e; echo through > e/moved & cat e/moved; wait");
    drop(mount);
    let elsewhere = store.mount();
    assert_eq!(seen(&elsewhere, "e/moved"), (libc::S_IFIFO | 0o600, 0));
    assert_eq!(elsewhere.sh("echo through > e/moved & cat e/moved; wait"), "through\n");
}

#[test]
fn what_s3fs_has_made_is_what_it_says() {
    let store = Store::dev();
    let null = makedev(1, 3).to_string();
    let objects = [
        ("pipe", libc::S_IFIFO | 0o644),
        ("socket", libc::S_IFSOCK | 0o755),
        ("char", libc::S_IFCHR | 0o600),
        ("block", libc::S_IFBLK | 0o600),
    ];
    for (key, mode) in objects {
        store.put_with(key, "", &[("mode", mode.to_string().as_str()), ("rdev", null.as_str())]);
    }
    let mount = store.mount();
    for (name, mode) in objects {
        assert_eq!(seen(&mount, name).0, mode, "{name}");
    }
    let kind = |name: &str| fs::symlink_metadata(mount.at(name)).unwrap().file_type();
    assert!(kind("pipe").is_fifo() && kind("socket").is_socket());
    assert!(kind("char").is_char_device() && kind("block").is_block_device());
    assert_eq!((seen(&mount, "char").1, seen(&mount, "block").1), (makedev(1, 3), makedev(1, 3)));
}

#[test]
fn files_without_a_name_are_refused_and_programs_do_without() {
    let store = Store::dev();
    let mount = store.mount();
    // The second time the kernel knows.
    for _ in 0..2 {
        let mut unnamed = OpenOptions::new();
        unnamed.write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
        assert_eq!(errno(unnamed.open(mount.root())), libc::EOPNOTSUPP);
    }
    let script = "import tempfile\n\
        with tempfile.TemporaryFile(dir='.') as f:\n\
        \x20   f.write(b'kept for a while')\n\
        \x20   f.seek(0)\n\
        \x20   print(f.read().decode())";
    assert_eq!(mount.py(script, &[]).trim(), "kept for a while");
    assert_eq!(names(mount.root()), [] as [String; 0]);
    drop(mount);
    assert!(store.keys().is_empty(), "{:?}", store.keys());
}
