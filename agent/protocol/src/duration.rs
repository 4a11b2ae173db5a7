//! Spans of time as people write them: `300ms`, `60s`, `10m`, `2h`.

use std::{fmt, str::FromStr, time::Duration};

use crate::as_text::as_text;

/// A span of time, to the millisecond; written as a whole number and a unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

/// Text that is not a span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a span of time: a whole number and `ms`, `s`, `m` or `h`, such as `60s`")]
pub struct InvalidSpan(String);

impl Span {
    /// A span of `seconds`.
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A span of `milliseconds`.
    pub const fn millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(s: &str) -> Result<Self, InvalidSpan> {
        let invalid = || InvalidSpan(s.chars().take(80).collect());
        let digits = s.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let number: u64 = s[..digits].parse().map_err(|_| invalid())?;
        let (_, millis) = UNITS.iter().find(|(unit, _)| *unit == &s[digits..]).ok_or_else(invalid)?;
        number.checked_mul(*millis).map(Self::millis).ok_or_else(invalid)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_millis() as u64;
        let (unit, millis) =
            UNITS.iter().rev().find(|(_, m)| total >= *m && total.is_multiple_of(*m)).unwrap_or(&UNITS[1]);
        write!(f, "{}{unit}", total / millis)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

as_text!(Span, "A span of time: a whole number and `ms`, `s`, `m` or `h`", "^[0-9]+(ms|s|m|h)$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_largest_whole_unit() {
        for (text, millis, back) in [
            ("300ms", 300, "300ms"),
            ("60s", 60_000, "1m"),
            ("90s", 90_000, "90s"),
            ("2h", 7_200_000, "2h"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, Span::millis(millis));
            assert_eq!(span.to_string(), back);
        }
        for bad in ["", "s", "5", "1.5s", "-1s", "1 s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
