//! Requests in flight, and freeing those whose process was killed.
//!
//! Owns: the table of requests that were not answered yet, and the watcher that reads /proc/TID/status of the old ones.
//! Does not own: what an interrupted operation leaves behind (`fs` runs what must not stop half way to its end).
//!
//! fuser answers FUSE_INTERRUPT with ENOSYS, and the kernel then never asks again: without this table a process that
//! waits for a slow server would ignore even SIGKILL.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often the watcher looks, and how old a request must be to be looked at. Together they bound the time from a signal
/// to its effect; /proc is read only for requests that wait for the network anyway.
const PERIOD: Duration = Duration::from_millis(50);
const AGE_MIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Waiting {
    tid: u32,
    since: Instant,
    ends_with_process: bool,
    interrupt: oneshot::Sender<()>,
}

/// Requests that were not answered yet.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<u64, Waiting>>);

/// A place in the table; dropped, it is left.
#[derive(Debug)]
pub(super) struct Ticket {
    table: Arc<InFlight>,
    unique: u64,
}

impl InFlight {
    /// The table, with its watcher, which ends when the table is dropped.
    pub(super) fn start() -> std::io::Result<Arc<InFlight>> {
        let table = Arc::new(InFlight::default());
        let watched = Arc::downgrade(&table);
        thread::Builder::new().name("interrupts".to_owned()).spawn(move || watch(&watched))?;
        Ok(table)
    }

    /// Enters a request. The receiver resolves when its process is to be freed, or, for one that `ends_with_process`, is gone. One that
    /// cannot be seen from here (whoever mounted may have numbers of another PID namespace) is never taken for gone.
    pub(super) fn enter(
        self: &Arc<Self>,
        unique: u64,
        tid: u32,
        ends_with_process: bool,
    ) -> (Ticket, oneshot::Receiver<()>) {
        let (interrupt, interrupted) = oneshot::channel();
        let ends_with_process = ends_with_process && tid != 0 && !is_gone(tid);
        let waiting = Waiting { tid, since: Instant::now(), ends_with_process, interrupt };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(unique, waiting);
        (Ticket { table: Arc::clone(self), unique }, interrupted)
    }

    /// Interrupts the requests of killed processes.
    fn sweep(&self, now: Instant) {
        let old: Vec<(u64, u32, bool)> = {
            let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // No thread waits for what the kernel writes of its pages, be it that a process dies whose stores they are (fs/fuse/file.c,
            // fuse_send_writepage): that has to arrive.
            let is_old = |w: &Waiting| w.tid != 0 && now.duration_since(w.since) >= AGE_MIN;
            table.iter().filter(|(_, w)| is_old(w)).map(|(unique, w)| (*unique, w.tid, w.ends_with_process)).collect()
        };
        for (unique, tid, ends_with_process) in old {
            let is_over = match std::fs::read_to_string(format!("/proc/{tid}/status")) {
                Ok(status) => {
                    is_interrupted(&status)
                        || std::fs::read_to_string(format!("/proc/{tid}/stat")).is_ok_and(|s| was_killed(&s))
                }
                Err(_) => ends_with_process && is_gone(tid),
            };
            if !is_over {
                continue;
            }
            let freed = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&unique);
            if let Some(waiting) = freed
                && waiting.interrupt.send(()).is_ok()
            {
                tracing::debug!(tid, "a request was interrupted by a signal");
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.table.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.unique);
    }
}

fn watch(table: &Weak<InFlight>) {
    while let Some(table) = table.upgrade() {
        table.sweep(Instant::now());
        drop(table);
        thread::sleep(PERIOD);
    }
}

/// Whether there is no such thread any more. Not to be seen in /proc does not suffice: hidepid= hides those of others (proc(5)).
fn is_gone(tid: u32) -> bool {
    i32::try_from(tid).is_ok_and(|tid| kill(Pid::from_raw(tid), None::<Signal>) == Err(Errno::ESRCH))
}

/// Whether a thread has a signal pending that ends it or that a person sent: SIGKILL, one whose default is to end the
/// process, or a caught INT, TERM, HUP or QUIT. Go's SIGURG, timers and SIGCHLD must not: programs that do not expect EINTR
/// from a file broke on that elsewhere. Pure.
fn is_interrupted(status: &str) -> bool {
    let mask = |field: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(field));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
    };
    let pending = mask("SigPnd:") | mask("ShdPnd:");
    let open = pending & !mask("SigBlk:") & !mask("SigIgn:");
    let caught = mask("SigCgt:");
    let set = |signals: &[i32]| signals.iter().fold(0, |set, s| set | 1u64 << (s - 1));
    let kill = set(&[libc::SIGKILL]);
    let human = set(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT]);
    // Default: ignored, or stopping (signal(7)).
    let harmless = set(&[
        libc::SIGCHLD,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGCONT,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ]);
    let fatal = open & !caught & !harmless;
    pending & kill != 0 || fatal != 0 || open & caught & human != 0
}

/// Whether a signal has ended a thread that is on its way out: it closes its files, which is a FLUSH for each, and no signal
/// is pending any more. `stat` is /proc/TID/stat (proc_pid_stat(5)). Pure.
fn was_killed(stat: &str) -> bool {
    /// `PF_EXITING`, include/linux/sched.h.
    const EXITING: u64 = 4;
    // The name, in parentheses, may hold anything; the fields behind it are numbered from 3.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let (flags, exit_code) = (field(9), field(52));
    flags & EXITING != 0 && exit_code & 0x7f != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: &[i32], blocked: &[i32], ignored: &[i32], caught: &[i32]) -> String {
        let mask = |signals: &[i32]| signals.iter().fold(0u64, |m, s| m | 1 << (s - 1));
        format!(
            "Name:\tx\nTgid:\t1\nSigPnd:\t{:016x}\nShdPnd:\t0000000000000000\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
            mask(pending),
            mask(blocked),
            mask(ignored),
            mask(caught)
        )
    }

    #[test]
    fn signals_that_free_a_process_and_signals_that_must_not() {
        use libc::*;
        let free = |p: &[i32], b: &[i32], i: &[i32], c: &[i32]| is_interrupted(&status(p, b, i, c));
        assert!(free(&[SIGKILL], &[], &[], &[]));
        assert!(free(&[SIGINT], &[], &[], &[]));
        assert!(free(&[SIGINT], &[], &[], &[SIGINT]), "a caught Ctrl-C is somebody who wants out");
        assert!(free(&[SIGSEGV], &[], &[], &[]));
        assert!(!free(&[SIGINT], &[SIGINT], &[], &[]), "blocked");
        assert!(!free(&[SIGHUP], &[], &[SIGHUP], &[]), "ignored: nohup");
        for quiet in [SIGURG, SIGALRM, SIGCHLD, SIGUSR1] {
            assert!(!free(&[quiet], &[], &[], &[quiet]), "caught {quiet}");
        }
        assert!(!free(&[SIGCHLD, SIGWINCH], &[], &[], &[]));
        assert!(!free(&[], &[], &[], &[]));
    }

    #[test]
    fn a_killed_thread_on_its_way_out_is_freed_and_one_that_exits_is_not() {
        let stat = |flags: u32, exit_code: u32| {
            format!("7 (a) b) D 1 1 1 0 -1 {flags} {} {exit_code}\n", "0 ".repeat(42).trim())
        };
        assert!(was_killed(&stat(0x40_0004, 9)) && was_killed(&stat(4, 0x82)));
        assert!(
            !was_killed(&stat(4, 0)) && !was_killed(&stat(4, 0x100)) && !was_killed(&stat(0, 9)) && !was_killed("")
        );
    }

    #[tokio::test]
    async fn a_ticket_leaves_the_table() {
        let table = Arc::new(InFlight::default());
        let (ticket, _interrupted) = table.enter(7, 1, false);
        assert_eq!(table.0.lock().unwrap().len(), 1);
        drop(ticket);
        assert!(table.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_asked_ahead_of_a_reader_ends_with_it_and_nothing_else_does() {
        let table = Arc::new(InFlight::default());
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let (reader, here) = (child.id(), std::process::id());
        let (_read, read) = table.enter(1, reader, true);
        let (_write, mut write) = table.enter(2, reader, false);
        let (_other, mut other) = table.enter(3, here, true);
        child.kill().unwrap();
        child.wait().unwrap();
        table.sweep(Instant::now() + AGE_MIN);
        assert_eq!(read.await, Ok(()));
        assert!(write.try_recv().is_err() && other.try_recv().is_err());
        assert_eq!(table.0.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_reader_that_was_never_seen_is_not_gone() {
        /// Above all that are given out (PID_MAX_LIMIT, include/linux/threads.h).
        const NOBODY: u32 = 1 << 30;
        let table = Arc::new(InFlight::default());
        let (_elsewhere, mut elsewhere) = table.enter(1, NOBODY, true);
        table.sweep(Instant::now() + AGE_MIN);
        assert!(elsewhere.try_recv().is_err());
        assert_eq!(table.0.lock().unwrap().len(), 1);
    }
}
