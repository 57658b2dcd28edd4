//! Routers as processes of their own: the measuring program starts itself again, as a router.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use equipoise_router::RouterConfig;
use equipoise_scheduler::SchedulerConfig;

use crate::{Latencies, say};

/// How long a router may take to see the fleet.
const FIRST_PICTURE: Duration = Duration::from_secs(20);
/// How often a router notes how old its picture of the others is.
const SAMPLING: Duration = Duration::from_millis(7);

/// What a process is told that is to be a router.
#[derive(Args, Clone, Debug)]
pub struct RouterRole {
    /// The control plane, `http://host:port`.
    #[arg(long = "router-control", hide = true)]
    pub control: Option<String>,
    /// Its name.
    #[arg(long = "router-name", hide = true, default_value = "router")]
    pub name: String,
    /// Its policy.
    #[arg(long = "router-policy", hide = true, default_value = "equipoise")]
    pub policy: String,
    /// Its seed.
    #[arg(long = "router-seed", hide = true, default_value_t = 0)]
    pub seed: u64,
    /// How many instances it waits for.
    #[arg(long = "router-instances", hide = true, default_value_t = 0)]
    pub instances: usize,
}

impl RouterRole {
    /// Is a router until standard input ends: says its address once it sees all instances, and at the end how old its
    /// picture of the others was, microseconds, one line each.
    ///
    /// # Errors
    /// When it does not start, or does not see the instances within 20 s.
    pub async fn play(&self, control: &str) -> anyhow::Result<()> {
        let mut config = RouterConfig::new(&self.name, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), control);
        config.scheduler = SchedulerConfig {
            policy: self.policy.clone(),
            seed: self.seed,
            ..SchedulerConfig::default()
        };
        let router = equipoise_router::start(config).await?;
        let settled = async {
            while router.available_instances() < self.instances {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(FIRST_PICTURE, settled).await.is_err() {
            bail!(
                "{} does not see all {} instances after {FIRST_PICTURE:?}",
                self.name,
                self.instances
            );
        }
        say(&format!("http://{}", router.addr()));
        let mut ages = Vec::new();
        let mut over = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        loop {
            tokio::select! {
                _ = &mut over => break,
                () = tokio::time::sleep(SAMPLING) => ages.extend(router.peers_age_s()),
            }
        }
        router.shutdown().await;
        let micros: Vec<String> = ages.iter().map(|age_s| format!("{:.0}", 1e6 * age_s)).collect();
        say(&micros.join("\n"));
        Ok(())
    }
}

/// A router in a process that this one has started. Dropped, it is killed.
#[derive(Debug)]
pub struct RouterProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    url: String,
}

impl RouterProcess {
    /// Starts one and waits until it sees its instances.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(role: &RouterRole) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--router-control", role.control.as_deref().unwrap_or_default()])
            .args(["--router-name", &role.name, "--router-policy", &role.policy])
            .args(["--router-seed", &role.seed.to_string()])
            .args(["--router-instances", &role.instances.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut router = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout.context("no standard output")?),
            url: String::new(),
        };
        router.stdout.read_line(&mut router.url)?;
        router.url.truncate(router.url.trim_end().len());
        if router.url.is_empty() {
            bail!("{} did not come up", role.name);
        }
        Ok(router)
    }

    /// `http://host:port`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets what runs finish, stops it, and adds to `ages` how old its picture of the others was.
    ///
    /// # Errors
    /// When it does not end in order.
    pub fn shutdown(mut self, ages: &mut Latencies) -> anyhow::Result<()> {
        drop(self.stdin.take());
        let mut text = String::new();
        self.stdout.read_to_string(&mut text)?;
        for micros in text.lines().filter_map(|line| line.parse().ok()) {
            ages.record(Duration::from_micros(micros));
        }
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "a router ended with {status}");
        Ok(())
    }
}

impl Drop for RouterProcess {
    fn drop(&mut self) {
        // It has ended already where all went well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
