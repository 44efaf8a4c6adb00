//! Sixteen numbers at once, on three kinds of machine, and the two loops that are made of them.

use super::super::vector::{Level, level};
use super::super::{GROUP, TILE, TileSums};

/// Sixteen numbers in registers.
trait Lanes: Copy {
    /// Whether the sums of four rows at once fit into registers.
    const WIDE: bool;

    /// # Safety
    /// The machine must have the features of the implementation; this goes for all functions here.
    unsafe fn splat(number: f32) -> Self;
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn load(numbers: &[f32; TILE]) -> Self;
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn widen(halves: &[u16; TILE]) -> Self;
    /// Returns `self · other + sum`.
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn multiply_add(self, other: Self, sum: Self) -> Self;
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn plus(self, other: Self) -> Self;
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn store(self, out: &mut [f32; TILE]);
}

/// Plain Rust: what the fast ones are measured against, and what other machines run.
#[derive(Clone, Copy)]
struct Plain([f32; TILE]);

impl Lanes for Plain {
    const WIDE: bool = false;

    unsafe fn splat(number: f32) -> Self {
        Self([number; TILE])
    }

    unsafe fn load(numbers: &[f32; TILE]) -> Self {
        Self(*numbers)
    }

    unsafe fn widen(halves: &[u16; TILE]) -> Self {
        Self(halves.map(|half| half::f16::from_bits(half).to_f32()))
    }

    unsafe fn multiply_add(self, other: Self, sum: Self) -> Self {
        // Where the machine has no such instruction, `mul_add` is a slow function.
        Self(std::array::from_fn(|lane| self.0[lane] * other.0[lane] + sum.0[lane]))
    }

    unsafe fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }

    unsafe fn store(self, out: &mut [f32; TILE]) {
        *out = self.0;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm_loadu_si128, _mm256_add_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_loadu_si256, _mm256_set1_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_cvtph_ps,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::{Lanes, TILE};

    const HALF: usize = TILE / 2;

    /// AVX-512 F.
    #[derive(Clone, Copy)]
    pub(super) struct Avx512(__m512);

    // Always inlined: only then the caller's features are those of the instructions.
    impl Lanes for Avx512 {
        const WIDE: bool = true;

        #[inline(always)]
        unsafe fn splat(number: f32) -> Self {
            // SAFETY: by the trait's contract.
            unsafe { Self(_mm512_set1_ps(number)) }
        }

        #[inline(always)]
        unsafe fn load(numbers: &[f32; TILE]) -> Self {
            // SAFETY: sixteen floats are read.
            unsafe { Self(_mm512_loadu_ps(numbers.as_ptr())) }
        }

        #[inline(always)]
        unsafe fn widen(halves: &[u16; TILE]) -> Self {
            // SAFETY: sixteen halves are the 32 bytes that are read.
            unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast()))) }
        }

        #[inline(always)]
        unsafe fn multiply_add(self, other: Self, sum: Self) -> Self {
            // SAFETY: by the trait's contract.
            unsafe { Self(_mm512_fmadd_ps(self.0, other.0, sum.0)) }
        }

        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            // SAFETY: by the trait's contract.
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn store(self, out: &mut [f32; TILE]) {
            // SAFETY: sixteen floats are written.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) };
        }
    }

    /// AVX2, FMA and F16C.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2([__m256; 2]);

    impl Lanes for Avx2 {
        const WIDE: bool = false;

        #[inline(always)]
        unsafe fn splat(number: f32) -> Self {
            // SAFETY: by the trait's contract.
            unsafe { Self([_mm256_set1_ps(number); 2]) }
        }

        #[inline(always)]
        unsafe fn load(numbers: &[f32; TILE]) -> Self {
            let at = numbers.as_ptr();
            // SAFETY: twice eight of sixteen floats are read.
            unsafe { Self([_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(HALF))]) }
        }

        #[inline(always)]
        unsafe fn widen(halves: &[u16; TILE]) -> Self {
            let at = halves.as_ptr();
            // SAFETY: twice eight of sixteen halves are read.
            unsafe {
                let (front, back) = (_mm_loadu_si128(at.cast()), _mm_loadu_si128(at.add(HALF).cast()));
                Self([_mm256_cvtph_ps(front), _mm256_cvtph_ps(back)])
            }
        }

        #[inline(always)]
        unsafe fn multiply_add(self, other: Self, sum: Self) -> Self {
            let half = |i: usize| {
                // SAFETY: by the trait's contract.
                unsafe { _mm256_fmadd_ps(self.0[i], other.0[i], sum.0[i]) }
            };
            Self([half(0), half(1)])
        }

        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            let half = |i: usize| {
                // SAFETY: by the trait's contract.
                unsafe { _mm256_add_ps(self.0[i], other.0[i]) }
            };
            Self([half(0), half(1)])
        }

        #[inline(always)]
        unsafe fn store(self, out: &mut [f32; TILE]) {
            let at = out.as_mut_ptr();
            // SAFETY: twice eight of sixteen floats are written.
            unsafe {
                _mm256_storeu_ps(at, self.0[0]);
                _mm256_storeu_ps(at.add(HALF), self.0[1]);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx2,f16c,fma")]
    pub(super) fn dots_avx512(a: &[u16], x: &[f32], columns: usize, out: &mut super::TileSums) {
        // SAFETY: the features are those of this function.
        unsafe { super::dots_with::<Avx512>(a, x, columns, out) }
    }

    #[target_feature(enable = "avx2,f16c,fma")]
    pub(super) fn dots_avx2(a: &[u16], x: &[f32], columns: usize, out: &mut super::TileSums) {
        // SAFETY: the features are those of this function.
        unsafe { super::dots_with::<Avx2>(a, x, columns, out) }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx2,f16c,fma")]
    pub(super) fn add_avx512(tile: &[[u16; TILE]], inner: &[f32], stride: usize, sums: &mut [[f32; TILE]]) {
        // SAFETY: the features are those of this function.
        unsafe { super::add_with::<Avx512>(tile, inner, stride, sums) }
    }

    #[target_feature(enable = "avx2,f16c,fma")]
    pub(super) fn add_avx2(tile: &[[u16; TILE]], inner: &[f32], stride: usize, sums: &mut [[f32; TILE]]) {
        // SAFETY: the features are those of this function.
        unsafe { super::add_with::<Avx2>(tile, inner, stride, sums) }
    }
}

/// Writes `out[row][rank] = a[rank] · x[row]`, for at most sixteen ranks and eight rows of `columns` numbers.
pub(super) fn dots(a: &[u16], x: &[f32], columns: usize, out: &mut TileSums) {
    match level() {
        // SAFETY: plain Rust runs everywhere.
        Level::Plain => unsafe { dots_with::<Plain>(a, x, columns, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` says that the instructions exist.
        Level::Avx2 => unsafe { x86::dots_avx2(a, x, columns, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` says that the instructions exist.
        Level::Avx512 => unsafe { x86::dots_avx512(a, x, columns, out) },
    }
}

/// Adds `inner[row] · tile` to each row of `sums`; the next row's inner numbers are `stride` further on.
pub(super) fn add(tile: &[[u16; TILE]], inner: &[f32], stride: usize, sums: &mut [[f32; TILE]]) {
    match level() {
        // SAFETY: plain Rust runs everywhere.
        Level::Plain => unsafe { add_with::<Plain>(tile, inner, stride, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` says that the instructions exist.
        Level::Avx2 => unsafe { x86::add_avx2(tile, inner, stride, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` says that the instructions exist.
        Level::Avx512 => unsafe { x86::add_avx512(tile, inner, stride, sums) },
    }
}

/// # Safety
/// The machine must have the features of `L`.
#[inline(always)]
unsafe fn dots_with<L: Lanes>(a: &[u16], x: &[f32], columns: usize, out: &mut TileSums) {
    let (ranks, rows) = (a.len() / columns, x.len() / columns);
    assert!(ranks <= TILE && rows <= GROUP, "at most one unit of work");
    let mut row = 0;
    // SAFETY: the features are this function's contract.
    unsafe {
        while L::WIDE && row + 4 <= rows {
            ranks_of::<L, 4, 4>(a, &x[row * columns..], columns, &mut out[row..]);
            row += 4;
        }
        while row < rows {
            match L::WIDE {
                true => ranks_of::<L, 1, 8>(a, &x[row * columns..], columns, &mut out[row..]),
                false => ranks_of::<L, 1, 4>(a, &x[row * columns..], columns, &mut out[row..]),
            }
            row += 1;
        }
    }
}

/// Takes `RANKS` ranks at once, then what is left one by one.
///
/// # Safety
/// The machine must have the features of `L`.
#[inline(always)]
unsafe fn ranks_of<L: Lanes, const ROWS: usize, const RANKS: usize>(
    a: &[u16],
    x: &[f32],
    columns: usize,
    out: &mut [[f32; TILE]],
) {
    let (ranks, mut rank) = (a.len() / columns, 0);
    // SAFETY: the features are this function's contract.
    unsafe {
        while rank + RANKS <= ranks {
            block::<L, ROWS, RANKS>(&a[rank * columns..], x, columns, rank, out);
            rank += RANKS;
        }
        while rank < ranks {
            block::<L, ROWS, 1>(&a[rank * columns..], x, columns, rank, out);
            rank += 1;
        }
    }
}

/// # Safety
/// The machine must have the features of `L`.
#[inline(always)]
unsafe fn block<L: Lanes, const ROWS: usize, const RANKS: usize>(
    a: &[u16],
    x: &[f32],
    columns: usize,
    rank: usize,
    out: &mut [[f32; TILE]],
) {
    let a: [&[[u16; TILE]]; RANKS] = std::array::from_fn(|rank| a[rank * columns..][..columns].as_chunks().0);
    let x: [&[[f32; TILE]]; ROWS] = std::array::from_fn(|row| x[row * columns..][..columns].as_chunks().0);
    // SAFETY: the features are this function's contract.
    unsafe {
        let mut sums = [[L::splat(0.0); RANKS]; ROWS];
        for group in 0..columns / TILE {
            let a: [L; RANKS] = std::array::from_fn(|rank| L::widen(&a[rank][group]));
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = L::load(&x[group]);
                for (sum, a) in sums.iter_mut().zip(a) {
                    *sum = a.multiply_add(x, *sum);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            for (out, sum) in out[rank..].iter_mut().zip(sums) {
                let mut lanes = [0.0; TILE];
                sum.store(&mut lanes);
                *out = total(lanes);
            }
        }
    }
}

/// Adds up sixteen numbers, the halves first.
#[inline(always)]
fn total(lanes: [f32; TILE]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[8 + i]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[4 + i]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// # Safety
/// The machine must have the features of `L`.
#[inline(always)]
unsafe fn add_with<L: Lanes>(tile: &[[u16; TILE]], inner: &[f32], stride: usize, sums: &mut [[f32; TILE]]) {
    let mut row = 0;
    // SAFETY: the features are this function's contract.
    unsafe {
        while L::WIDE && row + 4 <= sums.len() {
            add_rows::<L, 4>(tile, &inner[row * stride..], stride, &mut sums[row..]);
            row += 4;
        }
        while row < sums.len() {
            add_rows::<L, 1>(tile, &inner[row * stride..], stride, &mut sums[row..]);
            row += 1;
        }
    }
}

/// Sums that a row has at once: an addition waits for the one before it, and with one sum nothing else would be done.
const CHAINS: usize = 4;

/// # Safety
/// The machine must have the features of `L`.
#[inline(always)]
unsafe fn add_rows<L: Lanes, const ROWS: usize>(
    tile: &[[u16; TILE]],
    inner: &[f32],
    stride: usize,
    sums: &mut [[f32; TILE]],
) {
    let inner: [&[f32]; ROWS] = std::array::from_fn(|row| &inner[row * stride..][..tile.len()]);
    let (groups, rest) = tile.as_chunks::<CHAINS>();
    // SAFETY: the features are this function's contract.
    unsafe {
        let mut totals = [[L::splat(0.0); CHAINS]; ROWS];
        for (group, columns) in groups.iter().enumerate() {
            let columns: [L; CHAINS] = std::array::from_fn(|chain| L::widen(&columns[chain]));
            for (totals, inner) in totals.iter_mut().zip(inner) {
                for (chain, total) in totals.iter_mut().enumerate() {
                    *total = L::splat(inner[group * CHAINS + chain]).multiply_add(columns[chain], *total);
                }
            }
        }
        for (rank, column) in rest.iter().enumerate() {
            let column = L::widen(column);
            for (totals, inner) in totals.iter_mut().zip(inner) {
                let number = L::splat(inner[groups.len() * CHAINS + rank]);
                totals[0] = number.multiply_add(column, totals[0]);
            }
        }
        for (out, [a, b, c, d]) in sums.iter_mut().zip(totals) {
            L::load(out).plus(a.plus(b).plus(c.plus(d))).store(out);
        }
    }
}

#[cfg(test)]
type Dots<'a> = &'a dyn Fn(&[u16], &[f32], usize, &mut TileSums);
#[cfg(test)]
type Add<'a> = &'a dyn Fn(&[[u16; TILE]], &[f32], usize, &mut [[f32; TILE]]);

/// Calls `body` with the loops of every kind that this machine has, the plain ones first.
#[cfg(test)]
pub(super) fn each_kind<R>(body: impl Fn(Dots<'_>, Add<'_>) -> R) -> Vec<R> {
    // SAFETY: plain Rust runs everywhere.
    let plain: Dots<'_> = &|a, x, columns, out| unsafe { dots_with::<Plain>(a, x, columns, out) };
    // SAFETY: plain Rust runs everywhere.
    let mut results = vec![body(plain, &|t, inner, stride, sums| unsafe {
        add_with::<Plain>(t, inner, stride, sums);
    })];
    #[cfg(target_arch = "x86_64")]
    {
        if level() > Level::Plain {
            // SAFETY: the line above says that the instructions exist.
            let dots: Dots<'_> = &|a, x, columns, out| unsafe { x86::dots_avx2(a, x, columns, out) };
            // SAFETY: as above.
            results.push(body(dots, &|t, inner, stride, sums| unsafe {
                x86::add_avx2(t, inner, stride, sums);
            }));
        }
        if level() > Level::Avx2 {
            // SAFETY: the line above says that the instructions exist.
            let dots: Dots<'_> = &|a, x, columns, out| unsafe { x86::dots_avx512(a, x, columns, out) };
            // SAFETY: as above.
            results.push(body(dots, &|t, inner, stride, sums| unsafe {
                x86::add_avx512(t, inner, stride, sums);
            }));
        }
    }
    results
}
