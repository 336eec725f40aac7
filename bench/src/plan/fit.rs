//! What a packet costs at a size that was not measured: a + b*bytes through what was. Knows nothing of what the cost
//! is.

use serde::{Deserialize, Serialize};

/// Sizes nearer to each other are one size.
const SAME: f64 = 0.01;
/// Two sizes must differ by so much to say how a cost grows.
const APART: f64 = 0.05;

/// A figure and how far off it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Lowest.
    pub low: f64,
    /// The one to plan with.
    pub likely: f64,
    /// Highest.
    pub high: f64,
}

impl Range {
    /// Of values: lowest, median, highest; zeroes of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let edge = |fold: fn(f64, f64) -> f64| values.iter().copied().reduce(fold).unwrap_or(0.0);
        Self { low: edge(f64::min), likely: crate::search::median(values), high: edge(f64::max) }
    }

    /// Times a factor.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { low: self.low * factor, likely: self.likely * factor, high: self.high * factor }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { low: self.low + other.low, likely: self.likely + other.likely, high: self.high + other.high }
    }
}

/// How a figure came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// At this size.
    Measured,
    /// By a line through several sizes, between them.
    Between,
    /// By that line, beyond them.
    Beyond,
    /// From one other size: between all of it a packet, and all of it a byte.
    OneSize,
}

/// A cost that was measured.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Mean bytes of a packet.
    pub bytes: f64,
    /// What it cost.
    pub cost: Range,
}

/// a + b*bytes, neither below 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// A packet.
    pub packet: f64,
    /// A byte.
    pub byte: f64,
}

impl Line {
    /// Least squares.
    #[must_use]
    pub fn through(points: &[(f64, f64)]) -> Self {
        let count = points.iter().map(|_| 1.0).sum::<f64>();
        if count == 0.0 {
            return Self { packet: 0.0, byte: 0.0 };
        }
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let sxx: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let sxy: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let byte = if sxx > 0.0 { sxy / sxx } else { 0.0 };
        // Costs do not fall with bytes, and nothing costs less than nothing: the best line within these bounds lies on
        // one of them.
        if byte <= 0.0 {
            return Self { packet: y.max(0.0), byte: 0.0 };
        }
        if y - byte * x < 0.0 {
            let squares: f64 = points.iter().map(|point| point.0 * point.0).sum();
            let products: f64 = points.iter().map(|point| point.0 * point.1).sum();
            return Self { packet: 0.0, byte: products / squares };
        }
        Self { packet: y - byte * x, byte }
    }

    /// At a size.
    #[must_use]
    pub fn at(self, bytes: f64) -> f64 {
        self.packet + self.byte * bytes
    }
}

fn near(a: f64, b: f64, share: f64) -> bool {
    (a - b).abs() <= share * a.max(b)
}

/// How a cost at a size can be known from these sizes.
#[must_use]
pub fn how(sizes: &[f64], bytes: f64) -> How {
    let low = sizes.iter().copied().fold(f64::INFINITY, f64::min);
    let high = sizes.iter().copied().fold(0.0, f64::max);
    if sizes.iter().any(|size| near(*size, bytes, SAME)) {
        How::Measured
    } else if near(low, high, APART) {
        How::OneSize
    } else if (low..=high).contains(&bytes) {
        How::Between
    } else {
        How::Beyond
    }
}

/// The cost at a size.
#[must_use]
pub fn cost(points: &[Point], bytes: f64) -> Range {
    let sizes: Vec<f64> = points.iter().map(|point| point.bytes).collect();
    match how(&sizes, bytes) {
        How::Measured => {
            let there = points.iter().filter(|point| near(point.bytes, bytes, SAME));
            let all: Vec<Range> = there.map(|point| point.cost).collect();
            let likely: Vec<f64> = all.iter().map(|cost| cost.likely).collect();
            Range {
                low: all.iter().map(|cost| cost.low).fold(f64::INFINITY, f64::min),
                likely: crate::search::median(&likely),
                high: all.iter().map(|cost| cost.high).fold(0.0, f64::max),
            }
        }
        How::OneSize => {
            let all = |of: fn(&Range) -> f64| points.iter().map(|point| of(&point.cost)).collect::<Vec<_>>();
            let mean = sizes.iter().sum::<f64>() / sizes.iter().map(|_| 1.0).sum::<f64>();
            let grown = bytes / mean;
            let low = all(|cost| cost.low).into_iter().fold(f64::INFINITY, f64::min) * grown.min(1.0);
            let high = all(|cost| cost.high).into_iter().fold(0.0, f64::max) * grown.max(1.0);
            // Nothing says where between the two it lies: planned is with the dearer one.
            Range { low, likely: high, high }
        }
        How::Between | How::Beyond => {
            let line = |of: fn(&Range) -> f64| {
                Line::through(&points.iter().map(|p| (p.bytes, of(&p.cost))).collect::<Vec<_>>())
            };
            let middle = line(|cost| cost.likely);
            // How far a point lies beside the line, as a share of it: so much is added to both edges.
            let off = |point: &Point| {
                let fitted = middle.at(point.bytes);
                if fitted > 0.0 { (point.cost.likely - fitted).abs() / fitted } else { 0.0 }
            };
            let off = points.iter().map(off).fold(0.0, f64::max);
            let likely = middle.at(bytes);
            let low = line(|cost| cost.low).at(bytes).min(likely) * (1.0 - off).max(0.0);
            let high = line(|cost| cost.high).at(bytes).max(likely) * (1.0 + off);
            Range { low, likely, high }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(bytes: f64, cost: f64) -> Point {
        Point { bytes, cost: Range { low: cost, likely: cost, high: cost } }
    }

    #[test]
    fn a_line_goes_through_two_sizes() {
        // 100 ns a packet and half a nanosecond a byte.
        let points = [point(60.0, 130.0), point(1_000.0, 600.0)];
        let between = cost(&points, 500.0);
        assert!((between.likely - 350.0).abs() < 1e-9 && between.low == between.likely, "{between:?}");
        assert_eq!(how(&[60.0, 1_000.0], 500.0), How::Between);
        assert_eq!(how(&[60.0, 1_000.0], 1_500.0), How::Beyond);
        assert!((cost(&points, 1_500.0).likely - 850.0).abs() < 1e-9);
    }

    #[test]
    fn what_does_not_lie_on_the_line_widens_the_range() {
        // Through (0,1) (1,2) (2,6): slope 2.5, at 0 0.5; the first is off by 0.5 of 0.5, the second by 1 of 3.
        let line = Line::through(&[(0.0, 1.0), (1.0, 2.0), (2.0, 6.0)]);
        assert_eq!(line, Line { packet: 0.5, byte: 2.5 });
        let points = [point(100.0, 100.0), point(200.0, 220.0), point(300.0, 300.0)];
        // Slope 1, at 200 206.67: the second is off by 13.33 / 206.67.
        let at = cost(&points, 250.0);
        assert!((at.likely - 256.666_666).abs() < 1e-3, "{at:?}");
        assert!((at.high / at.likely - 1.0 - 13.333_333 / 206.666_666).abs() < 1e-6, "{at:?}");
    }

    #[test]
    fn the_scatter_of_trials_stays_with_its_size() {
        // 30 to 50 at 100 bytes, exactly 200 at 1,000: half way between 115 to 125.
        let wide = Point { bytes: 100.0, cost: Range { low: 30.0, likely: 40.0, high: 50.0 } };
        let at = cost(&[wide, point(1_000.0, 200.0)], 550.0);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(at.low, 115.0) && near(at.likely, 120.0) && near(at.high, 125.0), "{at:?}");
    }

    #[test]
    fn neither_part_of_a_line_is_below_nothing() {
        assert_eq!(Line::through(&[(1.0, 5.0), (3.0, 3.0)]), Line { packet: 4.0, byte: 0.0 });
        // Least squares alone would begin at -2.
        assert_eq!(Line::through(&[(1.0, 0.0), (2.0, 2.0)]), Line { packet: 0.0, byte: 0.8 });
    }

    #[test]
    fn one_size_gives_a_range_and_the_dearer_end() {
        let points = [Point { bytes: 500.0, cost: Range { low: 90.0, likely: 100.0, high: 110.0 } }];
        assert_eq!(cost(&points, 1_000.0), Range { low: 90.0, likely: 220.0, high: 220.0 });
        assert_eq!(cost(&points, 250.0), Range { low: 45.0, likely: 110.0, high: 110.0 });
        assert_eq!(cost(&points, 502.0), points[0].cost);
        assert_eq!(how(&[500.0], 502.0), How::Measured);
    }
}
