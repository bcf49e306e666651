//! Keys and listings.
//!
//! Owns: keys that are hard to carry, prefixes, delimiters, pages; the reference says what is right.
//! Does not own: what no path can express (`types::key`).

use super::{Case, content, key, marked, put};
use bytes::Bytes;
use objfs::store::{Condition, ListRequest, MemoryStore, ObjectStore};
use objfs::types::Key;

/// Keys that are hard to carry: in a path, in a query, in XML.
const ODD: &[&str] = &[
    "a",
    "a/b",
    "a/b/c",
    "a//b",
    "a/../c",
    "a/./c",
    "..",
    "dir/",
    "dir/x",
    "sp ace/o f",
    "plus+plus",
    "per%cent",
    "per%20cent",
    "per%2Fcent",
    "bücher/ä",
    "日本/語",
    "new\nline",
    "tab\tx",
    "carriage\rreturn",
    "q'\"<>&;=?#[]{}|\\^`",
    "~tilde",
    "😀",
    "z//",
    "/lead",
    "e\u{301}",
    "é",
    "x:y@z,!$*()",
];

/// What a listing says, page by page put together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    objects: Vec<(Key, u64, String)>,
    prefixes: Vec<Key>,
}

async fn walk(store: &dyn ObjectStore, prefix: &str, delimited: bool, max_keys: u16) -> Listing {
    let mut listing = Listing::default();
    let mut request = ListRequest { prefix: key(prefix), delimited, continuation: None, max_keys };
    for _ in 0..100 {
        let page = store.list(&request).await.unwrap();
        assert!(page.objects.len() + page.prefixes.len() <= usize::from(max_keys), "the page is too long");
        let object = |o: objfs::store::ListedObject| (o.key, o.version.size, o.version.etag.bare().to_owned());
        listing.objects.extend(page.objects.into_iter().map(object));
        listing.prefixes.extend(page.prefixes);
        request.continuation = page.next;
        if request.continuation.is_none() {
            return listing;
        }
    }
    panic!("the listing of {prefix:?} does not end");
}

/// The keys of the list that this store can carry.
fn keys(c: &Case) -> Vec<&'static str> {
    ODD.iter().copied().filter(|k| !c.differs(k)).collect()
}

pub(super) async fn odd_keys(c: &Case) {
    let mut lost = Vec::new();
    for name in keys(c) {
        // A key that cannot be written is found missing below.
        _ = c.store.put(&key(name), Bytes::from(name), &marked().1, &Condition::Always).await;
    }
    for name in keys(c) {
        match c.store.head(&key(name)).await {
            Ok(meta) if meta.version.size == name.len() as u64 && content(&*c.store, name).await == name => {}
            _ => lost.push(name),
        }
    }
    let listed = walk(&*c.store, "", false, 1000).await;
    let unlisted: Vec<_> =
        keys(c).into_iter().filter(|name| !listed.objects.iter().any(|(k, ..)| k.as_str() == *name)).collect();
    assert!(lost.is_empty() && unlisted.is_empty(), "lost: {lost:?}, not listed: {unlisted:?}");
    for name in keys(c) {
        c.store.delete(&key(name), None).await.unwrap();
    }
    assert_eq!(walk(&*c.store, "", false, 1000).await, Listing::default());
}

pub(super) async fn pages_equal_the_reference(c: &Case) {
    let reference = MemoryStore::new();
    for name in keys(c) {
        put(&*c.store, name, name.to_owned()).await;
        put(&reference, name, name.to_owned()).await;
    }
    let mut different = Vec::new();
    for prefix in ["", "a", "a/", "a//", "dir/", "sp ace/", "bücher/", "z/", "/", "none", "per%"] {
        for delimited in [false, true] {
            for max_keys in [1, 2, 3, 1000] {
                let found = walk(&*c.store, prefix, delimited, max_keys).await;
                let expected = walk(&reference, prefix, delimited, max_keys).await;
                let mut etagless = expected;
                if c.differs("etag") {
                    etagless.objects.iter_mut().for_each(|o| o.2.clear());
                }
                if found != etagless {
                    different.push((prefix, delimited, max_keys, found, etagless));
                }
            }
        }
    }
    if let Some((prefix, delimited, max_keys, found, expected)) = different.first() {
        let count = different.len();
        panic!("{count} differ, first {prefix:?} {delimited} {max_keys}:\n found {found:?}\n expected {expected:?}");
    }
}
