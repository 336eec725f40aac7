//! Sizes, durations, levels and CPU lists as operators write them. Pure text to number.

use std::time::Duration;
use tapedeck_writer::{Level, SEGMENT_BYTES_MIN};

/// A text that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct UnitError {
    text: String,
    wanted: &'static str,
}

/// Bytes: `1073741824`, `512MiB`, `1GiB`, `2GB`, `64k`.
///
/// # Errors
/// Not a number with such a unit, 0, or more than u64 holds.
pub fn size_bytes(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError { text: text.to_owned(), wanted: "a size such as 512MiB or 1GiB" };
    let (number, unit) = split(text);
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(scale).filter(|bytes| *bytes > 0).ok_or_else(error)
}

/// Memory in which packets of a queue wait, bytes, 2 MiB to 4 GiB.
///
/// # Errors
/// [`UnitError`].
pub fn packet_memory(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError { text: text.to_owned(), wanted: "a size from 2MiB to 4GiB" };
    size_bytes(text).ok().filter(|bytes| (2 << 20..=4 << 30).contains(bytes)).ok_or_else(error)
}

/// Size of a segment: as [`size_bytes`], at least [`SEGMENT_BYTES_MIN`].
///
/// # Errors
/// Anything else.
pub fn segment_bytes(text: &str) -> Result<u64, UnitError> {
    let wanted = "a segment size of 1MiB or more: a segment holds at least a whole frame";
    let bytes = size_bytes(text)?;
    if bytes < SEGMENT_BYTES_MIN { Err(UnitError { text: text.to_owned(), wanted }) } else { Ok(bytes) }
}

/// A duration: `90` (seconds), `500ms`, `60s`, `5m`, `2h`, `1d`, and sums such as `1h30m`.
///
/// # Errors
/// Anything else, 0, or more than u64 milliseconds.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError { text: text.to_owned(), wanted: "a duration such as 90s, 5m or 1h30m" };
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = split(rest);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(end).ok_or_else(error)?;
        let scale_ms = match unit.trim() {
            "ms" => 1,
            "s" | "sec" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if next.is_empty() && rest.len() == text.trim().len() => 1_000,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        let part = number.checked_mul(scale_ms).ok_or_else(error)?;
        total_ms = total_ms.checked_add(part).ok_or_else(error)?;
        rest = next;
    }
    if total_ms == 0 { Err(error()) } else { Ok(Duration::from_millis(total_ms)) }
}

/// A compression level: `auto`, `off`, or -7 to 19.
///
/// # Errors
/// Anything else.
pub fn level(text: &str) -> Result<Level, UnitError> {
    match text {
        "auto" => Ok(Level::Auto),
        "off" => Ok(Level::Off),
        number => match number.parse() {
            Ok(level @ -7..=19) => Ok(Level::Fixed(level)),
            _ => Err(UnitError { text: text.to_owned(), wanted: "auto, off, or a level from -7 to 19" }),
        },
    }
}

/// A list of CPUs: `2`, `0,2,4`, `4-7,9`.
///
/// # Errors
/// Anything else, and numbers above 1023.
pub fn cpus(text: &str) -> Result<Vec<usize>, UnitError> {
    let error = || UnitError { text: text.to_owned(), wanted: "a list of CPUs such as 2-5,8" };
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|cpu| *cpu < 1024).ok_or_else(error);
    let mut list = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => list.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(error());
                }
                list.extend(first..=last);
            }
        }
    }
    Ok(list)
}

/// Leading digits and what follows them, without blanks around.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("1", 1), ("1GiB", 1 << 30), ("512 MiB", 512 << 20), ("64k", 64 << 10), ("2GB", 2_000_000_000)]
        {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "GiB", "1.5GiB", "-1", "1 GiB x", "99999999999TiB"] {
            assert!(size_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn segments_have_a_least_size() {
        assert_eq!(segment_bytes("1MiB"), Ok(SEGMENT_BYTES_MIN));
        for text in ["1048575", "64KiB", "1MB", "1"] {
            let error = segment_bytes(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("1MiB or more"), "{error}");
        }
        assert!(segment_bytes("big").unwrap_err().to_string().contains("a size such as"));
    }

    #[test]
    fn durations() {
        for (text, ms) in
            [("90", 90_000), ("500ms", 500), ("60s", 60_000), ("1h30m", 5_400_000), ("2 h", 7_200_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "0", "s", "1x", "1h30", "-5s", "5 s 3", "99999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn levels_and_cpus() {
        assert_eq!(level("auto"), Ok(Level::Auto));
        assert_eq!(level("-7"), Ok(Level::Fixed(-7)));
        assert!(level("20").is_err() && level("fast").is_err());
        assert_eq!(cpus("4-6,9"), Ok(vec![4, 5, 6, 9]));
        assert_eq!(cpus("0"), Ok(vec![0]));
        for text in ["", "3-1", "a", "1,,2", "4096"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }
}
