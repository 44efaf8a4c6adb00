//! A table: instant queries whose series have the same labels, side by side.

use serde_json::{Map, Value, json};

use crate::colours::{Mapping, Steps, mappings};
use crate::page::{Link, Page};
use crate::unit::Unit;

/// How the cells of a column show their value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Plain,
    Coloured,
    Gauge,
}

/// A column of values.
pub(crate) struct Column {
    title: &'static str,
    expr: String,
    unit: Unit,
    decimals: u8,
    steps: Steps,
    mapping: Mapping,
    cell: Cell,
}

impl Column {
    /// Returns a column of an expression's values, whose series have the labels of the table's rows.
    pub(crate) fn new(title: &'static str, unit: Unit, decimals: u8, expr: impl Into<String>) -> Self {
        let cell = Cell::Plain;
        Self { title, expr: expr.into(), unit, decimals, steps: Steps::NONE, mapping: &[], cell }
    }

    /// Colours the cells.
    pub(crate) fn coloured(mut self, steps: Steps) -> Self {
        (self.steps, self.cell) = (steps, Cell::Coloured);
        self
    }

    /// Draws a bar in the cells; of a share, full at 1.
    pub(crate) fn gauge(mut self, steps: Steps) -> Self {
        (self.steps, self.cell) = (steps, Cell::Gauge);
        self
    }

    /// Gives the values names and colours.
    pub(crate) fn mapped(mut self, mapping: Mapping) -> Self {
        (self.mapping, self.cell) = (mapping, Cell::Coloured);
        self
    }

    fn properties(&self) -> Vec<Value> {
        let mut list = vec![
            json!({ "id": "unit", "value": self.unit.id() }),
            json!({ "id": "decimals", "value": self.decimals }),
        ];
        let cell = match self.cell {
            Cell::Plain => return list,
            Cell::Coloured => json!({ "type": "color-text" }),
            Cell::Gauge => json!({ "type": "gauge", "mode": "basic", "valueDisplayMode": "text" }),
        };
        list.push(json!({ "id": "custom.cellOptions", "value": cell }));
        list.push(json!({ "id": "thresholds", "value": self.steps.json() }));
        if self.cell == Cell::Gauge {
            list.push(json!({ "id": "min", "value": 0 }));
            list.push(json!({ "id": "max", "value": 1 }));
        }
        if !self.mapping.is_empty() {
            list.push(json!({ "id": "mappings", "value": mappings(self.mapping) }));
        }
        list
    }
}

/// The rows' labels, the columns, and by which the rows are sorted.
pub(crate) struct Table {
    labels: &'static [&'static str],
    columns: Vec<Column>,
    sort: (&'static str, bool),
    links: Vec<(&'static str, Link)>,
}

impl Table {
    /// Returns a table whose rows are told apart by these labels.
    pub(crate) fn of(labels: &'static [&'static str], columns: Vec<Column>) -> Self {
        let sort = (labels.first().copied().unwrap_or_default(), false);
        Self { labels, columns, sort, links: Vec::new() }
    }

    /// Puts the greatest of a column first.
    pub(crate) fn greatest_first(mut self, title: &'static str) -> Self {
        self.sort = (title, true);
        self
    }

    /// Gives a label's cells a link of their own, to what the row is about.
    pub(crate) fn link(mut self, label: &'static str, link: Link) -> Self {
        self.links.push((label, link));
        self
    }

    /// Returns each query with the name of its column.
    pub(crate) fn queries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.columns.iter().map(|column| (column.title, column.expr.as_str()))
    }

    /// Returns what makes one table of the answers: joined by their labels, named, in order.
    pub(crate) fn transformations(&self) -> Value {
        let mut order = Map::new();
        let mut names = Map::new();
        for (i, label) in self.labels.iter().enumerate() {
            order.insert((*label).to_owned(), i.into());
        }
        // the only one is called "Value", one of several by its query
        let several = self.columns.len() > 1;
        for (i, (column, name)) in self.columns.iter().zip('A'..='Z').enumerate() {
            let field = if several { format!("Value #{name}") } else { "Value".to_owned() };
            order.insert(field.clone(), (self.labels.len() + i).into());
            names.insert(field, column.title.into());
        }
        json!([
            { "id": "merge", "options": {} },
            {
                "id": "organize",
                "options": {
                    "excludeByName": { "Time": true, "job": true },
                    "indexByName": order,
                    "renameByName": names,
                },
            },
        ])
    }

    /// Returns how each column is shown.
    pub(crate) fn overrides(&self, page: Page) -> Value {
        let by_name = |name: &str, properties: Vec<Value>| json!({ "matcher": { "id": "byName", "options": name }, "properties": properties });
        let links = self
            .links
            .iter()
            .map(|(label, link)| by_name(label, vec![json!({ "id": "links", "value": [link.json(page)] })]));
        let columns = self.columns.iter().map(|column| by_name(column.title, column.properties()));
        links.chain(columns).collect()
    }

    /// Returns the options of the panel.
    pub(crate) fn options(&self) -> Value {
        let (by, desc) = self.sort;
        json!({
            "cellHeight": "sm",
            "frameIndex": 0,
            "showHeader": true,
            "sortBy": [{ "desc": desc, "displayName": by }],
        })
    }
}
