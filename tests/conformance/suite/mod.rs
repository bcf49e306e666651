//! The cases, as a list, and the order they run in.
//!
//! Owns: what a case gets, a prefix of its own for each, naming what failed. Does not own: servers (`stores`).

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use objfs::store::open::{StackSettings, wrap};
use objfs::store::{
    Condition, Conditions, FaultStore, GetObject, GuardStore, KnownConditions, LookStore, ObjectHeaders, ObjectStore,
    Observed, PrefixStore, RetryStore, Written, fault, observe, retry,
};
use objfs::types::{ETag, Key, WriteId};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

mod conditions;
mod listing;
mod lost;
mod objects;
mod uploads;

/// A store to run the suite on.
pub(crate) struct Subject {
    store: Arc<dyn ObjectStore>,
    /// What the probe must find.
    conditions: Conditions,
    /// Names of what is known to differ on this store, which the cases leave out.
    differs: &'static [&'static str],
}

impl Subject {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, conditions: Conditions) -> Subject {
        Subject { store, conditions, differs: &[] }
    }

    /// The same store, known to differ from the reference so.
    pub(crate) fn differing(self, differs: &'static [&'static str]) -> Subject {
        Subject { differs, ..self }
    }
}

/// What a case gets: the store below a prefix of its own.
pub(crate) struct Case {
    /// The store with all its wrappers.
    store: Arc<dyn ObjectStore>,
    /// Without wrappers but the prefix.
    bare: Arc<dyn ObjectStore>,
    /// What the probe must find.
    conditions: Conditions,
    differs: &'static [&'static str],
}

type Run = fn(&Case) -> BoxFuture<'_, ()>;

/// Every case, by name.
const CASES: &[(&str, Run)] = &[
    ("probe", |c| conditions::probe_finds_what_the_server_keeps(c).boxed()),
    ("bucket", |c| objects::bucket_answers(c).boxed()),
    ("objects", |c| objects::put_get_head_delete(c).boxed()),
    ("headers", |c| objects::headers_round_trip(c).boxed()),
    ("empty", |c| objects::empty_objects(c).boxed()),
    ("ranges", |c| objects::ranges(c).boxed()),
    ("get-if-match", |c| objects::get_if_match(c).boxed()),
    ("large", |c| objects::large_bodies(c).boxed()),
    ("keys", |c| listing::odd_keys(c).boxed()),
    ("listing", |c| listing::pages_equal_the_reference(c).boxed()),
    ("copy", |c| objects::copies(c).boxed()),
    ("uploads", |c| uploads::parts_become_an_object(c).boxed()),
    ("part-copy", |c| uploads::parts_are_copied(c).boxed()),
    ("abort", |c| uploads::aborted_uploads_are_gone(c).boxed()),
    ("part-checks", |c| uploads::parts_are_checked(c).boxed()),
    ("put-condition", |c| conditions::puts(c).boxed()),
    ("delete-condition", |c| conditions::deletes(c).boxed()),
    ("copy-condition", |c| conditions::copies(c).boxed()),
    ("complete-condition", |c| conditions::completions(c).boxed()),
    ("race", |c| conditions::one_of_many_wins(c).boxed()),
    ("lost-put", |c| lost::puts(c).boxed()),
    ("lost-copy", |c| lost::copies(c).boxed()),
    ("lost-complete", |c| lost::completions(c).boxed()),
    ("lost-delete", |c| lost::deletes(c).boxed()),
    ("storm", |c| lost::storm(c).boxed()),
];

/// Runs every case, and fails with the names of those that failed.
pub(crate) async fn run(subject: Subject) {
    let mut failed = Vec::new();
    for (name, run) in CASES {
        let case = Case::new(&subject, name);
        if AssertUnwindSafe(run(&case)).catch_unwind().await.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?} of {} cases", CASES.len());
}

impl Case {
    fn new(subject: &Subject, name: &str) -> Case {
        let prefix = Key::parse(&format!("{name}/")).unwrap();
        let bare = Arc::new(PrefixStore::new(Arc::clone(&subject.store), prefix.clone()));
        let stack = StackSettings { prefix, ..StackSettings::default() };
        let known = (name != "probe").then_some(subject.conditions);
        let opened = wrap(Arc::clone(&subject.store), &stack, known, Box::new(|_| {})).unwrap();
        Case { store: opened.store, bare, conditions: subject.conditions, differs: subject.differs }
    }

    /// Whether this is known to differ here.
    fn differs(&self, what: &str) -> bool {
        self.differs.contains(&what)
    }

    /// The store with retries, which also make sense of answers that cannot be understood.
    fn retried(&self, known: &KnownConditions) -> Arc<dyn ObjectStore> {
        let look = LookStore::new(Arc::clone(&self.bare), known.clone());
        Arc::new(RetryStore::new(Arc::new(look), retry::Settings::default()))
    }

    /// The store as it is used, with faults between the retries and the counters.
    fn faulty(&self, settings: fault::Settings) -> Faulty {
        let observed = Observed::new(Arc::clone(&self.bare));
        let counters = observed.counters();
        let fault = Arc::new(FaultStore::new(Arc::new(observed), settings));
        let quick = retry::Settings { base: Duration::from_millis(1), attempts: 20, ..retry::Settings::default() };
        let known = KnownConditions::new(Some(self.conditions));
        let look = LookStore::new(Arc::clone(&fault) as Arc<dyn ObjectStore>, known.clone());
        let retry = RetryStore::new(Arc::new(look), quick);
        let store = GuardStore::new(Arc::new(retry), known, Box::new(|_| {}));
        Faulty { store, fault, counters }
    }
}

/// A store with faults.
struct Faulty {
    store: GuardStore,
    fault: Arc<FaultStore>,
    counters: Arc<observe::Counters>,
}

fn key(key: &str) -> Key {
    Key::parse(key).unwrap()
}

fn etag(etag: &str) -> ETag {
    ETag::parse(etag)
}

/// A new write id, and headers that carry it.
fn marked() -> (WriteId, ObjectHeaders) {
    let id = WriteId::new(&uuid::Uuid::new_v4().to_string());
    (id.clone(), ObjectHeaders::default().with_write_id(&id))
}

/// Bytes that differ everywhere.
fn pattern(len: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

async fn put(store: &dyn ObjectStore, name: &str, body: impl Into<Bytes>) -> Written {
    store.put(&key(name), body.into(), &marked().1, &Condition::Always).await.unwrap()
}

async fn read(answer: GetObject) -> Bytes {
    let pieces: Vec<Bytes> = answer.body.try_collect().await.unwrap();
    pieces.concat().into()
}

async fn content(store: &dyn ObjectStore, name: &str) -> Bytes {
    read(store.get(&key(name), None, None).await.unwrap()).await
}
