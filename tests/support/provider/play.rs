//! Carries a reply out, step by step, and keeps the bill meanwhile.

use super::super::server::{After, Wire};
use super::reply::{Performance, Step};
use super::{Bill, Exchange, Fate};

/// Does every step, unless the gateway leaves first. `note` changes the record of this exchange.
pub(super) async fn play(
    performance: Performance,
    wire: &mut Wire,
    note: impl Fn(&dyn Fn(&mut Exchange)),
) -> (Fate, After) {
    for step in performance.steps {
        let done = match step {
            Step::Make { prompt, completion, reasoning } => {
                note(&|exchange| {
                    let bill = exchange.bill.get_or_insert(Bill::default());
                    bill.prompt += prompt;
                    bill.completion += completion + reasoning;
                    bill.reasoning += reasoning;
                });
                Ok(())
            }
            Step::UsageSent => {
                note(&|exchange| exchange.usage_sent = true);
                Ok(())
            }
            Step::Write(bytes) => wire.write(&bytes).await,
            Step::Pause(time) => wire.wait_for(tokio::time::sleep(time)).await,
            Step::Wait(gate) => wire.wait_for(gate.opened()).await,
            Step::Hang => wire.wait_for(std::future::pending()).await,
        };
        if done.is_err() {
            note(&|exchange| {
                if let Some(bill) = &mut exchange.bill {
                    bill.completion += performance.ahead;
                }
            });
            return (Fate::PeerGone, After::Close);
        }
    }
    (Fate::Answered, performance.after)
}
