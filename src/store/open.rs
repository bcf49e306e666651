//! Puts a store and its wrappers together.
//!
//! Owns: their order. Does not own: what the settings are (`cli`), when to open (`daemon`).

use super::observe::Counters;
use super::retry;
use super::s3::{S3Settings, S3Store};
use super::{
    Conditions, ErrorKind, GuardStore, KnownConditions, LimitStore, LookStore, ObjectStore, Observed, Op, PrefixStore,
    Result, RetryStore, StoreError, guard,
};
use crate::types::Key;
use std::sync::Arc;

/// How the wrappers around a store are set.
#[derive(Debug, Clone)]
pub struct StackSettings {
    /// The prefix that is the root: a directory's key, or empty.
    pub prefix: Key,
    /// Most requests in flight.
    pub requests_max: usize,
    /// How persistent retries are.
    pub retry: retry::Settings,
    /// What the scratch objects of a probe are called, of this mount alone: an earlier one may have left some.
    pub scratch: String,
}

impl Default for StackSettings {
    fn default() -> StackSettings {
        let scratch = uuid::Uuid::new_v4().to_string();
        StackSettings { prefix: Key::root(), requests_max: 64, retry: retry::Settings::default(), scratch }
    }
}

/// A store with its wrappers, and the handles to look into them.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The store as the layers above use it. Its conditions hold on every server.
    pub store: Arc<dyn ObjectStore>,
    /// The same store as `store`: tells which conditions the server keeps.
    pub guard: Arc<GuardStore>,
    /// The same requests below retries: how many are in flight.
    pub limit: Arc<LimitStore>,
    /// Counters of all attempts.
    pub counters: Arc<Counters>,
}

/// Opens a bucket. Nothing is asked of it yet; `head_bucket` tells whether it answers.
///
/// # Errors
/// [`ErrorKind::Invalid`] for settings that cannot work.
pub async fn open(
    settings: &S3Settings,
    stack: &StackSettings,
    known: Option<Conditions>,
    on_probed: guard::OnProbed,
) -> Result<Opened> {
    let store = Arc::new(S3Store::connect(settings).await?);
    wrap(store, stack, known, on_probed)
}

/// Puts the wrappers around any store.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a prefix that does not end in `/`.
pub fn wrap(
    store: Arc<dyn ObjectStore>,
    stack: &StackSettings,
    known: Option<Conditions>,
    on_probed: guard::OnProbed,
) -> Result<Opened> {
    if !stack.prefix.is_dir() {
        let message = format!("the prefix {:?} does not end in '/'", stack.prefix.as_str());
        return Err(StoreError::new(ErrorKind::Invalid, Op::HeadBucket, None, message));
    }
    let observed = Observed::new(store);
    let counters = observed.counters();
    let limit = Arc::new(LimitStore::new(Arc::new(observed), stack.requests_max));
    let known = KnownConditions::new(known);
    let look = LookStore::new(Arc::clone(&limit) as Arc<dyn ObjectStore>, known.clone());
    let mut store: Arc<dyn ObjectStore> = Arc::new(RetryStore::new(Arc::new(look), stack.retry.clone()));
    if !stack.prefix.is_root() {
        store = Arc::new(PrefixStore::new(store, stack.prefix.clone()));
    }
    let guard = Arc::new(GuardStore::with_scratch(store, known, on_probed, stack.scratch.clone()));
    Ok(Opened { store: Arc::clone(&guard) as Arc<dyn ObjectStore>, guard, limit, counters })
}
