//! One directory: pages of a delimited LIST, as names.
//!
//! Owns: how keys and common prefixes become names, and which of them cannot.
//! Does not own: what a page changes (`meta`).

use super::{Entry, Listed, OWN_DIR, Remote, Unlisted};
use crate::store::{ListPage, ListRequest, ListedObject, Result};
use crate::types::{Key, Name, Unmappable, Version};

/// Entries that a page is asked for: as many as S3 gives.
const PAGE_MAX: u16 = 1000;

/// A page of a directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DirPage {
    /// Names and what is there.
    pub entries: Vec<Listed>,
    /// Keys that no path can express.
    pub unlisted: Vec<Unlisted>,
    /// The version of the directory's own marker, if that was in the page.
    pub marker: Option<Version>,
    /// How to ask for the next page, if there is one.
    pub next: Option<String>,
}

impl Remote {
    /// The page of the directory `dir` that `continuation` names; the first without one.
    ///
    /// # Errors
    /// A LIST that failed.
    pub async fn list_dir(&self, dir: &Key, continuation: Option<String>) -> Result<DirPage> {
        let request = ListRequest { prefix: dir.clone(), delimited: true, continuation, max_keys: PAGE_MAX };
        let mut page = self.store.list(&request).await?;
        let is_own = |key: &Key| dir.is_root() && key.as_str().trim_end_matches('/') == OWN_DIR;
        page.prefixes.retain(|p| !is_own(p));
        page.objects.retain(|o| !is_own(&o.key));
        let (mut dir_page, stuck) = to_names(dir, page);
        for (prefix, why) in stuck {
            dir_page.unlisted.extend(self.list_unmappable(&prefix, why).await?);
        }
        Ok(dir_page)
    }

    /// The keys below a prefix that no path can express: the first page of them, which bounds the cost of a bucket full
    /// of such keys. Past that the prefix itself stands for the rest.
    async fn list_unmappable(&self, prefix: &Key, why: Unmappable) -> Result<Vec<Unlisted>> {
        let request = ListRequest { prefix: prefix.clone(), delimited: false, continuation: None, max_keys: PAGE_MAX };
        let page = self.store.list(&request).await?;
        let object = |o: ListedObject| Unlisted { key: o.key.to_string(), why, size: o.version.size };
        let mut unlisted: Vec<Unlisted> = page.objects.into_iter().map(object).collect();
        unlisted.extend(page.invalid.into_iter().map(Unlisted::from));
        if page.next.is_some() {
            unlisted.push(Unlisted { key: prefix.to_string(), why, size: 0 });
        }
        Ok(unlisted)
    }
}

/// Sorts a page into names and keys that have none. Answers apart the prefixes below which nothing can be reached.
fn to_names(dir: &Key, page: ListPage) -> (DirPage, Vec<(Key, Unmappable)>) {
    let unlisted = page.invalid.into_iter().map(Unlisted::from).collect();
    let mut out = DirPage { unlisted, next: page.next, ..DirPage::default() };
    let mut stuck = Vec::new();
    for object in page.objects {
        if object.key == *dir {
            out.marker = Some(object.version);
            continue;
        }
        match name_below(dir, object.key.as_str()) {
            Ok(name) => {
                let entry =
                    Entry::Object { version: object.version, storage_class: object.storage_class, headers: None };
                out.entries.push(Listed { name, entry });
            }
            Err(why) => {
                out.unlisted.push(Unlisted { key: object.key.to_string(), why, size: object.version.size });
            }
        }
    }
    for prefix in page.prefixes {
        match name_below(dir, prefix.as_str().strip_suffix('/').unwrap_or("")) {
            Ok(name) => {
                out.entries.push(Listed { name, entry: Entry::Dir { marker: None, read: None, hides: None } });
            }
            Err(why) => stuck.push((prefix, why)),
        }
    }
    (out, stuck)
}

/// The name in the directory `dir` that a key stands for.
fn name_below(dir: &Key, key: &str) -> Result<Name, Unmappable> {
    Name::from_component(key.strip_prefix(dir.as_str()).unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::InvalidKey;
    use crate::types::ETag;

    fn key(k: &str) -> Key {
        Key::parse(k).unwrap()
    }

    fn page(objects: &[&str], prefixes: &[&str]) -> ListPage {
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 1 };
        ListPage {
            objects: objects
                .iter()
                .map(|k| ListedObject { key: key(k), version: version.clone(), storage_class: None })
                .collect(),
            prefixes: prefixes.iter().map(|k| key(k)).collect(),
            ..ListPage::default()
        }
    }

    #[test]
    fn markers_names_and_keys_without_a_path() {
        let (out, stuck) = to_names(&key("d/"), page(&["d/", "d/a", "d/.."], &["d/s/", "d//", "d/./"]));
        assert!(out.marker.is_some());
        let names: Vec<_> = out.entries.iter().map(|e| e.name.to_string()).collect();
        assert_eq!(names, ["a", "s"]);
        assert_eq!(out.unlisted[0].why, Unmappable::Dots);
        assert_eq!(stuck, [(key("d//"), Unmappable::EmptyComponent), (key("d/./"), Unmappable::Dots)]);
    }

    #[test]
    fn slashes_at_the_root() {
        let (out, stuck) = to_names(&Key::root(), page(&["x"], &["/", "ü/"]));
        assert_eq!(out.entries.len(), 2);
        assert_eq!(stuck, [(key("/"), Unmappable::EmptyComponent)]);
    }

    #[test]
    fn escaped_names_are_read_and_other_spellings_are_counted() {
        let listed = page(&["d/caf\u{e0e9}", "d/\u{e0c3}\u{e0bc}"], &["d/\u{e0ff}/", "d/\u{e061}/"]);
        let (out, stuck) = to_names(&key("d/"), listed);
        let names: Vec<_> = out.entries.iter().map(|e| e.name.as_bytes()).collect();
        assert_eq!(names, [&b"caf\xe9"[..], &b"\xff"[..]]);
        let unlisted: Vec<_> = out.unlisted.iter().map(|u| (u.key.as_str(), u.why, u.size)).collect();
        assert_eq!(unlisted, [("d/\u{e0c3}\u{e0bc}", Unmappable::OtherSpelling, 1)]);
        assert_eq!(stuck, [(key("d/\u{e061}/"), Unmappable::OtherSpelling)]);
    }

    #[test]
    fn keys_that_are_too_long_are_counted() {
        let text = format!("d/{}", "x".repeat(1023));
        let invalid = vec![InvalidKey {
            text: text.clone(),
            bytes: text.clone().into_bytes(),
            why: Unmappable::LongKey,
            size: 7,
        }];
        let (out, _) = to_names(&key("d/"), ListPage { invalid, ..page(&["d/a"], &[]) });
        assert_eq!(out.unlisted, [Unlisted { key: text, why: Unmappable::LongKey, size: 7 }]);
        assert_eq!(out.entries.len(), 1);
    }
}
