//! SIGKILL at random moments, half of them while the bucket is about to take a write.
//!
//! Owns: when the daemon dies, counting. Does not own: what is done meanwhile (`work`), what is looked at afterwards
//! (`verify`).

use crate::model::{STRANGER, noise};
use crate::settings::{self, Budget};
use crate::verify::verify;
use crate::work::Worker;
use crate::world::{LONG, World};
use fastrand::Rng;
use objfs::devserver::{Effect, Rule};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How many do something at once.
const WORKERS: usize = 3;
/// Requests that make an object.
const WRITES: [&str; 3] = ["PutObject", "UploadPart", "CompleteMultipartUpload"];
/// After so many the run is over: there is enough to look at.
const FAULTS_MAX: usize = 10;

#[test]
fn killed_at_any_moment_with_closes_that_reach_the_bucket() {
    campaign("", 1);
}

#[test]
fn killed_at_any_moment_with_closes_that_reach_the_journal() {
    campaign("write=back", 2);
}

/// What has happened so far.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    in_flight: u64,
    faults: Vec<String>,
}

fn campaign(options: &str, salt: u64) {
    let _alone = settings::alone();
    let (seed, budget) = (settings::seed(), settings::kills());
    println!("crash: kill: options {options:?}, OBJFS_CRASH_SEED={seed}");
    let mut world = World::new(false);
    let mut dice = Rng::with_seed(seed ^ (salt << 32));
    let mut workers = prepare(&world, &mut dice);
    world.mount(options, &[]).expect("the first mount");
    let mut tally = Tally::default();
    while budget.allows(tally.kills) && tally.faults.len() < FAULTS_MAX {
        let faults = cycle(&mut world, &mut workers, &mut dice, options, &mut tally);
        for fault in &faults {
            println!("crash: seed {seed}, kill {}: {fault}", tally.kills);
        }
        let asked = world.asked();
        if tally.faults.is_empty() && !faults.is_empty() {
            println!("{}\n{}", world.log(), asked);
        }
        // Once is enough.
        faults
            .iter()
            .filter_map(|fault| fault.strip_prefix(STRANGER)?.split(": ").next())
            .for_each(|key| world.delete(key));
        tally.faults.extend(faults);
    }
    if let Err(e) = world.umount() {
        tally.faults.push(e);
    }
    let acknowledged: u64 = workers.iter().map(|worker| worker.hand.expected.acknowledged()).sum();
    let Tally { kills, in_flight, faults } = tally;
    println!(
        "crash: kill: options {options:?}, seed {seed}, kills {kills}, in flight {in_flight}, \
         acknowledged operations {acknowledged}, losses {}",
        faults.len()
    );
    assert!(faults.is_empty(), "seed {seed}:\n{}", faults.join("\n"));
    let is_fair = matches!(budget, Budget::Times(times) if times < 10) || in_flight * 10 >= kills * 3;
    assert!(is_fair, "only {in_flight} of {kills} kills came while a write was in flight");
    assert!(acknowledged > kills, "{acknowledged} operations in {kills} kills: the workers do not work");
}

/// Workers, and objects that were there before objfs came.
fn prepare(world: &World, dice: &mut Rng) -> Vec<Worker> {
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(number, &world.mnt())).collect();
    for worker in &mut workers {
        for index in 0..3 {
            let (name, bytes) = (worker.name(index), noise(dice, 100_000 * (index + 1)));
            world.put(&name, &bytes);
            worker.hand.expected.know(&name, Some(Arc::new(bytes)));
        }
    }
    // So that the directory never empties.
    world.put("d/keep", b"kept");
    workers[0].hand.expected.know("d/keep", Some(Arc::new(b"kept".to_vec())));
    workers
}

/// Work, a kill, and a look at what is left.
fn cycle(
    world: &mut World,
    workers: &mut Vec<Worker>,
    dice: &mut Rng,
    options: &str,
    tally: &mut Tally,
) -> Vec<String> {
    let mut faults = crash(world, workers, dice, tally);
    if let Err(status) = world.mount(options, &[]) {
        panic!("not mounted after kill {}: {status}\n{}", tally.kills, world.log());
    }
    let mut all: Vec<_> = workers.iter_mut().map(|worker| std::mem::take(&mut worker.hand.expected)).collect();
    let (wrong, bucket) = verify(world, &all);
    faults.extend(wrong);
    let Some(bucket) = bucket else {
        panic!("after kill {}: {}\n{}", tally.kills, faults.join("\n"), world.log());
    };
    all.iter_mut().for_each(|expected| expected.adopt(&bucket));
    workers.iter_mut().zip(all).for_each(|(worker, expected)| worker.hand.expected = expected);
    faults
}

/// Lets the workers work, and kills the daemon meanwhile.
fn crash(world: &mut World, workers: &mut Vec<Worker>, dice: &mut Rng, tally: &mut Tally) -> Vec<String> {
    let killing = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    for worker in workers.drain(..) {
        start(worker, Rng::with_seed(dice.u64(..)), Arc::clone(&killing), sender.clone());
    }
    drop(sender);
    let (latency, in_flight) = match tally.kills.is_multiple_of(2) {
        true => wait_for_a_write(world, dice),
        false => (Duration::ZERO, false),
    };
    if !in_flight {
        thread::sleep(Duration::from_millis(dice.u64(1..500)));
    }
    killing.store(true, Ordering::SeqCst);
    world.strike();
    tally.kills += 1;
    tally.in_flight += u64::from(in_flight);
    let mut faults = Vec::new();
    while let Some((worker, error, was_killed)) = next(&receiver, world) {
        if !was_killed {
            faults.push(format!("REFUSED: worker {} was told {error} by a living daemon", worker.number));
        }
        workers.push(worker);
    }
    assert_eq!(workers.len(), WORKERS, "a worker panicked");
    workers.sort_by_key(|worker| worker.number);
    world.kill();
    world.faults(0, Vec::new());
    // What the server was asked before the kill happens now or never: it must not come later than the next mount looks.
    if !latency.is_zero() {
        thread::sleep(latency + Duration::from_millis(20));
    }
    faults
}

/// A worker that is done, the error that ended it, and whether the daemon was being killed by then.
type Ended = (Worker, io::Error, bool);

fn start(mut worker: Worker, mut dice: Rng, killing: Arc<AtomicBool>, done: mpsc::Sender<Ended>) {
    thread::spawn(move || {
        let error = worker.work(&mut dice);
        let was_killed = killing.load(Ordering::SeqCst);
        // Nobody listens any more if the test has failed.
        _ = done.send((worker, error, was_killed));
    });
}

/// The next worker that has ended; none if all have. One that hangs is freed, and fails the test.
fn next(receiver: &mpsc::Receiver<Ended>, world: &mut World) -> Option<Ended> {
    match receiver.recv_timeout(LONG) {
        Ok(ended) => Some(ended),
        Err(mpsc::RecvTimeoutError::Disconnected) => None,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            world.kill();
            panic!("an operation hangs although the daemon is dead\n{}", world.log());
        }
    }
}

/// Makes the server slow, and returns while it is busy with a write. Answers how slow it is, and whether there is such
/// a write.
fn wait_for_a_write(world: &World, dice: &mut Rng) -> (Duration, bool) {
    thread::sleep(Duration::from_millis(dice.u64(..250)));
    let latency = dice.u64(50..160);
    let mut slow = Rule::new(Effect::Latency { ms: latency });
    slow.ops = WRITES.map(str::to_owned).into();
    let mut rules = vec![slow];
    if dice.u32(..4) == 0 {
        // Some writes happen, and nobody hears of it.
        rules.push(Rule::new(Effect::ResetAfter).rate(0.2).on("PutObject").on("CompleteMultipartUpload"));
    }
    world.faults(dice.u64(..), rules);
    let latency = Duration::from_millis(latency);
    let before = world.requests(&WRITES);
    let deadline = Instant::now() + Duration::from_secs(5);
    while world.requests(&WRITES) == before {
        if Instant::now() > deadline {
            return (latency, false);
        }
        thread::sleep(Duration::from_micros(500));
    }
    let begun = Instant::now();
    thread::sleep(latency.mul_f64(dice.f64() * 0.9));
    // A machine that was busy elsewhere may have slept longer.
    (latency, begun.elapsed() < latency)
}
