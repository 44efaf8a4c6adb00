//! `GET /admin/v1/openapi.json`: the admin API as OpenAPI 3.1. The document is kept by hand in `openapi.json`; tests hold
//! it to the routes.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header;
use serde_json::Value;

use super::Admin;

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/admin/v1/openapi.json", get(show))
}

async fn show() -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_string().into());
    ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response()
}

/// The document with this program's version.
#[expect(clippy::expect_used, reason = "a test reads it")]
fn document() -> Value {
    let mut document: Value = serde_json::from_str(DOCUMENT).expect("the document is JSON");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

    type Operations = BTreeSet<(String, &'static str)>;

    fn documented() -> Operations {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let of = |(path, item): (&String, &Value)| {
            METHODS
                .into_iter()
                .filter(|method| item.get(method).is_some())
                .map(|method| (path.clone(), method))
                .collect()
        };
        paths.iter().flat_map::<Vec<_>, _>(of).collect()
    }

    /// What the sources of this room route: `.route("PATH", get(a).post(b))`.
    fn routed() -> Operations {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/admin");
        let mut operations = Operations::new();
        for file in std::fs::read_dir(folder).expect("the room") {
            let path = file.expect("a file").path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for route in code.split(".route(").skip(1) {
                let path = route.split('"').nth(1).expect("a path").to_owned();
                let handlers = route.split_once(',').expect("handlers").1;
                // up to the parenthesis that closes `.route(`
                let mut depth = 1;
                let end = handlers.find(|c| {
                    depth += match c {
                        '(' => 1,
                        ')' => -1,
                        _ => 0,
                    };
                    depth == 0
                });
                let handlers = &handlers[..end.expect("an end")];
                let named = |method: &&str| {
                    handlers.split(|c: char| !c.is_alphanumeric()).any(|word| word == *method)
                };
                let found = METHODS.into_iter().filter(named).map(|method| (path.clone(), method));
                operations.extend(found);
            }
        }
        // what the door answers before the router is asked
        operations.extend(crate::http::tuning::OPERATIONS.map(|(path, method)| (path.to_owned(), method)));
        operations
    }

    #[test]
    fn every_route_is_in_the_document_and_nothing_else() {
        let (documented, routed) = (documented(), routed());
        assert!(routed.len() > 20, "the sources are not understood: {routed:?}");
        assert_eq!(documented, routed);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    members.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50);
        for reference in found {
            let place = reference.strip_prefix('#').expect("in this document");
            assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
        }
        let operations = documented();
        let name = |(path, method): &(String, &str)| document["paths"][path][method]["operationId"].as_str();
        let names: BTreeSet<_> = operations.iter().filter_map(name).collect();
        assert_eq!(names.len(), operations.len());
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn every_name_in_a_path_is_a_parameter() {
        let document = document();
        for (path, item) in document["paths"].as_object().expect("paths") {
            let named: BTreeSet<&str> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            let parameters = item["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
            let told: BTreeSet<&str> = parameters.iter().filter_map(|one| one["name"].as_str()).collect();
            assert_eq!(named, told, "{path}");
        }
    }
}
