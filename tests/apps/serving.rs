//! Programs that serve or watch what is in the mount: nginx, Samba, inotifywait.
//!
//! Owns: that their clients see what they would see of a local disk.
//! Does not own: which events a change elsewhere raises (`tests/mount`).

use crate::compare::{assert_agrees, both, finish};
use crate::running::{Running, need, wait_for_port};
use crate::world::{Mount, PROGRAM_MAX, Store, eventually, free_port, is_full_run, noise, output_of, stdout_of};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// nginx with a configuration of its own, which serves the mount as `/mnt` and `../local` as `/local`.
fn nginx(mount: &Mount<'_>) -> (Running, u16) {
    let program = need("nginx", "nginx-light");
    let (dir, port) = (mount.outside("nginx"), free_port());
    fs::create_dir(&dir).unwrap();
    // It makes a directory for each of its modules, where only root may, unless it is told of another place.
    let built = String::from_utf8(output_of(Command::new(&program).arg("-V"), PROGRAM_MAX).stderr).unwrap();
    let mut places = String::new();
    for module in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        if !built.contains(&format!("--without-http_{module}_module")) {
            places.push_str(&format!("{module}_temp_path {}/{module};\n", dir.display()));
        }
    }
    let config = format!(
        "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
         events {{ worker_connections 64; }}\n\
         http {{\naccess_log off;\nsendfile on;\n{places}\
         server {{ listen 127.0.0.1:{port}; root {root}; }}\n}}\n",
        dir = dir.display(),
        root = mount.outside("").display()
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut command = Command::new(program);
    command.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let server = Running::start(&mut command);
    wait_for_port(port);
    (server, port)
}

/// The status, and what came.
fn fetch(port: u16, path: &str, range: Option<&str>) -> (String, Vec<u8>) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "-w", "%{stderr}%{http_code}"]);
    if let Some(range) = range {
        curl.args(["-r", range]);
    }
    let output = output_of(curl.arg(format!("http://127.0.0.1:{port}/{path}")), PROGRAM_MAX);
    (String::from_utf8(output.stderr).unwrap(), output.stdout)
}

#[test]
fn nginx_serves_files_and_ranges_of_them() {
    need("curl", "curl");
    let store = Store::dev();
    let bytes = noise(1, 5 << 20);
    store.put("site/film.bin", &bytes);
    let mut mount = store.mount();
    fs::create_dir_all(mount.outside("local/site")).unwrap();
    fs::write(mount.outside("local/site/film.bin"), &bytes).unwrap();
    let (server, port) = nginx(&mount);
    let ranges = [None, Some("0-0"), Some("1048575-2097153"), Some("-1000"), Some("5000000-"), Some("9000000-")];
    for range in ranges {
        let served = fetch(port, "mnt/site/film.bin", range);
        let wanted = fetch(port, "local/site/film.bin", range);
        assert!(served == wanted, "{range:?}: {} and {} bytes", served.0, served.1.len());
    }
    let part = fetch(port, "mnt/site/film.bin", Some("100000-3999999"));
    assert!(part == ("206".to_owned(), bytes[100_000..4_000_000].to_vec()), "{}", part.0);
    assert_eq!(fetch(port, "mnt/site/none", None).0, "404");
    std::thread::scope(|scope| {
        for reader in 0..4usize {
            let bytes = &bytes;
            scope.spawn(move || {
                for i in 0..8 {
                    let at = (reader * 1_000_003 + i * 400_009) % (4 << 20);
                    let found = fetch(port, "mnt/site/film.bin", Some(&format!("{at}-{}", at + 99_999)));
                    assert!(found == ("206".to_owned(), bytes[at..at + 100_000].to_vec()), "from {at}");
                }
            });
        }
    });
    // What others upload is served as soon as it is noticed, and what is written here at once.
    store.put("site/film.bin", "another film");
    eventually("the new version is served", || {
        (fetch(port, "mnt/site/film.bin", None).1 == b"another film").then_some(())
    });
    mount.sh("echo page > site/index.html");
    assert_eq!(fetch(port, "mnt/site/", None), ("200".to_owned(), b"page\n".to_vec()));
    drop(server);
    finish(&store, &mut mount);
}

/// inotifywait on a directory; what it prints is in the file.
fn watch(dir: &Path, log: &Path) -> Running {
    let said = log.with_extension("said");
    let mut command = Command::new(need("inotifywait", "inotify-tools"));
    command.args(["-m", "-e", "create,close_write,moved_from,moved_to,delete", "--format", "%e %f"]).arg(dir);
    command.stdin(Stdio::null()).stdout(File::create(log).unwrap()).stderr(File::create(&said).unwrap());
    let watcher = Running::start(&mut command);
    eventually("inotifywait watches", || {
        fs::read_to_string(&said).unwrap().contains("Watches established").then_some(())
    });
    watcher
}

#[test]
fn inotifywait_sees_changes_made_here_and_elsewhere() {
    let store = Store::dev();
    let mut mount = store.mount_with(&["poll_interval=1s"]);
    both(&mount, "mkdir watched");
    let (here, there) = (mount.outside("here.log"), mount.outside("there.log"));
    let watchers = [watch(&mount.at("watched"), &here), watch(&mount.outside("local/watched"), &there)];
    eventually("the mount knows that it is watched", || {
        (mount.status()["watched_directories"].as_u64() >= Some(1)).then_some(())
    });
    // No event is that of before once more: the kernel makes one of two.
    let work = "echo one > f; echo two > k; echo more >> f; mv f g; cp g h; rm g; mkdir d; rmdir d; touch done";
    both(&mount, &format!("cd watched; {work}"));
    let read = |log: &Path| fs::read_to_string(log).unwrap();
    for log in [&here, &there] {
        eventually("all is noted", || read(log).ends_with("CLOSE_WRITE,CLOSE done\n").then_some(()));
    }
    assert_eq!(read(&here), read(&there));
    let said = read(&here).len();
    let mut wanted = String::new();
    store.put("watched/theirs", "x");
    wanted.push_str("CREATE theirs\nCLOSE_WRITE,CLOSE theirs\n");
    eventually("a new object is an event", || (read(&here)[said..] == wanted).then_some(()));
    store.put("watched/theirs", "another");
    wanted.push_str("CLOSE_WRITE,CLOSE theirs\n");
    eventually("so is a change of it", || (read(&here)[said..] == wanted).then_some(()));
    store.delete("watched/theirs");
    wanted.push_str("DELETE theirs\n");
    eventually("and its end", || (read(&here)[said..] == wanted).then_some(()));
    drop(watchers);
    finish(&store, &mut mount);
}

/// smbd with a configuration of its own: the share `mnt` is the mount, and `local` is `../local`.
fn samba(mount: &Mount<'_>) -> (Running, u16, PathBuf) {
    let program = need("smbd", "samba");
    let (dir, port) = (mount.outside("samba"), free_port());
    for name in ["private", "pid", "lock", "state", "cache", "ncalrpc"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let share = |name: &str, path: PathBuf| {
        format!("[{name}]\npath = {}\nread only = no\nguest ok = yes\nforce user = {user}\n", path.display())
    };
    let config = format!(
        "[global]\ninterfaces = 127.0.0.1\nbind interfaces only = yes\nsmb ports = {port}\n\
         private dir = {dir}/private\npid directory = {dir}/pid\nlock directory = {dir}/lock\n\
         state directory = {dir}/state\ncache directory = {dir}/cache\nncalrpc dir = {dir}/ncalrpc\n\
         log file = {dir}/log\nsmb passwd file = {dir}/private/smbpasswd\nsecurity = user\nmap to guest = Bad User\n\
         load printers = no\nprinting = bsd\nprintcap name = /dev/null\ndisable spoolss = yes\n\
         store dos attributes = no\n{}{}",
        share("mnt", mount.root()),
        share("local", mount.outside("local")),
        dir = dir.display()
    );
    let path = dir.join("smb.conf");
    fs::write(&path, config).unwrap();
    // In the foreground it ends with whoever holds the other end of its standard input.
    let mut command = Command::new(program);
    command.args(["--foreground", "--configfile"]).arg(&path);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Running::start_leader(&mut command);
    wait_for_port(port);
    (server, port, path)
}

/// Runs commands of smbclient in `../client`, and answers names and sizes that it lists.
fn smbclient(mount: &Mount<'_>, (port, config): (u16, &Path), share: &str, commands: &str) -> Vec<(String, String)> {
    let mut client = Command::new("smbclient");
    client.arg(format!("//127.0.0.1/{share}")).args(["-U%", "-p", &port.to_string()]).arg("-s").arg(config);
    let said = stdout_of(client.args(["-c", commands]).current_dir(mount.outside("client")));
    // "  name      N    5000  Mon Sep  9 09:09:09 2019"
    let lines = said.lines().filter(|line| line.starts_with("  ") && !line.contains("blocks of size"));
    let words = lines.map(|line| line.split_whitespace().collect::<Vec<&str>>());
    words.map(|words| (words[0].to_owned(), words[2].to_owned())).filter(|(name, _)| !name.starts_with('.')).collect()
}

#[test]
fn full_samba_serves_the_mount() {
    if !is_full_run() {
        return;
    }
    need("smbclient", "smbclient");
    let store = Store::dev();
    let mut mount = store.mount();
    for name in ["client", "local"] {
        fs::create_dir(mount.outside(name)).unwrap();
    }
    let (small, large) = (noise(1, 5000), noise(2, 3 << 20));
    fs::write(mount.outside("client/small"), &small).unwrap();
    fs::write(mount.outside("client/large"), &large).unwrap();
    let (server, port, config) = samba(&mount);
    for share in ["local", "mnt"] {
        let client = |commands: &str| smbclient(&mount, (port, config.as_path()), share, commands);
        let mut listed = client("mkdir books; cd books; put small; put large; put small third; ls");
        listed.sort();
        let wanted = [("large", "3145728"), ("small", "5000"), ("third", "5000")];
        assert_eq!(listed, wanted.map(|(name, size)| (name.to_owned(), size.to_owned())), "{share}");
        listed = client("cd books; rename third fourth; del small; rename large film; ls; mkdir empty; rmdir empty");
        listed.sort();
        let wanted = [("film", "3145728"), ("fourth", "5000")];
        assert_eq!(listed, wanted.map(|(name, size)| (name.to_owned(), size.to_owned())), "{share}");
        client(&format!("cd books; get film {share}-film; get fourth {share}-fourth; put large fourth"));
        assert!(fs::read(mount.outside(&format!("client/{share}-film"))).unwrap() == large, "{share}");
        assert!(fs::read(mount.outside(&format!("client/{share}-fourth"))).unwrap() == small, "{share}");
    }
    drop(server);
    assert_agrees(&store, &mount, &[]);
    assert_eq!(store.keys(), ["books/", "books/film", "books/fourth"]);
    mount.remount();
    assert_agrees(&store, &mount, &[]);
    finish(&store, &mut mount);
}
