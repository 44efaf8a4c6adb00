//! A PostgreSQL server for tests: its own files in a temporary folder, reached by a unix socket, gone with the process
//! that started it, however that ends.

#![expect(clippy::disallowed_methods, reason = "tests read the clock and the environment")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// For the server to take connections.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Where Debian's packages put the programs, by version.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";
/// PostgreSQL refuses to run as root: these users are tried instead.
const USERS: [&str; 2] = ["postgres", "nobody"];
/// Runs the server until its standard input is closed, then ends it and removes its folder. The input is a pipe from the
/// test's process: it closes however that process ends.
const WATCHED: &str = r#"folder=$1; shift
"$@" >"$folder/log" 2>&1 </dev/null &
server=$!
echo "$server" >"$folder/pid"
read -r _
kill -CONT "$server"; kill -QUIT "$server"
wait "$server"
rm -rf "$folder""#;

/// A running server.
pub(crate) struct Server {
    folder: PathBuf,
    /// Closed when the server is dropped or the process ends.
    lifeline: Option<ChildStdin>,
    watcher: Child,
}

/// The user that the server runs as, where we are root.
struct User {
    uid: u32,
    gid: u32,
}

impl Server {
    /// Starts a server with nothing in it. Without PostgreSQL: why there is none; with `CI=true` that is a failure.
    pub(crate) fn start() -> Result<Self, String> {
        let started = Self::try_to_start();
        if let Err(reason) = &started
            && std::env::var("CI").is_ok_and(|ci| ci == "true")
        {
            panic!("{reason} (CI=true: nothing is skipped)");
        }
        started
    }

    fn try_to_start() -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL is not installed: `make setup` installs it")?;
        let user = unprivileged_user()?;
        let folder =
            tempfile::Builder::new().prefix("pg-").tempdir().map_err(|error| error.to_string())?.keep();
        if let Some(user) = &user {
            chown(&folder, Some(user.uid), Some(user.gid)).map_err(|error| error.to_string())?;
        }
        initialise(&programs, &folder, user.as_ref())?;
        let mut watcher = as_user("sh", user.as_ref());
        watcher.args(["-c", WATCHED, "sh"]).arg(&folder).arg(programs.join("postgres"));
        watcher.arg("-D").arg(folder.join("files")).arg("-k").arg(&folder);
        watcher.args(["-c", "listen_addresses=", "-c", "max_connections=200"]);
        let mut watcher = watcher
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("PostgreSQL can't be started: {error}"))?;
        let lifeline = watcher.stdin.take();
        let server = Self { folder, lifeline, watcher };
        server.await_ready()?;
        Ok(server)
    }

    /// The URL of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://tunegate@localhost/{database}?host={}", self.folder.display())
    }

    /// Stops all of its processes where they stand: connections stay open, and nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Sends a signal to the server's first process and to those that it started.
    fn signal(&self, signal: &str) {
        let pid = fs::read_to_string(self.folder.join("pid")).expect("the server's pid");
        let pid = pid.trim();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let sent = Command::new("kill").arg(signal).arg(pid).args(children.split_whitespace()).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal {signal} is sent");
    }

    fn await_ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        let socket = self.folder.join(".s.PGSQL.5432");
        // the pid file says `ready` in its eighth line once connections are taken
        let is_ready = || {
            let pid_file = fs::read_to_string(self.folder.join("files/postmaster.pid")).unwrap_or_default();
            pid_file.lines().nth(7).is_some_and(|line| line.trim() == "ready") && socket.exists()
        };
        while !is_ready() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(format!("PostgreSQL did not start: {log}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lifeline = None;
        let _ = self.watcher.wait();
    }
}

fn initialise(programs: &Path, folder: &Path, user: Option<&User>) -> Result<(), String> {
    let made = as_user(&programs.join("initdb").to_string_lossy(), user)
        .args(["-U", "tunegate", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
        .arg(folder.join("files"))
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("initdb can't be started: {error}"))?;
    if made.status.success() {
        return Ok(());
    }
    Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)))
}

/// The folder with `initdb` and `postgres` side by side: on the path, else the newest of Debian's.
fn programs() -> Option<PathBuf> {
    let has_both = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let path = std::env::var("PATH").unwrap_or_default();
    let on_path = path.split(':').map(PathBuf::from).find(has_both);
    on_path.or_else(|| {
        let versions = fs::read_dir(DEBIAN_FOLDER).ok()?.filter_map(Result::ok);
        let folders = versions.map(|version| version.path().join("bin")).filter(has_both);
        folders.max_by_key(|folder| version_of(folder))
    })
}

fn version_of(programs: &Path) -> u32 {
    let version = programs.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn unprivileged_user() -> Result<Option<User>, String> {
    let ours = fs::metadata("/proc/self").map_err(|error| error.to_string())?;
    if ours.uid() != 0 {
        return Ok(None);
    }
    let known = fs::read_to_string("/etc/passwd").map_err(|error| error.to_string())?;
    let user = USERS.iter().find_map(|name| {
        let fields: Vec<&str> =
            known.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').collect();
        Some(User { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    });
    user.map(Some).ok_or_else(|| "PostgreSQL refuses to run as root, and there is no user nobody".to_owned())
}

fn as_user(program: &str, user: Option<&User>) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}
