//! Which parts of a file an upload under way has. Pure.
//!
//! Owns: the state of each part, and that a part counts as sent only for the bytes that it was sent with.
//! Does not own: sending (`sending`), where parts lie (`plan`).
//!
//! Every part that is begun has a token. Whoever changes bytes of the part takes its state away, so that what comes back
//! under an old token says nothing any more.

use super::content::Content;
use super::plan::Layout;
use crate::store::Part;
use crate::types::ByteRange;
use std::collections::BTreeMap;

/// Parts that were sent in vain, because they were written to again, before a file is sent only at its close.
const REPLACED_MAX: u32 = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Under way, under this token.
    Begun(u64),
    /// The bucket has it.
    Sent(Part),
}

/// What there is to do about a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing: the bucket has it.
    Sent(Part),
    /// Somebody is about it.
    Wait,
    /// To send it, and to say so under this token.
    Begin(u64),
}

/// The parts of an upload.
#[derive(Debug)]
pub(super) struct Parts {
    layout: Layout,
    states: BTreeMap<u16, (ByteRange, State)>,
    tokens: u64,
    /// Requests under way for each number, those included whose bytes have changed since: which of two would come last is not known.
    in_flight: BTreeMap<u16, u32>,
    /// All parts below this number have a state.
    next: u16,
    replaced: u32,
}

impl Parts {
    pub(super) fn new(layout: Layout) -> Parts {
        Parts { layout, states: BTreeMap::new(), tokens: 0, in_flight: BTreeMap::new(), next: 1, replaced: 0 }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// What there is to do about the part with this number and range.
    pub(super) fn look(&mut self, number: u16, range: ByteRange) -> Look {
        match self.states.get(&number) {
            Some((known, State::Sent(part))) if *known == range => Look::Sent(part.clone()),
            Some((known, State::Begun(_))) if *known == range => Look::Wait,
            _ if self.in_flight.contains_key(&number) => Look::Wait,
            _ => Look::Begin(self.begin(number, range)),
        }
    }

    fn begin(&mut self, number: u16, range: ByteRange) -> u64 {
        self.tokens += 1;
        *self.in_flight.entry(number).or_default() += 1;
        self.states.insert(number, (range, State::Begun(self.tokens)));
        self.tokens
    }

    /// The next part of a file that is being written which is full and was not begun; it is now. `None` also for a file that is
    /// not written from one end to the other.
    pub(super) fn next_full(&mut self, content: &Content) -> Option<(u16, ByteRange, u64)> {
        if self.replaced > REPLACED_MAX {
            return None;
        }
        while self.states.contains_key(&self.next) {
            self.next += 1;
        }
        if self.in_flight.contains_key(&self.next) {
            return None;
        }
        let range = self.layout.range(self.next)?;
        content.is_written(range).then(|| (self.next, range, self.begin(self.next, range)))
    }

    /// Where the next part to be sent ends.
    pub(super) fn next_end(&self) -> u64 {
        if self.replaced > REPLACED_MAX {
            u64::MAX
        } else {
            self.layout.range(self.next).map_or(u64::MAX, ByteRange::end)
        }
    }

    /// The bucket has a part as it was when `token` was given.
    pub(super) fn on_sent(&mut self, number: u16, token: u64, part: &Part) {
        self.on_answered(number);
        if let Some((_, state)) = self.states.get_mut(&number)
            && *state == State::Begun(token)
        {
            *state = State::Sent(part.clone());
        }
    }

    /// A part could not be sent.
    pub(super) fn on_failed(&mut self, number: u16, token: u64) {
        self.on_answered(number);
        if self.states.get(&number).is_some_and(|(_, state)| *state == State::Begun(token)) {
            self.forget(number);
        }
    }

    fn on_answered(&mut self, number: u16) {
        match self.in_flight.get_mut(&number) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.in_flight.remove(&number)),
        }
    }

    /// Bytes of the file have changed: parts with any of them have to be sent again.
    pub(super) fn on_changed(&mut self, range: ByteRange) {
        // From the end: who appends meets none.
        let from = self.states.iter().rev().take_while(|(_, (part, _))| part.end() > range.start());
        let touched = from.filter(|(_, (part, _))| part.intersect(range).is_some()).map(|(number, _)| *number);
        let touched: Vec<u16> = touched.collect();
        self.replaced += u32::try_from(touched.len()).unwrap_or(u32::MAX);
        touched.into_iter().for_each(|number| self.forget(number));
    }

    /// The file was cut to `size`.
    pub(super) fn on_cut(&mut self, size: u64) {
        if let Some(rest) = ByteRange::new(size, u64::MAX) {
            self.on_changed(rest);
        }
    }

    fn forget(&mut self, number: u16) {
        self.states.remove(&number);
        self.next = self.next.min(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Capabilities;
    use crate::types::ETag;

    fn mib(a: u64, b: u64) -> ByteRange {
        ByteRange::new(a << 20, b << 20).unwrap()
    }

    fn part(number: u16) -> Part {
        Part { number, etag: ETag::parse("e"), size: None, crc: None }
    }

    #[test]
    fn what_was_written_to_again_is_sent_again() {
        let mut content = Content::new(None);
        let mut parts = Parts::new(Layout::growing(&Capabilities::default()));
        content.on_write(mib(0, 20));
        assert_eq!(parts.next_end(), 8 << 20);
        let (first, range, token) = parts.next_full(&content).unwrap();
        assert_eq!((first, range), (1, mib(0, 8)));
        let (second, _, second_token) = parts.next_full(&content).unwrap();
        assert_eq!(parts.next_full(&content), None, "the third is not full");
        parts.on_sent(second, second_token, &part(2));
        // Written to while it is under way: what comes back is of the bytes before, and nothing else is sent until then.
        parts.on_changed(mib(3, 4));
        assert_eq!((parts.look(1, mib(0, 8)), parts.next_full(&content)), (Look::Wait, None));
        parts.on_sent(first, token, &part(1));
        let Look::Begin(again) = parts.look(1, mib(0, 8)) else { panic!("counts as sent") };
        parts.on_sent(1, again, &part(1));
        assert_eq!(parts.look(1, mib(0, 8)), Look::Sent(part(1)));
        assert_eq!(parts.look(2, mib(8, 16)), Look::Sent(part(2)));
        assert!(matches!(parts.look(2, mib(8, 15)), Look::Begin(_)), "other bytes");
    }

    #[test]
    fn cut_and_failed_parts_count_for_nothing() {
        let mut content = Content::new(None);
        let mut parts = Parts::new(Layout::growing(&Capabilities::default()));
        content.on_write(mib(0, 24));
        let begun: Vec<_> = (0..3).map(|_| parts.next_full(&content).unwrap()).collect();
        for (n, _, token) in begun {
            if n == 2 { parts.on_failed(n, token) } else { parts.on_sent(n, token, &part(n)) }
        }
        assert_eq!(parts.next_full(&content).unwrap().0, 2);
        assert_eq!(parts.look(2, mib(8, 16)), Look::Wait);
        parts.on_cut(17 << 20);
        assert!(matches!(parts.look(3, mib(16, 24)), Look::Begin(_)));
        assert_eq!(parts.look(1, mib(0, 8)), Look::Sent(part(1)));
    }
}
