//! A dashboard: rows of panels, laid out from left to right, and what all dashboards have in common.

use serde_json::{Value, json};

use crate::expr::select;
use crate::page::Page;
use crate::panel::{Panel, datasource};
use crate::variable;

/// Grafana's grid is as wide.
const WIDTH: u64 = 24;

/// The format of the JSON. Grafana 10.3 and newer know it, and bring it up to theirs by themselves.
const SCHEMA_VERSION: u64 = 39;

/// A headline with the panels below it.
pub(crate) struct Row {
    title: &'static str,
    panels: Vec<Panel>,
    repeat: Option<&'static str>,
}

impl Row {
    /// Returns an open row.
    pub(crate) fn new(title: &'static str, panels: Vec<Panel>) -> Self {
        Self { title, panels, repeat: None }
    }

    /// Returns a row for each value of a variable, closed: what nobody opens asks nothing.
    pub(crate) fn each(title: &'static str, variable: &'static str, panels: Vec<Panel>) -> Self {
        Self { title, panels, repeat: Some(variable) }
    }
}

/// A dashboard, whole.
pub struct Dashboard {
    page: Page,
    description: &'static str,
    rows: Vec<Row>,
}

impl Dashboard {
    /// Returns a dashboard of these rows.
    pub(crate) fn new(page: Page, description: &'static str, rows: Vec<Row>) -> Self {
        Self { page, description, rows }
    }

    /// Returns the name of its file: its uid.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.json", self.page.uid())
    }

    /// Returns the text of its file: sorted members, indented, with a line's end behind it.
    #[must_use]
    pub fn json(&self) -> String {
        format!("{:#}\n", self.value())
    }

    fn value(&self) -> Value {
        json!({
            "uid": self.page.uid(),
            "title": self.page.title(),
            "description": self.description,
            "tags": ["tunegate"],
            "editable": false,
            "graphTooltip": 1,
            "schemaVersion": SCHEMA_VERSION,
            "refresh": "30s",
            "time": { "from": "now-6h", "to": "now" },
            "timepicker": {},
            "timezone": "browser",
            "annotations": { "list": annotations() },
            "links": [links()],
            "templating": { "list": variable::all(self.page) },
            "panels": self.panels(),
        })
    }

    /// Rows one below the other; in each, panels beside each other as long as they fit.
    fn panels(&self) -> Vec<Value> {
        let mut place = Place::default();
        let mut all = Vec::new();
        for row in &self.rows {
            let at = place.row();
            let panels: Vec<Value> = row
                .panels
                .iter()
                .map(|panel| {
                    let (width, height) = panel.extent();
                    let (id, x, y) = place.panel(width, height);
                    panel.json(self.page, id, x, y)
                })
                .collect();
            let mut headline = json!({
                "id": at.0,
                "type": "row",
                "title": row.title,
                "collapsed": row.repeat.is_some(),
                "gridPos": { "x": 0, "y": at.1, "w": WIDTH, "h": 1 },
                "panels": [],
            });
            match row.repeat {
                None => {
                    all.push(headline);
                    all.extend(panels);
                }
                Some(variable) => {
                    headline["repeat"] = variable.into();
                    headline["panels"] = panels.into();
                    all.push(headline);
                }
            }
        }
        all
    }
}

/// Where the next panel goes, and its number.
#[derive(Default)]
struct Place {
    id: u64,
    x: u64,
    y: u64,
    /// Where the line ends that is being filled.
    below: u64,
}

impl Place {
    fn row(&mut self) -> (u64, u64) {
        let (id, _, y) = self.panel(WIDTH, 1);
        (id, y)
    }

    fn panel(&mut self, width: u64, height: u64) -> (u64, u64, u64) {
        if self.x + width > WIDTH {
            (self.x, self.y) = (0, self.below);
        }
        let (x, y) = (self.x, self.y);
        self.id += 1;
        self.x += width;
        self.below = self.below.max(y + height);
        (self.id, x, y)
    }
}

/// What happened, on every graph: alerts that fire, configurations that came into force, prompts that were changed.
fn annotations() -> Value {
    let one = |name: &str, color: &str, expr: String, title: &str| {
        json!({
            "name": name,
            "datasource": datasource(),
            "enable": true,
            "expr": expr,
            "iconColor": color,
            "step": "60s",
            "tagKeys": "severity",
            "titleFormat": title,
        })
    };
    let reloads = select("tunegate_config_loaded_timestamp_seconds", "");
    let labels = select("tunegate_prompt_label_version", "");
    json!([
        one("Firing alerts", "red", FIRING.to_owned(), "{{alertname}}"),
        one(
            "Config reloads",
            "blue",
            format!("changes({reloads}[$__rate_interval]) > 0"),
            "Configuration of {{instance}}"
        ),
        one(
            "Moved labels of prompts",
            "purple",
            format!("max by (prompt, label) (changes({labels}[$__rate_interval])) > 0"),
            "{{prompt}}@{{label}} was moved"
        ),
    ])
}

/// Alerts of ours that fire now. Most speak of a model or a budget and have no instance: they are not narrowed.
pub(crate) const FIRING: &str = "ALERTS{alertstate=\"firing\", alertname=~\"Tunegate.+\"}";

/// The other dashboards, at the top.
fn links() -> Value {
    json!({
        "asDropdown": false,
        "icon": "external link",
        "includeVars": true,
        "keepTime": true,
        "tags": ["tunegate"],
        "targetBlank": false,
        "title": "tunegate",
        "tooltip": "The other dashboards, over the same time",
        "type": "dashboards",
        "url": "",
    })
}
