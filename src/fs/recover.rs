//! What an earlier daemon acknowledged and the bucket does not have.
//!
//! Owns: giving each row of the journal an inode at the place that the row names, before the first request. Does not own: the
//! rows (`write`), renames of directories that were not ended (`resume`).
//!
//! The journal is synced and the catalogue is not: after power loss the latter may be older, or new. So the journal is right
//! wherever they differ, and what the catalogue shows in the place of a file that the journal knows goes.

use super::headers::to_meta;
use super::{Fs, FsError, Result};
use crate::meta::{InodeRow, headers, xattrs};
use crate::store::ObjectHeaders;
use crate::types::{FileKind, Ino, Key, Name, Timestamp, Version};
use crate::write::Recovered;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

impl Fs {
    /// Takes over what an earlier daemon left, before the first request. A read-only mount shows it, and leaves it where it is.
    ///
    /// # Errors
    /// A journal or catalogue that cannot be read: then nothing may be mounted over it.
    pub async fn recover(self: &Arc<Self>) -> Result<()> {
        let is_read_only = self.settings.read_only;
        if !is_read_only {
            self.find_left_orphans()?;
            *self.left_uploads.lock().unwrap_or_else(PoisonError::into_inner) = self.writer.left_uploads()?;
        }
        let left = self.writer.recover(is_read_only)?;
        let journaled: Vec<Ino> = left.iter().map(|r| r.ino).collect();
        for row in self.meta.local()?.into_iter().filter(|r| !journaled.contains(&r.ino)) {
            self.forget_unacknowledged(row).await?;
        }
        // Numbers in the journal are not given to anybody else, even if the catalogue was rebuilt and does not know them.
        if let Some(highest) = journaled.iter().max() {
            self.meta.reserve(*highest).await?;
        }
        let replaced = replaced(left.iter().map(|r| (r.ino, &r.key, r.recorded)));
        let (replaced, mut left): (Vec<_>, Vec<_>) = left.into_iter().partition(|r| replaced.contains(&r.ino));
        for recovered in replaced {
            if is_read_only {
                self.writer.hide(&recovered);
                continue;
            }
            tracing::info!(key = %recovered.key, "was replaced before the crash: its last bytes are dropped");
            self.writer.discard(recovered.ino).await?;
        }
        // Those first that the catalogue knows: what it shows in the place of another one has moved away by then.
        let mut known = HashSet::new();
        for recovered in &left {
            if self.row_of(recovered)?.is_some() {
                known.insert(recovered.ino);
            }
        }
        left.sort_by_key(|recovered| !known.contains(&recovered.ino));
        // Those that have not got their place yet: where the catalogue shows them they were once.
        let mut elsewhere: HashSet<Ino> = journaled.into_iter().collect();
        let mut shown = Vec::new();
        for recovered in left {
            elsewhere.remove(&recovered.ino);
            let ino = self.find_or_make(&recovered, &elsewhere).await?;
            self.go_on_with(&recovered, ino).await?;
            shown.push(ino);
        }
        if !is_read_only {
            self.find_left_renames().await?;
            self.queue_recovered(&shown);
        }
        Ok(())
    }

    /// Each of them has its place by now: what belongs to a database is known by the names beside it. A program may first have to play
    /// back what a crash has left of its transaction.
    fn queue_recovered(&self, shown: &[Ino]) {
        for ino in shown.iter().copied() {
            let is_of_database = self.belongs_to_database(ino);
            let delay = if is_of_database { self.settings.writes.database_delay() } else { Duration::ZERO };
            if let Some(staged) = self.writer.get(ino) {
                staged.set_delay(delay);
            }
            self.queue_commit_after(ino, delay);
        }
    }

    /// A file that an earlier mount left has this inode now.
    async fn go_on_with(&self, recovered: &Recovered, ino: Ino) -> Result<()> {
        let (key, is_read_only) = (&recovered.key, self.settings.read_only);
        let staged = match (ino == recovered.ino, is_read_only) {
            (true, _) => Arc::clone(&recovered.staged),
            (false, true) => self.writer.show_as(recovered, ino)?,
            (false, false) => self.writer.adopt(recovered, ino, self.meta.now()).await?,
        };
        if !is_read(&recovered.headers) && staged.content().base().is_some() {
            // The commit reads what the object says first, and that is the time of the version before.
            staged.set_written_at(headers::from_user(&recovered.headers.user).mtime);
        }
        if is_read_only {
            tracing::warn!(%key, "an earlier mount left a write: it is shown, and sent by the next mount that is not read-only");
        } else {
            tracing::info!(%key, "goes on with a write that an earlier mount left");
        }
        Ok(())
    }

    /// Writes that no close or fsync acknowledged died with the daemon: the row shows the bucket again.
    pub(super) async fn forget_unacknowledged(&self, row: InodeRow) -> Result<()> {
        if row.version.is_none() {
            self.meta.remove(row.ino).await?;
            return Ok(());
        }
        self.meta
            .change(row.ino, |row| {
                row.local = false;
                row.attr.size = row.version.as_ref().map_or(0, |v| v.size);
                row.checked_at = crate::types::Timestamp::default();
                row.headers = None;
                row.xattrs = None;
            })
            .await?;
        Ok(())
    }

    /// The inode of a journaled file: the one that it had, or, in a rebuilt catalogue, a new one at its path.
    async fn find_or_make(self: &Arc<Self>, left: &Recovered, elsewhere: &HashSet<Ino>) -> Result<Ino> {
        let known = self.row_of(left)?;
        if let Some(row) = &known {
            // Before a rename, which moves its ctime.
            self.take_newer(row, &left.headers).await?;
            self.take_base(row, left).await?;
            if self.has_key(row, &left.key) {
                return Ok(row.ino);
            }
        }
        // A daemon that knew no escapes has taken them for the name itself.
        let name = |component: &str| Name::from_component(component).or_else(|_| Name::parse(component));
        let names = left.key.as_str().split('/').map(name).collect::<std::result::Result<Vec<_>, _>>()?;
        let Some((name, dirs)) = names.split_last() else { return Err(FsError::Stale) };
        let mut parent = Ino::ROOT;
        for dir in dirs {
            parent = self.dir_at(parent, dir, elsewhere).await?;
        }
        let name = &self.make_way(parent, name, elsewhere).await?;
        if let Some(row) = known {
            // The catalogue, which is not synced, has lost a rename that the journal knows of.
            self.meta.rename(row.ino, parent, name.clone(), Vec::new()).await?.ok_or(FsError::Stale)?;
            return Ok(row.ino);
        }
        let base = base_of(left);
        let size = left.staged.size();
        let known = self.meta.child(parent, name)?;
        let row = match known {
            Some(row) => row,
            None => {
                let mode = u32::from(self.meta.defaults().file_perm);
                let attr = self.new_attr(self.own_caller(), &self.row(parent)?, FileKind::File, mode);
                let row = self.meta.blank(parent, name, attr);
                self.meta.create(row).await?.ok_or(FsError::Exists)?
            }
        };
        let headers = left.headers.clone();
        self.meta
            .change(row.ino, move |row| {
                row.local = true;
                row.attr.size = size;
                row.version = base;
                take_over(row, &headers);
            })
            .await?;
        Ok(row.ino)
    }

    /// The catalogue, which is not synced, may have lost what was set last: then the journal's attributes have the later ctime.
    async fn take_newer(&self, row: &InodeRow, journaled: &ObjectHeaders) -> Result<()> {
        if headers::from_user(&journaled.user).ctime.is_some_and(|at| at > row.attr.ctime) {
            let journaled = journaled.clone();
            self.meta.change(row.ino, move |row| take_over(row, &journaled)).await?;
        }
        Ok(())
    }

    /// It may also have lost which version the file replaces, such as the one that it was saved over: whoever removes the file has that
    /// deleted.
    async fn take_base(&self, row: &InodeRow, left: &Recovered) -> Result<()> {
        let is_other = |base: &Version| !row.version.as_ref().is_some_and(|known| known.same(base));
        let Some(base) = base_of(left).filter(is_other) else { return Ok(()) };
        // Unless somebody had read them, they are read before the commit.
        let headers = is_read(&left.headers).then(|| to_meta(&left.headers).json);
        let take = move |row: &mut InodeRow| {
            row.version = Some(base);
            row.headers = headers;
        };
        self.meta.change(row.ino, take).await?;
        Ok(())
    }

    /// The row of the inode that a journaled file had.
    fn row_of(&self, left: &Recovered) -> Result<Option<InodeRow>> {
        let is_it = |row: &InodeRow| row.local && row.parent.is_some() && row.attr.kind == FileKind::File;
        Ok(self.meta.get(left.ino)?.filter(is_it))
    }

    /// Something else was in the place of a journaled file once: it goes from the catalogue. Answers the name that the file gets:
    /// another one if there are other journaled files below that.
    async fn make_way(&self, parent: Ino, name: &Name, elsewhere: &HashSet<Ino>) -> Result<Name> {
        let is_in_the_way = |row: &InodeRow| row.attr.kind != FileKind::File || elsewhere.contains(&row.ino);
        let Some(other) = self.meta.child(parent, name)?.filter(is_in_the_way) else { return Ok(name.clone()) };
        let below = self.meta.descendants(other.ino)?;
        if !self.writer.inodes().iter().any(|ino| below.contains(ino) && !elsewhere.contains(ino)) {
            self.meta.remove(other.ino).await?;
            return Ok(name.clone());
        }
        self.other_name(parent, name)
    }

    /// A file and a directory of one name are owed: the file gets this one.
    fn other_name(&self, parent: Ino, name: &Name) -> Result<Name> {
        let own = self.free_conflict_name(parent, name, 0)?.0;
        tracing::error!(directory = %name, kept_as = %own, "a file and a directory of one name are owed: the file gets another one");
        Ok(own)
    }

    async fn dir_at(&self, parent: Ino, name: &Name, elsewhere: &HashSet<Ino>) -> Result<Ino> {
        match self.meta.child(parent, name)? {
            Some(row) if row.attr.kind == FileKind::Dir => return Ok(row.ino),
            // It is a directory by now.
            Some(row) if !self.writer.inodes().contains(&row.ino) || elsewhere.contains(&row.ino) => {
                self.meta.remove(row.ino).await?;
            }
            Some(row) => drop(self.meta.rename(row.ino, parent, self.other_name(parent, name)?, Vec::new()).await?),
            None => {}
        }
        let mode = u32::from(self.meta.defaults().dir_perm);
        let attr = self.new_attr(self.own_caller(), &self.row(parent)?, crate::types::FileKind::Dir, mode);
        let row = self.meta.create(self.meta.blank(parent, name, attr)).await?.ok_or(FsError::Exists)?;
        Ok(row.ino)
    }

    fn own_caller(&self) -> super::Caller {
        let defaults = self.meta.defaults();
        super::Caller { uid: defaults.uid, gid: defaults.gid, tid: 0 }
    }
}

/// The version that a journaled file replaces. What is kept apart has a base under another name, which is lost.
fn base_of(left: &Recovered) -> Option<Version> {
    left.staged.content().base().filter(|base| base.key == left.key).map(|base| base.version.clone())
}

/// Whether somebody had read the headers of the object when the journal was written. Every answer of a server names a content type,
/// and what we wrote has a write id.
fn is_read(journaled: &ObjectHeaders) -> bool {
    journaled.content_type.is_some() || journaled.write_id().is_some()
}

/// What the journal says of a file's attributes is what they are. Only of an object whose headers nobody had read it says defaults:
/// then the object's own are read before the commit.
fn take_over(row: &mut InodeRow, journaled: &ObjectHeaders) {
    let is_read = is_read(journaled);
    if !is_read && row.version.is_some() && row.headers.is_some() {
        return;
    }
    let (said, attr) = (headers::from_user(&journaled.user), &mut row.attr);
    attr.perm = said.perm.unwrap_or(attr.perm);
    attr.uid = said.uid.unwrap_or(attr.uid);
    attr.gid = said.gid.unwrap_or(attr.gid);
    attr.atime = said.atime.unwrap_or(attr.atime);
    attr.mtime = said.mtime.unwrap_or(attr.mtime);
    attr.ctime = said.ctime.unwrap_or(attr.ctime);
    row.headers = row.version.as_ref().filter(|_| is_read).map(|_| to_meta(journaled).json);
    row.xattrs = (is_read || row.version.is_none()).then(|| xattrs::in_user(&journaled.user));
}

/// Files whose name another one had taken when the crash came: of those that are to have the same key, all but the one whose row
/// was written last.
fn replaced<'a>(rows: impl Iterator<Item = (Ino, &'a Key, Timestamp)>) -> HashSet<Ino> {
    let mut last: HashMap<&Key, (Ino, Timestamp)> = HashMap::new();
    let mut replaced = HashSet::new();
    for (ino, key, recorded) in rows {
        match last.get(key) {
            Some((_, at)) if *at > recorded => drop(replaced.insert(ino)),
            _ => replaced.extend(last.insert(key, (ino, recorded)).map(|(older, _)| older)),
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_that_was_written_last_has_the_name() {
        let (a, b) = (Key::parse("a").unwrap(), Key::parse("b").unwrap());
        let at = Timestamp::from_nanos;
        let rows = [(Ino(2), &a, at(5)), (Ino(3), &b, at(1)), (Ino(4), &a, at(9)), (Ino(5), &a, at(7))];
        assert_eq!(replaced(rows.into_iter()), HashSet::from([Ino(2), Ino(5)]));
        assert_eq!(replaced(rows.into_iter().rev()), HashSet::from([Ino(2), Ino(5)]));
    }
}
