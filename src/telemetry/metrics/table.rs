//! Gauges that are replaced all at once: who scrapes sees all of the old ones or all of the new ones, and what is no
//! longer there has no series.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::declare::{Declaration, Declared};

/// A family of such gauges. A clone is another handle to the same one.
#[derive(Clone)]
pub(super) struct Table {
    desc: Desc,
    rows: Arc<ArcSwap<Vec<Metric>>>,
}

impl Table {
    /// Replaces all rows: each has the values of the labels in the order of their declaration, and a number. No two may
    /// have the same labels.
    pub(super) fn replace<'a, const LABELS: usize>(
        &self,
        rows: impl IntoIterator<Item = ([&'a str; LABELS], f64)>,
    ) {
        let rows = rows.into_iter().map(|(values, number)| self.row(&values, number));
        self.rows.store(Arc::new(rows.collect()));
    }

    fn row(&self, values: &[&str], number: f64) -> Metric {
        let pair = |(name, value): (&String, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut labels: Vec<LabelPair> = self.desc.variable_labels.iter().zip(values).map(pair).collect();
        labels.sort();
        let mut gauge = Gauge::default();
        gauge.set_value(number);
        let mut row = Metric::from_label(labels);
        row.set_gauge(gauge);
        row
    }
}

impl Collector for Table {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(self.rows.load().to_vec());
        vec![family]
    }
}

impl Declared for Table {
    fn made(declaration: &Declaration) -> Result<Self, prometheus::Error> {
        let labels = declaration.labels.iter().map(|label| (*label).to_owned()).collect();
        let (name, help) = (declaration.name.to_owned(), declaration.help.trim().to_owned());
        Ok(Self { desc: Desc::new(name, help, labels, Default::default())?, rows: Arc::default() })
    }
}
