//! What a beat and an agent cost the tracker by how many agents there are, as rows and as a drawing in `docs/agents.svg`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Fallible;
use crate::table::{Reach, Row};
use crate::tracker::{Cost, YARDSTICK};

const COUNTS: [(u32, &str, Reach); 6] = [
    (10, "10", Reach::NONE),
    (100, "100", Reach::NONE),
    (1_000, "1,000", Reach::NONE),
    (10_000, "10,000", Reach::NONE),
    (100_000, "100,000", Reach::NONE),
    (1_000_000, "1,000,000", Reach { text: "≤ 2.5", holds: |compared| compared.ratio <= 2.5 }),
];

/// The drawing and the field of a panel in it, in pixels.
const WIDTH: u32 = 720;
const HEIGHT: u32 = 572;
const LEFT: u32 = 76;
const FIELD_WIDTH: u32 = 600;
const FIELD_HEIGHT: u32 = 190;
/// From its sides to the first and the last point.
const INSET: u32 = 30;

/// What a browser shows on white and on black: greys that are seen on either, and inks that are told apart on either.
const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #57606a; }
.title { font-weight: 600; fill: #24292f; }
.grid { stroke: #d0d7de; stroke-width: 1; }
.line { fill: none; stroke-width: 2; }
.ours { stroke: #0969da; } .yardstick { stroke: #9a6700; }
.dot { stroke: none; } .dot.ours, tspan.ours { fill: #0969da; stroke: none; }
.dot.yardstick, tspan.yardstick { fill: #9a6700; stroke: none; }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1; } .title { fill: #f0f6fc; } .grid { stroke: #3d444d; }
.ours { stroke: #4493f8; } .yardstick { stroke: #d29922; }
.dot.ours, tspan.ours { fill: #4493f8; } .dot.yardstick, tspan.yardstick { fill: #d29922; }
}
";

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let costs = COUNTS.iter().map(|(count, ..)| Cost::of(*count)).collect::<Fallible<Vec<_>>>()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agents.svg");
    fs::write(path, draw(&costs))?;
    let row = |((_, name, reach), cost): (&(u32, &str, Reach), &Cost)| {
        let work = format!("tracker with {name} agents of {:.0} bytes, a beat", cost.memory);
        Row::new(work, &cost.beat, YARDSTICK, |nanos| format!("{} ns", show(nanos)), *reach)
    };
    Ok(COUNTS.iter().zip(&costs).map(row).collect())
}

/// With a decimal where less than that is told apart.
fn show(figure: f64) -> String {
    if figure < 9.95 { format!("{figure:.1}") } else { format!("{figure:.0}") }
}

/// The drawing: the same figures make the same bytes.
fn draw(costs: &[Cost]) -> String {
    let of = |figure: fn(&Cost) -> f64| costs.iter().map(figure).collect::<Vec<_>>();
    let time = Panel {
        top: 40,
        title: "a beat at the tracker, in nanoseconds",
        lines: vec![
            Line { name: "a beat", class: "ours", values: of(|cost| cost.beat.ours) },
            Line { name: YARDSTICK, class: "yardstick", values: of(|cost| cost.beat.yardstick) },
        ],
    };
    let memory = Panel {
        top: 324,
        title: "memory of the tracker for each agent, in bytes",
        lines: vec![Line { name: "an agent", class: "ours", values: of(|cost| cost.memory) }],
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"time for a beat and memory for an agent, by the number of agents\">\n\
         <style>\n{STYLE}</style>\n{}{}\
         </svg>\n",
        time.draw(),
        memory.draw(),
    )
}

/// Figures by the number of agents: each step to the right is ten times as many.
struct Panel {
    /// Where its field begins.
    top: u32,
    title: &'static str,
    lines: Vec<Line>,
}

struct Line {
    name: &'static str,
    /// As what it is drawn, see [`STYLE`].
    class: &'static str,
    values: Vec<f64>,
}

impl Panel {
    fn draw(&self) -> String {
        let highest = self.lines.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max);
        let step = step_for(highest);
        // With room for the number above the highest.
        let steps = (highest * 1.1 / step).ceil().max(1.0);
        let y_of =
            |value: f64| f64::from(self.top) + f64::from(FIELD_HEIGHT) * (1.0 - value / (step * steps));
        let x_of = |place: usize| {
            let width = f64::from(FIELD_WIDTH - 2 * INSET);
            f64::from(LEFT + INSET) + width * place as f64 / (COUNTS.len() - 1) as f64
        };
        let mut out = String::new();
        // Writing into memory does not fail.
        let _ =
            writeln!(out, "<text class=\"title\" x=\"{LEFT}\" y=\"{}\">{}</text>", self.top - 14, self.title);
        let mut value = 0.0;
        while value <= step * steps * 1.001 {
            let y = y_of(value);
            let right = LEFT + FIELD_WIDTH;
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>"
            );
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                LEFT - 10,
                y + 4.5
            );
            value += step;
        }
        for (place, (_, name, _)) in COUNTS.iter().enumerate() {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
                x_of(place),
                self.top + FIELD_HEIGHT + 22
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">agents that are tracked</text>",
            LEFT + FIELD_WIDTH / 2,
            self.top + FIELD_HEIGHT + 42
        );
        for line in &self.lines {
            let places = line.values.iter().enumerate().map(|(place, value)| (x_of(place), y_of(*value)));
            let points: Vec<String> = places.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let class = line.class;
            let _ = writeln!(out, "<polyline class=\"line {class}\" points=\"{}\"/>", points.join(" "));
            let mut before = f64::INFINITY;
            for ((x, y), value) in places.zip(&line.values) {
                let _ =
                    writeln!(out, "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
                // On the side on which the line does not come from above.
                let (x, anchor) = if *value < before { (x - 3.0, "start") } else { (x + 3.0, "end") };
                let number = format!("<tspan class=\"{class}\">{}</tspan>", show(*value));
                let above = y - 9.0;
                let _ = writeln!(
                    out,
                    "<text x=\"{x:.1}\" y=\"{above:.1}\" text-anchor=\"{anchor}\">{number}</text>"
                );
                before = *value;
            }
        }
        self.draw_legend(&mut out);
        out
    }

    /// What the lines are, beside the title and from the right.
    fn draw_legend(&self, out: &mut String) {
        let x = LEFT + FIELD_WIDTH;
        let names: Vec<String> = self
            .lines
            .iter()
            .map(|Line { name, class, .. }| format!("<tspan class=\"{class}\">{name}</tspan>"))
            .collect();
        let names = names.join(" · ");
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{}\" text-anchor=\"end\">{names}</text>", self.top - 14);
    }
}

/// The distance of the lines of a scale up to `highest`: 1, 2 or 5 times a power of ten, and two and a half to five of them.
fn step_for(highest: f64) -> f64 {
    let power = 10_f64.powf((highest.max(1.0) / 4.0).log10().floor());
    let fits = |factor: &f64| highest / (factor * power) >= 2.5;
    power * [10.0, 5.0, 2.0, 1.0].into_iter().find(fits).unwrap_or(1.0)
}
