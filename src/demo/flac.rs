//! A FLAC file (RFC 9639): a melody with tags.
//!
//! Owns: the metadata, frames with fixed predictor and Rice codes, both checksums, and the tune.
//! Does not own: packing of bits (`bits`).

use md5::{Digest, Md5};

use super::bits::BitWriter;

/// Samples per second.
const SAMPLE_RATE: u32 = 44_100;
/// Samples per frame, but for the last.
const FRAME_LEN: usize = 4096;
/// Bits per sample, one channel.
const SAMPLE_BITS: u32 = 16;
/// Order of the fixed predictor (RFC 9639, table 21).
const PREDICTOR_ORDER: usize = 2;
/// Largest parameter of a four-bit Rice code: 15 is the escape.
const RICE_PARAMETER_MAX: u32 = 14;
/// Samples of a quarter note.
const QUARTER: usize = SAMPLE_RATE as usize * 2 / 5;

const TAGS: [&str; 6] = [
    "TITLE=Ode to Joy",
    "ARTIST=Ludwig van Beethoven",
    "ALBUM=An die Freude – Свобода, 喜び, فرح",
    "TRACKNUMBER=1",
    "DATE=1824",
    "COMMENT=Two voices of an integer oscillator",
];

/// Pitches in hundredths of a hertz (equal temperament, A4 = 440 Hz).
const D3: u32 = 14_683;
const A3: u32 = 22_000;
const D4: u32 = 29_366;
const E4: u32 = 32_963;
const F4: u32 = 36_999;
const G4: u32 = 39_200;
const A4: u32 = 44_000;

/// The tune: pitch, and length in eighth notes.
const MELODY: [(u32, usize); 30] = [
    (F4, 2),
    (F4, 2),
    (G4, 2),
    (A4, 2),
    (A4, 2),
    (G4, 2),
    (F4, 2),
    (E4, 2),
    (D4, 2),
    (D4, 2),
    (E4, 2),
    (F4, 2),
    (F4, 3),
    (E4, 1),
    (E4, 4),
    (F4, 2),
    (F4, 2),
    (G4, 2),
    (A4, 2),
    (A4, 2),
    (G4, 2),
    (F4, 2),
    (E4, 2),
    (D4, 2),
    (D4, 2),
    (E4, 2),
    (F4, 2),
    (E4, 3),
    (D4, 1),
    (D4, 4),
];
/// The second voice, one note for each of the eight bars.
const BASS: [u32; 8] = [D3, A3, D3, A3, D3, A3, D3, D3];

/// The whole file.
pub(super) fn song() -> Vec<u8> {
    let samples = melody();
    let frames: Vec<Vec<u8>> =
        samples.chunks(FRAME_LEN).enumerate().map(|(index, samples)| frame(index as u32, samples)).collect();
    let mut file = b"fLaC".to_vec();
    push_metadata(&mut file, 0, false, &stream_info(&samples, &frames));
    push_metadata(&mut file, 4, true, &vorbis_comment());
    file.extend(frames.concat());
    file
}

/// A metadata block (8.1): last or not, type, 24 bits of length.
fn push_metadata(file: &mut Vec<u8>, kind: u8, last: bool, body: &[u8]) {
    file.push(u8::from(last) << 7 | kind);
    file.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    file.extend_from_slice(body);
}

/// STREAMINFO (8.2).
fn stream_info(samples: &[i16], frames: &[Vec<u8>]) -> Vec<u8> {
    let sizes = || frames.iter().map(|frame| frame.len() as u32);
    let mut bits = BitWriter::default();
    bits.put(FRAME_LEN as u32, 16);
    bits.put(FRAME_LEN as u32, 16);
    bits.put(sizes().min().unwrap_or(0), 24);
    bits.put(sizes().max().unwrap_or(0), 24);
    bits.put(SAMPLE_RATE, 20);
    bits.put(0, 3); // channels minus one
    bits.put(SAMPLE_BITS - 1, 5);
    bits.put(0, 4); // upper bits of the number of samples
    bits.put(samples.len() as u32, 32);
    let mut md5 = Md5::new();
    for sample in samples {
        md5.update(sample.to_le_bytes());
    }
    bits.put_bytes(&md5.finalize());
    bits.into_bytes()
}

/// VORBIS_COMMENT (8.6): little-endian, unlike all else in the file.
fn vorbis_comment() -> Vec<u8> {
    let vendor = concat!("objfs ", env!("CARGO_PKG_VERSION"));
    let mut body = Vec::new();
    push_string(&mut body, vendor);
    body.extend_from_slice(&(TAGS.len() as u32).to_le_bytes());
    for tag in TAGS {
        push_string(&mut body, tag);
    }
    body
}

fn push_string(body: &mut Vec<u8>, string: &str) {
    body.extend_from_slice(&(string.len() as u32).to_le_bytes());
    body.extend_from_slice(string.as_bytes());
}

/// One frame (9): header with CRC-8, one subframe, CRC-16.
fn frame(index: u32, samples: &[i16]) -> Vec<u8> {
    let full = samples.len() == FRAME_LEN;
    let mut bits = BitWriter::default();
    bits.put(0b11_1111_1111_1110, 14); // sync code
    bits.put(0, 2); // reserved, fixed block size
    bits.put(if full { 0b1100 } else { 0b0111 }, 4); // 4096, or 16 bits at the end of the header
    bits.put(0b1001, 4); // 44.1 kHz
    bits.put(0, 4); // one channel
    bits.put(0b100, 3); // 16 bits per sample
    bits.put(0, 1); // reserved
    put_coded_number(&mut bits, index);
    if !full {
        bits.put(samples.len() as u32 - 1, 16);
    }
    let check = crc8(bits.bytes());
    bits.put(u32::from(check), 8);
    put_subframe(&mut bits, samples);
    bits.align();
    let check = crc16(bits.bytes());
    bits.put(u32::from(check), 16);
    bits.into_bytes()
}

/// The frame's number (9.1.5), coded like a character in UTF-8. The tune has less than 2,048 frames.
fn put_coded_number(bits: &mut BitWriter, number: u32) {
    debug_assert!(number < 0x800);
    if number < 0x80 {
        bits.put(number, 8);
    } else {
        bits.put(0b110, 3);
        bits.put(number >> 6, 5);
        bits.put(0b10, 2);
        bits.put(number & 0x3f, 6);
    }
}

/// A subframe (9.2) with the fixed predictor, or verbatim where that is shorter.
fn put_subframe(bits: &mut BitWriter, samples: &[i16]) {
    let verbatim_len = samples.len() as u64 * u64::from(SAMPLE_BITS);
    let coded = residuals(samples);
    let (parameter, coded_len) = rice_parameter(&coded);
    let predicted = samples.len() > PREDICTOR_ORDER && coded_len < verbatim_len;
    bits.put(if predicted { 0b001_000 | PREDICTOR_ORDER as u32 } else { 0b000_001 } << 1, 8);
    let raw = if predicted { &samples[..PREDICTOR_ORDER] } else { samples };
    for &sample in raw {
        bits.put(u32::from(sample as u16), SAMPLE_BITS);
    }
    if predicted {
        bits.put(0, 2 + 4); // four-bit Rice parameters, one partition
        bits.put(parameter, 4);
        for value in coded {
            bits.put_unary(value >> parameter);
            bits.put(value, parameter);
        }
    }
}

/// What the predictor of order 2 leaves over, folded so that the sign is in the lowest bit.
fn residuals(samples: &[i16]) -> Vec<u32> {
    samples
        .windows(PREDICTOR_ORDER + 1)
        .map(|window| i32::from(window[2]) - 2 * i32::from(window[1]) + i32::from(window[0]))
        .map(|residual| ((residual << 1) ^ (residual >> 31)) as u32)
        .collect()
}

/// The parameter that gives the shortest code, and the code's length in bits.
fn rice_parameter(coded: &[u32]) -> (u32, u64) {
    let len = |parameter: u32| -> u64 {
        coded.iter().map(|value| u64::from(value >> parameter) + 1 + u64::from(parameter)).sum()
    };
    (0..=RICE_PARAMETER_MAX).map(|parameter| (parameter, len(parameter))).min_by_key(|&(_, len)| len).unwrap_or((0, 0))
}

/// The samples of the tune, in integers only, so that every machine makes the same ones.
fn melody() -> Vec<i16> {
    let mut samples = Vec::new();
    for (pitch, eighths) in MELODY {
        let len = QUARTER * eighths / 2;
        samples.extend((0..len).map(|at| tone(pitch, at, len) / 2));
    }
    let bar = QUARTER * 4;
    for (at, sample) in samples.iter_mut().enumerate() {
        *sample += tone(BASS[at / bar % BASS.len()], at % bar, bar) / 3;
    }
    samples
}

/// Sample `at` of a note that is `len` samples long: 8 ms to rise, then a slow decay to silence.
fn tone(pitch: u32, at: usize, len: usize) -> i16 {
    const RISE: i64 = SAMPLE_RATE as i64 / 125;
    let phase = (at as u64 * u64::from(pitch) * (1 << 16) / (100 * u64::from(SAMPLE_RATE))) as u16;
    let (at, len) = (at as i64, len as i64);
    let level = (at.min(RISE) * 1024 / RISE) * (len - at) / len;
    let overtone = i64::from(wave(phase.wrapping_mul(2))) / 4;
    ((i64::from(wave(phase)) + overtone) * level / 1024 * 3 / 4) as i16
}

/// A sine made of two parabolas; a turn is 65,536.
fn wave(phase: u16) -> i16 {
    let half = i64::from(phase & 0x7fff);
    let height = ((half * (0x8000 - half)) >> 13) * 32_000 / 0x8000;
    (if phase < 0x8000 { height } else { -height }) as i16
}

/// CRC-8 with polynomial 0x07 (9.1.8).
fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x07 })
    })
}

/// CRC-16 with polynomial 0x8005 (9.3).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc: u16, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x8005 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_have_the_known_answers() {
        assert_eq!(crc8(b"123456789"), 0xf4);
        assert_eq!(crc16(b"123456789"), 0xfee8);
        assert_eq!((crc8(b""), crc16(b"")), (0, 0));
    }

    #[test]
    fn metadata_says_what_follows() {
        let file = song();
        assert_eq!(&file[..8], b"fLaC\x00\x00\x00\x22");
        let info = &file[8..42];
        let count = u32::from_be_bytes(info[14..18].try_into().unwrap()) as usize;
        assert_eq!(count, melody().len());
        assert_eq!(file[42], 0x84, "the tags are the last metadata");
        let len = u32::from_be_bytes([0, file[43], file[44], file[45]]) as usize;
        assert_eq!(file[46 + len..][..2], [0xff, 0xf8], "a frame follows the tags");
    }

    #[test]
    fn every_frame_ends_with_its_checksum() {
        for (index, samples) in melody().chunks(FRAME_LEN).enumerate() {
            // The remainder of a message with its CRC appended is zero.
            assert_eq!(crc16(&frame(index as u32, samples)), 0, "frame {index}");
        }
    }

    #[test]
    fn noise_is_stored_verbatim() {
        let noise: Vec<i16> = (0..64).map(|index| if index % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let mut bits = BitWriter::default();
        put_subframe(&mut bits, &noise);
        let bytes = bits.into_bytes();
        assert_eq!(bytes[0], 0b10);
        assert_eq!(bytes.len(), 1 + 2 * noise.len());
    }

    #[test]
    fn silence_has_the_shortest_code() {
        assert_eq!(rice_parameter(&residuals(&[7; 10])), (0, 8));
    }

    #[test]
    fn long_frame_numbers_take_two_bytes() {
        let mut bits = BitWriter::default();
        put_coded_number(&mut bits, 0x7f);
        put_coded_number(&mut bits, 0x80);
        assert_eq!(bits.into_bytes(), [0x7f, 0xc2, 0x80]);
    }

    #[test]
    fn melody_is_eight_bars_and_uses_its_range() {
        let samples = melody();
        assert_eq!(samples.len(), 8 * 4 * QUARTER);
        let loudest = samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
        assert!((10_000..32_000).contains(&loudest), "{loudest}");
    }
}
