//! Listing: a directory, or the whole tree, into the catalogue.
//!
//! Owns: one listing of a directory at a time, in which order pages are applied and announced.
//! Does not own: requests (`remote`), what a page changes (`meta`), when it is time (`poll`, `dir`, `lookup`).

use super::headers::to_found;
use super::{Fs, Result, to_the_end};
use crate::meta::{Change, Leftover, Page, Sighting, TreePart, UnmappableKey};
use crate::remote::{DirPage, DirPart, Listed, TreeWalk, Unlisted};
use crate::store::StoreError;
use crate::types::{Ino, Key, Unmappable};
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;

/// Changes of a watched tree that are kept until its listing is over, so that a move is seen as one.
const NEWS_MAX: usize = 10_000;

/// Who lists a directory: the first to ask, while the others wait.
enum Joined {
    First(watch::Sender<Option<StoreError>>),
    Waiting(Running),
}

/// A listing under way, for those who wait: the failure that it ends with, or nothing.
pub(super) type Running = watch::Receiver<Option<StoreError>>;

/// Ends the listing for those who wait, however it ends.
struct ListingGuard {
    fs: Arc<Fs>,
    ino: Ino,
    done: watch::Sender<Option<StoreError>>,
}

impl Drop for ListingGuard {
    fn drop(&mut self) {
        self.fs.listings.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.ino);
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
            match self.join_listing(ino) {
                Joined::First(done) => {
                    let fs = Arc::clone(self);
                    // In a task of its own: whoever is interrupted leaves it to those who still wait.
                    return to_the_end(async move {
                        let guard = ListingGuard { fs: Arc::clone(&fs), ino, done };
                        let result = fs.list_pages(ino, with_below).await;
                        if let Err(super::FsError::Store(e)) = &result {
                            guard.done.send_replace(Some(e.clone()));
                        }
                        result
                    })
                    .await;
                }
                Joined::Waiting(mut running) => {
                    // The sender sends a failure, or drops at the end.
                    let failure = running.changed().await.ok().and_then(|()| running.borrow().clone());
                    if let Some(e) = failure {
                        return Err(e.into());
                    }
                    if self.row(ino)?.complete_at.is_some_and(|at| at >= began) {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn join_listing(&self, ino: Ino) -> Joined {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = listings.get(&ino) {
            return Joined::Waiting(running.clone());
        }
        let (done, waiting) = watch::channel(None);
        listings.insert(ino, waiting);
        Joined::First(done)
    }

    async fn list_pages(&self, ino: Ino, with_below: bool) -> Result<()> {
        let mut news = News::new(self.meta.watches().is_watched_or_fresh(ino));
        let result = loop {
            let listed = match with_below {
                true => self.list_dir_and_below(ino, &mut news).await,
                false => self.list_dir(ino, &mut news).await,
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
    async fn list_dir(&self, ino: Ino, news: &mut News) -> Result<bool> {
        let listing = self.meta.begin_listing(ino)?;
        let key = self.dir_key(&self.dir_row(ino)?)?;
        let (mut hidden, mut continuation, mut pages) = (Vec::new(), None, 0);
        loop {
            pages += 1;
            let page = self.remote.list_dir(&key, continuation).await?;
            let DirPage { entries, unlisted, marker, next } = page;
            let (seen, unmappable, is_last) = (sightings(entries), unmappable(unlisted), next.is_none());
            let page = Page { seen, unmappable, marker, is_last };
            let (changes, left) = self.meta.apply_page(page, key.clone(), hidden, &listing).await?;
            news.add(self, changes);
            (hidden, continuation) = (left, next);
            if is_last {
                break;
            }
        }
        self.polled.listed(ino, pages, listing.began());
        Ok(self.meta.is_in_place(&listing)?)
    }

    /// Lists a directory with all that is below it in one request, or, where that does not fit into a page, it alone.
    async fn list_dir_and_below(&self, ino: Ino, news: &mut News) -> Result<bool> {
        let listing = self.meta.begin_listing(ino)?;
        let key = self.dir_key(&self.dir_row(ino)?)?;
        let (objects, next) = self.remote.list_flat(&key, None).await?;
        if next.is_some() {
            return self.list_dir(ino, news).await;
        }
        let parts = TreeWalk::below(key).page(objects, true).into_iter().map(tree_part).collect();
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
        let (mut walk, mut leftover) = (TreeWalk::below(Key::root()), Leftover::default());
        let (mut continuation, mut pages) = (None, 0);
        loop {
            let page = match pages == pages_max {
                true => None,
                false => Some(self.remote.list_flat(&Key::root(), continuation).await),
            };
            let Some(Ok((objects, next))) = page else {
                // Directories that were seen to their end are known by now: so is what is gone from them.
                let (changes, _) = self.meta.apply_tree(Vec::new(), leftover, true, &listing).await?;
                news.add(self, changes);
                return page.transpose().map(|_| None).map_err(Into::into);
            };
            pages += 1;
            let is_last = next.is_none();
            let parts = walk.page(objects, is_last).into_iter().map(tree_part).collect();
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
