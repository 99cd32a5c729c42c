//! The picture of a replay: the gaps between beats beside the times after which a silence would have been found out,
//! and the mistakes in the course of time.

use std::error::Error as StdError;
use std::ops::Range;
use std::time::Duration;

use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement};
use plotters::prelude::SVGBackend;
use plotters::series::LineSeries;
use plotters::style::{BLACK, Color, RED, RGBColor, WHITE};

use crate::services::recording::plot_data::PlotData;
use crate::services::recording::quantiles::Quantiles;

/// In pixels.
const SIZE: (u32, u32) = (960, 720);
/// The height of the upper of the two diagrams.
const UPPER: i32 = 400;
/// Colours that people who cannot tell red from green can tell apart.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(213, 94, 0);
const FONT: (&str, i32) = ("sans-serif", 15);

type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;
type Drawn = Result<(), Box<dyn StdError + Send + Sync>>;

/// What is drawn.
#[derive(Debug)]
pub(super) struct Plot<'p> {
    pub(super) data: &'p PlotData,
    /// The times from a last beat to the verdict.
    pub(super) detection: &'p Quantiles,
    /// How many mistakes there were.
    pub(super) mistakes: u64,
    /// The policy in words.
    pub(super) policy: &'p str,
    /// The length of the recording.
    pub(super) span: Duration,
}

impl Plot<'_> {
    /// The picture as SVG.
    ///
    /// # Errors
    ///
    /// What the drawing library cannot do.
    pub(super) fn to_svg(&self) -> Result<String, Box<dyn StdError + Send + Sync>> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            area.fill(&WHITE)?;
            let (upper, lower) = area.split_vertically(UPPER);
            self.draw_tails(&upper)?;
            self.draw_mistakes(&lower)?;
            area.present()?;
        }
        Ok(svg)
    }

    /// Which part of the gaps, and of the deadlines, are longer than a time.
    fn draw_tails(&self, area: &Area<'_>) -> Drawn {
        let (gaps, deadlines) = (self.data.gaps.tail(), self.detection.tail());
        let all = || gaps.iter().chain(&deadlines);
        let times = bounds(all().map(|(time, _)| *time), 0.001..10.0);
        let shares = bounds(all().map(|(_, share)| *share), 0.001..1.0);
        let mut chart = ChartBuilder::on(area)
            .caption(format!("Gaps between beats, and deadlines: {}", self.policy), FONT)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(times.log_scale(), (shares.start..1.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("time after a beat in seconds")
            .y_desc("share that lasts longer")
            .x_label_formatter(&|time| number(*time))
            .y_label_formatter(&|share| number(*share))
            .draw()?;
        for (name, points, colour) in [("gaps", gaps, BLUE), ("deadlines", deadlines, ORANGE)] {
            let legend = move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2));
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?.label(name).legend(legend);
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        Ok(())
    }

    /// When there were mistakes, and how long each lasted.
    fn draw_mistakes(&self, area: &Area<'_>) -> Drawn {
        let points: Vec<_> = self
            .data
            .mistakes
            .iter()
            .map(|mistake| (mistake.at.as_secs_f64(), positive(mistake.lasted)))
            .collect();
        let title = match (self.mistakes, points.len() as u64) {
            (0, _) => "No mistakes".to_owned(),
            (1, _) => "1 mistake".to_owned(),
            (all, drawn) if all > drawn => format!("{all} mistakes, of which the first {drawn} are drawn"),
            (all, _) => format!("{all} mistakes"),
        };
        let lasted = bounds(points.iter().map(|(_, lasted)| *lasted), 0.001..1.0);
        let end = self.span.as_secs_f64().max(1.0);
        let mut chart = ChartBuilder::on(area)
            .caption(title, FONT)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..end, lasted.log_scale())?;
        chart
            .configure_mesh()
            .x_desc("time since the first beat in seconds")
            .y_desc("lasted, in seconds")
            .y_label_formatter(&|lasted| number(*lasted))
            .draw()?;
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, RED.filled())))?;
        Ok(())
    }
}

/// The time in seconds, and not 0, of which there is no logarithm.
fn positive(time: Duration) -> f64 {
    time.as_secs_f64().max(1e-9)
}

/// Whole decades about these numbers; `otherwise` without any.
fn bounds(numbers: impl Iterator<Item = f64>, otherwise: Range<f64>) -> Range<f64> {
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for number in numbers.filter(|number| *number > 0.0) {
        (least, most) = (least.min(number), most.max(number));
    }
    if most == 0.0 {
        return otherwise;
    }
    let (from, to) = (least.log10().floor(), most.log10().ceil());
    10_f64.powf(from)..10_f64.powf(if to > from { to } else { from + 1.0 })
}

/// A number on an axis, without noughts that say nothing.
fn number(number: f64) -> String {
    if (0.0001..100_000.0).contains(&number) {
        let text = format!("{number:.4}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    format!("{number:e}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::MonoTime;
    use crate::domain::beat::{KeyId, Origin, RemoteEndpoint, Sender};

    fn data(mistakes: u64) -> PlotData {
        let mut data = PlotData::default();
        let at = |millis| MonoTime::from_millis(millis);
        let lane = RemoteEndpoint { port: 0, key: KeyId(0) };
        let sender = Sender { origin: Origin::Local, pid: 7, lane };
        for beat in 0..10 {
            data.beat(sender, at(1_000 + beat * 100));
        }
        for mistake in 0..mistakes {
            data.mistake(at(1_500 + mistake), Duration::from_millis(20));
        }
        data
    }

    fn svg(data: &PlotData, mistakes: u64) -> String {
        let mut detection = Quantiles::default();
        detection.add(Duration::from_secs(5));
        let span = Duration::from_secs(60);
        Plot { data, detection: &detection, mistakes, policy: "fixed <5s>", span }.to_svg().unwrap()
    }

    #[test]
    fn a_picture_has_both_curves_each_mistake_and_the_policy_in_words() {
        let picture = svg(&data(3), 3);
        assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"), "{picture}");
        assert_eq!(picture.matches("<circle").count(), 3);
        for text in ["gaps", "deadlines", "fixed &lt;5s&gt;", "3 mistakes"] {
            assert!(picture.contains(text), "{text} in {picture}");
        }
        assert!(picture.contains("#0072B2") && picture.contains("#D55E00"));
    }

    #[test]
    fn a_recording_without_beats_and_mistakes_has_a_picture_too() {
        let picture = svg(&PlotData::default(), 0);
        assert!(picture.contains("No mistakes"), "{picture}");
        assert!(svg(&data(1), 20_000).contains("20000 mistakes, of which the first 1 are drawn"));
    }

    #[test]
    fn axes_have_whole_decades() {
        assert_eq!(bounds([0.0, 0.02, 3.0].into_iter(), 1.0..2.0), 0.01..10.0);
        assert_eq!(bounds([0.1].into_iter(), 1.0..2.0), 0.1..1.0);
        assert_eq!(bounds([].into_iter(), 1.0..2.0), 1.0..2.0);
        assert_eq!(
            (number(0.001), number(10.0), number(1e-7)),
            ("0.001".into(), "10".into(), "1e-7".to_owned())
        );
    }
}
