//! How a training went: the result file of a job, step by step, thinned to what a chart can show.
//!
//! Source: OpenAI's guide and Azure's (2026): CSV with a head; columns differ between providers and times, so they are
//! read by their names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most points that are kept.
pub const MAX_POINTS: usize = 200;
/// Most columns beside the step: more are of another kind of file.
const MAX_FIGURES: usize = 16;

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The step, counted from 1.
    pub step: u64,
    /// Its figures by the file's own names, such as `train_loss`.
    #[serde(flatten)]
    pub figures: BTreeMap<String, f64>,
}

/// Reads a result file. What is no number is left out; a file that is none has no points.
pub fn read(csv: &str) -> Vec<Point> {
    let mut lines = csv.trim_start_matches('\u{feff}').lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').map(str::trim).collect();
    let Some(step_at) = head.iter().position(|name| *name == "step") else { return Vec::new() };
    if head.len() > MAX_FIGURES + 1 {
        return Vec::new();
    }
    let point = |line: &str| {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let step = cells.get(step_at)?.parse().ok()?;
        let figures = head.iter().zip(&cells).filter(|(name, _)| **name != "step" && !name.is_empty());
        let number = |(name, cell): (&&str, &&str)| {
            let figure = cell.parse::<f64>().ok().filter(|figure| figure.is_finite())?;
            Some(((*name).to_owned(), figure))
        };
        Some(Point { step, figures: figures.filter_map(number).collect() })
    };
    thinned(lines.filter_map(point).collect())
}

/// At most [`MAX_POINTS`] of them, evenly; the last one stays.
fn thinned(points: Vec<Point>) -> Vec<Point> {
    let every = points.len().div_ceil(MAX_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    // counted from the end
    points
        .into_iter()
        .enumerate()
        .filter(|(at, _)| (last - at).is_multiple_of(every))
        .map(|(_, point)| point)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_by_their_names() {
        let openai = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,1.52347,0.0,,\n2,0.5,1,0.75,nan\n";
        let points = read(openai);
        assert_eq!(points.len(), 2);
        assert_eq!(points[0].figures.get("train_loss"), Some(&1.52347));
        assert_eq!(points[0].figures.get("valid_loss"), None, "an empty cell is none");
        assert_eq!(points[1].figures.get("valid_mean_token_accuracy"), None, "no number");
        assert_eq!(
            serde_json::json!(points[1]).to_string(),
            r#"{"step":2,"train_accuracy":1.0,"train_loss":0.5,"valid_loss":0.75}"#
        );
        for none in ["", "a,b\n1,2", "<html>", "step,train_loss\nx,1"] {
            assert_eq!(read(none), [], "{none}");
        }
    }

    #[test]
    fn a_long_training_keeps_its_end() {
        for steps in [1, 199, 200, 201, 1_999, 100_000] {
            let lines: String = (1..=steps).map(|step| format!("{step},0.5\n")).collect();
            let points = read(&format!("\u{feff}step,train_loss\r\n{lines}"));
            assert!((1..=MAX_POINTS).contains(&points.len()), "{steps}: {}", points.len());
            assert_eq!(points.last().map(|point| point.step), Some(steps));
        }
    }
}
