//! How programs save: what git, rsync, SQLite, editors, archivers, encoders and logs leave in the bucket, compared with what
//! the same work leaves in a directory of this machine.
//!
//! Owns: the work, done with default options and with `write=back`; the comparison. Does not own: a program's first steps in a
//! mount and other servers (`applications`), what single requests cost (`requests`).

use crate::applications::finish;
use crate::common::{Mount, Store, kill, names, noise, objfs, output_of, python, stdout_of};
use objfs::devserver::Counts;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Close waits for the bucket.
const THROUGH: &[&str] = &[];
/// Close waits for the journal, and what is written again soon is uploaded once.
const BACK: &[&str] = &["write=back", "upload_delay=200ms"];

/// Files and links, by path; a link's bytes are its target, as in the bucket.
type Tree = BTreeMap<String, Vec<u8>>;

fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                left.push(path);
                continue;
            }
            let bytes = if kind.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            found.insert(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned(), bytes);
        }
    }
    found
}

/// What the independent client sees.
fn bucket(store: &Store) -> Tree {
    let files = store.keys().into_iter().filter(|key| !key.ends_with('/'));
    files.map(|key| (key.clone(), store.get(&key))).collect()
}

/// The bucket as directories and files of this machine.
fn download(store: &Store, to: &Path) {
    fs::create_dir(to).unwrap();
    for key in store.keys() {
        let path = to.join(&key);
        if key.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, store.get(&key)).unwrap();
        }
    }
}

#[track_caller]
fn assert_same(what: &str, mut found: Tree, mut wanted: Tree, except: &[&str]) {
    for tree in [&mut found, &mut wanted] {
        tree.retain(|name, _| !except.contains(&name.as_str()));
    }
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<String>>();
    assert_eq!(names(&found), names(&wanted), "{what}");
    for (name, bytes) in &found {
        assert!(*bytes == wanted[name], "{what}: {name}: {} bytes, of {}", bytes.len(), wanted[name].len());
    }
}

/// `objfs sync`: everything is in the bucket.
fn sync(mount: &Mount<'_>) {
    stdout_of(objfs().arg("sync").arg(mount.root()));
}

/// Runs a shell script in the mount and in `../local`, and answers what it prints: the same in both.
#[track_caller]
fn both(mount: &Mount<'_>, script: &str) -> String {
    let local = mount.outside("local");
    fs::create_dir_all(&local).unwrap();
    let wanted = stdout_of(Command::new("sh").arg("-euc").arg(script).current_dir(&local));
    let printed = mount.sh(script);
    assert_eq!(printed, wanted, "{script}");
    printed
}

/// The mount and the bucket hold what `../local` holds.
#[track_caller]
fn assert_agrees(store: &Store, mount: &Mount<'_>, except: &[&str]) {
    let local = mount.outside("local");
    assert_same("through the mount", tree(&mount.root()), tree(&local), except);
    sync(mount);
    assert_same("in the bucket", bucket(store), tree(&local), except);
}

/// What `work` costs in requests, until everything is in the bucket.
fn cost<T>(store: &Store, mount: &Mount<'_>, work: impl FnOnce() -> T) -> Counts {
    sync(mount);
    store.server().reset_counters();
    work();
    sync(mount);
    store.server().counters()
}

fn writes(counts: &Counts) -> (u64, u64, u64) {
    (counts.of("PutObject"), counts.of("CopyObject"), counts.of("DeleteObject"))
}

/// 40 files, a link and an empty directory, all of them old: rsync leaves times alone that are of the same second.
fn make_source(mount: &Mount<'_>) {
    let source = mount.outside("source");
    fs::create_dir_all(source.join("sub dir/empty")).unwrap();
    for i in 0..30 {
        fs::write(source.join(format!("f{i}")), noise(i, 700 * i as usize)).unwrap();
    }
    for i in 0..10 {
        fs::write(source.join(format!("sub dir/\u{e4} {i}")), format!("{i}\n")).unwrap();
    }
    let rest =
        "ln -s f1 link; chmod 600 f2; chmod 750 f4; find . -exec touch -h -d '2019-09-09 09:09:09.123456789Z' {} +";
    stdout_of(Command::new("sh").arg("-euc").arg(rest).current_dir(source));
}

/// Dates are given, and one thread packs: both repositories get the same ids and packs.
const GIT: &str = "export GIT_AUTHOR_DATE='2020-02-02 02:02:02 +0000' GIT_COMMITTER_DATE='2020-02-02 02:02:02 +0000'\n\
    git() { command git -c user.name=t -c user.email=t@example.com -c init.defaultBranch=main -c safe.directory=\\* \
    -c gc.auto=0 -c pack.threads=1 \"$@\"; }\n";

fn git(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    let work = "git init -q repo; cd repo\n\
        for i in $(seq 50); do mkdir -p d$((i % 5)); seq $i $((i * 40)) > d$((i % 5))/f$i; done\n\
        git add .; git commit -qm fifty; git status --short\n\
        git checkout -qb side; git rm -q d1/f1; sed -i 's/^3$/three/' d*/f*; git commit -qam side\n\
        git checkout -q main; echo more >> d0/f5; git commit -qam more; git merge -q -m merged side\n\
        git gc -q; git fsck --strict; git status --short; git branch; git log --format='%H %s'";
    let log = both(&mount, &format!("{GIT}{work}"));
    assert!(log.contains("* main\n  side\n") && log.ends_with(" fifty\n"), "{log}");
    // The index holds times and inode numbers.
    assert_agrees(&store, &mount, &["repo/.git/index"]);
    download(&store, &mount.outside("download"));
    mount.remount();
    let looked = mount.sh(&format!("{GIT}cd repo; git diff-files; git status --short; git fsck --strict"));
    assert_eq!(looked, "", "clean, and the index knows each file by its times and inode number");
    let elsewhere = "cd ..; git clone -q mnt/repo clone; diff -r -x .git mnt/repo clone\n\
        cd clone; git fsck --strict; git log --format=%s -1\n\
        cd ../download/repo; git fsck --strict; git status --short; git log --format=%s -1";
    assert_eq!(mount.sh(&format!("{GIT}{elsewhere}")), "merged\nmerged\n");
    finish(&store, &mut mount);
}

#[test]
fn git_repositories_are_those_of_a_local_disk() {
    git(THROUGH);
}

#[test]
fn git_repositories_are_those_of_a_local_disk_with_write_back() {
    git(BACK);
}

fn rsync_of_a_tree(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    make_source(&mount);
    let rsync = "rsync -aHAX --delete --stats ../source/ copy/ | grep 'files transferred'\n\
        find copy -printf '%p %T@ %m %y %l\\n' | sort";
    assert!(both(&mount, rsync).starts_with("Number of regular files transferred: 40\n"));
    assert!(both(&mount, rsync).starts_with("Number of regular files transferred: 0\n"));
    assert_agrees(&store, &mount, &[]);
    assert_eq!(store.metadata("copy/sub dir/\u{e4} 3")["mtime"], "1568020149.123456789", "for other machines");
    mount.remount();
    assert!(both(&mount, rsync).starts_with("Number of regular files transferred: 0\n"), "after a remount");
    let source = mount.outside("source");
    fs::remove_file(source.join("f7")).unwrap();
    fs::remove_dir_all(source.join("sub dir/empty")).unwrap();
    fs::write(source.join("f8"), "changed").unwrap();
    stdout_of(Command::new("touch").args(["-d", "2020-02-02 02:02:02.5Z", ".", "sub dir", "f8"]).current_dir(source));
    assert!(both(&mount, rsync).starts_with("Number of regular files transferred: 1\n"));
    assert_agrees(&store, &mount, &[]);
    assert!(both(&mount, rsync).starts_with("Number of regular files transferred: 0\n"), "f8 has its time");
    finish(&store, &mut mount);
}

#[test]
fn rsync_keeps_a_tree_with_its_times() {
    rsync_of_a_tree(THROUGH);
}

#[test]
fn rsync_keeps_a_tree_with_its_times_with_write_back() {
    rsync_of_a_tree(BACK);
}

fn rsync_costs(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    make_source(&mount);
    mount.sh("echo the probe > probe; mkdir first second; ls -R > /dev/null");
    let files = "--omit-dir-times --exclude=link --exclude='sub dir' ../source/";
    // Without -X, rsync sets times and modes after it has closed the file under its temporary name.
    for (rsync, to) in [("rsync -aHAX", "first"), ("rsync -a", "second")] {
        let counts = cost(&store, &mount, || mount.sh(&format!("{rsync} {files} {to}/")));
        assert_eq!(writes(&counts), (30, 0, 0), "{rsync}: a PUT for each file: {counts:?}");
        let again = cost(&store, &mount, || mount.sh(&format!("{rsync} {files} {to}/")));
        assert_eq!(writes(&again), (0, 0, 0), "{rsync}: {again:?}");
    }
    finish(&store, &mut mount);
}

#[test]
fn rsync_costs_a_put_for_each_file() {
    rsync_costs(THROUGH);
}

#[test]
fn rsync_costs_a_put_for_each_file_with_write_back() {
    rsync_costs(BACK);
}

fn rsync_in_place_and_partial(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    let large = mount.outside("source/large");
    fs::create_dir(large.parent().unwrap()).unwrap();
    let mut bytes = noise(1, 20 << 20);
    fs::write(&large, &bytes).unwrap();
    both(&mount, "rsync -a --inplace ../source/ in-place/");
    bytes[9_000_000..9_100_000].copy_from_slice(&noise(2, 100_000));
    bytes.extend(noise(3, 100_000));
    fs::write(&large, &bytes).unwrap();
    both(&mount, "rsync -a --inplace --no-whole-file ../source/ in-place/");
    // It ends in the middle, and its receiver, a little later, leaves what it has under the file's own name.
    let stopped = "timeout 1 rsync -a --partial --bwlimit=4m ../source/ part/ || for i in $(seq 50); do\n\
        if [ -e part/large ]; then break; fi; sleep 0.1; done; ls -A part";
    assert_eq!(both(&mount, stopped), "large\n");
    both(&mount, "rsync -a --partial --no-whole-file ../source/ part/; ls -A part; cmp part/large ../source/large");
    assert_agrees(&store, &mount, &[]);
    assert!(store.get("in-place/large") == bytes);
    finish(&store, &mut mount);
}

#[test]
fn rsync_goes_on_with_files_in_place() {
    rsync_in_place_and_partial(THROUGH);
}

#[test]
fn rsync_goes_on_with_files_in_place_with_write_back() {
    rsync_in_place_and_partial(BACK);
}

/// Commits rows up to a number, one each, and prints the number of each that is committed. `die`: it kills itself within the
/// last transaction, of which SQLite has written most by then.
const ROWS: &str = "import os, signal, sqlite3, sys\n\
    mode, last, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]\n\
    db = sqlite3.connect('data.db', timeout=30, isolation_level=None)\n\
    got = db.execute(f'pragma journal_mode={mode}').fetchone()[0]\n\
    assert got.upper() == mode, got\n\
    db.execute('pragma cache_size=10')\n\
    db.execute('create table if not exists t (id integer primary key, v text)')\n\
    for i in range(db.execute('select coalesce(max(id), -1) + 1 from t').fetchone()[0], last):\n\
    \x20   db.execute('begin')\n\
    \x20   db.execute('insert into t values (?, ?)', (i, str(i) * 100))\n\
    \x20   if how == 'die' and i == last - 1:\n\
    \x20       for j in range(1000, 1300): db.execute('insert into t values (?, ?)', (j, 'x' * 1000))\n\
    \x20       os.kill(os.getpid(), signal.SIGKILL)\n\
    \x20   db.execute('commit')\n\
    \x20   print(i, flush=True)\n\
    db.close()";

/// Prints how many rows there are, if all is well with them.
const COUNT: &str = "import sqlite3\n\
    db = sqlite3.connect('data.db', timeout=30)\n\
    found = db.execute('pragma integrity_check').fetchone()[0]\n\
    assert found == 'ok', found\n\
    rows = db.execute('select id, v from t order by id').fetchall()\n\
    assert rows == [(i, str(i) * 100) for i in range(len(rows))], rows[-3:]\n\
    db.close()\n\
    print(len(rows))";

fn rows(dir: &Path) -> usize {
    stdout_of(Command::new(python()).args(["-c", COUNT]).current_dir(dir)).trim().parse().unwrap()
}

fn write_rows(dir: &Path, mode: &str, last: &str, how: &str) -> Command {
    let mut command = Command::new(python());
    command.args(["-c", ROWS, mode, last, how]).current_dir(dir).stdin(Stdio::null());
    command
}

/// Writes rows, and kills the writer when it has said that this many are committed. Answers how many it has said.
fn write_rows_until(dir: &Path, mode: &str, min: usize) -> usize {
    let mut writer = write_rows(dir, mode, "200", "go").stdout(Stdio::piped()).spawn().unwrap();
    let mut said = 0;
    for line in BufReader::new(writer.stdout.take().unwrap()).lines() {
        said = line.unwrap().parse::<usize>().unwrap() + 1;
        if said == min {
            kill(i32::try_from(writer.id()).unwrap());
        }
    }
    assert_eq!(writer.wait().unwrap().signal(), Some(9), "after {said} rows");
    said
}

fn sqlite(options: &[&str], mode: &str) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    let said = write_rows_until(&mount.root(), mode, 80);
    let found = rows(&mount.root());
    assert!(found == said || found == said + 1, "{found} rows, and {said} were committed");
    let died = output_of(&mut write_rows(&mount.root(), mode, "140", "die"), Duration::from_secs(60));
    assert_eq!(died.status.signal(), Some(9), "{}", String::from_utf8_lossy(&died.stderr));
    // As it is now, for another machine.
    sync(&mount);
    let journal = if mode == "WAL" { "data.db-wal" } else { "data.db-journal" };
    assert!(store.keys().iter().any(|key| key == journal), "{:?}", store.keys());
    let elsewhere = mount.outside("elsewhere");
    download(&store, &elsewhere);
    assert_eq!(rows(&elsewhere), 139, "elsewhere");
    mount.remount();
    assert_eq!(rows(&mount.root()), 139, "after a remount");
    stdout_of(&mut write_rows(&mount.root(), mode, "200", "go"));
    assert_eq!(rows(&mount.root()), 200);
    mount.remount();
    sync(&mount);
    assert_eq!(store.keys(), ["data.db"], "it was closed in order");
    let end = mount.outside("end");
    download(&store, &end);
    assert_eq!(rows(&end), 200, "in the bucket");
    finish(&store, &mut mount);
}

#[test]
fn sqlite_with_a_rollback_journal_survives_kills_of_its_program() {
    sqlite(THROUGH, "DELETE");
}

#[test]
fn sqlite_with_a_rollback_journal_survives_kills_of_its_program_with_write_back() {
    sqlite(BACK, "DELETE");
}

#[test]
fn sqlite_with_a_write_ahead_log_survives_kills_of_its_program() {
    sqlite(THROUGH, "WAL");
}

#[test]
fn sqlite_with_a_write_ahead_log_survives_kills_of_its_program_with_write_back() {
    sqlite(BACK, "WAL");
}

/// Saves as editors do: GLib, KDE, Emacs and others, by turns.
const SAVE: &str = "for i in range(20):\n\
    \x20   temp = ['.goutputstream-A1B2C3', 'doc.txt.tmp', '.doc.txt.aB3dE6', 'doc.txt~'][i % 4]\n\
    \x20   f = os.open(temp, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)\n\
    \x20   os.write(f, b'save %d\\n' % i * 100)\n\
    \x20   os.fchmod(f, 0o644)\n\
    \x20   os.fsync(f)\n\
    \x20   os.close(f)\n\
    \x20   os.rename(temp, 'doc.txt')\n\
    \x20   d = os.open('.', os.O_RDONLY)\n\
    \x20   os.fsync(d)\n\
    \x20   os.close(d)\n\
    \x20   assert open('doc.txt').read() == f'save {i}\\n' * 100";

fn saves_by_rename(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    mount.sh("echo the probe > probe; ls > /dev/null");
    let counts = cost(&store, &mount, || mount.py(SAVE, &[]));
    // A save is in the bucket when the directory was synced.
    assert_eq!(writes(&counts), (20, 0, 0), "{counts:?}");
    assert_eq!(store.text("doc.txt"), "save 19\n".repeat(100));
    assert_eq!(store.metadata("doc.txt")["mode"], "33188");
    mount.remount();
    assert_eq!(names(mount.root()), ["doc.txt", "probe"]);
    finish(&store, &mut mount);
}

#[test]
fn twenty_saves_by_rename_are_twenty_puts() {
    saves_by_rename(THROUGH);
}

#[test]
fn twenty_saves_by_rename_are_twenty_puts_with_write_back() {
    saves_by_rename(BACK);
}

/// Archives that are made elsewhere and here, changed in place, and unpacked; sed; encoders that come back to the head of
/// their file.
fn archives_and_media(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    make_source(&mount);
    both(
        &mount,
        "pack='tar -c --sort=name --owner=0 --group=0 --numeric-owner'\n\
         $pack -C .. -f t.tar source; mkdir out; tar -C out -xpf t.tar; $pack -C out source | cmp - t.tar\n\
         here=$PWD; cd ../source; zip -qrXy \"$here/t.zip\" .; cd \"$here\"\n\
         zip -qX t.zip out/source/f9; zip -qd t.zip 'sub dir/*'; unzip -qt t.zip; mkdir unzipped; unzip -q t.zip -d unzipped\n\
         (find out/source; find unzipped -type f) | sort | xargs -d '\\n' stat -c '%n %y %a %F'",
    );
    both(
        &mount,
        "for i in $(seq 10); do seq $i 200 > s$i; chmod 640 s$i; done\n\
         sed -i.bak 's/1/one/' s*; sed -i 1d s3; stat -c '%n %a %s' s*; cat s3 s10.bak",
    );
    both(
        &mount,
        "make='ffmpeg -v error -nostdin -threads 1 -f lavfi'; exact='-fflags +bitexact -flags +bitexact'\n\
         $make -i testsrc2=size=320x240:rate=25:duration=4 -c:v mpeg4 -q:v 2 $exact -movflags +faststart film.mp4\n\
         ffprobe -v error -count_frames -show_entries stream=nb_read_frames -of csv film.mp4\n\
         head -c 400 film.mp4 | grep -c moov\n\
         $make -i sine=duration=3 $exact sound.wav; flac --silent -o sound.flac sound.wav; flac --silent -t sound.flac\n\
         metaflac --set-tag=TITLE=sine sound.flac; metaflac --show-tag=TITLE sound.flac; flac --silent -t sound.flac",
    );
    assert_agrees(&store, &mount, &[]);
    mount.remount();
    mount.sh("flac --silent -t sound.flac; unzip -qt t.zip; tar -tf t.tar > /dev/null");
    finish(&store, &mut mount);
}

#[test]
fn archives_sed_and_encoders_leave_what_they_leave_on_a_local_disk() {
    archives_and_media(THROUGH);
}

#[test]
fn archives_sed_and_encoders_leave_what_they_leave_on_a_local_disk_with_write_back() {
    archives_and_media(BACK);
}

fn logs(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    let at_once = both(&mount, "for i in $(seq 50); do (echo \"line $i\" >> at-once) & done; wait; sort at-once");
    assert_eq!(at_once.lines().count(), 50);
    both(&mount, "for i in $(seq 50); do sh -c \"echo line $i >> in-turn\"; done; cat in-turn");
    // In which order the first fifty came is theirs.
    assert_agrees(&store, &mount, &["at-once"]);
    assert_eq!(store.text("at-once"), fs::read_to_string(mount.at("at-once")).unwrap());
    mount.remount();
    both(&mount, "echo last >> in-turn; echo last >> at-once; cat in-turn; sort at-once");
    assert_agrees(&store, &mount, &["at-once"]);
    finish(&store, &mut mount);
}

#[test]
fn fifty_programs_append_to_a_log() {
    logs(THROUGH);
}

#[test]
fn fifty_programs_append_to_a_log_with_write_back() {
    logs(BACK);
}

fn dd_and_truncate(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    fs::write(mount.outside("source"), noise(4, 70 << 20)).unwrap();
    for step in [
        "dd if=../source of=large bs=1M conv=fsync status=none",
        "truncate -s 40000001 large",
        "truncate -s 80000000 large",
        "dd if=../source of=large bs=4k seek=5000 count=300 conv=notrunc status=none",
        "dd if=../source of=large bs=1M seek=60 count=1 conv=notrunc,fsync status=none; printf end >> large",
        "truncate -s 3 large; dd if=../source of=large bs=1000 seek=20 count=1 conv=notrunc status=none",
    ] {
        both(&mount, &format!("{step}; stat -c %s large"));
        assert_agrees(&store, &mount, &[]);
    }
    mount.remount();
    assert_agrees(&store, &mount, &[]);
    finish(&store, &mut mount);
}

#[test]
fn a_large_file_is_cut_grown_and_patched() {
    dd_and_truncate(THROUGH);
}

#[test]
fn a_large_file_is_cut_grown_and_patched_with_write_back() {
    dd_and_truncate(BACK);
}
