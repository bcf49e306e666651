//! The whole tree in one listing: keys in order, sorted into their directories.
//!
//! Owns: flat LISTs, and how their keys become names in directories. Does not own: what they change (`meta`), when a flat
//! listing costs fewer requests than one for each directory (`schedule`).

use super::{Entry, Listed, OWN_DIR, Remote, Unlisted};
use crate::store::{InvalidKey, ListPage, ListRequest, ListedObject, Result};
use crate::types::{Key, Name, Unmappable, Version};

/// Keys that a page is asked for: as many as S3 gives.
const PAGE_MAX: u16 = 1000;

/// What a page shows of one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirPart {
    /// The names from the top of the listing to it.
    pub path: Vec<Name>,
    /// Its key.
    pub key: Key,
    /// Names in it, in order of their keys.
    pub entries: Vec<Listed>,
    /// Keys that no path can express.
    pub unlisted: Vec<Unlisted>,
    /// The version of its marker, if that was shown.
    pub marker: Option<Version>,
    /// Whether nothing more of it will come.
    pub is_last: bool,
}

/// A directory whose keys are coming.
#[derive(Debug)]
struct Open {
    name: Option<Name>,
    key: Key,
    entries: Vec<Listed>,
    unlisted: Vec<Unlisted>,
    marker: Option<Version>,
}

/// Keys of a flat listing, page by page, on their way into directories. The keys of a directory stand together, with those
/// of its subdirectories among them: a stack suffices.
#[derive(Debug)]
pub struct TreeWalk {
    top: Key,
    /// Bytes that the mount's prefix takes of each key.
    prefix_len: usize,
    open: Vec<Open>,
    parts: Vec<DirPart>,
}

impl Open {
    fn new(name: Option<Name>, key: Key) -> Open {
        Open { name, key, entries: Vec::new(), unlisted: Vec::new(), marker: None }
    }
}

impl TreeWalk {
    /// For a listing of all keys below the directory `top` of a mount whose prefix has `prefix_len` bytes.
    pub fn below(top: Key, prefix_len: usize) -> TreeWalk {
        TreeWalk { open: vec![Open::new(None, top.clone())], top, prefix_len, parts: Vec::new() }
    }

    /// Takes a page, and answers what it shows of each directory: a directory's name comes in a part before its own.
    pub fn page(&mut self, page: ListPage) -> Vec<DirPart> {
        let mut invalid = page.invalid.into_iter().peekable();
        for object in page.objects {
            // In the order of all keys: a directory that is closed is not opened again.
            while let Some(key) = invalid.next_if(|key| key.bytes.as_slice() < object.key.as_str().as_bytes()) {
                self.invalid_key(key);
            }
            self.object(object);
        }
        invalid.for_each(|key| self.invalid_key(key));
        if page.next.is_none() {
            while !self.open.is_empty() {
                self.close();
            }
        } else {
            self.flush();
        }
        std::mem::take(&mut self.parts)
    }

    fn object(&mut self, object: ListedObject) {
        let text = object.key.clone();
        let mut components: Vec<&str> = text.as_str()[self.top.as_str().len()..].split('/').collect();
        if self.top.is_root() && components[0] == OWN_DIR {
            return;
        }
        let last = components.pop().unwrap_or_default();
        let stuck = self.go_along(&components);
        let Some(dir) = self.open.last_mut() else { return };
        let name = if last.is_empty() { None } else { Some(Name::from_component(last)) };
        let size = object.version.size;
        match (stuck, name) {
            (Some(why), _) | (None, Some(Err(why))) => {
                dir.unlisted.push(Unlisted { key: object.key.to_string(), why, size });
            }
            (None, None) if dir.key.is_root() => {}
            (None, None) => dir.marker = Some(object.version),
            (None, Some(Ok(name))) => {
                let entry =
                    Entry::Object { version: object.version, storage_class: object.storage_class, headers: None };
                dir.entries.push(Listed { name, entry });
            }
        }
    }

    /// A key that no request can name counts in the last directory on its way that has a key.
    fn invalid_key(&mut self, key: InvalidKey) {
        let rest = key.bytes.strip_prefix(self.top.as_str().as_bytes()).unwrap_or_default();
        let mut components: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
        if self.top.is_root() && components.first().is_some_and(|first| *first == OWN_DIR.as_bytes()) {
            return;
        }
        components.pop();
        let readable: Vec<&str> = components.iter().map_while(|part| std::str::from_utf8(part).ok()).collect();
        let stuck = self.go_along(&readable);
        let why = if key.why == Unmappable::NotUtf8 { key.why } else { stuck.unwrap_or(key.why) };
        if let Some(dir) = self.open.last_mut() {
            dir.unlisted.push(Unlisted { why, ..key.into() });
        }
    }

    /// Goes to the directory that these components of a key lead to, or as far as names lead, and then says why not farther.
    fn go_along(&mut self, components: &[&str]) -> Option<Unmappable> {
        let mut names = Vec::with_capacity(components.len());
        let mut stuck = None;
        for component in components {
            match Name::from_component(component) {
                Ok(name) => names.push(name),
                Err(why) => {
                    stuck = Some(why);
                    break;
                }
            }
        }
        if self.go_to(&names) { stuck } else { Some(Unmappable::LongKey) }
    }

    /// Closes directories that the next key is not in, and opens those that it is. `false` if one of these has no key: then that
    /// which it would be in is open.
    fn go_to(&mut self, names: &[Name]) -> bool {
        let same = self.open[1..].iter().zip(names).take_while(|(dir, name)| dir.name.as_ref() == Some(name)).count();
        while self.open.len() > same + 1 {
            self.close();
        }
        for name in &names[same..] {
            let Some(parent) = self.open.last_mut() else { return false };
            let key = parent.key.child_dir(name).ok().filter(|key| key.fits_behind(self.prefix_len));
            let Some(key) = key else { return false };
            let entry = Entry::Dir { marker: None, read: None, hides: None };
            parent.entries.push(Listed { name: name.clone(), entry });
            self.open.push(Open::new(Some(name.clone()), key));
        }
        true
    }

    /// The deepest directory has no more keys.
    fn close(&mut self) {
        self.flush_from(self.open.len() - 1);
        self.part(self.open.len() - 1, true);
        self.open.pop();
    }

    /// Everything that came so far.
    fn flush(&mut self) {
        self.flush_from(self.open.len());
    }

    /// What came of the directories above `depth`, so that each is known before what is in it.
    fn flush_from(&mut self, depth: usize) {
        for at in 0..depth {
            let dir = &self.open[at];
            if !dir.entries.is_empty() || !dir.unlisted.is_empty() || dir.marker.is_some() {
                self.part(at, false);
            }
        }
    }

    fn part(&mut self, at: usize, is_last: bool) {
        let path = self.open[..=at].iter().filter_map(|dir| dir.name.clone()).collect();
        let dir = &mut self.open[at];
        let (entries, unlisted) = (std::mem::take(&mut dir.entries), std::mem::take(&mut dir.unlisted));
        let marker = std::mem::take(&mut dir.marker);
        self.parts.push(DirPart { path, key: dir.key.clone(), entries, unlisted, marker, is_last });
    }
}

impl Remote {
    /// A page of all keys below the directory `top`, in order.
    ///
    /// # Errors
    /// A LIST that failed.
    pub async fn list_flat(&self, top: &Key, continuation: Option<String>) -> Result<ListPage> {
        let request = ListRequest { prefix: top.clone(), delimited: false, continuation, max_keys: PAGE_MAX };
        self.store.list(&request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ETag;

    fn objects(keys: &[&str], is_last: bool) -> ListPage {
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 1 };
        let object =
            |k: &&str| ListedObject { key: Key::parse(k).unwrap(), version: version.clone(), storage_class: None };
        let next = (!is_last).then(|| "more".to_owned());
        ListPage { objects: keys.iter().map(object).collect(), next, ..ListPage::default() }
    }

    /// Parts as text: path, names (directories with a slash), `!` and the key for what has no path, `*` for a marker, `.` at
    /// the end.
    fn text(parts: &[DirPart]) -> Vec<String> {
        let part = |p: &DirPart| {
            let path: String = p.path.iter().map(|n| format!("{n}/")).collect();
            let name = |e: &Listed| match e.entry {
                Entry::Dir { .. } => format!("{}/", e.name),
                Entry::Object { .. } => e.name.to_string(),
            };
            let mut words: Vec<String> = p.entries.iter().map(name).collect();
            words.extend(p.unlisted.iter().map(|u| format!("!{}", u.key)));
            words.extend(p.marker.iter().map(|_| "*".to_owned()));
            words.extend(p.is_last.then(|| ".".to_owned()));
            format!("{path}: {}", words.join(" "))
        };
        parts.iter().map(part).collect()
    }

    fn root() -> TreeWalk {
        TreeWalk::below(Key::root(), 0)
    }

    #[test]
    fn a_listing_of_a_part_begins_at_its_top() {
        let mut walk = TreeWalk::below(Key::parse("a/b/").unwrap(), 0);
        let parts = walk.page(objects(&["a/b/", "a/b/.objfs/x", "a/b/c"], true));
        assert_eq!(text(&parts), [": .objfs/ *", ".objfs/: x .", ": c ."]);
        assert_eq!(parts[1].key.as_str(), "a/b/.objfs/");
    }

    #[test]
    fn keys_are_sorted_into_directories_parents_first() {
        let mut walk = root();
        let keys = [".objfs/probe", "a", "a-b", "a/", "a/b/c", "a/d", "e/f/g/h", "z"];
        let parts = walk.page(objects(&keys, true));
        let wanted = [
            ": a a-b a/",
            "a/: b/ *",
            "a/b/: c .",
            "a/: d .",
            ": e/",
            "e/: f/",
            "e/f/: g/",
            "e/f/g/: h .",
            "e/f/: .",
            "e/: .",
            ": z .",
        ];
        assert_eq!(text(&parts), wanted);
        assert_eq!(parts[2].key.as_str(), "a/b/");
    }

    #[test]
    fn a_directory_goes_on_in_the_next_page() {
        let mut walk = root();
        assert_eq!(text(&walk.page(objects(&["a/b/c", "a/b/d"], false))), [": a/", "a/: b/", "a/b/: c d"]);
        assert_eq!(text(&walk.page(objects(&["a/b/e", "a/f"], true))), ["a/b/: e .", "a/: f .", ": ."]);
        assert_eq!(text(&root().page(ListPage::default())), [": ."]);
    }

    #[test]
    fn keys_without_a_path_count_where_their_path_ends() {
        let keys = ["/x", "d//", "d//y", "d/../up", "d/ok", "e//"];
        let parts = root().page(objects(&keys, true));
        let wanted = [": d/ !/x", "d/: ok !d// !d//y !d/../up .", ": e/", "e/: !e// .", ": ."];
        assert_eq!(text(&parts), wanted);
        assert_eq!(parts[1].unlisted[2].why, Unmappable::Dots);
    }

    #[test]
    fn escaped_names_are_directories_and_other_spellings_are_counted() {
        let parts = root().page(objects(&["caf\u{e0e9}/x", "\u{e061}/y"], true));
        assert_eq!(text(&parts), [": caf\\xe9/", "caf\\xe9/: x .", ": !\u{e061}/y ."]);
        assert_eq!(parts[1].key.as_str(), "caf\u{e0e9}/");
        assert_eq!(parts[2].unlisted[0].why, Unmappable::OtherSpelling);
    }

    fn too_long(text: String) -> InvalidKey {
        InvalidKey { bytes: text.clone().into_bytes(), text, why: Unmappable::LongKey, size: 3 }
    }

    #[test]
    fn keys_that_are_too_long_count_where_they_would_be() {
        let invalid = ["a/b/c", "a/z/"].map(|k| too_long(format!("{k}{}", "x".repeat(1024)))).to_vec();
        let parts = root().page(ListPage { invalid, ..objects(&["a/b/a", "a/b/d", "a/c"], true) });
        let shown = |p: &DirPart| (p.key.to_string(), p.entries.len(), p.unlisted.len(), p.is_last);
        let wanted = [
            ("", 1, 0, false),
            ("a/", 1, 0, false),
            ("a/b/", 2, 1, true),
            ("a/", 2, 0, false),
            ("a/z/", 0, 1, true),
            ("a/", 0, 0, true),
            ("", 0, 0, true),
        ];
        let wanted = wanted.map(|(key, entries, unlisted, is_last)| (key.to_owned(), entries, unlisted, is_last));
        assert_eq!(parts.iter().map(shown).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_key_that_leads_too_deep_counts_in_the_last_directory_that_has_a_key() {
        let invalid = vec![too_long(format!("{}x", "p/".repeat(600)))];
        let parts = root().page(ListPage { invalid, ..objects(&["p/a", "q"], true) });
        let counted: Vec<&DirPart> = parts.iter().filter(|p| !p.unlisted.is_empty()).collect();
        assert_eq!(counted.len(), 1);
        assert_eq!((counted[0].path.len(), counted[0].key.as_str().len()), (512, 1024));
        assert_eq!(parts.iter().filter(|p| p.is_last).count(), 513, "each directory ends once");
    }

    #[test]
    fn the_mounts_prefix_is_a_part_of_the_keys_of_directories() {
        let invalid = vec![too_long(format!("{}x", "p/".repeat(490)))];
        let mut walk = TreeWalk::below(Key::root(), 100);
        let parts = walk.page(ListPage { invalid, ..objects(&["p/a", "q"], true) });
        let counted: Vec<&DirPart> = parts.iter().filter(|p| !p.unlisted.is_empty()).collect();
        assert_eq!(counted.len(), 1);
        assert_eq!((counted[0].path.len(), counted[0].unlisted[0].why), (462, Unmappable::LongKey));
        assert!(parts.iter().all(|p| p.path.len() <= 462), "the bucket could not be asked for what is below");
    }

    #[test]
    fn keys_that_are_not_utf8_count_in_their_directory_which_is_there_without_others() {
        let key = |text: &str, bytes: &[u8]| InvalidKey {
            text: text.to_owned(),
            bytes: bytes.to_vec(),
            why: Unmappable::NotUtf8,
            size: 3,
        };
        let invalid = vec![key("a/%E9a/x", b"a/\xe9a/x"), key("a/%FF", b"a/\xff"), key("c/%FF", b"c/\xff")];
        let parts = root().page(ListPage { invalid, ..objects(&["a/b/c", "a/\u{fffd}/d", "b"], true) });
        let wanted = [
            ": a/",
            "a/: b/",
            "a/b/: c .",
            "a/: \u{fffd}/ !a/%E9a/x",
            "a/\u{fffd}/: d .",
            "a/: !a/%FF .",
            ": b c/",
            "c/: !c/%FF .",
            ": .",
        ];
        assert_eq!(text(&parts), wanted);
        let invalid = vec![key(".objfs/%FF", b".objfs/\xff")];
        assert_eq!(text(&root().page(ListPage { invalid, ..ListPage::default() })), [": ."]);
    }
}
