//! Pure values that every layer speaks in.
//!
//! Owns: what a key, a name, a range, an object version and an attribute *are*, and the only ways to build them.
//! Does not own: locks, async, I/O, clocks.

mod attr;
mod ino;
mod key;
mod range;
mod spelling;
mod sum;
mod time;
mod version;

pub use attr::{Attr, FileKind, Timestamp};
pub use ino::{Fh, Ino, Pos};
pub use key::{Key, KeyError, Name, Unmappable};
pub use range::{ByteRange, RangeSet};
pub use sum::ContentSum;
pub use time::{ManualClock, SystemClock, WallClock};
pub use version::{ETag, ObjectRef, Version, WriteId};
