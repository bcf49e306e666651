//! Two mounts and a foreign client write the same keys at random; the server's log tells whether a version was lost.
//!
//! Owns: the runs. Does not own: writers (`writers`), the judgement (`ledger`).
//!
//! `OBJFS_CONFLICT_SECONDS` and `OBJFS_CONFLICT_SEED` set how long a run takes and how its dice fall.

use crate::ledger::Ledger;
use crate::programs::eventually;
use crate::records::Party;
use crate::world::{Mount, World, is_full_run};
use crate::writers::{ForeignWriter, KEYS, LocalWriter, Notes};
use objfs::devserver::{Effect, Rule};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Writers of each mount.
const WRITERS: usize = 3;
/// How long writers may need for what they are in the midst of, and mounts for what is pending.
const PATIENCE: Duration = Duration::from_secs(90);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

fn duration() -> Duration {
    let default = if is_full_run() { 600 } else { 45 };
    Duration::from_secs(number("OBJFS_CONFLICT_SECONDS").unwrap_or(default))
}

/// Starts everybody; answers how many threads they are, each of which reports its end.
fn start(world: &World, mounts: &[(Party, &Mount)], notes: &Arc<Notes>, seed: u64) -> (mpsc::Receiver<()>, usize) {
    let until = Instant::now() + duration();
    let (ended, ends) = mpsc::channel();
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    let mut spawn = |work: Box<dyn FnOnce() + Send>| {
        let ended = ended.clone();
        count += 1;
        thread::spawn(move || {
            work();
            _ = ended.send(());
        });
    };
    for (party, mount) in mounts {
        let turns: Arc<Vec<Mutex<()>>> = Arc::new((0..KEYS).map(|_| Mutex::default()).collect());
        for _ in 0..WRITERS {
            let (party, root, turns) = (*party, mount.root(), Arc::clone(&turns));
            let writer = LocalWriter { party, root, notes: Arc::clone(notes), turns, dice: dice.fork() };
            spawn(Box::new(move || writer.run(until)));
        }
    }
    let client = world.client(Party::Foreign.region());
    let foreigner = ForeignWriter { client, notes: Arc::clone(notes), dice: dice.fork() };
    spawn(Box::new(move || foreigner.run(until)));
    (ends, count)
}

/// Waits for all of them. One that panicked or hangs never reports.
fn wait(ends: &mpsc::Receiver<()>, count: usize) {
    let deadline = Instant::now() + duration() + PATIENCE;
    for left in (0..count).rev() {
        let rest = deadline.saturating_duration_since(Instant::now());
        assert!(ends.recv_timeout(rest).is_ok(), "{} of {count} writers panicked or hang", left + 1);
    }
}

/// Waits until a mount has nothing to do: what could not be completed stays, parked.
fn settle(mount: &Mount) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = mount.status();
        let failed = status["pending"]["failed"].as_array().unwrap();
        let parked = failed.iter().filter(|one| one["retried"] == false).count();
        let is_idle = status["in_flight"] == 0 && failed.len() == parked;
        if is_idle && status["pending"]["files"].as_u64().unwrap() <= parked as u64 {
            return;
        }
        assert!(Instant::now() < deadline, "still busy: {status:#}\n{}", mount.log());
        thread::sleep(Duration::from_millis(200));
    }
}

fn race(conditions: bool) {
    let seed = number("OBJFS_CONFLICT_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("OBJFS_CONFLICT_SEED={seed}, {:?}, conditions {conditions}", duration());
    let world = Arc::new(World::new());
    if !conditions {
        world.faults(vec![Rule::new(Effect::IgnoreConditions)]);
    }
    world.server().log().start();
    let limit = duration() + 3 * PATIENCE;
    // Without temporary names: a version that was acknowledged in the journal may be replaced here before anybody sees it.
    let options = ["poll_interval=1s", "cache_size=0", "temp_names=none"];
    let first = world.mount("first", Party::First.region(), &options, limit);
    let second = world.mount("second", Party::Second.region(), &options, limit);
    let (over, ledger) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Ledger::new(conditions))));
    let follower = {
        let (world, over, ledger) = (Arc::clone(&world), Arc::clone(&over), Arc::clone(&ledger));
        thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                ledger.lock().unwrap().feed(world.server().log().take());
                thread::sleep(Duration::from_millis(50));
            }
        })
    };
    let notes = Arc::new(Notes::default());
    let (ends, count) = start(&world, &[(Party::First, &first), (Party::Second, &second)], &notes, seed);
    wait(&ends, count);
    [&first, &second].into_iter().for_each(settle);
    over.store(true, Ordering::SeqCst);
    follower.join().unwrap();
    let mut ledger = ledger.lock().unwrap();
    let client = world.client(Party::Foreign.region());
    let listed = eventually("the log tells what the bucket lists", || {
        ledger.feed(world.server().log().take());
        let listed: BTreeMap<String, String> =
            client.list().into_iter().map(|(key, (etag, _))| (key, etag.trim_matches('"').to_owned())).collect();
        (ledger.is_complete() && listed == ledger.keys()).then_some(listed)
    });
    println!("{:>7} keys at the end, seed {seed}", listed.len());
    println!("failed: {:#?}", notes.failed.lock().unwrap());
    ledger.conclude(&notes.acknowledged.lock().unwrap());
}

#[test]
fn no_version_is_lost_where_conditions_are_kept() {
    race(true);
}

#[test]
fn no_version_is_lost_but_in_the_window_where_conditions_are_ignored() {
    race(false);
}
