//! Private database servers, which a test may kill, stop and start again: nobody else uses them.
//!
//! A test binary starts each server once, when the first test asks for it, and lends it to one test at a time. Binaries
//! are looked for in `PATH` and where Debian puts them; one that is missing fails the test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// How long a server may take to start, also to recover from a crash, and to die.
const PATIENCE: Duration = Duration::from_secs(60);

/// The name of the folder for a server's temporary files, beside its data.
const TEMPORARY: &str = "tmp";

/// A kind of server: how its data are made, how it is run, and how one talks to it.
struct Flavour {
    name: &'static str,
    /// Neither server runs as root; then it is this user, or `nobody`.
    user: &'static str,
    install: fn(&Path) -> Vec<String>,
    run: fn(&Path, u16) -> Vec<String>,
    /// What it is started with to recover from a crash before anybody may use it, and what it says then.
    recover: Option<(&'static str, &'static str)>,
    url: fn(u16, &str) -> String,
    admin_database: &'static str,
    execute: fn(&str, &str) -> Result<(), String>,
}

#[cfg(feature = "postgres")]
const POSTGRES: Flavour = Flavour {
    name: "PostgreSQL",
    user: "postgres",
    install: |data| {
        words(&format!("initdb --no-sync --auth=trust --username=root --encoding=UTF8 -D {}", data.display()))
    },
    run: |data, port| {
        words(&format!(
            "postgres -D {} -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=on \
             -c synchronous_commit=on -c max_connections=200 -c shared_buffers=32MB",
            data.display()
        ))
    },
    recover: None,
    url: |port, database| format!("postgres://root@127.0.0.1:{port}/{database}"),
    admin_database: "postgres",
    execute: execute::<diesel::pg::PgConnection>,
};

#[cfg(feature = "mysql")]
const MARIADB: Flavour = Flavour {
    name: "MariaDB",
    user: "mysql",
    install: |data| {
        words(&format!(
            "mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db --datadir={}",
            data.display()
        ))
    },
    // Everything by way of the page cache, which a killed process leaves as it was. With direct and asynchronous I/O InnoDB
    // came back damaged after about one kill in a hundred: an assertion of its own in trx0purge.cc, or rows with the same
    // primary key (10.11.19, Linux 6.18).
    run: |data, port| {
        words(&format!(
            "mariadbd --no-defaults --datadir={0} --port={port} --bind-address=127.0.0.1 --socket={0}/server.sock \
             --innodb-flush-log-at-trx-commit=1 --innodb-use-native-aio=0 --innodb-flush-method=fsync \
             --innodb-log-file-buffering=ON --innodb-buffer-pool-size=32M --max-connections=200",
            data.display()
        ))
    },
    // Else one that is killed again before its first checkpoint recovers both lives from one log.
    recover: Some(("--skip-networking", "ready for connections")),
    url: |port, database| format!("mysql://root@127.0.0.1:{port}/{database}"),
    admin_database: "mysql",
    execute: execute::<diesel::mysql::MysqlConnection>,
};

fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}

fn execute<C: diesel::Connection>(url: &str, sql: &str) -> Result<(), String> {
    let mut conn = C::establish(url).map_err(|error| error.to_string())?;
    conn.batch_execute(sql).map_err(|error| error.to_string())
}

/// This binary's PostgreSQL, up and running, until the guard is dropped.
#[cfg(feature = "postgres")]
pub fn postgres() -> MutexGuard<'static, Server> {
    static SERVER: LazyLock<Mutex<Server>> = LazyLock::new(|| Mutex::new(Server::new(&POSTGRES)));
    lend(&SERVER)
}

/// This binary's MariaDB, up and running, until the guard is dropped.
#[cfg(feature = "mysql")]
pub fn mariadb() -> MutexGuard<'static, Server> {
    static SERVER: LazyLock<Mutex<Server>> = LazyLock::new(|| Mutex::new(Server::new(&MARIADB)));
    lend(&SERVER)
}

fn lend(server: &'static Mutex<Server>) -> MutexGuard<'static, Server> {
    let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
    // A test that failed may have left it dead.
    if server.main.is_none() {
        server.restart();
    }
    server
}

/// A server of this test binary's own.
pub struct Server {
    flavour: &'static Flavour,
    data: PathBuf,
    port: u16,
    main: Option<Child>,
    /// Ends the server and removes its files when this process has ended, in whatever way: statics are not dropped.
    _keeper: Child,
}

/// Reads until the test process is gone, which closes the pipe. Then ends every process that works in the folder `$1` and
/// removes `$2`. SIGQUIT lets both servers go without waiting for their clients; PostgreSQL also removes its System V
/// shared memory then (PostgreSQL docs, "Shutting Down the Server").
const KEEPER: &str = r#"
cat
signal() {
    found=1
    for cwd in /proc/[0-9]*/cwd; do
        if [ "$(readlink "$cwd")" = "$1" ]; then
            pid=${cwd%/cwd}
            kill "$2" "${pid#/proc/}" && found=0
        fi
    done
    return $found
}
signal "$1" -CONT
signal "$1" -QUIT
tries=0
while [ $tries -lt 100 ] && signal "$1" -0; do sleep 0.1; tries=$((tries + 1)); done
signal "$1" -KILL
rm -rf "$2"
"#;

impl Server {
    fn new(flavour: &'static Flavour) -> Self {
        let folder = tempfile::Builder::new().prefix("diesel-session-server-").tempdir().unwrap().keep();
        let folder = fs::canonicalize(folder).unwrap();
        let (data, temporary) = (folder.join("data"), folder.join(TEMPORARY));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&temporary).unwrap();
        let keeper = Command::new("sh")
            .args([OsStr::new("-c"), OsStr::new(KEEPER), OsStr::new("keeper"), data.as_os_str(), folder.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C ends the tests, and only then the keeper's work begins.
            .process_group(0)
            .spawn()
            .unwrap();
        if let Some((user, group)) = other_user(flavour) {
            for path in [&folder, &data, &temporary] {
                std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
            }
        }
        let mut server = Self { flavour, data, port: free_port(), main: None, _keeper: keeper };
        let installed = server.command(&(flavour.install)(&server.data)).output().unwrap();
        assert!(
            installed.status.success(),
            "{} could not be installed:\n{}{}",
            flavour.name,
            String::from_utf8_lossy(&installed.stdout),
            String::from_utf8_lossy(&installed.stderr)
        );
        server.restart();
        server
    }

    /// A database of its own for a test. It goes with the server.
    pub fn new_database(&self) -> String {
        let name = crate::support::unique_name();
        let admin = (self.flavour.url)(self.port, self.flavour.admin_database);
        (self.flavour.execute)(&admin, &format!("CREATE DATABASE {name}")).unwrap();
        (self.flavour.url)(self.port, &name)
    }

    /// SIGKILL to every process of the server at once, and waits until they are gone.
    pub fn kill_9(&mut self) {
        let Some(mut main) = self.main.take() else { return };
        // First it must not start others, nor see its own die.
        signal(main.id(), Signal::STOP);
        for pid in self.processes() {
            signal(pid, Signal::KILL);
        }
        main.wait().unwrap();
        wait_until(&format!("{} dies", self.flavour.name), || self.processes().is_empty());
        self.recover();
    }

    /// Recovers from the crash and makes a checkpoint, where that has to be done apart from the next start.
    fn recover(&self) {
        let Some((alone, ready)) = self.flavour.recover else { return };
        let said = || fs::read_to_string(self.log()).unwrap_or_default();
        let before = said().matches(ready).count();
        let mut main = self.start(&[alone]);
        wait_until(&format!("{} recovers", self.flavour.name), || {
            assert_eq!(main.try_wait().unwrap(), None, "{} does not recover:\n{}", self.flavour.name, said());
            said().matches(ready).count() > before
        });
        signal(main.id(), Signal::TERM);
        let ended = main.wait().unwrap();
        assert!(ended.success(), "{} does not stop ({ended:?}):\n{}", self.flavour.name, said());
    }

    /// Stops every process: the server is there, and answers nothing. It goes on when the guard is dropped.
    #[must_use]
    pub fn stop(&self) -> Stopped<'_> {
        let main = self.main.as_ref().expect("a running server").id();
        signal(main, Signal::STOP);
        for pid in self.processes() {
            signal(pid, Signal::STOP);
        }
        Stopped { server: self }
    }

    /// Starts the server on the data that are there, and waits until it accepts connections.
    pub fn restart(&mut self) {
        assert!(self.main.is_none(), "it runs");
        let mut main = self.start(&[]);
        let url = (self.flavour.url)(self.port, self.flavour.admin_database);
        let started = Instant::now();
        while (self.flavour.execute)(&url, "SELECT 1").is_err() {
            let ended = main.try_wait().unwrap();
            if ended.is_some() || started.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                panic!("{} does not start ({ended:?}):\n{log}", self.flavour.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.main = Some(main);
    }

    fn log(&self) -> PathBuf {
        self.data.with_file_name("log")
    }

    fn start(&self, more: &[&str]) -> Child {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.command(&(self.flavour.run)(&self.data, self.port));
        command.args(more).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// A program of the server's, in the data folder, as a user that the server accepts.
    fn command(&self, words: &[String]) -> Command {
        let (program, arguments) = words.split_first().unwrap();
        let program = find(program);
        let mut command = match other_user(self.flavour) {
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".into()]);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments).current_dir(&self.data).stdin(Stdio::null()).process_group(0);
        // MariaDB removes what looks like its own in there when it starts, also the temporary tables of another server.
        command.env("TMPDIR", self.data.with_file_name(TEMPORARY));
        command
    }

    /// Both servers work in their data folder, which no other process does. PostgreSQL's processes have no group and, once
    /// the first is dead, no parent in common.
    fn processes(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.data))
            .collect()
    }
}

/// A server that answers nothing until this is dropped.
pub struct Stopped<'a> {
    server: &'a Server,
}

impl Stopped<'_> {
    /// Lets the server go on.
    pub fn cont(self) {
        drop(self);
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        for pid in self.server.processes() {
            signal(pid, Signal::CONT);
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    // It may be gone already.
    let _ = kill_process(pid, signal);
}

fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = folders.iter().map(|folder| folder.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("these tests start a server of their own and need `{program}`: not in {folders:?}"))
}

/// The user that the server runs as, where the tests run as root.
fn other_user(flavour: &Flavour) -> Option<(u32, u32)> {
    let id = |option: &str, user: &str| {
        let said = Command::new("id").args([option, user]).output().unwrap();
        String::from_utf8_lossy(&said.stdout).trim().parse().ok()
    };
    let user = |user: &str| Some((id("-u", user)?, id("-g", user)?));
    if geteuid().is_root() { user(flavour.user).or_else(|| user("nobody")) } else { None }
}

/// A port that nobody listens at. Below those that the kernel gives to clients (32768 and up on Linux): while the server is
/// down a client that tries to connect could be given the server's own port, and would be connected to itself.
fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(20_000..32_000))
        .take(1000)
        .find(|port| {
            TcpListener::bind(("127.0.0.1", *port)).is_ok() && TcpStream::connect(("127.0.0.1", *port)).is_err()
        })
        .expect("a free port")
}

/// Waits for a condition; fails the test if it does not come true.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_at_most(PATIENCE, what, condition);
}

/// Waits for a condition; fails the test if it does not come true in time. Gives how long it took.
#[track_caller]
pub fn wait_at_most(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    started.elapsed()
}
