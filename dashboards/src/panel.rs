//! A panel: what is asked, how it is shown, what to do about it.
//!
//! A panel cannot be made without a title, a description, a unit and where its values lead to.

use serde_json::{Value, json};

use crate::colours::{Mapping, Steps, mappings};
use crate::page::{Link, Page};
use crate::table::Table;
use crate::unit::Unit;

/// One query of a panel.
pub(crate) struct Query {
    expr: String,
    legend: String,
}

impl Query {
    /// Returns a query whose series are called by `legend`: text, and labels as `{{label}}`.
    pub(crate) fn new(legend: &str, expr: impl Into<String>) -> Self {
        Self { expr: expr.into(), legend: legend.to_owned() }
    }
}

/// The title and the description of a panel.
pub(crate) struct Words {
    title: &'static str,
    description: &'static str,
}

/// Returns the words of a panel. The description says what it is and what to do when it looks bad; Markdown.
pub(crate) fn words(title: &'static str, description: &'static str) -> Words {
    Words { title, description }
}

/// How lines of a graph are drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    Apart,
    Stacked,
}

/// How the values are shown.
enum Kind {
    Stat,
    Graph(Lines),
    Bars,
    Timeline,
    Heatmap,
    Table(Table),
}

/// A panel, yet without its place.
pub(crate) struct Panel {
    kind: Kind,
    words: Words,
    unit: Unit,
    link: Link,
    queries: Vec<Query>,
    steps: Steps,
    mapping: Mapping,
    decimals: Option<u8>,
    max: Option<f64>,
    empty: &'static str,
    width: u64,
    height: u64,
}

impl Panel {
    fn new(kind: Kind, words: Words, unit: Unit, link: Link, width: u64, height: u64) -> Self {
        let (steps, mapping, empty) = (Steps::NONE, &[] as Mapping, "–");
        Self {
            kind,
            words,
            unit,
            link,
            queries: Vec::new(),
            steps,
            mapping,
            decimals: None,
            max: None,
            empty,
            width,
            height,
        }
    }

    /// Returns one figure, coloured by its steps. Eight stand beside each other.
    pub(crate) fn stat(words: Words, unit: Unit, link: Link) -> Self {
        Self::new(Kind::Stat, words, unit, link, 3, 4)
    }

    /// Returns lines over time, with a table of them below. Two stand beside each other.
    pub(crate) fn graph(words: Words, unit: Unit, link: Link) -> Self {
        Self::new(Kind::Graph(Lines::Apart), words, unit, link, 12, 9)
    }

    /// Returns areas over time whose heights add up.
    pub(crate) fn stacked(words: Words, unit: Unit, link: Link) -> Self {
        Self::new(Kind::Graph(Lines::Stacked), words, unit, link, 12, 9)
    }

    /// Returns a bar for each series, as it is now. Three stand beside each other.
    pub(crate) fn bars(words: Words, unit: Unit, link: Link) -> Self {
        Self::new(Kind::Bars, words, unit, link, 8, 8)
    }

    /// Returns which state each series was in, over time.
    pub(crate) fn timeline(words: Words, mapping: Mapping, link: Link) -> Self {
        let mut panel = Self::new(Kind::Timeline, words, Unit::State, link, 12, 9);
        panel.mapping = mapping;
        panel
    }

    /// Returns how many observations fell into each bucket of a histogram, over time.
    pub(crate) fn heatmap(words: Words, unit: Unit, link: Link) -> Self {
        Self::new(Kind::Heatmap, words, unit, link, 12, 9)
    }

    /// Returns a row for each set of labels, a column for each query.
    pub(crate) fn table(words: Words, table: Table, link: Link) -> Self {
        Self::new(Kind::Table(table), words, Unit::Count, link, 24, 10)
    }

    /// Adds a query.
    pub(crate) fn query(mut self, legend: &str, expr: impl Into<String>) -> Self {
        self.queries.push(Query::new(legend, expr));
        self
    }

    /// Colours the values.
    pub(crate) fn steps(mut self, steps: Steps) -> Self {
        self.steps = steps;
        self
    }

    /// Gives values names.
    pub(crate) fn mapping(mut self, mapping: Mapping) -> Self {
        self.mapping = mapping;
        self
    }

    /// Says how many digits stand behind the point: small dollars need four.
    pub(crate) fn decimals(mut self, decimals: u8) -> Self {
        self.decimals = Some(decimals);
        self
    }

    /// Says where a bar is full.
    pub(crate) fn max(mut self, max: f64) -> Self {
        self.max = Some(max);
        self
    }

    /// Says what stands there where there is no value, instead of a dash.
    pub(crate) fn empty(mut self, empty: &'static str) -> Self {
        self.empty = empty;
        self
    }

    /// Changes the size, in 24ths of the width and in lines.
    pub(crate) fn size(mut self, width: u64, height: u64) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    /// Returns width and height.
    pub(crate) fn extent(&self) -> (u64, u64) {
        (self.width, self.height)
    }

    /// Returns the panel of a dashboard at its place.
    pub(crate) fn json(&self, page: Page, id: u64, x: u64, y: u64) -> Value {
        let mut panel = json!({
            "id": id,
            "type": self.type_id(),
            "title": self.words.title,
            "description": self.words.description,
            "datasource": datasource(),
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height },
            "targets": self.targets(),
            "fieldConfig": { "defaults": self.field(page), "overrides": self.overrides(page) },
            "options": self.options(),
        });
        if let Kind::Table(table) = &self.kind {
            panel["transformations"] = table.transformations();
        }
        panel
    }

    fn type_id(&self) -> &'static str {
        match self.kind {
            Kind::Stat => "stat",
            Kind::Graph(_) => "timeseries",
            Kind::Bars => "bargauge",
            Kind::Timeline => "state-timeline",
            Kind::Heatmap => "heatmap",
            Kind::Table(_) => "table",
        }
    }

    fn targets(&self) -> Vec<Value> {
        let queries: Vec<(&str, &str)> = match &self.kind {
            Kind::Table(table) => table.queries().collect(),
            _ => self.queries.iter().map(|query| (query.legend.as_str(), query.expr.as_str())).collect(),
        };
        let instant = self.is_of_one_moment();
        let format = match self.kind {
            Kind::Heatmap => "heatmap",
            Kind::Table(_) => "table",
            _ => "time_series",
        };
        let names = 'A'..='Z';
        let one = |(name, (legend, expr)): (char, (&str, &str))| {
            json!({
                "datasource": datasource(),
                "editorMode": "code",
                "exemplar": false,
                "expr": expr,
                "format": format,
                "instant": instant,
                "legendFormat": legend,
                "range": !instant,
                "refId": name.to_string(),
            })
        };
        names.zip(queries).map(one).collect()
    }

    /// Whether one evaluation answers it: what is so now, or what the whole time range comes to.
    fn is_of_one_moment(&self) -> bool {
        match self.kind {
            Kind::Table(_) | Kind::Bars => true,
            Kind::Stat => self.queries.iter().any(|query| query.expr.contains("[$__range]")),
            Kind::Graph(_) | Kind::Timeline | Kind::Heatmap => false,
        }
    }

    fn field(&self, page: Page) -> Value {
        let mut field = json!({
            "unit": self.unit.id(),
            "color": { "mode": self.color() },
            "thresholds": self.steps.json(),
            "mappings": if self.mapping.is_empty() { json!([]) } else { mappings(self.mapping) },
            "links": [self.link.json(page)],
            "noValue": self.empty,
            "custom": self.custom(),
        });
        if let Some(decimals) = self.decimals {
            field["decimals"] = decimals.into();
        }
        if matches!(self.kind, Kind::Bars) {
            field["min"] = 0.into();
        }
        if let Some(max) = self.max {
            field["max"] = max.into();
        }
        field
    }

    fn color(&self) -> &'static str {
        match self.kind {
            // by name: a model keeps its colour in all panels
            Kind::Graph(_) => "palette-classic-by-name",
            _ => "thresholds",
        }
    }

    fn custom(&self) -> Value {
        match self.kind {
            Kind::Stat | Kind::Bars => json!({}),
            Kind::Graph(lines) => self.drawing(lines),
            Kind::Timeline => json!({ "fillOpacity": 80, "lineWidth": 0 }),
            Kind::Heatmap => json!({ "hideFrom": { "legend": false, "tooltip": false, "viz": false } }),
            Kind::Table(_) => json!({
                "align": "auto",
                "cellOptions": { "type": "auto" },
                "filterable": false,
                "inspect": false,
            }),
        }
    }

    fn drawing(&self, lines: Lines) -> Value {
        let (fill, stacking) = match lines {
            Lines::Apart => (0, "none"),
            Lines::Stacked => (40, "normal"),
        };
        // a limit is drawn where the steps have one; areas that add up have none
        let limit = if self.steps.is_none() { "off" } else { "dashed" };
        json!({
            "axisSoftMin": 0,
            "drawStyle": "line",
            "fillOpacity": fill,
            "gradientMode": "none",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "pointSize": 4,
            "showPoints": "never",
            "spanNulls": false,
            "stacking": { "group": "A", "mode": stacking },
            "thresholdsStyle": { "mode": limit },
        })
    }

    fn overrides(&self, page: Page) -> Value {
        match &self.kind {
            Kind::Table(table) => table.overrides(page),
            _ => json!([]),
        }
    }

    fn options(&self) -> Value {
        let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        match &self.kind {
            Kind::Stat => json!({
                "colorMode": "value",
                "graphMode": if self.is_of_one_moment() { "none" } else { "area" },
                "justifyMode": "auto",
                "orientation": "auto",
                "percentChangeColorMode": "standard",
                "reduceOptions": last,
                "showPercentChange": false,
                "textMode": if self.queries.len() > 1 { "value_and_name" } else { "auto" },
                "wideLayout": true,
            }),
            Kind::Graph(_) => json!({
                "legend": {
                    "calcs": ["lastNotNull", "mean", "max"],
                    "displayMode": "table",
                    "placement": "bottom",
                    "showLegend": true,
                    "sortBy": "Last *",
                    "sortDesc": true,
                },
                "tooltip": { "hideZeros": false, "mode": "multi", "sort": "desc" },
            }),
            Kind::Bars => json!({
                "displayMode": "basic",
                "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": false },
                "maxVizHeight": 40,
                "minVizHeight": 14,
                "minVizWidth": 8,
                "namePlacement": "left",
                "orientation": "horizontal",
                "reduceOptions": last,
                "showUnfilled": true,
                "sizing": "auto",
                "valueMode": "text",
            }),
            Kind::Timeline => json!({
                "alignValue": "left",
                "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": true },
                "mergeValues": true,
                "rowHeight": 0.9,
                "showValue": "auto",
                "tooltip": { "mode": "single", "sort": "none" },
            }),
            Kind::Heatmap => json!({
                "calculate": false,
                "cellGap": 1,
                "color": {
                    "exponent": 0.5,
                    "fill": "dark-orange",
                    "mode": "scheme",
                    "reverse": false,
                    "scale": "exponential",
                    "scheme": "Oranges",
                    "steps": 64,
                },
                "exemplars": { "color": "rgba(255,0,255,0.7)" },
                "filterValues": { "le": 1e-9 },
                "legend": { "show": true },
                "rowsFrame": { "layout": "auto" },
                "showValue": "never",
                "tooltip": { "mode": "single", "showColorScale": false, "yHistogram": true },
                "yAxis": { "axisPlacement": "left", "reverse": false, "unit": self.unit.id() },
            }),
            Kind::Table(table) => table.options(),
        }
    }
}

/// Returns the data source that the variable chooses.
pub(crate) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}
