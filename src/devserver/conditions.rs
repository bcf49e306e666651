//! Conditional requests.
//!
//! Owns: whether a condition holds for an object, and which error S3 answers if not. Pure.
//! Does not own: the lock under which it is asked (`backend`), pretending not to know conditions (`faults`).

use super::record::Object;
use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};
use time::OffsetDateTime;

/// Conditions on an object, as headers give them.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    /// Seconds since the epoch.
    pub(super) if_modified_since: Option<i64>,
    /// Seconds since the epoch.
    pub(super) if_unmodified_since: Option<i64>,
}

/// What a failed condition means for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadVerdict {
    /// Answer with the object.
    Go,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// A header's time in seconds since the epoch.
pub(super) fn seconds(time: Option<Timestamp>) -> Option<i64> {
    time.map(|t| OffsetDateTime::from(t).unix_timestamp())
}

fn holds(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.value() == etag,
    }
}

impl Conditions {
    /// Whether any condition was given.
    pub(super) fn is_some(&self) -> bool {
        self.if_match.is_some()
            || self.if_none_match.is_some()
            || self.if_modified_since.is_some()
            || self.if_unmodified_since.is_some()
    }

    /// For GET and HEAD, in the order of RFC 9110 section 13.2.2.
    pub(super) fn verdict(&self, object: &Object) -> ReadVerdict {
        match (&self.if_match, self.if_unmodified_since) {
            (Some(wanted), _) if !holds(wanted, &object.etag) => return ReadVerdict::Failed,
            (None, Some(since)) if object.modified > since => return ReadVerdict::Failed,
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(unwanted), _) if holds(unwanted, &object.etag) => ReadVerdict::NotModified,
            (None, Some(since)) if object.modified <= since => ReadVerdict::NotModified,
            _ => ReadVerdict::Go,
        }
    }

    /// For the source of a copy: 412 whenever a read would not answer with the object.
    pub(super) fn check_source(&self, source: &Object) -> S3Result<()> {
        match self.verdict(source) {
            ReadVerdict::Go => Ok(()),
            _ => Err(precondition_failed()),
        }
    }

    /// For what a write replaces or removes.
    pub(super) fn check_target(&self, current: Option<&Object>) -> S3Result<()> {
        match (&self.if_match, current) {
            (Some(_), None) => return Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            (Some(wanted), Some(object)) if !holds(wanted, &object.etag) => return Err(precondition_failed()),
            _ => {}
        }
        match (&self.if_none_match, current) {
            (Some(unwanted), Some(object)) if holds(unwanted, &object.etag) => Err(precondition_failed()),
            _ => Ok(()),
        }
    }
}

/// 412.
pub(super) fn precondition_failed() -> s3s::S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devserver::body::Body;
    use crate::devserver::record::Headers;
    use s3s::S3ErrorCode;
    use s3s::dto::ETag;

    fn object() -> Object {
        let body = Body::default();
        Object { etag: "e1".to_owned(), modified: 100, size: 0, headers: Headers::default(), checksum: None, body }
    }

    fn tag(value: &str) -> Option<ETagCondition> {
        Some(ETagCondition::ETag(ETag::Strong(value.to_owned())))
    }

    #[test]
    fn writes() {
        let o = object();
        let code = |c: Conditions, o: Option<&Object>| c.check_target(o).err().map(|e| e.code().clone());
        let if_match = |c| Conditions { if_match: c, ..Conditions::default() };
        let if_none_match = |c| Conditions { if_none_match: c, ..Conditions::default() };
        assert_eq!(code(Conditions::default(), None), None);
        assert_eq!(code(if_match(tag("e1")), Some(&o)), None);
        assert_eq!(code(if_match(tag("e2")), Some(&o)), Some(S3ErrorCode::PreconditionFailed));
        assert_eq!(code(if_match(tag("e1")), None), Some(S3ErrorCode::NoSuchKey));
        assert_eq!(code(if_match(Some(ETagCondition::Any)), Some(&o)), None);
        assert_eq!(code(if_none_match(Some(ETagCondition::Any)), None), None);
        assert_eq!(code(if_none_match(Some(ETagCondition::Any)), Some(&o)), Some(S3ErrorCode::PreconditionFailed));
        assert_eq!(code(if_none_match(tag("e2")), Some(&o)), None);
    }

    #[test]
    fn reads() {
        let o = object();
        let verdict = |c: Conditions| c.verdict(&o);
        let c = Conditions::default();
        assert_eq!(verdict(c.clone()), ReadVerdict::Go);
        assert_eq!(verdict(Conditions { if_match: tag("x"), ..c.clone() }), ReadVerdict::Failed);
        assert_eq!(verdict(Conditions { if_none_match: tag("e1"), ..c.clone() }), ReadVerdict::NotModified);
        assert_eq!(verdict(Conditions { if_modified_since: Some(100), ..c.clone() }), ReadVerdict::NotModified);
        assert_eq!(verdict(Conditions { if_modified_since: Some(99), ..c.clone() }), ReadVerdict::Go);
        assert_eq!(verdict(Conditions { if_unmodified_since: Some(99), ..c.clone() }), ReadVerdict::Failed);
        let both = Conditions { if_match: tag("e1"), if_unmodified_since: Some(1), ..c };
        assert_eq!(verdict(both), ReadVerdict::Go, "If-Match takes precedence");
    }
}
