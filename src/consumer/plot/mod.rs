//! Pictures of what is stored, drawn from the rows of [`report`](super::report): SVG, PNG of that SVG, or text in a terminal.
//! ```text
//!                              ┌─► svg ─► png
//!  rows ─► rate, histogram, ───┤
//!          totals + axis       └─► screen
//! ```
//! A picture never shows more than was measured: no line crosses the holes, and one without data says that it has none.

mod axis;
mod ellipsis;
mod histogram;
mod png;
mod rate;
mod screen;
mod svg;
#[cfg(test)]
mod tests;
mod time_axis;
mod totals;

pub use self::histogram::{Distribution, HistogramPlot};
pub use self::png::{PngError, png};
pub use self::rate::{LimitLine, RatePlot, RateSeries};
pub use self::screen::{Page, WIDTH_MIN};
pub use self::svg::Theme;
pub use self::time_axis::time_span;
pub use self::totals::{TotalBar, TotalsPlot};
