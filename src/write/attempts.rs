//! What was sent of a staged file, and got no answer.
//!
//! Owns: the ids of such writes: an object that carries one of them is ours. Does not own: sending (`commit`), what is done about
//! it (`fs`).

use super::staging::Staged;
use crate::types::WriteId;
use std::sync::PoisonError;

impl Staged {
    /// The ids of the commits of this file that may have been carried out without an answer.
    pub fn attempts(&self) -> Vec<WriteId> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request that makes the object anew is about to be sent.
    pub fn note_attempt(&self, id: &WriteId) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if !attempts.contains(id) {
            attempts.push(id.clone());
        }
    }

    /// What became of all of them is known.
    pub fn forget_attempts(&self) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether a commit of this file may have been carried out without an answer.
    pub fn has_attempts(&self) -> bool {
        !self.attempts().is_empty()
    }

    /// The file takes the place of `other`: what that one may have written is ours as well.
    pub fn inherit_attempts(&self, other: &Staged) {
        other.attempts().iter().for_each(|id| self.note_attempt(id));
        self.note_change();
    }

    /// Whether an object that carries `id` was written by an earlier commit of this file, whose answer was lost.
    pub fn is_own(&self, id: &WriteId) -> bool {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}
