//! Requests that have to wait go on in a task.
//!
//! Owns: the first step of a request on the thread that brings it, and the task of what is left. Does not own: what is done (`fs`),
//! who is interrupted (`interrupt`).

use super::adapter::Adapter;
use crate::fs::{Begun, FsError, begin};
use fuser::Request;
use std::future::Future;

impl Adapter {
    /// Runs `work`, and hands its outcome to `answer`: at once, or, if it has to wait, from a task. If the caller is killed
    /// first, it is answered EINTR and `work` is dropped: what must not stop half way runs on by itself (`fs`).
    pub(super) fn spawn<T, W, A>(&self, request: &Request, work: W, answer: A)
    where
        T: Send + 'static,
        W: Future<Output = Result<T, FsError>> + Send + 'static,
        A: FnOnce(Result<T, FsError>) + Send + 'static,
    {
        let _within = self.runtime.enter();
        match begin(work) {
            Begun::Done(outcome) => answer(outcome),
            Begun::Waits(rest) => self.spawn_waiting(request, rest, answer),
        }
    }

    /// The same for what has to wait as a rule, or moves many bytes: from a task at once.
    pub(super) fn spawn_waiting<T, W, A>(&self, request: &Request, work: W, answer: A)
    where
        T: Send + 'static,
        W: Future<Output = Result<T, FsError>> + Send + 'static,
        A: FnOnce(Result<T, FsError>) + Send + 'static,
    {
        self.spawn_entered(request, false, work, answer);
    }

    /// The same for READ by a handle with these `flags`. The kernel asks ahead of a reader without having it wait, and does not take
    /// that back when the reader is gone: nobody wants the answer then, and the file stays open until it is there.
    pub(super) fn spawn_read<T, W, A>(&self, request: &Request, flags: i32, work: W, answer: A)
    where
        T: Send + 'static,
        W: Future<Output = Result<T, FsError>> + Send + 'static,
        A: FnOnce(Result<T, FsError>) + Send + 'static,
    {
        self.spawn_entered(request, ends_with_reader(flags), work, answer);
    }

    fn spawn_entered<T, W, A>(&self, request: &Request, ends_with_process: bool, work: W, answer: A)
    where
        T: Send + 'static,
        W: Future<Output = Result<T, FsError>> + Send + 'static,
        A: FnOnce(Result<T, FsError>) + Send + 'static,
    {
        let (ticket, interrupted) = self.in_flight.enter(request.unique().0, request.pid(), ends_with_process);
        self.runtime.spawn(async move {
            let outcome = tokio::select! {
                biased;
                outcome = work => outcome,
                Ok(()) = interrupted => Err(FsError::Interrupted),
            };
            answer(outcome);
            drop(ticket);
        });
    }

    /// The same for what is interrupted only before it has begun: during `look`.
    pub(super) fn spawn_after<T, L, W, A>(&self, request: &Request, look: L, work: W, answer: A)
    where
        T: Send + 'static,
        L: Future<Output = Result<(), FsError>> + Send + 'static,
        W: Future<Output = Result<T, FsError>> + Send + 'static,
        A: FnOnce(Result<T, FsError>) + Send + 'static,
    {
        let (ticket, interrupted) = self.in_flight.enter(request.unique().0, request.pid(), false);
        let whole = async move {
            tokio::select! {
                biased;
                seen = look => seen?,
                Ok(()) = interrupted => return Err(FsError::Interrupted),
            }
            drop(ticket);
            work.await
        };
        self.spawn_whole(whole, answer);
    }

    /// The same for what is not interrupted.
    pub(super) fn spawn_whole<T, W, A>(&self, work: W, answer: A)
    where
        T: Send + 'static,
        W: Future<Output = Result<T, FsError>> + Send + 'static,
        A: FnOnce(Result<T, FsError>) + Send + 'static,
    {
        let _within = self.runtime.enter();
        match begin(work) {
            Begun::Done(outcome) => answer(outcome),
            Begun::Waits(rest) => drop(self.runtime.spawn(async move { answer(rest.await) })),
        }
    }
}

/// Whether what a thread reads by a handle with these flags is nobody's once it is gone. What is read past the page cache is not
/// asked ahead of anybody, and may be asynchronous (io_submit(2)): another thread of the process waits for it then. Pure.
fn ends_with_reader(flags: i32) -> bool {
    flags & libc::O_DIRECT == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_past_the_page_cache_does_not_end_with_the_thread_that_asked() {
        assert!(ends_with_reader(libc::O_RDONLY) && ends_with_reader(libc::O_RDWR | libc::O_NONBLOCK));
        assert!(!ends_with_reader(libc::O_RDONLY | libc::O_DIRECT));
    }
}
