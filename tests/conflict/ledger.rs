//! What became of every version of every key, as the server's log tells it.
//!
//! Owns: the judgement: who replaced what, and whether knowingly. Does not own: the log (`objfs::devserver`), writing.

use crate::records::{Found, Party, Tag, parse};
use objfs::devserver::LogEntry;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Longest time from a look to the write that relies on it, where the server keeps no conditions.
const WINDOW_MAX: Duration = Duration::from_secs(10);
/// Violations that are told in full.
const TOLD_MAX: usize = 20;

/// A write that close(2) or rename(2) acknowledged: the bucket then has it, under this key or as a conflict copy.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    pub(crate) tag: Tag,
    pub(crate) key: String,
    /// What was done.
    pub(crate) what: &'static str,
    pub(crate) at: Instant,
}

/// How a version ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// The bucket has it.
    There,
    /// A mount replaced or deleted it, and named it or had just seen it.
    Knowingly,
    /// The client without conditions replaced or deleted it.
    ByForeigner,
    /// It was written between a mount's look and that mount's write.
    InTheWindow,
    /// A mount replaced or deleted it without knowing it.
    Unknowingly,
}

#[derive(Debug)]
struct Version {
    key: String,
    etag: String,
    by: Party,
    place: u64,
    /// Only of versions that are there.
    records: Vec<Found>,
    fate: Fate,
}

/// A HEAD of a mount.
#[derive(Debug)]
struct Look {
    etag: Option<String>,
    place: u64,
    at: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    conditions: bool,
    /// Entries whose turn has not come: requests end in another order than they took effect.
    waiting: BTreeMap<u64, LogEntry>,
    next: u64,
    versions: Vec<Version>,
    current: BTreeMap<String, usize>,
    looks: HashMap<(Party, String), Look>,
    /// Versions that carry a write.
    carriers: HashMap<Tag, Vec<usize>>,
    writes: BTreeMap<(Party, String), u64>,
    refused: u64,
    longest_window: Duration,
    violations: Vec<String>,
    /// What was asked of each key by mounts, for whoever asks what became of one.
    told: Vec<(Instant, String)>,
}

impl Ledger {
    /// `conditions`: whether the server keeps them.
    pub(crate) fn new(conditions: bool) -> Ledger {
        Ledger {
            conditions,
            waiting: BTreeMap::new(),
            next: 0,
            versions: Vec::new(),
            current: BTreeMap::new(),
            looks: HashMap::new(),
            carriers: HashMap::new(),
            writes: BTreeMap::new(),
            refused: 0,
            longest_window: Duration::ZERO,
            violations: Vec::new(),
            told: Vec::new(),
        }
    }

    fn tell(&mut self, entry: &LogEntry) {
        let LogEntry { op, region, key, if_match, if_none_match, status, before, after, changed, .. } = entry;
        let line = format!(
            "{:?} {op} {key} if {if_match:?} absent {if_none_match:?}: {before:?} > {after:?}, changed {changed}, {status:?}",
            Party::of_region(region)
        );
        self.told.push((entry.came, line));
    }

    /// What was asked of a key, its copies and its drafts around a moment.
    fn around(&self, at: Instant, key: &str) -> String {
        let stem = key.split('.').next().unwrap_or(key);
        let near = |came: &Instant| came.max(&at).duration_since(*came.min(&at)) < Duration::from_secs(3);
        let told = self.told.iter().filter(|(came, line)| near(came) && line.contains(stem));
        let line = |(came, line): &(Instant, String)| {
            let ms = came.saturating_duration_since(at).as_millis() as i128
                - at.saturating_duration_since(*came).as_millis() as i128;
            format!("  {ms:>5} ms {line}\n")
        };
        told.map(line).collect()
    }

    /// Takes more of the log.
    pub(crate) fn feed(&mut self, entries: Vec<LogEntry>) {
        for entry in entries {
            self.refused += u64::from(entry.status == Some(412));
            self.tell(&entry);
            if let Some(place) = entry.place {
                self.waiting.insert(place, entry);
            }
        }
        while let Some(entry) = self.waiting.remove(&self.next) {
            self.next += 1;
            if !entry.key.starts_with(".objfs/") {
                self.judge(entry);
            }
        }
    }

    /// Whether all of the log that was fed has been judged.
    pub(crate) fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Every key with its ETag, as the bucket should list it.
    pub(crate) fn keys(&self) -> BTreeMap<String, String> {
        self.current.iter().map(|(key, version)| (key.clone(), self.versions[*version].etag.clone())).collect()
    }

    fn judge(&mut self, entry: LogEntry) {
        let Some(party) = Party::of_region(&entry.region) else {
            return self.violations.push(format!("a request of nobody: {entry:?}"));
        };
        let (Some(place), Some(at)) = (entry.place, entry.looked) else { return };
        if !entry.changed {
            let look = Look { etag: entry.before, place, at };
            self.looks.insert((party, entry.key), look);
            return;
        }
        *self.writes.entry((party, entry.op.clone())).or_default() += 1;
        let old = self.current.remove(&entry.key);
        if old.map(|old| &self.versions[old].etag) != entry.before.as_ref() {
            self.violations.push(format!("the log has a gap: {entry:?}"));
        }
        let fate = self.fate(party, &entry, old);
        if fate == Fate::Unknowingly {
            let looked = self.looks.get(&(party, entry.key.clone()));
            self.violations.push(format!("{party:?} replaced what it did not know: {entry:?}, after {looked:?}"));
        }
        if let Some(old) = old {
            self.versions[old].fate = fate;
        }
        if entry.after.is_some() {
            self.add(party, place, &entry, old.filter(|_| fate == Fate::Knowingly));
        }
        if let Some(old) = old {
            self.versions[old].records = Vec::new();
        }
    }

    /// How the version ends that `entry` replaces, if any.
    fn fate(&mut self, party: Party, entry: &LogEntry, old: Option<usize>) -> Fate {
        if party == Party::Foreign {
            return Fate::ByForeigner;
        }
        // A condition that the server keeps, and that is sent with what must not be replaced.
        let is_named = entry.before.is_some() && entry.if_match == entry.before && entry.if_none_match.is_none();
        let Some(old) = old.filter(|_| !is_named) else { return Fate::Knowingly };
        let Some(look) = self.looks.get(&(party, entry.key.clone())).filter(|_| !self.conditions) else {
            return Fate::Unknowingly;
        };
        let window = entry.came.saturating_duration_since(look.at);
        self.longest_window = self.longest_window.max(window);
        let old = &self.versions[old];
        match look.etag.as_ref() == Some(&old.etag) {
            _ if window > WINDOW_MAX => Fate::Unknowingly,
            true => Fate::Knowingly,
            // Only somebody else may come between a mount's look and its write.
            false if old.by != party && old.place > look.place => Fate::InTheWindow,
            false => Fate::Unknowingly,
        }
    }

    /// A new version. `base` is the one that it replaced knowingly.
    fn add(&mut self, party: Party, place: u64, entry: &LogEntry, base: Option<usize>) {
        let records = parse(&entry.bytes().expect("the server keeps objects in memory"));
        let id = self.versions.len();
        // A copy carries whatever its source was.
        let base = base.filter(|_| party != Party::Foreign && entry.op != "CopyObject");
        let mut last = None;
        for (i, found) in records.iter().enumerate() {
            let tag = match found {
                Found::Of(tag) => *tag,
                Found::Zero => continue,
                Found::Broken => {
                    self.violations.push(format!("record {i} is of nobody or of another place: {entry:?}"));
                    break;
                }
            };
            let is_new = base.is_none_or(|base| self.versions[base].records.get(i) != Some(found));
            if base.is_some() && is_new && tag.party != party {
                self.violations.push(format!("record {i} is of {tag:?}, and neither written nor found: {entry:?}"));
                break;
            }
            if last.replace(tag) != Some(tag) {
                let carriers = self.carriers.entry(tag).or_default();
                if carriers.last() != Some(&id) {
                    carriers.push(id);
                }
            }
        }
        let (key, etag) = (entry.key.clone(), entry.after.clone().unwrap_or_default());
        self.current.insert(key.clone(), id);
        self.versions.push(Version { key, etag, by: party, place, records, fate: Fate::There });
    }

    /// What became of the version that first had an acknowledged write.
    fn end_of(&self, acknowledged: &Acknowledged) -> Option<Fate> {
        let carriers = self.carriers.get(&acknowledged.tag)?;
        let is_it = |version: &&Version| {
            let is_there = version.key == acknowledged.key || is_copy_of(&version.key, &acknowledged.key);
            is_there && version.by == acknowledged.tag.party
        };
        carriers.iter().map(|id| &self.versions[*id]).find(is_it).map(|version| version.fate)
    }

    /// Says what happened, and fails if anything was lost.
    pub(crate) fn conclude(&mut self, acknowledged: &[Acknowledged]) {
        assert!(self.is_complete(), "the log is not complete: {} entries wait", self.waiting.len());
        let mut report = String::new();
        for ((party, op), count) in &self.writes {
            writeln!(report, "{count:>7} {op} by {party:?}").unwrap();
        }
        let copies = self.versions.iter().filter(|v| v.key.contains(" (conflict ") && v.by != Party::Foreign).count();
        let lost = self.versions.iter().filter(|v| v.fate == Fate::InTheWindow).count();
        let unknowing = self.versions.iter().filter(|v| v.fate == Fate::Unknowingly).count();
        writeln!(report, "{:>7} refused with 412, {copies} conflict copies", self.refused).unwrap();
        writeln!(report, "{unknowing:>7} replaced unknowingly, {lost} within the window").unwrap();
        if !self.conditions {
            writeln!(report, "{:>7?} from a look to its write at most", self.longest_window).unwrap();
        }
        let mut ends: BTreeMap<Fate, u64> = BTreeMap::new();
        for one in acknowledged {
            match self.end_of(one) {
                Some(fate) => *ends.entry(fate).or_default() += 1,
                None => {
                    let others = acknowledged.iter().filter(|other| other.key == one.key);
                    let of =
                        |other: &Acknowledged| other.at.max(one.at).duration_since(other.at.min(one.at)).as_secs() < 3;
                    let others: Vec<_> = others.filter(|other| of(other)).collect();
                    let carriers = self
                        .carriers
                        .get(&one.tag)
                        .map(|ids| ids.iter().map(|id| &self.versions[*id]).collect::<Vec<_>>());
                    let around = self.around(one.at, &one.key);
                    self.violations.push(format!(
                        "acknowledged, and never in the bucket: {} {one:?}, carried by {carriers:?}, acknowledged around it: {others:?}\n{around}",
                        one.what
                    ));
                }
            }
        }
        println!("{report}{:>7} acknowledged versions, which ended so: {ends:?}", acknowledged.len());
        let told = &self.violations[..self.violations.len().min(TOLD_MAX)];
        assert!(told.is_empty(), "{} violations:\n{}", self.violations.len(), told.join("\n"));
        assert_eq!((unknowing, ends.get(&Fate::Unknowingly)), (0, None));
        assert!(!self.conditions || lost == 0);
        for party in Party::ALL {
            let writes: u64 = self.writes.iter().filter(|((by, _), _)| *by == party).map(|(_, count)| count).sum();
            assert!(writes > 20, "{party:?} hardly wrote anything");
        }
    }
}

/// Whether `copy` is `name (conflict HOST DATE).ext` of `key`.
fn is_copy_of(copy: &str, key: &str) -> bool {
    let (stem, extension) = key.rsplit_once('.').unwrap_or((key, ""));
    let rest = copy.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
    rest.is_some_and(|rest| rest.starts_with(" (conflict "))
}
