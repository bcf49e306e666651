//! Work that becomes a task only if it has to wait, or if whoever waits for it goes.
//!
//! Owns: the first step of it, on the thread that brings it; its end, whoever has gone. Does not own: the work.
//!
//! To wake another thread takes longer than most of what the catalogue answers.

use super::{FsError, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::runtime::Handle;

/// Work after its first step.
pub enum Begun<F: Future> {
    /// There was nothing to wait for.
    Done(F::Output),
    /// The rest of it.
    Waits(Pin<Box<F>>),
}

/// Takes the first step of `work`. Within a runtime: what it waits for belongs to that.
pub fn begin<T, F: Future<Output = Result<T>>>(work: F) -> Begun<F> {
    let mut work = Box::pin(work);
    // Whatever it waits for hears of its real waker with the second step.
    let first = || work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    match catch_unwind(AssertUnwindSafe(first)) {
        Ok(Poll::Ready(output)) => Begun::Done(output),
        Ok(Poll::Pending) => Begun::Waits(work),
        Err(_) => Begun::Done(Err(FsError::Internal("panicked".to_owned()))),
    }
}

/// Work that is carried out by whoever waits for it, which takes no other thread. If he goes, the rest of it is done by itself.
pub(super) struct ToTheEnd<F: Future<Output: Send> + Send + 'static> {
    rest: Option<Pin<Box<F>>>,
    /// What is said once it has ended without him.
    on_left: Option<Box<dyn FnOnce() + Send>>,
    runtime: Handle,
}

impl<F: Future<Output: Send> + Send + 'static> ToTheEnd<F> {
    pub(super) fn new(work: F, on_left: impl FnOnce() + Send + 'static, runtime: Handle) -> ToTheEnd<F> {
        ToTheEnd { rest: Some(Box::pin(work)), on_left: Some(Box::new(on_left)), runtime }
    }
}

impl<T: Send, F: Future<Output = Result<T>> + Send + 'static> Future for ToTheEnd<F> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        // Taken out meanwhile: nobody goes on with what has panicked.
        let Some(mut work) = self.rest.take() else {
            return Poll::Ready(Err(FsError::Internal("ended early".to_owned())));
        };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.rest = Some(work);
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for ToTheEnd<F> {
    fn drop(&mut self) {
        let (Some(rest), Some(on_left)) = (self.rest.take(), self.on_left.take()) else { return };
        self.runtime.spawn(async move {
            rest.await;
            on_left();
        });
    }
}

/// Runs `work` to its end even if whoever waits for it is interrupted: half a rename is worse than a late one.
pub(super) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match begin(work) {
        Begun::Done(outcome) => outcome,
        Begun::Waits(rest) => apart_to_the_end(rest).await,
    }
}

/// The same for work that moves many bytes: none of it is done on the thread that brings it.
pub(super) async fn apart_to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(e) => Err(FsError::Internal(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn what_need_not_wait_is_done_and_the_rest_goes_on() {
        assert!(matches!(begin(async { Ok(1) }), Begun::Done(Ok(1))));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let work = async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            receiver.await.map_err(|e| FsError::Internal(e.to_string()))
        };
        let Begun::Waits(rest) = begin(work) else { panic!("it waits") };
        sender.send(2).unwrap();
        assert_eq!(rest.await.unwrap(), 2);
        assert!(matches!(begin(async { Err::<(), _>(FsError::Stale) }), Begun::Done(Err(FsError::Stale))));
    }

    #[tokio::test]
    async fn what_is_left_by_whoever_carried_it_out_goes_on_and_says_so() {
        for steps in [0, 1] {
            let begun = std::sync::Arc::new(tokio::sync::Notify::new());
            let (ended, left) = (tokio::sync::oneshot::channel(), tokio::sync::oneshot::channel());
            let waits = std::sync::Arc::clone(&begun);
            let work = async move {
                waits.notified().await;
                ended.0.send(()).map_err(|()| FsError::Stale)
            };
            let mut work = ToTheEnd::new(work, move || left.0.send(()).unwrap(), Handle::current());
            for _ in 0..steps {
                assert!(tokio::time::timeout(Duration::from_millis(5), &mut work).await.is_err());
            }
            drop(work);
            begun.notify_one();
            ended.1.await.unwrap();
            left.1.await.unwrap();
        }
        let (told, left) = std::sync::mpsc::channel();
        ToTheEnd::new(async { Ok(()) }, move || told.send(()).unwrap(), Handle::current()).await.unwrap();
        assert!(left.recv().is_err(), "nobody has gone");
    }

    #[tokio::test]
    async fn whoever_gives_up_does_not_end_it() {
        let (begun, ended) = (std::sync::Arc::new(tokio::sync::Notify::new()), tokio::sync::oneshot::channel());
        let waits = std::sync::Arc::clone(&begun);
        let work = to_the_end(async move {
            waits.notified().await;
            ended.0.send(()).map_err(|()| FsError::Stale)
        });
        assert!(tokio::time::timeout(Duration::from_millis(5), work).await.is_err());
        begun.notify_one();
        ended.1.await.unwrap();
    }
}
