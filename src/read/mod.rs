//! Remote bytes of one immutable object version.
//!
//! Owns: blocks, fetching each of them once however many readers ask, the memory cache, reading ahead.
//! Does not own: names, dirty data, which version a file shows (`fs`).

mod block;
mod fetch;
mod prefetch;

use crate::store::{ObjectStore, StoreError};
use crate::types::{ByteRange, ObjectRef};
use bytes::{Bytes, BytesMut};
use fetch::BlockKey;
use std::sync::{Arc, Mutex, PoisonError};

pub use prefetch::Sequence;

/// What tunes reading.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bytes of blocks that are kept in memory.
    pub memory: u64,
    /// Blocks that are fetched ahead of a sequential reader.
    pub ahead: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        // 128 MiB hold the windows of a dozen readers; eight blocks in flight hide 30 ms at 90 MB/s per connection.
        Settings { memory: 128 << 20, ahead: 8 }
    }
}

/// Reads objects through the block cache.
#[derive(Debug, Clone)]
pub struct Reader {
    store: Arc<dyn ObjectStore>,
    blocks: moka::future::Cache<BlockKey, Bytes>,
    settings: Settings,
}

impl Reader {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn ObjectStore>, settings: Settings) -> Reader {
        let blocks = moka::future::Cache::builder()
            .max_capacity(settings.memory)
            .weigher(|_, block: &Bytes| u32::try_from(block.len()).unwrap_or(u32::MAX))
            // TinyLFU, the default, would refuse newcomers: blocks read ahead vanished before they were read.
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        Reader { store, blocks, settings }
    }

    /// The bytes `range` of `object`, cut at its end. One slice without a copy when the range lies within a block.
    ///
    /// # Errors
    /// [`crate::store::ErrorKind::Precondition`] or `NotFound` when the object is no longer at this version.
    pub async fn read(
        &self,
        object: &ObjectRef,
        range: ByteRange,
        sequence: Option<&Mutex<Sequence>>,
    ) -> Result<Bytes, StoreError> {
        let Some(whole) = ByteRange::new(0, object.version.size) else { return Ok(Bytes::new()) };
        let Some(range) = range.intersect(whole) else { return Ok(Bytes::new()) };
        if let Some(sequence) = sequence {
            let ahead = {
                let mut sequence = sequence.lock().unwrap_or_else(PoisonError::into_inner);
                sequence.on_read(range, self.settings.ahead)
            };
            self.fetch_ahead(object, ahead.filter_map(|i| block::range_of(i, object.version.size)));
        }
        let mut parts = block::indexes(range);
        if parts.end - parts.start == 1 {
            return self.slice(object, parts.start, range).await;
        }
        let mut out = BytesMut::with_capacity(usize::try_from(range.len()).unwrap_or(0));
        for index in parts.by_ref() {
            out.extend_from_slice(&self.slice(object, index, range).await?);
        }
        Ok(out.freeze())
    }

    async fn slice(&self, object: &ObjectRef, index: u64, range: ByteRange) -> Result<Bytes, StoreError> {
        let Some(block_range) = block::range_of(index, object.version.size) else { return Ok(Bytes::new()) };
        let bytes = fetch::block(&self.store, &self.blocks, object, index, block_range).await?;
        let Some(wanted) = range.intersect(block_range) else { return Ok(Bytes::new()) };
        let at = |offset: u64| usize::try_from(offset - block_range.start()).unwrap_or(usize::MAX);
        Ok(bytes.slice(at(wanted.start())..at(wanted.end())))
    }

    fn fetch_ahead(&self, object: &ObjectRef, ranges: impl Iterator<Item = ByteRange>) {
        for range in ranges {
            let index = range.start() / block::SIZE;
            let (store, blocks, object) = (Arc::clone(&self.store), self.blocks.clone(), object.clone());
            tokio::spawn(async move {
                if let Err(e) = fetch::block(&store, &blocks, &object, index, range).await {
                    // Whoever needs the block asks again, and gets the error then.
                    tracing::debug!(error = %e, "reading ahead failed");
                }
            });
        }
    }
}
