//! Counters of requests and bytes.
//!
//! Owns: the counts and their JSON form. Does not own: who counts (`gate` operations, `http` statuses, `transport` bytes and
//! clients that went away).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests by S3 operation (`GetObject`). `Rejected` are those that never became one: no valid signature, no such
    /// operation. Requests that met a fault count too.
    pub requests: BTreeMap<String, u64>,
    /// Answers by HTTP status. Requests whose connection was reset have none.
    pub statuses: BTreeMap<u16, u64>,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies, as handed to the connection.
    pub bytes_out: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Requests whose client went away before it had the whole answer.
    #[serde(default)]
    pub given_up: u64,
}

impl Counts {
    /// How many requests there were for this operation.
    pub fn of(&self, op: &str) -> u64 {
        self.requests.get(op).copied().unwrap_or(0)
    }

    /// How many requests there were.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }
}

/// The counters of a running server.
#[derive(Debug, Default)]
pub(super) struct Counters {
    named: Mutex<(BTreeMap<String, u64>, BTreeMap<u16, u64>)>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connections: AtomicU64,
    given_up: AtomicU64,
}

impl Counters {
    pub(super) fn request(&self, op: &str) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        match named.0.get_mut(op) {
            Some(count) => *count += 1,
            None => {
                named.0.insert(op.to_owned(), 1);
            }
        }
    }

    pub(super) fn status(&self, status: u16) {
        *self.named.lock().unwrap_or_else(PoisonError::into_inner).1.entry(status).or_default() += 1;
    }

    pub(super) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bytes_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn bytes_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn given_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Counts {
        let (requests, statuses) = self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Counts {
            requests,
            statuses,
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            given_up: self.given_up.load(Ordering::Relaxed),
        }
    }

    pub(super) fn reset(&self) {
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
        for counter in [&self.bytes_in, &self.bytes_out, &self.connections, &self.given_up] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_resets() {
        let counters = Counters::default();
        counters.request("GetObject");
        counters.request("GetObject");
        counters.status(200);
        counters.bytes_out(7);
        counters.given_up();
        let counts = counters.get();
        assert_eq!(counts.given_up, 1);
        assert_eq!((counts.of("GetObject"), counts.of("PutObject"), counts.total(), counts.bytes_out), (2, 0, 2, 7));
        let json = serde_json::to_string(&counts).unwrap();
        assert_eq!(serde_json::from_str::<Counts>(&json).unwrap(), counts);
        counters.reset();
        assert_eq!(counters.get(), Counts::default());
    }
}
