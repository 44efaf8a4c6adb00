//! Whether models hear the words that they were trained with, as far as that can be known before any request.

use super::{Injection, PromptBook, PromptVersion, TrainedWith};
use crate::domain::catalog::{Catalog, Deployment, Model};
use crate::domain::route::Route;

/// What an operator should know of the prompts that routes put in, a line each: those that are not stored, those that are
/// other words than the deployment's model was trained with, and what it was trained with if that is not stored. `all` says whether the book has all prompts; else
/// only those in it are judged.
pub fn warnings(catalog: &Catalog, book: &PromptBook, all: bool) -> Vec<String> {
    let mut found = Vec::new();
    for model in catalog.models() {
        for (name, route) in routes(model) {
            for deployment in &route.deployments {
                found.extend(unknown(deployment, book).filter(|_| all));
                let Some(injection) = deployment.prompt.as_ref().or(route.prompt.as_ref()) else { continue };
                found.extend(warning(&name, deployment, injection, book, all));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The routes of a model by what is asked for to come there.
fn routes(model: &Model) -> impl Iterator<Item = (String, &Route)> {
    let name = model.name.as_str();
    let aside = model.longer_context.iter().chain(&model.content_filtered);
    let own = std::iter::once(&model.route).chain(aside).map(move |route| (name.to_owned(), &**route));
    own.chain(model.labels.iter().map(move |(label, route)| (format!("{name}@{label}"), &**route)))
}

/// What a deployment's model was trained with, where that is not stored.
fn unknown(deployment: &Deployment, book: &PromptBook) -> Option<String> {
    let Some(TrainedWith::Version(wanted)) = &deployment.trained_with else { return None };
    book.find(wanted).is_none().then(|| {
        format!(
            "the deployment {} names the stored prompt {wanted} as what its model was trained with, which is not there: \
             whether it hears its own words is not known",
            deployment.name
        )
    })
}

fn warning(
    model: &str,
    deployment: &Deployment,
    injection: &Injection,
    book: &PromptBook,
    all: bool,
) -> Option<String> {
    let wanted = &injection.prompt;
    let Some(sent) = book.find(wanted) else {
        return all.then(|| {
            format!("{model} is sent with the stored prompt {wanted}, which is not there: its requests are refused")
        });
    };
    is_other(sent, deployment.trained_with.as_ref()?, book).then(|| {
        format!(
            "{model} sends the deployment {} the stored prompt {wanted} ({}@{}), and its model was trained with another",
            deployment.name, sent.prompt, sent.number
        )
    })
}

/// Whether a version is known to be other words than a model was trained with.
fn is_other(sent: &PromptVersion, trained: &TrainedWith, book: &PromptBook) -> bool {
    match trained {
        TrainedWith::Version(wanted) => {
            book.find(wanted).is_some_and(|trained| trained.sha256 != sent.sha256)
        }
        // what variables make of it is known only with a request
        TrainedWith::Words(sha256) => sent.variables.is_empty() && sent.sha256 != *sha256,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::domain::catalog::tests::deployment;
    use crate::domain::ids::ModelName;
    use crate::domain::prompt::hash::sha256_of;
    use crate::domain::prompt::{Mode, Prompt, PromptRef, Role, Variable, VariableKind};
    use crate::domain::route::Plan;

    fn book() -> PromptBook {
        let version = |number: u32, text: &str, variables: &[&str]| {
            let variable =
                |name: &&str| Variable { name: (*name).into(), kind: VariableKind::Text, default: None };
            let version = PromptVersion {
                prompt: "support".into(),
                number,
                text: text.into(),
                variables: variables.iter().map(variable).collect(),
                sha256: sha256_of(text).into(),
                author: "a".into(),
                note: "".into(),
                created_at_ms: 0,
            };
            (number, Arc::new(version))
        };
        let versions =
            [version(1, "Be kind", &[]), version(2, "Be curt", &[]), version(3, "Hi {{ x }}", &["x"])];
        let labels = BTreeMap::from([("production".into(), 1)]);
        let prompt = Prompt { versions: versions.into(), labels };
        PromptBook { prompts: BTreeMap::from([("support".into(), prompt)]) }
    }

    #[test]
    fn what_is_other_or_missing_is_said() {
        let named = |text: &str| PromptRef::parse(text).expect("a prompt");
        let words = |text: &str| TrainedWith::Words(sha256_of(text).into());
        let injection =
            |text: &str| Arc::new(Injection { prompt: named(text), mode: Mode::Replace, role: Role::Auto });
        for (sent, trained, said) in [
            (Some("support"), Some(words("Be kind")), ""),
            (Some("support@2"), Some(words("Be kind")), "was trained with another"),
            (Some("support@3"), Some(words("Be kind")), ""),
            (Some("support@2"), Some(TrainedWith::Version(named("support@1"))), "was trained with another"),
            (Some("support"), Some(TrainedWith::Version(named("support@1"))), ""),
            (Some("support@candidate"), None, "is not there"),
            (Some("other"), Some(words("x")), "is not there"),
            (None, Some(words("x")), ""),
            (
                None,
                Some(TrainedWith::Version(named("support@99"))),
                "support@99 as what its model was trained with",
            ),
        ] {
            let one = Deployment { trained_with: trained, ..(*deployment("d", "m")).clone() };
            let mut model = Model::plain(ModelName::parse("bot").expect("a name"), Plan::To(Arc::new(one)));
            Arc::make_mut(&mut model.route).prompt = sent.map(injection);
            let catalog = Catalog::new(BTreeMap::new(), BTreeMap::new(), vec![model]);
            let found = warnings(&catalog, &book(), true).join("; ");
            assert!(
                if said.is_empty() { found.is_empty() } else { found.contains(said) },
                "{sent:?}: {found}"
            );
            let known = warnings(&catalog, &book(), false).join("; ");
            assert!(!known.contains("not there"), "{known}");
        }
    }
}
