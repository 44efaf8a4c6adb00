//! Loops over rows of numbers, compiled for three kinds of machine.

use super::{BLOCK, TILE};

/// What this machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Level {
    /// Whatever the compiler was told.
    Plain,
    /// AVX2, FMA and F16C: most machines since 2013.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with VNNI: servers since 2019, desktops since Zen 4.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Returns what this machine can do; asked once.
#[cfg(target_arch = "x86_64")]
pub(crate) fn level() -> Level {
    static FOUND: std::sync::OnceLock<Level> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        match (avx2, avx512) {
            (true, true) => Level::Avx512,
            (true, false) => Level::Avx2,
            (false, _) => Level::Plain,
        }
    })
}

/// Returns what this machine can do.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn level() -> Level {
    Level::Plain
}

/// Declares a function whose body is compiled once more for each kind of machine, and picks at run time.
macro_rules! for_every_machine {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2,f16c,fma")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    body($($arg),*)
                }
                match level() {
                    Level::Plain => {}
                    // SAFETY: `level` says that the instructions exist.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: `level` says that the instructions exist.
                    Level::Avx512 => return unsafe { avx512($($arg),*) },
                }
            }
            body($($arg),*)
        }
    };
}

pub(crate) use for_every_machine;

for_every_machine! {
    /// `out = x / rms(x) · weight`, for one row.
    fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let (groups, rest) = x.as_chunks::<TILE>();
        let mut lanes = [0f32; TILE];
        for group in groups {
            for (lane, x) in lanes.iter_mut().zip(group) {
                *lane += x * x;
            }
        }
        let square = lanes.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>();
        let scale = 1.0 / (square / x.len() as f32 + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

for_every_machine! {
    /// `x = (x - mean) / deviation · weight + bias`, for one row.
    fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
        let length = x.len() as f32;
        let mean = sum(x, |x| x) / length;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / length;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for (x, (weight, bias)) in x.iter_mut().zip(weight.iter().zip(bias)) {
            *x = (*x - mean) * scale * weight + bias;
        }
    }
}

for_every_machine! {
    /// `x = x · Φ(x)`, with the normal distribution itself, not its approximation by tanh.
    fn gelu(x: &mut [f32]) {
        for x in x {
            *x *= 0.5 * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

for_every_machine! {
    /// `x += y`
    fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

for_every_machine! {
    /// `gate = silu(gate) · up`, for one row of a tile.
    fn gated(gate: &mut [f32; TILE], up: &[f32; TILE]) {
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = *gate / (1.0 + exp(-*gate)) * up;
        }
    }
}

for_every_machine! {
    /// Turns scores into weights that sum to 1.
    fn softmax(scores: &mut [f32]) {
        let (groups, rest) = scores.as_chunks_mut::<TILE>();
        let mut peaks = [f32::NEG_INFINITY; TILE];
        for group in &*groups {
            for (peak, score) in peaks.iter_mut().zip(group) {
                *peak = if *score > *peak { *score } else { *peak };
            }
        }
        let peak = peaks.iter().chain(&*rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let mut lanes = [0f32; TILE];
        for group in &mut *groups {
            for (lane, score) in lanes.iter_mut().zip(group) {
                *score = exp(*score - peak);
                *lane += *score;
            }
        }
        let mut sum = lanes.iter().sum::<f32>();
        for score in &mut *rest {
            *score = exp(*score - peak);
            sum += *score;
        }
        let inverse = 1.0 / sum;
        for score in scores {
            *score *= inverse;
        }
    }
}

for_every_machine! {
    /// Rounds blocks of 32 numbers to two planes of 8 bits.
    fn round_two_planes(
        x: &[f32], peak: f32, high: &mut [i8], low: &mut [i8], scale: &mut [f32], sum: &mut [f32],
    ) {
        let blocks = x.as_chunks::<BLOCK>().0.iter().zip(high.as_chunks_mut::<BLOCK>().0);
        let blocks = blocks.zip(low.as_chunks_mut::<BLOCK>().0).zip(scale.iter_mut().zip(sum));
        for (((x, high), low), (scale, sum)) in blocks {
            let unit = largest(x) / peak;
            let inverse = if unit > 0.0 { 1.0 / unit } else { 0.0 };
            let mut total = 0i32;
            for i in 0..BLOCK {
                let rounded = nearest(x[i] * inverse);
                high[i] = ((rounded + 128) >> 8) as i8;
                low[i] = rounded as i8;
                total = i32::wrapping_add(total, rounded);
            }
            *scale = unit;
            *sum = unit * total as f32;
        }
    }
}

for_every_machine! {
    /// Rounds blocks of 32 numbers to 8 bits.
    fn round_one_plane(x: &[f32], peak: f32, high: &mut [i8], scale: &mut [f32], sum: &mut [f32]) {
        let blocks = x.as_chunks::<BLOCK>().0.iter().zip(high.as_chunks_mut::<BLOCK>().0);
        for ((x, high), (scale, sum)) in blocks.zip(scale.iter_mut().zip(sum)) {
            let unit = largest(x) / peak;
            let inverse = if unit > 0.0 { 1.0 / unit } else { 0.0 };
            let mut total = 0i32;
            for i in 0..BLOCK {
                let rounded = nearest(x[i] * inverse);
                high[i] = rounded as i8;
                total = i32::wrapping_add(total, rounded);
            }
            *scale = unit;
            *sum = unit * total as f32;
        }
    }
}

for_every_machine! {
    /// Returns the logarithm of the sum of `e^x`.
    fn log_sum_exp(x: &[f32]) -> f32 {
        let peak = x.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
        peak + sum(x, |x| exp(x - peak)).ln()
    }
}

/// Returns the largest magnitude; in lanes, so that it vectorises.
#[inline(always)]
fn largest(x: &[f32; BLOCK]) -> f32 {
    let mut lanes = [0f32; TILE];
    for group in x.as_chunks::<TILE>().0 {
        for (lane, x) in lanes.iter_mut().zip(group) {
            *lane = if x.abs() > *lane { x.abs() } else { *lane };
        }
    }
    lanes.iter().fold(0.0, |a, b| if *b > a { *b } else { a })
}

/// Rounds to the nearest whole number, |x| < 2^22: adding 1.5 · 2^23 leaves it in the low bits.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    (x + 12_582_912.0).to_bits() as i32 - 0x4B40_0000
}

/// Adds up what `of` makes of each number; in lanes, so that it vectorises.
#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (groups, rest) = x.as_chunks::<TILE>();
    let mut lanes = [0f32; TILE];
    for group in groups {
        for (lane, x) in lanes.iter_mut().zip(group) {
            *lane += of(*x);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|x| of(*x)).sum::<f32>()
}

/// Returns the error function to about 3e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let p = 1.061_405_4 * t - 1.453_152;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_74;
    let p = (p * t + 0.254_829_6) * t;
    (1.0 - p * exp(-x * x)).copysign(x)
}

/// Returns e^x to about 1e-7 relative, in arithmetic that vectorises.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = if x > -87.0 { x } else { -87.0 };
    let x = if x < 88.0 { x } else { 88.0 };
    let n = (x * std::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0;
    // ln 2 in two parts, so that the remainder keeps its last bits.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4 * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    f32::from_bits((p.to_bits() as i32).wrapping_add((n as i32) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            let gap = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(gap < 3e-7, "{x}: {gap}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    /// The error function in f64, by its series.
    fn exact_erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn gelu_is_close() {
        let mut x: Vec<f32> = (-400..=400).map(|i| i as f32 / 100.0).chain([-30.0, 30.0]).collect();
        let before = x.clone();
        gelu(&mut x);
        for (x, gelu) in before.iter().zip(&x) {
            let distribution = if x.abs() > 10.0 {
                f64::from(u8::from(*x > 0.0))
            } else {
                0.5 * (1.0 + exact_erf(f64::from(*x) * 0.5f64.sqrt()))
            };
            let exact = f64::from(*x) * distribution;
            assert!((f64::from(*gelu) - exact).abs() < 1e-6, "{x}: {gelu}, not {exact}");
        }
    }

    #[test]
    fn layer_norm_has_the_mean_and_the_deviation_that_it_is_told() {
        for length in [1, 16, 37] {
            let mut x: Vec<f32> = (0..length).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
            let (weight, bias) = (vec![2.0; length], vec![3.0; length]);
            layer_norm(&mut x, &weight, &bias, 1e-12);
            let mean = x.iter().sum::<f32>() / length as f32;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / length as f32;
            assert!((mean - 3.0).abs() < 1e-5, "{length}: {mean}");
            assert!(length == 1 || (variance - 4.0).abs() < 1e-4, "{length}: {variance}");
        }
    }

    #[test]
    fn softmax_sums_to_one() {
        for length in [1, 5, 16, 33, 1000] {
            let mut scores: Vec<f32> = (0..length).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
            let exact: f64 = scores.iter().map(|s| f64::from(*s).exp()).sum();
            let first = f64::from(scores[0]).exp() / exact;
            softmax(&mut scores);
            assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!((f64::from(scores[0]) - first).abs() < 1e-6);
        }
    }

    #[test]
    fn log_sum_exp_is_close() {
        for length in [1, 16, 33, 50_000] {
            let x: Vec<f32> = (0..length).map(|i| (i * 37 % 101) as f32 * 0.3 - 150.0).collect();
            let exact = x.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            assert!((f64::from(log_sum_exp(&x)) - exact).abs() < 1e-4, "{length}");
        }
    }

    #[test]
    fn planes_hold_sixteen_bits() {
        let x: Vec<f32> = (0..64).map(|i| ((i * 7919 % 997) as f32 - 500.0) * 0.01).collect();
        let (mut high, mut low) = (vec![0; 64], vec![0; 64]);
        let (mut scale, mut sum) = (vec![0.0; 2], vec![0.0; 2]);
        round_two_planes(&x, 32_512.0, &mut high, &mut low, &mut scale, &mut sum);
        for i in 0..64 {
            let value = scale[i / BLOCK] * (256 * i32::from(high[i]) + i32::from(low[i])) as f32;
            assert!((value - x[i]).abs() <= scale[i / BLOCK] * 0.51, "{i}: {value} {}", x[i]);
        }
        round_two_planes(&[0.0; 32], 32_512.0, &mut high, &mut low, &mut scale, &mut sum);
        assert_eq!((scale[0], sum[0], high[0], low[0]), (0.0, 0.0, 0, 0));
    }
}
