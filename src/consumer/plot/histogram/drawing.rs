use super::{Chart, HistogramPlot};
use crate::consumer::plot::axis::{Axis, Quantity, grouped};
use crate::consumer::plot::svg::{Anchor, Area, Drawing, TEXT_PX, TITLE_PX, Theme, fitted, fitted_name, text_width};

const MARGIN: f64 = 24.0;
const GUTTER: f64 = 66.0;
const PANEL_WIDTH_MIN: f64 = 270.0;
/// Width, with its space, of the bar for seconds at zero on a logarithmic axis.
const ZERO: f64 = 30.0;
const ZERO_BAR: f64 = 12.0;
/// Height of a bar of one second: a burst must not hide.
const BAR_MIN: f64 = 2.0;
const TIPS_MAX: usize = 600;

impl HistogramPlot<'_> {
    pub fn svg(&self, theme: Option<Theme>, width: u32) -> String {
        let width = f64::from(width);
        let is_small = self.series.len() > 1;
        let side_by_side = match self.series.len() {
            ..=2 => 1,
            3..=8 => 2,
            _ => 3,
        };
        let across = side_by_side.min((width / PANEL_WIDTH_MIN) as usize).max(1);
        let panel_width = ((width - MARGIN) / across as f64 - GUTTER).max(60.0);
        let (height, pitch) = match self.series.len() {
            0 | 1 => (290.0, 290.0),
            2 => (170.0, 252.0),
            _ => (84.0, 148.0),
        };
        let bars_max = (panel_width / if is_small { 5.0 } else { 8.0 }) as usize;
        let charts = self.charts(bars_max, (panel_width / 70.0) as usize, (height / 40.0) as usize + 1);

        let mut drawing = Drawing::new(width, self.name());
        drawing.description = self.description();
        let room = width - 2.0 * MARGIN;
        drawing.text((MARGIN, 34.0), "title", Anchor::Start, &fitted_name(&self.name(), TITLE_PX, room));
        drawing.text((MARGIN, 54.0), "muted", Anchor::Start, &fitted(&self.subtitle(), TEXT_PX, room));
        let rows = charts.first().filter(|_| !is_small).map_or(0, |chart| mark_rows(chart, panel_width));
        let top = 100.0 + MARK_ROW * rows as f64;
        let area = |at: usize| Area {
            left: GUTTER + (at % across) as f64 * (panel_width + GUTTER),
            top: top + (at / across) as f64 * pitch,
            width: panel_width,
            height,
        };
        let tips = charts.iter().map(|chart| chart.bars.bars.len()).sum::<usize>() <= TIPS_MAX;
        for (at, chart) in charts.iter().enumerate() {
            draw_chart(&mut drawing, chart, area(at), is_small, tips);
        }
        let bottom = area((charts.len().max(1) - 1) / across * across).bottom() + 52.0;
        if charts.is_empty() {
            draw_empty(&mut drawing, Area { top: 84.0, ..area(0) });
        }
        let caption = match self.series {
            [] => String::new(),
            [series] => series.coverage(),
            _ => "Each bar: the seconds whose rate was in its range".to_owned(),
        };
        drawing.text((MARGIN, bottom), "tick", Anchor::Start, &fitted(&caption, 11.0, room));
        drawing.height = bottom + 18.0;
        drawing.finish(theme)
    }
}

fn draw_empty(drawing: &mut Drawing, area: Area) {
    drawing.line((area.left, area.bottom()), (area.right(), area.bottom()), "axis");
    let (x, y) = (area.x(0.5), area.y(0.5));
    drawing.text((x, y - 4.0), "title muted halo", Anchor::Middle, "No rates in this span");
    let hint = "Is the agent's [rates] on, and does the consumer store highwater.rates?";
    drawing.text((x, y + 18.0), "muted halo", Anchor::Middle, hint);
}

fn draw_chart(drawing: &mut Drawing, chart: &Chart<'_>, area: Area, is_small: bool, tips: bool) {
    let Chart { series, bars, counts, .. } = chart;
    drawing.begin_group(&format!("{}: {}", series.names().join(" "), series.in_words()));
    if is_small {
        let words = series.max().map_or("no data".to_owned(), |max| format!("max {}", Quantity::BitRate.show(max)));
        let room = area.width - text_width(&words, 11.0) - 12.0;
        drawing.text((area.left, area.top - 12.0), "head", Anchor::Start, &fitted_name(&chart.name, TEXT_PX, room));
        drawing.text((area.right(), area.top - 12.0), "tick", Anchor::End, &words);
    }
    drawing.value_grid(area, counts);
    let height = |seconds: f64| {
        let height = counts.scale.place(seconds) * area.height;
        if seconds > 0.0 { height.max(BAR_MIN) } else { 0.0 }
    };
    let class = match series.direction.as_str() {
        "rx" => "rx",
        "tx" => "tx",
        _ => "total",
    };
    let rates = if bars.axis.unit.is_empty() {
        Area { left: area.left + ZERO, width: area.width - ZERO, ..area }
    } else {
        area
    };
    if let Some(seconds) = bars.below {
        let height = height(seconds);
        let bar = Area { left: area.left + 4.0, top: area.bottom() - height, width: ZERO_BAR, height };
        drawing.rectangle(bar, class, &format!("no traffic: {} s", grouped(seconds, 0)));
    }
    if bars.axis.unit.is_empty() {
        drawing.text((area.left + 4.0 + ZERO_BAR / 2.0, area.bottom() + 17.0), "tick", Anchor::Middle, "0");
    }
    for bar in bars.bars.iter().filter(|bar| bar.seconds > 0.0) {
        let (left, right) = (rates.x(bars.axis.scale.place(bar.from)), rates.x(bars.axis.scale.place(bar.to)));
        let height = height(bar.seconds);
        let tip = if tips {
            let rate = |rate: f64| Quantity::BitRate.show(rate.round() as u64);
            format!("{} to {}: {} s", rate(bar.from), rate(bar.to), grouped(bar.seconds.ceil(), 0))
        } else {
            String::new()
        };
        let gap = if right - left > 4.0 { 1.0 } else { 0.3 };
        let place = Area { left: left + gap / 2.0, top: area.bottom() - height, width: right - left - gap, height };
        drawing.rectangle(place, class, &tip);
    }
    draw_rates(drawing, &bars.axis, area, rates);
    if !is_small {
        draw_marks(drawing, chart, rates);
    }
    if series.max().is_none() {
        drawing.text((area.x(0.5), area.y(0.5)), "muted halo", Anchor::Middle, "No rates in this span");
    }
    drawing.end_group();
}

fn draw_rates(drawing: &mut Drawing, axis: &Axis, area: Area, rates: Area) {
    let bottom = area.bottom();
    drawing.line((area.left, bottom), (area.right(), bottom), "axis");
    let mut free = if axis.unit.is_empty() { area.left + 4.0 + ZERO_BAR } else { f64::NEG_INFINITY };
    for tick in &axis.ticks {
        let x = rates.x(axis.scale.place(tick.value));
        drawing.line((x, bottom), (x, bottom + 4.0), "axis");
        let is_last = axis.ticks.last() == Some(tick);
        let label =
            if is_last && !axis.unit.is_empty() { format!("{} {}", tick.label, axis.unit) } else { tick.label.clone() };
        let half = text_width(&label, 11.0) / 2.0;
        let anchor = if is_last && x + half > area.right() + 8.0 { Anchor::End } else { Anchor::Middle };
        let x = if anchor == Anchor::End { area.right() + 8.0 } else { x };
        let left = if anchor == Anchor::End { x - 2.0 * half } else { x - half };
        if left < free {
            continue;
        }
        free = left + 2.0 * half + 4.0;
        drawing.text((x, bottom + 17.0), "tick", anchor, &label);
    }
}

const MARK_ROW: f64 = 15.0;

/// Returns where the names of percentiles begin, and in which row above the bars.
fn mark_places(chart: &Chart<'_>, width: f64) -> Vec<(f64, usize)> {
    let mut ends = [f64::NEG_INFINITY; 4];
    let place = |(name, rate): (&str, u64)| {
        let length = text_width(&mark(name, rate), 11.0);
        let left = (chart.bars.axis.place(rate) * width - length / 2.0).clamp(-30.0, width - length);
        let row = ends.iter().position(|end| left >= *end).unwrap_or(3);
        ends[row] = left + length + 8.0;
        (left, row)
    };
    chart.series.marks().into_iter().map(place).collect()
}

fn mark_rows(chart: &Chart<'_>, width: f64) -> usize {
    mark_places(chart, width).into_iter().map(|(_, row)| row + 1).max().unwrap_or(0)
}

fn mark(name: &str, rate: u64) -> String {
    format!("{name} {}", Quantity::BitRate.show(rate))
}

fn draw_marks(drawing: &mut Drawing, chart: &Chart<'_>, area: Area) {
    let places = mark_places(chart, area.width);
    let marks = || chart.series.marks().into_iter().zip(&places);
    let height = |row: usize| area.top - 16.0 - MARK_ROW * row as f64;
    for ((_, rate), (_, row)) in marks() {
        let x = area.x(chart.bars.axis.place(rate));
        drawing.line((x, height(*row) + 4.0), (x, area.bottom()), "mark");
    }
    // Names come last, so that no line crosses them.
    for ((name, rate), (left, row)) in marks() {
        let place = (area.left + left, height(*row));
        drawing.text(place, "tick strong halo", Anchor::Start, &mark(name, rate));
    }
}
