//! What is known, in numbers.
//!
//! Owns: counts of inodes, bytes and keys that are no paths, for statfs and status; of subdirectories. Does not own: the rows.

use super::{Meta, Result};
use crate::types::Ino;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// A count that takes no longer is made anew each time.
const QUICK: Duration = Duration::from_millis(5);
/// Of the time, what counting may take: one part in so many.
const SHARE: u32 = 100;

impl Meta {
    /// How many inodes are known, and the sum of their sizes in bytes. Counting a million takes a tenth of a second, and
    /// programs ask often: one hundredth of the time goes into it at most, and the answer may be as old as that makes it.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn totals(&self) -> Result<(u64, u64)> {
        let mut known = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, totals)) = *known
            && Instant::now() < until
        {
            return Ok(totals);
        }
        let began = Instant::now();
        let totals = self.catalogue.read(|rows| rows.totals())?;
        let took = began.elapsed();
        *known = (took > QUICK).then(|| (Instant::now() + took * SHARE, totals));
        Ok(totals)
    }

    /// How many subdirectories of `dir` are known. `None` if they are more than 1,000.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn subdirs(&self, dir: Ino) -> Result<Option<u32>> {
        self.catalogue.read(|rows| rows.subdirs(dir))
    }

    /// How many keys are known that no path can express.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn count_unmappable(&self) -> Result<u64> {
        self.catalogue.read(|rows| rows.count_unmappable())
    }

    /// Those keys after `after`: key, reason, size in bytes.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn unmappable(&self, after: &str, limit: usize) -> Result<Vec<(String, String, u64)>> {
        self.catalogue.read(|rows| rows.unmappable(after, limit))
    }
}
