//! The smallest H.264 encoder: Baseline profile, every picture an IDR picture, every macroblock I_PCM.
//!
//! Owns: the sequence and picture parameter sets, the slices, and the moving test pattern that they show.
//! Does not own: the MP4 file around them (`mp4`).
//!
//! Section numbers are those of Rec. ITU-T H.264.

use super::bits::BitWriter;

/// Width of the picture in pixels: a multiple of 16, so that no cropping is needed.
pub(super) const WIDTH: usize = 128;
/// Height of the picture in pixels: a multiple of 16.
pub(super) const HEIGHT: usize = 96;
/// Side of a macroblock in pixels.
const MACROBLOCK: usize = 16;
/// profile_idc of Baseline (A.2.1).
pub(super) const PROFILE_BASELINE: u8 = 66;
/// constraint_set0_flag and constraint_set1_flag: also decodable by Main profile decoders.
pub(super) const CONSTRAINTS: u8 = 0b1100_0000;
/// level_idc 3.0: 3.7 Mbit/s of raw samples are too many for the levels below 2.1.
pub(super) const LEVEL: u8 = 30;

/// mb_type of I_PCM in an I slice (table 7-11).
const MB_I_PCM: u16 = 25;
/// slice_type: all slices of the picture are I slices (table 7-6).
const SLICE_ALL_I: u16 = 7;
/// nal_ref_idc 3 and nal_unit_type 5, 7 and 8 (table 7-1).
const NAL_IDR: u8 = 0x65;
const NAL_SPS: u8 = 0x67;
const NAL_PPS: u8 = 0x68;

/// Y, Cb, Cr of the bars, in BT.601's limited range: white, yellow, cyan, green, magenta, red, blue, black.
const BARS: [[u8; 3]; 8] = [
    [235, 128, 128],
    [210, 16, 146],
    [170, 166, 16],
    [145, 54, 34],
    [106, 202, 222],
    [81, 90, 240],
    [41, 240, 110],
    [16, 128, 128],
];
/// Side of the square that bounces over the bars.
const SQUARE: usize = 24;

/// The sequence parameter set (7.3.2.1.1) as a NAL unit without start code.
pub(super) fn sequence_parameter_set() -> Vec<u8> {
    let mut bits = BitWriter::default();
    bits.put_bytes(&[PROFILE_BASELINE, CONSTRAINTS, LEVEL]);
    bits.put_ue(0); // seq_parameter_set_id
    bits.put_ue(0); // log2_max_frame_num_minus4
    bits.put_ue(2); // pic_order_cnt_type: output order is decoding order
    bits.put_ue(1); // max_num_ref_frames
    bits.put(0, 1); // gaps_in_frame_num_value_allowed_flag
    bits.put_ue((WIDTH / MACROBLOCK - 1) as u16);
    bits.put_ue((HEIGHT / MACROBLOCK - 1) as u16);
    bits.put(1, 1); // frame_mbs_only_flag
    bits.put(1, 1); // direct_8x8_inference_flag
    bits.put(0, 1); // frame_cropping_flag
    bits.put(0, 1); // vui_parameters_present_flag
    nal_unit(NAL_SPS, bits)
}

/// The picture parameter set (7.3.2.2) as a NAL unit without start code.
pub(super) fn picture_parameter_set() -> Vec<u8> {
    let mut bits = BitWriter::default();
    bits.put_ue(0); // pic_parameter_set_id
    bits.put_ue(0); // seq_parameter_set_id
    bits.put(0, 1); // entropy_coding_mode_flag: CAVLC
    bits.put(0, 1); // bottom_field_pic_order_in_frame_present_flag
    bits.put_ue(0); // num_slice_groups_minus1
    bits.put_ue(0); // num_ref_idx_l0_default_active_minus1
    bits.put_ue(0); // num_ref_idx_l1_default_active_minus1
    bits.put(0, 1); // weighted_pred_flag
    bits.put(0, 2); // weighted_bipred_idc
    bits.put_ue(0); // pic_init_qp_minus26, se(0) is coded like ue(0)
    bits.put_ue(0); // pic_init_qs_minus26
    bits.put_ue(0); // chroma_qp_index_offset
    bits.put(1, 1); // deblocking_filter_control_present_flag
    bits.put(0, 1); // constrained_intra_pred_flag
    bits.put(0, 1); // redundant_pic_cnt_present_flag
    nal_unit(NAL_PPS, bits)
}

/// Picture `index` of the test pattern as one IDR slice (7.3.3, 7.3.5), a NAL unit without start code.
pub(super) fn picture(index: usize) -> Vec<u8> {
    let mut bits = BitWriter::default();
    bits.put_ue(0); // first_mb_in_slice
    bits.put_ue(SLICE_ALL_I);
    bits.put_ue(0); // pic_parameter_set_id
    bits.put(0, 4); // frame_num
    bits.put_ue((index % 2) as u16); // idr_pic_id: neighbouring IDR pictures differ in it
    bits.put(0, 1); // no_output_of_prior_pics_flag
    bits.put(0, 1); // long_term_reference_flag
    bits.put_ue(0); // slice_qp_delta, se(0)
    bits.put_ue(1); // disable_deblocking_filter_idc
    for top in (0..HEIGHT).step_by(MACROBLOCK) {
        for left in (0..WIDTH).step_by(MACROBLOCK) {
            bits.put_ue(MB_I_PCM);
            bits.align(); // pcm_alignment_zero_bit
            bits.put_bytes(&macroblock(index, left, top));
        }
    }
    nal_unit(NAL_IDR, bits)
}

/// The samples of one macroblock: 16 x 16 of Y, then 8 x 8 of Cb and of Cr.
fn macroblock(index: usize, left: usize, top: usize) -> Vec<u8> {
    let mut samples = Vec::with_capacity(MACROBLOCK * MACROBLOCK * 3 / 2);
    for (plane, step) in [(0, 1), (1, 2), (2, 2)] {
        for y in (top..top + MACROBLOCK).step_by(step) {
            samples.extend((left..left + MACROBLOCK).step_by(step).map(|x| pixel(index, x, y)[plane]));
        }
    }
    samples
}

/// Y, Cb, Cr of one pixel: bars that travel to the left, a ramp that travels to the right, and a bouncing square.
fn pixel(index: usize, x: usize, y: usize) -> [u8; 3] {
    let (square_x, square_y) = (bounce(index * 3, WIDTH - SQUARE), bounce(index * 2, HEIGHT - SQUARE));
    if (square_x..square_x + SQUARE).contains(&x) && (square_y..square_y + SQUARE).contains(&y) {
        return if (x - square_x) / 4 % 2 == (y - square_y) / 4 % 2 { BARS[0] } else { BARS[7] };
    }
    if y >= HEIGHT - 16 {
        let ramp = (x + WIDTH - index * 2 % WIDTH) % WIDTH;
        return [(16 + ramp * 219 / (WIDTH - 1)) as u8, 128, 128];
    }
    BARS[(x + index * 2) % WIDTH * BARS.len() / WIDTH]
}

/// A position between 0 and `span` after `distance` steps to and fro.
fn bounce(distance: usize, span: usize) -> usize {
    let phase = distance % (2 * span);
    phase.min(2 * span - phase)
}

/// Ends the payload with the stop bit (7.3.2.11) and makes it a NAL unit (7.3.1).
fn nal_unit(header: u8, mut payload: BitWriter) -> Vec<u8> {
    payload.put(1, 1);
    let payload = payload.into_bytes();
    let mut unit = Vec::with_capacity(payload.len() + 1);
    unit.push(header);
    push_escaped(&payload, &mut unit);
    unit
}

/// Inserts emulation_prevention_three_byte: no 00 00 00, 00 00 01, 00 00 02 or 00 00 03 stays in a NAL unit.
fn push_escaped(payload: &[u8], unit: &mut Vec<u8>) {
    let mut zeros = 0;
    for &byte in payload {
        if zeros == 2 && byte <= 3 {
            unit.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        unit.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(payload: &[u8]) -> Vec<u8> {
        let mut unit = Vec::new();
        push_escaped(payload, &mut unit);
        unit
    }

    #[test]
    fn emulation_prevention_breaks_up_every_forbidden_triple() {
        assert_eq!(escaped(&[0, 0, 0]), [0, 0, 3, 0]);
        assert_eq!(escaped(&[0, 0, 1]), [0, 0, 3, 1]);
        assert_eq!(escaped(&[0, 0, 2, 0, 0, 3]), [0, 0, 3, 2, 0, 0, 3, 3]);
        assert_eq!(escaped(&[0, 0, 0, 0, 0]), [0, 0, 3, 0, 0, 3, 0]);
        assert_eq!(escaped(&[0, 0, 4, 0, 1]), [0, 0, 4, 0, 1]);
    }

    #[test]
    fn sequence_parameter_set_is_the_one_computed_by_hand() {
        // 42 c0 1e, then 1 1 011 010 0 0001000 00110 1 1 0 0 and the stop bit.
        assert_eq!(
            sequence_parameter_set(),
            [0x67, 0x42, 0xc0, 0x1e, 0b1101_1010, 0b0000_1000, 0b0011_0110, 0b0100_0000]
        );
    }

    #[test]
    fn picture_has_every_macroblock_raw() {
        let raw = WIDTH * HEIGHT * 3 / 2;
        let count = (WIDTH / MACROBLOCK) * (HEIGHT / MACROBLOCK);
        // Two bytes of mb_type and alignment each, and at most eight bytes of NAL and slice header and stop bit.
        let len = picture(0).len();
        assert!((raw + 2 * count..=raw + 2 * count + 8).contains(&len), "{len}");
    }

    #[test]
    fn neighbouring_pictures_differ() {
        assert!((0..50).all(|index| picture(index) != picture(index + 1)));
    }

    #[test]
    fn samples_stay_in_the_limited_range() {
        assert!((0..50).flat_map(|index| macroblock(index, 112, 80)).all(|sample| (16..=240).contains(&sample)));
    }

    #[test]
    fn bounce_goes_to_the_end_and_back() {
        assert_eq!([0, 1, 5, 6, 9, 10].map(|distance| bounce(distance, 5)), [0, 1, 5, 4, 1, 0]);
    }
}
