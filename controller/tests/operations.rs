//! What operators have of a controller: metrics, the watchdog of the service manager, the unit, the package.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::controller::{Controller, PROGRAM};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const UNIT: &str = include_str!("../packaging/xdpgate-controller.service");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn docs(file: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/docs/{file}")).unwrap()
}

/// Whether a tool is here. Without it a test is skipped and says so; under `CI` it fails.
fn has_tool(name: &str) -> bool {
    let is_here = Command::new("sh")
        .args(["-c", "command -v \"$0\"", name])
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .success();
    let is_ci = std::env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false");
    assert!(is_here || !is_ci, "CI is set and {name} is not here");
    if !is_here {
        eprintln!("skipped: {name} is not here");
    }
    is_here
}

/// The status of what a path answers to nobody.
fn status(controller: &Controller, path: &str) -> u16 {
    let address = controller.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The samples of the metrics, by name and labels.
fn scrape(controller: &Controller) -> (String, BTreeMap<String, f64>) {
    let text = controller.ok(&["metrics"]);
    let samples = text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    let samples = samples.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    let samples = samples.collect();
    (text, samples)
}

fn types(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|l| l.strip_prefix("# TYPE "));
    let types = types.filter_map(|l| l.split_once(' '));
    types.map(|(n, t)| (n.to_owned(), t.to_owned())).collect()
}

/// The labels of a metric, without that of buckets.
fn labels(samples: &BTreeMap<String, f64>, metric: &str) -> BTreeSet<String> {
    let parts = ["", "_bucket", "_sum", "_count"].map(|end| format!("{metric}{end}"));
    let mut labels = BTreeSet::new();
    for series in samples.keys() {
        let Some((name, rest)) = series.split_once('{') else {
            continue;
        };
        if parts.iter().any(|part| part == name) {
            let pairs = rest.trim_end_matches('}').split(',');
            labels.extend(pairs.filter_map(|p| Some(p.split_once('=')?.0.to_owned())));
        }
    }
    labels.remove("le");
    labels
}

/// A controller that has done some of each.
fn used() -> Controller {
    let controller = Controller::start();
    controller.file("lists/bad.txt", "203.0.113.7\n198.51.100.0/24\n");
    let policy = controller.file("web.yaml", "version: 1\nrules: []\n");
    controller.ok(&["policy", "apply", "web", policy.to_str().unwrap()]);
    controller.ok(&["feed", "add", "bad", "--path", "bad.txt"]);
    controller.ok(&["feed", "run", "bad", "--wait", "30s"]);
    controller
}

#[test]
fn r95_the_metrics_tell_what_was_done() {
    let controller = Controller::start();
    assert_eq!(status(&controller, "/api/v1/metrics"), 401);
    assert_eq!(status(&controller, "/api/v1/health"), 200);
    let (text, before) = scrape(&controller);
    let at = |samples: &BTreeMap<String, f64>, series: &str| -> f64 {
        let value = samples.get(&format!("xdpgate_controller_{series}"));
        *value.unwrap_or_else(|| panic!("no {series} in {text}"))
    };
    // What has not happened yet is there, so that the first time is seen.
    assert_eq!(at(&before, "drift_total"), 0.0);
    assert_eq!(at(&before, "states_refused_total{reason=\"policy\"}"), 0.0);
    assert_eq!(at(&before, "acknowledge_duration_seconds_count"), 0.0);
    // With the password that is good once, and with the one that was chosen.
    assert_eq!(at(&before, "logins_total{result=\"accepted\"}"), 2.0);
    assert_eq!(at(&before, "nodes{state=\"fresh\"}"), 0.0);

    let policy = controller.file("web.yaml", "version: 1\nrules: []\n");
    let policy = policy.to_str().unwrap();
    controller.ok(&["policy", "apply", "web", policy]);
    controller.ok(&["policy", "list"]);
    controller.fails(&["policy", "get", "none"]);
    controller.file("wrong", "wrong");
    controller.fails(&["login", "--password-file", &controller.path("wrong")]);
    let (_, after) = scrape(&controller);
    let grown = |series: &str| {
        let key = format!("xdpgate_controller_{series}");
        after.get(&key).copied().unwrap_or(0.0) - before.get(&key).copied().unwrap_or(0.0)
    };
    let class = |status| format!("http_requests_total{{class=\"policies\",status=\"{status}\"}}");
    assert_eq!(grown(&class("2xx")), 2.0);
    assert_eq!(grown(&class("4xx")), 1.0);
    assert_eq!(
        grown("http_request_duration_seconds_count{class=\"policies\"}"),
        3.0
    );
    assert_eq!(grown("logins_total{result=\"refused\"}"), 1.0);
    assert!(grown("transactions_total{outcome=\"committed\"}") >= 1.0);
    assert!(grown("store_duration_seconds_count{call=\"commit\"}") >= 1.0);
    assert!(grown("revision") >= 1.0);
    let now = jiff::Timestamp::now().as_second() as f64;
    assert!(at(&after, "authority_expiry_timestamp_seconds") > now + 86_400.0);
    assert!(after["process_resident_memory_bytes"] > 1e6);
}

/// The page has every metric that a controller exports, and no other; alerts and dashboard name those that are
/// exported by controllers or, as their page says, by nodes.
#[test]
fn r130_page_alerts_and_dashboard_of_the_fleet_name_what_is_exported() {
    let controller = used();
    let (text, samples) = scrape(&controller);
    let types = types(&text);
    let page = docs("monitoring-fleet.md");
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let named = cells[3].split(", ").filter(|l| !l.is_empty());
        let named: BTreeSet<String> = named.map(str::to_owned).collect();
        let name = cells[1].trim_matches('`').to_owned();
        let twice = rows.insert(name, (cells[2].to_owned(), named));
        assert_eq!(twice, None, "{line}");
    }
    let own = types.iter().filter(|(n, _)| !n.starts_with("process_"));
    for (name, kind) in own {
        let row = rows
            .remove(name)
            .unwrap_or_else(|| panic!("{name}: no row"));
        assert_eq!(row, (kind.clone(), labels(&samples, name)), "{name}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
    assert_eq!(rows, BTreeMap::new(), "on the page, and nobody exports it");

    // Of nodes: a test of the daemon sees that they are exported.
    let node = docs("monitoring.md");
    let is_known = |name: &str| {
        let whole = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end).filter(|n| types.contains_key(*n)));
        types.contains_key(whole.unwrap_or(name)) || node.contains(&format!("- `{name}` ("))
    };
    for (file, least) in [
        ("monitoring/fleet-alerts.yaml", 12),
        ("monitoring/fleet-alerts_test.yaml", 10),
        ("monitoring/fleet-dashboard.json", 20),
    ] {
        let text = docs(file);
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let words = text.split(|c| !is_word(c));
        let words = words.filter(|w| w.starts_with("xdpgate_") || w.starts_with("process_"));
        let names: BTreeSet<&str> = words.collect();
        for name in &names {
            assert!(is_known(name), "{file} names {name}, which nobody exports");
        }
        assert!(names.len() >= least, "{file}: {names:?}");
    }

    let dashboard: serde_json::Value =
        serde_json::from_str(&docs("monitoring/fleet-dashboard.json")).unwrap();
    let mut rules = String::from("groups:\n  - name: panels\n    rules:\n");
    let panels = dashboard["panels"].as_array().unwrap();
    let shown = panels.iter().filter(|panel| panel["type"] != "row");
    for (n, panel) in shown.enumerate() {
        assert_ne!(
            panel["description"].as_str().unwrap_or_default(),
            "",
            "{panel}"
        );
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for (m, target) in targets.iter().enumerate() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("$__rate_interval", "5m")
                .replace("$instance", ".*");
            assert!(!expression.contains('$'), "{expression}");
            let expression = serde_json::Value::from(expression);
            rules += &format!("      - {{ record: 'panel:{n}_{m}', expr: {expression} }}\n");
        }
    }
    if !has_tool("promtool") {
        return;
    }
    let panels = controller.file("panels.yaml", &rules);
    let promtool = |arguments: &[&str], input: &str| {
        let mut child = Command::new("promtool")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "promtool {arguments:?}: {said}");
        said
    };
    let file = |name: &str| format!("{ROOT}/docs/monitoring/{name}");
    promtool(&["check", "rules", panels.to_str().unwrap()], "");
    promtool(
        &["check", "rules", "--lint-fatal", &file("fleet-alerts.yaml")],
        "",
    );
    promtool(&["test", "rules", &file("fleet-alerts_test.yaml")], "");
    assert_eq!(promtool(&["check", "metrics"], &text), "");
}

/// A service manager: what it is told, datagram by datagram.
struct Manager(UnixDatagram);

impl Manager {
    /// Reads until something with this line comes; gives that, and how many were `WATCHDOG=1` before.
    #[track_caller]
    fn until(&self, line: &str) -> (String, usize) {
        let (mut alive, mut buffer) = (0, [0; 4096]);
        loop {
            let length = self.0.recv(&mut buffer);
            let length = length.unwrap_or_else(|e| panic!("waited for {line}: {e}"));
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if said.lines().any(|l| l.starts_with(line)) {
                return (said, alive);
            }
            alive += usize::from(said.trim() == "WATCHDOG=1");
        }
    }
}

#[test]
fn the_service_manager_is_told_that_the_controller_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify.sock");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    let wait = Some(Duration::from_secs(20));
    manager.0.set_read_timeout(wait).unwrap();
    let controller = Controller::start_with(|command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "1000000");
    });
    let (_, early) = manager.until("READY=1");
    assert_eq!(early, 0, "it is not alive before it is ready");
    // At half of the time that was asked for; a machine that stands still for a moment does not do so each time.
    let ten = || {
        let first = Instant::now();
        for _ in 0..5 {
            manager.until("WATCHDOG=1");
        }
        first.elapsed()
    };
    let took: Vec<Duration> = std::iter::repeat_with(ten).take(3).collect();
    let longest = Duration::from_secs(5);
    assert!(took.iter().any(|took| *took < longest), "{took:?}");
    let (status, _) = manager.until("WATCHDOG=1");
    assert_eq!(status.trim(), "WATCHDOG=1");
    let pid = Pid::from_raw(controller.pid().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    manager.until("STOPPING=1");
}

/// A unit as it would be where this program is installed.
fn unit(dir: &Path) -> String {
    let path = dir.join("xdpgate-controller.service");
    let here = UNIT.replace("/usr/bin/xdpgate-controller", PROGRAM);
    std::fs::write(&path, here).unwrap();
    path.display().to_string()
}

#[test]
fn r97_systemd_takes_the_unit_of_the_controller_and_it_exposes_little() {
    if !has_tool("systemd-analyze") || !has_tool("man") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man");
    let made = Command::new(PROGRAM).arg("man").arg(&pages).status();
    assert!(made.unwrap().success());
    let unit = unit(dir.path());
    let verify = |pages: &Path| {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=yes", &unit]);
        let output = command.env("MANPATH", pages).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    assert_eq!(verify(&pages), (true, String::new()));
    // And it does look for them.
    let (_, said) = verify(Path::new("/nowhere"));
    assert!(said.contains("xdpgate-controller(8)"), "{said}");
    // Of 10, where 10 is a service that may do anything.
    let arguments = ["security", "--offline=true", "--threshold=15", &unit];
    let output = Command::new("systemd-analyze").args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn r131_what_the_package_of_the_controller_is_made_of_is_there() {
    let dir = env!("CARGO_MANIFEST_DIR");
    let manifest = std::fs::read_to_string(format!("{dir}/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let mut installed = Vec::new();
    for asset in deb["assets"].as_array().unwrap() {
        let part = |index: usize| asset[index].as_str().unwrap();
        if !part(0).contains("target/") {
            assert!(Path::new(dir).join(part(0)).exists(), "{asset:?}");
        }
        installed.push(format!("/{}", part(1)));
    }
    for place in [
        deb["conf-files"][0].as_str().unwrap(),
        "/usr/share/man/man8/",
        "/usr/share/bash-completion/completions/",
    ] {
        assert!(
            installed.iter().any(|i| i == place),
            "{place}: {installed:?}"
        );
    }
    for script in ["postinst", "prerm", "postrm"] {
        let path = Path::new(dir).join("packaging/debian").join(script);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\n#DEBHELPER#\n"), "{script}");
        let checked = Command::new("sh").arg("-n").arg(&path).status();
        assert!(checked.unwrap().success(), "{script}");
    }
    // What the unit starts has the directories that the unit makes.
    let shown = Command::new(PROGRAM)
        .args(["config", "print-default"])
        .output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    assert!(shown.contains("state_dir = \"/var/lib/xdpgate-controller\""));
    assert!(UNIT.contains("\nStateDirectory=xdpgate-controller\n"));
    // Nobody feeds the watchdog of another kind of service.
    assert!(UNIT.contains("\nType=notify\n") && UNIT.contains("\nWatchdogSec=30\n"));
}

/// Every route that docs/from-xdrop.md names as a counterpart is one.
#[test]
fn what_xdrop_has_has_a_counterpart() {
    let page = docs("from-xdrop.md");
    let table = page.split("## API").nth(1).unwrap();
    let rows = table.lines().filter(|l| l.starts_with("| `"));
    let (mut count, mut unknown) = (0, Vec::new());
    for row in rows {
        let ours = row.split('|').nth(2).unwrap();
        let words = ours.split(['`', ' ', ',', '?']);
        for path in words.filter(|word| word.starts_with('/')) {
            let is_it = |route: &str| {
                let route = route.trim_start_matches("/api/v1").split('/');
                let path = path.split('/');
                let both = route.clone().zip(path.clone());
                let alike =
                    |(a, b): (&str, &str)| a == b || a.starts_with('{') && b.starts_with('{');
                route.count() == path.count() && both.into_iter().all(alike)
            };
            count += 1;
            let mut table = xdpgate_controller::http::TABLE.iter();
            if !table.any(|(_, route, _)| is_it(route)) {
                unknown.push(path.to_owned());
            }
        }
    }
    assert!(unknown.is_empty(), "there is no {unknown:?}");
    assert!(count > 15, "{count}");
}
