//! Durations and sizes as people type them.

use super::raw::wanted;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A duration as typed: `"25s"`, `"500ms"`, `"1h30m"`, `"0"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawDuration(pub Duration);

impl RawDuration {
    /// Whole seconds.
    pub const fn from_secs(seconds: u64) -> RawDuration {
        RawDuration(Duration::from_secs(seconds))
    }

    /// Reads `1h30m`, `10m`, `25s`, `500ms` or `0`. At most a hundred years, so that sums of durations cannot overflow.
    pub fn parse(text: &str) -> Option<RawDuration> {
        const MILLIS_MAX: u64 = 100 * 366 * 24 * 3_600_000;
        if text == "0" {
            return Some(RawDuration::default());
        }
        let (mut rest, mut millis) = (text, 0u64);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let number: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let letters = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            let unit = match &rest[..letters] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return None,
            };
            rest = &rest[letters..];
            millis = millis.checked_add(number.checked_mul(unit)?)?;
        }
        (!text.is_empty() && millis <= MILLIS_MAX)
            .then(|| RawDuration(Duration::from_millis(millis)))
    }
}

impl fmt::Display for RawDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            0 => f.write_str("0"),
            n if n % 3_600_000 == 0 => write!(f, "{}h", n / 3_600_000),
            n if n % 60_000 == 0 => write!(f, "{}m", n / 60_000),
            n if n % 1_000 == 0 => write!(f, "{}s", n / 1_000),
            n => write!(f, "{n}ms"),
        }
    }
}

impl std::str::FromStr for RawDuration {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<RawDuration, Self::Err> {
        RawDuration::parse(text).ok_or(DURATION)
    }
}

const DURATION: &str = "a duration such as \"500ms\", \"25s\", \"10m\", \"1h\" or \"0\"";

impl Serialize for RawDuration {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RawDuration, D::Error> {
        struct Kind;
        impl Visitor<'_> for Kind {
            type Value = RawDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(DURATION)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<RawDuration, E> {
                RawDuration::parse(text).ok_or_else(|| wanted(Unexpected::Str(text), &self))
            }
            /// Zero needs no unit; any other number does.
            fn visit_i64<E: Error>(self, n: i64) -> Result<RawDuration, E> {
                match n {
                    0 => Ok(RawDuration::default()),
                    _ => Err(wanted(Unexpected::Signed(n), &self)),
                }
            }
        }
        from.deserialize_any(Kind)
    }
}

/// A number of bytes as typed: `65536`, `"64KiB"`, `"1MiB"`, `"2GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// Reads `65536`, `64KiB`, `1MiB` or `2GiB`. Powers of ten (`kB`, `MB`) are refused: they are meant seldom and typed often.
    pub fn parse(text: &str) -> Option<Size> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let number: u64 = text[..digits].parse().ok()?;
        let unit = match text[digits..].trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        // TOML's integers are i64; so is the bound of ours.
        number
            .checked_mul(unit)
            .filter(|n| i64::try_from(*n).is_ok())
            .map(Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n > 0 && n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n > 0 && n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n if n > 0 && n % (1 << 10) == 0 => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Size, D::Error> {
        struct Kind;
        impl Visitor<'_> for Kind {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes such as 65536, \"64KiB\", \"1MiB\" or \"2GiB\"")
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<Size, E> {
                u64::try_from(n)
                    .map(Size)
                    .map_err(|_| wanted(Unexpected::Signed(n), &self))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).ok_or_else(|| wanted(Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("0", 0),
            ("500ms", 500),
            ("25s", 25_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("1h30m5s", 5_405_000),
        ] {
            assert_eq!(
                RawDuration::parse(text),
                Some(RawDuration(Duration::from_millis(millis))),
                "{text}"
            );
        }
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "1.5s",
            "5d",
            "5S",
            "99999999999999999999s",
            "9999999999h",
            "1é",
        ] {
            assert_eq!(RawDuration::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn writes_durations_as_it_reads_them() {
        for text in ["0", "500ms", "25s", "10m", "1h"] {
            assert_eq!(RawDuration::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("64KiB", 65_536),
            ("1 MiB", 1 << 20),
            ("2GiB", 2 << 30),
            ("7B", 7),
        ] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for bad in ["", "KiB", "1MB", "1k", "-1", "1.5MiB", "99999999999GiB"] {
            assert_eq!(Size::parse(bad), None, "{bad}");
        }
    }
}
