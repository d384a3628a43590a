//! A recorded series: its rows, in order and in time, the readings that they are, and where these go.

pub mod csv;
mod csv_lines;
mod encoding;
mod order;
pub mod rows;
pub mod sample;
pub mod streams;
pub mod summary;
mod text;
mod times;
