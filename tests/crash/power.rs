//! Power loss before every single operation on the state directory.
//!
//! Owns: a small fixed day's work, the moments, going from a recording to a disk and a mount again. Does not own:
//! recording (`recording`), what lasts (`disk`), what is looked at afterwards (`verify`).
//!
//! The server is another machine: it keeps its power, and what it was told before the daemon died.

use crate::disk::{self, Names};
use crate::model::{Expected, noise};
use crate::recording::{self, Record, Recorder};
use crate::settings::{self, Moments};
use crate::verify::verify;
use crate::work::Hand;
use crate::world::World;
use fastrand::Rng;
use objfs::devserver::{Effect, Rule};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Disks that are made of each crash, with other dice.
const DISKS: u64 = 2;
/// After so many faults the run is over: there is enough to look at.
const FAULTS_MAX: usize = 10;
/// How long a daemon that answers no more may take to be dead.
const DYING: Duration = Duration::from_secs(10);

#[test]
fn power_is_lost_with_closes_that_reach_the_bucket() {
    campaign(Mode { options: "", latency: 0 });
}

/// Uploads that take their time: several files wait for theirs at once.
#[test]
fn power_is_lost_with_closes_that_reach_the_journal() {
    campaign(Mode { options: "write=back", latency: 80 });
}

#[derive(Debug, Clone, Copy)]
struct Mode {
    options: &'static str,
    /// Milliseconds that each upload takes.
    latency: u64,
}

/// A daemon that is dead, and what it did until then.
#[derive(Debug)]
struct Crash {
    expected: Expected,
    records: Vec<Record>,
    /// Operations until the mount was there.
    mounted_at: u64,
    /// It died of the operation that it was to die of, and not of the end of the day.
    was_killed: bool,
}

impl Crash {
    fn operations(&self) -> u64 {
        self.records.last().map_or(0, |record| record.count)
    }
}

fn campaign(mode: Mode) {
    let _alone = settings::alone();
    let (seed, moments) = (settings::seed(), settings::moments());
    let names = if settings::is_strict() { Names::Strict } else { Names::Lenient };
    let options = mode.options;
    println!("crash: power: options {options:?}, {names:?} names, OBJFS_CRASH_SEED={seed}");
    let mut world = World::new(true);
    let recorder = Recorder::build(&world.path("out"));
    let base = prepare(&mut world, seed);
    // Once without a crash: how long a day is, and a power loss after its end.
    let whole = crash(&mut world, &recorder, mode, &base, seed, 0);
    let (total, mounted_at) = (whole.operations(), whole.mounted_at);
    assert!(total > mounted_at && mounted_at > 0, "{mounted_at} operations at the mount, {total} in all");
    println!("crash: power: {mounted_at} operations until the mount is there, {total} in all");
    let mut faults = survive(&mut world, mode, &whole, names, seed, 0);
    let (mut losses_at, mut acknowledged) = (0, whole.expected.acknowledged());
    while faults.len() < FAULTS_MAX
        && let Some(k) = moment(moments, losses_at, seed, (mounted_at, total))
    {
        let crashed = crash(&mut world, &recorder, mode, &base, seed, k);
        faults.extend(survive(&mut world, mode, &crashed, names, seed, k));
        acknowledged += crashed.expected.acknowledged();
        losses_at += 1;
        if matches!(moments, Moments::Every(_)) && !crashed.was_killed {
            break;
        }
    }
    println!(
        "crash: power: options {options:?}, seed {seed}, moments {losses_at} of {total}, disks {}, \
         acknowledged operations {acknowledged}, losses {}",
        (losses_at + 1) * DISKS,
        faults.len()
    );
    end(&mut world, mode);
    assert!(faults.is_empty(), "seed {seed}:\n{}", faults.join("\n"));
}

/// The operation before which power is lost next; `done` of them were tried.
fn moment(moments: Moments, done: u64, seed: u64, (mounted_at, total): (u64, u64)) -> Option<u64> {
    match moments {
        Moments::Only(k) => (done == 0).then_some(k),
        Moments::Every(step) => Some((done + 1) * step),
        Moments::Spread(end) if Instant::now() > end => None,
        Moments::Spread(_) => {
            // Multiples of the golden ratio never come close to each other. Starting up is tried less often than the
            // rest.
            let place = ((done as f64) * 0.618_034 + (seed % 1000) as f64 / 1000.0).fract();
            let (from, to) = if done % 5 == 4 { (1, mounted_at) } else { (mounted_at, total) };
            Some(from + (place * (to - from + 1) as f64) as u64)
        }
    }
}

/// Makes the bucket as it is every morning, and answers what is in it.
fn prepare(world: &mut World, seed: u64) -> Expected {
    let mut dice = Rng::with_seed(seed);
    let mut expected = Expected::default();
    for (name, len) in [("old-a", 200 << 10), ("old-b", 50 << 10), ("old-c", 10 << 10), ("d/keep", 5)] {
        let bytes = noise(&mut dice, len);
        world.put(name, &bytes);
        expected.know(name, Some(Arc::new(bytes)));
    }
    world.stop_server();
    copy_dir(&world.path("objects"), &world.path("objects.base"));
    expected
}

/// The day's work. Always the same.
fn work(hand: &mut Hand, seed: u64) -> io::Result<()> {
    let mut dice = Rng::with_seed(!seed);
    let mut some = |len: usize| noise(&mut dice, len);
    hand.create("new-1", &some(3_000))?;
    hand.create_synced("new-2", &some(70 << 10), &some(5_000))?;
    hand.overwrite("old-a", 1_000, &some(9_000))?;
    hand.append("old-b", &some(4_000), &some(1_000))?;
    hand.rename("new-1", "d/moved-1")?;
    hand.save("old-c", &some(20_000))?;
    hand.overwrite("new-2", 60_000, &some(30_000))?;
    hand.punch("old-a", 20_000, 100_000)?;
    hand.truncate("old-b", 12_345, false)?;
    hand.unlink("new-2")?;
    hand.create("new-3", &[])?;
    hand.overwrite("old-a", 150_000, &some(100))?;
    hand.truncate("d/moved-1", 5_000, true)?;
    hand.create("old-a", &some(6_000))
}

/// A day that ends before the daemon's `k`-th operation, or in the evening.
fn crash(world: &mut World, recorder: &Recorder, mode: Mode, base: &Expected, seed: u64, k: u64) -> Crash {
    world.stop_server();
    copy_dir(&world.path("objects.base"), &world.path("objects"));
    empty(world);
    world.start_server();
    if mode.latency > 0 {
        world.faults(seed, vec![Rule::new(Effect::Latency { ms: mode.latency }).on("PutObject")]);
    }
    let (state, log) = (world.path("state"), world.path("out/record"));
    // None before the first day.
    _ = std::fs::remove_file(&log);
    let mut hand = Hand::new(&world.mnt());
    hand.expected = base.clone();
    let (mut mounted_at, mut was_killed) = (0, true);
    match world.mount(mode.options, &recorder.variables(&state, &log, k)) {
        Err(status) => {
            let is_planned = k > 0 && status.signal() == Some(libc::SIGKILL);
            assert!(is_planned, "operation {k}: not mounted: {status}\n{}", world.log());
        }
        Ok(()) => {
            mounted_at = recording::read(&log).last().map_or(0, |record| record.count);
            let (worked, done) = world.within("the day's work", move || {
                let done = work(&mut hand, seed);
                (hand, done)
            });
            hand = worked;
            let done = done.map_err(|e| e.to_string()).and_then(|()| world.settle());
            let patience = if done.is_ok() { Duration::ZERO } else { DYING };
            was_killed = world.ended(patience).is_some_and(|status| status.signal() == Some(libc::SIGKILL));
            let is_planned = done.is_ok() || k > 0 && was_killed;
            assert!(is_planned, "seed {seed}, operation {k}: {done:?} of a living daemon\n{}", world.log());
        }
    }
    world.kill();
    world.stop_server();
    copy_dir(&world.path("objects"), &world.path("objects.crashed"));
    Crash { expected: hand.expected, records: recording::read(&log), mounted_at, was_killed }
}

/// Mounts again on disks that the crash may have left. Answers what is wrong.
fn survive(world: &mut World, mode: Mode, crashed: &Crash, names: Names, seed: u64, k: u64) -> Vec<String> {
    let mut faults = Vec::new();
    for disk in 0..DISKS {
        world.stop_server();
        copy_dir(&world.path("objects.crashed"), &world.path("objects"));
        empty(world);
        let mut dice = Rng::with_seed(seed ^ (k << 20) ^ (disk << 50));
        disk::rebuild(&crashed.records, &world.path("state"), names, &mut dice);
        world.start_server();
        // From here on it is noted.
        _ = world.asked();
        let found = match world.mount(mode.options, &[]) {
            Ok(()) => verify(world, std::slice::from_ref(&crashed.expected)).0,
            Err(status) => vec![format!("NOT MOUNTED: {status}")],
        };
        if !found.is_empty() {
            println!("{}\n{}", world.log(), world.asked());
        }
        world.kill();
        let number = |fault: String| format!("seed {seed}, operation {k}, disk {disk}: {fault}");
        let found: Vec<String> = found.into_iter().map(number).collect();
        found.iter().for_each(|fault| println!("crash: power: {fault}"));
        faults.extend(found);
    }
    faults
}

/// A last mount that is unmounted in order, so that no control socket is left.
fn end(world: &mut World, mode: Mode) {
    empty(world);
    let mounted = world.mount(mode.options, &[]);
    assert!(mounted.is_ok(), "{mounted:?}\n{}", world.log());
    world.umount().unwrap();
}

/// Neither state nor cache: the cache is what may be deleted at any time.
fn empty(world: &World) {
    for name in ["state", "cache"] {
        let dir = world.path(name);
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::create_dir(&dir).unwrap();
    }
    // One daemon's log is enough.
    _ = std::fs::remove_file(world.path("out/daemon.log"));
}

/// Makes `to` what `from` is.
fn copy_dir(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
