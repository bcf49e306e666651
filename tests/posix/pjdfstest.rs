//! pjdfstest: what system calls have to do and to refuse, in 398 tests. What passes on the machine's own disk passes in
//! a mount, but for what `expected.txt` names.
//!
//! Owns: its configuration, reading what it prints, the verdict.
//! Does not own: where the program is (`tools`), mounts (`mounts`).

use crate::mounts::{Store, is_root, output_of};
use crate::tools;
use nix::mount::{MntFlags, MsFlags};
use nix::unistd::{Group, User};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names of tests that do not pass in a mount, and why, one a line.
const EXPECTED: &str = include_str!("expected.txt");
/// The reason of a test that the kernel lets pass or fail, as it comes.
const EITHER: &str = "kernel:";
/// How the reason of those begins that pass where the mountpoint has most of their path.
const LONG_KEY: &str = "key longer than";
/// Whom it becomes. The second one is made by scripts/test.
const USERS: [&str; 2] = ["nobody", "objfs-test"];
/// Bytes of a path in which its tests can make sockets: of the 107 that fit into an address (unix(7)), two temporary
/// folders take 11 each, and the socket 33.
const PATH_MAX_WITH_SOCKETS: usize = 52;
/// Bytes of a mountpoint below which a path of 4,095 bytes is a key of 844.
const LONG_PATH: usize = 3_250;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// A line such as `chmod::change_perm::fifo    ok`; what stands below one that failed is none.
fn outcome_of(line: &str) -> Option<(&str, Outcome)> {
    let (name, rest) = line.split_once(' ').filter(|(name, _)| name.contains("::"))?;
    let outcome = match rest.trim() {
        "ok" | "PASSED UNEXPECTEDLY" => Outcome::Passed,
        "FAILED" | "failed as expected" => Outcome::Failed,
        "skipped" => Outcome::Skipped,
        _ => return None,
    };
    Some((name, outcome))
}

/// What a run printed.
struct Run {
    outcomes: BTreeMap<String, Outcome>,
    text: String,
}

impl Run {
    fn parse(text: String) -> Run {
        let outcomes: BTreeMap<String, Outcome> =
            text.lines().filter_map(outcome_of).map(|(name, outcome)| (name.to_owned(), outcome)).collect();
        let summary = text.lines().find_map(|line| line.strip_prefix("Summary: ")?.strip_suffix(" total"));
        let total = summary.and_then(|summary| summary.rsplit(' ').next()?.parse::<usize>().ok());
        assert_eq!(total, Some(outcomes.len()), "tests that pjdfstest counts (left) and names (right):\n{text}");
        Run { outcomes, text }
    }

    /// What stands below a test.
    fn told(&self, name: &str) -> String {
        let is_it = |line: &&str| outcome_of(line).is_some_and(|(found, _)| found == name);
        let below = self.text.lines().skip_while(|line| !is_it(line)).skip(1);
        let lines: Vec<&str> = below.take_while(|line| !line.is_empty() && outcome_of(line).is_none()).collect();
        lines.join("\n")
    }
}

/// Runs it below a folder: all tests, or those with these names.
fn run(config: &Path, folder: &Path, only: &[&str]) -> Run {
    let mut command = Command::new(tools::find("pjdfstest"));
    command.arg("-c").arg(config).arg("-p").arg(folder);
    if !only.is_empty() {
        // What it compares exactly are the names in full; it prints them without their beginning.
        command.arg("--exact").args(only.iter().map(|name| format!("pjdfstest::tests::{name}")));
    }
    command.env_remove("CLICOLOR_FORCE").env("NO_COLOR", "1");
    command.env("RUST_BACKTRACE", "0").env("RUST_LIB_BACKTRACE", "0");
    let output = output_of(&mut command, tools::time_max());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // 1 if some have failed, which the verdict is about, but also if it could not begin.
    let has_run = matches!(output.status.code(), Some(0 | 1)) && text(&output.stdout).contains("\nSummary: ");
    assert!(has_run, "pjdfstest: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    Run::parse(text(&output.stdout))
}

/// Writes the configuration, with the tests that are expected to fail.
fn configure(path: &Path, failures: &[&str]) {
    let entry = |name: &str| {
        let user = User::from_name(name).unwrap();
        let user = user.unwrap_or_else(|| panic!("there is no user {name}; scripts/test makes it when root runs it"));
        let group = Group::from_gid(user.gid).unwrap().unwrap_or_else(|| panic!("the group of {name} has no name"));
        [name.to_owned(), group.name]
    };
    // naptime: seconds between two changes whose times must differ. Remounting is not for tests that share a machine.
    let text = format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = 0.01\nallow_remount = false\nexpected_failures = {failures:?}\n\
         [dummy_auth]\nentries = {entries:?}\n",
        entries = USERS.map(entry)
    );
    fs::write(path, text).unwrap();
}

/// What `expected.txt` says: name and reason.
fn expected() -> BTreeMap<&'static str, &'static str> {
    let lines = EXPECTED.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line: &'static str| {
        let (name, reason) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} in expected.txt has no reason"));
        (name, reason.trim())
    };
    lines.map(parse).collect()
}

/// What is wrong: tests that should pass here, tests that should not, and names that are none.
fn verdict(here: &Run, there: &Run, expected: &BTreeMap<&str, &str>) -> Vec<String> {
    let mut wrong = Vec::new();
    if !here.outcomes.keys().eq(there.outcomes.keys()) {
        wrong.push("not the same tests ran in the mount and on the machine's own disk".to_owned());
    }
    for (name, outcome) in &here.outcomes {
        let passes_there = there.outcomes.get(name) == Some(&Outcome::Passed);
        match (outcome, expected.get(name.as_str())) {
            (_, Some(reason)) if reason.starts_with(EITHER) => {}
            (Outcome::Passed, Some(reason)) => {
                wrong.push(format!("{name} passes, and expected.txt says that it does not ({reason}): take it out"));
            }
            (Outcome::Failed | Outcome::Skipped, None) if passes_there => {
                let told = here.told(name);
                wrong.push(format!("{name} passes on the machine's own disk, and not here: {outcome:?}\n{told}"));
            }
            (Outcome::Failed, None) => println!("{name} fails on the machine's own disk as well"),
            _ => {}
        }
    }
    let unknown = expected.keys().filter(|name| !here.outcomes.contains_key(**name));
    wrong.extend(unknown.map(|name| format!("{name} in expected.txt is no test: take it out")));
    wrong
}

/// A folder below `base` whose path has exactly `len` bytes.
fn deep(base: PathBuf, len: usize) -> PathBuf {
    let mut path = base;
    while path.as_os_str().len() < len {
        let missing = len - path.as_os_str().len();
        // With the slash; and the last name is none that is empty.
        path.push("d".repeat(if missing > 250 { 200 } else { missing - 1 }));
    }
    assert_eq!(path.as_os_str().len(), len, "{}", path.display());
    path
}

/// A mount that is seen at another place too, until this is dropped.
struct Bind(PathBuf);

impl Bind {
    fn new(mountpoint: &Path, place: PathBuf) -> Bind {
        fs::create_dir_all(&place).unwrap();
        let flags = MsFlags::MS_BIND;
        nix::mount::mount(Some(mountpoint), place.as_path(), None::<&str>, flags, None::<&str>).unwrap();
        Bind(place)
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        _ = nix::mount::umount2(self.0.as_path(), MntFlags::MNT_DETACH);
    }
}

fn can_run() -> bool {
    if !is_root() {
        println!("pjdfstest changes users: it runs as root only");
    }
    is_root()
}

#[test]
fn what_passes_on_the_machines_own_disk_passes_in_a_mount() {
    if !can_run() {
        return;
    }
    let (store, own, expected) = (Store::dev(), tools::own_disk(), expected());
    let config = own.path().join("pjdfstest.toml");
    let failures = expected.iter().filter(|(_, reason)| !reason.starts_with(EITHER));
    configure(&config, &failures.map(|(name, _)| *name).collect::<Vec<_>>());
    let there = run(&config, own.path(), &[]);
    let mount = store.mount_with(&["allow_other"]);
    fs::set_permissions(mount.outside("."), fs::Permissions::from_mode(0o711)).unwrap();
    let root = mount.root();
    let len = root.as_os_str().len();
    assert!(len <= PATH_MAX_WITH_SOCKETS, "{} is too long for sockets: set a shorter TMPDIR", root.display());
    let here = run(&config, &root, &[]);
    let wrong = verdict(&here, &there, &expected);
    assert!(wrong.is_empty(), "{} of {} tests:\n{}", wrong.len(), here.outcomes.len(), wrong.join("\n"));
}

#[test]
fn paths_of_4095_bytes_are_paths_where_the_mountpoint_has_most_of_them() {
    if !can_run() {
        return;
    }
    let (store, own, expected) = (Store::dev(), tools::own_disk(), expected());
    let names: Vec<&str> =
        expected.iter().filter(|(_, reason)| reason.starts_with(LONG_KEY)).map(|(name, _)| *name).collect();
    let mount = store.mount_with(&["allow_other"]);
    let config = own.path().join("pjdfstest.toml");
    configure(&config, &[]);
    let bind = Bind::new(&mount.root(), deep(own.path().to_owned(), LONG_PATH));
    let here = run(&config, &bind.0, &names);
    let ran: Vec<&str> = here.outcomes.keys().map(String::as_str).collect();
    assert_eq!(ran, names, "{}", here.text);
    assert!(here.outcomes.values().all(|outcome| *outcome == Outcome::Passed), "{}", here.text);
}

#[test]
fn the_list_of_what_does_not_pass_is_read_whole() {
    let expected = expected();
    assert_eq!(expected["link::remove_link::fifo"], "hard links: a bucket has none (EPERM)");
    assert_eq!(expected.values().filter(|reason| reason.starts_with(LONG_KEY)).count(), 14);
}

#[test]
fn the_verdict_names_what_differs_from_the_disk_and_from_the_list() {
    let print = |lines: &[&str]| {
        let total = lines.iter().filter(|line| outcome_of(line).is_some()).count();
        Run::parse(format!("{}\n\nSummary: 0 failed, {total} total\n", lines.join("\n")))
    };
    let there = print(&["a::good  ok", "a::link  PASSED UNEXPECTEDLY", "a::odd  FAILED", "a::gone  ok", "a::now  ok"]);
    let here = print(&[
        "a::good  FAILED",
        "\tassertion `left == right` failed",
        "  left: Ok(())",
        "a::link       failed as expected",
        "a::odd  FAILED",
        "\tthe same there",
        "a::gone  skipped",
        "\trequires what is not there",
        "a::now  PASSED UNEXPECTEDLY",
    ]);
    let listed = BTreeMap::from([("a::link", "no links"), ("a::now", "too new"), ("a::lost", "renamed")]);
    let wrong = verdict(&here, &there, &listed);
    assert_eq!(wrong.len(), 4, "{wrong:?}");
    assert!(wrong[0].starts_with("a::gone passes on") && wrong[0].ends_with("Skipped\n\trequires what is not there"));
    assert!(wrong[1].starts_with("a::good passes on") && wrong[1].ends_with("failed\n  left: Ok(())"), "{}", wrong[1]);
    assert!(wrong[2].starts_with("a::now passes, and") && wrong[2].contains("(too new)"), "{}", wrong[2]);
    assert!(wrong[3].starts_with("a::lost in expected.txt is no test"), "{}", wrong[3]);
    assert_eq!(verdict(&there, &there, &BTreeMap::new()), [] as [String; 0]);
}
