//! Multipart uploads of the in-memory store.
//!
//! Owns: parts of an upload and S3's checks of them (InvalidPart, InvalidPartOrder, EntityTooSmall).
//! Does not own: conditions of the completion.

use super::super::{Capabilities, ErrorKind, ObjectHeaders, Op, Part, Result, StoreError, Upload};
use super::{Object, etag_of, hex, now, refuse};
use crate::types::{ETag, Key, Timestamp};
use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use std::collections::BTreeMap;

/// An upload that is neither completed nor aborted.
pub(super) struct Pending {
    key: Key,
    headers: ObjectHeaders,
    initiated: Timestamp,
    parts: BTreeMap<u16, (ETag, Bytes)>,
}

/// Why parts cannot become an object: S3's code, and what it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PartError(ErrorKind, &'static str, &'static str);

impl PartError {
    const INVALID_PART: PartError =
        PartError(ErrorKind::Invalid, "InvalidPart", "a part was not uploaded, or has another ETag");
    const ORDER: PartError = PartError(ErrorKind::Invalid, "InvalidPartOrder", "the parts are not in ascending order");
    const TOO_SMALL: PartError =
        PartError(ErrorKind::Invalid, "EntityTooSmall", "a part that is not the last is below the minimum size");
    const TOO_LARGE: PartError =
        PartError(ErrorKind::TooLarge, "EntityTooLarge", "a part or the object exceeds the maximum size");
    const UNEQUAL: PartError =
        PartError(ErrorKind::Invalid, "InvalidPart", "all parts but the last must have the same size");
    const NUMBER: PartError = PartError(ErrorKind::Invalid, "InvalidArgument", "the part number is out of range");
    const EMPTY: PartError = PartError(ErrorKind::Invalid, "MalformedXML", "there is no part");

    /// The same as the failure of a request.
    pub(super) fn at(self, op: Op, key: &Key) -> StoreError {
        StoreError { code: Some(self.1.to_owned()), ..StoreError::new(self.0, op, Some(key), self.2) }
    }
}

impl Pending {
    pub(super) fn new(key: &Key, headers: &ObjectHeaders) -> Pending {
        Pending { key: key.clone(), headers: headers.clone(), initiated: now(), parts: BTreeMap::new() }
    }

    /// Takes a part; one of the same number is replaced.
    pub(super) fn add(&mut self, limits: &Capabilities, number: u16, body: Bytes) -> Result<Part, PartError> {
        if number == 0 || number > limits.part_count_max {
            return Err(PartError::NUMBER);
        }
        if body.len() as u64 > limits.part_size_max {
            return Err(PartError::TOO_LARGE);
        }
        let etag = etag_of(&body);
        let size = Some(body.len() as u64);
        self.parts.insert(number, (etag.clone(), body));
        Ok(Part { number, etag, size, crc: None })
    }

    /// The object that these parts make.
    pub(super) fn assemble(&self, limits: &Capabilities, parts: &[Part]) -> Result<Object, PartError> {
        let first = parts.first().ok_or(PartError::EMPTY)?;
        if parts.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err(PartError::ORDER);
        }
        let first_len = self.parts.get(&first.number).map_or(0, |(_, body)| body.len());
        let mut body = BytesMut::new();
        let mut digests = Md5::new();
        for (index, part) in parts.iter().enumerate() {
            let (etag, piece) = self.parts.get(&part.number).ok_or(PartError::INVALID_PART)?;
            if *etag != part.etag {
                return Err(PartError::INVALID_PART);
            }
            let last = index + 1 == parts.len();
            if !last && (piece.len() as u64) < limits.part_size_min {
                return Err(PartError::TOO_SMALL);
            }
            if limits.parts_equal && (if last { piece.len() > first_len } else { piece.len() != first_len }) {
                return Err(PartError::UNEQUAL);
            }
            digests.update(Md5::digest(piece));
            body.extend_from_slice(piece);
        }
        if body.len() as u64 > limits.object_size_max {
            return Err(PartError::TOO_LARGE);
        }
        let etag = ETag::parse(&format!("{}-{}", hex(&digests.finalize()), parts.len()));
        Ok(Object::new(body.freeze(), etag, self.headers.clone()))
    }

    /// The parts so far, in order.
    pub(super) fn parts(&self) -> Vec<Part> {
        let part = |(number, (etag, body)): (&u16, &(ETag, Bytes))| Part {
            number: *number,
            etag: etag.clone(),
            size: Some(body.len() as u64),
            crc: None,
        };
        self.parts.iter().map(part).collect()
    }
}

/// The upload of this id and key.
pub(super) fn find<'a>(uploads: &'a mut BTreeMap<String, Pending>, upload: &Upload, op: Op) -> Result<&'a mut Pending> {
    uploads
        .get_mut(&upload.id)
        .filter(|pending| pending.key == upload.key)
        .ok_or_else(|| refuse(ErrorKind::NoSuchUpload, op, Some(&upload.key)))
}

/// Uploads under a prefix, in order of key, then of start.
pub(super) fn list(uploads: &BTreeMap<String, Pending>, prefix: &Key) -> Vec<Upload> {
    let mut found: Vec<Upload> = uploads
        .iter()
        .filter(|(_, pending)| pending.key.as_str().starts_with(prefix.as_str()))
        .map(|(id, pending)| Upload { key: pending.key.clone(), id: id.clone(), initiated: Some(pending.initiated) })
        .collect();
    found.sort_by(|a, b| (&a.key, a.initiated, &a.id).cmp(&(&b.key, b.initiated, &b.id)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Capabilities {
        Capabilities { part_size_min: 4, part_count_max: 3, ..Capabilities::default() }
    }

    fn pending(bodies: &[&'static str]) -> (Pending, Vec<Part>) {
        let mut pending = Pending::new(&Key::parse("k").unwrap(), &ObjectHeaders::default());
        let add = |(i, body): (usize, &&'static str)| {
            pending.add(&limits(), i as u16 + 1, Bytes::from_static(body.as_bytes())).unwrap()
        };
        let parts = bodies.iter().enumerate().map(add).collect();
        (pending, parts)
    }

    #[test]
    fn parts_become_an_object() {
        let (pending, parts) = pending(&["aaaa", "b"]);
        let object = pending.assemble(&limits(), &parts).ok().unwrap();
        assert_eq!(object.body, "aaaab");
        assert!(object.etag.bare().ends_with("-2"));
    }

    #[test]
    fn parts_are_checked_as_s3_does() {
        let (mut p, parts) = pending(&["aaaa", "bbbbb", "c"]);
        let why = |p: &Pending, limits: &Capabilities, parts: &[Part]| p.assemble(limits, parts).err().unwrap();
        assert_eq!(why(&p, &limits(), &[]), PartError::EMPTY);
        assert_eq!(why(&p, &limits(), &[parts[1].clone(), parts[0].clone()]), PartError::ORDER);
        assert_eq!(why(&p, &Capabilities { parts_equal: true, ..limits() }, &parts), PartError::UNEQUAL);
        let forged = Part { etag: ETag::parse("x"), ..parts[0].clone() };
        assert_eq!(why(&p, &limits(), &[forged]), PartError::INVALID_PART);
        assert_eq!(p.add(&limits(), 4, Bytes::new()), Err(PartError::NUMBER));
        let small = p.add(&limits(), 1, Bytes::from_static(b"a")).unwrap();
        assert_eq!(why(&p, &limits(), &[small, parts[1].clone()]), PartError::TOO_SMALL);
    }
}
