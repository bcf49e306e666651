//! An MP4 file (ISO/IEC 14496-12 and -15) with one H.264 track.
//!
//! Owns: the boxes and their numbers: durations, sample sizes, the offset of the data.
//! Does not own: the pictures (`h264`).

use super::h264;

/// Pictures per second.
const FRAME_RATE: u32 = 25;
/// Pictures in all: two seconds.
const FRAME_COUNT: u32 = 50;
/// Units of time per second in the headers (a multiple of the frame rate).
const TIMESCALE: u32 = 12_800;
/// Units of time per picture.
const FRAME_DURATION: u32 = TIMESCALE / FRAME_RATE;
/// Length of a box's size and type.
const BOX_HEADER_LEN: usize = 8;
/// The unity matrix of movie and track headers (14496-12, 8.2.2), in 16.16 and 2.30 fixed point.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// The whole file. `moov` precedes `mdat`, so a player can start before it has all of it.
pub(super) fn movie() -> Vec<u8> {
    let samples: Vec<Vec<u8>> = (0..FRAME_COUNT as usize).map(|index| sample(&h264::picture(index))).collect();
    let sizes: Vec<u32> = samples.iter().map(|sample| sample.len() as u32).collect();
    let file_type = boxed(b"ftyp", &[b"isom", &0x200u32.to_be_bytes(), b"isom", b"iso2", b"avc1", b"mp41"]);
    // The length of `moov` does not depend on the offset that is written in it.
    let data_offset = file_type.len() + moov(&sizes, 0).len() + BOX_HEADER_LEN;
    let media_data = boxed(b"mdat", &samples.iter().map(Vec::as_slice).collect::<Vec<_>>());
    [file_type, moov(&sizes, data_offset as u32), media_data].concat()
}

/// A sample as 14496-15 wants it: the NAL unit after its length.
fn sample(unit: &[u8]) -> Vec<u8> {
    [&(unit.len() as u32).to_be_bytes(), unit].concat()
}

fn moov(sizes: &[u32], data_offset: u32) -> Vec<u8> {
    boxed(b"moov", &[&mvhd(), &trak(sizes, data_offset)])
}

fn mvhd() -> Vec<u8> {
    let duration = FRAME_COUNT * FRAME_DURATION;
    // Creation and modification time, timescale, duration, rate 1.0, volume 1.0 and ten reserved bytes.
    let head = numbers(&[0, 0, TIMESCALE, duration, 0x1_0000, 0x0100_0000, 0, 0]);
    // Six predefined zeros, then the number of the next track.
    full_box(b"mvhd", 0, &[&head, &numbers(&MATRIX), &numbers(&[0, 0, 0, 0, 0, 0, 2])])
}

fn trak(sizes: &[u32], data_offset: u32) -> Vec<u8> {
    let minf = boxed(b"minf", &[&full_box(b"vmhd", 1, &[&[0; 8]]), &dinf(), &stbl(sizes, data_offset)]);
    boxed(b"trak", &[&tkhd(), &boxed(b"mdia", &[&mdhd(), &hdlr(), &minf])])
}

fn tkhd() -> Vec<u8> {
    let duration = FRAME_COUNT * FRAME_DURATION;
    // Creation and modification time, track 1, reserved, duration, two reserved, layer, group, volume, reserved.
    let head = numbers(&[0, 0, 1, 0, duration, 0, 0, 0, 0]);
    let size = numbers(&[(h264::WIDTH as u32) << 16, (h264::HEIGHT as u32) << 16]);
    // Flags: enabled, in movie, in preview.
    full_box(b"tkhd", 7, &[&head, &numbers(&MATRIX), &size])
}

fn mdhd() -> Vec<u8> {
    // "und" as three times five bits.
    let language = 0x55c4u32 << 16;
    full_box(b"mdhd", 0, &[&numbers(&[0, 0, TIMESCALE, FRAME_COUNT * FRAME_DURATION, language])])
}

fn hdlr() -> Vec<u8> {
    full_box(b"hdlr", 0, &[&[0; 4], b"vide", &[0; 12], b"VideoHandler\0"])
}

fn dinf() -> Vec<u8> {
    // Flag 1: the media is in this file.
    boxed(b"dinf", &[&full_box(b"dref", 0, &[&numbers(&[1]), &full_box(b"url ", 1, &[])])])
}

/// The tables: all samples lie one after the other from `data_offset` on.
fn stbl(sizes: &[u32], data_offset: u32) -> Vec<u8> {
    let count = sizes.len() as u32;
    let sync: Vec<u32> = (1..=count).collect();
    boxed(
        b"stbl",
        &[
            &full_box(b"stsd", 0, &[&numbers(&[1]), &avc1()]),
            &full_box(b"stts", 0, &[&numbers(&[1, count, FRAME_DURATION])]),
            &full_box(b"stss", 0, &[&numbers(&[count]), &numbers(&sync)]),
            &full_box(b"stsc", 0, &[&numbers(&[1, 1, count, 1])]),
            &full_box(b"stsz", 0, &[&numbers(&[0, count]), &numbers(sizes)]),
            &full_box(b"stco", 0, &[&numbers(&[1, data_offset])]),
        ],
    )
}

/// VisualSampleEntry (14496-12, 12.1.3) with the decoder configuration.
fn avc1() -> Vec<u8> {
    let size = [h264::WIDTH as u16, h264::HEIGHT as u16].map(u16::to_be_bytes).concat();
    boxed(
        b"avc1",
        &[
            &[0, 0, 0, 0, 0, 0, 0, 1], // reserved, data_reference_index
            &[0; 16],                  // predefined and reserved
            &size,
            &numbers(&[0x48_0000, 0x48_0000, 0]), // 72 dpi, reserved
            &[0, 1],                              // one picture per sample
            &[0; 32],                             // compressorname
            &[0, 24, 0xff, 0xff],                 // depth, predefined
            &avcc(),
        ],
    )
}

/// AVCDecoderConfigurationRecord (14496-15, 5.3.3.1): four-byte lengths, one SPS, one PPS.
fn avcc() -> Vec<u8> {
    let (sps, pps) = (h264::sequence_parameter_set(), h264::picture_parameter_set());
    boxed(
        b"avcC",
        &[
            &[1, h264::PROFILE_BASELINE, h264::CONSTRAINTS, h264::LEVEL, 0xff, 0xe1],
            &(sps.len() as u16).to_be_bytes(),
            &sps,
            &[1],
            &(pps.len() as u16).to_be_bytes(),
            &pps,
        ],
    )
}

fn numbers(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A box of version 0 with `flags`.
fn full_box(kind: &[u8; 4], flags: u32, parts: &[&[u8]]) -> Vec<u8> {
    boxed(kind, &[&flags.to_be_bytes(), &parts.concat()])
}

fn boxed(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(BOX_HEADER_LEN + len);
    bytes.extend_from_slice(&((BOX_HEADER_LEN + len) as u32).to_be_bytes());
    bytes.extend_from_slice(kind);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINERS: [&[u8; 4]; 7] = [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts"];

    fn number(bytes: &[u8], at: usize) -> usize {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    /// Type, start and length of the payload of each box, containers before what they hold; panics where sizes do not
    /// add up.
    fn walk(file: &[u8], mut at: usize, end: usize, found: &mut Vec<([u8; 4], usize, usize)>) {
        while at < end {
            let size = number(file, at);
            assert!(size >= BOX_HEADER_LEN && at + size <= end, "box at {at} has size {size}, {end} ends its parent");
            let kind: [u8; 4] = file[at + 4..at + 8].try_into().unwrap();
            found.push((kind, at + 8, size - 8));
            if CONTAINERS.contains(&&kind) {
                walk(file, at + 8, at + size, found);
            }
            at += size;
        }
        assert_eq!(at, end);
    }

    fn payload<'a>(file: &'a [u8], kind: &[u8; 4]) -> (usize, &'a [u8]) {
        let mut found = Vec::new();
        walk(file, 0, file.len(), &mut found);
        let (_, at, len) = *found.iter().find(|(found, ..)| found == kind).unwrap();
        (at, &file[at..at + len])
    }

    #[test]
    fn boxes_nest_without_gap_and_moov_comes_first() {
        let file = movie();
        let mut found = Vec::new();
        walk(&file, 0, file.len(), &mut found);
        let kinds: Vec<&str> = found.iter().map(|(kind, ..)| std::str::from_utf8(kind).unwrap()).collect();
        assert_eq!(
            kinds,
            [
                "ftyp", "moov", "mvhd", "trak", "tkhd", "mdia", "mdhd", "hdlr", "minf", "vmhd", "dinf", "dref", "stbl",
                "stsd", "stts", "stss", "stsc", "stsz", "stco", "mdat"
            ]
        );
    }

    #[test]
    fn fixed_boxes_have_the_lengths_of_the_standard() {
        let file = movie();
        assert_eq!(payload(&file, b"mvhd").1.len(), 100);
        assert_eq!(payload(&file, b"tkhd").1.len(), 84);
        assert_eq!(payload(&file, b"mdhd").1.len(), 24);
        assert_eq!(payload(&file, b"vmhd").1.len(), 12);
    }

    #[test]
    fn sample_table_covers_the_media_data_exactly() {
        let file = movie();
        let (data_start, data) = payload(&file, b"mdat");
        assert_eq!(number(payload(&file, b"stco").1, 8), data_start);
        let sizes = payload(&file, b"stsz").1;
        let count = number(sizes, 8);
        assert_eq!(count, FRAME_COUNT as usize);
        let mut at = 0;
        for index in 0..count {
            let size = number(sizes, 12 + index * 4);
            assert_eq!(number(data, at) + 4, size, "length before the NAL unit of sample {index}");
            assert_eq!(data[at + 4] & 0x1f, 5, "sample {index} is an IDR slice");
            at += size;
        }
        assert_eq!(at, data.len());
    }

    #[test]
    fn frame_duration_divides_the_timescale() {
        assert_eq!(FRAME_DURATION * FRAME_RATE, TIMESCALE);
    }
}
