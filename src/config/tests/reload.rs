//! What a reload applies.

use super::*;

#[test]
fn a_reload_says_what_only_a_restart_applies() {
    let old = good("", &[]);
    assert_eq!(restart_needed(&old, &good("[providers.a]\nkind = \"openai\"", &[])), Vec::<String>::new());
    let route = "[providers.p]\nkind = \"openai\"\n[deployments.a]\nprovider = \"p\"\nmodel = \"gpt-4.1\"\n\
                 [models.m]\nplan = \"a\"\naliases = [\"n\"]";
    assert_eq!(restart_needed(&old, &good(route, &[])), Vec::<String>::new());
    let text = "[server]\nlisten = \"127.0.0.1:9\"\nsse_keepalive_ms = 5\n[admin]\nlisten = \"127.0.0.1:10\"\n\
                [state]\ndir = \"/x\"\n[log]\nlevel = \"debug\"\n[worker]\nqueue = 1\n\
                [limits]\nmax_in_flight = 5\n[teams.a]\n\
                [tracing]\nendpoint = \"http://localhost:4318\"\n\
                [retirements]\npoll_ms = 0\nlead_ms = 0\nwarn_days = 0\n\
                [cache]\nmax_bytes = 1048576\nembed_timeout_ms = 7\n\
                [tuning]\npoll_ms = 60\npoll_max_ms = 70\nmoderate = true\n[providers.a]\nkind = \"openai\"\n\
                [metrics]\nmax_label_values = 7\n";
    let want = [
        "server.listen",
        "server.sse_keepalive_ms",
        "admin.listen",
        "state.dir",
        "log.level",
        "metrics.max_label_values",
        "limits.max_in_flight",
        "tracing",
        "retirements.poll_ms",
        "retirements.lead_ms",
        "retirements.warn_days",
        "cache.max_bytes",
        "cache.max_answer_bytes",
        "cache.embed_timeout_ms",
        "tuning.poll_ms",
        "tuning.poll_max_ms",
        "tuning.moderate",
        "worker.queue",
    ];
    assert_eq!(restart_needed(&old, &good(text, &[])), want);
    assert_eq!(restart_needed(&old, &good(NO_WORKER, &[])), ["worker.enabled"]);
}
