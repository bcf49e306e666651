//! Who may change which keys of the bucket right now.
//!
//! Owns: claims on single keys and on whole directories, first come first served, so that a commit, a rename and an unlink
//! of the same name follow each other. Does not own: what is done under a claim.
//!
//! A claim is not a lock on memory: it is held across requests on purpose. All spans of an operation are claimed at once,
//! so claims cannot wait for each other in a circle; whoever holds one must not ask for another.

use crate::types::Key;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// What is claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// One key.
    Key(Key),
    /// A directory's key and all keys below it.
    Tree(Key),
}

impl Span {
    fn conflicts(&self, other: &Span) -> bool {
        match (self, other) {
            (Span::Key(a), Span::Key(b)) => a == b,
            (Span::Key(key), Span::Tree(dir)) | (Span::Tree(dir), Span::Key(key)) => key.is_under(dir),
            (Span::Tree(a), Span::Tree(b)) => a.is_under(b) || b.is_under(a),
        }
    }
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    /// In order of arrival, granted and waiting alike.
    claims: Vec<(u64, Vec<Span>)>,
}

impl Line {
    fn join(&mut self, spans: Vec<Span>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.claims.push((id, spans));
        id
    }

    /// A claim is granted when no earlier one conflicts with it.
    fn is_granted(&self, id: u64) -> bool {
        let Some(at) = self.claims.iter().position(|(i, _)| *i == id) else { return false };
        let (_, spans) = &self.claims[at];
        !self.claims[..at].iter().any(|(_, earlier)| spans.iter().any(|s| earlier.iter().any(|e| s.conflicts(e))))
    }

    fn leave(&mut self, id: u64) {
        self.claims.retain(|(i, _)| *i != id);
    }
}

/// All claims of a mount.
#[derive(Debug, Default)]
pub struct Claims {
    line: Mutex<Line>,
    freed: Notify,
}

impl Claims {
    /// Waits until nobody who came earlier holds or wants any of `spans`.
    pub async fn claim(self: &Arc<Self>, spans: Vec<Span>) -> Claim {
        let id = self.line.lock().unwrap_or_else(PoisonError::into_inner).join(spans);
        // From here on, dropping this future gives the place in the line up again.
        let claim = Claim { id, claims: Arc::clone(self) };
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.line.lock().unwrap_or_else(PoisonError::into_inner).is_granted(id) {
                return claim;
            }
            freed.await;
        }
    }
}

/// A claim that was granted; dropped, it is given up.
#[derive(Debug)]
pub struct Claim {
    id: u64,
    claims: Arc<Claims>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.line.lock().unwrap_or_else(PoisonError::into_inner).leave(self.id);
        self.claims.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(k: &str) -> Key {
        Key::parse(k).unwrap()
    }

    #[tokio::test]
    async fn a_commit_below_waits_for_a_rename_of_the_directory_and_others_do_not() {
        let claims = Arc::new(Claims::default());
        let rename = claims.claim(vec![Span::Tree(key("d/")), Span::Tree(key("e/"))]).await;
        let below = claims.claim(vec![Span::Key(key("d/x"))]);
        tokio::pin!(below);
        assert!(futures::poll!(&mut below).is_pending());
        drop(claims.claim(vec![Span::Key(key("f"))]).await);
        drop(rename);
        drop(below.await);
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_the_line() {
        let claims = Arc::new(Claims::default());
        let first = claims.claim(vec![Span::Key(key("a"))]).await;
        {
            let waiting = claims.claim(vec![Span::Tree(Key::root())]);
            tokio::pin!(waiting);
            assert!(futures::poll!(&mut waiting).is_pending());
            let behind = claims.claim(vec![Span::Key(key("b"))]);
            tokio::pin!(behind);
            assert!(futures::poll!(&mut behind).is_pending(), "nobody overtakes the one who waits for all");
        }
        drop(claims.claim(vec![Span::Key(key("b"))]).await);
        drop(first);
    }
}
