//! Line plots as SVG: one vertical axis each, phases shaded behind.

use std::fmt::Write as _;

use super::escape;
use crate::measure::series::Phase;

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 28.0;
/// The width of a digit and, for there are dots too, of the room between labels.
const GLYPH: f64 = 7.0;
/// A phase narrower than this is shaded but not named.
const NAMED: f64 = 52.0;

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// Seconds, from zero to exactly the last.
    Time,
    /// By powers of ten; what is not above zero is left out.
    Log,
    /// 1/(1-p) by powers of ten: 0, 90, 99, 99.9 %.
    Percentile,
}

/// Points in order of x; a hole ends a stroke.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) points: Vec<Option<(f64, f64)>>,
}

/// A plot of up to three lines.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) x: Scale,
    pub(super) y: Scale,
    pub(super) lines: Vec<Line>,
    pub(super) phases: Vec<(Phase, f64, f64)>,
}

impl Plot {
    /// The figure; nothing when no line has a point.
    pub(super) fn render(&self) -> String {
        let points = || self.lines.iter().flat_map(|l| &l.points).flatten();
        let shown = |&&(_, y): &&(f64, f64)| self.y != Scale::Log || y > 0.0;
        // All plots of a run end with the run, whatever was read last.
        let ends = self.phases.iter().map(|phase| phase.2);
        let (Some(x), Some(y)) = (
            Axis::of(self.x, points().filter(shown).map(|p| p.0).chain(ends)),
            Axis::of(self.y, points().filter(shown).map(|p| p.1)),
        ) else {
            return String::new();
        };
        let mut svg = String::new();
        self.draw_phases(&mut svg, &x);
        draw_axes(&mut svg, &x, &y);
        let mut caption = escape(self.title);
        for (line, class) in self.lines.iter().zip(["a", "b", "c"]) {
            draw_line(&mut svg, line, class, &x, &y);
            if self.lines.len() > 1 {
                let _ = write!(
                    caption,
                    "<span class=\"key {class}\">{}</span>",
                    escape(line.name)
                );
            }
        }
        let label = escape(self.title);
        format!(
            "<figure><figcaption>{caption}</figcaption>\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">\n{svg}</svg></figure>\n"
        )
    }

    fn draw_phases(&self, svg: &mut String, x: &Axis) {
        for (number, (phase, from, to)) in self.phases.iter().enumerate() {
            let at = |value: f64| across(x.place(value).clamp(0.0, 1.0));
            let (from, to) = (at(*from), at(*to));
            let class = match phase {
                Phase::Measure => " measure",
                _ if number % 2 == 1 => " other",
                _ => "",
            };
            let name = phase.name();
            let _ = writeln!(
                svg,
                "<rect class=\"band{class}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\">\
                 <title>{name}</title></rect>",
                to - from,
                HEIGHT - TOP - BOTTOM
            );
            if to - from >= NAMED {
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
                    (from + to) / 2.0,
                    TOP - 7.0
                );
            }
        }
    }
}

fn draw_axes(svg: &mut String, x: &Axis, y: &Axis) {
    for (value, text) in y.ticks() {
        let at = down(y.place(value));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    let mut free = 0.0;
    for (value, text) in x.ticks() {
        let at = across(x.place(value));
        let half = text.len() as f64 * GLYPH / 2.0;
        // A label that would touch its neighbour or the edge is left out.
        if at - half < free || at + half > WIDTH {
            continue;
        }
        free = at + half;
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            HEIGHT - BOTTOM + 18.0
        );
    }
}

fn draw_line(svg: &mut String, line: &Line, class: &str, x: &Axis, y: &Axis) {
    for stroke in line
        .points
        .split(|point| !point.is_some_and(|p| y.shows(p.1)))
    {
        let places: Vec<(f64, f64)> = stroke
            .iter()
            .flatten()
            .map(|point| (across(x.place(point.0)), down(y.place(point.1))))
            .collect();
        match places[..] {
            [] => {}
            [(x, y)] => {
                let _ = writeln!(
                    svg,
                    "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>"
                );
            }
            _ => {
                let path: String = places
                    .iter()
                    .map(|(x, y)| format!("{x:.1},{y:.1} "))
                    .collect();
                let _ = writeln!(
                    svg,
                    "<polyline class=\"line {class}\" points=\"{}\"/>",
                    path.trim_end()
                );
            }
        }
    }
}

fn across(part: f64) -> f64 {
    LEFT + part * (WIDTH - LEFT - RIGHT)
}

fn down(part: f64) -> f64 {
    HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
}

/// What an axis shows, in its own measure: logarithms where the scale is one.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis with room for all values; none without any.
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if !low.is_finite() || !high.is_finite() {
            return None;
        }
        let (low, high) = match scale {
            Scale::Linear => (0.0, if high > 0.0 { high * 1.06 } else { 1.0 }),
            Scale::Time => (0.0, high.max(1.0)),
            Scale::Log => {
                let (low, high) = (low.log10().floor(), high.log10().ceil());
                (low, high.max(low + 1.0))
            }
            Scale::Percentile => (0.0, high.log10().max(1.0)),
        };
        Some(Self { scale, low, high })
    }

    fn shows(&self, value: f64) -> bool {
        matches!(self.scale, Scale::Linear | Scale::Time) || value > 0.0
    }

    /// 0 at the low end, 1 at the high end.
    fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear | Scale::Time => value,
            Scale::Log | Scale::Percentile => value.log10(),
        };
        (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let unit = match self.scale {
            Scale::Time => " s",
            _ => "",
        };
        if matches!(self.scale, Scale::Linear | Scale::Time) {
            let step = round_step((self.high - self.low) / 5.0);
            let count = (self.high / step).floor() as usize;
            return (0..=count)
                .map(|i| i as f64 * step)
                .map(|value| (value, amount(value) + unit))
                .collect();
        }
        (self.low.ceil() as i32..=self.high.floor() as i32)
            .map(|power| {
                let value = 10f64.powi(power);
                let text = match self.scale {
                    Scale::Percentile => percentile(power),
                    _ => amount(value),
                };
                (value, text)
            })
            .collect()
    }
}

/// The next 1, 2 or 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= least);
    factor.unwrap_or(10.0) * power
}

/// `2 M`, `300 k`, `0.5`.
fn amount(value: f64) -> String {
    let (value, unit) = match value {
        1e6.. => (value / 1e6, " M"),
        1e4.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    // Three places are enough for round steps; ends of zeros are noise.
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `0`, `90`, `99.9`, in percent.
fn percentile(nines: i32) -> String {
    match nines {
        0 => "0".to_owned(),
        1 => "90".to_owned(),
        2 => "99".to_owned(),
        more => format!("99.{}", "9".repeat(more as usize - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<Option<(f64, f64)>>, y: Scale) -> String {
        let lines = vec![Line { name: "a", points }];
        Plot {
            title: "T & t",
            x: Scale::Time,
            y,
            lines,
            phases: vec![(Phase::Measure, 0.0, 10.0)],
        }
        .render()
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::of(Scale::Linear, [3.0, 47_300.0].into_iter()).unwrap();
        let texts: Vec<String> = axis.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(texts, ["0", "20 k", "40 k"]);
        let axis = Axis::of(Scale::Log, [0.02, 7.0].into_iter()).unwrap();
        let texts: Vec<String> = axis.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(texts, ["0.01", "0.1", "1", "10"]);
        let axis = Axis::of(Scale::Percentile, [1.0, 20_000.0].into_iter()).unwrap();
        let texts: Vec<String> = axis.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(texts, ["0", "90", "99", "99.9", "99.99"]);
    }

    #[test]
    fn a_hole_parts_the_line_and_nothing_draws_nothing() {
        let points = vec![Some((0.0, 1.0)), Some((1.0, 2.0)), None, Some((3.0, 2.0))];
        let svg = plot(points, Scale::Linear);
        assert_eq!(svg.matches("<polyline").count(), 1);
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(svg.contains("T &amp; t") && svg.contains("band measure"));
        assert_eq!(plot(vec![None], Scale::Linear), "");
        assert!(svg.contains(">10 s<") && !svg.contains(">12 s<"), "{svg}");
        // Zero has no logarithm.
        assert_eq!(plot(vec![Some((0.0, 0.0))], Scale::Log), "");
        assert!(!plot(vec![Some((0.0, 0.0)), Some((1.0, 5.0))], Scale::Log).contains("NaN"));
    }
}
