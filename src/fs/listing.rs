//! Listing: a directory, or the whole tree, into the catalogue.
//!
//! Owns: one listing of a directory at a time, in which order pages are applied and announced.
//! Does not own: requests (`remote`), what a page changes (`meta`), when it is time (`poll`, `dir`, `lookup`).

use super::headers::to_found;
use super::{Fs, FsError, Result};
use crate::meta::{Change, DbError, InodeRow, Leftover, Page, Sighting, TreePart, UnmappableKey};
use crate::remote::{DirPage, DirPart, Listed, TreeWalk, Unlisted};
use crate::store::StoreError;
use crate::types::{Ino, Key, KeyError, Unmappable};
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;

/// Changes of a watched tree that are kept until its listing is over, so that a move is seen as one.
const NEWS_MAX: usize = 10_000;

/// How far a listing has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pages: u32,
    ended: Option<std::result::Result<(), Failure>>,
}

/// Why a listing failed, for all who wait for it.
#[derive(Debug, Clone)]
enum Failure {
    Store(StoreError),
    Catalogue(DbError),
    Name(KeyError),
    Stale,
    Other(String),
}

impl Failure {
    /// It did not say why.
    fn early() -> Failure {
        Failure::Other("the listing ended early".to_owned())
    }
}

impl From<&FsError> for Failure {
    fn from(error: &FsError) -> Failure {
        match error {
            FsError::Store(e) => Failure::Store(e.clone()),
            FsError::Catalogue(e) => Failure::Catalogue(e.clone()),
            FsError::Name(e) => Failure::Name(*e),
            FsError::Stale => Failure::Stale,
            other => Failure::Other(other.to_string()),
        }
    }
}

impl From<Failure> for FsError {
    fn from(failure: Failure) -> FsError {
        match failure {
            Failure::Store(e) => FsError::Store(e),
            Failure::Catalogue(e) => FsError::Catalogue(e),
            Failure::Name(e) => FsError::Name(e),
            Failure::Stale => FsError::Stale,
            Failure::Other(message) => FsError::Internal(message),
        }
    }
}

/// A listing that is found by others, until it ends, however it ends.
struct InListings {
    fs: Arc<Fs>,
    ino: Ino,
}

impl Drop for InListings {
    fn drop(&mut self) {
        self.fs.listings.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.ino);
    }
}

/// A listing under way, for those who wait for its end or its next page.
pub(super) type Running = watch::Receiver<Progress>;

/// Waits until the listing shows something. `false` if there is more to come.
async fn shows_something(mut running: Running) -> Result<bool> {
    let ended = match running.wait_for(|now| now.pages > 0 || now.ended.is_some()).await {
        Ok(now) => now.ended.clone(),
        Err(_) => Some(Err(Failure::early())),
    };
    match ended {
        Some(result) => Ok(result.map(|()| true)?),
        None => Ok(false),
    }
}

/// Waits until the listing is over.
async fn is_over(mut running: Running) -> Result<()> {
    let ended = running.wait_for(|now| now.ended.is_some()).await.ok().and_then(|now| now.ended.clone());
    Ok(ended.unwrap_or_else(|| Err(Failure::early()))?)
}

/// Whoever reads a directory while it is listed for the first time.
#[derive(Debug)]
pub struct Follow {
    fs: Arc<Fs>,
    dir: Ino,
    running: Option<Running>,
}

impl Follow {
    /// Waits for entries beyond those that were there when this was last asked, or made. `false` if no more will come.
    ///
    /// # Errors
    /// Why the listing was not completed: what was read so far is not all of the directory.
    pub async fn goes_on(&mut self) -> Result<bool> {
        let Some(running) = &mut self.running else {
            let is_complete = self.fs.meta.get(self.dir)?.is_none_or(|dir| dir.complete_at.is_some());
            return if is_complete { Ok(false) } else { Err(Failure::early().into()) };
        };
        let ended = match running.changed().await {
            Ok(()) => running.borrow().ended.clone(),
            Err(_) => Some(Ok(())),
        };
        if let Some(result) = ended {
            result?;
            // Its last page may not have been seen yet.
            self.running = None;
        }
        Ok(true)
    }

    /// Waits until the directory has an entry beyond `cookie`, or no more will come.
    ///
    /// # Errors
    /// As [`Follow::goes_on`].
    pub async fn until_more(&mut self, cookie: u64) -> Result<()> {
        while self.goes_on().await? {
            let mut has_any = false;
            self.fs.readdir(self.dir, cookie, &mut |_| {
                has_any = true;
                true
            })?;
            if has_any {
                break;
            }
        }
        Ok(())
    }
}

impl Fs {
    /// Lists `ino`, or waits for the listing that somebody else has begun.
    pub(super) async fn list(self: &Arc<Self>, ino: Ino) -> Result<()> {
        self.list_one_at_a_time(ino, false).await
    }

    /// The same, and what is below it as well, if all of it fits into a page.
    pub(super) async fn list_with_below(self: &Arc<Self>, ino: Ino) -> Result<()> {
        self.list_one_at_a_time(ino, true).await
    }

    async fn list_one_at_a_time(self: &Arc<Self>, ino: Ino, with_below: bool) -> Result<()> {
        let began = self.meta.now();
        loop {
            let (running, is_own) = self.listing_of(ino, with_below);
            is_over(running).await?;
            // Another may have begun before whoever asks here had changed something.
            if is_own || self.row(ino)?.complete_at.is_some_and(|at| at >= began) {
                return Ok(());
            }
        }
    }

    /// The listing of `ino` that is under way, or a new one, and whether it is new. It runs in a task of its own: whoever is
    /// interrupted leaves it to those who still wait.
    fn listing_of(self: &Arc<Self>, ino: Ino, with_below: bool) -> (Running, bool) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = listings.get(&ino) {
            return (running.clone(), false);
        }
        let (progress, running) = watch::channel(Progress::default());
        listings.insert(ino, running.clone());
        let fs = Arc::clone(self);
        tokio::spawn(async move {
            let entry = InListings { fs: Arc::clone(&fs), ino };
            let result = fs.list_pages(ino, with_below, &progress).await;
            drop(entry);
            progress.send_modify(|now| now.ended = Some(result.map_err(|e| Failure::from(&e))));
        });
        (running, true)
    }

    /// Lists a directory that somebody opens for the first time. Answers once there is something to show: `false` if there is
    /// more to come, for which whoever reads has to [`Fs::follow`] the listing.
    pub(super) async fn list_first(self: &Arc<Self>, dir: &InodeRow) -> Result<bool> {
        let with_below = self.walk(dir, false)?;
        let (running, _) = self.listing_of(dir.ino, with_below);
        // Of what was known already some may be gone, and only the end of the listing tells.
        let is_whole = match self.meta.has_unconfirmed(dir.ino, self.meta.now().minus(self.settings.poll_interval))? {
            true => is_over(running.clone()).await.map(|()| true)?,
            false => shows_something(running.clone()).await?,
        };
        let (fs, ino) = (Arc::clone(self), dir.ino);
        if is_whole {
            fs.read_headers_of_shown(ino);
        } else {
            tokio::spawn(async move {
                if is_over(running).await.is_ok() {
                    fs.read_headers_of_shown(ino);
                }
            });
        }
        Ok(is_whole)
    }

    /// For whoever reads the directory from now on, and wants what a listing under way has not shown yet.
    pub fn follow(self: &Arc<Self>, dir: Ino) -> Follow {
        let mut running = self.listings.lock().unwrap_or_else(PoisonError::into_inner).get(&dir).cloned();
        if let Some(running) = &mut running {
            running.mark_unchanged();
        }
        Follow { fs: Arc::clone(self), dir, running }
    }

    async fn list_pages(&self, ino: Ino, with_below: bool, progress: &watch::Sender<Progress>) -> Result<()> {
        let mut news = News::new(self.meta.watches().is_watched_or_fresh(ino));
        let result = loop {
            let listed = match with_below {
                true => self.list_dir_and_below(ino, &mut news, progress).await,
                false => self.list_dir(ino, &mut news, progress).await,
            };
            // Renamed meanwhile: what was seen was not it.
            if !matches!(listed, Ok(false)) {
                break listed.map(drop);
            }
        };
        // What was seen before a failure was seen all the same.
        news.announce(self);
        result
    }

    /// Answers whether the directory was in its place until the end.
    async fn list_dir(&self, ino: Ino, news: &mut News, progress: &watch::Sender<Progress>) -> Result<bool> {
        let listing = self.meta.begin_listing(ino)?;
        let key = self.dir_key(&self.dir_row(ino)?)?;
        let (mut hidden, mut continuation, mut pages) = (Vec::new(), None, 0);
        let mut has_marker = false;
        loop {
            pages += 1;
            let page = self.remote.list_dir(&key, continuation).await?;
            let DirPage { entries, unlisted, marker, next } = page;
            let (seen, unmappable, is_last) = (sightings(entries), unmappable(unlisted), next.is_none());
            has_marker |= marker.is_some();
            let page = Page { seen, unmappable, marker, has_marker, is_last };
            let (changes, left) = self.meta.apply_page(page, key.clone(), hidden, &listing).await?;
            news.add(self, changes);
            if !is_last {
                progress.send_modify(|now| now.pages = pages);
            }
            (hidden, continuation) = (left, next);
            if is_last {
                break;
            }
        }
        self.polled.listed(ino, pages, listing.began());
        Ok(self.meta.is_in_place(&listing)?)
    }

    /// Lists a directory with all that is below it in one request, or, where that does not fit into a page, it alone.
    async fn list_dir_and_below(&self, ino: Ino, news: &mut News, progress: &watch::Sender<Progress>) -> Result<bool> {
        let listing = self.meta.begin_listing(ino)?;
        let key = self.dir_key(&self.dir_row(ino)?)?;
        let page = self.remote.list_flat(&key, None).await?;
        if page.next.is_some() {
            return self.list_dir(ino, news, progress).await;
        }
        let parts = TreeWalk::below(key, self.settings.prefix_len).page(page).into_iter().map(tree_part).collect();
        let (changes, _) = self.meta.apply_tree(parts, Leftover::default(), true, &listing).await?;
        self.polled.listed(ino, 1, listing.began());
        news.add(self, changes);
        Ok(self.meta.is_in_place(&listing)?)
    }

    /// Lists the whole tree, and answers how many requests that took. `None` if it would be more than `pages_max`: then what
    /// was seen counts, and nothing is taken for gone.
    pub(super) async fn list_whole(&self, pages_max: u32) -> Result<Option<u32>> {
        let mut news = News::new(self.meta.watches().any());
        let result = self.list_tree(pages_max, &mut news).await;
        news.announce(self);
        result
    }

    async fn list_tree(&self, pages_max: u32, news: &mut News) -> Result<Option<u32>> {
        let listing = self.meta.begin_listing(Ino::ROOT)?;
        let mut walk = TreeWalk::below(Key::root(), self.settings.prefix_len);
        let mut leftover = Leftover::default();
        let (mut continuation, mut pages) = (None, 0);
        loop {
            let page = match pages == pages_max {
                true => None,
                false => Some(self.remote.list_flat(&Key::root(), continuation).await),
            };
            let Some(Ok(listed)) = page else {
                // Directories that were seen to their end are known by now: so is what is gone from them.
                let (changes, _) = self.meta.apply_tree(Vec::new(), leftover, true, &listing).await?;
                news.add(self, changes);
                return page.transpose().map(|_| None).map_err(Into::into);
            };
            pages += 1;
            let next = listed.next.clone();
            let is_last = next.is_none();
            let parts = walk.page(listed).into_iter().map(tree_part).collect();
            let (changes, left) = self.meta.apply_tree(parts, leftover, is_last, &listing).await?;
            news.add(self, changes);
            (leftover, continuation) = (left, next);
            if is_last {
                break;
            }
        }
        self.polled.listed_whole(pages, listing.began());
        Ok(Some(pages))
    }
}

/// What a listing changed. Where somebody watches it is told at the end: what is gone from here may be new there.
struct News {
    waits: bool,
    changes: Vec<Change>,
}

impl News {
    fn new(waits: bool) -> News {
        News { waits, changes: Vec::new() }
    }

    fn add(&mut self, fs: &Fs, changes: Vec<Change>) {
        self.changes.extend(changes);
        if !self.waits || self.changes.len() > NEWS_MAX {
            fs.announce(std::mem::take(&mut self.changes));
        }
    }

    fn announce(self, fs: &Fs) {
        fs.announce(self.changes);
    }
}

fn sightings(entries: Vec<Listed>) -> Vec<Sighting> {
    entries.into_iter().map(|e| Sighting { name: e.name, found: to_found(e.entry) }).collect()
}

fn unmappable(unlisted: Vec<Unlisted>) -> Vec<UnmappableKey> {
    let each = |u: Unlisted| UnmappableKey { key: u.key, why: Unmappable::as_str(u.why), size: u.size };
    unlisted.into_iter().map(each).collect()
}

fn tree_part(part: DirPart) -> TreePart {
    let DirPart { path, key, entries, unlisted, marker, is_last } = part;
    TreePart { path, key, seen: sightings(entries), unmappable: unmappable(unlisted), marker, is_last }
}
