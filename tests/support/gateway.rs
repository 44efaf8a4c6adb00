//! A gateway process of the test's own, and the audit of its books at the end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::client::{Answer, Call, Connection, Open};
use super::journal::{Entry, Journal};
use super::ports::free_port;
use super::provider::tuning::Charge;
use super::provider::{Bill, Exchange};
use super::setup::Setup;
use super::wait::{eventually, within_limit};

/// The binary under test.
pub(crate) const TUNEGATE: &str = env!("CARGO_BIN_EXE_tunegate");

/// The configuration's file.
const CONFIG: &str = "tunegate.toml";
/// Outcomes that a gateway keeps.
const MOST_OUTCOMES: usize = 1_000;

/// A gateway that is not started yet.
pub(crate) struct Unstarted(Setup);

impl Unstarted {
    /// Starts it and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(self) -> TestGateway {
        TestGateway::launch(self.0)
    }
}

/// A running gateway. When it is dropped, no request may be in flight, and its books must agree with what the
/// providers billed.
pub(crate) struct TestGateway {
    process: Process,
    setup: Setup,
    folder: tempfile::TempDir,
    ports: (u16, u16),
    key: String,
    /// How many exchanges each provider had behind it at the start.
    before: Vec<usize>,
    /// The same at the start of the first process on this ledger.
    before_all: Vec<usize>,
    audited: bool,
}

struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

/// Another gateway on the same database and state.
pub(crate) struct Replica {
    process: Process,
    address: SocketAddr,
    admin_address: SocketAddr,
}

impl Replica {
    /// Its data address.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its admin address.
    pub(crate) const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Sends SIGTERM and insists on exit status 0.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.process.signal(libc::SIGTERM);
        let status = self.process.await_exit();
        assert!(status.success(), "{status} after SIGTERM:\n{}", self.process.log.lock());
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("---- a replica's log ----\n{}", self.process.log.lock());
        }
        self.process.child.kill().ok();
        self.process.child.wait().ok();
    }
}

/// The process that a successor has taken over from.
pub(crate) struct Predecessor(Process);

impl Predecessor {
    /// Its exit status, once it has ended.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.0.child.try_wait().expect("a child")
    }

    /// Everything it has printed so far.
    pub(crate) fn log(&self) -> String {
        self.0.log.lock().clone()
    }
}

impl Drop for Predecessor {
    fn drop(&mut self) {
        self.0.child.kill().ok();
        self.0.child.wait().ok();
    }
}

impl Process {
    fn spawn(folder: &Path, more: &[&str]) -> Self {
        Self::spawn_with(CONFIG, folder, more)
    }

    fn spawn_with(config: &str, folder: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(TUNEGATE);
        // SAFETY: `signal` may be called between fork and exec. A write beyond a limit then fails, as on a full disk.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                Ok(())
            });
        }
        let mut child = command
            .args(["serve", "--config", config])
            .args(more)
            .current_dir(folder)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("piped"));
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("piped"));
        let readers = [stdout, stderr].map(|pipe| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let mut log = log.lock();
                    log.push_str(&line);
                    log.push('\n');
                }
            })
        });
        Self { child, log, readers: readers.into() }
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: a plain system call; the child has not been waited for, so its id is still its own.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "signal {signal}: {}", std::io::Error::last_os_error());
    }

    #[track_caller]
    fn await_exit(&mut self) -> ExitStatus {
        let log = Arc::clone(&self.log);
        let status = eventually("the gateway's exit", || {
            self.child.try_wait().unwrap_or_else(|error| panic!("{error}: {}", log.lock()))
        });
        for reader in self.readers.drain(..) {
            reader.join().ok();
        }
        status
    }
}

impl TestGateway {
    /// A gateway with this configuration.
    pub(crate) fn with(setup: Setup) -> Unstarted {
        Unstarted(setup)
    }

    #[track_caller]
    fn launch(setup: Setup) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = (free_port(), free_port());
        for (name, text) in &setup.files {
            std::fs::write(folder.path().join(name), text).expect("a file beside the configuration");
        }
        std::fs::write(folder.path().join(CONFIG), setup.text(ports.0, ports.1)).expect("the configuration");
        let process = Process::spawn(folder.path(), &setup.arguments());
        let before: Vec<usize> = setup.providers.iter().map(|provider| provider.exchanges().len()).collect();
        let before_all = before.clone();
        let key = String::new();
        let mut gateway = Self { process, setup, folder, ports, key, before, before_all, audited: false };
        gateway.await_ready();
        gateway.key = eventually("a key in the banner", || key_in(&gateway.log()));
        gateway
    }

    #[track_caller]
    fn await_ready(&mut self) {
        let log = Arc::clone(&self.process.log);
        let (address, admin_address) = (self.address(), self.admin_address());
        // a TLS address is asked by the test's own client; that it listens will do here
        let asked = if self.setup.speaks_tls() { admin_address } else { address };
        eventually("a gateway that is ready", || {
            if let Some(status) = self.process.child.try_wait().expect("a child") {
                panic!("the gateway ended at its start, {status}:\n{}", log.lock());
            }
            TcpStream::connect(admin_address).ok()?;
            TcpStream::connect(address).ok()?;
            (Connection::to(asked).call(&Call::get("/readyz")).status == 200).then_some(())
        });
    }

    /// Starts another gateway beside this one, on the same database. The outcomes are no longer audited: they are in two
    /// processes; the ledger is.
    #[track_caller]
    pub(crate) fn replica(&mut self) -> Replica {
        let ports = (free_port(), free_port());
        let config = format!("replica-{}.toml", ports.0);
        std::fs::write(self.folder.path().join(&config), self.setup.text(ports.0, ports.1))
            .expect("the configuration");
        let process = Process::spawn_with(&config, self.folder.path(), &[]);
        self.audited = true;
        let address = SocketAddr::from(([127, 0, 0, 1], ports.0));
        eventually("a replica that is ready", || {
            let mut connection = Connection::reach(address)?;
            (connection.try_call(&Call::get("/readyz"))?.status == 200).then_some(())
        });
        Replica { process, address, admin_address: SocketAddr::from(([127, 0, 0, 1], ports.1)) }
    }

    /// Ends the process at once: `kill -9`. The books can no longer be audited as a whole.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.await_exit();
    }

    /// The test itself has compared the ledger with the bills.
    pub(crate) fn is_audited(&mut self) {
        self.audited = true;
    }

    /// Starts another process on the same configuration and state, after this one has ended.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.process = Process::spawn(self.folder.path(), &self.setup.arguments());
        self.before = self.setup.providers.iter().map(|provider| provider.exchanges().len()).collect();
        self.audited = false;
        self.await_ready();
    }

    /// The same at a later date: so long was nobody there.
    #[track_caller]
    pub(crate) fn start_again_at(&mut self, moment: &str) {
        self.setup = self.setup.clone().dated(moment);
        self.start_again();
    }

    /// Starts a successor that takes over the listening sockets, and tells the old process so. The books are no longer
    /// audited: they are in two processes.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) -> Predecessor {
        let successor = Process::spawn(self.folder.path(), &["--upgrade"]);
        let old = Predecessor(std::mem::replace(&mut self.process, successor));
        self.audited = true;
        let socket = self.folder.path().join("state/upgrade.sock");
        eventually("a successor that waits for the sockets", || socket.exists().then_some(()));
        old.0.signal(libc::SIGQUIT);
        old
    }

    /// The data address.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.0))
    }

    /// The admin address.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.1))
    }

    /// `http://127.0.0.1:PORT`: with `/v1` behind it, an OPENAI_BASE_URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The first key, from the banner.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Where the configuration and the state are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Everything it has printed so far.
    pub(crate) fn log(&self) -> String {
        self.process.log.lock().clone()
    }

    /// Sends a request, with our key unless it carries a credential.
    #[track_caller]
    pub(crate) fn call(&self, call: Call) -> Answer {
        Connection::to(self.address()).call(&self.signed(call))
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.call(Call::get(target))
    }

    #[track_caller]
    pub(crate) fn post(&self, target: &str, body: &Value) -> Answer {
        self.call(Call::post(target, body))
    }

    /// Sends a request and reads no more than the head.
    #[track_caller]
    pub(crate) fn open(&self, target: &str, body: &Value) -> Open {
        Connection::to(self.address()).open(&self.signed(Call::post(target, body)))
    }

    /// Sends a request and does not wait for anything.
    pub(crate) fn send(&self, target: &str, body: &Value) -> Connection {
        let mut connection = Connection::to(self.address());
        connection.send(&self.signed(Call::post(target, body)));
        connection
    }

    /// Returns once it has noticed every client that has left so far: one thread serves the data address, so an answer
    /// to a later request comes after it.
    #[track_caller]
    pub(crate) fn notice_departures(&self) {
        self.get("/livez").expect(200);
    }

    /// Adds our key unless there is a credential.
    pub(crate) fn signed(&self, call: Call) -> Call {
        if call.has_credential() { call } else { call.bearer(&self.key) }
    }

    /// A bare connection to the data address.
    pub(crate) fn connect(&self) -> Connection {
        Connection::to(self.address())
    }

    /// Sends a request to the admin address, with the admin key unless it carries a credential.
    #[track_caller]
    pub(crate) fn admin(&self, call: Call) -> Answer {
        Connection::to(self.admin_address()).call(&self.signed_admin(call))
    }

    /// With the admin key, unless it carries a credential: for a replica's admin address, say.
    #[track_caller]
    pub(crate) fn signed_admin(&self, call: Call) -> Call {
        match call.has_credential() {
            true => call,
            false => {
                let key = std::fs::read_to_string(self.folder.path().join("state/admin_key"))
                    .expect("the admin key is in the state folder");
                call.bearer(key.trim())
            }
        }
    }

    #[track_caller]
    fn books(&self) -> Value {
        self.admin(Call::get("/admin/v1/requests?limit=1000")).expect(200).json()
    }

    /// Every Outcome that is kept, newest first, once no request is in flight.
    #[track_caller]
    pub(crate) fn outcomes(&self) -> Vec<Value> {
        let books = eventually("no request in flight", || {
            let books = self.books();
            (books["in_flight"] == json!(0)).then_some(books)
        });
        books["data"].as_array().cloned().unwrap_or_else(|| panic!("no data in {books}"))
    }

    /// The newest Outcome.
    #[track_caller]
    pub(crate) fn last_outcome(&self) -> Value {
        self.outcomes().into_iter().next().expect("an Outcome")
    }

    /// The Outcome of one request, as soon as it is written.
    #[track_caller]
    pub(crate) fn outcome_of(&self, request_id: &str) -> Value {
        eventually(&format!("the Outcome of {request_id}"), || {
            let books = self.books();
            books["data"].as_array()?.iter().find(|outcome| outcome["request_id"] == request_id).cloned()
        })
    }

    /// Writes another configuration for the same ports; a reload reads it.
    pub(crate) fn rewrite(&self, setup: &Setup) {
        let text = setup.text(self.ports.0, self.ports.1);
        std::fs::write(self.folder.path().join(CONFIG), text).expect("the configuration");
    }

    /// Asks for a reload by the admin API.
    #[track_caller]
    pub(crate) fn reload(&self) -> Answer {
        self.admin(Call::new("POST", "/admin/v1/reload"))
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    /// Waits for the end of the process; the books can no longer be audited.
    #[track_caller]
    pub(crate) fn await_exit(&mut self) -> ExitStatus {
        self.audited = true;
        self.process.await_exit()
    }

    /// Audits, sends SIGTERM and insists on exit status 0.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.audit();
        self.signal(libc::SIGTERM);
        let status = self.await_exit();
        assert!(status.success(), "{status} after SIGTERM:\n{}", self.log());
    }

    /// Compares the books with the bills: every request that a provider billed is in exactly one Outcome, as its usage or
    /// that of one of its failed attempts, and what was reported agrees to the token.
    #[track_caller]
    pub(crate) fn audit(&mut self) {
        self.audited = true;
        let outcomes = self.outcomes();
        if outcomes.len() == MOST_OUTCOMES {
            // the oldest are gone: only the ledger knows all
            return self.audit_ledger();
        }
        let with_usage = outcomes.iter().flat_map(used);
        let mut with_usage: Vec<Value> = with_usage.collect();
        let exchanges = self
            .setup
            .providers
            .iter()
            .zip(&self.before)
            .flat_map(|(provider, before)| provider.exchanges().into_iter().skip(*before));
        let billed: Vec<_> =
            exchanges.filter_map(|exchange| Some((exchange.bill?, exchange.usage_sent))).collect();
        assert_eq!(
            with_usage.len(),
            billed.len(),
            "Outcomes with usage: {with_usage:#?}\nbilled by the providers: {billed:#?}"
        );
        let mut told: BTreeMap<Bill, usize> = BTreeMap::new();
        for (bill, _) in billed.iter().filter(|(_, usage_sent)| *usage_sent) {
            *told.entry(*bill).or_default() += 1;
        }
        with_usage.retain(|outcome| outcome["usage"]["source"] == "reported");
        for outcome in with_usage {
            let count = |name: &str| outcome["usage"][name].as_u64().unwrap_or(u64::MAX);
            let booked = Bill {
                prompt: count("prompt_tokens"),
                completion: count("completion_tokens"),
                reasoning: count("reasoning_tokens"),
            };
            let left = told.entry(booked).or_default();
            assert!(*left > 0, "booked as reported, but no provider said so: {outcome:#}\nsaid: {told:?}");
            *left -= 1;
        }
        self.audit_ledger();
    }

    /// Lets the process write no more files, as on a full disk, or write them again.
    pub(crate) fn disk_is_full(&self, is_full: bool) {
        let pid = i32::try_from(self.process.child.id()).expect("a process id");
        let bytes = if is_full { 0 } else { libc::RLIM_INFINITY };
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: plain numbers; the child has not been waited for, so its id is still its own.
        let done = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// The memory that the process has now.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id()));
        let status = status.expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Where the ledger is.
    pub(crate) fn database_url(&self) -> String {
        let file = self.folder.path().join("state/tunegate.db");
        self.setup.database.clone().unwrap_or_else(|| format!("sqlite://{}", file.display()))
    }

    /// The ledger as it stands.
    #[track_caller]
    pub(crate) fn journal(&self) -> Journal {
        let url = self.database_url();
        eventually("the ledger's rows", || Journal::read(&url))
    }

    /// The ledger, once no hold is open and `more` is true of it: what ends a request is written behind its answer.
    #[track_caller]
    pub(crate) fn settled_journal(&self, more: impl Fn(&Journal) -> bool) -> Journal {
        let mut last = Journal::default();
        let settled = within_limit(|| {
            last = self.journal();
            (last.open_holds().is_empty() && more(&last)).then(|| last.clone())
        });
        settled.unwrap_or_else(|| panic!("the ledger does not come to rest: {last:#?}"))
    }

    /// Everything that the providers were asked since the ledger began.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        let providers = self.setup.providers.iter().zip(&self.before_all);
        providers.flat_map(|(provider, before)| provider.exchanges().into_iter().skip(*before)).collect()
    }

    /// What the process itself finds when it adds its ledger up again: counters and sums are the entries' fold.
    #[track_caller]
    pub(crate) fn books_agree(&self) {
        let audit = self.admin(Call::get("/admin/v1/ledger/audit")).expect(200).json();
        assert_eq!(audit["difference_count"], json!(0), "{audit:#}");
    }

    /// What the providers have billed for training since the ledger began.
    pub(crate) fn training_charges(&self) -> Vec<Charge> {
        self.setup.providers.iter().flat_map(|provider| provider.tuning().training_bill()).collect()
    }

    /// Compares the ledger with the bills: each hold ended once, every request that a provider billed is booked once, and
    /// what was reported costs what the provider wants for it, to the nano-dollar. By how much the others are off is
    /// printed.
    #[track_caller]
    pub(crate) fn audit_ledger(&self) {
        let billed: Vec<_> =
            self.exchanges().into_iter().filter(|exchange| exchange.bill.is_some()).collect();
        let charges = self.training_charges();
        let journal = self.settled_journal(|journal| journal.usages().len() >= billed.len() + charges.len());
        journal.check();
        self.books_agree();
        let (trained, usages): (Vec<Entry>, Vec<Entry>) =
            journal.usages().into_iter().partition(Entry::is_training);
        audit_training(trained, charges);
        assert_eq!(usages.len(), billed.len(), "booked: {usages:#?}\nbilled by the providers: {billed:#?}");
        let (reported, others): (Vec<Entry>, Vec<Entry>) =
            usages.into_iter().partition(|usage| usage.source == "reported");
        let mut unmatched = billed;
        for usage in &reported {
            let same = |exchange: &Exchange| {
                let bill = exchange.bill.unwrap_or_default();
                exchange.usage_sent && (bill.prompt, bill.completion) == (usage.prompt, usage.completion)
            };
            let exact = |exchange: &Exchange| {
                same(exchange)
                    && exchange.owed_nanos().is_some_and(|owed| i128::from(owed) == usage.cost.into())
            };
            let unpriced = |exchange: &Exchange| same(exchange) && exchange.price.is_none();
            let at = unmatched.iter().position(exact).or_else(|| unmatched.iter().position(unpriced));
            match at {
                Some(at) => drop(unmatched.swap_remove(at)),
                None => {
                    panic!("booked as reported, but no provider said so: {usage:#?}\nleft: {unmatched:#?}")
                }
            }
        }
        if !others.is_empty() {
            let owed: u64 = unmatched.iter().filter_map(Exchange::owed_nanos).sum();
            let booked: i64 = others.iter().map(|usage| usage.cost).sum();
            println!(
                "{} requests whose usage nobody reported: {booked} nano-dollars booked, {owed} billed",
                others.len()
            );
            for usage in &others {
                println!(
                    "  {} {}: {} + {} tokens, {} nano-dollars",
                    usage.source, usage.deployment, usage.prompt, usage.completion, usage.cost
                );
            }
        }
    }
}

/// Compares what was booked for training with what the providers billed: each job once, what they told to the token and
/// the nano-dollar. By how much the others are off is printed.
#[track_caller]
fn audit_training(mut booked: Vec<Entry>, charges: Vec<Charge>) {
    // a job that cost nothing may be booked with its figures
    booked.retain(|usage| usage.cost > 0 || usage.prompt > 0);
    for charge in charges {
        let is_of = |usage: &Entry| match &charge.tagged {
            Some(job) => usage.request_id == *job,
            None => usage.prompt == charge.tokens,
        };
        let at = booked.iter().position(is_of);
        let at = at.unwrap_or_else(|| panic!("billed, and not booked: {charge:#?}\nleft: {booked:#?}"));
        let usage = booked.swap_remove(at);
        if charge.is_told {
            let told = (charge.tokens, i128::from(charge.nanos), "reported");
            assert_eq!((usage.prompt, i128::from(usage.cost), usage.source.as_str()), told, "{charge:#?}");
        } else {
            println!("{}: {} nano-dollars booked, {} billed", charge.job, usage.cost, charge.nanos);
        }
    }
    assert!(booked.is_empty(), "booked for training, and nobody billed it: {booked:#?}");
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("---- the gateway's log ----\n{}", self.log());
        } else if !self.audited {
            let audit = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.audit()));
            if let Err(reason) = audit {
                println!("---- the gateway's log ----\n{}", self.log());
                self.process.child.kill().ok();
                std::panic::resume_unwind(reason);
            }
        }
        self.process.child.kill().ok();
        self.process.child.wait().ok();
    }
}

/// All that an Outcome says was used: by the answer, and by attempts that came to nothing. One that was told of the last
/// such attempt has its usage.
fn used(outcome: &Value) -> Vec<Value> {
    let mut used = outcome["failed_attempts"].as_array().cloned().unwrap_or_default();
    let is_of_last =
        |last: &Value| outcome["status"].as_u64() >= Some(400) && last["usage"] == outcome["usage"];
    if !used.last().is_some_and(is_of_last) {
        used.push(outcome.clone());
    }
    used.retain(|used| used["usage"].is_object());
    used
}

/// The first `sk-tg-` key in a text.
fn key_in(text: &str) -> Option<String> {
    text.match_indices("sk-tg-").find_map(|(at, prefix)| {
        let key: String = text[at + prefix.len()..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            .collect();
        (key.len() == 43).then(|| format!("{prefix}{key}"))
    })
}
