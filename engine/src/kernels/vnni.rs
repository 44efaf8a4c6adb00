//! The kernels on AVX512-VNNI.

use std::arch::x86_64::{
    __m512, __m512i, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_srli_epi16, _mm512_storeu_ps,
};

use super::{Activations, BLOCK, Packing, TileSums};

/// See [`Packed::sums`](super::Packed::sums).
///
/// # Safety
/// The machine must have AVX-512 F, BW, VL, VNNI and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
pub(super) unsafe fn sums(
    packing: Packing,
    weights: &[u8],
    x: &Activations,
    first: usize,
    count: usize,
    out: &mut TileSums,
) {
    let depth = x.depth();
    assert_eq!(weights.len(), depth * packing.tile_bytes(), "one tile, all its blocks");
    assert!(matches!(count, 1 | 2 | 4 | 8), "a pass of a known size");
    let end = (first + count) * depth;
    assert!(end * BLOCK <= x.high.len() && end <= x.scale.len() && end <= x.sum.len(), "rows that exist");
    assert!(!x.two_planes() || end * BLOCK <= x.low.len(), "a lower plane as long as the upper");
    // SAFETY: the lines above are the contract of `tile`.
    unsafe {
        match (packing, x.two_planes(), count) {
            (Packing::Q4_1, true, 8) => tile::<true, 2, 8>(weights, x, first, out),
            (Packing::Q4_1, true, 4) => tile::<true, 2, 4>(weights, x, first, out),
            (Packing::Q4_1, true, 2) => tile::<true, 2, 2>(weights, x, first, out),
            (Packing::Q4_1, true, _) => tile::<true, 2, 1>(weights, x, first, out),
            (Packing::Q4_1, false, 8) => tile::<true, 1, 8>(weights, x, first, out),
            (Packing::Q4_1, false, 4) => tile::<true, 1, 4>(weights, x, first, out),
            (Packing::Q4_1, false, 2) => tile::<true, 1, 2>(weights, x, first, out),
            (Packing::Q4_1, false, _) => tile::<true, 1, 1>(weights, x, first, out),
            (Packing::Q8_0, true, 8) => tile::<false, 2, 8>(weights, x, first, out),
            (Packing::Q8_0, true, 4) => tile::<false, 2, 4>(weights, x, first, out),
            (Packing::Q8_0, true, 2) => tile::<false, 2, 2>(weights, x, first, out),
            (Packing::Q8_0, true, _) => tile::<false, 2, 1>(weights, x, first, out),
            (Packing::Q8_0, false, 8) => tile::<false, 1, 8>(weights, x, first, out),
            (Packing::Q8_0, false, 4) => tile::<false, 1, 4>(weights, x, first, out),
            (Packing::Q8_0, false, 2) => tile::<false, 1, 2>(weights, x, first, out),
            (Packing::Q8_0, false, _) => tile::<false, 1, 1>(weights, x, first, out),
        }
    }
}

/// # Safety
/// `weights` holds `x.depth()` blocks of one tile of its packing; the rows `first..first + ROWS` exist in all
/// planes of `x`; the machine has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn tile<const Q4: bool, const PLANES: usize, const ROWS: usize>(
    weights: &[u8],
    x: &Activations,
    first: usize,
    out: &mut TileSums,
) {
    let depth = x.depth();
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let mut at = weights.as_ptr();
    for block in 0..depth {
        // SAFETY: `at` stands at one of the `depth` blocks; by the contract all loads are within the slices.
        unsafe {
            let (scale, bias, numbers) = load::<Q4>(at);
            for (row, sum) in sums.iter_mut().enumerate() {
                let index = (first + row) * depth + block;
                let mut dot = product(&numbers, x.high.as_ptr().add(index * BLOCK));
                if PLANES == 2 {
                    let low = product(&numbers, x.low.as_ptr().add(index * BLOCK));
                    dot = _mm512_add_epi32(_mm512_slli_epi32::<8>(dot), low);
                }
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(*x.scale.get_unchecked(index)));
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *sum);
                *sum = _mm512_fmadd_ps(bias, _mm512_set1_ps(*x.sum.get_unchecked(index)), *sum);
            }
            let size = if Q4 { Packing::Q4_1.tile_bytes() } else { Packing::Q8_0.tile_bytes() };
            at = at.add(size);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        // SAFETY: a row of `out` is sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
    }
}

/// Returns the scales of a block, what a block's sum of activations is multiplied with, and the numbers.
///
/// # Safety
/// `at` stands at one block of a tile; the machine has the features.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn load<const Q4: bool>(at: *const u8) -> (__m512, __m512, [__m512i; 8]) {
    let mut numbers = [_mm512_setzero_si512(); 8];
    // SAFETY: all addresses are within the 320 or 544 bytes of the block.
    unsafe {
        let scale = _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
        if Q4 {
            let nibble = _mm512_set1_epi8(15);
            for group in 0..4 {
                let bytes = _mm512_loadu_si512(at.add(64 + 64 * group).cast());
                numbers[group] = _mm512_and_si512(bytes, nibble);
                numbers[4 + group] = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
            }
            (scale, _mm512_cvtph_ps(_mm256_loadu_si256(at.add(32).cast())), numbers)
        } else {
            for (group, numbers) in numbers.iter_mut().enumerate() {
                *numbers = _mm512_loadu_si512(at.add(32 + 64 * group).cast());
            }
            // The bytes are 128 too large: 128 · scale · (sum of the block) is to be taken off again.
            (scale, _mm512_mul_ps(scale, _mm512_set1_ps(-128.0)), numbers)
        }
    }
}

/// Multiplies the 32 inputs at `plane` with sixteen columns.
///
/// # Safety
/// 32 bytes are readable at `plane`; the machine has the features.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
unsafe fn product(numbers: &[__m512i; 8], plane: *const i8) -> __m512i {
    let four: *const i32 = plane.cast();
    let (mut front, mut back) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    for group in 0..4 {
        // SAFETY: eight times four bytes are the 32 that are readable.
        let (a, b) = unsafe { (four.add(group).read_unaligned(), four.add(4 + group).read_unaligned()) };
        front = _mm512_dpbusd_epi32(front, numbers[group], _mm512_set1_epi32(a));
        back = _mm512_dpbusd_epi32(back, numbers[4 + group], _mm512_set1_epi32(b));
    }
    _mm512_add_epi32(front, back)
}
