//! Large files, for the tests that need them. Owns nothing else.

use super::*;

pub(super) const MIB: usize = 1 << 20;

pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes
}

/// With the probe behind it, which makes uploads of its own.
pub(super) async fn probed() -> Bench {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    b.fs.unlink(Ino::ROOT, name("probe")).await.unwrap();
    b
}

impl Bench {
    pub(super) async fn close(&self, fh: Fh) {
        self.fs.flush(CALLER, fh).await.unwrap();
        self.fs.release(fh).await;
    }

    pub(super) async fn put_large(&self, k: &str, body: &[u8]) {
        let body = Bytes::copy_from_slice(body);
        self.memory.put(&key(k), body, &ObjectHeaders::default(), &Condition::Always).await.unwrap();
    }

    pub(super) async fn bytes_of(&self, k: &str) -> Vec<u8> {
        self.bytes(k).await.unwrap()
    }

    pub(super) async fn read_through(&self, fh: Fh) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let piece = self.fs.read(fh, all.len() as u64, MIB as u32).await.unwrap();
            if piece.is_empty() {
                return all;
            }
            all.extend_from_slice(&piece);
        }
    }
}
