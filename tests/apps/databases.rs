//! SQLite: databases with either journal, through kills of their programs and remounts, and as other programs see them.
//!
//! Owns: rows, checks and bytes of databases. Does not own: what their locks and fsyncs cost (`tests/mount`).

use crate::compare::{BACK, THROUGH, assert_agrees, both, download, finish, sync};
use crate::running::need;
use crate::world::{Store, is_full, kill, output_of, python, stdout_of};
use objfs::devserver::Effect;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Commits rows up to a number, one each, and prints the number of each that is committed. `die`: it kills itself within
/// the last transaction, of which SQLite has written most by then.
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

/// With SQLite's own program: the database is that of a local disk, byte by byte, and passes its check after a remount.
fn sqlite3(mode: &str) {
    need("sqlite3", "sqlite3");
    let store = Store::dev();
    let mut mount = store.mount();
    let check = "sqlite3 data.db 'pragma journal_mode; pragma integrity_check'\n\
        sqlite3 data.db 'select count(*), sum(length(v)) from t'; ls -A";
    let work = format!(
        "sqlite3 data.db <<'END'\n\
         pragma journal_mode={mode};\n\
         create table t (id integer primary key, v text);\n\
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)\n\
         \x20   insert into t select i, substr(hex(zeroblob(150)), 1, i % 300) from n;\n\
         create index by_v on t (v);\n\
         update t set v = v || 'more' where id % 7 = 0;\n\
         delete from t where id % 5 = 0;\n\
         END\n\
         for i in 1 2 3 4 5 6 7 8; do sqlite3 data.db \"insert into t (v) values ('row $i')\"; done\n\
         sqlite3 data.db vacuum\n\
         {check}"
    );
    let said = both(&mount, &work);
    let mode = mode.to_lowercase();
    assert!(said.contains(&format!("{mode}\nok\n4008|")) && said.ends_with("\ndata.db\n"), "{said}");
    assert_agrees(&store, &mount, &[]);
    mount.remount();
    both(&mount, check);
    mount.sh("sqlite3 data.db 'delete from t where id % 2 = 0'; sqlite3 data.db 'pragma integrity_check'");
    finish(&store, &mut mount);
}

#[test]
fn a_database_with_a_rollback_journal_is_that_of_a_local_disk() {
    sqlite3("DELETE");
}

#[test]
fn a_database_with_a_write_ahead_log_is_that_of_a_local_disk() {
    sqlite3("WAL");
}

/// What the second program does.
const OTHER: &str = "import sqlite3\n\
    db = sqlite3.connect('data.db', timeout=30, isolation_level=None)\n\
    db.execute('insert into t values (2)')\n\
    print(db.execute('select count(*) from t').fetchone()[0])\n\
    db.close()";

/// The index of the log is a file that both programs map and write: they share its pages, because the mount reads and
/// writes through the kernel's page cache.
#[test]
fn two_programs_share_the_write_ahead_log_of_a_database() {
    let store = Store::dev();
    let mut mount = store.mount();
    let said = mount.py(
        "import sqlite3, subprocess\n\
         db = sqlite3.connect('data.db', timeout=30, isolation_level=None)\n\
         print(db.execute('pragma journal_mode=WAL').fetchone()[0])\n\
         db.execute('create table t (v)')\n\
         db.execute('insert into t values (1)')\n\
         print(subprocess.check_output([sys.executable, '-c', sys.argv[1]], text=True).strip())\n\
         print(db.execute('select sum(v) from t').fetchone()[0], sorted(os.listdir('.')))\n\
         db.close()\n\
         print(sorted(os.listdir('.')))",
        &[OTHER],
    );
    assert_eq!(said, "wal\n2\n3 ['data.db', 'data.db-shm', 'data.db-wal']\n['data.db']\n");
    finish(&store, &mut mount);
}

/// Commits rows until it is killed, one after another for five seconds, and then none for two. Checkpoints come soon.
const BUSY: &str = "import sqlite3, time\n\
    db = sqlite3.connect('data.db', timeout=30, isolation_level=None)\n\
    db.execute('pragma journal_mode=WAL')\n\
    db.execute('pragma wal_autocheckpoint=100')\n\
    i = db.execute('select max(id) + 1 from t').fetchone()[0]\n\
    while True:\n\
    \x20   end = time.time() + 5\n\
    \x20   while time.time() < end:\n\
    \x20       db.execute('insert into t values (?, ?)', (i, str(i) * 100)); i += 1\n\
    \x20       time.sleep(0.02)\n\
    \x20   time.sleep(2)";

/// A database and its log as the bucket has both at one moment; `None` while there is no database, or one of them changes.
fn at_one_moment(store: &Store) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let before = store.list();
    let (database, log) = (store.try_get("data.db")?, store.try_get("data.db-wal"));
    (store.list() == before).then_some((database, log))
}

/// Somebody takes the database out of the bucket while a program works with it: at each moment it is whole.
#[test]
fn the_bucket_has_a_whole_database_while_a_program_writes_to_its_log() {
    let store = Store::dev();
    let mut mount = store.mount();
    stdout_of(&mut write_rows(&mount.root(), "WAL", "1", "go"));
    sync(&mount);
    // Long enough to be seen between two of its uploads.
    store.fault_on(Effect::Latency { ms: 100 }, &["PutObject"]);
    let mut writer = Command::new(python());
    let writer = writer.args(["-c", BUSY]).current_dir(mount.root()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut writer = writer.spawn().unwrap();
    let (mut seen, mut last, mut most) = (0, None, 0);
    let (mut with_log, mut without_log) = (0, 0);
    let work_time = Duration::from_secs(if is_full() { 180 } else { 45 });
    let end = Instant::now() + work_time;
    while Instant::now() < end {
        let found = at_one_moment(&store);
        if found.is_none() || found == last {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        last.clone_from(&found);
        let Some((database, log)) = found else { continue };
        seen += 1;
        *(if log.is_some() { &mut with_log } else { &mut without_log }) += 1;
        let copy = mount.outside(&format!("copy{seen}"));
        fs::create_dir(&copy).unwrap();
        fs::write(copy.join("data.db"), database).unwrap();
        if let Some(log) = log {
            fs::write(copy.join("data.db-wal"), log).unwrap();
        }
        most = most.max(rows(&copy));
    }
    kill(i32::try_from(writer.id()).unwrap());
    writer.wait().unwrap();
    println!("{seen} states, {with_log} with a log and {without_log} without, up to {most} rows");
    assert!(seen >= 4 && with_log > 0 && most > 50, "{seen} states, {with_log} with a log, {most} rows");
    sync(&mount);
    let end = mount.outside("end");
    download(&store, &end);
    assert_eq!(rows(&end), rows(&mount.root()));
    finish(&store, &mut mount);
}
