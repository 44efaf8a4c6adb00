use super::*;

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

#[test]
fn parents_are_read_strictly() {
    let known = |sampled| Some(TraceParent { trace: TraceId(TRACE), span: SpanId(SPAN), sampled });
    for (text, want) in [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", known(true)),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", known(false)),
        // the other flags mean nothing to level 1
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", known(true)),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe", known(false)),
        // a version to come: what we know of it
        ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", known(true)),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", known(true)),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what", None),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", None),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", None),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", None),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
        ("00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", None),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01", None),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
        ("0--4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
        ("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
        ("00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01", None),
        (" 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-é", None),
        ("é", None),
        ("", None),
    ] {
        assert_eq!(TraceParent::parse(text), want, "{text}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let told = TraceParent { trace: TraceId::new(7), span: SpanId::new(0), sampled: true };
    assert_eq!(told.to_string(), "00-00000000000000000000000000000007-0000000000000001-01");
    assert_eq!(TraceParent::parse(&told.to_string()), Some(told));
}

#[test]
fn states_travel_on_if_they_are_valid() {
    let (longest, too_long) = (format!("k={}", "v".repeat(256)), format!("k={}", "v".repeat(257)));
    let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
    let (most, too_many) = (many[..32].join(","), many.join(","));
    for (values, want) in [
        (&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"][..], Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")),
        (&["a=1", "b=2, c=3"], Some("a=1,b=2,c=3")),
        (&["a=1,,b=2 ,"], Some("a=1,b=2")),
        (&["1tenant@system_1=x:y z"], Some("1tenant@system_1=x:y z")),
        (&[&longest], Some(&longest)),
        (&[&most], Some(&most)),
        (&[&too_many], None),
        (&[&too_long], None),
        (&["a=1,a=2"], None),
        (&["A=1"], None),
        (&["1a=1"], None),
        (&["a@1b=1"], None),
        (&["a=b=c"], None),
        (&["a="], None),
        (&["=1"], None),
        (&["a"], None),
        (&["a=é"], None),
        (&[""], None),
        (&[], None),
    ] {
        assert_eq!(trace_state(values.iter().copied()).as_deref(), want, "{values:?}");
    }
}

#[test]
fn a_share_of_the_new_traces_is_kept() {
    let ids = (0..100_000_u64).map(|n| TraceId::new(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    let ids: Vec<TraceId> = ids.collect();
    for (ratio, low, high) in [
        (SampleRatio::per_million(0), 0, 0),
        (SampleRatio::per_million(10_000), 950, 1_050),
        (SampleRatio::per_million(500_000), 49_500, 50_500),
        (SampleRatio::per_million(1_000_000), 100_000, 100_000),
        (SampleRatio::ALL, 100_000, 100_000),
    ] {
        let kept = ids.iter().filter(|id| ratio.takes(**id)).count();
        assert!((low..=high).contains(&kept), "{ratio:?} keeps {kept}");
    }
}

#[test]
fn a_caller_decides_whether_its_trace_is_kept() {
    let caller = |sampled| TraceParent { trace: TraceId(TRACE), span: SpanId(SPAN), sampled };
    let (none, all) = (SampleRatio::per_million(0), SampleRatio::ALL);
    let state: Option<Arc<str>> = Some("a=1".into());
    for (incoming, ratio, id, parent, sampled, told) in [
        (Some(caller(true)), none, TRACE, Some(SPAN), true, true),
        (Some(caller(false)), all, TRACE, Some(SPAN), false, true),
        (None, none, 5, None, false, false),
        (None, all, 5, None, true, false),
    ] {
        let trace = Trace::begin(incoming, state.clone(), ratio, (5, 6));
        let want = (TraceId(id), SpanId(6), parent.map(SpanId), sampled, told);
        assert_eq!((trace.id, trace.span, trace.parent, trace.sampled, trace.state.is_some()), want);
        let child = trace.child(SpanId(9));
        assert_eq!(child, TraceParent { trace: trace.id, span: SpanId(9), sampled });
    }
}
