//! Pages of a listing of the in-memory store.
//!
//! Owns: order, prefix, delimiter, where a page ends and how the next one begins. Does not own: the objects.

use super::super::{ListPage, ListRequest, ListedObject};
use super::Object;
use crate::types::Key;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Most entries of a page, whatever is asked for (S3's limit).
const PAGE_MAX: u16 = 1000;

/// One entry of a page.
enum Entry<'a> {
    Object(&'a Key, &'a Object),
    Prefix(&'a str),
}

impl Entry<'_> {
    fn as_str(&self) -> &str {
        match self {
            Entry::Object(key, _) => key.as_str(),
            Entry::Prefix(prefix) => prefix,
        }
    }
}

/// The page that `request` asks for. The continuation is the last entry of the page before.
pub(super) fn page(objects: &BTreeMap<Key, Object>, request: &ListRequest) -> ListPage {
    let limit = usize::from(request.max_keys.clamp(1, PAGE_MAX));
    let mut page = ListPage::default();
    let mut after = request.continuation.clone();
    for count in 0.. {
        let Some(entry) = next(objects, request, after.as_deref()) else { break };
        if count == limit {
            page.next = after;
            break;
        }
        after = Some(entry.as_str().to_owned());
        match entry {
            Entry::Object(key, object) => page.objects.push(ListedObject {
                key: key.clone(),
                version: object.version(),
                storage_class: object.headers.storage_class.clone(),
            }),
            // A prefix of a valid key is a valid key.
            Entry::Prefix(prefix) => page.prefixes.extend(Key::parse(prefix)),
        }
    }
    page
}

/// The first entry after `after`, which is a key or a common prefix (then all keys below it are past).
fn next<'a>(objects: &'a BTreeMap<Key, Object>, request: &ListRequest, after: Option<&str>) -> Option<Entry<'a>> {
    let start = match after.and_then(|a| Key::parse(a).ok()) {
        Some(after) => Bound::Excluded(after),
        None => Bound::Included(request.prefix.clone()),
    };
    let past = after.filter(|a| is_common_prefix(a, request));
    let (key, object) = objects
        .range((start, Bound::Unbounded))
        .find(|(key, _)| past.is_none_or(|past| !key.as_str().starts_with(past)))?;
    let rest = key.as_str().strip_prefix(request.prefix.as_str())?;
    match rest.find('/').filter(|_| request.delimited) {
        Some(at) => Some(Entry::Prefix(&key.as_str()[..request.prefix.as_str().len() + at + 1])),
        None => Some(Entry::Object(key, object)),
    }
}

/// Whether the entry `after` stood for all keys that begin with it: a `/` follows the prefix only at its end.
fn is_common_prefix(after: &str, request: &ListRequest) -> bool {
    let rest = after.strip_prefix(request.prefix.as_str());
    request.delimited && rest.is_some_and(|rest| rest.ends_with('/'))
}
