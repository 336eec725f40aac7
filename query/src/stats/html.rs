//! One self-contained page: plots as inline SVG, tables, what departs. Nothing is loaded from anywhere, nothing
//! runs; text from packets is escaped.

use super::human::{clock, date, float, minute, si};
use super::odd::{expected, head, query, sentence};
use super::summary::{Line, Sum, Summary, per_second};
use super::text::{TABLES, length, name};
use super::{Judged, Page, StatsAsk, chart};
use crate::range::Span;
use std::fmt::Write as _;
use tapedeck_packet::escape::html as escaped;
use tapedeck_session::stats::{Dimension, NANOS_PER_MINUTE};

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#59636e;--line:#d1d9e0;--bar:#2f6f9f;--gap:#d9822b;--page:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9198a1;--line:#3d444d;--bar:#6cb0e0;--gap:#e0a35c;--page:#0d1117}}
@media print{:root{--ink:#000;--dim:#444;--line:#bbb;--bar:#2f6f9f;--gap:#d9822b;--page:#fff}section,figure,tr,li{break-inside:avoid}}
*{box-sizing:border-box}body{margin:0 auto;max-width:70rem;padding:1.5rem;background:var(--page);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:1.8rem 0 .5rem}p{margin:.2rem 0}.dim,figcaption{color:var(--dim)}
figure{margin:1rem 0}svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font:11px system-ui,sans-serif}
.bar{fill:var(--bar)}.gap{fill:var(--gap);opacity:.45}.axis{stroke:var(--line)}
.tables{display:grid;grid-template-columns:repeat(auto-fit,minmax(25rem,1fr));gap:0 2rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{padding:.15rem .4rem;text-align:right;border-bottom:1px solid var(--line);font-weight:normal}
td:first-child,th:first-child{text-align:left;overflow-wrap:anywhere}th{color:var(--dim)}
ol{padding-left:1.4rem}li{margin:.7rem 0}code{display:block;margin-top:.2rem;font-size:13px;overflow-wrap:anywhere;white-space:pre-wrap;color:var(--dim)}
@media(max-width:32rem){.tables{grid-template-columns:1fr}}
";

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 48.0;
/// Which number of a sum.
type Number = fn(&Sum) -> u64;

/// Bars of a plot, at most.
const BARS: usize = 240;

pub(super) fn page(ask: &StatsAsk, summary: &Summary, judged: &Judged) -> String {
    let mut text = String::new();
    let names: Vec<String> =
        summary.interfaces.iter().map(|(name, sensor)| format!("{name} on {sensor}")).collect();
    let span = summary.span().unwrap_or(judged.span);
    let minutes = (span.to.nanos() - span.from.nanos()) / NANOS_PER_MINUTE;
    let when = format!("{} to {} UTC", minute(span.from), minute(span.to));
    let _ = write!(
        text,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Traffic, {}</title><style>{STYLE}</style></head><body>\n<h1>Traffic of {}</h1>\n\
         <p>{}; {} of {minutes} minutes watched</p>\n",
        escaped(&when),
        escaped(&names.join(", ")),
        escaped(&when),
        summary.watched_minutes(),
    );
    text.push_str(&sums(summary));
    let step = chart::step(minutes, Page { width: BARS, ascii: true, for_terminal: false });
    let bins = summary.bins(step);
    let plots: [(&str, Number); 3] =
        [("Bytes", |sum| sum.bytes), ("Packets", |sum| sum.packets), ("New sessions", |sum| sum.sessions)];
    for (title, of) in plots {
        text.push_str(&plot(&format!("{title} per second, {} a bar", length(step)), &bins, of));
    }
    text.push_str(&findings(ask, judged));
    text.push_str("<h2>What it was made of</h2>\n<div class=\"tables\">\n");
    for (dimension, title, unit) in TABLES {
        let (lines, all) = summary.lines(dimension, ask.top);
        if !lines.is_empty() {
            text.push_str(&table(dimension, &format!("{title}, by {unit}"), &lines, all));
        }
    }
    let _ = write!(
        text,
        "</div>\n<p class=\"dim\">Times are UTC. Top lists of hosts are sketches: the true number lies between the two that \
         are shown. Numbers of hosts are estimates. Made by taperead {}.</p>\n</body></html>\n",
        env!("CARGO_PKG_VERSION")
    );
    text
}

fn sums(summary: &Summary) -> String {
    let Sum { packets, bytes, sessions, failed, resets, .. } = summary.total;
    let (sources, destinations) = summary.hosts();
    format!(
        "<p>{} packets, {}B, {} new sessions; {} failed handshakes, {} TCP resets; about {} sources and {} \
         destinations</p>\n",
        si(float(packets)),
        si(float(bytes)),
        si(float(sessions)),
        si(float(failed)),
        si(float(resets)),
        si(sources.round()),
        si(destinations.round())
    )
}

/// Bars over time; what nobody watched is a band of its own colour.
fn plot(title: &str, bins: &[(Span, Option<(Sum, u64)>)], of: Number) -> String {
    let value = |bin: &Option<(Sum, u64)>| bin.as_ref().map(|(sum, watched)| per_second(of(sum), *watched));
    let most = bins.iter().filter_map(|(_, bin)| value(bin)).fold(0.0, f64::max);
    let width = (WIDTH - LEFT) / float(u64::try_from(bins.len().max(1)).unwrap_or(1));
    let mut svg = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{}\">",
        escaped(title),
        HEIGHT + 22.0,
        escaped(title)
    );
    for (share, label) in [(0.0, "0".to_owned()), (0.5, si(most / 2.0)), (1.0, si(most))] {
        let y = 6.0 + (HEIGHT - 6.0) * (1.0 - share);
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{WIDTH}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 5.0,
            y + 4.0
        );
    }
    let mut free_from = 0.0;
    let mut day = String::new();
    let mut x = LEFT;
    for (span, bin) in bins {
        let (class, height) = match value(bin) {
            Some(value) => ("bar", if most > 0.0 { value / most * (HEIGHT - 6.0) } else { 0.0 }),
            None => ("gap", HEIGHT - 6.0),
        };
        let gap = if width > 3.0 { 0.7 } else { 0.0 };
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.2}\" height=\"{height:.1}\"><title>{}: {}</title></rect>",
            HEIGHT - height,
            width - gap,
            minute(span.from),
            value(bin).map_or_else(|| "not watched".to_owned(), si),
        );
        let begins = date(span.from) != day;
        day = date(span.from);
        if x >= free_from && (begins || x >= free_from + 50.0) {
            let label = if begins { day.clone() } else { clock(span.from) };
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{:.0}\">{label}</text>", HEIGHT + 16.0);
            free_from = x + 46.0;
        }
        x += width;
    }
    svg.push_str("</svg></figure>\n");
    svg
}

fn findings(ask: &StatsAsk, judged: &Judged) -> String {
    let mut text = String::from("<section><h2>What departs from the habits</h2>\n");
    for line in head(judged).lines() {
        let _ = writeln!(text, "<p>{}</p>", escaped(line));
    }
    text.push_str("<ol>\n");
    for finding in &judged.answer.findings {
        let _ = writeln!(
            text,
            "<li><strong>{}</strong><br>{} to {}, {}<br><span class=\"dim\">{}</span><code>{}</code></li>",
            escaped(&sentence(finding)),
            minute(finding.from.start()),
            minute(finding.to.start()),
            escaped(&finding.interface),
            escaped(&expected(finding)),
            escaped(&query(ask, finding))
        );
    }
    text.push_str("</ol></section>\n");
    text
}

fn table(dimension: Dimension, title: &str, lines: &[Line], all: usize) -> String {
    let most = lines.iter().map(|line| line.at_least).max().unwrap_or_default().max(1);
    let rest = if all > lines.len() { format!(" ({} of {all})", lines.len()) } else { String::new() };
    let mut text = format!("<section><h2>{}{rest}</h2><table>", escaped(title));
    let bounds = lines.iter().any(|line| line.at_least != line.at_most);
    text.push_str(if bounds { "<tr><th></th><th></th><th>at least</th><th>at most</th></tr>" } else { "" });
    for line in lines {
        let _ = write!(
            text,
            "<tr><td>{}</td><td style=\"width:6rem\"><svg viewBox=\"0 0 90 10\" style=\"width:90px\"><rect class=\"bar\" \
             height=\"10\" width=\"{:.1}\"/></svg></td><td>{}</td>",
            escaped(&name(dimension, &line.key)),
            90.0 * float(line.at_least) / float(most),
            si(float(line.at_least))
        );
        if bounds {
            let _ = write!(text, "<td>{}</td>", si(float(line.at_most)));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</table></section>\n");
    text
}
