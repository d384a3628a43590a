//! Pictures of what is stored: pure drawing over the rows of [`report`](super::report), as SVG, as PNG of that same SVG, and as
//! text in a terminal.
//!
//! ```text
//!                              ┌─► svg ─► png
//!  rows ─► rate, histogram, ───┤
//!          totals + axis       └─► screen
//! ```
//!
//! A picture never says more than was measured: seconds that were not are holes, and no line joins what is on both sides of one. A
//! picture without data says so.

mod axis;
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
