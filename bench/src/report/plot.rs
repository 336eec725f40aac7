//! Plots as inline SVG. What is drawn also stands in a table of the page; each mark has its figures as its title.

use crate::plan::units::si;
use std::fmt::Write as _;
use tapedeck_packet::escape::html as escaped;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
/// Height of the plot's own field.
const FIELD: f64 = 200.0;
/// Colours there are; further series take them again.
const COLOURS: usize = 8;

/// Where a value lies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// From one power of ten to another.
    Log(f64, f64),
}

impl Scale {
    /// From 0 to a round number not below this.
    pub(super) fn linear(most: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let power = 10_f64.powf(most.log10().floor());
        let round = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|n| n * power).find(|n| *n >= most * 0.9999);
        Self::Linear(round.unwrap_or(most))
    }

    /// Powers of ten around all of these; not positive ones do not count.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        let positive = values.filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = positive.fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        if high <= 0.0 {
            return Self::Log(0.0, 1.0);
        }
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        Self::Log(low, if high > low { high } else { low + 1.0 })
    }

    /// 0 to 1; outside values lie on the edge.
    pub(super) fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear(most) => value / most,
            Self::Log(low, high) => (value.max(f64::MIN_POSITIVE).log10() - low) / (high - low),
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Values to write at the axis.
    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(most) => [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| share * most).to_vec(),
            Self::Log(low, high) => {
                let step = ((high - low) / 8.0).ceil().max(1.0);
                let mut ticks = Vec::new();
                let mut power = low;
                while power <= high + 0.01 {
                    ticks.push(10_f64.powf(power));
                    power += step;
                }
                ticks
            }
        }
    }
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis<'a> {
    pub(super) scale: Scale,
    /// Unit behind the number.
    pub(super) unit: &'a str,
}

impl Axis<'_> {
    fn say(self, value: f64) -> String {
        let number = si(value);
        let short = number.replace(".00", "").replace(".0 ", " ");
        if self.unit.is_empty() { short.trim().to_owned() } else { format!("{short}{}", self.unit) }
    }
}

/// Points of one name.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// x, y, and what is said of it.
    pub(super) points: Vec<(f64, f64, String)>,
    /// A mark at each point, not only the line.
    pub(super) marks: bool,
}

fn open(title: &str, height: f64) -> String {
    let title = escaped(title);
    format!(
        "<figure><figcaption>{title}</figcaption><svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} \
         {height:.0}\" role=\"img\" aria-label=\"{title}\">"
    )
}

/// Names with their colours, from `x` on, in lines of their own where there are many.
fn legend(svg: &mut String, names: &[String], y: f64) {
    let (mut x, mut y) = (LEFT, y);
    for (number, name) in names.iter().enumerate() {
        let width = 26.0 + 6.5 * crate::machine::ratio(u64::try_from(name.chars().count()).unwrap_or(0), 1);
        if x + width > WIDTH - RIGHT && x > LEFT {
            (x, y) = (LEFT, y + 16.0);
        }
        let _ = write!(
            svg,
            "<rect class=\"s{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            number % COLOURS,
            y - 9.0,
            x + 14.0,
            escaped(name)
        );
        x += width;
    }
}

/// Room that a legend takes.
fn legend_height(names: &[String]) -> f64 {
    let letters: usize = names.iter().map(|name| name.chars().count() + 4).sum();
    16.0 * (crate::machine::ratio(u64::try_from(letters).unwrap_or(0), 110) + 1.0).ceil()
}

/// Lines with marks.
pub(super) fn lines(title: &str, x: Axis<'_>, y: Axis<'_>, series: &[Series]) -> String {
    let names: Vec<String> = series.iter().map(|one| one.name.clone()).collect();
    let mut svg = open(title, HEIGHT + legend_height(&names));
    let field = WIDTH - LEFT - RIGHT;
    let at_x = |value: f64| LEFT + field * x.scale.place(value);
    let at_y = |value: f64| TOP + FIELD * (1.0 - y.scale.place(value));
    for tick in y.scale.ticks() {
        let at = at_y(tick);
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.0}\" y2=\"{at:.1}\"/><text x=\"{:.0}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 5.0,
            at + 4.0,
            escaped(&y.say(tick))
        );
    }
    for tick in x.scale.ticks() {
        // The outermost ones stay inside.
        let anchor = match x.scale.place(tick) {
            place if place < 0.02 => "start",
            place if place > 0.98 => "end",
            _ => "middle",
        };
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"{anchor}\">{}</text>",
            at_x(tick),
            TOP + FIELD + 18.0,
            escaped(&x.say(tick))
        );
    }
    for (number, one) in series.iter().enumerate() {
        let colour = number % COLOURS;
        let path: Vec<String> =
            one.points.iter().map(|(a, b, _)| format!("{:.1},{:.1}", at_x(*a), at_y(*b))).collect();
        let _ = write!(svg, "<polyline class=\"l{colour}\" points=\"{}\"/>", path.join(" "));
        let marked: &[(f64, f64, String)] = if one.marks { &one.points } else { &[] };
        for (a, b, said) in marked {
            let _ = write!(
                svg,
                "<circle class=\"s{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{}</title></circle>",
                at_x(*a),
                at_y(*b),
                escaped(said)
            );
        }
    }
    legend(&mut svg, &names, TOP + FIELD + 42.0);
    svg.push_str("</svg></figure>\n");
    svg
}

/// A bar of parts.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    /// Part: which of the names, how much.
    pub(super) parts: Vec<(usize, f64)>,
}

/// Bars, one under the other; `names` are those of the parts.
pub(super) fn bars(title: &str, say: impl Fn(f64) -> String, names: &[String], bars: &[Bar]) -> String {
    const ROW: f64 = 34.0;
    let rows = bars.iter().map(|_| ROW).sum::<f64>();
    let mut svg = open(title, rows + 12.0 + legend_height(names));
    let sum = |bar: &Bar| bar.parts.iter().map(|(_, value)| value.max(0.0)).sum::<f64>();
    let most = bars.iter().map(sum).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let field = WIDTH - RIGHT - 110.0;
    let mut y = 0.0;
    for bar in bars {
        let _ = write!(svg, "<text x=\"0\" y=\"{:.1}\">{}</text>", y + 12.0, escaped(&bar.name));
        let mut x = 0.0;
        for (which, value) in &bar.parts {
            let width = field * value.max(0.0) / most;
            let name = names.get(*which).map_or("", String::as_str);
            let _ = write!(
                svg,
                "<rect class=\"s{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"13\"><title>{}: {}</title></rect>",
                which % COLOURS,
                y + 16.0,
                escaped(name),
                escaped(&say(*value))
            );
            x += width;
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 5.0,
            y + 27.0,
            escaped(&say(sum(bar)))
        );
        y += ROW;
    }
    if names.len() > 1 {
        legend(&mut svg, names, rows + 20.0);
    }
    svg.push_str("</svg></figure>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_bounded() {
        let linear = Scale::linear(1.7e6);
        assert!(matches!(linear, Scale::Linear(most) if (most - 2e6).abs() < 1.0), "{linear:?}");
        assert!((linear.place(1e6) - 0.5).abs() < 1e-9 && linear.place(9e9) == 1.0);
        let log = Scale::log([96.0, 2e5, 0.0, f64::NAN].into_iter());
        assert!(matches!(log, Scale::Log(low, high) if low == 1.0 && high == 6.0), "{log:?}");
        assert!((log.place(1e3) - 0.4).abs() < 1e-9 && log.place(0.0) == 0.0);
        assert!(
            matches!(Scale::log(std::iter::empty()), Scale::Log(..))
                && Scale::linear(f64::NAN).place(0.5) <= 1.0
        );
    }
}
