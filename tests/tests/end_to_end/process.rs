//! Processes of the product.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{PATIENCE, eventually};

/// The product, freshly built.
const PRODUCT: &str = env!("CARGO_BIN_EXE_equipoise-under-test");

/// A running process. Dropped it is killed, and where the test is failing its output is printed.
pub(crate) struct Process {
    title: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts the product.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(PRODUCT);
        command
            .args(arguments)
            .env_remove("EQUIPOISE_CONTROL")
            .env("EQUIPOISE_ADMIN_LISTEN", "127.0.0.1:0")
            .env("EQUIPOISE_LOG", "info");
        Self::spawn(&format!("equipoise {}", arguments.join(" ")), &mut command).expect("the product starts")
    }

    /// Starts anything.
    pub(crate) fn spawn(title: &str, command: &mut Command) -> std::io::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = Arc::default();
        let readers = [
            child.stdout.take().map(|pipe| keep(pipe, Arc::clone(&lines))),
            child.stderr.take().map(|pipe| keep(pipe, Arc::clone(&lines))),
        ];
        Ok(Self {
            title: title.to_owned(),
            child,
            lines,
            readers: readers.into_iter().flatten().collect(),
        })
    }

    /// All it has said so far, both outputs together.
    pub(crate) fn output(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// The first line that contains `text`, as soon as there is one. Fails if the process ends before.
    pub(crate) async fn line_with(&mut self, text: &str) -> String {
        let found = |output: String| output.lines().find(|line| line.contains(text)).map(str::to_owned);
        eventually(&format!("`{}` says `{text}`", self.title), || {
            let ended = self.child.try_wait().expect("a child can be asked");
            if ended.is_some() {
                self.readers.drain(..).for_each(|reader| drop(reader.join()));
            }
            let line = found(self.output());
            if let (None, Some(status)) = (&line, ended) {
                panic!("`{}` ended ({status}) before it said `{text}`", self.title);
            }
            std::future::ready(line)
        })
        .await
    }

    /// `kill -9`: no farewell.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        drop(self.child.wait());
    }

    /// Memory that it holds now, KiB; `None` where the system does not tell.
    pub(crate) fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// SIGTERM: please stop.
    pub(crate) fn terminate(&self) {
        assert!(self.ask_to_stop(), "SIGTERM cannot be sent");
    }

    fn ask_to_stop(&self) -> bool {
        let sent = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        sent.is_ok_and(|status| status.success())
    }

    /// For a program with processes of its own, which `kill -9` would orphan: asks it to stop, and waits a while.
    pub(crate) fn let_go(&mut self) {
        if !self.ask_to_stop() {
            return;
        }
        for _ in 0..300 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = eventually(&format!("`{}` ends", self.title), || {
            std::future::ready(self.child.try_wait().expect("a child can be asked"))
        })
        .await;
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
        status
    }

    /// SIGTERM, and it ends well.
    pub(crate) async fn stop(&mut self) {
        self.terminate();
        let status = self.ended().await;
        assert!(status.success(), "`{}` ended with {status}", self.title);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("---- {}\n{}\n----", self.title, self.output());
        }
    }
}

fn keep(pipe: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

/// What a command that ends by itself said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command of the product to its end.
pub(crate) async fn run(arguments: &[&str]) -> Said {
    let mut command = tokio::process::Command::new(PRODUCT);
    command
        .args(arguments)
        .env_remove("EQUIPOISE_CONTROL")
        .kill_on_drop(true)
        .stdin(Stdio::null());
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("`equipoise {}` never ended", arguments.join(" ")))
        .expect("the product starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
    Said {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Runs a command that must succeed, and gives what it printed.
pub(crate) async fn succeed(arguments: &[&str]) -> String {
    let said = run(arguments).await;
    assert_eq!(said.code, Some(0), "`equipoise {}`: {said:?}", arguments.join(" "));
    said.stdout
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}
