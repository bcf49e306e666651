//! The one sorted index of buckets, objects and uploads.
//!
//! Owns: what exists right now, stored and generated; applying changes.
//! Does not own: whether a change may happen (`backend`), writing it down (`disk`).

use super::listing::Sorted;
use super::record::{Object, Part, Upload};
use super::synthetic::Synthetic;
use s3s::{S3Result, s3_error};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// A bucket.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Seconds since the epoch.
    pub(super) created: i64,
    /// Stored objects. `None` hides a generated object that was deleted.
    objects: BTreeMap<String, Option<Arc<Object>>>,
    synthetic: Vec<Synthetic>,
}

/// All buckets and uploads.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) buckets: BTreeMap<String, Bucket>,
    /// By upload id.
    pub(super) uploads: BTreeMap<String, Box<Upload>>,
}

/// A change of the index, which is also what is written down.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// A bucket appears.
    Bucket { name: String, created: i64 },
    /// A bucket disappears.
    NoBucket { name: String },
    /// An object appears or is replaced; `None` hides a generated one.
    Object { bucket: String, key: String, object: Option<Arc<Object>> },
    /// A stored object disappears.
    NoObject { bucket: String, key: String },
    /// An upload begins.
    Upload(Box<Upload>),
    /// An upload ends, with all its parts.
    NoUpload { id: String },
    /// A part arrives or is replaced.
    Part { upload: String, number: i32, part: Part },
}

impl Bucket {
    /// The object with this key.
    pub(super) fn object(&self, key: &str) -> Option<Arc<Object>> {
        match self.objects.get(key) {
            Some(stored) => stored.clone(),
            None => self.generated(key).map(|set| Arc::new(set.object(key))),
        }
    }

    fn generated(&self, key: &str) -> Option<&Synthetic> {
        self.synthetic.iter().find(|set| set.number_of(key).is_some())
    }

    /// The change that makes `key` disappear.
    pub(super) fn removal(&self, bucket: &str, key: &str) -> Change {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        match self.generated(&key) {
            Some(_) => Change::Object { bucket, key, object: None },
            None => Change::NoObject { bucket, key },
        }
    }

    /// Whether nothing would be listed.
    pub(super) fn is_empty(&self) -> bool {
        self.objects.values().all(Option::is_none) && self.synthetic.is_empty()
    }
}

impl Sorted for Bucket {
    type Value = Arc<Object>;

    fn next(&self, from: Bound<&str>) -> Option<(String, Option<Arc<Object>>)> {
        let stored = self.objects.range::<str, _>((from, Bound::Unbounded)).next();
        let generated =
            self.synthetic.iter().filter_map(|set| Some((set.key(set.seek(from)?), set))).min_by(|a, b| a.0.cmp(&b.0));
        match (stored, generated) {
            (Some((key, object)), Some((other, _))) if *key <= other => Some((key.clone(), object.clone())),
            (_, Some((key, set))) => {
                let object = Arc::new(set.object(&key));
                Some((key, Some(object)))
            }
            (Some((key, object)), None) => Some((key.clone(), object.clone())),
            (None, None) => None,
        }
    }
}

/// What was there before a change, and what is there afterwards.
pub(super) type Replaced = (Option<Arc<Object>>, Option<Arc<Object>>);

impl Index {
    /// The bucket with this name, or NoSuchBucket.
    pub(super) fn bucket(&self, name: &str) -> S3Result<&Bucket> {
        self.buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    /// The upload with this id, if it is one of this key; else NoSuchUpload.
    pub(super) fn upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<&Upload> {
        self.bucket(bucket)?;
        self.uploads.get(id).map(|u| &**u).filter(|u| u.bucket == bucket && u.key == key).ok_or_else(|| {
            s3_error!(NoSuchUpload, "The specified upload does not exist. It may have been aborted or completed.")
        })
    }

    /// Puts generated objects into a bucket that exists.
    pub(super) fn generate(&mut self, bucket: &str, set: Synthetic) {
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.synthetic.push(set);
        }
    }

    /// The object that a change of an object replaces, and the one that it makes.
    pub(super) fn replaced_by(&self, change: &Change) -> Option<Replaced> {
        let (bucket, key, after) = match change {
            Change::Object { bucket, key, object } => (bucket, key, object.clone()),
            Change::NoObject { bucket, key } => (bucket, key, None),
            _ => return None,
        };
        Some((self.buckets.get(bucket)?.object(key), after))
    }

    /// Applies one change and gives back what it displaced, to be dropped without a lock.
    pub(super) fn apply(&mut self, change: Change) -> Option<Displaced> {
        match change {
            Change::Bucket { name, created } => {
                self.buckets.insert(name, Bucket { created, ..Bucket::default() });
                None
            }
            Change::NoBucket { name } => {
                self.buckets.remove(&name);
                None
            }
            Change::Object { bucket, key, object } => {
                let old = self.buckets.get_mut(&bucket)?.objects.insert(key, object)??;
                Some(Displaced::Object(old))
            }
            Change::NoObject { bucket, key } => {
                let old = self.buckets.get_mut(&bucket)?.objects.remove(&key)??;
                Some(Displaced::Object(old))
            }
            Change::Upload(upload) => {
                self.uploads.insert(upload.id.clone(), upload);
                None
            }
            Change::NoUpload { id } => self.uploads.remove(&id).map(Displaced::Upload),
            Change::Part { upload, number, part } => {
                self.uploads.get_mut(&upload)?.parts.insert(number, part).map(Displaced::Part)
            }
        }
    }
}

/// What a change displaced. Dropping it may remove files.
#[derive(Debug)]
#[expect(dead_code, reason = "held only to be dropped later")]
pub(super) enum Displaced {
    Object(Arc<Object>),
    Upload(Box<Upload>),
    Part(Part),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devserver::listing::{Entry, Query, page};

    fn index() -> Index {
        let mut index = Index::default();
        index.apply(Change::Bucket { name: "b".to_owned(), created: 0 });
        for set in Synthetic::parse_list("count=10,fanout=4,size=5,prefix=s/").unwrap() {
            index.generate("b", set);
        }
        index
    }

    fn keys(index: &Index) -> Vec<String> {
        let query = Query { prefix: "", delimiter: None, from: Bound::Unbounded, max: 1000 };
        let page = page(index.bucket("b").unwrap(), &query);
        page.entries
            .into_iter()
            .map(|e| match e {
                Entry::Key(k, _) | Entry::Prefix(k) => k,
            })
            .collect()
    }

    #[test]
    fn writes_cover_generated_objects() {
        let mut index = index();
        assert_eq!(keys(&index).len(), 10);
        let generated = index.bucket("b").unwrap().object("s/d000001/f000002").unwrap();
        let mut other = (*generated).clone();
        other.etag = "other".to_owned();
        for key in ["s/d000001/f000002", "a", "z"] {
            let object = Some(Arc::new(other.clone()));
            index.apply(Change::Object { bucket: "b".to_owned(), key: key.to_owned(), object });
        }
        assert_eq!(index.bucket("b").unwrap().object("s/d000001/f000002").unwrap().etag, "other");
        assert_eq!(keys(&index).len(), 12);
        let removal = index.bucket("b").unwrap().removal("b", "s/d000001/f000002");
        index.apply(removal);
        assert!(index.bucket("b").unwrap().object("s/d000001/f000002").is_none());
        let removal = index.bucket("b").unwrap().removal("b", "a");
        index.apply(removal);
        let left = keys(&index);
        assert_eq!(left.len(), 10);
        assert!(left.is_sorted() && !left.contains(&"s/d000001/f000002".to_owned()));
    }
}
