//! The whole tree in one listing: keys in order, sorted into their directories.
//!
//! Owns: flat LISTs, and how their keys become names in directories. Does not own: what they change (`meta`), when a flat
//! listing costs fewer requests than one for each directory (`schedule`).

use super::{Entry, Listed, OWN_DIR, Remote, Unlisted};
use crate::store::{ListRequest, ListedObject, Result};
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
    open: Vec<Open>,
    parts: Vec<DirPart>,
}

impl Open {
    fn new(name: Option<Name>, key: Key) -> Open {
        Open { name, key, entries: Vec::new(), unlisted: Vec::new(), marker: None }
    }
}

impl TreeWalk {
    /// For a listing of all keys below the directory `top`.
    pub fn below(top: Key) -> TreeWalk {
        TreeWalk { open: vec![Open::new(None, top.clone())], top, parts: Vec::new() }
    }

    /// Takes a page, and answers what it shows of each directory: a directory's name comes in a part before its own.
    pub fn page(&mut self, objects: Vec<ListedObject>, is_last: bool) -> Vec<DirPart> {
        for object in objects {
            self.object(object);
        }
        if is_last {
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
        let mut names = Vec::with_capacity(components.len());
        let mut stuck = None;
        for component in components {
            match Name::parse(component) {
                Ok(name) => names.push(name),
                Err(_) => {
                    stuck = Some(why_not(component));
                    break;
                }
            }
        }
        self.go_to(&names);
        let Some(dir) = self.open.last_mut() else { return };
        let name = if last.is_empty() { None } else { Some(Name::parse(last)) };
        let (key, size) = (object.key, object.version.size);
        match (stuck, name) {
            (Some(why), _) => dir.unlisted.push(Unlisted { key, why, size }),
            (None, None) if dir.key.is_root() => {}
            (None, None) => dir.marker = Some(object.version),
            (None, Some(Err(_))) => dir.unlisted.push(Unlisted { key, why: why_not(last), size }),
            (None, Some(Ok(name))) => {
                let entry =
                    Entry::Object { version: object.version, storage_class: object.storage_class, headers: None };
                dir.entries.push(Listed { name, entry });
            }
        }
    }

    /// Closes directories that the next key is not in, and opens those that it is.
    fn go_to(&mut self, names: &[Name]) {
        let same = self.open[1..].iter().zip(names).take_while(|(dir, name)| dir.name.as_ref() == Some(name)).count();
        while self.open.len() > same + 1 {
            self.close();
        }
        for name in &names[same..] {
            let Some(parent) = self.open.last_mut() else { return };
            // A key that was taken cannot be longer than a key.
            let Ok(key) = parent.key.child_dir(name) else { return };
            let entry = Entry::Dir { marker: None, read: None, hides: None };
            parent.entries.push(Listed { name: name.clone(), entry });
            self.open.push(Open::new(Some(name.clone()), key));
        }
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

fn why_not(component: &str) -> Unmappable {
    Key::parse(component).ok().and_then(|key| key.unmappable()).unwrap_or(Unmappable::EmptyComponent)
}

impl Remote {
    /// A page of all keys below the directory `top`, in order. Answers the objects, and how to ask for the next page if there is one.
    ///
    /// # Errors
    /// A LIST that failed.
    pub async fn list_flat(
        &self,
        top: &Key,
        continuation: Option<String>,
    ) -> Result<(Vec<ListedObject>, Option<String>)> {
        let request = ListRequest { prefix: top.clone(), delimited: false, continuation, max_keys: PAGE_MAX };
        let page = self.store.list(&request).await?;
        Ok((page.objects, page.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ETag;

    fn objects(keys: &[&str]) -> Vec<ListedObject> {
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 1 };
        let object =
            |k: &&str| ListedObject { key: Key::parse(k).unwrap(), version: version.clone(), storage_class: None };
        keys.iter().map(object).collect()
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
        TreeWalk::below(Key::root())
    }

    #[test]
    fn a_listing_of_a_part_begins_at_its_top() {
        let mut walk = TreeWalk::below(Key::parse("a/b/").unwrap());
        let parts = walk.page(objects(&["a/b/", "a/b/.objfs/x", "a/b/c"]), true);
        assert_eq!(text(&parts), [": .objfs/ *", ".objfs/: x .", ": c ."]);
        assert_eq!(parts[1].key.as_str(), "a/b/.objfs/");
    }

    #[test]
    fn keys_are_sorted_into_directories_parents_first() {
        let mut walk = root();
        let keys = [".objfs/probe", "a", "a-b", "a/", "a/b/c", "a/d", "e/f/g/h", "z"];
        let parts = walk.page(objects(&keys), true);
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
        assert_eq!(text(&walk.page(objects(&["a/b/c", "a/b/d"]), false)), [": a/", "a/: b/", "a/b/: c d"]);
        assert_eq!(text(&walk.page(objects(&["a/b/e", "a/f"]), true)), ["a/b/: e .", "a/: f .", ": ."]);
        assert_eq!(text(&root().page(Vec::new(), true)), [": ."]);
    }

    #[test]
    fn keys_without_a_path_count_where_their_path_ends() {
        let keys = ["/x", "d//", "d//y", "d/../up", "d/ok", "e//"];
        let parts = root().page(objects(&keys), true);
        let wanted = [": d/ !/x", "d/: ok !d// !d//y !d/../up .", ": e/", "e/: !e// .", ": ."];
        assert_eq!(text(&parts), wanted);
        assert_eq!(parts[1].unlisted[2].why, Unmappable::Dots);
    }
}
