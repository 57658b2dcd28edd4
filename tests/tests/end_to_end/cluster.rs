//! Constellations of the product: all in one process, or each service on its own.

use std::io::Write as _;

use tempfile::NamedTempFile;

use crate::client::Client;
use crate::eventually;
use crate::process::{Process, free_port, run};

/// Any free port of the loopback interface.
const ANY: &str = "127.0.0.1:0";

/// `equipoise up`, with its whole fleet at work.
pub(crate) struct Up {
    pub(crate) process: Process,
    pub(crate) router: Client,
    pub(crate) page: Client,
    /// For `--control`.
    pub(crate) control: String,
}

impl Up {
    /// Starts it with these options more; the built-in fleet unless they name another.
    pub(crate) async fn start(options: &[&str]) -> Self {
        let mut arguments = vec!["up", "--nvml", "off"];
        arguments.extend(["--listen", ANY, "--control-listen", ANY, "--page-listen", ANY]);
        arguments.extend(options);
        let mut process = Process::start(&arguments);
        process.line_with("Stop:").await;
        let router = url(&process.line_with("OpenAI API").await);
        let admin = url(&process.line_with("router admin").await);
        let page = url(&process.line_with("fleet page").await);
        let control = url(&process.line_with("control plane").await);
        let output = process.output();
        assert!(!output.contains("warning: only"), "the whole fleet answers: {output}");
        Self {
            process,
            router: Client::new(router.trim_end_matches("/v1")).with_admin(&admin),
            page: Client::new(&page),
            control,
        }
    }
}

/// A control plane in its own process.
pub(crate) struct ControlPlane {
    pub(crate) process: Process,
    store: String,
    /// For `--control`.
    pub(crate) url: String,
}

impl ControlPlane {
    pub(crate) async fn start(store: &str) -> Self {
        Self::start_at(store, ANY).await
    }

    async fn start_at(store: &str, listen: &str) -> Self {
        let arguments = [
            "control-plane",
            "--store",
            store,
            "--listen",
            listen,
            "--page-listen",
            "off",
        ];
        let mut process = Process::start(&arguments);
        let line = process.line_with("control plane: gRPC on").await;
        let address = line.split_whitespace().find_map(|word| word.strip_suffix(','));
        let url = format!("http://{}", address.expect("an address"));
        Self {
            process,
            store: store.to_owned(),
            url,
        }
    }

    /// Another process in place of the one that was killed.
    pub(crate) async fn restart(&mut self) {
        let fresh = Self::start_at(&self.store, self.url.trim_start_matches("http://")).await;
        assert_eq!(fresh.url, self.url);
        *self = fresh;
    }
}

/// A router in its own process, under the default policy.
pub(crate) async fn router(control: &str, name: &str) -> (Process, Client) {
    router_with(control, name, "equipoise").await
}

pub(crate) async fn router_with(control: &str, name: &str, policy: &str) -> (Process, Client) {
    started(control, name, ["--policy", policy]).await
}

async fn started(control: &str, name: &str, more: [&str; 2]) -> (Process, Client) {
    let usual = ["router", "--control", control, "--listen", ANY, "--name", name];
    let mut process = Process::start(&[&usual[..], &more].concat());
    let router = url(&process.line_with("router: http").await);
    let admin = url(&process.line_with("router: admin").await);
    let client = Client::new(router.trim_end_matches("/v1")).with_admin(admin.trim_end_matches("/metrics"));
    (process, client)
}

/// A router in its own process under the `[scheduler]` of a fleet file.
pub(crate) async fn router_under(control: &str, name: &str, fleet: &FleetFile) -> (Process, Client) {
    started(control, name, ["--fleet", fleet.path()]).await
}

/// Emulated engines, each a process of its own that can be killed and started again at the same address.
pub(crate) struct Engines {
    emulated: FleetFile,
    /// For an agent: the same pool by its endpoints.
    pub(crate) real: FleetFile,
    pub(crate) processes: Vec<Process>,
    pub(crate) addresses: Vec<String>,
}

impl Engines {
    /// So many engines of a pool `engine`: `head` is what stands before the pool, `pool` its lines beside name, count
    /// and endpoints.
    pub(crate) async fn start(head: &str, pool: &str, count: usize) -> Self {
        let addresses: Vec<String> = (0..count).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let named = format!("{head}\n[[pool]]\nname = \"engine\"\n{pool}\n");
        let endpoints: Vec<String> = addresses
            .iter()
            .map(|address| format!("\"http://{address}\""))
            .collect();
        let mut engines = Self {
            emulated: FleetFile::new(&format!("{named}count = {count}\n")),
            real: FleetFile::new(&format!("{named}endpoints = [{}]\n", endpoints.join(", "))),
            processes: Vec::new(),
            addresses,
        };
        for number in 0..count {
            let process = engines.process(number).await;
            engines.processes.push(process);
        }
        engines
    }

    async fn process(&self, number: usize) -> Process {
        let (instance, listen) = (format!("engine-{number}"), &self.addresses[number]);
        let arguments = [
            "emulator",
            "--fleet",
            self.emulated.path(),
            "--instance",
            &instance,
            "--listen",
            listen,
        ];
        let mut process = Process::start(&arguments);
        process.line_with("emulator: engine").await;
        process
    }

    /// Starts one again that was killed.
    pub(crate) async fn restart(&mut self, number: usize) {
        self.processes[number] = self.process(number).await;
    }

    /// An engine by its own address.
    pub(crate) fn client(&self, number: usize) -> Client {
        Client::new(&format!("http://{}", self.addresses[number]))
    }
}

/// A node's agent in its own process, which emulates the engines of its fleet file too.
pub(crate) async fn agent(control: &str, node: &str, fleet: &FleetFile) -> Process {
    let arguments = [
        "agent",
        "--control",
        control,
        "--node",
        node,
        "--fleet",
        fleet.path(),
        "--nvml",
        "off",
    ];
    let mut process = Process::start(&arguments);
    process.line_with("agent: node").await;
    process
}

/// The first URL in a line.
fn url(line: &str) -> String {
    let word = line.split([' ', ',']).find(|word| word.starts_with("http://"));
    word.unwrap_or_else(|| panic!("no URL in `{line}`"))
        .trim_end_matches('/')
        .to_owned()
}

/// A fleet file that lives as long as this.
pub(crate) struct FleetFile(NamedTempFile);

impl FleetFile {
    pub(crate) fn new(text: &str) -> Self {
        let mut file = NamedTempFile::with_suffix(".toml").expect("a file can be created");
        file.write_all(text.as_bytes()).expect("a file can be written");
        Self(file)
    }

    /// One pool of so many emulated H100s under a small model: answers come within milliseconds.
    pub(crate) fn quick(pool: &str, count: usize) -> Self {
        Self::new(&format!(
            "[[model]]\nname = \"gemma-2-2b\"\n\n[[pool]]\nname = \"{pool}\"\nmodel = \"gemma-2-2b\"\ngpu = \"H100\"\ncount = {count}\n"
        ))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.path().to_str().expect("a path in UTF-8")
    }
}

/// One line of `equipoise fleet list`.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) running: u32,
}

/// What `equipoise fleet list` says.
#[derive(Debug)]
pub(crate) struct FleetList {
    pub(crate) instances: Vec<Row>,
    pub(crate) routers: Vec<String>,
}

impl FleetList {
    /// Asks the control plane; `None` where it does not answer.
    pub(crate) async fn ask(control: &str) -> Option<Self> {
        let said = run(&["fleet", "list", "--control", control]).await;
        if said.code != Some(0) {
            return None;
        }
        let row = |line: &str| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            Row {
                name: cells[0].to_owned(),
                state: cells[4].to_owned(),
                running: cells[6].parse().unwrap_or_default(),
            }
        };
        let instances = said.stdout.lines().skip(1).take_while(|line| !line.is_empty());
        let routers = said
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("routers: "))
            .expect("a line of routers");
        Some(Self {
            instances: instances.map(row).collect(),
            routers: routers
                .split(", ")
                .filter(|name| *name != "none")
                .map(str::to_owned)
                .collect(),
        })
    }

    pub(crate) fn state_of(&self, instance: &str) -> Option<&str> {
        self.instances
            .iter()
            .find(|row| row.name == instance)
            .map(|row| row.state.as_str())
    }
}

/// Waits until the control plane shows so many instances, all healthy, and this router.
pub(crate) async fn settled(control: &str, instances: usize, router: &str) {
    eventually(&format!("{instances} healthy instances and {router}"), || async {
        let fleet = FleetList::ask(control).await?;
        let healthy = fleet.instances.iter().filter(|row| row.state == "healthy").count();
        let all = healthy == instances && fleet.instances.len() == instances;
        (all && fleet.routers.iter().any(|name| name == router)).then_some(())
    })
    .await;
}

/// Waits until the router may send work to so many instances.
pub(crate) async fn available(router: &Client, instances: u64) {
    eventually(&format!("{instances} instances may get work"), || async {
        (router.get("/health").await.json()["available"] == instances).then_some(())
    })
    .await;
}
