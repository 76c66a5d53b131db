//! A TCP server with a thread for each client and a transaction for each request line.
//!
//! ```text
//! ADD nick full name…    OK | ERR nick taken
//! GET nick               OK full name… | ERR no such member
//! LIST                   OK nick nick nick…
//! RENAME old new         OK | ERR nick taken | ERR no such member
//! QUIT                   BYE, and the connection closes
//! anything else          ERR and what is wrong with it
//! ```
//!
//! A client's thread holds a connection only while it answers a line, so many clients share few connections. The example
//! drives its server with real clients, stops it and looks at what is stored.
//!
//! `cargo run --example thread_per_client`
#![allow(missing_docs, reason = "what diesel::table! makes has none")]
#![allow(clippy::print_stdout, reason = "it reports to its reader")]

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use diesel::prelude::*;
use diesel_session::{Error as SessionError, OptionalExt, ScopedSession};

mod support;
use support::{Conn, Database, check};

type Session = diesel_session::Session<Conn>;

diesel::table! {
    example_members (nick) {
        nick -> Text,
        full_name -> Text,
    }
}

// ---- the protocol ----

const LONGEST_LINE: u64 = 512;
const LONGEST_NICK: usize = 64;

enum Request<'a> {
    Add { nick: &'a str, full_name: String },
    Get { nick: &'a str },
    List,
    Rename { old: &'a str, new: &'a str },
    Quit,
}

impl<'a> Request<'a> {
    fn parse(line: &'a str) -> Result<Self, &'static str> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.iter().skip(1).take(2).any(|nick| nick.chars().count() > LONGEST_NICK) {
            return Err("a nick has at most 64 characters");
        }
        match *words.as_slice() {
            [] => Err("empty line"),
            ["ADD", nick, ref name @ ..] if !name.is_empty() => Ok(Self::Add { nick, full_name: name.join(" ") }),
            ["ADD", ..] => Err("usage: ADD nick full name"),
            ["GET", nick] => Ok(Self::Get { nick }),
            ["GET", ..] => Err("usage: GET nick"),
            ["LIST"] => Ok(Self::List),
            ["LIST", ..] => Err("usage: LIST"),
            ["RENAME", old, new] => Ok(Self::Rename { old, new }),
            ["RENAME", ..] => Err("usage: RENAME old new"),
            ["QUIT"] => Ok(Self::Quit),
            [..] => Err("unknown command"),
        }
    }
}

// ---- what a request does: plain functions on a session ----

fn add(session: &Session, nick: &str, full_name: &str) -> diesel_session::Result<String> {
    let row = (example_members::nick.eq(nick), example_members::full_name.eq(full_name));
    session.execute(diesel::insert_into(example_members::table).values(row))?;
    Ok("OK".into())
}

fn get(session: &Session, nick: &str) -> diesel_session::Result<String> {
    let found: Option<String> =
        session.first(example_members::table.find(nick).select(example_members::full_name)).optional()?;
    Ok(found.map_or_else(|| "ERR no such member".into(), |full_name| format!("OK {full_name}")))
}

fn list(session: &Session) -> diesel_session::Result<String> {
    let nicks: Vec<String> =
        session.load(example_members::table.select(example_members::nick).order(example_members::nick))?;
    Ok(std::iter::once("OK".to_owned()).chain(nicks).collect::<Vec<_>>().join(" "))
}

fn rename(session: &Session, old: &str, new: &str) -> diesel_session::Result<String> {
    let renamed =
        session.execute(diesel::update(example_members::table.find(old)).set(example_members::nick.eq(new)))?;
    Ok(if renamed == 1 { "OK".into() } else { "ERR no such member".into() })
}

/// A request is a transaction: a job for what writes, a read for what does not (which on SQLite waits for no writer).
fn answer(registry: &ScopedSession<Conn>, request: &Request<'_>) -> String {
    let answer = match request {
        Request::Add { nick, full_name } => registry.job(|session| add(session, nick, full_name)),
        Request::Rename { old, new } => registry.job(|session| rename(session, old, new)),
        Request::Get { nick } => registry.read(|session| get(session, nick)),
        Request::List => registry.read(list),
        Request::Quit => Ok("BYE".into()),
    };
    answer.unwrap_or_else(|error| {
        if error.is_unique_violation() { "ERR nick taken".into() } else { format!("ERR {}", one_line(&error)) }
    })
}

fn one_line(error: &SessionError) -> String {
    error.to_string().replace('\n', " ")
}

// ---- the server ----

struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    acceptor: JoinHandle<io::Result<()>>,
}

struct Client {
    stream: TcpStream,
    thread: JoinHandle<io::Result<()>>,
}

impl Server {
    fn start(registry: &ScopedSession<Conn>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = std::thread::spawn({
            let registry = registry.clone();
            let stopping = Arc::clone(&stopping);
            move || accept(&registry, &listener, &stopping)
        });
        Ok(Self { address, stopping, acceptor })
    }

    /// Accepts nobody any more, lets each client's thread finish its line, and ends them all.
    fn stop(self) -> Result<(), Box<dyn Error>> {
        self.stopping.store(true, Ordering::Release);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address)?);
        self.acceptor.join().map_err(|_| "the acceptor panicked")??;
        Ok(())
    }
}

fn accept(registry: &ScopedSession<Conn>, listener: &TcpListener, stopping: &AtomicBool) -> io::Result<()> {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let (stream, _) = listener.accept()?;
        if stopping.load(Ordering::Acquire) {
            break;
        }
        clients.retain(|client| !client.thread.is_finished());
        let own = stream.try_clone()?;
        let thread = registry.spawn({
            let registry = registry.clone();
            move || serve(&registry, stream)
        });
        clients.push(Client { stream: own, thread });
    }
    for client in &clients {
        // A thread that waits for a line now reads the end; one that answers a line finishes that first.
        let _ = client.stream.shutdown(Shutdown::Read);
    }
    for client in clients {
        // A client that went away in the middle of an answer is no failure of the server.
        let _ = client.thread.join();
    }
    Ok(())
}

/// One client, from its first line to its last.
fn serve(registry: &ScopedSession<Conn>, stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if !line.ends_with(b"\n") && read as u64 == LONGEST_LINE {
            // Where the next line begins is anybody's guess.
            writer.write_all(b"ERR line too long\n")?;
            return Ok(());
        }
        let (reply, last) = match std::str::from_utf8(&line).map_err(|_| "not UTF-8").and_then(Request::parse) {
            Ok(request) => (answer(registry, &request), matches!(request, Request::Quit)),
            Err(wrong) => (format!("ERR {wrong}"), false),
        };
        writer.write_all(format!("{reply}\n").as_bytes())?;
        if last {
            return Ok(());
        }
    }
}

// ---- clients, to drive it ----

struct Conversation {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Conversation {
    fn open(server: SocketAddr) -> io::Result<Self> {
        let writer = TcpStream::connect(server)?;
        // Nothing here takes that long: a server that never answers is an error, not a program that hangs.
        writer.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer })
    }

    fn ask(&mut self, line: &str) -> io::Result<String> {
        self.send(line.as_bytes())
    }

    /// The answer to a line; empty if the server closed.
    fn send(&mut self, line: &[u8]) -> io::Result<String> {
        self.writer.write_all(line)?;
        self.writer.write_all(b"\n")?;
        let mut reply = String::new();
        self.reader.read_line(&mut reply)?;
        Ok(reply.trim_end().to_owned())
    }
}

const CLIENTS: usize = 12;
const MEMBERS: usize = 5;

/// What one client saw: whether it got the nick that all want, and answers that were not as they should be.
struct Seen {
    founder: bool,
    wrong: Vec<String>,
}

fn client(server: SocketAddr, number: usize) -> io::Result<Seen> {
    let mut talk = Conversation::open(server)?;
    let mut seen = Seen { founder: false, wrong: Vec::new() };
    let mut expect = |talk: &mut Conversation, line: &str, wanted: &str| -> io::Result<()> {
        let reply = talk.ask(line)?;
        if reply != wanted {
            seen.wrong.push(format!("client {number}: {line}: {reply}, not {wanted}"));
        }
        Ok(())
    };
    for member in 0..MEMBERS {
        expect(&mut talk, &format!("ADD m{number}.{member} Member {member} of {number}"), "OK")?;
        expect(&mut talk, &format!("GET m{number}.{member}"), &format!("OK Member {member} of {number}"))?;
    }
    expect(&mut talk, &format!("ADD m{number}.0 Somebody else"), "ERR nick taken")?;
    expect(&mut talk, &format!("RENAME m{number}.0 m{number}.1"), "ERR nick taken")?;
    expect(&mut talk, &format!("RENAME m{number}.0 r{number}"), "OK")?;
    expect(&mut talk, &format!("RENAME m{number}.0 again"), "ERR no such member")?;
    expect(&mut talk, &format!("GET m{number}.0"), "ERR no such member")?;
    expect(&mut talk, "FROBNICATE", "ERR unknown command")?;
    expect(&mut talk, "ADD nameless", "ERR usage: ADD nick full name")?;
    expect(&mut talk, "", "ERR empty line")?;
    expect(&mut talk, &format!("GET {}", "x".repeat(65)), "ERR a nick has at most 64 characters")?;

    let founder = talk.ask(&format!("ADD founder Client {number}"))?;
    if founder != "OK" && founder != "ERR nick taken" {
        seen.wrong.push(format!("client {number}: founder: {founder}"));
    }
    seen.founder = founder == "OK";
    if number.is_multiple_of(3) {
        // This one hangs up without a word.
        return Ok(seen);
    }
    let bye = talk.ask("QUIT")?;
    if bye != "BYE" {
        seen.wrong.push(format!("client {number}: QUIT: {bye}"));
    }
    Ok(seen)
}

fn main() -> Result<(), Box<dyn Error>> {
    let database = Database::open()?;
    let columns = "nick VARCHAR(64) NOT NULL PRIMARY KEY, full_name TEXT NOT NULL";
    let engine = database.engine("club", "example_members", columns, |builder| builder.max_size(4))?;
    let registry = ScopedSession::new(engine);
    let server = Server::start(&registry)?;
    let address = server.address;
    println!("{CLIENTS} clients, {} connections", registry.engine().max_size());

    let clients: Vec<_> = (0..CLIENTS).map(|number| std::thread::spawn(move || client(address, number))).collect();
    let mut founders = 0;
    let mut wrong = Vec::new();
    for thread in clients {
        let seen = thread.join().map_err(|_| "a client panicked")??;
        founders += usize::from(seen.founder);
        wrong.extend(seen.wrong);
    }
    for line in &wrong {
        println!("{line}");
    }
    check("each client got the answers that the protocol promises", wrong.is_empty())?;
    check("of those who wanted the same nick one got it", founders == 1)?;

    let mut odd = Conversation::open(address)?;
    check("bytes that are no text are refused", odd.send(b"GET \xff\xfe")? == "ERR not UTF-8")?;
    let endless = odd.send("x".repeat(4_096).as_bytes())?;
    check("and so is a line without an end", endless == "ERR line too long")?;

    let mut idle = Conversation::open(address)?;
    let listed = idle.ask("LIST")?;
    server.stop()?;
    // The other side is closed: the answer is the end of the stream, or the system's word for it.
    let closed = idle.ask("LIST").unwrap_or_default().is_empty();
    check("the server stops also while a client is connected and silent", closed)?;
    registry.shutdown(Duration::from_secs(5))?;

    // A registry that is shut down begins nothing; a new engine looks at what is stored.
    let stored = database.look("club")?;
    let stored: Vec<(String, String)> =
        Session::new(&stored).load(example_members::table.order(example_members::nick))?;
    println!("{} members stored", stored.len());
    check("every member that was answered with OK is stored, and nobody else", stored.len() == CLIENTS * MEMBERS + 1)?;
    let nicks: Vec<&str> = stored.iter().map(|(nick, _)| nick.as_str()).collect();
    check("LIST had said the same", listed == format!("OK {}", nicks.join(" ")))?;
    let renamed = (0..CLIENTS).all(|number| {
        let member = (format!("r{number}"), format!("Member 0 of {number}"));
        stored.contains(&member)
    });
    check("and the renamed ones kept their full names", renamed)
}
