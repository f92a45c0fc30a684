//! A fleet as files: `apply` and `export`. Row 124.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::controller::Controller;

const WEB: &str = "\
kind: Policy
name: web
comment: what customers see
version: 1
default: drop
failsafe: { ssh_from: [192.0.2.0/24] }
rules:
  - { id: https, match: { protocol: tcp, dport: [443, 8443] }, action: pass, comment: \"a 'b' # c\" }
  - id: block-bad
    priority: 10
    match: { src: '@bad' }
    action: drop
---
kind: Group
name: edge
selector: tier in (edge,lb),!legacy
policies: [web]
rank: 5
mode: dry_run
";

const BAD: &str = "\
kind: Set
name: bad
comment: 'who: scans us'
entries:
  - 203.0.113.7
  - { address: '2001:db8::', expires: 2099-01-01T00:00:00Z }
---
kind: Set
name: large
file: lists/large.txt
---
kind: Set
name: '7'
default_expiry: 86400
counters: entry
entries: [198.51.100.0/24]
";

fn fleet(controller: &Controller) -> String {
    controller.file("fleet/web.yaml", WEB);
    // Comes after what names it.
    controller.file("fleet/zz/sets.yaml", BAD);
    controller.file("fleet/.git/ignored.yaml", "kind: Nonsense\n");
    let list: String = (0..12_000)
        .map(|i| format!("10.{}.{}.0/24\n", i / 250, i % 250))
        .collect();
    controller.file("fleet/zz/lists/large.txt", &list);
    controller.path("fleet")
}

fn tree(dir: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for kind in fs::read_dir(dir).unwrap() {
        for file in fs::read_dir(kind.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            all.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
    all
}

#[test]
fn r124_a_directory_is_applied_once_and_export_gives_it_back() {
    let controller = Controller::start();
    let dir = fleet(&controller);

    // Words only: nothing is done.
    let output = controller.run(&["apply", "-f", &dir, "--diff"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("policy web: would be created")
            && text.contains("set large: would be created\n  12000 entries"),
        "{text}"
    );
    controller.ok(&["apply", "-f", &dir, "--plan"]);
    assert_eq!(controller.ok(&["policy", "list"]), "none\n");

    let said = controller.ok(&["apply", "-f", &dir, "--why", "merge 4711", "--wait", "100%"]);
    let places: Vec<usize> = ["set bad", "policy web: created", "group edge: created"]
        .iter()
        .map(|t| said.find(t).unwrap())
        .collect();
    assert!(places.is_sorted(), "{said}");
    let web = controller.json(&["policy", "get", "web"]);
    assert_eq!(web["comment"], "what customers see");
    assert_eq!(web["settings"]["default"], "drop");
    assert_eq!(controller.json(&["set", "get", "large"])["entries"], 12_000);
    assert!(
        controller
            .ok(&["policy", "history", "web"])
            .contains("merge 4711")
    );

    // Again: nothing.
    let before = controller.json(&["policy", "get", "web"]);
    assert_eq!(
        controller.ok(&["apply", "-f", &dir]),
        "all is as the files say\n"
    );
    assert_eq!(
        controller.ok(&["apply", "-f", &dir, "--diff"]),
        "all is as the files say\n"
    );
    assert_eq!(controller.json(&["policy", "get", "web"]), before);

    // To another controller and back.
    let (first, second) = (controller.path("first"), controller.path("second"));
    controller.ok(&["export", "-o", &first]);
    let other = Controller::start();
    other.ok(&["apply", "-f", &first]);
    other.ok(&["export", "-o", &second]);
    let (a, b) = (tree(Path::new(&first)), tree(Path::new(&second)));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, text) in &a {
        assert!(
            Some(text) == b.get(name),
            "{name} differs:\n{text}\n{:?}",
            b.get(name)
        );
    }
    assert!(
        a.contains_key("sets/large.txt")
            && a.contains_key("policies/web.yaml")
            && a.contains_key("groups/edge.yaml")
    );
    assert_eq!(
        controller.ok(&["apply", "-f", &first, "--diff"]),
        "all is as the files say\n"
    );

    // Not over files of somebody, unless told.
    let (code, error) = controller.fails(&["export", "-o", &first]);
    assert_eq!(code, 2);
    assert!(error.contains("--replace"), "{error}");
    controller.ok(&["group", "delete", "edge"]);
    controller.ok(&["export", "-o", &first, "--replace"]);
    assert!(!tree(Path::new(&first)).contains_key("groups/edge.yaml"));
}

#[test]
fn r124_feeds_are_files_too_and_what_they_bring_is_not() {
    let controller = Controller::start();
    controller.file("lists/bad.txt", "203.0.113.7\n203.0.113.8\n");
    let feed = |every: u64| {
        let text = format!(
            "kind: Feed\nname: bad\ncomment: scans\nsource: {{ kind: file, paths: [bad.txt] }}\nevery: {every}\n"
        );
        controller.file("fleet/bad.yaml", &text);
    };
    feed(7200);
    let dir = controller.path("fleet");
    let diff = controller.run(&["apply", "-f", &dir, "--diff"]);
    assert_eq!(diff.status.code(), Some(1));
    controller.ok(&["apply", "-f", &dir, "--plan"]);
    assert_eq!(controller.ok(&["feed", "list"]), "none\n");
    let said = controller.ok(&["apply", "-f", &dir]);
    assert!(said.contains("feed bad: created"), "{said}");
    assert_eq!(
        controller.ok(&["apply", "-f", &dir]),
        "all is as the files say\n"
    );
    controller.ok(&["feed", "run", "bad", "--wait", "30s"]);

    let out = controller.path("out");
    controller.ok(&["export", "-o", &out]);
    let files = tree(Path::new(&out));
    let names: Vec<&String> = files.keys().collect();
    assert_eq!(names, ["feeds/bad.yaml", "sets/bad.yaml"]);
    let set = &files["sets/bad.yaml"];
    assert!(
        !set.contains("entries") && !set.contains("203.0.113"),
        "{set}"
    );
    let said = controller.ok(&["apply", "-f", &out]);
    assert_eq!(said, "all is as the files say\n");

    feed(3600);
    let diff = controller.run(&["apply", "-f", &dir, "--diff"]);
    let text = String::from_utf8_lossy(&diff.stdout).into_owned();
    assert!(text.contains("~ every: 7200 -> 3600"), "{text}");
    let said = controller.ok(&["apply", "-f", &dir]);
    assert!(said.contains("feed bad: changed"), "{said}");

    // Only said: it is still there. Then it goes, and its set stays.
    fs::remove_file(controller.path("fleet/bad.yaml")).unwrap();
    let said = controller.ok(&["apply", "-f", &dir, "--plan", "--prune"]);
    assert!(said.contains("feed bad: would be deleted"), "{said}");
    controller.ok(&["feed", "show", "bad"]);
    let said = controller.ok(&["apply", "-f", &dir, "--prune"]);
    assert_eq!(said, "feed bad: deleted\n");
    assert_eq!(controller.ok(&["feed", "list"]), "none\n");
    assert_eq!(controller.json(&["set", "get", "bad"])["entries"], 2);
}

#[test]
fn r124_prune_deletes_only_what_apply_made() {
    let controller = Controller::start();
    let dir = fleet(&controller);
    controller.ok(&["set", "create", "by-hand"]);
    let theirs = controller.file("theirs.yaml", "kind: Set\nname: theirs\nentries: []\n");
    controller.ok(&["apply", "-f", theirs.to_str().unwrap(), "--owner", "others"]);
    controller.ok(&["apply", "-f", &dir]);
    // Without the word nothing goes.
    controller.file("fleet/web.yaml", "kind: Policy\nname: new\nrules: []\n");
    controller.ok(&["apply", "-f", &dir]);
    let names = |kind: &str| {
        let page = controller.json(&[kind, "list"]);
        let names = page["items"].as_array().unwrap().iter();
        names
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("policy"), ["new", "web"]);
    controller.file("fleet/zz/sets.yaml", "");
    let said = controller.ok(&["apply", "-f", &dir, "--prune"]);
    let places: Vec<usize> = [
        "group edge: deleted",
        "policy web: deleted",
        "set bad: deleted",
    ]
    .iter()
    .map(|t| said.find(t).expect(t))
    .collect();
    assert!(places.is_sorted(), "{said}");
    assert_eq!(names("policy"), ["new"]);
    assert_eq!(names("set"), ["by-hand", "theirs"]);
    assert_eq!(names("group"), Vec::<String>::new());
}

#[test]
fn r124_faults_are_all_said_and_nothing_is_sent() {
    let controller = Controller::start();
    let dir = fleet(&controller);
    controller.file(
        "fleet/a.yaml",
        "kind: Policy\nname: broken\nrules: [{ id: a, action: drp }]\n---\nkind: Set\nname: bad\n",
    );
    let output = controller.run(&["apply", "-f", &dir]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(
        error.contains("a.yaml:1: policy broken: rule a") && error.contains("set bad is in"),
        "{error}"
    );
    assert_eq!(controller.ok(&["set", "list"]), "none\n");

    // What the controller refuses ends it, and what was done is said.
    fs::remove_file(controller.dir().join("fleet/a.yaml")).unwrap();
    controller.file(
        "fleet/zz/sets.yaml",
        "kind: Set\nname: good\nentries: [10.0.0.1]\n",
    );
    let (code, error) = controller.fails(&["apply", "-f", &dir]);
    assert_eq!(code, 1);
    assert!(
        error.contains("policy web") && error.contains("1 of 4 changes were made"),
        "{error}"
    );
    assert_eq!(controller.json(&["set", "get", "good"])["entries"], 1);
    assert_eq!(controller.ok(&["policy", "list"]), "none\n");
    // Mended, it goes on from there.
    controller.file(
        "fleet/zz/more.yaml",
        "kind: Set\nname: bad\nentries: [10.0.0.2]\n",
    );
    let said = controller.ok(&["apply", "-f", &dir]);
    assert!(
        !said.contains("set good") && said.contains("policy web: created"),
        "{said}"
    );
}

#[test]
fn an_export_of_xdrop_becomes_a_policy() {
    let controller = Controller::start();
    let rules = r#"{"rules":[{"id":"r1","name":"n","src_ip":"203.0.113.7","action":"drop","enabled":true,"protocol":"tcp","dst_port":80}]}"#;
    let rules = controller.file("rules.json", rules);
    let out = controller.path("xdrop.yaml");
    controller.ok(&["import", "xdrop", rules.to_str().unwrap(), "-o", &out]);
    controller.ok(&["policy", "apply", "xdrop", &out]);
    assert_eq!(
        controller.json(&["rule", "get", "xdrop", "r1"])["action"],
        "drop"
    );
}
