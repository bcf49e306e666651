//! Changes made elsewhere as events for those who watch.
//!
//! Owns: which change is replayed and in which order; what the replaying thread's requests mean. The kernel raises inotify
//! events only for what somebody does through the mount, so a thread of ours does it again: it creates, touches, moves and
//! removes by ordinary system calls what the bucket has done already, and its requests are answered here, without the
//! bucket.
//! Does not own: the thread and its system calls (`fuse::replay`), finding the watchers (`fuse::watchers`), hidden names
//! (`meta::Watches`).

use super::{Entry, Fs, FsError, Opened, Result};
use crate::meta::{Change, InodeRow};
use crate::types::{Fh, FileKind, Ino, Name, ObjectRef};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

/// A change that was made elsewhere and is to be done again on the mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// A new name.
    Created {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Name,
    },
    /// Other content.
    Changed(Ino),
    /// A name that is gone.
    Removed {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Name,
        /// The inode that had it, as it was.
        ghost: Box<InodeRow>,
    },
    /// A file that has another name now.
    Moved {
        /// The directory and the name that it had.
        from: (Ino, Name),
        /// Where it is now.
        to: (Ino, Name),
        /// The inode.
        row: Box<InodeRow>,
    },
}

impl Replay {
    /// The names that it is about.
    pub fn names(&self) -> Vec<(Ino, &Name)> {
        match self {
            Replay::Created { parent, name } | Replay::Removed { parent, name, .. } => vec![(*parent, name)],
            Replay::Moved { from, to, .. } => vec![(from.0, &from.1), (to.0, &to.1)],
            Replay::Changed(_) => Vec::new(),
        }
    }
}

/// Inodes that are gone, until their removal was replayed: the way to what was below them leads through them.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    rows: HashMap<Ino, Box<InodeRow>>,
    names: HashMap<(Ino, Name), Ino>,
}

impl Ghosts {
    fn add(&mut self, parent: Ino, name: &Name, row: &InodeRow) {
        self.names.insert((parent, name.clone()), row.ino);
        self.rows.insert(row.ino, Box::new(row.clone()));
    }

    fn remove(&mut self, parent: Ino, name: &Name) {
        if let Some(ino) = self.names.remove(&(parent, name.clone())) {
            self.rows.remove(&ino);
        }
    }

    fn child(&self, parent: Ino, name: &Name) -> Option<&InodeRow> {
        self.rows.get(self.names.get(&(parent, name.clone()))?).map(|row| &**row)
    }
}

/// What a replay does, in words of system calls. Directories are given by the names from the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The directory in which it is done.
    pub dir: Vec<Name>,
    /// The name.
    pub name: Name,
    /// What is done to it.
    pub act: Act,
}

/// See [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Made, as this kind with these permission bits.
    Create(FileKind, u16),
    /// Opened for writing, its mtime set, and closed; the kernel's pages of this inode are dropped first.
    Touch(Ino),
    /// Removed, as this kind.
    Remove(FileKind),
    /// Given another name.
    Rename {
        /// The directory to which it goes.
        to_dir: Vec<Name>,
        /// Its name there.
        to: Name,
    },
}

/// What became of a replay.
#[derive(Debug)]
pub enum Replayed {
    /// The kernel has done it.
    Done,
    /// The name was known to the kernel already: this does in its place.
    Instead(Replay),
    /// It could not be done. The kernel has to forget what it knows.
    Not,
}

/// The changes of one listing, sorted: what is told to the kernel at once, and what is replayed, in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    quiet: Vec<Change>,
    replays: Vec<Replay>,
}

/// What became of one name.
struct OfName {
    parent: Ino,
    name: Name,
    before: Option<Box<InodeRow>>,
    after: Option<FileKind>,
}

/// Sorts changes. A name that comes and goes within them did neither. New directories come first, then what moved, other
/// new names and other content, and last what is gone: in the order in which `lose` found it, children before parents. Pure.
fn plan(changes: Vec<Change>, is_replayed: &dyn Fn(&Change) -> bool) -> Plan {
    let mut plan = Plan::default();
    let (mut names, mut index): (Vec<OfName>, HashMap<(Ino, Name), usize>) = (Vec::new(), HashMap::new());
    let (mut moves, mut contents, mut moved_to) = (Vec::new(), Vec::new(), HashSet::new());
    for change in changes {
        if !is_replayed(&change) {
            plan.quiet.push(change);
            continue;
        }
        match change {
            Change::Added { parent, name, kind, .. } => match index.get(&(parent, name.clone())) {
                Some(at) => names[*at].after = Some(kind),
                None => {
                    index.insert((parent, name.clone()), names.len());
                    names.push(OfName { parent, name, before: None, after: Some(kind) });
                }
            },
            Change::Removed { parent, name, ghost } => match index.get(&(parent, name.clone())) {
                Some(at) => names[*at].after = None,
                None => {
                    index.insert((parent, name.clone()), names.len());
                    names.push(OfName { parent, name, before: Some(ghost), after: None });
                }
            },
            Change::Replaced { ino, .. } | Change::Content(ino) => {
                contents.push(Replay::Changed(ino));
                plan.quiet.push(change);
            }
            Change::Moved { from, to, row } => {
                moved_to.insert(to.clone());
                moves.push(Replay::Moved { from, to, row });
            }
        }
    }
    names.retain(|n| !moved_to.contains(&(n.parent, n.name.clone())));
    let (mut dirs, mut files, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for OfName { parent, name, before, after } in names {
        let created = Replay::Created { parent, name: name.clone() };
        match (before, after) {
            (Some(ghost), Some(_)) => {
                plan.replays.push(Replay::Removed { parent, name, ghost });
                plan.replays.push(created);
            }
            (Some(ghost), None) => gone.push(Replay::Removed { parent, name, ghost }),
            (None, Some(FileKind::Dir)) => dirs.push(created),
            (None, Some(_)) => files.push(created),
            (None, None) => {}
        }
    }
    plan.replays.extend(dirs.into_iter().chain(moves).chain(files).chain(contents).chain(gone));
    plan
}

impl Fs {
    /// Tells the kernel, and whoever watches, of changes that came from the bucket.
    pub(super) fn announce(&self, changes: Vec<Change>) {
        for change in &changes {
            match change {
                Change::Moved { row, .. } => self.follow_move(row),
                Change::Content(ino) => {
                    // What was read of it was another version.
                    self.accessed.forget(*ino);
                    // So is what was staged and could not be dropped when it was closed, and nobody is to be shown that.
                    self.drop_clean(*ino);
                }
                _ => {}
            }
        }
        let Some(kernel) = self.kernel.get() else { return };
        if !self.meta.watches().any() {
            // Hidden when somebody still watched.
            for change in &changes {
                if let Change::Added { parent, name, .. } = change {
                    self.meta.watches().show(*parent, name);
                }
            }
            return self.tell_kernel(&changes);
        }
        let plan = plan(changes, &|change| self.is_replayed(change));
        self.tell_kernel(&plan.quiet);
        for replay in &plan.replays {
            if let Replay::Removed { parent, name, ghost } = replay {
                self.ghosts().add(*parent, name, ghost);
            }
            // Its times have moved already, and the replay comes when it comes.
            replay.names().iter().for_each(|(parent, _)| kernel.forget_attr(*parent));
        }
        plan.replays.into_iter().for_each(|replay| kernel.replay(replay));
    }

    fn is_replayed(&self, change: &Change) -> bool {
        let watches = self.meta.watches();
        // What the filter hides is no event for anybody.
        if let Change::Added { parent, name, kind, .. } = change
            && !self.is_shown(*parent, name, *kind)
        {
            watches.show(*parent, name);
            return false;
        }
        let is_shown = |row: &InodeRow, parent: Ino, name: &Name| self.is_shown(parent, name, row.attr.kind);
        match change {
            Change::Removed { parent, name, ghost } if !is_shown(ghost, *parent, name) => false,
            Change::Moved { from, to, row } if !is_shown(row, from.0, &from.1) || !is_shown(row, to.0, &to.1) => false,
            Change::Added { parent, name, is_news, .. } => {
                watches.is_hidden(*parent, name, self.meta.now()) || *is_news && watches.is_watched(*parent)
            }
            Change::Removed { parent, ghost, .. } => {
                watches.is_watched_or_fresh(*parent) || watches.is_watched(ghost.ino)
            }
            Change::Replaced { ino, .. } | Change::Content(ino) => {
                let row = self.meta.get(*ino).ok().flatten();
                let Some((row, parent, name)) = row.and_then(|r| Some((r.clone(), r.parent?, r.name?))) else {
                    return watches.is_watched(*ino);
                };
                is_shown(&row, parent, &name) && (watches.is_watched(*ino) || watches.is_watched(parent))
            }
            Change::Moved { from, to, row } => {
                [from.0, to.0, row.ino].iter().any(|ino| watches.is_watched_or_fresh(*ino))
            }
        }
    }

    /// Whoever reads the file goes on at its new key: the bytes are the same.
    fn follow_move(&self, row: &InodeRow) {
        let (Ok(key), Some(version)) = (self.key(row), &row.version) else { return };
        let object = ObjectRef { key, version: version.clone() };
        self.handles.of(row.ino).iter().for_each(|h| h.set_object(Some(object.clone())));
        if let Some(staged) = self.writer.get(row.ino) {
            staged.replace_base(object);
        }
        if let Some(seen) = self.seen.get(&row.ino)
            && (seen.etag == version.etag && seen.size == version.size)
        {
            self.seen.insert(row.ino, version.clone());
        }
    }

    /// Requests of this thread are replays.
    pub fn set_replaying_thread(&self, tid: u32) {
        self.replaying.store(tid, Ordering::Release);
    }

    /// Whether a request is a replay.
    pub fn is_replay(&self, tid: u32) -> bool {
        tid != 0 && self.replaying.load(Ordering::Acquire) == tid
    }

    fn replay_under_way(&self) -> MutexGuard<'_, Option<Replay>> {
        self.replay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ghosts(&self) -> MutexGuard<'_, Ghosts> {
        self.ghosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names from the root to a directory, which may be gone already.
    fn path_for_replay(&self, dir: Ino) -> Option<Vec<Name>> {
        let (mut names, mut at) = (Vec::new(), dir);
        while at != Ino::ROOT {
            let known = self.meta.get(at).ok()?.filter(|row| row.parent.is_some());
            let row = match known {
                Some(row) => row,
                None => (**self.ghosts().rows.get(&at)?).clone(),
            };
            names.push(row.name?);
            at = row.parent?;
        }
        names.reverse();
        Some(names)
    }

    /// Begins a replay. `None` if nothing is left to be done: things have changed since.
    pub fn begin_replay(&self, replay: &Replay) -> Option<Step> {
        let step = self.step_of(replay);
        if step.is_none() {
            self.show(replay);
        }
        *self.replay_under_way() = step.is_some().then(|| replay.clone());
        step
    }

    fn step_of(&self, replay: &Replay) -> Option<Step> {
        let path = |dir: Ino| self.path_for_replay(dir);
        match replay {
            Replay::Created { parent, name } => {
                let row = self.meta.child(*parent, name).ok().flatten()?;
                if !self.meta.watches().is_watched_or_fresh(*parent) {
                    return None;
                }
                let hidden = self.meta.watches().is_hidden(*parent, name, self.meta.now());
                let act = match (hidden, row.attr.kind) {
                    (true, kind) => Act::Create(kind, row.attr.perm),
                    // Somebody has asked for it by name meanwhile, and was shown it.
                    (false, FileKind::File) => Act::Touch(row.ino),
                    (false, _) => return None,
                };
                Some(Step { dir: path(*parent)?, name: name.clone(), act })
            }
            Replay::Changed(ino) => {
                let row = self.meta.get(*ino).ok().flatten().filter(|r| r.attr.kind == FileKind::File)?;
                Some(Step { dir: path(row.parent?)?, name: row.name?, act: Act::Touch(*ino) })
            }
            Replay::Removed { parent, name, ghost } => {
                let there = self.meta.child(*parent, name).ok()?;
                let hidden = self.meta.watches().is_hidden(*parent, name, self.meta.now());
                if there.is_some() && !hidden {
                    return None;
                }
                Some(Step { dir: path(*parent)?, name: name.clone(), act: Act::Remove(ghost.attr.kind) })
            }
            Replay::Moved { from, to, row } => {
                let is_there = self.meta.child(to.0, &to.1).ok().flatten().is_some_and(|r| r.ino == row.ino);
                let is_left = self.meta.child(from.0, &from.1).ok()?.is_none();
                if !is_there || !is_left {
                    return None;
                }
                let act = Act::Rename { to_dir: path(to.0)?, to: to.1.clone() };
                Some(Step { dir: path(from.0)?, name: from.1.clone(), act })
            }
        }
    }

    /// The replay is over. Names that it was about are shown from now on.
    pub fn end_replay(&self, replay: &Replay, outcome: io::Result<()>) -> Replayed {
        *self.replay_under_way() = None;
        self.show(replay);
        match (outcome, replay) {
            (Ok(()), _) => Replayed::Done,
            (Err(e), Replay::Created { parent, name }) if e.raw_os_error() == Some(libc::EEXIST) => {
                match self.meta.child(*parent, name) {
                    Ok(Some(row)) if row.attr.kind == FileKind::File => Replayed::Instead(Replay::Changed(row.ino)),
                    _ => Replayed::Not,
                }
            }
            (Err(e), _) => {
                tracing::debug!(error = %e, ?replay, "an event could not be raised");
                Replayed::Not
            }
        }
    }

    /// Names that come are shown from now on, and those that go are forgotten.
    fn show(&self, replay: &Replay) {
        match replay {
            Replay::Created { parent, name } | Replay::Moved { to: (parent, name), .. } => {
                self.meta.watches().show(*parent, name);
            }
            Replay::Removed { parent, name, .. } => self.ghosts().remove(*parent, name),
            Replay::Changed(_) => {}
        }
    }

    /// The inode of a new name.
    pub fn ino_of(&self, replay: &Replay) -> Option<Ino> {
        let Replay::Created { parent, name } = replay else { return None };
        self.meta.child(*parent, name).ok().flatten().map(|row| row.ino)
    }

    /// LOOKUP by the replaying thread: names are as they were before the change. The bucket is not asked.
    ///
    /// # Errors
    /// [`FsError::Catalogue`].
    pub fn replayed_lookup(&self, parent: Ino, name: &Name) -> Result<Option<Entry>> {
        let is = |place: (Ino, &Name)| place == (parent, name);
        match &*self.replay_under_way() {
            Some(Replay::Removed { parent, name, ghost }) if is((*parent, name)) => return Ok(Some(self.entry(ghost))),
            Some(Replay::Moved { from, row, .. }) if is((from.0, &from.1)) => return Ok(Some(self.entry(row))),
            Some(Replay::Moved { to, .. }) if is((to.0, &to.1)) => return Ok(None),
            _ => {}
        }
        if self.meta.watches().is_hidden(parent, name, self.meta.now()) {
            return Ok(None);
        }
        match self.meta.child(parent, name)? {
            Some(row) => Ok(Some(self.entry(&row))),
            None => Ok(self.ghosts().child(parent, name).map(|row| self.entry(row))),
        }
    }

    /// CREATE, MKDIR, MKNOD or SYMLINK by the replaying thread: what the bucket has is shown.
    ///
    /// # Errors
    /// [`FsError::Stale`] if that is not what is replayed, or if it is gone by now.
    pub fn replayed_creation(&self, parent: Ino, name: &Name) -> Result<Entry> {
        let expected = matches!(&*self.replay_under_way(),
            Some(Replay::Created { parent: p, name: n }) if *p == parent && n == name);
        let row = self.meta.child(parent, name)?.filter(|_| expected).ok_or(FsError::Stale)?;
        self.meta.watches().show(parent, name);
        Ok(self.entry(&row))
    }

    /// UNLINK, RMDIR or RENAME by the replaying thread: it is so already.
    ///
    /// # Errors
    /// [`FsError::Stale`] if that is not what is replayed.
    pub fn replayed_removal(&self, parent: Ino, name: &Name) -> Result<()> {
        match &*self.replay_under_way() {
            Some(Replay::Removed { parent: p, name: n, .. } | Replay::Moved { from: (p, n), .. })
                if *p == parent && n == name =>
            {
                Ok(())
            }
            _ => Err(FsError::Stale),
        }
    }

    /// GETATTR and SETATTR by the replaying thread: attributes are what they are.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the inode is gone.
    pub fn replayed_attr(&self, ino: Ino) -> Result<Entry> {
        if let Some(ghost) = self.ghosts().rows.get(&ino) {
            return Ok(self.entry(ghost));
        }
        self.getattr(ino)
    }

    /// OPEN and CREATE by the replaying thread: a handle that nothing is read or written through.
    pub fn replayed_open(&self) -> Opened {
        Opened { fh: Fh(0), keep_cache: true, no_flush: false }
    }

    /// Whether the directory has just appeared in a watched one, so that nobody can watch it yet. What is in it waits a moment.
    pub fn waits_for_watchers(&self, replay: &Replay) -> Option<Ino> {
        let dir = match replay {
            Replay::Created { parent, .. } | Replay::Removed { parent, .. } => *parent,
            Replay::Moved { to, .. } => to.0,
            Replay::Changed(_) => return None,
        };
        self.meta.watches().is_fresh(dir).then_some(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Attr, Timestamp};

    fn row(ino: u64, kind: FileKind) -> Box<InodeRow> {
        let now = Timestamp::default();
        let attr = Attr { kind, perm: 0, uid: 0, gid: 0, rdev: 0, size: 0, atime: now, mtime: now, ctime: now };
        Box::new(InodeRow {
            ino: Ino(ino),
            parent: Some(Ino(1)),
            name: None,
            attr,
            version: None,
            storage_class: None,
            symlink: None,
            headers: None,
            xattrs: None,
            local: false,
            checked_at: now,
            complete_at: None,
            marker: crate::meta::Marker::Implied,
            place: None,
        })
    }

    fn added(name: &str, kind: FileKind) -> Change {
        Change::Added { parent: Ino(1), name: Name::parse(name).unwrap(), kind, is_news: true }
    }

    fn removed(name: &str, kind: FileKind) -> Change {
        Change::Removed { parent: Ino(1), name: Name::parse(name).unwrap(), ghost: row(9, kind) }
    }

    fn moved(from: &str, to: &str) -> Change {
        let place = |name: &str| (Ino(1), Name::parse(name).unwrap());
        Change::Moved { from: place(from), to: place(to), row: row(7, FileKind::File) }
    }

    /// `+a` created, `-a` removed, `~3` changed, `a>b` moved.
    fn words(plan: &Plan) -> String {
        let word = |r: &Replay| match r {
            Replay::Created { name, .. } => format!("+{name}"),
            Replay::Removed { name, .. } => format!("-{name}"),
            Replay::Changed(ino) => format!("~{}", ino.0),
            Replay::Moved { from, to, .. } => format!("{}>{}", from.1, to.1),
        };
        plan.replays.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn parents_come_first_and_what_is_gone_last() {
        use FileKind::{Dir, File};
        let changes = vec![
            removed("gone", File),
            added("f", File),
            Change::Content(Ino(3)),
            added("d", Dir),
            added("b", File),
            moved("a", "b"),
        ];
        let plan = plan(changes, &|_| true);
        assert_eq!(words(&plan), "+d a>b +f ~3 -gone");
        assert_eq!(plan.quiet, [Change::Content(Ino(3))], "the kernel drops its pages in any case");
    }

    #[test]
    fn what_comes_and_goes_is_nothing_and_what_changes_its_kind_goes_first() {
        use FileKind::{Dir, File};
        assert_eq!(words(&plan(vec![added("a", File), removed("a", File)], &|_| true)), "");
        assert_eq!(words(&plan(vec![added("a", File), removed("a", File), added("a", Dir)], &|_| true)), "+a");
        assert_eq!(words(&plan(vec![added("z", File), removed("a", File), added("a", Dir)], &|_| true)), "-a +a +z");
    }

    #[test]
    fn what_nobody_watches_is_only_told_to_the_kernel() {
        let changes = vec![added("a", FileKind::File), removed("b", FileKind::File)];
        let plan = plan(changes.clone(), &|_| false);
        assert_eq!((plan.quiet, plan.replays), (changes, vec![]));
    }
}
