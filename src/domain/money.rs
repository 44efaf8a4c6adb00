//! Money, exactly: integer nano-dollars. Prices are kept in pico-dollars a token, a cost is computed in 128 bits and
//! rounded **up**, once, here. No floating-point number ever holds money.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS_PER_DOLLAR: i64 = 1_000_000_000;
/// Microseconds at nano-dollars an hour are pico-dollars by this: 3.6e9 µs an hour, 1000 pico-dollars a nano-dollar.
const MICROS_A_PICO_HOUR: i128 = 3_600_000;
/// Sums saturate here, half of what an `i64` holds: adding two of them can't overflow.
const MOST_NANOS: i64 = i64::MAX / 2;

/// An amount in US dollars, in nano-dollars (1e-9 USD). At most about ±4.6 billion USD; sums stop there, they do not
/// wrap.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(i64);

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not digits with at most one point.
    #[error("an amount is written as digits with at most one point, such as \"12.50\"")]
    Shape,
    /// More than nine digits behind the point.
    #[error("an amount has at most nine digits behind the point (1 nano-dollar)")]
    TooFine,
    /// Beyond any sense.
    #[error("an amount is at most 1000000000 USD")]
    TooLarge,
}

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount; what has no bound is taken for it.
    pub const MAX: Self = Self(MOST_NANOS);

    /// An amount from nano-dollars, brought into range.
    pub const fn from_nanos(nanos: i64) -> Self {
        match nanos {
            high if high > MOST_NANOS => Self(MOST_NANOS),
            low if low < -MOST_NANOS => Self(-MOST_NANOS),
            fits => Self(fits),
        }
    }

    /// Whole dollars.
    pub const fn dollars(dollars: i64) -> Self {
        Self::from_nanos(dollars.saturating_mul(NANOS_PER_DOLLAR))
    }

    /// In nano-dollars.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Reads digits with at most one point, such as `12.50`; no sign, no exponent, at most 1,000,000,000.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let nanos = parse_decimal(text, 9)?;
        if nanos > 1_000_000_000 * NANOS_PER_DOLLAR {
            return Err(MoneyError::TooLarge);
        }
        Ok(Self(nanos))
    }

    /// The larger of it and nothing.
    pub fn or_zero(self) -> Self {
        self.max(Self::ZERO)
    }

    /// Whether it is more than nothing.
    pub const fn is_some(self) -> bool {
        self.0 > 0
    }
}

/// Reads a decimal number scaled by `10^digits`.
fn parse_decimal(text: &str, digits: usize) -> Result<i64, MoneyError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || text.ends_with('.') {
        return Err(MoneyError::Shape);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > digits {
        return Err(MoneyError::TooFine);
    }
    let scaled = format!("{whole}{fraction:0<digits$}");
    let trimmed = scaled.trim_start_matches('0');
    if trimmed.len() > 19 {
        return Err(MoneyError::TooLarge);
    }
    if trimmed.is_empty() { Ok(0) } else { trimmed.parse().map_err(|_| MoneyError::TooLarge) }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::from_nanos(self.0 + other.0)
    }
}

impl Sub for Usd {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self::from_nanos(self.0 - other.0)
    }
}

impl Neg for Usd {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Usd {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// As a decimal number without trailing zeros but with at least two digits: `0.028` is `0.028`, 5 USD is `5.00`.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let (whole, rest) =
            (nanos / NANOS_PER_DOLLAR.unsigned_abs(), nanos % NANOS_PER_DOLLAR.unsigned_abs());
        let digits = format!("{rest:09}");
        let kept = digits.trim_end_matches('0').len().max(2);
        write!(f, "{sign}{whole}.{}", &digits[..kept])
    }
}

impl fmt::Debug for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${self}")
    }
}

/// In JSON an amount is a decimal number, exact: `0.028`.
impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::value::RawValue::from_string(self.to_string()) {
            Ok(number) => number.serialize(serializer),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

/// From JSON: a text such as `"12.50"`, or a number. A number with a fraction comes to us by its shortest decimal text,
/// which is what was written as long as it has no more than 15 digits; one with more is refused.
impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;
        impl Visitor<'_> for Amount {
            type Value = Usd;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount in USD, such as \"12.50\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Usd, E> {
                Usd::parse(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, dollars: u64) -> Result<Usd, E> {
                self.visit_str(&dollars.to_string())
            }

            fn visit_i64<E: de::Error>(self, dollars: i64) -> Result<Usd, E> {
                self.visit_str(&dollars.to_string())
            }

            fn visit_f64<E: de::Error>(self, dollars: f64) -> Result<Usd, E> {
                let text = dollars.to_string();
                if text.bytes().filter(u8::is_ascii_digit).count() > 16 {
                    return Err(E::custom(
                        "too many digits for a number: write the amount as a text, such as \"12.50\"",
                    ));
                }
                self.visit_str(&text)
            }
        }
        deserializer.deserialize_any(Amount)
    }
}

/// A price a token, in pico-dollars (1e-12 USD): 1 USD per million tokens is 1,000,000 of them. Never negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PerToken(i64);

impl PerToken {
    /// For nothing.
    pub const FREE: Self = Self(0);

    /// From pico-dollars a token; a negative one is none.
    pub const fn from_picos(picos: i64) -> Option<Self> {
        if picos < 0 { None } else { Some(Self(picos)) }
    }

    /// In pico-dollars a token.
    pub const fn picos(self) -> i64 {
        self.0
    }

    /// Reads USD per 1,000,000 tokens, such as `0.075`; at most six digits behind the point.
    pub fn parse_per_million(text: &str) -> Result<Self, MoneyError> {
        parse_decimal(text, 6).map(Self)
    }

    /// Reads USD per 1,000 tokens, such as `0.0004`; at most nine digits behind the point.
    pub fn parse_per_thousand(text: &str) -> Result<Self, MoneyError> {
        parse_decimal(text, 9).map(Self)
    }

    /// USD per 1,000,000 tokens, as text.
    pub fn per_million(self) -> String {
        Usd::from_nanos(self.0.saturating_mul(1_000)).to_string()
    }

    /// USD per 1,000 tokens, as text.
    pub fn per_thousand(self) -> String {
        Usd::from_nanos(self.0).to_string()
    }
}

/// A cost in the making: exact until it is rounded, once, by [`Cost::round_up`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    picos: i128,
}

impl Cost {
    /// Adds so many tokens at a price.
    #[must_use]
    pub fn and(self, tokens: u64, price: PerToken) -> Self {
        Self { picos: self.picos.saturating_add(i128::from(tokens) * i128::from(price.0)) }
    }

    /// Adds an amount.
    #[must_use]
    pub fn and_usd(self, amount: Usd) -> Self {
        Self { picos: self.picos.saturating_add(i128::from(amount.0) * 1_000) }
    }

    /// Adds so many microseconds at a price an hour. A pico-dollar that is split is rounded up: as that is a whole part of a
    /// nano-dollar, the sum is rounded up once all the same.
    #[must_use]
    pub fn and_micros(self, micros: u64, per_hour: Usd) -> Self {
        let product = i128::from(micros) * i128::from(per_hour.0);
        let picos = product / MICROS_A_PICO_HOUR + i128::from(product % MICROS_A_PICO_HOUR > 0);
        Self { picos: self.picos.saturating_add(picos) }
    }

    /// Adds so many thousandths of a token's price: for a price times a factor, such as 1.75.
    #[must_use]
    pub fn times_thousandths(self, thousandths: u32) -> Self {
        // kept exact: rounded up here only where a pico-dollar would be split
        let product = self.picos.saturating_mul(i128::from(thousandths));
        Self { picos: product / 1_000 + i128::from(product % 1_000 > 0) }
    }

    /// The amount, rounded up to the next nano-dollar.
    pub fn round_up(self) -> Usd {
        let nanos = self.picos / 1_000 + i128::from(self.picos % 1_000 > 0);
        Usd(i64::try_from(nanos).unwrap_or(MOST_NANOS).min(MOST_NANOS))
    }
}

/// What seconds cost at a price an hour, rounded up: `seconds` are rounded up to the billing increment first.
pub fn hourly(seconds: u64, per_hour: Usd, increment_seconds: u64) -> Usd {
    let billed = seconds.div_ceil(increment_seconds.max(1)).saturating_mul(increment_seconds.max(1));
    let product = i128::from(billed) * i128::from(per_hour.0);
    let nanos = product / 3_600 + i128::from(product % 3_600 > 0);
    Usd(i64::try_from(nanos).unwrap_or(MOST_NANOS).min(MOST_NANOS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_and_written() {
        for (text, nanos, written) in [
            ("0", 0, "0.00"),
            ("12.50", 12_500_000_000, "12.50"),
            ("0.028", 28_000_000, "0.028"),
            ("0.000000001", 1, "0.000000001"),
            ("007", 7_000_000_000, "7.00"),
            ("1000000000", 1_000_000_000 * NANOS_PER_DOLLAR, "1000000000.00"),
            ("1.0000000000", NANOS_PER_DOLLAR, "1.00"),
        ] {
            let amount = Usd::parse(text).expect(text);
            assert_eq!((amount.nanos(), amount.to_string().as_str()), (nanos, written), "{text}");
        }
        assert_eq!((-Usd::from_nanos(1_500_000_000)).to_string(), "-1.50");
        assert_eq!(serde_json::to_string(&Usd::from_nanos(28_000_000)).expect("JSON"), "0.028");
        for (json, nanos) in [
            ("\"12.50\"", 12_500_000_000),
            ("12.5", 12_500_000_000),
            ("0.1", 100_000_000),
            ("3", 3_000_000_000),
        ] {
            assert_eq!(serde_json::from_str::<Usd>(json).expect(json).nanos(), nanos);
        }
        for json in ["-1", "1e300", "0.12345678901234567", "true", "null", "\"x\""] {
            assert!(serde_json::from_str::<Usd>(json).is_err(), "{json}");
        }
        for (text, error) in [
            ("", MoneyError::Shape),
            (".5", MoneyError::Shape),
            ("5.", MoneyError::Shape),
            ("-1", MoneyError::Shape),
            ("1e3", MoneyError::Shape),
            ("1,5", MoneyError::Shape),
            ("$1", MoneyError::Shape),
            ("1.2.3", MoneyError::Shape),
            ("0.0000000001", MoneyError::TooFine),
            ("1000000000.000000001", MoneyError::TooLarge),
            ("99999999999999999999", MoneyError::TooLarge),
        ] {
            assert_eq!(Usd::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_price_per_thousand_is_one_per_million() {
        let price = PerToken::parse_per_thousand("0.0004").expect("a price");
        assert_eq!(price, PerToken::parse_per_million("0.4").expect("a price"));
        assert_eq!((price.per_million(), price.per_thousand()), ("0.40".to_owned(), "0.0004".to_owned()));
        assert_eq!(PerToken::parse_per_million("0.0000001"), Err(MoneyError::TooFine));
    }

    #[test]
    fn a_cost_is_rounded_up_once() {
        let tenth = PerToken::from_picos(100).expect("a price");
        assert_eq!(Cost::default().and(1, tenth).round_up(), Usd::from_nanos(1));
        assert_eq!(Cost::default().and(5, tenth).and(5, tenth).round_up(), Usd::from_nanos(1));
        assert_eq!(Cost::default().and(10, tenth).and(1, tenth).round_up(), Usd::from_nanos(2));
        let most = PerToken::from_picos(i64::MAX).expect("a price");
        assert_eq!(Cost::default().and(u64::MAX, most).round_up(), Usd::MAX);
        assert_eq!(Cost::default().and(1_000, PerToken::FREE).round_up(), Usd::ZERO);
    }

    #[test]
    fn time_is_rounded_up_once_with_the_tokens_beside_it() {
        let usd = |text| Usd::parse(text).expect("an amount");
        for (micros, per_hour, want) in [
            (3_600_000_000, "0.36", "0.36"),
            // a second at 0.36 USD an hour
            (1_000_000, "0.36", "0.0001"),
            (1, "0.36", "0.000000001"),
            (10, "0.36", "0.000000001"),
            (11, "0.36", "0.000000002"),
            (0, "0.36", "0"),
            (u64::MAX, "0", "0"),
        ] {
            assert_eq!(Cost::default().and_micros(micros, usd(per_hour)).round_up(), usd(want), "{micros}");
        }
        // half a nano-dollar of time and half a one of tokens are one, not two
        let half = PerToken::from_picos(500).expect("a price");
        let both = Cost::default().and(1, half).and_micros(5, usd("0.36")).round_up();
        assert_eq!(both, Usd::from_nanos(1));
        assert_eq!(Cost::default().and_micros(u64::MAX, Usd::MAX).round_up(), Usd::MAX);
    }

    #[test]
    fn hours_are_billed_by_their_increment() {
        let seventeen = Usd::parse("1.70").expect("an amount");
        for (seconds, increment, want) in [
            (3_600, 1, "1.70"),
            (1, 3_600, "1.70"),
            (3_601, 3_600, "3.40"),
            (1, 1, "0.000472223"),
            (0, 60, "0"),
        ] {
            assert_eq!(
                hourly(seconds, seventeen, increment),
                Usd::parse(want).expect("an amount"),
                "{seconds}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in 0..=1_000_000_000_i64 * NANOS_PER_DOLLAR) {
            let amount = Usd::from_nanos(nanos);
            prop_assert_eq!(Usd::parse(&amount.to_string()), Ok(amount));
        }

        #[test]
        fn time_never_costs_less_than_it_does_nor_a_nano_more(
            micros in 0..1_u64 << 40, nanos in 0..1_i64 << 44, picos in 0..1_i64 << 30,
        ) {
            let cost = Cost { picos: picos.into() }.and_micros(micros, Usd::from_nanos(nanos)).round_up();
            // in parts of a pico-dollar that both divide
            let exact = i128::from(micros) * i128::from(nanos) + i128::from(picos) * MICROS_A_PICO_HOUR;
            if cost < Usd::MAX {
                let over = i128::from(cost.nanos()) * 1_000 * MICROS_A_PICO_HOUR - exact;
                prop_assert!((0..1_000 * MICROS_A_PICO_HOUR).contains(&over));
            }
        }

        #[test]
        fn rounding_never_loses_and_never_adds_a_nano(tokens in 0..1_u64 << 40, picos in 0..1_i64 << 40) {
            let exact = i128::from(tokens) * i128::from(picos);
            let cost = Cost::default().and(tokens, PerToken::from_picos(picos).expect("a price")).round_up();
            if cost < Usd::MAX {
                let over = i128::from(cost.nanos()) * 1_000 - exact;
                prop_assert!((0..1_000).contains(&over));
            }
        }
    }
}
