//! Whether everything is there after a crash.
//!
//! Owns: the steps: at once, when nothing is pending any more, in the bucket. Does not own: what may be there
//! (`model`).

use crate::model::{Expected, Files, strangers};
use crate::world::World;
use std::thread;
use std::time::{Duration, Instant};

/// How long the mount may take to show what the bucket has, and to take away uploads that a crash left.
const PATIENCE: Duration = Duration::from_secs(20);
/// Directories in which there are files.
const DIRECTORIES: [&str; 2] = ["", "d"];

/// Looks through a world that was just mounted again. Answers what is wrong, and what the bucket holds in the end, if
/// it came to that.
pub(crate) fn verify(world: &mut World, all: &[Expected]) -> (Vec<String>, Option<Files>) {
    let mut faults = Vec::new();
    match world.files() {
        Ok(shown) => faults.extend(at_once(all, &shown)),
        Err(e) => faults.push(format!("UNREADABLE at once: {e}")),
    }
    if let Err(e) = world.settle() {
        faults.push(format!("STUCK: {e}"));
        return (faults, None);
    }
    let bucket = match compare(world) {
        Ok(bucket) => bucket,
        Err(e) => {
            faults.push(e);
            world.bucket()
        }
    };
    faults.extend(all.iter().flat_map(|expected| expected.check(&bucket)));
    faults.extend(strangers(all, &bucket));
    let deadline = Instant::now() + PATIENCE;
    while !world.open_uploads().is_empty() {
        if Instant::now() > deadline {
            faults.push(format!("LEFT: uploads of {:?}", world.open_uploads()));
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    (faults, Some(bucket))
}

/// What was acknowledged, with nothing begun since, is there before anything else happens.
fn at_once(all: &[Expected], shown: &Files) -> Vec<String> {
    let faults = all.iter().flat_map(|expected| expected.check_certain(shown));
    faults.map(|fault| format!("at once, in the mount: {fault}")).collect()
}

/// Waits until mount and bucket hold the same, and answers that.
fn compare(world: &mut World) -> Result<Files, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        DIRECTORIES.iter().try_for_each(|dir| world.refresh(dir)).map_err(|e| format!("DIFFERENT: {e}"))?;
        let shown = world.files();
        let bucket = world.bucket();
        match shown {
            Ok(shown) if shown == bucket => return Ok(bucket),
            shown if Instant::now() > deadline => {
                let shown = shown.map_err(|e| format!("DIFFERENT: {e}"))?;
                let is_other = |name: &&String| shown.get(*name) != bucket.get(*name);
                let mut others: Vec<&String> = shown.keys().chain(bucket.keys()).filter(is_other).collect();
                others.sort();
                others.dedup();
                return Err(format!("DIFFERENT in mount and bucket: {others:?}"));
            }
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}
