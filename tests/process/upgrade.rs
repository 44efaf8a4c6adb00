//! A new binary takes over without refusing anybody.

use crate::support::{
    End, Gate, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, sse, streamed_chat,
};

const PATH: &str = "/v1/chat/completions";

#[test]
fn an_upgrade_refuses_nobody_and_lets_running_streams_finish() {
    let provider = SimulatedProvider::start();
    let mut gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(3, &gate));
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
    open.await_events(3);
    let mut old = gateway.upgrade();
    let mut served = 0;
    let status = eventually("the end of the old process", || {
        gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
        served += 1;
        if served == 20 {
            gate.open();
        }
        old.has_ended()
    });
    assert!(status.success(), "{status}:\n{}", old.log());
    let answer = open.finish();
    assert_eq!(sse::spoken(&answer.events()), "Four crates fit on the pallet.");
    assert_eq!(answer.end, End::Clean);
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    gateway.signal(libc::SIGTERM);
    let status = gateway.await_exit();
    assert!(status.success(), "{status}:\n{}", gateway.log());
}
