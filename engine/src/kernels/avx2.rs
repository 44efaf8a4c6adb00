//! The kernels on AVX2, half a tile at a time: about half as fast as VNNI where a machine has both.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256,
    _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_slli_epi32,
    _mm256_srli_epi16, _mm256_storeu_ps, _mm256_xor_si256,
};

use super::{Activations, BLOCK, Packing, TILE, TileSums};

/// Outputs of one register.
const HALF: usize = TILE / 2;

/// See [`Packed::sums`](super::Packed::sums).
///
/// # Safety
/// The machine must have AVX2, FMA and F16C.
#[target_feature(enable = "avx2,f16c,fma")]
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
    for half in 0..2 {
        // SAFETY: the lines above are the contract of `half_tile`.
        unsafe {
            match (packing, count) {
                (Packing::Q4_1, 8) => half_tile::<true, 8>(weights, x, first, half, out),
                (Packing::Q4_1, 4) => half_tile::<true, 4>(weights, x, first, half, out),
                (Packing::Q4_1, 2) => half_tile::<true, 2>(weights, x, first, half, out),
                (Packing::Q4_1, _) => half_tile::<true, 1>(weights, x, first, half, out),
                (Packing::Q8_0, 8) => half_tile::<false, 8>(weights, x, first, half, out),
                (Packing::Q8_0, 4) => half_tile::<false, 4>(weights, x, first, half, out),
                (Packing::Q8_0, 2) => half_tile::<false, 2>(weights, x, first, half, out),
                (Packing::Q8_0, _) => half_tile::<false, 1>(weights, x, first, half, out),
            }
        }
    }
}

/// # Safety
/// `weights` holds `x.depth()` blocks of one tile of its packing; the rows `first..first + ROWS` exist in all planes
/// of `x`; the machine has the features.
#[target_feature(enable = "avx2,f16c,fma")]
unsafe fn half_tile<const Q4: bool, const ROWS: usize>(
    weights: &[u8],
    x: &Activations,
    first: usize,
    half: usize,
    out: &mut TileSums,
) {
    let depth = x.depth();
    let size = if Q4 { Packing::Q4_1.tile_bytes() } else { Packing::Q8_0.tile_bytes() };
    let mut sums = [_mm256_setzero_ps(); ROWS];
    for (block, tile) in weights.chunks_exact(size).enumerate() {
        // SAFETY: the chunk is one block of a tile, and by the contract all rows and planes are there.
        unsafe {
            let (scale, minimum, numbers) = load::<Q4>(tile, half);
            for (row, sum) in sums.iter_mut().enumerate() {
                let index = (first + row) * depth + block;
                let mut dot = product::<Q4>(&numbers, x.high.as_ptr().add(index * BLOCK));
                if x.two_planes() {
                    let low = product::<Q4>(&numbers, x.low.as_ptr().add(index * BLOCK));
                    dot = _mm256_add_epi32(_mm256_slli_epi32::<8>(dot), low);
                }
                let scale = _mm256_mul_ps(scale, _mm256_set1_ps(*x.scale.get_unchecked(index)));
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
                if Q4 {
                    *sum = _mm256_fmadd_ps(minimum, _mm256_set1_ps(*x.sum.get_unchecked(index)), *sum);
                }
            }
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        // SAFETY: half a row of `out` is eight floats.
        unsafe { _mm256_storeu_ps(out[half * HALF..][..HALF].as_mut_ptr(), sum) };
    }
}

/// Returns scales, minima and numbers of eight columns. The numbers of `Q8_0` are signed here.
///
/// # Safety
/// `tile` is one block of a tile of the packing; the machine has the features.
#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
unsafe fn load<const Q4: bool>(tile: &[u8], half: usize) -> (__m256, __m256, [__m256i; 8]) {
    let mut numbers = [_mm256_setzero_si256(); 8];
    let at = tile.as_ptr();
    // SAFETY: all addresses are within the 320 or 544 bytes of the block.
    unsafe {
        let scale = _mm256_cvtph_ps(_mm_loadu_si128(at.add(16 * half).cast()));
        if Q4 {
            let nibble = _mm256_set1_epi8(15);
            for group in 0..4 {
                let bytes = _mm256_loadu_si256(at.add(64 + 64 * group + 32 * half).cast());
                numbers[group] = _mm256_and_si256(bytes, nibble);
                numbers[4 + group] = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
            }
            (scale, _mm256_cvtph_ps(_mm_loadu_si128(at.add(32 + 16 * half).cast())), numbers)
        } else {
            let offset = _mm256_set1_epi8(-128);
            for (group, numbers) in numbers.iter_mut().enumerate() {
                let bytes = _mm256_loadu_si256(at.add(32 + 64 * group + 32 * half).cast());
                *numbers = _mm256_xor_si256(bytes, offset);
            }
            (scale, _mm256_setzero_ps(), numbers)
        }
    }
}

/// Multiplies the 32 inputs at `plane` with eight columns.
///
/// # Safety
/// 32 bytes are readable at `plane`; the machine has the features.
#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
unsafe fn product<const Q4: bool>(numbers: &[__m256i; 8], plane: *const i8) -> __m256i {
    let four: *const i32 = plane.cast();
    let ones = _mm256_set1_epi16(1);
    let mut sum = _mm256_setzero_si256();
    for (group, numbers) in numbers.iter().enumerate() {
        // SAFETY: eight times four bytes are the 32 that are readable.
        let inputs = _mm256_set1_epi32(unsafe { four.add(group).read_unaligned() });
        if Q4 {
            // Pairs sum to 2 · 15 · 128 at most, eight of them to 30 720: 16 bits suffice for the whole block.
            sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(*numbers, inputs));
        } else {
            // |x| · ±w: pairs sum to 2 · 128 · 127 at most, as ggml writes no -128; one would count as 128 here.
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(inputs), _mm256_sign_epi8(*numbers, inputs));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    if Q4 { _mm256_madd_epi16(sum, ones) } else { sum }
}
