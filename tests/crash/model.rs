//! What may be there after a crash.
//!
//! Owns: for each name, the state that was acknowledged last and those that were begun since; telling what is wrong
//! with what was found. Does not own: doing it (`work`), reading it (`world`).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The bytes of a file.
pub(crate) type Content = Arc<Vec<u8>>;
/// The bytes under a name, or that there is nothing.
pub(crate) type State = Option<Content>;
/// All files, by their paths.
pub(crate) type Files = BTreeMap<String, Content>;

/// A rename that was begun and not acknowledged.
#[derive(Debug, Clone)]
struct Renaming {
    from: String,
    to: String,
    content: Content,
}

/// What one worker did, and what must come of it. All that is under a name is one of its states, whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// The state that was acknowledged last, and behind it those that were begun since, in order.
    states: BTreeMap<String, Vec<State>>,
    renaming: Option<Renaming>,
    acknowledged: u64,
}

impl Expected {
    /// This is there, beyond doubt.
    pub(crate) fn know(&mut self, name: &str, state: State) {
        self.states.insert(name.to_owned(), vec![state]);
    }

    /// What whoever looks sees now, if nothing has crashed.
    pub(crate) fn now(&self, name: &str) -> State {
        self.states.get(name).and_then(|states| states.last().cloned()).flatten()
    }

    /// Something was begun that makes `state` of `name`.
    pub(crate) fn begin(&mut self, name: &str, state: State) {
        self.states.entry(name.to_owned()).or_insert_with(|| vec![None]).push(state);
    }

    /// What was begun last was acknowledged: nothing from before may come back.
    pub(crate) fn acknowledge(&mut self, name: &str) {
        self.only_the_last(name);
        self.acknowledged += 1;
    }

    /// A rename was begun.
    pub(crate) fn begin_rename(&mut self, from: &str, to: &str) {
        let Some(content) = self.now(from) else { return };
        self.begin(from, None);
        self.begin(to, Some(Arc::clone(&content)));
        self.renaming = Some(Renaming { from: from.to_owned(), to: to.to_owned(), content });
    }

    /// It was acknowledged.
    pub(crate) fn acknowledge_rename(&mut self) {
        if let Some(renaming) = self.renaming.take() {
            self.only_the_last(&renaming.from);
            self.only_the_last(&renaming.to);
            self.acknowledged += 1;
        }
    }

    fn only_the_last(&mut self, name: &str) {
        if let Some(states) = self.states.get_mut(name) {
            states.drain(..states.len() - 1);
        }
    }

    /// How many operations were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// What was found counts from now on.
    pub(crate) fn adopt(&mut self, found: &Files) {
        for (name, states) in &mut self.states {
            *states = vec![found.get(name).cloned()];
        }
        self.renaming = None;
    }

    /// What is wrong with what was found under names of which there is no doubt.
    pub(crate) fn check_certain(&self, found: &Files) -> Vec<String> {
        let certain = self.states.iter().filter(|(_, states)| states.len() == 1);
        certain.filter_map(|(name, states)| wrong(name, states, found.get(name))).collect()
    }

    /// What is wrong with what was found.
    pub(crate) fn check(&self, found: &Files) -> Vec<String> {
        let each = self.states.iter().filter_map(|(name, states)| wrong(name, states, found.get(name)));
        let mut faults: Vec<String> = each.collect();
        if let Some(Renaming { from, to, content }) = &self.renaming
            && !found.contains_key(from)
            && found.get(to) != Some(content)
        {
            let (content, there) = (describe(Some(content)), describe(found.get(to)));
            faults.push(format!("LOST: {from} was being renamed to {to}: {content} has neither name, {to} is {there}"));
        }
        faults
    }
}

/// How a fault begins that is a name which nobody made.
pub(crate) const STRANGER: &str = "STRANGER: ";

/// Names that nobody of `all` ever made.
pub(crate) fn strangers(all: &[Expected], found: &Files) -> Vec<String> {
    let is_known = |name: &String| all.iter().any(|expected| expected.states.contains_key(name));
    let strangers = found.iter().filter(|(name, _)| !is_known(name));
    strangers.map(|(name, content)| format!("{STRANGER}{name}: {}", describe(Some(content)))).collect()
}

fn wrong(name: &str, states: &[State], found: Option<&Content>) -> Option<String> {
    if states.iter().any(|state| state.as_ref() == found) {
        return None;
    }
    let may_be: Vec<String> = states.iter().map(|state| describe(state.as_ref())).collect();
    let what = match found {
        None => "LOST",
        Some(found) if states.iter().flatten().any(|state| is_part_of(found, state)) => "MIXED",
        Some(_) => "WRONG",
    };
    let parted = found.zip(states.last().and_then(Option::as_ref)).map(|(found, last)| first_difference(found, last));
    let parted = parted.map_or_else(String::new, |at| format!(", unlike the last of them from byte {at} on"));
    Some(format!("{what}: {name} is {}, may be: {}{parted}", describe(found), may_be.join(", then ")))
}

/// Whether some of the bytes are those of a state at the same place.
fn is_part_of(found: &[u8], state: &[u8]) -> bool {
    const PIECE: usize = 64;
    found.chunks_exact(PIECE).zip(state.chunks_exact(PIECE)).any(|(a, b)| a == b)
}

fn first_difference(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).position(|(a, b)| a != b).unwrap_or_else(|| a.len().min(b.len()))
}

fn describe(state: Option<&Content>) -> String {
    let Some(content) = state else { return "nothing".to_owned() };
    let mut hash = DefaultHasher::new();
    content.hash(&mut hash);
    format!("{} bytes #{:08x}", content.len(), hash.finish() & 0xffff_ffff)
}

/// Bytes that look like nothing else, the same for the same dice.
pub(crate) fn noise(dice: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    dice.fill(&mut bytes);
    bytes
}

#[test]
fn the_model_knows_a_loss() {
    let content = |text: &str| Some(Arc::new(text.as_bytes().to_vec()));
    let files = |list: &[(&str, &str)]| -> Files {
        list.iter().map(|(name, text)| ((*name).to_owned(), Arc::new(text.as_bytes().to_vec()))).collect()
    };
    let mut expected = Expected::default();
    expected.know("a", content("old"));
    expected.begin("a", content("new"));
    assert!(expected.check(&files(&[("a", "old")])).is_empty() && expected.check(&files(&[("a", "new")])).is_empty());
    assert_eq!((expected.check(&files(&[("a", "nld")])).len(), expected.check(&files(&[])).len()), (1, 1));
    expected.acknowledge("a");
    assert_eq!(expected.check(&files(&[("a", "old")])).len(), 1);
    expected.begin_rename("a", "b");
    let halves = [files(&[("a", "new")]), files(&[("a", "new"), ("b", "new")]), files(&[("b", "new")])];
    assert!(halves.iter().all(|found| expected.check(found).is_empty()));
    assert_eq!(expected.check(&files(&[])).len(), 1);
    expected.acknowledge_rename();
    assert_eq!(expected.check(&halves[0]).len(), 2);
    assert_eq!(strangers(&[expected], &files(&[("c", "?")])).len(), 1);
}
