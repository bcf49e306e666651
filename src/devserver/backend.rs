//! Objects and uploads with S3's rules about what may replace what.
//!
//! Owns: the lock under which a condition is evaluated and the change made, so that of many conditional writes one wins;
//! writing down before making visible. Does not own: HTTP, headers, receiving bodies (`service`, `receive`).

use super::conditions::Conditions;
use super::disk::{Files, Rows};
use super::gate::Exchange;
use super::index::{Change, Index};
use super::listing::{Page, Query, page};
use super::record::{Headers, Object, Part, Upload, multipart_etag, now};
use super::settings::{Settings, StartError, Storage};
use super::{body::Body, disk};
use s3s::{S3Error, S3Result, s3_error};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// Fewest bytes of a part that is not the last.
const PART_MIN: u64 = 5 << 20;

/// All objects of a server.
#[derive(Debug)]
pub(super) struct Backend {
    index: RwLock<Index>,
    /// Held by every writer from its decision to its change.
    rows: Mutex<Option<Rows>>,
    /// Where bodies go; `None` keeps them in memory.
    pub(super) files: Option<Arc<Files>>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(files) = &self.files {
            files.keep_all();
        }
    }
}

/// Where a write goes, and for whom.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) conditions: Conditions,
    pub(super) exchange: Arc<Exchange>,
}

impl Backend {
    /// Opens the storage, creates missing buckets, adds generated objects.
    pub(super) fn open(settings: &Settings) -> Result<Backend, StartError> {
        let (files, rows, index) = match &settings.storage {
            Storage::Memory => (None, None, Index::default()),
            Storage::Directory(path) => {
                let (files, rows, index) =
                    disk::open(path).map_err(|e| StartError::Storage { path: path.clone(), reason: e.to_string() })?;
                (Some(Arc::new(files)), Some(rows), index)
            }
        };
        let backend = Backend { index: RwLock::new(index), rows: Mutex::new(rows), files };
        let failed = |e: S3Error| StartError::Storage {
            path: match &settings.storage {
                Storage::Memory => "memory".into(),
                Storage::Directory(path) => path.clone(),
            },
            reason: e.to_string(),
        };
        let default = settings.buckets.first().map_or("demo", String::as_str);
        let named = settings.synthetic.iter().map(|set| set.bucket.as_deref().unwrap_or(default));
        for bucket in settings.buckets.iter().map(String::as_str).chain(named) {
            if !backend.index().buckets.contains_key(bucket) {
                backend.create_bucket(bucket).map_err(failed)?;
            }
        }
        for set in &settings.synthetic {
            let bucket = set.bucket.as_deref().unwrap_or(default);
            backend.index.write().unwrap_or_else(PoisonError::into_inner).generate(bucket, set.clone());
        }
        Ok(backend)
    }

    /// Runs a write where it may block.
    pub(super) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&Backend) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        if self.files.is_none() {
            return act(self);
        }
        let backend = Arc::clone(self);
        tokio::task::spawn_blocking(move || act(&backend)).await.map_err(S3Error::internal_error)?
    }

    /// What exists right now. To be held briefly.
    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides, writes down, makes visible, with no other writer in between.
    fn commit<T>(&self, decide: impl FnOnce(&Index) -> S3Result<(Vec<Change>, T)>) -> S3Result<T> {
        self.commit_for(None, decide)
    }

    /// The same, and the log tells what became of which object.
    fn commit_for<T>(
        &self,
        exchange: Option<&Exchange>,
        decide: impl FnOnce(&Index) -> S3Result<(Vec<Change>, T)>,
    ) -> S3Result<T> {
        let mut rows: MutexGuard<'_, Option<Rows>> = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, answer) = decide(&self.index())?;
        if let Some(rows) = rows.as_mut() {
            rows.save(&changes).map_err(|e| S3Error::with_source(s3s::S3ErrorCode::InternalError, e))?;
        }
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(exchange) = exchange {
            for (before, after) in changes.iter().filter_map(|change| index.replaced_by(change)) {
                exchange.draft.replaces(before.as_deref(), after.as_deref());
            }
        }
        let displaced: Vec<_> = changes.into_iter().map(|change| index.apply(change)).collect();
        drop((index, rows));
        drop(displaced);
        Ok(answer)
    }

    pub(super) fn create_bucket(&self, name: &str) -> S3Result<()> {
        self.commit(|index| match index.buckets.contains_key(name) {
            true => Err(s3_error!(BucketAlreadyOwnedByYou, "Your previous request to create the bucket succeeded")),
            false => Ok((vec![Change::Bucket { name: name.to_owned(), created: now() }], ())),
        })
    }

    pub(super) fn delete_bucket(&self, name: &str) -> S3Result<()> {
        self.commit(|index| match index.bucket(name)?.is_empty() {
            false => Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty")),
            true => Ok((vec![Change::NoBucket { name: name.to_owned() }], ())),
        })
    }

    /// The object, or NoSuchBucket or NoSuchKey.
    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        self.index().bucket(bucket)?.object(key).ok_or_else(no_such_key)
    }

    /// The same, for a request that the log tells of.
    pub(super) fn look(&self, exchange: &Exchange, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        let index = self.index();
        let found = index.bucket(bucket)?.object(key);
        exchange.draft.saw(found.as_deref());
        found.ok_or_else(no_such_key)
    }

    /// One page of a listing.
    pub(super) fn list(&self, bucket: &str, query: &Query<'_>) -> S3Result<Page<Arc<Object>>> {
        Ok(page(self.index().bucket(bucket)?, query))
    }

    /// Creates or replaces an object.
    pub(super) fn put(&self, to: &Target, object: Object) -> S3Result<()> {
        self.commit_for(Some(&to.exchange), |index| {
            to.conditions.check_target(index.bucket(&to.bucket)?.object(&to.key).as_deref())?;
            Ok((vec![to.filled_with(object)], ()))
        })
    }

    /// Creates or replaces an object by one made of the source, which must still be `source`.
    /// Gives the object back if the source has been replaced meanwhile.
    pub(super) fn copy(
        &self,
        from: (&str, &str),
        source: &Object,
        to: &Target,
        object: Object,
    ) -> S3Result<Option<Object>> {
        self.commit_for(Some(&to.exchange), |index| {
            let current = index.bucket(from.0)?.object(from.1).ok_or_else(no_such_key)?;
            if (&current.etag, current.modified, current.size) != (&source.etag, source.modified, source.size)
                || current.headers != source.headers
            {
                return Ok((Vec::new(), Some(object)));
            }
            to.conditions.check_target(index.bucket(&to.bucket)?.object(&to.key).as_deref())?;
            Ok((vec![to.filled_with(object)], None))
        })
    }

    /// Removes objects, each if its condition holds: one outcome per key. With `exchange` if it is about one.
    pub(super) fn delete(
        &self,
        exchange: Option<&Exchange>,
        bucket: &str,
        keys: Vec<(String, Conditions)>,
    ) -> S3Result<Vec<S3Result<()>>> {
        self.commit_for(exchange, |index| {
            let from = index.bucket(bucket)?;
            let mut changes = Vec::new();
            let outcomes = keys.into_iter().map(|(key, conditions)| {
                let current = from.object(&key);
                conditions.check_target(current.as_deref())?;
                if current.is_some() {
                    changes.push(from.removal(bucket, &key));
                }
                Ok(())
            });
            let outcomes = outcomes.collect();
            Ok((changes, outcomes))
        })
    }

    /// Begins an upload and gives its id.
    pub(super) fn create_upload(&self, bucket: &str, key: &str, headers: Headers) -> S3Result<String> {
        self.commit(|index| {
            index.bucket(bucket)?;
            let id = uuid::Uuid::new_v4().simple().to_string();
            let (bucket, key) = (bucket.to_owned(), key.to_owned());
            let upload = Upload { id: id.clone(), bucket, key, headers, initiated: now(), parts: Default::default() };
            Ok((vec![Change::Upload(Box::new(upload))], id))
        })
    }

    pub(super) fn put_part(&self, at: (&str, &str, &str), number: i32, part: Part) -> S3Result<()> {
        self.commit(|index| {
            let upload = index.upload(at.0, at.1, at.2)?.id.clone();
            Ok((vec![Change::Part { upload, number, part }], ()))
        })
    }

    pub(super) fn abort(&self, at: (&str, &str, &str)) -> S3Result<()> {
        self.commit(|index| {
            let id = index.upload(at.0, at.1, at.2)?.id.clone();
            Ok((vec![Change::NoUpload { id }], ()))
        })
    }

    /// Makes the object of these parts, given by number and ETag, and gives its ETag.
    pub(super) fn complete(&self, to: &Target, id: &str, wanted: &[(i32, String)]) -> S3Result<String> {
        self.commit_for(Some(&to.exchange), |index| {
            let upload = index.upload(&to.bucket, &to.key, id)?;
            let parts = chosen_parts(upload, wanted)?;
            to.conditions.check_target(index.bucket(&to.bucket)?.object(&to.key).as_deref())?;
            let etag = multipart_etag(parts.iter().copied());
            let body = Body::concat(parts.iter().map(|p| &p.body));
            let object = Object {
                etag: etag.clone(),
                modified: now(),
                size: body.len(),
                headers: upload.headers.clone(),
                checksum: None,
                body,
            };
            Ok((vec![to.filled_with(object), Change::NoUpload { id: id.to_owned() }], etag))
        })
    }
}

impl Target {
    fn filled_with(&self, object: Object) -> Change {
        Change::Object { bucket: self.bucket.clone(), key: self.key.clone(), object: Some(Arc::new(object)) }
    }
}

/// 404 of an object.
pub(super) fn no_such_key() -> S3Error {
    s3_error!(NoSuchKey, "The specified key does not exist.")
}

/// The parts that an upload is completed with, checked as S3 does.
fn chosen_parts<'a>(upload: &'a Upload, wanted: &[(i32, String)]) -> S3Result<Vec<&'a Part>> {
    if wanted.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    if !wanted.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
    }
    let found =
        wanted.iter().map(|(number, etag)| {
            upload.parts.get(number).filter(|part| part.etag() == *etag).ok_or_else(|| {
                s3_error!(InvalidPart, "Part {number} was not uploaded, or its ETag is not the one given.")
            })
        });
    let parts = found.collect::<S3Result<Vec<_>>>()?;
    match parts.split_last() {
        Some((_, others)) if others.iter().any(|part| part.size < PART_MIN) => {
            Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"))
        }
        _ => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn parts_are_checked() {
        let part = |size| Part { md5: [7; 16], modified: 0, size, body: Body::default() };
        let etag = part(0).etag();
        let upload = Upload {
            id: "u".to_owned(),
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            headers: Headers::default(),
            initiated: 0,
            parts: BTreeMap::from([(1, part(PART_MIN)), (2, part(PART_MIN - 1)), (5, part(1))]),
        };
        let code = |wanted: &[(i32, &str)]| {
            let wanted: Vec<_> = wanted.iter().map(|(n, e)| (*n, (*e).to_owned())).collect();
            chosen_parts(&upload, &wanted).err().map(|e| e.code().as_str().to_owned())
        };
        assert_eq!(code(&[(1, &etag), (2, &etag)]), None);
        assert_eq!(code(&[(5, &etag)]), None);
        assert_eq!(code(&[]).as_deref(), Some("MalformedXML"));
        assert_eq!(code(&[(2, &etag), (1, &etag)]).as_deref(), Some("InvalidPartOrder"));
        assert_eq!(code(&[(1, &etag), (1, &etag)]).as_deref(), Some("InvalidPartOrder"));
        assert_eq!(code(&[(3, &etag)]).as_deref(), Some("InvalidPart"));
        assert_eq!(code(&[(1, "x")]).as_deref(), Some("InvalidPart"));
        assert_eq!(code(&[(2, &etag), (5, &etag)]).as_deref(), Some("EntityTooSmall"));
    }
}
