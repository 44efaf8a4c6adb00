//! What `GET /metrics` says, taken apart: text format 0.0.4, read strictly.

use std::collections::BTreeMap;
use std::fmt;

/// A series' labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// As written: a histogram's ends in `_bucket`, `_sum` or `_count`.
    pub(crate) name: String,
    pub(crate) labels: Labels,
    /// As written.
    pub(crate) text: String,
}

impl Sample {
    pub(crate) fn value(&self) -> f64 {
        number(&self.text).expect("checked when it was read")
    }

    /// The value of a label; empty where it is not there, as for Prometheus.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Dollars in nano-dollars.
    pub(crate) fn nanos(&self) -> i128 {
        nanos(&self.text).unwrap_or_else(|| panic!("no amount: {self}"))
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, braces(&self.labels))
    }
}

/// All samples of one metric.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    pub(crate) name: String,
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Exposition(pub(crate) Vec<Family>);

impl Exposition {
    /// Reads it. Each family must have its help and type before its samples, and no series may be there twice.
    #[track_caller]
    pub(crate) fn read(text: &str) -> Self {
        let mut families: Vec<Family> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(!families.iter().any(|family| family.name == name), "told twice: {name}");
                families.push(Family {
                    name: name.to_owned(),
                    kind: String::new(),
                    help: help.to_owned(),
                    samples: Vec::new(),
                });
                continue;
            }
            let family = families.last_mut().unwrap_or_else(|| panic!("a line before any # HELP: {line}"));
            if let Some(kind) = line.strip_prefix(&format!("# TYPE {} ", family.name)) {
                kind.clone_into(&mut family.kind);
                continue;
            }
            let sample = sample(line).unwrap_or_else(|| panic!("no sample: {line}"));
            let suffixes: &[&str] =
                if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            let is_its_own =
                sample.name.strip_prefix(&family.name).is_some_and(|end| suffixes.contains(&end));
            assert!(is_its_own && !family.kind.is_empty(), "{sample} stands below {}", family.name);
            assert!(seen.insert(sample.to_string()), "twice: {sample}");
            family.samples.push(sample);
        }
        Self(families)
    }

    pub(crate) fn family(&self, name: &str) -> Option<&Family> {
        self.0.iter().find(|family| family.name == name)
    }

    /// The samples of one name that have these labels, others aside.
    pub(crate) fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let all = self.0.iter().flat_map(|family| &family.samples);
        let is_meant = |sample: &&Sample| {
            sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == *value)
        };
        all.filter(is_meant).collect()
    }

    /// Their sum.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).into_iter().map(Sample::value).sum()
    }

    /// Their sum in nano-dollars.
    pub(crate) fn nanos(&self, name: &str, labels: &[(&str, &str)]) -> i128 {
        self.samples(name, labels).into_iter().map(Sample::nanos).sum()
    }

    /// How many series there are.
    pub(crate) fn series(&self) -> usize {
        self.0.iter().map(|family| family.samples.len()).sum()
    }
}

/// `{a="b",c="d"}`, or nothing.
pub(crate) fn braces(labels: &Labels) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn sample(line: &str) -> Option<Sample> {
    let (series, text) = line.rsplit_once(' ')?;
    number(text)?;
    let (name, mut rest) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
        None => (series, ""),
    };
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (label, quoted) = rest.split_once("=\"")?;
        let (value, end) = unquote(quoted)?;
        if labels.insert(label.to_owned(), value).is_some() {
            return None;
        }
        rest = &quoted[end..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(Sample { name: name.to_owned(), labels, text: text.to_owned() })
}

/// A value up to its closing quote, and where it ends behind that.
fn unquote(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, at + 1)),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        other => other.parse().ok(),
    }
}

/// A decimal number of dollars in nano-dollars: exact, and nothing where a figure is smaller than that.
pub(crate) fn nanos(text: &str) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if part.len() > 9 {
        return None;
    }
    let nanos: i128 = format!("{part:0<9}").parse().ok()?;
    Some(sign * (whole.parse::<i128>().ok()? * 1_000_000_000 + nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exposition_is_taken_apart_and_written_again() {
        let text = "# HELP a_total What it is.\n# TYPE a_total counter\na_total 3\n\
                    # HELP b Another.\n# TYPE b histogram\nb_bucket{le=\"+Inf\",x=\"a\\\"b,\\\\}\"} 1\nb_sum{x=\"y\"} 0.000000001\n";
        let read = Exposition::read(text);
        assert_eq!(read.series(), 3);
        let bucket = &read.0[1].samples[0];
        assert_eq!((bucket.label("x"), bucket.label("le")), ("a\"b,\\}", "+Inf"));
        assert_eq!(bucket.to_string(), "b_bucket{le=\"+Inf\",x=\"a\\\"b,\\\\}\"}");
        assert_eq!((read.sum("a_total", &[]), read.nanos("b_sum", &[("x", "y")])), (3.0, 1));
    }

    #[test]
    fn amounts_are_exact() {
        let cases = [
            ("0", Some(0)),
            ("1", Some(1_000_000_000)),
            ("0.1", Some(100_000_000)),
            ("-2.5", Some(-2_500_000_000)),
        ];
        for (text, want) in cases.into_iter().chain([("0.0000000001", None), ("1e3", None), ("", None)]) {
            assert_eq!(nanos(text), want, "{text}");
        }
    }
}
