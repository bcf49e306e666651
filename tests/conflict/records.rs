//! Bytes that tell who wrote them: files of the races are made of records of 64 bytes.
//!
//! Owns: their layout. Does not own: who writes what where (`writers`), what follows from it (`ledger`).

/// Size of a record. Files are whole records, and so are all changes of them.
pub(crate) const RECORD: usize = 64;
/// Place of a record that may be anywhere: whoever appends does not know where the end is.
const ANYWHERE: u64 = u64::MAX;

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Party {
    /// The first mount.
    First,
    /// The second mount.
    Second,
    /// A client that sends no conditions.
    Foreign,
}

impl Party {
    pub(crate) const ALL: [Party; 3] = [Party::First, Party::Second, Party::Foreign];

    /// The region that it signs for, by which the server's log tells it from others.
    pub(crate) fn region(self) -> &'static str {
        ["us-east-1", "eu-west-1", "ap-south-1"][self as usize]
    }

    pub(crate) fn of_region(region: &str) -> Option<Party> {
        Party::ALL.into_iter().find(|party| party.region() == region)
    }
}

/// One write: no other carries the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag {
    pub(crate) party: Party,
    pub(crate) number: u64,
}

/// What a record is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nobody wrote it: a hole.
    Zero,
    /// One of this write.
    Of(Tag),
    /// Of this write, but at another place than it was written to, or nothing that anybody wrote.
    Broken,
}

impl Tag {
    /// `len` bytes of this write from `offset` on; `None` for the end of the file, wherever that is.
    pub(crate) fn bytes(self, offset: Option<usize>, len: usize) -> Vec<u8> {
        let mut record = [0x80; RECORD];
        record[..32].copy_from_slice(format!("<<{}{:029}", self.party as usize, self.number).as_bytes());
        record[32..40].copy_from_slice(&self.number.to_le_bytes());
        let mut bytes = record.repeat(len / RECORD);
        let first = offset.map(|offset| (offset / RECORD) as u64);
        for (i, record) in (0u64..).zip(bytes.chunks_exact_mut(RECORD)) {
            let place = first.map_or(ANYWHERE, |first| first + i);
            record[40..48].copy_from_slice(&place.to_le_bytes());
        }
        bytes
    }
}

/// The records of a file.
pub(crate) fn parse(bytes: &[u8]) -> Vec<Found> {
    let (records, rest) = bytes.as_chunks::<RECORD>();
    let mut found: Vec<Found> = (0u64..).zip(records).map(|(place, record)| parse_one(place, record)).collect();
    if !rest.is_empty() {
        found.push(Found::Broken);
    }
    found
}

fn parse_one(place: u64, record: &[u8; RECORD]) -> Found {
    let number = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
    if record[0] == 0 {
        return if record.iter().all(|byte| *byte == 0) { Found::Zero } else { Found::Broken };
    }
    let party = Party::ALL.get(usize::from(record[2].wrapping_sub(b'0')));
    let is_here = [place, ANYWHERE].contains(&number(40));
    match party {
        Some(party) if is_here && record[..2] == *b"<<" => Found::Of(Tag { party: *party, number: number(32) }),
        _ => Found::Broken,
    }
}

#[test]
fn records_are_found_where_they_were_written() {
    let (ours, theirs) = (Tag { party: Party::First, number: 7 }, Tag { party: Party::Foreign, number: 8 });
    let mut file = ours.bytes(Some(0), 3 * RECORD);
    assert_eq!(&file[..32], b"<<000000000000000000000000000007");
    file[RECORD..2 * RECORD].copy_from_slice(&theirs.bytes(Some(RECORD), RECORD));
    file.extend(theirs.bytes(None, RECORD));
    file.extend([0; RECORD]);
    let expected = [Found::Of(ours), Found::Of(theirs), Found::Of(ours), Found::Of(theirs), Found::Zero];
    assert_eq!(parse(&file), expected);
    assert_eq!(parse(&file[RECORD..])[..2], [Found::Broken, Found::Broken]);
    assert_eq!(parse(&file[..RECORD + 1]), [Found::Of(ours), Found::Broken]);
}
