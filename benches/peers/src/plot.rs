//! One bar plot per table, as SVG: a bar to each median, a tick at each minimum, a dashed line at the goal.
//!
//! The axis is logarithmic where the figures span more than twentyfold. Thermocline's bars have a colour of their own.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use crate::goals::goal;
use crate::report::{file_stem, short, title};
use crate::samples::{Measure, Results, Row};

const WIDTH: u32 = 860;
const ROW_HEIGHT: u32 = 34;
const FRAME_HEIGHT: u32 = 110; // title, axis and its words
const SPAN_LINEAR_MAX: f64 = 20.0;
const TEXT: (&str, i32) = ("sans-serif", 14);

const OURS: RGBColor = RGBColor(0, 114, 178); // Okabe and Ito's blue and grey, told apart by everybody
const OTHERS: RGBColor = RGBColor(170, 170, 170);
const GOAL: RGBColor = RGBColor(213, 94, 0);

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws every table that has rows.
pub fn write_all(dir: &Path, results: &Results) -> Result<()> {
    for measure in Measure::ALL {
        let rows = results.rows(measure);
        if !rows.is_empty() {
            let file = dir.join(format!("{}.svg", file_stem(measure)));
            let bound = goal(measure, results).bound;
            draw(&file, &Plot { title: title(measure, results), unit: measure.unit(), rows: &rows, bound })?;
        }
    }
    Ok(())
}

/// Draws one table.
pub fn draw(file: &Path, plot: &Plot) -> Result<()> {
    plot.write(file).map_err(|error| anyhow!("drawing {}: {error}", plot.title))
}

/// What a plot shows.
pub struct Plot<'a> {
    pub title: String,
    pub unit: &'static str,
    pub rows: &'a [Row],
    /// Where the goal is, if there is one.
    pub bound: Option<f64>,
}

impl Plot<'_> {
    fn write(&self, file: &Path) -> Result<()> {
        let size = (WIDTH, FRAME_HEIGHT + ROW_HEIGHT * self.rows.len() as u32);
        let canvas = SVGBackend::new(file, size).into_drawing_area();
        canvas.fill(&WHITE)?;
        let figures = || self.rows.iter().flat_map(|row| [row.runs.min(), row.runs.median()]).chain(self.bound);
        let largest = figures().fold(f64::MIN_POSITIVE, f64::max);
        let smallest = figures().filter(|figure| *figure > 0.0).fold(largest, f64::min);
        if largest > SPAN_LINEAR_MAX * smallest {
            let from = 10_f64.powf(smallest.log10().floor() - 0.3);
            self.bars(&canvas, (from..largest * 3.0).log_scale(), from)?;
        } else {
            self.bars(&canvas, 0.0..largest * 1.15, 0.0)?;
        }
        Ok(canvas.present()?)
    }

    fn bars<X>(&self, canvas: &Canvas, axis: X, from: f64) -> Result<()>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let count = self.rows.len() as f64;
        let goal = if self.bound.is_some() { ", dashed: goal" } else { "" };
        let mut chart = ChartBuilder::on(canvas)
            .caption(&self.title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(45)
            .y_label_area_size(170)
            .build_cartesian_2d(axis, 0.0..count)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .y_labels(0)
            .light_line_style(TRANSPARENT)
            .label_style(TEXT)
            .x_label_formatter(&|figure| tick(*figure))
            .x_desc(format!("{}; bar: median, tick: minimum{goal}", self.unit))
            .draw()?;

        for (index, row) in self.rows.iter().enumerate() {
            let (low, high) = (count - index as f64 - 0.85, count - index as f64 - 0.15);
            let (min, median) = (row.runs.min().max(from), row.runs.median().max(from));
            let colour = if row.is_ours() { OURS } else { OTHERS };
            chart.draw_series([Rectangle::new([(from, low), (median, high)], colour.filled())])?;
            chart.draw_series([PathElement::new([(min, low), (min, high)], BLACK)])?;
            self.write_row(canvas, chart.backend_coord(&(from, low.midpoint(high))), &row.name(), Side::Left)?;
            let figure = short(row.runs.median());
            self.write_row(canvas, chart.backend_coord(&(median, low.midpoint(high))), &figure, Side::Right)?;
        }
        if let Some(bound) = self.bound {
            let line = DashedPathElement::new([(bound, 0.0), (bound, count)], 6, 4, GOAL.stroke_width(2));
            chart.draw_series([line])?;
        }
        Ok(())
    }

    fn write_row(&self, canvas: &Canvas, at: (i32, i32), words: &str, side: Side) -> Result<()> {
        use plotters::style::text_anchor::{HPos, Pos, VPos};
        let (anchor, distance) = match side {
            Side::Left => (HPos::Right, -6),
            Side::Right => (HPos::Left, 6),
        };
        let style = TEXT.into_text_style(canvas).pos(Pos::new(anchor, VPos::Center));
        Ok(canvas.draw(&Text::new(words.to_owned(), (at.0 + distance, at.1), style))?)
    }
}

/// The words under a line of the grid: a round figure without its zeros.
fn tick(figure: f64) -> String {
    if figure >= 1000.0 { short(figure) } else { format!("{}", (figure * 1e6).round() / 1e6) }
}

/// Of a point, where words about it stand.
enum Side {
    Left,
    Right,
}
