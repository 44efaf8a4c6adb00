//! What an attempt's request carries of its trace.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use crate::domain::trace::{SpanId, TRACEPARENT, TRACESTATE, Trace};

/// The client's travelling headers, with the attempt's own span for the client's, where we make spans. Else the client's
/// pass as they came.
pub(super) fn headers<'h>(
    travelling: &'h [(HeaderName, HeaderValue)],
    trace: Option<&Trace>,
    span: Option<SpanId>,
) -> Cow<'h, [(HeaderName, HeaderValue)]> {
    let (Some(trace), Some(span)) = (trace, span) else { return Cow::Borrowed(travelling) };
    let (parent, state) = (HeaderName::from_static(TRACEPARENT), HeaderName::from_static(TRACESTATE));
    let mut headers = travelling.to_vec();
    headers.retain(|(name, _)| *name != parent && *name != state);
    let ours =
        [(parent, Some(trace.child(span).to_string())), (state, trace.state.as_deref().map(str::to_owned))];
    for (name, value) in ours {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.push((name, value));
        }
    }
    Cow::Owned(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::trace::SampleRatio;

    #[test]
    fn an_attempt_is_a_child_of_its_request() {
        let own = [("traceparent", "x"), ("openai-beta", "b"), ("tracestate", "a=1")];
        let own = own.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut trace = Trace::begin(None, None, SampleRatio::ALL, (1, 2));
        assert_eq!(headers(&own, None, None).as_ref(), own, "as they came");
        let parent = "00-00000000000000000000000000000001-0000000000000003-01";
        for (state, want) in [
            (None, &[("openai-beta", "b"), ("traceparent", parent)][..]),
            (Some("b=2".into()), &[("openai-beta", "b"), ("traceparent", parent), ("tracestate", "b=2")]),
        ] {
            trace.state = state;
            let found = headers(&own, Some(&trace), Some(SpanId::new(3)));
            let found: Vec<_> =
                found.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
            assert_eq!(found, want);
        }
    }
}
