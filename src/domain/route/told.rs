//! A plan as operators read it: as a tree with the shares of a moment, and in words.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::draw::score;
use super::{Ceiling, Condition, Facts, Measure, Plan, StickyBy, Weighted, When};

/// A plan at a moment; with the facts of a request, also which way it goes there.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Told {
    /// One deployment.
    Deployment {
        /// Its name.
        name: Arc<str>,
    },
    /// One after the other.
    Ordered {
        /// In this order.
        plans: Vec<Self>,
    },
    /// A split by shares.
    Weighted {
        /// What there is to draw from.
        choices: Vec<Choice>,
        /// What keeps a conversation on its choice: the first that a request has.
        sticky: Vec<String>,
        /// Which of them keeps this request.
        kept_by: Option<String>,
        /// The choice that it is kept on, counted from 0.
        kept_on: Option<usize>,
    },
    /// By expected cost.
    Cheapest {
        /// What there is to choose from.
        plans: Vec<Self>,
        /// The least quality, 0 to 1.
        min_quality: Option<String>,
        /// Most ms to the first token.
        max_first_token_ms: Option<u64>,
        /// Most ms to the end.
        max_latency_ms: Option<u64>,
        /// Of 1,000 requests, so many go elsewhere first, to learn.
        probes_per_mille: u16,
    },
    /// By expected time.
    Fastest {
        /// What there is to choose from.
        plans: Vec<Self>,
        /// What counts: `whole`, `first_token` or `tokens_per_second`.
        by: &'static str,
        /// The least quality, 0 to 1.
        min_quality: Option<String>,
        /// Of 1,000 requests, so many go elsewhere first, to learn.
        probes_per_mille: u16,
    },
    /// By what is left of quotas.
    Pool {
        /// Its members.
        plans: Vec<Self>,
    },
    /// By conditions.
    When {
        /// The first that holds counts.
        cases: Vec<Case>,
        /// Where none holds; nothing has the request refused.
        otherwise: Option<Box<Self>>,
        /// The case that holds for this request, counted from 0.
        holds: Option<usize>,
    },
}

/// A choice of a split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Its part of the requests at this moment, percent.
    pub percent: f64,
    /// What that becomes when all shares have come to their ends; none where they don't move.
    pub becomes_percent: Option<f64>,
    /// Where it leads.
    pub to: Told,
}

/// A case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    /// Its condition, in words.
    #[serde(rename = "if")]
    pub condition: String,
    /// Where it leads.
    pub to: Told,
}

impl Told {
    /// A plan at a moment, and which way a request goes there.
    pub fn of(plan: &Plan, facts: Option<&Facts<'_>>, now_ms: i64) -> Self {
        let all = |plans: &[Plan]| plans.iter().map(|plan| Self::of(plan, facts, now_ms)).collect();
        match plan {
            Plan::To(deployment) => Self::Deployment { name: Arc::clone(&deployment.name) },
            Plan::Ordered(plans) => Self::Ordered { plans: all(plans) },
            Plan::Pool(plans) => Self::Pool { plans: all(plans) },
            Plan::Weighted(weighted) => Self::weighted(weighted, facts, now_ms),
            Plan::Cheapest(cheapest) => {
                let Ceiling { first_token, whole } = cheapest.ceiling;
                Self::Cheapest {
                    plans: all(&cheapest.among),
                    min_quality: cheapest.min_quality.map(score),
                    max_first_token_ms: first_token.and_then(in_ms),
                    max_latency_ms: whole.and_then(in_ms),
                    probes_per_mille: cheapest.probe_per_mille,
                }
            }
            Plan::Fastest(fastest) => Self::Fastest {
                plans: all(&fastest.among),
                by: match fastest.by {
                    Measure::Whole => "whole",
                    Measure::FirstToken => "first_token",
                    Measure::TokensPerSecond => "tokens_per_second",
                },
                min_quality: fastest.min_quality.map(score),
                probes_per_mille: fastest.probe_per_mille,
            },
            Plan::When(when) => Self::when(when, facts, now_ms),
        }
    }

    fn weighted(weighted: &Weighted, facts: Option<&Facts<'_>>, now_ms: i64) -> Self {
        let kept = facts.and_then(|facts| weighted.kept(facts, now_ms));
        let total = |at_ms| weighted.choices.iter().map(|(share, _)| share.at(at_ms)).sum();
        let ramps = weighted.choices.iter().filter_map(|(share, _)| share.ramp);
        let end_ms = ramps.map(|ramp| ramp.until_ms).max().filter(|end_ms| now_ms < *end_ms);
        let choices = weighted.choices.iter().map(|(share, plan)| Choice {
            percent: percent(share.at(now_ms), total(now_ms)),
            becomes_percent: end_ms.map(|end_ms| percent(share.at(end_ms), total(end_ms))),
            to: Self::of(plan, facts, now_ms),
        });
        Self::Weighted {
            choices: choices.collect(),
            sticky: weighted.sticky.iter().map(StickyBy::to_string).collect(),
            kept_by: kept.map(|(by, _)| by.to_string()),
            kept_on: kept.map(|(_, at)| at),
        }
    }

    fn when(when: &When, facts: Option<&Facts<'_>>, now_ms: i64) -> Self {
        let case = |(condition, plan): &(Condition, Plan)| Case {
            condition: condition.to_string(),
            to: Self::of(plan, facts, now_ms),
        };
        Self::When {
            cases: when.cases.iter().map(case).collect(),
            otherwise: when.otherwise.as_deref().map(|plan| Box::new(Self::of(plan, facts, now_ms))),
            holds: facts
                .and_then(|facts| when.cases.iter().position(|(condition, _)| condition.holds(facts))),
        }
    }

    /// What of it is left to chance, or to what a request is known by: in sentences, each once.
    pub fn chances(&self) -> Vec<String> {
        let mut said = Vec::new();
        self.add_chances(&mut said);
        let mut each: Vec<String> = Vec::new();
        for sentence in said {
            if !each.contains(&sentence) {
                each.push(sentence);
            }
        }
        each
    }

    fn add_chances(&self, said: &mut Vec<String>) {
        match self {
            Self::Weighted { choices, kept_by, kept_on, .. } => {
                let choice = kept_on.and_then(|at| choices.get(at));
                said.push(match (kept_by, choice) {
                    (Some(by), Some(choice)) => {
                        format!("its {by} keeps this request's conversation on: {}", choice.to)
                    }
                    _ => "nothing keeps this request on a choice of the split: it is drawn anew each time, and this \
                          is one draw"
                        .to_owned(),
                });
            }
            Self::Cheapest { probes_per_mille: probes @ 1.., .. }
            | Self::Fastest { probes_per_mille: probes @ 1.., .. } => {
                said.push(format!("of 1,000 requests, {probes} first ask another one, to learn"));
            }
            Self::Pool { .. } => {
                said.push(
                    "the members of a pool are drawn by what is left of their quotas: this is one draw"
                        .to_owned(),
                );
            }
            _ => {}
        }
        for part in self.parts() {
            part.add_chances(said);
        }
    }

    /// The plans right below that a request can get to: where a case is known to hold, that one alone.
    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Deployment { .. } => Vec::new(),
            Self::Ordered { plans }
            | Self::Pool { plans }
            | Self::Cheapest { plans, .. }
            | Self::Fastest { plans, .. } => plans.iter().collect(),
            Self::Weighted { choices, .. } => choices.iter().map(|choice| &choice.to).collect(),
            Self::When { cases, otherwise, holds } => match holds.and_then(|at| cases.get(at)) {
                Some(case) => vec![&case.to],
                None => otherwise.as_deref().into_iter().collect(),
            },
        }
    }
}

fn in_ms(time: Duration) -> Option<u64> {
    u64::try_from(time.as_millis()).ok()
}

/// A part of a whole in percent, to the thousandth.
fn percent(part: u64, total: u64) -> f64 {
    let thousandths = part.saturating_mul(100_000).checked_div(total).unwrap_or(0);
    f64::from(u32::try_from(thousandths).unwrap_or(u32::MAX)) / 1_000.0
}

/// In words: `the cheapest of a, b`.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment { name } => f.write_str(name),
            Self::Ordered { plans } => f.write_str(&each(plans, ", then ")),
            Self::Pool { plans } => write!(f, "a pool of {}", each(plans, ", ")),
            Self::Weighted { choices, sticky, .. } => {
                let choices = choices.iter().map(|choice| {
                    let becomes = choice.becomes_percent.map(|percent| format!(" → {percent} %"));
                    format!("{} {} %{}", inner(&choice.to), choice.percent, becomes.unwrap_or_default())
                });
                write!(f, "by shares: {}", choices.collect::<Vec<_>>().join(", "))?;
                match sticky.is_empty() {
                    true => Ok(()),
                    false => write!(f, "; kept by {}", sticky.join(", else ")),
                }
            }
            Self::Cheapest { plans, min_quality, max_first_token_ms, max_latency_ms, .. } => {
                write!(f, "the cheapest of {}", each(plans, ", "))?;
                quality(f, min_quality.as_deref())?;
                if let Some(ms) = max_first_token_ms {
                    write!(f, ", first token within {ms} ms")?;
                }
                match max_latency_ms {
                    Some(ms) => write!(f, ", answer within {ms} ms"),
                    None => Ok(()),
                }
            }
            Self::Fastest { plans, by, min_quality, .. } => {
                let by = if *by == "whole" { "whole answer".to_owned() } else { by.replace('_', " ") };
                write!(f, "the fastest of {} by {by}", each(plans, ", "))?;
                quality(f, min_quality.as_deref())
            }
            Self::When { cases, otherwise, .. } => {
                let cases = cases.iter().map(|case| format!("if {}: {}", case.condition, inner(&case.to)));
                let rest = otherwise.as_deref().map(|plan| format!("otherwise {}", inner(plan)));
                f.write_str(&cases.chain(rest).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

fn quality(f: &mut fmt::Formatter<'_>, least: Option<&str>) -> fmt::Result {
    match least {
        Some(least) => write!(f, ", quality at least {least}"),
        None => Ok(()),
    }
}

fn each(plans: &[Told], between: &str) -> String {
    plans.iter().map(inner).collect::<Vec<_>>().join(between)
}

/// A plan within another.
fn inner(plan: &Told) -> String {
    match plan {
        Told::Deployment { name } => name.to_string(),
        Told::Ordered { plans } if plans.len() == 1 => each(plans, ""),
        other => format!("({other})"),
    }
}

/// In words: `team is a or b, with tools`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = Vec::new();
        for (name, values) in [("team", &self.teams), ("key", &self.keys), ("tag", &self.tags)] {
            if !values.is_empty() {
                facts.push(format!("{name} is {}", values.join(" or ")));
            }
        }
        for header in &self.headers {
            facts.push(match header.values.is_empty() {
                true => format!("header {} is there", header.name),
                false => format!("header {} is {}", header.name, header.values.join(" or ")),
            });
        }
        if !self.endpoints.is_empty() {
            let names: Vec<&str> = self.endpoints.iter().map(|endpoint| endpoint.name()).collect();
            facts.push(format!("endpoint is {}", names.join(" or ")));
        }
        if let Some(range) = self.input_tokens {
            facts.push(match (range.at_least, range.at_most) {
                (0, Some(most)) => format!("input is at most {most} tokens"),
                (least, None) => format!("input is at least {least} tokens"),
                (least, Some(most)) => format!("input is {least} to {most} tokens"),
            });
        }
        for (name, wanted) in [
            ("tools", self.tools),
            ("images", self.images),
            ("a JSON schema", self.json_schema),
            ("a stream", self.stream),
        ] {
            facts.extend(wanted.map(|wanted| format!("{} {name}", if wanted { "with" } else { "without" })));
        }
        match facts.is_empty() {
            true => f.write_str("anything"),
            false => f.write_str(&facts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::tests::deployment;
    use crate::domain::endpoint::Endpoint;
    use crate::domain::route::{Cheapest, Fastest, HeaderIs, Ramp, Share, TokenRange, salt};

    fn to(name: &str) -> Plan {
        Plan::To(deployment(name, name))
    }

    fn facts(end_user: Option<&'static str>) -> Facts<'static> {
        Facts {
            endpoint: Endpoint::ChatCompletions,
            key: "",
            team: None,
            end_user,
            tags: &[],
            headers: &[],
            tools: true,
            images: false,
            json_schema: false,
            stream: false,
            input_tokens: 100,
        }
    }

    fn split(sticky: Vec<StickyBy>) -> Plan {
        let share = |name: &str, weight, ramp| (Share { weight, ramp, id: salt(name) }, to(name));
        let ramp = Ramp { to: 50, from_ms: 1_000, until_ms: 2_000 };
        Plan::Weighted(Weighted { choices: vec![share("old", 2, None), share("new", 1, Some(ramp))], sticky })
    }

    fn cheapest() -> Plan {
        Plan::Cheapest(Cheapest {
            among: vec![to("a"), Plan::Ordered(vec![to("b"), to("c")])],
            min_quality: Some(800),
            ceiling: Ceiling { first_token: None, whole: Some(Duration::from_secs(3)) },
            probe_per_mille: 5,
        })
    }

    #[test]
    fn plans_in_words() {
        let when = Plan::When(When {
            cases: vec![(Condition { tools: Some(true), ..Condition::default() }, to("a"))],
            otherwise: Some(Box::new(Plan::Pool(vec![to("b"), to("c")]))),
        });
        let fastest = Plan::Fastest(Fastest {
            among: vec![to("a"), to("b")],
            by: Measure::FirstToken,
            min_quality: None,
            probe_per_mille: 0,
        });
        for (plan, words) in [
            (to("a"), "a"),
            (Plan::Ordered(vec![to("a"), to("b")]), "a, then b"),
            (cheapest(), "the cheapest of a, (b, then c), quality at least 0.8, answer within 3000 ms"),
            (fastest, "the fastest of a, b by first token"),
            (when, "if with tools: a; otherwise (a pool of b, c)"),
            (split(Vec::new()), "by shares: old 66.666 % → 3.846 %, new 33.333 % → 96.153 %"),
            (
                split(vec![StickyBy::Header("x-id".into()), StickyBy::Key]),
                "by shares: old 66.666 % → 3.846 %, new 33.333 % → 96.153 %; kept by header:x-id, else key",
            ),
        ] {
            assert_eq!(Told::of(&plan, None, 0).to_string(), words);
        }
    }

    #[test]
    fn conditions_in_words() {
        let name = |name: &str| vec![Arc::<str>::from(name), "x".into()];
        let whole = Condition {
            teams: name("t"),
            tags: vec!["g".into()],
            headers: vec![HeaderIs { name: "x-beta".into(), values: Vec::new() }],
            endpoints: vec![Endpoint::Responses],
            input_tokens: Some(TokenRange { at_least: 5, at_most: Some(9) }),
            stream: Some(false),
            ..Condition::default()
        };
        for (condition, words) in [
            (Condition::default(), "anything"),
            (
                whole,
                "team is t or x, tag is g, header x-beta is there, endpoint is responses, input is 5 to 9 tokens, \
                 without a stream",
            ),
        ] {
            assert_eq!(condition.to_string(), words);
        }
    }

    #[test]
    fn a_request_is_told_which_way_it_goes() {
        let plan = split(vec![StickyBy::Key, StickyBy::EndUser]);
        let Plan::Weighted(weighted) = &plan else { unreachable!("it is a split") };
        let kept = weighted.kept(&facts(Some("u-1")), 0).expect("an end user");
        assert_eq!(kept.0, &StickyBy::EndUser, "an operator's view has no key");
        assert_eq!(weighted.drawn(&facts(Some("u-1")), 7, 0)[0], kept.1);
        assert_eq!(weighted.kept(&facts(None), 0), None);
        for (facts, begins) in [
            (facts(Some("u-1")), "its end_user keeps this request's conversation on: "),
            (facts(None), "nothing keeps this request on a choice"),
        ] {
            let said = Told::of(&plan, Some(&facts), 0).chances();
            assert!(said.len() == 1 && said[0].starts_with(begins), "{said:?}");
        }
        let when = Plan::When(When {
            cases: vec![
                (Condition { tools: Some(false), ..Condition::default() }, plan),
                (Condition { tools: Some(true), ..Condition::default() }, cheapest()),
            ],
            otherwise: None,
        });
        let told = Told::of(&when, Some(&facts(None)), 0);
        assert!(matches!(told, Told::When { holds: Some(1), .. }), "{told:?}");
        assert_eq!(told.chances(), ["of 1,000 requests, 5 first ask another one, to learn"]);
    }
}
