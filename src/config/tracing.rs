//! `[tracing]`: where traces go, and how many.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;

use super::address::BaseUrl;
use super::file;
use super::problem::{Checker, Place};
use super::values::{in_range, readable_pem, secret_value};
use crate::domain::secret::Secret;
use crate::domain::trace::SampleRatio;
use crate::telemetry::traces::Config;

/// Where a collector takes traces (OTLP 1.11, §OTLP/HTTP).
const PATH: &str = "/v1/traces";
const DEFAULT_SERVICE_NAME: &str = "tunegate";
const DEFAULT_TIMEOUT_MS: u64 = 5_000;
const TIMEOUT_MS: RangeInclusive<u64> = 100..=10_000;
const DEFAULT_QUEUE: usize = 2_048;
const QUEUE: RangeInclusive<usize> = 1..=1_000_000;
/// Most attributes of the resource, and longest key or value of one, bytes.
const MOST_ATTRIBUTES: usize = 32;
const MOST_BYTES: usize = 256;
/// Headers that we write ourselves.
const OURS: [&str; 5] = ["content-type", "content-length", "host", "transfer-encoding", "connection"];

/// Checks `[tracing]`; nothing where no traces are made.
pub(super) fn check(section: &file::Tracing, checker: &mut Checker<'_>) -> Option<Config> {
    let place = Place::top("tracing");
    let ratio = section.sample_ratio.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&ratio) {
        checker.wrong(&place.key("sample_ratio"), format!("{ratio} is out of bounds: 0 to 1"));
    }
    let timeout_ms =
        in_range(&place.key("timeout_ms"), section.timeout_ms, DEFAULT_TIMEOUT_MS, TIMEOUT_MS, checker);
    let queue = in_range(&place.key("queue"), section.queue, DEFAULT_QUEUE, QUEUE, checker);
    let service_name = section.service_name.as_deref().unwrap_or(DEFAULT_SERVICE_NAME).trim();
    let headers = headers(&place.key("headers"), section, checker);
    if let Some(path) = &section.ca_file {
        readable_pem(&place.key("ca_file"), path, "CERTIFICATE", checker);
    }
    if !is_short(service_name) {
        checker.wrong(&place.key("service_name"), format!("write 1 to {MOST_BYTES} bytes"));
    }
    resource(&place.key("resource"), section, checker);
    let place = place.key("endpoint");
    let text = section.endpoint.as_deref()?.trim();
    if !cfg!(feature = "otel") {
        checker.wrong(&place, "built without otel: leave it out, or build with the feature `otel`");
        return None;
    }
    let base = match BaseUrl::parse(text) {
        Ok(base) => base,
        Err(reason) => {
            checker.wrong(&place, reason);
            return None;
        }
    };
    if base.crosses_a_network_in_clear() && !headers.is_empty() {
        checker.notice(&place, "the headers cross the network in clear text: write https://");
    }
    let url = match base.base_path.as_str() {
        "" => format!("{}{PATH}", text.trim_end_matches('/')),
        _ => text.to_owned(),
    };
    Some(Config {
        url,
        authority: base.authority,
        headers,
        ca_file: section.ca_file.clone(),
        ratio: SampleRatio::per_million(per_million(ratio)),
        service_name: service_name.to_owned(),
        resource: section.resource.clone().into_iter().collect(),
        timeout: Duration::from_millis(timeout_ms),
        queue,
    })
}

/// A share in millionths, rounded.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a million at most, and 0 for what is no number; such a share was refused before"
)]
fn per_million(ratio: f64) -> u32 {
    (ratio.clamp(0.0, 1.0) * 1e6).round() as u32
}

fn headers(place: &Place, section: &file::Tracing, checker: &mut Checker<'_>) -> Vec<(HeaderName, Secret)> {
    let mut found = Vec::new();
    for (name, source) in &section.headers {
        let place = place.key(name);
        match HeaderName::from_bytes(name.as_bytes()) {
            Err(_) => checker.wrong(&place, "no name of a header"),
            Ok(name) if OURS.contains(&name.as_str()) => {
                checker.wrong(&place, "written by tunegate itself: leave it out");
            }
            Ok(name) => found.extend(secret_value(&place, source, checker).map(|value| (name, value))),
        }
    }
    found
}

fn resource(place: &Place, section: &file::Tracing, checker: &mut Checker<'_>) {
    if section.resource.len() > MOST_ATTRIBUTES {
        checker.wrong(place, format!("too many: {MOST_ATTRIBUTES} at most"));
    }
    for (key, value) in &section.resource {
        let place = place.key(key);
        if key == "service.name" {
            checker.wrong(&place, "write tracing.service_name instead");
        }
        if !is_short(key) || !is_short(value) {
            checker.wrong(&place, format!("key and value have 1 to {MOST_BYTES} bytes"));
        }
    }
}

fn is_short(text: &str) -> bool {
    (1..=MOST_BYTES).contains(&text.len())
}
