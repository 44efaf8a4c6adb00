//! Evaluation: rows with known answers are asked of several models, what they say is measured, and the models are compared
//! row by row. A gate says in words whether one of them may take another's place.
//!
//! A measure is a number from 0 to 1 for each row that it is for (a judge's mark: 1 to 5). Only loss is better where it is
//! lower, and only a local worker can tell it: elsewhere it is missing, and the report says so.

pub mod case;
pub mod gate;
pub mod general;
pub mod interval;
pub mod judge;
pub mod markdown;
pub mod measure;
pub mod report;
pub mod said;
pub mod sample;
pub mod schema;
pub mod words;

pub use case::Case;
pub use gate::{Gate, Rule, Verdict};
pub use interval::Estimate;
pub use measure::{Measure, Scores};
pub use report::{Kept, Part, Report};
pub use said::Said;
pub use schema::Schema;
