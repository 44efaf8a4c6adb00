//! Where traces go.

use std::time::Duration;

use crate::domain::trace::SampleRatio;

use super::*;

#[test]
fn traces_go_where_the_file_says() {
    assert_eq!(good("[tracing]\nsample_ratio = 0.5", &[]).tracing, None, "nowhere");
    let text = "[tracing]\nendpoint = \"https://otel.example/\"\nsample_ratio = 0.001\n\
                headers = { x-token = { env = \"TOKEN\" } }\nresource = { a = \"b\" }\ntimeout_ms = 700\n";
    let config = good(text, &[("TOKEN", "Bearer of a token")]);
    assert!(config.notices.is_empty(), "{:?}", config.notices);
    let tracing = config.tracing.expect("somewhere");
    assert_eq!((&*tracing.url, &*tracing.authority), ("https://otel.example/v1/traces", "otel.example"));
    assert_eq!(
        (tracing.ratio, tracing.timeout),
        (SampleRatio::per_million(1_000), Duration::from_millis(700))
    );
    assert_eq!((&*tracing.service_name, tracing.queue), ("tunegate", 2_048));
    assert_eq!(tracing.resource, [("a".to_owned(), "b".to_owned())]);
    let headers: Vec<_> =
        tracing.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("x-token", "Bearer of a token")]);
    assert!(!format!("{:?}", tracing.headers).contains("of a token"));
}

#[test]
fn a_path_is_taken_as_it_is() {
    for (endpoint, url) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
        ("https://otel.example/otlp/v1/traces", "https://otel.example/otlp/v1/traces"),
    ] {
        let config = good(&format!("[tracing]\nendpoint = \"{endpoint}\""), &[]);
        assert_eq!(config.tracing.expect("somewhere").url, url);
    }
    let text = "[tracing]\nendpoint = \"http://otel.example\"\nheaders = { x-token = { env = \"TOKEN\" } }";
    let notices = good(text, &[("TOKEN", "t")]).notices;
    assert!(notices.iter().any(|notice| notice.contains("clear text")), "{notices:?}");
}
