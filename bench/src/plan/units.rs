//! Numbers as buyers write them: `100G` of a link, `16T` of a disk, `30%`. Pure text to number, and back.
//!
//! Units are decimal, as links and disks are sold: a disk of `16T` holds 16e12 bytes. (`--segment-size` of `tapedeck`
//! is binary; nothing here is a size of a file.)

/// The scale behind a number.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim()))
}

fn positive(number: f64, error: &str) -> Result<f64, String> {
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err(error.to_owned()) }
}

/// Bits a second: `100G`, `25Gbit/s`, `2.5G`, `10000000000`.
///
/// # Errors
/// Anything else, and 0.
pub fn bit_rate(text: &str) -> Result<f64, String> {
    let error = "a link such as 10G or 100G is wanted: bits a second";
    let (number, unit) = split(text).ok_or(error)?;
    let scale = match unit.trim_end_matches("bit/s").trim_end_matches("bps") {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        _ => return Err(error.to_owned()),
    };
    positive(number * scale, error)
}

/// Bytes, decimal unless an `i` says otherwise: `16T`, `16TB`, `14.5TiB`, `250M`.
///
/// # Errors
/// Anything else, and 0.
pub fn bytes(text: &str) -> Result<f64, String> {
    let error = "bytes such as 250M or 16T are wanted; units are decimal, TiB and the like are binary";
    let (number, unit) = split(text).ok_or(error)?;
    let scale = match unit.trim_end_matches("/s") {
        "" | "B" => 1.0,
        "k" | "K" | "kB" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "T" | "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(error.to_owned()),
    };
    positive(number * scale, error)
}

/// A share above 0, up to 1: `30%`, `0.3`.
///
/// # Errors
/// Anything else.
pub fn share(text: &str) -> Result<f64, String> {
    let error = "a share such as 30% or 0.3 is wanted, up to 100%";
    let (number, unit) = split(text).ok_or(error)?;
    let share = match unit {
        "%" => number / 100.0,
        "" => number,
        _ => return Err(error.to_owned()),
    };
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err(error.to_owned()) }
}

/// A share that may be 0 and is below 1.
///
/// # Errors
/// Anything else.
pub fn spare(text: &str) -> Result<f64, String> {
    match text.trim().trim_end_matches('%') {
        "0" => Ok(0.0),
        _ => share(text).and_then(|share| if share < 1.0 { Ok(share) } else { Err("below 100%".to_owned()) }),
    }
}

/// A number above 0.
///
/// # Errors
/// Anything else.
pub fn above_zero(text: &str) -> Result<f64, String> {
    let error = "a number above 0 is wanted";
    positive(text.trim().parse().map_err(|_| error)?, error)
}

/// With three digits and a decimal prefix, for a unit to follow: `1.25 G`, `500 `.
#[must_use]
pub fn si(value: f64) -> String {
    let scales = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // 999.6 is not `1000`, but the next prefix.
    let scale = scales.into_iter().find(|(scale, _)| value >= scale * 0.9995);
    let (number, unit) = scale.map_or((value, ""), |(scale, unit)| (value / scale, unit));
    let digits = if number >= 99.95 {
        0
    } else if number >= 9.995 {
        1
    } else {
        2
    };
    format!("{number:.digits$} {unit}")
}

/// Bytes of a store, decimal and binary: `16.0 TB (14.6 TiB)`.
#[must_use]
pub fn capacity(bytes: f64) -> String {
    let unit = if bytes >= 999.5e9 { ("TB", 1e12, "TiB", 40) } else { ("GB", 1e9, "GiB", 30) };
    let (decimal, scale, binary, bits) = unit;
    format!("{:.1} {decimal} ({:.1} {binary})", bytes / scale, bytes / f64::exp2(f64::from(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_decimal() {
        assert_eq!(bit_rate("100G"), Ok(1e11));
        assert_eq!(bit_rate("2.5 Gbit/s"), Ok(2.5e9));
        assert_eq!(bytes("16T"), Ok(16e12));
        assert_eq!(bytes("250M"), Ok(250e6));
        assert_eq!(bytes("1TiB"), Ok(1_099_511_627_776.0));
        assert_eq!(share("30%"), Ok(0.3));
        assert_eq!(share("0.3"), Ok(0.3));
        assert_eq!(spare("0%"), Ok(0.0));
        for wrong in ["", "G", "0", "-1G", "1X", "1.2.3G", "inf"] {
            assert!(bit_rate(wrong).is_err(), "{wrong}");
        }
        assert!(bytes("0").is_err() && bytes("5 pints").is_err());
        assert!(share("130%").is_err() && share("0").is_err() && spare("100%").is_err());
    }

    #[test]
    fn numbers_are_said_with_three_digits() {
        let said = [999.6, 12_345.0, 4.2e6, 1.234e9, 0.5].map(si);
        assert_eq!(said, ["1.00 k", "12.3 k", "4.20 M", "1.23 G", "0.50 "]);
        assert_eq!(capacity(16e12), "16.0 TB (14.6 TiB)");
        assert_eq!(capacity(250e9), "250.0 GB (232.8 GiB)");
    }
}
