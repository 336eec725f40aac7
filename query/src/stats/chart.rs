//! A chart of bars for a terminal, as wide as it is told to be, also without Unicode.

use super::Page;
use super::human::{clock, date, si};
use std::fmt::Write as _;
use tapedeck_packet::Timestamp;

/// Lines of a chart, the axis not counted.
const HEIGHT: u32 = 8;
/// Columns before the bars: a number and the axis.
const MARGIN: usize = 9;
/// Pieces of a bar's last line, in Unicode.
const EIGHTHS: [char; 9] =
    [' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];
/// Lengths of a bin in minutes: what an hour or a day is a multiple of.
const STEPS: [u64; 20] =
    [1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60, 90, 120, 180, 240, 360, 720, 1_440, 10_080];

/// Minutes of a bin, so that `minutes` fit.
pub(super) fn step(minutes: u64, page: Page) -> u64 {
    let columns = u64::try_from(page.width.saturating_sub(MARGIN + 1)).unwrap_or(1).max(1);
    // One more than fits exactly: bins begin at full steps.
    let fits = |step: &u64| minutes.div_ceil(*step) < columns;
    STEPS.into_iter().find(fits).unwrap_or_else(|| minutes.div_ceil(columns))
}

/// A bar a bin; `None` for a bin nobody watched.
pub(super) fn chart(title: &str, bins: &[(Timestamp, Option<f64>)], page: Page) -> String {
    let mut text = String::new();
    let most = bins.iter().filter_map(|(_, value)| *value).fold(0.0, f64::max);
    let axis = if page.ascii { '|' } else { '\u{2502}' };
    let _ = writeln!(text, "{title}");
    for line in (0..HEIGHT).rev() {
        let label = match line {
            _ if line == HEIGHT - 1 => si(most),
            0 => "0".to_owned(),
            _ if line == HEIGHT / 2 - 1 => si(most / 2.0),
            _ => String::new(),
        };
        let bars: String = bins.iter().map(|(_, value)| piece(*value, most, line, page.ascii)).collect();
        let _ = writeln!(text, "{label:>w$}{axis}{}", bars.trim_end(), w = MARGIN - 1);
    }
    let _ = writeln!(text, "{:w$}{}", "", ticks(bins).trim_end(), w = MARGIN);
    text
}

/// What a bar shows on a line, counted from the bottom.
fn piece(value: Option<f64>, most: f64, line: u32, ascii: bool) -> char {
    let Some(value) = value else { return if line == 0 { '?' } else { ' ' } };
    let height = if most > 0.0 { value / most * f64::from(HEIGHT) } else { 0.0 };
    let above = height - f64::from(line);
    if ascii {
        return match above {
            above if above >= 0.75 => '#',
            above if above >= 0.25 => ':',
            above if above > 0.0 && line == 0 => '.',
            _ => ' ',
        };
    }
    let eighths = (1_u32..9).filter(|n| above * 8.0 >= f64::from(*n) - 0.5).count();
    // Something is never shown as nothing.
    let eighths = if line == 0 && value > 0.0 { eighths.max(1) } else { eighths };
    EIGHTHS.get(eighths).copied().unwrap_or('\u{2588}')
}

/// Times below the axis: the date where a day begins, else the time of day.
fn ticks(bins: &[(Timestamp, Option<f64>)]) -> String {
    let mut line = String::new();
    let mut used = 0;
    let mut day = String::new();
    for (column, (from, _)) in bins.iter().enumerate() {
        let begins = date(*from) != day;
        day = date(*from);
        let label = if begins { day.clone() } else { clock(*from) };
        if (begins && column > used) || (column == 0) || column >= used + 8 {
            let _ = write!(line, "{:w$}{label}", "", w = column - line.chars().count().min(column));
            used = line.chars().count();
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(width: usize, ascii: bool) -> Page {
        Page { width, ascii, for_terminal: true }
    }

    fn bins(values: &[Option<f64>], minutes: u64) -> Vec<(Timestamp, Option<f64>)> {
        let start = 1_795_219_200_u64;
        let at = |n: u64| Timestamp::from_nanos_saturating((start + n * minutes * 60) * 1_000_000_000);
        (0..).zip(values).map(|(n, value)| (at(n), *value)).collect()
    }

    #[test]
    fn it_fits_its_width_for_any_range() {
        for width in [40, 80, 160, 400] {
            for minutes in [1, 59, 60, 61, 1_440, 1_441, 20_160, 525_600, 5_256_000] {
                let step = step(minutes, page(width, false));
                let columns = usize::try_from(minutes.div_ceil(step) + 1).unwrap();
                assert!(columns + MARGIN <= width, "{minutes} minutes on {width}: {columns} columns");
                let values = vec![Some(1.0); columns];
                let chart = chart("x", &bins(&values, step), page(width, false));
                assert!(chart.lines().skip(1).take(8).all(|line| line.chars().count() <= width));
            }
        }
    }

    #[test]
    fn with_and_without_unicode() {
        let values = [Some(0.0), Some(0.1), Some(50.0), Some(100.0), None, Some(25.0)];
        let bins = bins(&values, 60);
        let lines =
            |ascii| chart("bytes/s", &bins, page(80, ascii)).lines().map(str::to_owned).collect::<Vec<_>>();
        let unicode = [
            "bytes/s",
            "     100\u{2502}   \u{2588}",
            "        \u{2502}   \u{2588}",
            "        \u{2502}   \u{2588}",
            "        \u{2502}   \u{2588}",
            "      50\u{2502}  \u{2588}\u{2588}",
        ];
        assert_eq!(lines(false)[..6], unicode);
        assert_eq!(
            lines(false)[6..],
            [
                "        \u{2502}  \u{2588}\u{2588}",
                "        \u{2502}  \u{2588}\u{2588} \u{2588}",
                "       0\u{2502} \u{2581}\u{2588}\u{2588}?\u{2588}",
                "         11-21"
            ]
        );
        assert_eq!(lines(true)[8], "       0| .##?#");
    }
}
