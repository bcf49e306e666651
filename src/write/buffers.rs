//! Memory for parts that are sent.
//!
//! Owns: buffers that are used again while uploads run: fresh memory for each part would cost more than filling it (the kernel
//! zeroes every page of it first). Does not own: how much memory that may be (`Writer`'s permits).

use bytes::Bytes;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Smaller bodies come from the allocator.
const LEN_MIN: usize = 1 << 20;

#[derive(Debug, Default)]
struct Pool {
    free: Vec<Vec<u8>>,
    in_use: usize,
}

/// Buffers, shared by all uploads. Nothing is kept when none of them is in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Pool>>);

impl Buffers {
    /// A body of `len` bytes, which `fill` reads.
    ///
    /// # Errors
    /// Those of `fill`.
    pub(super) fn filled(&self, len: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Bytes> {
        if len < LEN_MIN {
            let mut bytes = vec![0; len];
            fill(&mut bytes)?;
            return Ok(bytes.into());
        }
        let mut buffer = self.take(len);
        fill(&mut buffer.bytes)?;
        Ok(Bytes::from_owner(buffer))
    }

    fn take(&self, len: usize) -> Buffer {
        let mut pool = self.lock();
        pool.in_use += 1;
        let fitting = pool.free.iter().position(|buffer| buffer.len() == len);
        let known = fitting.map(|at| pool.free.swap_remove(at));
        drop(pool);
        Buffer { bytes: known.unwrap_or_else(|| vec![0; len]), pool: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    pool: Buffers,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut pool = self.pool.lock();
        pool.in_use -= 1;
        let idle = if pool.in_use > 0 {
            pool.free.push(bytes);
            // Parts have grown: those of the size before are not needed any more.
            let len = pool.free.last().map_or(0, Vec::len);
            let (fitting, others) = std::mem::take(&mut pool.free).into_iter().partition(|b: &Vec<u8>| b.len() == len);
            pool.free = fitting;
            others
        } else {
            std::mem::take(&mut pool.free)
        };
        drop(pool);
        // The kernel takes a while to take memory back.
        drop(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_while_some_are_in_use_and_then_given_back() {
        let buffers = Buffers::default();
        let filled = |byte: u8, len: usize| {
            buffers
                .filled(len, |b| {
                    b.fill(byte);
                    Ok(())
                })
                .unwrap()
        };
        let (a, b) = (filled(1, LEN_MIN), filled(2, LEN_MIN));
        let place = b.as_ptr();
        let slice = b.slice(5..9);
        drop(b);
        assert_eq!(slice, [2u8; 4][..], "a slice holds the buffer");
        drop(slice);
        let c = filled(3, LEN_MIN);
        assert!(c.as_ptr() == place && c[..] == vec![3; LEN_MIN][..]);
        assert_eq!(filled(4, 100), vec![4; 100]);
        drop((a, c));
        assert!(buffers.lock().free.is_empty() && buffers.lock().in_use == 0);
    }
}
