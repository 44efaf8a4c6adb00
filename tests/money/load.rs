//! Clients that ask while something goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{ANSWER_TOKENS, CHAT, capped, of_user};
use crate::support::{Call, Connection, TestGateway, eventually};

/// How many ask at once.
const CLIENTS: usize = 8;

/// Clients that ask on and on, each request under an end user's name of its own.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    pub(super) fn on(gateway: &TestGateway) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let asked = Arc::<AtomicUsize>::default();
        let (address, key) = (gateway.address(), gateway.key().to_owned());
        let clients = (0..CLIENTS).map(|client| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            let (asked, key) = (Arc::clone(&asked), key.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some(mut connection) = Connection::reach(address) else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let number = asked.fetch_add(1, Ordering::Relaxed);
                    let mut body = of_user(capped("paid", 2 * ANSWER_TOKENS), &format!("load-{number}"));
                    body["stream"] = (client % 2 == 0).into();
                    let answer = connection.try_call(&Call::post(CHAT, &body).bearer(&key));
                    if answer.is_some_and(|answer| answer.status == 200) {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        let clients = clients.collect();
        Self { stop, served, clients }
    }

    /// Waits until so many more were served.
    pub(super) fn goes_on_for(&self, requests: usize) {
        let target = self.served.load(Ordering::Relaxed) + requests;
        eventually("more answers", || (self.served.load(Ordering::Relaxed) >= target).then_some(()));
    }

    pub(super) fn ends(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client");
        }
    }
}
