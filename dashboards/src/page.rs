//! Which dashboards there are, and the links between them.

use serde_json::{Value, json};

/// One of the dashboards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    Overview,
    Models,
    Spend,
    Cache,
    Prompts,
    Routing,
    Tuning,
    Worker,
}

impl Page {
    /// Returns the uid: part of every address, so it never changes. At most 40 characters.
    pub(crate) fn uid(self) -> &'static str {
        match self {
            Page::Overview => "tunegate-overview",
            Page::Models => "tunegate-models",
            Page::Spend => "tunegate-spend",
            Page::Cache => "tunegate-cache",
            Page::Prompts => "tunegate-prompts",
            Page::Routing => "tunegate-routing",
            Page::Tuning => "tunegate-tuning",
            Page::Worker => "tunegate-worker",
        }
    }

    /// Returns what it is called.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Page::Overview => "tunegate / Overview",
            Page::Models => "tunegate / Fine-tuned models",
            Page::Spend => "tunegate / Spend and budgets",
            Page::Cache => "tunegate / Response cache",
            Page::Prompts => "tunegate / Prompts",
            Page::Routing => "tunegate / Routing and reliability",
            Page::Tuning => "tunegate / Training jobs",
            Page::Worker => "tunegate / Local worker",
        }
    }

    /// Returns the variables of its own, beyond those that all have.
    pub(crate) fn filters(self) -> &'static [Filter] {
        match self {
            Page::Overview | Page::Worker => &[],
            Page::Models | Page::Routing => &[Filter::Model, Filter::Deployment],
            Page::Spend => &[Filter::Team, Filter::Model, Filter::Budget],
            Page::Cache => &[Filter::Team, Filter::Model],
            Page::Prompts => &[Filter::Prompt, Filter::Model, Filter::Deployment],
            Page::Tuning => &[Filter::Provider],
        }
    }
}

/// A variable that some of the dashboards have: what is looked at, of one kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    Team,
    Model,
    Deployment,
    Budget,
    Prompt,
    Provider,
}

impl Filter {
    /// Returns the variable's name, which is the label's too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Filter::Team => "team",
            Filter::Model => "model",
            Filter::Deployment => "deployment",
            Filter::Budget => "budget",
            Filter::Prompt => "prompt",
            Filter::Provider => "provider",
        }
    }
}

/// A link from a value to the dashboard that says more about it, over the same time.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    to: Page,
    picked: Option<(Filter, Picked)>,
}

/// Where the value comes from that the link narrows its target to.
#[derive(Clone, Copy)]
enum Picked {
    /// The label of the series that was clicked.
    Label,
    /// The column of the row that was clicked.
    Column,
}

impl Link {
    /// Returns a link that takes the variables along as they are.
    pub(crate) fn to(to: Page) -> Self {
        Self { to, picked: None }
    }

    /// Narrows the target to what the clicked series has in this label.
    pub(crate) fn of_series(self, filter: Filter) -> Self {
        Self { picked: Some((filter, Picked::Label)), ..self }
    }

    /// Narrows the target to what the clicked row of a table has in this column.
    pub(crate) fn of_row(self, filter: Filter) -> Self {
        Self { picked: Some((filter, Picked::Column)), ..self }
    }

    /// Returns the data link, as it stands on a panel of `from`.
    pub(crate) fn json(self, from: Page) -> Value {
        let mut parts = vec!["${__url_time_range}".to_owned()];
        parts.extend(["datasource", "job", "instance"].map(|name| format!("${{{name}:queryparam}}")));
        for filter in self.to.filters() {
            let name = filter.name();
            match self.picked {
                Some((picked, Picked::Label)) if picked == *filter => {
                    parts.push(format!("var-{name}=${{__field.labels.{name}:percentencode}}"));
                }
                Some((picked, Picked::Column)) if picked == *filter => {
                    parts.push(format!("var-{name}=${{__data.fields.{name}:percentencode}}"));
                }
                _ if from.filters().contains(filter) => parts.push(format!("${{{name}:queryparam}}")),
                _ => {}
            }
        }
        if from == Page::Spend && self.to == Page::Spend {
            parts.push("${window:queryparam}".to_owned());
        }
        let title = match self.picked {
            Some((filter, _)) => format!("{}: this {}", self.to.title(), filter.name()),
            None => self.to.title().to_owned(),
        };
        json!({
            "title": title,
            "url": format!("/d/{}?{}", self.to.uid(), parts.join("&")),
            "targetBlank": false,
        })
    }
}
