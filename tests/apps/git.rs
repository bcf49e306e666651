//! git: a repository that is made in the mount, and one that is cloned into it.
//!
//! Owns: that both are, byte by byte, those of a local disk. Does not own: git on a slow server (`delays`).

use crate::compare::{BACK, THROUGH, assert_agrees, both, download, finish};
use crate::world::Store;
use std::fmt::Write;
use std::fs;

/// Commits of the repository that is cloned.
const COMMITS: usize = 200;

/// Dates are given, and one thread packs: both repositories get the same ids and packs.
pub(crate) const GIT: &str = "export GIT_AUTHOR_DATE='2020-02-02 02:02:02 +0000'\n\
    export GIT_COMMITTER_DATE='2020-02-02 02:02:02 +0000'\n\
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

/// The history of a repository, as `git fast-import` reads it: files in five directories, and the branch `side`, which
/// ends 50 commits before `main`.
pub(crate) fn history(commits: usize) -> String {
    let mut stream = String::new();
    for i in 1..=commits {
        let (message, text) = (format!("commit {i}\n"), format!("line of {i}\n").repeat(20 + i));
        let (dir, file, second) = (i % 5, i % 40, 1_500_000_000 + i);
        write!(
            stream,
            "commit refs/heads/main\nmark :{i}\ncommitter t <t@example.com> {second} +0000\ndata {}\n{message}\
             M 100644 inline d{dir}/f{file}\ndata {}\n{text}\n",
            message.len(),
            text.len()
        )
        .unwrap();
    }
    write!(stream, "reset refs/heads/side\nfrom :{}\n\n", commits.saturating_sub(50).max(1)).unwrap();
    stream
}

/// What makes `../origin.git` of `../history`.
pub(crate) const IMPORT: &str =
    "(cd ..; git init -q --bare origin.git; cd origin.git; git fast-import --quiet < ../history)";

fn clone(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    fs::write(mount.outside("history"), history(COMMITS)).unwrap();
    mount.sh(&format!("{GIT}{IMPORT}"));
    // git asks for hard links of the packs, is refused them, and copies.
    let work = "git clone -q ../origin.git clone; cd clone; git remote set-url origin ../../origin.git; git log --oneline | wc -l; git status --short\n\
        git branch -a; git checkout -q side; git log --format=%s -1; git status --short; cat d0/f30 | tail -n 1\n\
        git checkout -q -b topic; for i in 1 2 3; do echo $i >> new; git add new; git commit -qm \"more $i\"; done\n\
        git checkout -q main; git merge -q -m merged topic\n\
        git gc -q; git fsck --strict; git status --short; git branch; git log --format='%H %s' -5; git count-objects";
    let said = both(&mount, &format!("{GIT}{work}"));
    assert!(said.starts_with("200\n* main\n") && said.contains("\ncommit 150\n"), "{said}");
    assert!(said.ends_with("0 objects, 0 kilobytes\n"), "gc packed them all: {said}");
    // The index holds times and inode numbers.
    assert_agrees(&store, &mount, &["clone/.git/index"]);
    mount.remount();
    let again = "cd clone; git diff-files; git status --short; git fsck --strict; git log --format=%s -1\n\
        git checkout -q side; git log --format=%s -1; git checkout -q main; git status --short\n\
        git push -q origin main; cd ../../origin.git; git fsck --strict; git log --format=%s -1 main";
    assert_eq!(mount.sh(&format!("{GIT}{again}")), "merged\ncommit 150\nmerged\n");
    finish(&store, &mut mount);
}

#[test]
fn a_clone_of_200_commits_is_that_of_a_local_disk() {
    clone(THROUGH);
}

#[test]
fn a_clone_of_200_commits_is_that_of_a_local_disk_with_write_back() {
    clone(BACK);
}
