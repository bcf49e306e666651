//! One step of a workload, in a process of its own: where a mount hangs, only this process hangs with it.
//!
//! Owns: what each step does with ordinary system calls and programs, when it stops at the cap, the line that it prints.
//! Does not own: starting and ending that process (`process`), what the step is measured for (`cell`).

use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How much is read at a time.
const READ: usize = 256 << 10;
/// How much is written at a time.
const WRITE: usize = 1 << 20;

/// What is done below the root of a mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Reads these files of `size` bytes from start to end, each in a thread.
    Read { files: Vec<String>, size: u64 },
    /// Reads `block` bytes at random places for so many seconds.
    Random { file: String, size: u64, block: u64, seconds: f64 },
    /// fio on a file of 1 GiB, with what mountpoint-s3's benchmark gives it.
    Fio { file: String, arguments: Vec<String> },
    /// Writes a new file from start to end and closes it.
    Write { name: String, size: u64 },
    /// Creates files, one after the other.
    Create { count: u64, size: usize },
    /// Reads every file below a directory, one after the other.
    ReadTree { directory: String },
    /// Renames a directory; `count` objects are below it.
    Rename { from: String, to: String, count: u64 },
    /// Appends one byte.
    Append { file: String },
    /// A program that prints a line for each thing that it does; it does `total` in all.
    Command { line: Vec<String>, total: u64 },
    /// A program for each file of the root.
    Each { line: Vec<String> },
}

/// What a step needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) step: Step,
    /// The mount's root.
    pub(crate) root: PathBuf,
    /// Where local files to copy from are.
    pub(crate) source: PathBuf,
    /// Seconds after which it stops.
    pub(crate) cap: f64,
}

/// What a step prints, as JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) amount: f64,
    pub(crate) seconds: f64,
    pub(crate) first_byte_ms: Option<f64>,
    pub(crate) capped: bool,
    pub(crate) error: Option<String>,
}

/// Does what the JSON says.
pub(crate) fn run(order: &str) -> Report {
    let order: Order = match serde_json::from_str(order) {
        Ok(order) => order,
        Err(e) => return Report { error: Some(format!("not an order: {e}")), ..Report::default() },
    };
    let clock = Clock { start: Instant::now(), cap: Duration::from_secs_f64(order.cap) };
    let (done, total) = match order.perform(&clock) {
        Ok(done) => done,
        Err(e) => return Report { error: Some(e.to_string()), ..Report::default() },
    };
    let seconds = done.seconds.unwrap_or_else(|| clock.start.elapsed().as_secs_f64());
    let capped = total.is_some_and(|total| done.amount < total);
    if capped && !clock.is_over() {
        let why = format!("ended after {} of {}", done.amount, total.unwrap_or_default());
        return Report { error: Some(why), ..Report::default() };
    }
    Report { amount: done.amount, seconds, first_byte_ms: done.first_byte_ms, capped, error: None }
}

struct Clock {
    start: Instant,
    cap: Duration,
}

impl Clock {
    fn is_over(&self) -> bool {
        self.start.elapsed() >= self.cap
    }
}

#[derive(Default)]
struct Done {
    amount: f64,
    first_byte_ms: Option<f64>,
    /// Where a program measures its time itself.
    seconds: Option<f64>,
}

fn done(amount: u64) -> Done {
    Done { amount: amount as f64, ..Done::default() }
}

impl Order {
    /// What was done, and how much it should have been.
    fn perform(&self, clock: &Clock) -> io::Result<(Done, Option<f64>)> {
        let at = |name: &str| self.root.join(name);
        Ok(match &self.step {
            Step::Read { files, size } => {
                let paths: Vec<PathBuf> = files.iter().map(|f| at(f)).collect();
                (read_all(&paths, clock)?, Some((files.len() as u64 * size) as f64))
            }
            Step::Random { file, size, block, seconds } => (random(&at(file), *size, *block, *seconds)?, None),
            Step::Fio { file, arguments } => (fio(&at(file), arguments, clock)?, None),
            Step::Write { name, size } => (write(&at(name), *size, clock)?, Some(*size as f64)),
            Step::Create { count, size } => (create(&self.root, *count, *size, clock)?, Some(*count as f64)),
            Step::ReadTree { directory } => {
                let (read, total) = read_tree(&at(directory), clock)?;
                (done(read), Some(total as f64))
            }
            Step::Rename { from, to, count } => {
                fs::rename(at(from), at(to))?;
                (done(*count), None)
            }
            Step::Append { file } => {
                let mut file = OpenOptions::new().append(true).open(at(file))?;
                file.write_all(b"!")?;
                close(file)?;
                (done(1), None)
            }
            Step::Command { line, total } => {
                let count = lines(&self.fill(line), *total, clock)?;
                (done(count), Some(*total as f64))
            }
            Step::Each { line } => self.each(line, clock)?,
        })
    }

    fn fill(&self, line: &[String]) -> Vec<String> {
        let (root, source) = (self.root.display().to_string(), self.source.display().to_string());
        line.iter().map(|word| word.replace("{root}", &root).replace("{source}", &source)).collect()
    }

    fn each(&self, line: &[String], clock: &Clock) -> io::Result<(Done, Option<f64>)> {
        let paths = files_below(&self.root)?;
        let mut count = 0;
        for path in &paths {
            if clock.is_over() {
                break;
            }
            let words: Vec<String> = line.iter().map(|word| word.replace("{}", &path.display().to_string())).collect();
            let status = command(&words).stdout(Stdio::null()).status()?;
            if !status.success() {
                return Err(io::Error::other(format!("{} of {}: {status}", words[0], path.display())));
            }
            count += 1;
        }
        Ok((done(count), Some(paths.len() as f64)))
    }
}

fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
}

/// Errors of a close are what a program is told about its writes.
fn close(file: File) -> io::Result<()> {
    nix::unistd::close(file).map_err(io::Error::from)
}

fn read_all(paths: &[PathBuf], clock: &Clock) -> io::Result<Done> {
    let read_one = |path: &Path| -> io::Result<(u64, f64)> {
        let opened = Instant::now();
        let (mut file, mut buffer) = (File::open(path)?, vec![0; READ]);
        let (mut count, mut first) = (0, 0.0);
        loop {
            let n = file.read(&mut buffer)?;
            if count == 0 {
                first = opened.elapsed().as_secs_f64() * 1000.0;
            }
            count += n as u64;
            if n == 0 || clock.is_over() {
                return Ok((count, first));
            }
        }
    };
    let results: Vec<io::Result<(u64, f64)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = paths.iter().map(|path| scope.spawn(|| read_one(path))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))).collect()
    });
    let (mut amount, mut slowest) = (0, 0.0_f64);
    for result in results {
        let (count, first) = result?;
        amount += count;
        slowest = slowest.max(first);
    }
    Ok(Done { amount: amount as f64, first_byte_ms: Some(slowest), seconds: None })
}

fn random(path: &Path, size: u64, block: u64, seconds: f64) -> io::Result<Done> {
    let opened = Instant::now();
    let (file, mut buffer) = (File::open(path)?, vec![0; usize::try_from(block).unwrap_or(usize::MAX)]);
    // The same places for every contestant.
    let mut places = fastrand::Rng::with_seed(7);
    let (mut count, mut first) = (0, None);
    while opened.elapsed().as_secs_f64() < seconds {
        file.read_exact_at(&mut buffer, places.u64(..size / block) * block)?;
        first.get_or_insert_with(|| opened.elapsed().as_secs_f64() * 1000.0);
        count += 1;
    }
    Ok(Done { amount: f64::from(count), first_byte_ms: first, seconds: None })
}

/// mountpoint-s3's `fs_bench.sh` gives every job `ioengine=sync fallocate=none`.
fn fio(path: &Path, arguments: &[String], clock: &Clock) -> io::Result<Done> {
    let mut fio = Command::new("fio");
    fio.args(["--name=job", "--ioengine=sync", "--fallocate=none", "--readonly", "--size=1G", "--output-format=json"]);
    fio.arg(format!("--filename={}", path.display()));
    if !arguments.iter().any(|a| a.starts_with("--runtime")) {
        fio.arg(format!("--runtime={}", clock.cap.as_secs()));
    }
    let output = fio.args(arguments).stdin(Stdio::null()).output()?;
    // fio prints notes before its JSON.
    let text = String::from_utf8_lossy(&output.stdout);
    let json = text.find('{').map_or("", |at| &text[at..]);
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let read = &value["jobs"][0]["read"];
    let failed = value["jobs"][0]["error"].as_i64() != Some(0);
    if failed || read["io_bytes"].as_u64().unwrap_or(0) == 0 {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("fio: {}", said.lines().last().unwrap_or("no figures"))));
    }
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or(f64::NAN);
    if arguments.iter().any(|a| a == "--io_size=1") {
        // The mean time of a read.
        let mean = number(&read["lat_ns"]["mean"]) / 1e9;
        return Ok(Done { amount: 1.0, first_byte_ms: Some(mean * 1000.0), seconds: Some(mean) });
    }
    let seconds = number(&read["runtime"]) / 1000.0;
    Ok(Done { amount: number(&read["io_bytes"]), first_byte_ms: None, seconds: Some(seconds) })
}

fn write(path: &Path, size: u64, clock: &Clock) -> io::Result<Done> {
    // Bytes that no server can make smaller.
    let mut random = fastrand::Rng::with_seed(11);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(16 * WRITE).collect();
    let clock = Clock { start: Instant::now(), cap: clock.cap };
    let (mut file, mut written) = (OpenOptions::new().write(true).create_new(true).open(path)?, 0);
    while written < size && !clock.is_over() {
        let at = usize::try_from(written).unwrap_or(0) % noise.len();
        file.write_all(&noise[at..at + WRITE])?;
        written += WRITE as u64;
    }
    close(file)?;
    let seconds = clock.start.elapsed().as_secs_f64();
    Ok(Done { amount: written as f64, first_byte_ms: None, seconds: Some(seconds) })
}

fn create(root: &Path, count: u64, size: usize, clock: &Clock) -> io::Result<Done> {
    let body = vec![b'x'; size];
    for i in 0..count {
        if clock.is_over() {
            return Ok(done(i));
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(root.join(format!("f{i:06}")))?;
        file.write_all(&body)?;
        close(file)?;
    }
    Ok(done(count))
}

/// How many files were read, and how many there are.
fn read_tree(directory: &Path, clock: &Clock) -> io::Result<(u64, u64)> {
    let (paths, mut buffer) = (files_below(directory)?, vec![0; READ]);
    let mut count = 0;
    for path in &paths {
        if clock.is_over() {
            break;
        }
        let mut file = File::open(path)?;
        while file.read(&mut buffer)? > 0 {}
        count += 1;
    }
    Ok((count, paths.len() as u64))
}

fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { open.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    Ok(found)
}

/// Runs a program and counts its lines. One that ended well has done everything.
fn lines(words: &[String], total: u64, clock: &Clock) -> io::Result<u64> {
    let mut child = command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = AtomicBool::new(false);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
    let (count, said) = std::thread::scope(|scope| {
        let said = scope.spawn(|| {
            let mut text = String::new();
            _ = stderr.map(|mut s| s.read_to_string(&mut text));
            text
        });
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) && !clock.is_over() {
                std::thread::sleep(Duration::from_millis(10));
            }
            if !ended.load(Ordering::Relaxed) {
                _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
            }
        });
        let count = stdout.map_or(0, |s| BufReader::with_capacity(1 << 20, s).split(b'\n').count()) as u64;
        ended.store(true, Ordering::Relaxed);
        (count, said.join().unwrap_or_default())
    });
    let status = child.wait()?;
    if status.success() {
        return Ok(total);
    }
    if clock.is_over() {
        return Ok(count.min(total - 1));
    }
    Err(io::Error::other(format!("{}: {status}: {}", words[0], said.lines().last().unwrap_or("nothing said"))))
}
