//! Where a request stands in its caller's trace.

use http::{HeaderMap, Method};

use super::route::Route;
use crate::domain::trace::{TRACEPARENT, TRACESTATE, Trace, TraceParent, trace_state};
use crate::gateway::Gateway;
use crate::gateway::record::Record;
use crate::http::exchange::Exchange;

/// HTTP's own methods, as the conventions know them (semantic conventions 1.41, `http.request.method`).
const METHODS: [&Method; 9] = [
    &Method::GET,
    &Method::HEAD,
    &Method::POST,
    &Method::PUT,
    &Method::DELETE,
    &Method::CONNECT,
    &Method::OPTIONS,
    &Method::TRACE,
    &Method::PATCH,
];

/// Notes the caller's trace, and where we make spans goes on with it, or begins one.
pub(in crate::http) fn note(gateway: &Gateway, exchange: &Exchange, route: &Route<'_>, record: &mut Record) {
    let headers = exchange.headers();
    let incoming = parent(headers);
    let Some(ratio) = gateway.sampling else {
        if let Some(caller) = incoming {
            record.traced(caller.trace, None);
        }
        return;
    };
    let state = trace_state(headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()));
    let mut trace = Trace::begin(incoming, state, ratio, rand::random());
    let method = METHODS.into_iter().find(|known| *known == exchange.method());
    (trace.method, trace.route) = (method.map_or("_OTHER", Method::as_str), route.template());
    record.traced(trace.id, Some(trace));
}

/// The caller's span; nothing where it is said twice, or wrongly (§3.2.2: then a new trace begins).
fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut told = headers.get_all(TRACEPARENT).iter();
    match (told.next(), told.next()) {
        (Some(one), None) => TraceParent::parse(one.to_str().ok()?),
        _ => None,
    }
}
