//! Quantities with their units: durations, percents, sizes. Text without a unit is refused.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A length of time in nanoseconds; written `200ms`, `1m30s`, `2h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dur(i64);

/// A share of 100, written `12.5%`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

/// A number of bytes, written `512MiB`, `5GB`, `4096B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// Why a text is not a quantity: says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

const DUR_UNITS: [(&str, i64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("s", 1_000_000_000),
];

impl Dur {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds.
    pub const fn from_ns(ns: i64) -> Self {
        Self(ns)
    }

    /// From milliseconds.
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms * 1_000_000)
    }

    /// From seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// In nanoseconds.
    pub const fn ns(self) -> i64 {
        self.0
    }

    /// In milliseconds, with fraction.
    pub fn ms_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// In seconds, with fraction.
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// As the standard type; negative becomes zero.
    pub fn std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.max(0) as u64)
    }

    /// As the lower bound of something, for people: never more than it is, so that what is printed still contains the truth.
    /// Three significant figures, and tenths of a second from two minutes to an hour.
    pub fn human_down(self) -> String {
        Self(self.0.div_euclid(self.quantum()) * self.quantum()).bound()
    }

    /// As the upper bound of something, for people: never less than it is.
    pub fn human_up(self) -> String {
        Self(-((-self.0).div_euclid(self.quantum())) * self.quantum()).bound()
    }

    /// The smallest step that is printed of a bound of this size, nanoseconds.
    fn quantum(self) -> i64 {
        match self.0.unsigned_abs() {
            0..=999 => 1,
            1_000..=119_999_999_999 => {
                let digits = self.0.unsigned_abs().ilog10();
                // From 100 s on whole seconds, as `human` prints them.
                10_i64.pow(digits - 2)
            }
            120_000_000_000..=3_599_999_999_999 => 100_000_000,
            _ => 1_000_000_000,
        }
    }

    fn bound(self) -> String {
        let tenths = self.0 / 100_000_000;
        if (1_200..36_000).contains(&tenths) {
            format!("{}m{:02}.{}s", tenths / 600, tenths / 10 % 60, tenths % 10)
        } else {
            self.human()
        }
    }

    /// Rounded to three significant figures in one readable unit, for people: `1.48 s`, `203 ms`, `2m05s`.
    pub fn human(self) -> String {
        let ns = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let figures = |value: f64, unit: &str| {
            let digits = if value >= 100.0 {
                0
            } else if value >= 10.0 {
                1
            } else {
                2
            };
            format!("{sign}{value:.digits$} {unit}")
        };
        match ns {
            0 => "0 s".into(),
            1..=999 => format!("{sign}{ns} ns"),
            1_000..=999_999 => figures(ns as f64 / 1e3, "us"),
            1_000_000..=999_499_999 => figures(ns as f64 / 1e6, "ms"),
            999_500_000..=119_999_999_999 => figures(ns as f64 / 1e9, "s"),
            _ => {
                let secs = (ns + 500_000_000) / 1_000_000_000;
                let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
                if h > 0 { format!("{sign}{h}h{m:02}m{s:02}s") } else { format!("{sign}{m}m{s:02}s") }
            }
        }
    }
}

impl std::ops::Add for Dur {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Dur {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for Dur {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, |a, b| a + b)
    }
}

impl FromStr for Dur {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = |why: &str| UnitError(format!("{text:?} is not a duration: {why}, for example 200ms, 30s or 1m30s"));
        if text == "0" {
            return Ok(Self::ZERO);
        }
        let mut rest = text;
        let mut total: i128 = 0;
        if rest.is_empty() {
            return Err(bad("write a number and a unit"));
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            if number.is_empty() || number.len() > 18 {
                return Err(bad("write a number and a unit"));
            }
            if unit.is_empty() {
                return Err(bad("the unit is missing"));
            }
            let Some(&(_, scale)) = DUR_UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(bad("units are ns, us, ms, s, m, h and d"));
            };
            let value: f64 = number.parse().map_err(|_| bad("the number is malformed"))?;
            let ns = match number.parse::<i64>() {
                Ok(whole) => i128::from(whole) * i128::from(scale),
                Err(_) => (value * scale as f64).round() as i128,
            };
            total += ns;
            rest = tail;
        }
        i64::try_from(total).map(Self).map_err(|_| bad("it is longer than 292 years"))
    }
}

impl fmt::Display for Dur {
    /// The shortest exact text: `90s` prints as `1m30s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0.unsigned_abs();
        let mut text = String::from(if self.0 < 0 { "-" } else { "" });
        for (unit, scale) in [
            ("h", 3_600_000_000_000_u64),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("us", 1_000),
            ("ns", 1),
        ] {
            if rest >= scale {
                let _ = write!(text, "{}{unit}", rest / scale);
                rest %= scale;
            }
        }
        f.pad(&text)
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad =
            || UnitError(format!("{text:?} is not a percentage: write a number and a percent sign, for example 25%"));
        let number = text.strip_suffix('%').ok_or_else(bad)?;
        let value: f64 = number.trim_end().parse().map_err(|_| bad())?;
        if value.is_finite() { Ok(Self(value)) } else { Err(bad()) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", self.0))
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || {
            UnitError(format!("{text:?} is not a size: write a number and a unit, for example 512MiB, 5GB or 4096B"))
        };
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, unit) = text.split_at(split);
        let scale: u64 = match unit {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(bad()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(scale).map(Self).ok_or_else(bad);
        }
        let value: f64 = number.parse().map_err(|_| bad())?;
        Ok(Self((value * scale as f64) as u64))
    }
}

impl fmt::Display for Size {
    /// The largest unit that divides the number exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 8] = [
            ("TiB", 1 << 40),
            ("TB", 1_000_000_000_000),
            ("GiB", 1 << 30),
            ("GB", 1_000_000_000),
            ("MiB", 1 << 20),
            ("MB", 1_000_000),
            ("KiB", 1 << 10),
            ("kB", 1_000),
        ];
        let (unit, scale) =
            UNITS.into_iter().find(|(_, s)| self.0 > 0 && self.0.is_multiple_of(*s)).unwrap_or(("B", 1));
        f.pad(&format!("{}{unit}", self.0 / scale))
    }
}

macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Dur, Percent, Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip() {
        for text in ["200ms", "1m30s", "2h", "1us", "7ns", "0s", "26h3m4s5ms6us7ns"] {
            assert_eq!(text.parse::<Dur>().unwrap().to_string(), text);
        }
        assert_eq!("1.5s".parse::<Dur>().unwrap(), Dur::from_ms(1500));
        assert_eq!("1d".parse::<Dur>().unwrap().to_string(), "24h");
    }

    #[test]
    fn durations_without_a_unit_are_refused() {
        for text in ["5", "", "s", "5 s", "5sec", "-1s", "1e3s", "99999999999999999999s", "999999999999d"] {
            assert!(text.parse::<Dur>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_percents_round_trip() {
        for text in ["512MiB", "5GB", "4097B", "1TiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("12.5%".parse::<Percent>().unwrap().to_string(), "12.5%");
        assert!("12".parse::<Percent>().is_err() && "5".parse::<Size>().is_err());
    }

    #[test]
    fn bounds_are_rounded_outwards() {
        let both = |ns: i64| (Dur::from_ns(ns).human_down(), Dur::from_ns(ns).human_up());
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(both(3_254_999_999), pair("3.25 s", "3.26 s"));
        assert_eq!(both(3_250_000_000), pair("3.25 s", "3.25 s"));
        assert_eq!(both(61_249_000_000), pair("61.2 s", "61.3 s"));
        assert_eq!(both(119_001_000_000), pair("119 s", "2m00.0s"));
        assert_eq!(both(123_048_000_000), pair("2m03.0s", "2m03.1s"));
        assert_eq!(both(3_599_990_000_000), pair("59m59.9s", "1h00m00s"));
        assert_eq!(both(3_600_000_000_001), pair("1h00m00s", "1h00m01s"));
        assert_eq!(both(999_600_000), pair("999 ms", "1.00 s"));
        assert_eq!(both(999), pair("999 ns", "999 ns"));
        assert_eq!(both(0), pair("0 s", "0 s"));
    }

    #[test]
    fn people_get_three_figures() {
        assert_eq!(Dur::from_ns(1_483_000_000).human(), "1.48 s");
        assert_eq!(Dur::from_ms(203).human(), "203 ms");
        assert_eq!(Dur::from_secs(125).human(), "2m05s");
    }
}
