//! Servers that fail in the midst of an upload: close tells the truth, and nothing is lost or sent in vain.
//!
//! Owns: one failure after the other, on a small file and on one of five parts.
//! Does not own: failures while others write (`races`), lost answers in number (`lost`).

use crate::programs::{eventually, noise};
use crate::world::{Mount, World};
use objfs::devserver::{Effect, LogEntry, Rule};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

const SMALL: usize = 100 << 10;
const LARGE: usize = 40 << 20;
/// Parts of the large file.
const PARTS: u64 = 5;
/// Requests that carry an upload.
const UPLOAD: [&str; 4] = ["PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"];

/// What close must answer.
#[derive(Debug, Clone, Copy)]
enum Close {
    /// The failure passes while it waits.
    Succeeds,
    /// The failure is one for good.
    Fails(i32),
    /// The dice decide.
    IsTrue,
}

fn on_upload(effect: Effect) -> Rule {
    UPLOAD.into_iter().fold(Rule::new(effect), Rule::on)
}

/// A world whose mount has written before.
fn world() -> (World, Mount) {
    let world = World::new();
    let mount = world.mount("m", "us-east-1", &[], Duration::from_secs(240));
    mount.write("probe", b"x").unwrap();
    world.server().log().start();
    (world, mount)
}

/// Writes both files under these faults.
fn check(rules: &[Rule], expected: Close) {
    let (world, mut mount) = world();
    let client = world.client("us-east-1");
    for (name, bytes) in [("small", noise(1, SMALL)), ("large", noise(2, LARGE))] {
        world.faults(rules.to_vec());
        let closed = mount.write(name, &bytes);
        println!("{name}: {closed:?}");
        match (expected, &closed) {
            (Close::Succeeds, Ok(())) | (Close::IsTrue, _) => {}
            (Close::Fails(errno), Err(e)) if e.raw_os_error() == Some(errno) => {}
            _ => panic!("{name}: close answered {closed:?}, and not {expected:?}\n{}", mount.log()),
        }
        if let Err(e) = closed {
            is_kept(&mount, name, &bytes, &e);
            world.heal();
            if name == "small" { close_again(&mount, name, &bytes) } else { remount(&mut mount) }
        }
        world.heal();
        assert!(client.try_get(name).as_ref() == Some(&bytes), "{name}: the bucket has something else");
        assert!(fs::read(mount.at(name)).unwrap() == bytes, "{name}: the mount shows something else");
    }
    eventually("nothing is pending", || (mount.status()["pending"]["files"] == 0).then_some(()));
    assert_eq!(client.keys(), ["large", "probe", "small"]);
    assert_eq!(mount.status()["pending"]["conflicts"], 0);
    eventually("no upload is left open", || (client.open_uploads() == 0).then_some(()));
    no_part_is_sent_in_vain(world.server().log().take());
}

/// What could not be stored is shown, and named.
fn is_kept(mount: &Mount, name: &str, bytes: &[u8], error: &io::Error) {
    assert!(fs::read(mount.at(name)).unwrap() == bytes, "{name}: after {error} the mount shows something else");
    let status = mount.status();
    let failed = status["pending"]["failed"].as_array().unwrap();
    // One that may pass may have passed by now.
    let is_named = failed.iter().any(|one| one["path"] == name);
    assert!(is_named || status["pending"]["files"] == 0, "{name}: after {error} nothing is said of it: {status:#}");
}

/// A new close tries again.
fn close_again(mount: &Mount, name: &str, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(mount.at(name)).unwrap();
    file.write_all_at(&bytes[..1], 0).unwrap();
    nix::unistd::close(file).unwrap_or_else(|e| panic!("{name}: {e}\n{}", mount.log()));
}

/// So does an unmount.
fn remount(mount: &mut Mount) {
    mount.unmount();
    mount.mount_again();
}

/// A part that the server has acknowledged is not sent again within its upload.
fn no_part_is_sent_in_vain(entries: Vec<LogEntry>) {
    let mut sent: BTreeMap<(String, u32), Vec<LogEntry>> = BTreeMap::new();
    for entry in entries {
        if let (Some(upload), Some(part)) = (entry.upload.clone(), entry.part) {
            sent.entry((upload, part)).or_default().push(entry);
        }
    }
    for ((upload, part), mut requests) in sent {
        requests.sort_by_key(|request| request.came);
        let statuses: Vec<Option<u16>> = requests.iter().map(|request| request.status).collect();
        let answered = statuses.iter().position(|status| *status == Some(200));
        let in_vain = answered.is_some_and(|at| at + 1 < statuses.len());
        assert!(!in_vain, "part {part} of upload {upload} was sent again after it was there: {statuses:?}");
    }
}

#[test]
fn a_large_file_is_one_upload_and_each_part_one_request() {
    let (world, mount) = world();
    let bytes = noise(2, LARGE);
    world.server().reset_counters();
    mount.write("large", &bytes).unwrap();
    let counts = world.server().counters();
    let of = ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload", "PutObject"];
    assert_eq!(of.map(|op| counts.of(op)), [1, PARTS, 1, 0, 0], "{counts:?}");
    assert!(world.client("us-east-1").get("large") == bytes);
}

#[test]
fn server_errors() {
    check(&[on_upload(Effect::InternalError).rate(0.3)], Close::IsTrue);
}

#[test]
fn throttling() {
    check(&[on_upload(Effect::SlowDown).rate(0.5)], Close::IsTrue);
}

#[test]
fn server_errors_that_do_not_end() {
    check(&[on_upload(Effect::InternalError)], Close::Fails(libc::EIO));
}

#[test]
fn connections_that_break_in_the_midst_of_a_body() {
    let broken = |op: &str| Rule::new(Effect::ResetHalfway).on(op).times(2);
    check(&[broken("PutObject"), broken("UploadPart").after(1)], Close::Succeeds);
}

#[test]
fn connections_that_break_before_an_answer() {
    check(&[on_upload(Effect::ResetBefore).times(3)], Close::Succeeds);
}

/// The client gives up after ten seconds without progress.
#[test]
fn requests_that_are_never_answered() {
    let silent = |op: &str| Rule::new(Effect::Latency { ms: 3_600_000 }).on(op).times(1);
    check(&[silent("PutObject"), silent("UploadPart").after(1)], Close::Succeeds);
}

#[test]
fn access_that_is_denied_in_the_midst_of_an_upload() {
    let denied = |op: &str| Rule::new(Effect::AccessDenied).on(op);
    check(&[denied("PutObject"), denied("UploadPart").after(2)], Close::Fails(libc::EACCES));
}

#[test]
fn quotas_that_are_reached() {
    let full = |op: &str| Rule::new(Effect::QuotaExceeded).on(op);
    check(&[full("PutObject"), full("UploadPart").after(3)], Close::Fails(libc::EDQUOT));
    check(&[full("PutObject"), full("CompleteMultipartUpload")], Close::Fails(libc::EDQUOT));
}

#[test]
fn answers_to_a_completion_that_are_lost() {
    let lost = |op: &str| Rule::new(Effect::ResetAfter).on(op).times(2);
    check(&[lost("PutObject"), lost("CompleteMultipartUpload")], Close::Succeeds);
}
